"""Exports of published networks, of what cannot be traced, int8's gate, and OpenVINO's first call."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch

import export
import predict
from earshot import runs
from earshot.export import tracing
from earshot.export.tracing import random_inputs
from earshot.models import MODELS
from earshot.prediction.backends import OpenVinoBackend, TorchBackend, open_graph
from scripts import run
from test_export import FORMATS, graph_files, make_run

NETWORKS = {
    "b0": ["model.name=timm_sed", "model.params={backbone: tf_efficientnet_b0, pretrained: false, units: 32}"],
    "cnn14": ["model.name=cnn14_att", "model.params={widths: [8, 64, 16, 16, 24, 32], embedding: 32}"],
}


SIZES = [
    "frontends.logmel.n_mels=32",
    "data.crop_seconds=2.0",
    "predict.window_seconds=2.0",
    "predict.stride_seconds=2.0",
]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_published_networks_export(tiny, network):
    folder = make_run(tiny, NETWORKS[network] + SIZES)
    for graph_format, name in FORMATS.items():
        run(export, "--run", folder, "--format", graph_format, "--max-drop", "0.01")
        report = json.loads((folder / "fold0" / f"{name}.json").read_text())
        assert report["batch_norms"] == 0
        wide = int(network == "cnn14" and graph_format == "onnx")  # one convolution of 64 channels to 64
        assert report.get("minimal_filters", 0) == wide
        assert [row["inputs"]["logmel"][0] for row in report["parity"]] == [7, 1, 1, 1, 1]
        worst = max(row["max_difference"]["segmentwise_output"] for row in report["parity"])
        assert worst < 3e-3
        graph = open_graph(folder / "fold0" / name)
        eager = TorchBackend(runs.load_model(runs.load_run(folder).folds[0]), graph.frontends)
        for frames in (1, 31, 33, 333, 401, 1001):
            logmel = random_inputs(eager, 1, 80 * (frames - 1) or 1)["logmel"]
            assert logmel.shape[2] == frames
            found = graph.run({"logmel": logmel})["segmentwise_output"]
            np.testing.assert_allclose(found, eager.run({"logmel": logmel})["segmentwise_output"], atol=3e-3)


@pytest.mark.slow
@pytest.mark.parametrize("graph_format", FORMATS)
def test_int8_passes_a_wide_gate_and_fails_a_narrow_one(tiny, graph_format):
    folder = make_run(tiny, NETWORKS["cnn14"] + SIZES)
    report_of = folder / "fold0" / FORMATS[graph_format].replace("model", "model_int8")
    run(export, "--run", folder, "--format", graph_format, "--int8", "--max-drop", "0.2")
    report = json.loads(report_of.with_name(report_of.name + ".json").read_text())
    graph = onnx.load(report_of) if graph_format == "onnx" else None
    assert graph is None or sum(n.op_type == "DequantizeLinear" for n in graph.graph.node) > 10
    assert report["oof"]["drop"] <= 0.2
    assert open_graph(report_of).about["int8"] is True
    run(predict, "--run", folder, "--clips", "data/test_clips.csv", "--backend", graph_format, "--int8")
    before = graph_files(folder)
    with pytest.raises(ValueError, match=r"fold 0: the graph scores map .* a drop of .* more than the -1 allowed"):
        run(export, "--run", folder, "--format", graph_format, "--int8", "--max-drop", "-1")
    assert graph_files(folder) == before


class Untraceable(torch.nn.Module):
    """A network whose answer needs something that graphs do not know: eigenvalues."""

    inputs, activation, in_chans, min_frames, pool, dead_parameters = ("logmel",), "sigmoid", 1, 1, 1, ()

    def __init__(self, classes, n_mels):
        super().__init__()
        self.fc = torch.nn.Linear(n_mels, classes)

    def forward(self, logmel):
        logit = self.fc(torch.linalg.eigvalsh(logmel[:, 0].transpose(1, 2) @ logmel[:, 0]))
        return {"clipwise_output": logit.sigmoid(), "logit": logit}


@pytest.mark.slow
def test_networks_that_cannot_be_traced_say_so(tiny, monkeypatch):
    monkeypatch.setitem(MODELS, "untraceable", Untraceable)
    folder = make_run(tiny, ["model.name=untraceable", "model.params={}", "predict.keep_frames=false"])
    with pytest.raises(ValueError, match=r"model 'untraceable' cannot be exported: .*; predict with --backend torch"):
        run(export, "--run", folder, "--no-oof")


@pytest.mark.parametrize("graph_format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_modulation_expert_is_exported(tiny, graph_format):
    """Its transforms follow the length that comes: parity at every shape, two of them not a multiple of anything."""
    small = "model.params={widths: [4, 8], modulation_widths: [4, 8]}"
    overrides = ["model.name=cnn_modulation", small, "predict.keep_frames=false", "frontends.logmel.n_mels=64"]
    folder = make_run(tiny, overrides)
    run(export, "--run", folder, "--format", graph_format, "--no-oof", "--max-difference", "1e-4")
    graph = open_graph(folder / "fold0" / FORMATS[graph_format])
    eager = TorchBackend(runs.load_model(runs.load_run(folder).folds[0]), graph.frontends)
    for samples in (240, 5000, 11111, 24000):
        inputs = random_inputs(eager, 2, samples, seed=samples)
        np.testing.assert_allclose(graph.run(inputs)["logit"], eager.run(inputs)["logit"], atol=1e-3, rtol=1e-4)


def test_the_first_openvino_call_of_a_process_is_alone(monkeypatch):
    """Two threads in OpenVINO's first call have waited for each other for ever (a C++ static against the GIL)."""
    inside, most = [], []

    def infer(self, inputs):
        inside.append(1)
        most.append((len(inside), OpenVinoBackend.ready))
        time.sleep(0.02)
        inside.pop()
        return {}

    monkeypatch.setattr(OpenVinoBackend, "ready", False)
    monkeypatch.setattr(OpenVinoBackend, "_infer", infer)
    backend = OpenVinoBackend.__new__(OpenVinoBackend)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(backend._call, [{}] * 8)) == [{}] * 8
    assert most[0] == (1, False)
    assert all(count == 1 for count, ready in most if not ready)
    assert OpenVinoBackend.ready


@pytest.mark.slow
def test_torchs_newer_exporter_passes_the_same_gates_and_tells_nothing_of_this_machine(tiny):
    """Float32 and int8, whose parts in float32 are found by the modules' names; squeeze and excitation stays pooled."""
    small = "model.params={backbone: test_efficientnet, pretrained: false, units: 16}"
    folder = make_run(tiny, ["model.name=timm_sed", small, *SIZES])
    for more in ((), ("--int8", "--max-drop", "0.5", "--calibration-clips", "4")):
        run(export, "--run", folder, "--exporter", "dynamo", "--folds", "0", *more)
    written = onnx.load(folder / "fold0" / "model.onnx")
    kinds = [node.op_type for node in written.graph.node]
    assert kinds.count("GlobalAveragePool") >= 1
    assert kinds.count("BatchNormalization") <= 1
    assert {node.name.split("/")[1] for node in written.graph.node if node.op_type == "Conv"} == {"models.0"}
    small = onnx.load(folder / "fold0" / "model_int8.onnx")
    heads = [node for node in small.graph.node if "/head/" in node.name and node.op_type in ("Conv", "MatMul", "Gemm")]
    made_int8 = {name for node in small.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert heads
    assert not any(name in made_int8 for node in heads for name in node.input)
    assert any(name in made_int8 for node in small.graph.node if node.op_type == "Conv" for name in node.input)
    for path in (folder / "fold0").glob("model*.onnx"):
        stored = path.read_bytes()
        assert str(export.__file__).rsplit("/", 2)[0].encode() not in stored
        assert b"site-packages" not in stored
        assert b"stack_trace" not in stored
    listed = open_graph(folder / "fold0" / "model.onnx")
    assert listed.about["classes"]


@pytest.mark.slow
def test_a_frozen_axis_is_found_whichever_exporter_froze_it(tmp_path):
    """A length that a network compares with a number is fixed by torch.export, which does not say so."""

    class Frozen(torch.nn.Module):
        def forward(self, x):
            return (x.reshape(2, 101).mean(dim=1),)

    axes = {"x": {0: "batch", 1: "steps"}, "clipwise_output": {0: "batch"}}
    with pytest.raises((ValueError, RuntimeError)):
        tracing.written(Frozen(), {"x": torch.randn(2, 101)}, axes, tmp_path / "m.onnx", "dynamo")


def test_an_unknown_exporter_is_named(tiny):
    with pytest.raises(ValueError, match="legacy"):
        tracing.trace([], None, {}, tiny, "onnx")

"""Foreign networks as members: vocabularies, weights that map them, heads, bundles that carry their files, kernels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import export
import map_extractor
import tiny_graphs
import train
from earshot.config import load_config
from earshot.ensemble.choice import read_json
from earshot.inputs import extractor as extractors
from earshot.inputs.extractor import Extractor
from earshot.inputs.network import Inputs
from earshot.kaggle.bundling import BundleSettings, build, fetch_command
from earshot.kaggle.extractors import add_extractors
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.runner import KernelRun, run_kernel
from earshot.models import build_model
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Predictions
from scripts import run
from test_extractors import RATE, SIZE, foreign
from test_kernel_blend import COMPETITION, SLUG, folder  # noqa: F401, a fixture


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---- the head


def test_a_head_picks_outputs_and_answers_for_each_row():
    model = build_model("extractor_head", 2, 64, {"extractor_width": 3, "pooling": "max"}).eval()
    state = {"head.cla.weight": torch.tensor([[0.0, 1, 0], [0, 0, 1]]), "head.cla.bias": torch.zeros(2)}
    model.load_state_dict(state)
    rows = torch.tensor([[[9.0, 1, -2], [9, -1, 3]]])
    out = model(extractor=rows)
    np.testing.assert_allclose(out["segmentwise_output"][0].detach(), torch.sigmoid(rows[0, :, 1:]))
    np.testing.assert_allclose(out["logit"][0].detach(), [1, 3])
    single = model(extractor=rows[:, 0])
    np.testing.assert_allclose(single["clipwise_output"].detach(), torch.sigmoid(rows[:, 0, 1:]))
    trained = build_model("extractor_head", 2, 64, {"extractor_width": 3, "normalise": True, "hidden": [5]})
    assert set(dict(trained.named_parameters())) >= {"bn0.weight", "fc_hidden.0.weight", "head.cla.weight"}


def test_frames_of_rows_lie_on_the_rows_own_stride():
    record = Extractor(sample_rate=4000, file="none.onnx", stride_seconds=0.25, sequence=True)
    assert Inputs.made({"extractor": record}, ["extractor"], 8000).timebase(1).frame_seconds == 0.25
    odd = replace(record, stride_seconds=1 / 3000)
    assert Inputs.made({"extractor": odd}, ["extractor"], 4001).hop_length == 1
    mean = replace(record, sequence=False)
    assert Inputs.made({"extractor": mean}, ["extractor"], 8000).hop_length == 1


@pytest.mark.usefixtures("elsewhere")
def test_a_file_of_tflite_may_be_called_from_several_threads(monkeypatch):
    """A stand-in that mixes callers up as a real interpreter does: what is set is what the next `invoke` hears."""
    import sys
    import time
    from concurrent.futures import ThreadPoolExecutor
    from types import SimpleNamespace

    made = []

    class Interpreter:
        def __init__(self, *_, **__):
            made.append(self)

        def allocate_tensors(self):
            pass

        def get_input_details(self):
            return [{"name": "sound", "index": 0, "shape": [1, SIZE]}]

        def get_output_details(self):
            return [{"name": "embedding", "index": 1}]

        def get_tensor_details(self):
            return [{"name": "sound", "index": 0}, {"name": "embedding", "index": 1}]

        def set_tensor(self, index, values):
            self.values = values

        def invoke(self):
            time.sleep(0.002)
            self.found = self.values[:, :1] * 2

        def get_tensor(self, index):
            return self.found

    module = SimpleNamespace(Interpreter=Interpreter)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace(interpreter=module))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    Path("x.tflite").write_bytes(b"x")
    from earshot.inputs.extractor_files import open_tflite

    network = open_tflite(Extractor(sample_rate=RATE, file="x.tflite"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: network.embed(np.full((1, SIZE), i, np.float32))[0, 0], range(40)))
    assert found == [2 * i for i in range(40)]
    assert 1 < len(made) <= 5


# ---- what a bundle carries


@pytest.mark.usefixtures("elsewhere")
def test_a_bundle_carries_the_file_that_the_graph_was_made_with(tmp_path):
    path = foreign()
    about = {"run": "sed/x", "frontends": {"extractor": {"kind": "extractor", "file": path}}}
    found = add_extractors(tmp_path, [about, about])
    assert list(found) == [path]
    assert (tmp_path / found[path]).read_bytes() == Path(path).read_bytes()
    digest = found[path].removeprefix("extractor_").removesuffix(".onnx")
    assert add_extractors(tmp_path, [about | {"extractors": {"extractor": digest}}]) == found
    cases = [
        (about | {"extractors": {"extractor": "0" * 16}}, "is another file .* than run sed/x was exported with"),
        ({"run": "sed/x", "frontends": {"e": {"kind": "extractor", "file": "no.onnx"}}}, "no.onnx, which is not there"),
        ({"run": "sed/x", "frontends": {"e": {"kind": "extractor", "run": "runs/a/b/fold0"}}},
         "runs/a/b/fold0, which PyTorch opens and no kernel has: export it"),
    ]  # fmt: skip
    for one, said in cases:
        with pytest.raises(ValueError, match=said):
            add_extractors(tmp_path, [one])
    assert fetch_command("onnx", ("ai-edge-litert", "onnxruntime")).endswith("--format onnx --also ai-edge-litert")


def test_weights_that_map_need_the_scores_of_these_labels(tiny, tmp_path):
    foreign()
    Path("labels.txt").write_text("a\nb\n")
    front = "frontends={extractor: {kind: extractor, file: birds.onnx, sample_rate: 4000, output: scores}}"
    arguments = ["--config", tiny, "--labels", "labels.txt", "--out", "w.safetensors", front]
    with pytest.raises(ValueError, match="none of the 3 classes .* is among the 2 of labels.txt"):
        run(map_extractor, *arguments)
    Path("labels.txt").write_text("low\nmid\n")
    with pytest.raises(
        ValueError, match="output 'scores' of birds.onnx has 3 values, the label file labels.txt names 2"
    ):
        run(map_extractor, *arguments)
    with pytest.raises(ValueError, match="has no front end 'extractor' of kind extractor"):
        run(map_extractor, *arguments[:-1])
    assert not Path("w.safetensors").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("image_with_runtimes")
def test_a_foreign_network_becomes_a_member_of_a_kernel(tiny, capsys, folder):  # noqa: F811
    """From its file to rows: mapped by names, a specialist of two classes, beside an own network of all three."""
    foreign()
    Path("labels.txt").write_text("mid\nhigh\nsomething else\n")
    front = ("frontends={extractor: {kind: extractor, file: birds.onnx, sample_rate: 4000, output: scores, "
             "stride_seconds: 0.5, sequence: true}}")  # fmt: skip
    run(map_extractor, "--config", tiny, "--labels", "labels.txt", "--out", "w.safetensors", front)
    said = capsys.readouterr().out
    assert "2 of 3 classes are among 3 outputs -> w.safetensors" in said
    assert "outside its vocabulary: low" in said
    table = pd.read_csv("w.csv")
    assert dict(zip(table.label, table.output, strict=True)) == {"low": -1, "mid": 0, "high": 1}
    settings = ["model={name: extractor_head}", "model.weights=w.safetensors", "optim.epochs=0", "loss.name=bce",
                "augment.spec_augment={}", "data.part={label: mid high}", front]  # fmt: skip
    run(train, "--config", tiny, "--fold", "all", "--name", "foreign", *settings)
    fold = Path("runs/sed/foreign/fold0")
    oof = Predictions.load(fold / "oof.npz")
    assert oof.classes == tuple(c for c in read_json(fold / "run.json", "run")["classes"])
    record = load_config(fold / "config.yaml").inputs(["extractor"])["extractor"]
    assert oof.framewise_output is not None
    run(export, "--run", "runs/sed/foreign", "--format", "onnx")

    own = tiny_graphs.write_graph(Path("own/fold0/model.onnx"), run="sed/own", classes=json.loads(
        (fold / "run.json").read_text())["classes"] + ["low"])  # fmt: skip
    settings = BundleSettings(runs=(own.parents[1], Path("runs/sed/foreign")), competition=COMPETITION, slug=SLUG)
    made = build(settings, "kernels") / "dataset"
    Path("birds.onnx").rename("moved.onnx")
    extractors._opened.cache_clear()
    bundle = open_bundle(made, COMPETITION)
    assert not bundle.broken
    (carried,) = made.glob("extractor_*.onnx")
    assert bundle.networks[-1].backend.frontends["extractor"].file == str(carried)
    test = find_test(COMPETITION, folder, bundle.classes)
    one = KernelRun(
        competition=COMPETITION, test=test, networks=bundle.networks, post=bundle.post, out=Path("s.csv"),
        blend=bundle.blend, runs=bundle.runs, known=(bundle.classes, bundle.prior),
    )  # fmt: skip
    report = run_kernel(one, 1.0)
    assert not report["failures"]
    assert report["blend"]["runs"]["sed/foreign"]["share"] == pytest.approx(1 / 3, abs=1e-4)
    foreign_member = [m for n in bundle.networks if n.alike == "sed/foreign" for m in n.members]
    found, _ = predict_members(foreign_member, test.clips)
    assert record.stride_seconds == 0.5
    assert (found[0].clipwise_output <= 0.5).all(), "scores are negated levels: their sigmoid is below a half"

"""int8 graphs: what is quantised, what the file stores, what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import export
from earshot import runs
from earshot.data.prepared import load_data
from earshot.data.sampling import evenly
from earshot.export import graph as graph_export
from earshot.export.int8 import (
    check_stored,
    first_convolutions,
    idle_casts_to_identities,
    quantise,
    spectra,
    stored_bytes,
)
from scripts import run
from test_export import graph_files, make_run

SEPARABLE = ["model.name=separable_cnn", "model.params={widths: [8, 8], hidden: 8}", "predict.keep_frames=false",
             "loss.name=bce", "predict.aggregate=mean"]  # fmt: skip


def graph_with_casts(path):
    """x (B, 4) -> weights (4, 3) -> `answer`, by a cast of float32 to float32; `count`, by one of int64 to float32."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="/fc/MatMul"),
        helper.make_node("Cast", ["y"], ["answer"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["count"], to=TensorProto.FLOAT),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "casts", [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("answer", TensorProto.FLOAT, ["batch", 3]), value("count", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"earshot": "{}"})
    onnx.save(model, path)
    return path


def test_idle_casts_become_identities_and_others_stay(tmp_path):
    graph = idle_casts_to_identities(onnx.load(graph_with_casts(tmp_path / "g.onnx"))).graph
    assert [n.op_type for n in graph.node] == ["MatMul", "Identity", "Shape", "Cast"]
    onnx.checker.check_model(onnx.load(tmp_path / "g.onnx"))


@pytest.mark.slow
def test_an_output_that_is_an_idle_cast_can_be_quantised(tmp_path):
    """Network outputs are `.float()`; NNCF's own removal of such casts raises KeyError on them."""
    import onnxruntime

    path, x = graph_with_casts(tmp_path / "g.onnx"), np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    small = quantise(path, [{"x": x}], float_parts=())
    assert stored_bytes(small)["int8"] >= 12, "the weights lie in the file as int8"
    assert {p.key: p.value for p in onnx.load(small).metadata_props} == {"earshot": "{}"}
    before, after = (onnxruntime.InferenceSession(p).run(None, {"x": x}) for p in (path, small))
    np.testing.assert_allclose(after[0], before[0], atol=0.02 * np.abs(before[0]).max())
    np.testing.assert_array_equal(after[1], [2, 4])
    assert "int8" not in stored_bytes(quantise(path, [{"x": x}], float_parts=("fc",)))


@pytest.mark.slow
def test_what_is_loud_in_one_clip_alone_is_not_cut_off(tmp_path):
    """NNCF's own range is the mean of the clips' largest values: the rare loud event would be lost."""
    path = graph_with_casts(tmp_path / "g.onnx")
    quiet, loud = np.full((1, 4), 0.1, np.float32), np.full((1, 4), 10.0, np.float32)
    small = onnx.load(quantise(path, [{"x": quiet}] * 15 + [{"x": loud}], float_parts=()))
    # the range is read from the graph: processors without VNNI saturate sums of 8-bit products, whatever the range
    constants = {i.name: numpy_helper.to_array(i) for i in small.graph.initializer}
    steps = [n.input[1] for n in small.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]
    assert steps
    assert max(255 * float(constants[name].max()) for name in steps) >= 0.99 * 10


def test_each_network_of_a_graph_has_a_first_convolution():
    names = ["/models.0/a/Conv", "/models.0/b/Conv", "/models.1/a/Conv", "/models.1/b/Conv"]
    nodes = [helper.make_node("Conv", ["x", "w"], [name], name=name) for name in names]
    graph = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"]), *nodes], "two", [], []))
    assert first_convolutions(graph) == ["/models.0/a/Conv", "/models.1/a/Conv"]


def test_spectra_reach_from_the_last_weights_to_a_logarithm():
    steps = [("Conv", ["x", "w"], "heard"), ("Mul", ["heard", "heard"], "power"), ("MatMul", ["power", "m"], "mel"),
             ("Add", ["mel", "tiny"], "level"), ("Log", ["level"], "decibels"), ("Cos", ["angle"], "wave"),
             ("Mul", ["wave", "share"], "wave2"), ("MatMul", ["wave2", "power"], "repeats"),
             ("Gemm", ["repeats", "w2"], "y")]  # fmt: skip
    nodes = [helper.make_node(kind, given, [out], name=out) for kind, given, out in steps]
    shapes = {"w": (4, 1, 3, 3), "m": (3, 3), "tiny": (1,), "w2": (3, 3)}
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    graph = helper.make_model(helper.make_graph(nodes, "levels", [], [], weights))
    assert set(spectra(graph)) == {"decibels", "level", "repeats"}, "the mel filters are weights: they end it"


@pytest.mark.slow
def test_a_network_that_makes_spectra_keeps_them_in_float32(tiny):
    folder = make_run(tiny, ["model.name=cnn_modulation", "loss.name=cross_entropy", "predict.keep_frames=false",
                             "model.params={widths: [4, 4, 4, 4], modulation_widths: [4, 4]}"])  # fmt: skip
    run(export, "--run", folder, "--int8", "--int8-head", "--max-drop", "1", "--calibration-clips", "4")
    graph = onnx.load(folder / "fold0/model_int8.onnx").graph
    made = {name: node for node in graph.node for name in node.output}
    quantised = [node for node in graph.node for name in node.input
                 if name in made and made[name].op_type == "DequantizeLinear"]  # fmt: skip
    assert {"Conv", "Gemm"} <= {node.op_type for node in quantised}
    assert not {"Log", "MatMul"} & {node.op_type for node in quantised}
    assert not [n.name for n in quantised if n.op_type == "AveragePool" and "/modulation/" in n.name]


def test_stored_bytes_count_weights_of_both_formats(tmp_path):
    import openvino

    path = graph_with_casts(tmp_path / "g.onnx")
    assert stored_bytes(path) == {"float32": 48}
    openvino.save_model(openvino.Core().read_model(path), tmp_path / "g.xml", compress_to_fp16=False)
    assert stored_bytes(tmp_path / "g.xml")["float32"] == 48


def test_a_graph_over_the_budget_is_refused_with_what_it_stores():
    check_stored({"int8": 70_000, "float32": 30_000}, 100, "fold 0")
    check_stored({"float32": 10**9}, 0, "no limit")
    message = (
        r"fold 1: the int8 graph stores 100.1 kB \(70.1 of int8, 30.0 of float32\), more than .*kb=100; --int8-head"
    )
    with pytest.raises(ValueError, match=message):
        check_stored({"int8": 70_100, "float32": 30_000}, 100, "fold 1")


@pytest.mark.parametrize(("n", "wanted", "chosen"), [(0, 3, []), (2, 3, [0, 1]), (5, 3, [0, 2, 4]), (9, 1, [0])])
def test_evenly(n, wanted, chosen):
    assert evenly(n, wanted).tolist() == chosen


def test_int8_head_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--int8-head says more of --int8"):
        run(export, "--run", tmp_path, "--int8-head")


@pytest.mark.slow
def test_every_layer_of_the_low_complexity_network_in_int8(tiny, caplog):
    folder = make_run(tiny, SEPARABLE)
    stored = {}
    for head in ((), ("--int8-head",)):
        run(export, "--run", folder, "--int8", "--max-drop", "1", "--calibration-clips", "4", *head)
        report = json.loads((folder / "fold0/model_int8.onnx.json").read_text())
        stored[head] = report["stored_bytes"]
        assert report["oof"]["scores"]["map"] == [report["oof"]["oof"], report["oof"]["graph"]]
    assert "int8 without corrected biases" in caplog.text  # NNCF 3.4 gives one name to two outputs of its branches
    more = stored["--int8-head",]["int8"] - stored[()]["int8"]
    assert more > 8 * 8 + 8, "fc1's weights and a zero point for each of its channels; the first convolution's"
    assert stored["--int8-head",]["float32"] < stored[()]["float32"]
    before = graph_files(folder)
    for config in folder.glob("fold0/config.yaml"):
        text = config.read_text()
        assert "parameters_kb: 0.0" in text
        config.write_text(text.replace("parameters_kb: 0.0", "parameters_kb: 0.1"))
    with pytest.raises(ValueError, match=r"fold 0: the int8 graph stores .* more than budget.parameters_kb=0.1"):
        run(export, "--run", folder, "--int8", "--max-drop", "1", "--calibration-clips", "4")
    assert graph_files(folder) == before


@pytest.mark.parametrize("which", ["held-out", "training"])
def test_ranges_come_from_the_clips_that_were_asked_for(tiny, monkeypatch, which):
    heard = []

    def calibration_inputs(backend, run, clips, wanted):
        heard.extend(clips.clips.clip_id)
        raise ValueError("that will do")

    folder = make_run(tiny, SEPARABLE)
    monkeypatch.setattr(graph_export, "calibration_inputs", calibration_inputs)
    with pytest.raises(ValueError, match="that will do"):
        run(export, "--run", folder, "--int8", "--calibrate-on", which)
    loaded = runs.load_run(folder)
    training, held_out = load_data(loaded.config.data).split(loaded.folds[0].fold, loaded.config.data.folds)
    assert heard == list((held_out if which == "held-out" else training).clips.clip_id)
    assert not set(training.clips.clip_id) & set(held_out.clips.clip_id)


@pytest.mark.parametrize("wanted", ["0", "-3"])
def test_int8_needs_clips(tiny, wanted):
    with pytest.raises(ValueError, match=rf"--calibration-clips must be at least 1, got {wanted}"):
        run(export, "--run", make_run(tiny, SEPARABLE), "--int8", "--calibration-clips", wanted)

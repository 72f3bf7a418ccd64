"""Convolutions by minimal filtering: the same answers, only where they gain, and the gate that they must pass."""

import logging
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from earshot.export import graph as graph_export
from earshot.export.rewriting import INPUT, KERNEL, TILE, filter_minimally, filtered
from earshot.export.settings import ExportSettings

WIDE = 64
SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def network(kernel=(WIDE, WIDE, 3, 3), bias=True, relu=True, **options):
    """x (B, C, T, F) -> convolution -> rectifier -> y, as an ONNX model of free batch, time and frequency."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(0, 0.05, kernel), "b": rng.normal(0, 1, kernel[0])}
    if not bias:
        del constants["b"]
    given = ["x", *constants]
    nodes = [helper.make_node("Conv", given, ["c" if relu else "y"], "conv", **SAME | options)]
    if relu:
        nodes.append(helper.make_node("Relu", ["c"], ["y"], "relu"))
    inner = kernel[1] * options.get("group", 1)
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "one", [tensor("x", TensorProto.FLOAT, ["batch", inner, "time", "bands"])],
        [tensor("y", TensorProto.FLOAT, ["batch", kernel[0], "later", "bands_left"])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(model, *inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": x})[0] for x in inputs]


def twin(model):
    found = onnx.ModelProto()
    found.CopyFrom(model)
    return found


@pytest.mark.parametrize(("bias", "relu"), [(True, True), (False, False)])
def test_answers_stay_at_every_length(bias, relu):
    plain = network(bias=bias, relu=relu)
    changed = twin(plain)
    assert filter_minimally(changed) == 1
    onnx.checker.check_model(changed, full_check=True)
    assert not [n for n in changed.graph.node if list(n.attribute) and n.op_type == "Conv" and 3 in _kernel(n)[:1]]
    assert {t.name for t in changed.graph.initializer} >= {"w.0", "w.5"}, "new weights"
    assert "w" not in {t.name for t in changed.graph.initializer}, "the old ones are gone"
    rng = np.random.default_rng(1)
    sizes = [(1, 1, 1), (2, 2, 5), (1, 3, 4), (1, 4, 2), (2, 5, 3), (1, 8, 8), (1, 33, 16), (3, 18, 7)]
    inputs = [rng.normal(0, 1, (b, WIDE, t, f)).astype(np.float32) for b, t, f in sizes]
    for x, expected, found in zip(inputs, answers(plain, *inputs), answers(changed, *inputs), strict=True):
        assert found.shape == expected.shape == x.shape
        np.testing.assert_allclose(found, expected, atol=3e-5)


def _kernel(node) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), [])


def test_the_three_matrices_filter():
    """In exact arithmetic: four outputs of three taps from six inputs by six products."""
    outputs = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
    rng = np.random.default_rng(2)
    heard, taps = rng.normal(0, 1, TILE + 2), rng.normal(0, 1, 3)
    found = outputs @ ((INPUT @ heard) * (KERNEL @ taps))
    np.testing.assert_allclose(found, [heard[i : i + 3] @ taps for i in range(TILE)], atol=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        {"kernel": (32, WIDE, 3, 3)},
        {"kernel": (WIDE, WIDE, 1, 1), "kernel_shape": [1, 1], "pads": [0, 0, 0, 0]},
        {"kernel": (1024, 1024, 3, 3)},
        {"strides": [2, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"pads": [0, 0, 0, 0]},
        {"kernel": (128, WIDE, 3, 3), "group": 2},
    ],
    ids=["narrow", "one by one", "too many weights", "strides", "dilations", "no padding", "groups"],
)
def test_what_would_not_gain_or_is_something_else_stays(other):
    model = network(**other)
    before = model.SerializeToString()
    assert filter_minimally(model) == 0
    assert [n.op_type for n in model.graph.node] == ["Conv", "Relu"]
    assert model.SerializeToString() == before


def test_what_others_hear_before_the_rectifier_stays_there():
    model = network()
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    plain = twin(model)
    assert filter_minimally(model) == 1
    x = np.random.default_rng(3).normal(0, 1, (1, WIDE, 9, 4)).astype(np.float32)
    runs = [onnxruntime.InferenceSession(m.SerializeToString()).run(["y", "c"], {"x": x}) for m in (plain, model)]
    for expected, found in zip(*runs, strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-5)
    assert runs[1][1].min() < 0 <= runs[1][0].min()


def test_a_graph_keeps_its_metadata_and_fails_the_gate_alone(tmp_path, monkeypatch, caplog):
    model = network()
    helper.set_model_props(model, {"earshot": "{}"})
    path = tmp_path / "fp32.onnx"
    onnx.save(model, path)
    found, count = filtered(path)
    assert (found, count) == (tmp_path / "fp32_filtered.onnx", 1)
    assert [p.key for p in onnx.load(found).metadata_props] == ["earshot"]

    said = []
    monkeypatch.setattr(graph_export, "open_graph", lambda p: SimpleNamespace(path=p))
    monkeypatch.setattr(graph_export, "check_parity", lambda graph, *rest: said.append((graph.path, *rest)))
    assert graph_export._filtered(path, ["eager"], ["windows"], ExportSettings(), "fold 0") == (found, 1)
    assert said == [(found, ["eager"], ["windows"], 3e-3, "fold 0")]

    def refuse(graph, *rest):
        raise ValueError("the graph differs from PyTorch by 0.1")

    monkeypatch.setattr(graph_export, "check_parity", refuse)
    with caplog.at_level(logging.WARNING, "earshot"):
        assert graph_export._filtered(path, [], [], ExportSettings(), "fold 0") == (path, 0)
    assert "fold 0: without minimal filtering" in caplog.text
    onnx.save(network(kernel=(32, 32, 3, 3)), path)
    assert graph_export._filtered(path, [], [], ExportSettings(), "fold 0") == (path, 0), "nothing to gate"

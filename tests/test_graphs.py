"""Graphs as backends: what they answer, when they are compiled, where they lie; threads and calls in flight."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from earshot.export.graph import to_openvino
from earshot.files import file_digest
from earshot.inputs.given import Waveform
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.prediction import threads
from earshot.prediction.backends import TorchBackend, check_format, open_graph, silent_window
from earshot.prediction.graphs import find_graphs, graph_name, members_of
from earshot.sound.logmel import n_frames, silence_db
from earshot.sound.timebase import TimeBase
from tiny_graphs import CLASSES, FRONTEND, HOP, MELS, POOL, RATE, about, write_graph

PARAMS = Logmel(**FRONTEND, channels="mono")


def by_hand(logmel: np.ndarray, gain=0.2) -> np.ndarray:
    """(B, 1, T, F) -> (B, S, 3): what the tiny graph computes, the mean of a third of the bands in each segment."""
    segments = logmel.shape[2] // POOL
    values = logmel[:, 0, : segments * POOL].reshape(len(logmel), segments, POOL, 3, MELS // 3).mean(axis=(2, 4))
    return 1 / (1 + np.exp(-(gain * values + 2)))


def heard(batch: int, frames: int = 101) -> np.ndarray:
    return np.random.default_rng(batch).normal(-20, 10, (batch, 1, frames, MELS)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_graph(tmp_path_factory.mktemp("graph") / "model.onnx")


def test_a_graph_says_and_answers_what_it_should(path):
    graph = open_graph(path, 2)
    assert (graph.inputs, graph.pooling, graph.threads) == (("logmel",), "mean", 2)
    assert dict(graph.frontends) == {"logmel": PARAMS}
    assert graph.timebase == TimeBase(RATE, HOP, POOL)
    assert graph.windows is None, "nothing is compiled before it is asked"
    for batch, frames in ((1, 101), (3, 57)):
        x = heard(batch, frames)
        found = graph.run({"logmel": x})
        assert set(found) == {"clipwise_output", "segmentwise_output"}
        np.testing.assert_allclose(found["segmentwise_output"], by_hand(x), atol=1e-5)
        np.testing.assert_allclose(found["clipwise_output"], by_hand(x).mean(axis=1), atol=1e-5)
    assert graph.windows == 0, "open to any number"


def test_openvino_answers_the_same_and_keeps_what_it_answered(path):
    """Its buffers are used again at the next call; each thread has a request of its own."""
    graph = open_graph(to_openvino(path, about(outputs=["clipwise_output", "segmentwise_output"])))
    assert (graph.inputs, dict(graph.frontends), graph.timebase) == (
        ("logmel",),
        {"logmel": PARAMS},
        TimeBase(RATE, HOP, POOL),
    )
    first, second = heard(2), heard(3)
    found = graph.run({"logmel": first})
    assert set(found) == {"clipwise_output", "segmentwise_output"}
    graph.run({"logmel": first[:, :, :57]})
    request = graph.of_thread.request
    np.testing.assert_allclose(found["segmentwise_output"], by_hand(first), atol=1e-5)
    graph.fix(4)
    again = graph.run({"logmel": second})
    np.testing.assert_allclose(again["clipwise_output"], by_hand(second).mean(axis=1), atol=1e-5)
    graph.run({"logmel": first})
    assert graph.of_thread.request is not request, "compiled anew"
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda x: graph.run({"logmel": x})["segmentwise_output"], [first, second]))
    for x, segments in zip((first, second), both, strict=True):
        np.testing.assert_allclose(segments, by_hand(x), atol=1e-5)


def test_short_inputs_repeat_their_last_frame(path):
    short = heard(2, POOL - 3)
    padded = np.concatenate([short, np.repeat(short[:, :, -1:], 3, axis=2)], axis=2)
    found = open_graph(path).run({"logmel": short.astype(np.float64)})  # any number type
    np.testing.assert_allclose(found["segmentwise_output"], by_hand(padded), atol=1e-5)


def test_a_fixed_graph_fills_up_what_lacks_and_is_compiled_once(path, monkeypatch):
    graph = open_graph(path)
    compiled = []
    compile_it = graph._compile
    monkeypatch.setattr(graph, "_compile", lambda shapes: compiled.append(shapes) or compile_it(shapes))
    graph.fix(3)
    graph.fix(3)
    assert compiled == [{"logmel": (3, 1, 101, MELS)}]
    assert graph.windows == 3
    for batch in (1, 2, 3):
        x = heard(batch)
        found = graph.run({"logmel": x})
        assert len(found["clipwise_output"]) == batch
        np.testing.assert_allclose(found["segmentwise_output"], by_hand(x), atol=1e-5)
    graph.fix(0)
    assert compiled[1:] == [{}]
    assert len(graph.run({"logmel": heard(5)})["clipwise_output"]) == 5


def test_a_window_of_silence_of_every_input():
    names = ("logmel", "waveform", "metadata")
    graph = SimpleNamespace(
        inputs=names, frontends=Inputs.from_json(about(inputs=names, metadata=["week", "hour"])),
        about={"windowing": {"sample_rate": RATE, "window_seconds": 0.5, "stride_seconds": 0.5}, "min_frames": 10,
               "metadata": ["week", "hour"]},
    )  # fmt: skip
    found = silent_window(graph)
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        "logmel": ((1, 1, n_frames(RATE // 2, PARAMS), MELS), np.float32),
        "waveform": ((1, RATE // 2), np.float32), "metadata": ((1, 2), np.float32),
    }  # fmt: skip
    assert (found["logmel"] == np.float32(silence_db(PARAMS))).all()
    assert not found["waveform"].any()
    assert not found["metadata"].any()
    graph.about["min_frames"] = 400
    assert silent_window(graph)["logmel"].shape == (1, 1, 400, MELS)


def test_files_that_are_no_graphs_of_ours(tmp_path, path):
    with pytest.raises(ValueError, match=r"model\.pt: a graph ends in \.onnx or \.xml"):
        open_graph(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"graph .*gone\.onnx does not exist; make it with src/export\.py"):
        open_graph(tmp_path / "gone.onnx")
    for ending, library in (("onnx", "ONNX Runtime"), ("xml", "OpenVINO")):
        (tmp_path / f"broken.{ending}").write_text("<html>")
        with pytest.raises(ValueError, match=rf"broken\.{ending} is not a graph that {library} can run: "):
            open_graph(tmp_path / f"broken.{ending}")
    assert [check_format(name) for name in ("onnx", "openvino")] == ["onnx", "openvino"]
    with pytest.raises(ValueError, match=r"unknown graph format 'onx'; did you mean 'onnx'.*known: onnx, openvino"):
        check_format("onx")


def test_names_of_graphs():
    assert graph_name("onnx") == "model.onnx"
    assert graph_name("openvino", int8=True) == "model_int8.xml"
    assert graph_name("onnx", together=True) == "together.onnx"
    assert graph_name("openvino", True, True) == "together_int8.xml"


def make_run(folder, folds=(0, 2, 10), weights=b"trained", **changes):
    for fold in folds:
        place = folder / f"fold{fold}"
        place.mkdir(parents=True)
        (place / "best.safetensors").write_bytes(weights)
        write_graph(place / "model.onnx", fold=fold, **{"weights": [file_digest(place / "best.safetensors")]} | changes)
    return folder


def test_graphs_of_a_run_are_found_by_fold(tmp_path):
    folder = make_run(tmp_path / "tiny")
    found = find_graphs(folder, "onnx", threads=3)
    assert [g.about["folds"] for g in found] == [[0], [2], [10]]
    assert {g.threads for g in found} == {3}
    weights = [file_digest(folder / f"fold{k}" / "best.safetensors") for k in (0, 2, 10)]
    write_graph(folder / "together.onnx", folds=[0, 2, 10], stacked=True, weights=[*weights[:2], "0" * 64])
    with pytest.raises(ValueError, match=r"other weights than .*fold10/best\.safetensors"):
        find_graphs(folder, "onnx", together=True)
    write_graph(folder / "together.onnx", folds=[0, 2, 10], stacked=True, weights=weights)
    (one,) = find_graphs(folder, "onnx", together=True)
    assert one.path == folder / "together.onnx"


def test_graphs_that_do_not_belong(tmp_path):
    folder = make_run(tmp_path / "tiny", (0, 1))
    command = rf"make it with python .*src/export.py'? --run {folder} --format"
    there = r", or take what is there: model.onnx \(--format onnx\)$"
    with pytest.raises(ValueError, match=f"has no model_int8.xml: {command} openvino --int8{there}"):
        find_graphs(folder, "openvino", int8=True)
    with pytest.raises(ValueError, match=f"has no together.onnx: {command} onnx --together{there}"):
        find_graphs(folder, "onnx", together=True)
    with pytest.raises(ValueError, match=r"run .*/none does not exist"):
        find_graphs(tmp_path / "none", "onnx")
    (folder / "fold1" / "model.onnx").rename(folder / "aside.onnx")
    with pytest.raises(ValueError, match=rf"folds \[1\] are trained but have no model.onnx: {command} onnx$"):
        find_graphs(folder, "onnx")
    write_graph(folder / "fold1" / "model.onnx", fold=0)
    with pytest.raises(ValueError, match=r"fold1/model.onnx is the graph of fold 0 of run sed/tiny: export this run"):
        find_graphs(folder, "onnx")
    write_graph(folder / "fold2" / "model.onnx", fold=1)
    with pytest.raises(ValueError, match=r"fold1/model.onnx is the graph of fold 0 of run sed/tiny: export this run"):
        find_graphs(folder, "onnx")
    (folder / "fold2" / "model.onnx").unlink()
    for change in ({"run": "sed/other"}, {"classes": ("a", "b", "c")}, {"pool": 3, "frontends": {}, "inputs": []}):
        write_graph(folder / "fold1" / "model.onnx", **{"fold": 1} | change)
        with pytest.raises(ValueError, match=r"are of different runs: their (run|classes|frontends) differ"):
            find_graphs(folder, "onnx")
    write_graph(folder / "fold1" / "model.onnx", fold=1)
    with pytest.raises(ValueError, match=r"was made of other weights than .*fold1/best\.safetensors \(run sed/tiny\)"):
        find_graphs(folder, "onnx")
    (folder / "fold1" / "best.safetensors").unlink()
    assert len(find_graphs(folder, "onnx")) == 2, "a kernel has graphs without weights"


def test_members_of_a_graph(path, tmp_path):
    (one,) = members_of(open_graph(path))
    assert one.classes == CLASSES
    np.testing.assert_allclose(one.prior, [0.1, 0.11, 0.12])
    assert (one.fold, one.place, one.windowing.batch_size, one.windowing.one_pass) == (-1, None, 4, False)
    assert one.backend.windows == 4, "ten windows of a second would fit, four are enough"
    stacked = write_graph(tmp_path / "together.onnx", stacked=True, priors=[[0.1] * 3, [0.2] * 3], folds=[0, 1])
    first, second = members_of(open_graph(stacked), one_pass=True)
    assert (first.place, second.place) == (0, 1)
    assert second.prior == [0.2] * 3
    assert first.backend is second.backend
    assert (first.windowing.one_pass, first.backend.windows) == (True, 0)


def test_a_digest_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"weights")
    assert file_digest(tmp_path / "x") == hashlib.sha256(b"weights").hexdigest()


class Doubling(torch.nn.Module):
    """Answers whether it was in training, and twice its input."""

    inputs, pool, pooling = ("logmel", "waveform"), 4, "max"

    def forward(self, logmel, waveform):
        self.training_when_called = self.training
        linear = torch.nn.functional.linear(waveform, 2 * torch.eye(waveform.shape[1]))
        return {"clipwise_output": linear, "logit": logmel.double().sum(dim=(1, 2, 3))}


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_a_torch_model_is_heard_in_evaluation_and_left_as_it_was(precision, dtype):
    model = Doubling()
    known = {"other": PARAMS, "logmel": PARAMS, "waveform": Waveform(sample_rate=RATE, channels="mono")}
    backend = TorchBackend(model, known, precision=precision)
    assert backend.inputs == ("logmel", "waveform")
    assert dict(backend.frontends) == {"logmel": PARAMS, "waveform": Waveform(sample_rate=RATE, channels="mono")}
    assert (backend.timebase, backend.pooling) == (TimeBase(RATE, HOP, 4), "max")
    x = {"logmel": np.ones((2, 1, 3, 4), np.float32), "waveform": np.full((3, 2), 1.001, np.float32).T}
    for mode in (True, False):
        model.train(mode)
        found = backend.run(x)
        assert model.training is mode
        assert model.training_when_called is False
        assert {v.dtype for v in found.values()} == {np.dtype(np.float32)}
        expected = 2 * torch.tensor(1.001).to(dtype).float()
        np.testing.assert_array_equal(found["clipwise_output"], np.full((2, 3), float(expected), np.float32))
        assert found["logit"].tolist() == [12, 12]


# ---- threads


def test_choices_fill_the_cores():
    assert threads.choices(6) == [(1, 6), (2, 3), (3, 2), (6, 1)]
    assert threads.choices(1) == [(1, 1)]


@pytest.mark.parametrize(("speeds", "best"), [
    ({(1, 4): 100, (2, 2): 104, (4, 1): 106}, (2, 2)),  # 100 is too slow; of the two alike the one with more calls
    ({(1, 4): 100, (2, 2): 104, (4, 1): 105}, (1, 4)),  # exactly 1.05 times is alike
    ({(1, 4): 100, (2, 2): 90, (4, 1): 200}, (4, 1)),
])  # fmt: skip
def test_tuning_prefers_more_calls_where_speeds_are_alike(monkeypatch, speeds, best):
    monkeypatch.setattr(threads, "_speed", lambda backend, streams, seconds: speeds[backend, streams])
    assert threads.tune(lambda n: n, 4) == (*best, speeds)
    assert threads.tune(lambda n: n, 4, limit=0) == (1, 4, {(1, 4): 100}), "out of time: the first is measured alone"


def test_speed_counts_windows_after_the_first_calls(monkeypatch):
    """Calls of 3 windows that take 20 ms, two at a time, are 300 windows a second; set-up of 100 ms does not count."""
    monkeypatch.setattr(threads, "silent_window", lambda backend: {"logmel": np.zeros((1, 1, 4, 2))})
    shapes = []

    def call(inputs):
        shapes.append(inputs["logmel"].shape)
        time.sleep(0.1 if len(shapes) <= 4 else 0.02)

    found = threads._speed(SimpleNamespace(windows=3, run=call), 2, 0.3)
    assert set(shapes) == {(3, 1, 4, 2)}
    assert 60 < found <= 310
    assert threads._speed(SimpleNamespace(windows=0, run=call), 1, 0.05) <= 55, "an open graph hears one at a time"

"""What graphs say of themselves and how they are called: a stand-in for the runtime, real descriptions."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earshot.files import file_digest
from earshot.prediction import backends
from earshot.prediction.backends import check_graph_about, open_graph
from earshot.prediction.graphs import find_graphs, members_of, origins_of, windows_a_call
from earshot.prediction.origin import Origin, TableDigests, as_text, write_origin
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing
from tiny_graphs import HOP, MELS, POOL, RATE, about

ORIGIN = Origin(run="sed/tiny", fold=0, tables=TableDigests(folds="f", classes="c", clips="k"), weights="w")


class Stand(backends._Graph):
    """A graph whose file is its description; answers with the sum of each window, and notes how it is called."""

    def _read(self):
        self.compiled, self.calls = [], []
        return self.path.read_text()

    def _compile(self, shapes):
        self.compiled.append(shapes)

    def _call(self, inputs):
        self.calls.append({name: values.shape for name, values in inputs.items()})
        assert all(v.dtype == np.float32 and v.flags.c_contiguous for v in inputs.values())
        first = next(iter(inputs.values()))
        return {"clipwise_output": first.reshape(len(first), -1).sum(axis=1, keepdims=True)}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes descriptions that open as stand-ins: (name, changes of the description) -> path."""
    monkeypatch.setattr(backends, "OnnxBackend", Stand)

    def write(name="model.onnx", **changes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about(**changes)))
        return path

    return write


WAVEFORM = {"inputs": ["waveform"], "frontends": {"waveform": {"kind": "waveform", "sample_rate": RATE}}}


def test_a_graph_is_what_its_description_says(written):
    graph = open_graph(str(written()))
    assert (graph.threads, graph.inputs, graph.pooling, graph.windows) == (1, ("logmel",), "mean", None)
    assert graph.timebase == TimeBase(RATE, HOP, POOL)
    assert graph.about == about()
    assert open_graph(written(), 3).threads == 3
    path = written()
    path.write_text("")
    with pytest.raises(ValueError, match=f"^{path} does not say what it is"):
        open_graph(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=f"^the description in {path} is not valid JSON.*; export it again with"):
        open_graph(path)
    for name, said in (("x.txt", "a graph ends in .onnx or .xml"), ("absent.onnx", "does not exist")):
        with pytest.raises(ValueError, match=said):
            open_graph(path.parent / name)


@pytest.mark.parametrize("key", ["inputs", "frontends", "timebase", "pooling", "classes", "priors", "folds",
                                 "windowing", "min_frames", "run", "tta", "weights"])  # fmt: skip
def test_every_part_of_a_description_is_needed_and_of_its_kind(written, key):
    described = about()
    assert check_graph_about(described, "g.onnx") is described
    with pytest.raises(ValueError, match=f"^the description in g.onnx says no '{key}'; export it again with"):
        check_graph_about({k: v for k, v in described.items() if k != key}, "g.onnx")
    path = written()
    path.write_text(json.dumps(described | {key: None}))
    with pytest.raises(ValueError, match=f"^the description in {path} has 'None' as '{key}'"):
        open_graph(path)


def test_a_graph_is_compiled_for_its_own_windows_once(written):
    graph = open_graph(written())
    window = (1, 101, MELS)  # a second of frames of 10 ms
    graph.fix(3)
    graph.fix(3)
    assert graph.compiled == [{"logmel": (3, *window)}]
    one, two = np.ones((1, *window)), np.stack([np.ones(window), np.zeros(window)])
    assert graph.run({"logmel": two})["clipwise_output"].tolist() == [[101 * MELS], [0]]
    assert graph.run({"logmel": one})["clipwise_output"].tolist() == [[101 * MELS]]
    full = graph.run({"logmel": np.zeros((3, *window)), "other": None})
    assert full["clipwise_output"].shape == (3, 1)
    assert graph.calls == [{"logmel": (3, *window)}] * 3, "what lacks is filled up"
    graph.fix(0)
    assert graph.compiled[1:] == [{}]
    graph.run({"logmel": two})
    assert graph.calls[-1] == {"logmel": (2, *window)}
    fresh = open_graph(written())
    fresh.run({"logmel": one})
    assert (fresh.windows, fresh.compiled) == (0, [{}])


def test_in_one_pass_a_length_that_comes_again_is_compiled_for_beside(written, monkeypatch):
    def sum_of(graph, frames):
        return float(graph.run({"logmel": np.ones((1, 1, frames, MELS))})["clipwise_output"][0, 0])

    graph = open_graph(written())
    graph.fix(0, twins=True)
    assert [sum_of(graph, frames) for frames in (101, 57, 101, 57)] == [n * MELS for n in (101, 57, 101, 57)]
    assert graph.twin is None, "no length came twice in a row"
    assert [sum_of(graph, 57), sum_of(graph, 57), sum_of(graph, 101), sum_of(graph, 101)] == [
        n * MELS for n in (57, 57, 101, 101)
    ]
    assert graph.twin.compiled == [{"logmel": (1, 1, 57, MELS)}], "the first such length, once"
    assert [c["logmel"][2] for c in graph.twin.calls] == [57, 57]
    assert [c["logmel"][2] for c in graph.calls] == [101, 57, 101, 57, 101, 101]
    graph.fix(2)
    assert (graph.twin, graph.twins) == (None, False)

    monkeypatch.setattr(backends, "TWIN_BYTES", 10)
    large = open_graph(written())
    large.fix(0, twins=True)
    assert [sum_of(large, 57) for _ in range(3)] == [57 * MELS] * 3
    assert large.twin is None, "weights would be held twice"
    assert members_of(open_graph(written()), one_pass=True)[0].backend.twins
    assert not members_of(open_graph(written()))[0].backend.twins


def test_what_is_too_short_is_made_longer(written):
    graph = open_graph(written())
    x = np.arange(4.0).reshape(1, 1, 2, 2).repeat(MELS // 2, axis=3)
    padded = backends._padded(graph, "logmel", x)
    assert padded.shape == (1, 1, POOL, MELS)
    assert (padded[0, 0, 1:] == x[0, 0, 1]).all(), "the last frame again"
    exact = np.zeros((1, 1, POOL, MELS))
    assert backends._padded(graph, "logmel", exact).shape == exact.shape
    sound = open_graph(written(**WAVEFORM, min_samples=5))
    assert backends._padded(sound, "waveform", np.ones((2, 3))).tolist() == [[1, 1, 1, 0, 0]] * 2
    assert backends._padded(sound, "waveform", np.ones((1, 2, 3))).tolist() == [[[1, 1, 1, 0, 0]] * 2]
    assert backends._padded(sound, "waveform", np.ones((2, 7))).shape == (2, 7)
    bare = open_graph(written(**WAVEFORM))
    assert backends._padded(bare, "waveform", np.ones((2, 0))).shape == (2, 1)
    assert backends.silent_window(sound)["waveform"].shape == (1, RATE)


def test_members_are_the_folds_of_a_graph(written):
    path = written(stacked=True, folds=[0, 1], priors=[[0.25] * 3, [0.5] * 3], weights=["0" * 64] * 2,
                   origins=as_text([ORIGIN, replace(ORIGIN, fold=1)]))  # fmt: skip
    graph = open_graph(path)
    first, second = members_of(graph)
    assert [m.prior for m in (first, second)] == [[0.25] * 3, [0.5] * 3]
    assert [m.place for m in (first, second)] == [0, 1]
    assert [m.origin for m in (first, second)] == [ORIGIN, replace(ORIGIN, fold=1)]
    assert (first.fold, first.classes, first.backend) == (-1, ("low", "mid", "high"), graph)
    assert (first.windowing.one_pass, first.windowing.batch_size, graph.windows) == (False, 4, 4)
    (alone,) = members_of(open_graph(written()))
    assert (alone.place, alone.origin) == (None, None)
    (whole,) = members_of(open_graph(written()), one_pass=True)
    assert (whole.windowing.one_pass, whole.backend.windows) == (True, 0)
    own = about()["windowing"] | {"one_pass": True}
    (own_way,) = members_of(open_graph(written(windowing=own)))
    assert own_way.windowing.one_pass
    assert origins_of(open_graph(written())) is None
    damaged = open_graph(written(origins=["{"]))
    with pytest.raises(ValueError, match=f"^{damaged.path} says of no run"):
        origins_of(damaged)


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 4), (2.5, 4), (3, 3), (5, 2), (9, 1), (10, 1), (30, 1)])
def test_a_call_hears_ten_seconds_and_four_windows_at_most(seconds, windows):
    found = windows_a_call(Windowing(sample_rate=8, window_seconds=seconds))
    assert (found, type(found)) == (windows, int)


def test_graphs_are_held_against_the_folder_they_lie_in(written, tmp_path):
    run = tmp_path / "r"
    for fold in (0, 1):
        written(f"r/fold{fold}/model.onnx", fold=fold, origins=as_text([replace(ORIGIN, fold=fold)]))
        write_origin(run / f"fold{fold}", replace(ORIGIN, fold=fold))
    found = find_graphs(str(run), "onnx")
    assert [(g.about["folds"], g.threads) for g in found] == [([0], 1), ([1], 1)]
    write_origin(run / "fold1", replace(ORIGIN, fold=1, run="sed/other"))
    here = run / "fold1"
    differing = "run sed/tiny fold 1 against run sed/other fold 1; export it again"
    said = f"^{here / 'model.onnx'} does not belong to {here}: {differing}$"
    with pytest.raises(ValueError, match=said):
        find_graphs(run, "onnx")
    written("r/fold1/model.onnx", fold=1)  # an older version made it: nothing to compare
    assert len(find_graphs(run, "onnx")) == 2
    for key, value in (("windowing", about()["windowing"] | {"window_seconds": 2.0}), ("run", "sed/b"),
                       ("classes", ["low", "high", "mid"])):  # fmt: skip
        written("r/fold1/model.onnx", **{"fold": 1, key: value})
        said = f"^{here / 'model.onnx'} and {run / 'fold0/model.onnx'} are of different runs: their {key} differ"
        with pytest.raises(ValueError, match=said):
            find_graphs(run, "onnx")
    (run / "fold1" / "best.safetensors").write_bytes(b"w")
    written("r/fold1/model.onnx", fold=1, weights=[file_digest(run / "fold1" / "best.safetensors")])
    assert len(find_graphs(run, "onnx")) == 2


def test_a_library_that_is_not_there_says_what_to_install(monkeypatch):
    def missing(kind):
        def load(name):
            raise kind(f"no {name}")

        return load

    for kind in (ImportError, OSError):
        monkeypatch.setattr(importlib, "import_module", missing(kind))
        with pytest.raises(ValueError, match=r"this backend needs onnxruntime, .*\(no onnxruntime\): pip install -r"):
            backends._library("onnxruntime")

"""Exported graphs: what they say of themselves, that they answer as PyTorch, gates, predicting without torch."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import export
import predict
from conftest import TINY_CLASSES, write_tiny
from earshot import files, runs
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.export.graph import check_parity, parity_inputs
from earshot.export.tracing import check_axes, random_inputs
from earshot.prediction.backends import METADATA_KEY, TorchBackend, open_graph
from earshot.prediction.graphs import members_of, windows_a_call
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Predictions
from earshot.prediction.threads import choices, tune
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing
from scripts import run

SRC = Path(__file__).parents[1] / "src"
FORMATS = {"onnx": "model.onnx", "openvino": "model.xml"}


def make_run(config_path: Path, overrides=(), folds=(0,), name="tiny") -> Path:
    """A run folder with untrained weights, batch norms that know the data, and the OOF that such networks give."""
    config = load_config(config_path, list(overrides))
    data, folder = load_data(config.data), Path("runs/sed") / name
    for number in folds:
        fold = runs.create_fold(folder / f"fold{number}", config, resume=False)
        torch.manual_seed(number)
        model = runs.make_model(config, len(data.classes)).train()
        backend = TorchBackend(model, config.inputs(model.inputs))
        heard = [torch.from_numpy(random_inputs(backend, 8, 16000, seed=s)["logmel"]) for s in range(12)]
        with torch.no_grad():
            for logmel in heard:
                model(logmel=logmel)
        prior = np.full(len(data.classes), 0.1 * (number + 1))
        grid = TimeBase(config.data.sample_rate, config.frontends["logmel"].hop_length, model.pool)
        about = runs.describe_run(config, number, data.classes, prior, grid) | {"finished": True}
        runs.save_weights(fold.folder / "best.safetensors", model, about)
        files.write_text(fold.folder / "run.json", json.dumps(about))
        held_out = data.split(number, config.data.folds)[1].recordings()
        (oof,), _ = predict_clips([backend], held_out, config.predict, data.classes, prior, number)
        oof.save(fold.folder / "oof.npz")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The tiny competition, two folds, exported in both formats: a graph a fold and all together."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = make_run(write_tiny(folder), folds=(0, 1))
        for graph_format in FORMATS:
            for together in ((), ("--together",)):
                run(export, "--run", made, "--format", graph_format, "--max-drop", "0.05", *together)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    for config in Path("runs/sed/tiny").glob("fold*/config.yaml"):
        config.write_text(config.read_text().replace(str(made), str(tmp_path / "copy")))
    return Path("runs/sed/tiny")


def graph_files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_files_and_report(made):
    folder = made / "runs/sed/tiny"
    graphs = {"model.onnx", "model.onnx.json", "model.xml", "model.bin", "model.xml.json"}
    trained = {"config.yaml", "run.json", "best.safetensors", "oof.npz"}
    for fold in ("fold0", "fold1"):
        assert graph_files(folder / fold) == graphs | trained, "one file of weights at most, nothing half done"
    report = json.loads((folder / "fold1/model.onnx.json").read_text())
    assert report["bytes"] == (folder / "fold1/model.onnx").stat().st_size
    assert report["folds"] == [1]
    assert report["oof"]["clips"] == 9
    assert report["oof"]["drop"] == report["oof"]["oof"] - report["oof"]["graph"]
    assert abs(report["oof"]["drop"]) <= 0.05
    assert report["batch_norms"] == 0
    for row in report["parity"]:
        assert row["second_call"] <= 1e-5
        assert row["max_difference"]["clipwise_output"] < 3e-3


@pytest.mark.parametrize("graph_format", FORMATS)
def test_a_graph_says_all_that_prediction_needs(made, graph_format):
    folder = made / "runs/sed/tiny"
    about = open_graph(folder / "fold1" / FORMATS[graph_format]).about
    config = load_config(made / "tiny.yaml")
    assert tuple(about["classes"]) == TINY_CLASSES
    assert (about["run"], about["task"], about["folds"], about["stacked"]) == ("sed/tiny", "sed", [1], False)
    assert (about["sample_rate"], about["pool"], about["timebase"]) == (8000, 4, [8000, 80, 4])
    assert about["priors"] == [pytest.approx([0.2, 0.2, 0.2])]
    (member,) = members_of(open_graph(folder / "fold1" / FORMATS[graph_format]))
    assert member.backend.frontends == config.inputs(("logmel",))
    assert replace(member.windowing, batch_size=4) == config.predict


@pytest.mark.parametrize("name", ["fold0/model.onnx", "fold0/model.xml", "together.onnx", "together.xml"])
def test_compiled_for_its_window_a_graph_answers_the_same(made, name):
    folder = made / "runs/sed/tiny"
    free, fixed = open_graph(folder / name), open_graph(folder / name)
    fixed.fix(3)
    inputs = random_inputs(free, 3, runs.load_run(folder).config.predict.window_samples)
    for given in (3, 1, 2, 3):
        some = {key: values[:given] for key, values in inputs.items()}
        expected = free.run(some)
        for key, values in fixed.run(some).items():
            assert values.shape == expected[key].shape
            np.testing.assert_allclose(values, expected[key], atol=1e-5)


@pytest.mark.parametrize("name", FORMATS.values())
def test_one_pass_leaves_a_graph_open_to_any_length(made, name):
    graph = open_graph(made / "runs/sed/tiny/fold0" / name)
    assert graph.windows is None
    members_of(graph, one_pass=True)
    assert graph.windows == 0
    members_of(graph)
    assert graph.windows == 4
    with pytest.raises((RuntimeError, ValueError, onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument)):
        graph.run(random_inputs(graph, 4, 40080))


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 4), (2.5, 4), (5, 2), (10, 1), (30, 1)])
def test_windows_a_call(seconds, windows):
    assert windows_a_call(Windowing(sample_rate=32000, window_seconds=seconds)) == windows


@pytest.mark.parametrize("name", ["fold0/model.onnx", "fold0/model.xml", "together.onnx", "together.xml"])
@pytest.mark.parametrize(("batch", "samples"), [(1, 8000), (7, 4880), (2, 240), (1, 40080)])
def test_equals_pytorch_at_the_first_and_the_second_call(made, name, batch, samples):
    folder = made / "runs/sed/tiny"
    graph = open_graph(folder / name)
    eager = [TorchBackend(runs.load_model(f), f.config.inputs(("logmel",))) for f in runs.load_run(folder).folds]
    inputs = random_inputs(eager[0], batch, samples, seed=5)
    for _ in range(2):
        found = graph.run(inputs)
        for place, backend in enumerate(eager[: len(graph.about["folds"])]):
            expected = backend.run(inputs)
            assert set(found) == set(expected) - {"framewise_output", "framewise_logit"}
            for key, values in found.items():
                of_fold = values[:, place] if graph.about["stacked"] else values
                np.testing.assert_allclose(of_fold, expected[key], atol=2e-4, rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("options", [
    ("--backend", "onnx"), ("--backend", "openvino"), ("--backend", "onnx", "--together"),
    ("--backend", "openvino", "--together", "--streams", "3"),
], ids=" ".join)  # fmt: skip
def test_predicting_by_graphs_equals_predicting_by_pytorch(here, options):
    clips = ("--run", here, "--clips", "data/test_clips.csv")
    run(predict, *clips)
    expected = [Predictions.load(here / name) for name in ("test.npz", "fold0/test.npz", "fold1/test.npz")]
    run(predict, *clips, *options)
    for name, eager in zip(("test.npz", "fold0/test.npz", "fold1/test.npz"), expected, strict=True):
        found = Predictions.load(here / name)
        np.testing.assert_allclose(found.clipwise_output, eager.clipwise_output, atol=1e-4)
        assert found.timebase == eager.timebase
        for a, b in zip(found.framewise_output, eager.framewise_output, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        np.testing.assert_allclose(found.embedding, eager.embedding, atol=1e-3) if eager.embedding is not None else None


@pytest.mark.parametrize("graph_format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_predicting_by_graphs_imports_no_torch_and_needs_no_weights(here, graph_format):
    for weights in here.glob("fold*/*"):
        if not weights.name.startswith("model"):
            weights.unlink()
    command = ["predict.py", "--run", str(here), "--clips", "data/test_clips.csv", "--backend", graph_format]
    code = f"import sys; sys.argv = {command!r}; sys.path.insert(0, {str(SRC)!r}); import predict; predict.main()\n"
    code += "print([m for m in ('torch', 'timm', 'onnx', 'nncf', 'librosa') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(Predictions.load(here / "test.npz")) == 3


def test_two_runs_in_one_pass_decode_once(here, monkeypatch, capsys):
    shutil.copytree(here, here.with_name("twin"))
    heard = []
    from earshot.sound import audio

    load = audio.load
    monkeypatch.setattr(
        "earshot.prediction.reading.audio.load", lambda path, *a, **k: heard.append(path.name) or load(path, *a, **k)
    )
    both = ("--run", here, here.with_name("twin"), "--clips", "data/test_clips.csv")
    run(predict, *both)
    assert sorted(heard) == ["t0.wav", "t1.wav", "t2.wav"]
    assert "2 folds of sed/tiny, 2 folds of sed/twin" in capsys.readouterr().out
    one, two = (Predictions.load(folder / "test.npz") for folder in (here, here.with_name("twin")))
    np.testing.assert_array_equal(one.clipwise_output, two.clipwise_output)


def test_one_pass_says_what_it_changes(here, capsys):
    run(predict, "--run", here, "--clips", "data/test_clips.csv", "--backend", "onnx", "--one-pass")
    assert "one pass against single windows, 3 recordings: clip outputs differ by 0." in capsys.readouterr().out
    graphs = Predictions.load(here / "test.npz")
    run(predict, "--run", here, "--clips", "data/test_clips.csv", "--one-pass")
    np.testing.assert_allclose(Predictions.load(here / "test.npz").clipwise_output, graphs.clipwise_output, atol=1e-4)


# gates


def refused(here: Path, message: str, *arguments):
    before = graph_files(here)
    with pytest.raises(ValueError, match=message):
        run(export, "--run", here, *arguments)
    assert graph_files(here) == before


def test_a_graph_that_scores_less_than_the_oof_is_not_written(here):
    (here / "fold1/model.onnx").unlink()
    config = runs.load_run(here).config
    held_out = load_data(config.data).split(1, config.data.folds)[1]
    oof = Predictions.load(here / "fold1/oof.npz").aligned(held_out.clips.clip_id)
    replace(oof, clipwise_output=held_out.target.astype(np.float32)).save(here / "fold1/oof.npz")
    message = (
        r"fold 1: the graph scores map 0\.\d{4} on the held-out clips, the run's OOF 1\.0000: a drop of 0\.\d{4}, "
    )
    refused(here, message + r"more than the 0\.002 allowed \(--max-drop\); nothing was written", "--folds", "1")
    run(export, "--run", here, "--folds", "1", "--max-drop", "1")
    assert (here / "fold1/model.onnx").is_file()


def test_a_graph_that_differs_from_pytorch_is_not_written(here):
    message = r"fold 0: the graph differs from PyTorch by .* more than the 1e-12 allowed"
    refused(here, message, "--max-difference", "1e-12", "--no-oof")


def test_a_second_call_that_differs_is_refused(made):
    folder = made / "runs/sed/tiny"
    graph = open_graph(folder / "fold0/model.onnx")
    eager = TorchBackend(runs.load_model(runs.load_run(folder).folds[0]), graph.frontends)
    call, calls = graph._call, []

    def warming_up(inputs):
        calls.append(1)
        return {k: v + 1e-3 * (len(calls) % 2) for k, v in call(inputs).items()}

    graph._call = warming_up
    with pytest.raises(ValueError, match="fold 0: the second call differs from the first by 0.001"):
        check_parity(graph, [eager], parity_inputs(eager, 8000), None, "fold 0")


def test_a_frozen_time_axis_is_refused(made):
    graph = onnx.load(made / "runs/sed/tiny/fold0/model.onnx")
    axes = {"logmel": {0: "batch", 2: "logmel_frames"}}
    check_axes(graph, axes)
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 101
    with pytest.raises(ValueError, match="froze axis 'logmel_frames' of input logmel to 101"):
        check_axes(graph, axes)


# what cannot be


@pytest.mark.parametrize(("arguments", "message"), [
    (("--format", "onxx"), r"unknown graph format 'onxx'; did you mean 'onnx'"),
    (("--folds", "7"), r"has no trained fold 7 \(folds: \[0, 1\]\)"),
    (("--out", "tiny.yaml"), r"tiny.yaml/fold0/model.onnx cannot be written: .*; give --out FOLDER"),
])  # fmt: skip
def test_exports_that_cannot_be(here, arguments, message):
    refused(here, message, *arguments)


def remove(run: Path, pattern: str):
    for path in run.glob(pattern):
        path.unlink()


def swap(run: Path):
    """Each fold with the other's graph."""
    (run / "fold1/model.onnx").rename(run / "model.onnx")
    (run / "fold0/model.onnx").rename(run / "fold1/model.onnx")
    (run / "model.onnx").rename(run / "fold0/model.onnx")


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda run: remove(run, "fold1/model.onnx"),
     r"folds \[1\] are trained but have no model.onnx: make it with python"),
    (lambda run: remove(run, "fold*/model.onnx"), r"tiny has no model.onnx: make it with python .*src/export.py'? "),
    (swap, r"fold0/model.onnx is the graph of fold 1 of run sed/tiny"),
    (lambda run: (run / "fold0/best.safetensors").write_bytes(b"newer"), r"model.onnx was made of other weights than"),
    (lambda run: (run / "fold0/model.onnx").write_bytes(b"no graph"), r"is not a graph that ONNX Runtime can run"),
])  # fmt: skip
def test_graphs_that_cannot_predict(here, spoil, message):
    spoil(here)
    with pytest.raises(ValueError, match=message):
        run(predict, "--run", here, "--clips", "data/test_clips.csv", "--backend", "onnx")


def test_a_graph_of_another_run_and_one_without_metadata(here):
    graph = onnx.load(here / "fold1/model.onnx")
    about = json.loads(graph.metadata_props[0].value) | {"run": "sed/other"}
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(about)})
    onnx.save(graph, here / "fold1/model.onnx")
    clips = ("--run", here, "--clips", "data/test_clips.csv", "--backend", "onnx")
    with pytest.raises(ValueError, match=r"are of different runs: their run differ; export them again"):
        run(predict, *clips)
    onnx.helper.set_model_props(graph, {})
    onnx.save(graph, here / "fold1/model.onnx")
    with pytest.raises(ValueError, match=r"model.onnx does not say what it is: export it with src/export.py"):
        run(predict, *clips)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--backend", "openvin"), r"--backend is 'openvin'; choose one of .*openvino"),
    (("--int8",), r"--int8, --together and --tune are of exported graphs: add --backend onnx or openvino"),
    (("--backend", "onnx", "--int8"), r"has no model_int8.onnx: make it with python .*src/export.py'? .* --int8"),
    (("--threads", "0"), r"--threads must be 1 or more, got 0"),
])  # fmt: skip
def test_predictions_that_cannot_be(here, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(predict, "--run", here, "--clips", "data/test_clips.csv", *arguments)


def test_tuning_takes_the_fastest(made):
    assert choices(4) == [(1, 4), (2, 2), (4, 1)]
    graph = open_graph(made / "runs/sed/tiny/fold0/model.onnx")

    class Slow:
        about, inputs, frontends, windows = graph.about, graph.inputs, graph.frontends, 0

        def run(self, inputs):

            time.sleep(0.01)
            return graph.run(inputs)

    threads, streams, speeds = tune(lambda n: graph if n == 2 else Slow(), 2, seconds=0.1)
    assert (threads, streams) == (2, 1)
    assert speeds[2, 1] > speeds[1, 2] > 0


# other networks, int8


@pytest.mark.slow
def test_signals_are_survived_after_openvino_compiled(made):
    """OpenVINO leaves a stack for signals too small for Python's handlers: Ctrl-C ended in a segmentation fault."""
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from earshot.prediction.backends import open_graph\n"
        "from earshot.prediction.library_fixes import SignalStack\n"
        "import ctypes\n"
        "def stack():\n"
        "    now = SignalStack(); ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now)); return now.start, now.size\n"
        "before = stack(); graph = open_graph(sys.argv[2]); graph.fix(1); assert stack() == before, stack()\n"
        "heard = []; signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))\n"
        "os.kill(os.getpid(), signal.SIGUSR1); assert heard == [1]"
    )
    graph = made / "runs/sed/tiny/fold0/model.xml"
    done = subprocess.run([sys.executable, "-c", code, str(SRC), str(graph)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

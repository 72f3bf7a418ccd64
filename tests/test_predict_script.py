"""predict.py: what it takes (a table, a folder), what it writes, what it refuses."""

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import predict
from conftest import TINY_CLASSES
from earshot.config import load_config
from earshot.prediction.predictions import Predictions
from earshot.training.oof_report import next_step
from scripts import run


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """An empty working directory beside that run."""
    monkeypatch.chdir(tmp_path)
    return trained


def predicted(here: Path, *arguments) -> Predictions:
    run(predict, "--run", here / "runs/sed/tiny", *arguments, "--out", "found.npz")
    return Predictions.load("found.npz")


def test_a_prepared_table_finds_its_audio_and_fills_the_run(here, capsys):
    run(predict, "--run", here / "runs/sed/tiny", "--clips", here / "data/test_clips.csv")
    assert "3 recordings, 1 fold of sed/tiny" in capsys.readouterr().out
    found = Predictions.load(here / "runs/sed/tiny/test.npz")
    assert found.clip_ids.tolist() == ["t0", "t1", "t2"]
    assert found.classes == TINY_CLASSES
    assert (found.fold == -1).all()
    one = Predictions.load(here / "runs/sed/tiny/fold0/test.npz")
    np.testing.assert_allclose(one.clipwise_output, found.clipwise_output, rtol=1e-6)


@pytest.mark.parametrize("out", [None, "mean.npz"])
def test_a_run_answers_the_mean_of_its_folds(tmp_path, out):
    """Three folds that say different things: their mean, and each fold's own answer beside it unless --out is given."""
    said = np.array([[[0.1, 0.9]], [[0.3, 0.6]], [[0.8, 0.0]]], np.float32)
    folds = [Predictions(np.array(["x"]), ("a", "b"), p, np.array([-1]), np.array([False])) for p in said]
    folders = [tmp_path / f"fold{k}" for k in range(3)]
    predict.save(tmp_path, folds, folders, SimpleNamespace(out=out and tmp_path / out))
    mean = Predictions.load(tmp_path / (out or "test.npz"))
    np.testing.assert_allclose(mean.clipwise_output, [[0.4, 0.5]], atol=1e-6)
    for folder, own in zip(folders, said, strict=True):
        assert (folder / "test.npz").exists() == (out is None)
        if not out:
            np.testing.assert_array_equal(Predictions.load(folder / "test.npz").clipwise_output, own)


def test_a_folder_gives_the_same_answers(here):
    recordings = Path("recordings")
    (recordings / "site a").mkdir(parents=True)
    shutil.copy(here / "source/t0.wav", recordings / "t0.wav")
    shutil.copy(here / "source/t1.wav", recordings / "site a" / "t1.WAV")
    (recordings / "notes.txt").write_text("not audio")
    found = predicted(here, "--clips", recordings)
    assert found.clip_ids.tolist() == ["site a/t1", "t0"]
    table = predicted(here, "--clips", here / "data/test_clips.csv")
    same = {"rtol": 0, "atol": 1e-6}  # of other recordings in a batch, which may round the last bit otherwise
    np.testing.assert_allclose(found.clipwise_output[::-1], table.clipwise_output[:2], **same)
    np.testing.assert_allclose(found.framewise_output[1], table.framewise_output[0], **same)


def test_out_leaves_the_run_alone(here):
    before = {p: p.stat().st_mtime_ns for p in (here / "runs").rglob("*")}
    predicted(here, "--clips", here / "data/test_clips.csv")
    assert {p: p.stat().st_mtime_ns for p in (here / "runs").rglob("*")} == before


def test_a_table_of_ones_own(here):
    """Paths are relative to the table, to --audio-root, or absolute."""
    shutil.copy(here / "source/t2.wav", "mine.wav")
    pd.DataFrame({"clip_id": ["x"], "path": ["mine.wav"]}).to_csv("beside.csv", index=False)
    pd.DataFrame({"clip_id": ["x"], "path": ["t2.wav"]}).to_csv("root.csv", index=False)
    pd.DataFrame({"clip_id": ["x"], "path": [here / "source/t2.wav"]}).to_csv("absolute.csv", index=False)
    answers = [
        predicted(here, "--clips", "beside.csv"),
        predicted(here, "--clips", "root.csv", "--audio-root", here / "source"),
        predicted(here, "--clips", "absolute.csv"),
    ]
    for found in answers[1:]:
        np.testing.assert_array_equal(found.clipwise_output, answers[0].clipwise_output)


def test_unreadable_recordings_are_listed_and_get_the_prior(here, capsys):
    Path("recordings").mkdir()
    shutil.copy(here / "source/t0.wav", "recordings/good.wav")
    Path("recordings/bad.wav").write_bytes(b"RIFF nonsense")
    found = predicted(here, "--clips", "recordings")
    assert found.clip_ids[found.unreadable].tolist() == ["bad"]
    listed = pd.read_csv("found_unreadable.csv")
    assert listed.clip_id.tolist() == ["bad"]
    assert (
        "1 recording could not be read and got the training prior; see found_unreadable.csv" in capsys.readouterr().out
    )
    clips, folds = pd.read_csv(here / "data/clips.csv"), pd.read_csv(here / "folds.csv")
    trained_on = clips.labels[folds.fold != 0].value_counts(normalize=True)
    np.testing.assert_allclose(found.clipwise_output[0], [trained_on[c] for c in TINY_CLASSES], rtol=1e-6)


def test_one_recording_is_predicted_as_in_its_folder(here):
    one = predicted(here, "--clips", here / "source" / "t0.wav")
    of_table = predicted(here, "--clips", here / "data/test_clips.csv")
    assert one.clip_ids.tolist() == ["t0"]
    np.testing.assert_allclose(one.clipwise_output[0], of_table.clipwise_output[0], atol=1e-6)


def test_recordings_none_of_which_is_there_are_an_error(here):
    with pytest.raises(ValueError, match=r"none of the 3 recordings could be read.*elsewhere/t0.wav.*--audio-root"):
        predicted(here, "--clips", here / "data/test_clips.csv", "--audio-root", here / "elsewhere")
    assert not Path("found.npz").exists(), "priors of every clip would pass for predictions"


def test_of_a_hidden_test_the_kernel_is_named(here, tmp_path):
    """As prepare.py leaves a code competition: test_clips.csv names what lies on Kaggle alone."""
    for name in ("dataset.json", "test_clips.csv", "classes.csv"):
        text = (here / "data" / name).read_text()
        (tmp_path / name).write_text(re.sub(r'"competition": "\w+"', '"competition": "birdclef2026"', text))
    with pytest.raises(ValueError, match=r"could be read.* hidden test of birdclef2026 is heard by a kernel alone"):
        predicted(here, "--clips", tmp_path / "test_clips.csv", "--audio-root", tmp_path)
    config = load_config(here / "tiny.yaml", ["data.competition=birdclef2026", f"data.root={tmp_path}"])
    assert "next: python" in (said := next_step(config, Path("runs/sed/tiny"), tmp_path))
    assert "src/export.py" in said
    assert "src/predict.py" in next_step(config, Path("runs/sed/tiny"), here / "source")
    machines = load_config(here / "tiny.yaml", ["task=asd"])
    *_, script, flag, run = shlex.split(next_step(machines, Path("runs/asd/tiny"), here))
    assert (Path(script).name, flag, run) == ("score_anomalies.py", "--run", "runs/asd/tiny")


def test_tta_is_averaged_in(here):
    clips = ("--clips", here / "data/test_clips.csv")
    plain, gain = predicted(here, *clips), predicted(here, *clips, "--tta", "gain")
    assert 0 < np.abs(plain.clipwise_output - gain.clipwise_output).max() < 0.5
    with pytest.raises(ValueError, match="unknown test-time augmentation 'gian'; did you mean 'gain'"):
        predicted(here, *clips, "--tta", "gian")


@pytest.mark.parametrize(("clips", "message"), [
    ("empty", r"empty holds no recording \(aif, .*, wav\)"),
    ("nothing.csv", r"nothing.csv lists no clips"),
    ("columns.csv", r"columns.csv has no column 'clip_id'; did you mean 'clip'"),
    ("ids.csv", r"ids.csv lists 1 clip twice: x"),
    ("gone.csv", r"gone.csv does not exist"),
])  # fmt: skip
def test_what_cannot_be_predicted_is_named(here, clips, message):
    Path("empty").mkdir()
    Path("nothing.csv").write_text("clip_id,path\n")
    Path("columns.csv").write_text("clip,path\nx,a.wav\n")
    Path("ids.csv").write_text("clip_id,path\nx,a.wav\nx,b.wav\n")
    with pytest.raises(ValueError, match=message):
        predicted(here, "--clips", clips)
    assert not Path("found.npz").exists()


def test_runs_that_are_not_there(here):
    clips = ("--clips", here / "data/test_clips.csv")
    with pytest.raises(ValueError, match=r"tinny does not exist; did you mean '.*tiny'"):
        run(predict, "--run", here / "runs/sed/tinny", *clips)
    (here / "runs/sed/begun/fold0").mkdir(parents=True, exist_ok=True)
    with pytest.raises(ValueError, match=r"begun holds no trained fold .*; train it first: python .*src"):
        run(predict, "--run", here / "runs/sed/begun", *clips)


def test_machines_that_a_run_never_heard_are_named(tmp_path, caplog):
    """A run of fans alone answers pumps too, by what they resemble: no reason to be silent."""
    table = {"clip_id": ["a", "b", "c"], "path": "x.wav", "machine": ["fan", "pump", "pump"], "section": "section_00"}
    pd.DataFrame(table).to_csv(tmp_path / "test_clips.csv", index=False)
    heard = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], np.float32)
    classes = ("fan_section_00", "fan_section_01")
    found = Predictions(np.array(["a", "b", "c"]), classes, heard, np.array([-1] * 3), np.zeros(3, bool))
    member = SimpleNamespace(backend=SimpleNamespace(about={"task": "asd"}))
    options = SimpleNamespace(backend="onnx", clips=tmp_path / "test_clips.csv")
    scored = predict.with_anomaly_scores(tmp_path, [found, found], [(member, tmp_path)] * 2, options)
    np.testing.assert_allclose(scored[1].score, [-np.log(3), 0, -np.log(3)], atol=1e-6)
    (said,) = caplog.messages
    assert said.startswith("2 clips are of sections that training never saw, scored by what they resemble most: pump_")
    assert "pump_section_00 (2); src/score_anomalies.py" in said

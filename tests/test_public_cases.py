"""Small inputs of public reports that failed, each with the right value of its README.md.

A case is a folder with `make.py`, which writes `input` beside itself, and a README.md that says what is right. Here it
is made in a copy and given to the product as its `run.sh` does; a row of CASES names what must come out, and a case's
own scripts run as they are. The folder is EARSHOT_CASES, or shared/cases beside the checkout; without it everything
here skips, visibly. A folder of a case that has no row fails.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ensemble
import make_folds
import predict
import prepare
import submit
import train
from earshot import tasks
from earshot.config import load_config
from earshot.data.answers import truth_of
from earshot.data.prepared import PreparedData, load_data
from earshot.events import events_to_frames
from earshot.prediction.predictions import Predictions
from earshot.sound import audio, decoding
from earshot.sound.timebase import TimeBase
from earshot.training.examples import TrainingClips
from scripts import run

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("EARSHOT_CASES", ROOT.parent / "shared" / "cases"))


def prepared(source: Path, competition: str, *options, at: str = "case", folds: tuple = ("--k", 2)) -> list[str]:
    """Prepare a case's input into data/<at> and folds/<at>.csv here; the overrides that name them for a config."""
    run(prepare, competition, "--source", source, "--out", f"data/{at}", *options)
    run(make_folds, "--clips", f"data/{at}/clips.csv", "--out", f"folds/{at}.csv", *folds)
    return [f"data.root=data/{at}", f"data.folds=folds/{at}.csv", f"data.competition={competition}"]


def shipped(script: Path) -> str:
    """What a case's own script prints here: people's scripts know the product by earlier names and earlier calls."""
    source = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=os.environ | source)
    assert done.returncode == 0, done.stderr
    return done.stdout


def predicted(source: Path, trained: Path) -> Predictions:
    run(predict, "--run", trained, "--clips", source, "--out", "found.npz")
    return Predictions.load("found.npz")


# ---- what is right, a function a case: (its input, a trained run, its folder, what was said)


def header_longer_than_audio(source, trained, case, capsys, caplog):
    overrides = prepared(source, "birdclef2024", "--check-audio", at="c5")
    clips = pd.read_csv("data/c5/clips.csv").set_index("clip_id")
    assert clips.duration[["XC1", "XC2"]].tolist() == [10.0, 2.304]
    config = load_config(str(case.parent / "tiny.yaml"), overrides)
    data = load_data(config.data)
    examples = TrainingClips(data, config.data, config.frontends, 1)
    for i in range(len(examples)):
        waves = [examples[(epoch, i)]["waveform"] for epoch in range(40)]
        assert all(np.abs(wave).max() > 0.05 for wave in waves), data.clips.clip_id[i]
    assert shipped(case / "show.py").count("crops of pure silence: 0 of 200") == len(clips)
    decoding.warn_once.cache_clear()
    found = predicted(source / "train_audio", trained)
    lengths = dict(zip(found.clip_ids.tolist(), map(len, found.framewise_output), strict=True))
    assert lengths["amerob/XC1"] == lengths["wewpew/XC3"] > 4 * lengths["amerob/XC2"]
    assert "2 recordings are not as their files say" in capsys.readouterr().out


def vbr_mp3_without_xing(source, trained, case, capsys, caplog):
    for name in ("with_xing", "without_xing"):
        path = source / f"{name}.mp3"
        assert audio.info(path).duration == pytest.approx(60, abs=0.1)
        assert len(audio.load(path, 32000)) / 32000 == pytest.approx(60, abs=0.1)
        assert sum(map(len, audio.blocks(path, 32000, 5.0))) / 32000 == pytest.approx(60, abs=0.1)
    found = predicted(source, trained)
    frames = [len(f) for f in found.framewise_output]
    assert frames[0] == pytest.approx(frames[1], abs=5)
    np.testing.assert_allclose(found.clipwise_output[0], found.clipwise_output[1], atol=0.05)


def float_wav_clipped(source, trained, case, capsys, caplog):
    original = audio.load(source / "train_audio/wewpew/XC2.wav", 16000)
    for options in (("--resample", 16000), ("--resample", 16000, "--pack", 2)):
        run(prepare, "birdclef2024", "--source", source, "--out", "data", *options, "--force")
        assert "not as they say (odd_files.csv): 1 file: XC2.wav" in capsys.readouterr().out
        for path in pd.read_csv("data/clips.csv").set_index("clip_id").path[["XC2"]]:
            stored = audio.load(path, 16000)
            assert (np.abs(stored) > 0.999).mean() < 0.01
            np.testing.assert_allclose(stored, original, atol=1e-4)


def damaged_noise_file(source, trained, case, capsys, caplog):
    overrides = prepared(source, "birdclef2024", folds=("--k", 3))
    noise = "augment.waveform=[{name: AddBackgroundNoise, sounds_path: " + str(source / "noise") + ", p: 0.8}]"
    config = case.parent / "tiny.yaml"
    run(train, "--config", config, "--fold", 0, "--name", "noisy", *overrides, noise, "optim.epochs=2")
    assert "broken.wav cannot be decoded (it is text that begins with '<html>404 Not Found" in caplog.text
    assert Path("runs/sed/noisy/fold0/oof.npz").is_file()


def symlink_loop(source, trained, case, capsys, caplog):
    found = predicted(source, trained)
    assert found.clip_ids.tolist() == ["2023/b", "a"]
    assert "1 file is left out" in capsys.readouterr().out
    assert "is read already" in pd.read_csv("found_odd_files.csv").note[0]


def focal_clips_with_soundscape_rows(source, trained, case, capsys, caplog):
    overrides = prepared(source, "birdclef2026", at="c3", folds=("--k", 3))
    config = load_config(str(case.parent / "tiny.yaml"), [*overrides, "data.targets=events", "data.frame_targets=true"])
    data = load_data(config.data)
    assert "8 of 11 clips have no events and are not `annotated`" in caplog.text
    examples = TrainingClips(data, config.data, config.frontends, 1)
    for i, clip in enumerate(data.clips.itertuples()):
        found = [examples[(epoch, i)] for epoch in range(6)]
        heard = {" ".join(np.array(data.classes)[e["target"] > 0]) for e in found}
        assert all(e["mask"].all() for e in found)
        if clip.kind == "focal":
            assert heard == {clip.labels}
            assert not any(e["frame_mask"].any() for e in found)
        else:
            assert all(e["frame_mask"].all() and (e["frame_target"].max(axis=0) == e["target"]).all() for e in found)
            assert len(heard) > 1, "every crop has the labels of the whole recording"
    oracle = what_is_sung(data)
    scores = tasks.score_sed(oracle, truth_of(oracle, data))
    assert (scores["map"], scores["frame_map"], scores["event_f1"]) == (1, 1, 1)
    said = shipped(case / "show.py")
    assert "scores of an oracle: {'map': 1.0, 'frame_map': 1.0, 'event_f1': 1.0}" in said


def what_is_sung(data: PreparedData) -> Predictions:
    """An oracle's predictions: every bird exactly where it sings, in focal recordings throughout."""
    grid, frames = TimeBase(16000, 320), []
    for clip in data.clips.itertuples():
        active = np.full((int(clip.duration * 50), len(data.classes)), 0.01, np.float32)
        if clip.kind == "focal":
            active[:, data.classes.index(clip.labels)] = 0.99
        else:
            rows = data.events[data.events.filename == clip.clip_id]
            active[events_to_frames(rows, data.classes, grid, len(active))] = 0.99
        frames.append(active)
    n, clipwise = len(frames), np.stack([f.max(axis=0) for f in frames])
    ids = data.clips.clip_id.to_numpy(str)
    return Predictions(
        ids,
        tuple(data.classes),
        clipwise,
        np.zeros(n, int),
        np.zeros(n, bool),
        framewise_output=tuple(frames),
        timebase=grid,
    )


def oof_fold_without_events(source, trained, case, capsys, caplog):
    overrides = prepared(source, "birdclef2021", folds=("--k", 3))
    config = ("--config", case.parent / "tiny.yaml")
    run(train, *config, "--fold", "all", "--name", "c1", *overrides, "optim.epochs=1")
    said = capsys.readouterr().out
    assert "OOF of 14 clips together, map" in said
    assert "event_f1" in said
    assert "scores in time are of the 2 annotated clips of 14" in said
    run(ensemble, "--runs", "runs/sed/c1", "--out", "c1e.npz")
    assert "ensemble of 1" in capsys.readouterr().out
    run(train, *config, "--fold", "all", "--name", "c2", *overrides, "optim.epochs=1", "watch=event_f1")
    said = capsys.readouterr().out
    assert "its held-out clips do not define event_f1: the last epoch's weights are kept" in said
    assert "not defined in fold" in said


def author_groups_split_a_site(source, trained, case, capsys, caplog):
    prepared(source, "birdclef2026", folds=("--k", 3, "--group", "author"))
    folds = pd.read_csv("folds/case.csv")
    soundscapes = folds[folds.clip_id.str.contains("_S08_")]
    assert len(soundscapes) == 6
    assert soundscapes.fold.nunique() == 1
    assert set(soundscapes.group) == {"site_S08"}
    focal = folds.drop(soundscapes.index)
    assert focal.groupby("group").fold.nunique().to_dict() == {"one": 1, "two": 1}
    assert len(focal) == 8


def desed_layouts(source, trained, case, capsys, caplog):
    overrides = prepared(source, "dcase_task4", at="c4", folds=())
    assert "in no split (train, validation, eval) and are left out: maestro_real_train (1 recording)" in caplog.text
    assert "neither train nor are they the test: validation/synthetic21_validation/soundscapes" in caplog.text
    recordings = ["Yaaa_0.000_10.000.wav", "Ybbb_0.000_10.000.wav"]
    assert pd.read_csv("data/c4/test.csv").filename.tolist() == recordings
    said = shipped(case / "score.py")
    assert "recordings in test.csv: 2 different files: 2 classes: ['Cat', 'Speech']" in said
    assert "every true event once: {'event_f1_macro': 1.0, 'event_f1': 1.0}" in said
    paths = pd.read_csv("data/c4/clips.csv").set_index("clip_id").path
    assert paths["Yccc_0.000_10.000"] == "audio/train/strong_label_real/Yccc_0.000_10.000.wav"
    config = load_config(str(case.parent / "tiny.yaml"), overrides)
    data = load_data(config.data)
    what_is_sung(data).save("oracle.npz")
    run(train, "--config", case.parent / "tiny.yaml", "--fold", "all", "--name", "c4", *overrides, "optim.epochs=1")
    for answers in ("runs/sed/c4/oof.npz", "oracle.npz"):
        capsys.readouterr()
        test = ("--competition", "dcase_task4", "--test", "data/c4/test.csv", "--truth", "data/c4/truth.csv")
        run(submit, *test, "--predictions", answers, "--out", "submission.tsv", "--force")
        assert set(pd.read_csv("submission.tsv", sep="\t").filename) == set(recordings)
        assert "valid for dcase_task4" in capsys.readouterr().out
    assert pd.read_csv("submission.tsv", sep="\t").event_label.tolist() == ["Speech", "Cat"]


def nocall_as_class(source, trained, case, capsys, caplog):
    prepared(source, "birdclef2021")
    assert "2 recordings of the training table are labelled nocall" in caplog.text
    assert pd.read_csv("data/case/classes.csv").label.tolist() == ["amerob", "wewpew"]
    labels = pd.read_csv("data/case/clips.csv", keep_default_na=False).labels
    assert sorted(labels) == ["", "", "amerob", "amerob", "wewpew", "wewpew"]
    test = ("--competition", "birdclef2021", "--test", "data/case/test.csv")
    run(submit, *test, "--predictions", source / "test.npz", "--out", "submission.csv")  # of a network of three classes
    assert "2 rows, valid for birdclef2021" in capsys.readouterr().out
    assert pd.read_csv("submission.csv").birds.tolist() == ["amerob", "nocall"]


def readonly_run_folder(source, trained, case, capsys, caplog):
    read_only, bound = source / "run", []
    shutil.copytree(trained, read_only)
    inside = [read_only, *read_only.rglob("*")]
    if not os.geteuid():  # modes bind root only without these capabilities
        if not shutil.which("setpriv"):
            pytest.skip("as root this needs setpriv (util-linux)")
        lost = "-dac_override,-dac_read_search"
        bound = ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}"]
    script = Path(predict.__file__)
    command = [*bound, sys.executable, script, "--run", read_only, "--clips", case / "wav"]
    for path in inside:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        refused = subprocess.run(command, capture_output=True, text=True)
        allowed = subprocess.run([*command, "--out", "found.npz"], capture_output=True, text=True)
    finally:
        for path in inside:
            path.chmod(path.stat().st_mode | 0o200)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "test.npz cannot be written" in refused.stderr
    assert "give --out" in refused.stderr
    assert "recordings" not in refused.stdout, "said before the first recording is heard"
    assert allowed.returncode == 0, allowed.stderr
    assert Predictions.load("found.npz").clip_ids.tolist() == ["a"]


CASES: dict[str, Callable] = {
    "readonly_run_folder": readonly_run_folder,
    "focal_clips_with_soundscape_rows": focal_clips_with_soundscape_rows,
    "oof_fold_without_events": oof_fold_without_events,
    "header_longer_than_audio": header_longer_than_audio,
    "vbr_mp3_without_xing": vbr_mp3_without_xing,
    "float_wav_clipped": float_wav_clipped,
    "damaged_noise_file": damaged_noise_file,
    "symlink_loop": symlink_loop,
    "author_groups_split_a_site": author_groups_split_a_site,
    "desed_layouts": desed_layouts,
    "nocall_as_class": nocall_as_class,
}


def case_folders(folder: Path) -> list[str]:
    """The cases of a folder by name: whatever is described, made or run in a folder of its own."""
    found = (path for part in ("README.md", "make.py", "run.sh") for path in folder.glob(f"*/{part}"))
    return sorted({path.parent.name for path in found})


# they take seconds; the like of them is fast in test_lengths, test_annotated and test_layouts
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_public_case(name, request, tmp_path, monkeypatch, capsys, caplog):
    if name not in case_folders(FOLDER):
        pytest.skip(f"no case {name} in {FOLDER} (set EARSHOT_CASES)")
    for part in (name, "common.py", "tiny.yaml"):
        copy = shutil.copytree if (FOLDER / part).is_dir() else shutil.copy
        copy(FOLDER / part, tmp_path / part)
    case = tmp_path / name
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shipped(case / "make.py")
    decoding.warn_once.cache_clear()
    CASES[name](case / "input", request.getfixturevalue("trained") / "runs/sed/tiny", case, capsys, caplog)


def test_every_case_is_known():
    if not FOLDER.is_dir():
        pytest.skip(f"no cases at {FOLDER} (set EARSHOT_CASES)")
    unknown = set(case_folders(FOLDER)) - set(CASES)
    assert not unknown, f"cases that nothing here tries: {sorted(unknown)}"

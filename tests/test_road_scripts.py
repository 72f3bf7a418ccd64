"""ensemble.py and submit.py on runs that are there: tuning, the choice's file, the truth, members that do not fit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ensemble
import submit
from earshot import runs
from earshot.config import load_config
from earshot.ensemble import search
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table
from earshot.tasks import TASKS
from scripts import run

GRID = TimeBase(8000, 80, 10)  # frames of 0.1 s
CLASSES = ("low", "mid", "high")


def write_run(name: str, config_path, noise: float, seed: int, fold_of=None, classes=CLASSES):
    """A run of three folds on the tiny competition, whose outputs know the labels up to noise; no network."""
    config = load_config(config_path)
    clips = read_table("data/clips.csv").merge(read_table("folds.csv"), on="clip_id")
    fold_of = fold_of or dict(zip(clips.clip_id, clips.fold, strict=True))
    rng = np.random.default_rng(seed)
    for fold in range(3):
        folder = Path("runs/sed") / name / f"fold{fold}"
        runs.create_fold(folder, config, resume=False)
        own = clips[clips.clip_id.map(fold_of) == fold]
        target = np.array([[label == c for c in classes] for label in own.labels], float)
        frames = tuple(
            np.clip(0.1 + 0.2 * t + noise * rng.standard_normal((10, len(classes))), 0, 1).astype(np.float32)
            for t in target
        )
        Predictions(
            own.clip_id.to_numpy(str), classes, np.stack([f.mean(axis=0) for f in frames]), np.full(len(own), fold),
            np.zeros(len(own), bool), framewise_output=frames, timebase=GRID,
        ).save(folder / "oof.npz")  # fmt: skip
        about = {"finished": True, "classes": list(classes), "prior": [0.5] * len(classes), "fold": fold}
        (folder / "run.json").write_text(json.dumps(about))
        (folder / "best.safetensors").write_bytes(b"")
    return Path("runs/sed") / name


def write_test(path, level: float):
    """Test recordings of 10 s of which each has its class in the first 5 s, at this level over 0.1."""
    frames = []
    for k in range(3):
        p = np.full((100, 3), 0.1, np.float32)
        p[5:45, k] = level
        frames.append(p)
    clip = np.stack([f.max(axis=0) for f in frames])
    ids = np.array([f"t{i}" for i in range(3)])
    Predictions(
        ids, CLASSES, clip, np.full(3, -1), np.zeros(3, bool), framewise_output=tuple(frames), timebase=GRID
    ).save(path)


def truth_csv() -> Path:
    test = read_table("data/test.csv")
    birds = [CLASSES[int(a[1])] if s == 5 else "nocall" for a, s in zip(test.audio_id, test.seconds, strict=True)]
    pd.DataFrame({"row_id": test.row_id, "birds": birds}).to_csv("data/truth.csv", index=False)
    return Path("data/truth.csv")


def test_the_choice_of_an_ensemble_reaches_the_submission(tiny, capsys):
    """Outputs of 0.3 where a class is there: nothing at 0.5, everything at the threshold chosen on the OOF."""
    members = [write_run(name, tiny, 0.02, seed) for seed, name in enumerate("ab")]
    run(ensemble, "--runs", *members, "--tune", "--out", "runs/both.npz")
    said = capsys.readouterr().out
    assert "post-processing by row_micro_f1, 24 OOF clips, 3 folds: held-out folds 0.0000 -> 1.0000" in said
    about = json.loads(Path("runs/both.json").read_text())
    chosen = json.loads(Path("runs/both_post.json").read_text())
    assert about["post_processing"] == chosen
    assert 0.15 < chosen["post"]["threshold"] < 0.3
    assert chosen["oof"]["of"] == [str(m) for m in members]
    assert chosen["competition"] == "birdcall"
    write_test("t.npz", 0.3)
    arguments = (
        "--competition",
        "birdcall",
        "--predictions",
        "t.npz",
        "--test",
        "data/test.csv",
        "--truth",
        truth_csv(),
    )
    run(submit, *arguments, "--out", "submissions/plain.csv")
    assert "row_micro_f1             0.5000" in capsys.readouterr().out  # nocall throughout
    run(submit, *arguments, "--out", "submissions/chosen.csv", "--post", "runs/both_post.json")
    assert "row_micro_f1             1.0000" in capsys.readouterr().out
    run(submit, *arguments, "--out", "submissions/again.csv", "--post", "runs/both.json")
    assert Path("submissions/again.csv").read_bytes() == Path("submissions/chosen.csv").read_bytes()
    assert read_table("submissions/log.csv").score.tolist() == [0.5, 1.0, 1.0]
    capsys.readouterr()
    run(submit, "--check", "submissions/chosen.csv", *arguments[:2], *arguments[4:])
    assert "row_micro_f1             1.0000" in capsys.readouterr().out


def test_submit_tunes_as_ensemble_does(tiny, capsys):
    member = write_run("a", tiny, 0.02, 0)
    run(ensemble, "--runs", member, "--tune", "--out", "runs/one.npz")
    write_test("t.npz", 0.3)
    arguments = ("--competition", "birdcall", "--predictions", "t.npz", "--test", "data/test.csv")
    run(submit, *arguments, "--out", "s.csv", "--tune-on", "runs/one_oof.npz", "--clips", "data/clips.csv")
    ours, theirs = (json.loads(Path(name).read_text()) for name in ("s_post.json", "runs/one_post.json"))
    assert ours["post"] == theirs["post"]
    assert ours["steps"] == theirs["steps"]
    capsys.readouterr()
    (Path("start.yaml")).write_text("iou_threshold: null\nmin_seconds: 0.2\n")
    run(submit, *arguments, "--out", "t.csv", "--tune-on", "runs/one_oof.npz", "--clips", "data/clips.csv", "--steps",
        "threshold", "--post", "start.yaml")  # fmt: skip
    steps = json.loads(Path("t_post.json").read_text())
    assert [s["name"] for s in steps["steps"]] == ["threshold"]
    assert (steps["post"]["min_seconds"], steps["post"]["iou_threshold"]) == (0.2, None)
    with pytest.raises(ValueError, match=r"s\.csv exists already"):  # before a search that the same call asks for
        run(submit, *arguments, "--out", "s.csv", "--tune-on", "nowhere.npz", "--clips", "data/clips.csv")
    pd.read_csv("data/test.csv").drop(columns="seconds").to_csv("cut.csv", index=False)
    short = ["cut.csv" if a == "data/test.csv" else a for a in arguments]
    with pytest.raises(ValueError, match="seconds"):
        run(submit, *short, "--out", "v.csv", "--tune-on", "nowhere.npz", "--clips", "data/clips.csv")
    Path("data/dataset.json").write_text(json.dumps({"competition": "esc50", "source": "."}))
    with pytest.raises(ValueError, match="esc50 has no post-processing to choose, its rows are scores: no --tune-on"):
        run(submit, "--competition", "esc50", *arguments[2:], "--out", "u.csv", "--tune-on", "runs/one_oof.npz",
            "--clips", "data/clips.csv")  # fmt: skip


@pytest.mark.slow
def test_an_ensemble_that_loses_to_its_best_member_says_so(tiny, capsys):
    good, noisy = write_run("good", tiny, 0.02, 0), [write_run(f"noisy{i}", tiny, 3.0, i) for i in (1, 2, 3)]
    run(ensemble, "--runs", good, write_run("second", tiny, 0.02, 4), "--out", "runs/x.npz")
    assert "WORSE" not in capsys.readouterr().out
    assert not json.loads(Path("runs/x.json").read_text())["best_member"]["better_than_ensemble"]
    run(ensemble, "--runs", *noisy, good, "--out", "runs/y.npz")
    said, about = capsys.readouterr().out, json.loads(Path("runs/y.json").read_text())
    assert (about["best_member"]["run"], about["best_member"]["score"]) == (str(good), 1.0)
    assert about["cv"] < 1.0, "the case is there"
    assert about["best_member"]["better_than_ensemble"]
    assert (
        f"the ensemble is WORSE than its best member alone: sed/good map 1.0000, the ensemble {about['cv']:.4f}" in said
    )


def test_members_of_other_folds_or_classes_are_refused(tiny):
    a = write_run("a", tiny, 0.02, 0)
    clips = read_table("data/clips.csv").clip_id
    b = write_run("b", tiny, 0.02, 1, fold_of={c: i % 3 for i, c in enumerate(clips)})
    with pytest.raises(ValueError, match=r"runs/sed/a and runs/sed/b cannot be blended: they were trained on different "
                       r"fold tables"):  # fmt: skip
        run(ensemble, "--runs", a, b, "--out", "x.npz")
    c = write_run("c", tiny, 0.02, 1, classes=("mid", "low", "high"))
    with pytest.raises(ValueError, match=r"runs/sed/a and runs/sed/c cannot be blended: their classes differ, same "
                       r"classes in another order"):  # fmt: skip
        run(ensemble, "--runs", a, c, "--out", "x.npz")
    assert not Path("x.npz").exists()


def test_outputs_on_other_grids_are_not_blended_in_silence():
    """A blend of 10 and 100 ms has no frames: an error where they are scored, else said."""
    events = pd.DataFrame({"filename": ["a", "b"], "onset": 0.0, "offset": 1.0, "event_label": ["low", "mid"]})
    truth = Truth(np.eye(2, 3, dtype=np.float32), events)

    def member(grid):
        frames = None if grid is None else tuple(np.full((2, 10, 3), 0.5, np.float32))
        return Predictions(
            np.array(["a", "b"]), CLASSES, np.full((2, 3), 0.5, np.float32), np.zeros(2, int), np.zeros(2, bool),
            framewise_output=frames, timebase=grid,
        )  # fmt: skip

    def said(*grids, watch="map"):
        return search.check_grids(["x", "y"], [member(grid) for grid in grids], TASKS["sed"], truth, watch)

    fine = TimeBase(1000, 10)
    assert said(fine, fine, watch="frame_map") == said(None, None) == ""
    assert "x every 10 ms, y every 100 ms. The blend has none" in said(fine, TimeBase(1000, 100))
    with pytest.raises(ValueError, match="x every 10 ms, y never. Without them there is no frame_map: blend runs"):
        said(fine, None, watch="frame_map")


def test_a_watched_score_that_is_known_no_more_is_said(tiny):
    """A run of a metric that its user took away again."""
    member = write_run("a", tiny, 0.02, 0)
    for path in member.glob("fold*/config.yaml"):
        path.write_text(path.read_text().replace("watch: ''", "watch: maap"))
    with pytest.raises(ValueError, match=r"sed/a: its config watches 'maap', which is no score of its OOF; did you "
                       r"mean 'map'\? .*choose another `watch`"):  # fmt: skip
        run(ensemble, "--runs", member, "--out", "x.npz")
    assert not Path("x.npz").exists()


@pytest.mark.parametrize("weights", ["equal", pytest.param("search", marks=pytest.mark.slow)])
def test_scores_without_post_processing_are_blended_by_the_official_one(tiny, capsys, weights):
    """rfcx: LWLRAP decides, and there is nothing to tune."""
    text = Path(tiny).read_text().replace("competition: birdcall", "competition: rfcx")
    Path(tiny).write_text(text)
    members = [write_run(name, tiny, 0.3, seed) for seed, name in enumerate("ab")]
    run(ensemble, "--runs", *members, "--tune", "--weights", weights, "--out", "runs/x.npz")
    about = json.loads(Path("runs/x.json").read_text())
    assert about["watch"] == "lwlrap"
    assert "post_processing" not in about
    assert "rfcx has no post-processing: its rows are scores" in capsys.readouterr().out

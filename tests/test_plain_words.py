"""What scripts say is what they do: thresholds that are used, settings that differ, teachers that leaked."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bulk
import demo
from earshot import runs
from earshot.data import pseudo
from earshot.events import PostProcess
from earshot.listening.confidence import from_oof, told_post
from earshot.prediction.origin import Origin, TableDigests
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from earshot.training.reporting import unreadable

ROOT = Path(__file__).resolve().parents[1]


def test_a_given_threshold_is_the_one_that_is_said(tmp_path):
    assert from_oof(tmp_path).said == [f"no OOF in {tmp_path}: threshold 0.5, confidence is the output"]
    assert from_oof(tmp_path, threshold=0.3).said == [
        f"no OOF in {tmp_path}: threshold 0.3, as given, confidence is the output"
    ]


@pytest.fixture
def run_of_clips(tmp_path, monkeypatch):
    """A run's OOF of twelve clips of two classes, on which no event can be scored."""
    rng = np.random.default_rng(0)
    target = np.arange(12)[:, None] % 2 == np.arange(2)
    answers = np.clip(0.5 * target + 0.5 * rng.random((12, 2)), 0, 1).astype(np.float32)
    ids = np.array([f"c{i}" for i in range(12)])
    oof = Predictions(ids, ("a", "b"), answers, np.zeros(12, int), np.zeros(12, bool), timebase=TimeBase(8000, 80, 10))
    oof.save(tmp_path / "oof.npz")

    class Run:
        config = SimpleNamespace(data=SimpleNamespace(competition="esc50"), predict=SimpleNamespace(window_seconds=5.0))

    monkeypatch.setattr(runs, "load_run", lambda folder: Run)
    monkeypatch.setattr("earshot.listening.confidence.load_data", lambda data: None)
    monkeypatch.setattr("earshot.listening.confidence.truth_of", lambda oof, data: Truth(target))
    return tmp_path


def test_an_oof_of_every_class_in_every_clip_calibrates_nothing(run_of_clips, monkeypatch):
    truth = Truth(np.ones((12, 2), bool))
    monkeypatch.setattr("earshot.listening.confidence.truth_of", lambda oof, data: truth)
    found = from_oof(run_of_clips)
    assert found.calibration is None
    assert found.said[-1] == (
        "confidence is the output: each recording of the OOF holds every class, which calibrates nothing"
    )


def test_thresholds_of_the_oof_are_said_only_where_they_are_used(run_of_clips):
    said = from_oof(run_of_clips).said
    assert said[0].startswith("thresholds chosen on the OOF's clips, a class each")
    found = from_oof(run_of_clips, threshold=0.35)
    assert found.said[0] == "threshold 0.35, as given, for every class"
    assert not found.post.class_thresholds
    assert found.said[1] == said[1]
    assert found.calibration is not None


def test_all_that_was_chosen_on_the_oof_is_said():
    start = PostProcess(threshold=0.5, median_filter_seconds=0.1)
    assert told_post(start, start) == "threshold 0.5"
    post = replace(
        start, threshold=0.7311, threshold_low=0.4386, class_thresholds={"a": 0.7, "b": 0.6}, row_pool="mean"
    )
    assert told_post(post, start) == "threshold 0.731, threshold_low 0.439, 2 class_thresholds, row_pool mean"
    assert told_post(replace(start, median_filter_seconds=0.0), start) == "threshold 0.5, median_filter_seconds 0"


def test_settings_that_differ_are_said_whole_and_by_name():
    before = {"threshold": 0.5, "class_thresholds": {"bird": 0.25, "frog": 0.5}, "kinds": ["x" * 50, "y" * 50]}
    now = {"threshold": 0.5, "class_thresholds": {"bird": 0.75}, "kinds": ["x" * 50, "z" * 50]}
    assert bulk.differences("post", before, now) == [
        "post.class_thresholds.bird 0.25, now 0.75", "post.class_thresholds.frog 0.5, now null",
        f'post.kinds[1] "{"y" * 50}", now "{"z" * 50}"',
    ]  # fmt: skip
    assert bulk.differences("slope", [1, 2, 3], [1, 5, 6]) == ["slope[1] 2, now 5 and 1 more values"]
    assert bulk.differences("slope", [1], [1, 2]) == ["slope of 1 values, now of 2"]
    assert bulk.differences("top", 3, 4) == ["top 3, now 4"]


def test_a_leak_of_many_teachers_names_few_of_them():
    tables = TableDigests(folds="f", classes="c", clips="d")
    teachers = [Origin(run=f"sed/{name}", fold=fold, tables=tables) for name in "abcdefgh" for fold in (1, 2)]

    class Manifest:
        mode, lineage = pseudo.ISOLATED, [{"mode": "source"}] * 40

    Manifest.teachers, Manifest.tables = {"0": teachers}, tables
    found = pseudo.why_not_isolated(Manifest, 0)
    assert found == [
        "run sed/a fold 1, run sed/a fold 2, ... (14 more) answered for it, trained on the clips that it holds out",
        "its teachers were trained on targets of mode 'source'",
    ]


def test_clips_that_cannot_be_read_are_counted():
    clips = pd.DataFrame({"clip_id": list("abc"), "duration": [1.0, np.nan, 2.0]})
    assert unreadable(clips) == " (1 of them unreadable)"
    assert unreadable(clips.dropna()) == unreadable(clips[["clip_id"]]) == ""


SUMMARY = {
    "cv": 0.2, "cv_metric": "map", "test_row_micro_f1": 0.11, "best_possible_threshold_f1": 0.2,
    "control_constant": 0.3, "control_shuffled": 0.1, "seconds": 30.0, "peak_rss_mb": 900,
}  # fmt: skip


def test_the_quick_demo_does_not_read_like_a_failure(capsys):
    demo.report(SUMMARY | {"quick": True}, Path("runs/sed/demo-quick"))
    said = capsys.readouterr().out
    assert "that is all that --quick shows" in said
    assert "control" not in said
    demo.report(SUMMARY | {"quick": False}, Path("runs/sed/demo"))
    assert "control: best constant answer                  0.3000" in capsys.readouterr().out


def test_where_examples_write_to_is_nothing_that_git_shows():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for page, folder in (("detect.md", "found"), ("bulk.md", "archive")):
        assert f"--out {folder} " in (ROOT / "docs" / page).read_text()
        assert f"/{folder}" in ignored

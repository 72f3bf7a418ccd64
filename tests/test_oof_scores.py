"""What an OOF is scored by is the competition's own score of the submission that the OOF would be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import train
from earshot import tasks
from earshot.competitions import get_competition
from earshot.competitions.birdclef_rows import balanced_accuracy, best_bird_thresholds
from earshot.competitions.oof_scores import SCORE_ROWS
from earshot.data.answers import read_truth
from earshot.ensemble.oof import frame_scores
from earshot.ensemble.post_processing import choose_post
from earshot.events import PostProcess
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth, anomaly_scores_of
from earshot.sound.timebase import TimeBase
from scripts import run

GRID = TimeBase(1000, 100)  # frames of 0.1 s


def oof(target, classes, seed=0, total=None) -> Predictions:
    rng = np.random.default_rng(seed)
    output = np.clip(0.4 * target + 0.6 * rng.random(target.shape), 0, 1)
    output = output / output.sum(axis=1, keepdims=True) if total else output
    n = len(target)
    ids = np.array([f"c{i}" for i in range(n)])
    return Predictions(ids, tuple(classes), output.astype(np.float32), np.arange(n) % 3, np.zeros(n, bool))


def one_label(n=60, k=5) -> np.ndarray:
    return np.eye(k)[np.random.default_rng(1).integers(0, k, n)]


def official(name, found, test, truth) -> dict:
    competition = get_competition(name)
    return competition.score(competition.rows(found, test), truth)


@pytest.mark.parametrize(("name", "key", "label"), [
    ("esc50", "filename", "category"), ("dcase2018_task2", "fname", "label"),
])  # fmt: skip
def test_one_label_a_clip(name, key, label):
    target, classes = one_label(), np.array(list("abcde"))
    found = oof(target, classes)
    truth = pd.DataFrame({key: found.clip_ids, label: classes[target.argmax(axis=1)]})
    test = pd.DataFrame({key: found.clip_ids, "clip_id": found.clip_ids})
    expected = official(name, found, test, truth)
    assert 0.3 < next(iter(expected.values())) < 1
    assert get_competition(name).oof_score.of(found, Truth(target), None) == pytest.approx(expected)
    assert get_competition(name).oof_score.of(found, Truth(np.ones_like(target)), None) == {}


def test_map_at_3_by_hand():
    """The true class first, third and fourth: (1 + 1/3 + 0) / 3."""
    scores = np.array([[0.9, 0.1, 0.2, 0.3], [0.9, 0.3, 0.6, 0.1], [0.1, 0.2, 0.3, 0.4]], np.float32)
    target = np.eye(4)[[0, 1, 0]]
    found = Predictions(np.array(list("xyz")), tuple("abcd"), scores, np.zeros(3), np.zeros(3, bool))
    value = get_competition("dcase2018_task2").oof_score.of(found, Truth(target), None)
    assert value == {"map@3": pytest.approx(4 / 9)}


def test_several_labels_a_clip():
    classes = [f"s{i}" for i in range(24)]
    target = (np.random.default_rng(2).random((40, 24)) < 0.1).astype(float)
    found = oof(target, classes)
    truth = pd.DataFrame(target, columns=classes).assign(recording_id=found.clip_ids)
    test = pd.DataFrame({"recording_id": found.clip_ids})
    expected = official("rfcx", found, test, truth)
    assert get_competition("rfcx").oof_score.of(found, Truth(target), None) == pytest.approx(expected)


def test_scenes_are_ranked_by_what_the_year_ranked_by():
    target = one_label(90, 4)
    classes = np.array(["bus", "metro", "park", "tram"])
    found = oof(target, classes, total=1)
    truth = pd.DataFrame({"filename": found.clip_ids, "scene_label": classes[target.argmax(axis=1)]})
    test = pd.DataFrame({"filename": found.clip_ids, "clip_id": found.clip_ids})
    expected = official("dcase2021_task1", found, test, truth)
    score = get_competition("dcase2021_task1").oof_score
    values = score.of(found, Truth(target), None)
    assert values == pytest.approx({k: expected[k] for k in values}, rel=1e-5)
    assert score.name == next(iter(expected)) == "log_loss"
    assert score.value(found, Truth(target)) == -values["log_loss"]
    assert tasks.upward("log_loss", 2.0) == -2.0
    assert tasks.upward("map", 2.0) == 2.0
    assert get_competition("dcase2020_task1").oof_score.name == "class_mean_accuracy"


def test_urban_tags_at_both_levels():
    classes = ["1-1_small-engine", "1-X_engine-unknown", "2-1_rock-drill", "2-2_jackhammer"]
    target = (np.random.default_rng(3).random((80, 4)) < 0.3).astype(int)
    found = oof(target, classes)
    truth = pd.DataFrame(target, columns=classes).assign(audio_filename=found.clip_ids)
    test = pd.DataFrame({"audio_filename": found.clip_ids, "clip_id": found.clip_ids})
    expected = official("sonyc_ust_fine", found, test, truth)
    assert set(expected) >= {"coarse_macro_auprc", "fine_macro_auprc"}
    assert get_competition("sonyc_ust_fine").oof_score.of(found, Truth(target), None) == pytest.approx(expected)


@pytest.mark.parametrize("year", range(2020, 2026))
def test_machines_as_the_year_scores_them(year):
    rng = np.random.default_rng(4)
    rows = [(m, s, d, a) for m in ("fan", "saw") for s in ("section_00", "section_01") for d in ("source", "target")
            for a in (0, 1) for _ in range(6)]  # fmt: skip
    clips = pd.DataFrame(rows, columns=["machine", "section", "domain", "is_anomaly"])
    clips = clips.assign(part=clips.section + "_test", filename=[f"{i}.wav" for i in range(len(clips))])
    names = clips.machine + "_" + clips.section
    classes = sorted(set(names))
    n = len(clips)
    score = rng.normal(clips.is_anomaly * 0.8).astype(np.float32)
    found = Predictions(
        np.array([f"c{i}" for i in range(n)]), tuple(classes), np.zeros((n, 4), np.float32), np.zeros(n, int),
        np.zeros(n, bool), score=score,
    )  # fmt: skip
    truth = Truth(np.array([[c == name for c in classes] for name in names]), clips=clips)
    expected = official(f"dcase{year}_task2", found, clips.assign(clip_id=found.clip_ids), clips)
    oof_score = get_competition(f"dcase{year}_task2").oof_score
    values = oof_score.of(found, truth, None)
    assert values == pytest.approx({k: expected[k] for k in values})
    assert next(iter(values)) == oof_score.name == "official"
    normal = np.flatnonzero(clips.is_anomaly == 0)
    assert oof_score.of(found.take(normal), truth.take(normal), None) == {}


def test_the_scores_that_predictions_carry_are_those_of_the_clip():
    target = np.eye(2)
    output = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    found = Predictions(np.array(["x", "y"]), ("m_0", "m_1"), output, np.zeros(2), np.zeros(2, bool))
    own = anomaly_scores_of(found, Truth(target))
    assert own == pytest.approx([np.log(0.1 / 0.9), np.log(0.4 / 0.6)], rel=1e-5)
    assert anomaly_scores_of(replace(found, score=np.array([3.0, 4.0])), Truth(target)).tolist() == [3, 4]


# ---- rows of 5 s


def soundscapes() -> tuple[Predictions, Truth]:
    """20 clips of 10 s: class a is loud for a moment where it is there, b hums all through, both over noise."""
    rng = np.random.default_rng(5)
    target = rng.random((20, 2)) < 0.5
    frames = []
    for a, b in target:
        p = np.zeros((100, 2), np.float32)
        p[:, 0] = 0.2 + 0.1 * rng.random(100)
        p[40, 0] += 0.6 * a
        p[:, 1] = 0.2 + 0.2 * b
        p[rng.integers(2, 98, 2), 1] = 0.9 + 0.1 * rng.random(2)  # clicks in either case
        frames.append(p)
    clip = np.stack([f.max(axis=0) for f in frames])
    found = Predictions(np.array([f"c{i}" for i in range(20)]), ("a", "b"), clip, np.arange(20) % 4, np.zeros(20, bool),
                        framewise_output=tuple(frames), timebase=GRID)  # fmt: skip
    return found, Truth(target)


def test_rows_of_probabilities_are_pooled_as_the_submission_is():
    found, truth = soundscapes()
    score = get_competition("birdclef2025").oof_score
    by_hand = []
    for how in (np.max, np.mean):
        rows = np.stack([np.maximum(how(f[:50], axis=0), how(f[50:], axis=0)) for f in found.framewise_output])
        by_hand.append(clip_metrics.macro_roc_auc(truth.target, rows))
    assert score.of(found, truth, PostProcess()) == {"macro_roc_auc": pytest.approx(by_hand[0])}
    assert score.of(found, truth, PostProcess(row_pool="mean")) == {"macro_roc_auc": pytest.approx(by_hand[1])}
    clips_alone = replace(found, framewise_output=None, timebase=None)
    assert score.of(clips_alone, truth, None) == {
        "macro_roc_auc": pytest.approx(clip_metrics.macro_roc_auc(truth.target, found.clipwise_output))
    }


def test_a_median_filter_is_chosen_against_clicks():
    found, truth = soundscapes()
    hum = replace(
        found, classes=("b",), clipwise_output=found.clipwise_output[:, [1]],
        framewise_output=tuple(f[:, [1]] for f in found.framewise_output),
    )  # fmt: skip
    score = get_competition("birdclef2025").oof_score
    choice = choose_post(hum, Truth(truth.target[:, [1]]), score, SCORE_ROWS)
    assert choice.post.median_filter_seconds > 0 or choice.post.row_pool == "mean"
    assert choice.fitted == 1.0
    assert choice.before.mean() < 0.7


def test_birds_that_are_scored_one_by_one():
    target = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    clip = np.array([[0.9, 0.6, 0], [0.4, 0.9, 0], [0.1, 0.8, 0], [0.7, 0.1, 0]], np.float32)
    found = Predictions(np.array(list("wxyz")), ("a", "b", "c"), clip, np.zeros(4), np.zeros(4, bool))
    values = get_competition("birdclef2022").oof_score.of(found, Truth(target), PostProcess())
    assert values == {"balanced_accuracy": (0.5 + 0.75) / 2, "birds_scored": 2}  # a: 1/2, 1/2; b: 1, 1/2; c: never


def test_a_birds_threshold_is_where_both_rates_are_best():
    """Against trying every threshold; a bird that is never there takes the common one."""
    rng = np.random.default_rng(6)
    target = rng.random((60, 4)) < 0.3
    target[:, 3] = False
    found = oof(target.astype(float), "abcd", seed=7)
    one, many = best_bird_thresholds(found, Truth(target))
    assert many[3] == one
    for k in range(3):
        values = [balanced_accuracy(target[:, k], found.clipwise_output[:, k] >= t) for t in np.linspace(0, 1, 2001)]
        at_best = balanced_accuracy(target[:, k], found.clipwise_output[:, k] >= np.float32(many[k]))
        assert at_best == pytest.approx(max(values))


# ---- where they show


def test_official_scores_are_logged_and_watched(tiny):
    run(train, "--config", tiny, "--fold", 0, "data.competition=dcase2018_task2", "watch=map@3", "optim.epochs=1",
        "--name", "x")  # fmt: skip
    log = pd.read_csv("runs/sed/x/fold0/log.csv")
    assert 0 < log["map@3"].iloc[-1] <= 1
    assert log["event_f1"].notna().all()
    assert json.loads(Path("runs/sed/x/fold0/run.json").read_text())["scores"]["map@3"] == log["map@3"].iloc[-1]
    found = Predictions.load("runs/sed/x/fold0/oof.npz")
    truth = read_truth(found, Path("data/clips.csv"))
    official = get_competition("dcase2018_task2").oof_score.of(found, truth, None)
    assert log["map@3"].iloc[-1] == pytest.approx(official["map@3"])


def test_a_task_with_a_competition_has_both_scores():
    target = one_label()
    found, truth = oof(target, "abcde"), Truth(target)
    plain, both = tasks.get_task("tagging"), tasks.get_task("tagging", "dcase2018_task2")
    assert "map@3" not in plain.score(found, truth)
    assert both.score(found, truth) == plain.score(found, truth) | {"map@3": both.score(found, truth)["map@3"]}
    assert (plain.watch, both.watch) == ("map", "map@3")


@pytest.mark.parametrize(
    ("competition", "watch"),
    [
        ("dcase2020_task1", "class_mean_accuracy"),
        ("dcase2021_task1", "log_loss"),  # by which the year ranked
        ("dcase2022_task1", "log_loss"),
        ("dcase2024_task1", "class_mean_accuracy"),
        ("rfcx", "lwlrap"),
        ("birdcall", "map"),  # rows that post-processing cuts
        ("dcase2023_task2", "auc"),  # a download without both domains has no official score
    ],
)
def test_training_watches_what_the_board_ranks_by(competition, watch):
    assert tasks.get_task(get_competition(competition).task, competition).watch == watch


def test_log_loss_is_of_the_shares_that_a_submission_holds():
    target = np.eye(3)[[0, 1, 2]] > 0
    sigmoid = Predictions(np.array(list("xyz")), tuple("abc"), np.float32([[0.9, 0.3, 0.3], [0, 0.4, 0.4], [0, 0, 0]]),
                          np.zeros(3, int), np.zeros(3, bool))  # fmt: skip
    score = get_competition("dcase2022_task1").oof_score
    assert score.of(sigmoid, Truth(target), None)["log_loss"] == pytest.approx(-np.log([0.6, 0.5, 1 / 3]).mean())


def test_psds_of_the_frames_of_an_oof():
    pytest.importorskip("sed_scores_eval")
    frames = np.zeros((100, 2), np.float32)
    frames[10:30, 0] = frames[50:90, 1] = 0.9
    found = Predictions(np.array(["x"]), ("Dog", "Cat"), frames.max(axis=0)[None], np.zeros(1), np.zeros(1, bool),
                        framewise_output=(frames,), timebase=GRID)  # fmt: skip
    events = pd.DataFrame([("x", 1.0, 3.0, "Dog"), ("x", 5.0, 9.0, "Cat")],
                          columns=["filename", "onset", "offset", "event_label"])  # fmt: skip
    truth = Truth(np.ones((1, 2)), events, clips=pd.DataFrame({"clip_id": ["x"], "duration": [10.0]}))
    competition = get_competition("dcase_task4")
    assert frame_scores(competition, found, truth) == pytest.approx({"psds1": 1, "psds2": 1})
    one = replace(
        found, classes=("Dog",), clipwise_output=found.clipwise_output[:, :1], framewise_output=(frames[:, :1],)
    )
    dogs = Truth(np.ones((1, 1)), events.iloc[:1], clips=truth.clips)
    assert set(frame_scores(get_competition("finch_vocal"), one, dogs)) == {"psds1"}
    assert frame_scores(get_competition("birdcall"), found, truth) == {}
    assert frame_scores(competition, replace(found, framewise_output=None, timebase=None), truth) == {}

"""The one function that chooses post-processing: what it keeps, what events ask for, how the choice travels."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from earshot.competitions import get_competition
from earshot.competitions.competition import OofScore, PostRanges
from earshot.competitions.finch import prepare
from earshot.competitions.oof_scores import EVENTS, best_row_thresholds
from earshot.ensemble.choice import as_dict, read_post, write_choice
from earshot.ensemble.post_processing import choose_post, keeps, parts_of
from earshot.events import PostProcess, events_to_frames
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase

GRID = TimeBase(32000, 320)  # frames of 10 ms


@pytest.mark.parametrize(("gains", "kept"), [
    ([0.02, 0.03, 0.04], True),  # 0.03 +- 0.0082
    ([0.10, -0.05, 0.02], False),  # 0.0233 +- 0.0613
    ([0.0, 0.2], False),  # 0.1 +- 0.1: not MORE than it deviates
    ([-0.03, -0.03, -0.03], False),
    ([0.5], False),  # one fold says nothing of a deviation
    ([], False),
])  # fmt: skip
def test_a_gain_counts_where_it_is_larger_than_its_deviation(gains, kept):
    assert keeps(np.array(gains)) == kept


def made_score(by_fold: dict[float, list[float]]) -> OofScore:
    """A score that is the mean over clips of what stands for their fold at this min_seconds."""

    def of(found, truth, post=None):
        return {"s": float(np.mean([by_fold[post.min_seconds][int(f)] for f in found.fold]))}

    return OofScore("s", of)


def clips(n=6, folds=3) -> tuple[Predictions, Truth]:
    """Clips with frames, two in each fold."""
    frames = tuple(np.zeros((3, 1), np.float32) for _ in range(n))
    found = Predictions(np.arange(n).astype(str), ("a",), np.zeros((n, 1), np.float32), np.arange(n) % folds,
                        np.zeros(n, bool), framewise_output=frames, timebase=GRID)  # fmt: skip
    return found, Truth(np.ones((n, 1), bool))


def test_a_step_that_gains_in_every_fold_is_kept():
    """Gains of 0.1, 0.2 and 0.15: 0.15 +- 0.0408."""
    score = made_score({0.0: [0.5, 0.5, 0.5], 0.1: [0.6, 0.7, 0.65]})
    choice = choose_post(*clips(), score, PostRanges(min_seconds=(0.0, 0.1)))
    (step,) = choice.steps
    np.testing.assert_allclose(step.gains, [0.1, 0.2, 0.15])
    assert step.kept
    assert choice.post == PostProcess(min_seconds=0.1)
    assert (choice.before.tolist(), choice.after.tolist()) == ([0.5, 0.5, 0.5], [0.6, 0.7, 0.65])
    assert choice.fitted == pytest.approx(0.65)
    assert "min_seconds 0.1: +0.1500 +- 0.0408 over 3 folds, kept" in str(choice)


def test_a_step_that_one_fold_alone_wants_is_not_kept():
    """All clips together prefer 0.1 (0.567 to 0.5), but what the others choose for a fold loses: 0, -0.1, 0."""
    score = made_score({0.0: [0.5, 0.5, 0.5], 0.1: [0.8, 0.4, 0.5]})
    choice = choose_post(*clips(), score, PostRanges(min_seconds=(0.0, 0.1)))
    (step,) = choice.steps
    np.testing.assert_allclose(step.gains, [0.0, -0.1, 0.0])
    assert (step.value, step.kept) == (0.1, False)
    assert choice.post == PostProcess()
    assert choice.after.tolist() == choice.before.tolist()
    always = choose_post(*clips(), score, PostRanges(min_seconds=(0.0, 0.1)), always=True)
    assert always.post == PostProcess(min_seconds=0.1)


def test_what_a_fold_answers_does_not_change_what_is_chosen_for_it():
    """The held-out fold's own values may be anything: they only judge."""
    score = made_score({0.0: [0.5, 0.5, 0.5], 0.1: [0.0, 0.7, 0.65]})
    (step,) = choose_post(*clips(), score, PostRanges(min_seconds=(0.0, 0.1))).steps
    assert step.gains[0] == -0.5  # folds 1 and 2 chose 0.1 for it


def test_steps_come_on_top_of_those_that_were_kept():
    def of(found, truth, post=None):
        good = 0.2 * (post.min_seconds == 0.1) + 0.2 * (post.min_seconds == 0.1 and post.max_gap_seconds == 0.1)
        return {"s": 0.5 + good}

    ranges = PostRanges(min_seconds=(0.0, 0.1), max_gap_seconds=(0.0, 0.1))
    choice = choose_post(*clips(), OofScore("s", of), ranges)
    assert choice.post == PostProcess(min_seconds=0.1, max_gap_seconds=0.1)
    only = choose_post(*clips(), OofScore("s", of), ranges, steps=["max_gap_seconds"])
    assert [s.name for s in only.steps] == ["max_gap_seconds"]
    assert only.post == PostProcess()
    with pytest.raises(ValueError, match="no post-processing step 'min_second'; did you mean 'min_seconds'"):
        choose_post(*clips(), OofScore("s", of), ranges, steps=["min_second"])


def test_clips_of_one_fold_are_parted_and_groups_stay_together():
    found, truth = clips(40, folds=1)
    groups = [f"g{i // 4}" for i in range(40)]
    part, how = parts_of(found, replace(truth, clips=pd.DataFrame({"group": groups})))
    assert how == "5 parts of one fold"
    assert pd.Series(part).groupby(groups).nunique().eq(1).all()
    assert np.bincount(part).tolist() == [8] * 5
    assert parts_of(*clips(6, folds=2))[1] == "2 folds"


def test_an_oof_that_cannot_have_the_score_says_why():
    found, truth = clips()
    score = get_competition("finch_vocal").oof_score
    with pytest.raises(ValueError, match="cannot have the competition's score, event_f1: no true events came with it"):
        choose_post(found, truth, score, EVENTS)
    without = replace(found, framewise_output=None, timebase=None)
    with pytest.raises(ValueError, match=r"it has no framewise outputs \(predict.oof_frames=true keeps them\)"):
        choose_post(without, truth, score, EVENTS)
    with pytest.raises(ValueError, match="no clip of the OOF could be read"):
        choose_post(replace(found, unreadable=np.ones(6, bool)), truth, score, EVENTS)


# ---- thresholds of rows


def rows_oof(scale) -> tuple[Predictions, Truth]:
    rng = np.random.default_rng(0)
    target = rng.random((90, 3)) < 0.4
    clip = ((0.6 * target + 0.4 * rng.random((90, 3))) * scale).astype(np.float32)
    found = Predictions(np.arange(90).astype(str), ("a", "b", "c"), clip, np.arange(90) % 3, np.zeros(90, bool))
    return found, Truth(target)


def test_a_threshold_a_class_where_classes_answer_on_scales_of_their_own():
    competition = get_competition("birdcall")
    oof, truth = rows_oof(np.float32([1, 0.1, 0.01]))
    choice = choose_post(oof, truth, competition.oof_score, competition.post)
    assert [s.name for s in choice.steps] == ["threshold", "class_thresholds"]  # no frames: nothing else
    many = choice.post.class_thresholds
    assert many["a"] > 5 * many["b"] > 25 * many["c"]
    assert competition.oof_score.value(oof, truth, choice.post) == choice.fitted == 1.0
    oof, truth = rows_oof(np.float32(1))
    choice = choose_post(oof, truth, competition.oof_score, competition.post)
    assert choice.post.class_thresholds == {}
    unreadable = replace(oof, unreadable=np.arange(90) < 30, clipwise_output=oof.clipwise_output.copy())
    unreadable.clipwise_output[:30] = 0.5
    assert choose_post(unreadable, truth, competition.oof_score, competition.post).n_clips == 60


def test_strict_rules_have_a_threshold_alone():
    competition = get_competition("birdcall")
    oof, truth = rows_oof(np.float32(0.2))
    choice = choose_post(oof, truth, competition.oof_score, competition.post, PostProcess(strict=True))
    assert [s.name for s in choice.steps] == ["threshold"]
    assert choice.post.strict
    assert 0.08 < choice.post.threshold < 0.12


# ---- events


def sure_of_one_call(n=8, seed=0) -> tuple[Predictions, Truth]:
    """Every clip has four calls of 0.7 and one of 0.999, between noise of 0.4 with clicks of 0.9 that last 10 ms."""
    rng = np.random.default_rng(seed)
    frames, events = [], []
    for i in range(n):
        p = np.full((400, 1), 0.4, np.float32)
        for k in range(5):
            start, stop = 80 * k + 5, 80 * k + 5 + rng.integers(15, 30)
            p[start:stop] = 0.7 if k else 0.999
            p[80 * k + 60] = 0.9
            events.append((f"c{i}", start / 100, stop / 100, "vocal"))
        frames.append(p)
    events = pd.DataFrame(events, columns=["filename", "onset", "offset", "event_label"])
    found = Predictions(np.array([f"c{i}" for i in range(n)]), ("vocal",), np.ones((n, 1), np.float32),
                        np.zeros(n, int), np.zeros(n, bool), framewise_output=tuple(frames), timebase=GRID)  # fmt: skip
    return found, Truth(np.ones((n, 1), bool), events)


def test_events_are_tuned_by_their_own_score():
    """Each clip has the class, so that rows are all right at the highest threshold, where four of five events are lost;
    the events want a threshold between noise and calls, and clicks dropped."""
    competition = get_competition("finch_vocal")
    oof, truth = sure_of_one_call()
    by_rows, _ = best_row_thresholds(oof, truth)
    assert by_rows > 0.9
    at_rows = competition.oof_score.value(oof, truth, replace(competition.post.start, threshold=by_rows))
    assert at_rows == pytest.approx(2 / 6)  # 1 of 5 found, nothing wrong
    few = replace(competition.post, threshold=competition.post.threshold[::3], min_seconds=(0.0, 0.05))  # quick
    choice = choose_post(oof, truth, competition.oof_score, few, steps=["threshold", "min_seconds"])
    assert choice.score_name == "event_f1"
    assert 0.4 < choice.post.threshold < 0.7
    assert choice.post.min_seconds == 0.05
    assert choice.fitted == 1.0
    assert choice.after.mean() == 1.0
    assert choice.before.mean() == pytest.approx(2 * 5 / (5 + 10))  # every click is an event too


@pytest.mark.slow
def test_events_of_classes_on_scales_of_their_own_get_a_threshold_each():
    """Class b answers a fourth of class a: no common threshold finds the events of both and drops the noise of both."""
    loud, truth = sure_of_one_call()
    classes, scale = ("vocal", "quiet"), np.float32([1, 0.25])
    found = replace(
        loud, classes=classes, clipwise_output=np.ones((8, 2), np.float32), fold=np.arange(8) % 2,
        framewise_output=tuple(frames * scale for frames in loud.framewise_output),
    )  # fmt: skip
    events = pd.concat([truth.events, truth.events.assign(event_label="quiet")], ignore_index=True)
    competition = get_competition("finch_vocal")
    few = replace(competition.post, threshold=(0.1, 0.15, 0.3, 0.6, 0.8), min_seconds=(0.05,))
    few = replace(few, start=replace(few.start, min_seconds=0.05))
    truth = Truth(np.ones((8, 2), bool), events)
    choice = choose_post(found, truth, competition.oof_score, few, steps=["threshold", "class_thresholds"])
    assert [s.kept for s in choice.steps][-1]
    many = choice.post.class_thresholds
    assert 0.4 < many["vocal"] < 0.7
    assert 0.1 < many["quiet"] < 0.175
    assert choice.fitted == 1.0 > competition.oof_score.value(found, truth, replace(choice.post, class_thresholds={}))


@pytest.mark.slow  # hundreds of looks at the events of real songs
def test_real_songs_are_tuned_by_event_f1(shared_data):
    """Outputs made of the real events of finches, blurred and noisy: no threshold of rows is as good for events."""
    source = shared_data / "finch_sed"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    tables = prepare(source)
    held_out = tables.clips[tables.clips.official_fold == 0].reset_index(drop=True)
    rng = np.random.default_rng(0)
    frames = []
    for clip in held_out.itertuples():
        own = tables.events[tables.events.filename == clip.clip_id]
        active = events_to_frames(own, ["vocal"], GRID, int(clip.duration * 100)).astype(float)
        frames.append((1 / (1 + np.exp(-(4 * active - 2.5 + rng.normal(0, 1, active.shape))))).astype(np.float32))
    n = len(held_out)
    oof = Predictions(held_out.clip_id.to_numpy(str), ("vocal",), np.stack([f.max(0) for f in frames]),
                      np.zeros(n, int), np.zeros(n, bool), framewise_output=tuple(frames), timebase=GRID)  # fmt: skip
    truth = Truth(np.ones((n, 1), bool), tables.events)
    competition = get_competition("finch_vocal")
    choice = choose_post(oof, truth, competition.oof_score, competition.post, steps=["threshold", "min_seconds"])
    by_rows = replace(competition.post.start, threshold=min(best_row_thresholds(oof, truth)[0], 1))
    assert choice.fitted > competition.oof_score.value(oof, truth, by_rows) + 0.05
    assert choice.after.mean() > choice.before.mean()


# ---- the file


def test_the_choice_travels_as_json(tmp_path):
    score = made_score({0.0: [0.5, 0.5, 0.5], 0.1: [0.6, 0.7, 0.65]})
    choice = choose_post(*clips(), score, PostRanges(min_seconds=(0.0, 0.1)))
    choice = replace(choice, post=replace(choice.post, class_thresholds={"a": 0.25}))
    about = as_dict(choice, "finch_vocal", ["runs/x/oof.npz"], "abc")
    path = tmp_path / "not" / "there yet" / "x_post.json"
    write_choice(path, about)
    assert read_post(path, "finch_vocal") == choice.post
    read = json.loads(path.read_text())
    assert read["oof"] == {"of": ["runs/x/oof.npz"], "clips": 6, "folds": [0, 1, 2], "parts": "3 folds"}
    assert read["nested"]["after"] == [0.6, 0.7, 0.65]
    assert read["steps"][0]["tried"] == [0.0, 0.1]
    assert read["steps"][0]["mean"] == pytest.approx(0.15)
    with pytest.raises(ValueError, match=r"x_post.json was chosen for finch_vocal, not for birdcall"):
        read_post(path, "birdcall")
    (tmp_path / "e.json").write_text(json.dumps({"runs": [], "post_processing": about}))
    assert read_post(tmp_path / "e.json") == choice.post
    (tmp_path / "x.yaml").write_text("threshold: 0.3")
    assert read_post(tmp_path / "x.yaml") == PostProcess(threshold=0.3)


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is not valid JSON"),
    ('{"threshold": 0.3}', r"holds no choice of post-processing \(no post, competition, score\).*belong in a .yaml"),
    ('{"post": 0.3, "competition": "x", "score": "s"}', "no fields in post"),
    ('{"post": {"treshold": 0.3}, "competition": "x", "score": "s"}', "did you mean 'threshold'"),
])  # fmt: skip
def test_files_that_hold_no_choice(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_post(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"y\.json does not exist; submit.py --tune-on"):
        read_post(tmp_path / "y.json")

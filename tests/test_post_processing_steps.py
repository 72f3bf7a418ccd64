"""The steps of the search for post-processing, by hand: what they try, what moves with a threshold, what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from earshot.competitions.competition import OofScore, PostRanges
from earshot.ensemble.choice import as_dict
from earshot.ensemble.post_processing import Step, at_threshold, choose_post, of_class, of_label, parts_of, shifted
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase

GRID = TimeBase(32000, 320)


def log_odds(p: float, move: float) -> float:
    return 1 / (1 + np.exp(-(np.log(p / (1 - p)) + move)))


def oof(n=6, folds=3, classes=("a",)) -> tuple[Predictions, Truth]:
    frames = tuple(np.zeros((3, len(classes)), np.float32) for _ in range(n))
    found = Predictions(np.arange(n).astype(str), classes, np.zeros((n, len(classes)), np.float32),
                        np.arange(n) % folds, np.zeros(n, bool), framewise_output=frames, timebase=GRID)  # fmt: skip
    return found, Truth(np.ones((n, len(classes)), bool))


def looking(seen: list, value=lambda post: 0.5) -> OofScore:
    """A score of the post-processing alone that notes what was tried."""

    def of(found, truth, post=None):
        seen.append(post)
        return {"s": value(post)}

    return OofScore("s", of)


def test_a_step_is_tried_with_thresholds_a_little_beside():
    """Dropping short events pays at a lower threshold only: 0.5 moved by -1 in log odds comes first of those below."""
    seen = []
    score = looking(seen, lambda post: 1.0 if post.min_seconds == 0.1 and post.threshold < 0.4 else 0.5)
    choice = choose_post(*oof(), score, PostRanges(threshold=(0.5,), min_seconds=(0.0, 0.1)), steps=["min_seconds"])
    assert choice.post.min_seconds == 0.1
    assert choice.post.threshold == pytest.approx(log_odds(0.5, -1.0))
    beside = {round(log_odds(0.5, move), 6) for move in (0, -1, -0.5, 0.5, 1)}
    for seconds in (0.0, 0.1):
        assert {round(post.threshold, 6) for post in seen if post.min_seconds == seconds} == beside


@pytest.mark.parametrize(("ranges", "start"), [
    (PostRanges(min_seconds=(0.0, 0.1)), None),  # the competition has no thresholds
    (PostRanges(threshold=(0.5,), iou_threshold=(0.2, 0.4)), None),
    (PostRanges(threshold=(0.5,), iou_threshold=(0.2, 0.4)), PostProcess(strict=True)),
])  # fmt: skip
def test_where_thresholds_do_not_matter_they_stay(ranges, start):
    seen = []
    step = "iou_threshold" if ranges.iou_threshold else "min_seconds"
    choose_post(*oof(), looking(seen), ranges, start, steps=[step])
    assert {post.threshold for post in seen} == {PostProcess().threshold}
    assert {getattr(post, step) for post in seen} >= set(getattr(ranges, step))


def test_the_lower_threshold_is_tried_as_a_share_of_the_upper_ones():
    seen = []
    start = PostProcess(threshold=0.5, class_thresholds={"a": 0.4})
    choose_post(*oof(), looking(seen), PostRanges(threshold=(0.5,), threshold_low=(None, 0.5)), start,
                steps=["threshold_low"])  # fmt: skip
    lows = {(round(p.class_thresholds["a"], 6), p.threshold_low and round(p.threshold_low, 6)) for p in seen}
    moved = [log_odds(0.4, move) for move in (0, -1, -0.5, 0.5, 1)]
    assert lows == {(round(p, 6), None) for p in moved} | {(round(p, 6), round(p / 2, 6)) for p in moved}


def test_what_moves_with_a_threshold():
    post = PostProcess(threshold=0.5, threshold_low=0.1, class_thresholds={"a": 0.4, "b": 0.8}, min_seconds=0.3)
    moved = shifted(post, 0.5)
    assert moved.threshold == pytest.approx(log_odds(0.5, 0.5))
    assert moved.class_thresholds == pytest.approx({"a": log_odds(0.4, 0.5), "b": log_odds(0.8, 0.5)})
    assert moved.threshold_low == pytest.approx(log_odds(0.4, 0.5) * 0.1 / 0.4), "its share of the least upper one"
    assert moved.min_seconds == 0.3
    assert shifted(post, 0.0) is post
    assert shifted(replace(post, threshold_low=None), -1.0).threshold_low is None
    assert shifted(PostProcess(threshold=1.0), 0.5).threshold == pytest.approx(log_odds(1 - 1e-6, 0.5))

    one = at_threshold(post, 0.2)
    assert (one.threshold, one.class_thresholds, one.min_seconds) == (0.2, {}, 0.3)
    assert one.threshold_low == pytest.approx(0.2 * 0.1 / 0.4)
    assert at_threshold(replace(post, threshold_low=None), 0.2).threshold_low is None
    nothing = PostProcess(threshold=0.0, threshold_low=0.0)
    assert (at_threshold(nothing, 0.2).threshold_low, shifted(nothing, 1.0).threshold_low) == (0.0, 0.0)

    assert of_label(post, "b") == PostProcess(threshold=0.8, threshold_low=0.1, min_seconds=0.3)
    assert of_label(post, "c").threshold == 0.5


def test_the_outputs_and_answers_of_one_class():
    found, truth = oof(4, classes=("a", "b"))
    clip = np.arange(8, dtype=np.float32).reshape(4, 2)
    frames = tuple(np.float32([[i, 10 * i]]) for i in range(4))
    found = replace(found, clipwise_output=clip, framewise_output=frames, unreadable=np.arange(4) == 1)
    events = pd.DataFrame({"filename": "0", "onset": [0.0, 1.0], "offset": 2.0, "event_label": ["a", "b"]})
    truth = replace(truth, target=np.arange(8).reshape(4, 2) % 3 > 0, events=events)
    one, answers = of_class(found, truth, 1)
    assert (one.classes, one.timebase) == (("b",), GRID)
    np.testing.assert_array_equal(one.clipwise_output, clip[:, [1]])
    assert [f.tolist() for f in one.framewise_output] == [[[10.0 * i]] for i in range(4)]
    np.testing.assert_array_equal(one.clip_ids, found.clip_ids)
    np.testing.assert_array_equal(one.fold, found.fold)
    np.testing.assert_array_equal(one.unreadable, found.unreadable)
    np.testing.assert_array_equal(answers.target, truth.target[:, [1]])
    assert answers.events.onset.tolist() == [1.0]
    without, answers = of_class(replace(found, framewise_output=None), replace(truth, events=None), 0)
    assert (without.framewise_output, answers.events) == (None, None)


def test_one_clip_alone_is_scored_at_what_is_kept_in_any_case():
    """Nothing to hold out: a choice that is to be kept always is what its clip is scored at."""
    score = looking([], lambda post: 0.5 + post.min_seconds)
    choice = choose_post(*oof(1), score, PostRanges(min_seconds=(0.0, 0.1)), always=True)
    assert choice.post == PostProcess(min_seconds=0.1)
    assert (choice.before.tolist(), choice.after.tolist(), choice.fitted) == ([0.5], [0.6], 0.6)
    assert choice.parts == "1 parts of one fold"
    assert str(choice.steps[0]) == "min_seconds: nothing to compare, kept"
    doubtful = choose_post(*oof(1), score, PostRanges(min_seconds=(0.0, 0.1)))
    assert (doubtful.post, doubtful.after.tolist()) == (PostProcess(), [0.5])


def test_few_groups_are_parted_clip_by_clip():
    found, truth = oof(10, folds=1)
    groups = pd.DataFrame({"group": ["x"] * 5 + ["y"] * 5})
    part, how = parts_of(found, replace(truth, clips=groups))
    assert (how, np.bincount(part).tolist()) == ("5 parts of one fold", [2] * 5)


@pytest.mark.parametrize(("value", "shown"), [
    (0.123456, "x 0.1235:"),
    ({"a": 0.12345, "b": 0.5}, "x a 0.123, b 0.5:"),
    (dict.fromkeys("abcd", 0.5), "x a 0.5, b 0.5, c 0.5, d 0.5:"),
    (dict.fromkeys("abcde", 0.5), "x a 0.5, b 0.5, c 0.5, d 0.5, ...:"),
    (None, "x None:"),
])  # fmt: skip
def test_how_a_step_is_told(value, shown):
    step = Step("x", [], value, np.array([0.1, 0.3]))
    assert str(step) == f"{shown} +0.2000 +- 0.1000 over 2 folds, kept"
    assert str(replace(step, gains=-step.gains)).endswith("-0.2000 +- 0.1000 over 2 folds, not kept")


def test_all_that_the_file_of_a_choice_holds():
    score = looking([], lambda post: 0.5 + post.min_seconds)
    choice = choose_post(*oof(), score, PostRanges(min_seconds=(0.0, 0.1)))
    found = as_dict(choice, "finch_vocal", ["a", "b"], "abc")
    assert found == {
        "post": found["post"], "start": found["start"], "competition": "finch_vocal", "score": "s",
        "oof": {"of": ["a", "b"], "clips": 6, "folds": [0, 1, 2], "parts": "3 folds"},
        "nested": {"before": [0.5] * 3, "after": [0.6] * 3, "mean_before": 0.5, "mean_after": pytest.approx(0.6)},
        "fitted": 0.6, "untried": {}, "commit": "abc",
        "steps": [{
            "name": "min_seconds", "tried": [0.0, 0.1], "value": 0.1, "gains": pytest.approx([0.1] * 3), "kept": True,
            "mean": pytest.approx(0.1), "deviation": pytest.approx(0, abs=1e-12),
        }],
    }  # fmt: skip
    assert (found["post"]["min_seconds"], found["start"]["min_seconds"]) == (0.1, 0.0)
    assert PostProcess(**found["post"]) == choice.post
    alone = as_dict(choose_post(*oof(1), score, PostRanges(min_seconds=(0.0, 0.1))), "x", [], "")
    assert (alone["steps"][0]["mean"], alone["steps"][0]["deviation"]) == (None, None)

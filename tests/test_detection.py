"""Events of many clips at once are those of each clip alone; classes that are there are those with an event."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.events import PostProcess, detect
from earshot.prediction import detection
from earshot.prediction.detection import classes_present, detect_all, peak_output
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase

GRID = TimeBase(16000, 160, 4)  # frames of 40 ms


def random_clips(rng, unreadable=0.2) -> Predictions:
    n, k = rng.integers(1, 6), rng.integers(1, 4)
    frames = tuple(rng.random((rng.integers(1, 30), k)).astype(np.float32).round(1) for _ in range(n))
    ids = np.array([f"c{i}" for i in rng.permutation(n)])
    clip = rng.random((n, k)).astype(np.float32)
    return Predictions(
        ids,
        tuple("abc"[:k]),
        clip,
        np.zeros(n, int),
        rng.random(n) < unreadable,
        framewise_output=frames,
        timebase=GRID,
    )


def random_post(rng) -> PostProcess:
    def maybe(off, on):
        return on if rng.random() < 0.5 else off

    return PostProcess(
        threshold=0.6, threshold_low=maybe(None, 0.3), clip_threshold=maybe(None, 0.4),
        class_thresholds=maybe({}, {"a": 0.8}), median_filter_seconds=maybe(0.0, 0.12),
        max_gap_seconds=maybe(0.0, 0.08), min_seconds=maybe(0.0, 0.08), iou_threshold=maybe(None, 0.4),
        per_class=maybe(False, True),
    )  # fmt: skip


@pytest.mark.parametrize("together", [1, 30, 8_000_000])
@given(seed=st.integers(0, 10_000))
def test_all_clips_at_once_are_one_clip_after_the_other(together, seed):
    rng = np.random.default_rng(seed)
    found, post = random_clips(rng), random_post(rng)
    alone = [
        detect(frames, GRID, found.classes, str(clip), post, clipwise)
        for clip, frames, clipwise, bad in zip(
            found.clip_ids, found.framewise_output, found.clipwise_output, found.unreadable, strict=True
        )
        if not bad
    ]
    alone = [table for table in alone if len(table)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "TOGETHER", together)
        at_once = detect_all(found, post)
    assert len(at_once) == sum(map(len, alone))
    if alone:
        pd.testing.assert_frame_equal(at_once, pd.concat(alone, ignore_index=True))


def test_a_gap_between_two_recordings_is_not_closed():
    loud = np.full((2, 1), 0.9, np.float32)
    found = Predictions(
        np.array(["x", "y"]),
        ("a",),
        np.ones((2, 1), np.float32),
        np.zeros(2),
        np.zeros(2, bool),
        framewise_output=(loud, loud),
        timebase=GRID,
    )
    events = detect_all(found, PostProcess(max_gap_seconds=5.0, threshold_low=0.0, iou_threshold=None))
    assert events[["filename", "onset", "offset"]].to_numpy().tolist() == [["x", 0, 0.08], ["y", 0, 0.08]]


@given(st.integers(0, 10_000))
def test_classes_present_are_those_with_an_event(seed):
    rng = np.random.default_rng(seed)
    found, post = random_clips(rng, unreadable=0), replace(random_post(rng), iou_threshold=None)
    events = detect_all(found, post)
    there = {(f, c) for f, c in zip(events.filename, events.event_label, strict=True)}
    expected = [[(str(clip), c) in there for c in found.classes] for clip in found.clip_ids]
    np.testing.assert_array_equal(classes_present(found, post), expected)


def test_without_frames_the_clip_outputs_are_cut():
    found = Predictions(np.array(["x"]), ("a", "b"), np.array([[0.4, 0.6]], np.float32), np.zeros(1), np.zeros(1, bool))
    assert classes_present(found, PostProcess()).tolist() == [[False, True]]
    assert peak_output(found) is found.clipwise_output
    with pytest.raises(ValueError, match=r"events need framewise outputs.*predict\.keep_frames=true"):
        detect_all(found, PostProcess())


def test_what_is_no_number_is_named():
    frames = (np.ones((2, 1), np.float32), np.array([[np.nan]], np.float32))
    found = Predictions(
        np.array(["x", "y"]),
        ("a",),
        np.ones((2, 1), np.float32),
        np.zeros(2),
        np.zeros(2, bool),
        framewise_output=frames,
        timebase=GRID,
    )
    with pytest.raises(ValueError, match="framewise outputs of 'y' are not finite numbers"):
        detect_all(found, PostProcess())

"""Events of many clips at once are those of each clip alone; classes that are there are those with an event."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.events import PostProcess, detect
from earshot.prediction import detection
from earshot.prediction.detection import at_quantile, classes_present, detect_all, peak_output
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


def two_clips(**changed) -> Predictions:
    """x has class a in its first frame, y class b in its last two; what a clip says as a whole is less."""
    frames = (np.float32([[0.9, 0.1], [0.2, 0.3], [0.1, 0.1]]), np.float32([[0.1, 0.4], [0.3, 0.8], [0.2, 0.7]]))
    found = Predictions(np.array(["x", "y"]), ("a", "b"), np.float32([[0.6, 0.1], [0.2, 0.3]]), np.zeros(2, int),
                        np.array([False, True]), framewise_output=frames, timebase=GRID)  # fmt: skip
    return replace(found, **changed)


def test_peaks_are_of_each_class_and_quantiles_of_peaks():
    np.testing.assert_allclose(peak_output(two_clips()), [[0.9, 0.3], [0.3, 0.8]])
    values = np.array([[0.0, 1.0], [0.5, 2.0], [1.0, 3.0]])
    post = PostProcess(threshold=0.5, threshold_low=0.1, threshold_quantile=0.25, min_seconds=0.1)
    found = at_quantile(post, values, np.array(["a", "b"]))
    assert found == PostProcess(threshold=0.5, min_seconds=0.1, class_thresholds={"a": 0.75, "b": 1.0})
    assert all(type(k) is str and type(t) is float for k, t in found.class_thresholds.items())
    plain = replace(post, threshold_quantile=None)
    assert at_quantile(plain, values, ("a", "b")) == plain
    assert at_quantile(post, values[:0], ("a", "b")) == plain
    assert at_quantile(post, -values, ("a", "b")).class_thresholds == {"a": 0.0, "b": 0.0}


def test_events_are_of_readable_clips_and_classes_of_all():
    post = PostProcess(threshold=0.5, iou_threshold=None)
    table = detect_all(two_clips(), post)
    assert table.to_dict("list") == {
        "filename": ["x"], "onset": [0.0], "offset": [0.04], "event_label": ["a"],
        "max_confidence": [pytest.approx(0.9)], "mean_confidence": [pytest.approx(0.9)],
    }  # fmt: skip
    assert table.event_label.dtype == table.filename.dtype == object
    both = detect_all(two_clips(unreadable=np.zeros(2, bool)), post)
    assert both[["filename", "onset", "offset", "event_label"]].values.tolist() == [
        ["x", 0.0, 0.04, "a"], ["y", 0.04, 0.12, "b"],
    ]  # fmt: skip
    np.testing.assert_allclose(both.mean_confidence, [0.9, 0.75])
    none = detect_all(two_clips(unreadable=np.ones(2, bool)), post)
    assert (len(none), list(none)) == (0, list(both))


def test_overlaps_are_suppressed_within_a_class_or_among_all():
    frames = (np.float32([[0.9, 0.8], [0.9, 0.8]]),)
    found = two_clips().take([0])
    found = replace(found, framewise_output=frames)
    for per_class, labels in ((True, ["a", "b"]), (False, ["a"])):
        post = PostProcess(threshold=0.5, iou_threshold=0.5, per_class=per_class)
        table = detect_all(found, post)
        assert table.event_label.tolist() == labels
        assert table.index.tolist() == list(range(len(labels)))


@pytest.mark.parametrize(("changed", "present"), [
    ({}, [[True, False], [False, True]]),
    ({"threshold": 0.9}, [[True, False], [False, False]]),
    ({"threshold": 0.3}, [[True, True], [True, True]]),
    ({"clip_threshold": 0.3}, [[True, False], [False, True]]),
    ({"clip_threshold": 0.4}, [[True, False], [False, False]]),
    ({"min_seconds": 0.08}, [[False, False], [False, True]]),
    ({"min_seconds": 0.08, "clip_threshold": 0.4}, [[False, False], [False, False]]),
    ({"threshold_quantile": 0.5}, [[True, False], [False, True]]),
    ({"threshold": 0.5, "class_thresholds": {"b": 0.85}}, [[True, False], [False, False]]),
])  # fmt: skip
def test_which_classes_are_there_by_hand(changed, present):
    """Of unreadable clips too, which get a row in every submission, and whatever overlaps."""
    post = PostProcess(**{"threshold": 0.5, "iou_threshold": 0.1} | changed)
    found = classes_present(two_clips(), post)
    assert found.tolist() == present
    assert found.dtype == bool


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

"""Events: each step by hand, against a readable second implementation, and by its properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from earshot.events import (
    EVENT_COLUMNS,
    PostProcess,
    active,
    detect,
    drop_short,
    events_to_frames,
    frames_to_events,
    hysteresis,
    median_filter,
    merge_gaps,
    overlap_losers,
    runs,
    strict_events,
    suppress_overlaps,
)
from earshot.sound.timebase import TimeBase

GRID = TimeBase(32000, 320, 32)  # 0.32 s a segment
TENTH = TimeBase(1000, 100)  # 0.1 s a frame
CLASSES = ("blue", "amber", "coral")

masks = arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 3)))
probabilities = arrays(
    np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([0, 0.2, 0.3, 0.5, 0.7, 0.9])
)
grids = st.builds(
    TimeBase, st.sampled_from([8000, 22050, 32000, 48000]), st.sampled_from([160, 320, 512]), st.sampled_from([1, 32])
)


def column(bits):
    """'0110' -> (T, 1) booleans."""
    return np.array([[b == "1"] for b in bits])


def bits(mask):
    return "".join("1" if b else "0" for b in mask[:, 0])


def readable_runs(mask):
    """(class, start, stop), one frame at a time."""
    found = []
    for k in range(mask.shape[1]):
        start = None
        for t in range(mask.shape[0] + 1):
            on = t < mask.shape[0] and mask[t, k]
            if on and start is None:
                start = t
            if not on and start is not None:
                found.append((k, start, t))
                start = None
    return found


def double_loop(onset, offset, confidence, iou_threshold=0.4):
    """The source's rule as it reads: for i, for j, over those that are still there."""
    removed = set()
    for i in range(len(onset)):
        for j in range(len(onset)):
            if i == j or i in removed or j in removed:
                continue
            if onset[i] >= offset[j] or onset[j] >= offset[i]:
                continue
            intersection = min(offset[i], offset[j]) - max(onset[i], onset[j])
            union = max(offset[i], offset[j]) - min(onset[i], onset[j])
            if intersection / union > iou_threshold:
                removed.add(j if confidence[i] > confidence[j] else i)
    return np.array([i in removed for i in range(len(onset))], dtype=bool)


# ---- steps


def test_threshold_is_compared_in_float32():
    prob = np.array([[0.3, 0.29999998, 0.7]], np.float32)  # float32(0.3) is above 0.3
    assert active(prob, 0.3).tolist() == [[True, False, True]]
    assert active(np.float32([[0.1]]).astype(np.float64), 0.1).item()
    assert active(prob, np.array([0.3, 0.2, 0.8])).tolist() == [[True, True, False]]


@given(masks)
def test_runs_equal_the_readable_loop(mask):
    assert list(zip(*(a.tolist() for a in runs(mask)))) == readable_runs(mask)


def test_runs_touch_both_ends_and_do_not_leak_into_the_next_class():
    mask = np.array([[1, 1], [1, 1]], bool)
    assert [a.tolist() for a in runs(mask)] == [[0, 1], [0, 0], [2, 2]]
    assert all(len(a) == 0 for a in runs(np.zeros((0, 3), bool)))


def test_gaps_up_to_the_length_are_filled_and_shorter_runs_dropped():
    assert bits(merge_gaps(column("0110100011"), 1)) == "0111100011"
    assert bits(merge_gaps(column("0110100011"), 3)) == "0111111111"
    assert bits(merge_gaps(column("0010"), 9)) == "0010"
    assert bits(drop_short(column("1011011101"), 2)) == "0011011100"
    two = merge_gaps(np.array([[1, 0], [0, 0], [0, 1]], bool), 5)
    assert two.tolist() == [[True, False], [False, False], [False, True]]  # classes never join


@given(masks, st.integers(0, 5))
def test_merging_and_dropping_are_idempotent_and_one_sided(mask, n):
    merged, kept = merge_gaps(mask, n), drop_short(mask, n)
    assert (merged >= mask).all()
    assert (kept <= mask).all()
    assert np.array_equal(merge_gaps(merged, n), merged)
    assert np.array_equal(drop_short(kept, n), kept)
    assert all(stop - start >= n for _, start, stop in readable_runs(kept))


def test_hysteresis_by_hand():
    prob = np.float32([[0.3], [0.6], [0.4], [0.1], [0.4], [0.4], [0.2], [0.9]])
    assert bits(hysteresis(prob, 0.5, 0.3)) == "11100001"
    with pytest.raises(ValueError, match="above the high"):
        hysteresis(prob, 0.3, 0.5)


@given(probabilities, st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from([0.2, 0.3]))
def test_hysteresis_lies_between_its_thresholds(prob, high, low):
    mask = hysteresis(prob, high, low)
    assert (mask >= active(prob, high)).all()
    assert (mask <= active(prob, low)).all()
    expected = np.zeros_like(mask)
    for k, start, stop in readable_runs(active(prob, low)):
        expected[start:stop, k] = active(prob, high)[start:stop, k].any()
    assert np.array_equal(mask, expected)
    assert np.array_equal(hysteresis(prob, high, high), active(prob, high))


@given(probabilities, st.sampled_from([1, 3, 5, 7]))
def test_median_equals_a_padded_loop(prob, n):
    padded = np.pad(prob, ((n // 2, n // 2), (0, 0)), mode="edge")
    expected = np.stack([np.median(padded[t : t + n], axis=0) for t in range(len(prob))])
    assert np.array_equal(median_filter(prob, n), expected)


def test_median_wants_an_odd_length():
    for n in (4, 0, -1):
        with pytest.raises(ValueError, match=f"odd number of frames, got {n}"):
            median_filter(np.zeros((9, 1)), n)


# ---- events <-> frames


def test_events_by_hand():
    prob = np.float32([[0.9, 0.1], [0.7, 0.6], [0.2, 0.8], [0.6, 0.1]])
    events = frames_to_events(prob, active(prob, 0.5), TENTH, ("zebra", "ant"), "clip", offset_seconds=10)
    assert tuple(events.columns) == EVENT_COLUMNS
    assert events["event_label"].tolist() == ["zebra", "ant", "zebra"]
    assert {type(label) for label in events["event_label"]} == {str}
    assert events["filename"].tolist() == ["clip"] * 3
    assert events["onset"].tolist() == [10.0, 10.1, 10.3]
    assert events["offset"].tolist() == pytest.approx([10.2, 10.3, 10.4])  # the END of the last frame
    assert events["max_confidence"].tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert events["mean_confidence"].tolist() == pytest.approx([0.8, 0.7, 0.6])


def test_events_at_one_time_are_sorted_by_label():
    mask = np.ones((2, 3), bool)
    events = frames_to_events(mask.astype(np.float32), mask, GRID, CLASSES, "a")
    assert events["event_label"].tolist() == ["amber", "blue", "coral"]


def test_no_event_is_an_empty_table_with_columns():
    events = frames_to_events(np.zeros((5, 3)), np.zeros((5, 3), bool), GRID, CLASSES, "a")
    assert tuple(events.columns) == EVENT_COLUMNS
    assert len(events) == 0
    assert len(suppress_overlaps(events)) == 0
    assert not events_to_frames(events, CLASSES, GRID, 5).any()


@given(masks, grids)
def test_events_and_frames_are_inverse(mask, grid):
    labels = CLASSES[: mask.shape[1]]
    events = frames_to_events(mask.astype(np.float32), mask, grid, labels, "a")
    assert np.array_equal(events_to_frames(events, labels, grid, len(mask)), mask)
    again = frames_to_events(
        mask.astype(np.float32), events_to_frames(events, labels, grid, len(mask)), grid, labels, "a"
    )
    pd.testing.assert_frame_equal(again, events)


def test_frames_touched_by_an_event_off_the_grid():
    events = pd.DataFrame({"onset": [0.15, 0.3, -1.0], "offset": [0.21, 0.3, 0.05], "event_label": ["a", "a", "b"]})
    frames = events_to_frames(events, ["a", "b"], TENTH, 4)
    assert frames.T.tolist() == [[False, True, True, False], [True, False, False, False]]
    early = pd.DataFrame({"onset": [-2.0], "offset": [-1.0], "event_label": ["a"]})
    assert not events_to_frames(early, ["a"], TENTH, 4).any()
    late = pd.DataFrame({"onset": [0.35, 9.0], "offset": [7.0, 9.5], "event_label": ["a", "a"]})
    assert events_to_frames(late, ["a"], TENTH, 4).ravel().tolist() == [False, False, False, True]


def test_events_to_frames_errors():
    one = pd.DataFrame({"onset": [0.5], "offset": [0.2], "event_label": ["amber"]})
    with pytest.raises(ValueError, match="1 events end before they begin"):
        events_to_frames(one, CLASSES, TENTH, 9)
    with pytest.raises(ValueError, match="did you mean 'amber'"):
        events_to_frames(one.replace("amber", "ambre"), CLASSES, TENTH, 9)
    with pytest.raises(ValueError, match="2 classes do not fit"):
        frames_to_events(np.zeros((5, 3)), np.zeros((5, 3), bool), GRID, CLASSES[:2], "a")


# ---- overlap suppression


def test_suppression_by_hand():
    assert overlap_losers([0, 0], [1, 2.5], [0.9, 0.8]).tolist() == [False, False]  # IoU exactly 0.4
    assert overlap_losers([0, 0], [1, 2.49], [0.9, 0.8]).tolist() == [False, True]
    assert overlap_losers([0, 0], [1, 2.5 - 1e-12], [0.9, 0.8]).tolist() == [False, True]  # by however little
    assert overlap_losers([0, 0], [1, 1], [0.7, 0.7]).tolist() == [True, False]  # a tie: the first goes
    assert overlap_losers([0, 1], [1, 2], [0.7, 0.8], 0).tolist() == [False, False]  # touching is no overlap
    assert overlap_losers([0.5, 0], [0.5, 1], [0.7, 0.8], 0).tolist() == [False, False]  # nothing shared
    assert overlap_losers([], [], []).tolist() == []
    with pytest.raises(ValueError, match="0 or more"):
        overlap_losers([0], [1], [0.5], -0.1)


def test_a_chain_is_settled_in_the_order_given():
    onset, offset = np.array([1.0, 1.3, 1.6, 1.9]), np.array([2.0, 2.3, 2.6, 2.9])
    assert overlap_losers(onset, offset, [0.9, 0.8, 0.85, 0.95]).tolist() == [False, True, True, False]
    backwards = overlap_losers(onset[::-1], offset[::-1], [0.95, 0.85, 0.8, 0.9])[::-1]
    assert backwards.tolist() == [False, True, True, False]
    assert overlap_losers(onset, offset, [0.7, 0.75, 0.8, 0.6]).tolist() == [True, True, False, True]


boxes = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 15), st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9])), max_size=25
)


@given(boxes, st.sampled_from([0.0, 0.2, 0.4, 0.5, 1.0]))
def test_suppression_equals_the_double_loop(rows, iou):
    onset = np.array([0.1 * a for a, _, _ in rows])
    offset = np.array([0.1 * (a + b) for a, b, _ in rows])
    confidence = np.array([c for _, _, c in rows])
    assert np.array_equal(
        overlap_losers(onset, offset, confidence, iou), double_loop(onset, offset, confidence, iou)
    )  # fmt: skip


def test_suppression_equals_the_double_loop_across_blocks(monkeypatch):
    monkeypatch.setattr("earshot.events.PAIR_BLOCK", 100)
    rng = np.random.default_rng(3)
    onset = rng.uniform(0, 40, 300)
    offset = onset + rng.gamma(2, 1, 300)
    confidence = rng.integers(50, 60, 300) / 100
    losers = overlap_losers(onset, offset, confidence)
    assert 50 < losers.sum() < 290
    assert np.array_equal(losers, double_loop(onset, offset, confidence))


def test_recordings_and_classes_compete_apart():
    events = pd.DataFrame(
        [
            ("a", 0, 1, "x", 0.9, 0.9),
            ("b", 0, 1, "x", 0.8, 0.8),
            ("a", 0, 1, "y", 0.7, 0.7),
            ("a", 0.1, 1, "x", 0.6, 0.6),
        ],
        columns=list(EVENT_COLUMNS),
        index=[7, 8, 9, 10],
    )
    assert suppress_overlaps(events).index.tolist() == [7, 8]
    assert suppress_overlaps(events, per_class=True).index.tolist() == [7, 8, 9]
    assert suppress_overlaps(events, iou_threshold=0.95).index.tolist() == [7, 8, 10]


@given(boxes)
def test_survivors_do_not_overlap_and_stay_when_asked_again(rows):
    events = pd.DataFrame(
        [("a", a / 10, (a + b) / 10, "x", c, c) for a, b, c in rows], columns=list(EVENT_COLUMNS)
    ).astype({"onset": float, "offset": float, "max_confidence": float})  # fmt: skip
    kept = suppress_overlaps(events)
    assert suppress_overlaps(kept).equals(kept)


# ---- the chain


def test_detect_runs_the_whole_chain():
    prob = np.full((40, 3), 0.1, np.float32)
    prob[4:10, 0] = 0.9  # blue 0.4-1.0, with a pause of 0.1 s
    prob[7, 0] = 0.2
    prob[20, 0] = 0.9  # too short
    prob[4:11, 1] = 0.6  # amber overlaps blue, less confident
    prob[30:36, 2] = 0.4  # coral below its threshold until it rises
    prob[33, 2] = 0.7
    post = PostProcess(threshold=0.5, threshold_low=0.3, min_seconds=0.2, max_gap_seconds=0.1, iou_threshold=0.4)
    events = detect(prob, TENTH, CLASSES, "clip", post)
    assert events["event_label"].tolist() == ["blue", "coral"]
    assert events["onset"].tolist() == pytest.approx([0.4, 3.0])
    assert events["offset"].tolist() == pytest.approx([1.0, 3.6])
    assert events["mean_confidence"].tolist() == pytest.approx([(5 * 0.9 + 0.2) / 6, (5 * 0.4 + 0.7) / 6])
    assert events.index.tolist() == [0, 1]
    everything = PostProcess(threshold=0.5, iou_threshold=None)
    assert detect(prob, TENTH, CLASSES, "clip", everything)["event_label"].tolist() == [
        "amber", "blue", "blue", "blue", "coral",
    ]  # fmt: skip


def test_detect_with_median_class_and_clip_thresholds():
    prob = np.full((20, 3), 0.6, np.float32)
    prob[10, 0] = 0.0
    smooth = PostProcess(median_filter_seconds=0.3, iou_threshold=None, class_thresholds={"amber": 0.7})
    events = detect(prob, TENTH, CLASSES, "c", smooth)
    assert events[["event_label", "offset"]].values.tolist() == [["blue", 2.0], ["coral", 2.0]]
    clip = PostProcess(clip_threshold=0.3, iou_threshold=None, median_filter_seconds=0.3)
    assert detect(prob, TENTH, CLASSES, "c", clip, np.float32([0.2, 0.3, 0.1]))["event_label"].tolist() == ["amber"]
    with pytest.raises(ValueError, match="needs the clipwise_output"):
        detect(prob, TENTH, CLASSES, "c", clip)
    with pytest.raises(ValueError, match="did you mean 'amber'"):
        detect(prob, TENTH, CLASSES, "c", PostProcess(class_thresholds={"amberr": 0.5}))
    prob[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 framewise outputs of 'c' are not finite"):
        detect(prob, TENTH, CLASSES, "c", PostProcess())
    with pytest.raises(ValueError, match="strict_events"):
        detect(prob, TENTH, CLASSES, "c", PostProcess(strict=True))


def test_detect_turns_seconds_into_frames():
    """0.1 s a frame: a gap of 2 frames is within 0.25 s, one of 3 is not; 2 frames are too short for it, 3 are not."""
    prob = np.float32([[float(b)] for b in "110011000111000100"])
    found = detect(prob, TENTH, ["a"], "x", PostProcess(max_gap_seconds=0.25, min_seconds=0.25, iou_threshold=None))
    assert found.onset.tolist() == pytest.approx([0.0, 0.9])
    assert found.offset.tolist() == pytest.approx([0.6, 1.2])
    spike = np.float32([[0], [1], [0], [0], [0], [1], [1], [0]])
    kept = [len(detect(spike, TENTH, ["a"], "x", PostProcess(median_filter_seconds=s))) for s in (0.19, 0.2, 0.4)]
    assert kept == [2, 1, 0], "windows of 1, 3 and 5 frames"


def test_detect_lets_classes_compete_unless_told():
    prob = np.float32([[0.9, 0.8, 0.1]] * 4)
    compete = [detect(prob, TENTH, CLASSES, "x", PostProcess(per_class=each)) for each in (False, True)]
    assert [found.event_label.tolist() for found in compete] == [["blue"], ["amber", "blue"]]
    assert compete[0].index.tolist() == [0]
    equal = detect(prob, TENTH, CLASSES, "x", PostProcess(threshold_low=0.85, threshold=0.9))
    assert equal.event_label.tolist() == ["blue"]
    at_threshold = detect(prob, TENTH, CLASSES, "x", PostProcess(clip_threshold=0.5), np.float32([0.5, 0.4, 1.0]))
    assert at_threshold.event_label.tolist() == ["blue"]


@given(probabilities, st.sampled_from([0.3, 0.5]))
def test_detected_events_are_active_frames(prob, threshold):
    labels = CLASSES[: prob.shape[1]]
    events = detect(prob, GRID, labels, "a", PostProcess(threshold=threshold, iou_threshold=None))
    assert np.array_equal(events_to_frames(events, labels, GRID, len(prob)), active(prob, threshold))


# ---- the source's rules


def notebook_events(chunks, threshold):
    """The source's loops over one recording: (class, onset, offset, max, mean); one-frame runs keep their own value."""
    found = []
    for number, prob in enumerate(chunks):
        for k in range(prob.shape[1]):
            for _, start, stop in readable_runs(prob[:, [k]] >= np.float32(threshold)):
                heard = prob[start : max(stop - 1, start + 1), k]
                onset, offset = 0.01 * start + 30.0 * number, 0.01 * (stop - 1) + 30.0 * number
                found.append((k, onset, offset, heard.max(), heard.mean()))
    return found


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 3)),
              elements=st.sampled_from([0, 0.2, 0.3, 0.5, 0.7, 0.9])))  # fmt: skip
def test_strict_events_equal_the_loops(chunks):
    labels = CLASSES[: chunks.shape[2]]
    events = strict_events(chunks, "rec", labels, 0.3)
    expected = notebook_events(chunks, 0.3)
    assert events["event_label"].tolist() == [labels[k] for k, *_ in expected]
    assert events["onset"].tolist() == [row[1] for row in expected]  # the same float64 values, not only close
    assert events["offset"].tolist() == [row[2] for row in expected]
    assert events["max_confidence"].tolist() == [row[3] for row in expected]
    assert events["mean_confidence"].tolist() == pytest.approx([row[4] for row in expected], abs=1e-6)


def test_strict_events_of_other_chunks_and_frames():
    chunks = np.zeros((2, 4, 1), np.float32)
    chunks[1, 1:4] = np.float32([[0.5], [0.7], [0.9]])
    found = strict_events(chunks, "rec", ["a"], 0.5, frame_seconds=0.5, chunk_seconds=2)
    assert found.values.tolist() == [["rec", 2.5, 3.5, "a", pytest.approx(0.7), pytest.approx(0.6)]]
    assert tuple(found.columns) == EVENT_COLUMNS

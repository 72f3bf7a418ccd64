"""The event threshold chosen on the OOF, against trying every threshold through the events themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.competitions.oof_scores import ROW_MICRO_F1, best_row_thresholds
from earshot.events import PostProcess, detect
from earshot.metrics.clips import row_micro_f1
from earshot.prediction.detection import peak_output
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase

GRID = TimeBase(32000, 320, 32)
CLASSES = ("a", "b", "c")


def oof(frames, clipwise=None, unreadable=None) -> Predictions:
    n = len(frames)
    frames = tuple(np.asarray(f, np.float32) for f in frames)
    clipwise = np.zeros((n, 3), np.float32) if clipwise is None else np.asarray(clipwise, np.float32)
    unreadable = np.zeros(n, bool) if unreadable is None else np.asarray(unreadable)
    return Predictions(
        np.array([f"c{i}" for i in range(n)]),
        CLASSES,
        clipwise,
        np.zeros(n),
        unreadable,
        framewise_output=frames,
        timebase=GRID,
    )


def random_oof(seed: int, n: int = 6) -> tuple[Predictions, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.random((n, 3)) < 0.4
    frames = [np.clip(0.5 * t + rng.random((2 + i % 4, 3)) * 0.7, 0, 1) for i, t in enumerate(target)]
    return oof(frames), target


def f1_at(found: Predictions, target: np.ndarray, threshold: float) -> float:
    """Row-wise micro F1 of the classes whose peak reaches the threshold, row by row."""
    scores = []
    for peak, labels in zip(peak_output(found), target, strict=True):
        said = {c for c, p in zip(CLASSES, peak, strict=True) if p >= np.float32(threshold)} or {"nocall"}
        true = {c for c, there in zip(CLASSES, labels, strict=True) if there} or {"nocall"}
        scores.append(2 * len(said & true) / (len(said) + len(true)))
    return float(np.mean(scores))


def f1_of_rows(found: Predictions, target: np.ndarray, threshold: float) -> float:
    """Each clip as one row: the labels of its events, nocall without any."""
    post, rows, truth = PostProcess(threshold=threshold, iou_threshold=None), [], []
    for clip_id, frames, labels in zip(found.clip_ids, found.framewise_output, target, strict=True):
        events = detect(frames, found.timebase, CLASSES, clip_id, post)
        rows.append(" ".join(sorted(set(events.event_label))) or "nocall")
        truth.append(" ".join(np.array(CLASSES)[labels]) or "nocall")
    return row_micro_f1(truth, rows)


def best_event_threshold(found: Predictions, target: np.ndarray) -> tuple[float, float]:
    """The exact threshold, and what the competition's score gives at it."""
    threshold, _ = best_row_thresholds(found, Truth(target))
    return threshold, ROW_MICRO_F1.value(found, Truth(target), PostProcess(threshold=min(threshold, 1)))


def test_peaks_are_the_strongest_frame_of_each_class():
    found = oof([[[0.1, 0.9, 0.0], [0.3, 0.2, 0.1]], [[0.5, 0.4, 0.6]]])
    np.testing.assert_array_equal(peak_output(found), np.array([[0.3, 0.9, 0.1], [0.5, 0.4, 0.6]], np.float32))


def test_without_frames_the_clip_output_is_the_peak():
    clipwise = np.array([[0.1, 0.2, 0.3]], np.float32)
    found = Predictions(np.array(["x"]), CLASSES, clipwise, np.zeros(1), np.zeros(1, bool))
    assert peak_output(found) is clipwise


@given(st.integers(0, 10_000))
def test_no_threshold_gives_better_rows(seed):
    found, target = random_oof(seed)
    threshold, score = best_event_threshold(found, target)
    if threshold <= 1:  # above 1 nothing is ever an event, which post-processing cannot say
        assert f1_of_rows(found, target, threshold) == pytest.approx(score)
    values = np.unique(peak_output(found))
    tried = [0, 1, *values, *((values[1:] + values[:-1]) / 2)]
    assert max(f1_at(found, target, t) for t in tried) <= score + 1e-9


def test_by_hand():
    """Right from 0.4 to 0.7: between its strongest silence and its weakest call, in the middle."""
    found = oof([[[0.9, 0.1, 0.2]], [[0.1, 0.7, 0.4]], [[0.3, 0.2, 0.1]]])
    target = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    threshold, score = best_event_threshold(found, target)
    assert (threshold, score) == (pytest.approx(0.55), 1.0)

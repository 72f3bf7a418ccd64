"""Choosing post-processing on out-of-fold predictions. No torch: kernels and submit.py import it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions


def peak_output(found: Predictions) -> np.ndarray:
    """(N, K) the largest framewise output of each clip and class; the clip output where there are no frames.

    A class has an event at a threshold exactly when its peak reaches it (without median filter or minimum length).
    """
    if found.framewise_output is None:
        return found.clipwise_output
    return np.stack([frames.max(axis=0) for frames in found.framewise_output])


def best_event_threshold(oof: Predictions, target: np.ndarray) -> tuple[float, float]:
    """(threshold, score): where the readable OOF clips, each taken as one row, have the best row-wise micro F1."""
    readable = ~oof.unreadable
    if not readable.any():
        raise ValueError("no clip of the OOF could be read: there is nothing to choose a threshold on")
    peaks = peak_output(oof)[readable]
    return clip_metrics.best_threshold(target[readable], peaks, clip_metrics.row_micro_f1_at)


@dataclass(frozen=True)
class ThresholdChoice:
    """Event thresholds chosen on OOF clips: `threshold` for all, or `by_class` where that is honestly better."""

    threshold: float
    score: float  # row-wise micro F1 of `threshold` on the clips that chose it
    by_class: dict[str, float]  # empty: one threshold for all
    gains: np.ndarray  # (folds,) of thresholds per class over one threshold, each chosen on the other folds


def tune_event_thresholds(oof: Predictions, target: np.ndarray) -> ThresholdChoice:
    """(N, K) truth -> thresholds, one a class only if that gains more than its gain deviates over the folds.

    The gain of a fold is that of thresholds chosen on the other folds, so that the choice itself is judged, not its
    fit. A class that the other folds never hold keeps the common threshold.
    """
    threshold, score = best_event_threshold(oof, target)
    readable = ~oof.unreadable
    peaks, target, fold = peak_output(oof)[readable], target[readable], oof.fold[readable]
    gains = []
    for f in np.unique(fold):
        inside, held = fold != f, fold == f
        if inside.any():
            one, _ = clip_metrics.best_threshold(target[inside], peaks[inside], clip_metrics.row_micro_f1_at)
            many, _ = clip_metrics.best_thresholds(target[inside], peaks[inside], default=one)
            at = [clip_metrics.row_micro_f1_at(target[held], peaks[held], np.asarray(t)) for t in (one, many)]
            gains.append(at[1] - at[0])
    gains = np.array(gains)
    better = len(gains) > 1 and gains.mean() > max(gains.std(), 0)
    many, _ = clip_metrics.best_thresholds(target, peaks, default=threshold)
    by_class = {c: float(t) for c, t in zip(oof.classes, many, strict=True)} if better else {}
    return ThresholdChoice(threshold, score, by_class, gains)

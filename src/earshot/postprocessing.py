"""Choosing post-processing on out-of-fold predictions. No torch: kernels and submit.py import it."""

from __future__ import annotations

import numpy as np

from earshot import metrics
from earshot.predictions import Predictions


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
    return metrics.best_threshold(target[readable], peaks, metrics.row_micro_f1_at)

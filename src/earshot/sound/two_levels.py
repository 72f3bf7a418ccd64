"""The two levels of a curve that is now low, now high: what a recording itself says of where the middle lies."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

APART = 2.0  # log odds: outputs of a class that is nowhere in a recording vary less
LEAST = 1e-6  # probabilities are held so far from 0 and 1


def two_levels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the mean of each curve's low and of its high values.

    (T, K) -> (K,) low and (K,) high means, parted where the two groups vary least within (Otsu 1979, "A threshold
    selection method from gray-level histograms", on the values themselves). A constant curve has twice the same.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"two levels are of (T, K) values with at least one row, got shape {values.shape}")
    if len(values) == 1:
        return values[0], values[0]
    ordered = np.sort(values, axis=0)
    total = np.cumsum(ordered, axis=0)
    below = np.arange(1, len(values))[:, None]
    low, high = total[:-1] / below, (total[-1] - total[:-1]) / (len(values) - below)
    best = np.argmax(below * (len(values) - below) * (high - low) ** 2, axis=0)
    every = np.arange(values.shape[1])
    return low[best, every], high[best, every]


def centred(probability: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Move each class's log odds so that a place between the recording's two levels becomes 0.5.

    (T, K) of one recording -> (T, K) float32. share: of the way from the low level to the high one, 0.5 the middle. A
    network is less sure of a source it never heard, inside its sounds and between them; thresholds that go by these
    levels move along. Levels less than `APART` apart are no two: a class that has such stays as it is.
    """
    if not len(probability):
        return np.asarray(probability, np.float32)
    odds = logit(np.clip(np.asarray(probability, np.float64), LEAST, 1 - LEAST))
    low, high = two_levels(odds)
    return expit(odds - np.where(high - low >= APART, low + share * (high - low), 0)).astype(np.float32)

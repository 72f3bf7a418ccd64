"""How much a score and a difference of scores are worth: intervals, a paired test, calibration, drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from earshot.prediction.predictions import Predictions

RESAMPLES = 400
FLOOR = 1e-6


@dataclass(frozen=True)
class Difference:
    """One run's score less another's, its 95 % interval, and how often the resampled sign turns (two-sided)."""

    value: float
    low: float
    high: float
    p: float


def paired(
    score_a: Callable[[np.ndarray], float], score_b: Callable[[np.ndarray], float], groups: np.ndarray,
    resamples: int = RESAMPLES, seed: int = 0,
) -> Difference:  # fmt: skip
    """Bootstrap of the difference over groups, both runs on the same drawn clips: (M,) indices -> a score each."""
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    rng, differences = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        differences.append(score_a(drawn) - score_b(drawn))
    everything = np.arange(len(group))
    value = score_a(everything) - score_b(everything)
    known = np.asarray(differences)[np.isfinite(differences)]
    if not len(known):
        return Difference(value, np.nan, np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    turned = min((known <= 0).mean(), (known >= 0).mean())
    return Difference(float(value), float(low), float(high), float(min(1.0, 2 * max(turned, 1 / len(known)))))


def calibration_error(scores: np.ndarray, target: np.ndarray, bins: int = 15) -> float:
    """Mean distance of outputs from how often they are right, over bins of equal width (expected calibration error)."""
    values, right = scores.ravel(), target.ravel() > 0.5
    place = np.clip((values * bins).astype(int), 0, bins - 1)
    said, true = np.bincount(place, values, bins), np.bincount(place, right, bins)
    return float(np.abs(said - true).sum() / max(len(values), 1))


def temperature(scores: np.ndarray, target: np.ndarray) -> float:
    """What log odds are divided by so that outputs fit the answers best; above 1: the run is too sure of itself."""
    p = np.clip(scores.ravel().astype(np.float64), FLOOR, 1 - FLOOR)
    odds, y = np.log(p / (1 - p)), target.ravel() > 0.5

    def loss(log_t: float) -> float:
        z = odds / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, np.where(y, -z, z))))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def drift(oof: Predictions, test: Predictions, target: np.ndarray) -> pd.DataFrame:
    """Per class: expected positives of the OOF beside the true ones, and the test's mean output over the OOF's.

    Sorted by the largest change: a class ten times as frequent in the test is drift, or another microphone.
    """
    if oof.classes != test.classes:
        raise ValueError("OOF and test predictions have different classes")
    own, other = oof.clipwise_output[~oof.unreadable], test.clipwise_output[~test.unreadable]
    table = pd.DataFrame({
        "class": oof.classes, "true_share": target[~oof.unreadable].mean(axis=0), "oof_mean": own.mean(axis=0),
        "test_mean": other.mean(axis=0),
    })  # fmt: skip
    table["ratio"] = (table.test_mean + FLOOR) / (table.oof_mean + FLOOR)
    return table.iloc[np.argsort(-np.abs(np.log(table.ratio.to_numpy())), kind="stable")].reset_index(drop=True)

"""How much a score and a difference of scores are worth: intervals, a paired test, calibration, counts, drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from earshot.prediction.predictions import Predictions, class_difference

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


def calibrated(scores: np.ndarray, target: np.ndarray, groups: np.ndarray, parts: int = 5) -> pd.DataFrame:
    """How well calibration would do on clips that it was not fitted on: rows `method, calibration_error, log_loss`.

    Outputs as they are, divided by a temperature, and mapped by isotonic regression (all classes together), each fitted
    on the groups of the other parts. A method that does not lower the log loss here would not on the test either.
    """
    p = np.clip(scores.astype(np.float64), FLOOR, 1 - FLOOR)
    y = target > 0.5
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    dealt = np.random.default_rng(0).permutation(group.max() + 1)
    part = np.argsort(dealt)[group] % min(parts, group.max() + 1)
    found = {"as it is": p.copy(), "temperature": p.copy(), "isotonic": p.copy()}
    for k in np.unique(part):
        held, rest = part == k, part != k
        if not rest.any():
            continue
        odds = np.log(p[held] / (1 - p[held])) / temperature(p[rest], y[rest])
        found["temperature"][held] = 1 / (1 + np.exp(-odds))
        fit = IsotonicRegression(y_min=FLOOR, y_max=1 - FLOOR, out_of_bounds="clip")
        fit.fit(p[rest].ravel(), y[rest].ravel())
        found["isotonic"][held] = fit.predict(p[held].ravel()).reshape(p[held].shape)
    rows = []
    for name, q in found.items():
        q = np.clip(q, FLOOR, 1 - FLOOR)  # a low temperature makes log odds of millions, and their outputs 0 and 1
        rows.append((name, calibration_error(q, y), float(-np.mean(np.where(y, np.log(q), np.log1p(-q))))))
    return pd.DataFrame(rows, columns=["method", "calibration_error", "log_loss"])


def expected_positives(
    scores: np.ndarray, target: np.ndarray, groups: np.ndarray, classes, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:  # fmt: skip
    """Per class: how many clips the OOF's outputs add up to, beside how many there are.

    Columns `class, true, expected, from, to, outside`: `from` and `to` hold the true count less the expected one over
    drawn groups (95 %); where 0 lies outside, outputs of this class count wrongly by more than chance. Those first.
    """
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    n = group.max() + 1
    y = target > 0.5
    lacking = np.zeros((n, target.shape[1]))
    np.add.at(lacking, group, y - scores.astype(np.float64))
    rng = np.random.default_rng(seed)
    drawn = np.stack([lacking[rng.integers(0, n, n)].sum(axis=0) for _ in range(resamples)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    table = pd.DataFrame({
        "class": list(classes), "true": y.sum(axis=0), "expected": scores.sum(axis=0, dtype=np.float64), "from": low,
        "to": high, "outside": (low > 0) | (high < 0),
    })  # fmt: skip
    order = np.lexsort((-(table.true - table.expected).abs(), ~table.outside))
    return table.iloc[order].reset_index(drop=True)


def drift_by_site(oof: Predictions, test: Predictions, sites: Sequence[str], floor: float = 1e-3) -> pd.DataFrame:
    """Per site of the test: its recordings, expected positives a recording, and what differs most from the OOF.

    sites: (N,) of the test's recordings, '' where it is not known. Rows `site, recordings, positives, oof_positives,
    distance, class, ratio`: distance is the mean of |log ratio| of the classes' mean outputs (floored), and the class
    the one that changes most. The largest distance first: a site unlike all that the run was judged on.
    """
    _check_classes(oof, test)
    own = oof.clipwise_output[~oof.unreadable].mean(axis=0, dtype=np.float64)
    names = np.asarray(sites, dtype=str)
    rows = []
    for site in sorted(set(names[~test.unreadable])):
        some = test.clipwise_output[(names == site) & ~test.unreadable]
        there = some.mean(axis=0, dtype=np.float64)
        change = np.log((there + floor) / (own + floor))
        most = int(np.argmax(np.abs(change)))
        rows.append((site or "(unknown)", len(some), there.sum(), own.sum(), np.abs(change).mean(), oof.classes[most],
                     float(np.exp(change[most]))))  # fmt: skip
    columns = ["site", "recordings", "positives", "oof_positives", "distance", "class", "ratio"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        "distance", ascending=False, kind="stable", ignore_index=True
    )


def drift(oof: Predictions, test: Predictions, target: np.ndarray) -> pd.DataFrame:
    """Per class: expected positives of the OOF beside the true ones, and the test's mean output over the OOF's.

    Sorted by the largest change: a class ten times as frequent in the test is drift, or another microphone.
    """
    _check_classes(oof, test)
    own, other = oof.clipwise_output[~oof.unreadable], test.clipwise_output[~test.unreadable]
    table = pd.DataFrame({
        "class": oof.classes, "true_share": target[~oof.unreadable].mean(axis=0), "oof_mean": own.mean(axis=0),
        "test_mean": other.mean(axis=0),
    })  # fmt: skip
    table["ratio"] = (table.test_mean + FLOOR) / (table.oof_mean + FLOOR)
    return table.iloc[np.argsort(-np.abs(np.log(table.ratio.to_numpy())), kind="stable")].reset_index(drop=True)


def _check_classes(oof: Predictions, test: Predictions):
    if oof.classes != test.classes:
        raise ValueError(f"the OOF and the test's predictions differ in their classes: {class_difference(oof, test)}")

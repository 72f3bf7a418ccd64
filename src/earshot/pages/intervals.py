"""How sure a score is: bootstrap over the groups that folds may not split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES = 200
INSIDE = 0.95


def bootstrap(
    score: Callable[[np.ndarray], float], groups: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Lower and upper end of the middle 95 % of a score over resampled groups; NaN where it is rarely defined.

    score: (M,) indices of clips, with repeats -> a value. groups: (N,) what is drawn as a whole: clips of one recording
    or recordist are one piece of evidence.
    """
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    rng, values = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = rng.integers(0, group.max() + 1, group.max() + 1)
        values.append(score(np.concatenate([order[starts[g] : starts[g + 1]] for g in drawn])))
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) < resamples / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - INSIDE) / 2, (1 + INSIDE) / 2])
    return float(low), float(high)

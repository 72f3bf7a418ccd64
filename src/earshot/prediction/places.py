"""Where names of clips stand in other lists of them: a million names are compared as numbers, not as Python texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

FEW = 10_000  # names that are compared as texts: a kernel's and a bulk worker's, which shall not hold pandas (70 MB)
BLOCK = 10_000  # names that become numbers at a time: they stay in a core's cache
FACTOR = 0x9E3779B97F4A7C15  # odd, so that no letter is lost


def as_names(names: Iterable) -> np.ndarray:
    """Names -> (N,) array of text."""
    return np.asarray(names if hasattr(names, "__array__") else list(names), dtype=str)


def hashed(names: np.ndarray) -> np.ndarray:
    """Numbers of names, (N,) uint64, equal for equal names whatever the longest one is; two names seldom share one."""
    letters = np.ascontiguousarray(names).view(np.uint32).reshape(len(names), names.dtype.itemsize // 4)
    total = np.zeros(len(names), np.uint64)
    for begin in range(0, len(names), BLOCK):
        some, power = total[begin : begin + BLOCK], 1
        for column in letters[begin : begin + BLOCK].T:
            power = power * FACTOR % 2**64
            some += column.astype(np.uint64) * np.uint64(power)
    return total ^ total >> np.uint64(32)


def places(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Positions of (N,) names among (M,) names without repeats, (N,), -1 where one is not there."""
    if len(wanted) == len(among) and (wanted == among).all():
        return np.arange(len(among))
    if max(len(wanted), len(among)) <= FEW:
        place = {name: i for i, name in enumerate(among.tolist())}
        return np.array([place.get(name, -1) for name in wanted.tolist()], int)
    import pandas as pd

    own = pd.Index(hashed(among))
    if own.is_unique:
        found = own.get_indexer(hashed(wanted))
        there = found >= 0
        if (among[found[there]] == wanted[there]).all():
            return found
    return pd.Index(among.tolist(), dtype=object).get_indexer(pd.Index(wanted.tolist(), dtype=object))


def all_different(names: np.ndarray) -> bool:
    """Whether no name stands twice among (N,)."""
    if len(names) <= FEW:
        return len(set(names.tolist())) == len(names)
    if (names[1:] > names[:-1]).all():  # as most tables are written
        return True
    numbers = np.sort(hashed(names))
    return bool((numbers[1:] != numbers[:-1]).all()) or len(set(names.tolist())) == len(names)

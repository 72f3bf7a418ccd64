"""Whole groups -> folds in which the classes are even: dealt out, then moved one by one where that helps. NumPy only.

Groups are rows: (G, K) clips of each class in each group, (G,) clips of each group, (G,) folds. `folds.make_folds`
calls `assign`, `refine` and `repair` in this order.
"""

from __future__ import annotations

import numpy as np

from earshot.messages import progress_bar

LARGEST_BLOCK = 1 << 16  # numbers of `refine` that are compared at once: they stay in a core's cache


def assign(held: np.ndarray, sizes: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Deal whole groups out to folds.

    (G, K) clips of each class in each group, (G,) clips of each group -> (G,) folds, a group never split.

    Greedy: the class with the fewest clips left goes first, its groups from the one that holds most of it; each goes
    to the fold that still wants most clips of that class (its share of 1/k less what it has), then, at a tie, to
    the fold that wants most clips at all, then to the one that holds fewest groups. The seed orders equal groups.
    """
    order = np.random.default_rng(seed).permutation(len(held))
    held, sizes = held[order], sizes[order]
    wanted = np.repeat(held.sum(axis=0)[None] / k, k, axis=0)
    wanted_clips = np.full(k, sizes.sum() / k)
    fold, groups_in = np.full(len(held), -1), np.zeros(k, int)
    left = held.sum(axis=0)
    bar = progress_bar(None, "folds", len(held), "group")
    while (left > 0).any():
        c = np.where(left > 0, left, np.iinfo(np.int64).max).argmin()
        members = np.flatnonzero((fold < 0) & (held[:, c] > 0))
        for g in members[np.argsort(-held[members, c], kind="stable")]:
            f = np.lexsort((groups_in, -wanted_clips, -wanted[:, c].round(9)))[0]
            fold[g] = f
            groups_in[f] += 1
            wanted[f] -= held[g]
            wanted_clips[f] -= sizes[g]
            left -= held[g]
        bar.update(len(members))
    bar.close()
    result = np.empty_like(fold)
    result[order] = fold
    return result


def refine(held: np.ndarray, sizes: np.ndarray, fold: np.ndarray, k: int, passes: int = 10) -> np.ndarray:
    """Folds after single groups moved to where they lower the imbalance: the greedy order cannot foresee later groups.

    Imbalance: squared distance of each fold's count from 1/k of the class, over the count of the class, summed over the
    classes; the number of clips counts as two classes (more, and the sizes block the moves that the classes need).
    """
    held = np.column_stack([held, sizes]).astype(float)
    total = held.sum(axis=0)
    weight = 1 / np.maximum(total, 1)
    weight[-1] *= 2
    fold = fold.copy()
    surplus = np.stack([held[fold == f].sum(axis=0) for f in range(k)]) - total / k
    most, ahead = max(1, LARGEST_BLOCK // surplus.size), 1  # groups that are compared at once
    for number in range(passes):
        begin, moved = 0, False
        bar = progress_bar(None, f"folds, pass {number + 1} of at most {passes}", len(held), "group")
        while begin < len(held):
            rows, own = held[begin : begin + ahead], fold[begin : begin + ahead]
            cost = _costs(rows, own, surplus, weight)
            best, each = cost.argmin(axis=1), np.arange(len(rows))
            better = cost[each, best] < cost[each, own] - 1e-9
            first = int(better.argmax())
            if not better[first]:
                begin, ahead = begin + len(rows), min(2 * ahead, most)
                bar.update(len(rows))
                continue
            # what follows it was compared with folds that are others now
            surplus[own[first]] -= rows[first]
            surplus[best[first]] += rows[first]
            fold[begin + first] = best[first]
            begin, ahead, moved = begin + first + 1, min(2 * (first + 1), most), True
            bar.update(first + 1)
        bar.close()
        if not moved:
            break
    return fold


def _costs(rows: np.ndarray, own: np.ndarray, surplus: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(B, C) groups, (B,) their folds, (k, C) surplus of the folds -> (B, k): what each adds to the imbalance there."""
    without = np.repeat(surplus[None], len(rows), axis=0)
    without[np.arange(len(rows)), own] -= rows
    row = rows[:, None]
    return ((2 * without + row) * row * weight).sum(axis=2)  # (s + row)^2 - s^2, of each fold without the group


def repair(held: np.ndarray, fold: np.ndarray, k: int) -> np.ndarray:
    """Folds in which a class with at least k groups misses no fold, as far as moves of single groups can do it.

    A group moves only from a fold that keeps another group of every class it takes along (unless that class is too
    rare for every fold anyway): from the fold with most groups of the class, the smallest group first.
    """
    fold = fold.copy()
    has = held > 0
    spread = has.sum(axis=0) >= k
    groups_in = np.stack([has[fold == f].sum(axis=0) for f in range(k)])
    for c in np.flatnonzero(spread)[np.argsort(has.sum(axis=0)[spread], kind="stable")]:
        for f in np.flatnonzero(groups_in[:, c] == 0):
            candidates = np.flatnonzero(has[:, c])
            keeps = ((groups_in[fold[candidates]] > 1) | ~has[candidates] | ~spread).all(axis=1)
            candidates = candidates[keeps]
            if len(candidates) == 0:
                continue
            crowd = groups_in[fold[candidates], c]
            g = candidates[np.lexsort((held[candidates].sum(axis=1), -crowd))[0]]
            groups_in[fold[g]] -= has[g]
            groups_in[f] += has[g]
            fold[g] = f
    return fold

"""A fold table for clips that became more or fewer: the others stay in their folds, new ones join them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot.data.folds import GROUPED_BY, TRAIN_ONLY, fold_numbers, group_names
from earshot.data.labels import label_pairs
from earshot.messages import few, plural
from earshot.tables import read_table


def keep_folds(clips: pd.DataFrame, path: Path, group: str | None = None, own_fold: bool = False) -> pd.DataFrame:
    """Clips (`clip_id, labels`, ...) and a fold table of most of them -> a fold table of all, sorted by clip_id.

    New clips of a group that the table has join its fold; other new groups go, the largest first, where classes stay
    most even, or with `own_fold` become folds of their own. A group that the table parts is an error.
    """
    before = read_table(path, ("clip_id", "group", "fold"))
    before["fold"] = fold_numbers(before.fold, path)
    of_clip = dict(zip(before.clip_id.astype(str), before.fold, strict=True))
    clips = clips.sort_values("clip_id", kind="stable").reset_index(drop=True)
    asked = before[GROUPED_BY].iloc[0] if GROUPED_BY in before and group is None else group
    groups = group_names(clips, asked).astype(str)
    fold = clips.clip_id.astype(str).map(of_clip)
    if fold.isna().all():
        raise ValueError(f"{path} has none of these clips, such as {clips.clip_id.iloc[0]}: nothing of it can be kept")
    held = fold[fold != TRAIN_ONLY].dropna()
    if held.empty:
        raise ValueError(f"{path} holds none of these clips out, all always train (fold {TRAIN_ONLY}): make the folds "
                         "again without --keep")  # fmt: skip
    if torn := sorted(name for name, own in held.groupby(groups[held.index]) if own.nunique() > 1):
        raise ValueError(f"{path} has {len(torn)} groups in several folds, which cannot be kept: {few(torn)}; make the "
                         "folds again without --keep")  # fmt: skip
    fold = fold.fillna(groups.map(fold.groupby(groups).max()))
    counts, n_folds = _counts(clips), int(held.max()) + 1
    new = fold.isna()
    sizes = groups[new].value_counts(sort=False)
    for name in sorted(sizes.index, key=lambda g: (-sizes[g], g)):
        rows = (groups == name).to_numpy()
        in_fold = np.stack([counts[(fold == f).to_numpy()].sum(axis=0) for f in range(n_folds)])
        fold[rows] = n_folds if own_fold else _evenest(in_fold, counts[rows].sum(axis=0), counts.sum(axis=0))
        n_folds += own_fold
    table = pd.DataFrame({"clip_id": clips.clip_id, "group": groups, "fold": fold.astype(int)})
    return table.assign(**{GROUPED_BY: asked}) if asked not in (None, "group") else table


def told(before: Path, clips: pd.DataFrame) -> str:
    """How many clips of a fold table stay, are new, and are gone, for people."""
    known, there = set(read_table(before, ("clip_id",)).clip_id.astype(str)), set(clips.clip_id.astype(str))
    new, gone = len(there - known), len(known - there)
    return f"{plural(len(known & there), 'clips stay')} in the folds of {before}, {new} are new, {gone} gone"


def _counts(clips: pd.DataFrame) -> np.ndarray:
    """(N, K + 1) which classes each clip has, and a 1 for the clip itself."""
    row, name, names = label_pairs(clips)
    counts = np.zeros((len(clips), len(names) + 1))
    counts[row, name] = 1
    counts[:, -1] = 1
    return counts


def _evenest(in_fold: np.ndarray, group: np.ndarray, total: np.ndarray) -> int:
    """The fold that a group fits best: (F, K) counts by fold, (K,) of the group, (K,) of all clips."""
    wanted, weight = total / len(in_fold), 1 / np.maximum(total, 1)
    cost = (weight * ((in_fold + group - wanted) ** 2 - (in_fold - wanted) ** 2)).sum(axis=1)
    return int(cost.argmin())

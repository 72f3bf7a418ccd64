"""Runs that know a part of the classes (data.part, data.levels): put back into the full table, with a mask. No torch.

A specialist's answers are scattered to the columns of the full class list. What it does not know it has no weight in,
whatever mean joins the members; the class is the others' alone. Somebody must know every class: one run of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from earshot.messages import few
from earshot.prediction.predictions import Predictions


def full_classes(names: Sequence[str], classes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The classes of the run that knows most of them; a run that knows others, or as many in another order: an error.

    names: of the runs, for the error; classes: of each.
    """
    most = max(range(len(classes)), key=lambda i: len(classes[i]))
    full = tuple(classes[most])
    for name, own in zip(names, classes, strict=True):
        said = f"{names[most]} and {name} cannot be blended: their classes differ"
        if strange := [c for c in own if c not in set(full)]:
            raise ValueError(
                f"{said}, only in the second: {few(strange)}; one run must know every class, specialists a part of them"
            )
        if len(own) == len(full) and tuple(own) != full:
            raise ValueError(f"{said}, same classes in another order")
    return full


def knowledge(full: Sequence[str], classes: Sequence[Sequence[str]]) -> np.ndarray:
    """Say which of the `full` classes each run knows: (M, K) booleans."""
    return np.array([[c in set(own) for c in full] for own in classes], dtype=bool).reshape(len(classes), len(full))


def scattered(found: Predictions, full: Sequence[str]) -> Predictions:
    """A specialist's predictions in the columns of the full class list; 0 in those that it does not know."""
    if found.classes == tuple(full):
        return found
    place = {c: k for k, c in enumerate(full)}
    columns = [place[c] for c in found.classes]

    def wide(values: np.ndarray) -> np.ndarray:
        out = np.zeros((len(values), len(place)), np.float32)
        out[:, columns] = values
        return out

    frames = found.framewise_output
    return replace(
        found, classes=tuple(full), clipwise_output=wide(found.clipwise_output),
        framewise_output=None if frames is None else tuple(wide(f) for f in frames),
    )  # fmt: skip


def blend_weights(weights: np.ndarray | None, mask: np.ndarray | None) -> tuple:
    """Weights of members as a Blend takes them, none where a member does not know a class.

    (M,) weights, or None for equal ones, and (M, K) mask, or None where all know all -> (M,) or (M, K). A class of
    which only members without weight know is theirs alike.
    """
    if mask is None or mask.all():
        return () if weights is None else tuple(np.asarray(weights, float).tolist())
    shares = np.ones(len(mask)) if weights is None else np.asarray(weights, float)
    table = shares[:, None] * mask
    table = np.where(table.sum(axis=0) > 0, table, mask)
    return tuple(map(tuple, table.tolist()))

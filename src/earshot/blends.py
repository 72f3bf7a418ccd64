"""Several members' predictions as one: which mean, with which weights. No torch: kernels blend too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from earshot.predictions import Predictions, weighted_mean
from earshot.spelling import suggest

MEANS = ("mean", "geometric", "rank", "power")
FLOOR = 1e-7  # probability below which a geometric mean does not look


@dataclass(frozen=True)
class Blend:
    """How members become one answer.

    mean: the arithmetic, the `geometric`, that of the clips' `rank`s inside each class (0 to 1; a member's scale stops
    to matter; framewise outputs are averaged as they are), or the `power` mean, (mean of p ** power) ** (1 / power).
    weights: one a member, or for each member one a class; empty: equal.
    """

    mean: str = "mean"
    weights: tuple = ()
    power: float = 2.0

    def __post_init__(self):
        if self.mean not in MEANS:
            raise ValueError(f"unknown mean '{self.mean}'{suggest(self.mean, MEANS)}")
        if self.power <= 0:
            raise ValueError(f"the power of a power mean must be positive, got {self.power}")

    def __call__(self, members: list[Predictions]) -> Predictions:
        """Predictions of the SAME clips -> one; a number of weights that is not that of the members is an error."""
        if len(self.weights) not in (0, len(members)):
            raise ValueError(f"the blend has weights of {len(self.weights)} members, {len(members)} came")
        weights = np.array(self.weights, float) if len(self.weights) else None
        before, after = _transforms(self)
        if self.mean == "rank":
            return weighted_mean([replace(m, clipwise_output=ranks(m.clipwise_output)) for m in members], weights)
        return _mapped(weighted_mean([_mapped(m, before) for m in members], weights), after)


def _transforms(blend: Blend) -> tuple[Callable, Callable]:
    if blend.mean == "geometric":
        return lambda x: np.log(np.maximum(x, FLOOR)), np.exp
    if blend.mean == "power":
        return lambda x: np.maximum(x, 0) ** blend.power, lambda x: x ** (1 / blend.power)
    return (lambda x: x), (lambda x: x)


def _mapped(found: Predictions, change: Callable) -> Predictions:
    frames = found.framewise_output
    return replace(
        found, clipwise_output=change(found.clipwise_output),
        framewise_output=None if frames is None else tuple(change(f) for f in frames),
    )  # fmt: skip


def ranks(scores: np.ndarray) -> np.ndarray:
    """(N, K) -> (N, K) in (0, 1]: rank inside each class over N, equal scores share the mean of their ranks."""
    if not len(scores):
        return scores
    return (rankdata(scores, axis=0) / len(scores)).astype(np.float32)


def correlations(members: list[Predictions]) -> np.ndarray:
    """(M, M) Spearman correlations of the members' clipwise outputs, mean over classes; 1 on the diagonal.

    A class in which a member says the same of every clip has none and is left out; NaN where no class is left.
    """
    first = members[0]
    stack = np.stack([ranks(m.aligned(first.clip_ids).clipwise_output) for m in members]).astype(float)  # (M, N, K)
    stack -= stack.mean(axis=1, keepdims=True)
    size = np.sqrt((stack**2).sum(axis=1))  # (M, K)
    defined = size[:, None] * size[None] > 0
    product = np.einsum("ink,jnk->ijk", stack, stack)
    each = np.divide(product, size[:, None] * size[None], out=np.zeros_like(product), where=defined)
    count = defined.sum(axis=2)
    return np.divide(each.sum(axis=2), count, out=np.full(count.shape, np.nan), where=count > 0)

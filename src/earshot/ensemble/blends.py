"""Several members' predictions as one: which mean, with which weights. No torch: kernels blend too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from earshot.messages import plural, suggest
from earshot.prediction.origin import Origin
from earshot.prediction.predictions import Predictions, mean_of, weighted_mean
from earshot.records import build_from
from earshot.stored import read_json, want

MEANS = ("mean", "geometric", "rank", "power", "median", "minimum")
FLOOR = 1e-7  # probability below which a geometric mean does not look


@dataclass(frozen=True)
class Blend:
    """How members become one answer.

    mean: the arithmetic, the `geometric`, that of the clips' `rank`s inside each class (0 to 1; a member's scale stops
    to matter; framewise outputs are averaged as they are), the `power` mean, (mean of p ** power) ** (1 / power), the
    `median`, or the `minimum` of those with weight: a sound is there where every member hears it.
    weights: one a member, or for each member one a class; empty: equal.
    """

    mean: str = "mean"
    weights: tuple[Any, ...] = ()
    power: float = 2.0

    def __post_init__(self):
        if self.mean not in MEANS:
            raise ValueError(f"unknown mean '{self.mean}'{suggest(self.mean, MEANS)}")
        if self.power <= 0:
            raise ValueError(f"power, of a power mean, must be positive, got {self.power}")
        try:
            table = np.array(self.weights, float)
        except (TypeError, ValueError) as error:
            raise ValueError(f"weights must be numbers, one a run or one a run and class: {error}") from error
        if (
            table.ndim > 2
            or not np.isfinite(table).all()
            or (table < 0).any()
            or (table.size and not table.sum(0).all())
        ):
            raise ValueError("weights must be numbers from 0, one a run or one a run and class, not all of them 0")
        nested = tuple(map(tuple, table.tolist())) if table.ndim == 2 else tuple(table.tolist())
        object.__setattr__(self, "weights", nested)

    def __call__(self, members: list[Predictions]) -> Predictions:
        """Predictions of the SAME clips -> one; a number of weights that is not that of the members is an error."""
        if len(self.weights) not in (0, len(members)):
            raise ValueError(f"the blend has weights of {len(self.weights)} members, {len(members)} came")
        weights = np.array(self.weights, float) if len(self.weights) else None
        before, after = self.transforms()
        if self.mean == "rank":
            return weighted_mean([replace(m, clipwise_output=ranks(m.clipwise_output)) for m in members], weights)
        return _mapped(weighted_mean([_mapped(m, before) for m in members], weights, self.join), after)

    @property
    def join(self) -> Callable:
        """What makes one array of several, given each one's weight: numbers or arrays that broadcast, of sum 1."""
        return {"median": weighted_median, "minimum": least}.get(self.mean, mean_of)

    def transforms(self) -> tuple[Callable, Callable]:
        """What is done to probabilities before and after the weighted mean (of `rank`: nothing, ranks come first)."""
        if self.mean == "geometric":
            return lambda x: np.log(np.maximum(x, FLOOR)), np.exp
        if self.mean == "power":
            return lambda x: np.maximum(x, 0) ** self.power, lambda x: x ** (1 / self.power)
        return (lambda x: x), (lambda x: x)


def build_blend(values: Mapping, where: str | Path = "the blend") -> Blend:
    """Make a blend of what a JSON file says of it.

    {"mean", "weights", "power"} as JSON gives them -> Blend; what is wrong is said of `where`.
    """
    return build_from(Blend, values, where)


@dataclass(frozen=True)
class Ensemble:
    """What ensemble.py chose: run folders, their blend, and their post-processing, where it chose one.

    post_processing: what ensemble/choice.py writes; thresholds: fields of PostProcess, in files of before.
    """

    runs: tuple[Path, ...]
    blend: Blend
    thresholds: Mapping
    post_processing: Mapping | None = None
    origins: tuple[Origin, ...] = ()  # the folds of all its runs; (): an older version wrote it


def read_ensemble(path: str | Path) -> Ensemble:
    """The JSON that ensemble.py wrote beside its predictions; runs whose weights are all 0 are left out."""
    path = Path(path)
    written = "src/ensemble.py --out x.npz writes x.json, which it should be"
    about = read_json(path, "ensemble", written)
    want(about, {"runs": list, "blend": dict}, f"ensemble {path}", written)
    if not all(isinstance(run, str) for run in about["runs"]):
        raise ValueError(f"ensemble {path}: runs are not all names of folders; {written}")
    for key in ("thresholds", "post_processing"):
        if not isinstance(about.get(key) or {}, dict):
            raise ValueError(f"ensemble {path} has {str(about[key])[:60]!r} as '{key}'; {written}")
    runs, values = [Path(run) for run in about["runs"]], about["blend"]
    blend = build_blend(values, path)
    if len(blend.weights) not in (0, len(runs)):
        raise ValueError(f"{path} names {plural(len(runs), 'runs')} and weights of {len(blend.weights)}")
    kept = [i for i in range(len(runs)) if not blend.weights or np.any(blend.weights[i])]
    weights = tuple(blend.weights[i] for i in kept) if blend.weights else ()
    origins = tuple(build_from(Origin, one, path) for one in about.get("origins") or ())
    return Ensemble(
        tuple(runs[i] for i in kept), replace(blend, weights=weights), about.get("thresholds") or {},
        about.get("post_processing"), origins,
    )  # fmt: skip


def _mapped(found: Predictions, change: Callable) -> Predictions:
    frames = found.framewise_output
    return replace(
        found, clipwise_output=change(found.clipwise_output),
        framewise_output=None if frames is None else tuple(change(f) for f in frames),
    )  # fmt: skip


def least(arrays: Sequence[np.ndarray], weights: Sequence) -> np.ndarray:
    """The smallest value of those with weight, float32; infinite where none has any."""
    heard = [np.where(np.asarray(w) > 0, a, np.inf) for a, w in zip(arrays, weights, strict=True)]
    return np.min(heard, axis=0).astype(np.float32)


def weighted_median(arrays: Sequence[np.ndarray], weights: Sequence) -> np.ndarray:
    """The value with half of the weight on either side, float32; between two such values their mean.

    With equal weights it is the plain median. Where no array has weight it is any of them.
    """
    values = np.stack(arrays)
    weight = np.stack([np.broadcast_to(w, values.shape[1:]) for w in weights])
    order = values.argsort(axis=0, kind="stable")
    values, below = np.take_along_axis(values, order, 0), np.take_along_axis(weight, order, 0).cumsum(axis=0)
    half = below[-1:] / 2
    first, last = (below >= half * (1 - 1e-9)).argmax(axis=0), (below > half * (1 + 1e-9)).argmax(axis=0)
    return np.mean([np.take_along_axis(values, at[None], 0)[0] for at in (first, last)], axis=0).astype(np.float32)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Replace scores, (N, K), by their ranks within each class over N; equal scores share the mean of their ranks."""
    if not len(scores):
        return scores
    return (rankdata(scores, axis=0) / len(scores)).astype(np.float32)


def correlations(members: list[Predictions]) -> np.ndarray:
    """Say how alike the answers of each pair of members are.

    (M, M) Spearman correlations of the members' clipwise outputs, mean over classes; 1 on the diagonal.

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

"""Members to one ensemble: what may be blended, weights searched on the OOF, and the CV that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from earshot.ensemble.blends import MEANS, Blend
from earshot.ensemble.post_processing import keeps
from earshot.ensemble.specialists import blend_weights
from earshot.messages import few, plural
from earshot.metrics.clips import average_precision
from earshot.prediction import predictions
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tasks import Task, defined_scores

Score = Callable[[Predictions, Truth], float]
WEIGHTS = ("equal", "search", "per_class")
EVERY_WAY = [(m, "equal") for m in MEANS if m != "mean"] + [("mean", w) for w in WEIGHTS if w != "equal"]
RARE = 5  # clips


def check_alike(names: list[str], oofs: list[Predictions]):
    """Raise unless all OOF have the same classes in one order, the same clips, and each clip in the same fold.

    Blended all the same, a member would be judged on clips that it learned from, or its columns be taken for others.
    """
    first = oofs[0]
    for name, oof in zip(names[1:], oofs[1:], strict=True):
        pair = f"{names[0]} and {name} cannot be blended"
        if oof.classes != first.classes:
            raise ValueError(f"{pair}: their classes differ, {predictions.class_difference(first, oof)}")
        if lost := set(first.clip_ids.tolist()) ^ set(oof.clip_ids.tolist()):
            raise ValueError(f"{pair}: {plural(len(lost), 'clips are')} in one OOF only: {few(sorted(lost))}")
        fold = oof.aligned(first.clip_ids).fold
        other = np.flatnonzero(fold != first.fold)
        if len(other):
            i = other[0]
            raise ValueError(
                f"{pair}: they were trained on different fold tables. {len(other)} of "
                f"{plural(len(first), 'clips are')} in "
                f"another fold, such as {first.clip_ids[i]} in {first.fold[i]} and {fold[i]}: train both on one table"
            )


def check_grids(names: Sequence[str], oofs: Sequence[Predictions], task: Task, truth: Truth, watch: str) -> str:
    """What to say where outputs in time are on different grids, so that a blend has none; '' where it keeps them.

    An error where the watched score is one of outputs in time.
    """
    steps = [None if o.framewise_output is None else o.timebase for o in oofs]
    if truth.events is None or len(set(steps)) == 1:
        return ""
    told = [f"{name} {f'every {1000 * s.frame_seconds:.3g} ms' if s else 'never'}" for name, s in zip(names, steps)]
    said = f"outputs in time are blended on one grid alone, and these are given otherwise: {', '.join(told)}"
    if watch not in defined_scores(task, truth, oofs[0].classes, frames=False):
        raise ValueError(
            f"{said}. Without them there is no {watch}: blend runs of one grid (hop_length, network), or watch a score "
            "of whole clips (`watch` in config.yaml of the folds)"
        )
    return f"{said}. The blend has none, and makes no events"


def search_weights(
    members: list[Predictions], truth: Truth, score: Score, mean: str = "mean", steps: int = 30,
    mask: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Search the weights of members that score best together.

    (M,) weights that sum to 1: greedy forward selection with replacement on the given OOF (Caruana et al. 2004).

    mean: of blends.MEANS, in which the members are joined; mask: (M, K) which classes each member knows.
    Each step adds the member that raises the score of the running mean most; the best prefix counts, so the answer is
    never worse on these clips than the best single member. Ties go to the earlier member.
    """
    counts, best, best_counts = np.zeros(len(members)), -np.inf, np.ones(len(members))
    for _ in range(steps):
        trials = []
        for m in range(len(members)):
            counts[m] += 1
            trials.append(score(Blend(mean, blend_weights(counts, mask))(members), truth))
            counts[m] -= 1
        pick = int(np.argmax(trials))
        counts[pick] += 1
        if trials[pick] > best + 1e-12:
            best, best_counts = trials[pick], counts.copy()
    return best_counts / best_counts.sum()


def search_class_weights(
    members: list[Predictions], truth: Truth, mean: str = "mean", mask: np.ndarray | None = None
) -> np.ndarray:
    """Search the weights of members for each class by itself, (M, K) of sum 1 in each class: as `search_weights` on the
    class's average precision, among the members that know it (mask).

    A class with fewer than `RARE` positives or negatives says too little: equal weights.
    """
    target, (m, k) = truth.target, (len(members), members[0].clipwise_output.shape[1])
    mask = np.ones((m, k), bool) if mask is None else mask
    weights = mask / mask.sum(axis=0)
    positives = target.sum(axis=0)
    for c in np.flatnonzero((positives >= RARE) & (len(target) - positives >= RARE)):
        column = [_one_class(members[i], c) for i in np.flatnonzero(mask[:, c])]
        weights[mask[:, c], c] = search_weights(column, Truth(target[:, [c]]), _class_precision, mean)
    return weights


def _class_precision(found: Predictions, truth: Truth) -> float:
    return average_precision(truth.target, found.clipwise_output)[0]


def _one_class(member: Predictions, c: int) -> Predictions:
    """The clip outputs of class c alone."""
    return Predictions(
        member.clip_ids, (member.classes[c],), member.clipwise_output[:, [c]], member.fold, member.unreadable
    )


def fit_blend(
    members: list[Predictions], truth: Truth, score: Score, mean: str, weights: str, mask: np.ndarray | None = None
) -> Blend:
    """The blend of these OOF: `mean` of blends.MEANS; weights "equal", "search" (on `score`) or "per_class"."""
    if weights == "search":
        return Blend(mean, blend_weights(search_weights(members, truth, score, mean, mask=mask), mask))
    if weights == "per_class":
        return Blend(mean, tuple(map(tuple, search_class_weights(members, truth, mean, mask).tolist())))
    return Blend(mean, blend_weights(None, mask))


def nested(
    members: list[Predictions], truth: Truth, score: Score, mean: str, weights: str, mask: np.ndarray | None = None
) -> Predictions:
    """The honest OOF of a blend: what blends a fold was fitted on the OTHER folds."""
    fold, parts = members[0].fold, []
    for f in np.unique(fold):
        inside, held = fold != f, fold == f
        blend = Blend(mean, blend_weights(None, mask))
        if inside.any():
            blend = fit_blend([m.take(inside) for m in members], truth.take(inside), score, mean, weights, mask)
        parts.append(blend([m.take(held) for m in members]))
    return predictions.join(parts).aligned(members[0].clip_ids)


@dataclass(frozen=True)
class Candidate:
    """One way to blend: its nested OOF, and how much it gains over the plain mean in each fold."""

    mean: str
    weights: str
    oof: Predictions
    gains: np.ndarray  # (folds,) of those that define the score

    @property
    def kept(self) -> bool:
        """It beats the plain mean by more than its gain deviates over folds."""
        return keeps(self.gains)

    @property
    def way(self) -> str:
        """Its mean and weights in words."""
        return f"{'arithmetic' if self.mean == 'mean' else self.mean} mean, {self.weights} weights"

    def __str__(self) -> str:
        verdict = "kept" if self.kept else "not kept"
        return f"{self.way}: {self.gains.mean():+.4f} +- {self.gains.std():.4f}, {verdict}"


def try_blends(
    members: list[Predictions], truth: Truth, score: Score, ways: list[tuple[str, str]], mask: np.ndarray | None = None
) -> tuple[Predictions, list[Candidate]]:
    """Score other means and weights against the plain mean, fold by fold (NaN: undefined): the OOF of the plain mean,
    and a Candidate for each (mean, weights) of `ways`."""
    members = [m.aligned(members[0].clip_ids) for m in members]
    fold, plain = members[0].fold, Blend(weights=blend_weights(None, mask))(members)

    def by_fold(found: Predictions) -> np.ndarray:
        return np.array([score(found.take(fold == f), truth.take(fold == f)) for f in np.unique(fold)])

    base, found = by_fold(plain), []
    for mean, weights in ways:
        oof = nested(members, truth, score, mean, weights, mask)
        gains = by_fold(oof) - base
        found.append(Candidate(mean, weights, oof, gains[np.isfinite(gains)]))
    return plain, found

"""Folds to one OOF, members to one ensemble: joining, weights by OOF search, and the CV that goes with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot import predictions, runs
from earshot.dataset import PreparedData
from earshot.folds import TRAIN_ONLY
from earshot.predictions import Predictions
from earshot.tasks import Task, Truth, score_readable


@dataclass(frozen=True)
class OofReport:
    """The joined OOF of a run (None while folds are missing), its truth and scores, and what to print."""

    oof: Predictions | None
    truth: Truth | None
    scores: dict[str, float]
    text: str


def oof_when_complete(folder: Path, data: PreparedData, task: Task, watch: str = "") -> OofReport:
    """Join the folds' OOF when all have one, check that every held-out clip is there once, score it, write `oof.npz`.

    scores: over all clips together; the text also gives mean and deviation of the watched score over folds.
    """
    data = data.take((data.clips.fold != TRAIN_ONLY).to_numpy())
    expected = sorted({int(f) for f in data.clips.fold})
    folds = [runs.FoldRun(path.parent) for path in sorted(folder.glob("fold*/run.json"))]
    done = {f.fold: f for f in folds}
    missing = [f for f in expected if f not in done]
    if missing:
        return OofReport(None, None, {}, f"{folder}: folds {sorted(done)} finished, {missing} to go before an OOF")
    oof = predictions.join([done[f].oof() for f in expected])
    predictions.check_complete(oof, data.clips.clip_id)
    oof = oof.aligned(data.clips.clip_id)
    oof.save(folder / "oof.npz")
    truth = truth_of(oof, data)
    scores = score_readable(task, oof, truth)
    watch = watch or task.watch
    by_fold = [score_readable(task, oof.take(oof.fold == f), truth.take(oof.fold == f)).get(watch) for f in expected]
    spread = [v for v in by_fold if v is not None]
    text = f"{folder}: OOF of {len(oof)} clips, {watch} {scores.get(watch, float('nan')):.4f}"
    if spread:
        text += f" (folds {np.mean(spread):.4f} +- {np.std(spread):.4f}: {' '.join(f'{v:.4f}' for v in spread)})"
    text += "\n" + score_table(scores)
    return OofReport(oof, truth, scores, text)


def truth_of(found: Predictions, data: PreparedData) -> Truth:
    """The answers to the predicted clips, in their order."""
    place = {c: i for i, c in enumerate(data.clips.clip_id)}
    index = np.array([place[c] for c in found.clip_ids], dtype=int)
    return Truth(data.target[index] > 0.5, data.clip_events(found.clip_ids))


def score_table(scores: dict[str, float]) -> str:
    """Scores as aligned lines."""
    return "\n".join(f"  {name:24s} {value:.4f}" for name, value in scores.items() if isinstance(value, (int, float)))


def search_weights(
    members: list[Predictions], truth: Truth, score: Callable[[Predictions, Truth], float], steps: int = 30
) -> np.ndarray:
    """(M,) weights that sum to 1: greedy forward selection with replacement on the given OOF (Caruana et al. 2004).

    Each step adds the member that raises the score of the running mean most; the best prefix counts, so the answer is
    never worse on these clips than the best single member. Ties go to the earlier member.
    """
    counts, best, best_counts = np.zeros(len(members)), -np.inf, np.ones(len(members))
    for _ in range(steps):
        trials = []
        for m in range(len(members)):
            counts[m] += 1
            trials.append(score(predictions.weighted_mean(members, counts), truth))
            counts[m] -= 1
        pick = int(np.argmax(trials))
        counts[pick] += 1
        if trials[pick] > best + 1e-12:
            best, best_counts = trials[pick], counts.copy()
    return best_counts / best_counts.sum()


def nested_blend(
    members: list[Predictions], truth: Truth, score: Callable[[Predictions, Truth], float]
) -> tuple[Predictions, np.ndarray]:
    """OOF of the blend with weights searched, for each fold, on the OTHER folds: (honest OOF, final weights).

    The final weights are searched on all folds; the score of the returned OOF is what to report.
    """
    fold = members[0].fold
    parts = []
    for f in np.unique(fold):
        inside, held = fold != f, fold == f
        weights = np.full(len(members), 1 / len(members))
        if inside.any():
            weights = search_weights([m.take(inside) for m in members], truth.take(inside), score)
        parts.append(predictions.weighted_mean([m.take(held) for m in members], weights))
    honest = predictions.join(parts).aligned(members[0].clip_ids)
    return honest, search_weights(members, truth, score)

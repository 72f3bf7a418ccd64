"""Folds to one OOF: joined, checked clip by clip, scored together and fold by fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot import runs
from earshot.competitions.competition import Competition
from earshot.data.answers import truth_of
from earshot.data.folds import TRAIN_ONLY
from earshot.data.prepared import PreparedData
from earshot.ensemble.origins import check_tables
from earshot.files import fold_folders
from earshot.messages import suggest
from earshot.prediction import predictions
from earshot.prediction.origin import TABLES
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tasks import Task, score_readable


@dataclass(frozen=True)
class OofReport:
    """The joined OOF of a run (None while folds are missing), its truth and scores, and what to print."""

    oof: Predictions | None
    truth: Truth | None
    scores: dict[str, float]
    text: str


def oof_when_complete(
    folder: Path, data: PreparedData, task: Task, watch: str = "", tables: Iterable[str] = TABLES
) -> OofReport:
    """Join the folds' OOF when all have one, check that every held-out clip is there once, score it, write `oof.npz`.

    scores: over all clips together; the text also gives mean and deviation of the watched score over folds. Folds that
    were trained on other `tables` than those of `data` are an error, and so is an OOF that is not of its fold.
    """
    data = data.ever_held_out()
    expected = sorted(int(f) for f in data.clips.fold.unique())
    if not expected:
        raise ValueError(f"{folder}: no clip of the fold table is held out (every fold is {TRAIN_ONLY}): no OOF")
    folds = [runs.FoldRun(path) for path in fold_folders(folder) if (path / "run.json").is_file()]
    for fold in folds:
        fold.check()
    check_tables(folds, data.digests, tables)
    done = {f.fold: f for f in folds}
    missing = [f for f in expected if f not in done]
    stopped = stopped_folds(folds)
    if missing:
        ended = [f for f in sorted(done) if f not in stopped]
        command = runs.train_command(folder, *missing)
        told = f"{folder}: folds {ended} finished, {missing} to go before an OOF ({command})"
        return OofReport(None, None, {}, "\n".join([told, *_stopped_lines(stopped)]))
    oof = predictions.join([done[f].oof() for f in expected])
    predictions.check_complete(oof, data.clips.clip_id)
    oof = oof.aligned(data.clips.clip_id)
    oof.save(folder / "oof.npz")
    truth = truth_of(oof, data)
    scores = score_readable(task, oof, truth)
    watch = watch or task.watch
    lost = f", {oof.unreadable.sum()} of them unreadable," * bool(oof.unreadable.any())
    text = f"{folder}: OOF of {len(oof)} clips{lost} together, {watch} {scores.get(watch, float('nan')):.4f}"
    text += spread(fold_scores(task, oof, truth, watch)) + "\n" + score_table(scores)
    text = "\n".join([text, *_stopped_lines(stopped)])
    return OofReport(oof, truth, scores, text)


def check_watched(scores: Mapping[str, float], watch: str, whose: str | Path):
    """Raise where a run's OOF has not the score that its config watches: its metric is gone, or no clip defines it."""
    if watch not in scores:
        raise ValueError(
            f"{whose}: its config watches '{watch}', which is no score of its OOF{suggest(watch, scores, 'it has')}. "
            "Bring back the metric that it was trained with, or choose another `watch` in config.yaml of its folds"
        )


def stopped_folds(folds: Sequence[runs.FoldRun]) -> dict[int, dict]:
    """The folds that --max-minutes cut, {fold: its run.json}: their OOF counts, their training is not finished."""
    about = {f.fold: f.about for f in folds}
    return {fold: found for fold, found in about.items() if not found.get("finished", True)}


def stopped_text(epochs_trained: int, epochs: int) -> str:
    return f"stopped by time after {epochs_trained} of {epochs} epochs; --resume goes on"


def _stopped_lines(stopped: dict[int, dict]) -> list[str]:
    return [
        f"  fold {fold}: {stopped_text(about.get('epochs_trained', 0), about.get('epochs', 0))}"
        for fold, about in sorted(stopped.items())
    ]


def fold_scores(task: Task, oof: Predictions, truth: Truth, watch: str) -> dict[int, float]:
    """The watched score of each fold; NaN where its clips do not define it (a fold without an event, ...)."""
    parts = {int(f): oof.fold == f for f in np.unique(oof.fold)}
    return {
        f: score_readable(task, oof.take(p), truth.take(p)).get(watch, float("nan")) for f, p in parts.items()
    }  # fmt: skip


def spread(by_fold: dict[int, float]) -> str:
    """What to print of `fold_scores`: mean, deviation and values of the folds that have one, and which have none."""
    known = [v for v in by_fold.values() if np.isfinite(v)]
    none = [str(f) for f, v in by_fold.items() if not np.isfinite(v)]
    lacking = f"not defined in fold {', '.join(none)}" if none else ""
    if not known:
        return f" ({lacking})"
    text = f"mean of folds {np.mean(known):.4f} +- {np.std(known):.4f}: {' '.join(f'{v:.4f}' for v in known)}"
    return f" ({text}{'; ' * bool(none)}{lacking})"


def frame_scores(competition: Competition, oof: Predictions, truth: Truth) -> dict[str, float]:
    """Scores that frames of an OOF have and rows do not (PSDS), where the competition has such and the OOF frames."""
    if competition.frame_score is None or truth.clips is None or "duration" not in truth.clips:
        return {}
    readable = ~oof.unreadable
    in_time = truth.take(readable).in_time(oof.take(readable))
    if in_time is None:
        return {}
    known, events = in_time
    durations = truth.clips.loc[truth.clips.clip_id.isin(known.clip_ids), ["clip_id", "duration"]]
    return competition.frame_score(known, durations, events)


def score_table(scores: dict[str, float]) -> str:
    """Scores as aligned lines."""
    return "\n".join(f"  {name:24s} {value:.4f}" for name, value in scores.items() if isinstance(value, (int, float)))

"""The honest score of a run in a schedule, and whether another round is worth it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from earshot import runs, tasks
from earshot.competitions import get_competition
from earshot.competitions.truths import checked_truth
from earshot.config import Config
from earshot.data.answers import truth_of
from earshot.data.dataset import read_dataset
from earshot.data.folds import TRAIN_ONLY
from earshot.data.labels import read_clips
from earshot.data.prepared import PreparedData, load_data
from earshot.ensemble.oof import fold_scores
from earshot.events import PostProcess
from earshot.listening.members import fold_members
from earshot.messages import suggest
from earshot.prediction import predictions
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Clip, Predictions
from earshot.rounds.plan import Honest
from earshot.tables import read_table


@dataclass(frozen=True)
class Judged:
    """The honest score of a run, and that of each fold."""

    score: str
    value: float
    of_folds: dict[int, float]


def judge(run: Path, config: Config, honest: Honest, folds: tuple[int, ...] = (), progress: Callable = iter) -> Judged:
    """Score a run by what decides: its held-out clips, each by the network that never heard it, or the validation set.

    progress: wraps the recordings of a validation set, which are heard for it.
    """
    return of_validation(run, config, honest, folds, progress) if honest.split == "validation" else of_oof(
        run, config, honest, folds
    )  # fmt: skip


def of_oof(run: Path, config: Config, honest: Honest, folds: tuple[int, ...]) -> Judged:
    """The task's score of the held-out clips, those of `honest.where`."""
    data = load_data(replace(config.data, pseudo="", soft_targets="none"))
    task = tasks.task_of(config)
    score = honest.score or task.watch
    oof = predictions.join([fold.oof() for fold in runs.load_run(run).folds if not folds or fold.fold in folds])
    oof, truth = narrowed(oof, data, honest)
    found = tasks.score_readable(task, oof, truth)
    return Judged(score, value_of(found, score), fold_scores(task, oof, truth, score))


def of_validation(
    run: Path, config: Config, honest: Honest, folds: tuple[int, ...], progress: Callable
) -> Judged:  # fmt: skip
    """The competition's score of validation.csv, which trains nothing, by the mean of the folds and by each of them."""
    root, competition = Path(config.data.root), get_competition(config.data.competition)
    if not (root / "validation.csv").is_file():
        raise ValueError(
            f"honest.split is validation, but {root} has no validation.csv (preparing this competition writes none): "
            "set honest.split to oof"
        )
    table, source = read_clips(root / "validation.csv"), Path(read_dataset(root)["source"])
    rows = read_table(root / "validation_rows.csv")
    members = [
        (runs.FoldRun(folder).fold, member)
        for member, folder in fold_members(run) if not folds or runs.FoldRun(folder).fold in folds
    ]  # fmt: skip
    clips = [Clip(c, source / p) for c, p in zip(table.clip_id, table.path, strict=True)]
    found, _ = predict_members([member for _, member in members], clips, config.predict.tta, progress)
    path = root / "validation_truth.csv"
    truth = checked_truth(read_table(path), list(found[0].classes), path)
    post = competition.post.start if competition.post else PostProcess()

    def scored(answers: Predictions) -> dict:
        return competition.score(competition.rows(answers, rows, post), truth)

    whole = scored(predictions.weighted_mean(found))
    score = honest.score or next(iter(whole))
    each = {fold: value_of(scored(p), score) for (fold, _), p in zip(members, found, strict=True)}
    return Judged(score, value_of(whole, score), each)


def value_of(found: dict[str, float], score: str) -> float:
    if score not in found:
        raise ValueError(f"honest.score '{score}' is no score of these clips{suggest(score, found)}")
    return float(found[score])


def narrowed(oof: Predictions, data: PreparedData, honest: Honest):
    """The OOF and truth of the clips that decide."""
    clips = data.clips[(data.clips.fold != TRAIN_ONLY) & data.clips.clip_id.isin(oof.clip_ids.tolist())]
    for column, value in honest.where.items():
        if column not in clips:
            raise ValueError(f"honest.where names column '{column}', not in clips.csv{suggest(column, clips.columns)}")
        clips = clips[clips[column].astype(str) == value]
    if not len(clips):
        raise ValueError(f"honest.where: no held-out clip has {honest.where}")
    some = data.take(data.clips.clip_id.isin(clips.clip_id).to_numpy())
    oof = oof.aligned(some.clips.clip_id)
    return oof, truth_of(oof, some)


def decide(values: list[float], honest: Honest) -> tuple[int, bool]:
    """Honest scores so far -> (place of the best one, whether the schedule ends): a later run is better where it gains
    more than `min_gain`; `patience` runs in a row without that are the end. NaN is never best; all NaN: an error."""
    best = next((i for i, value in enumerate(values) if np.isfinite(value)), None)
    if best is None:
        raise ValueError(
            f"the honest score is {', '.join(map(str, values))}, which decides nothing: name another honest.score, or "
            "let honest.where leave more clips"
        )
    for i, value in enumerate(values):
        if value > values[best] + honest.min_gain:
            best = i
    return best, len(values) - 1 - best >= honest.patience


def paired_text(now: Judged, before: Judged) -> str:
    """The gain over a run before, and how it differs from fold to fold."""
    shared = [f for f in now.of_folds if f in before.of_folds]
    differences = np.array([now.of_folds[f] - before.of_folds[f] for f in shared])
    differences = differences[np.isfinite(differences)]
    text = f"{now.value - before.value:+.4f}"
    if len(differences) > 1:
        text += f" (folds {differences.mean():+.4f} +- {differences.std(ddof=1):.4f})"
    return text

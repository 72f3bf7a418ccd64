"""Folds to one OOF, members to one ensemble: joining, weights by OOF search, and the CV that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot import runs
from earshot.competitions.competition import Competition
from earshot.data.folds import TRAIN_ONLY
from earshot.data.labels import annotated_clips, clip_targets, negative_events, read_classes, read_clips
from earshot.data.prepared import PreparedData, read_events
from earshot.ensemble.blends import MEANS, Blend
from earshot.ensemble.origins import check_tables
from earshot.ensemble.post_processing import keeps
from earshot.ensemble.specialists import blend_weights
from earshot.files import fold_folders
from earshot.messages import few, suggest
from earshot.metrics.clips import average_precision
from earshot.prediction import predictions
from earshot.prediction.origin import TABLES
from earshot.prediction.places import as_names, places
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tables import require_columns
from earshot.tasks import Task, defined_scores, score_readable

Score = Callable[[Predictions, Truth], float]
WEIGHTS = ("equal", "search", "per_class")
EVERY_WAY = [(m, "equal") for m in MEANS if m != "mean"] + [("mean", w) for w in WEIGHTS if w != "equal"]
RARE = 5  # clips


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


def truth_of(found: Predictions, data: PreparedData) -> Truth:
    """The answers to the predicted clips, in their order."""
    names = as_names(found.clip_ids)
    index = places(names, as_names(data.clips.clip_id))
    if len(unknown := names[index < 0]):
        raise ValueError(f"{len(unknown)} predicted clips are not in the clip table: {few(unknown)}")
    return answers_of(data.take(index))


def answers_of(data: PreparedData) -> Truth:
    """The answers to these clips, in their order."""
    events = data.clip_events(data.clips.clip_id)
    annotated = None if events is None else data.annotated
    return Truth(data.target > 0.5, events, clips=data.clips, annotated=annotated)


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


def read_truth(found: Predictions, clips_path: Path) -> Truth:
    """The answers to the predicted clips from a clip table and, where it lies beside it, events.csv."""
    clips = read_clips(clips_path)
    require_columns(clips, ("labels",), clips_path)
    clips = clips.set_index("clip_id", drop=False)
    unknown = [c for c in found.clip_ids if c not in clips.index]
    if unknown:
        raise ValueError(f"{clips_path} does not list {len(unknown)} of the predicted clips: {few(unknown)}")
    rows = clips.loc[found.clip_ids].reset_index(drop=True)
    left_out = _left_out(found, clips_path.parent)
    target, _ = clip_targets(rows, list(found.classes), left_out=left_out)
    events = read_events(clips_path.parent / "events.csv", clips, [*found.classes, *left_out])
    if events is None:
        return Truth(target > 0.5, clips=rows)
    known = annotated_clips(rows, events, clips_path)
    asked = events.filename.isin(set(found.clip_ids.tolist())) & events.event_label.isin(found.classes)
    events = events[~negative_events(events) & asked]
    return Truth(target > 0.5, events, clips=rows, annotated=known)


def _left_out(found: Predictions, folder: Path) -> list[str]:
    """Classes of the list beside the clip table that these predictions do not answer (data.levels, data.part).

    None where they answer a class that the list does not have: they are of another one.
    """
    path = folder / "classes.csv"
    listed = read_classes(path) if path.is_file() else []
    answered = set(found.classes)
    return [c for c in listed if c not in answered] if answered <= set(listed) else []


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
            raise ValueError(f"{pair}: {len(lost)} clips are in one OOF only: {few(sorted(lost))}")
        fold = oof.aligned(first.clip_ids).fold
        other = np.flatnonzero(fold != first.fold)
        if len(other):
            i = other[0]
            raise ValueError(
                f"{pair}: they were trained on different fold tables. {len(other)} of {len(first)} clips are in "
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


def score_table(scores: dict[str, float]) -> str:
    """Scores as aligned lines."""
    return "\n".join(f"  {name:24s} {value:.4f}" for name, value in scores.items() if isinstance(value, (int, float)))


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
    members: list[Predictions],
    truth: Truth,
    score: Score,
    ways: list[tuple[str, str]],
    mask: np.ndarray | None = None,
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

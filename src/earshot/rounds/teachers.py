"""Trained runs as teachers: which of their networks may answer for which fold, and what they learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from earshot import runs
from earshot.data.folds import held_out_folds
from earshot.data.prepared import PreparedData, load_data
from earshot.data.pseudo import ISOLATED
from earshot.ensemble import lineage
from earshot.ensemble.origins import check_distinct, check_same_tables, check_tables
from earshot.ensemble.relabelling import check_not_told
from earshot.listening.members import Windowwise, fold_members
from earshot.messages import few
from earshot.prediction.clip_answers import clip_answer
from earshot.prediction.inference import Member
from earshot.prediction.origin import Origin, TableDigests, weights_origin

LABELS = ("folds", "classes")  # tables that teachers must share


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """Runs of one fold table: {fold: the members that held it out}, and the labelled clips that they learned from."""

    runs: tuple[runs.Run, ...]
    members: dict[int, list[Member]]
    origins: dict[int, list[Origin]]
    data: PreparedData
    tables: TableDigests
    lineage: list[dict]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(next(iter(self.members.values()))[0].classes)

    @property
    def windowing(self):
        return next(iter(self.members.values()))[0].windowing


class WindowAnswers(Windowwise):
    """A backend whose one segment a window is the window's answer, by the rule that predicts."""

    def __init__(self, backend, windowing):
        super().__init__(backend, windowing)
        self.clip_from = windowing.clip_from

    def run(self, inputs) -> dict:
        outputs = self.backend.run(inputs)
        answers = clip_answer(outputs, self.clip_from)
        return {"clipwise_output": answers, "segmentwise_output": answers[..., None, :]}


def find_teachers(folders: Sequence[Path], folds: Sequence[int] | None = None) -> Teachers:
    """Open runs as teachers of each other's folds: fold k is answered for by their networks that held it out.

    folds: only these; None: all that the fold table has. Errors: runs on different fold tables or class lists, folds
    that are not trained to their end, a run that learned from targets by networks which heard its held-out clips, or
    networks that cannot label windows of sound alone.
    """
    found = [runs.load_run(folder) for folder in folders]
    check_distinct(found)
    check_same_tables(
        found, "their folds hold out different clips, so no fold has teachers that never heard it", LABELS
    )
    config = found[0].config
    data = load_data(replace(config.data, soft_targets="none", pseudo=""))
    known = held_out_folds(data.clips.fold)
    wanted = known if folds is None else sorted(set(folds))
    if unknown := [f for f in wanted if f not in known]:
        raise ValueError(f"fold {few(unknown)} is not in {config.data.folds} (folds: {few(known, 20)})")
    for run in found:
        check_teacher(run, wanted, data)
    members: dict[int, list[Member]] = {fold: [] for fold in wanted}
    for run in found:
        for member, folder in fold_members(run.folder):
            if (fold := runs.FoldRun(folder).fold) in members:
                members[fold].append(as_teacher(member, run))
    check_windows(found, members)
    origins = {fold: [m.origin for m in of_fold] for fold, of_fold in members.items()}
    return Teachers(
        runs=tuple(found), members=members, origins=origins, data=data, tables=data.digests,
        lineage=[made for run in found for made in lineage_of(run)],
    )  # fmt: skip


def check_teacher(run: runs.Run, wanted: Sequence[int], data: PreparedData):
    """Raise unless these folds of a run are finished, say where they come from, and never heard what they held out."""
    done = {fold.fold: fold for fold in run.folds if fold.finished}
    if missing := [f for f in wanted if f not in done]:
        command = runs.train_command(run.folder, *missing)
        raise ValueError(
            f"{run.folder}: folds {few(missing)} are not trained to their end, and only they can answer for their "
            f"clips' students: {command}; or label for some folds alone (--folds)"
        )
    for fold in run.folds:
        if weights_origin(fold.weights) is None:
            raise ValueError(
                f"{fold.folder} says not which fold and tables it is of (an older version trained it), so nobody knows "
                "what it heard: train it again"
            )
        check_not_told(fold)
    check_tables(run.folds, data.digests, LABELS)


def as_teacher(member: Member, run: runs.Run) -> Member:
    """A member that answers for whole windows, one after the other without overlap."""
    windowing = replace(
        member.windowing, stride_seconds=member.windowing.window_seconds, keep_frames=True, oof_frames=True,
        one_pass=False, extra_window=False, rest_seconds=0.0, aggregate="mean",
    )  # fmt: skip
    if "metadata" in member.backend.inputs:
        raise ValueError(
            f"{run.folder} takes metadata of each recording, which recordings without labels do not have: leave it out"
        )
    if windowing.clip_from == "log_odds":
        raise ValueError(f"{run.folder} answers with log odds (predict.clip_from), which are no targets: leave it out")
    return replace(member, windowing=windowing, backend=WindowAnswers(member.backend, windowing))


def check_windows(found: Sequence[runs.Run], members: dict[int, list[Member]]):
    """Raise where teachers hear windows of different lengths: their answers would be of different sounds."""
    of_fold = next(iter(members.values()))
    first = of_fold[0].windowing.window_seconds
    for run, member in zip(found, of_fold, strict=True):
        if member.windowing.window_seconds != first:
            raise ValueError(
                f"{found[0].folder} hears windows of {first:g} s and {run.folder} of "
                f"{member.windowing.window_seconds:g} s: teachers of one round hear the same windows"
            )


def lineage_of(run: runs.Run) -> list[dict]:
    """What a run was trained on besides labels, each once; weights that a fold may start from are isolated."""
    found = lineage.once({"run": run.name} | made for fold in run.folds for made in lineage.of_fold(fold))
    start = run.config.model.weights
    if not start or any(made["trained_on"] == "weights" for made in found):
        return found
    return [*found, {"run": run.name, "trained_on": "weights", "mode": ISOLATED, "by": start}]


def labelled_mass(data: PreparedData, fold: int) -> float:
    """Sum of the targets, known ones, that train a fold."""
    trains = (data.clips.fold != fold).to_numpy()
    return float((data.target[trains] * (data.mask[trains] > 0)).sum(dtype=np.float64))

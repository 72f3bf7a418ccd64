"""What may be removed of the runs, and its removal: never what runs, nor what is best or needed unless it is named.

checkpoints   last.ckpt of finished folds: only a fold that has lost its weights would need it
stopped       whole runs of which no fold was finished
beaten        whole finished runs that another one of the same task, competition and folds scores better than
<name>        that run, whatever it is, but one that is running
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from earshot import files
from earshot.inventory.trained import Found, upward
from earshot.messages import suggest
from earshot.processes.lock import NAME, locked

KINDS = ("checkpoints", "stopped", "beaten")


@dataclass(frozen=True)
class Removal:
    """A file or a whole run folder that would go, with its bytes and why."""

    path: Path
    size: int
    why: str
    run: Path


@dataclass(frozen=True)
class Plan:
    """What would go, and what was asked for and stays, with the reason."""

    removals: tuple[Removal, ...]
    kept: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(removal.size for removal in self.removals)


def plan_cleaning(found: Sequence[Found], everything: Sequence[Found], asked: Sequence[str]) -> Plan:
    """What cleaning these runs removes.

    found: the runs that were chosen; everything: all runs, among which one is best or needs another; asked: KINDS, or
    names of runs.
    """
    names = {text.rstrip("/").removeprefix("runs/"): text for text in asked if text not in KINDS}
    known = {run.name: run for run in everything}
    for name, text in names.items():
        if name not in known:
            raise ValueError(f"--clean {text} is neither {', '.join(KINDS)} nor a run{suggest(name, known)}")
    removals, kept = [], []
    best, needed = best_runs(everything), needed_by(everything)
    for run in [known[n] for n in names] + [run for run in found if run.name not in names]:
        named = run.name in names
        why = "named" if named else _why(run, asked, everything)
        reason = _protected(run, named, best, needed)
        if why and not reason:
            removals.append(Removal(run.folder, run.size, why, run.folder))
        elif why:
            kept.append(f"{run.name} stays: {reason}")
        if "checkpoints" in asked and run.state != "running" and not (why and not reason):
            removals += _checkpoints(run)
    return Plan(tuple(removals), tuple(kept))


def _why(run: Found, asked: Sequence[str], everything: Sequence[Found]) -> str:
    """Why a run that nobody named is asked to go; '' where it is not."""
    if "stopped" in asked and run.state in ("stopped", "running") and not run.folds:
        return "no fold finished"
    if "beaten" in asked and run.state == "finished" and math.isfinite(run.score.value):
        better = [o for o in everything if o.state == "finished" and comparable(o, run) and upward(o) > upward(run)]
        if better:
            first = max(better, key=upward)
            return f"{run.score.watch} {run.score.value:.4f}, {first.name} has {first.score.value:.4f}"
    return ""


def comparable(a: Found, b: Found) -> bool:
    """Whether two runs' scores are of one kind, and of the same folds."""
    return a.kind == b.kind and a.config.data.folds == b.config.data.folds and a.folds == b.folds


def _protected(run: Found, named: bool, best: set[Path], needed: dict[Path, str]) -> str:
    """Why a run may not go; '' where it may."""
    if run.state == "running":
        return "it is running; end it first"
    if named:
        return ""
    if run.folder in best:
        return f"it is the best of {run.kind[1]} ({run.kind[0]}); name it to remove it"
    if run.folder in needed:
        return f"{needed[run.folder]} needs it; name it to remove it"
    if run.exported:
        return f"it is exported ({', '.join(run.exported)}); name it to remove it"
    return ""


def best_runs(everything: Sequence[Found]) -> set[Path]:
    """The finished run of the best score in each task, competition, fold table and watched score."""
    best: dict[tuple, Found] = {}
    for run in everything:
        if run.state == "finished" and math.isfinite(run.score.value):
            key = (*run.kind, run.config.data.folds, run.folds)
            if key not in best or upward(run) > upward(best[key]):
                best[key] = run
    return {run.folder for run in best.values()}


def needed_by(everything: Sequence[Found]) -> dict[Path, str]:
    """The runs whose folder another run's settings or an ensemble name, with what names it."""
    texts = {run.name: str(run.settings.values()) for run in everything if run.config}
    for root in {run.folder.parents[1] for run in everything}:
        for path in sorted((root / "ensembles").rglob("*.json")):
            texts[str(path)] = path.read_text(errors="replace")
    found = {}
    for run in everything:
        place = f"{run.folder.parent.name}/{run.folder.name}"
        for who, text in texts.items():
            if who != run.name and any(f"{place}{end}" in text for end in ("/", '"', "'")):
                found[run.folder] = who
    return found


def _checkpoints(run: Found) -> list[Removal]:
    """last.ckpt of the run's finished folds whose weights are there."""
    found = []
    for fold in files.fold_folders(run.folder):
        path = fold / "last.ckpt"
        whole = int(fold.name.removeprefix("fold")) in run.folds and (fold / "best.safetensors").is_file()
        if whole and path.is_file():
            found.append(Removal(path, path.stat().st_size, "the fold is finished", run.folder))
    return found


def clean(plan: Plan) -> int:
    """Remove what the plan says; returns the bytes. A run that somebody took meanwhile is an error, and stays whole.

    A folder is renamed first, so that a kill in the middle leaves no half of a run; what was left is swept up later.
    """
    removed = 0
    for removal in plan.removals:
        with ExitStack() as stack:
            for fold in files.fold_folders(removal.run):
                stack.enter_context(locked(fold))
            if removal.path.is_dir():
                for fold in files.fold_folders(removal.path):
                    (fold / NAME).unlink(missing_ok=True)
                away = files.temporary_name(removal.path)
                os.replace(removal.path, away)
                shutil.rmtree(away)
            else:
                removal.path.unlink(missing_ok=True)
            removed += removal.size
    return removed

"""What may be removed of the runs, and its removal: never what runs, nor what is best or needed unless it is named.

checkpoints   last.ckpt of finished folds: only a fold that has lost its weights would need it
stopped       whole runs of which no fold was finished
beaten        whole finished runs that another one scores better than on the very same clips and classes
caches        of the data that the runs name, and of data/: a run that wants one makes it again
unused-caches those of them that the settings of no run here ask for
<name>        that run, whatever it is, but one that is running or a link to another place

What a run folder holds beside what scripts write there again, such as decisions.csv of a review, keeps it.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from earshot import files
from earshot.data import pseudo
from earshot.inventory.caches import caches_of
from earshot.inventory.trained import Found, upward
from earshot.messages import few, suggest
from earshot.processes.lock import NAME, locked

KINDS = ("checkpoints", "stopped", "beaten", "caches", "unused-caches")
TAUGHT_BY = ("soft_targets", "pseudo", "distill", "soup_of")  # keys of run.json that name other runs
# what training, prediction, scoring and export write into a run's folder and its folds, and would write again
OURS = re.compile(
    r"(config\.yaml|(origin|run|cv|predicted|thresholds|lock)\.json|(log|classes|anomaly_scores)\.csv"
    r"|(.+_)?(unreadable|odd_files)\.csv|(best|fold\d+)\.safetensors|last\.ckpt|.+\.npz"
    r"|(curves|classes|confusion|events|roc)\.png|(model|together)(_int8)?\.(onnx|xml|bin)(\.json)?|\..+\.part\..+)"
)


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
        why = _named(run) if named else _why(run, asked, everything)
        reason = _protected(run, named, best, needed) if why else ""
        if why and not reason:
            removals.append(Removal(run.folder, run.size, why, run.folder))
        elif why:
            kept.append(f"{run.name} stays: {reason}")
        linked = run.folder.is_symlink()
        if "checkpoints" in asked and run.state != "running" and not linked and not (why and not reason):
            removals += _checkpoints(run)
    for cache in caches_of(found, everything) if {"caches", "unused-caches"} & set(asked) else ():
        used = cache.asked_for() if "caches" not in asked else ""
        if reason := cache.stays or used:
            kept.append(f"{cache.folder} stays: {reason} ({cache.what})")
        else:
            removals.append(Removal(cache.folder, cache.size, cache.say(), cache.folder))
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


def _named(run: Found) -> str:
    """Why a named run goes, with what goes with it and nothing writes again."""
    return "named" + (f"; it holds {few(own, 3)}" if (own := foreign(run.folder)) else "")


def comparable(a: Found, b: Found) -> bool:
    """Whether two runs' scores are of one kind, and of the same folds, clips and classes."""
    return bool(a.config and b.config) and scored_on(a) == scored_on(b)


def scored_on(run: Found) -> tuple:
    """What a run's score is of: two that differ in any of it do not compare, as a specialist and a run of all classes.

    Beside kind and folds the data's place, class list, part, levels, chosen clips, and what of labels counts.
    """
    data = run.config.data
    return (
        *run.kind, data.folds, run.folds, data.root, data.classes, tuple(data.levels),
        tuple(sorted(data.part.items())), tuple(sorted(data.where.items())), data.keep_unlabelled, data.mask_unknown,
        data.secondary_weight, data.false_positives,
    )  # fmt: skip


def _protected(run: Found, named: bool, best: set[Path], needed: dict[Path, str]) -> str:
    """Why a run may not go; '' where it may."""
    if run.state == "running":
        return "it is running; end it first"
    if run.folder.is_symlink():
        return f"it is a link to {os.path.realpath(run.folder)}; remove the link itself, or clean up there"
    if named:
        return ""
    if run.folder in best:
        return f"it is the best of {run.kind[1]} ({run.kind[0]}); name it to remove it"
    if run.folder in needed:
        return f"{needed[run.folder]} needs it; name it to remove it"
    if run.exported:
        return f"it is exported ({', '.join(run.exported)}); name it to remove it"
    if own := foreign(run.folder):
        return f"it holds {few(own, 3)}, which no training writes again; move that away, or name the run to remove all"
    return ""


def foreign(folder: Path) -> list[str]:
    """What lies in a run's folder that no script of ours would write there again: answers of people, notes, copies."""
    found = []
    for parent, folders, names in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        for name in sorted(folders):
            if depth or not re.fullmatch(r"fold\d+|soup", name):
                found.append(str((Path(parent) / name).relative_to(folder)) + "/")
        folders[:] = [name for name in folders if not depth and re.fullmatch(r"fold\d+|soup", name)]
        found += [str((Path(parent) / name).relative_to(folder)) for name in sorted(names) if not OURS.fullmatch(name)]
    return found


def best_runs(everything: Sequence[Found]) -> set[Path]:
    """The finished run of the best score among those that compare (see `scored_on`)."""
    best: dict[tuple, Found] = {}
    for run in everything:
        if run.state == "finished" and math.isfinite(run.score.value):
            key = scored_on(run)
            if key not in best or upward(run) > upward(best[key]):
                best[key] = run
    return {run.folder for run in best.values()}


def needed_by(everything: Sequence[Found]) -> dict[Path, str]:
    """The runs that another run's settings, teachers or soup, or an ensemble name, with what names them."""
    texts = {run.name: "\n".join(_named_by(run)) for run in everything}
    for root in {run.folder.parents[1] for run in everything}:
        for path in sorted((root / "ensembles").rglob("*.json")):
            texts[str(path)] = _told(path)
    names: dict[str, set[str]] = {}  # of one folder, which links may call otherwise
    for run in everything:
        names.setdefault(os.path.realpath(run.folder), set()).add(f"{run.folder.parent.name}/{run.folder.name}")
    found = {}
    for run in everything:
        own = names[os.path.realpath(run.folder)]
        place = re.compile(rf"({'|'.join(map(re.escape, sorted(own)))})(?=[/\"',;\s()]|$)", re.MULTILINE)
        for who, text in texts.items():
            if who not in own and place.search(text):
                found[run.folder] = who
    return found


def _named_by(run: Found) -> list[str]:
    """Texts in which a run names others: its config, what run.json and soups say of teachers, its pseudo-labels'."""
    texts = [str(run.settings.values())]
    if run.config and run.config.data.pseudo:
        texts.append(_told(Path(run.config.data.pseudo) / pseudo.FILE))
    for fold in files.fold_folders(run.folder):
        texts.append(_told(fold / "run.json", TAUGHT_BY))
    for path in sorted((run.folder / "soup").glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                texts.append(str((file.metadata() or {}).get("earshot", "")))
        except (SafetensorError, OSError):  # a damaged one tells nothing
            continue
    return texts


def _told(path: Path, keys: Sequence[str] = ()) -> str:
    """The values of a JSON file as a text, of these keys alone where some are given; '' where there is no file."""
    if not path.is_file():
        return ""
    text = path.read_text(errors="replace")
    try:
        values = json.loads(text)
    except ValueError:
        return text
    return str({key: values[key] for key in keys if key in values} if keys and isinstance(values, dict) else values)


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

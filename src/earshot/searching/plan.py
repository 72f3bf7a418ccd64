"""The plan of a search: its YAML, what is asked before the first trial, and the folds that no trial hears."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from earshot import files
from earshot.config import Config, load_config
from earshot.data.digests import digest_of_folds
from earshot.data.folds import GROUPED_BY, TRAIN_ONLY, folds_in, held_out_folds, make_folds, read_folds
from earshot.data.labels import read_clips
from earshot.data.soft_targets import find_targets
from earshot.ensemble import lineage
from earshot.messages import check_choice, few, plural
from earshot.prediction.origin import Origin, weights_origin
from earshot.records import build_from, to_dict
from earshot.searching.space import Space, grid, overrides_of, read_space
from earshot.stored import read_yaml
from earshot.tables import read_table
from earshot.tasks import task_of
from earshot.training.origins import held_out_of, made_of, trained_on

SAMPLERS = ("tpe", "random", "grid")
DRAWN = 64  # settings by chance that are checked before the first trial
ALL = "all"
FOLD_COLUMNS = ("clip_id", "group", "fold", "official_fold", GROUPED_BY)  # of the tables of trials


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What is searched, on which folds, and how the choice is reported."""

    config: str  # YAML of the run whose settings are searched
    space: dict[str, Any] = field(default_factory=dict)  # key: {low, high, log, step} or a list of values
    overrides: tuple[str, ...] = ()  # of every training, such as optim.epochs=8
    trials: int = 20
    outer: Any = (0,)  # folds that no trial hears and that report the choice, each with a search of its own; all; []
    inner: int = 1  # of the other folds, so many score a trial
    make: int = 0  # cut the clips of the other folds anew into so many; 0: their own folds
    seeds: tuple[int, ...] = (1,)  # each trial trains with each of them
    report_seeds: tuple[int, ...] = (101, 102)  # the choice, and the config as it is, train with these
    sampler: str = "tpe"
    sampler_seed: int = 0
    prune: bool = True  # end trials that are worse than the median at the same epoch
    startup_trials: int = 5  # that are not pruned, and drawn by chance
    warmup_epochs: int = 2  # of a trial that are not judged

    def __post_init__(self):
        check_choice("sampler", self.sampler, SAMPLERS)
        for name in ("trials", "inner"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("make", "startup_trials", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.make == 1:
            raise ValueError("make must be 0 (the folds that are there) or at least 2 folds, got 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {list(self.seeds)}")
        if self.outer != ALL and not (
            isinstance(self.outer, list | tuple) and all(type(fold) is int and fold >= 0 for fold in self.outer)
        ):
            raise ValueError(f"outer must be a list of folds, or all, got {self.outer!r}")
        if self.outer and not self.report_seeds:
            raise ValueError("report_seeds is empty: the choice needs a seed to be reported with")
        if shared := sorted(set(self.seeds) & set(self.report_seeds)):
            raise ValueError(f"report_seeds has {shared}, which the search chose with: take other seeds")

    @property
    def read_space(self) -> Space:
        return read_space(self.space)


def read_plan(path: Path) -> SearchPlan:
    """The plan of a YAML file; an error names the file and key."""
    plan = build_from(SearchPlan, read_yaml(path, "search"), path)
    try:
        space = plan.read_space
        if plan.sampler == "grid":
            plan = replace(plan, trials=len(grid(space)))
        base_config(plan)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return plan


def base_config(plan: SearchPlan, settings: dict | None = None) -> Config:
    """The config with the plan's overrides, and then these settings."""
    over = [text for text in plan.overrides if text.partition("=")[0] not in (settings or {})]
    return load_config(plan.config, [*over, *overrides_of(settings or {})])


def watched(config: Config) -> str:
    """Name of the score that trials are compared by."""
    return task_of(config).watch


def check_settings(plan: SearchPlan, check: Callable[[Config], object], seed: int = 0):
    """Raise where a setting of the space, or a mixture of them, makes no config that could train.

    check: asked of the config as it is and of each key's extremes alone; mixtures are drawn by chance and read.
    """
    space = plan.read_space
    check(base_config(plan))
    for key, part in space.items():
        for value in part.extremes():
            try:
                check(base_config(plan, {key: value}))
            except ValueError as error:
                raise ValueError(f"space.{key}: {value!r} cannot train: {error}") from error
    rng = np.random.default_rng(seed)
    for _ in range(DRAWN):
        settings = {key: part.draw(rng) for key, part in space.items()}
        try:
            base_config(plan, settings)
        except ValueError as error:
            shown = ", ".join(overrides_of(settings))
            raise ValueError(f"space: together, {shown} make no config: {error}; narrow one of them") from error


# ---- folds


@dataclass(frozen=True)
class Split:
    """What the trials of one outer fold hear: tables of their own without its clips, and the folds that score them.

    outer: None where nothing is kept apart.
    """

    outer: int | None
    root: Path
    folds: Path
    inner: tuple[int, ...]

    @property
    def name(self) -> str:
        return "everything" if self.outer is None else f"outer{self.outer}"

    @property
    def overrides(self) -> list[str]:
        """What a trial's config says of its tables."""
        return [f"data.root={self.root}", f"data.folds={self.folds}", "data.soft_targets=none"]


def outer_folds(plan: SearchPlan, config: Config) -> list[int | None]:
    """The outer folds of a plan; [None] where nothing is kept apart."""
    known = folds_in(config.data.folds)
    if plan.outer == ALL:
        return list(known)
    if unknown := sorted(set(plan.outer) - set(known)):
        raise ValueError(f"outer names fold {few(unknown)}; the folds of {config.data.folds} are {few(known, 20)}")
    return list(plan.outer) or [None]


def make_split(plan: SearchPlan, config: Config, outer: int | None, folder: Path) -> Split:
    """Write the tables that trials of an outer fold read, without its clips, and choose the folds that score them."""
    root, place = Path(config.data.root), folder / "data"
    if outer is not None and (targets := find_targets(config.data.soft_targets, root)):
        raise ValueError(
            f"{targets} trains in place of labels, and what made it may have heard the outer fold: set "
            "data.soft_targets=none in overrides, or outer: [] and believe no figure"
        )
    if outer is not None:
        apart = held_out_of(config.data.folds, outer)
        for each in taught_configs(plan, config):
            check_taught(each, outer, apart)
    clips = read_clips(root / "clips.csv")
    folds = read_folds(config.data.folds, clips)
    kept = (folds.fold != outer).to_numpy() if outer is not None else np.ones(len(clips), bool)
    clips, folds = clips[kept].reset_index(drop=True), folds[kept].reset_index(drop=True)
    if plan.make:
        own = clips.drop(columns="official_fold", errors="ignore").assign(group=folds.group.to_numpy())
        asked = {GROUPED_BY: folds[GROUPED_BY].to_numpy()} if GROUPED_BY in folds else {}
        folds = make_folds(own, plan.make, plan.sampler_seed)
        folds = folds.set_index("clip_id").loc[clips.clip_id].reset_index().assign(**asked)
    known = held_out_folds(folds.fold)
    start = 0 if outer is None or plan.make else sum(f < outer for f in known)
    inner = [*known[start:], *known[:start]][: plan.inner]
    trains = len(known) > 1 or (folds.fold == TRAIN_ONLY).any()
    if len(inner) < plan.inner or not trains:
        raise ValueError(
            f"without fold {outer} there are {plural(len(known), 'folds')} to score trials on, and inner asks for "
            f"{plan.inner}"
            f"{'' if trains else ', with nothing left to train on'}: make: 4 cuts the other clips into four anew"
        )
    tables = {"clips.csv": clips, "folds.csv": folds[[c for c in FOLD_COLUMNS if c in folds]]}
    if (root / "events.csv").is_file():
        events = read_table(root / "events.csv", ("filename",))
        tables["events.csv"] = events[events.filename.isin(set(clips.clip_id))]
    texts = {name: table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}
    texts["classes.csv"] = Path(config.data.classes or root / "classes.csv").read_text()
    texts["dataset.json"] = (root / "dataset.json").read_text()
    if any(not (place / n).is_file() or (place / n).read_text() != text for n, text in texts.items()):
        with files.whole_folder(place, replace=True) as partial:
            for name, text in texts.items():
                files.write_text(partial / name, text)
    return Split(outer, place, place / "folds.csv", tuple(inner))


def taught_configs(plan: SearchPlan, config: Config) -> list[Config]:
    """The config, and it with each value of the space that may say who teaches."""
    found = [config]
    for key, part in plan.read_space.items():
        if key.partition(".")[0] in ("data", "model", "distill", "frontends"):
            found += [base_config(plan, {key: value}) for value in part.extremes()]
    return found


def check_taught(config: Config, outer: int, apart: set[str]):
    """Raise where networks that may have heard the outer fold, whose clips are `apart`, would teach the trials."""
    how = config.distill
    given = {
        "distill.predictions": ", ".join(how.predictions), "distill.teacher.run": how.teacher.run,
        "data.pseudo": config.data.pseudo,
    }  # fmt: skip
    for key, name in given.items():
        if name:
            raise ValueError(
                f"{key} {name} is of own runs, which may have heard the outer fold {outer}: leave it out of the "
                "config, the overrides and the space, or set outer: [] and believe no figure"
            )
    folds = read_table(config.data.folds, ("clip_id", "fold"))
    numbers, weights = held_out_folds(folds.fold), config.model.weights
    for path in dict.fromkeys(Path(weights.replace("{fold}", str(fold))) for fold in numbers):
        if (start := weights_origin(path)) is not None:  # else published weights
            refuse_heard("model.weights", path, start, folds, outer=outer, apart=apart)
    records = {f"frontends.{n}": r for n, r in config.frontends.items() if r.kind == "extractor"}
    for key, record in (records | {"distill.teacher": how.teacher}).items():
        for fold in numbers if any("{fold}" in name for name in (record.file, record.weights)) else numbers[:1]:
            own = {name: getattr(record, name).replace("{fold}", str(fold)) for name in ("file", "weights")}
            path, part, starts = made_of(replace(record, **own))
            for start in starts:
                refuse_heard(f"{key}.{part}", path, start, folds, outer=outer, apart=apart)


def refuse_heard(key: str, path: Path, start: Origin, folds: pd.DataFrame, *, outer: int, apart: set[str]):
    """Raise where a network of an own run, or one that told it something, may have heard the outer fold.

    What told it, its pseudo-labels or teachers, kept apart what its own fold held out: the outer fold where it is of
    the same fold table, and of other tables nobody knows.
    """
    trained, why = trained_on(path, start)
    reason = f"nobody knows: {why}" * bool(why)
    if shared := len(apart & trained):
        reason = f"trained on {shared} of its clips"
    weights = path if path.suffix == ".safetensors" else path.with_name("best.safetensors")
    same = start.tables.folds == digest_of_folds(folds)
    told = [made for made in lineage.of_weights(weights) if not (same and made.get("mode") in lineage.CLEAN)]
    if not reason and told:
        what = lineage.WHAT[told[0]["trained_on"]]
        by = few(str(told[0].get("by", "an unknown maker")).split(", "), 2)
        reason = f"it learned from {what} by {by}, who may have heard its clips"
    if reason:
        raise ValueError(
            f"{key} {path} is of the own {start}, which may have heard the outer fold {outer} ({reason}): "
            "start from published weights or from weights of other data, or set outer: [] and believe no figure"
        )


def fingerprint(plan: SearchPlan, split: Split) -> dict:
    """What a study must have been begun with to be gone on with."""
    same = ("space", "overrides", "inner", "make", "seeds", "sampler", "sampler_seed", "warmup_epochs", "prune")
    values = {name: to_dict(getattr(plan, name)) for name in same}
    folds = files.file_digest(split.folds)[:16]
    return json.loads(json.dumps({**values, "config": to_dict(base_config(plan)), "folds": folds}))

"""Trials of a search: kept in SQLite by Optuna, asked for by any number of processes, ended early, gone on with.

A trial says which process runs it. One whose process has ended, however it did, is failed by the next process that
asks, and its settings are tried again; trainings that were finished are found by their settings and not done twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from earshot.config import from_run
from earshot.files import write_rows
from earshot.messages import few, first_line, need
from earshot.processes.lock import in_turn
from earshot.processes.running import is_running, machine
from earshot.records import to_dict
from earshot.searching.plan import SearchPlan
from earshot.searching.space import Choice, Space, as_text, grid

DATABASE = "study.db"
FAILURES = 3  # trials that end with an error, one after the other from the first, before the search gives up

# (settings, seed, fold) -> (epoch, watched score turned upward) as they come, the last one the score of what is kept
Train = Callable[[dict, int, int], Iterator[tuple[int, float]]]


def optuna():
    """The library that searches; a missing one is an error with its install line."""
    optuna = need("optuna", "search", "a search of settings")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return optuna


def open_study(folder: Path, plan: SearchPlan, begun_with: dict):
    """The study in a folder, made where there is none; one begun with other settings is an error that names them."""
    lib = optuna()
    folder.mkdir(parents=True, exist_ok=True)
    pruner = lib.pruners.NopPruner()
    if plan.prune:
        pruner = lib.pruners.MedianPruner(plan.startup_trials, plan.warmup_epochs)
    with in_turn(folder / ".study.lock"), _readable(folder / DATABASE):
        storage = lib.storages.RDBStorage("sqlite://", engine_kwargs={"creator": _connect(folder / DATABASE)})
        study = lib.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True, pruner=pruner
        )
        known = study.user_attrs.get("begun_with")
        if known is None:
            study.set_user_attr("begun_with", begun_with)
            for settings in grid(plan.read_space) if plan.sampler == "grid" else ():
                study.enqueue_trial(encoded(settings), skip_if_exists=True)
    if known and "config" in known:  # settings that came with a later version have their defaults
        known = known | {"config": to_dict(from_run(known["config"]))}
    if known is not None and known != begun_with:
        changed = [key for key in begun_with if known.get(key) != begun_with[key]]
        raise ValueError(
            f"{folder} holds a search that was begun with other {few(changed)}: give --out another folder, or remove it"
        )
    return study


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A data base that is whole; one that is damaged, or none, is an error with its name."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if path.exists():
            with closing(_connect(path)()) as base:
                if (told := base.execute("pragma quick_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(" ".join(told.split()))
        yield
    except (sqlite3.Error, SQLAlchemyError, optuna().exceptions.StorageInternalError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read as the data base of a search ({first_line(error)}): put a whole copy of it "
            "there, or give --out another folder"
        ) from error


def _connect(path: Path) -> Callable[[], sqlite3.Connection]:
    """How the data base is opened: kills of a process lose nothing, and no write waits for the disk."""

    def connect() -> sqlite3.Connection:
        base = sqlite3.connect(path, timeout=60, check_same_thread=False)
        base.execute("pragma journal_mode=wal")
        base.execute("pragma synchronous=normal")
        return base

    return connect


def encoded(settings: dict) -> dict:
    """Settings as a study keeps them: numbers as they are, anything else as text."""
    return {k: v if isinstance(v, int | float) and not isinstance(v, bool) else as_text(v) for k, v in settings.items()}


def decoded(params: dict, space: Space) -> dict:
    """What a study kept -> settings."""
    found = {}
    for key, value in params.items():
        part = space[key]
        if isinstance(part, Choice):
            value = next(one for one in part.values if encoded({key: one})[key] == value)
        found[key] = value
    return found


def distributions(space: Space) -> dict:
    """The space as Optuna takes it."""
    lib, found = optuna(), {}
    for key, part in space.items():
        if isinstance(part, Choice):
            found[key] = lib.distributions.CategoricalDistribution([encoded({key: v})[key] for v in part.values])
        elif part.whole:
            found[key] = lib.distributions.IntDistribution(part.low, part.high, part.log, part.step or 1)
        else:
            found[key] = lib.distributions.FloatDistribution(part.low, part.high, part.log, part.step or None)
    return found


def sampler_of(plan: SearchPlan, number: int):
    """What draws trial `number`: the same one however often the search was stopped, where one process asks."""
    lib = optuna()
    seed = int(np.random.SeedSequence([plan.sampler_seed, number]).generate_state(1)[0])
    if plan.sampler == "tpe":
        return lib.samplers.TPESampler(seed=seed, n_startup_trials=plan.startup_trials, constant_liar=True)
    return lib.samplers.RandomSampler(seed=seed)


def counted(study) -> int:
    """Trials that are done: with a score, ended early, or ended by an error."""
    states = optuna().trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))


def run_trials(
    study, plan: SearchPlan, folder: Path, train: Train, inner: tuple[int, ...], epochs: int,
    deadline: float = math.inf, done: Callable[[], object] = lambda: None,
):  # fmt: skip
    """Try settings until the plan's trials are there, together with every other process that does.

    epochs: the most that a trial trains. deadline: of time.monotonic, after which no trial begins. done: called after
    each trial.
    """
    failed = 0
    while time.monotonic() < deadline:
        trial = next_trial(study, plan, folder)
        if trial is None:
            return
        state, error = try_one(study, trial, plan, train, inner, epochs)
        failed = failed + 1 if state == "failed" else 0
        if failed == FAILURES == counted(study):
            raise ValueError(f"the first {FAILURES} trials ended with an error; the last: {error}")
        done()


def next_trial(study, plan: SearchPlan, folder: Path):
    """A trial for this process to run, or None where all are done or under way elsewhere."""
    states = optuna().trial.TrialState
    with in_turn(folder / ".study.lock"):
        take_up(study)
        under_way = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.RUNNING))
        if len(under_way) >= plan.trials:
            return None
        study.sampler = sampler_of(plan, len(study.get_trials(deepcopy=False)))
        trial = study.ask(distributions(plan.read_space))
        for key, value in (("pid", os.getpid()), ("machine", machine()), ("began", time.time())):
            trial.set_user_attr(key, value)
    return trial


def take_up(study):
    """Fail the trials whose process has ended, and have their settings tried again first."""
    states = optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        about = trial.user_attrs  # none: it died before it could say, for this process has its turn now
        here = about.get("machine", machine()) == machine()
        if here and not is_running(about.get("pid", 0), about.get("began", 0.0)):
            study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def try_one(study, trial, plan: SearchPlan, train: Train, inner: tuple[int, ...], epochs: int) -> tuple[str, str]:
    """Train a trial's settings on each seed and inner fold; tell the study. Returns its state, and its error."""
    lib = optuna()
    states = lib.trial.TrialState
    settings, repeats = decoded(trial.params, plan.read_space), list(product(plan.seeds, inner))
    finished: list[float] = []
    try:
        for n, (seed, fold) in enumerate(repeats):
            score, last = math.nan, -1
            with closing(train(settings, seed, fold)) as scored:
                for epoch, score in scored:
                    if epoch > last:
                        trial.report(float(np.mean([*finished, score])), n * (epochs + 1) + epoch)
                    if epoch > last and trial.should_prune():
                        raise lib.TrialPruned
                    last = epoch
            if not math.isfinite(score):
                raise ValueError("no epoch was scored")
            finished.append(score)
    except lib.TrialPruned:
        study.tell(trial, state=states.PRUNED)
        return "pruned", ""
    except (ValueError, RuntimeError, OSError) as error:
        text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        trial.set_user_attr("error", text)
        study.tell(trial, state=states.PRUNED)  # what fails is to be avoided, as what is bad is
        return "failed", text
    except BaseException:  # stopped: these settings come first when the search goes on
        study.tell(trial, state=states.FAIL)
        study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        raise
    study.tell(trial, float(np.mean(finished)))
    return "complete", ""


@contextmanager
def alone(folder: Path, settings: dict, seed: int, fold: int) -> Iterator[None]:
    """One process at a time trains the same thing: a second one finds it done."""
    folder.mkdir(parents=True, exist_ok=True)
    with in_turn(folder / f".{name_of(settings)}-{seed}-{fold}.lock"):
        yield


def name_of(settings: dict) -> str:
    """A short name of settings that is the same whenever they are."""
    return hashlib.sha256(json.dumps(encoded(settings), sort_keys=True).encode()).hexdigest()[:10]


def best_settings(study, space: Space) -> tuple[dict[str, Any], float]:
    """The settings of the best trial and its score; an error where no trial has one."""
    states = optuna().trial.TrialState
    if not study.get_trials(deepcopy=False, states=(states.COMPLETE,)):
        raise ValueError("no trial was trained to its end: there is nothing to choose from; search more trials")
    best = study.best_trial
    return decoded(best.params, space), float(best.value)


def write_trials(study, space: Space, path: Path, turned: Callable[[float], float]):
    """All trials as a table: number, state, score, settings, what went wrong. turned: the score as it is printed."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        value = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=math.nan)
        took = (trial.datetime_complete - trial.datetime_start).total_seconds() if trial.datetime_complete else math.nan
        error = trial.user_attrs.get("error", "")
        state = "error" if error else trial.state.name.lower()
        row = {"trial": trial.number, "state": state, "score": turned(value), "seconds": round(took, 1)}
        rows.append(row | {key: trial.params.get(key, "") for key in space} | {"error": error})
    write_rows(path, rows, ["trial", "state", "score", "seconds", *space, "error"])


def importance(study) -> dict[str, float]:
    """How much each setting mattered to the score, shares of 1 (fANOVA); {} where there are too few trials to tell."""
    lib = optuna()
    complete = study.get_trials(deepcopy=False, states=(lib.trial.TrialState.COMPLETE,))
    if len(complete) < 8 or len({trial.value for trial in complete}) < 2:
        return {}
    return dict(lib.importance.get_param_importances(study, evaluator=lib.importance.FanovaImportanceEvaluator(seed=0)))

"""The runs below a folder: what each scores and how sure that is, what it changes, what it weighs, what it is doing."""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from pathlib import Path

import numpy as np

from earshot import files, runs, tasks
from earshot.config import Config
from earshot.config.difference import BY_MACHINE
from earshot.data.answers import truth_of
from earshot.data.folds import folds_in
from earshot.data.prepared import load_data
from earshot.messages import command_line, first_line, progress_bar, suggest
from earshot.pages.report import Evidence, interval
from earshot.prediction import predictions
from earshot.prediction.backends import ENDINGS
from earshot.prediction.graphs import graph_name
from earshot.processes.lock import is_owned
from earshot.records import dotted_keys, to_dict
from earshot.stored import read_json

INTERVALS = 2  # raise it when `interval` comes to give others
KEPT = "cv.json"  # of a run folder: its CV as `cv_of` found it, so that a list of runs is quick
STATES = ("finished", "part", "running", "stopped", "damaged")  # part: of its fold table, some folds
UNTOLD = ("data.root", "data.folds", *BY_MACHINE)  # change no score
SORTS = ("cv", "date", "size", "name")


@dataclass(frozen=True, kw_only=True)
class Score:
    """The CV of a run: its watched score over all held-out clips with its interval, or the mean of the folds alone.

    low, high: the middle 95 % over resampled groups, NaN where it is not known; note: why it is not.
    """

    watch: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A run folder as a list shows it."""

    folder: Path
    state: str  # one of STATES
    config: Config | None = None
    score: Score = Score(watch="")
    folds: tuple[int, ...] = ()  # finished ones
    all_folds: int = 0  # of the fold table, 0: not known
    size: int = 0  # bytes
    changed: float = 0.0  # seconds since 1970
    exported: tuple[str, ...] = ()
    note: str = ""  # of a damaged or stopped one
    changes: str = ""  # from the earlier run that is most like it
    neighbour: str = ""
    settings: dict[str, object] = field(default_factory=dict)  # dotted keys of the config

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def kind(self) -> tuple[str, str, str]:
        """Task, competition and watched score: what must be the same for two scores to compare."""
        return (self.config.task, self.config.data.competition, self.score.watch) if self.config else ("", "", "")


def find_runs(root: Path) -> list[Found]:
    """Every run folder below `root` (<task>/<name>/fold<k>), each a row, damaged ones among them; by name."""
    if not root.is_dir():
        raise ValueError(f"{root} is no folder of runs; train one first: {command_line('train', '--fold', 0)}")
    folders = sorted(path for path in root.glob("*/*") if path.is_dir() and files.fold_folders(path))
    return with_changes([look_at(folder) for folder in progress_bar(folders, "runs", unit="run")])


def look_at(folder: Path) -> Found:
    """One run folder; whatever is wrong with it becomes its state and note."""
    folds = [runs.FoldRun(path) for path in files.fold_folders(folder)]
    every = [parent / name for parent, names in files.walk(folder) for name in names]
    stats = {path: path.lstat() for path in every}
    size = sum(status.st_size for status in stats.values())
    written = [status.st_mtime for path, status in stats.items() if path.name in ("run.json", "log.csv")]
    changed = max(written, default=folder.stat().st_mtime)
    base = Found(folder=folder, state="damaged", size=size, changed=changed, exported=exported_as(folder, folds))
    begun = [fold for fold in folds if (fold.folder / "config.yaml").is_file()]
    running = any(is_owned(fold.folder) for fold in folds)
    try:
        if not begun:
            return replace(base, state="running" if running else "stopped", note="nothing trained")
        config = begun[0].config
        done = tuple(fold.fold for fold in folds if fold.finished)
        expected = folds_of(config)
        base = replace(base, config=config, folds=done, all_folds=len(expected), settings=flat(to_dict(config)))
        stopped = [fold.fold for fold in folds if fold.fold not in done]
        whole = "finished" if set(expected) <= set(done) else "part"
        state = "running" if running else "stopped" if stopped or not done else whole
        note = f"fold {' '.join(map(str, stopped))} stopped" if state == "stopped" else ""
        return replace(base, state=state, note=note, score=cv_of(folder, config, folds, expected))
    except (ValueError, OSError) as error:
        return replace(base, state="running" if running else "damaged", note=first_line(error))


def folds_of(config: Config) -> list[int]:
    """The folds that the run's fold table holds out; [] where it is not at hand."""
    return folds_in(config.data.folds) if Path(config.data.folds).is_file() else []


def exported_as(folder: Path, folds: Sequence[runs.FoldRun]) -> tuple[str, ...]:
    """Kinds of graphs that the run has: onnx, onnx int8, openvino together, ..."""
    found = []
    for name, together, int8 in product(ENDINGS, (False, True), (False, True)):
        places = [folder] if together else [fold.folder for fold in folds]
        if any((place / graph_name(name, int8, together)).is_file() for place in places):
            found.append(name + " together" * together + " int8" * int8)
    return tuple(found)


# ---- what it scores


def cv_of(folder: Path, config: Config, folds: Sequence[runs.FoldRun], expected: Sequence[int]) -> Score:
    """The score of the joined OOF with its interval where all folds and the data are there, else the folds' mean.

    Kept in cv.json of the run folder until an OOF or a table changes.
    """
    watch = tasks.task_of(config).watch
    done = [fold for fold in folds if fold.finished]
    alone = of_folds(done, watch)
    if not expected:
        return replace(alone, note=f"{config.data.folds} is not at hand")
    if missing := sorted(set(expected) - {fold.fold for fold in done}):
        return replace(alone, note=f"fold {' '.join(map(str, missing))} to go" if done else "no fold finished")
    tables = [Path(config.data.root) / name for name in ("clips.csv", "classes.csv", "events.csv")]
    read = [*(fold.folder / "oof.npz" for fold in done), Path(config.data.folds), *tables]
    seen = [["interval", INTERVALS, 0], *map(stamp, read)]
    if (known := kept_score(folder / KEPT, watch, seen)) is not None:
        return known
    try:
        found = whole_score(folder, config, done, watch)
    except (ValueError, OSError) as error:
        return replace(alone, note=first_line(error))
    if os.access(folder, os.W_OK):
        values = {"watch": watch, "value": found.value, "low": found.low, "high": found.high, "of": seen}
        files.write_text(folder / KEPT, files.as_json(values) + "\n")
    return found


def of_folds(done: Sequence[runs.FoldRun], watch: str) -> Score:
    """The mean over folds of what each scored on its own held-out clips."""
    scores = [fold.about.get("scores", {}).get(watch) for fold in done]
    values = [float(v) for v in scores if isinstance(v, int | float)]
    return Score(watch=watch, value=float(np.mean(values)) if values else math.nan)


def whole_score(folder: Path, config: Config, done: Sequence[runs.FoldRun], watch: str) -> Score:
    """The watched score of all folds' OOF together, with the middle 95 % over resampled groups."""
    data = load_data(config.data)
    data = data.ever_held_out()
    oof = predictions.join([fold.oof() for fold in done])
    predictions.check_complete(oof, data.clips.clip_id)
    oof = oof.aligned(data.clips.clip_id)
    task = tasks.task_of(config)
    truth = truth_of(oof, data)
    value = tasks.score_readable(task, oof, truth).get(watch, math.nan)
    plain = tasks.get_task(config.task)  # without the competition's own scores, which take longer
    if plain.score(*(part.take(~oof.unreadable) for part in (oof, truth))).get(watch) == value:
        task = plain
    low, high = interval(Evidence(runs.Run(folder, tuple(done)), task, watch, oof, truth, data))
    return Score(watch=watch, value=float(value), low=low, high=high)


def stamp(path: Path) -> list:
    """What tells that a file is still the same: its name, size and time of change."""
    if not path.is_file():
        return [str(path), -1, 0]
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def kept_score(path: Path, watch: str, seen: list) -> Score | None:
    """The score that was found before, of the very same files; None where it is of others, or cannot be read."""
    if not path.is_file():
        return None
    try:
        values = read_json(path, "kept score")
    except ValueError:
        return None
    if values.get("watch") != watch or values.get("of") != seen:
        return None
    numbers = {key: math.nan if values[key] is None else values[key] for key in ("value", "low", "high")}
    return Score(watch=watch, **numbers)


# ---- what it changes


def with_changes(found: Sequence[Found]) -> list[Found]:
    """The runs, each with its difference from the earlier run of its task and competition that is most like it."""
    earlier = sorted(found, key=lambda run: (run.changed, run.name))
    result = {}
    for n, run in enumerate(earlier):
        others = [other for other in earlier[:n] if run.config and other.kind[:2] == run.kind[:2]]
        if not others:
            result[run.folder] = run
            continue
        near = min(reversed(others), key=lambda other: len(difference(other.settings, run.settings)))
        changed = difference(near.settings, run.settings)
        result[run.folder] = replace(run, neighbour=near.name, changes=", ".join(changed) or "no setting")
    return [result[run.folder] for run in found]


def difference(before: dict, after: dict) -> list[str]:
    """Settings that differ, 'key before -> after', but for those that change no score."""
    keys = sorted({*before, *after} - set(UNTOLD))
    return [f"{k} {short(before.get(k))} -> {short(after.get(k))}" for k in keys if before.get(k) != after.get(k)]


def short(value) -> str:
    """A value in few characters."""
    text = "none" if value is None else str(value).replace("'", "")
    return text if len(text) <= 40 else f"{text[:39]}…"


def flat(values: dict, section: str = "") -> dict[str, object]:
    """Nested settings -> dotted keys."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{section}{key}.") if isinstance(value, dict) and value else {f"{section}{key}": value}
    return found


# ---- which of them, in which order


def chosen(
    found: Iterable[Found], *, names: Sequence[str] = (), task: str = "", competition: str = "", state: str = "",
    where: Sequence[str] = (),
) -> list[Found]:  # fmt: skip
    """The runs that all filters keep.

    names: patterns of task/name, or of the name; where: settings, such as 'optim.lr=1e-3'.
    """
    kept = []
    wanted = [parse_where(text) for text in where]
    for run in found:
        named = any(fnmatch.fnmatch(run.name, n) or fnmatch.fnmatch(run.folder.name, n) for n in names) or not names
        of_task = not task or run.folder.parent.name == task
        of_competition = not competition or (run.config is not None and run.config.data.competition == competition)
        has = all(key in run.settings and same(run.settings[key], value) for key, value in wanted)
        if named and of_task and of_competition and has and (not state or run.state == state):
            kept.append(run)
    return kept


def parse_where(text: str) -> tuple[str, str]:
    """Part 'optim.lr=1e-3'; a key that no config has is an error with a suggestion."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--where takes settings such as optim.lr=1e-3, got '{text}'")
    known = dotted_keys(Config)
    free = any(key.startswith(f"{section}.") for section, kind in known.items() if kind is None)
    if key not in known and not free:
        raise ValueError(f"--where names '{key}', which is no setting{suggest(key, known)}")
    return key, value


def same(value: object, text: str) -> bool:
    """Whether a setting has the value that the text writes: as a number where both are."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return math.isclose(value, float(text), rel_tol=1e-9)
        except ValueError:
            return False
    return str(value).lower() == text.lower()


def ordered(found: Sequence[Found], by: str) -> list[Found]:
    """Sorted: best score, newest, largest first, or by name; scores compare within a task and competition only."""
    keys = {
        "cv": lambda run: (run.kind, not np.isfinite(upward(run)), -upward(run), run.name),
        "date": lambda run: (-run.changed, run.name),
        "size": lambda run: (-run.size, run.name),
        "name": lambda run: run.name,
    }
    return sorted(found, key=keys[by])


def upward(run: Found) -> float:
    """The score turned so that more is better."""
    return tasks.upward(run.score.watch, run.score.value)


def row_of(run: Found) -> dict:
    """A run as a row of the table that --out writes."""
    s = run.score
    return {
        "run": run.name, "state": run.state, "task": run.folder.parent.name,
        "competition": run.settings.get("data.competition", ""), "model": run.settings.get("model.name", ""),
        "folds": len(run.folds), "all_folds": run.all_folds, "watch": s.watch, "cv": s.value, "low": s.low,
        "high": s.high, "bytes": run.size,
        "changed": datetime.fromtimestamp(run.changed).isoformat(timespec="seconds"),
        "exported": ", ".join(run.exported), "neighbour": run.neighbour, "changes": run.changes,
        "note": "; ".join(filter(None, (run.note, s.note))),
    }  # fmt: skip

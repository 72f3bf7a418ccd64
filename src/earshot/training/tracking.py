"""Where a run's figures go besides log.csv: one table of all runs, trackio on this machine, or Weights & Biases.

The config's key `track` says which: `csv:FILE`, `trackio:PROJECT`, `wandb:PROJECT`; empty is log.csv alone. All three
are a `Tracker`: rows of log.csv go in as they are written, and nothing of a run depends on what a tracker does with
them. One that cannot begin (no account, no package) is an error before the first step; one that fails later is warned
of and left out from there on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from earshot.config import Config
from earshot.files import check_ending, check_writable
from earshot.messages import first_line, install_line, suggest
from earshot.processes.lock import in_turn
from earshot.records import to_dict
from earshot.tables import read_table

COLUMNS = ("run", "epoch", "steps", "name", "value", "time")
LOGGER = logging.getLogger(__name__)


class Tracker(Protocol):
    """What takes the rows of a fold's log."""

    def log(self, row: dict) -> object:
        """Take one row of log.csv: names and numbers."""

    def finish(self) -> object:
        """End, with everything stored."""


def start_tracker(config: Config, folder: Path) -> Tracker | None:
    """Begin to track a fold where the config says so, else None; ValueError says what is missing and how to go without.

    folder: of the fold; its run and name are what the fold is called there.
    """
    if not config.track:
        return None
    kind, target = split_target(config.track)
    name = f"{folder.parent.name}/{folder.name}"
    return Guarded(TRACKERS[kind](target, name, config, folder), config.track)


def split_target(track: str) -> tuple[str, str]:
    """Part the key `track` into its kind and what that is given: 'wandb:birds' -> ('wandb', 'birds')."""
    kind, _, target = track.partition(":")
    if kind not in TRACKERS or not target.strip():
        form = "write csv:FILE, trackio:PROJECT or wandb:PROJECT, or leave it empty for log.csv alone"
        known = "" if kind in TRACKERS else suggest(kind, TRACKERS)
        raise ValueError(f"track is '{track}'{known}; {form}")
    if kind == "csv":
        check_ending(target, ".csv")
    return kind, target.strip()


@dataclass
class Guarded:
    """A tracker whose failures do not end a training: the first is a warning, and then it is left alone."""

    inner: Tracker
    what: str
    works: bool = True

    def log(self, row: dict):
        """Pass a row on."""
        self._try(lambda: self.inner.log(row))

    def finish(self):
        """End the inner tracker."""
        self._try(self.inner.finish)

    def _try(self, call: Callable[[], object]):
        if not self.works:
            return
        try:
            call()
        except Exception as error:  # of a service: its network, its disk, its own faults
            self.works = False
            what = f"{type(error).__name__}: {first_line(error)}"
            LOGGER.warning(f"{self.what} fails ({what}); training goes on, log.csv has all")


@dataclass(frozen=True)
class CsvTracker:
    """One table that all runs and folds share, a row a figure: run, epoch, steps, name, value, time.

    Rows are only ever added: of a step that a stopped run repeats, the last ones count.
    """

    path: Path
    name: str

    def log(self, row: dict):
        """Add the figures of a row; a line that a kill cut in half is taken away first."""
        step = {key: row[key] for key in ("epoch", "steps") if key in row}
        figures = {k: v for k, v in row.items() if k not in step and isinstance(v, int | float)}
        new = [
            {"run": self.name, **step, "name": k, "value": v, "time": round(time.time())} for k, v in figures.items()
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(self.path.with_name(f".{self.path.name}.lock")), open(self.path, "a+b") as file:
            file.seek(0)
            kept = file.read().rfind(b"\n") + 1
            file.truncate(kept)
            text = pd.DataFrame(new, columns=list(COLUMNS)).to_csv(
                index=False, header=not kept, lineterminator="\n"
            )  # fmt: skip
            file.write(text.encode())

    def finish(self):
        """Nothing: each row is stored as it comes."""


def _start_csv(target: str, name: str, config: Config, folder: Path) -> Tracker:
    check_writable(target, "give track=csv:FILE another place")
    if Path(target).is_file():
        read_table(target, COLUMNS)  # another table under that name is an error now
    return CsvTracker(Path(target), f"{folder.parent.parent.name}/{name}")


def _start_wandb(target: str, name: str, config: Config, folder: Path) -> Tracker:
    with _installed("wandb", "wandb"):
        import wandb
    try:
        return wandb.init(project=target, name=name, dir=str(folder), config=to_dict(config))
    except (wandb.errors.Error, OSError) as error:  # no account, no network, a project that is not theirs
        raise ValueError(
            f"wandb: {target} cannot be used: {first_line(error).rstrip('.')}; log in by `wandb login`, set "
            "WANDB_MODE=offline, or track on this machine with track=csv:runs/tracked.csv"
        ) from error


def _start_trackio(target: str, name: str, config: Config, folder: Path) -> Tracker:
    with _installed("trackio", "trackio"):
        import trackio
    try:
        return trackio.init(
            project=target, name=name, config=to_dict(config), resume="allow", embed=False, auto_log_gpu=False,
            auto_log_cpu=False,
        )  # fmt: skip
    except Exception as error:  # a name it does not take, a folder that it cannot write
        raise ValueError(
            f"trackio: {target} cannot be used: {first_line(error).rstrip('.')}; TRACKIO_DIR says where it writes, "
            "or use track=csv:runs/tracked.csv"
        ) from error


@contextmanager
def _installed(module: str, package: str):
    """An import that fails within is an error with the line that installs the package."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"track={module}:... needs {package} ({error}): {install_line('tracking')}, or use track=csv:FILE"
        ) from error


TRACKERS: Mapping[str, Callable[[str, str, Config, Path], Tracker]] = {
    "csv": _start_csv, "trackio": _start_trackio, "wandb": _start_wandb,
}  # fmt: skip

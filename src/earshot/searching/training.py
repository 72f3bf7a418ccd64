"""One training of a search: src/train.py in a process of its own, its log followed epoch by epoch."""

from __future__ import annotations

import csv
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from earshot import tasks
from earshot.config import Config
from earshot.processes import children
from earshot.runs import FoldRun
from earshot.searching.plan import SearchPlan, base_config, watched
from earshot.searching.space import overrides_of
from earshot.searching.study import alone, name_of

SCRIPT = Path(__file__).resolve().parents[2] / "train.py"
POLL_SECONDS = 0.3
HEAVY = ("best.safetensors", "last.ckpt", "oof.npz", "*.png")  # of a trial: its score is all that is asked of it


@dataclass(frozen=True)
class Trainer:
    """Trains settings of a plan below a folder; `tables`: overrides that say which clips; keep: the weights as well."""

    plan: SearchPlan
    folder: Path
    tables: tuple[str, ...] = ()
    keep: bool = False

    def __call__(self, settings: dict, seed: int, fold: int) -> Iterator[tuple[int, float]]:
        """Train; yields (epoch, score turned upward) after each validation, at last the score of the kept weights.

        Closed early, the training ends. A training that was finished before is not done again. ValueError: its last
        line where it failed.
        """
        config = base_config(self.plan, settings)
        watch, name = watched(config), f"{name_of(settings)}-seed{seed}"
        place = self.folder / config.task / name / f"fold{fold}"
        with alone(self.folder, settings, seed, fold):
            try:
                command = ["--config", self.plan.config, "--fold", fold, "--name", name, "--root", self.folder]
                command += [*self._overrides(settings), f"seed={seed}"]
                yield from self._train(config, watch, place, command)
            finally:
                for path in [path for pattern in HEAVY for path in place.glob(pattern)] if not self.keep else ():
                    path.unlink(missing_ok=True)

    def _train(self, config: Config, watch: str, place: Path, arguments: list) -> Iterator[tuple[int, float]]:
        run, best = FoldRun(place), -math.inf
        if not run.finished:
            if not (place / "last.ckpt").is_file():
                (place / "log.csv").unlink(missing_ok=True)  # of a training that was ended: this one begins anew
            command = [sys.executable, SCRIPT, "--child", "--resume", *arguments]
            with closing(_followed(command, place, watch)) as rows:
                for epoch, score in rows:
                    now = tasks.upward(watch, score)
                    best = max(best, now) if config.optim.select == "best" else now
                    yield epoch, best
        score = run.about.get("scores", {}).get(watch)
        if score is None or not math.isfinite(score):
            raise ValueError(f"{place} has no {watch}: its held-out clips do not define it")
        yield config.optim.epochs, tasks.upward(watch, float(score))

    def _overrides(self, settings: dict) -> list[str]:
        """Every `key=value` of a training: the plan's, which settings win over, and the tables'."""
        changed = {text.partition("=")[0] for text in (*self.tables, *overrides_of(settings))} | {"seed"}
        own = [text for text in self.plan.overrides if text.partition("=")[0] not in changed]
        return [*own, *overrides_of(settings), *self.tables]


def _followed(command: list, place: Path, watch: str) -> Iterator[tuple[int, float]]:
    """Run a training of the fold's folder `place` -> epoch and score of each row of its log.csv, as they come.

    It ends with whoever follows it; where it fails, its last words are the error.
    """
    seen = 0
    with tempfile.TemporaryFile("w+") as said:
        process = children.start(command, os.environ | {"TQDM_DISABLE": "1"}, stdout=said, stderr=said)
        try:
            while True:
                ended = process.poll() is not None
                rows = scored_rows(place / "log.csv", watch)
                yield from rows[seen:]
                seen = len(rows)
                if ended:
                    break
                time.sleep(POLL_SECONDS)
        finally:
            children.end([process])
        if process.returncode:
            said.seek(0)
            lines = [line for line in said.read().splitlines() if line.strip()]
            raise ValueError(lines[-1].removeprefix("error: ") if lines else f"exit {process.returncode}")


def scored_rows(path: Path, watch: str) -> list[tuple[int, float]]:
    """Epoch and score of the rows of log.csv that have the watched score; none before there is one."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [(int(float(row["epoch"])), float(row[watch])) for row in csv.DictReader(file) if row.get(watch)]

"""A scoring kernel's run: a valid submission within seconds, whole after the first network, better with each further.

    fallback      every recording gets the training prior
    first round   the cheapest network hears all recordings
    later rounds  further folds and runs, then further hearings (tta), as long as they fit (budget.py)

Answers of networks are averaged recording by recording with the weights of their runs. What could not be heard in time
counts as unreadable: it gets what the competition gives such recordings. Nothing that one recording or one network does
wrong ends the run: it is named in the report (JSON beside the submission). No torch in here.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import audio
from earshot.budget import Spent, Step, spend
from earshot.competitions import get_competition
from earshot.competitions.tables import write_checked, write_csv
from earshot.competitions.test_folders import KernelTest, stand_in
from earshot.events import PostProcess
from earshot.hearing import tta_variants
from earshot.inference import predict_members
from earshot.kernel_speed import Network, Speed, measure, one_window, ordered, synthetic_recording
from earshot.predictions import TEST_FOLD, Predictions
from earshot.timebase import TimeBase

PRIOR_GRID = TimeBase(1, 1, 1)  # a prior is the same every second
BATCH_SECONDS, LEAST_BATCH_SECONDS = 20.0, 1.0  # by the clock, of work between two looks at it
MEASURED_FILES = 5  # of which the first readable one is measured on

logger = logging.getLogger("earshot")


class Blend:
    """Weighted mean of what networks answered, recording by recording, on the time grid of the first."""

    def __init__(self, test: KernelTest, classes: Sequence[str], prior: np.ndarray):
        self.test, self.classes, self.prior = test, tuple(classes), np.asarray(prior, np.float32)
        n = len(test.clips)
        self.weight = np.zeros(n)
        self.clipwise = np.zeros((n, len(self.classes)))
        self.frames: list[np.ndarray | None] = [None] * n
        self.timebase: TimeBase | None = None

    def add(self, index: Sequence[int], found: Predictions, weight: float) -> list[int]:
        """`found` are the recordings at `index`; unreadable ones add nothing, nor do answers that are no numbers, whose
        recordings are returned."""
        if found.framewise_output is not None:
            self.timebase = self.timebase or found.timebase
        broken = []
        for row, i in enumerate(index):
            if found.unreadable[row]:
                continue
            frames = found.framewise_output[row] if found.framewise_output is not None else ()
            if not (np.isfinite(found.clipwise_output[row]).all() and np.isfinite(frames).all()):
                broken.append(i)
                continue
            self.weight[i] += weight
            self.clipwise[i] += weight * found.clipwise_output[row]
            if found.framewise_output is not None:
                self._add_frames(i, frames, found.timebase, weight)
        return broken

    def _add_frames(self, i: int, frames: np.ndarray, grid: TimeBase, weight: float):
        if grid != self.timebase or (self.frames[i] is not None and len(self.frames[i]) != len(frames)):
            frames = on_grid(frames, grid, self.timebase, None if self.frames[i] is None else len(self.frames[i]))
        if self.frames[i] is None:
            self.frames[i] = np.zeros(frames.shape, np.float32)
        self.frames[i] += np.float32(weight) * frames

    def predictions(self) -> Predictions:
        """What is known now; recordings that nobody answered hold the prior and count as unreadable."""
        heard = self.weight > 0
        weight = np.where(heard, self.weight, 1)
        clipwise = np.where(heard[:, None], self.clipwise / weight[:, None], self.prior).astype(np.float32)
        frames = None
        if self.timebase is not None:
            pairs = zip(self.frames, weight, strict=True)
            frames = tuple(self.prior[None] if f is None else f / np.float32(w) for f, w in pairs)
        return self._predictions(clipwise, ~heard, frames, self.timebase)

    def fallback(self) -> Predictions:
        """The prior at every second of every recording, as if it had been heard."""
        lengths = np.maximum(1, np.ceil(self.test.seconds)).astype(int)
        frames = tuple(np.broadcast_to(self.prior, (n, len(self.prior))) for n in lengths)
        clipwise = np.tile(self.prior, (len(self.test.clips), 1))
        return self._predictions(clipwise, np.zeros(len(lengths), bool), frames, PRIOR_GRID)

    def _predictions(self, clipwise, unreadable, frames, timebase) -> Predictions:
        ids = np.array([clip.clip_id for clip in self.test.clips], dtype=str)
        return Predictions(ids, self.classes, clipwise, np.full(len(ids), TEST_FOLD), unreadable, frames, timebase)


def on_grid(frames: np.ndarray, grid: TimeBase, wanted: TimeBase, length: int | None = None) -> np.ndarray:
    """(T, K) on `grid` -> (length or as long as it sounds, K) on `wanted`: at each middle, what was there."""
    step, wanted_step = grid.frame_samples / grid.sample_rate, wanted.frame_samples / wanted.sample_rate
    length = length or max(1, round(len(frames) * step / wanted_step))
    index = ((np.arange(length) + 0.5) * wanted_step / step).astype(int)
    return frames[np.minimum(index, len(frames) - 1)]


@dataclass
class KernelRun:
    """The work that budget.spend divides: networks times recordings. `classes` and `prior` are those of all members."""

    competition: str
    test: KernelTest
    networks: Sequence[Network]
    post: PostProcess
    out: Path
    cores: int = 1
    started: float = field(default_factory=time.monotonic)
    speed: Speed | None = None
    writes: list[dict] = field(default_factory=list)
    failures: list[dict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    seconds_to_write: float = 0.0

    def __post_init__(self):
        members = [m for n in self.networks for m in n.members]
        self.classes = tuple(members[0].classes)
        for network in self.networks:
            if tuple(network.members[0].classes) != self.classes:
                raise ValueError(
                    f"{network.name} knows other classes than {self.networks[0].name}: they cannot answer one test"
                )
        self.prior = np.mean([m.prior for m in members], axis=0)
        self.blend = Blend(self.test, self.classes, self.prior)
        self.module = get_competition(self.competition)
        self.steps: list[Step] = []

    # ---- before the first round

    def write_fallback(self):
        """A valid submission out of priors alone."""
        self._write(self.blend.fallback(), "fallback: priors")

    def prepare(self):
        """Measure, order the networks, leave out those that do not run."""
        usable = [n for n in self.networks if self._runs(n)]
        if not usable:
            raise ValueError("no network of the bundle runs here; the submission holds priors")
        self.speed = self.speed or self._measure(usable)
        self.networks = ordered(usable, self.speed)
        rounds = [(network, None) for network in self.networks]
        for name in dict.fromkeys(name for n in self.networks for name in n.tta):
            rounds += [(network, name) for network in self.networks if name in network.tta]
        for i, (network, tta) in enumerate(rounds):
            name = network.name + (f" heard by {tta}" if tta else "")
            self.steps.append(Step(name, (network.hearing, tta), rounds[i]))

    def _runs(self, network: Network) -> bool:
        try:
            network.backend.run(one_window(network))
        except Exception as error:  # any runtime's own: the others go on without it, and the report says so
            self._failed(network.name, "does not run", error)
            return False
        return True

    def _measure(self, networks: Sequence[Network]) -> Speed:
        readable = [c for c in self.test.clips if c.clip_id not in self.test.problems]
        for clip in readable[:MEASURED_FILES]:
            try:
                return measure(networks, clip.path)
            except audio.UnreadableAudio as error:
                logger.warning("not measured on %s: %s", clip.clip_id, error)
        with tempfile.TemporaryDirectory() as folder:
            return measure(networks, synthetic_recording(Path(folder), 10.0))

    # ---- what budget.spend asks for

    def cost(self, steps: Sequence[Step], batch: Sequence[int] | None = None) -> float:
        networks, tta = [s.key[0] for s in steps], steps[0].key[1]
        index = range(len(self.test.clips)) if batch is None else batch
        some = Counter(self.test.seconds[i] for i in index if self.test.clips[i].clip_id not in self.test.problems)
        return sum(times * self.speed.wall(networks, seconds, self.cores, tta) for seconds, times in some.items())

    def batches(self, steps: Sequence[Step], seconds_left: float) -> list[list[int]]:
        """Recordings in groups of about BATCH_SECONDS of work, less where little time is left."""
        size = min(BATCH_SECONDS, max(LEAST_BATCH_SECONDS, seconds_left / 50))
        groups, cost = [[]], 0.0
        for i in range(len(self.test.clips)):
            if groups[-1] and cost > size:
                groups.append([])
                cost = 0.0
            groups[-1].append(i)
            cost += self.cost(steps, [i])
        return [g for g in groups if g]

    def run(self, steps: Sequence[Step], batch: Sequence[int]):
        """Hear some recordings; where that fails as a whole, each alone."""
        try:
            self._hear(steps, batch)
        except Exception as error:  # a runtime's own, out of memory, ...: one recording must not cost the others
            if len(batch) == 1:
                self._failed(self.test.clips[batch[0]].clip_id, "failed with " + steps[0].name, error)
                return
            for i in batch:
                self.run(steps, [i])

    def _hear(self, steps: Sequence[Step], batch: Sequence[int]):
        networks, tta = [s.key[0] for s in steps], steps[0].key[1]
        clips = [self.test.clips[i] for i in batch]
        members = [replace(m, windowing=replace(m.windowing, workers=self.cores)) for n in networks for m in n.members]
        names = [tta] if tta else []
        found, unreadable = predict_members(members, clips, names, streams=self.cores, plain=tta is None)
        if tta is None:
            self.unreadable |= dict(unreadable)
        hearings = len(tta_variants(names)) - 1 if tta else 1
        weights = [hearings * n.weight / len(n.members) for n in networks for _ in n.members]
        for one, weight in zip(found, weights, strict=True):
            for i in self.blend.add(batch, one, weight):
                self.unreadable.setdefault(clips[batch.index(i)].clip_id, "a network's answer is no number")

    def write(self, what: str):
        if (self.blend.weight > 0).any():  # else the fallback says more
            self._write(self.blend.predictions(), what)

    def write_cost(self) -> float:
        return self.seconds_to_write

    # ---- the submission

    def _write(self, found: Predictions, what: str):
        """Rows -> a checked file; where that fails the last one stays, and the first failure is raised."""
        began = time.monotonic()
        try:
            table = write_submission(self.module, self.competition, self.test, found, self.post, self.out)
        except Exception as error:
            if not self.writes:
                raise
            self._failed(what, "was not written", error)
            return
        self.seconds_to_write = 1.5 * (time.monotonic() - began)
        self.writes.append({"at": round(time.monotonic() - self.started, 2), "what": what, "rows": len(table)})
        logger.info("%7.1f s  %s: %d rows -> %s", self.writes[-1]["at"], what, len(table), self.out)

    def _failed(self, what: str, how: str, error: Exception):
        logger.warning("%s %s: %s", what, how, error)
        self.failures.append({"what": what, "how": how, "error": f"{type(error).__name__}: {error}"})

    def report(self, spent: Spent, minutes: float) -> dict:
        """What ran, for people and for JSON."""
        problems = dict(self.test.problems) | self.unreadable
        heard = int((self.blend.weight > 0).sum())
        return {
            "competition": self.competition, "minutes": minutes, "cores": self.cores,
            "seconds": round(time.monotonic() - self.started, 1),
            "recordings": len(self.test.clips), "heard": heard, "rows": len(self.test.table),
            "unreadable": problems, "notes": list(self.test.notes), "failures": self.failures,
            "passes": [_rounded(asdict(p)) | {"complete": p.complete} for p in spent.passes],
            "left_out": spent.left_out, "writes": self.writes,
            "networks": [{"name": n.name, "weight": n.weight, "folds": len(n.members)} for n in self.networks],
        }  # fmt: skip


def _rounded(values: dict) -> dict:
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in values.items()}


def write_submission(module, competition: str, test: KernelTest, found: Predictions, post, out: Path) -> pd.DataFrame:
    """Predictions -> the competition's file, read back and validated before it gets its name.

    An empty test gives the header alone: the columns of the answer to one made-up recording.
    """
    if not test.empty:
        table = module.rows(found, test.table, post)
        write_checked(table, out, lambda written: module.validate(written, test.table, list(found.classes)))
        return table
    example = stand_in(competition, found.classes, out.parent)
    prior = Blend(example, found.classes, np.full(len(found.classes), 1 / len(found.classes))).fallback()
    table = module.rows(prior, example.table, post)
    module.validate(table, example.table, list(found.classes))
    write_csv(table.iloc[:0], out)
    return table.iloc[:0]


def run_kernel(run: KernelRun, minutes: float) -> dict:
    """Fallback, rounds, report; `minutes` count from `run.started`. The report is written beside the submission."""
    logger.info("%d recordings, %d rows", len(run.test.clips), len(run.test.table))
    for note in run.test.notes:
        logger.info("note: %s", note)
    run.write_fallback()
    spent = Spent()
    if not run.test.empty and len(run.test.problems) < len(run.test.clips):
        try:
            run.prepare()
            spent = spend(run, minutes * 60 - (time.monotonic() - run.started))
        except Exception as error:  # the submission that is there is valid: a kernel that throws would lose it
            run._failed("the run", "ended early", error)
    report = run.report(spent, minutes)
    path = run.out.with_name(f"{run.out.stem}_report.json")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(partial, path)
    return report

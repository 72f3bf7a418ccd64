"""A scoring kernel's run: a valid submission within seconds, whole after the first network, better with each further.

    fallback      every recording gets the training prior
    first round   the cheapest network hears all recordings
    later rounds  further folds and runs, then further hearings (tta), as long as they fit (kernel/schedule.py)

Answers are blended recording by recording as the bundle says (kernel/answers.py), with weights renormalised over what
ran. Recordings much longer than the others come last in a pass; one that does not fit waits until all networks have
heard the rest, and is then heard as far as the time goes. What could not be heard in time counts as unreadable: it gets
what the competition gives such recordings. Nothing that one recording or one network does wrong ends the run, nor does
a bundle of which no network runs here: it is named in the report (JSON beside the submission). No torch in here.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import get_competition
from earshot.competitions.competition import Competition
from earshot.competitions.number_text import is_number_table, text_seconds
from earshot.competitions.tables import write_checked, write_csv
from earshot.ensemble.blends import Blend
from earshot.events import PostProcess
from earshot.files import as_json, write_text
from earshot.kernel.answers import KernelBlend, hearing_bytes
from earshot.kernel.calls import Calls, choose_calls
from earshot.kernel.hidden_test import KernelTest, stand_in
from earshot.kernel.memory_limit import memory_left
from earshot.kernel.schedule import Spent, Step, spend
from earshot.kernel.speed import Network, Speed, measure, one_window, ordered, simulate
from earshot.prediction.clip_answers import output_timebase
from earshot.prediction.inference import Member, Until, predict_members
from earshot.prediction.predictions import Predictions
from earshot.prediction.tta import tta_variants

BATCH_SECONDS, LEAST_BATCH_SECONDS = 20.0, 1.0  # by the clock, of work between two looks at it
MEASURED_FILES = 5  # whose median is the speed of decoding
MEASURE_SECONDS, MEASURE_SHARE = 20.0, 0.1  # at most so long, and so much of the time that is left

SHARE_OF_MEMORY = 0.6  # of what is free that frames may take: networks and recordings being read need the rest
SHARE_OF_BATCH = 0.25  # and those of a batch, until they are added to the others
NONE_RUNS = "no network of the bundle runs here; the submission holds priors"

logger = logging.getLogger("earshot")


@dataclass(kw_only=True)
class KernelRun:
    """The work that schedule.spend divides: networks times recordings. `classes`: `known` ones, else the most of one.

    `blend`: of `runs`, in their order; without them of all runs of the networks. `known`: (classes, prior) of the
    bundle, of which networks may know a part, or none could be opened, which leaves the priors. `deadline`: by
    time.monotonic; what is heard then ends.
    """

    competition: str
    test: KernelTest
    networks: Sequence[Network]
    post: PostProcess
    out: Path
    _: KW_ONLY
    cores: int = 1
    blend: Blend = field(default_factory=Blend)
    runs: Sequence[str] = ()
    started: float = field(default_factory=time.monotonic)
    speed: Speed | None = None
    writes: list[dict] = field(default_factory=list)
    failures: list[dict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    seconds_to_write: float = 0.0
    known: tuple[Sequence[str], Sequence[float]] | None = None
    bundle: str = ""  # manifest.identity_of
    deadline: float = math.inf
    partly: list[str] = field(default_factory=list)

    def __post_init__(self):
        members = [m for n in self.networks for m in n.members]
        if not members and self.known is None:
            raise ValueError("a kernel without networks needs to know its classes and their prior")
        most = max((tuple(m.classes) for m in members), key=len, default=())
        self.classes = tuple(self.known[0]) if self.known else most
        for network in self.networks:
            own = tuple(network.members[0].classes)
            if not set(own) <= set(self.classes) or (len(own) == len(self.classes) and own != self.classes):
                raise ValueError(
                    f"{network.name} knows other classes than the other networks: they cannot answer one test"
                )
        self.prior = prior_of(members, self.classes, self.known[1] if self.known else None)
        runs = self.runs or tuple(dict.fromkeys(n.alike for n in self.networks))
        parts = {n.alike: tuple(n.members[0].classes) for n in self.networks}
        parts = {run: own for run, own in parts.items() if own != self.classes}
        free = memory_left()
        room, self.batch_room = SHARE_OF_MEMORY * free, SHARE_OF_BATCH * free
        self.answers = KernelBlend(self.test, self.classes, self.prior, self.blend, runs, parts, room=room)
        self.record = get_competition(self.competition)
        self.steps: list[Step] = []
        self.aside: set[int] = set()
        self.calls = Calls(1, self.cores)
        if said := self.test.unlike(self.classes):
            self._failed("the sample submission", "has other columns", ValueError(said))
        if self.test.unheard:
            why = f"none of the recordings that are there can be read and is named by {self.record.hidden.table}"
            self._failed("the test", "is not heard", ValueError(why))

    # ---- before the first round

    def write_fallback(self):
        """A valid submission out of priors alone."""
        self._write(self.answers.fallback(), "fallback: priors")

    def prepare(self, seconds_left: float):
        """Measure, order the networks, leave out those that do not run, choose how they are called."""
        deadline = time.monotonic() + seconds_left
        usable = [n for n in self.networks if self._runs(n)]
        if not usable:
            raise ValueError(NONE_RUNS)
        self.speed = self.speed or self._measure(usable, min(MEASURE_SECONDS, MEASURE_SHARE * seconds_left))
        self.networks = ordered(usable, self.speed)
        self.steps = self._rounds()
        self._choose_calls(deadline - time.monotonic())
        self.steps = self._rounds()

    def _rounds(self) -> list[Step]:
        rounds = [(network, None) for network in self.networks]
        for name in dict.fromkeys(name for n in self.networks for name in n.tta):
            rounds += [(network, name) for network in self.networks if name in network.tta]
        names = [network.name + (f" heard by {tta}" if tta else "") for network, tta in rounds]
        return [Step(name, (key[0].window_key, key[1]), key) for name, key in zip(names, rounds, strict=True)]

    def _choose_calls(self, left: float):
        costs = [self.cost([step]) for step in self.steps]
        try:
            self.networks, self.calls = choose_calls(self.networks, self.speed, self.cores, left, sum(costs), costs[0])
        except Exception as error:  # a runtime's own: calls of one thread have run
            self._failed("measuring threads x calls", "failed", error)

    def _runs(self, network: Network) -> bool:
        try:
            network.backend.run(one_window(network))
        except Exception as error:  # any runtime's own: the others go on without it, and the report says so
            self._failed(network.name, "does not run", error)
            return False
        return True

    def _measure(self, networks: Sequence[Network], limit: float) -> Speed:
        """On recordings from all over the test, those of a usual length first."""
        readable = [i for i, c in enumerate(self.test.clips) if c.clip_id not in self.test.problems]
        usual = np.median(self.test.seconds[readable])
        nearest = sorted(readable, key=lambda i: abs(np.log((self.test.seconds[i] + 1e-3) / (usual + 1e-3))))
        half = nearest[: max(MEASURED_FILES, len(nearest) // 2)]
        chosen = [half[i] for i in np.linspace(0, len(half) - 1, min(MEASURED_FILES, len(half))).astype(int)]
        return measure(networks, [self.test.clips[i].path for i in chosen], limit=limit)

    def rehearse(self) -> dict[str, float]:
        """Where there is nothing to hear, as when a kernel is committed: whether the networks run, and how fast.

        `seconds` that all of them take for a made recording of `recording_seconds`, as long as the competition's are.
        """
        try:
            if not (usable := [n for n in self.networks if self._runs(n)]):
                raise ValueError(NONE_RUNS)
            usual = self.record.hidden.seconds
            took = 60 * simulate(usable, 1, usual, self.cores)["minutes"]
        except Exception as error:  # the submission that is there is valid
            self._failed("a made recording", "could not be heard", error)
            return {}
        return {"seconds": took, "recording_seconds": usual}

    # ---- what schedule.spend asks for

    def cost(self, steps: Sequence[Step], batch: Sequence[int] | None = None) -> float:
        """Seconds by the clock; of everything that is not set aside where no batch is named."""
        networks, tta = [s.key[0] for s in steps], steps[0].key[1]
        index = self._in_turn() if batch is None else batch
        some = Counter(self.test.seconds[i] for i in index)
        return sum(times * self.speed.wall(networks, seconds, self.cores, tta) for seconds, times in some.items())

    def batches(self, steps: Sequence[Step], seconds_left: float) -> list[list[int]]:
        """Recordings in groups of about BATCH_SECONDS of work, less where little time is left; those that take longer
        than that each by itself, at the end, the shortest first."""
        size = min(BATCH_SECONDS, max(LEAST_BATCH_SECONDS, seconds_left / 50))
        groups, cost, seconds, longest, long = [[]], 0.0, 0.0, 0.0, []
        for i in self._in_turn():
            own, lasts = self.cost(steps, [i]), self.test.seconds[i]
            if own > size:
                long.append((own, i))
                continue
            cost, seconds, longest = cost + own, seconds + lasts, max(longest, lasts)
            if groups[-1] and (cost > size or self._bytes(steps, seconds, longest) > self.batch_room):
                groups.append([])
                cost, seconds, longest = own, lasts, lasts
            groups[-1].append(i)
        return [g for g in groups if g] + [[i] for _, i in sorted(long)]

    def _bytes(self, steps: Sequence[Step], seconds: float, longest: float) -> float:
        """Memory that hearing so many seconds together, in recordings of at most `longest`, takes at a time."""
        members = [m for s in steps for m in s.key[0].members]
        first, tta = members[0], steps[0].key[1]
        hearings = len(tta_variants([tta], plain=False)) if tta else 1
        if not first.windowing.keep_frames:
            return 0.0
        grid = output_timebase(first.backend.timebase, first.windowing.stride_samples)
        return hearing_bytes(seconds, longest, grid, len(first.classes), hearings * len(members))

    def _in_turn(self) -> list[int]:
        """What can be read and is not set aside."""
        return [
            i for i, clip in enumerate(self.test.clips)
            if clip.clip_id not in self.test.problems and i not in self.aside
        ]  # fmt: skip

    def set_aside(self, batches: Sequence[Sequence[int]]):
        self.aside |= {i for batch in batches for i in batch}

    def run_part(self, steps: Sequence[Step], batch: Sequence[int], seconds: float):
        """Hear as much of recordings that were set aside as fits into `seconds`, writing not counted."""
        until = time.monotonic() + seconds + self.seconds_to_write
        usual, self.deadline = self.deadline, min(self.deadline, until)
        try:
            self.run(steps, batch)
        finally:
            self.deadline = usual

    def run(self, steps: Sequence[Step], batch: Sequence[int]):
        """Hear some recordings; where that fails as a whole, each alone. What is too long for all networks at once is
        heard by one after the other."""
        seconds = self.test.seconds[list(batch)]
        if len(steps) > 1 and self._bytes(steps, seconds.sum(), seconds.max()) > self.batch_room:
            for step in steps:
                self.run([step], batch)
            return
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
        until = Until(self.deadline - self.seconds_to_write)
        found, unreadable = predict_members(
            members, clips, names, streams=self.calls.streams, plain=tta is None, until=until
        )
        self.partly += until.partly
        if tta is None:
            self.unreadable |= {clip: reason for clip, reason in unreadable if clip not in until.unheard}
        hearings = len(tta_variants(names, plain=not tta))
        shares = [(hearings * n.weight / len(n.members), n.alike) for n in networks for _ in n.members]
        for one, (share, of_run) in zip(found, shares, strict=True):
            for i in self.answers.add(batch, one, share, of_run):
                self.unreadable.setdefault(clips[batch.index(i)].clip_id, "a network's answer is no number")

    def write(self, what: str):
        if self.answers.answered.any():  # else the fallback says more
            self._write(self.answers.predictions(), what)

    def write_cost(self) -> float:
        return self.seconds_to_write

    # ---- the submission

    def _write(self, found: Predictions, what: str):
        """Rows -> a checked file; where that fails the last one stays, and the first failure is raised."""
        began = time.monotonic()
        try:
            table = write_submission(self.record, self.test, found, self.post, self.out)
        except Exception as error:
            if not self.writes:
                raise
            self._failed(what, "was not written", error)
            return
        took = time.monotonic() - began
        if not self.writes and is_number_table(table):  # rows that are all alike took less than others will
            took += text_seconds(table)
        self.seconds_to_write = 1.5 * took
        self.writes.append({"at": round(time.monotonic() - self.started, 2), "what": what, "rows": len(table)})
        logger.info("%7.1f s  %s: %d rows -> %s", self.writes[-1]["at"], what, len(table), self.out)

    def _failed(self, what: str, how: str, error: Exception):
        logger.warning("%s %s: %s", what, how, error)
        self.failures.append({"what": what, "how": how, "error": f"{type(error).__name__}: {error}"})

    def report(self, spent: Spent, minutes: float) -> dict:
        """What ran, for people and for JSON."""
        problems = dict(self.test.problems) | self.unreadable
        answered = self.answers.answered
        explained = {*problems, *(failure["what"] for failure in self.failures)}
        unheard = [c.clip_id for c, heard in zip(self.test.clips, answered, strict=True) if not heard]
        return {
            "competition": self.competition, "bundle": self.bundle, "minutes": minutes, "cores": self.cores,
            "seconds": round(time.monotonic() - self.started, 1),
            "recordings": len(self.test.clips), "heard": int(answered.sum()), "rows": len(self.test.table),
            "unreadable": problems, "partly": self.partly,
            "no_time": [clip for clip in unheard if clip not in explained],
            "notes": [*self.test.notes, *self.answers.notes], "failures": self.failures,
            "passes": [_rounded(asdict(p)) | {"complete": p.complete} for p in spent.passes],
            "left_out": spent.left_out, "writes": self.writes,
            "calls": _rounded(asdict(self.calls)),
            "blend": {"mean": self.blend.mean, "runs": self.answers.shares()},
            "networks": [
                {"name": n.name, "weight": n.weight, "folds": len(n.members), "precision": n.precision}
                for n in self.networks
            ],
        }  # fmt: skip


def prior_of(members: Sequence[Member], classes: Sequence[str], known: Sequence[float] | None = None) -> np.ndarray:
    """Mean prior (K,) of the members that know each class; of a class that none knows the `known` one, or 1/K."""
    own = [dict(zip(m.classes, np.asarray(m.prior, float), strict=True)) for m in members]
    rest = dict(zip(classes, known, strict=True)) if known is not None else {}
    found = [[o[c] for o in own if c in o] or [rest.get(c, 1 / len(classes))] for c in classes]
    return np.array([np.mean(values) for values in found])


def _rounded(values: dict) -> dict:
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in values.items()}


def write_submission(
    competition: Competition, test: KernelTest, found: Predictions, post: PostProcess, out: Path
) -> pd.DataFrame:
    """Predictions -> the competition's file, read back and validated before it gets its name.

    An empty test gives the header alone: the columns of the answer to one made-up recording.
    """
    if not test.empty:
        table, classes = test.answer(competition.rows(found, test.table, post)), test.columns[1:] or found.classes
        write_checked(table, out, lambda written: competition.validate(written, test.table, list(classes)))
        return table
    table = test.answer(answer_to_one(competition, found.classes, post, out.parent))
    write_csv(table.iloc[:0], out)
    return table.iloc[:0]


def answer_to_one(competition: Competition, classes: Sequence[str], post: PostProcess, folder: Path) -> pd.DataFrame:
    """The rows of one made-up recording that holds every class alike, checked; folder: where it would lie."""
    example = stand_in(competition.name, classes, folder)
    prior = KernelBlend(example, classes, np.full(len(classes), 1 / len(classes))).fallback()
    table = competition.rows(prior, example.table, post)
    competition.validate(table, example.table, list(classes))
    return table


def run_kernel(run: KernelRun, minutes: float) -> dict:
    """Fallback, rounds, report; `minutes` count from `run.started`. The report is written beside the submission."""
    logger.info("%d recordings, %d rows", len(run.test.clips), len(run.test.table))
    for note in run.test.notes:
        logger.info("note: %s", note)
    run.write_fallback()
    run.deadline = run.started + minutes * 60
    spent, rehearsal = Spent(), {}
    if len(run.test.problems) == len(run.test.clips):
        rehearsal = run.rehearse()
    else:
        try:
            run.prepare(minutes * 60 - (time.monotonic() - run.started))
            spent = spend(run, minutes * 60 - (time.monotonic() - run.started))
        except Exception as error:  # the submission that is there is valid: a kernel that throws would lose it
            run._failed("the run", "ended early", error)
    for note in run.answers.notes:
        logger.warning("note: %s", note)
    report = run.report(spent, minutes) | {"rehearsal": rehearsal}
    path = run.out.with_name(f"{run.out.stem}_report.json")
    try:
        write_report(report, path)
    except OSError as error:  # the disk is full: the submission is there
        run._failed(path.name, "was not written", error)
    return report


def write_report(report: dict, path: Path):
    """JSON, whole or not at all."""
    write_text(path, as_json(report, indent=1) + "\n")

"""Spending a kernel's minutes: which networks hear the recordings in which order, and when to stop. No audio in here.

A step is one network heard one way. The first step hears all recordings, whatever it costs: after it there is a whole
submission. The others follow in order, as many in one pass over the recordings as are heard alike (they share decoding
and log-mel) and fit into the time left. A pass is made of batches; no batch starts that is not expected to end in time,
so that the deadline is passed by less than one batch. What a pass that was cut had done still counts. Batches that did
not fit, a recording of many hours among them, are set aside: they stop neither the rest of their pass nor later
networks, and are heard at the very end, as far as the time goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MARGIN = 1.15  # a pass must be expected to fit this many times into the time left
LEAST_PART = 2.0  # seconds that are worth beginning a batch that will not be done
LEAST_CORRECTION, MOST_CORRECTION = 0.2, 20.0  # of the predicted time, by what passes took


@dataclass(frozen=True)
class Step:
    """One network heard one way. together: what steps of one pass have in common; key: what the work knows it by."""

    name: str
    together: Hashable
    key: Hashable = None


class Work(Protocol):
    """What is planned: `batches` of a pass in order, `cost` in seconds of steps over a batch (None: over all)."""

    steps: Sequence[Step]

    def batches(self, steps: Sequence[Step], seconds_left: float) -> Sequence: ...
    def cost(self, steps: Sequence[Step], batch=None) -> float: ...
    def run(self, steps: Sequence[Step], batch) -> None: ...
    def set_aside(self, batches: Sequence) -> None: ...  # out of batches and cost from now on
    def run_part(self, steps: Sequence[Step], batch, seconds: float) -> None: ...  # as much as can be done in so long
    def write(self, what: str) -> None: ...
    def write_cost(self) -> float: ...


@dataclass
class Pass:
    """What became of a pass: when it started and how long it took, in seconds; `batches` done of `planned`."""

    steps: tuple[str, ...]
    predicted_seconds: float
    started: float
    seconds: float = 0.0
    batches: int = 0
    planned: int = 0

    @property
    def complete(self) -> bool:
        return self.batches == self.planned


@dataclass
class Spent:
    """What was done with the time, and which steps were not begun."""

    passes: list[Pass] = field(default_factory=list)
    parts: int = 0  # batches set aside that were begun at the end
    left_out: list[str] = field(default_factory=list)
    correction: float = 1.0  # of predicted times, by those of finished passes


def spend(work: Work, seconds: float, clock: Callable[[], float] = time.monotonic, write_every: float = 300.0) -> Spent:
    """Run `work` for at most `seconds` from now on; it writes after each pass, and every `write_every` s within one."""
    began = clock()
    deadline, spent, pending, aside = began + seconds, Spent(), list(work.steps), []
    while pending:
        left = deadline - clock() - work.write_cost()
        if spent.passes:
            steps = next_steps(pending, lambda some, left=left: MARGIN * spent.correction * work.cost(some) <= left)
        else:
            steps = pending[:1]  # alone, and whatever it costs: after it there is a whole submission
        if not steps:
            break
        pending = pending[len(steps) :]
        done, skipped = _run_pass(work, steps, deadline, clock, spent, write_every)
        done.started -= began
        work.set_aside(skipped)
        if len(spent.passes) == 1:
            aside = [(steps, batch) for batch in skipped]
        work.write("after " + ", ".join(done.steps))
        if not done.batches:
            break
    spent.left_out = [step.name for step in pending]
    _use_the_rest(work, aside, deadline, clock, spent)
    return spent


def _use_the_rest(work: Work, aside: list, deadline: float, clock, spent: Spent):
    """Begin what the first pass set aside, shortest first, while there is time."""
    for steps, batch in aside:
        left = deadline - clock() - work.write_cost()
        if left < LEAST_PART:
            return
        work.run_part(steps, batch, left)
        spent.parts += 1
        work.write(f"what fitted of {spent.parts} of {len(aside)} batches set aside")


def next_steps(pending: Sequence[Step], fits: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """The most steps from the front that are heard together and fit; none where not even the first does.

    Only from the front: with more time the plan is then never a shorter one.
    """
    chosen: list[Step] = []
    for step in pending:
        if step.together != pending[0].together or not fits([*chosen, step]):
            break
        chosen.append(step)
    return chosen


def _run_pass(work, steps, deadline, clock, spent: Spent, write_every: float) -> tuple[Pass, list]:
    """What became of it, and the batches that did not fit."""
    batches = work.batches(steps, deadline - clock())
    names = tuple(step.name for step in steps)
    done = Pass(names, spent.correction * work.cost(steps), clock(), planned=len(batches))
    spent.passes.append(done)
    cost_done, written, correction, skipped = 0.0, clock(), spent.correction, []
    for batch in batches:
        expected = correction * work.cost(steps, batch)
        if clock() + expected + work.write_cost() > deadline:
            skipped.append(batch)
            continue
        work.run(steps, batch)
        done.batches += 1
        cost_done += work.cost(steps, batch)
        done.seconds = clock() - done.started
        if cost_done > 0:
            correction = min(max(done.seconds / cost_done, LEAST_CORRECTION), MOST_CORRECTION)
        if clock() - written > write_every:
            work.write(f"in {', '.join(names)}: {done.batches} of {len(batches)} batches")
            written = clock()
    if done.batches:
        spent.correction = correction
    return done, skipped

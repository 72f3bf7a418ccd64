"""The planner against a made clock: never late by more than a batch, whole after one round, more time more rounds."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.kernel.schedule import Spent, Step, next_steps, spend


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeWork:
    """Steps of given seconds a batch, `reading` s a batch shared by a pass; all take `truth` times the predicted."""

    seconds: list[float]
    clock: Clock
    together: list[int] | None = None
    reading: float = 0.0
    n_batches: int = 5
    truth: float = 1.0
    write_seconds: float = 0.0
    sizes: list[float] | None = None  # of the batches; default: all 1
    log: list = field(default_factory=list)
    heard: dict = field(default_factory=dict)

    def __post_init__(self):
        together = self.together or [0] * len(self.seconds)
        self.sizes = self.sizes or [1.0] * self.n_batches
        self.aside, self.parts = set(), {}
        self.steps = [Step(f"s{i}", t, i) for i, t in enumerate(together)]

    def batches(self, steps, seconds_left):
        return [b for b in range(self.n_batches) if b not in self.aside]

    def cost(self, steps, batch=None):
        batches = self.batches(steps, 0) if batch is None else [batch]
        return (self.reading + sum(self.seconds[s.key] for s in steps)) * sum(self.sizes[b] for b in batches)

    def run(self, steps, batch):
        self.clock.now += self.truth * self.cost(steps, batch)
        for s in steps:
            self.heard.setdefault(s.key, set()).add(batch)

    def set_aside(self, batches):
        self.aside |= set(batches)

    def run_part(self, steps, batch, seconds):
        self.parts[batch] = min(1.0, seconds / self.cost(steps, batch))
        self.clock.now += min(self.cost(steps, batch), seconds)

    def write(self, what):
        self.clock.now += self.write_seconds
        self.log.append((self.clock.now, what, {k: len(v) for k, v in self.heard.items()}))

    def write_cost(self):
        return self.write_seconds


works = st.fixed_dictionaries({
    "seconds": st.lists(st.floats(0.01, 5), min_size=1, max_size=8).map(sorted),
    "reading": st.floats(0, 2), "n_batches": st.integers(1, 6), "write_seconds": st.floats(0, 0.5),
})  # fmt: skip


def run(seconds_given: float, **options) -> tuple[FakeWork, Spent]:
    clock = Clock()
    work = FakeWork(clock=clock, **options)
    return work, spend(work, seconds_given, clock)


@given(works, st.floats(0, 200), st.floats(0.3, 5))
def test_the_deadline_is_passed_by_less_than_one_batch(options, seconds, truth):
    work, spent = run(seconds, truth=truth, **options)
    batches = [
        truth * (options["reading"] + sum(options["seconds"][int(s[1:])] for s in p.steps)) for p in spent.passes
    ]
    assert work.clock.now <= seconds + max(batches) + 2 * options["write_seconds"] + 1e-9


@given(works, st.floats(0, 200))
def test_with_true_predictions_the_deadline_holds(options, seconds):
    work, spent = run(seconds, **options)
    if spent.passes[0].batches:
        assert work.clock.now <= seconds + 1e-9


def steps_done(spent: Spent) -> int:
    return sum(len(p.steps) for p in spent.passes if p.complete)


@given(works, st.floats(0, 100), st.floats(1, 3))
def test_more_time_never_does_less(options, seconds, factor):
    less, more = run(seconds, **options), run(seconds * factor, **options)
    assert steps_done(more[1]) >= steps_done(less[1])
    assert sum(map(len, more[0].heard.values())) >= sum(map(len, less[0].heard.values()))


@given(works, st.floats(1, 200))
def test_the_first_step_is_whole_before_any_other_begins(options, seconds):
    work, spent = run(seconds, **options)
    assert spent.passes[0].steps == ("s0",)
    if len(spent.passes) > 1:
        assert spent.passes[0].complete
        assert work.log[0][2] == {0: options["n_batches"]}, "the first submission is whole"


@given(works)
def test_with_time_enough_everything_runs_in_two_passes(options):
    work, spent = run(1e6, **options)
    assert spent.left_out == []
    assert len(spent.passes) == min(2, len(options["seconds"]))
    assert all(len(done) == options["n_batches"] for done in work.heard.values())


def test_steps_that_are_heard_otherwise_get_a_pass_of_their_own():
    _, spent = run(1e6, seconds=[1, 1, 1, 1, 1], together=[0, 0, 0, 1, 1])
    assert [p.steps for p in spent.passes] == [("s0",), ("s1", "s2"), ("s3", "s4")]


def test_a_cut_pass_keeps_what_it_had_done_and_says_so():
    work, spent = run(26.0, seconds=[1.0, 4.0], truth=1.0, n_batches=5, reading=0.0)
    assert work.heard == {0: {0, 1, 2, 3, 4}}
    assert spent.left_out == ["s1"]
    work, spent = run(12.0, seconds=[4.0], n_batches=5)
    assert work.heard == {0: {0, 1, 2}}
    assert not spent.passes[0].complete
    assert spent.passes[0].batches == 3


def test_a_batch_too_long_costs_neither_the_others_nor_later_networks():
    """Five batches of 1 s and one of an hour in the middle: three networks hear the five, the hour gets the rest."""
    work, spent = run(60.0, seconds=[1.0, 2.0, 3.0], sizes=[1, 1, 3600, 1, 1, 1], n_batches=6)
    assert all(heard == {0, 1, 3, 4, 5} for heard in work.heard.values())
    assert len(work.heard) == 3
    assert spent.left_out == []
    assert [p.complete for p in spent.passes] == [False, True]
    assert work.parts == {2: pytest.approx(30 / 3600)}
    assert work.clock.now == pytest.approx(60.0)
    assert work.log[-1][1] == "what fitted of 1 of 1 batches set aside"
    work, spent = run(6.0, seconds=[1.0, 2.0, 3.0], sizes=[1, 1, 3600, 1, 1, 1], n_batches=6)
    assert (work.parts, spent.left_out) == ({}, ["s1", "s2"]), "less than 2 s are not worth beginning"


def test_smaller_batches_are_heard_behind_one_that_does_not_fit():
    work, spent = run(5.0, seconds=[1.0], sizes=[1, 8, 1, 4, 1], n_batches=5)
    assert work.heard == {0: {0, 2, 4}}
    assert spent.passes[0].batches == 3


def test_what_the_first_pass_took_corrects_the_plan():
    """Twice as slow as predicted: the second step would seem to fit, and does not."""
    _, spent = run(24.0, seconds=[1.0, 1.0], truth=2.0, n_batches=5)
    assert spent.correction == pytest.approx(2.0)
    assert len(spent.passes) == 2
    _, spent = run(20.0, seconds=[1.0, 1.0], truth=2.0, n_batches=5)
    assert spent.left_out == ["s1"]


def test_it_writes_within_long_passes():
    clock = Clock()
    work = FakeWork([10.0], clock, n_batches=10)
    spend(work, 1000, clock, write_every=25)
    assert [t for t, _, _ in work.log] == [30, 60, 90, 100]


def test_next_steps_takes_the_front_only():
    steps = [Step(str(i), 0, i) for i in range(4)]
    assert next_steps(steps, lambda some: len(some) <= 2) == steps[:2]
    assert next_steps(steps, lambda some: False) == []
    assert next_steps([steps[0], Step("other", 1), steps[1]], lambda some: True) == steps[:1]

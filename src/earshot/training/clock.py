"""Time: what a fold may take of --max-minutes, and how much is left of a fold and of a run."""

from __future__ import annotations

import math
import time

import psutil

from earshot.training.setup import Training

RESERVE, LONGEST_RESERVE = 0.05, 20.0  # share of the time, at most so many seconds, kept for pictures and the OOF

LONGEST_START = 60.0  # seconds that imports and set-up may have taken; an older process did something else before


def end_of_run(max_minutes: float) -> float:
    """Second of the `time.time` clock at which training is to end; it counts from the start of this process."""
    if not max_minutes:
        return math.inf
    seconds, now = 60 * max_minutes, time.time()
    started = max(psutil.Process().create_time(), now - LONGEST_START)
    return started + seconds - min(RESERVE * seconds, LONGEST_RESERVE)


def end_of_fold(end: float, folds_left: int, jobs: int = 1) -> float:
    """When the next fold is to end, so that all `folds_left` end by `end`, `jobs` at a time."""
    now = time.time()
    return now + max(0.0, end - now) / max(1, math.ceil(folds_left / jobs))


def monotonic(end: float) -> float:
    """A second of the `time.time` clock on that of `time.monotonic`, which nobody sets back."""
    return time.monotonic() + end - time.time()


def seconds_left(t: Training) -> tuple[float, float]:
    """Estimate the seconds to the end of this fold and to that of the run by the epochs so far; NaN before the
    first."""
    o, rows = t.config.optim, t.progress.log
    trained = [row["seconds"] for row in rows if row.get("seconds")]
    if not trained:
        return math.nan, math.nan
    validated = [row["validation_seconds"] for row in rows if "validation_seconds" in row]
    epoch = sum(trained) / len(trained)
    validation = sum(validated) / len(validated) if validated else 0.0

    def of(epochs: int, validations: int) -> float:
        return epochs * epoch + validations * validation

    done = rows[-1]["epoch"] + 1
    fold = of(o.epochs - done, validations(done, o.epochs, o.validate_every))
    whole = of(o.epochs, validations(0, o.epochs, o.validate_every))
    if t.deadline < math.inf:  # each later fold has about the time of this one
        now = time.monotonic()
        fold, whole = min(fold, max(0.0, t.deadline - now)), min(whole, max(0.0, t.deadline - t.began))
    return fold, fold + t.rounds_after * whole


def validations(done: int, epochs: int, every: int) -> int:
    """Validations of the epochs from `done` on; the last epoch always has one."""
    return epochs // every - done // every + (epochs % every > 0) if epochs > done else 0


def left_text(t: Training) -> str:
    """Say how long the fold and the run will take.

    '3 min left, 15 min of the run'; '' where nobody can know or nothing is left.
    """
    fold, run = seconds_left(t)
    if math.isnan(fold) or (fold <= 0 and not t.rounds_after):
        return ""
    of_run = f", {duration(run)} of the run" if t.rounds_after else ""
    return f"{duration(fold)} left{of_run}"


def duration(seconds: float) -> str:
    """Write a time as people say it.

    '0.4 s', '38 s', '3 min', '2 h 05 min'.
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

"""Cores -> threads of a call x calls in flight, by a few seconds of measurement on the graph itself. No torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from earshot.prediction.backends import silent_window

TIE = 1.05  # speeds nearer to each other than this are alike


def choices(n_cores: int) -> list[tuple[int, int]]:
    """List the ways, (threads of a call, calls in flight), to fill the cores, most calls first."""
    return [(t, n_cores // t) for t in range(1, n_cores + 1) if n_cores % t == 0]


def tune(
    open_backend: Callable[[int], object], n_cores: int, seconds: float = 1.0, limit: float = math.inf
) -> tuple[int, int, dict]:
    """Measure which number of threads and calls is fastest.

    (threads, streams, {(threads, streams): windows a second}): the fastest of `choices`, each heard for `seconds`.

    open_backend: threads -> backend. After `limit` seconds no further choice is tried. On two loaded cores calls of one
    thread each were never slower than one call of two threads and up to 1.6 times faster, so what is not faster than
    them by TIE is no reason to leave them; graphs of many small layers may differ.
    """
    began, speeds = time.monotonic(), {}
    for threads, streams in choices(n_cores):
        if not speeds or time.monotonic() - began < limit:
            speeds[threads, streams] = _speed(open_backend(threads), streams, seconds)
    fastest = max(speeds.values())
    threads, streams = max((p for p in speeds if TIE * speeds[p] >= fastest), key=lambda pair: pair[1])
    return threads, streams, speeds


def _speed(backend, streams: int, seconds: float) -> float:
    """Windows a second with `streams` calls in flight; the first calls, which set up, do not count."""
    windows = backend.windows or 1
    inputs = {name: np.repeat(values, windows, axis=0) for name, values in silent_window(backend).items()}

    def work(until: float) -> int:
        done = 0
        while time.monotonic() < until:
            backend.run(inputs)
            done += windows
        return done

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(lambda _: backend.run(inputs), range(2 * streams)))
        started = time.monotonic()
        done = sum(pool.map(work, [started + seconds] * streams))
        return done / (time.monotonic() - started)

"""Threads of a call x calls at a time for a kernel's networks, by a few seconds of measurement. No torch.

Most machines are best used by as many calls of one thread as there are cores; this is where the others are found out.
Measured is the network that costs most, and only where little time buys much: there are several cores, the
measurement takes at most SHARE of the minutes left and of the work there is, and the first round fits after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from earshot.kernel.schedule import MARGIN
from earshot.kernel.speed import Network, Speed, reopened
from earshot.prediction.threads import choices, tune

CHOICE_SECONDS, MOST_SECONDS = 1.0, 6.0  # of each choice after its first calls; after so many no choice is begun
SHARE = 0.05
REOPENING = 3.0  # times what it takes to open the graphs again must be gained by it


@dataclass(frozen=True)
class Calls:
    """How networks are called, why, what measuring it took, and windows a second of {"threads x streams"}."""

    threads: int = 1
    streams: int = 1
    why: str = "not measured"
    seconds: float = 0.0
    windows_a_second: dict[str, float] = field(default_factory=dict)


def heaviest(networks: Sequence[Network], speed: Speed) -> Network:
    """One of the networks of the run that takes most of the time."""

    def cost(n: Network) -> float:
        return sum(m.alike == n.alike for m in networks) * speed.network[n.alike] / n.windowing.stride_seconds

    return max(networks, key=cost)


def reason_not_to(network: Network, speed: Speed, cores: int, left: float, work: float, first: float) -> str:
    """Why measuring `network` is not worth it or would endanger the first round; '' where it is to be done.

    left, work, first: seconds that are left, that everything would take, and that the first round takes.
    """
    if cores == 1:
        return "one core"
    call = speed.network[network.alike] * network.windowing.batch_size
    # two first calls, one at least
    expected = sum(CHOICE_SECONDS + 3 * call / threads for threads, _ in choices(cores))
    longest = MOST_SECONDS + CHOICE_SECONDS + 3 * call
    if longest + MARGIN * first > left:
        return "no time before the first round"
    if expected > SHARE * min(left, work):
        return f"it would take {expected:.0f} s, which {min(left, work):.0f} s of work or time left do not repay"
    return ""


def choose_calls(
    networks: Sequence[Network], speed: Speed, cores: int, left: float, work: float, first: float,
    reopen: Callable[[Network, int], Network] | None = None,
) -> tuple[list[Network], Calls]:  # fmt: skip
    """Choose how many threads each network computes with.

    (the networks, opened again where calls of several threads are faster, and what was chosen).
    """
    reopen = reopen or reopened
    network = heaviest(networks, speed)
    if reason := reason_not_to(network, speed, cores, left, work, first):
        return list(networks), Calls(1, cores, f"not measured: {reason}")
    began, opening = time.monotonic(), []

    def opened(threads: int):
        started = time.monotonic()
        backend = network.backend if threads == 1 else reopen(network, threads).backend
        opening.append(time.monotonic() - started)
        return backend

    threads, streams, speeds = tune(opened, cores, CHOICE_SECONDS, MOST_SECONDS)
    seconds = time.monotonic() - began
    listed = {f"{t} x {s}": round(v, 2) for (t, s), v in speeds.items()}
    gain = min(left, work) * (1 - speeds[1, cores] / speeds[threads, streams])
    if threads > 1 and gain < REOPENING * max(opening) * len(networks):
        return list(networks), Calls(1, cores, "more threads gain less than they cost", seconds, listed)
    if threads > 1:
        networks = [reopen(n, threads) for n in networks]
    return list(networks), Calls(threads, streams, "the fastest", seconds, listed)

"""How many cores are really free: what this process may use, less what others use now. No torch at import.

A network on more threads than there are free cores waits at every layer for the thread that shares its core: on two
busy cores an epoch took 14 to 50 times as long with two threads as with one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
STATISTICS = Path("/proc/stat")
SECONDS = 0.4  # of looking at what others do
ROUNDING = 0.35  # a core of which others use at most so much counts as free


@dataclass(frozen=True)
class Cores:
    """What there is of cores: those that the process may use, its group's quota, and what others use now."""

    allowed: int  # by affinity
    quota: float = math.inf  # cores a second that the control group grants
    busy: float = 0.0  # of the allowed cores, used by other processes
    quota_used: float = 0.0  # of the quota, used by other processes of the group

    @property
    def free(self) -> int:
        """At least one: somebody has to work."""
        return max(1, math.floor(min(self.allowed - self.busy, self.quota - self.quota_used) + ROUNDING))

    def __str__(self) -> str:
        told = [f"{self.free} of {self.allowed} core{'s' * (self.allowed > 1)} free"]
        told += [f"quota {self.quota:g}"] * (self.quota < self.allowed)
        told += [f"others use {max(self.busy, self.quota_used):.1f}"] * (max(self.busy, self.quota_used) >= 0.1)
        return ", ".join(told)


def affinity() -> set[int]:
    """Numbers of the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def allowed_cores() -> int:
    """Cores that this process may use, by affinity and the quota of its control group."""
    quota = cgroup_quota()
    return max(1, min(len(affinity()), math.ceil(quota) if quota < math.inf else len(affinity())))


def measure(seconds: float = SECONDS) -> Cores:
    """Look for `seconds` at what other processes use, this one being asleep."""
    mine = affinity()
    before = core_times(mine), group_seconds(), time.monotonic()
    time.sleep(seconds)
    after, used, passed = core_times(mine), group_seconds(), time.monotonic() - before[2]
    total = sum(after) - sum(before[0]) if after and before[0] else 0
    if total > 0:
        busy = len(mine) * (1 - (after[1] - before[0][1]) / total)
    else:  # no such statistics here: the mean number of waiting processes of the last minute
        busy = min(len(mine), os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0.0
    quota_used = max(0.0, used - before[1]) / passed if used is not None and before[1] is not None else 0.0
    return Cores(len(mine), cgroup_quota(), max(0.0, busy), quota_used)


def core_times(cores: set[int], path: Path = STATISTICS) -> tuple[int, int] | None:
    """Read how long the cores have been busy and idle.

    (busy, idle) ticks of these cores since the start of the machine; None where the system does not say.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    busy = idle = 0
    for line in lines:
        name, *ticks = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            user_to_steal = [int(tick) for tick in ticks[:8]]
            waiting = sum(user_to_steal[3:5])  # idle, and waiting for a disk
            idle, busy = idle + waiting, busy + sum(user_to_steal) - waiting
    return (busy, idle) if busy + idle else None


def cgroup_quota(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> float:
    """Cores that the control group of this process, or one above it, grants (both versions); infinity: no limit."""
    limits = [math.inf]
    for folder in group_folders("", root, own):
        quota, _, period = read_system(folder / "cpu.max").partition(" ")
        limits.append(_share(quota, period))
    for folder in group_folders("cpu", root, own):
        limits.append(_share(read_system(folder / "cpu.cfs_quota_us"), read_system(folder / "cpu.cfs_period_us")))
    return min(limits)


def group_seconds(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> float | None:
    """CPU seconds that the own control group has used; None where the system does not say."""
    for folder in group_folders("", root, own)[:1]:
        for line in read_system(folder / "cpu.stat").splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
    for folder in group_folders("cpuacct", root, own)[:1]:
        if (used := read_system(folder / "cpuacct.usage")).isdigit():
            return int(used) / 1e9
    return None


def group_folders(controller: str, root: Path = CGROUPS, own: Path = OWN_CGROUP) -> list[Path]:
    """Folders of the own control group and those above it, innermost first. controller: "" is version 2.

    In a container the folder `root` itself is often the own group, whatever `own` calls it: it is always the last.
    """
    for line in read_system(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else not controllers:
            top = root / controllers if controller and (root / controllers).is_dir() else root / controller
            inner = top / path.strip("/")
            above = [inner, *inner.parents]
            return above[: above.index(top) + 1] if top in above else [top]
    return [root / controller]


def _share(quota: str, period: str) -> float:
    if not quota.isdigit() or not period.isdigit() or not int(period):  # "max", "-1" or no such file
        return math.inf
    return int(quota) / int(period)


def read_system(path: Path) -> str:
    """The text of a file that the system shows; '' where this system has none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def choose_threads(
    asked: int = 0, apart: int = 0, key: str = "threads=N", look: Callable[[], Cores] = measure
) -> tuple[int, str]:
    """Choose the threads to compute with, and what to say of them: `asked`, else OMP_NUM_THREADS, else the free cores.

    apart: of the free cores, so many are left to other processes of ours (loader workers), but one remains. key: how a
    user says another number.
    """
    if asked:
        return asked, f"{_threads(asked)}, as asked"
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given.isdigit() and int(given):
        return int(given), f"{_threads(int(given))} (OMP_NUM_THREADS)"
    cores = look()
    threads = max(1, cores.free - apart)
    for_others = f", {min(apart, cores.free - threads)} for loader workers" if cores.free > threads else ""
    keys = " or ".join(["OMP_NUM_THREADS=N", *[key] * bool(key)])
    return threads, f"{_threads(threads)} ({cores}{for_others}; {keys} overrules)"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def use_threads(count: int):
    """Have PyTorch compute with so many threads, and no numerical library of this process with more."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count)


def use_free_cores(asked: int = 0, key: str = "threads=N"):
    """`choose_threads`, said in one line, for what PyTorch computes in this process."""
    threads, text = choose_threads(asked, key=key)
    print(text, flush=True)
    use_threads(threads)

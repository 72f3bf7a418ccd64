"""How much memory this process may use; asked before what would crash without it is imported."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

from earshot.prediction.free_cores import CGROUPS, OWN_CGROUP, group_folders, read_system

MEMINFO = Path("/proc/meminfo")

NEEDED = 768 << 20  # bytes of addresses: what importing and a small network take, measured, and a quarter more


def check_memory_limit(needed: int = NEEDED):
    """End with a message where `ulimit -v` (RLIMIT_AS) is below `needed` bytes: numerical libraries abort there."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < needed:
        sys.exit(
            f"error: this process may use {limit >> 20} MiB of addresses (ulimit -v), a kernel needs "
            f"{needed >> 20} MiB or more: raise the limit"
        )


def peak_memory() -> float:
    """Bytes that this process has held at most until now; 0 on systems that do not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return most if sys.platform == "darwin" else 1024 * most


def memory_left(meminfo: Path = MEMINFO, root: Path = CGROUPS, own: Path = OWN_CGROUP) -> float:
    """Bytes that this process may still take: what the system has free, or a control group where that is less.

    Infinite where neither says.
    """
    said = re.search(r"MemAvailable:\s*(\d+) kB", read_system(meminfo))
    left = [1024.0 * int(said[1]) if said else math.inf]
    for folder in group_folders("", root, own):
        left.append(_left(folder, "memory.max", "memory.current", "inactive_file"))
    for folder in group_folders("memory", root, own):
        left.append(_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    return max(0.0, min(left))


def _left(folder: Path, most: str, used: str, cached: str) -> float:
    """What a control group leaves, files that it may forget counted as left; infinity: no limit."""
    limit, taken = read_system(folder / most), read_system(folder / used)
    if not (limit.isdigit() and taken.isdigit()):
        return math.inf
    files = re.search(rf"^{cached} (\d+)", read_system(folder / "memory.stat"), re.MULTILINE)
    return float(int(limit) - int(taken) + (int(files[1]) if files else 0))

"""How much memory this process may use; asked before what would crash without it is imported."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # of this process, as a container sees it

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


def free_memory(meminfo: Path = MEMINFO, group: Path = GROUP) -> float:
    """Bytes that this process may still take: what the system has free, or its control group where that is less.

    Infinite where neither says.
    """
    free = math.inf
    try:
        if found := re.search(r"MemAvailable:\s*(\d+) kB", meminfo.read_text()):
            free = 1024 * float(found[1])
    except OSError:
        pass  # a system that does not say
    try:
        most = (group / "memory.max").read_text().strip()
        if most.isdigit():
            used = float((group / "memory.current").read_text())
            cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
            free = min(free, float(most) - used + (float(cached[1]) if cached else 0.0))
    except OSError:
        pass
    return max(0.0, free)

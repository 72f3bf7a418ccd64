"""Which processes still run on this machine, and what this machine is called."""

from __future__ import annotations

import os
import platform
import zlib
from functools import lru_cache
from pathlib import Path

CLOCK_SECONDS = 5  # by which the clocks of files and processes may differ


def is_running(pid: int, since: float) -> bool:
    """Whether process `pid` of this machine runs and was there at `since` (seconds since 1970).

    A later process that was given the same number is another one. Where nothing can be asked (Windows): True.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            state, *values = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return False
        started = _boot_time() + int(values[18]) / os.sysconf("SC_CLK_TCK")
        return state not in "ZX" and started <= since + CLOCK_SECONDS
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


@lru_cache(maxsize=1)
def machine() -> str:
    """Eight hexadecimal digits that stand for this machine (in a container: for the container)."""
    space = Path("/proc/self/ns/pid")
    number = space.stat().st_ino if space.exists() else 0
    return f"{zlib.crc32(f'{platform.node()} {number}'.encode()):08x}"


def _boot_time() -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime")))

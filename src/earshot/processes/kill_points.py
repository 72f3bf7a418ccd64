"""Named places in a program where a test can have the process killed, as a power cut would: no clean-up runs.

EARSHOT_KILL_AT="renamed oof.npz:2" kills with SIGKILL when that place is passed for the second time; the name may hold
* and ?, so that "*:17" is the 17th place passed. EARSHOT_KILL_POINTS=FILE notes every place passed, a line each.
Neither is set in ordinary use, and a place then costs a look into the environment.
"""

from __future__ import annotations

import os
import signal
from fnmatch import fnmatchcase
from pathlib import Path

AT, NOTED = "EARSHOT_KILL_AT", "EARSHOT_KILL_POINTS"
_passed: dict[str, int] = {}  # what was asked for -> how often it was passed


def reached(place: str, half: Path | None = None):
    """Say that this place is passed: where it is the one that was asked for, the process dies.

    half: a file whose second half is lost first, as of a write that was under way.
    """
    wanted, noted = os.environ.get(AT), os.environ.get(NOTED)
    if noted:
        with open(noted, "a") as file:
            file.write(place + "\n")
    if not wanted:
        return
    pattern, _, count = wanted.rpartition(":")
    if not fnmatchcase(place, pattern):
        return
    _passed[wanted] = _passed.get(wanted, 0) + 1
    if _passed[wanted] == int(count):
        if half is not None and half.is_file():
            os.truncate(half, half.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

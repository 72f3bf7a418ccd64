"""Scripts that a script starts: they end when it ends, however it ends.

A child leads a process group of its own, so that whatever it started in turn is reached with it. It learns the number
of its parent by EARSHOT_PARENT and ends when that process is gone: at once where the system tells (Linux), else within
a second or so.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

PARENT = "EARSHOT_PARENT"
GRACE_SECONDS = 10  # from the request to end to the kill
WATCH_SECONDS = 1
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def start(command: Iterable, environment: dict | None = None, **options) -> subprocess.Popen:
    """Start a script of ours; `options` are those of subprocess.Popen. Hand it to `end` when this process leaves."""
    own = {**(environment or os.environ), PARENT: str(os.getpid())}
    group = {"process_group": 0} if os.name == "posix" else {}
    return subprocess.Popen([str(c) for c in command], env=own, **group, **options)


def run(command: Iterable, check: bool = False, **options) -> subprocess.CompletedProcess:
    """Start a script of ours and wait for it, as subprocess.run does; it is ended where this process is interrupted.

    check: a script that fails, which has said why, is a ValueError.
    """
    process = start(command, **options)
    try:
        out, err = process.communicate()
    finally:
        end([process])
    if check and process.returncode:
        script = next((str(word) for word in process.args if str(word).endswith(".py")), process.args[0])
        raise ValueError(f"{script} failed (exit {process.returncode}); its error stands above")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def end(processes: Iterable[subprocess.Popen], grace: float = GRACE_SECONDS):
    """Ask these children, and what they started, to end; kill those that have not after `grace` seconds."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        _signal(process, signal.SIGTERM)
    until = time.monotonic() + grace
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen, number: int):
    if os.name != "posix":
        process.terminate()
        return
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, number)


def follow_parent() -> bool:
    """End this process when the one that started it by `start` ends; returns whether one did."""
    parent = os.environ.pop(PARENT, "")  # children of ours have another parent
    if not parent:
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=watch, args=(int(parent),), daemon=True).start()
    return True


def watch(parent: int, every: float = WATCH_SECONDS, grace: float = GRACE_SECONDS):
    """Wait until `parent` is no longer our parent; then end this process and, after `grace` seconds, its group."""
    while os.getppid() == parent:
        time.sleep(every)
    end_soon(grace)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


def end_soon(grace: float = GRACE_SECONDS):
    """Have the system end this process after `grace` seconds, whatever Python does until then, its own end included."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, grace)  # SIGALRM ends a process that does not ask for it

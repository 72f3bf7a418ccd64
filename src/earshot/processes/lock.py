"""A folder that one process works in: who that is stands in its lock.json, and a second one is refused.

Two things tell whether the owner is still there: the system's own lock on the file, which ends with its process
whatever ended it, and, for machines that share a disk without sharing such locks, the file's time, which its owner
renews every minute.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from earshot.processes.running import is_running, machine

NAME = "lock.json"
BEAT_SECONDS = 60
OLD_SECONDS = 3600  # without a sign of life, on another machine
MOST_HELD = 64  # files that a process holds at a time
WAIT_SECONDS = 15  # for what a killed owner started (workers that load data) to end too


@contextmanager
def locked(folder: Path, take: bool = False, say: Callable[[str], object] = print) -> Iterator[None]:
    """Own the folder meanwhile; ValueError names who else does. A new one is gone afterwards if nothing is in it.

    The lock of a process that has ended is taken over, and that is said. take: also one of which nobody can tell,
    because its machine is another one.
    """
    path, new, own = folder / NAME, [f for f in (folder, *folder.parents) if not f.exists()], _own()
    file, left = None, threading.Event()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(path, own, take, say)
        threading.Thread(target=_beat, args=(path, own, left, say), daemon=True).start()
        yield
    finally:
        left.set()
        if file:
            if _read(path) == own:  # else somebody took it, or the folder is gone
                path.unlink()
            file.close()
        for made in new:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def is_owned(folder: Path) -> bool:
    """Whether a process that runs, or on another machine may still run, works in the folder; nothing is changed."""
    path = folder / NAME
    owner = _read(path)
    if not owner:
        return False
    if owner.get("machine") == machine():
        return _runs_here(owner, path)
    try:
        return time.time() - path.stat().st_mtime <= OLD_SECONDS
    except FileNotFoundError:  # it has just ended
        return False


def owned_since(folder: Path) -> float:
    """When the process that works in the folder took it, whole seconds since 1970; 0 where none does."""
    try:
        return datetime.fromisoformat(_read(folder / NAME)["since"]).timestamp() if is_owned(folder) else 0.0
    except (KeyError, ValueError, TypeError):  # its owner has just left, or never said
        return 0.0


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock file `path`, and hold it meanwhile; it is removed afterwards."""
    while True:
        with open(path, "a") as file:
            try:
                _try_lock(file, wait=True)
                if not _is(file, path):  # its owner has just left and removed it
                    continue
                yield
                return
            finally:
                if _is(file, path) and _try_lock(file) is not False:  # else an interrupt ended the waiting
                    path.unlink()


def in_somebodys_turn(path: Path) -> bool:
    """Whether a process holds the lock file `path` of `in_turn` now, as far as this machine can tell."""
    if not path.is_file():
        return False
    with open(path) as file:
        return _try_lock(file) is False


_HELD: dict[str, TextIO] = {}


def hold(path: Path):
    """Tell other processes of this machine, as long as this one lives, that it uses what the file stands for.

    Many may. Nothing is told where there are no locks, nor of more than the MOST_HELD latest files.
    """
    name = os.path.realpath(path)
    if name in _HELD and _is(_HELD[name], path):
        return
    let_go(path)
    while len(_HELD) >= MOST_HELD:
        let_go(Path(next(iter(_HELD))))
    try:
        import fcntl  # not on Windows

        file = open(path)  # noqa: SIM115, open as long as the process lives
        fcntl.flock(file, fcntl.LOCK_SH)
    except (ImportError, OSError):
        return
    _HELD[name] = file


def let_go(path: Path):
    """Take back what `hold` told."""
    if file := _HELD.pop(os.path.realpath(path), None):
        file.close()


def is_held(path: Path) -> bool:
    """Whether another process holds the file by `hold`, as far as this machine can tell; this one lets it go."""
    let_go(path)
    return in_somebodys_turn(path)


def _own() -> dict:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "user": _user(), "since": now, "machine": machine()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return str(os.getuid())


def _acquire(path: Path, own: dict, take: bool, say: Callable) -> TextIO:
    """The lock file, open and ours; one that an interrupt leaves unwritten is removed."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        file, ours = None, False
        try:
            file = open(path, "a+")  # noqa: SIM115, open as long as it is ours; never emptied before
            free = _try_lock(file)
            if not _is(file, path):  # its owner has just left and removed it
                file.close()
                continue
            owner = _read(path)
            ended = owner.get("machine") == machine() and not _runs_here(owner, path)
            if free is False and ended and time.monotonic() < until:
                file.close()
                time.sleep(0.2)
                continue
            _check(owner, free, path, take, say)
            ours = True
            file.seek(0)
            file.truncate()
            file.write(json.dumps(own, indent=1) + "\n")
            file.flush()
            return file
        except BaseException:
            if file:
                if ours or (not file.closed and _try_lock(file) and _is(file, path) and not _read(path)):
                    path.unlink(missing_ok=True)
                file.close()
            raise


def _check(owner: dict, free: bool | None, path: Path, take: bool, say: Callable):
    """Raise ValueError where `owner` has the folder; free: whether the system's lock was had, None: it has none."""
    if free is False or (free is None and owner and _runs_here(owner, path)):
        raise ValueError(
            f"{path.parent} is in use by {_name(owner)}: two at once would spoil it. Wait for that process or end it"
        )
    if not owner:
        return
    silent = time.time() - path.stat().st_mtime
    if owner.get("machine") == machine() or owner.get("host") == platform.node() or silent > OLD_SECONDS:
        say(f"{path.parent}: taking over from {_name(owner)}, which has ended")
    elif take:
        say(f"{path.parent}: taking over from {_name(owner)} by --take-lock")
    else:
        raise ValueError(
            f"{path.parent} is in use by {_name(owner)}, whose last sign of life is {silent:.0f} s old; whether it "
            "still runs cannot be seen from here. If it has ended, add --take-lock (after an hour nobody asks)"
        )


def _name(owner: dict) -> str:
    if not owner:
        return "another process"
    return "process {pid} of {user} on {host} (since {since})".format(**{k: owner.get(k, "?") for k in _own()})


def _runs_here(owner: dict, path: Path) -> bool:
    """Whether the owner is a process of this machine that still runs."""
    try:
        return owner.get("machine") == machine() and is_running(int(owner["pid"]), path.stat().st_mtime)
    except (KeyError, ValueError, FileNotFoundError):
        return False


def _read(path: Path) -> dict:
    """What a lock says of its owner; {} where there is none, or a kill left it empty."""
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _is(file: TextIO, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: TextIO, wait: bool = False) -> bool | None:
    """The system's lock on the file: had (True), another's (False), or none here (None)."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # disks over a network that have no locks
        return None
    return True


def _beat(path: Path, own: dict, left: threading.Event, say: Callable):
    """Renew the file's time; where another process took the lock, end this one."""
    while not left.wait(BEAT_SECONDS):
        found = _read(path)
        if found == own:
            os.utime(path)
        elif found and not left.is_set():
            say(f"{path.parent} was taken over by {_name(found)}: this process ends")
            os.kill(os.getpid(), signal.SIGTERM)
            return

"""How a script begins and ends: what is missing, what can be refused at once, errors as one line, interrupts.

Scripts import this module before any package of others, so that a Python that lacks these is told of by one line.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from earshot.messages import REPOSITORY, install_line, pasted, wrap_log
from earshot.processes.children import end_soon, follow_parent


def help_for_missing(package: str) -> str:
    """Where a package of others is missing: which Python this is, and the command that has it.

    '' where this file is in no checkout (in a kernel), or the package is our own.
    """
    if package.partition(".")[0] == "earshot" or not (REPOSITORY / "requirements").is_dir():
        return ""
    environment = REPOSITORY / ".venv"
    python, activate = environment / "bin" / "python", pasted("source", environment / "bin" / "activate")
    this = f"this Python has no package '{package}': {sys.executable} (version {sys.version.split()[0]})"
    if not python.is_file():
        setup = pasted("make", "-C", REPOSITORY, "setup")
        return f"{this}\nset up Earshot's environment once, and enter it in every terminal:\n  {setup}\n  {activate}"
    if Path(sys.prefix).resolve() == environment.resolve():
        return f"{this}\n  {install_line('train')}"
    return (
        f"{this}\nenter Earshot's environment:\n  {activate}\nor start the script by it:\n  {pasted(python, *sys.argv)}"
    )


def _say_missing(kind, error, trace):
    """What Python calls with an error that ends a script."""
    text = help_for_missing(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if not text:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {text}", file=sys.stderr)


sys.excepthook = _say_missing


def check_first(check: Callable[[], object]):
    """Ask of a command line what can be asked before a script imports what takes seconds; errors end it as those of
    `run_script` do."""
    with _ended_with_reader():
        try:
            check()
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            _end(error)


@contextmanager
def _ended_with_reader() -> Iterator[None]:
    """End quietly, as a process that the system's SIGPIPE ends, where nobody reads what is printed any more (`| head`).

    Another pipe that breaks, to a process of ours, is an error like any other.
    """
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()
    except BrokenPipeError as error:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _unread(stream)]
        if not gone:
            _end(error)
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in gone:  # what is left in them is written when Python ends
            os.dup2(nothing, stream.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _unread(stream) -> bool:
    """Whether a stream is a pipe whose reader has gone."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(state & select.POLLERR for _, state in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such call here, or no file behind the stream
        return False


def _end(error: Exception):
    """Exit with 2 and the error as one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        text = f"{names}: {error.strerror}" if names else error.strerror
        if not names and error.errno == errno.ENOSPC:
            text += f": full is the disk that is written to, or that of temporary files, {tempfile.gettempdir()}"
        if error.errno == errno.EMFILE:
            text += ": allow more to this terminal with ulimit -n 4096"
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def run_script(main: Callable[[], object], *also: type[Exception], resume: bool = False):
    """Run a script's main(); wrong input and files that cannot be read or written end it with `error: ...` and exit 2.

    also: kinds of errors that this script says as well; any other is a fault of ours and keeps its traceback. Ctrl-C
    and SIGTERM end it with what to do next: the same command again, with --resume where the script has it. A script
    that another one started ends with that one, and one whose output nobody reads any more ends quietly.
    """
    wrap_log()
    started_by_script = follow_parent()
    with _ended_with_reader():
        try:
            with _terminated_as_interrupted(started_by_script):
                main()
        except KeyboardInterrupt as stop:
            if not started_by_script:  # else the one that did says it
                print(f"stopped: {_go_on(resume)}", file=sys.stderr)
            sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))
        except BrokenPipeError:
            raise
        except (ValueError, OSError, *also) as error:
            _end(error)
        except (RuntimeError, MemoryError) as error:
            if not memory_ran_out(error):
                raise
            told = " ".join(str(error).split())[:300] or "no more was given"
            _end(MemoryError(f"memory ran out: close what else uses it, or take a machine that has more ({told})"))


def memory_ran_out(error: Exception) -> bool:
    """Whether an error says so: Python's own, or one of torch's for a GPU or the machine."""
    said = str(error).casefold()
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


@contextmanager
def _terminated_as_interrupted(soon: bool) -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt meanwhile, as Ctrl-C does, so that what was begun is cleaned up.

    soon: the process ends some seconds later, cleaned up or not, so that a second SIGTERM (the system and the watch
    for a parent's end both send one) need not break into the cleaning up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame):
        if soon:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_soon()
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _go_on(resume: bool) -> str:
    """How to go on after an interrupt."""
    words = ["python", *sys.argv] + ["--resume"] * (resume and "--resume" not in sys.argv)
    kept = "what is finished is kept, and goes on with" if resume else "nothing is left half-written; again with"
    return f"{kept}\n  {shlex.join(words)}"

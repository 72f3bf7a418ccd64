"""At least a hundred hostile audio files, folders and tables through the product: is each outcome clear and right?

python benchmarks/hostile_files.py            # prints what is not, and records hostile_files_clear
python benchmarks/hostile_files.py --list     # names every kind

A file is right when info, load, blocks and decoding agree on its seconds, every crop holds sound, and what is odd is
said (or it is refused with its reason); a folder when each recording is listed once and the rest with its reason; a
table when it is read as it stands or refused by an error that names the file. Any other exception, or more than
20 s of work, is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

import hostile_audio
import hostile_folders
from results import record

from earshot.sound import audio

LIMIT_SECONDS = 20
TOLERANCE_SECONDS = 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name every kind, try none")
    options = parser.parse_args()
    logging.getLogger("earshot").addHandler(logging.NullHandler())
    logging.getLogger("earshot").propagate = False
    checks = {
        f"audio: {name}": lambda at, kind=kind: try_audio(at, *kind) for name, kind in hostile_audio.KINDS.items()
    }
    checks |= {f"folder: {name}": check for name, check in hostile_folders.FOLDERS.items()}
    checks |= {f"table: {name}": check for name, check in hostile_folders.TABLES.items()}
    if options.list:
        print("\n".join(checks))
        return
    failed = {}
    with tempfile.TemporaryDirectory() as work:
        for number, (name, check) in enumerate(checks.items()):
            at = Path(work) / str(number)
            at.mkdir()
            if problem := tried(check, at):
                failed[name] = problem
                print(f"{name}: {problem}", flush=True)
    right = len(checks) - len(failed)
    print(f"{right} of {len(checks)} hostile files, folders and tables have a clear and right outcome")
    record("hostile_files_clear", right, f"of {len(checks)}", "python benchmarks/hostile_files.py")


class TimeLimit(Exception):
    """More than LIMIT_SECONDS: no error of files, which scripts would say."""


def tried(check, at: Path) -> str:
    """'' where the check found nothing, else what it found."""

    def late(*_):
        raise TimeLimit(f"not done after {LIMIT_SECONDS} s")

    for kind in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(kind, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)  # of work, on a machine that others may share
    signal.alarm(15 * LIMIT_SECONDS)  # what only waits ends too
    try:
        with quiet():
            check(at)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return ""


@contextlib.contextmanager
def quiet():
    """Without what decoders write to stderr themselves."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def try_audio(at: Path, make, seconds, said: str | None):
    """Raise unless the file is heard, or refused, as it should be."""
    path = make(at / "x")
    if seconds is None:
        try:
            audio.info(path), audio.load(path, 16000)
        except audio.UnreadableAudio as error:
            if not re.search(said, str(error)):
                raise AssertionError(f"refused by '{error}', which does not say '{said}'") from None
            str(error).encode()  # a table must be able to hold it
            return
        raise AssertionError("it was heard")
    low, high = seconds if isinstance(seconds, tuple) else (seconds, seconds)
    rate = audio.info(path).sample_rate
    known, whole = audio.decoded_info(path).duration, audio.load(path, rate)
    if not low - TOLERANCE_SECONDS <= known <= high + TOLERANCE_SECONDS:
        raise AssertionError(f"{known:.3f} s, not {seconds}")
    lengths = {len(whole) / rate, sum(map(len, audio.blocks(path, rate, 0.7))) / rate, known}
    if max(lengths) - min(lengths) > TOLERANCE_SECONDS:
        raise AssertionError(f"readers differ: {lengths}")
    if not np.isfinite(whole).all() or np.abs(whole).max() > 2:
        raise AssertionError(f"a peak of {np.abs(whole).max()}")
    for start in np.arange(0, known - 0.6, 0.5):
        crop = audio.load(path, rate, start, 0.5)
        if not crop.any():
            raise AssertionError(f"silence at {start} s")
    told = "\n".join(audio.odd_files().get(str(path), ()))
    if (said is None and told) or (said is not None and not re.search(said, told)):
        raise AssertionError(f"said '{told}', not '{said}'")


if __name__ == "__main__":
    main()

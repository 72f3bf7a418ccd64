"""Damaged and hostile inputs through the real scripts: is each survived, or refused by one clear error?

python benchmarks/hostile_inputs.py             # prints what is not clear
python benchmarks/hostile_inputs.py --record    # and records hostile_inputs_clear
python benchmarks/hostile_inputs.py --list      # names every kind

Every kind is a change to a small prepared competition with a run, predictions, a bundle and stores, and a command. The
command's main function must end with exit 2 and an error that names the file or the word that is wrong, holds no name
of a parser's exception, and fits on a screen; or, where the input can be used, do its work. Any other exception, more
than 20 s of work, or a file written outside the folder is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from earshot.script import run_script

import hostile_changes
import hostile_kinds
from hostile_files import tried
from results import record

PARSERS = re.compile(r"Traceback|BadZipFile|EOFError|YAMLError|MemoryError|Unicode\w*Error|KeyError|JSONDecodeError|"
                     r"struct\.error|IndexError|AttributeError|TypeError|<class|object at 0x")  # fmt: skip
LONGEST_ERROR = 1200  # characters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name every kind, try none")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--show", action="store_true", help="print what is said")
    parser.add_argument("--record", action="store_true", help="append the figure to benchmarks/results.json")
    options = parser.parse_args()
    kinds = {name: kind for name, kind in hostile_kinds.KINDS.items() if options.only in name}
    if options.list:
        print("\n".join(kinds))
        return
    logging.getLogger("earshot").propagate = False
    logging.getLogger("earshot").addHandler(logging.NullHandler())
    failed = []
    with tempfile.TemporaryDirectory() as work:
        made = hostile_changes.make(Path(work) / "made")
        for number, (name, kind) in enumerate(kinds.items()):
            said = []
            if problem := tried(lambda at, kind=kind, said=said: said.extend(check(kind, made, at)),
                                Path(work) / str(number)):  # fmt: skip
                failed.append(name)
                print(f"{name}: {problem}", flush=True)
            elif options.show:
                print(f"{name}:", *said, sep="\n    ", flush=True)
            shutil.rmtree(Path(work) / str(number), ignore_errors=True)
    print(f"{len(kinds) - len(failed)} of {len(kinds)} damaged and hostile inputs are clear")
    if options.record and not options.only:
        record("hostile_inputs_clear", len(kinds) - len(failed), f"of {len(kinds)}",
               "python benchmarks/hostile_inputs.py --record")  # fmt: skip


def check(kind: hostile_changes.Kind, made: Path, at: Path) -> list[str]:
    """Raise unless every variant of the kind ends as it should; returns what was said. `at` is new."""
    told = []
    for number, change in enumerate(kind.changes):
        place = at / str(number)
        shutil.copytree(made, place / "inside", symlinks=True)
        beside = sorted(place.iterdir())
        with at_home(place / "inside"):
            change(Path())
            said, code = outcome(kind.script, kind.arguments)
            if kind.after and not code:
                kind.after(Path())
        told.append(said[-300:] if not code else said)
        if sorted(place.iterdir()) != beside:
            raise AssertionError(f"wrote beside its folder: {sorted(place.iterdir())}")
        if code == 0 and not kind.may_work:
            raise AssertionError(f"variant {number} was taken: {said[-300:]}")
        if code:
            check_clear(said, kind, number)
        shutil.rmtree(place)
    return told


def check_clear(said: str, kind: hostile_changes.Kind, number: int):
    """Raise unless an error is clear."""
    found = re.search(r"^(?:[\w.]+: )?error: .*", said, re.M | re.S)
    error = found[0] if found else ""
    if kind.may_work == "must":
        raise AssertionError(f"variant {number} was refused: {error[:500]}")
    if not error or not re.search(kind.names, error):
        raise AssertionError(f"variant {number} does not name '{kind.names}': {error[:500] or said[-500:]}")
    if found := PARSERS.search(error):
        raise AssertionError(f"variant {number} speaks of {found[0]}: {error[:500]}")
    if len(error) > LONGEST_ERROR:
        raise AssertionError(f"variant {number} says {len(error)} characters: {error[:300]}")


def outcome(script: str, arguments: list[str]) -> tuple[str, int]:
    """(what a script prints, its exit status) in this process; what no script says itself is raised."""
    printed = io.StringIO()
    kept, sys.argv = sys.argv, [f"{script}.py", *arguments]
    forget_devices()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            run_script(importlib.import_module(script).main, *hostile_changes.also(script))
    except SystemExit as ended:
        return printed.getvalue(), 1 if ended.code is None else int(ended.code)
    finally:
        sys.argv = kept
    return printed.getvalue(), 0


def forget_devices():
    """Accelerate keeps devices and precision for the process."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@contextlib.contextmanager
def at_home(folder: Path):
    """In a folder, as its user would be."""
    kept = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(kept)


if __name__ == "__main__":
    main()

"""Real tables of competitions through the whole chain: how many of the folders end in a checked submission.

python benchmarks/layouts.py --record            # every folder of the shared layouts, minutes on two cores
python benchmarks/layouts.py --only rfcx tau2019

Prepare, folds, one epoch of a tiny network, predict, submit and check, as typed, on made recordings; a folder is proved
when the submission has the rows and columns of the real sample and its tables the counts that tests/real_tables.py
knows. A folder that nobody described there is not proved.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from results import record

import real_tables


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="FOLDER", default=real_tables.folders())
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if not options.only:
        sys.exit(f"error: no real tables at {real_tables.FOLDER} (set EARSHOT_SHARED)")
    print("| folder | competition | clips | classes | test | seconds | outcome |\n|---|---|---|---|---|---|---|")
    proved = [name for name in options.only if prove(name)]
    print(f"{len(proved)} of {len(options.only)} folders proved")
    if options.record:
        unit = f"of {len(options.only)} folders of real tables"
        record("layouts_proved", len(proved), unit, "python benchmarks/layouts.py --record")
    sys.exit(len(proved) < len(options.only))


def prove(name: str) -> bool:
    """One line of the table; whether the folder's chain held. What its scripts said is shown where it did not."""
    started, said, layout = time.monotonic(), io.StringIO(), real_tables.LAYOUTS.get(name)
    if layout is None:
        print(f"| {name} | | | | | | not described |", flush=True)
        return False
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                outcome = real_tables.run_chain(name, Path(folder))
            right = True
        except (Exception, SystemExit):  # whatever a script dies of is this folder's outcome
            outcome, right = "FAILED", False
            print(said.getvalue()[-3000:], traceback.format_exc(), sep="\n", file=sys.stderr)
        finally:
            os.chdir(home)
    seconds = time.monotonic() - started
    counts = f"{layout.clips} | {layout.classes} | {layout.test}"
    print(f"| {name} | {layout.competition} | {counts} | {seconds:.0f} | {outcome} |", flush=True)
    return right


if __name__ == "__main__":
    main()

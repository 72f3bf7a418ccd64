"""Inputs of public reports that failed elsewhere: how many of the cases end in the right value.

python benchmarks/public_cases.py --record           # the shared cases, some minutes on two cores
python benchmarks/public_cases.py --folder my/cases  # others of the same make

What is right of each case stands in tests/test_public_cases.py, which tries them here; the folder is EARSHOT_CASES, or
shared/cases beside the checkout. A case that is skipped is not right, nor is a folder that nobody described there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest
from results import record

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "test_public_cases.py"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


class Outcomes:
    """A pytest plugin that notes of each case whether it passed, failed or was skipped, and its seconds."""

    def __init__(self):
        self.found: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report):
        test, _, name = report.nodeid.rpartition("::")[2].rstrip("]").partition("[")
        if test != "test_public_case":
            return
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        if report.when == "call" or not report.passed:  # the setup of a case passes, fails or skips before its call
            self.found[name] = report.outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="the cases (default: EARSHOT_CASES, or those shared)")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if options.folder:
        os.environ["EARSHOT_CASES"] = str(options.folder.resolve())
    outcomes = Outcomes()
    pytest.main(
        ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-m", "", str(TESTS)], plugins=[outcomes]
    )
    from test_public_cases import CASES, FOLDER, case_folders  # pytest reads it first, so that its asserts explain

    names = case_folders(FOLDER)
    if not names:
        sys.exit(f"error: no cases at {FOLDER} (give --folder or set EARSHOT_CASES)")
    print("| case | seconds | outcome |\n|---|---|---|")
    for name in names:
        outcome = outcomes.found.get(name, "did not run") if name in CASES else "unknown: describe it in CASES"
        print(f"| {name} | {outcomes.seconds.get(name, 0.0):.0f} | {outcome.replace('passed', 'right')} |")
    right = sum(outcomes.found.get(name) == "passed" for name in names)
    print(f"{right} of {len(names)} cases are right")
    if options.record:
        command = "python benchmarks/public_cases.py --record"
        record("public_cases_right", right, f"of {len(names)} public cases", command)
    sys.exit(right < len(names))


if __name__ == "__main__":
    main()

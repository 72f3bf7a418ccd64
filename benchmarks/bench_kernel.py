"""Kernels: how well their time is predicted, and what odd test folders do to them.

OMP_NUM_THREADS=1 python benchmarks/bench_kernel.py --fuzz 1000 --record
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from results import record

import fuzz_folders
import tiny_graphs
from earshot.competitions import get_competition
from earshot.competitions.test_folders import RULES, find_test
from earshot.kernel_bundle import open_bundle
from earshot.kernel_runner import KernelRun, run_kernel
from earshot.kernel_speed import measure, synthetic_recording

MEASURE_EVERY = 10  # folders: else the speed measured before holds


def fuzz(n: int) -> int:
    """Folders, of n, that end in a valid submission without any failure on the way."""
    valid = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bundles = {c: open_bundle(tiny_graphs.write_bundle(root / f"bundle_{c}", c, classes_of(c)), c) for c in RULES}
        speed = measure(bundles["synth"].networks, synthetic_recording(root, 5.0))
        for seed in range(n):
            competition = list(RULES)[seed % len(RULES)]
            problem = one_folder(root / str(seed), bundles[competition], competition, seed, speed)
            valid += not problem
            if problem:
                print(f"folder {seed} ({competition}): {problem}")
    return valid


def classes_of(competition: str) -> tuple[str, ...]:
    return getattr(get_competition(competition), "CLASSES", tiny_graphs.CLASSES)


def one_folder(folder: Path, bundle, competition: str, seed: int, speed) -> str:
    """What went wrong with one folder; '' where nothing did."""
    try:
        out = folder / "submission.csv"
        made = fuzz_folders.make(folder / "input", competition, bundle.classes, seed)
        test = find_test(competition, made, bundle.classes)
        known = None if seed % MEASURE_EVERY == 0 else speed
        run = KernelRun(competition, test, bundle.networks, bundle.post, out, cores=2, speed=known)
        report = run_kernel(run, minutes=1e-6 if seed % 7 == 3 else 1.0)
        fuzz_folders.check(competition, get_competition(competition), test, bundle.classes, out)
        return f"failures: {report['failures'][0]}" if report["failures"] else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", type=int, metavar="N", help="make N odd test folders and answer them")
    parser.add_argument("--record", action="store_true", help="append the figures to results.json")
    options = parser.parse_args()
    logging.getLogger("earshot").setLevel(logging.ERROR)
    command = f"OMP_NUM_THREADS=1 python benchmarks/bench_kernel.py --fuzz {options.fuzz} --record"
    if options.fuzz:
        began = time.process_time()
        valid = fuzz(options.fuzz)
        print(f"{valid} of {options.fuzz} folders valid, {time.process_time() - began:.0f} CPU s")
        if options.record:
            record("fuzzed_folders_valid", valid, f"of {options.fuzz} folders", command)


if __name__ == "__main__":
    main()

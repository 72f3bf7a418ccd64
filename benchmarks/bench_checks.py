"""How long after its start a kernel has a valid submission, at the sizes of real hidden tests.

OMP_NUM_THREADS=1 python benchmarks/bench_checks.py --record      # about three minutes, 3 GB of memory

Tests of 200 x 120, 1,100 x 48 and 5,500 x 12 rows of 264 classes (BirdCLEF 2023, 2024, and the many short recordings
of 2022), one Ogg file linked as often as there are recordings. Each kernel is a process of its own that has no time to
hear anything; the clock runs from its start until the file is there, and the file is then checked by the competition.
CPU seconds of the kernel are told beside: where they are far fewer, the machine was busy with other things.
Beside that: the same of 2022's own form, a yes or no for each of 21 birds and 5 s (1.4 million rows).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np
from results import record

import tiny_graphs
from earshot.competitions import get_competition
from earshot.kernel.hidden_test import all_rules, find_test
from earshot.sound import audio
from earshot.tables import read_table

CLASSES = tuple(f"bird{i:03d}" for i in range(264))
SCORED = 21  # birds of 2022
SIZES = {
    "200 x 120": ("birdclef2023", 200, 600.0),
    "1,100 x 48": ("birdclef2024", 1100, 240.0),
    "5,500 x 12": ("birdclef2026", 5500, 60.0),
}


def cpu_seconds(pid: int) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_file(competition: str, n: int, seconds: float) -> tuple[float, float, int]:
    """(seconds from the start of the kernel until its first file is there, CPU seconds by then, rows of that file)."""
    with tempfile.TemporaryDirectory() as name:
        root, rules = Path(name), all_rules()[competition]
        priors = [(0.05 * np.random.default_rng(1).random(len(CLASSES))).tolist()]
        bundle = tiny_graphs.write_bundle(root / "bundle", competition, CLASSES, folds=1, priors=priors)
        folder = root / "input" / rules.folder
        folder.mkdir(parents=True)
        if competition == "birdclef2022":
            (folder.parent / "scored_birds.json").write_text(json.dumps(list(CLASSES[:SCORED])))
        sound = 0.1 * np.random.default_rng(0).standard_normal(round(8000 * seconds))
        audio.write(folder / "soundscape_0.ogg", sound.astype(np.float32), 8000)
        for i in range(1, n):
            os.link(folder / "soundscape_0.ogg", folder / f"soundscape_{i}.ogg")
        out = root / "submission.csv"
        command = [sys.executable, ROOT / "src" / "run_kernel.py", "--bundle", bundle, "--competition", competition]
        command += ["--test-folder", folder, "--out", out, "--minutes", "0.001"]
        began = time.monotonic()
        kernel = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not out.is_file() and kernel.poll() is None:
            time.sleep(0.02)
        took, used = time.monotonic() - began, cpu_seconds(kernel.pid)
        _, said = kernel.communicate()
        if kernel.returncode:
            raise RuntimeError(f"the kernel of {competition} ended with {kernel.returncode}: {said[-800:]}")
        table, test = read_table(out), find_test(competition, folder, CLASSES)
        get_competition(competition).validate(table, test.table, list(CLASSES))
        return took, used, len(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figure to results.json")
    options = parser.parse_args()
    slowest = (0.0, 0.0)
    for name, (competition, n, seconds) in SIZES.items():
        took, used, rows = first_file(competition, n, seconds)
        print(f"{name} ({competition}): {rows} rows of {len(CLASSES)} classes, {took:.1f} s, {used:.1f} of CPU")
        slowest = max(slowest, (took, used))
    took, used, rows = first_file("birdclef2022", 5500, 60.0)
    print(f"5,500 x 12 x {SCORED} (birdclef2022): {rows} rows, {took:.1f} s, {used:.1f} of CPU")
    if options.record:
        unit = f"s from the kernel's start ({slowest[1]:.1f} of CPU), largest of {', '.join(SIZES)} rows of 264 classes"
        command = "OMP_NUM_THREADS=1 python benchmarks/bench_checks.py --record"
        record("first_valid_file_seconds", round(slowest[0], 1), unit, command)


if __name__ == "__main__":
    main()

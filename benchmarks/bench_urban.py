"""What hour and place are worth: a small system 1 with and without metadata on the embedded city, three seeds.

python benchmarks/bench_urban.py --record        # trains what is missing

The city (synth/streets.py) makes itself; its tags depend in part on hour, day and place. Held out are the 200 clips of
the agreed truth, of sensors that do not train; weights are the last epoch's, so nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np
from results import record

from earshot.runs import FoldRun

SYSTEMS = {"with": "city_system1", "without": "city_system1_no_metadata"}
SCORES = ("coarse_macro_auprc", "coarse_micro_auprc", "fine_macro_auprc", "fine_micro_auprc")
SEEDS = (1213, 1214, 1215)
GOAL = 0.05


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    found = {which: [train(system, seed) for seed in options.seeds] for which, system in SYSTEMS.items()}
    print(f"| score, {len(options.seeds)} seeds | with metadata | without | gain | goal |\n|---|---|---|---|---|")
    for score in SCORES:
        values = {w: np.array([fold.about["scores"][score] for fold in folds]) for w, folds in found.items()}
        gain = values["with"] - values["without"]
        shown = " | ".join(f"{v.mean():.3f} +- {v.std(ddof=1):.3f}" for v in values.values())
        goal = f"{GOAL}" if score == SCORES[0] else "-"
        print(f"| {score} | {shown} | {gain.mean():+.3f} +- {gain.std(ddof=1):.3f} | {goal} |")
        if options.record and score == SCORES[0]:
            unit = f"coarse macro-AUPRC, mean of {len(gain)} seeds, deviation {gain.std(ddof=1):.3f}"
            record("urban_metadata_gain", float(gain.mean()), unit, "python benchmarks/bench_urban.py --record")


def train(system: str, seed: int) -> FoldRun:
    """Fold 0 of the system's config with this seed, or what an earlier call left of it."""
    name = f"bench_urban-{system}-seed{seed}"
    run = FoldRun(Path("runs") / "ust" / name / "fold0")
    if not run.finished:
        command = [sys.executable, "src/train.py", "--config", f"configs/ust/{system}.yaml", "--fold", "0"]
        subprocess.run([*command, "--name", name, "--resume", f"seed={seed}"], check=True)
    return run


if __name__ == "__main__":
    main()

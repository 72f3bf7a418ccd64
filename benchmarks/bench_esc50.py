"""ESC-50, official five folds, from scratch on the CPU, last epoch's weights: accuracy and wall-clock minutes.

python benchmarks/bench_esc50.py --record      # trains what is missing (5 folds, two at a time), then scores

Needs data/esc50 (python src/prepare.py esc50 --source FOLDER). Minutes run from the first config written to the last
fold finished: train all folds in one go, into an empty runs/tagging/esc50_cnn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from bench_esc10 import ROOT, fold_accuracies, wall_minutes
from results import record

from earshot import runs
from earshot.data.prepared import load_data
from earshot.ensemble import search
from earshot.prediction.predictions import Predictions

COMMAND = "python benchmarks/bench_esc50.py --record"
LIMIT_MINUTES = 120


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/tagging/esc50_cnn.yaml"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    folder = Path("runs/tagging", options.config.stem)
    if not (folder / "oof.npz").is_file():
        command = [sys.executable, "src/train.py", "--config", options.config, "--fold", "all", "--jobs", "2"]
        subprocess.run([*command, "--resume"], check=True)
    found = Predictions.load(folder / "oof.npz")
    truth = search.truth_of(found, load_data(runs.load_run(folder).config.data)).target
    folds, minutes = fold_accuracies(found, truth), wall_minutes([folder])
    print(f"| {' | '.join(f'{v:.4f}' for v in folds)} | {np.mean(folds):.4f} | {np.std(folds):.4f} |")
    print(f"{minutes:.1f} minutes for all folds (allowed: {LIMIT_MINUTES})")
    if options.record and minutes <= LIMIT_MINUTES:
        record("esc50_cpu_accuracy", float(np.mean(folds)), "mean of 5 folds, one model a fold", COMMAND)
        record("esc50_cpu_minutes", round(minutes, 1), "min wall, 2 cores, all folds", COMMAND)


if __name__ == "__main__":
    main()

"""ESC-10 as a real scenes-like task: SE-Trans with and without FMix, CNN9, CNN14 and a small AST, official folds.

OMP_NUM_THREADS=1 python benchmarks/bench_esc10_systems.py --record   # trains what is missing (5 systems x 5 folds)

Needs data/esc10 (README: prepare.py esc10). The configs differ in the network and in FMix alone (configs/scenes/
_esc10.yaml), but for the AST, a system of its own (configs/tagging/esc10_ast.yaml: its filter bank, epochs and
augmentation). The last epoch's weights are scored, so that nothing is chosen on a test fold. Minutes are the sum over
the folds of the trainer's own seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from esc import fold_accuracies
from results import record

from earshot import runs
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.prediction import predictions

TASKS = {"se_trans": "scenes", "se_trans_fmix": "scenes", "cnn9": "scenes", "cnn14": "scenes", "ast": "tagging"}
SYSTEMS = tuple(TASKS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    print("| system | parameters | fold 0 | 1 | 2 | 3 | 4 | mean | deviation over folds | minutes |")
    print("|---" * 10 + "|")
    for system in options.systems:
        folder = trained(system)
        oof, folds = predictions.Predictions.load(folder / "oof.npz"), runs.load_run(folder).folds
        truth = truth_of(oof, load_data(runs.load_run(folder).config.data)).target
        values = fold_accuracies(oof, truth)
        minutes = sum(pd.read_csv(fold.folder / "log.csv").seconds.sum() for fold in folds) / 60
        print(
            f"| {system} | {folds[0].about['parameters']:,} | {' | '.join(f'{v:.4f}' for v in values)} | "
            f"{np.mean(values):.4f} | {np.std(values):.4f} | {minutes:.0f} |"
        )
        if options.record:
            epochs = folds[0].about["epochs_trained"]
            command = "python benchmarks/bench_esc10_systems.py --record"
            unit = f"mean of 5 folds, {epochs} epochs, deviation over folds {np.std(values):.4f}"
            record(f"esc10_{system}_accuracy", round(float(np.mean(values)), 4), unit, command)


def trained(system: str) -> Path:
    """The finished run of a system; what is missing of it is trained first."""
    task = TASKS[system]
    folder = Path("runs") / task / f"esc10_{system}"
    if not (folder / "oof.npz").is_file():
        command = [sys.executable, "src/train.py", "--config", f"configs/{task}/esc10_{system}.yaml", "--fold", "all"]
        subprocess.run([*command, "--name", folder.name, "--resume"], check=True, stdout=sys.stderr)
    return folder


if __name__ == "__main__":
    main()

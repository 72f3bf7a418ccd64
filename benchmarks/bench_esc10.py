"""ESC-10, official five folds, from scratch: accuracy of ESC-50's two recipes, trained longer, and of both.

python benchmarks/bench_esc10.py --record      # trains what is missing (2 members x 5 folds), then scores
python benchmarks/bench_esc10.py --seeds 1213 1214                  # 4 members: how much more networks bring

Needs data/esc10 (README: prepare.py esc10). The last epoch's weights answer, each clip heard as the recipe says.
Minutes are wall-clock, of the time in which any fold was trained.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from esc import ROOT, heard, print_folds, wall_minutes
from results import machine, record

from earshot import runs
from earshot.export.graph import ExportSettings, export_run
from earshot.metrics.clips import accuracy
from earshot.prediction.tta import tta_variants

COMMAND = "python benchmarks/bench_esc10.py --record"
EPOCHS = 300  # ESC-50's are 100, each of five times as many steps
ON_ESC10 = (
    "data.competition=esc10", "data.root=data/esc10", "data.folds=folds/esc10.csv",
    f"optim.epochs={EPOCHS}", f"optim.validate_every={EPOCHS}",
)  # fmt: skip
RECIPES = {"esc10_mel": "esc50_cnn", "esc10_gammatone": "esc50_gammatone"}  # run: config
SEED = 1213


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[SEED], help="each trains both recipes")
    options = parser.parse_args()
    os.chdir(ROOT)
    folders = [trained(recipe, seed) for seed in options.seeds for recipe in RECIPES]
    config, minutes = runs.load_run(folders[0]).config, wall_minutes(folders)
    answers = {folder.name: answers_of(folder) for folder in folders}
    scores = {name: [accuracy(*fold) for fold in folds] for name, folds in answers.items()}
    scores["all"] = [
        accuracy(fold[0][0], np.mean([found for _, found in fold], axis=0))
        for fold in zip(*answers.values(), strict=True)
    ]
    for name, folds in scores.items():
        print_folds(folds, name)
    print(f"{minutes:.1f} minutes for all folds of all")
    if options.record:
        how = f"mean of 5 folds, {len(folders)} models a fold, {config.optim.epochs} epochs, {machine()}"
        often = f"each clip heard {len(tta_variants(config.predict.tta))} times ({' '.join(config.predict.tta)})"
        record("esc10_accuracy", float(np.mean(scores["all"])), f"{how}, {often}", COMMAND)
        record("esc10_minutes", round(minutes, 1), f"min wall, all folds of all members, {machine()}", COMMAND)


def trained(name: str, seed: int) -> Path:
    """The folder of a recipe's run on ESC-10, its five folds trained now where they are not."""
    folder = Path("runs/tagging", name if seed == SEED else f"{name}_{seed}")
    if not (folder / "oof.npz").is_file():
        command = [sys.executable, "src/train.py", "--config", f"configs/tagging/{RECIPES[name]}.yaml"]
        command += ["--fold", "all", "--jobs", "2", "--name", folder.name, "--resume", f"seed={seed}", *ON_ESC10]
        subprocess.run(command, check=True)
    return folder


def answers_of(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and probabilities of each fold, by the graphs that a kernel takes, in float32."""
    run = runs.load_run(folder)
    export_run(run, ExportSettings(max_drop=0.03))  # two clips of 80
    return heard(folder, run.config.predict.tta, "onnx")


if __name__ == "__main__":
    main()

"""ESC-10, official five folds, from scratch: accuracy of ESC-50's two recipes as they are, two seeds of each, averaged.

python benchmarks/bench_esc10.py --record      # trains what is missing (4 members x 5 folds), then scores

Needs data/esc10 (README: prepare.py esc10). The last epoch's weights answer, each clip heard as the recipe says.
Minutes are wall-clock, from the first config written to the last fold finished, all members together: train them in
one go, in an empty runs/tagging.
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
ON_ESC10 = ("data.competition=esc10", "data.root=data/esc10", "data.folds=folds/esc10.csv")
RECIPES, SEEDS = {"mel": "esc50_cnn", "gammatone": "esc50_gammatone"}, (1213, 1214)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    members = [(bands, seed, trained(bands, seed)) for seed in SEEDS for bands in RECIPES]
    answers = {f"{bands}, seed {seed}": answers_of(folder) for bands, seed, folder in members}
    config, minutes = runs.load_run(members[0][2]).config, wall_minutes([folder for *_, folder in members])
    truth = [target for target, _ in next(iter(answers.values()))]
    for name, folds in answers.items():
        print_folds([accuracy(target, found) for target, found in folds], name)
    for name, some in means(answers).items():
        scores = [accuracy(target, found) for target, found in zip(truth, some, strict=True)]
        print_folds(scores, name)
    print(f"{minutes:.1f} minutes for {len(members)} members x 5 folds")
    if options.record:
        how = f"mean of 5 folds, {len(members)} models averaged, {config.optim.epochs} epochs, {machine()}"
        often = f"each clip heard {len(tta_variants(config.predict.tta))} times ({' '.join(config.predict.tta)})"
        record("esc10_accuracy", float(np.mean(scores)), f"{how}, {often}", COMMAND)
        record("esc10_minutes", round(minutes, 1), f"min wall, all folds and models, {machine()}", COMMAND)


def trained(bands: str, seed: int) -> Path:
    """The folder of a member's run, its five folds trained now where they are not."""
    folder = Path("runs/tagging", f"esc10_{bands}_s{seed}")
    if not (folder / "oof.npz").is_file():
        command = [sys.executable, "src/train.py", "--config", f"configs/tagging/{RECIPES[bands]}.yaml"]
        command += ["--fold", "all", "--jobs", "2", "--name", folder.name, "--resume", *ON_ESC10, f"seed={seed}"]
        subprocess.run(command, check=True)
    return folder


def answers_of(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and probabilities of each fold, by the graphs that a kernel takes, in float32."""
    run = runs.load_run(folder)
    export_run(run, ExportSettings(max_drop=0.03))  # two clips of 80
    return heard(folder, run.config.predict.tta, "onnx")


def means(answers: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, list[np.ndarray]]:
    """Probabilities by fold of each recipe's seeds, and of all members together (the last)."""
    groups = {f"{bands}, {len(SEEDS)} seeds": [n for n in answers if n.startswith(f"{bands},")] for bands in RECIPES}
    groups[f"all {len(answers)}"] = list(answers)
    return {
        name: [np.mean([found for _, found in fold], axis=0) for fold in zip(*(answers[m] for m in some), strict=True)]
        for name, some in groups.items()
    }


if __name__ == "__main__":
    main()

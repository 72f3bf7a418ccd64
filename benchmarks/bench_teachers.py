"""ESC-50: a network of 0.8 M parameters taught by BirdNET's embeddings against the same one alone, equal epochs.

python benchmarks/bench_teachers.py --clips-per-class 8 --epochs 10        # a short try: few labels, one fold
python benchmarks/bench_teachers.py --record                               # the config's own epochs, fold 0, all clips

Needs data/esc50 (src/prepare.py esc50 --source FOLDER) and BirdNET (docs/teachers.md). Both networks have the same
config, seed, clips and steps; only the teacher is left out of one. Accuracy is of the official fold's held-out clips.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
from bench_shift import script

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from results import record

from earshot import runs
from earshot.data.prepared import load_data
from earshot.ensemble.search import truth_of
from earshot.metrics.clips import accuracy

CONFIG = "configs/tagging/esc50_distilled.yaml"
ALONE = ("distill.teacher.file=",)


def main():
    options = parse_args()
    os.chdir(ROOT)
    rows = []
    for seed in options.seeds:
        alone, taught = (accuracy_of(options, seed, name, more) for name, more in (("alone", ALONE), ("taught", ())))
        rows.append({"seed": seed, "alone": alone, "taught by BirdNET": taught, "gain": taught - alone})
    table = pd.DataFrame(rows).set_index("seed")
    print(pd.concat([table, table.agg(["mean", "std"])]).round(4).to_string())
    if options.record:
        gain, clips = table.gain, f"{options.clips_per_class} clips a class" if options.clips_per_class else "all clips"
        epochs = f"{options.epochs} epochs" if options.epochs else "the config's epochs"
        spread = f", sd {gain.std():.4f}" if len(gain) > 1 else ""
        what = f"accuracy, fold {options.fold}, {clips}, {epochs}, {len(gain)} seeds{spread}"
        command = " ".join(["python benchmarks/bench_teachers.py", *sys.argv[1:]])
        name = "esc50_distilled_gain" + f"_{options.clips_per_class}_clips" * bool(options.clips_per_class)
        record(name, float(gain.mean()), what, command)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1213])
    parser.add_argument("--epochs", type=int, default=0, help="0: the config's")
    parser.add_argument("--clips-per-class", type=int, default=0, help="training clips of each class; 0: all (32)")
    parser.add_argument("--record", action="store_true", help="append the figure to benchmarks/results.json")
    return parser.parse_args()


def accuracy_of(options: argparse.Namespace, seed: int, name: str, more: tuple[str, ...]) -> float:
    """Accuracy of one network on the fold that it held out, trained now where it is not there."""
    run = f"esc50_{name}_c{options.clips_per_class}_e{options.epochs}_s{seed}"
    fold = runs.FoldRun(Path("runs/tagging", run, f"fold{options.fold}"))
    if not fold.folder.is_dir() or not fold.finished:
        short = (f"optim.epochs={options.epochs}", f"optim.validate_every={options.epochs}", "optim.warmup_epochs=1")
        script(
            "train.py", "--config", CONFIG, "--fold", options.fold, "--name", run, "--resume", f"seed={seed}",
            f"data.clips_per_class={options.clips_per_class}", *(short if options.epochs else ()), *more,
        )  # fmt: skip
    oof = fold.oof()
    return float(accuracy(truth_of(oof, load_data(fold.config.data)).target > 0.5, oof.clipwise_output))


if __name__ == "__main__":
    main()

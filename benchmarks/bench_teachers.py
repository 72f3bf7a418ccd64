"""ESC-50: a network of 0.8 M parameters taught by BirdNET against the same one alone, equal epochs.

python benchmarks/bench_teachers.py --clips-per-class 8 --epochs 10        # a short try: few labels, one fold
python benchmarks/bench_teachers.py --record                               # the config's own epochs, fold 0, all clips
python benchmarks/bench_teachers.py --lesson answers                       # a head on BirdNET answers, see below
python benchmarks/bench_teachers.py --clips-per-class 8 --left-out 3 --seeds 1 2 3 --record   # few labels, much sound

Needs data/esc50 (src/prepare.py esc50 --source FOLDER) and BirdNET (docs/teachers.md). Both networks have the same
config, seed, clips and steps; only the teacher is left out of one. Accuracy is of the official fold's held-out clips.
Lesson `answers`: a head on BirdNET's embeddings is trained first, on four folds of the student's own training clips, so
that each is answered for by a head that heard neither it nor what the official fold holds out.
With --left-out S the taught network also hears S crops of the training clips beyond --clips-per-class for each labelled
one, without their labels; besides equal epochs of the labelled clips, `alone, equal steps` makes as many steps.
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

from results import machine, record

from earshot import runs
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.ensemble.search import truth_of
from earshot.metrics.clips import accuracy

LESSONS = {  # config, and what takes the teacher out of it
    "answers": ("configs/tagging/esc50_taught.yaml", "distill.predictions=[]"),
    "embedding": ("configs/tagging/esc50_distilled.yaml", "distill.teacher.file="),
}
HEAD = "configs/tagging/esc50_birdnet.yaml"


def main():
    options = parse_args()
    os.chdir(ROOT)
    if options.lesson == "answers":
        train_head(options.fold)
    rows = []
    for seed in options.seeds:
        alone, taught = (accuracy_of(options, seed, name) for name in ("alone", options.lesson))
        row = {"seed": seed, "alone": alone, "taught by BirdNET": taught, "gain": taught - alone}
        if options.left_out:
            row["alone, equal steps"] = accuracy_of(options, seed, "steps")
            row["gain, equal steps"] = taught - row["alone, equal steps"]
        rows.append(row)
    table = pd.DataFrame(rows).set_index("seed")
    print(pd.concat([table, table.agg(["mean", "std"])]).round(4).to_string())
    for gain in [c for c in table if c.startswith("gain")] if options.record else ():
        clips = f"{options.clips_per_class} clips a class" if options.clips_per_class else "all clips"
        clips += f" and {options.left_out:g} crops without labels for each" if options.left_out else ""
        epochs = f"{options.epochs} epochs" if options.epochs else "the config's epochs"
        spread = f", sd {table[gain].std():.4f}" if len(table) > 1 else ""
        alone = gain.replace("gain", "alone")
        means = f"{table['taught by BirdNET'].mean():.4f} against {table[alone].mean():.4f}"
        how = f"fold {options.fold}, {clips}, {epochs}, {len(table)} seeds{spread}, {machine()}"
        what = f"accuracy, lesson {options.lesson}, {means} ({alone}), {how}"
        command = " ".join(["python benchmarks/bench_teachers.py", *sys.argv[1:]])
        name = "esc50_distilled_gain" + f"_{options.clips_per_class}_labels" * bool(options.clips_per_class)
        record(name + "_equal_steps" * gain.endswith("steps"), round(float(table[gain].mean()), 4), what, command)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesson", choices=LESSONS, default="embedding")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1213])
    parser.add_argument("--epochs", type=int, default=0, help="0: the config's")
    parser.add_argument("--clips-per-class", type=int, default=0, help="training clips of each class; 0: all (32)")
    parser.add_argument(
        "--left-out", type=float, default=0, metavar="SHARE", help="crops of the other clips, unlabelled"
    )
    parser.add_argument("--record", action="store_true", help="append the figure to benchmarks/results.json")
    options = parser.parse_args()
    if options.clips_per_class and options.lesson == "answers":
        parser.error("--clips-per-class: the head that answers learned from all labels; leave --lesson out")
    if options.left_out and not options.clips_per_class:
        parser.error("--left-out: all clips have labels; say --clips-per-class")
    return options


def train_head(fold: int):
    """Train heads on BirdNET's embeddings within a fold's training clips, where their OOF is not there."""
    name, table = f"esc50_birdnet_inside{fold}", f"folds/esc50_inside{fold}.csv"
    if Path("runs/tagging", name, "oof.npz").is_file():
        return
    clips = ("--clips", "data/esc50/clips.csv", "--inside", "folds/esc50.csv", "--fold", fold)
    script("make_folds.py", *clips, "--out", table)
    data = (f"data.root=data/esc50_inside{fold}", f"data.folds={table}")
    script("train.py", "--config", HEAD, "--fold", "all", "--name", name, "--resume", *data)


def accuracy_of(options: argparse.Namespace, seed: int, name: str) -> float:
    """Accuracy of one network on the fold that it held out, trained now where it is not there.

    name: of the lesson, or `alone`, or `steps`: alone for as many steps as the taught one makes.
    """
    config, without = LESSONS[options.lesson]
    epochs = options.epochs
    if name == "steps":
        epochs = round((epochs or load_config(config).optim.epochs) * (1 + options.left_out))
    left_out = f"_u{options.left_out:g}" * bool(options.left_out and name != "alone")
    run = f"{Path(config).stem}_{name}{left_out}_c{options.clips_per_class}_e{epochs}_s{seed}"
    fold = runs.FoldRun(Path("runs/tagging", run, f"fold{options.fold}"))
    if not fold.folder.is_dir() or not fold.finished:
        told = [f"seed={seed}", f"data.clips_per_class={options.clips_per_class}"]
        told += [f"optim.epochs={epochs}", f"optim.validate_every={epochs}"] if epochs else []
        told += ["optim.warmup_epochs=1"] if options.epochs else []
        told += [without] if name != options.lesson else []
        if options.left_out and name == options.lesson:
            told += ["distill.unlabelled=left_out", f"distill.unlabelled_share={options.left_out}"]
        script("train.py", "--config", config, "--fold", options.fold, "--name", run, "--resume", *told)
    oof = fold.oof()
    return float(accuracy(truth_of(oof, load_data(fold.config.data)).target > 0.5, oof.clipwise_output))


if __name__ == "__main__":
    main()

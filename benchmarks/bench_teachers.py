"""ESC-50: a network of 0.8 M parameters taught by BirdNET against the same one alone, equal epochs.

python benchmarks/bench_teachers.py --clips-per-class 8 --epochs 10        # a short try: few labels, one fold
python benchmarks/bench_teachers.py --record                               # the config's own epochs, fold 0, all clips
python benchmarks/bench_teachers.py --lesson answers                       # a head on BirdNET answers, see below
python benchmarks/bench_teachers.py --lesson blend --seeds 1213 1 2 --record   # fusions and a head answer
python benchmarks/bench_teachers.py --lesson few --seeds 1 2 3 --record    # few labels, much sound without

Needs data/esc50 (src/prepare.py esc50 --source FOLDER) and BirdNET (docs/teachers.md). Both networks have the same
config, seed, clips and steps; only the teacher is left out of one. Accuracy is of the official fold's held-out clips.
Lesson `answers`: a head on BirdNET's embeddings is trained first, on four folds of the student's own training clips, so
that each is answered for by a head that heard neither it nor what the official fold holds out.
Lesson `blend`: so do two fusions of BirdNET's map with a small log-mel branch (CMAM), of two seeds, and such a head;
the mean of the three answers. All of them learn from hard labels: softened ones would soften what they teach.
Lesson `few`: eight labelled clips of each class; a head on BirdNET's embeddings that was trained on the same ones
answers for all of the fold's training clips. Of an epoch's crops half have no label, so that the student makes twice
the steps of `alone`; `alone, equal steps` makes as many.
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
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.metrics.clips import accuracy

ALONE = ["distill.teacher.file="]
LESSONS = {  # config, and what takes the teacher out of it
    "answers": ("configs/tagging/esc50_taught.yaml", ["distill.predictions=[]"]),
    "blend": ("configs/tagging/esc50_distilled.yaml", ALONE),
    "embedding": ("configs/tagging/esc50_distilled.yaml", ALONE),
    "few": ("configs/tagging/esc50_few_labels.yaml", ["distill.teacher.run=", "distill.unlabelled="]),
}
HEAD = "configs/tagging/esc50_birdnet.yaml"
FUSION = "configs/tagging/cross_task/esc50_cmam_birdnet.yaml"
BLEND = "runs/tagging/esc50_blend_inside{fold}.npz"
BLEND_OOF = BLEND.replace(".npz", "_oof.npz")
TAUGHT_BY_BLEND = [
    *ALONE, f'distill.predictions=["{BLEND_OOF}"]', "distill.answers=softmax", "distill.answer_weight=1",
]  # fmt: skip


def main():
    options = parse_args()
    os.chdir(ROOT)
    if options.lesson == "answers":
        train_inside(options.fold, HEAD, "esc50_birdnet")
    if options.lesson == "blend":
        blend_inside(options.fold)
    rows = []
    for seed in options.seeds:
        alone, taught = (accuracy_of(options, seed, name) for name in ("alone", options.lesson))
        row = {"seed": seed, "alone": alone, "taught by BirdNET": taught, "gain": taught - alone}
        if options.lesson == "few":
            row["alone, equal steps"] = accuracy_of(options, seed, "steps")
            row["gain, equal steps"] = taught - row["alone, equal steps"]
        rows.append(row)
    table = pd.DataFrame(rows).set_index("seed")
    print(pd.concat([table, table.agg(["mean", "std"])]).round(4).to_string())
    labels = options.clips_per_class or load_config(LESSONS[options.lesson][0]).data.clips_per_class
    for gain in [c for c in table if c.startswith("gain")] if options.record else ():
        clips = f"{labels} labelled clips a class" if labels else "all clips"
        epochs = f"{options.epochs} epochs" if options.epochs else "the config's epochs"
        spread = f", sd {table[gain].std():.4f}" if len(table) > 1 else ""
        alone = gain.replace("gain", "alone")
        means = f"{table['taught by BirdNET'].mean():.4f} against {table[alone].mean():.4f}"
        how = f"fold {options.fold}, {clips}, {epochs}, {len(table)} seeds{spread}, {machine()}"
        what = f"accuracy, lesson {options.lesson}, {means} ({alone}), {how}"
        command = " ".join(["python benchmarks/bench_teachers.py", *sys.argv[1:]])
        name = "esc50_distilled_gain" + f"_{labels}_labels" * bool(labels)
        record(name + "_equal_steps" * gain.endswith("steps"), round(float(table[gain].mean()), 4), what, command)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesson", choices=LESSONS, default="embedding")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1213])
    parser.add_argument("--epochs", type=int, default=0, help="0: the config's")
    parser.add_argument("--clips-per-class", type=int, default=0, help="training clips of each class; 0: all (32)")
    parser.add_argument("--record", action="store_true", help="append the figure to benchmarks/results.json")
    options = parser.parse_args()
    if options.clips_per_class and options.lesson in ("answers", "blend"):
        parser.error("--clips-per-class: what answers learned from all labels; take --lesson few")
    return options


def train_inside(fold: int, config: str, name: str, *told: str) -> str:
    """Train networks within a fold's training clips, where their OOF is not there -> the run's folder."""
    run, table = f"runs/tagging/{name}_inside{fold}", f"folds/esc50_inside{fold}.csv"
    if not Path(run, "oof.npz").is_file():
        clips = ("--clips", "data/esc50/clips.csv", "--inside", "folds/esc50.csv", "--fold", fold)
        script("make_folds.py", *clips, "--out", table)
        data = (f"data.root=data/esc50_inside{fold}", f"data.folds={table}")
        script("train.py", "--config", config, "--fold", "all", "--name", Path(run).name, "--resume", *data, *told)
    return run


def blend_inside(fold: int):
    """The plain mean of what two fusions and a head on BirdNET answer for clips that they did not hear."""
    hard = "loss.params.label_smoothing=0"
    runs_ = [train_inside(fold, FUSION, f"esc50_cmam_s{seed}", hard, f"seed={seed}") for seed in (1213, 1)]
    runs_.append(train_inside(fold, HEAD, "esc50_birdnet_hard", hard))
    script("ensemble.py", "--runs", *runs_, "--out", BLEND.format(fold=fold))


def few_labels_head(fold: int, clips_per_class: int, seed: int) -> str:
    """The run of a head on BirdNET's embeddings that learned the few clips which this seed leaves their labels."""
    name = f"esc50_birdnet_few_c{clips_per_class}_s{seed}"
    told = ("--resume", f"seed={seed}", f"data.clips_per_class={clips_per_class}")
    if not finished(fold_run(name, fold)):
        script("train.py", "--config", HEAD, "--fold", fold, "--name", name, *told)
    return "runs/tagging/" + name + "/fold{fold}"


def fold_run(name: str, fold: int) -> runs.FoldRun:
    return runs.FoldRun(Path("runs/tagging", name, f"fold{fold}"))


def finished(fold: runs.FoldRun) -> bool:
    return fold.folder.is_dir() and fold.finished


def accuracy_of(options: argparse.Namespace, seed: int, name: str) -> float:
    """Accuracy of one network on the fold that it held out, trained now where it is not there.

    name: of the lesson, or `alone`, or `steps`: alone for as many steps as the taught one makes.
    """
    config, without = LESSONS[options.lesson]
    own = load_config(config)
    epochs, labels = options.epochs, options.clips_per_class or own.data.clips_per_class
    if name == "steps":
        epochs = round((epochs or own.optim.epochs) * (1 + own.distill.unlabelled_share))
    run = f"{Path(config).stem}_{name}_c{labels}_e{epochs}_s{seed}"
    fold = fold_run(run, options.fold)
    if not finished(fold):
        told = [f"seed={seed}", f"data.clips_per_class={labels}"]
        told += [f"optim.epochs={epochs}", f"optim.validate_every={epochs}"] if epochs else []
        told += ["optim.warmup_epochs=1"] if options.epochs else []
        if name != options.lesson:
            told += without
        elif name == "blend":
            told += TAUGHT_BY_BLEND
        elif name == "few":
            told.append(f"distill.teacher.run={few_labels_head(options.fold, labels, seed)}")
        script("train.py", "--config", config, "--fold", options.fold, "--name", run, "--resume", *told)
    oof = fold.oof()
    return float(accuracy(truth_of(oof, load_data(fold.config.data)).target > 0.5, oof.clipwise_output))


if __name__ == "__main__":
    main()

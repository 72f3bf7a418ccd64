"""ESC-50, official five folds, on the CPU: accuracy of two networks from scratch, and of one of them beside BirdNET.

python benchmarks/bench_esc50.py --record               # trains what is missing (5 folds, two at a time), then scores
python benchmarks/bench_esc50.py --teacher --record     # its OOF blended with that of CMAM, which hears BirdNET too
python benchmarks/bench_esc50.py --small --record       # a network of 128 kB in int8, taught by the one from scratch

Needs data/esc50 (python src/prepare.py esc50 --source FOLDER), --teacher also BirdNET (docs/teachers.md). The last
epoch's weights answer; of the blend, a geometric mean, each fold's weights are searched on the other folds. Minutes
run from the first config written to the last fold finished: train all folds in one go, into an empty runs/tagging.
From scratch one network hears mel bands and one gammatone bands; their probabilities are averaged.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from esc import ROOT, fold_accuracies, heard, print_folds, wall_minutes
from results import machine, record

from earshot import runs
from earshot.config import load_config
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.export.graph import ExportSettings, export_run
from earshot.metrics.clips import accuracy
from earshot.models.counting import count
from earshot.prediction.predictions import Predictions, weighted_mean
from earshot.prediction.tta import tta_variants

COMMAND = "python benchmarks/bench_esc50.py --record"
TEACHER_COMMAND = "python benchmarks/bench_esc50.py --teacher --record"
SMALL_COMMAND = "python benchmarks/bench_esc50.py --small --record"
CONFIG, FUSED = Path("configs/tagging/esc50_cnn.yaml"), Path("configs/tagging/cross_task/esc50_cmam_birdnet.yaml")
PAIR = {"logmel": CONFIG, "gammatone": Path("configs/tagging/esc50_gammatone.yaml")}
SMALL, LONGER = Path("configs/tagging/esc50_small.yaml"), Path("configs/tagging/esc50_small_longer.yaml")
LIMIT_MINUTES = 360
LIMITS = {"int8_kb": 128, "mmacs_per_second": 30}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", action="store_true", help="blend it with the network that hears BirdNET too")
    parser.add_argument("--small", action="store_true", help="a small network in int8, taught by the one from scratch")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    if options.teacher:
        blended(trained(CONFIG), options.record)
    elif options.small:
        trained(CONFIG)
        small([trained(SMALL), trained(LONGER)], options.record)
    else:
        from_scratch(options.record)


def trained(config: Path) -> Path:
    """The folder of a config's run, its five folds trained now where they are not."""
    folder = Path("runs", *config.with_suffix("").parts[1:])
    if not (folder / "oof.npz").is_file():
        command = [sys.executable, "src/train.py", "--config", config, "--fold", "all", "--jobs", "2", "--resume"]
        subprocess.run(command, check=True)
    return folder


def from_scratch(keep: bool):
    """Accuracy of both networks from scratch, each and together, fold by fold, and the minutes that they took.

    Heard once, as training validates them (in their half precision), and as the config's `tta` asks for, by the graphs
    that a kernel takes, in float32.
    """
    folders = {name: trained(config) for name, config in PAIR.items()}
    minutes, config = wall_minutes(list(folders.values())), load_config(CONFIG)
    oofs = [Predictions.load(folder / "oof.npz") for folder in folders.values()]
    truth = truth_of(oofs[0], load_data(config.data)).target
    once = fold_accuracies(weighted_mean(oofs), truth)
    targets, answers = [], {}
    for name, folder in folders.items():
        export_run(runs.load_run(folder), ExportSettings(max_drop=0.01))  # two or three clips of 400
        targets, answers[name] = zip(*heard(folder, config.predict.tta, "onnx"), strict=True)
    answers["both"] = [np.mean(some, axis=0) for some in zip(*answers.values(), strict=True)]
    folds = {name: [accuracy(t, p) for t, p in zip(targets, some, strict=True)] for name, some in answers.items()}
    for name, scores in ({"both, heard once": once} | folds).items():
        print_folds(scores, name)
    print(f"{minutes:.1f} minutes for all folds of both (allowed: {LIMIT_MINUTES})")
    if keep and minutes <= LIMIT_MINUTES:
        how = f"mean of 5 folds, {config.optim.epochs} epochs, {machine()}"
        often = f"each clip heard {len(tta_variants(config.predict.tta))} times ({' '.join(config.predict.tta)})"
        record("esc50_cpu_accuracy", float(np.mean(folds["both"])), f"two models a fold, {how}, {often}", COMMAND)
        record("esc50_cpu_accuracy_once", float(np.mean(once)), f"two models a fold, {how}", COMMAND)
        for name in PAIR:
            record(
                f"esc50_cpu_accuracy_{name}", float(np.mean(folds[name])), f"one model a fold, {how}, {often}", COMMAND
            )
        if minutes >= 1:  # of a folder that was copied the times are lost
            record("esc50_cpu_minutes", round(minutes, 1), f"min wall, all folds of both, {machine()}", COMMAND)


def small(folders: list[Path], keep: bool):
    """Accuracy, kilobytes and operations of a run's int8 graphs, every layer in 8 bits, ranges of training clips.

    folders: of the run, behind those whose weights it went on from. Each clip is heard as `predict.tta` says, which
    counts as often. The export's gate is wide open here, so that what int8 costs is measured and not refused.
    """
    run = runs.load_run(folders[-1])
    model, data = runs.load_model(run.folds[0]), run.config.data
    costs = count(model, run.config.inputs(model.inputs), round(data.crop_seconds * data.sample_rate))
    wide = ExportSettings(int8=True, calibrate_on="training", float_parts=(), max_drop=1.0, max_difference=1.0)
    graphs = export_run(run, wide)
    reports = [json.loads(path.with_name(path.name + ".json").read_text()) for path in graphs]
    before, once = zip(*(report["oof"]["scores"]["accuracy"] for report in reports), strict=True)
    tta = load_config(LONGER).predict.tta
    after = [accuracy(*fold) for fold in heard(folders[-1], tta, "onnx", int8=True)]
    kilobytes = max(sum(report["stored_bytes"].values()) for report in reports) / 1000
    macs = costs.macs / 1e6 / data.crop_seconds * len(tta_variants(tta))
    for folds in (before, once, after):
        print_folds(folds)
    print(f"{kilobytes:.1f} kB in int8 ({LIMITS['int8_kb']}), {macs:.1f} M multiply-accumulates a second "
          f"({LIMITS['mmacs_per_second']})")  # fmt: skip
    if keep:
        epochs = sum(runs.load_run(folder).config.optim.epochs for folder in folders)
        how = f"mean of 5 folds, one model a fold, {epochs} epochs"
        often = f"int8, each clip heard {len(tta_variants(tta))} times"
        record("esc50_small_accuracy", round(float(np.mean(after)), 4), f"{how}, {often}", SMALL_COMMAND)
        record("esc50_small_accuracy_once", round(float(np.mean(once)), 4), f"{how}, int8", SMALL_COMMAND)
        record("esc50_small_accuracy_float32", round(float(np.mean(before)), 4), how, SMALL_COMMAND)
        record("esc50_small_int8_kb", round(kilobytes, 1), "kB of weights, biases and scales", SMALL_COMMAND)
        record("esc50_small_mmacs", round(macs, 2), "million multiply-accumulates a second of sound", SMALL_COMMAND)


def blended(folder: Path, keep: bool):
    """Accuracy of the blend with the network that hears BirdNET too, each fold's weights chosen on the others."""
    out = Path("runs/ensembles/esc50_teacher.npz")
    command = [sys.executable, "src/ensemble.py", "--runs", folder, trained(FUSED), "--out", out]
    subprocess.run([*command, "--mean", "geometric", "--weights", "search", "--always"], check=True)
    folds = json.loads(out.with_suffix(".json").read_text())["cv_folds"]
    print_folds(folds)
    if keep:
        how = "mean of 5 folds, two models a fold, one of which hears BirdNET's frozen embeddings, nested weights"
        record("esc50_teacher_accuracy", float(np.mean(folds)), how, TEACHER_COMMAND)


if __name__ == "__main__":
    main()

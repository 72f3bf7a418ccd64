"""ESC-10, official five folds, from scratch, small models, last epoch's weights: accuracy of each and of their mean.

python benchmarks/bench_esc10.py --record      # trains what is missing (3 members x 5 folds), then scores

Needs data/esc10 (README: prepare.py esc10). Minutes are wall-clock, from the first config written to the last fold
finished, all members together: train them in one go, in an empty runs/tagging.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from results import record

from earshot import runs
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.metrics import clips as clip_metrics
from earshot.prediction import predictions

MEMBERS = {"esc10_s1213": ("esc10_cnn", 1213), "esc10_s1214": ("esc10_cnn", 1214),
           "esc10_small_s1213": ("esc10_cnn_small", 1213)}  # run: config, seed  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    oofs, folders = [], [Path("runs/tagging") / name for name in MEMBERS]
    for folder, (config, seed) in zip(folders, MEMBERS.values(), strict=True):
        if not (folder / "oof.npz").is_file():
            command = [sys.executable, "src/train.py", "--config", f"configs/tagging/{config}.yaml", "--fold", "all"]
            subprocess.run([*command, "--jobs", "2", "--name", folder.name, "--resume", f"seed={seed}"], check=True)
        oofs.append(predictions.Predictions.load(folder / "oof.npz"))
    minutes = wall_minutes(folders)
    data = load_data(runs.load_run(folder).config.data)
    truth = truth_of(oofs[0], data).target
    oofs = [o.aligned(oofs[0].clip_ids) for o in oofs]
    names = [f"{config}, seed {seed}" for config, seed in MEMBERS.values()]
    rows = [(name, fold_accuracies(o, truth)) for name, o in zip(names, oofs, strict=True)]
    mean = predictions.weighted_mean(oofs)
    rows.append((f"mean of the {len(oofs)}", fold_accuracies(mean, truth)))
    print("| | fold 0 | 1 | 2 | 3 | 4 | mean | deviation over folds |\n|---|---|---|---|---|---|---|---|")
    for name, values in rows:
        print(f"| {name} | {' | '.join(f'{v:.4f}' for v in values)} | {np.mean(values):.4f} | {np.std(values):.4f} |")
    each = [np.mean(values) for _, values in rows[:2]]
    print(f"deviation over the two seeds {np.std(each):.4f}; {minutes:.1f} minutes for {len(oofs)} members x 5 folds")
    wrong = ~(mean.clipwise_output.argmax(1) == truth.argmax(1))
    for i in np.flatnonzero(wrong):
        said, is_ = mean.classes[mean.clipwise_output[i].argmax()], mean.classes[truth[i].argmax()]
        print(f"  wrong: {mean.clip_ids[i]} is {is_}, heard as {said}")
    if options.record:
        command = "python benchmarks/bench_esc10.py --record"
        record("esc10_accuracy", float(np.mean(rows[-1][1])), f"mean of 5 folds, {len(oofs)} models averaged", command)
        record("esc10_minutes", round(minutes, 1), "min wall, 2 cores, all folds and models", command)


def wall_minutes(folders: list[Path]) -> float:
    """From the first config written to the last run.json."""
    first = min(p.stat().st_mtime for f in folders for p in f.glob("fold*/config.yaml"))
    return (max(p.stat().st_mtime for f in folders for p in f.glob("fold*/run.json")) - first) / 60


def fold_accuracies(found: predictions.Predictions, truth: np.ndarray) -> list[float]:
    """Accuracy of each official fold."""
    folds = np.unique(found.fold)
    return [clip_metrics.accuracy(truth[found.fold == f], found.clipwise_output[found.fold == f]) for f in folds]


if __name__ == "__main__":
    main()

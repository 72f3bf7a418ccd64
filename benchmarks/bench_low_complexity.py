"""The low-complexity scenes network on the embedded data: int8 size, operations, its score before and after int8.

python benchmarks/bench_low_complexity.py --record      # trains fold 0 where it is missing, then exports to int8

Static quantisation after training, every layer, ranges measured on 24 training clips. Both scores are of the held-out
fold (places and devices that training did not have) with the last epoch's weights, without test-time copies; the gate
of the export is wide open here, so that a drop is measured and not refused.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from results import record

from earshot import runs
from earshot.export.graph import ExportSettings, export_run
from earshot.models.counting import count

CONFIG = Path("configs/scenes/separable_coordatt.yaml")
FOLDER = Path("runs/scenes/bench_low_complexity")
LIMITS = {"int8_kb": 128, "mmacs": 30}  # of DCASE 2022 task 1
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/bench_low_complexity.py --record"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    train_fold()
    run = runs.load_run(FOLDER)
    model = runs.load_model(run.folds[0])
    costs = count(model, run.config.inputs(model.inputs), run.config.data.sample_rate)
    report = exported(run)
    kilobytes, scores = sum(report["stored_bytes"].values()) / 1000, report["oof"]["scores"]
    print(
        f"| figure | value | limit |\n|---|---|---|\n| parameters | {sum(p.numel() for p in model.parameters()):,} | |"
    )
    kinds = ", ".join(f"{n / 1000:.1f} {kind}" for kind, n in report["stored_bytes"].items())
    print(f"| numbers in the int8 graph | {kilobytes:.1f} kB ({kinds}) | {LIMITS['int8_kb']} kB |")
    print(f"| its file, with names and structure | {report['bytes'] / 1000:.1f} kB | |")
    print(f"| multiply-accumulates for 1 s | {costs.macs / 1e6:.2f} M | {LIMITS['mmacs']} M |")
    print(f"| the front end's | {costs.front_end_macs / 1e6:.2f} M | |")
    for name in ("class_mean_accuracy", "log_loss"):
        before, after = scores[name]
        print(f"| {name}, {report['oof']['clips']} held-out clips: float32, int8 | {before:.4f}, {after:.4f} | |")
    if options.record:
        accuracy = scores["class_mean_accuracy"]
        record("low_complexity_int8_kb", round(kilobytes, 1), "kB of weights, biases and scales", COMMAND)
        record("low_complexity_mmacs", round(costs.macs / 1e6, 3), "million multiply-accumulates, 1-s clip", COMMAND)
        record("low_complexity_accuracy", accuracy[0], "class_mean_accuracy, fold 0, float32", COMMAND)
        record("low_complexity_accuracy_int8", accuracy[1], "class_mean_accuracy, fold 0, int8", COMMAND)


def train_fold():
    """Fold 0 of the config, or what an earlier call left of it."""
    if runs.FoldRun(FOLDER / "fold0").finished:
        return
    command = [sys.executable, "src/train.py", "--config", CONFIG, "--name", FOLDER.name, "--fold", "0", "--resume"]
    subprocess.run(command, check=True)


def exported(run: runs.Run) -> dict:
    """The report of the int8 graph."""
    (path,) = export_run(run, ExportSettings(int8=True, calibrate_on="training", float_parts=(), max_drop=1.0))
    return json.loads(path.with_name(path.name + ".json").read_text())


if __name__ == "__main__":
    main()

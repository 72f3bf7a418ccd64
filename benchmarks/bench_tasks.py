"""Embedded scenes, urban sounds and machines: SE-Trans with FMix by its config's defaults, and beside it the control.

python benchmarks/bench_tasks.py --record                 # trains what is missing: 3 tasks, each with its control
python benchmarks/bench_tasks.py --tasks scenes asd

The data make themselves. The held-out clips (fold 0) have places, devices or conditions that training did not have; the
weights are the last epoch's, so nothing is chosen on them. The control is the same training on permuted labels. Minutes
are wall-clock from the config written to the fold finished, pictures included, the making of the data not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from results import record

from earshot.runs import FoldRun

FIGURES = {  # task: score of run.json, name in results.json, goal
    "scenes": ("class_mean_accuracy", "scenes_demo_accuracy", 0.85),
    "ust": ("macro_auprc", "ust_demo_macro_auprc", 0.75),
    "asd": ("auc", "asd_demo_auc", 0.80),
}
RUNS = {"": [], "_control": ["data.shuffle_labels=true"]}  # end of the name: overrides
MARGIN = 0.2  # goal: so much above the control


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    lines = []
    for task in options.tasks:
        score, name, goal = FIGURES[task]
        found = {end: train(task, end, overrides) for end, overrides in RUNS.items()}
        values = {end: run.about["scores"][score] for end, run in found.items()}
        minutes = {end: wall_minutes(run) for end, run in found.items()}
        lines.append(
            f"| {task}: {score} | {values['']:.3f} | {goal:.2f} | {values['_control']:.3f} | "
            f"{values[''] - values['_control']:.3f} | {MARGIN} | {minutes['']:.1f} | {minutes['_control']:.1f} |"
        )
        for end, value in values.items() if options.record else ():
            unit = f"{score}, fold 0" + (", labels permuted" if end else "")
            record(name + end, float(value), unit, "python benchmarks/bench_tasks.py --record")
    print("| embedded task | score | goal | control | above it | goal | minutes | minutes of the control |")
    print("\n".join(["|---|---|---|---|---|---|---|---|", *lines]))


def train(task: str, end: str, overrides: list[str]) -> FoldRun:
    """Fold 0 of the task's config, or what an earlier call left of it."""
    name = f"bench_tasks{end}"
    run = FoldRun(Path("runs") / task / name / "fold0")
    if run.finished:  # not entered again: that would write config.yaml anew, which minutes are counted from
        return run
    command = [sys.executable, "src/train.py", "--config", f"configs/{task}/se_trans_fmix.yaml", "--fold", "0"]
    subprocess.run([*command, "--name", name, "--resume", *overrides], check=True)
    return run


def wall_minutes(run: FoldRun) -> float:
    """From config.yaml to run.json; of a run that was stopped and resumed only the last stretch."""
    return ((run.folder / "run.json").stat().st_mtime - (run.folder / "config.yaml").stat().st_mtime) / 60


if __name__ == "__main__":
    main()

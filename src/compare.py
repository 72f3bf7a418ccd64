"""Train many systems on many tasks with several seeds, and write the table of their scores: mean and deviation.

python src/compare.py configs/compare/se_trans.yaml                      # on the embedded data sets
python src/compare.py configs/compare/se_trans.yaml --tasks scenes --systems se_trans se_trans_fmix --seeds 1 2
python src/compare.py configs/compare/se_trans.yaml --only-table         # of what has been trained so far

The file names the tasks with the scores to show, the systems (configs/<task>/<system>.yaml), the seeds, and `overrides`
of every run and of each task (a real data set's folder, its rates). A run that is finished is kept and one that was
stopped goes on, so that the command can be given again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from earshot import runs
from earshot.competitions.tables import write_csv
from earshot.config import load_config
from earshot.spelling import suggest

KEYS = ("tasks", "systems", "seeds", "overrides", "fold")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def main():
    options = parse_args()
    plan = read_plan(options)
    if not options.only_table:
        train_all(plan, options)
    table = collect(plan, options.plan.stem)
    out = options.out or Path("runs") / "compare" / options.plan.stem
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table, out.with_suffix(".csv"))
    runs.write_text(out.with_suffix(".md"), markdown(table, plan))
    print(markdown(table, plan))
    print(f"-> {out}.csv, {out}.md")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="YAML: tasks, systems, seeds, overrides")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--systems", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the file's")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="overrides of every run")
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, help="table without its ending (default runs/compare/<plan>)")
    return parser.parse_args()


def read_plan(options: argparse.Namespace) -> dict:
    """The checked plan, with the command line's choices: {tasks: {task: [scores]}, systems, seeds, overrides, fold}."""
    if not options.plan.is_file():
        raise ValueError(f"{options.plan} does not exist; see configs/compare")
    try:
        plan = yaml.safe_load(options.plan.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{options.plan} is not valid YAML: {error}") from error
    known_tasks = list(plan.get("tasks") or ())
    for key in plan:
        if key not in KEYS:
            raise ValueError(f"unknown key '{key}' in {options.plan}{suggest(key, KEYS)}")
    for key in ("tasks", "systems", "seeds"):
        if not plan.get(key):
            raise ValueError(f"{options.plan} names no {key}")
    for name in ("tasks", "systems"):
        chosen = getattr(options, name)
        for value in chosen or ():
            if value not in plan[name]:
                raise ValueError(f"--{name} {value} is not in {options.plan}{suggest(value, plan[name])}")
        if chosen:
            plan[name] = {t: plan["tasks"][t] for t in chosen} if name == "tasks" else list(chosen)
    plan["seeds"] = options.seeds or plan["seeds"]
    plan["fold"] = str(plan.get("fold", 0))
    plan["overrides"] = plan.get("overrides") or {}
    for task in plan["overrides"]:
        if task not in ("all", *known_tasks):
            raise ValueError(f"overrides of '{task}', which is no task here{suggest(task, ['all', *known_tasks])}")
    for task, system in ((t, s) for t in plan["tasks"] for s in plan["systems"]):
        load_config(config_of(task, system))  # a wrong name is an error before hours of training
    return plan


def config_of(task: str, system: str) -> Path:
    return CONFIGS / task / f"{system}.yaml"


def run_name(plan_name: str, system: str, seed: int) -> str:
    return f"{plan_name}-{system}-seed{seed}"


def train_all(plan: dict, options: argparse.Namespace):
    """One train.py a run, one after the other; a run that fails is named at the end, the others go on."""
    todo = [(t, s, seed) for seed in plan["seeds"] for t in plan["tasks"] for s in plan["systems"]]
    failed = []
    for number, (task, system, seed) in enumerate(todo, start=1):
        name, started = run_name(options.plan.stem, system, seed), time.monotonic()
        command = [sys.executable, Path(__file__).with_name("train.py"), "--config", config_of(task, system)]
        command += ["--name", name, "--fold", plan["fold"], "--resume", f"seed={seed}"]
        command += [*plan["overrides"].get("all", ()), *plan["overrides"].get(task, ()), *options.set]
        done = subprocess.run([str(c) for c in command], env=os.environ, capture_output=True, text=True)
        outcome = "done" if done.returncode == 0 else done.stderr.strip().splitlines()[-1:] or ["failed"]
        print(f"{number}/{len(todo)} {task} {name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
        if done.returncode:
            failed.append(f"{task}/{name}")
    if failed:
        print(f"{len(failed)} runs failed and are left out of the table: {', '.join(failed)}", file=sys.stderr)


def collect(plan: dict, plan_name: str) -> pd.DataFrame:
    """One row a task, system and score: mean and standard deviation over the finished seeds, and parameters."""
    rows = []
    for task, scores in plan["tasks"].items():
        for system in plan["systems"]:
            found = [f for seed in plan["seeds"] if (f := _finished(task, run_name(plan_name, system, seed), plan))]
            for score in scores:
                values = [f["scores"][score] for f in found if score in f["scores"]]
                rows.append({
                    "task": task, "system": system, "score": score, "seeds": len(values),
                    "mean": np.mean(values) if values else np.nan,
                    "deviation": np.std(values, ddof=1) if len(values) > 1 else np.nan,
                    "parameters": found[0].get("parameters", 0) if found else 0,
                })  # fmt: skip
    return pd.DataFrame(rows)


def _finished(task: str, name: str, plan: dict) -> dict | None:
    """run.json of a finished run, or None."""
    fold = runs.FoldRun(Path("runs") / task / name / f"fold{plan['fold']}")
    return fold.about if fold.finished else None


def markdown(table: pd.DataFrame, plan: dict) -> str:
    """Systems down, scores of the tasks across: mean +- deviation over the seeds."""
    columns = [(t, s) for t, scores in plan["tasks"].items() for s in scores]
    lines = ["| system | parameters | " + " | ".join(f"{t} {s}" for t, s in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for system in plan["systems"]:
        rows = table[table.system == system].set_index(["task", "score"])
        size = rows.parameters.max()
        cells = [_cell(rows.loc[c]) for c in columns]
        lines.append(f"| {system} | {f'{size:,}' if size else '-'} | " + " | ".join(cells) + " |")
    counts = ", ".join(sorted({str(n) for n in table.seeds}))
    return "\n".join(
        [*lines, "", f"Mean +- standard deviation over seeds ({counts} finished of {len(plan['seeds'])})."]
    )


def _cell(row: pd.Series) -> str:
    if not row.seeds:
        return "-"
    return f"{row['mean']:.3f}" + (f" +- {row.deviation:.3f}" if row.seeds > 1 else "")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")

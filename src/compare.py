"""Train many systems on many tasks with several seeds, and write the table of their scores: mean and deviation.

python src/compare.py configs/compare/se_trans.yaml                      # on the embedded data sets
python src/compare.py configs/compare/se_trans.yaml --tasks scenes --systems se_trans se_trans_fmix --seeds 1 2
python src/compare.py configs/compare/se_trans.yaml --check              # only list the runs, and check each
python src/compare.py configs/compare/se_trans.yaml --only-table         # of what has been trained so far
python src/compare.py configs/compare/se_trans_dcase.yaml --tasks asd --jointly   # one model of all machines

The file names the tasks with the scores to show, the systems (configs/<task>/<system>.yaml), the seeds, `overrides`
of every run and of each task (a real data set's folder, its rates), and `augmentations`: the systems whose class-wise
scores are drawn beside each other. `each` splits a task into runs: {asd: {data.where.machine: [fan, pump]}} trains one
model a machine, and the score of a seed is their mean. `scenes@tut2017` is the task scenes on a data set of that name,
which its overrides choose and its runs' names have. `fold: all` trains all folds and averages them. `published` holds
what a source printed, {system: {task: value, or {score: value}}}: in brackets, or as a row of its own. A run that is
finished is kept and one that was stopped goes on, so that the command can be given again. Beside the table:
<table>_parameters.png, each task's first score by the size of the system, and <table>_classes_<task>.png, clips and
AUPRC of each class, where the task scores its classes (ust).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot import files, runs
from earshot.competitions.tables import write_csv
from earshot.config import LARGEST_SEED, load_config
from earshot.ensemble.origins import check_same_tables
from earshot.messages import Parser, check_numbers, plural, suggest
from earshot.pictures import runs as run_pictures
from earshot.processes import children
from earshot.stored import read_yaml
from earshot.tables import read_table
from earshot.training.beforehand import check_training

KEYS = ("tasks", "systems", "seeds", "overrides", "fold", "augmentations", "each", "published")
COMPARED = ("folds", "clips")  # tables that all systems of a task share; their classes may be of several levels
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def main():
    options = parse_args()
    out = options.out or Path("runs") / "compare" / options.plan.stem
    files.check_writable(out.with_suffix(".csv"))
    plan = read_plan(options)
    if options.check:
        check(plan, options)
        return
    if not options.only_table:
        train_all(plan, options)
    table = collect(plan, options.plan.stem)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table, out.with_suffix(".csv"))
    files.write_text(out.with_suffix(".md"), markdown(table, plan))
    print(markdown(table, plan))
    drawn = draw(plan, table, options.plan.stem, out)
    print(f"-> {', '.join([f'{out}.csv', f'{out}.md', *map(str, drawn)])}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("plan", type=Path, help="YAML: tasks, systems, seeds, overrides")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--systems", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the file's")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="overrides of every run")
    parser.add_argument("--jointly", action="store_true", help="one model where the file's `each` asks for several")
    parser.add_argument(
        "--check", action="store_true", help="only check the plan, its configs and data, and list the runs"
    )
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, help="table without its ending (default runs/compare/<plan>)")
    options = parser.parse_args()
    check_numbers(options, "seeds", high=LARGEST_SEED)
    return options


def read_plan(options: argparse.Namespace) -> dict:
    """The checked plan, with the command line's choices: {tasks: {task: [scores]}, systems, seeds, overrides, fold}."""
    if not options.plan.is_file():
        raise ValueError(f"{options.plan} does not exist; see configs/compare")
    plan = read_yaml(options.plan, "plan")
    check_plan(plan, options.plan)
    known_tasks, known_systems = list(plan.get("tasks") or ()), list(plan.get("systems") or ())
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
    plan["each"] = {} if options.jointly else plan.get("each") or {}
    for task, split in plan["each"].items():
        if task not in known_tasks:
            raise ValueError(f"each of '{task}', which is no task here{suggest(task, known_tasks)}")
        if not isinstance(split, dict) or len(split) != 1 or not isinstance(next(iter(split.values())), list):
            raise ValueError(f"each.{task} must be one key with its values, such as data.where.machine: [fan, pump]")
    for task in plan["overrides"]:
        if task not in ("all", *known_tasks):
            raise ValueError(f"overrides of '{task}', which is no task here{suggest(task, ['all', *known_tasks])}")
    for system in plan.get("augmentations") or ():
        if system not in known_systems:
            raise ValueError(f"augmentations names {system}, which is no system here{suggest(system, known_systems)}")
    plan["augmentations"] = [s for s in plan.get("augmentations") or () if s in plan["systems"]]
    plan["published"] = printed_values(plan.get("published") or {}, plan["tasks"], known_tasks)
    for task, system in ((t, s) for t in plan["tasks"] for s in plan["systems"]):
        load_config(config_of(task, system))  # a wrong name is an error before hours of training
    return plan


def check_plan(plan: dict, path: Path):
    """Raise unless every value of the plan is of its kind: names the key and what came."""
    kinds = {
        "tasks": ("a list of scores for each task", lambda v: isinstance(v, dict) and all(map(is_names, v.values()))),
        "systems": ("a list of names", is_names),
        "augmentations": ("a list of names", is_names),
        "seeds": ("a list of whole numbers", lambda v: isinstance(v, list) and all(type(s) is int for s in v)),
        "overrides": ("a list of key=value for each task, or `all`",
                      lambda v: isinstance(v, dict) and all(map(is_names, v.values()))),
        "each": ("one key with its values for each task", lambda v: isinstance(v, dict)),
        "published": ("values of tasks for each row", lambda v: isinstance(v, dict)),
        "fold": ("a number, or all", lambda v: v == "all" or (type(v) is int and v >= 0)),
    }  # fmt: skip
    for key, (what, fits) in kinds.items():
        if plan.get(key) is not None and not fits(plan[key]):
            raise ValueError(f"{path}: {key} must be {what}, got {str(plan[key])[:80]!r}")


def is_names(value) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def printed_values(published: dict, tasks: dict, known_tasks: list[str]) -> dict[str, dict[tuple[str, str], float]]:
    """The plan's `published` -> {row: {(task, score): value}} of the chosen tasks; a number is of a task's first."""
    found = {}
    for row, of_tasks in published.items():
        found[row] = {}
        for task, values in (of_tasks or {}).items():
            if task not in known_tasks:
                raise ValueError(f"published.{row} names '{task}', which is no task here{suggest(task, known_tasks)}")
            if task not in tasks:
                continue
            values = values if isinstance(values, dict) else {tasks[task][0]: values}
            for score, value in values.items():
                if score not in tasks[task] or isinstance(value, bool) or not isinstance(value, int | float):
                    raise ValueError(
                        f"published.{row}.{task} must be a number, or one a score: {', '.join(tasks[task])}"
                    )
                found[row][task, score] = float(value)
    return found


def kind_of(task: str) -> str:
    """The folder of a task's configs and runs: 'scenes@tut2017' -> 'scenes'."""
    return task.partition("@")[0]


def config_of(task: str, system: str) -> Path:
    return CONFIGS / kind_of(task) / f"{system}.yaml"


def parts(plan: dict, task: str) -> dict[str, list[str]]:
    """The runs that one seed of a system takes: {ending of the run's name: overrides}."""
    split = plan.get("each", {}).get(task)
    if not split:
        return {"": []}
    ((key, values),) = split.items()
    return {f"-{value}": [f"{key}={value}"] for value in values}


def run_name(plan_name: str, task: str, system: str, seed: int, part: str = "") -> str:
    data = task.partition("@")[2]
    return "-".join([plan_name, *([data] if data else []), system, f"seed{seed}{part}"])


@dataclass(frozen=True, kw_only=True)
class OneRun:
    """A training of the plan."""

    task: str
    name: str
    config: Path
    settings: tuple[str, ...]


def runs_of(plan: dict, options: argparse.Namespace) -> list[OneRun]:
    """All trainings of the plan, in order."""
    return [
        OneRun(task=task, name=run_name(options.plan.stem, task, system, seed, part), config=config_of(task, system),
               settings=(f"seed={seed}", *settings_of(plan, task, own, options.set)))
        for seed in plan["seeds"] for task in plan["tasks"] for system in plan["systems"]
        for part, own in parts(plan, task).items()
    ]  # fmt: skip


def settings_of(plan: dict, task: str, own: list[str], last: list[str]) -> list[str]:
    """The settings of a run: of those of one key the nearest one to the run counts."""
    settings = [*plan["overrides"].get("all", ()), *plan["overrides"].get(task, ()), *own, *last]
    return list({text.partition("=")[0]: text for text in settings}.values())


def check(plan: dict, options: argparse.Namespace):
    """Ask of every run what train.py asks before its first batch, and list them; the first that fails is the error."""
    todo = runs_of(plan, options)
    for number, one in enumerate(todo, start=1):
        config = load_config(one.config, one.settings)
        try:
            check_training(config, () if plan["fold"] == "all" else [int(plan["fold"])])
        except ValueError as error:
            raise ValueError(f"{one.task} {one.name}: {error}") from error
        print(f"{number}/{len(todo)} {runs.run_folder(config, None, one.name)}: {one.config}", flush=True)


def train_all(plan: dict, options: argparse.Namespace):
    """One train.py a run, one after the other; a run that fails is named at the end, the others go on."""
    todo, failed = runs_of(plan, options), []
    for number, one in enumerate(todo, start=1):
        started = time.monotonic()
        command = [sys.executable, Path(__file__).with_name("train.py"), "--config", one.config]
        command += ["--name", one.name, "--fold", plan["fold"], "--resume", *one.settings]
        done = children.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        outcome = "done" if done.returncode == 0 else done.stderr.strip().splitlines()[-1:] or ["failed"]
        print(f"{number}/{len(todo)} {one.task} {one.name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
        if done.returncode:
            failed.append(f"{one.task}/{one.name}")
    if failed:
        print(f"{plural(len(failed), 'runs')} failed, left out of the table: {', '.join(failed)}", file=sys.stderr)


def collect(plan: dict, plan_name: str) -> pd.DataFrame:
    """One row a task, system and score: mean and standard deviation over the finished seeds, and parameters."""
    rows = []
    for task, scores in plan["tasks"].items():
        of_task: list[list[runs.FoldRun]] = []
        for system in plan["systems"]:
            of_system = finished(task, system, plan, plan_name)
            of_task += of_system
            found = [[fold.about for fold in folds] for folds in of_system]
            for score in scores:
                of_seeds = [[f["scores"][score] for f in folds if score in f["scores"]] for folds in found]
                values = [np.mean(v) for v, folds in zip(of_seeds, found, strict=True) if len(v) == len(folds)]
                rows.append({
                    "task": task, "system": system, "score": score, "seeds": len(values),
                    "mean": np.mean(values) if values else np.nan,
                    "deviation": np.std(values, ddof=1) if len(values) > 1 else np.nan,
                    "parameters": found[0][0].get("parameters", 0) if found else 0,
                })  # fmt: skip
        for same in zip(*of_task, strict=False):  # one fold, of one part, of every system and seed
            check_same_tables(
                [runs.Run(fold.folder.parent, (fold,)) for fold in same], "their scores do not compare", COMPARED
            )
    table = pd.DataFrame(rows)
    if plan["published"]:
        table = with_published(table, plan)
    return table


def with_published(table: pd.DataFrame, plan: dict) -> pd.DataFrame:
    """The table with a column of what was printed; what is no system here is rows of its own."""
    rows = [
        {"task": task, "system": row, "score": score, "seeds": 0, "parameters": 0}
        for row in plan["published"] if row not in plan["systems"]
        for task, scores in plan["tasks"].items() for score in scores
    ]  # fmt: skip
    table = pd.concat([table, pd.DataFrame(rows, columns=table.columns)]) if rows else table
    values = [plan["published"].get(r.system, {}).get((r.task, r.score), np.nan) for r in table.itertuples()]
    return table.assign(published=values).reset_index(drop=True)


def finished(task: str, system: str, plan: dict, plan_name: str) -> list[list[runs.FoldRun]]:
    """The folds of each seed that is trained to its end: one fold or all, with `each` of every part."""
    found = []
    for seed in plan["seeds"]:
        names = [run_name(plan_name, task, system, seed, part) for part in parts(plan, task)]
        of_parts = [folds_of(Path("runs") / kind_of(task) / name, plan["fold"]) for name in names]
        if all(of_parts):
            found.append([fold for folds in of_parts for fold in folds])
            for fold in found[-1]:
                fold.check()
    return found


def folds_of(folder: Path, fold: str) -> list[runs.FoldRun]:
    """The finished folds of a run that count; none where one of them is missing."""
    if fold != "all":
        one = runs.FoldRun(folder / f"fold{fold}")
        return [one] if one.finished else []
    return list(runs.load_run(folder).folds) if (folder / "oof.npz").is_file() else []  # train.py joins whole runs


def draw(plan: dict, table: pd.DataFrame, plan_name: str, out: Path) -> list[Path]:
    """The pictures that the finished runs allow: score by parameters, class-wise AUPRC by augmentation."""
    paths, panels = [], {}
    for task, scores in plan["tasks"].items():
        done = table[(table.task == task) & (table.score == scores[0]) & (table.seeds > 0)]
        if len(done):
            columns = done[["system", "parameters", "mean", "deviation"]]
            panels[f"{task}: {scores[0]}"] = list(columns.itertuples(index=False, name=None))
        folds = {system: finished(task, system, plan, plan_name) for system in plan["augmentations"]}
        found = {system: class_scores([of_seed[0] for of_seed in of]) for system, of in folds.items() if of}
        if found and len(next(iter(found.values())).columns):
            clips = training_clips(next(of[0][0] for of in folds.values() if of))
            paths.append(out.with_name(f"{out.name}_classes_{task}.png"))
            run_pictures.class_scores_by_system(clips, found, "AUPRC", paths[-1])
    if panels:
        paths.insert(0, out.with_name(f"{out.name}_parameters.png"))
        run_pictures.score_by_parameters(panels, paths[0])
    return paths


def class_scores(folds: list[runs.FoldRun]) -> pd.DataFrame:
    """A row a seed, a column a class: its AUPRC, where the task's scores have it (auprc_<class>)."""
    classes = folds[0].about["classes"]
    rows = [{c: f.about["scores"][f"auprc_{c}"] for c in classes if f"auprc_{c}" in f.about["scores"]} for f in folds]
    return pd.DataFrame(rows)


def training_clips(fold: runs.FoldRun) -> pd.Series:
    """Label -> clips that the fold was trained on."""
    return read_table(fold.folder / "classes.csv", ("label", "train_clips")).set_index("label").train_clips


def markdown(table: pd.DataFrame, plan: dict) -> str:
    """Systems down, scores of the tasks across: mean +- deviation over the seeds."""
    columns = [(t, s) for t, scores in plan["tasks"].items() for s in scores]
    lines = ["| system | parameters | " + " | ".join(f"{t} {s}" for t, s in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for system in dict.fromkeys(table.system):
        rows = table[table.system == system].set_index(["task", "score"])
        size = rows.parameters.max()
        cells = [_cell(rows.loc[c]) for c in columns]
        lines.append(f"| {system} | {f'{size:,}' if size else '-'} | " + " | ".join(cells) + " |")
    counts = ", ".join(sorted({str(n) for n in table.seeds[table.system.isin(plan["systems"])]}))
    told = f"Mean +- standard deviation over seeds ({counts} finished of {len(plan['seeds'])})."
    return "\n".join([*lines, "", told + " In brackets: as published." * ("published" in table)])


def _cell(row: pd.Series) -> str:
    own = f"{row['mean']:.3f}" if row.seeds else ""
    own += f" +- {row.deviation:.3f}" if row.seeds > 1 else ""
    printed = f"({row.published:.3f})" if not np.isnan(row.get("published", np.nan)) else ""
    return " ".join(filter(None, (own, printed))) or "-"


if __name__ == "__main__":
    run_script(main)

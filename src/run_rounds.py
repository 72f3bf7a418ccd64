"""Train, label, train again: a whole schedule of pseudo-label rounds, which stops where the honest score gains nothing.

python src/run_rounds.py configs/rounds/synth_birds.yaml
python src/run_rounds.py configs/rounds/synth_birds.yaml --name seed2 --set seed=2 optim.epochs=4
python src/run_rounds.py configs/rounds/synth_birds.yaml --check          # only say what would be done, and check it
python src/run_rounds.py configs/rounds/synth_birds.yaml --only-table     # what there is so far, nothing is trained

Each round: teachers label (src/pseudo_label.py), a student trains on it (src/train.py), its OOF is scored. Stopped at
any place, the same command goes on there. Runs are runs/<task>/<name>-round<n>, figures in runs/rounds/<name>.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import sys
from pathlib import Path

from earshot.script import run_script

from earshot import files, runs
from earshot.config import load_config
from earshot.messages import Parser, check_numbers, few, progress_bar
from earshot.processes import children
from earshot.rounds.judging import Judged, decide, judge, paired_text
from earshot.rounds.plan import Plan, Step, are_made, read_plan, steps_of
from earshot.training.beforehand import check_training, make_embedded_data

HERE = Path(__file__).parent


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_numbers(options, "jobs", low=1)
    name = options.name or options.plan.stem
    out = options.out or Path("runs") / "rounds" / f"{name}.csv"
    files.check_ending(out, ".csv")
    files.check_writable(out, "give --out FILE.csv")
    plan = read_plan(options.plan)
    steps = steps_of(plan, name, tuple(options.set))
    if not options.only_table:
        make_embedded_data(load_config(steps[-1].config, steps[-1].settings))
    if not Path(plan.unlabelled).exists():
        raise ValueError(f"{options.plan}: unlabelled {plan.unlabelled} does not exist: name a table or a folder")
    judged: list[tuple[Path, Judged]] = [
        (Path(run), of_run(Path(run), plan, options)) for run in plan.teacher.runs[-1:]
    ]
    if judged:
        decide([one.value for _, one in judged], plan.honest)  # an error before hours of training
    if options.check:
        check(steps, plan)
        return
    rows = [row_of(None, run, found, []) for run, found in judged]
    for step in steps:
        if options.only_table and not is_trained(step, plan):
            break
        if not options.only_table:
            if step.labels:
                label(step, plan)
            train(step, plan, options)
        found = of_run(step.run, plan, options)
        rows.append(row_of(step, step.run, found, judged))
        judged.append((step.run, found))
        best, ends = decide([one.value for _, one in judged], plan.honest)
        files.write_rows(out, rows)
        print(told(step, found, judged), flush=True)
        if ends and step is not steps[-1]:
            print(f"round {step.number} gains no more than {plan.honest.min_gain:g}: the schedule ends here")
            break
    if not judged:
        raise ValueError(f"{name}: nothing is trained yet; leave --only-table out")
    best, _ = decide([one.value for _, one in judged], plan.honest)
    run, found = judged[best]
    about = {"best": str(run), "score": found.score, "value": found.value, "rounds": rows, "plan": str(options.plan)}
    files.write_text(out.with_suffix(".json"), files.as_json(about, indent=1) + "\n")
    print(f"best: {run}, {found.score} {found.value:.4f} -> {out}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("plan", type=Path, help="YAML of the schedule: see configs/rounds and docs/rounds.md")
    add("--name", default="", help="of runs and pseudo-labels (default: the file's)")
    add("--set", nargs="+", default=[], metavar="key=value", help="settings of every run, after the file's")
    add("--jobs", type=int, default=1, help="folds that train at a time")
    add("--check", action="store_true", help="only check the schedule, its configs and data, and list its rounds")
    add("--only-table", action="store_true", help="train and label nothing, score what is there")
    add("--out", type=Path, help="table of the rounds (default runs/rounds/<name>.csv)")
    return parser.parse_args()


def check(steps: list[Step], plan: Plan):
    """Ask of every training what train.py asks before its first batch, and list what would be done."""
    for config, settings in dict.fromkeys((step.config, step.settings) for step in steps):
        check_training(load_config(config, settings), plan.folds)
    for step in steps:
        done = " (trained)" if is_trained(step, plan) else ""
        told = f", with labels of {plan.unlabelled} by {few(step.teachers)}" if step.labels else ""
        print(f"round {step.number}: {step.run}{done}, {step.config}{told}")


def folds_of(plan: Plan) -> list[str]:
    return [str(fold) for fold in plan.folds] or ["all"]


def is_trained(step: Step, plan: Plan) -> bool:
    """Whether all folds of a training are there to the end."""
    if not step.run.is_dir():
        return False
    done = {fold.fold for fold in runs.load_run(step.run).folds if fold.finished}
    return set(plan.folds) <= done if plan.folds else (step.run / "oof.npz").is_file()


def label(step: Step, plan: Plan):
    """Make a round's pseudo-labels, unless they are there."""
    choice = plan.choice(step.number)
    if are_made(step, choice):
        print(f"round {step.number}: {step.labels} is there; kept", flush=True)
        return
    command = [sys.executable, HERE / "pseudo_label.py", "--runs", *step.teachers, "--clips", plan.unlabelled]
    command += ["--out", step.labels, *(["--folds", *plan.folds] if plan.folds else [])]
    command += ["--skip-labelled"] * plan.skip_labelled
    for key in ("audio_root", "site_column"):
        command += [f"--{key.replace('_', '-')}", getattr(plan, key)] if getattr(plan, key) else []
    for field in dataclasses.fields(choice):
        if (value := getattr(choice, field.name)) != field.default:
            command += [f"--{field.name.replace('_', '-')}", value]
    print(f"round {step.number}: labelling", flush=True)
    children.run(command, check=True)


def train(step: Step, plan: Plan, options: argparse.Namespace):
    """Train the folds of a step, or go on with them."""
    command = [sys.executable, HERE / "train.py", "--config", step.config, "--name", step.run.name, "--resume"]
    command += ["--fold", *folds_of(plan), "--jobs", options.jobs, *step.settings]
    command += [f"data.pseudo={step.labels}"] if step.labels else []
    print(f"round {step.number}: training {step.run}", flush=True)
    children.run(command, check=True)


def of_run(run: Path, plan: Plan, options: argparse.Namespace) -> Judged:
    """A run's honest score, on the student's tables."""
    config = load_config(plan.student.config, (*plan.student.set, *options.set))
    return judge(
        run, config, plan.honest, plan.folds,
        lambda some: progress_bar(some, "judge"),
    )  # fmt: skip


def row_of(step: Step | None, run: Path, found: Judged, before: list[tuple[Path, Judged]]) -> dict:
    """A row of the table."""
    number = step.number if step else 0
    known = [one.value for _, one in before if not math.isnan(one.value)]
    gain = found.value - max(known) if known else ""
    folds = " ".join(f"{value:.4f}" for value in found.of_folds.values())
    labels = str(step.labels) if step and step.labels else ""
    return {"round": number, "run": str(run), "pseudo": labels, "score": found.score, "value": found.value,
            "gain": gain, "of_folds": folds}  # fmt: skip


def told(step: Step, found: Judged, judged: list[tuple[Path, Judged]]) -> str:
    """A round as a line for people."""
    text = f"round {step.number}: {step.run}, honest {found.score} {found.value:.4f}"
    if len(judged) > 1:
        text += f", {paired_text(found, judged[-2][1])} over {judged[-2][0].name}"
    return text


if __name__ == "__main__":
    run_script(main)

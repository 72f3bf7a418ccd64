"""Search the settings of a config with Optuna, and report what was chosen on clips that no trial heard.

python src/search.py configs/search/synth_cnn.yaml                 # goes on where it was stopped
python src/search.py configs/search/synth_cnn.yaml --jobs 2        # two trials at a time; other terminals may join
python src/search.py configs/search/synth_cnn.yaml --check         # only say whether the space can be searched
python src/search.py configs/search/synth_cnn.yaml --minutes 60    # begin no trial after an hour

Each outer fold of the plan is kept from its search: trials train and are scored on the other clips alone. The best
settings of a search then train anew, with other seeds, on all clips but the outer fold, and are scored there beside the
config as it is. That figure is reported; the score that the search chose by is higher by luck. See docs/search.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from pathlib import Path

from earshot.script import check_first, run_script

from earshot.messages import Parser, check_numbers, few, plural, progress_bar
from earshot.searching import plan as plans


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("plan", type=Path, help="YAML: config, space, trials, outer, seeds, ... (configs/search)")
    add("--out", type=Path, help="folder of the search (default runs/search/<plan>)")
    add("--jobs", type=int, default=1, help="trials at a time, sharing the cores")
    add("--minutes", type=float, default=0, help="begin no trial after so long; the same command goes on")
    add("--check", action="store_true", help="only check the plan and its space")
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # one of --jobs
    add("--worker-fold", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    check_numbers(options, "jobs", low=1)
    check_numbers(options, "minutes")
    return options


def check_command():
    """What needs no data and no network: the options, and the plan with its config and space."""
    plans.read_plan(parse_args().plan)


if __name__ == "__main__":
    check_first(check_command)  # before PyTorch is loaded, which takes seconds

import numpy as np
import yaml

from earshot import files, tasks
from earshot.config import Config
from earshot.data.prepared import load_data
from earshot.prediction.free_cores import allowed_cores
from earshot.processes import children
from earshot.records import to_dict
from earshot.searching import study as studies
from earshot.searching.plan import SearchPlan, Split
from earshot.searching.space import overrides_of
from earshot.searching.training import Trainer
from earshot.training.beforehand import make_embedded_data
from earshot.training.checks import check_run


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    out = options.out or Path("runs") / "search" / options.plan.stem
    files.check_writable(out / "report.json", "give --out FOLDER")
    plan = plans.read_plan(options.plan)
    studies.optuna()
    base = plans.base_config(plan)
    make_embedded_data(base)
    outer = plans.outer_folds(plan, base)
    if not options.worker:
        check_space(plan, base)
    if options.check:
        apart = "nothing kept apart" if outer == [None] else f"for each fold kept apart ({few(outer, 20)})"
        print(
            f"{options.plan} is in order: {plural(len(plan.space), 'settings are')} searched by "
            f"{plural(plan.trials, 'trials')}, {apart}"
        )
        return
    began, found = time.monotonic(), []
    deadline = began + 60 * options.minutes if options.minutes else math.inf
    for fold in [options.worker_fold] if options.worker else outer:
        fold = None if fold == -1 else fold
        folder = out / ("everything" if fold is None else f"outer{fold}")
        split = plans.make_split(plan, base, fold, folder)
        study = studies.open_study(folder, plan, plans.fingerprint(plan, split))
        if options.worker:
            return try_settings(study, plan, split, folder, deadline)
        search(study, plan, split, folder, options, deadline)
        studies.write_trials(study, plan.read_space, folder / "trials.csv", turned(base))
        if studies.counted(study) < plan.trials:
            print(f"{folder}: {studies.counted(study)} of {plan.trials} trials; the same command goes on")
            return
        found.append(report_fold(study, plan, split, folder, base))
    write_report(found, plan, base, out)


def check_space(plan: SearchPlan, base: Config):
    """Ask before the first trial of every end of the space what train.py asks before its first batch."""
    known = {}

    def check(config: Config):
        key = json.dumps(to_dict(config.data), sort_keys=True, default=str)
        if key not in known:
            known.clear()
            known[key] = load_data(config.data)
        check_run(config, known[key], ())

    plans.check_settings(plan, check)


def most_epochs(plan: SearchPlan) -> int:
    """The longest training that the space has."""
    part = plan.read_space.get("optim.epochs")
    return int(max(part.extremes())) if part else plans.base_config(plan).optim.epochs


def try_settings(study, plan: SearchPlan, split: Split, folder: Path, deadline: float, done=lambda: None):
    """Run trials in this process."""
    train = Trainer(plan, folder / "trials", tuple(split.overrides))
    studies.run_trials(
        study, plan, folder, train, inner=split.inner, epochs=most_epochs(plan), deadline=deadline, done=done
    )


def search(study, plan: SearchPlan, split: Split, folder: Path, options: argparse.Namespace, deadline: float):
    """The trials of one outer fold, here or in processes of their own, behind a bar."""
    where = f"fold {split.outer} kept apart" if split.outer is not None else "nothing kept apart"
    scored = f"scored on fold {few(split.inner)} of the rest, seed {few(plan.seeds)}"
    print(
        f"{folder}: {where}, {scored}; {studies.counted(study)} of {plan.trials} trials are there",
        flush=True,
    )
    bar = progress_bar(None, f"trials, {where}", plan.trials, "trial")

    def show():
        bar.update(studies.counted(study) - bar.n)

    show()
    if options.jobs == 1:
        try_settings(study, plan, split, folder, deadline, show)
    else:
        in_processes(plan, split, options, deadline, show)
    bar.close()


def in_processes(plan: SearchPlan, split: Split, options: argparse.Namespace, deadline: float, show):
    """Several processes of this script, each with its share of the cores, until none has a trial to run."""
    shared = str(max(1, allowed_cores() // options.jobs))
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", shared), "TQDM_DISABLE": "1"}
    command = [sys.executable, __file__, options.plan, *(["--out", options.out] if options.out else ())]
    command += ["--worker", "--worker-fold", -1 if split.outer is None else split.outer]
    if deadline < math.inf:
        command += ["--minutes", max(0.01, (deadline - time.monotonic()) / 60)]
    running = [children.start(command, environment) for _ in range(options.jobs)]
    try:
        while any(process.poll() is None for process in running):
            show()
            time.sleep(1)
        show()
    finally:
        children.end(running)
    if all(process.returncode for process in running):
        raise ValueError("every process of the search failed; their errors stand above")


def turned(base: Config):
    """A score turned upward -> as it is printed, and back."""
    watch = plans.watched(base)
    return lambda value: tasks.upward(watch, value)


def report_fold(study, plan: SearchPlan, split: Split, folder: Path, base: Config) -> dict:
    """The choice of one search, trained anew and scored on its outer fold beside the config as it is."""
    settings, searched = studies.best_settings(study, plan.read_space)
    show = turned(base)
    files.write_text(folder / "best.yaml", yaml.safe_dump(to_dict(plans.base_config(plan, settings)), sort_keys=False))
    found = {"outer": split.outer, "settings": settings, "searched": show(searched), "chosen": [], "as_it_is": [],
             "importance": studies.importance(study)}  # fmt: skip
    print(f"{folder}: best of {studies.counted(study)} trials: {' '.join(overrides_of(settings))}", flush=True)
    if split.outer is None:
        return found
    train = Trainer(plan, folder / "chosen", keep=True)
    todo = [(seed, which) for seed in plan.report_seeds for which in ("chosen", "as_it_is")]
    for seed, which in progress_bar(todo, f"report on fold {split.outer}", unit="training"):
        *_, (_, score) = train(settings if which == "chosen" else {}, seed, split.outer)
        found[which].append(show(score))
    return found


def write_report(found: list[dict], plan: SearchPlan, base: Config, out: Path):
    """report.json, and on the terminal the figure to believe beside the one that was searched."""
    watch = plans.watched(base)
    chosen = np.array([value for fold in found for value in fold["chosen"]])
    as_it_is = np.array([value for fold in found for value in fold["as_it_is"]])
    searched = float(np.mean([fold["searched"] for fold in found]))
    about = {"watch": watch, "config": plan.config, "trials": plan.trials, "searched": searched, "folds": found}
    lines = [f"searched {watch} {searched:.4f}: best of {plan.trials} trials by their own scores, no figure to report"]
    if len(chosen):
        gain = chosen - as_it_is
        values = {"reported": chosen.mean(), "deviation": chosen.std(), "as_it_is": as_it_is.mean()}
        values |= {"gain": gain.mean(), "gain_deviation": gain.std()}
        about |= {key: float(value) for key, value in values.items()}
        what = f"fold {few(fold['outer'] for fold in found)}, which no trial heard, seed {few(plan.report_seeds)}"
        lines += [
            f"reported {watch} {chosen.mean():.4f} +- {chosen.std():.4f} on {what}",
            f"the config as it is {as_it_is.mean():.4f} +- {as_it_is.std():.4f}; "
            f"gain {gain.mean():+.4f} +- {gain.std():.4f} over {plural(len(gain), 'pairs')}",
        ]
    else:
        lines += ["nothing was kept apart (outer: []): score the choice on clips that the search never heard"]
    for fold in found:
        where = out / ("everything" if fold["outer"] is None else f"outer{fold['outer']}") / "best.yaml"
        told = ", ".join(f"{key} {share:.0%}" for key, share in fold["importance"].items())
        lines += [f"{where}: {' '.join(overrides_of(fold['settings']))}" + (f" (mattered: {told})" if told else "")]
    files.write_text(out / "report.json", files.as_json(about, indent=1) + "\n")
    print("\n".join([*lines, f"-> {out / 'report.json'}"]))


if __name__ == "__main__":
    run_script(main)

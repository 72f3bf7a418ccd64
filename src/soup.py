"""Average the weights of several runs of one network into one, fold by fold: as fast as one run, often as good as all.

python src/soup.py --runs runs/sed/seed1 runs/sed/seed2 runs/sed/seed3 --name soup
python src/soup.py --runs runs/sed/a runs/sed/b --name soup --fold 0

Runs need one network, one fold table, and weights that belong together: trained from one checkpoint, or on from each
other. Batch norms are measured again on each fold's training clips. The result is a run like any other, whose folds
train.py validates; the scores of all stand beside each other at the end.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from earshot.script import check_first, run_script

from earshot import runs
from earshot.files import check_writable
from earshot.messages import Parser, command_line, few, plural


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of the runs: runs/<task>/<name>")
    parser.add_argument("--name", required=True, help="name of the new run")
    parser.add_argument("--fold", type=int, nargs="+", help="only these folds (default: all that every run has)")
    return parser.parse_args()


def check_command() -> argparse.Namespace:
    """What needs no network: two runs or more, which are there."""
    options = parse_args()
    if len(options.runs) < 2:
        raise ValueError("--runs names one run: a soup is of two or more")
    check_writable(Path("runs") / options.name, "soup where the folder of runs can be written")
    for folder in options.runs:
        runs.load_run(folder)
    return options


if __name__ == "__main__":
    check_first(check_command)  # before PyTorch is loaded, which takes seconds

import numpy as np
import torch
from accelerate import Accelerator

from earshot import optim, tasks
from earshot.config.difference import config_difference
from earshot.data.folds import held_out_folds
from earshot.data.prepared import load_data
from earshot.ensemble import lineage
from earshot.ensemble.origins import check_distinct, check_same_tables, check_tables
from earshot.processes import children
from earshot.records import to_dict
from earshot.training.averaging import passes
from earshot.training.norms import has_batch_norms, measure_batch_norms
from earshot.training.oof_report import report_oof
from earshot.training.origins import origin_of
from earshot.training.setup import set_up

SAME = ("task", "frontends")  # sections of the config that the runs share, beside the network


def main():
    options = check_command()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    members = [runs.load_run(folder) for folder in options.runs]
    check_members(members)
    config = members[0].config
    out = runs.run_folder(config, None, options.name)
    check_writable(out / "soup" / "fold0.safetensors", "choose another --name")
    folds = common_folds(members, options.fold)
    for fold in folds:
        runs.check_fold(out / f"fold{fold}", config, resume=False)
    data = load_data(config.data)
    for run in members:
        check_tables(run.folds, data.digests)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    for fold in folds:
        path = stir(members, fold, out, data, accelerator)
        print(f"fold {fold}: the mean of {len(members)} runs' weights -> {path}", flush=True)
    config_file = members[0].folds[0].folder / "config.yaml"
    command = [sys.executable, Path(__file__).with_name("train.py"), "--config", config_file, "--child"]
    command += ["--name", options.name, "--fold", *folds, "optim.epochs=0", "optim.swa_epochs=0", "model.drop=[]"]
    children.run([*command, "model.download=false", f"model.weights={out}/soup/fold{{fold}}.safetensors"], check=True)
    if others := lacking(members, out, data):
        print("\n".join(others))
    else:
        report_oof(config, out)
    for run in [*members, runs.load_run(out)]:
        print(scores_text(run, folds))


def check_members(members: list[runs.Run]):
    """Raise where the runs' weights cannot be averaged: copies, other tables, networks or inputs; both are named."""
    check_distinct(members)
    check_same_tables(members, "weights of other folds or classes cannot be averaged")
    first = members[0].config
    for run in members[1:]:
        other = run.config
        differ = config_difference(
            {"name": first.model.name, "params": dict(first.model.params)},
            {"name": other.model.name, "params": dict(other.model.params)}, "model.",
        )  # fmt: skip
        for section in SAME:
            a, b = ({section: to_dict(getattr(c, section)) if section != "task" else c.task} for c in (first, other))
            differ = differ or config_difference(a, b)
        if differ:
            raise ValueError(
                f"{members[0].folder} and {run.folder} are of different networks, whose weights have no mean: {differ}"
            )


def common_folds(members: list[runs.Run], wanted: list[int] | None) -> list[int]:
    """The folds that all runs have finished; a wanted one that some run lacks is an error."""
    shared = set.intersection(*({fold.fold for fold in run.folds if fold.finished} for run in members))
    if missing := sorted(set(wanted or ()) - shared):
        raise ValueError(
            f"fold {few(missing)} is not finished in every run (those that are: {few(sorted(shared), 20)})"
        )
    if not shared:
        raise ValueError("no fold is finished in every run: train them to the end")
    return sorted(wanted or shared)


def lacking(members: list[runs.Run], out: Path, data) -> list[str]:
    """The folds that the soup has not, and the commands that lead to them, as lines for people; [] where it has all."""
    done = {fold.fold for fold in runs.load_run(out).folds if fold.finished}
    missing = sorted(set(held_out_folds(data.clips.fold)) - done)
    if not missing:
        return []
    lines = [f"{out}: fold {few(missing, 20)} to go before an OOF"]
    for run in members:
        if own := sorted(set(missing) - {fold.fold for fold in run.folds if fold.finished}):
            lines.append(f"  train what {run.folder} lacks: {runs.train_command(run.folder, *own)}")
    words = ["--runs", *(run.folder for run in members), "--name", out.name, "--fold", *missing]
    return [*lines, f"  then: {command_line('soup', *words)}"]


def stir(members: list[runs.Run], fold: int, out: Path, data, accelerator) -> Path:
    """Write the mean of the runs' weights of a fold, with batch norms measured on its training clips."""
    of_fold = [next(f for f in run.folds if f.fold == fold) for run in members]
    config = of_fold[0].config
    config = replace(config, model=replace(config.model, weights=""), optim=replace(config.optim, swa_epochs=0))
    train, held_out = data.split(fold, config.data.folds)
    origin = origin_of(out / f"fold{fold}", data.digests, config)
    t = set_up(
        config, fold, out / f"fold{fold}", train_data=train.thinned(config.data, config.seed), held_out=held_out,
        classes=data.classes, accelerator=accelerator, deadline=float("inf"), origin=origin,
    )  # fmt: skip
    t.network.load_state_dict(optim.mean_of([runs.load_model(one).state_dict() for one in of_fold]))
    if has_batch_norms(t.network):
        measure_batch_norms(t.network, passes(t, t.network))
    path = out / "soup" / f"fold{fold}.safetensors"
    about = t.about | {"origin": to_dict(origin), "soup_of": [str(one.folder) for one in of_fold]}
    about[lineage.INHERITED] = lineage.once(made for one in of_fold for made in lineage.of_fold(one))
    runs.save_weights(path, t.network, about)
    return path


def scores_text(run: runs.Run, folds: list[int]) -> str:
    """A run's watched score, the mean over these folds."""
    name = tasks.task_of(run.config).watch
    values = [f.about["scores"][name] for f in run.folds if f.fold in folds and name in f.about.get("scores", {})]
    mean = f"{np.mean(values):.4f}" if values else "not defined"
    return f"  {run.folder}: {name} {mean} over {plural(len(values), 'folds')}"


if __name__ == "__main__":
    run_script(main)

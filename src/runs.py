"""List trained runs: CV with its interval, what each changes, size, date, exported or not; and clean up with care.

python src/runs.py                                               # every run, best first within task and competition
python src/runs.py --task tagging --where optim.lr=1e-3 --sort date
python src/runs.py --names 'synth*' --out runs.csv               # all columns as a table
python src/runs.py --clean checkpoints stopped                   # shows what would go and how many bytes, then asks
python src/runs.py --clean runs/sed/old --yes

CV is the watched score of all folds' out-of-fold predictions together, its interval the middle 95 % over resampled
groups; where folds or the data are missing it is the mean of the finished folds, without one. Changes are those from
the earlier run that is most like it. --clean takes checkpoints (last.ckpt of finished folds), stopped (runs without a
finished fold), beaten (finished runs that another one beats on the same data, folds and classes), caches (of the
runs' data and below data/: whoever wants one makes it again), unused-caches (those that no run's settings ask for), or
names of runs. A run that is best, that is exported, that another one needs or that holds what people made
(decisions.csv) goes only when it is named, and one that is running, or a link, never.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from earshot.script import run_script

import pandas as pd

from earshot.competitions.tables import write_csv
from earshot.files import check_ending, check_writable
from earshot.inventory import trained
from earshot.inventory.cleaning import KINDS, Plan, clean, plan_cleaning
from earshot.inventory.trained import SORTS, STATES, Found
from earshot.messages import Parser, command_line, logged_from, of_repository


def main():
    options = parse_args()
    if options.out:
        check_ending(options.out, ".csv")
        check_writable(options.out)
    everything, found = chosen_runs(options)
    if options.clean:
        return clean_up(lambda: plan_cleaning(*reversed(chosen_runs(options)), options.clean), options.yes)
    if not everything:
        command = command_line("train", "--config", of_repository("configs/sed/synth_cnn.yaml"), "--fold", 0)
        print(f"no runs in {options.root}: train one ({command} makes its own data), or name another folder by --root")
    else:
        print("\n".join(lines_of(found)))
    total = sum(run.size for run in found)
    print(f"{len(found)} of {len(everything)} runs in {options.root}, {as_bytes(total)}")
    if options.out:
        write_csv(pd.DataFrame([trained.row_of(run) for run in found]), options.out)
        print(f"-> {options.out}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--root", type=Path, default=Path("runs"), help="folder of runs (default runs)")
    add("--names", nargs="+", default=[], help="patterns of names or of task/name: 'esc50*'")
    add("--task", default="", help="only runs of this task: sed, tagging, ...")
    add("--competition", default="", help="only runs of this competition")
    add("--state", default="", choices=("", *STATES), metavar="STATE", help=", ".join(STATES))
    add("--where", nargs="+", default=[], metavar="KEY=VALUE", help="only runs with these settings")
    add("--sort", default="cv", choices=SORTS, help="cv: best first within task and competition (default)")
    add("--out", type=Path, help="FILE.csv: all columns of the runs listed")
    add("--clean", nargs="+", metavar="WHAT", help=f"remove {', '.join(KINDS)} or runs by name, once you agree")
    add("--yes", action="store_true", help="with --clean: do not ask")
    return parser.parse_args()


def lines_of(found: list[Found]) -> list[str]:
    """The runs as an aligned table, each with a second line that says what it changes."""
    head = ("run", "state", "folds", "score", "CV", "95 %", "size", "date", "exported")
    rows = [row_of(run) for run in found]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(head, widths, strict=True)).rstrip()]
    for run, row in zip(found, rows, strict=True):
        lines.append("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
        told = [f"from {run.neighbour}: {run.changes}"] if run.neighbour else []
        told += [text for text in (run.note, run.score.note) if text]
        lines += [f"    {text if len(text) <= 200 else text[:199] + '…'}" for text in told]
    return lines


def row_of(run: Found) -> tuple[str, ...]:
    """One run as the cells of a line."""
    s = run.score
    cv = f"{s.value:.4f}" if math.isfinite(s.value) else "-"
    interval = f"{s.low:.4f} to {s.high:.4f}" if math.isfinite(s.low) else "-"
    folds = f"{len(run.folds)}/{run.all_folds}" if run.all_folds else f"{len(run.folds)}"
    date = datetime.fromtimestamp(run.changed).strftime("%Y-%m-%d %H:%M")
    exported = ", ".join(run.exported) or "-"
    return (run.name, run.state, folds, s.watch or "-", cv, interval, as_bytes(run.size), date, exported)


def as_bytes(size: float) -> str:
    """A size in the unit that fits: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""


def chosen_runs(options: argparse.Namespace) -> tuple[list[Found], list[Found]]:
    """All runs, and those that were asked for, in their order."""
    with logged_from(logging.ERROR):  # what runs say of their data is not news here
        everything = trained.find_runs(options.root)
    found = trained.chosen(
        everything, names=options.names, task=options.task, competition=options.competition, state=options.state,
        where=options.where,
    )  # fmt: skip
    return everything, trained.ordered(found, options.sort)


def still_removed(plan: Plan, now: Plan) -> Plan:
    """What both plans remove; the rest is named."""
    taken = {removal.path for removal in plan.removals} - {removal.path for removal in now.removals}
    for path in sorted(taken):
        print(f"  {path} stays: it is used, or gone, by now")
    return replace(plan, removals=tuple(removal for removal in plan.removals if removal.path not in taken))


def clean_up(make_plan: Callable[[], Plan], agreed: bool):
    """Show what would go, ask, and remove it, but for what a training has come to use since it was shown."""
    plan = make_plan()
    for removal in plan.removals:
        print(f"  {as_bytes(removal.size):>10}  {removal.path}  ({removal.why})")
    for line in plan.kept:
        print(f"  {line}")
    if not plan.removals:
        print("nothing to remove")
        return
    print(f"{len(plan.removals)} to remove, {as_bytes(plan.size)} ({plan.size:,} bytes)")
    if not agreed and sys.stdin.isatty():
        agreed = input("remove them? yes or no: ").strip().lower() == "yes"
        plan = still_removed(plan, make_plan()) if agreed else plan
    if not agreed:
        print("nothing was removed; say yes, or give --yes")
        return
    print(f"removed {as_bytes(clean(plan))}")


if __name__ == "__main__":
    run_script(main)

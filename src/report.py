"""Show trained runs: a page with scores, curves, tables and the clips that went most wrong, to hear; and pictures.

python src/report.py --runs runs/tagging/esc10_cnn runs/tagging/esc10_cnn_small --out runs/report
python src/report.py --runs runs/tagging/cnn14 --out runs/report --quality qa_true_counts.csv   # AudioSet's own file

OUT/report.html is one file that needs no server and no network; for it all folds must be trained and the data at hand.
The pictures (score by class size, learning curves, score by multi-adds) are PNGs beside it.
"""

from __future__ import annotations

import argparse
import re
from datetime import datetime
from pathlib import Path

from earshot.script import check_first, run_script

from earshot import runs
from earshot.files import check_writable, write_text
from earshot.messages import Parser, check_numbers, suggest


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of runs: runs/<task>/<name>")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--other-tables", action="store_true", help="runs may be of different fold tables and classes")
    parser.add_argument("--clips", type=int, default=4,
                        help="clips to hear of each kind: largest loss, false alarms, misses (default 4)")  # fmt: skip
    parser.add_argument("--score", default="", help="score to draw (default: the one that the first run watches)")
    parser.add_argument(
        "--quality", type=Path, help="AudioSet's qa_true_counts.csv: draw the quality of its labels too"
    )
    return parser.parse_args()


def check_command() -> argparse.Namespace:
    """What needs no network: options, and runs that are there."""
    options = parse_args()
    check_numbers(options, "clips")
    check_writable(options.out / "curves.png")
    for folder in options.runs:
        runs.load_run(folder)
    return options


if __name__ == "__main__":
    check_first(check_command)  # before PyTorch is loaded, which takes seconds

import numpy as np
import pandas as pd

from earshot import tasks
from earshot.competitions.audioset import read_quality
from earshot.ensemble.origins import check_same_tables
from earshot.models.counting import count
from earshot.pages import report
from earshot.pictures import runs as run_pictures
from earshot.tables import read_table


def main():
    options = check_command()
    found = {
        name: runs.load_run(folder) for name, folder in zip(runs.short_names(options.runs), options.runs, strict=True)
    }
    if not options.other_tables:
        check_same_tables(list(found.values()), "their scores do not compare. --other-tables draws them all the same")
    first = next(iter(found.values())).config
    watch = options.score or tasks.task_of(first).watch
    options.out.mkdir(parents=True, exist_ok=True)
    tables = {name: table for name, run in found.items() if len(table := means_by_class(run))}
    if tables:
        run_pictures.class_precision(tables, options.out / "class_precision.png")
    for name, table in tables.items():
        run_pictures.class_ranks(table, name, options.out / f"class_ranks_{name.replace('/', '_')}.png")
    run_pictures.run_curves({name: curve(run) for name, run in found.items()}, watch, options.out / "curves.png")
    scores = {name: score_of(run, watch) for name, run in found.items()}
    rows = [(name, *cost(run), scores[name][0]) for name, run in found.items()]
    # the name of a run's own score is that of its pooled OOF: what is drawn here is another figure
    mean, windows = f"mean {watch} of folds", sorted({run.config.predict.window_seconds for run in found.values()})
    seconds = " or ".join(f"{w:g}" for w in windows)
    families, points = [family_of(run.config.model.name) for run in found.values()], [(n, a, s) for n, _, a, s in rows]
    run_pictures.score_by_cost(points, mean, seconds, options.out / "cost.png", families)
    if options.quality and tables:
        quality = label_quality(options.quality, Path(first.data.classes or Path(first.data.root) / "classes.csv"))
        run_pictures.class_quality(tables, quality, options.out / "class_quality.png")
    for name, parameters, adds, score in rows:
        size = f"{parameters / 1e6:8.2f} M parameters {adds / 1e9:8.3f} G multi-adds of a window (PANNs' count)"
        n, defined = len(found[name].folds), scores[name][1]
        of = f"{defined} of " * (defined < n)
        print(f"  {name:32s} {size}  {mean} {score:.4f} ({of}{n} fold{'s' * (n > 1)})")
    print(f"-> {options.out}: {', '.join(sorted(p.name for p in options.out.glob('*.png')))}")
    write_page(found, rows, watch, options)


def write_page(found: dict[str, runs.Run], rows: list[tuple], watch: str, options: argparse.Namespace):
    """OUT/report.html of the runs whose folds are all trained; the others are named."""
    evidence = {}
    for name, run in found.items():
        try:
            evidence[name] = report.evidence_of(run, watch)
        except ValueError as error:
            print(f"not in the page: {error}")
    if not evidence:
        return
    costs = {name: (parameters, adds) for name, parameters, adds, _ in rows}
    pages = [report.run_page(e, name, costs[name], options.clips) for name, e in evidence.items()]
    logs = {name: curve(e.run) for name, e in evidence.items()}
    shared = report.shared_pictures(evidence, lambda path: run_pictures.run_curves(logs, watch, path))
    made = f"{datetime.now():%Y-%m-%d %H:%M}, sources {runs.git_commit()[:12] or 'outside a checkout'}"
    text = report.page(f"Report: {', '.join(evidence)}", made, watch, pages, shared)
    write_text(options.out / "report.html", text)
    print(f"-> {options.out / 'report.html'} ({len(text.encode()) / 1e6:.1f} MB): open it in a browser")


def family_of(model: str) -> str:
    """The kind of a network by its name without its size: cnn14_att and cnn6 are cnn, mobilenet_v2 is mobilenet."""
    return re.match(r"[a-z]+(?:1d)?[a-z]*", model)[0]


def label_quality(path: Path, classes: Path) -> dict[str, float]:
    """In what share of its rated clips raters heard each label of classes.csv; those without a rating are left out."""
    shares = read_quality(path)
    table = read_table(classes, ("label", "mid"))
    return {label: shares[mid] for label, mid in zip(table.label, table.mid, strict=True) if mid in shares}


def means_by_class(run: runs.Run) -> pd.DataFrame:
    """`label, train_clips, average_precision`, means over the folds; empty where no fold has a classes.csv."""
    paths = [f.folder / "classes.csv" for f in run.folds if (f.folder / "classes.csv").is_file()]
    if not paths:
        print(f"  {run.name} has no classes.csv: it is left out of the pictures by class")
        return pd.DataFrame()
    tables = pd.concat([read_table(p, ("label", "train_clips", "average_precision")) for p in paths])
    means = tables.groupby("label", sort=False)[["train_clips", "average_precision"]].mean()
    return means.reset_index()


def curve(run: runs.Run) -> pd.DataFrame:
    """log.csv of a run, the mean over its folds of their first rows, second rows, ...: epochs, or optim.validate_steps.

    Folds differ by a step or two an epoch, so that their steps do not say which rows belong together.
    """
    logs = pd.concat([read_table(f.folder / "log.csv", ("epoch",)).reset_index(names="row") for f in run.folds])
    if "steps" not in logs:
        raise ValueError(f"{run.folder}: log.csv counts no steps, it was written by an older version; train it again")
    return logs.groupby("row").mean(numeric_only=True).reset_index(drop=True)


def cost(run: runs.Run) -> tuple[int, int]:
    """Count the parameters, and the multi-adds as the PANNs paper does, of one window of the run."""
    config, about = run.config, run.folds[0].about
    model = runs.make_model(config, len(about["classes"]), weights_follow=True, kept=about.get("architecture"))
    n_samples = round(config.predict.window_seconds * config.data.sample_rate)
    costs = count(model, config.inputs(model.inputs), n_samples)
    return sum(p.numel() for p in model.parameters()), costs.paper_multi_adds


def score_of(run: runs.Run, watch: str) -> tuple[float, int]:
    """Mean of the score that each fold reached with the weights it kept, and how many folds define it.

    Held-out clips without a label, or of one class, define no average precision.
    """
    scores = [f.about["scores"] for f in run.folds]
    known = [some[watch] for some in scores if watch in some]
    if not known:
        raise ValueError(f"{run.folder} has no score '{watch}'{suggest(watch, scores[0], 'it has')}")
    return float(np.mean(known)), len(known)


if __name__ == "__main__":
    run_script(main)

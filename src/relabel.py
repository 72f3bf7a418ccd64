"""A run's predictions become the targets that its clips train on next: <data>/targets.npz, with their lineage.

python src/relabel.py --run runs/ust/by_sensor              # honest: each clip by the fold that held it out
python src/relabel.py --run runs/ust/system2 --mode source  # one checkpoint relabels what it learned from
python src/relabel.py --run runs/ust/system2 --mode source --hard 0.5 --keep is_verified=1 --out data/hard.npz

Clips of --keep keep their labels (default: those that experts verified, column is_verified), and so does a clip that no
fold held out or that cannot be read. Training takes targets.npz by itself where it lies beside clips.csv (see
data.soft_targets); what is held out is scored by the labels all the same.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from earshot.script import run_script

import pandas as pd

from earshot import runs
from earshot.data.labels import read_clips
from earshot.data.prepared import load_data
from earshot.data.soft_targets import FILE
from earshot.ensemble.relabelling import MODES, honest_answers, kept_clips, lineage_of, targets_of
from earshot.files import check_writable
from earshot.messages import Parser, check_choice, few, plural, progress_bar
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Predictions
from earshot.runs import FoldRun, Run

VERIFIED = "is_verified=1"


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_choice("--mode", options.mode, MODES)
    if options.out:
        check_writable(options.out, "give --out FILE")
    run = runs.load_run(options.run)
    root = Path(run.config.data.root)
    out = options.out or root / FILE
    check_writable(out, "give --out FILE")
    if out.exists() and not options.force:
        raise ValueError(f"{out} exists: give another --out, or replace it with --force")
    clips = read_clips(root / "clips.csv")
    kept = kept_clips(clips, options.keep or [VERIFIED] * ("is_verified" in clips))
    if options.mode == "honest":
        folds = list(run.folds)
        found, folds_hash = honest_answers(run, clips)
    else:
        folds, folds_hash = [chosen_fold(run, options.fold)], ""
        found = answers_for_all(run, folds[0], clips, kept)
    targets, counts = targets_of(found, clips, kept, options.hard)
    lineage = lineage_of(run, folds, options.mode, counts, options.hard) | {"folds_sha256": folds_hash}
    replace(targets, lineage=targets.lineage | lineage).save(out)
    print("\n".join(told(run, options, len(targets.clip_ids), len(clips), counts)))
    print(f"-> {out}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run that answers: runs/<task>/<name>")
    add("--mode", default="honest", help="honest: by the fold that held a clip out; source: by one checkpoint, for all")
    add("--fold", type=int, help="mode source: whose checkpoint (default: the only one)")
    add("--hard", type=float, metavar="P", help="targets of 1 from this probability on, else 0 (default: soft ones)")
    add("--keep", action="append", default=[], metavar="COLUMN=VALUE", help=f"keep labels (default {VERIFIED})")
    add("--out", type=Path, help="default: targets.npz beside the run's clips.csv, which then trains by itself")
    add("--force", action="store_true", help="replace a file that is there")
    options = parser.parse_args()
    if options.hard is not None and not 0 < options.hard < 1:
        parser.error(f"--hard is a probability between 0 and 1, got {options.hard:g}")
    if options.fold is not None and options.mode == "honest":
        parser.error("--fold chooses the checkpoint of --mode source; in mode honest every fold answers for its own")
    return options


def chosen_fold(run: Run, number: int | None) -> FoldRun:
    """The fold whose checkpoint answers."""
    numbers = [fold.fold for fold in run.folds]
    if number is None and len(numbers) > 1:
        raise ValueError(f"{run.folder} has the folds {numbers}: say whose checkpoint relabels, such as --fold 0")
    if number is not None and number not in numbers:
        raise ValueError(f"{run.folder} has no fold {number}, but {numbers}")
    return run.folds[0] if number is None else run.folds[numbers.index(number)]


def answers_for_all(run: Run, fold: FoldRun, clips: pd.DataFrame, kept: dict) -> Predictions:
    """What one checkpoint says of every clip that does not keep its labels, heard as the run hears in validation."""
    import torch

    from earshot.prediction.backends import TorchBackend

    config, device = run.config, "cuda" if torch.cuda.is_available() else "cpu"
    data = load_data(replace(config.data, soft_targets="none"))
    stays = set(clips.clip_id[pd.DataFrame(kept).any(axis=1).to_numpy()]) if kept else set()
    data = data.take((~data.clips.clip_id.isin(stays)).to_numpy())
    model = runs.load_model(fold).to(device)
    backend = TorchBackend(model, config.inputs(model.inputs), device, config.optim.precision)
    found, unreadable = predict_clips(
        [backend], data.recordings(), replace(config.predict, keep_frames=False), fold.about["classes"],
        fold.about["prior"], fold=fold.fold, tta=config.predict.tta,
        progress=lambda some: progress_bar(some, "relabel", unit="clip"),
    )  # fmt: skip
    if unreadable:
        print(f"{plural(len(unreadable), 'clips')} could not be read: {few(c for c, _ in unreadable)}")
    return found[0]


def told(run: Run, options: argparse.Namespace, relabelled: int, total: int, counts: dict[str, int]) -> list[str]:
    """What was done, and what the figures of the next training can be worth, as lines for people."""
    lines = [f"{relabelled} of {total} clips have {'soft' if options.hard is None else 'hard'} targets by {run.name}"]
    lines += [f"  {count} keep their labels: {text}" for text, count in counts.items() if count]
    config = run.config
    if options.mode == "source":
        lines.append("  one checkpoint answered, also for the clips that it was trained on")
    elif config.optim.select == "best":
        lines.append(
            "  its epochs were chosen by the held-out clips' labels (optim.select=best); select=last chooses nothing"
        )
    if config.model.weights:
        lines.append(f"  it started from {config.model.weights}: whether that heard these clips nothing here can tell")
    return lines


if __name__ == "__main__":
    run_script(main)

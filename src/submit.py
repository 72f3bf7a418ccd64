"""Predictions of the test clips -> a checked submission file, and one line in submissions/log.csv.

python src/submit.py --competition synth --predictions runs/sed/synth_cnn/test.npz --test data/synth/test.csv \\
    --out submissions/synth.csv --post configs/post/synth.yaml
python src/submit.py --check submissions/synth.csv --competition synth --test data/synth/test.csv

The class names are those of classes.csv beside the test table (or of --classes). Nothing gets its name before it was
written, read back and found valid. Where a challenge wants its own files (DCASE), the folder <out>_files holds them,
and --check takes that folder too.

--tune-on OOF.npz --clips data/synth/clips.csv chooses the event threshold on the OOF instead of taking the file's.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import logging
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from earshot.competitions import get_competition
from earshot.competitions.competition import Competition
from earshot.competitions.tables import write_checked
from earshot.data.labels import clip_targets, read_classes, read_clips
from earshot.ensemble.thresholds import best_event_threshold, tune_event_thresholds
from earshot.events import PostProcess, load_post
from earshot.files import check_writable
from earshot.messages import run_script
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

LOG_COLUMNS = ("time", "file", "sha256", "competition", "rows", "predictions", "runs", "cv", "post")


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    competition = get_competition(options.competition)
    test = read_table(options.test)
    classes = find_classes(options)
    if options.check:
        submission = read_submission(competition, options.check)
        competition.validate(submission, test, classes)
        print(f"{options.check}: {len(submission)} rows, valid for {options.competition}")
        return
    check_writable(options.out)
    check_writable(options.log, "name another file by --log")
    found = Predictions.load(options.predictions)
    post = load_post(options.post) if options.post else PostProcess()
    if options.tune_on:
        post = tune(post, options.tune_on, options.clips, options.per_class)
    folder = options.out.with_name(f"{options.out.stem}_files") if competition.files else None
    for path in (options.out, folder):
        if path is not None and path.exists() and not options.force:
            raise ValueError(f"{path} exists already; choose another --out, or --force to replace it")
    submission = competition.rows(found, test, post)
    write_checked(submission, options.out, lambda table: competition.validate(table, test, classes))
    log_submission(options, submission, post)
    print(f"-> {options.out}: {len(submission)} rows, valid for {options.competition}")
    if folder is not None:
        write_files(competition, submission, test, classes, folder)
        print(f"-> {folder}/: the challenge's own files")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--competition", required=True, help="a name of competitions.COMPETITIONS")
    parser.add_argument("--predictions", type=Path, help="npz of the test clips (predict.py, ensemble.py)")
    parser.add_argument("--test", type=Path, required=True, help="the competition's test table")
    parser.add_argument("--out", type=Path, help="the submission, such as submissions/mine.csv")
    parser.add_argument("--post", type=Path, help="post-processing YAML (default: threshold 0.5)")
    parser.add_argument("--tune-on", type=Path, help="OOF npz on which the event threshold is chosen")
    parser.add_argument("--clips", type=Path, help="clips.csv with the labels for --tune-on")
    parser.add_argument(
        "--per-class", action="store_true", help="with --tune-on: a threshold a class, if that gains over the folds"
    )
    parser.add_argument("--check", type=Path, help="only validate this file")
    parser.add_argument("--classes", type=Path, help="class names (default: classes.csv beside --test)")
    parser.add_argument("--log", type=Path, default=Path("submissions/log.csv"))
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    options = parser.parse_args()
    if not options.check and not (options.predictions and options.out):
        parser.error("a submission needs --predictions and --out")
    if options.tune_on and not options.clips:
        parser.error("--tune-on needs --clips, the table with the labels of the OOF clips")
    return options


def find_classes(options: argparse.Namespace) -> list[str]:
    """The competition's class names: --classes, classes.csv beside the test table, or those of the predictions."""
    beside = options.test.parent / "classes.csv"
    if options.classes or beside.is_file():
        return read_classes(options.classes or beside)
    if not options.predictions:
        raise ValueError(
            f"{beside} does not exist: give the class names by --classes classes.csv or --predictions FILE"
        )
    return list(Predictions.load(options.predictions).classes)


def read_submission(competition: Competition, path: Path) -> pd.DataFrame:
    """A submission: one table, or the folder of a challenge's own files where it has such."""
    if not path.is_dir():
        return read_table(path)
    if competition.read_files is None:
        raise ValueError(f"{path} is a folder; a submission of this competition is one CSV file")
    return competition.read_files(path)


def write_files(competition: Competition, submission: pd.DataFrame, test, classes: list[str], folder: Path):
    """Write the challenge's own files to `folder`; they too are read back and validated before it gets its name."""
    partial = folder.with_name(f".{os.getpid()}.part.{folder.name}")
    try:
        partial.mkdir(parents=True)
        for name, text in competition.files(submission).items():
            (partial / name).write_text(text)
        competition.validate(competition.read_files(partial), test, classes)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def tune(post: PostProcess, oof_path: Path, clips_path: Path, per_class: bool) -> PostProcess:
    """The same post-processing at the event threshold(s) best on the OOF clips, taken as one row each."""
    oof = Predictions.load(oof_path)
    clips = read_clips(clips_path).set_index("clip_id", drop=False)
    unknown = [c for c in oof.clip_ids if c not in clips.index]
    if unknown:
        raise ValueError(f"{clips_path} does not list {len(unknown)} clips of {oof_path}, such as {unknown[0]}")
    target, _ = clip_targets(clips.loc[oof.clip_ids], list(oof.classes))
    if not per_class:
        threshold, score = best_event_threshold(oof, target > 0.5)
        print(f"threshold {threshold:.3f}: row-wise micro F1 {score:.4f} on {len(oof)} OOF clips")
        return dataclasses.replace(post, threshold=threshold)
    choice = tune_event_thresholds(oof, target > 0.5)
    print(f"threshold {choice.threshold:.3f}: row-wise micro F1 {choice.score:.4f} on {len(oof)} OOF clips")
    gain = f"{choice.gains.mean():+.4f} +- {choice.gains.std():.4f} over folds"
    print(f"a threshold a class gains {gain}: {'kept' if choice.by_class else 'not kept'}")
    return dataclasses.replace(post, threshold=choice.threshold, class_thresholds=choice.by_class)


def log_submission(options, submission: pd.DataFrame, post: PostProcess):
    """One line more in the log: what was submitted, from which runs, with which CV."""
    about_path = options.predictions.with_suffix(".json")
    about = json.loads(about_path.read_text()) if about_path.is_file() else {}
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "file": options.out.name,
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
        "competition": options.competition,
        "rows": len(submission),
        "predictions": str(options.predictions),
        "runs": " ".join(about.get("runs", [str(options.predictions.parent)])),
        "cv": about.get("cv", ""),
        "post": json.dumps(dataclasses.asdict(post), default=str),
    }
    options.log.parent.mkdir(parents=True, exist_ok=True)
    known = list(csv.DictReader(options.log.open())) if options.log.is_file() else []
    partial = options.log.with_name(f".{options.log.name}.{os.getpid()}.part")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(known + [row])
    os.replace(partial, options.log)


if __name__ == "__main__":
    run_script(main)

"""Predictions of the test clips -> a checked submission file, and one line in submissions/log.csv.

python src/submit.py --competition synth --predictions runs/sed/synth_cnn/test.npz --test data/synth/test.csv \\
    --out submissions/synth.csv --post configs/post/synth.yaml
python src/submit.py --check submissions/synth.csv --competition synth --test data/synth/test.csv \\
    --classes data/synth/classes.csv

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
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from earshot.competitions import get_competition
from earshot.competitions.tables import write_csv
from earshot.events import PostProcess, load_post
from earshot.labels import clip_targets, read_classes, read_clips, read_table
from earshot.postprocessing import best_event_threshold, tune_event_thresholds
from earshot.predictions import Predictions

LOG_COLUMNS = ("time", "file", "sha256", "competition", "rows", "predictions", "runs", "cv", "post")


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    competition = get_competition(options.competition)
    test = read_table(options.test)
    if options.check:
        classes = read_classes(options.classes) if options.classes else Predictions.load(options.predictions).classes
        competition.validate(read_table(options.check), test, list(classes))
        print(f"{options.check}: {len(test)} rows, valid for {options.competition}")
        return
    found = Predictions.load(options.predictions)
    post = load_post(options.post) if options.post else PostProcess()
    if options.tune_on:
        post = tune(post, options.tune_on, options.clips, options.per_class)
    submission = competition.rows(found, test, post)
    competition.validate(submission, test, list(found.classes))
    if options.out.exists() and not options.force:
        raise ValueError(f"{options.out} exists already; choose another --out, or --force to replace it")
    write_csv(submission, options.out)
    log_submission(options, submission, post)
    print(f"-> {options.out}: {len(submission)} rows, valid for {options.competition}")


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
    parser.add_argument("--classes", type=Path, help="classes.csv, for --check without --predictions")
    parser.add_argument("--log", type=Path, default=Path("submissions/log.csv"))
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    options = parser.parse_args()
    if options.check and not (options.classes or options.predictions):
        parser.error("--check needs the class names: --classes classes.csv or --predictions FILE")
    if not options.check and not (options.predictions and options.out):
        parser.error("a submission needs --predictions and --out")
    if options.tune_on and not options.clips:
        parser.error("--tune-on needs --clips, the table with the labels of the OOF clips")
    return options


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
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")

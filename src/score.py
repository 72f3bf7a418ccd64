"""Score anybody's table against a truth: events, tags of clips, or anomalies, with every metric of the house.

python src/score.py events --found found/events.csv --truth annotations/ --durations found/recordings.csv
python src/score.py events --found runs/sed/mine/oof.npz --truth data/mine/events.csv --durations data/mine/clips.csv
python src/score.py tags --found runs/tagging/mine/test.npz --truth truth.csv       # clip_id, labels
python src/score.py anomalies --found scores.csv --truth truth.csv                  # clip_id, score; ..., is_anomaly

Events come from a table (CSV, TSV, Raven) or a folder of annotation files (Raven, Audacity, TextGrid) named as the
recordings; from predictions (npz) they are detected with --post, and PSDS is given besides. Tags come from predictions
or a CSV with clip_id and a column a class.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd

from earshot import files
from earshot.competitions.oof_scores import EVENTS
from earshot.data.labels import read_clips
from earshot.ensemble.choice import read_post
from earshot.listening import scoring
from earshot.messages import Parser
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

KINDS = ("events", "tags", "anomalies")


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if options.out:
        files.check_writable(options.out)
    scores, classes = {"events": events, "tags": tags, "anomalies": anomalies}[options.kind](options)
    print("\n".join(f"  {name:24s} {value:.4f}" for name, value in scores.items()))
    if classes:
        print(pd.DataFrame(classes).round(4).to_string(index=False))
    if options.out:
        about = {"found": str(options.found), "truth": str(options.truth), "scores": scores, "classes": classes}
        files.write_text(options.out, files.as_json(about, indent=1) + "\n")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("kind", choices=KINDS)
    add("--found", type=Path, required=True, help="what was found: a table, a folder of annotation files, or an npz")
    add("--truth", type=Path, required=True, help="what is true: a table, or a folder of annotation files")
    add("--out", type=Path, help="JSON of the scores")
    add("--durations", type=Path, help="events: table of the recordings that count, silent ones too, and their lengths")
    add("--collar", type=float, default=0.2, help="events: seconds that onset and offset may be off (default 0.2)")
    add("--offset-share", type=float, default=0.2, help="events: or so much of the event, for its offset (default 0.2)")
    add("--segment", type=float, default=1.0, help="events: seconds of a segment (default 1)")
    add("--post", type=Path, help="events of an npz: post-processing, YAML or JSON (default: threshold 0.5)")
    add("--label-column", default="", help="events: the column of the labels (default: guessed)")
    add("--found-label-column", help="events: the same of --found, where it is another (default: --label-column's)")
    add("--tier", default="", help="events: of TextGrids with several tiers")
    return parser.parse_args()


def events(options: argparse.Namespace):
    truth, silent = scoring.read_events_of(options.truth, options.label_column, options.tier)
    durations = scoring.durations_of(options.durations) if options.durations else None
    of_frames = {}
    if options.found.suffix == ".npz":
        if durations is None:
            raise ValueError("predictions need --durations, a table of their recordings and lengths, for PSDS")
        post = read_post(options.post) if options.post else replace(EVENTS.start, threshold=0.5)
        called = scoring.one_naming(truth.filename, durations)
        truth, durations = renamed(truth, called), {called(name): s for name, s in durations.items()}
        predictions = Predictions.load(options.found)
        of_frames, found, predicted = scoring.score_frames(predictions, truth, durations, post, called)
        truth = truth[~truth.filename.isin(durations.keys() - predicted.keys())]  # which were named
        durations, silent = predicted, ()
    else:
        own = options.found_label_column
        found, _ = scoring.read_events_of(options.found, options.label_column if own is None else own, options.tier)
        called = scoring.one_naming([*truth.filename, *silent], found.filename, durations or ())
        truth, found, silent = renamed(truth, called), renamed(found, called), {called(name) for name in silent}
        durations = durations and {called(name): s for name, s in durations.items()}
    scores, classes = scoring.score_events(
        found, truth, durations, options.collar, options.offset_share, options.segment, silent=silent
    )
    return scores | of_frames, classes


def renamed(events: pd.DataFrame, called: Callable[[str], str]) -> pd.DataFrame:
    return events.assign(filename=events.filename.map(called))


def tags(options: argparse.Namespace):
    return scoring.score_tags(read_tags(options.found), read_clips_of(options.truth))


def anomalies(options: argparse.Namespace):
    found = options.found
    if found.suffix == ".npz":
        predictions = Predictions.load(found)
        if predictions.score is None:
            raise ValueError(f"{found} holds no anomaly score: src/score_anomalies.py adds one")
        table = pd.DataFrame({"clip_id": predictions.clip_ids, "score": predictions.score})
    else:
        table = read_table(found, ("clip_id", "score"))
    return scoring.score_anomalies(table, read_table(options.truth, ("clip_id", "is_anomaly")))


def read_tags(path: Path) -> Predictions:
    """Predictions, or a CSV with clip_id and a column of numbers a class; predict.py's also says what is unreadable."""
    if path.suffix == ".npz":
        return Predictions.load(path)
    table = read_clips_of(path)
    of_predict = [c for c in ("unreadable", "anomaly_score") if c in table]  # beside its classes
    classes = [c for c in table.columns if c not in ("clip_id", "path", "labels", *of_predict)]
    numbers = table[classes].apply(pd.to_numeric, errors="coerce")
    for name in (c for c in classes if len(table) / 2 <= numbers[c].notna().sum() < len(table)):
        raise ValueError(f"{path}: column '{name}' holds {numbers[name].isna().sum()} cells that are no numbers")
    classes = [c for c in classes if numbers[c].notna().all() and not c.startswith("Unnamed: ")]  # pandas' row numbers
    if not classes:
        raise ValueError(f"{path} has no column of numbers, which a class's scores are")
    return Predictions(
        table.clip_id.astype(str).to_numpy(str), tuple(classes), numbers[classes].to_numpy(np.float32),
        np.full(len(table), -1), table.unreadable == 1 if "unreadable" in table else np.zeros(len(table), bool),
    )  # fmt: skip


def read_clips_of(path: Path) -> pd.DataFrame:
    """A table with clip_id, each once; `path` need not be there."""
    table = read_table(path, ("clip_id",))
    return table if "path" not in table else read_clips(path)


if __name__ == "__main__":
    run_script(main)

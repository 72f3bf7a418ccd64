"""Rainforest Connection Species Audio Detection (Kaggle 2021): 24 species, one-minute recordings at 48 kHz.

Download: train_tp.csv and train_fp.csv (`recording_id, species_id, songtype_id, t_min, f_min, t_max, f_max`),
sample_submission.csv (`recording_id, s0 ... s23`), train/*.flac, test/*.flac. A recording's labels are the species of
its true-positive boxes; boxes of train_fp.csv become `is_negative` events. Recordings with false positives only carry
no label and an empty `first_label`: the trainer leaves them out unless data.false_positives is set. An unlisted
species may still be heard, so an absent label is no statement.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from earshot.competitions.clip_rows import class_scores, sample_ids, tested
from earshot.competitions.competition import Competition, Rules, by_name
from earshot.competitions.downloads import found_below, inner_folder, located
from earshot.competitions.oof_scores import LWLRAP
from earshot.competitions.tables import Tables, absent, check_submission, find_files, present
from earshot.messages import few
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table, require_columns, require_rows, with_numbers

CLASSES = tuple(f"s{i}" for i in range(24))
BOX_COLUMNS = ("recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max")
TEST_COLUMNS = ("recording_id",)  # of the test table


@found_below("train_tp.csv")
def prepare(source: Path) -> Tables:
    """Download folder -> one clip a recording, an event a box, the test: sample_submission.csv and all of test/."""
    source = Path(source)
    tp, fp = (_boxes(source / name) for name in ("train_tp.csv", "train_fp.csv"))
    require_rows(tp, source / "train_tp.csv")
    sample = read_table(source / "sample_submission.csv", ("recording_id", *CLASSES))
    everything = located(_clips(tp, fp, source), source)
    clips = present(everything, source, "train_tp.csv and train_fp.csv")
    found = find_files(source / inner_folder(source, "test"))
    ids = tested(sample.recording_id, found, "sample_submission.csv")
    test, test_clips = ids.to_frame("recording_id"), located(_recordings(ids, source, "test"), source)
    events = pd.concat([_events(boxes, negative) for negative, boxes in enumerate((tp, fp)) if len(boxes)])
    events = events[events.filename.isin(clips.clip_id)].sort_values(["filename", "onset"], kind="stable")
    missing = absent(everything, source) + absent(test_clips, source)
    return Tables(
        clips=clips,
        classes=CLASSES,
        events=events.reset_index(drop=True),
        test_clips=test_clips,
        test=test,
        missing=missing,
        task="sed",
    )


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions -> `recording_id, s0 ... s23` in the order of `test`, from the clip outputs; `post` is not used.

    A recording without a prediction gets the mean of each class over the others, and a warning.
    """
    require_columns(test, TEST_COLUMNS, "the test table")
    values = class_scores(predictions, test.recording_id, CLASSES)
    return pd.concat([test[["recording_id"]], pd.DataFrame(values, columns=CLASSES, index=test.index)], axis=1)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes=CLASSES):
    """Raise unless the columns are `classes`, recordings and their order those of `test` and every score is finite."""
    require_columns(test, TEST_COLUMNS, "the test table")
    check_submission(submission, ("recording_id", *classes), test.recording_id, classes)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """LWLRAP of a submission; `truth` has its columns with 0 and 1 (any order of recordings)."""
    truth = truth.set_index("recording_id").reindex(submission.recording_id)
    if truth[list(CLASSES)].isna().any(axis=None):
        raise ValueError(f"the truth lacks {few(truth.index[truth.isna().any(axis=1)])}")
    return {"lwlrap": clip_metrics.lwlrap(truth[list(CLASSES)].to_numpy(), submission[list(CLASSES)].to_numpy())}


def _boxes(path: Path) -> pd.DataFrame:
    boxes = read_table(path, BOX_COLUMNS).drop_duplicates(ignore_index=True)
    boxes = with_numbers(boxes, ("species_id", "t_min", "t_max", "f_min", "f_max"), path)
    return boxes.astype({"species_id": int})


def _clips(tp: pd.DataFrame, fp: pd.DataFrame, source: Path) -> pd.DataFrame:
    """Boxes -> clips. `first_label` is what the source's folds stratify on: see `source_folds`.

    The sort is the source's own call: of one recording's boxes it is not stable, and the first species depends on it.
    """
    by_recording = tp.sort_values("recording_id").groupby("recording_id")["species_id"]
    first = by_recording.first().map(_name)
    labels = by_recording.agg(lambda ids: " ".join(_name(i) for i in sorted(set(ids))))
    ids = np.union1d(tp.recording_id.unique(), fp.recording_id.unique())
    clips = _recordings(pd.Series(ids), source, "train")
    clips["labels"] = clips.clip_id.map(labels).fillna("")
    clips["first_label"] = clips.clip_id.map(first).fillna("")
    return clips.assign(split="train", annotated=0)  # boxes are examples: more is heard than they say


def _events(boxes: pd.DataFrame, is_negative: int) -> pd.DataFrame:
    wrong = ~(boxes.t_max > boxes.t_min)
    if wrong.any():
        row = boxes[wrong].iloc[0]
        raise ValueError(f"a box of {row.recording_id} ends ({row.t_max} s) where it begins ({row.t_min} s) or before")
    return pd.DataFrame({
        "filename": boxes.recording_id, "onset": boxes.t_min, "offset": boxes.t_max,
        "event_label": boxes.species_id.map(_name), "is_negative": is_negative,
    })  # fmt: skip


def _recordings(ids: pd.Series, source: Path, folder: str) -> pd.DataFrame:
    """Recording ids -> `clip_id, path`: the file of that name in `folder`, .flac where there is none."""
    folder = inner_folder(source, folder)
    found = find_files(source / folder)
    return pd.DataFrame({"clip_id": ids.to_numpy(), "path": [f"{folder}/{found.get(i, f'{i}.flac')}" for i in ids]})


def _name(species_id: int) -> str:
    if not 0 <= int(species_id) < len(CLASSES):
        raise ValueError(f"species_id {species_id} is not in 0-{len(CLASSES) - 1}")
    return CLASSES[int(species_id)]


# ---- folds


def source_folds(clips: pd.DataFrame, k: int, seed: int) -> np.ndarray:
    """Make folds as the source of the rainforest system makes them, (N,), of clips sorted by clip_id.

    One row a recording with its first species (column `first_label`), shuffled by pandas' `sample(frac=1)`, then an
    unshuffled StratifiedKFold. Recordings without a species of their own (false positives only, unknown to the source)
    are dealt out in seeded order.
    """
    require_columns(clips, ("first_label",), "the clip table")
    has = (clips.first_label.notna() & (clips.first_label != "")).to_numpy()
    shuffled = clips.first_label[has].sample(frac=1, random_state=seed)
    fold = np.full(len(clips), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # species with fewer than k recordings
        for number, (_, valid) in enumerate(StratifiedKFold(k).split(shuffled, shuffled.astype(str))):
            fold[shuffled.index[valid]] = number
    rest = np.random.default_rng(seed).permutation(np.flatnonzero(~has))
    fold[rest] = np.arange(len(rest)) % k
    return fold


# ---- the hidden test of a kernel, and the edition


def _hidden_ids(table: pd.DataFrame) -> pd.Series:
    return sample_ids(table, "recording_id")


def _hidden_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"recording_id": [name for name, _ in recordings]})


HIDDEN = Rules(
    slug="rfcx-species-audio-detection", folder="test", table="sample_submission.csv", seconds=60.0, read=_hidden_ids,
    make=_hidden_rows, sample=True, key="recording_id",
)  # fmt: skip
EDITIONS = by_name(
    Competition(
        name="rfcx", prepare=prepare, rows=rows, validate=validate, score=score, hidden=HIDDEN,
        fold_methods={"rfcx": source_folds}, oof_score=LWLRAP,
    )
)  # fmt: skip

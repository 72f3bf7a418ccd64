"""Freesound Audio Tagging 2019 (Kaggle; DCASE 2019 task 2): 80 everyday sounds, few curated and many noisy labels.

Download: train_curated.csv and train_noisy.csv (`fname, labels`, names joined by commas), train_curated/, train_noisy/,
test/ (the public part; kernels see all), sample_submission.csv (`fname` and 80 columns, the classes in their order).

The curated clips alone are the default. `noisy=true` adds the noisy ones, which always train (fold -1): a CV on noisy
labels would say little about the test, whose labels are curated. The curated ones then get five folds here
(folds.make_folds, as official_fold), because a table has folds of its own for all clips or for none. `subset` says
which part a clip is of.

A kernel had 4 hours of CPU (or one of GPU), without internet or packages of one's own; external data and pretrained
weights were not allowed. Score: LWLRAP; each class weighs as many labels as it has, one without labels nothing.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.competitions.clip_rows import class_scores, sample_ids
from earshot.competitions.competition import Competition, Limits, Rules, by_name
from earshot.competitions.oof_scores import LWLRAP
from earshot.competitions.tables import Tables, absent, check_submission, class_name, present
from earshot.data.folds import TRAIN_ONLY, make_folds
from earshot.messages import few, suggest
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table, require_columns

TEST_COLUMNS = ("fname",)  # of the test table


def prepare(source: Path, noisy: bool = False) -> Tables:
    """Download folder -> clips (curated, with `noisy` the others too), 80 classes, test of sample_submission.csv."""
    source = Path(source)
    sample = read_table(source / "sample_submission.csv", ("fname",))
    classes = [class_name(c) for c in sample.columns if c != "fname"]
    clips = _clips(source, "curated", classes)
    if noisy:
        folds = make_folds(clips).set_index("clip_id").fold
        clips["official_fold"] = clips.clip_id.map(folds)
        clips = pd.concat([clips, _clips(source, "noisy", classes).assign(official_fold=TRAIN_ONLY)], ignore_index=True)
    test_clips = pd.DataFrame({"clip_id": [Path(f).stem for f in sample.fname], "path": "test/" + sample.fname})
    missing = absent(clips, source) + absent(test_clips, source)
    clips = present(clips, source, "train_curated.csv")
    return Tables(clips, classes, test_clips=test_clips, test=sample[["fname"]], missing=missing, task="tagging")


def _clips(source: Path, subset: str, classes) -> pd.DataFrame:
    table = read_table(source / f"train_{subset}.csv", ("fname", "labels"))
    names = [[class_name(n) for n in text.split(",") if n.strip()] for text in table.labels]
    empty = [f for f, some in zip(table.fname, names, strict=True) if not some]
    if empty:
        raise ValueError(f"train_{subset}.csv has no label for {len(empty)} clips: {few(empty)}")
    if unknown := sorted({n for some in names for n in some} - set(classes)):
        raise ValueError(
            f"train_{subset}.csv names {len(unknown)} labels that are no column of sample_submission.csv: "
            f"{few(unknown)}{suggest(unknown[0], classes)}"
        )
    return pd.DataFrame({
        "clip_id": [Path(f).stem for f in table.fname], "path": f"train_{subset}/" + table.fname,
        "labels": [" ".join(dict.fromkeys(some)) for some in names], "subset": subset,
    })  # fmt: skip


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions -> `fname` and a score a class, in the order of `test`; `post` is not used."""
    require_columns(test, TEST_COLUMNS, "the test table")
    scores = class_scores(predictions, [Path(f).stem for f in test.fname], predictions.classes)
    table = pd.DataFrame(scores, columns=list(predictions.classes), index=test.index)
    return pd.concat([test[["fname"]], table], axis=1)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless the columns, the files and their order are those of the competition and every score is finite."""
    require_columns(test, TEST_COLUMNS, "the test table")
    check_submission(submission, ("fname", *classes), test.fname, list(classes))


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """LWLRAP; `truth` has the columns of the submission with 0 and 1, files in any order."""
    classes = [c for c in truth.columns if c != "fname"]
    require_columns(submission, ("fname", *classes), "the submission")
    truth = truth.set_index("fname").reindex(submission.fname)
    if (lost := truth[classes].isna().any(axis=1)).any():
        raise ValueError(f"the truth lacks {few(truth.index[lost])}")
    return {"lwlrap": clip_metrics.lwlrap(truth[classes].to_numpy(), submission[classes].to_numpy(float))}


# ---- the hidden test of a kernel, and the edition


def _hidden_ids(table: pd.DataFrame) -> pd.Series:
    return sample_ids(table, "fname").map(lambda name: Path(name).stem)


def _hidden_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"fname": [f"{name}.wav" for name, _ in recordings]})


HIDDEN = Rules(
    slug="freesound-audio-tagging-2019", folder="test", table="sample_submission.csv", seconds=10.0, read=_hidden_ids,
    make=_hidden_rows, sample=True,
)  # fmt: skip
EDITIONS = by_name(
    Competition(
        name="freesound2019", prepare=prepare, rows=rows, validate=validate, score=score, limits=Limits(minutes=240),
        hidden=HIDDEN, oof_score=LWLRAP,
    )
)  # fmt: skip

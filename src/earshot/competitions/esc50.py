"""ESC-50: environmental sounds, 50 classes of 40 clips of 5 s, one label each, five official folds; accuracy.

Source: the official download (meta/esc50.csv, audio/*.wav), copies of it that have esc50.csv beside audio/audio/ and
the like, or a folder with meta.csv whose `filename` holds the path.
There is no test set: the score is the accuracy of the out-of-fold predictions, so that test.csv lists every clip. The
official folds keep the clips of one Freesound recording together; four ids (131943, 134049, 209698, 234879) occur in
two folds all the same, under two classes, which `folds.audit` shows. `esc10` is the subset of the ten easiest classes
(400 clips) under the same rules. `prepare.py --set subset=esc40` takes the forty other classes alone, less the clips of
those four recordings that ESC-10 has too: a network pre-trained on them has met no class and no recording of ESC-10.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.checks import column_problems, id_problems, label_problems, refuse
from earshot.competitions.competition import Competition, by_name
from earshot.competitions.downloads import found_below, located
from earshot.competitions.label_texts import check_labelled, one_spelling
from earshot.competitions.oof_scores import ACCURACY
from earshot.competitions.tables import Tables, absent, class_name, present, require_columns
from earshot.messages import few, suggest
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

META = ("meta.csv", "meta/esc50.csv", "esc50.csv")
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")
TEST_COLUMNS = ("filename", "clip_id")  # of the test table
SUBSETS = ("esc50", "esc10", "esc40")

logger = logging.getLogger("earshot")


@found_below(*META)
def prepare(source: Path, subset: str = "esc50") -> Tables:
    """Download folder -> clips with `official_fold` 1-5 and `group` = Freesound id; subset: one of SUBSETS."""
    source = Path(source)
    meta = read_table(find_meta(source), COLUMNS).drop_duplicates(ignore_index=True)
    if subset not in SUBSETS:
        raise ValueError(f"unknown subset '{subset}'{suggest(subset, SUBSETS)}")
    if subset != "esc50":
        easy = meta.esc10.astype(str).str.casefold() == "true"
        both = ~easy & meta.src_file.isin(set(meta.src_file[easy]))
        if subset == "esc40" and both.any():
            names = few(Path(f).name for f in meta.filename[both])
            logger.warning("%d clips are of recordings that ESC-10 has too and are left out: %s", both.sum(), names)
        meta = meta[easy if subset == "esc10" else ~easy & ~both].reset_index(drop=True)
    names = [Path(f).name for f in meta.filename]
    check_labelled(names, meta.category, "the meta table")
    clips = pd.DataFrame({
        "clip_id": [Path(n).stem for n in names],
        "path": [f if "/" in f else f"audio/{f}" for f in meta.filename],
        "labels": one_spelling(meta.category.map(class_name), "the meta table"),
        "group": meta.src_file.astype(str),
        "official_fold": meta.fold,
        "filename": names,
    })  # fmt: skip
    classes = clips.labels.groupby(meta.target).first().tolist()  # in the order of the official numbers
    clips = located(clips, source)
    missing, clips = absent(clips, source), present(clips, source, "the meta table")
    test = clips[["filename", "clip_id"]]
    truth = pd.DataFrame({"filename": clips.filename, "category": clips.labels})
    return Tables(clips=clips, classes=classes, test=test, truth=truth, missing=missing, task="tagging")


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Out-of-fold predictions -> `filename, category` (the best class), in the order of `test`; `post` is not used."""
    require_columns(test, TEST_COLUMNS, "the test table")
    best = predictions.aligned(test.clip_id).clipwise_output.argmax(axis=1)
    return pd.DataFrame({"filename": test.filename.to_numpy(), "category": np.array(predictions.classes)[best]})


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every clip of `test` has one row, in its order, with a category of `classes`."""
    require_columns(test, TEST_COLUMNS, "the test table")
    problems = column_problems(submission, ("filename", "category"))
    if "filename" in submission:
        problems += id_problems(submission.filename, test.filename, "filename")
    if "category" in submission:
        problems += label_problems(submission.category, classes, "the column category")
    refuse(problems)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Accuracy of a submission; `truth` has the columns `filename, category` (any order)."""
    require_columns(truth, ("filename", "category"), "the truth")
    right = submission.merge(truth, on="filename", suffixes=("", "_true"), validate="one_to_one")
    if len(right) != len(submission):
        raise ValueError(f"the truth knows {len(right)} of the {len(submission)} files of the submission")
    return {"accuracy": float((right.category == right.category_true).mean())}


def find_meta(source: Path) -> Path:
    """The table of the download, in any of the layouts in use."""
    for name in META:
        if (source / name).is_file():
            return source / name
    raise ValueError(f"{source} holds none of {', '.join(META)}; is --source the unzipped ESC-50 download?")


_SHARED = {"task": "tagging", "rows": rows, "validate": validate, "score": score, "oof_score": ACCURACY}
EDITIONS = by_name(
    Competition(name="esc50", prepare=prepare, **_SHARED),
    Competition(name="esc10", prepare=partial(prepare, subset="esc10"), **_SHARED),
)

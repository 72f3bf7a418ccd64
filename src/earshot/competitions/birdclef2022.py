"""BirdCLEF 2022: 152 species, 21 of them scored, about 5,500 hidden soundscapes of 1 minute, a yes or no a row.

Download: train_metadata.csv, train_audio/<label>/<file>.ogg, scored_birds.json (a list), test.csv (`row_id, file_id,
bird, end_time`), test_soundscapes/<file_id>.ogg. A row is one scored bird in 5 s: <file_id>_<bird>_<end second>, and
its `target` True or False. All 152 species are classes, only the scored ones have rows.

Score: for each bird the mean of its true positive rate and its true negative rate, then the mean over birds: of the
published descriptions ("most similar to macro F1") what a winner's code computes. A bird without positives, or without
negatives, has no such value and is left out; how the official scorer counts it is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from earshot.competitions import birdclef
from earshot.competitions.birdclef_rows import ROW_SECONDS, marked_rows, options
from earshot.competitions.checks import column_problems, id_problems, label_problems, refuse
from earshot.competitions.tables import Tables, absent, class_name
from earshot.events import PostProcess
from earshot.messages import few
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table, require_columns

TEST_COLUMNS = ("row_id", "file_id", "bird", "end_time")
LIMITS = MappingProxyType(
    {
        "minutes": 540,
        "hours": MappingProxyType({"cpu": 9, "gpu": 9}),
        "internet": False,
        "hardware": "one Kaggle notebook, CPU or GPU; about 5,500 hidden recordings of 1 minute",
    }
)


def prepare(source: Path) -> Tables:
    """Download folder -> clips, all species sorted as classes, the test of test.csv."""
    source = Path(source)
    classes = sorted({class_name(label) for label in birdclef.metadata(source).primary_label})
    clips, events, missing = birdclef.train_tables(source, classes)
    test = read_table(source / "test.csv", TEST_COLUMNS)
    check_test(test)
    scored = source / "scored_birds.json"
    if not scored.is_file():
        raise ValueError(f"{scored} does not exist; is --source the unzipped download of 2022?")
    scored = json.loads(scored.read_text())
    problems = label_problems(scored, classes, "scored_birds.json") + label_problems(test.bird, scored, "test.csv")
    refuse(problems, "the download")
    test_clips = pd.DataFrame({"clip_id": test.file_id.astype(str).unique()})
    test_clips["path"] = "test_soundscapes/" + test_clips.clip_id + ".ogg"
    return Tables(clips, classes, events, test_clips, test, missing + absent(test_clips, source))


def check_test(test: pd.DataFrame):
    """Raise unless each row_id follows from its columns, is there once, and ends on a multiple of 5 s."""
    require_columns(test, TEST_COLUMNS, "the test table")
    problems = [] if len(test) else ["it has no rows, so there is nothing to predict"]
    expected = test.file_id.astype(str) + "_" + test.bird.astype(str) + "_" + test.end_time.astype(str)
    off = (test.end_time % ROW_SECONDS != 0) | (test.end_time <= 0)
    for wrong, text in (
        (expected != test.row_id.astype(str), "row_id do not follow from file_id, bird, end_time"),
        (test.row_id.duplicated(), "row_id twice"),
        (off, "row_id do not end on a multiple of 5 s"),
    ):
        if wrong.any():
            problems.append(f"{wrong.sum()} {text}: {few(test.row_id[wrong])}")
    refuse(problems, "the test table")


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None) -> pd.DataFrame:
    """Framewise predictions -> `row_id, target` in the order of `test`: True where the bird has an event in the row.

    A recording without prediction, or unreadable, is False throughout, with a warning.
    """
    check_test(test)
    refuse(label_problems(test.bird, predictions.classes, "the test table"), "predictions: their class list")
    table = pd.DataFrame({"row_id": test.row_id, "clip_id": test.file_id.astype(str), "seconds": test.end_time})
    marked = marked_rows(predictions, table, options(post))
    names = marked.clip_id + "_" + marked.event_label + "_" + marked.seconds.astype(str)
    return pd.DataFrame({"row_id": test.row_id.to_numpy(), "target": test.row_id.isin(set(names)).to_numpy()})


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` says True or False in each row of `test`, in its order; birds are of `classes`."""
    check_test(test)
    problems = column_problems(submission, ("row_id", "target")) + label_problems(test.bird, classes, "the test table")
    if "row_id" in submission:
        problems += id_problems(submission.row_id, test.row_id, "row_id")
    if "target" in submission:
        wrong = ~submission.target.astype(str).isin(("True", "False"))
        if wrong.any():
            problems.append(f"target is neither True nor False in {wrong.sum()} rows: {few(submission.target[wrong])}")
    refuse(problems)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Mean over birds of (TPR + TNR) / 2, and how many could be scored; `truth` is `row_id, target`, in any order."""
    for name, table in (("submission", submission), ("truth", truth)):
        require_columns(table, ("row_id", "target"), f"the {name}")
    if problems := id_problems(submission.row_id.sort_values(), truth.row_id.sort_values(), "row_id"):
        raise ValueError("the submission does not answer the rows of this truth: " + "; ".join(problems))
    said = submission.set_index("row_id").target.astype(str).eq("True").reindex(truth.row_id).to_numpy()
    true = truth.target.astype(str).eq("True").to_numpy()
    birds = truth.row_id.astype(str).str.rsplit("_", n=2).str[1].to_numpy()
    values = [balanced_accuracy(true[birds == bird], said[birds == bird]) for bird in np.unique(birds)]
    scored = [v for v in values if v is not None]
    if not scored:
        raise ValueError(f"none of {len(values)} birds has rows with it and rows without it: there is no score")
    return {"balanced_accuracy": float(np.mean(scored)), "birds_scored": len(scored)}


def balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> float | None:
    """(N,) booleans -> (TPR + TNR) / 2; None without positives or without negatives."""
    if truth.all() or not truth.any():
        return None
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)

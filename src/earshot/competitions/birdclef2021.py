"""BirdCLEF 2021: 397 species, about 80 hidden soundscapes of 10 minutes, a text of species a row.

Download: train_metadata.csv, train_short_audio/<label>/<file>.ogg, train_soundscape_labels.csv and train_soundscapes/,
test.csv (`row_id, site, audio_id, seconds`), test_soundscapes/<audio_id>_<site>_<date>.ogg. Rows are named
<audio_id>_<site>_<end second>. A row's answer is its species joined by spaces, or `nocall`; as in birdcall.py the
species of a row are sorted. Score: row-wise micro F1, `nocall` being a label. Everything else is in birdclef.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from earshot.competitions import birdcall, birdclef
from earshot.competitions.birdcall import score
from earshot.competitions.birdclef_rows import check_test, marked_rows, options
from earshot.competitions.checks import refuse
from earshot.competitions.tables import Tables, absent, class_name
from earshot.events import PostProcess
from earshot.messages import few
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

TEST_COLUMNS = ("row_id", "site", "audio_id", "seconds")
LIMITS = MappingProxyType(
    {
        "minutes": 180,  # sources differ: 3 hours, and once 9
        "hours": MappingProxyType({"cpu": 3, "gpu": 3}),
        "internet": False,
        "hardware": "one Kaggle notebook, CPU or GPU; about 80 hidden recordings of 10 minutes",
    }
)


def prepare(source: Path) -> Tables:
    """Download folder -> clips (focal and labelled soundscapes), classes sorted, and the test of test.csv."""
    source = Path(source)
    classes = sorted({class_name(label) for label in birdclef.metadata(source).primary_label})
    clips, events, missing = birdclef.train_tables(source, classes, "train_short_audio")
    test = read_table(source / "test.csv", TEST_COLUMNS)
    check_columns(test)
    found = birdclef.by_recording(source / "test_soundscapes")
    recordings = (test.audio_id.astype(str) + "_" + test.site.astype(str)).drop_duplicates()
    test_clips = pd.DataFrame({
        "clip_id": recordings.to_numpy(),
        "path": [f"test_soundscapes/{found.get(c, c + '.ogg')}" for c in recordings],
    })  # fmt: skip
    return Tables(clips, classes, events, test_clips, test, missing + absent(test_clips, source))


def check_columns(test: pd.DataFrame):
    """Raise unless row_id follows from audio_id, site and seconds in every row."""
    expected = test.audio_id.astype(str) + "_" + test.site.astype(str) + "_" + test.seconds.astype(str)
    wrong = expected != test.row_id.astype(str)
    text = f"{wrong.sum()} row_id do not follow from audio_id, site, seconds: {few(test.row_id[wrong])}"
    refuse([text] if wrong.any() else [], "the test table")


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None) -> pd.DataFrame:
    """Framewise predictions -> `row_id, birds` in the order of `test`: who has an event that touches the row.

    A recording without prediction, or unreadable, is `nocall` throughout, with a warning.
    """
    table = check_test(test, complete=False)
    marked = marked_rows(predictions, table, options(post))
    marked["row_id"] = marked.clip_id + "_" + marked.seconds.astype(str)
    return birdcall.answers(marked.sort_values(["row_id", "event_label"]), table)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` answers `test`, row by row, with sorted species of `classes`, or with nocall alone."""
    test = check_test(test)
    refuse(birdcall.answer_problems(submission, test, classes))

"""Making Sense of Sounds (2018): five categories, 1,500 development and 500 evaluation clips of 4 s; accuracy.

Source: the folder with Logsheet_Development.csv (`Category, Event, File`), Development/<Category>/<File>, and, for the
test, Logsheet_EvaluationMaster.csv (`File`, `Category`) and Evaluation/<File>. `Event` (a dog, a guitar) is kept as a
column. The development set has no official folds: src/make_folds.py stratifies by category (seed 42).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.competitions.competition import Competition, by_name
from earshot.competitions.downloads import found_below, located
from earshot.competitions.esc50 import rows, score, validate
from earshot.competitions.label_texts import respelled
from earshot.competitions.oof_scores import ACCURACY
from earshot.competitions.tables import Tables, absent, class_name, present
from earshot.tables import read_table

CLASSES = ("Effects", "Human", "Music", "Nature", "Urban")


@found_below("Logsheet_Development.csv")
def prepare(source: Path) -> Tables:
    """Download folder -> the development clips; the evaluation clips as test, where they are there."""
    source = Path(source)
    sheet = _log_sheet(source / "Logsheet_Development.csv", ("Category", "Event", "File"))
    clips = pd.DataFrame({
        "clip_id": [Path(f).stem for f in sheet.File],
        "path": [f"Development/{c}/{f}" for c, f in zip(sheet.Category, sheet.File, strict=True)],
        "labels": sheet.Category, "event": sheet.Event.map(class_name), "filename": sheet.File,
    })  # fmt: skip
    clips = located(clips, source)
    missing, clips = absent(clips, source), present(clips, source, "Logsheet_Development.csv")
    if not (source / "Logsheet_EvaluationMaster.csv").is_file():
        return Tables(clips=clips, classes=CLASSES, missing=missing, task="tagging")
    master = _log_sheet(source / "Logsheet_EvaluationMaster.csv", ("File", "Category"))
    ids = [f"eval_{Path(f).stem}" for f in master.File]  # numbers may be those of development clips
    test_clips = pd.DataFrame({"clip_id": ids, "path": [f"Evaluation/{f}" for f in master.File]})
    test_clips = located(test_clips, source)
    test = pd.DataFrame({"filename": master.File, "clip_id": ids})
    truth = pd.DataFrame({"filename": master.File, "category": master.Category})
    missing += absent(test_clips, source)
    return Tables(
        clips=clips,
        classes=CLASSES,
        events=None,
        test_clips=test_clips,
        test=test,
        missing=missing,
        task="tagging",
        truth=truth,
    )


def _log_sheet(path: Path, columns) -> pd.DataFrame:
    sheet = read_table(path, columns).drop_duplicates(ignore_index=True)
    sheet = sheet.assign(Category=respelled(sheet.Category.astype(str).str.strip(), CLASSES, path.name))
    if unknown := sorted(set(sheet.Category) - set(CLASSES)):
        raise ValueError(f"{path.name} has the category '{unknown[0]}'; known are {', '.join(CLASSES)}")
    return sheet


EDITIONS = by_name(
    Competition(
        name="msos", task="tagging", prepare=prepare, rows=rows, validate=validate, score=score, oof_score=ACCURACY
    )
)

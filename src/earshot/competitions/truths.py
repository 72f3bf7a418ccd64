"""A table of true answers, checked before anything is scored by it: each row once, labels of known classes only."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from earshot.competitions.birdcall import NOCALL
from earshot.competitions.checks import label_problems, refuse
from earshot.messages import few

logger = logging.getLogger("earshot")

KEYS = ("row_id", "clip_id", "fname", "filename", "audio_filename", "recording_id")
KEY_PARTS = ("machine", "part")  # where file names repeat from machine to machine
LABELS = ("birds", "labels", "label", "scene_label", "category", "event_label")


def checked_truth(truth: pd.DataFrame, classes: list[str], path: str | Path) -> pd.DataFrame:
    """The truth as it may be scored by; an answer given twice or a label of no class is an error that names them.

    Of events, the same row twice is one event annotated twice: it is left out, and said.
    """
    if "onset" in truth:
        twice = truth.duplicated()
        if twice.any():
            logger.warning("%s lists %d of %d events twice: they count once", path, twice.sum(), len(truth))
        truth, problems = truth[~twice].reset_index(drop=True), []
    else:
        problems = _twice(truth)
    known = [*classes, NOCALL]
    for column in (c for c in LABELS if c in truth):
        labels = truth[column].dropna().astype(str).str.split().explode().dropna()
        problems += label_problems(labels, known, f"column {column}")
    refuse(problems, f"the truth {path}")
    return truth


def _twice(truth: pd.DataFrame) -> list[str]:
    """What of the truth's keys stands more than once; a table without a key that is known: of its whole rows."""
    key = [c for c in (*KEY_PARTS, next((k for k in KEYS if k in truth), "")) if c in truth] or list(truth.columns)
    again = truth[truth.duplicated(key)]
    if not len(again):
        return []
    names = again[key[-1]].astype(str).drop_duplicates()
    return [f"{len(names)} of {len(truth)} rows answer what another row answers: {key[-1]} {few(names)}"]

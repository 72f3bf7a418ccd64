"""One row a clip: the class scores of predictions, and the clip ids of a sample submission."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.messages import few, plural, suggest
from earshot.prediction.predictions import Predictions
from earshot.sound.audio import EXTENSIONS
from earshot.tables import require_columns

logger = logging.getLogger("earshot")


def class_scores(predictions: Predictions, clip_ids, classes, what: str = "recordings") -> np.ndarray:
    """Look up the clip outputs of the asked clips and classes, in their order: (N, K) float64.

    A clip without prediction, or unreadable, gets the mean of each class over the others, and a warning.
    """
    for name in classes:
        if name not in predictions.classes:
            raise ValueError(f"the predictions have no class '{name}'{suggest(name, predictions.classes)}")
    order = [predictions.classes.index(c) for c in classes]
    place = {str(c): i for i, c in enumerate(predictions.clip_ids)}
    clip_ids = [str(c) for c in clip_ids]
    index = np.array([place.get(c, -1) for c in clip_ids], dtype=int)
    readable = ~np.asarray(predictions.unreadable, dtype=bool)
    if not readable.any():
        raise ValueError("no recording could be read, so there is nothing to submit")
    scores = predictions.clipwise_output[:, order].astype(np.float64)
    lost = (index < 0) | ~readable[index]
    if lost.any():
        logger.warning(
            "%d of %d %s have no prediction (missing or unreadable) and get the mean of each class: %s",
            lost.sum(), len(clip_ids), what, few(np.array(clip_ids)[lost]),
        )  # fmt: skip
    return np.where(lost[:, None], scores[readable].mean(axis=0), scores[index])


def sample_ids(table: pd.DataFrame, column: str) -> pd.Series:
    """The ids that a sample submission names in `column`; one that comes twice is an error."""
    require_columns(table, (column,), "sample_submission.csv")
    if (twice := table[column][table[column].duplicated()]).size:
        raise ValueError(
            f"sample_submission.csv names {plural(twice.nunique(), 'recordings')} twice: {few(twice.unique())}"
        )
    return table[column]


def tested(ids: pd.Series, found: Iterable[str], table: str) -> pd.Series:
    """Ids that a sample submission names, ids of the recordings of the test folder -> all, the sample's in front.

    A sample may be shorter than the test; recordings that it does not know are counted in a warning.
    """
    known = {plain_name(name) for name in ids}
    if extra := sorted(name for name in found if plain_name(name) not in known):
        logger.warning("%s does not name %d recordings of the test folder, which get rows too: %s", table, len(extra),
                       few(extra))  # fmt: skip
    return pd.Series([*ids, *extra], dtype=object)


def plain_name(name: str) -> str:
    """A file's name, or an id, without folders and the ending of a recording, in lower case."""
    name = name.rsplit("/", 1)[-1]
    ending = Path(name).suffix.lower()
    return (name[: -len(ending)] if ending in EXTENSIONS else name).casefold()

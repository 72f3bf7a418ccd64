"""BirdCLEF 2023: 264 species, about 200 hidden soundscapes of 10 minutes.

Score: padded cmAP, the macro average precision after five rows of ones under truth and submission alike, so that a
class without positives counts too. Everything else is in birdclef.py and birdclef_rows.py.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType

import pandas as pd

from earshot.competitions import birdclef
from earshot.competitions.birdclef_rows import aligned, rows, validate
from earshot.metrics import clips as clip_metrics

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

LIMITS = MappingProxyType(
    {
        "minutes": 120,
        "hours": MappingProxyType({"cpu": 2.0}),
        "internet": False,
        "hardware": "a Kaggle notebook on 4 CPU cores; about 200 hidden recordings of 10 minutes",
    }
)

prepare = partial(birdclef.prepare, seconds=600.0)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Padded cmAP; `truth` has the columns of the submission with 0 and 1, rows in any order."""
    return {"padded_cmap": clip_metrics.padded_cmap(*aligned(submission, truth))}

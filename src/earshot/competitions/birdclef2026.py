"""BirdCLEF 2026: 234 species, about 600 hidden soundscapes of 1 minute.

Some of train_soundscapes/ have labels (train_soundscapes_labels.csv). Recordings are named
BC2026_Test_0001_S05_20250227_010002: number, site, date, time. Score: macro ROC-AUC.
Everything else is in birdclef.py and birdclef_rows.py.
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
        "minutes": 90,
        "hours": MappingProxyType({"cpu": 1.5}),
        "internet": False,
        "hardware": "4 CPU cores (a GPU notebook gets one minute); about 600 hidden recordings of 1 minute",
    }
)

prepare = partial(birdclef.prepare, seconds=60.0)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Macro ROC-AUC over the classes with positives (and negatives: the official scorer has no value there)."""
    return {"macro_roc_auc": float(clip_metrics.macro_roc_auc(*aligned(submission, truth)))}

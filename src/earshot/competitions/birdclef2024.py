"""BirdCLEF 2024: 182 species, about 1,100 hidden soundscapes of 4 minutes.

unlabeled_soundscapes/ holds more of the test's sites, without labels: not read here. Score: macro ROC-AUC.
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
        "minutes": 120,
        "hours": MappingProxyType({"cpu": 2.0}),
        "internet": False,
        "hardware": "4 CPU cores (a GPU notebook gets one minute); about 1,100 hidden recordings of 4 minutes",
    }
)

prepare = partial(birdclef.prepare, seconds=240.0)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Macro ROC-AUC over the classes with positives (and negatives: the official scorer has no value there)."""
    return {"macro_roc_auc": float(clip_metrics.macro_roc_auc(*aligned(submission, truth)))}

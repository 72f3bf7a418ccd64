"""SONYC-UST at the fine level: 29 classes, the incomplete "X" tags among them; see sonyc_ust.py."""

from functools import partial

from earshot.competitions import sonyc_ust
from earshot.competitions.sonyc_ust import LIMITS, rows, score, validate

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

prepare = partial(sonyc_ust.prepare, level="fine")

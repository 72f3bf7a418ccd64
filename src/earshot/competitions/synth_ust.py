"""Embedded urban sound tags: SONYC-UST's eight coarse tags on invented sounds, other sensors held out."""

from functools import partial

from earshot.competitions import embedded
from earshot.competitions.embedded import LIMITS, rows, score_urban, validate

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

prepare = partial(embedded.prepare, "ust")
score = score_urban
EMBEDDED = True  # makes its own download

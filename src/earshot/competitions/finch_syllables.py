"""Finch songs, the nine syllables of one bird: see finch.py."""

from functools import partial

from earshot.competitions import finch
from earshot.competitions.finch import LIMITS, mix_backgrounds, rows, score, validate

__all__ = ["LIMITS", "mix_backgrounds", "prepare", "rows", "score", "validate"]

prepare = partial(finch.prepare, labels="syllables")

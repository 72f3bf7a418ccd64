"""AudioSet's balanced training list (22,160 clips) and the whole evaluation list; everything else as audioset."""

from functools import partial

from earshot.competitions import audioset
from earshot.competitions.audioset import LIMITS, rows, score, validate

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

prepare = partial(audioset.prepare, subset="balanced")

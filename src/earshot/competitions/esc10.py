"""ESC-10: the ten easiest classes of ESC-50 (400 clips), from the same download, under the same rules."""

from functools import partial

from earshot.competitions import esc50
from earshot.competitions.esc50 import LIMITS, rows, score, validate

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

prepare = partial(esc50.prepare, subset="esc10")

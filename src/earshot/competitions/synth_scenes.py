"""Embedded acoustic scenes: eight invented scenes, places and devices that training did not have; see synth_tasks."""

from functools import partial

from earshot.competitions import embedded
from earshot.competitions.embedded import LIMITS, rows, score_scenes, validate

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

prepare = partial(embedded.prepare, "scenes")
score = score_scenes
EMBEDDED = True  # makes its own download

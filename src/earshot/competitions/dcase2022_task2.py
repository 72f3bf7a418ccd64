"""DCASE 2022 task 2: seven machines, sections 00 to 05, domains mixed in the test; see dcase_task2.py."""

from functools import partial

from earshot.competitions import dcase_task2_scores
from earshot.competitions.dcase_task2 import LIMITS, files, prepare, read_files, rows, validate

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

score = partial(dcase_task2_scores.score, mode="shared")

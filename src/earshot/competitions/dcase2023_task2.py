"""DCASE 2023 task 2: first shot: other machines in the evaluation, one section each; see dcase_task2.py."""

from functools import partial

from earshot.competitions import dcase_task2_scores
from earshot.competitions.dcase_task2 import LIMITS, files, prepare, read_files, rows, validate

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

score = partial(dcase_task2_scores.score, mode="shared")

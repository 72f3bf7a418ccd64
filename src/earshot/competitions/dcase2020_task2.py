"""DCASE 2020 task 2: six machines, ids 00 to 06; see dcase_task2.py."""

from functools import partial

from earshot.competitions import dcase_task2, dcase_task2_scores
from earshot.competitions.dcase_task2 import LIMITS, files, prepare, read_files

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

rows = partial(dcase_task2.rows, decisions=False)
validate = partial(dcase_task2.validate, decisions=False)
score = partial(dcase_task2_scores.score, mode="plain")

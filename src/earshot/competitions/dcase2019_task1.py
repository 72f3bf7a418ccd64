"""DCASE 2019 task 1: TAU Urban Acoustic Scenes 2019, subtask A (one device), a scene a clip; see dcase_task1.py."""

from functools import partial

from earshot.competitions import dcase_task1
from earshot.competitions.dcase_task1 import LIMITS, prepare, score

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

rows = partial(dcase_task1.rows, probabilities=False)
validate = partial(dcase_task1.validate, probabilities=False)
files = partial(dcase_task1.files, header=False)
read_files = partial(dcase_task1.read_files, header=False)

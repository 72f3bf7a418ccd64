"""DCASE 2022 task 1: TAU 2022 Mobile, at most 128 kB and 30 MMACs, by log loss; see dcase_task1.py."""

from functools import partial
from types import MappingProxyType

from earshot.competitions import dcase_task1
from earshot.competitions.dcase_task1 import files, prepare, read_files, rows, validate

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

LIMITS = MappingProxyType({"parameters_kb": 128, "mmacs": 30})

score = partial(dcase_task1.score, first="log_loss")

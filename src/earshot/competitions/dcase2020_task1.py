"""DCASE 2020 task 1: TAU 2020 Mobile, subtask A, several devices, by class-mean accuracy; see dcase_task1.py."""

from earshot.competitions.dcase_task1 import LIMITS, files, prepare, read_files, rows, score, validate

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

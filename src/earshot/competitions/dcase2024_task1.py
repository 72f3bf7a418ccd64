"""DCASE 2024 task 1: TAU 2022 Mobile, 5 to 100 % of the training clips (--set subset=5); see dcase_task1.py."""

from types import MappingProxyType

from earshot.competitions.dcase_task1 import files, prepare, read_files, rows, score, validate

__all__ = ["LIMITS", "files", "prepare", "read_files", "rows", "score", "validate"]

LIMITS = MappingProxyType({"parameters_kb": 128, "mmacs": 30})

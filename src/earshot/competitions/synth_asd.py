"""Embedded machines: normal sounds of nine sections train, anomalies are held out; see synth_tasks."""

from functools import partial

from earshot.competitions import embedded
from earshot.competitions.embedded import LIMITS, machine_rows, score_machines, validate_machines

__all__ = ["LIMITS", "prepare", "rows", "score", "validate"]

prepare = partial(embedded.prepare, "asd")
rows, validate, score = machine_rows, validate_machines, score_machines
EMBEDDED = True  # makes its own download

"""Rounds of pseudo-labels: who may answer for which fold, windows heard, chosen and written, whole schedules."""

"""What columns of people's tables are called: their names without units and signs, and what an empty cell is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

UNITS = {"ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
NO_TIME = ("sample", "frame", "samples", "frames")
ELAN_FORMATS = re.compile(r" - (hh:mm:ss\.ms|ss\.msec)$", re.I)  # behind its columns' names: both are read
NOTHING = ("", "na", "nan", "none", "null")


def plain_name(name: str) -> str:
    """A column's name without its unit: 'Begin Time (s)' -> begin_time, 'onset_s' -> onset."""
    name = ELAN_FORMATS.sub("", name.strip().strip("\ufeff\"'")).casefold()
    name = "_".join(re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)|\[.*?\]", " ", name)))
    return re.sub(rf"_(s|sec|secs|seconds|({'|'.join(UNITS)})s?|{'|'.join(NO_TIME)})$", "", name)


def unit_of(name: str, path: Path) -> float:
    """Seconds that a column's unit has by its name: 'Begin Time (s)' 1, 'start_ms' 0.001; samples are an error."""
    last = last_word(name)
    if last in NO_TIME:
        raise ValueError(f"{path}: column '{name}' counts {last.rstrip('s')}s; divide by their rate: times are seconds")
    return UNITS.get(last, UNITS.get(last.rstrip("s"), 1.0))


def last_word(name: str) -> str:
    """What may be a column's unit: 'samples' of start_samples, 's' of Begin Time (s); '' of a name of one word."""
    words = re.findall(r"[a-z]+", ELAN_FORMATS.sub("", name.strip()).casefold())
    return words[-1] if len(words) > 1 else ""


def column_called(columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in (re.sub("_seconds$", "", n) for n in names) if name in columns), None)


def is_blank(values: pd.Series) -> pd.Series:
    return values.str.strip().str.casefold().isin(NOTHING)

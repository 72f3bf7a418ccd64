"""Tables with a column a class, whose cells say whether it is heard: 0 or 1, true or false, x or nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

YES, NO = ("1", "1.0", "true", "yes", "x"), ("0", "0.0", "false", "no", "", "nan")
NO_CLASS = re.compile(r"(is|has|use)_|(folds?|channel|view|selection|confidence|score|index)$")


def is_yes_no(cells: pd.Series) -> bool:
    """Whether all cells say yes or no, and some say each."""
    words = _words(cells)
    return words <= {*YES, *NO} and bool(words & set(YES)) and bool(words & set(NO))


def heard(cells: pd.Series) -> pd.Series:
    """Which cells say yes."""
    return cells.str.strip().str.casefold().isin(YES)


def class_columns(table: pd.DataFrame, taken: Sequence[str]) -> list[str]:
    """The columns of a class each among those not `taken`, where at least two say yes and no; else none.

    A class that every row has, or none, is among them.
    """
    left = [c for c in table.columns if c not in taken and not NO_CLASS.match(str(c).casefold())]
    if sum(is_yes_no(table[c]) for c in left) < 2:
        return []
    return [c for c in left if _words(table[c]) <= {*YES, *NO} and _words(table[c]) != {""}]


def _words(cells: pd.Series) -> set[str]:
    return set(cells.str.strip().str.casefold())

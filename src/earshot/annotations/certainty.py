"""How sure each row of a table is: a number from 0 to 1, or words such as low and high."""

from __future__ import annotations

import re

import pandas as pd

from earshot.annotations.cells import is_blank
from earshot.annotations.column_names import column_called, plain_name

# from 0 to 1, of an answer or of several people
CONFIDENCES = ("confidence", "score", "probability", "relevance", "prob", "tadarida_probabilite")
CERTAINTIES = ("certainty", "certain", "sure", "id_certainty", "id_confidence", *CONFIDENCES)  # in words
MARK = "?"  # beside a label that nobody is sure of: crow?
MARKS = r"(?:\?+|\(\s*\?+\s*\)|\[\s*\?+\s*\])"  # and as people write it: crow (?), ?crow
MARKED = re.compile(rf"^\s*{MARKS}|{MARKS}\s*$")
MOST_WORDS = 12  # of a column that says how sure a row is


def confidence_of(table: pd.DataFrame) -> pd.Series | None:
    """The column of a table that says how sure each row is, as numbers; None where there is none from 0 to 1.

    An empty cell, as of a row that a person wrote, says nothing: NaN.
    """
    plain = [plain_name(c) for c in table.columns]
    for name in CONFIDENCES:
        if name in plain:
            cells = table.iloc[:, plain.index(name)].str.strip()
            numbers = pd.to_numeric(cells.str.replace(",", ".", regex=False).str.rstrip("% "), errors="coerce")
            empty, percent = is_blank(cells), cells.str.endswith("%")
            numbers = numbers / 100 if percent.any() and (percent | empty).all() else numbers.mask(percent)
            if not empty.all() and (numbers.between(0, 1) | empty).all():
                return numbers
    return None


def certainty_of(table: pd.DataFrame) -> pd.Series | None:
    """The column of a table that says in words, or in marks such as 1 to 3, how sure each row is; None: there is none.

    Its name is the column's.
    """
    plain = [plain_name(c) for c in table.columns]
    name = column_called(plain, CERTAINTIES)
    if name is None or confidence_of(table) is not None:
        return None
    cells = table.iloc[:, plain.index(name)].str.strip()
    return cells if 0 < cells[~is_blank(cells)].nunique() <= MOST_WORDS else None


def is_doubted(label: str) -> bool:
    """Whether a label begins or ends with a question mark, and is more than that."""
    return bool(MARKED.search(label)) and bool(without_mark(label))


def without_mark(label: str) -> str:
    """A label without the question marks before or behind it."""
    while (rest := MARKED.sub("", label)) != label:
        label = rest
    return label.strip()

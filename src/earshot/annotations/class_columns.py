"""Tables with a column a class, whose cells say whether it is heard: 0 or 1, true or false, x or nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from earshot.annotations.certainty import MARK
from earshot.annotations.column_names import plain_name

YES = ("1", "1.0", "true", "yes", "y", "x", "pos", "present")
UNKNOWN = ("unk", "?", "??")  # nobody could tell: of DCASE's few-shot tables, and by hand
NO = ("0", "0.0", "false", "no", "n", "-", "", "nan", "na", "none", "null", "neg", "not_present", *UNKNOWN)
NO_CLASS = re.compile(
    r"(is|has|use)_|unnamed: \d+$|.*\bfreq(uency)?\b|"
    r"((low|high|begin|end|min|max)_?freq|folds?|channel|view|selection|selec|confidence|score|prob(ability)?|index)$"
)
UNNAMED = re.compile(r"Unnamed: \d+$")  # what pandas calls a column without a name
COUNTS = ("count", "counts", "abundance", "individuals", "n_individuals", "number_of_individuals")
# columns of a judge of each row; in RIGHT a no counts too, in the others it may be "not looked at"
RIGHT = ("correct", "is_correct", "true_positive", "tp", "accepted", "is_accepted")
JUDGED = (*RIGHT, "verification", "verified", "validation", "validated", "label_type")
REFUSED = (
    "negative",
    "absent",
    "not present",
    "incorrect",
    "wrong",
    "false positive",
    "false_positive",
    "fp",
    "rejected",
)
COUNT = r"\d{1,2}(\.\d+)?"

logger = logging.getLogger("earshot")


def is_yes_no(cells: pd.Series) -> bool:
    """Whether all cells say yes or no, and some say each."""
    words = _words(cells)
    return words <= {*YES, *NO} and bool(words & set(YES)) and bool(words & set(NO))


def says_yes_or_no(cells: pd.Series) -> bool:
    """Whether all cells say yes or no."""
    return _words(cells) <= {*YES, *NO}


def heard(cells: pd.Series) -> pd.Series:
    """Which cells say yes."""
    return cells.map({cell: str(cell).strip().casefold() in YES for cell in cells.unique()}).astype(bool)


def doubted(cells: pd.DataFrame) -> pd.DataFrame:
    """Which cells say that nobody could tell."""
    return cells.apply(lambda column: column.str.strip().str.casefold().isin(UNKNOWN))


def named_in(cells: pd.DataFrame) -> list[list[str]]:
    """The classes that each row says yes to, and with a question mark those of which nobody could tell."""
    yes, unsure = cells.apply(heard).to_numpy(), doubted(cells).to_numpy()
    return [
        [
            f"{name}{'' if there else MARK}"
            for name, there, doubt in zip(cells.columns, *row, strict=True)
            if there | doubt
        ]
        for row in zip(yes, unsure, strict=True)
    ]


def say_unknown(cells: pd.DataFrame, path: Path):
    """Warn of cells that say that nobody could tell."""
    unknown = doubted(cells).to_numpy()
    if unknown.any():
        words = " or ".join(sorted({cell.strip() for cell in cells.to_numpy()[unknown]}))
        logger.warning("%s: %d of %d cells say %s, nobody could tell: these classes are unknown in their recordings, "
                       "neither there nor absent", path, unknown.sum(), unknown.size, words)  # fmt: skip


def class_columns(table: pd.DataFrame, taken: Sequence[str], path: Path) -> list[str]:
    """The columns of a class each among those not `taken`: where two or more say yes and no, or there are no others.

    A class that every row has, or none, is among them, as in a table of one recording. Two of one name, and one
    without a name, are an error.
    """
    left = [c for c in table.columns if c not in taken and not NO_CLASS.match(str(c).casefold())]
    left = [c for c in left if _words(table[c]) != {""}]
    found = [c for c in left if says_yes_or_no(table[c])]
    if sum(is_yes_no(table[c]) for c in found) < 2 and found != left:
        return []
    nameless = [c for c in table.columns[1:] if UNNAMED.match(str(c)) and set(YES) & _words(table[c])]
    if found and nameless and says_yes_or_no(table[nameless[0]]):
        raise ValueError(
            f"{path}: column {list(table.columns).index(nameless[0]) + 1} holds 0 and 1 as classes do, and has "
            "no name: name it, or remove it"
        )
    if twice := [c for c in found if f"{c}.1" in found]:
        raise ValueError(
            f"{path} has two columns '{twice[0]}', both of 0 and 1: keep one, or give them two names; each is a class"
        )
    return found


def score_columns(table: pd.DataFrame, taken: Sequence[str]) -> list[str]:
    """Columns that may be classes with a confidence each: two or more of numbers from 0 to 1, some between them."""
    left = [c for c in table.columns if c not in taken and not NO_CLASS.match(str(c).casefold())]
    cells = table[left].apply(lambda c: pd.to_numeric(c.str.replace(",", ".", regex=False), errors="coerce"))
    found = [c for c in left if len(table) and cells[c].between(0, 1).all()]
    return found if len(found) > 1 and (cells[found] % 1 != 0).any(axis=None) else []


def counted(table: pd.DataFrame, taken: Sequence[str]) -> dict[str, str]:
    """Columns that may be meant as classes, but hold other numbers than 0 and 1, some of them 0: {name: a number}."""
    left = [c for c in table.columns if c not in taken and not NO_CLASS.match(str(c).casefold())]
    found = {}
    for column in left:
        words = _words(table[column])
        numbers = sorted(words - {*YES, *NO})
        if numbers and words & set(NO) and all(re.fullmatch(COUNT, word) for word in numbers):
            found[column] = numbers[0]
    return found


def counted_beside(table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Columns of small whole numbers right beside or between those of classes: counts of further classes."""
    known = list(table.columns)
    at = [known.index(c) for c in classes]
    near = table.iloc[:, max(0, min(at) - 1) : max(at) + 2]
    return [c for c in counted(near, classes) if all(re.fullmatch(r"\d?(\.0)?", word) for word in _words(table[c]))]


def of_one_class(columns: Sequence[str]) -> list[str]:
    """Those of a table's columns that speak of the class of a row: where each column is a class they are of none."""
    return [c for c in columns if plain_name(str(c)) in ("present", *COUNTS)]


def said_absent(table: pd.DataFrame, path: Path) -> tuple[pd.Series, pd.Series]:
    """The rows that say that their class is not there, and those of them that say so of the recording; told.

    By `is_negative` (yes), by columns such as `present` (no) or `count` (0), and by the word of a judge, such as
    `negative` in `verification`: of a detection, which says of the rest of its recording nothing.
    """
    absent, of_recording = (pd.Series(False, index=table.index) for _ in range(2))
    for column in table.columns:
        name, cells = plain_name(str(column)), table[column].str.strip().str.casefold()
        yes_or_no = says_yes_or_no(cells) and _words(cells) != {""}
        if name in JUDGED:
            rows = cells.isin(REFUSED) | (yes_or_no & ~heard(cells) & (cells != "") & (name in RIGHT))
        elif yes_or_no and name in ("is_negative", "present"):
            rows = heard(cells) == (name == "is_negative")
            of_recording |= rows & (name == "present") & (cells != "") & ~cells.isin(UNKNOWN)
        elif name in COUNTS:
            rows = pd.to_numeric(cells, errors="coerce") == 0
            of_recording |= rows
        else:
            continue
        if rows.any():
            logger.warning(
                "%s: %d rows say that a class was not there (%s), and are left out", path, rows.sum(), column
            )
        absent |= rows
    return absent, of_recording


def _words(cells: pd.Series) -> set[str]:
    return {str(cell).strip().casefold() for cell in cells.unique()}

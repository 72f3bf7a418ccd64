"""Annotation tables with a column a class -> tables with an event a row."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from earshot.annotations.cells import is_blank
from earshot.annotations.class_columns import (
    class_columns,
    counted,
    is_yes_no,
    named_in,
    of_one_class,
    say_unknown,
    says_yes_or_no,
    score_columns,
)
from earshot.annotations.column_names import (
    CODES,
    DURATIONS,
    FILES,
    IN_FILE,
    LABELS,
    LAST_LABELS,
    NUMBERS_OF_ROWS,
    OFFSETS,
    ONSETS,
    plain_name,
    plain_names,
)
from earshot.messages import few, suggest

ASKED_FOR = "Q"  # the column of the one sound that a few-shot table is about

logger = logging.getLogger("earshot")


def scores_of_classes(table: pd.DataFrame, given: str) -> list[str]:
    """The columns of a class each with its confidence, where no column holds labels and none says yes and no."""
    plain = dict(zip(table.columns, plain_names(table.columns), strict=True))
    if given or any(name in LABELS and name not in NUMBERS_OF_ROWS for name in plain.values()):
        return []
    roles = {*ONSETS, *OFFSETS, *DURATIONS, *FILES, *IN_FILE, *LABELS, *LAST_LABELS}
    taken = [c for c, name in plain.items() if name in roles]
    return score_columns(table, taken)


def classes_in_rows(table: pd.DataFrame, path: Path, given: str) -> pd.DataFrame:
    """A table whose classes are columns of 0 and 1 -> one row a class heard; where none is, no times. Others as is.

    given: what --label-column names: several by commas, or one that no labels are called by, hold 0 and 1.
    """
    plain = dict(zip(table.columns, plain_names(table.columns), strict=True))
    plain = {c: "" if name in CODES and is_yes_no(table[c]) else name for c, name in plain.items()}
    if given:
        classes = _given_classes(table, given, path)
    elif any(
        name in LABELS and name not in NUMBERS_OF_ROWS and not (len(table) and is_blank(table[c]).all())
        for c, name in plain.items()
    ):
        return table
    else:
        roles = {*ONSETS, *OFFSETS, *DURATIONS, *FILES, *IN_FILE, *LABELS}
        taken = [c for c, name in plain.items() if name in roles]
        classes, others = class_columns(table, taken, path), counted(table, taken)
        if others and (classes or all(name not in LABELS for name in plain.values())):
            said = few([f"'{c}' ({number})" for c, number in others.items()])
            if not classes:
                raise ValueError(
                    f"{path}: no column has a name that labels have, and {said} hold other numbers than 0 and 1: where "
                    "they are classes, write 1 where one is heard and 0 where not; else name the column of the labels "
                    "with --label-column"
                )
            logger.warning("%s: no classes are columns of other numbers than 0 and 1: %s; write 1 where one is heard",
                           path, said)  # fmt: skip
    if not classes:
        return table
    one = len(classes) == 1
    logger.warning("%s: %d column%s of 0 and 1 %s: %s", path, len(classes), "" if one else "s",
                   "is a class" if one else "are classes", few(classes))  # fmt: skip
    if classes == [ASKED_FOR] and not given:
        logger.warning("%s: %s is the sound asked for in this recording, as DCASE's few-shot tables have it, and is "
                       "one class in all tables: prepare those of one kind of sound by themselves to keep kinds apart",
                       path, ASKED_FOR)  # fmt: skip
    say_unknown(table[classes], path)
    rest = table.drop(columns=[*classes, *(c for c, name in plain.items() if name in LABELS and c not in classes)])
    rest = rest if one else rest.drop(columns=of_one_class(rest.columns))
    rest = rest.assign(event_label=named_in(table[classes]))
    rest = rest.explode("event_label", ignore_index=True).astype({"event_label": object})
    times = [c for c in rest if plain_name(c) in {*ONSETS, *OFFSETS, *DURATIONS, *IN_FILE}]
    rest.loc[rest.event_label.isna(), [*times, "event_label"]] = ""
    return rest


def _given_classes(table: pd.DataFrame, given: str, path: Path) -> list[str]:
    """The columns of 0 and 1 that --label-column names, by commas; none where it is one column of names."""
    names = [given] if given in table.columns else [name.strip() for name in given.split(",")]
    if wrong := [name for name in names if name not in table.columns]:
        raise ValueError(f"{path} has no column '{wrong[0]}'{suggest(wrong[0], table.columns, 'columns')}")
    odd = [name for name in names if not says_yes_or_no(table[name])]
    if len(names) > 1 and odd:
        raise ValueError(
            f"{path}: of several columns each is a class, with 1 where it is heard, but '{odd[0]}' holds others: "
            f"{few(sorted(set(table[odd[0]])))}; name the one column of the labels"
        )
    return [] if len(names) == 1 and (odd or plain_name(names[0]) in LABELS) else names

"""What the cells of annotation tables say: times in seconds, whole names, rows of a whole recording, or nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.annotations.column_names import (
    CORNERS,
    DURATIONS,
    ELAN_FORMATS,
    NO_TIME,
    OFFSETS,
    ONSETS,
    UNITS,
    column_called,
    last_word,
    plain_name,
    plain_names,
)
from earshot.messages import few
from earshot.sound.audio import EXTENSIONS

NUMBERS = r"\s*[-+]?[\d.,:]+([eE][-+]?\d+)?\s*"
# columns of the second half of a species' name, maybe of both, and of the first
EPITHETS = ("species", "sp", "specific_epithet", "art", "espece", "especie")
GENERA = ("genus", "gen", "gattung", "genre", "genero")
NOTHING = ("", "na", "nan", "none", "null")

logger = logging.getLogger("earshot")


def without_samples(table: pd.DataFrame) -> pd.DataFrame:
    """A table without its times in samples where other columns say them in seconds."""
    rest = table[[c for c in table.columns if last_word(c) not in NO_TIME]]
    plain = plain_names(rest.columns)
    return rest if column_called(plain, ONSETS) and column_called(plain, OFFSETS + DURATIONS) else table


def in_seconds(values: pd.Series, path: Path) -> np.ndarray:
    """Texts -> seconds; a decimal comma and h:mm:ss are understood, what is no time is an error."""
    text = values.astype(str).str.strip()
    text = text.mask(text == "0 days", "0").str.removeprefix("0 days ")  # as pandas writes differences of times
    numbers = pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce").to_numpy(float)
    clock = text.str.fullmatch(r"(\d+:)?\d+:\d+([.,]\d+)?").to_numpy(bool)
    for i in np.flatnonzero(clock):
        parts = [float(p) for p in text.iloc[i].replace(",", ".").split(":")]
        numbers[i] = sum(p * 60**power for power, p in enumerate(reversed(parts)))
    if (bad := ~np.isfinite(numbers)).any():
        raise ValueError(
            f"{path}: {bad.sum()} of {len(text)} times are no seconds: {few(repr(t) for t in text[bad])}. They count "
            "from the start of a recording, in seconds or h:mm:ss, or say the day and time, as 2024-01-31 "
            f"06:30:00, where recordings are named so; prepare.py takes a table of other times as --table"
        )
    return numbers


def check_corners(table: pd.DataFrame, path: Path):
    """Raise where x1, x2, y1 and y2 are corners of boxes in a picture, in pixels or shares of it."""
    columns = [c for c in table.columns if plain_name(c) in CORNERS]
    cells = table[columns].apply(lambda c: pd.to_numeric(c.str.replace(",", ".", regex=False), errors="coerce"))
    for unit, there in (("pixels", cells % 1 == 0), ("shares of it", cells.abs() <= 1)):
        if len(cells) and there.all(axis=None):
            raise ValueError(
                f"{path}: {few(columns)} seem to be corners in a picture, in {unit}: times are seconds from the start "
                "of each recording, in columns such as onset and offset. Without them it is a table of labels of whole "
                "recordings, which prepare.py takes as --table"
            )


def refuse_twin(column: pd.Series | None, table: pd.DataFrame, path: Path):
    """Raise where a table has two columns of this one's name that say different things."""
    if column is not None and f"{column.name}.1" in table and (table[f"{column.name}.1"] != column).any():
        raise ValueError(f"{path} has two columns '{column.name}', which differ: keep one, or give them two names")


def parts_of_time(table: pd.DataFrame, values: pd.Series) -> list[pd.Series]:
    """The columns that hold the rest of a time, as `start_sec` does that of `start_min`: whole minutes, and seconds
    below 60; not those that say the same time in another unit."""
    name, parts = str(values.name), {}
    for column in table.columns:
        said = "" if ELAN_FORMATS.search(column) or last_word(column) in NO_TIME else plain_name(column)
        if said == plain_name(name) and (unit := UNITS.get(last_word(column), 1.0)) >= 1:
            parts[unit] = pd.to_numeric(table[column].str.replace(",", "."), errors="coerce").fillna(0)
    whole = all((cells % 1 == 0).all() for unit, cells in parts.items() if unit > 1)
    below = all((cells < 60).all() for unit, cells in parts.items() if unit < max(parts))
    own = UNITS.get(last_word(name), 1.0)
    if len(parts) < 2 or own not in parts or not (whole and below):
        return []
    return [table[cells.name] for unit, cells in parts.items() if unit != own]


def with_genus(labels: pd.Series, table: pd.DataFrame, path: Path) -> pd.Series:
    """Species with their genus in front, where a column of its own has it: a tit and a warbler are both palustris."""
    plain = [plain_name(c) for c in table.columns]
    column = column_called(plain, GENERA)
    if plain_name(str(labels.name)) not in EPITHETS or column is None:
        return labels
    genus, names = table.iloc[:, plain.index(column)].str.strip(), labels.str.strip()
    bare = (genus != "") & (names != "") & ~names.str.contains(" ")
    if bare.any():
        logger.warning("%s: species are named with the genus in front", path)
    return (genus + " " + names).where(bare, names).rename(labels.name)


def without_ending(labels: pd.Series, path: Path) -> pd.Series:
    """Labels that are all names of sounds, such as knock004.wav, as DCASE 2018 and 2019 have them, as their class."""
    names = labels.str.strip()
    if not len(names) or not names[names != ""].str.lower().str.endswith(EXTENSIONS).all() or is_blank(names).all():
        return labels
    classes = names.str.replace(r"[-_ ]?\d*\.\w+$", "", regex=True)
    logger.warning("%s: labels are names of sounds, and are taken without number and ending, as %s of %s", path,
                   classes.iloc[0], names.iloc[0])  # fmt: skip
    return classes.where(classes != "", names)


def names_alone(table: pd.DataFrame, timeless: pd.Series) -> pd.Series:
    """The rows without times that only name a class: DAS lists so, by three columns, what may be heard."""
    return timeless & ({*table.columns} == {"name", "start_seconds", "stop_seconds"})


def without_time(table: pd.DataFrame) -> pd.Series:
    """The rows that are labels of a whole recording, whatever their times: APLOSE's of no box."""
    plain = {plain_name(c): table[c].str.strip().str.casefold() for c in table.columns}
    box, kind = plain.get("is_box"), plain.get("type")
    rows = pd.Series(False, index=table.index)
    if box is not None:
        rows |= box.isin(("0", "0.0", "false"))
    return rows | (kind == "weak") if kind is not None and kind.isin(("weak", "box", "point")).all() else rows


def is_minus_one(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce") == -1


def is_blank(values: pd.Series) -> pd.Series:
    return values.str.strip().str.casefold().isin(NOTHING)

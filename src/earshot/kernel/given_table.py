"""The table that lies beside a hidden test, as it is, mended, or not of use.

What its key column names (row_id) is what is scored: those rows, each once, are answered whatever else is wrong with
the table. Columns that contradict the names, or are missing, are made of the names. Rows without a name are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from earshot.competitions.clip_rows import plain_name
from earshot.competitions.competition import Rules
from earshot.messages import few
from earshot.tables import read_table

KNOWN_SHARE = 0.9  # of the rows of the folder's recordings: a sample with so many is the hidden one
UNNAMED = "Unnamed: "  # pandas' name of a column that has none, as of a table's index


@dataclass(frozen=True)
class GivenTable:
    """table: None where none is of use; ids: (N,) clip id of each row; columns: those of a sample submission."""

    table: pd.DataFrame | None = None
    ids: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def read_given(rules: Rules, folder: Path, path: str | Path | None, notes: list[str]) -> GivenTable:
    """The table at `path`, which must be sound, or else the one beside the folder of recordings, mended."""
    beside = folder.parent / rules.table
    if path is None and not beside.is_file():
        return GivenTable()
    try:
        table = read_table(path or beside)
        columns = _columns_of_sample(rules, table, notes) if rules.sample else ()
        if not len(table):
            notes.append(f"{rules.table} has no rows")
            return GivenTable(columns=columns)
        if path is None:
            table = _mended(rules, table, notes)
        return GivenTable(table, tuple(str(i) for i in rules.read(table)), columns)
    except ValueError as error:
        if path is not None:
            raise
        notes.append(f"{rules.table} is not used: {error}".replace(f"{folder.parent}/", ""))
        return GivenTable()


def _columns_of_sample(rules: Rules, table: pd.DataFrame, notes: list[str]) -> tuple[str, ...]:
    """What a submission's columns are called; () where the sample does not say."""
    columns = [str(c) for c in table.columns]
    named = [c for c in columns if c and not c.startswith(UNNAMED)]
    if len(named) > 1 and named[0] != rules.key:
        notes.append(f"{rules.table} begins with {columns[0]}, not {rules.key}: its columns are not taken")
        return ()
    return tuple(named) if len(named) > 1 else ()


def _mended(rules: Rules, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The table with each row that has a name once; with columns made of the names where the table's do not do."""
    if list(table.columns).count(rules.key) != 1:
        return table
    names = table[rules.key].fillna("").astype(str).str.strip()
    table = table.assign(**{rules.key: names})
    if (blank := names == "").any():
        notes.append(f"{rules.table}: {blank.sum()} rows have no {rules.key} and are left out")
    if (twice := names.duplicated() & ~blank).any():
        notes.append(f"{rules.table}: {twice.sum()} rows come again and are answered once: {few(names[twice])}")
    table = table[~blank & ~twice].reset_index(drop=True)
    try:
        rules.read(table)
        return table
    except ValueError as error:
        if rules.split is None:
            raise
        said = rules.split(table[rules.key])
        notes.append(f"{rules.table}: {error}; its {rules.key} alone is taken")
    if (strange := said[rules.key] == "").any():
        notes.append(f"{rules.table}: {strange.sum()} rows are left out, their {rules.key} says nothing: "
                     f"{few(table[rules.key][strange])}")  # fmt: skip
    return said[~strange].reset_index(drop=True)


def named_alike(files: Mapping[str, Path], ids: Sequence[str]) -> dict[str, Path]:
    """The files under the names that the table has for them: with an ending, a folder, other capitals or without."""
    known = set(ids)
    near = {plain_name(name): name for name in known if name not in files}
    found = {}
    for name, path in files.items():
        other = near.get(plain_name(name), name)
        found[name if name in known or other in found else other] = path
    return found


def completed(given: GivenTable, rules: Rules, needed: pd.DataFrame, notes: list[str]) -> GivenTable:
    """A sample submission with the rows that it lacks of those `needed` for the recordings, behind its own.

    One that lacks more than a few is that of the download, since the hidden test is another: it is of no use.
    """
    have = set(given.table[rules.key].astype(str).map(plain_name))
    lost = needed[~needed[rules.key].astype(str).map(plain_name).isin(have)]
    if not len(lost):
        return given
    said = f"{rules.table} lacks {len(lost)} rows of its recordings"
    if len(lost) > (1 - KNOWN_SHARE) * len(needed):
        notes.append(f"{said}: rows follow from recordings")
        return replace(given, table=None)
    notes.append(f"{said}, which are added: {few(lost[rules.key])}")
    table = pd.concat([given.table[[rules.key]], lost[[rules.key]]], ignore_index=True)
    return replace(given, table=table, ids=tuple(str(i) for i in rules.read(table)))

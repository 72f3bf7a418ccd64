"""Which files in a folder of one's own are the table of labels and the annotations, guessed by what is in them."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from earshot.annotations import json_tables
from earshot.annotations.reading import ENDINGS, is_bare, kind_of
from earshot.competitions.label_columns import label_columns, split_of
from earshot.competitions.own.recordings import OwnRecordings
from earshot.files import walk
from earshot.messages import few, pasted, suggest
from earshot.sound.audio import EXTENSIONS
from earshot.sound.folder import SYSTEM_FOLDERS
from earshot.tables import read_rows, read_table

UNREAD = (".xlsx", ".xls", ".ods", ".numbers", ".parquet", ".json", ".jsonl", ".xml", ".db", ".sqlite",
          ".rttm", ".lab", ".wrd", ".svl", ".trs", ".stm", ".data")  # fmt: skip
TABLES = (".csv", ".tsv", ".txt", *json_tables.ENDINGS)
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf")
MOST_HINTS = 3  # of tables that name no recordings
LOOKED_AT = 50  # rows of a table that are held against the recordings
OURS = ("clips.csv", "classes.csv", "missing.csv", "unreadable.csv", "odd_files.csv", "test_clips.csv")

FOLDS = re.compile("(fold|split)[-_ ]?[0-9]", re.I)  # in the name of a list of one fold
UNNAMED = re.compile(r"Unnamed: 0")  # what pandas calls a first column without a name
SUBMISSION = "submission"  # in the name of a table of answers to come

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class LabelTable:
    """A table of labels: one file, or one for each split, such as train.csv and test.csv."""

    files: tuple[Path, ...]

    def __str__(self) -> str:
        return few([str(path) for path in self.files])

    def read(self, recordings: OwnRecordings, say: bool = False) -> pd.DataFrame:
        """All rows as text; rows that several files have count once, and `_folder` says where theirs lies."""
        tables = [read_own(path, recordings, say) for path in self.files]
        if any("split" in table for table in tables):  # FSD50K: in the one of the training alone
            both = zip(tables, self.files, strict=True)
            tables = [t if "split" in t else t.assign(split=split_of(path)) for t, path in both]
        if len(tables) == 1:
            return tables[0]
        tables = [t.assign(_folder=path.parent) for t, path in zip(tables, self.files, strict=True)]
        return pd.concat(tables).fillna("").drop_duplicates(ignore_index=True)


def find_annotations(source: Path, given: Path | None, recordings: OwnRecordings) -> list[Path]:
    """The annotation files given (a file or a folder), else those below `source`; none is no error unless given.

    Rows of numbers alone are annotations where their file is named as a recording.
    """
    if given is not None and given.is_file():
        return [given]
    if given is not None and not given.is_dir():
        raise ValueError(f"--annotations {given} is neither a file nor a folder")
    folder = source if given is None else given
    there = files_below(folder, ENDINGS)
    kinds = {path: kind_of(path) for path in there}
    found = [p for p, kind in kinds.items() if kind and (kind != "seld" or recordings.of_annotation(p, given))]
    if bare := [path for path in there if path.suffix.lower() in (".csv", ".tsv") and is_bare(path)]:
        logger.warning("%d tables of two numbers and a label have no names of columns, and are not read: %s. Put a "
                       "line such as onset,offset,label on top of each, or onset,duration,label", len(bare),
                       few([path.name for path in bare]))  # fmt: skip
    if not any(path.stat().st_size for path in found):  # empty files alone say nothing
        found = []
    if given is not None and not found:
        raise ValueError(f"--annotations {given} holds no annotation file ({', '.join(ENDINGS)})")
    return found


def find_label_table(
    source: Path, recordings: OwnRecordings, path_column: str, notes: Sequence[Path], label_column: str = ""
) -> LabelTable | None:
    """The one table below `source` that names its recordings; None: there is none; several are an error, but for those
    whose names say a split.

    Tables that name none of them are said, and JSON files that may be of anything: several, or without labels.
    """
    found, other, lists = _tables_by_what_they_name(source, recordings, path_column, notes, label_column)
    if len(found) > 1 and not notes and not label_column:
        found = _with_labels(found, recordings, path_column)
    chosen = _one_table(found, source, recordings, path_column)
    if chosen is None:
        return None
    _say_unread(source, recordings, notes, chosen, other, lists=lists)
    return LabelTable(tuple(chosen)) if chosen else None


def _tables_by_what_they_name(
    source: Path, recordings: OwnRecordings, path_column: str, notes: Sequence[Path], label_column: str
) -> tuple[list[Path], list[Path], list[Path]]:
    """Tables below `source` that name recordings, those that name none, and lists of nothing but recordings."""
    found, other, lists = [], [], []
    for path in files_below(source, TABLES):
        if path in notes or (path.name in OURS and (path.parent / "dataset.json").is_file()):
            continue
        any_text = path.suffix.lower() in (".txt", *json_tables.ENDINGS)  # mostly no table: little is said of it
        try:
            table = read_own(path, recordings)
        except ValueError as error:
            if not any_text:
                logger.warning("not the table of labels: %s", error)
            continue
        if any_text and table.shape[1] < 2:
            lists += [path] * (not split_of(path) and _lists_recordings(table, recordings))
            continue
        names = len(table) and find_path_column(table, recordings, path_column)
        if names and not notes and _is_json(path) and not _says_labels(table, label_column, names, path):
            columns = few([c for c in map(str, table.columns) if c != names])
            logger.warning("%s names recordings, but which column holds labels is not clear (%s): say it with "
                           "--label-column where one does", path, columns)  # fmt: skip
            continue
        (found if names else other).append(path)
    return found, other, lists


def _with_labels(found: list[Path], recordings: OwnRecordings, path_column: str) -> list[Path]:
    """Of tables that name recordings the only one in which it is clear which column holds labels, said; else all."""
    tables = {path: read_own(path, recordings) for path in found}
    clear = [p for p, t in tables.items() if _says_labels(t, "", find_path_column(t, recordings, path_column), p)]
    if len(clear) != 1 or split_of(clear[0]):
        return found
    logger.warning("the table of labels is %s; no column that is called as labels are is in %s", clear[0],
                   few([path.name for path in found if path != clear[0]]))  # fmt: skip
    return clear


def _one_table(found: list[Path], source: Path, recordings: OwnRecordings, path_column: str) -> list[Path] | None:
    """The files of the one table among those that name recordings; several are an error, but where their names say a
    split, they are parts of one, or all are JSON files: None, which is said."""
    found = [path for path in found if path.suffix.lower() in (".csv", ".tsv")] or found
    if len(found) > 1 and (answers := [path for path in found if SUBMISSION in path.stem.casefold()]):
        logger.warning("not the table of labels, by their names: %s", few(map(str, answers)))
        found = [path for path in found if path not in answers]
    if len(whole := [path for path in found if not split_of(path)]) == 1:
        found = whole  # the others list its splits
    splits = [split_of(path) for path in found if not FOLDS.search(path.stem)]
    if len(found) > 1 and len({path.name for path in found}) == 1:  # train/metadata.csv, test/metadata.csv
        logger.warning("%d tables of the name %s are read as one", len(found), found[0].name)
    elif len(found) > 1 and _are_parts(found, recordings, path_column):  # the pages or species of a download
        logger.warning("%d tables of the same columns are read as one: %s", len(found), few([p.name for p in found]))
    elif len(found) > 1 and (whole or len(set(splits)) < len(splits)):
        names = few([path.relative_to(source).as_posix() for path in found])
        if all(map(_is_json, found)):  # one a recording, mostly
            logger.warning("%d JSON files name recordings and are not read: %s; --table says which one holds labels",
                           len(found), names)  # fmt: skip
            return None
        raise ValueError(
            f"{len(found)} tables name recordings of {source}: {names}; say which one with --table, "
            "or the folder in which those lie that belong together"
        )
    return found


def _say_unread(
    source: Path, recordings: OwnRecordings, notes: Sequence[Path], found: list[Path], other: list[Path],
    lists: list[Path],
):  # fmt: skip
    """Warn of files that may hold labels and are not read, where no table was found, and of lists of recordings."""
    other = [path for path in other if path.suffix.lower() in (".csv", ".tsv")]
    beside = [p for p in files_below(source, ("",)) if _named(recordings, p.stem) and not _is_read(p)]
    unread = [p for p in dict.fromkeys([*files_below(source, UNREAD), *beside]) if p not in notes]
    if not found and unread:
        names = few([path.relative_to(source).as_posix() for path in unread])
        logger.warning("not read, save them as CSV where they hold labels: %s", names)
    if lists:
        names = few([path.relative_to(source).as_posix() for path in lists])
        logger.warning("lists of recordings, which say nothing of them, are not read: %s; a split is a column of a "
                       "table, with rows such as a.wav,wren,train", names)  # fmt: skip
    if other and not found:
        for path in other[:MOST_HINTS] if not notes else ():
            _hint_names(path, recordings)
        logger.warning("not the table of labels, as no column names recordings: %s", few([str(p) for p in other]))


def _hint_names(path: Path, recordings: OwnRecordings):
    """Say what a table that names no recordings seems to be: one of folders, or of times called otherwise."""
    if recordings.of_annotation(path) is not None:
        logger.warning("%s is named as a recording, and none of its columns are called as times are: put a line such "
                       "as onset,offset,label on top, or call those columns so", path)  # fmt: skip
        return
    table = read_own(path, recordings)
    for column in table:
        names = [name for name in map(str.strip, map(str, table[column].iloc[:LOOKED_AT])) if name]
        if names and 2 * sum(name in recordings.in_folder for name in names) >= len(names):
            logger.warning("%s: '%s' names folders of recordings: %s makes its rows those of all recordings in them",
                           path, column, pasted("--table", path, "--path-column", column))  # fmt: skip
            return


def of_folders(table: pd.DataFrame, names: str, recordings: OwnRecordings) -> pd.DataFrame:
    """A table whose rows name folders with a row for each recording in them, by a column `recording`; others as is."""
    said = table[names].str.strip()
    inside = said.map(lambda name: recordings.in_folder.get(name, []))
    if 2 * inside.map(bool).sum() < len(said) or any(recordings.find_all(said, "").values()):
        return table
    logger.warning("'%s' names folders: its rows are those of all recordings in them", names)
    inside = inside.where(inside.map(bool), said.map(lambda name: [name]))  # which is missing, and said so
    return table.assign(recording=inside).explode("recording", ignore_index=True)


def _are_parts(files: Sequence[Path], recordings: OwnRecordings, path_column: str) -> bool:
    """Whether tables have the same columns and no recording in two of them; files of one recording each are none."""
    tables = [read_own(path, recordings) for path in files]
    if len({tuple(table.columns) for table in tables}) > 1 or max(map(len, tables)) < 2:
        return False
    taken: set[str] = set()
    for table in tables:
        names = find_path_column(table, recordings, path_column)
        own = set(filter(None, recordings.find_all(table[names], "").values()))
        if own & taken:
            return False
        taken |= own
    return True


def _is_read(path: Path) -> bool:
    """Whether a file named as a recording is a recording, a table that was looked at, or a picture."""
    return path.name.lower().endswith((*EXTENSIONS, ".csv", ".tsv", *PICTURES))


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in json_tables.ENDINGS


def _says_labels(table: pd.DataFrame, given: str, names: str, path: Path) -> bool:
    """Whether it is clear which columns of a table hold labels."""
    try:
        return bool(label_columns(table, given, names, path, ()))
    except ValueError:
        return False


def find_path_column(table: pd.DataFrame, recordings: OwnRecordings, given: str) -> str:
    """The column that names recordings: the one given, else of those of which at least half the values are some, the
    one that names most of them (a column of folds may name 1.wav and 2.wav), as they stand if possible; '': none."""
    if given:
        return given if given in table.columns else ""
    best, most = "", 0
    for rewritten in (False, True):  # as they stand goes before what programs made of them
        for column in table.columns:
            values = list(itertools.islice((v for v in map(str, table[column].dropna()) if v.strip()), LOOKED_AT))
            known = recordings.find_all(values, "") if rewritten else {v: _named(recordings, v) for v in values}
            named = [known[v] for v in values if known[v]]
            if 2 * len(named) >= max(1, len(values)) and len(set(named)) > most:
                best, most = str(column), len(set(named))
    return best


def read_own(path: Path, recordings: OwnRecordings, say: bool = False) -> pd.DataFrame:
    """A table as text; one without a header, whose first row names a recording, has column_1, column_2, ... (`say`)."""
    if _is_json(path):
        return json_tables.read_json_table(path)
    table = _with_one_header(read_table(path, all_text=True))
    if not any(_is_row(str(name), table.iloc[:, i], recordings) for i, name in enumerate(table.columns)):
        return table
    rows = read_rows(path)
    names = [f"column_{i + 1}" for i in range(max(map(len, rows)))]
    if say:
        logger.warning("%s has no header: its columns are called %s", path, few(names))
    return pd.DataFrame(rows, columns=names, dtype=object).fillna("")


def _is_row(name: str, below: pd.Series, recordings: OwnRecordings) -> bool:
    """Whether the name of a column is a recording's, with its ending or above others that have none."""
    if name.lower().endswith(EXTENSIONS):
        return True
    values = list(below.iloc[:LOOKED_AT])
    named = bool(values) and _named(recordings, name) is not None
    return named and 2 * sum(_named(recordings, value) is not None for value in values) >= len(values)


def _with_one_header(table: pd.DataFrame) -> pd.DataFrame:
    """A table of two rows of header and one with the name of the first column, as pandas writes them and FMA has them,
    with both in one: track and genre_top are track_genre_top."""
    if len(table) < 2 or not UNNAMED.match(str(table.columns[0])) or table.shape[1] < 2:
        return table
    below, key = table.iloc[0], table.iloc[1]
    if below.iloc[0] or not key.iloc[0] or (key.iloc[1:] != "").any() or (below.iloc[1:] == "").any():
        return table
    tops = [re.sub(r"\.\d+$", "", str(name)) for name in table.columns[1:]]  # pandas numbers those that come again
    names = [key.iloc[0], *(f"{top}_{name}" for top, name in zip(tops, below.iloc[1:], strict=True))]
    return table.iloc[2:].set_axis(names, axis=1).reset_index(drop=True)


def _lists_recordings(table: pd.DataFrame, recordings: OwnRecordings) -> bool:
    """Whether a text of one column is a list of recordings, such as those of a test."""
    lines = [str(line) for line in (table.columns[0], *table.iloc[:LOOKED_AT, 0])]
    words = (word for line in lines for word in line.split())
    return any(_named(recordings, word) for word in words if word.lower().endswith(EXTENSIONS))


def check_column(table: pd.DataFrame, column: str, path: Path, flag: str):
    """Raise where a flag names a column that the table lacks."""
    if column and column not in table.columns:
        raise ValueError(f"{flag}: {path} has no column '{column}'{suggest(column, table.columns, 'its columns')}")


def _named(recordings: OwnRecordings, name: str) -> str | None:
    """The recording of this name; of several the name itself."""
    try:
        return recordings.find(name, "") if name.strip() else None
    except ValueError:
        return name


def files_below(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The files of these endings at any depth, sorted; not those of the system."""
    found = [
        parent / name for parent, inside in walk(folder) for name in sorted(inside)
        if name.lower().endswith(tuple(endings)) and not name.startswith(".")
    ]  # fmt: skip
    return [path for path in found if SYSTEM_FOLDERS.isdisjoint(map(str.casefold, path.relative_to(folder).parts))]

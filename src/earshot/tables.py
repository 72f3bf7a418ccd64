"""Reading CSV tables so that ids stay text and errors name file, column and what came."""

from __future__ import annotations

import csv
import io
import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.messages import FILES_SHOWN, from_here, suggest

logger = logging.getLogger("earshot")

UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how a text of it begins
TEXT_COLUMNS = (
    *("clip_id", "recording_id", "filename", "path", "group", "content_hash"),
    *("labels", "secondary_labels", "label", "event_label", "primary_label", "birds", "bird", "scene_label"),
    *("row_id", "audio_id", "file_id", "fname", "audio_filename", "site", "section"),
    *("event_labels", "category", "author", "recordist", "identifier", "device", "machine", "record", "individual"),
)
# Any other column of names: what ends in id, name, code, label, file, ... (freesound_id, ebird_code, common_name)
NAME_COLUMN = re.compile(r"(^|[_ ])(id|ids|name|code|label|labels|file|key|hash|author|recordist)$|filename$", re.I)


# what files begin with that are given, or damaged, in a table's place
_RECORDING = "a recording: give a table of recordings (clip_id, path) or the folder that it lies in"
KINDS = {
    **dict.fromkeys((b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3"), _RECORDING),
    b"PK\x03\x04": "a zip archive (or predictions, an .npz, or a spreadsheet: save its table as CSV)",
    b"\x93NUMPY": "an array of NumPy", b"PAR1": "a parquet file: save it as CSV (pandas: to_csv)",
    b"\x89HDF": "an HDF5 file", b"\x1f\x8b": "a gzip archive: unpack it", b"\x80\x04": "pickled, which is never read",
    b"\x80\x05": "pickled, which is never read", b"SQLite": "a database", b"%PDF": "a PDF", b"\x7fELF": "a program",
    b"\xff\xfe": "in UTF-16: save it as UTF-8", b"\xfe\xff": "in UTF-16: save it as UTF-8",
    b"<!DOCTYPE": "a web page: the download failed", b"<html": "a web page: the download failed",
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
}  # fmt: skip


PART = 50_000  # rows that are read at a time
SEPARATOR_LINE = re.compile(r'\A"?sep=(.)"?[;,\t ]*\r?\n', re.I)  # what Excel puts on top, and reads
PANDAS = "Error tokenizing data. C error: "  # what its reader puts in front


def is_text_column(name: str) -> bool:
    """Whether a column holds names, which stay text whatever they look like: '007', '1e5', 'NA', 'True'."""
    return name in TEXT_COLUMNS or bool(NAME_COLUMN.search(name))


def require_columns(table: pd.DataFrame, columns, path: str | Path):
    """Raise unless `table`, read from `path`, has `columns`: names the missing one, what came, and the nearest name."""
    for column in columns:
        if column not in table.columns:
            raise ValueError(f"{path} has no column '{column}'{suggest(column, table.columns, 'its columns')}")


def read_table(path: str | Path, columns=(), all_text: bool = False) -> pd.DataFrame:
    """CSV or .tsv -> DataFrame, names as text ('007' stays, 'NA' is a name, empty is ''); `columns` must be there.

    all_text: every column, for tables whose columns nobody knows. Line ends, encoding, a byte order mark, quotes and
    spaces around column names are as they come; see `find_separator`. A row of more cells than the header is an error,
    one of empty cells alone, as spreadsheets leave them below a table, is none.
    """
    path = Path(path)
    check_table(path)
    try:
        encoding = find_encoding(path)
        how = {"sep": find_separator(path, encoding), "encoding": encoding, "index_col": False}
        with open(path, encoding=encoding) as file:
            how["skiprows"] = int(bool(SEPARATOR_LINE.match(file.readline(64))))
        how["skipinitialspace"] = all_text  # quotes behind a space, in tables by hand
        header = list(pd.read_csv(path, **how, nrows=0).columns)
        text = {c: str for c in header if all_text or is_text_column(c.strip())}
        other = {c: ["", "nan", "NaN"] for c in header if c not in text}
        with warnings.catch_warnings():  # else the cells behind the header's last are lost
            warnings.simplefilter("error", pd.errors.ParserWarning)
            how |= {"dtype": text, "keep_default_na": False, "na_values": other, "low_memory": False}
            table = _read_in_parts(path, how)
            if _empty_rows(table).any():  # they have made floats of whole numbers
                table = _read_without_empty_rows(path, how)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8 ({error.reason}): save it as UTF-8") from error
    except pd.errors.ParserWarning as error:
        raise ValueError(
            f"{path} is not a CSV table: its rows have more cells than its header has names ({', '.join(header[:8])}); "
            "is there a separator too many, or a text without quotes?"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} is not a CSV table: {' '.join(str(error).split()).removeprefix(PANDAS)}{_begins(path, encoding)}"
        ) from error
    table.columns = [c.strip() for c in header]
    for column in columns:
        if list(table.columns).count(column) > 1:
            raise ValueError(f"{path} has two columns '{column}': keep one")
    require_columns(table, columns, path)
    return table


def read_rows(path: str | Path) -> list[list[str]]:
    """A table without a header -> its cells as text, a list a row; encoding, separator and quotes as they come."""
    path = Path(path)
    check_table(path)
    encoding = find_encoding(path)
    with open(path, encoding=encoding, newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=find_separator(path, encoding))]
    return [row for row in rows if any(row)]


def require_rows(table: pd.DataFrame, path: str | Path):
    """Raise where a table that was read from `path` has a header alone."""
    if not len(table):
        raise ValueError(f"{path} has no rows below its header: is it the table of the download?")


def _empty_rows(table: pd.DataFrame) -> np.ndarray:
    """(N,) booleans: the rows of several cells that are all empty."""
    empty = np.zeros(len(table), bool)
    if len(table.columns) > 1 and len(table):
        empty |= (table.iloc[:, 0].isna() | (table.iloc[:, 0].astype(str) == "")).to_numpy()
    if empty.any():  # only these rows: a table of many columns takes long
        some = table[empty]
        empty[empty] = (some.isna() | (some.astype(str) == "")).to_numpy().all(axis=1)
    return empty


def _read_without_empty_rows(path: Path, how: dict) -> pd.DataFrame:
    """What pandas reads where the empty rows were never there."""
    texts = pd.read_csv(path, **how | {"dtype": str, "na_values": []})
    rest = io.StringIO(texts[~_empty_rows(texts)].to_csv(index=False))
    return pd.read_csv(rest, **{key: how[key] for key in ("dtype", "keep_default_na", "na_values", "low_memory")})


def _read_in_parts(path: Path, how: dict) -> pd.DataFrame:
    """What pandas reads of a CSV, some rows at a time, where that is the same: a long table read at once takes
    more time and memory a row, since pandas holds all its cells and looks each text up among all before it."""
    with pd.read_csv(path, **how, chunksize=PART) as reader:
        parts = list(reader)
    if len(parts) == 1:
        return parts[0]
    if any(list(part.dtypes) != list(parts[0].dtypes) for part in parts[1:]):
        return pd.read_csv(path, **how)  # a column of numbers, and of texts further down: it is texts
    return pd.concat(parts, ignore_index=True)


def _begins(path: Path, encoding: str) -> str:
    """Its first line, for an error: titles and comments stand there in place of the header."""
    with open(path, encoding=encoding, errors="replace") as file:
        line = file.readline(80).strip()
    return f"; its header is taken from its first line, '{line}'" if line else ""


def with_numbers(table: pd.DataFrame, columns, where: str | Path) -> pd.DataFrame:
    """The same with these columns as numbers; a cell that is none is an error that names it and its line."""
    numbers = {}
    for column in columns:
        values = pd.to_numeric(table[column], errors="coerce")
        if (bad := values.isna()).any():
            raise ValueError(
                f"{where}: column '{column}' holds '{table[column][bad].iloc[0]}' in row {int(bad.argmax()) + 1}, "
                f"expected a number ({bad.sum()} of {len(table)} rows)"
            )
        numbers[column] = values
    return table.assign(**numbers)


def check_table(path: Path):
    """Raise unless the path is a file that may be a table; says what it is instead, such as one recording."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder where a table (CSV) is wanted: name a file in it")
    if not path.is_file():
        if not path.parent.is_dir():
            raise ValueError(
                f"{path} does not exist, nor does its folder: data/<name>/ is made by src/prepare.py, "
                f"folds/<name>.csv by src/make_folds.py{from_here(path)}"
            )
        near = sorted(p.name for p in path.parent.glob("*.csv"))
        known = suggest(path.name, near, most=FILES_SHOWN)
        raise ValueError(f"{path} does not exist{known}{'' if near else from_here(path)}")
    with open(path, "rb") as file:
        head = file.read(64)
        zeros = b"\0" in head or any(b"\0" in block for block in iter(lambda: file.read(1 << 20), b""))
    if head[:2] in UTF16:
        return
    # what a text might begin with as well needs the zero bytes that only the other has
    kind = next((k for start, k in KINDS.items() if head.startswith(start) and (zeros or not start.isalnum())), "")
    if not kind and zeros:
        kind = "no text: it holds zero bytes"
    if kind:
        raise ValueError(f"{path} is not a CSV table, it is {kind}")


def find_separator(path: Path, encoding: str = "utf-8-sig") -> str:
    """What separates the columns of a table, by its first lines: tabs, where there are any (DCASE writes such .csv).

    Of several signs it is the one of which the lines below have as many as the header; signs in quotes do not count.
    Excel may say it itself, in a first line such as `sep=;`.
    """
    with open(path, encoding=encoding) as file:
        start = file.read(1 << 16)
    if said := SEPARATOR_LINE.match(start):
        return said[1]
    header, *rows = [line for line in re.sub(r'"(?:[^"]|"")*"', '""', start).splitlines() if line.strip()][:10] or [""]
    there = [sign for sign in ",;|" if sign in header]
    if "\t" in header or (path.suffix.lower() == ".tsv" and not there):
        return "\t"
    return max(there, key=lambda sign: sum(row.count(sign) == header.count(sign) for row in rows), default=",")


def find_encoding(path: Path) -> str:
    """UTF-8, UTF-16 where its mark says so, else what Windows wrote in Western Europe, which a warning says."""
    with open(path, "rb") as file:
        if file.read(2) in UTF16:
            return "utf-16"
    try:
        with open(path, encoding="utf-8-sig") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        logger.warning("%s is not UTF-8: it is read as Windows-1252 (Latin-1)", path)
        return "cp1252"
    return "utf-8-sig"

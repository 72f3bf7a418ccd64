"""Reading CSV tables so that ids stay text and errors name file, column and what came."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from earshot.messages import suggest

TEXT_COLUMNS = (
    *("clip_id", "recording_id", "filename", "path", "group", "content_hash"),
    *("labels", "secondary_labels", "label", "event_label", "primary_label", "birds", "bird", "scene_label"),
    *("row_id", "audio_id", "file_id", "fname", "audio_filename", "site", "section"),
    *("event_labels", "category", "author", "recordist", "identifier", "device", "machine", "record", "individual"),
)
# Any other column of names: what ends in id, name, code, label, file, ... (freesound_id, ebird_code, common_name)
NAME_COLUMN = re.compile(r"(^|[_ ])(id|ids|name|code|label|labels|file|key|hash|author|recordist)$|filename$", re.I)


def is_text_column(name: str) -> bool:
    """Whether a column holds names, which stay text whatever they look like: '007', '1e5', 'NA', 'True'."""
    return name in TEXT_COLUMNS or bool(NAME_COLUMN.search(name))


def require_columns(table: pd.DataFrame, columns, path: str | Path):
    """Raise unless `table`, read from `path`, has `columns`: names the missing one, what came, and the nearest name."""
    for column in columns:
        if column not in table.columns:
            raise ValueError(f"{path} has no column '{column}'{suggest(column, table.columns, 'its columns')}")


def read_table(path: str | Path, columns=()) -> pd.DataFrame:
    """CSV or .tsv -> DataFrame, names as text ('007' stays, 'NA' is a name, empty is ''); `columns` must be there.

    Line ends, a byte order mark, quotes and spaces around column names are as they come; see `find_separator`.
    """
    path = Path(path)
    if not path.is_file():
        if not path.parent.is_dir():
            raise ValueError(
                f"{path} does not exist, nor does its folder: data/<name>/ is made by src/prepare.py, "
                "folds/<name>.csv by src/make_folds.py"
            )
        raise ValueError(f"{path} does not exist{suggest(path.name, [p.name for p in path.parent.glob('*.csv')])}")
    try:
        separator = find_separator(path)
        header = list(pd.read_csv(path, sep=separator, nrows=0).columns)
        text = {c: str for c in header if is_text_column(c.strip())}
        other = {c: ["", "nan", "NaN"] for c in header if c not in text}
        table = pd.read_csv(path, sep=separator, dtype=text, keep_default_na=False, na_values=other, low_memory=False)
        table.columns = [c.strip() for c in header]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV table: {error}") from error
    require_columns(table, columns, path)
    return table


def find_separator(path: Path) -> str:
    """What separates the columns of a table, by its first line: tabs, where there are any (DCASE writes such .csv)."""
    with open(path, encoding="utf-8-sig") as file:
        header = file.readline()
    if "\t" in header or path.suffix.lower() == ".tsv":
        return "\t"
    return ";" if ";" in header and "," not in header else ","

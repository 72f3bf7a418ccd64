"""Reading CSV tables so that ids stay text and errors name file, column and what came."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.messages import suggest

TEXT_COLUMNS = (
    *("clip_id", "recording_id", "filename", "path", "group", "content_hash"),
    *("labels", "secondary_labels", "label", "event_label", "primary_label", "birds", "bird", "scene_label"),
    *("row_id", "audio_id", "file_id", "fname", "audio_filename", "site", "section"),
)


def require_columns(table: pd.DataFrame, columns, path: str | Path):
    """Raise unless `table`, read from `path`, has `columns`: names the missing one, what came, and the nearest name."""
    for column in columns:
        if column not in table.columns:
            raise ValueError(
                f"{path} has no column '{column}'{suggest(column, table.columns)} "
                f"(its columns: {', '.join(str(c) for c in table.columns)})"
            )


def read_table(path: str | Path, columns=()) -> pd.DataFrame:
    """CSV or .tsv -> DataFrame, names as text ('007' stays, 'NA' is a name, empty is ''); `columns` must be there."""
    path = Path(path)
    if not path.is_file():
        if not path.parent.is_dir():
            raise ValueError(
                f"{path} does not exist, nor does its folder: data/<name>/ is made by src/prepare.py, "
                "folds/<name>.csv by src/make_folds.py"
            )
        raise ValueError(f"{path} does not exist{suggest(path.name, [p.name for p in path.parent.glob('*.csv')])}")
    try:
        separator = "\t" if path.suffix == ".tsv" else ","
        header = list(pd.read_csv(path, sep=separator, nrows=0).columns)
        text = {c: str for c in header if c in TEXT_COLUMNS}
        other = {c: ["", "nan", "NaN"] for c in header if c not in TEXT_COLUMNS}
        table = pd.read_csv(path, sep=separator, dtype=text, keep_default_na=False, na_values=other, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV table: {error}") from error
    require_columns(table, columns, path)
    return table

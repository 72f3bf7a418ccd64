"""Annotation files -> one table of events in seconds, whatever program wrote them.

Read are Raven selection tables (and what writes them, such as BirdNET), Audacity label tracks, Praat TextGrids, and any
CSV or tab-separated table with an onset, an offset and a label, as DCASE has them. Tables are told apart by their
columns, not by their names. TextGrids are parsed by crowsetta, an optional package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.messages import few, suggest

ENDINGS = (".txt", ".csv", ".tsv", ".textgrid")
# What columns are called, in lower case without units and signs, the surest name first.
ONSETS = ("onset", "begin_time", "start_time", "start", "begin", "start_seconds", "tmin", "xmin", "t_start")
OFFSETS = ("offset", "end_time", "stop_time", "end", "stop", "stop_seconds", "end_seconds", "tmax", "xmax", "t_end")
LABELS = ("event_label", "label", "labels", "annotation", "species", "common_name", "scientific_name", "species_code",
          "primary_label", "ebird_code", "class", "category", "call_type", "tag", "name", "code", "id")  # fmt: skip
FILES = ("filename", "begin_path", "begin_file", "file", "path", "filepath", "file_name", "file_path", "source_file",
         "audio_file", "recording", "recording_id", "notated_path", "wav", "audio", "clip_id", "clip")  # fmt: skip
IN_FILE = ("file_offset",)  # Raven: seconds from the start of the file, where several are opened as one
NUMBERS = r"\s*[-+]?[\d.]+([eE][-+]?\d+)?\s*"


@dataclass(frozen=True)
class Annotations:
    """The events of one annotation file.

    events: `filename` (as the file has it; '' where it speaks of one recording and does not name it), `onset`, `offset`
    (seconds), `event_label`; kind: raven | audacity | textgrid | table; label_column: where the labels were.
    """

    events: pd.DataFrame
    kind: str
    label_column: str = ""


def kind_of(path: str | Path) -> str:
    """What an annotation file is: raven | audacity | textgrid | table; '' where it is none of them."""
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        return ""
    if ending == ".textgrid":
        return "textgrid"
    first = next((line for line in _lines(path, 5) if line.strip()), "")
    if ending == ".txt" and re.match(f"{NUMBERS}\t{NUMBERS}(\t|$)", first):
        return "audacity"
    columns = [_plain(c) for c in re.split("[\t,;]", first)]
    if not _column(columns, ONSETS) or not _column(columns, OFFSETS):
        return ""
    return "raven" if {"selection", "begin_time"} <= set(columns) else "table"


def read_annotations(path: str | Path, label_column: str = "", tier: str = "") -> Annotations:
    """Read one annotation file; what it cannot mean is an error that names the file.

    label_column: the column of the labels, guessed by its name where empty; tier: of a TextGrid, needed where it has
    several tiers of intervals.
    """
    path = Path(path)
    kind = kind_of(path)
    if not kind:
        raise ValueError(
            f"{path} is no annotation file: a Raven selection table, an Audacity label track, a TextGrid, or a table "
            "with columns such as onset, offset, event_label"
        )
    if kind == "textgrid":
        return Annotations(_read_textgrid(path, tier), kind)
    if kind == "audacity":
        return Annotations(_read_audacity(path), kind)
    return _read_columns(path, kind, label_column)


def _read_columns(path: Path, kind: str, label_column: str) -> Annotations:
    """A table with a header: columns by their names, Raven's two rows a selection (one a view) taken once."""
    header = _lines(path, 1)[0]
    separator = max("\t,;", key=header.count)
    try:
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table: {error}") from error
    plain = [_plain(c) for c in table.columns]
    if kind == "raven" and "selection" in plain:
        table = table.drop_duplicates(table.columns[plain.index("selection")], ignore_index=True)

    def column(names: Sequence[str]) -> pd.Series | None:
        name = _column(plain, names)
        return None if name is None else table.iloc[:, plain.index(name)]

    if label_column:
        if label_column not in table.columns:
            raise ValueError(f"{path} has no column '{label_column}'{suggest(label_column, table.columns, 'columns')}")
        labels = table[label_column]
    elif (labels := column(LABELS)) is None:
        raise ValueError(
            f"{path}: no column has a name that labels have; say which one it is with --label-column (columns: "
            f"{', '.join(table.columns)})"
        )
    onset, offset = _seconds(column(ONSETS), path), _seconds(column(OFFSETS), path)
    if (within := column(IN_FILE)) is not None and column(FILES) is not None:
        start = _seconds(within, path)  # of the event in its own file
        onset, offset = start, start + offset - onset
    files = column(FILES)
    events = pd.DataFrame({
        "filename": "" if files is None else files.str.strip(), "onset": onset, "offset": offset,
        "event_label": labels.str.strip(),
    })  # fmt: skip
    return Annotations(events, kind, str(labels.name))


def _read_audacity(path: Path) -> pd.DataFrame:
    """start, end, label by tabs; a line that begins with a backslash holds the frequencies of the event before it."""
    rows = [line.rstrip("\r\n").split("\t") for line in _lines(path) if line.strip() and not line.startswith("\\")]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise ValueError(f"{path}: label {number} is {row!r}, expected start, end and label, separated by tabs")
    table = pd.DataFrame({"filename": "", "onset": [r[0] for r in rows], "offset": [r[1] for r in rows],
                          "event_label": ["\t".join(r[2:]).strip() for r in rows]}, dtype=object)  # fmt: skip
    return table.assign(onset=_seconds(table.onset, path), offset=_seconds(table.offset, path))


def _read_textgrid(path: Path, tier: str) -> pd.DataFrame:
    """The named intervals of one tier."""
    try:
        from crowsetta.formats.seq import TextGrid
        from crowsetta.formats.seq.textgrid.classes import IntervalTier
    except ImportError as error:
        raise ValueError(f"{path} is a TextGrid, which crowsetta reads: pip install crowsetta ({error})") from error
    try:
        grid = TextGrid.from_file(path)
    except Exception as error:  # its parser raises whatever a damaged file leads to
        raise ValueError(f"{path} is no TextGrid that crowsetta can read: {type(error).__name__} {error}") from error
    tiers = {t.name: t for t in grid.tiers if isinstance(t, IntervalTier)}
    if not tier and len(tiers) == 1:
        tier = next(iter(tiers))
    if tier not in tiers:
        raise ValueError(
            f"{path} has {len(tiers)} tiers of intervals, {few(tiers) or 'none'}: say which one holds the labels with "
            "--tier NAME"
        )
    found = [("", i.xmin, i.xmax, i.text.strip()) for i in tiers[tier].intervals if i.text.strip()]
    table = pd.DataFrame(found, columns=["filename", "onset", "offset", "event_label"])
    return table.astype({"onset": float, "offset": float})


def _plain(name: str) -> str:
    """'Begin Time (s)' -> begin_time, 'onset_s' -> onset: a column's name without its unit."""
    name = re.sub(r"\(.*?\)|\[.*?\]", " ", name.strip().strip("\ufeff\"'").casefold())
    name = "_".join(re.findall(r"[a-z0-9]+", name))
    return re.sub(r"_(s|sec|secs|seconds)$", "", name)


def _column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in (re.sub("_seconds$", "", n) for n in names) if name in columns), None)


def _seconds(values: pd.Series, path: Path) -> np.ndarray:
    """Texts -> seconds; a decimal comma and h:mm:ss are understood, what is no time is an error."""
    text = values.astype(str).str.strip()
    numbers = pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce").to_numpy(float)
    clock = text.str.fullmatch(r"(\d+:)?\d+:\d+([.,]\d+)?").to_numpy(bool)
    for i in np.flatnonzero(clock):
        parts = [float(p) for p in text.iloc[i].replace(",", ".").split(":")]
        numbers[i] = sum(p * 60**power for power, p in enumerate(reversed(parts)))
    if (bad := ~np.isfinite(numbers)).any():
        raise ValueError(f"{path}: {bad.sum()} of {len(text)} times are no seconds: {few(repr(t) for t in text[bad])}")
    return numbers


def _lines(path: Path, count: int | None = None) -> list[str]:
    """The first lines of a text, in whatever of the usual encodings it is."""
    data = path.read_bytes() if count is None else path.open("rb").read(65536)
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, "replace").splitlines()[:count]
    try:
        return data.decode("utf-8-sig").splitlines()[:count] or [""]
    except UnicodeDecodeError:
        return data.decode("latin-1").splitlines()[:count] or [""]

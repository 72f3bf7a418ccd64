"""Annotation files -> one table of events in seconds, whatever program wrote them.

Read are Raven selection tables (and what writes them, such as BirdNET), Audacity label tracks, Praat TextGrids, files
of ELAN, AviaNZ, AOEF and JAMS, frames of DCASE's SELD, exports of Label Studio, and any CSV or tab-separated table with
an onset, an offset (or a duration) and a label, as DCASE has them, with a header or in DCASE's older form without:
recording, onset, offset, label; or with a column of 0 and 1 a class. Tables are told apart by their columns, not by
their names.
TextGrids, .not.mat and TIMIT's .PHN are parsed by crowsetta, an optional package.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.annotations import aoef, avianz, by_crowsetta, elan, jams, label_studio, seld
from earshot.annotations.cells import (
    NUMBERS,
    check_corners,
    in_seconds,
    is_blank,
    is_minus_one,
    names_alone,
    parts_of_time,
    refuse_twin,
    with_genus,
    without_ending,
    without_samples,
    without_time,
)
from earshot.annotations.certainty import certainty_of, confidence_of
from earshot.annotations.class_columns import said_absent
from earshot.annotations.class_rows import classes_in_rows, scores_of_classes
from earshot.annotations.column_names import (
    CODES,
    CORNERS,
    DURATIONS,
    FILES,
    IN_FILE,
    KALEIDOSCOPE,
    LABELS,
    LAST_LABELS,
    OFFSETS,
    ONSETS,
    column_called,
    columns_called,
    plain_name,
    plain_names,
    unit_of,
)
from earshot.annotations.date_times import NAMES as BY_CLOCK
from earshot.annotations.date_times import are_date_times, clock_seconds, names_say_when
from earshot.annotations.json_tables import json_columns, read_json_table
from earshot.annotations.tracks import NUMBER, SPACED, read_track
from earshot.messages import few
from earshot.sound.audio import EXTENSIONS
from earshot.tables import SEPARATOR_LINE, find_encoding

logger = logging.getLogger("earshot")

# in the text of a JSON file of events, or of recordings without any
JSON_TIMES = re.compile(r'"(start|begin|onset|start_time|begin_time)"\s*:|"annotated"\s*:')
JSON_UNSEEN = re.compile(r'\A(?!.*"annotated"\s*:\s*true).*"annotated"\s*:\s*false', re.S)
NAMES = (*LABELS[:-1], *LAST_LABELS, LABELS[-1])  # an id is the last that is taken
DOUBTFUL = ("name", "code", "id", *CODES, *LAST_LABELS)  # names that may say something else than the label
ENDINGS = (".txt", ".csv", ".tsv", ".ann", ".textgrid", ".json", ".eaf", ".jams", avianz.ENDING, by_crowsetta.NOTMAT,
           by_crowsetta.TIMIT)  # fmt: skip
BY_ENDING = {".textgrid": "textgrid", ".eaf": "elan", ".jams": "jams", by_crowsetta.TIMIT: "timit"}


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The events of one annotation file.

    events: `filename` (as the file has it; '' where it speaks of one recording and does not name it), `onset`, `offset`
    (seconds; NaN: it is heard, nobody says when), `event_label`, `ahead` where the seconds are a clock's since 1970
    (how far it is ahead of UTC; NaN: nobody says), and `confidence` (0 to 1) or `certainty` (words) where
    the file has one; kind: as `kind_of` has it; label_column: where the labels were; silent: recordings that it names
    without an event; runs_on: its times may be of all files in a row, as Raven counts them; scores: the columns whose
    numbers from 0 to 1 are the confidences of classes, a row each; others: columns of words that may hold the labels as
    well.
    """

    events: pd.DataFrame
    kind: str
    label_column: str = ""
    silent: tuple[str, ...] = ()
    runs_on: bool = False
    scores: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def kind_of(path: str | Path) -> str:
    """What an annotation file is; '' where it is none.

    raven | audacity | textgrid | elan | label_studio | aoef | jams | avianz | seld | notmat | timit | table
    """
    path = Path(path)
    ending = path.suffix.lower()
    if path.name.lower().endswith(by_crowsetta.NOTMAT):
        return "notmat"
    if ending not in ENDINGS:
        return ""
    if ending in BY_ENDING:
        return BY_ENDING[ending]
    if ending == avianz.ENDING:
        return "avianz" if avianz.START.match("\n".join(_lines(path, 1000))) else ""
    if ending == ".txt" and not path.stat().st_size:
        return "audacity"  # a track without a label
    if label_studio.is_export(path, "\n".join(_lines(path, 1000))):
        return "label_studio"
    first, *more = [line for line in _lines(path, 5) if line.strip()] or [""]
    if ending == ".json":
        start = "\n".join(_lines(path, 1000))
        if aoef.MARK in start:
            return "aoef"
        may_be = JSON_TIMES.search(start) and not JSON_UNSEEN.search(start)
        return "table" if may_be and _says_times(json_columns(path)) else ""
    spaced = all(map(SPACED.match, (first, *more)))  # a text may begin with numbers
    if spaced and by_crowsetta.has_phones(path):
        return ""  # the sentence of TIMIT
    if ending in (".txt", ".tsv", ".ann") and (re.match(f"{NUMBERS}\t{NUMBERS}(\t|$)", first) or spaced):
        return "audacity"
    if _first_number(_cells(first)):
        return "table"
    if ending == ".csv" and seld.is_seld(_lines(path, 100)):
        return "seld"
    columns = _cells(first)
    if set(map(plain_name, columns)) >= KALEIDOSCOPE:
        return "table"
    if not _says_times(columns):
        return ""
    plain = plain_names(columns)
    by_clock = column_called(plain, ONSETS) in BY_CLOCK
    if by_clock and column_called(plain, FILES) and not any(names_say_when(_cells(row)) for row in more):
        return ""  # when recordings were made, more likely
    return "raven" if {"selection", "begin_time"} <= set(map(plain_name, columns)) else "table"


def _says_times(columns: Sequence[str]) -> bool:
    """Whether columns say when something begins and ends."""
    plain = plain_names(columns)
    return bool(column_called(plain, ONSETS) and column_called(plain, OFFSETS + DURATIONS))


def read_annotations(path: str | Path, label_column: str = "", tier: str = "", file_column: str = "") -> Annotations:
    """Read one annotation file; what it cannot mean is an error that names the file.

    label_column, file_column: the columns of the labels and of the recordings' names, guessed by their names where
    empty; tier: of a TextGrid or of ELAN, needed where it has several tiers of intervals.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    kind = kind_of(path)
    if not kind:
        raise ValueError(
            f"{path} is no annotation file: a Raven selection table, an Audacity label track, a TextGrid, a file of "
            "ELAN, AOEF or JAMS, or a table with columns such as onset, offset, event_label"
        )
    if kind in ("textgrid", "elan"):
        tiers = by_crowsetta.read_textgrid(path, _text(path)) if kind == "textgrid" else elan.read_tiers(path)
        return Annotations(events=_of_tier(tiers, path, tier), kind=kind)
    if kind == "audacity":
        return Annotations(events=_read_audacity(path, label_column), kind=kind)
    if kind in ("notmat", "timit"):
        return Annotations(events=by_crowsetta.read_sequence(path, kind), kind=kind)
    if kind == "seld":
        return Annotations(events=seld.read_seld(_lines(path), path), kind=kind)
    if kind == "label_studio":
        events, silent = label_studio.read_export(path)
        return Annotations(events=events, kind=kind, silent=silent)
    return _read_columns(path, kind, label_column, file_column)


def _read_columns(path: Path, kind: str, label_column: str, file_column: str) -> Annotations:
    """A table with a header, its columns found by their names."""
    table, scores = _an_event_a_row(path, kind, label_column)
    if label_column not in table.columns:
        label_column = ""  # of classes, which are rows now
    plain = plain_names(table.columns)

    def column(names: Sequence[str]) -> pd.Series | None:
        """The first of these columns that holds anything."""
        found = [table.iloc[:, plain.index(name)] for name in columns_called(plain, names)]
        best = next((cells for cells in found if not is_blank(cells).all()), found[0] if found else None)
        refuse_twin(best, table, path)
        return best

    def times(values: pd.Series) -> np.ndarray:
        if are_date_times(values[~(silent | timeless)]):
            return clock_seconds(values.mask(silent | timeless, "1970-01-01 00:00"), path)[0]
        parts = [values, *(parts_of_time(table, values) if in_parts else ())]
        return sum(in_seconds(p.mask(silent | timeless, "0"), path) * unit_of(str(p.name), path) for p in parts)

    if label_column:
        labels = table[label_column]
    elif (labels := column(NAMES)) is None:
        raise ValueError(
            f"{path}: no column has a name that labels have; say which one it is with --label-column (columns: "
            f"{', '.join(table.columns)}). Where all events are of one class, add a column 'label' that names it"
        )
    labels = without_ending(with_genus(labels, table, path), path)
    files, start = column((plain_name(file_column),) if file_column else FILES), column(ONSETS)
    length = column((*OFFSETS, *DURATIONS))
    if set(plain) >= KALEIDOSCOPE:
        start, length = column(("offset",)), column(DURATIONS)
    if plain_name(str(start.name)) == CORNERS[0]:
        check_corners(table, path)
    # start_min and start_sec, end_min and end_sec; a start_hour alone is a time of day
    units = [{unit_of(str(p.name), path) for p in (v, *parts_of_time(table, v))} for v in (start, length)]
    in_parts = units[0] == units[1]
    silent = is_blank(start) & is_blank(length) & is_blank(labels)  # DCASE: a recording in which nothing is heard
    silent |= is_minus_one(start) & is_minus_one(length)  # urban data sets write it so
    timeless = without_time(table) | (is_blank(start) & is_blank(length) & ~silent)
    onset, offset = times(start), times(length)
    if plain_name(str(length.name)) in DURATIONS:
        offset = onset + offset
    ahead = None
    if are_date_times(start[~(silent | timeless)]):
        if (offset < onset).any():
            raise ValueError(f"{path}: '{start.name}' says a day and a time, and '{length.name}' no later one")
        ahead = clock_seconds(start.mask(silent | timeless, "1970-01-01 00:00"), path)[1]
    within = column(IN_FILE)
    if within is not None and files is not None:
        start = times(within)  # of the event in its own file
        onset, offset = start, start + offset - onset
    events = pd.DataFrame({
        "filename": "" if files is None else files.str.strip(), "onset": onset, "offset": offset,
        "event_label": labels.str.strip(),
    })  # fmt: skip
    if ahead is not None and within is None:
        events["ahead"] = ahead
    events.loc[timeless, ["onset", "offset"]] = np.nan
    if (sure := confidence_of(table)) is not None:
        events["confidence"] = sure
    elif (words := certainty_of(table.drop(columns=[labels.name], errors="ignore"))) is not None:
        events["certainty"] = words
    without = () if files is None else tuple(name for name in events.filename[silent].unique() if name)
    runs_on = kind == "raven" and within is None and events.filename.nunique() > 1
    absent, _ = said_absent(table.drop(columns=[str(labels.name)], errors="ignore"), path)
    events = events[~silent & ~absent & ~names_alone(table, timeless)].reset_index(drop=True)
    others = [] if label_column or plain_name(str(labels.name)) not in DOUBTFUL else _of_words(table, labels)
    return Annotations(
        events=events, kind=kind, label_column=str(labels.name), silent=without, runs_on=runs_on, scores=tuple(scores),
        others=tuple(others),
    )  # fmt: skip


def _of_words(table: pd.DataFrame, labels: pd.Series) -> list[str]:
    """The columns beside the labels that hold words, and are no files and no times."""
    plain = dict(zip(table.columns, plain_names(table.columns), strict=True))
    left = [c for c, n in plain.items() if c != labels.name and n not in {*FILES, *ONSETS, *OFFSETS, *DURATIONS}]
    return [c for c in left if table[c].str.contains(r"[^\W\d]").any()]


def _an_event_a_row(path: Path, kind: str, label_column: str) -> tuple[pd.DataFrame, list[str]]:
    """A table with an event a row, columns of classes turned into rows, and those of them that held scores.

    Of Raven's two rows a selection, one a view, the first stays.
    """
    readers = {"aoef": aoef.read_aoef, "jams": jams.read_jams, "avianz": avianz.read_avianz, ".json": read_json_table}
    reader = readers.get(kind, readers.get(path.suffix.lower()))
    table = without_samples(reader(path) if reader else _table(path, kind))
    if scores := scores_of_classes(table, label_column):
        table = table.melt([c for c in table.columns if c not in scores], scores, "event_label", "confidence")
    table = classes_in_rows(table, path, label_column)
    if kind == "raven":
        table = table.drop_duplicates([c for c in table if plain_name(c) not in ("view", "channel")], ignore_index=True)
    return table, scores


def _table(path: Path, kind: str) -> pd.DataFrame:
    """All cells as text. Raven knows no quotes: one within a label is a character like others."""
    text = _text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    how = {"sep": max("\t,;", key=header.count), "dtype": str, "keep_default_na": False, "index_col": False}
    how["skipinitialspace"] = True  # else quotes behind a space are none
    if kind == "raven":
        how["quoting"] = csv.QUOTE_NONE
    if first := _first_number(_cells(header)):
        names = {0: "filename", first: "onset", first + 1: "offset", first + 2: "event_label"}
        how |= {"header": None, "names": [names.get(i, f"column_{i}") for i in range(len(_cells(header)))]}
    try:
        with warnings.catch_warnings():  # else the cells behind the header's last are lost
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(io.StringIO(text), **how)
    except pd.errors.ParserWarning as error:
        raise ValueError(f"{path} has rows of more cells than its header: quote cells that hold a separator") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is no table: {error}") from error
    if kind == "raven":
        return table.apply(lambda cells: cells.str.replace(r'^"(.*)"$', r"\1", regex=True))
    return table


def _cells(line: str) -> list[str]:
    return re.split("[\t,;]", line)


def is_bare(path: Path) -> bool:
    """Whether a table with commas, tabs or semicolons begins with two numbers and a label, and no names of columns."""
    cells = [cell.strip().strip('"') for cell in _cells(_lines(path, 1)[0])]
    return len(cells) > 2 and all(map(NUMBER.fullmatch, cells[:2])) and bool(re.match(r"[^\W\d]", cells[2]))


def _first_number(cells: Sequence[str]) -> int:
    """Of a row without a header, such as `a.wav, 0.5, 1.2, dog`: the place of the onset; 0: it is no such row."""
    cells = [cell.strip().strip('"') for cell in cells]
    if not cells[0].lower().endswith(EXTENSIONS):
        return 0
    numbers = [bool(re.fullmatch(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?", cell)) for cell in cells]
    first = next((i for i in range(1, len(cells) - 2) if numbers[i] and numbers[i + 1] and cells[i + 2]), 0)
    # a number in the label's place and texts behind: these are other numbers than times
    return 0 if first and numbers[first + 2] and not all(numbers[first + 2 :]) else first


def _read_audacity(path: Path, label_column: str) -> pd.DataFrame:
    table = read_track(_lines(path), path, label_column)
    times = {name: in_seconds(table[name], path) for name in ("onset", "offset")}
    sure = {"confidence": table.confidence.astype(float)} if "confidence" in table else {}
    return table[["event_label"]].assign(filename="", **times, **sure)


def _of_tier(tiers: dict[str, list[tuple[float, float, str]]], path: Path, tier: str) -> pd.DataFrame:
    """The events of the tier that is named, or of the only one."""
    if not tiers:
        raise ValueError(f"{path} has no tier of intervals; points alone say when sounds begin, not when they end")
    if not tier and len(tiers) == 1:
        tier = next(iter(tiers))
    if tier not in tiers:
        raise ValueError(
            f"{path} has {len(tiers)} tiers of intervals, {few(tiers)}: say which one holds the labels with --tier NAME"
        )
    table = pd.DataFrame(tiers[tier], columns=["onset", "offset", "event_label"])
    return table.astype({"onset": float, "offset": float}).assign(filename="")


def _text(path: Path) -> str:
    """A whole text, in whatever of the usual encodings it is."""
    return SEPARATOR_LINE.sub("", path.read_text(encoding=find_encoding(path)).removeprefix("\ufeff"), count=1)


def _lines(path: Path, count: int | None = None) -> list[str]:
    """All lines of a text, or the first `count` of its first 64 kB; an empty one has one empty line."""
    if count is None:
        return _text(path).splitlines() or [""]
    start = path.open("rb").read(65536)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return SEPARATOR_LINE.sub("", start.decode(encoding, "replace"), count=1).splitlines()[:count] or [""]

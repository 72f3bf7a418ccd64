"""Times of events by the calendar and the clock, as marine programs have them (APLOSE, Triton): 2015-01-01T00:00:05."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.sound.wall_clock import start_of

DATE_TIME = re.compile(
    r"(\d{4})[-/](\d\d?)[-/](\d\d?)[T ]+(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)? ?(Z|[+-]\d\d:?\d\d)?", re.I
)
NAMES = (
    "start_datetime",
    "begin_datetime",
    "start_date_time",
    "begin_date_time",
    "utc",
)  # of columns with nothing else

logger = logging.getLogger("earshot")


def are_date_times(values: pd.Series) -> bool:
    """Whether all cells of a column say a day and a time, the year first."""
    return bool(len(values)) and bool(values.str.strip().map(lambda cell: bool(DATE_TIME.fullmatch(cell))).all())


def clock_seconds(values: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Date-times -> (N,) seconds since 1970 by the clock that they were read from, and how far it is ahead of UTC.

    The latter is NaN where the cell names no zone.
    """
    seconds, ahead = np.empty(len(values)), np.full(len(values), np.nan)
    for i, cell in enumerate(values.str.strip()):
        *parts, fraction, zone = DATE_TIME.fullmatch(cell).groups()
        try:
            seconds[i] = _wall(datetime(*(int(part or 0) for part in parts)))
        except ValueError as error:
            raise ValueError(f"{path}: '{cell}' is no day and time: {error}") from error
        seconds[i] += float(f"0.{fraction or 0}")
        if zone:
            digits = zone[1:].replace(":", "")
            ahead[i] = 0 if zone in "Zz" else int(f"{zone[0]}1") * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)
    return seconds, ahead


def since_start(events: pd.DataFrame, name: str, path: Path) -> pd.DataFrame:
    """Events with seconds from the start of their recordings in place of those of a clock, which have a column `ahead`;
    others as they are.

    name: the column of the recordings' names, whose clocks are meant. Where it or an event names no zone, both are of
    one clock.
    """
    if "ahead" not in events:
        return events
    events = events.copy()
    for recording, rows in events.groupby(name).groups.items():
        began = _start(str(recording), events.ahead[rows], path)
        for column in ("onset", "offset"):
            events.loc[rows, column] -= began
    if 2 * (before := (events.offset < 0).to_numpy(bool)).sum() >= len(events) > 0:
        event = events[before].iloc[0]
        raise ValueError(
            f"{path}: {before.sum()} of {len(events)} events end before their recordings begin by the clock in their "
            f"names, such as {event.event_label} {-event.offset:g} s before {event[name]}: is one of both clocks that "
            "of another zone? Write seconds from the start of each recording"
        )
    if len(events):
        logger.warning("%s says when sounds are heard by the clock: seconds are counted from the time in each "
                       "recording's name", path)  # fmt: skip
    return events


def _start(recording: str, ahead: pd.Series, path: Path) -> pd.Series:
    """When a recording began, in seconds since 1970 by the clock of each event."""
    start = start_of(recording)
    if start is None:
        raise ValueError(
            f"{path} says by the clock when sounds are heard, and the name {recording} does not say when it began, as "
            "20240131_063000.wav does: write seconds from the start of each recording. A table of when recordings were "
            "made is given as --table"
        )
    began = pd.Series(_wall(start.replace(tzinfo=None)), index=ahead.index)
    return began if start.tzinfo is None else (start.timestamp() + ahead).where(ahead.notna(), began)


def recordings_at(events: pd.DataFrame, lengths: dict[str, float], path: Path) -> pd.Series:
    """The recording in which each event of a table that names none begins, by the clocks; None: in none, or in several.

    lengths: seconds of each recording.
    """
    names = np.array([name for name in lengths if start_of(name) is not None], dtype=object)
    found = pd.Series(None, index=events.index, dtype=object)
    for _, some in events.groupby("ahead", dropna=False) if len(names) else ():
        began = np.array([_start(name, some.ahead.iloc[:1], path).iloc[0] for name in names])
        order, ended = np.argsort(began), began + [lengths[name] for name in names]
        last = np.searchsorted(began[order], some.onset, "right") - 1
        running = last + 1 - np.searchsorted(np.sort(ended), some.onset, "right")
        last = order[np.maximum(last, 0)]
        found[some.index] = np.where((running == 1) & (some.onset < ended[last]), names[last], None)
    if (lost := found.isna()).any():
        logger.warning("%s: %d of %d events name no recording, and begin in none or in several by the clocks in their "
                       "names; they are left out", path, lost.sum(), len(lost))  # fmt: skip
    return found


def names_say_when(cells: list[str]) -> bool:
    """Whether a cell of a row is a name that says when a recording began."""
    return any(not DATE_TIME.fullmatch(cell.strip().strip('"')) and start_of(cell.strip().strip('"')) for cell in cells)


def _wall(time: datetime) -> float:
    return time.replace(tzinfo=UTC).timestamp()

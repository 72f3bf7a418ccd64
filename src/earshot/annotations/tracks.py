"""Label tracks: start, end and label by tabs, without a header, as Audacity writes them and other programs after it.
Spaces in place of tabs are read too (scaper wrote them).

More columns may stand behind: a confidence (BirdNET, soft labels of DCASE), or a 0 or 1 a class in the label's place
(lung sounds), whose names the file does not say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from earshot.annotations.class_columns import heard, says_yes_or_no

NUMBER = re.compile(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?")
SPACED = re.compile(r" *([-+]?[\d.]+(e[-+]?\d+)? +){2}[^\W\d][^\t]*$", re.I)  # a line without tabs: 0.5 1.2 dog
SURE = re.compile(r"(.+)(?:, |;)([01]?\.\d+)")


def read_track(lines: Sequence[str], path: Path, label_column: str = "") -> pd.DataFrame:
    """A track -> `onset, offset, event_label` and, where there is one, `confidence`: all texts.

    A line that begins with a backslash holds the frequencies of the event before it. label_column: the names, by
    commas, of columns of 0 and 1.
    """
    lines = [line.rstrip("\r\n") for line in lines if line.strip() and not line.startswith("\\")]
    rows = [line.split(maxsplit=2) if SPACED.match(line) else line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise ValueError(f"{path}: label {number} is {row!r}, expected start, end and label, separated by tabs")
    said = [[cell.strip() for cell in row[2:]] for row in rows]
    times = pd.DataFrame({"onset": [row[0] for row in rows], "offset": [row[1] for row in rows]}, dtype=object)
    if rows and min(map(len, said)) > 1 and _are_numbers(said):
        return _of_classes(times, pd.DataFrame(said).fillna("").astype(str), path, label_column)
    labels = ["\t".join(cells) for cells in said]
    split = [cells if len(cells) > 1 else _sure(*cells) if cells else [] for cells in said]
    if not rows or min(map(len, split)) < 2 or not _are_numbers([cells[1:] for cells in split]):
        return times.assign(event_label=labels)
    if any(len(cells) > 2 or not 0 <= float(cells[1]) <= 1 for cells in split):
        raise ValueError(
            f"{path}: behind the label '{split[0][0]}' stands {', '.join(split[0][1:])}, no confidence from 0 to 1: "
            "remove it, or put a row of names on top, such as onset, offset, label, ..., separated by tabs"
        )
    return times.assign(event_label=[cells[0] for cells in split], confidence=[cells[1] for cells in split])


def _sure(label: str) -> list[str]:
    """'Turdus merula, Eurasian Blackbird, 0.82', as BirdNET once wrote, or 'MAWR;0.88', in two; another label alone."""
    match = SURE.fullmatch(label)
    return list(match.groups()) if match else [label]


def _are_numbers(rows: Sequence[Sequence[str]]) -> bool:
    return all(NUMBER.fullmatch(cell) for cells in rows for cell in cells)


def _of_classes(times: pd.DataFrame, cells: pd.DataFrame, path: Path, given: str) -> pd.DataFrame:
    """Tracks whose columns are classes of 0 and 1 -> a row a class heard; none of a stretch in which nothing is."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    if len(names) != cells.shape[1] or not all(says_yes_or_no(cells[c]) for c in cells):
        cells = f"{cells.shape[1]} columns of numbers ({', '.join(cells.iloc[0])})"
        raise ValueError(
            f"{path}: {cells} stand where a track has its label{f', {len(names)} names are given' if names else ''}; "
            "where they are classes, 1 where one is heard and 0 where not, say their names: --label-column NAME,NAME"
        )
    said = pd.DataFrame({name: heard(cells[c]) for name, c in zip(names, cells, strict=True)}).to_numpy()
    table = times.assign(event_label=[[n for n, yes in zip(names, row, strict=True) if yes] for row in said])
    table = table.explode("event_label", ignore_index=True).astype({"event_label": object})
    return table[table.event_label.notna()].reset_index(drop=True)

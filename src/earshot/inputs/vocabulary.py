"""What a foreign network's outputs are called, and which of them is which of our classes. NumPy and tables only.

A label file is one name a line, as BirdNET has them (`Turdus merula_Eurasian Blackbird`: scientific and common name),
or a CSV whose columns say the names (`scientific_name`, `common_name`, `code` or `ebird2021`, `label`). Its order is
that of the outputs. Names count alike whatever their case and spaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.messages import few
from earshot.stored import read_text
from earshot.tables import read_table

KINDS = {  # how a class is found, in this order: our columns, and those of a label file
    "scientific name": (("scientific_name",), ("scientific_name",)),
    "code": (("label", "code"), ("code", "ebird2021", "ebird_code", "label")),
    "name": (("label", "common_name"), ("common_name", "label", "scientific_name")),
}


@dataclass(frozen=True)
class Vocabulary:
    """Names of a foreign network's outputs, one row an output; `path` for errors."""

    table: pd.DataFrame
    path: Path

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Mapped:
    """Of each class: `output` (K,) of the foreign network, -1 where it has none, its name, and how it was found."""

    classes: tuple[str, ...]
    output: np.ndarray
    names: tuple[str, ...]
    how: tuple[str, ...]

    @property
    def known(self) -> list[str]:
        """Classes that the foreign network has."""
        return [c for c, o in zip(self.classes, self.output, strict=True) if o >= 0]

    @property
    def unknown(self) -> list[str]:
        """Classes outside its vocabulary."""
        return [c for c, o in zip(self.classes, self.output, strict=True) if o < 0]


def read_vocabulary(path: Path) -> Vocabulary:
    """A label file, text or CSV -> its names; an empty one, or one without any column of names, is an error."""
    if not path.is_file():
        raise ValueError(f"label file {path} does not exist: it lists the names of the network's outputs, in order")
    if path.suffix.lower() in (".csv", ".tsv"):
        table = read_table(path).astype(str)
        columns = {c for _, theirs in KINDS.values() for c in theirs}
        if not columns & set(table.columns):
            raise ValueError(f"label file {path} has none of the columns {', '.join(sorted(columns))}")
        return Vocabulary(table.reset_index(drop=True), path)
    lines = [line.strip() for line in read_text(path, "label file").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"label file {path} names no output")
    parts = [line.partition("_") for line in lines]
    table = pd.DataFrame({"scientific_name": [p[0] for p in parts], "common_name": [p[2] or p[0] for p in parts]})
    return Vocabulary(table, path)


def map_classes(classes: pd.DataFrame, vocabulary: Vocabulary, given: Mapping[str, str] | None = None) -> Mapped:
    """Find each class among a foreign network's outputs.

    classes: rows of classes.csv (`label`, and what else it says); given: {class: name of an output}, which counts
    before anything else ('' = it has none). A given class that we do not have, or name that the network does not have,
    is an error; so is a name that two outputs share.
    """
    given = dict(given or {})
    if strange := [c for c in given if c not in set(classes.label)]:
        raise ValueError(f"the table maps {len(strange)} classes that the class list does not have: {few(strange)}")
    everything = _places(vocabulary.table, [c for _, theirs in KINDS.values() for c in theirs])
    output, names, how = [], [], []
    for _, row in classes.iterrows():
        if row.label in given:
            place, found = _given(row.label, given[row.label], everything, vocabulary), "table"
        else:
            place, found = _found(row, vocabulary)
        output.append(place)
        names.append("" if place < 0 else str(vocabulary.table.iloc[place, 0]))
        how.append(found if place >= 0 else "")
    taken = pd.Series(output)
    if (twice := taken[(taken >= 0) & taken.duplicated(keep=False)]).size:
        both = [c for c, o in zip(classes.label, output, strict=True) if o == twice.iloc[0]]
        raise ValueError(f"{few(both)} are one output of {vocabulary.path}: say by a table which of them it is")
    return Mapped(tuple(classes.label), np.array(output, int), tuple(names), tuple(how))


def _key(name) -> str:
    return " ".join(str(name).replace("_", " ").lower().split())


def _places(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, int]:
    """{name: row} of those columns that are there, the first column's first; -2 where a name is of several rows."""
    found: dict[str, int] = {}
    for column in (c for c in dict.fromkeys(columns) if c in table):
        own: dict[str, int] = {}
        for place, name in enumerate(table[column].map(_key)):
            own[name] = place if own.get(name, place) == place else -2
        found = own | found
    return {name: place for name, place in found.items() if name}


def _found(row: pd.Series, vocabulary: Vocabulary) -> tuple[int, str]:
    for kind, (ours, theirs) in KINDS.items():
        places = _places_of(vocabulary, theirs)
        for column in (c for c in ours if c in row.index):
            place = places.get(_key(row[column]), -1)
            if place >= 0:
                return place, kind
    return -1, ""


def _places_of(vocabulary: Vocabulary, columns: tuple[str, ...]) -> dict[str, int]:
    kept = vocabulary.table.attrs.setdefault("places", {})
    if columns not in kept:
        kept[columns] = _places(vocabulary.table, columns)
    return kept[columns]


def _given(label: str, name: str, everything: Mapping[str, int], vocabulary: Vocabulary) -> int:
    if not _key(name):
        return -1
    place = everything.get(_key(name), -1)
    if place < 0:
        why = "several outputs share" if place == -2 else "no output has"
        raise ValueError(f"the table maps {label} to '{name}', a name that {why} in {vocabulary.path}")
    return place

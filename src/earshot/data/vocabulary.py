"""A teacher's class list, and which of its classes are ours: by a table, scientific name, code, or the name itself.

A list is a text file with a name a line (BirdNET's `Scientific name_Common name` too), or a CSV whose columns say what
names are: scientific_name, common_name, ebird_code, label and what others call these. Names are compared without
regard to case, spaces and underscores. NumPy and pandas only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.inputs.extractor import found_file
from earshot.messages import FILES_SHOWN, few, plural, suggest
from earshot.tables import read_table

KINDS = {  # kind of name: what its column is called
    "scientific": ("scientific_name", "sci_name", "scientific name", "inat2024_fsd50k"),
    "code": ("ebird_code", "ebird2021", "ebird2021_species", "ebird_species_code", "ebird", "code", "primary_label",
             "mid"),
    "common": ("common_name", "common name", "display_name", "english_name"),
    "label": ("label", "labels", "name", "class", "teacher"),
}  # fmt: skip
PAIR = re.compile(r"([A-Z][\w-]+ [\w .-]+)_(.+)|(.+)_(\3)")  # Turdus merula_Common Blackbird; Dog_Dog


@dataclass(frozen=True)
class Vocabulary:
    """Names of N classes in order: {kind: (N,) names, '' where there is none}; `what` says whose they are."""

    names: dict[str, list[str]]
    what: str

    def __len__(self) -> int:
        return len(next(iter(self.names.values())))

    def shown(self) -> list[str]:
        """One name a class, for people."""
        columns = [self.names[kind] for kind in ("label", *KINDS) if kind in self.names]
        return [next((n for n in some if n), "") for some in zip(*columns, strict=True)]


def read_vocabulary(path: str) -> Vocabulary:
    """A class list from a text file or CSV; one without any known column is an error that lists what there are."""
    file = found_file(path)
    if not file.is_file():
        near = sorted(str(p) for p in file.parent.glob(f"*{file.suffix}")) if file.parent.is_dir() else []
        raise ValueError(f"the teacher's class list {path} does not exist{suggest(path, near, most=FILES_SHOWN)}")
    if file.suffix.lower() not in (".csv", ".tsv"):
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        return of_names([line for line in lines if line], path)
    return of_columns(read_table(file), path)


def of_names(names: Sequence[str], what: str) -> Vocabulary:
    """Plain names -> Vocabulary; `Scientific name_Common name` is taken apart."""
    found = [PAIR.fullmatch(name) for name in names]
    return Vocabulary(
        {
            "label": list(names),
            "scientific": [(m[1] or "") if m else "" for m in found],
            "common": [m[2] or m[4] if m else "" for m in found],
        },
        what,
    )


def of_columns(table: pd.DataFrame, what: str) -> Vocabulary:
    """A table with a class a row -> Vocabulary by its columns."""
    lower = {str(column).strip().casefold(): column for column in table.columns}
    names = {}
    for kind, known in KINDS.items():
        column = next((lower[name] for name in known if name in lower), None)
        if column is not None:
            names[kind] = table[column].fillna("").astype(str).str.strip().tolist()
    if not names:
        raise ValueError(
            f"{what} has no column of names that is known here: it has {few(table.columns, 8)}; call one of them "
            "label, scientific_name, common_name or ebird_code"
        )
    return Vocabulary(names, what)


def match(ours: Vocabulary, theirs: Vocabulary, table: str = "") -> np.ndarray:
    """Find each of our classes in the teacher's list: (K,) places, -1 where it has none.

    Errors: not one class is there; two of the teacher's classes have the name that one of ours is found by; a row of
    `table` (CSV `label, teacher`) names a class that is not there.
    """
    by_kind = {kind: _places(names) for kind, names in theirs.names.items()}
    everything: dict[str, list[int]] = {}
    for places in by_kind.values():
        for name, at in places.items():
            everything[name] = sorted({*everything.get(name, []), *at})
    told = _told(table, ours, everything, theirs) if table else {}
    found = np.full(len(ours), -1)
    for k, label in enumerate(ours.shown()):
        places = told.get(k) or _found(ours, k, by_kind, everything)
        if len(places) > 1:
            twice = few([theirs.shown()[p] for p in places])
            raise ValueError(
                f"class '{label}' is {plural(len(places), 'classes')} of {theirs.what} ({twice}): say which by "
                "teacher.table, a CSV with the columns label, teacher"
            )
        found[k] = places[0] if places else -1
    if (found < 0).all():
        raise ValueError(
            f"none of the {len(ours)} classes ({few(ours.shown())}) is among the {len(theirs)} of "
            f"{theirs.what} "
            f"({few(theirs.shown())}): give teacher.table, a CSV with the columns label, teacher, or take its "
            "embedding alone (distill.answer_weight=0)"
        )
    return found


def _found(ours: Vocabulary, k: int, by_kind: dict, everything: dict) -> list[int]:
    for kind in ("scientific", "code", "label", "common"):
        name = _plain(ours.names[kind][k]) if kind in ours.names else ""
        places = (everything if kind == "label" else by_kind.get(kind, {})).get(name, []) if name else []
        if places:
            return places
    return []


def _told(table: str, ours: Vocabulary, everything: dict, theirs: Vocabulary) -> dict[int, list[int]]:
    rows = read_table(Path(table), ("label", "teacher"))
    mine = {_plain(name): k for k, name in enumerate(ours.shown())}
    found = {}
    for row in rows.itertuples():
        if _plain(row.label) not in mine:
            raise ValueError(f"{table} names '{row.label}', which is no class here{suggest(row.label, ours.shown())}")
        if not everything.get(_plain(row.teacher)):
            raise ValueError(
                f"{table}: '{row.teacher}' is no class of {theirs.what}{suggest(str(row.teacher), theirs.shown())}"
            )
        found[mine[_plain(row.label)]] = everything[_plain(row.teacher)]
    return found


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if key := _plain(name):
            found.setdefault(key, []).append(place)
    return found


def _plain(name) -> str:
    return " ".join(str(name).replace("_", " ").casefold().split())

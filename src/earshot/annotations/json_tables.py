"""Tables written as JSON: a list of objects, alone or by a name, one in each line (.jsonl), or objects by name.

BatDetect2 writes an object a recording with a list of its calls; Hugging Face has metadata.jsonl, AST {"data": [...]},
NSynth {"note": {...}}. All become a table of texts, a row for each of the innermost objects.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from earshot.sound.audio import EXTENSIONS
from earshot.tables import find_encoding

ENDINGS = (".json", ".jsonl")
NAME = "name"  # the column of the names of objects by name
EXPANSION = "time_exp"  # of bats: how often slower than it was the file plays
OF_LISTS = re.compile("annot|event|detect|region|segment|selection|call", re.I)  # in what lists of events are called
OF_EVENTS = ("onset", "offset", "event_label")  # empty columns of recordings in which nothing was heard


def read_json_table(path: Path) -> pd.DataFrame:
    """The objects of a JSON file as a table of texts; a list of texts is joined by semicolons.

    An object with a list of objects becomes a row for each of those, with what stands around them; a text around them
    that names a recording is their `filename`. Where the list is empty it is a row alone, and none where it says that
    nobody annotated it (`annotated`: false). ValueError: the file holds no objects.
    """
    table = _table(path)
    if table is None:
        raise ValueError(f"{path} holds no table: a list of objects is one, [{{...}}, ...], also by a name")
    if EXPANSION in table and not table[EXPANSION].isin([1, None]).all():
        raise ValueError(f"{path}: {EXPANSION} is not 1, so that its times are not those in the file: write them as "
                         "seconds of the file into a CSV")  # fmt: skip
    return table.map(_text)


def json_columns(path: Path) -> list[str]:
    """The columns that `read_json_table` would give; none of a file that holds no objects."""
    table = _table(path)
    return [] if table is None else list(map(str, table.columns))


def _table(path: Path) -> pd.DataFrame | None:
    text = path.read_text(find_encoding(path)).removeprefix("\ufeff")
    try:
        lines = [line for line in text.splitlines() if line.strip()]
        held = [json.loads(line) for line in lines] if path.suffix.lower() == ".jsonl" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    if not (records := _records(held)):
        return None
    inner = next((key for record in records for key, value in record.items() if _are_objects(value)), "")
    empty = not inner and any(_says_none(record) for record in records)
    table = pd.DataFrame([row for record in records for row in _rows(record, inner, empty)], dtype=object)
    return table if len(table.columns) else pd.DataFrame(columns=["filename", *OF_EVENTS], dtype=object)


def _records(held) -> list[dict]:
    """The objects of a list, of one list in an object (with what stands beside it), or by name."""
    if isinstance(held, list):
        return [record for record in held if isinstance(record, dict)]
    if not isinstance(held, dict):
        return []
    if held and all(isinstance(value, dict) for value in held.values()):
        return [{NAME: name, **record} for name, record in held.items()]
    return [held] if any(_are_objects(value) or value == [] for value in held.values()) else []


def _rows(record: dict, inner: str, empty: bool) -> list[dict]:
    """The rows of one object. inner: the name of the list of its objects; empty: no object has any."""
    if record.get("annotated") is False:
        return []
    if not inner and not empty:
        return [record]
    around = {key: value for key, value in record.items() if key != inner and value != []}
    named = [v for v in around.values() if isinstance(v, str) and v.lower().endswith(EXTENSIONS)]
    around |= {"filename": named[0]} if named else {}
    if empty:
        return [{"filename": named[0] if named else "", **dict.fromkeys(OF_EVENTS, "")}]
    return [{**around, **one} for one in record.get(inner) or [{}]]


def _says_none(record: dict) -> bool:
    """Whether an object has an empty list of events, by its name: other lists may be empty too."""
    return any(value == [] and OF_LISTS.search(key) for key, value in record.items())


def _are_objects(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _text(cell) -> str:
    if isinstance(cell, list) and all(isinstance(one, str) for one in cell):
        return ";".join(cell)
    if cell is None or cell != cell:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell)

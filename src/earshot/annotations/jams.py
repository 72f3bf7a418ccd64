"""JAMS, the JSON of music and of scaper's soundscapes: observations with a time, a duration and a value -> a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.stored import read_json

COLUMNS = ("onset", "duration", "event_label", "confidence")


def read_jams(path: Path) -> pd.DataFrame:
    """The observations of all annotations, all texts: their value, or its `label`; tags are of the whole recording.

    What scaper lays under a soundscape (role background) is none.
    """
    held = read_json(path, "JAMS file", kind=dict)
    rows = []
    try:
        for annotation in held["annotations"]:
            tags = str(annotation.get("namespace", "")).startswith("tag_")
            for one in _observations(annotation["data"]):
                value = one["value"]
                if isinstance(value, dict) and value.get("role") != "background":
                    value = value["label"]
                if isinstance(value, str):
                    times = ("", "") if tags else (one["time"], one["duration"])
                    rows.append((*times, value, "" if one.get("confidence") is None else one["confidence"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no JAMS file of sounds: {type(error).__name__} {error}") from error
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object).astype(str)


def _observations(data) -> list[dict]:
    """The observations of an annotation: a list, or one list a field as older files have them."""
    if isinstance(data, dict):
        return [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    return data

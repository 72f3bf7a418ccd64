"""Annotations of AviaNZ (a.wav.data): a list of who annotated, then of each segment with its times and species."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from earshot.annotations.certainty import MARK
from earshot.stored import read_json

ENDING = ".data"
START = re.compile(r'\s*\[\s*(\{\s*"(Operator|Reviewer|Duration)"|\[)')
SURE = 100
NOBODY_KNOWS = "Don't Know"


def read_avianz(path: Path) -> pd.DataFrame:
    """The segments as a table of texts, a row a species; of a certainty below 100 with a question mark behind."""
    held = read_json(path, "file of AviaNZ", kind=list)
    try:
        rows = [
            (start, end, _label(species))
            for start, end, _, _, several in (one for one in held if isinstance(one, list) and one[0] != -1)
            for species in several or [NOBODY_KNOWS]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no file of AviaNZ: {type(error).__name__} {error}") from error
    return pd.DataFrame(rows, columns=["onset", "offset", "event_label"], dtype=object).astype(str)


def _label(species: dict | str) -> str:
    """A species, in older files its name alone; a sound that nobody knows has no label."""
    name = species if isinstance(species, str) else species["species"]
    if name.strip() == NOBODY_KNOWS:
        return ""
    sure = isinstance(species, str) or species.get("certainty", SURE) >= SURE
    return name if sure else f"{name}{MARK}"

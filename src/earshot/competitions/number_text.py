"""Tables of a name and many numbers a row -> CSV, several times as fast as pandas writes them.

A submission of 66,000 rows of 264 probabilities takes pandas most of a minute; here it is a third of that, and a
second where rows repeat, as they do before any recording was heard. The text is the same: the shortest one that gives
each number again.
"""

from __future__ import annotations

import io
import time
from typing import TextIO

import numpy as np
import pandas as pd

WIDE = 8  # columns of numbers from which this is worth it
BLOCK = 2000  # rows turned into text together
QUOTED = frozenset(',"\r\n\t')


def is_number_table(table: pd.DataFrame) -> bool:
    """Whether every column but the first holds finite 64-bit floats, and there are WIDE of them or more."""
    numbers = table.iloc[:, 1:]
    if numbers.shape[1] < WIDE or not (numbers.dtypes == np.float64).all() or not len(table):
        return False
    return bool(np.isfinite(numbers.to_numpy()).all())


def write_number_table(table: pd.DataFrame, file: TextIO, separator: str = ","):
    """Write header and rows of what `is_number_table` takes, \\n at line ends."""
    file.write(separator.join(_quoted(name) for name in table.columns) + "\n")
    names = table.iloc[:, 0]
    missing = names.isna().to_numpy()
    values = np.ascontiguousarray(table.iloc[:, 1:].to_numpy())
    known: tuple[bytes, str] = (b"", "")
    for begin in range(0, len(table), BLOCK):
        block = values[begin : begin + BLOCK]
        lines = []
        for i, row in enumerate(block):
            if row.tobytes() != known[0]:
                known = (row.tobytes(), separator.join(map(repr, row.tolist())))
            name = "" if missing[begin + i] else _quoted(names.iat[begin + i])
            lines.append(f"{name}{separator}{known[1]}\n")
        file.writelines(lines)


def text_seconds(table: pd.DataFrame) -> float:
    """Seconds of a core that rows of all different numbers would take `write_number_table`, from a few of them."""
    some, columns = min(len(table), 200), table.shape[1] - 1
    values = pd.DataFrame(np.random.default_rng(0).random((some, columns)))
    values.insert(0, "name", "name")
    began = time.perf_counter()
    write_number_table(values, io.StringIO())
    return (time.perf_counter() - began) * len(table) / some


def _quoted(name) -> str:
    """A cell of text, in quotes where it holds what ends a cell."""
    text = str(name)
    return text if QUOTED.isdisjoint(text) else '"' + text.replace('"', '""') + '"'

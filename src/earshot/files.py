"""Writing files so that no half-written one ever has its final name."""

from __future__ import annotations

import csv
import os
from pathlib import Path


def write_text(path: Path, text: str):
    """Write under a temporary name, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    os.replace(partial, path)


def write_rows(path: Path, rows: list[dict]):
    """List of dicts -> CSV with the union of their keys as columns, atomically."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)

"""Files: written so that no half-written one ever has its final name, and found below a folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path


def write_text(path: Path, text: str):
    """Write under a temporary name, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    os.replace(partial, path)


def walk(folder: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at and below `folder`, once, with the names of its files; links are followed, but never in a loop."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # nothing below it either
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))  # a link comes last
        yield Path(parent), names


def write_rows(path: Path, rows: list[dict]):
    """List of dicts -> CSV with the union of their keys as columns, atomically."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)

"""Files: written so that no half-written one ever has its final name, and found below a folder."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def write_text(path: Path, text: str):
    """Write under a temporary name, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    os.replace(partial, path)


def check_writable(path: str | Path, instead: str = "", size: float = 0):
    """Raise ValueError unless a file could be written at `path` now: asked before the work whose result goes there.

    The folder that is to hold it (or the nearest one above that is there) takes a file, `path` is no folder, and the
    disk has `size` bytes, where they are known. instead: what else to do, for the error. Nothing is left behind.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file{'; or ' * bool(instead)}{instead}")
    try:
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        with tempfile.TemporaryFile(dir=above):
            free = shutil.disk_usage(above).free
    except OSError as error:
        why = "is no folder" if isinstance(error, NotADirectoryError) else (error.strerror or str(error)).lower()
        hint = f"; {instead}" if instead else "; choose another place"
        raise ValueError(f"{path} cannot be written: {above}: {why}{hint}") from error
    if free < size:
        raise ValueError(f"{path} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at {above}")


def write_or_rescue(path: str | Path, write: Callable[[Path], object]):
    """Call `write(path)`; where the disk refuses it then, write to a new temporary folder, and say where that is."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        kept = Path(tempfile.mkdtemp(prefix="earshot-")) / path.name
        write(kept)
        raise OSError(f"{path} could not be written ({error.strerror or error}); its content is in {kept}") from error


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

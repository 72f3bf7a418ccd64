"""Recordings that nobody labelled: a table of them, or a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.data.dataset import read_dataset
from earshot.data.labels import read_clips
from earshot.sound.audio import warn_once
from earshot.sound.folder import some_recordings


def find_recordings(source: Path, audio_root: Path | None = None) -> tuple[pd.DataFrame, Path]:
    """A table (clip_id, path, ...) or a folder -> (the same table, the folder that its paths are relative to).

    Errors: nothing there, or none of it a recording.
    """
    if source.is_dir():
        found = some_recordings(source)
        if text := found.said():
            warn_once(text)
        paths = [str(path.relative_to(source)) for path in found.files]
        return pd.DataFrame({"clip_id": found.ids(), "path": paths}), source.resolve()
    table = read_clips(source)
    if not len(table):
        raise ValueError(f"{source} lists no recordings")
    if audio_root is None:
        beside = source.parent / "dataset.json"
        audio_root = Path(read_dataset(source.parent)["source"]) if beside.is_file() else source.parent
    return table.reset_index(drop=True), audio_root.resolve()

"""Recordings that nobody labelled: a table of them, or a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.data.dataset import read_dataset
from earshot.data.labels import read_clips
from earshot.data.pseudo import files_of, recording_keys
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


def with_groups(table: pd.DataFrame, root: Path, clips: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The recordings with the groups that folds never split, where they say none themselves; '' where nobody knows.

    A recording that is one of `clips` (below `source`), with a label or without, has its group, and one in a folder of
    a group's name is of that group. root: what the paths of the table are relative to.
    """
    if "group" in table or "group" not in clips or clips.group.nunique() == len(clips):
        return table
    groups, names = clips.group.fillna("").astype(str), ["clip_id", "path"]
    of_file = dict(zip(files_of(clips.path, source), groups, strict=True))
    of_key = {key: g for keys, g in zip(recording_keys(clips[names]), groups, strict=True) for key in keys}
    known = sorted(set(groups) - {"", "."}, key=len, reverse=True)
    of_folder = {at: next((g for g in known if f"/{at}".endswith(f"/{g}")), "") for at in map(_folder, table.path)}
    both = zip(files_of(table.path, root), recording_keys(table[names]), map(_folder, table.path), strict=True)
    found = [
        of_file.get(file) or next((of_key[key] for key in keys if key in of_key), "") or of_folder[at]
        for file, keys, at in both
    ]
    return table.assign(group=found)


def _folder(path: str) -> str:
    return Path(path).parent.as_posix()

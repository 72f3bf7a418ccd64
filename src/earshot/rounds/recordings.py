"""Recordings without labels: a table or a folder of them, held against the clips that have labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.data.prepared import PreparedData
from earshot.data.pseudo import CLIP, files_of, recording_keys
from earshot.messages import few

SITES = ("site", "location", "city", "sensor_id")


def without_labelled(
    table: pd.DataFrame, root: Path, data: PreparedData, skip: bool, source: Path, beside: pd.DataFrame | None = None
) -> pd.DataFrame:  # fmt: skip
    """The recordings that no labelled clip is of; skip: leave such out, else they are an error.

    By the file and by the clip's id with its file's name; a column `labels` of the table itself counts as well. beside:
    more recordings with labels, of validation.csv.
    """
    named = [data.clips[["clip_id", "path"]], data.whole]
    if beside is not None:  # the honest split
        named.append(beside[["clip_id", "path"]])
    files, ids = set(), set()
    for clips in named:
        files |= set(files_of(clips.path, data.source))
        ids |= {key for keys in recording_keys(clips) for key in keys if key.startswith(CLIP)}
    own = recording_keys(table[["clip_id", "path"]])
    labelled = [
        file in files or not ids.isdisjoint(keys) for file, keys in zip(files_of(table.path, root), own, strict=True)
    ]
    labelled = pd.Series(labelled, index=table.index)
    if "labels" in table:
        labelled |= table.labels.fillna("").astype(str).str.strip() != ""
    if not labelled.any():
        return table
    told = (
        f"{int(labelled.sum())} of the {len(table)} recordings of {source} have labels ({few(table.clip_id[labelled])})"
    )
    if not skip:
        raise ValueError(
            f"{told}: what people said of them is not to be replaced by what a network says. Leave them out of --clips "
            "or by --skip-labelled (src/relabel.py makes soft targets of labelled clips)"
        )
    print(f"{told} and are left out")
    if labelled.all():
        raise ValueError(f"{source}: no recording without labels is left")
    return table[~labelled].reset_index(drop=True)


def with_groups(table: pd.DataFrame, root: Path, data: PreparedData, clips: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The recordings with the groups that folds never split, where they say none themselves.

    A recording that is a clip of the data set, with a label or without, has its group, and one in a folder of a group's
    name is of that group. clips: all rows of clips.csv. What is left without a group is said.
    """
    if "group" in table or "group" not in clips:
        return table
    groups = clips.group.fillna("").astype(str)
    of_file = dict(zip(files_of(clips.path, data.source), groups, strict=True))
    names = ["clip_id", "path"]
    of_key = {key: g for keys, g in zip(recording_keys(clips[names]), groups, strict=True) for key in keys}
    folders, known = table.path.map(lambda path: Path(path).parent.as_posix()), set(groups) - {"", "."}
    found = [
        of_file.get(file) or next((of_key[key] for key in keys if key in of_key), "") or (at if at in known else "")
        for file, keys, at in zip(files_of(table.path, root), recording_keys(table[names]), folders, strict=True)
    ]
    if none := found.count(""):
        print(
            f"{none} of the {len(table)} recordings of {source} have no group, and clips.csv has groups that no fold "
            f"splits, such as {few(sorted(known), 2)}: a fold may train on a group that it holds out. Give a table "
            "with the column group"
        )
    return table.assign(group=found)


def sites_of(table: pd.DataFrame, column: str = "") -> tuple[pd.Series, str]:
    """The site of each recording as text, '' where unknown, and the column that says it ('' without one)."""
    if column and column not in table:
        raise ValueError(f"--site-column {column} is no column of the recordings' table ({', '.join(table.columns)})")
    column = column or next((c for c in SITES if c in table), "")
    if not column:
        return pd.Series("", index=table.index), ""
    return table[column].fillna("").astype(str).str.strip(), column

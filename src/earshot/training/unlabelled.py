"""Recordings without labels that teachers speak of: of a folder or table, or training clips that were left out.

They stand behind the labelled clips of a fold, their labels unknown.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.data.folds import read_folds
from earshot.data.labels import read_clips
from earshot.data.prepared import PreparedData
from earshot.data.pseudo import files_of, recording_keys
from earshot.data.unlabelled import find_recordings, with_groups
from earshot.inputs.teacher import LEFT_OUT
from earshot.messages import few

logger = logging.getLogger("earshot")


def read_unlabelled(name: str) -> pd.DataFrame:
    """A table of recordings (paths below its data set's source, else below its folder), or a folder of them ->
    clip_id, path (absolute), duration where it is known."""
    table, below = find_recordings(Path(name))
    return table.assign(path=[str(below / p) for p in table.path])


def read_labelled(data: PreparedData, root: Path, folds: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All clips of a data set's tables, whichever of them are taken, and the recordings of its validation.csv; both
    with their columns, the clips with group and fold."""
    clips = read_clips(root / "clips.csv")
    clips = clips.drop(columns=[c for c in ("group", "fold") if c in clips])
    clips = read_folds(folds, clips)[["clip_id", "group", "fold"]].merge(clips, on="clip_id", validate="one_to_one")
    beside = root / "validation.csv"
    return clips, read_clips(beside) if beside.is_file() else data.whole.iloc[:0]


def not_held_out(table: pd.DataFrame, clips: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Unlabelled recordings without those of a recording or group that a fold holds out; that some are is said."""
    known = {key for own in recording_keys(clips[clips.fold == fold]) for key in own}
    shared = np.array([not known.isdisjoint(own) for own in recording_keys(table)])
    if not shared.any():
        return table
    ids = few(table.clip_id[shared])
    if shared.all():
        raise ValueError(f"distill.unlabelled: fold {fold} holds out clips of the same groups as all of {ids}")
    logger.warning(
        "%d of the %d recordings of distill.unlabelled are of groups that fold %d holds out (%s): left out",
        shared.sum(), len(table), fold, ids,
    )  # fmt: skip
    return table[~shared].reset_index(drop=True)


def with_unlabelled(
    data: PreparedData, table: pd.DataFrame, *beside: pd.DataFrame, fold: int | None = None
) -> tuple[PreparedData, np.ndarray]:  # fmt: skip
    """Training clips with unlabelled recordings behind them, and the chance (M,) of each recording in a draw.

    Recordings that are clips of the data set, held out ones among them, or of tables `beside` it (clip_id, path), are
    refused: they have labels. By the file, links followed, and by the clip's id with its file's name.
    fold: that trains; recordings of the groups that it holds out of the first table beside are left out.
    """
    named = [data.whole, *beside]
    ids = set(data.whole.clip_id.astype(str))
    files = {file for clips in named for file in files_of(clips.path, data.source)}
    keys = {key for clips in named for own in recording_keys(clips[["clip_id", "path"]]) for key in own}
    own_files, own_keys = files_of(table.path, data.source), recording_keys(table[["clip_id", "path"]])
    both = [
        clip_id
        for clip_id, file, own in zip(table.clip_id, own_files, own_keys, strict=True)
        if str(clip_id) in ids or file in files or not keys.isdisjoint(own)
    ]
    if both:
        raise ValueError(
            f"{len(both)} recordings of distill.unlabelled are labelled clips of the data set: "
            f"{few(both)}; leave them "
            "out, they have labels, and those held out, and those of validation.csv, must not be learned from"
        )
    if fold is not None:
        table = not_held_out(with_groups(table, Path(), beside[0], data.source), beside[0], fold)
    return _behind(data, table)


def with_left_out(data: PreparedData, clips: pd.DataFrame, fold: int) -> tuple[PreparedData, np.ndarray]:
    """Training clips with those behind them that `data.clips_per_class` or `data.train_share` left out, their labels
    and events unknown, and the chance (M,) of each in a draw.

    clips: all of the data set, `fold` of each; what the fold holds out stays away, and what `data.part_others` leaves
    out, which is of other classes.
    """
    left = (clips.fold != fold) & clips.clip_id.isin(data.whole.clip_id) & ~clips.clip_id.isin(data.clips.clip_id)
    left &= ~clips.clip_id.isin(data.not_drawn)
    if not left.any():
        raise ValueError(
            f"distill.unlabelled={LEFT_OUT}: all {len(data.clips)} clips of fold {fold} train with their "
            "labels; let "
            "data.clips_per_class or data.train_share leave some out, or name a folder or table of recordings"
        )
    joined, chance = _behind(data, clips[left].reset_index(drop=True))
    events = None if data.events is None else data.events[~data.events.filename.isin(clips.clip_id[left])]
    return replace(joined, whole=data.whole, events=events), chance  # the whole has them


def _behind(data: PreparedData, table: pd.DataFrame) -> tuple[PreparedData, np.ndarray]:
    """Clips with the recordings of a table (clip_id, path, now and then duration) behind them, and their chances."""
    more = pd.DataFrame({"clip_id": table.clip_id, "path": table.path, "labels": "", "fold": -1})
    more = more.assign(**{c: table[c] for c in data.metadata.columns if c in table})  # the network takes them
    n, k = len(table), data.target.shape[1]
    seconds = pd.to_numeric(table.duration, errors="coerce").fillna(0) if "duration" in table else pd.Series(np.ones(n))
    seconds = np.maximum(seconds.to_numpy(float), 1e-3)
    joined = replace(
        data,
        clips=pd.concat([data.clips, more], ignore_index=True),
        target=np.concatenate([data.target, np.zeros((n, k), data.target.dtype)]),
        mask=np.concatenate([data.mask, np.zeros((n, k), data.mask.dtype)]),
        whole=pd.concat([data.whole, more[["clip_id", "path"]]], ignore_index=True),
    )
    return joined, seconds / seconds.sum()

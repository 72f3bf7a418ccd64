"""What teachers say of every window of many recordings: heard in shards on disk, so that a kill loses one of them.

A shard holds the answers of some recordings for every fold, the mean over the runs, as float16; at no time is more than
one in memory. `asked.json` says whose answers they are: another call's shards are refused, and so are shards without
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import files
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Clip
from earshot.records import to_dict
from earshot.rounds.teachers import Teachers
from earshot.sound import audio
from earshot.stored import read_arrays, read_json

ASKED = "asked.json"
SHARD = 64  # recordings
INSIDE = 0.95  # share of a window that must lie in the recording, unless it is the only one
REMEDY = "remove the folder to hear everything again"


@dataclass(frozen=True)
class Shard:
    """Answers to the windows of some recordings, one after the other."""

    recording: np.ndarray  # (W,) row of the table
    window: np.ndarray  # (W,) number of the window in its recording
    answers: np.ndarray  # (F, W, K) float16, folds in their order


def hear_all(
    teachers: Teachers, table: pd.DataFrame, root: Path, folder: Path, progress: Callable, size: int = SHARD
) -> int:
    """Fill `folder` with the shards that it lacks -> how many there are. progress: given a total, a bar with `update`.

    Errors: the folder holds answers of other teachers, recordings or windows, or of unknown ones.
    """
    begin(folder, teachers, table, root, size)
    count = -(-len(table) // size)
    with progress(len(table)) as bar:
        for number in range(count):
            rows = table.iloc[number * size : (number + 1) * size]
            if not shard_file(folder, number).is_file():
                hear(teachers, rows, root, folder, number)
            bar.update(len(rows))
    return count


def begin(folder: Path, teachers: Teachers, table: pd.DataFrame, root: Path, size: int):
    """Write whose answers the folder will hold, or raise where it holds others."""
    lines = [f"{r.clip_id}\t{r.path}\t{state_of(root / r.path)}" for r in table.itertuples()]
    listed = hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()
    origins = {str(fold): [to_dict(o) for o in of_fold] for fold, of_fold in teachers.origins.items()}
    asked = {
        "teachers": origins, "recordings": listed, "audio_root": str(root.resolve()), "size": size,
        "seconds": teachers.windowing.window_seconds,
    }  # fmt: skip
    path = folder / ASKED
    if path.is_file():
        before = read_json(path, "note", REMEDY)
        if differ := [key for key, value in json.loads(json.dumps(asked)).items() if before.get(key) != value]:
            raise ValueError(
                f"{folder} holds answers of a call that was stopped, or kept its answers, with other "
                f"{', '.join(differ)}: give the same --runs, --clips (files unchanged) and --folds to use them, or "
                f"{REMEDY}"
            )
        return
    if any(folder.glob("[0-9]*.npz")):
        raise ValueError(f"{folder} holds answers and no {ASKED} that says whose: {REMEDY}")
    files.write_text(path, files.as_json(asked))


def state_of(path: Path) -> str:
    """Size and time of the last change of a file: another one of its name has others; 'none' where it is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: no name of a file
        return "none"
    return f"{found.st_size} {found.st_mtime_ns}"


def shard_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def hear(teachers: Teachers, rows: pd.DataFrame, root: Path, folder: Path, number: int):
    """Hear the recordings of one shard and write it; those that cannot be read are listed beside it."""
    clips = [Clip(str(i), root / path) for i, path in zip(rows.index, rows.path, strict=True)]
    folds, unreadable = list(teachers.members), {}
    sums: list[list[np.ndarray | None]] = [[None] * len(clips) for _ in folds]
    for group in passes(teachers):
        found, failed = predict_members([member for _, member in group], clips)
        unreadable |= dict(failed)
        for (fold, _), answers in zip(group, found, strict=True):
            own = sums[folds.index(fold)]
            for i, frames in enumerate(answers.framewise_output):
                own[i] = frames if own[i] is None else own[i][: len(frames)] + frames[: len(own[i])]
    recording, window, kept = [], [], [[] for _ in folds]
    for i, clip in enumerate(clips):
        if clip.clip_id in unreadable:
            continue
        n = min(n_windows(clip.path, teachers.windowing), *(len(own[i]) for own in sums))
        recording += [int(clip.clip_id)] * n
        window += range(n)
        for parts, own, fold in zip(kept, sums, folds, strict=True):
            parts.append(own[i][:n] / len(teachers.members[fold]))
    empty = np.zeros((0, len(teachers.classes)), np.float32)
    answers = np.stack([np.concatenate([empty, *parts]) for parts in kept])
    if answers.size and not (answers.min() >= 0 and answers.max() <= 1 + 1e-5):
        raise ValueError("these teachers' answers are no probabilities of 0 to 1: they cannot be targets")
    with files.whole_file(shard_file(folder, number)) as partial, open(partial, "wb") as file:
        np.savez_compressed(
            file, recording=np.array(recording, np.int64), window=np.array(window, np.int64),
            answers=np.clip(answers, 0, 1).astype(np.float16),
            unreadable=np.array([f"{clip_id}\t{reason}" for clip_id, reason in unreadable.items()], dtype=str),
        )  # fmt: skip


def passes(teachers: Teachers) -> list[list[tuple]]:
    """Pairs of fold and member, in groups that can be fed from the same windows."""
    groups: dict[tuple, list[tuple]] = {}
    for fold, members in teachers.members.items():
        for member in members:
            groups.setdefault(member.window_key, []).append((fold, member))
    return list(groups.values())


def n_windows(path: Path, windowing) -> int:
    """Windows that lie in a recording, but for a rest of 5 % at its end; at least one."""
    info = audio.info(path)
    windows = info.n_samples / info.sample_rate / windowing.window_seconds
    return max(1, int(windows) + (windows - int(windows) >= INSIDE))


def shards(folder: Path, count: int) -> Iterator[Shard]:
    """The shards, one at a time."""
    for number in range(count):
        found = read_arrays(shard_file(folder, number), "a shard of answers", REMEDY)
        yield Shard(found["recording"], found["window"], found["answers"])


def unreadable(folder: Path, count: int) -> dict[int, str]:
    """Row of the table -> why it could not be read, of all shards."""
    found = {}
    for number in range(count):
        texts = read_arrays(shard_file(folder, number), "a shard of answers", REMEDY)["unreadable"]
        found |= {int(row): reason for row, _, reason in (str(text).partition("\t") for text in texts)}
    return found

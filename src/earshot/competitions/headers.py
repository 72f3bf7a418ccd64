"""What the headers of a download's recordings say, and which recordings cannot be read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.tables import OF_RECORDINGS, Tables, is_there
from earshot.data.digests import content_hash
from earshot.messages import progress_bar
from earshot.sound import audio

TRIED = 4  # recordings that tell how long opening one takes
AT_ONCE_SECONDS = 1e-3  # a file that is opened faster lies in memory or on a disk of one's own
MOST_A_TASK = 16  # recordings that a thread takes at a time


def with_headers(tables: Tables, source: Path, decode: bool, workers: int) -> Tables:
    """Tables with `unreadable` and the columns `sample_rate` (Hz), `duration` (s), after decoding `content_hash`."""
    changed, unreadable = {}, []
    for name in OF_RECORDINGS:
        clips = getattr(tables, name)
        if clips is None:
            continue
        reading = examined(clips.path, source, decode, workers)
        found = list(progress_bar(reading, f"files of {name}", len(clips), "file"))
        columns = ["sample_rate", "duration"] + ["content_hash"] * decode
        known = pd.DataFrame([f[: len(columns)] for f in found], columns=columns, index=clips.index)
        changed[name] = clips.assign(**known.astype({"sample_rate": "Int64"}))
        lost = clips.assign(reason=[f[-1] for f in found])
        lost = lost[lost.reason != ""]
        unreadable += lost[is_there(lost, source)][["clip_id", "path", "reason"]].itertuples(index=False, name=None)
    changed["unreadable"] = pd.DataFrame(unreadable, columns=["clip_id", "path", "reason"]) if unreadable else None
    return dataclasses.replace(tables, **changed)


def examined(paths: Iterable[str], source: Path, decode: bool, workers: int) -> Iterator[tuple]:
    """What `examine` says of each recording, in order.

    Threads help where files are waited for or decoded. Where they open at once Python itself is what takes time, and
    threads would mostly wait for each other: then one does it all. Each takes some recordings at a time, since handing
    over a single one takes a good part of the time of opening it.
    """
    paths, took = list(paths), []
    for path in paths[:TRIED]:
        began = time.monotonic()
        yield examine(source / path, decode)
        took.append(time.monotonic() - began)
    rest = paths[TRIED:]
    workers = 1 if not decode and min(took, default=0) < AT_ONCE_SECONDS else max(workers, 1)
    size = min(MOST_A_TASK, len(rest) // (4 * workers) + 1)
    parts = [rest[begin : begin + size] for begin in range(0, len(rest), size)]
    with ThreadPoolExecutor(workers) as pool:
        for part in pool.map(lambda some: [examine(source / path, decode) for path in some], parts):
            yield from part


def examine(path: Path, decode: bool) -> tuple[float, float, str, str]:
    """Sample rate (Hz), duration (s), hash of the decoded samples (or ''), and why it cannot be read ('': it can)."""
    try:
        info = audio.info(path)
        if not decode:
            return info.sample_rate, round(info.duration, 6), "", ""
        waveform = audio.load(path, info.sample_rate, mono=False)
    except audio.UnreadableAudio as error:
        return np.nan, np.nan, "", str(error)
    return info.sample_rate, round(waveform.shape[-1] / info.sample_rate, 6), content_hash(waveform), ""

"""One shard of an archive: heard with patience, written whole.

A recording that fails is tried again. One at which the process itself ends (a decoder that crashes, memory that runs
out) must not end the next process too: OUT/attempts/ notes who is being heard, the third process goes file by file,
and a recording at which two of those ended is listed and left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from earshot import files
from earshot.listening.archive import EVENTS, RECORDINGS, part, was_heard
from earshot.listening.detections import COLUMNS, Heard, joined
from earshot.prediction.predictions import Clip
from earshot.sound.folder import printable
from earshot.stored import read_json

ATTEMPTS = "attempts"
TRIES = 3  # of a recording that cannot be read, and of one that ends in an error
PAUSE_SECONDS = 1.0  # before the second try, then twice as long each
TOGETHER = 2  # processes that hear a shard as a whole before one goes file by file
ENDED = 2  # processes that may end at one recording
FLOATS = ("onset", "offset", "confidence", "max_output", "mean_output")


class NothingHeard(RuntimeError):
    """Every recording of a shard ended in an error that is not its own: the device, the network or this code fails."""


@dataclass
class Attempts:
    """What is known of processes that began a shard and did not end it."""

    path: Path
    begun: int = 0
    at: str = ""  # the recording that is being heard, where it is heard alone
    ended_at: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, out: Path, shard: int) -> Attempts:
        """Note that a process begins, and take over what those before it left."""
        path = out / ATTEMPTS / f"{shard:06d}.json"
        before = read_json(path) if path.is_file() else {}
        found = cls(path, before.get("begun", 0) + 1, "", before.get("ended_at", {}))
        if at := before.get("at"):
            found.ended_at[at] = found.ended_at.get(at, 0) + 1
        found.write()
        return found

    def hearing(self, name: str):
        self.at = name
        self.write()

    def write(self):
        files.write_text(self.path, files.as_json({"begun": self.begun, "at": self.at, "ended_at": self.ended_at}))

    def over(self):
        self.path.unlink(missing_ok=True)


def hear_shard(
    out: Path, shard: int, clips: Sequence[Clip], hear: Callable[[Sequence[Clip]], Heard],
    pause: float = PAUSE_SECONDS, blame: bool = False,
) -> dict:  # fmt: skip
    """Hear the recordings of a shard, write its two files, and say in figures what is in them (see `figures`).

    A shard whose files are there is not heard again. blame: where every recording ends in an error each is listed with
    its own; else that is NothingHeard, and nothing is written.
    """
    if was_heard(out, shard):
        return figures(out, shard)
    attempts = Attempts.begin(out, shard)
    heard = None
    if attempts.begun <= TOGETHER:
        try:
            heard = hear(clips)
        except Exception:  # of one recording, or of all: hearing each alone tells
            heard = None
    if heard is None:
        heard = _one_by_one(clips, hear, attempts, pause, blame)
    else:
        heard = _again(heard, clips, hear, pause)
    write_shard(out, shard, clips, heard)
    attempts.over()
    return figures(out, shard)


def _again(heard: Heard, clips: Sequence[Clip], hear: Callable, pause: float) -> Heard:
    """Try what could not be read again: a disk over a network may fail for a second."""
    for attempt in range(1, TRIES):
        failed = [clip for clip in clips if str(clip.path) in heard.unreadable]
        if not failed:
            break
        time.sleep(pause * 2 ** (attempt - 1))
        try:
            heard = joined([heard, hear(failed)])
        except Exception as error:
            reasons = {str(clip.path): _said(error) for clip in failed}
            heard = joined([heard, Heard(heard.events.iloc[:0], {}, reasons)])
    return heard


def _one_by_one(clips: Sequence[Clip], hear: Callable, attempts: Attempts, pause: float, blame: bool) -> Heard:
    """Hear each recording alone; what ends in an error, or ended processes, is listed with the reason."""
    found, errors = [], []
    for clip in clips:
        if (ended := attempts.ended_at.get(clip.clip_id, 0)) >= ENDED:
            found.append(_unheard(clip, f"the process that heard it ended, {ended} times"))
            continue
        attempts.hearing(clip.clip_id)
        try:
            found.append(_patiently(clip, hear, pause))
        except Exception as error:
            errors.append(error)
            found.append(_unheard(clip, _said(error)))
    attempts.hearing("")
    if errors and len(errors) == len(clips) and not blame:
        raise NothingHeard(f"none of {len(clips)} recordings: {_said(errors[-1])}") from errors[-1]
    return joined(found)


def _patiently(clip: Clip, hear: Callable, pause: float) -> Heard:
    for attempt in range(1, TRIES):
        try:
            return _again(hear([clip]), [clip], hear, pause)
        except Exception:
            time.sleep(pause * 2 ** (attempt - 1))
    return hear([clip])


def _unheard(clip: Clip, reason: str) -> Heard:
    return Heard(pd.DataFrame(columns=list(COLUMNS)), {}, {str(clip.path): reason})


def _said(error: Exception) -> str:
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:500]


def schemas():
    """The columns of a shard's two files, the same whether anything is in them or not."""
    import pyarrow as pa

    text = ("filename", "event_label", "begins", "path")
    events = pa.schema([(name, pa.string() if name in text else pa.float64()) for name in COLUMNS])
    recordings = pa.schema(
        [("filename", pa.string()), ("path", pa.string()), ("seconds", pa.float64()), ("events", pa.int64()),
         ("unreadable", pa.string()), ("note", pa.string()), ("shard", pa.int64())]
    )  # fmt: skip
    return events, recordings


def write_shard(out: Path, shard: int, clips: Sequence[Clip], heard: Heard):
    """Events of a shard, then its recordings, each on the disk before it has its name."""
    events_schema, recordings_schema = schemas()
    counts = heard.events.path.value_counts() if len(heard.events) else {}
    events = heard.events.reindex(columns=list(COLUMNS))
    events = events.assign(path=[printable(str(path)) for path in events.path])
    events = events.astype(dict.fromkeys(FLOATS, float))
    order = {clip.clip_id: i for i, clip in enumerate(clips)}
    events = events.assign(place=events.filename.map(order)).sort_values(["place", "onset"], kind="stable")
    rows = []
    for clip in clips:
        path = str(clip.path)
        seconds = heard.seconds.get(path, np.nan)
        rows.append(
            {"filename": clip.clip_id, "path": printable(path), "seconds": seconds if np.isfinite(seconds) else np.nan,
             "events": int(counts.get(path, 0)), "unreadable": heard.unreadable.get(path, ""),
             "note": heard.notes.get(path, ""), "shard": shard}
        )  # fmt: skip
    _write(out / EVENTS / part(shard), events[list(COLUMNS)], events_schema)
    _write(out / RECORDINGS / part(shard), pd.DataFrame(rows), recordings_schema)


def _write(path: Path, table: pd.DataFrame, schema):
    with files.whole_file(path, on_disk=True) as partial:
        table.to_parquet(partial, index=False, schema=schema, compression="zstd")


def figures(out: Path, shard: int) -> dict:
    """Read what a shard's recordings say: recordings, unreadable, seconds of sound, events, bytes of its two files."""
    path = out / RECORDINGS / part(shard)
    table = pd.read_parquet(path, columns=["seconds", "events", "unreadable"])
    return {
        "shard": shard, "recordings": len(table), "unreadable": int((table.unreadable != "").sum()),
        "seconds": float(table.seconds.sum()), "events": int(table.events.sum()),
        "bytes": path.stat().st_size + (out / EVENTS / part(shard)).stat().st_size,
    }  # fmt: skip

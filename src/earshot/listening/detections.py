"""Recordings -> a table of events, some recordings at a time, so that a folder of any size fits the memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.ensemble.choice import read_post
from earshot.events import PostProcess
from earshot.listening.confidence import Calibration, FromOof, from_oof
from earshot.listening.members import BACKENDS, Ears
from earshot.listening.recordings import length_of
from earshot.messages import check_choice, check_numbers
from earshot.prediction.detection import detect_all
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Clip, Predictions, weighted_mean
from earshot.sound import audio
from earshot.sound.wall_clock import start_of

COLUMNS = ("filename", "onset", "offset", "event_label", "confidence", "max_output", "mean_output", "begins", "path")
AT_A_TIME = 32  # recordings in memory together: a minute of 200 classes every 10 ms is 5 MB


@dataclass(frozen=True)
class Asked:
    """What is kept of the events: post-processing, calibration, the surest `top` of a recording (0: all)."""

    post: PostProcess
    calibration: Calibration | None = None
    top: int = 0
    least_confidence: float = 0.0


@dataclass(frozen=True)
class Heard:
    """Events of some recordings; by path their lengths in seconds, the reasons of those that could not be read, and
    what was odd about those that were."""

    events: pd.DataFrame
    seconds: dict[str, float]
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def hear(
    ears: Ears, clips: Sequence[Clip], asked: Asked, streams: int = 1, progress: Callable[[int], object] | None = None
) -> Heard:
    """Hear recordings and give their events, at most AT_A_TIME of them in memory; see `with_frames` for the ears.

    progress: told how many more recordings were heard, such as the `update` of a bar.
    """
    parts = []
    for first in range(0, len(clips), AT_A_TIME):
        some = clips[first : first + AT_A_TIME]
        members, failed = predict_members(ears.members, some, ears.tta, streams=streams)
        parts.append(events_of(weighted_mean(members), some, asked, dict(failed)))
        if progress:
            progress(len(some))
    return joined(parts)


def joined(parts: Sequence[Heard]) -> Heard:
    """Join what was heard of some recordings. Later parts overrule earlier ones: heard at last is not unreadable."""
    seconds = {path: s for one in parts for path, s in one.seconds.items()}
    reasons = {path: reason for one in parts for path, reason in one.unreadable.items() if path not in seconds}
    notes = {path: told for one in parts for path, told in one.notes.items()}
    tables = [one.events for one in parts if len(one.events)]
    events = pd.concat(tables, ignore_index=True) if tables else parts[0].events.iloc[:0]
    return Heard(events, seconds, reasons, notes)


def events_of(found: Predictions, clips: Sequence[Clip], asked: Asked, failed: dict[str, str]) -> Heard:
    """Predictions of some recordings -> their events in COLUMNS, cut at each recording's end."""
    paths = {str(clip.clip_id): str(clip.path) for clip in clips}
    seconds = {paths[c]: length_of(paths[c]) for c in paths if c not in failed}
    table = detect_all(found, asked.post)
    ends = table.filename.map(lambda name: seconds.get(paths[name], np.inf))
    table = table.assign(offset=np.minimum(table.offset, ends))[(table.onset < ends).to_numpy(bool)]
    table = table.rename(columns={"max_confidence": "max_output", "mean_confidence": "mean_output"})
    place = {c: k for k, c in enumerate(found.classes)}
    classes = table.event_label.map(place).to_numpy(int) if len(table) else np.zeros(0, int)
    sure = table.max_output.to_numpy(float)
    table["confidence"] = sure if asked.calibration is None else asked.calibration(sure, classes)
    table = table[table.confidence >= asked.least_confidence]
    if asked.top:
        best = table.sort_values("confidence", ascending=False, kind="stable").groupby("filename").head(asked.top)
        table = table.loc[best.index.sort_values()]
    table["path"] = table.filename.map(paths)
    table["begins"] = [_begins(path, onset) for path, onset in zip(table.path, table.onset, strict=True)]
    table = table.reindex(columns=list(COLUMNS)).reset_index(drop=True)
    notes = {path: told for path in seconds if (told := audio.notes_of(path))}
    return Heard(table, seconds, {paths[c]: reason for c, reason in failed.items()}, notes)


def summary_of(events: pd.DataFrame) -> pd.DataFrame:
    """Events -> a row a class, folder, day and hour: events, seconds, recordings, highest confidence.

    The folder, mostly a site or a recorder, is that of the recordings below the one that was heard, empty right in it.
    Day and hour are empty where file names do not say when recordings began.
    """
    begins = events.begins.fillna("").astype(str)
    table = events.assign(
        folder=[str(name).rpartition("/")[0] for name in events.filename],
        day=begins.str.slice(0, 10),
        hour=begins.str.slice(11, 13),
        seconds=events.offset - events.onset,
    )
    summary = table.groupby(["event_label", "folder", "day", "hour"], sort=True).agg(
        events=("onset", "size"), seconds=("seconds", "sum"), recordings=("path", "nunique"),
        highest_confidence=("confidence", "max"),
    )  # fmt: skip
    return summary.reset_index().round({"seconds": 3, "highest_confidence": 4})


def best_examples(events: pd.DataFrame, count: int) -> pd.DataFrame:
    """The surest events of each class, at most `count`; two of a recording only where others have none left."""
    ordered = events.sort_values("confidence", ascending=False, kind="stable")
    turn = ordered.groupby(["event_label", "path"]).cumcount()
    return (
        ordered.assign(turn=turn).sort_values(["event_label", "turn"], kind="stable").groupby("event_label").head(count)
    )


def _begins(path: str, onset: float) -> str:
    """When an event began by the clock of its recorder, '' where the file's name does not say."""
    start = start_of(path)
    return "" if start is None else (start + timedelta(seconds=float(onset))).isoformat(timespec="milliseconds")


def add_options(parser: argparse.ArgumentParser):
    """What every script takes that finds events in recordings with a `--run`; `asked_of` reads it."""
    add = parser.add_argument
    add("--level", choices=("frames", "windows"), default="frames",
        help="windows: events are whole windows; always so where a network has no framewise output")  # fmt: skip
    add("--post", type=Path, help="post-processing (YAML or JSON) in place of what the OOF chooses")
    add("--threshold", type=float, help="one threshold of the output, in place of the OOF's")
    add("--min-seconds", type=float, help="shorter events are dropped")
    add("--min-confidence", type=float, default=0.0, help="less sure events are dropped")
    add("--top", type=int, default=0, help="only so many of each recording, the surest")
    add("--backend", default="torch", help=f"{', '.join(BACKENDS)}; graphs are made by src/export.py")
    add("--int8", action="store_true", help="the int8 graphs")


def check_options(options: argparse.Namespace):
    """Raise where what `add_options` added cannot be meant."""
    check_choice("--backend", options.backend, BACKENDS)
    check_numbers(options, "threshold", "min_confidence", high=1)
    check_numbers(options, "top", "min_seconds")


def asked_of(options: argparse.Namespace) -> tuple[Asked, FromOof]:
    """What a command line asks for, which the run's OOF answers where it says nothing."""
    found = from_oof(options.run, read_post(options.post) if options.post else None, options.threshold)
    post = only(found.post, options.threshold, options.min_seconds)
    return Asked(post, found.calibration, options.top, options.min_confidence), found


def only(post: PostProcess, threshold: float | None, min_seconds: float | None) -> PostProcess:
    """Post-processing with what the command line says in place of what the OOF chose."""
    if threshold is not None:
        post = replace(post, threshold=threshold, class_thresholds={}, threshold_low=None)
    return post if min_seconds is None else replace(post, min_seconds=min_seconds)

"""Tables of events -> files that Raven, Audacity and programs of your own open."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from earshot import files

KINDS = ("csv", "json", "parquet", "raven", "audacity")
LONGEST_NAME = 200  # bytes of a file's name; file systems take 255


def write_events(events: pd.DataFrame, folder: Path, kinds: Iterable[str], recordings: Iterable[str], rate=None):
    """Write a table of events (detections.COLUMNS) to `folder` in each of KINDS.

    csv, json and parquet are one file; raven and audacity one a recording, also of those without an event, which shows
    that they were heard. rate: path -> Hz, of which Raven's boxes take half as their upper edge.
    """
    recordings = list(recordings)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        if kind == "csv":
            with files.whole_file(folder / "events.csv") as partial:
                events.to_csv(partial, index=False, lineterminator="\n", float_format="%.6g")
        elif kind == "json":
            files.write_text(folder / "events.json", files.as_json(events.to_dict("records"), indent=1) + "\n")
        elif kind == "parquet":
            with files.whole_file(folder / "events.parquet") as partial:
                events.to_parquet(partial, index=False)
        else:
            _write_a_file_each(events, folder / kind, kind, recordings, rate)


def _write_a_file_each(events: pd.DataFrame, folder: Path, kind: str, recordings: list[str], rate):
    folder.mkdir(parents=True, exist_ok=True)
    by_path = dict(list(events.groupby("path", sort=False)))
    nothing, names = events.iloc[:0], file_names(recordings)
    for path in recordings:
        own = by_path.get(path, nothing)
        if kind == "raven":
            text, ending = raven_table(own, Path(path).name, rate(path) / 2 if rate else 0), ".Table.1.selections.txt"
        else:
            text, ending = audacity_track(own), ".txt"
        files.write_text(folder / f"{names[path]}{ending}", text)


def raven_table(events: pd.DataFrame, name: str, top_hz: float) -> str:
    """One recording's events -> a Raven selection table, tab-separated; `name` is its Begin File."""
    columns = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
               "Begin File", "Species", "Confidence")  # fmt: skip
    lines = ["\t".join(columns)]
    for i, event in enumerate(events.itertuples(), start=1):
        row = (i, "Spectrogram 1", 1, f"{event.onset:.6f}", f"{event.offset:.6f}", "0.0", f"{top_hz:.1f}",
               one_line(name), one_line(event.event_label), f"{event.confidence:.4f}")  # fmt: skip
        lines.append("\t".join(map(str, row)))
    return "\n".join(lines) + "\n"


def audacity_track(events: pd.DataFrame) -> str:
    """One recording's events -> an Audacity label track: start, end, label."""
    return "".join(f"{e.onset:.6f}\t{e.offset:.6f}\t{one_line(e.event_label)}\n" for e in events.itertuples())


def file_names(recordings: Iterable[str]) -> dict[str, str]:
    """Paths of recordings -> a file name each without ending: the recording's own.

    Those that share one, as recorders name theirs by the time, have what differs of their folders in front.
    """
    recordings, wanted = list(recordings), {}
    sharing: dict[str, list[str]] = {}  # folders of each name
    for path in recordings:
        sharing.setdefault(Path(path).stem.casefold(), []).append(os.path.dirname(os.path.abspath(path)))
    common = {stem: os.path.commonpath(folders) for stem, folders in sharing.items()}
    for path in recordings:
        name = _plain(Path(path).stem) or "recording"
        part = os.path.relpath(os.path.dirname(os.path.abspath(path)), common[Path(path).stem.casefold()])
        wanted[path] = name if part == "." else f"{_plain(part)}_{name}"
    return _kept_apart(wanted)


def folder_names(classes: Iterable[str]) -> dict[str, str]:
    """Names of classes -> a folder's name each: the whole name, `Anas_sp./hybrid` as `Anas_sp._hybrid`."""
    return _kept_apart({name: _plain(name).strip(" .") or "class" for name in classes})


def _kept_apart(wanted: dict[str, str]) -> dict[str, str]:
    """Wanted names, shortened where they are too long; of two that would be one, the later gets a digest behind."""
    taken, found = {}, {}
    for key, name in wanted.items():
        while len(name.encode()) > LONGEST_NAME:
            name = name[:-1]
        if taken.setdefault(name.casefold(), key) != key:
            name = f"{name}_{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
            taken[name.casefold()] = key
        found[key] = name
    return found


def _plain(text: str) -> str:
    """A text without what no file name may hold."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", text)


def one_line(text: str) -> str:
    """A text that a cell of a tab-separated file can hold."""
    return " ".join(str(text).split())

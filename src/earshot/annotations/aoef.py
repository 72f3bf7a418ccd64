"""AOEF, the JSON of whombat and soundevent: recordings, clips of them, sound events with tags -> a table of texts.

A tag has a key, such as species, and a value: each key is a column, so that labels are found as in other tables. Tags
of a whole recording, or of a clip that is as long, are rows without times; a clip that was annotated without an event
is a row without a label too.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

import pandas as pd

from earshot.messages import few
from earshot.stored import read_json

MARK = '"collection_type"'  # in the beginning of a file
ANSWERS = ("prediction_set", "model_run", "evaluation")  # collections of what a network said
DONE = ("completed", "verified")  # states of a task whose clip was annotated
SAME_LENGTH = 0.05  # seconds by which a clip of a whole recording may differ

logger = logging.getLogger("earshot")


def read_aoef(path: Path) -> pd.DataFrame:
    """The annotations of a file: `filename, onset, offset` and a column a key of its tags, all texts."""
    data = read_json(path, "AOEF", kind=dict).get("data")
    kind = data.get("collection_type") if isinstance(data, dict) else None
    if kind is None or kind in ANSWERS:
        raise ValueError(f"{path} is no AOEF file of annotations, but of {kind or 'something else'}")
    try:
        rows = _rows(data, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no whole AOEF file: {type(error).__name__} {error}") from error
    table = pd.DataFrame(rows, dtype=object)
    table = table.where(table.notna(), "").astype(str)
    keys = [c for c in table.columns if c not in ("filename", "onset", "offset")]
    return table.rename(columns={keys[0]: "label"}) if len(keys) == 1 else table


def _rows(data: dict, path: Path) -> list[dict]:
    recordings = {r["uuid"]: r for r in data.get("recordings") or ()}
    if slow := [r["path"] for r in recordings.values() if (r.get("time_expansion") or 1) != 1]:
        raise ValueError(f"time_expansion of {few(slow)} is not 1, so that times are not those in the file")
    tags = {t["id"]: (t["key"], t["value"]) for t in data.get("tags") or ()}
    clips = {c["uuid"]: c for c in data.get("clips") or ()}
    events = {e["uuid"]: e for e in data.get("sound_events") or ()}
    notes = {n["uuid"]: n for n in data.get("sound_event_annotations") or ()}
    states = {t["clip"]: {b["state"] for b in t.get("status_badges") or ()} for t in data.get("annotation_tasks") or ()}

    def row(recording: dict, times: tuple, numbers) -> dict:
        said: dict[str, list[str]] = defaultdict(list)
        for number in numbers or ():
            said[tags[number][0]].append(str(tags[number][1]))
        onset, offset = times
        own = {"filename": str(recording["path"]), "onset": onset, "offset": offset}
        return {**own, **{key: ";".join(values) for key, values in said.items()}}

    if "clip_annotations" not in data:  # a list of recordings, with what each holds
        return [row(r, ("", ""), r.get("tags")) for r in recordings.values()]
    rows, part = [], set()
    for annotated in data["clip_annotations"] or ():
        clip = clips[annotated["clip"]]
        recording = recordings[clip["recording"]]
        whole = clip["start_time"] <= SAME_LENGTH and clip["end_time"] >= recording["duration"] - SAME_LENGTH
        heard = [notes[uuid] for uuid in annotated.get("sound_events") or ()]
        done = not states or bool(states.get(clip["uuid"], set()) & set(DONE))
        part |= set() if whole else {recording["path"]}
        if annotated.get("tags"):
            times = ("", "") if whole else (clip["start_time"], clip["end_time"])
            rows.append(row(recording, times, annotated["tags"]))
        elif not heard and done:
            rows.append(row(recording, ("", ""), ()))
        rows += [row(recording, _times(events[n["sound_event"]]), n.get("tags")) for n in heard]
    if part:
        logger.warning("%s: of %d recordings only clips were annotated, and what lies outside counts as without a "
                       "sound (cut the recordings to the clips where that is wrong): %s", path, len(part),
                       few(sorted(part)))  # fmt: skip
    return rows


def _times(event: dict) -> tuple[float, float]:
    """When a sound event begins and ends, by its shape: a stamp, an interval, a box, points, lines, polygons."""
    shape = event["geometry"]
    kind, at = shape["type"], shape["coordinates"]
    if kind == "TimeStamp":
        return float(at), float(at)
    if kind in ("TimeInterval", "BoundingBox"):
        return float(at[0]), float(at[len(at) // 2])
    times = list(_first_numbers(at))
    return min(times), max(times)


def _first_numbers(at):
    """The times of points (time, frequency), however deep they lie in lists."""
    if not isinstance(at[0], list):
        yield float(at[0])
        return
    for inner in at:
        yield from _first_numbers(inner)

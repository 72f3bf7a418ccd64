"""Which held-out recordings a run draws, predicted above true events, and what is known of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from earshot.data.prepared import PreparedData
from earshot.events import events_to_frames
from earshot.pictures.sounds import EventMap, event_maps
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth

NAMES = ("best", "middle", "worst")
FLOOR = 1e-6


def draw_event_maps(found: Predictions, truth: Truth, data: PreparedData, path: Path):
    """Draw the best, a middle and the worst held-out recording, where the predictions have outputs over time.

    data: has the clips of the predictions, whose paths are asked of it. Recordings annotated in time come first: of
    them the overlap of activity is ranked, (sum of minima) / (sum of maxima); of others the clip's mean log loss.
    """
    if found.framewise_output is None or found.timebase is None:
        return
    readable = np.flatnonzero(~found.unreadable)
    if not len(readable):
        return
    step = found.timebase.frame_seconds
    in_time = truth.take(readable).in_time(found.take(readable))
    if in_time is not None:
        known, events = in_time
        own = set(events.filename) & set(known.clip_ids.tolist())
        places = [i for i in readable if str(found.clip_ids[i]) in own]
        true = {i: _activity(found, i, events) for i in places}
        values = np.array([overlap(found.framewise_output[i], true[i]) for i in places])
        what = "overlap"
    else:
        places, true = list(readable), {}
        p = np.clip(found.clipwise_output[readable].astype(np.float64), FLOOR, 1 - FLOOR)
        y = truth.target[readable] > 0.5
        values, what = np.where(y, np.log(p), np.log(1 - p)).mean(axis=1), "log loss"
    order = np.argsort(-values, kind="stable")
    chosen = list(dict.fromkeys([int(order[0]), int(order[len(order) // 2]), int(order[-1])]))
    paths = dict(zip(data.clips.clip_id, data.clips.path, strict=True))
    maps = []
    for name, k in zip(NAMES if len(chosen) == 3 else [""] * 3, chosen):
        i = places[k]
        clip_id = str(found.clip_ids[i])
        rank = f" ({name} of {len(places)} by {what}, {abs(values[k]):.2f})" if name else ""
        labels = [found.classes[n] for n in np.flatnonzero(truth.target[i] > 0.5)]
        maps.append(EventMap(
            title=f"{clip_id}{rank}", sound=data.source / paths[clip_id], frames=found.framewise_output[i], step=step,
            true=true.get(i), labels=labels, classes=found.classes,
        ))  # fmt: skip
    event_maps(maps, path)


def overlap(frames: np.ndarray, true: np.ndarray) -> float:
    """How well (S, K) outputs cover (S, K) true activity: 1 where they are equal, 0 where nothing is shared."""
    return float(np.minimum(frames, true).sum() / max(float(np.maximum(frames, true).sum()), FLOOR))


def _activity(found: Predictions, i: int, events) -> np.ndarray:
    own = events[events.filename == str(found.clip_ids[i])]
    frames = found.framewise_output[i]
    return events_to_frames(own, found.classes, found.timebase, len(frames))

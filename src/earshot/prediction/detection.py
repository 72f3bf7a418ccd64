"""What predictions of many clips say at a threshold: their events, and which classes are there at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from earshot import events
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions

TOGETHER = 8_000_000  # framewise outputs detected at a time: 32 MB


def peak_output(found: Predictions) -> np.ndarray:
    """Highest framewise output of each clip and class, (N, K); the clip output where there are no frames.

    A class has an event at a threshold exactly when its peak reaches it (without median filter or minimum length).
    """
    if found.framewise_output is None:
        return found.clipwise_output
    return np.stack([frames.max(axis=0) for frames in found.framewise_output])


def at_quantile(post: PostProcess, values: np.ndarray, classes) -> PostProcess:
    """Post-processing with the thresholds that `threshold_quantile` asks for, of the rows' highest outputs (N, K).

    Each class's is the quantile of its own values that lets in that share of them; without one nothing changes.
    """
    if post.threshold_quantile is None or not len(values):
        return replace(post, threshold_quantile=None)
    thresholds = np.quantile(values, 1 - post.threshold_quantile, axis=0).clip(0, 1)
    many = {str(c): float(t) for c, t in zip(classes, thresholds, strict=True)}
    return replace(post, threshold_quantile=None, threshold_low=None, class_thresholds=many)


def detect_all(found: Predictions, post: PostProcess) -> pd.DataFrame:
    """Events of every readable clip, one table: clip after clip what `events.detect` finds.

    Many clips go through the chain together, one after the other on one long grid with silence between them, because a
    search of post-processing detects the same clips hundreds of times.
    """
    if found.framewise_output is None:
        raise ValueError("events need framewise outputs, and these predictions have none: predict.keep_frames=true")
    kept = np.flatnonzero(~np.asarray(found.unreadable, bool))
    for i in kept:
        if not np.isfinite(found.framewise_output[i]).all():
            raise ValueError(f"framewise outputs of '{found.clip_ids[i]}' are not finite numbers")
    sizes = np.cumsum([found.framewise_output[i].size for i in kept]) // TOGETHER
    blocks = [kept[sizes == block] for block in np.unique(sizes)] or [kept]
    table = pd.concat([_detect_together(found, block, post) for block in blocks], ignore_index=True)
    if post.iou_threshold is None:
        return table
    return events.suppress_overlaps(table, post.iou_threshold, post.per_class).reset_index(drop=True)


def _detect_together(found: Predictions, kept: np.ndarray, post: PostProcess) -> pd.DataFrame:
    """Events of the clips at `kept`, overlaps and all."""
    clips = [found.framewise_output[i] for i in kept]
    pause = 1 + int(found.timebase.frame(post.max_gap_seconds))  # longer than any gap that is closed
    starts = np.cumsum([0] + [len(frames) + pause for frames in clips])
    grid = np.zeros((starts[-1], len(found.classes)), np.float32)
    inside = np.zeros((len(grid), 1), bool)
    for first, frames in zip(starts, clips, strict=False):
        grid[first : first + len(frames)] = events.smoothed(frames, found.timebase, post)
        inside[first : first + len(frames)] = True
    clipwise = None
    if post.clip_threshold is not None:
        clipwise = np.repeat(found.clipwise_output[kept], np.diff(starts), axis=0)
    active = events.active_frames(grid, found.timebase, found.classes, post, clipwise, inside)
    class_index, start, stop = events.runs(active)
    clip = np.searchsorted(starts, start, side="right") - 1
    table = pd.DataFrame({
        "filename": found.clip_ids[kept].astype(str).astype(object)[clip],
        "onset": found.timebase.seconds(start - starts[clip]), "offset": found.timebase.seconds(stop - starts[clip]),
        "event_label": np.asarray(found.classes, dtype=object)[class_index], "place": start,
    })  # fmt: skip
    table["max_confidence"], table["mean_confidence"] = events.confidence(grid, class_index, start, stop)
    return table.sort_values(["place", "event_label"], kind="stable", ignore_index=True).drop(columns="place")


def classes_present(found: Predictions, post: PostProcess) -> np.ndarray:
    """Say which classes have an event in each clip, (N, K) booleans, each clip being one row of an answer.

    Overlap suppression is left out: which of two sounds at one time is the true one, labels of clips do not say. Where
    clips have no frames only thresholds apply, to the clip outputs.
    """
    post = at_quantile(post, peak_output(found), found.classes)
    in_frames = post.median_filter_seconds or post.min_seconds
    if found.framewise_output is None or not in_frames:
        present = events.active(peak_output(found), events.class_thresholds(post, found.classes))
        if post.clip_threshold is not None:
            present = present & events.active(found.clipwise_output, post.clip_threshold)
        return present
    table = detect_all(replace(found, unreadable=np.zeros(len(found), bool)), replace(post, iou_threshold=None))
    present = np.zeros(found.clipwise_output.shape, bool)
    place = {str(c): i for i, c in enumerate(found.clip_ids)}
    columns = {c: k for k, c in enumerate(found.classes)}
    present[[place[f] for f in table.filename], [columns[c] for c in table.event_label]] = True
    return present

"""Framewise probabilities -> events in seconds, step by step, and back.

Arrays are (T, K): T framewise outputs (frames or segments of a `TimeBase`), K classes. Runs are half-open: an event's
offset is the END of its last frame, so that events and frames are each other's inverse. All work is done on the model's
own segments before any repetition to 10-ms frames, on all classes at once. Thresholds are compared in float32, the type
of the probabilities: 0.3 >= threshold 0.3 holds.

The birdcall source differs (its offset is the START of the last frame, its confidences leave that frame out, its runs
are cut every 30 s): `strict_events` gives its rows exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import median_filter as rank_filter

from earshot.messages import check_choice, plural, suggest
from earshot.records import build_from
from earshot.sound.timebase import TimeBase
from earshot.sound.two_levels import centred
from earshot.stored import read_yaml

EVENT_COLUMNS = ("filename", "onset", "offset", "event_label", "max_confidence", "mean_confidence")
ROW_POOLS = ("max", "mean")
COARSE_FROM = ("own", "fine")
ROW_RANGES = {
    "row_power": (0.1, 10), "row_floor": (0, 0.99), "row_smooth": (0, 0.5), "row_peak": (0, 4), "row_site": (0, 4),
    "row_hour": (0, 4),
}  # fmt: skip
PAIR_BLOCK = 1_000_000  # candidate pairs looked at together in overlap suppression: 50 MB


@dataclass(frozen=True, kw_only=True)
class PostProcess:
    """How probabilities become events: configs/post/*.yaml. Durations in seconds; 0 or null leaves a step out."""

    threshold: float = 0.5
    threshold_low: float | None = None  # hysteresis: an event goes on while its class stays above this
    class_thresholds: Mapping[str, float] = field(default_factory=dict)  # label -> threshold in place of `threshold`
    threshold_quantile: float | None = None  # in place of those above: each class's lets in this share of all rows
    clip_threshold: float | None = None  # a class has events only where the clip's own output reaches this
    median_filter_seconds: float = 0.0  # rounded to an odd number of frames
    centred: float | None = None  # what becomes 0.5: a share of the way from a recording's low to its high log odds
    max_gap_seconds: float = 0.0  # gaps of a class up to this long are closed
    min_seconds: float = 0.0  # events shorter than this are dropped
    iou_threshold: float | None = 0.4  # of two events that overlap more than this the less confident goes
    per_class: bool = False  # suppression only among events of one class
    row_pool: str = "max"  # the frames of a row -> its probability, where rows hold probabilities: max | mean
    row_rank: bool = False  # rows of probabilities (competitions/row_steps.py): each value its place in the class
    row_power: float = 1.0  # values to this power
    row_floor: float = 0.0  # values below this quantile of their class become 0
    row_smooth: float = 0.0  # weight of each neighbour
    row_peak: float = 0.0  # times the recording's highest row to this power
    row_site: float = 0.0  # weight of site_odds, log odds {site: {class: of it}}
    row_hour: float = 0.0  # weight of hour_odds, log odds {hour of the day: {class: of it}}
    site_odds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hour_odds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    coarse_from: str = "own"  # of coarse and fine classes, a coarse one's probability: own, or at least its fine ones'
    strict: bool = False  # the birdcall source's rules to the letter; only threshold and iou_threshold apply

    def __post_init__(self):
        thresholds = {f"class_thresholds.{k}": v for k, v in self.class_thresholds.items()}
        for name in ("threshold", "threshold_low", "threshold_quantile", "clip_threshold", "iou_threshold", "centred"):
            thresholds[name] = getattr(self, name)
        for name, value in thresholds.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in 0 ... 1, got {value}")
        for name in ("median_filter_seconds", "max_gap_seconds", "min_seconds"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be 0 or more seconds, got {getattr(self, name)}")
        if self.row_pool not in ROW_POOLS:
            raise ValueError(f"row_pool is '{self.row_pool}'{suggest(self.row_pool, ROW_POOLS)}")
        check_choice("coarse_from", self.coarse_from, COARSE_FROM)
        for name, (low, high) in ROW_RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in {low:g} ... {high:g}, got {getattr(self, name)}")
        high = min([self.threshold, *self.class_thresholds.values()])
        if self.threshold_low is not None and self.threshold_low > high:
            raise ValueError(f"threshold_low ({self.threshold_low}) is above the threshold ({high}); swap them")
        free = {"threshold", "iou_threshold", "strict", "row_pool", "coarse_from"}
        changed = [f.name for f in fields(self) if f.name not in free and getattr(self, f.name) not in (f.default, {})]
        if self.strict and changed:
            raise ValueError(
                f"strict post-processing knows no {', '.join(changed)}: leave them out or set strict: false"
            )


def load_post(path: str | Path) -> PostProcess:
    """YAML file of PostProcess fields -> checked PostProcess; an unknown key is an error with a suggestion."""
    return build_post(read_yaml(path, "post-processing"), path)


def build_post(values: Mapping, where: str | Path = "the post-processing options") -> PostProcess:
    """Mapping of PostProcess fields, as YAML gives it -> checked PostProcess; `where` is named in errors."""
    return build_from(PostProcess, values, where)


def median_filter(prob: np.ndarray, n_frames: int) -> np.ndarray:
    """Smooth each class, (T, K), by the median over `n_frames` (odd) around each frame, the first and last frame
    repeated outwards."""
    if n_frames < 1 or n_frames % 2 == 0:
        raise ValueError(f"a median filter needs an odd number of frames, got {n_frames}")
    return prob if n_frames == 1 else rank_filter(prob, size=(n_frames, 1), mode="nearest")


def active(prob: np.ndarray, threshold) -> np.ndarray:
    """Say in which frames each class reaches its threshold.

    (T, K) probabilities, one threshold or (K,) -> (T, K) booleans: prob >= threshold in float32.
    """
    return np.asarray(prob, dtype=np.float32) >= np.asarray(threshold, dtype=np.float32)


def hysteresis(prob: np.ndarray, high, low) -> np.ndarray:
    """Find the runs of prob >= low that reach `high` somewhere, (T, K) booleans. Thresholds: one, or (K,) a class."""
    if np.any(np.asarray(low) > np.asarray(high)):
        raise ValueError(f"the low threshold ({low}) is above the high one ({high})")
    candidate, certain = active(prob, low).T, active(prob, high).T
    first = candidate.copy()  # a run starts where the class was inactive one frame before
    first[:, 1:] &= ~candidate[:, :-1]
    run = np.cumsum(first).reshape(candidate.shape)  # number of the run, on active frames
    reaches = np.zeros(1 + first.sum(), bool)
    reaches[run[certain]] = True
    return (candidate & reaches[run]).T


def runs(active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the unbroken stretches of active frames.

    (T, K) booleans -> class_index, start, stop (stop exclusive) of every run, by class, then time.
    """
    n_frames, n_classes = active.shape
    line = np.zeros((n_classes, n_frames + 1), bool)  # classes one after the other, a silent frame between them
    line[:, :-1] = np.asarray(active, dtype=bool).T
    line = line.ravel()
    edges = np.flatnonzero(line[1:] != line[:-1]) + 1
    if line[0]:
        edges = np.concatenate([[0], edges])
    class_index, start = np.divmod(edges[::2], n_frames + 1)
    return class_index, start, start + edges[1::2] - edges[::2]


def merge_gaps(active: np.ndarray, n_frames: int) -> np.ndarray:
    """Fill pauses of at most `n_frames` between two runs of a class, (T, K)."""
    class_index, start, stop = runs(active)
    same_class = class_index[1:] == class_index[:-1]
    close = same_class & (start[1:] - stop[:-1] <= n_frames)
    return active | _paint(active.shape, class_index[:-1][close], stop[:-1][close], start[1:][close])


def drop_short(active: np.ndarray, n_frames: int) -> np.ndarray:
    """Remove events that are too short.

    (T, K) -> (T, K): runs of fewer than `n_frames` frames are removed.
    """
    class_index, start, stop = runs(active)
    long = stop - start >= n_frames
    return _paint(active.shape, class_index[long], start[long], stop[long])


def _paint(shape, class_index: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Runs, overlapping or not -> (T, K) booleans."""
    steps = np.zeros((shape[0] + 1, shape[1]), np.int32)
    np.add.at(steps, (start, class_index), 1)
    np.add.at(steps, (stop, class_index), -1)
    return np.cumsum(steps[:-1], axis=0, dtype=np.int32) > 0


def confidence(prob: np.ndarray, class_index, start, stop) -> tuple[np.ndarray, np.ndarray]:
    """Maximum and mean (float64) of `prob` over each run; only the runs' own frames are read."""
    if len(start) == 0:
        return np.zeros(0), np.zeros(0)
    length = stop - start
    first = np.cumsum(length) - length
    frame = np.arange(length.sum()) + np.repeat(start - first, length)
    values = np.asarray(prob[frame, np.repeat(class_index, length)], dtype=np.float64)
    return np.maximum.reduceat(values, first), np.add.reduceat(values, first) / length


def frames_to_events(
    prob: np.ndarray, active: np.ndarray, timebase: TimeBase, classes, filename: str, offset_seconds: float = 0.0
) -> pd.DataFrame:
    """Turn active frames into a table of events.

    (T, K) probabilities and booleans -> table of EVENT_COLUMNS, one row a run, sorted by onset, then label.

    Times are seconds in the recording; `offset_seconds` is where frame 0 lies in it. Confidences are over the run.
    """
    if prob.shape != active.shape or prob.shape[1] != len(classes):
        raise ValueError(
            f"prob {prob.shape}, active {active.shape} and {plural(len(classes), 'classes do')} not fit together"
        )
    class_index, start, stop = runs(active)
    classes = np.asarray(classes, dtype=object)
    if len(start) > 1:
        place = np.argsort(np.argsort(classes, kind="stable"), kind="stable")  # of each class in order of names
        order = np.lexsort((place[class_index], start))
        class_index, start, stop = class_index[order], start[order], stop[order]
    return _table(
        filename, offset_seconds + timebase.seconds(start), offset_seconds + timebase.seconds(stop),
        classes[class_index], *confidence(prob, class_index, start, stop),
    )  # fmt: skip


def _table(filename: str, onset, offset, label, maximum, mean) -> pd.DataFrame:
    values = (np.full(len(onset), filename, dtype=object), onset, offset, label, maximum, mean)
    return pd.DataFrame(dict(zip(EVENT_COLUMNS, values, strict=True)))


def events_to_frames(events: pd.DataFrame, classes, timebase: TimeBase, n_frames: int) -> np.ndarray:
    """Events of one recording (onset, offset in seconds, event_label) -> (n_frames, K) booleans: the frames they touch.

    The inverse of `frames_to_events`; what lies outside 0 ... n_frames is cut off.
    """
    return _paint((n_frames, len(classes)), *touched_frames(events, classes, timebase, n_frames))


def touched_frames(
    events: pd.DataFrame, classes, timebase: TimeBase, n_frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Say which frames each event touches: its place in `classes`, the first frame, and the one behind the last."""
    place = {label: i for i, label in enumerate(classes)}
    for label in events["event_label"]:
        if label not in place:
            raise ValueError(f"event_label '{label}' is not in the class list{suggest(label, classes)}")
    class_index = np.array([place[label] for label in events["event_label"]], dtype=np.int64)
    start = timebase.frame(events["onset"].to_numpy(float))
    stop = _frames_up(events["offset"].to_numpy(float), timebase)
    if (stop < start).any():
        raise ValueError(f"{(stop < start).sum()} events end before they begin; onset and offset are in seconds")
    return class_index, np.clip(start, 0, n_frames), np.clip(stop, 0, n_frames)


def _frames_up(seconds, timebase: TimeBase) -> np.ndarray:
    """Seconds -> frames that reach at least so far, on the grid's own tolerance."""
    return -timebase.frame(-np.asarray(seconds, dtype=float))


def overlap_losers(onset, offset, confidence, iou_threshold: float = 0.4) -> np.ndarray:
    """Which of N events go (N,) bool: the source's sequential rule, in the order given.

    For i, for j over those still there: IoU = intersection / (latest offset - earliest onset); above `iou_threshold`,
    j goes if i is strictly more confident, else i goes. Exactly the threshold is no overlap; touching events are none.
    A pair j < i was settled when j had its turn, so each pair is looked at once: pairs are found by sorted onsets.
    """
    onset, offset = np.asarray(onset, dtype=np.float64), np.asarray(offset, dtype=np.float64)
    if iou_threshold < 0:
        raise ValueError(f"iou_threshold must be 0 or more, got {iou_threshold}")
    loses, confidence = [False] * len(onset), np.asarray(confidence).tolist()
    first, second = _overlapping_pairs(onset, offset, iou_threshold)
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        if not (loses[i] or loses[j]):
            loses[j if confidence[i] > confidence[j] else i] = True
    return np.array(loses, dtype=bool)


def _overlapping_pairs(onset, offset, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j of events with IoU above the threshold, sorted by i, then j."""
    order = np.argsort(onset, kind="stable")
    begin, end = onset[order], offset[order]
    # an event that begins after this leaves too little to share; the slack covers rounding, the IoU below decides
    reach = end - iou_threshold * (end - begin) + 1e-9 * (1 + np.abs(end))
    ahead = np.maximum(np.searchsorted(begin, reach) - np.arange(len(order)) - 1, 0)
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    cumulative, at = np.cumsum(ahead), 0
    while at < len(order):  # blocks of at most PAIR_BLOCK candidate pairs, one event at least
        done = cumulative[at - 1] if at else 0
        to = max(at + 1, int(np.searchsorted(cumulative, done + PAIR_BLOCK, side="right")))
        block = ahead[at:to]
        a = np.repeat(np.arange(at, to), block)
        b = a + 1 + np.arange(block.sum()) - np.repeat(np.cumsum(block) - block, block)
        shared = np.minimum(end[a], end[b]) - begin[b]
        span = np.maximum(end[a], end[b]) - begin[a]
        meets = (shared > 0) & (shared > iou_threshold * span * (1 - 1e-9))
        a, b, iou = a[meets], b[meets], shared[meets] / span[meets]
        a, b = order[a[iou > iou_threshold]], order[b[iou > iou_threshold]]
        found.append((np.minimum(a, b), np.maximum(a, b)))
        at = to
    first, second = (np.concatenate(part) for part in zip(*found, strict=True))
    return np.divmod(np.sort(first * len(order) + second), max(len(order), 1))


def suppress_overlaps(events: pd.DataFrame, iou_threshold: float = 0.4, per_class: bool = False) -> pd.DataFrame:
    """Events that survive: of two of one recording (any classes) with a larger IoU the less confident goes.

    The rule of `overlap_losers` on max_confidence, in the table's order: on a tie the first goes. `per_class` lets only
    events of one label compete. Kept rows keep their order and index.
    """
    keys = ["filename", "event_label"] if per_class else ["filename"]
    loses = np.zeros(len(events), bool)
    columns = [events[c].to_numpy() for c in ("onset", "offset", "max_confidence")]
    for rows in events.groupby(keys, sort=False).indices.values():
        loses[rows] = overlap_losers(*(c[rows] for c in columns), iou_threshold)
    return events[~loses]


def detect(
    prob: np.ndarray, timebase: TimeBase, classes, filename: str, post: PostProcess, clipwise_output=None
) -> pd.DataFrame:
    """Find the events of one recording in its framewise probabilities, (T, K): the whole chain of `post`.

    Smooth, threshold, close gaps, drop what is short, suppress overlaps. `clipwise_output` (K,) is needed where
    `post.clip_threshold` is set.
    """
    if post.strict:
        raise ValueError("strict rules need a recording's chunks: call strict_events, or set strict: false")
    if post.threshold_quantile is not None:
        raise ValueError("threshold_quantile needs the rows of all recordings, as BirdCLEF 2021 and 2022 have them")
    if not np.isfinite(prob).all():
        raise ValueError(f"{(~np.isfinite(prob)).sum()} framewise outputs of '{filename}' are not finite numbers")
    prob = smoothed(prob, timebase, post)
    found = active_frames(prob, timebase, classes, post, clipwise_output)
    events = frames_to_events(prob, found, timebase, classes, filename)
    if post.iou_threshold is None or len(events) < 2:
        return events
    return suppress_overlaps(events, post.iou_threshold, post.per_class).reset_index(drop=True)


def smoothed(prob: np.ndarray, timebase: TimeBase, post: PostProcess) -> np.ndarray:
    """Apply the median filter of `post` on this grid, (T, K), and the recording's own middle (`centred`)."""
    prob = median_filter(prob, 2 * int(timebase.frame(post.median_filter_seconds / 2)) + 1)
    return prob if post.centred is None else centred(prob, post.centred)


def active_frames(
    prob: np.ndarray, timebase: TimeBase, classes, post: PostProcess, clipwise_output=None, inside=True
) -> np.ndarray:
    """Decide for every frame whether each class is heard.

    (T, K) smoothed probabilities -> (T, K) booleans: thresholds, then gaps closed, then short runs dropped.

    `clipwise_output` (K,) or (T, K) is needed where `post.clip_threshold` is set. Frames that are not `inside`,
    (T, 1) booleans, are between recordings and never active.
    """
    high = class_thresholds(post, classes)
    found = active(prob, high) if post.threshold_low is None else hysteresis(
        np.where(inside, prob, -np.inf), high, post.threshold_low
    )  # fmt: skip
    found = found & inside
    if post.clip_threshold is not None:
        if clipwise_output is None:
            raise ValueError("clip_threshold needs the clipwise_output of the recording")
        found = found & active(clipwise_output, post.clip_threshold)
    if post.max_gap_seconds:
        found = merge_gaps(found, int(timebase.frame(post.max_gap_seconds)))
    if post.min_seconds:
        found = drop_short(found, int(_frames_up(post.min_seconds, timebase)))
    return found


def class_thresholds(post: PostProcess, classes) -> np.ndarray:
    """The upper threshold of every class, (K,)."""
    for label in post.class_thresholds:
        if label not in classes:
            raise ValueError(
                f"class_thresholds names '{label}', which is not in the class list{suggest(label, classes)}"
            )
    return np.array([post.class_thresholds.get(label, post.threshold) for label in classes])


def strict_events(
    chunk_probs: np.ndarray, audio_id: str, classes, threshold: float,
    frame_seconds: float = 0.01, chunk_seconds: float = 30,
) -> pd.DataFrame:  # fmt: skip
    """Find events in (C, T, K) probabilities of a recording's chunks as the birdcall source writes them, in its order.

    Chunk by chunk, class by class, by time. Runs end with their chunk; the offset is the time of the LAST frame; the
    confidences leave that frame out (a run of one frame, on which the source crashes, has its own value). Times are the
    source's float64 expression, frame_seconds * frame + chunk * chunk_seconds, because its IoU and its 5-s rows are
    computed from the unrounded values.
    """
    n_chunks, n_frames, n_classes = chunk_probs.shape
    side_by_side = active(chunk_probs, threshold).transpose(1, 0, 2).reshape(n_frames, n_chunks * n_classes)
    column, start, stop = runs(side_by_side)
    chunk, class_index = np.divmod(column, n_classes)
    chunk_start, frame = chunk * float(chunk_seconds), start + chunk * n_frames
    in_a_row = chunk_probs.reshape(n_chunks * n_frames, n_classes)
    sure = confidence(in_a_row, class_index, frame, frame + np.maximum(stop - start - 1, 1))
    label = np.asarray(classes, dtype=object)[class_index]
    onset, offset = frame_seconds * start + chunk_start, frame_seconds * (stop - 1) + chunk_start
    return _table(audio_id, onset, offset, label, *sure)

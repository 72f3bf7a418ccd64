"""Post-processing chosen on one split by event F1: the same grid for whatever gives events.

event_f1 is the overall F1 of events of their label, onset within 50 ms AND offset within 50 ms (no share of the event's
length), optimal matching.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from earshot.data.dataset import read_dataset
from earshot.events import PostProcess
from earshot.metrics.events import event_based_f1
from earshot.tables import read_table

COLLAR = {"onset_collar": 0.05, "offset_collar": 0.05, "percentage_of_length": 0.0}  # s, s, share


@dataclass(frozen=True)
class Split:
    """The recordings of train, val or test: names, files, lengths (s) and true events."""

    clip_ids: list[str]
    paths: list[Path]
    durations: dict[str, float]
    events: pd.DataFrame


def read_split(root: Path, which: str) -> Split:
    """`train`, `val` or `test` of a prepared data folder."""
    prefix = "test_" if which == "test" else ""
    clips = read_table(root / f"{prefix}clips.csv", ("clip_id", "path", "duration", "split"))
    clips = clips[clips.split == which]
    events = read_table(root / f"{prefix}events.csv", ("filename", "onset", "offset", "event_label"))
    source = Path(read_dataset(root)["source"])
    return Split(
        clips.clip_id.tolist(), [source / p for p in clips.path], dict(zip(clips.clip_id, clips.duration)),
        events[events.filename.isin(set(clips.clip_id))].reset_index(drop=True),
    )  # fmt: skip


def event_f1(found: pd.DataFrame, split: Split, classes) -> dict[str, float]:
    """F-measure, precision and recall over all events, at COLLAR."""
    result = event_based_f1(
        split.events, found, **COLLAR, classes=list(classes), empty_system_output_handling="zero_score"
    )
    return result["overall"]["f_measure"]


def best_of(candidates: Iterable, score: Callable[..., float]) -> tuple[float, object]:
    """(highest score, the first candidate that reaches it)."""
    best_score, best = -np.inf, None
    for candidate in candidates:
        value = score(candidate)
        if value > best_score:
            best_score, best = value, candidate
    return best_score, best


def tune_post(
    detect: Callable[[PostProcess], pd.DataFrame], split: Split, classes, iou_threshold: float | None = None
) -> tuple[float, PostProcess]:
    """(event F1 on `split`, post-processing) by a grid in two steps; `detect` gives a system's events of the split.

    First threshold, median filter and shortest event; around the best of these hysteresis, shortest event and gap.
    """

    def score(post: PostProcess) -> float:
        return event_f1(detect(post), split, classes)["f_measure"]

    coarse = itertools.product(range(2, 39), (0, 0.03, 0.05), (0, 0.03))
    _, first = best_of(
        (PostProcess(threshold=t / 40, median_filter_seconds=m, min_seconds=s, iou_threshold=iou_threshold)
         for t, m, s in coarse), score,
    )  # fmt: skip
    thresholds = [round(first.threshold + d, 4) for d in (0, -0.1, -0.05, 0.05, 0.1, 0.15)]
    ratios, shortest, gaps = (None, 0.5, 0.7, 0.85), (0, 0.02, 0.03, 0.04), (0, 0.01, 0.02)
    fine = itertools.product([t for t in thresholds if 0 < t < 1], ratios, shortest, gaps)
    return best_of(
        (replace(first, threshold=t, threshold_low=None if r is None else r * t, min_seconds=s, max_gap_seconds=g)
         for t, r, s, g in fine), score,
    )  # fmt: skip


def post_text(post: PostProcess) -> str:
    """What was chosen, for a table."""
    parts = [f"threshold {post.threshold:.3g}"]
    parts += [] if post.threshold_low is None else [f"low {post.threshold_low:.3g}"]
    for name in ("median_filter_seconds", "min_seconds", "max_gap_seconds"):
        if value := getattr(post, name):
            parts.append(f"{name.removesuffix('_seconds').replace('_', ' ')} {1000 * value:.0f} ms")
    return ", ".join(parts)

"""Post-processing chosen on one split by event F1: the product's own search for whatever gives events.

event_f1 is the overall F1 of events of their label, onset within 50 ms AND offset within 50 ms (no share of the event's
length), optimal matching.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from earshot.competitions.competition import OofScore
from earshot.competitions.oof_scores import EVENTS
from earshot.data.dataset import read_dataset
from earshot.ensemble.post_processing import choose_post
from earshot.events import PostProcess
from earshot.metrics.events import event_based_f1
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
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
    found: Predictions, split: Split, classes, named: Callable[[pd.DataFrame], pd.DataFrame] = lambda events: events
) -> tuple[float, PostProcess]:
    """(event F1 on `split`, post-processing), chosen as `submit.py --tune-on` chooses it, by the F1 of COLLAR.

    named: gives detected events their labels, where the predictions are of one class and a detector names them later.
    """

    def of(some: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
        own = replace(split, events=split.events[split.events.filename.isin(set(some.clip_ids.tolist()))])
        labels = classes if len(some.classes) > 1 or len(found.classes) == 1 else some.classes
        own = replace(own, events=own.events[own.events.event_label.isin(list(labels))])
        return (
            {"event_f1": event_f1(named(detect_all(some, post)), own, labels)["f_measure"]} if len(own.events) else {}
        )

    there = set(zip(split.events.filename, split.events.event_label, strict=True))
    target = np.array([[(clip, label) in there for label in found.classes] for clip in found.clip_ids])
    choice = choose_post(found, Truth(target, split.events), OofScore("event_f1", of), EVENTS)
    return choice.fitted, choice.post


def post_text(post: PostProcess) -> str:
    """What was chosen, for a table."""
    parts = [f"threshold {post.threshold:.3g}"]
    parts += [] if post.threshold_low is None else [f"low {post.threshold_low:.3g}"]
    for name in ("median_filter_seconds", "min_seconds", "max_gap_seconds"):
        if value := getattr(post, name):
            parts.append(f"{name.removesuffix('_seconds').replace('_', ' ')} {1000 * value:.0f} ms")
    return ", ".join(parts)

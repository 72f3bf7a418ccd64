"""Scores in time of clips that were drawn, repeats among them: what each clip adds is counted once, not at every draw.

Each function gives (M,) indices of clips -> the score of the clips drawn, NaN where they do not define it; None where
there is nothing to score in time. What is drawn twice counts as two clips.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from earshot.events import PostProcess
from earshot.metrics.events import event_counts
from earshot.metrics.ranking import falling_order
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tasks import frame_truth

Drawn = Callable[[np.ndarray], float]
MOST_VALUES = 30_000_000  # frames times classes of which frame_map is resampled: half a minute


def event_f1(found: Predictions, truth: Truth, post: PostProcess, by_class: bool = False) -> Drawn | None:
    """Event-based F1 of what `post` detects, onsets and offsets within 0.2 s, a class that nobody found counting 0.

    by_class: the mean over classes that the clips drawn have events of, in place of all events together.
    """
    known = truth.in_time(found)
    if known is None:
        return None
    annotated, true = known
    said = detect_all(annotated, post)
    classes = sorted({*map(str, found.classes), *true.event_label, *said.event_label})
    counts = event_counts(true, said, found.clip_ids, classes).astype(float)

    def drawn(index: np.ndarray) -> float:
        hits, actual, predicted = np.bincount(index, minlength=len(found)) @ counts
        if not by_class:
            hits, actual, predicted = (part.sum(keepdims=True) for part in (hits, actual, predicted))
        there = actual > 0
        return float(np.mean(2 * hits[there] / (actual + predicted)[there])) if there.any() else np.nan

    return drawn


def frame_map(found: Predictions, truth: Truth) -> Drawn | None:
    """Mean over classes of the average precision of frames; None of more than MOST_VALUES frames times classes too."""
    known = truth.in_time(found)
    if known is None:
        return None
    annotated, true = known
    if sum(block.size for block in annotated.framewise_output) > MOST_VALUES:
        return None
    active, scores = frame_truth(annotated, true)
    place = {clip_id: n for n, clip_id in enumerate(found.clip_ids)}
    lengths = [len(block) for block in annotated.framewise_output]
    owner = np.repeat([place[clip_id] for clip_id in annotated.clip_ids], lengths)
    of_class = [average_precision(hit, values, owner, len(found)) for hit, values in zip(active.T, scores.T)]

    def drawn(index: np.ndarray) -> float:
        times = np.bincount(index, minlength=len(found)).astype(float)
        values = [value for precision in of_class if np.isfinite(value := precision(times))]
        return float(np.mean(values)) if values else np.nan

    return drawn


def average_precision(
    hit: np.ndarray, scores: np.ndarray, owner: np.ndarray, n_clips: int
) -> Callable[[np.ndarray], float]:
    """Average precision of values that count as often as their clip does: (n_clips,) times -> the precision.

    hit: (T,) bool; owner: (T,) the clip of each value. NaN without values that hit, and without others. Precision is
    asked only where something hits, so that what lies between two such scores is added up by clips beforehand.
    """
    order = falling_order(scores)
    hit, scores, owner = hit[order], scores[order], owner[order]
    last = np.append(scores[1:] != scores[:-1], True)  # of those that are equal, which enter together
    group = np.cumsum(last) - last
    asked = np.bincount(group, hit) > 0
    step = (np.cumsum(asked) - asked)[group]  # up to and with the next score at which something hits
    n_steps = int(asked.sum())
    inside = step < n_steps
    shape = (n_steps, n_clips)
    heard = csr_array((np.ones(inside.sum()), (step[inside], owner[inside])), shape)
    hits = csr_array((np.ones(hit.sum()), (step[hit], owner[hit])), shape)
    frames = np.bincount(owner, minlength=n_clips)

    def precision(times: np.ndarray) -> float:
        new = hits @ times
        total = new.sum()
        if not 0 < total < frames @ times:
            return np.nan
        return float(new @ (np.cumsum(new) / np.maximum(np.cumsum(heard @ times), 1)) / total)

    return precision

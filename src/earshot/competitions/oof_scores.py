"""What competitions score out-of-fold predictions by (OofScore.of), shared by families. No torch.

An OOF has clips where the test has rows: where rows are 5 s of a recording, each clip counts as one row. Values have
the names that the competition's own `score` gives them. Predictions are of readable clips alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from earshot.competitions import row_steps
from earshot.competitions.competition import OofScore, PostRanges
from earshot.events import PostProcess, smoothed
from earshot.metrics import clips as clip_metrics
from earshot.metrics.psds import PSDS1, PSDS2, psds
from earshot.prediction.detection import classes_present, detect_all, peak_output
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth

MOST_DRAWN = 2_000_000  # rows times classes that are scored anew at every draw: half a minute for an interval
# Thresholds are even in log odds: an output that saturates has its best threshold near 0 or 1.
THRESHOLDS = tuple(float(t) for t in 1 / (1 + np.exp(-np.arange(-4, 7.01, 0.5))))
EVENTS = PostRanges(
    start=PostProcess(iou_threshold=None), threshold=THRESHOLDS, class_thresholds=True,
    median_filter_seconds=(0.0, 0.03, 0.05, 0.1, 0.25, 0.5), threshold_low=(None, 0.05, 0.15, 0.35, 0.6, 0.8),
    min_seconds=(0.0, 0.02, 0.03, 0.05, 0.1, 0.25), max_gap_seconds=(0.0, 0.01, 0.02, 0.05, 0.1, 0.25),
    iou_threshold=(None, 0.2),
)  # fmt: skip
EVENT_ROWS = PostRanges(threshold=THRESHOLDS, class_thresholds=True, min_seconds=(0.0, 0.1, 0.3))
QUANTILE_ROWS = replace(EVENT_ROWS, threshold_quantile=(None, 0.01, 0.02, 0.05, 0.1, 0.25))
SCORE_ROWS = PostRanges(
    row_pool=("max", "mean"), median_filter_seconds=(0.0, 0.5, 1.0), row_smooth=(0.0, 0.1, 0.2, 0.3),
    row_peak=(0.0, 0.25, 0.5, 1.0), row_power=(0.5, 1.0, 1.5, 2.0), row_rank=(False, True), row_floor=(0.0, 0.5, 0.8),
    row_site=(0.0, 0.25, 0.5, 1.0), row_hour=(0.0, 0.25, 0.5, 1.0),
)  # fmt: skip


def of_clips(name: str, metric: Callable[[np.ndarray, np.ndarray], float], defined: Callable[..., bool]) -> OofScore:
    """A score of the clip outputs: `metric(truth, scores)` where these clips are `defined(truth, scores)`."""

    def of(found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
        target, scores = truth.target > 0.5, found.clipwise_output
        return {name: float(metric(target, scores))} if len(found) and defined(target, scores) else {}

    return OofScore(name, of)


def has_labels(target: np.ndarray, scores: np.ndarray) -> bool:
    """Any clip has a label."""
    return bool(target.any())


def has_both_kinds(target: np.ndarray, scores: np.ndarray) -> bool:
    """Some class has clips with it and clips without it."""
    return bool((target.any(axis=0) & ~target.all(axis=0)).any())


def has_one_label_a_clip(target: np.ndarray, scores: np.ndarray) -> bool:
    return bool((target.sum(axis=1) == 1).all())


def is_probability(target: np.ndarray, scores: np.ndarray) -> bool:
    """Scores lie in 0 to 1: sums over windows do not."""
    return bool(scores.min() >= 0 and scores.max() <= 1 + 1e-5)


def shares(scores: np.ndarray) -> np.ndarray:
    """Scores of scenes, (N, K) from 0 on -> the same, made to sum to one, as a submission of probabilities has them."""
    total = scores.sum(axis=1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[1])


def padded_cmap(target: np.ndarray, scores: np.ndarray) -> float:
    return clip_metrics.padded_cmap(target, np.minimum(scores, 1))


ACCURACY = of_clips("accuracy", clip_metrics.accuracy, has_one_label_a_clip)
LWLRAP = of_clips("lwlrap", clip_metrics.lwlrap, has_labels)
MAP = of_clips("map", clip_metrics.mean_average_precision, has_both_kinds)


def mean_precision_at(answers: int) -> OofScore:
    """MAP@answers of clips with one label: the mean of 1 / place of the true class, 0 past the last answer."""

    def metric(target: np.ndarray, scores: np.ndarray) -> float:
        order = np.argsort(-scores, axis=1, kind="stable")
        place = (order == target.argmax(axis=1)[:, None]).argmax(axis=1)
        return float(np.where(place < answers, 1 / (1 + place), 0.0).mean())

    return of_clips(f"map@{answers}", metric, has_one_label_a_clip)


def scenes(first: str) -> OofScore:
    """Class-mean accuracy and, of shares of the scores, log loss and its mean over scenes; `first` decides."""

    def of(found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
        target, scores = truth.target > 0.5, found.clipwise_output
        if not len(found) or not has_one_label_a_clip(target, scores):
            return {}
        result = {"class_mean_accuracy": float(clip_metrics.class_mean_accuracy(target, scores))}
        if scores.min() >= 0:
            given = shares(scores.astype(float))
            result["log_loss"] = clip_metrics.log_loss(target, given)
            by_scene = [clip_metrics.log_loss(target[rows], given[rows]) for rows in target.T if rows.any()]
            result["class_mean_log_loss"] = float(np.mean(by_scene))
        return result

    return OofScore(first, of, lower_is_better=first in clip_metrics.LOWER_IS_BETTER)


# ---- rows that events mark


def one_row_a_clip(found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
    """Row-wise micro F1 of the classes with an event in each clip; a clip without any is `nocall`."""
    present = classes_present(found, post or PostProcess())
    return {"row_micro_f1": clip_metrics.row_micro_f1_at(truth.target > 0.5, present.astype(np.float32))}


def best_row_thresholds(found: Predictions, truth: Truth) -> tuple[float, np.ndarray]:
    """The threshold of the best row-wise micro F1, each clip one row, and (K,) of each class's best F1; exact.

    A class without a positive clip takes the common threshold.
    """
    peaks, target = peak_output(found), truth.target > 0.5
    one, _ = clip_metrics.best_threshold(target, peaks, clip_metrics.row_micro_f1_at)
    return one, clip_metrics.best_thresholds(target, peaks, default=one)[0]


ROW_MICRO_F1 = OofScore("row_micro_f1", one_row_a_clip, thresholds=best_row_thresholds)


# ---- rows that hold probabilities


def of_pooled_rows(
    name: str, metric: Callable[[np.ndarray, np.ndarray], float], defined: Callable[..., bool],
    pool: Callable[..., np.ndarray], row_seconds: float,
) -> OofScore:  # fmt: skip
    """A score of rows, pooled and processed as the submission's are: of annotated recordings their rows, against the
    events that reach into each; where there are none the highest row of each clip; without frames the clip outputs.

    pool: (frames, time grid, seconds at which rows end, how) -> (R, K).
    """
    score = _PooledRows(name=name, metric=metric, defined=defined, pool=pool, row_seconds=row_seconds)
    return OofScore(name, score.of, rows=score.rows, drawn=score.drawn)


@dataclass(frozen=True, kw_only=True)
class _PooledRows:
    """The functions of the OofScore that `of_pooled_rows` describes."""

    name: str
    metric: Callable[[np.ndarray, np.ndarray], float]
    defined: Callable[..., bool]
    pool: Callable[..., np.ndarray]
    row_seconds: float

    def of(self, found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
        of_clips_alone = of_clips(self.name, self.metric, self.defined).of
        if found.framewise_output is None or not len(found):
            return of_clips_alone(found, truth)
        post = post or PostProcess()
        if (known := row_steps.annotated_rows(found, truth, self.row_seconds)) is not None:
            names, ends, answers = known
            target, scores = np.concatenate(answers), np.concatenate(self._pooled(found, names, ends, post))
            return {self.name: float(self.metric(target, scores))} if self.defined(target, scores) else {}
        names = [str(c) for c in found.clip_ids]
        ends = [row_steps.ends_of(found, i, self.row_seconds) for i in range(len(found))]
        outputs = np.stack([np.nanmax(rows, axis=0) for rows in self._pooled(found, names, ends, post)])
        highest = Predictions(
            found.clip_ids, found.classes, outputs.astype(np.float32), found.fold, found.unreadable
        )  # fmt: skip
        return of_clips_alone(highest, truth)

    def rows(self, found: Predictions, truth: Truth) -> tuple[list[str], list[str], np.ndarray] | None:
        if (known := row_steps.annotated_rows(found, truth, self.row_seconds)) is None:
            return None
        names, ends, answers = known
        sites = [row_steps.site_of(n) for n, e in zip(names, ends, strict=True) for _ in e]
        hours = [h for n, e in zip(names, ends, strict=True) for h in row_steps.hours_of(n, e, self.row_seconds)]
        return sites, hours, np.concatenate(answers)

    def drawn(self, found: Predictions, truth: Truth) -> Callable[[np.ndarray], float] | None:
        if found.framewise_output is None:
            return None
        if (known := row_steps.annotated_rows(found, truth, self.row_seconds)) is None:
            return None
        names, ends, answers = known
        if sum(part.size for part in answers) > MOST_DRAWN:
            return None
        outputs, at = self._pooled(found, names, ends, PostProcess()), {name: i for i, name in enumerate(names)}
        place = [at.get(str(clip_id)) for clip_id in found.clip_ids]

        def score(index: np.ndarray) -> float:
            some = [place[i] for i in index if place[i] is not None]
            if not some:
                return np.nan
            target, scores = (np.concatenate([parts[i] for i in some]) for parts in (answers, outputs))
            return float(self.metric(target, scores)) if self.defined(target, scores) else np.nan

        return score

    def _pooled(self, found: Predictions, names, ends, post: PostProcess) -> list[np.ndarray]:
        """(R_i, K) rows of the recordings `names`; ends: seconds at which the rows of each end."""
        place = {str(c): i for i, c in enumerate(found.clip_ids)}
        frames = [smoothed(found.framewise_output[place[n]], found.timebase, post) for n in names]
        rows = [self.pool(f, found.timebase, e, post.row_pool) for f, e in zip(frames, ends, strict=True)]
        return row_steps.process_rows(rows, ends, names, found.classes, post, self.row_seconds)


# ---- events


def of_events(name: str, score: Callable[[pd.DataFrame, pd.DataFrame], dict[str, float]]) -> OofScore:
    """The competition's own score of events, `score(found, true events)`, over the annotated clips of the OOF."""

    def of(found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
        in_time = truth.in_time(found)
        if in_time is None:
            return {}
        known, true = in_time
        return score(detect_all(known, post or EVENTS.start), true)

    return OofScore(name, of)


def psds_of_frames(predictions: Predictions, test: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """`psds1, psds2` of the frame scores of the recordings of `test` (clip_id, duration, and filename where the truth
    has other names); psds2 needs two classes with events.

    Classes without a true event are left out, as metrics.events.psds does; frames behind the end are cut.
    """
    if predictions.framewise_output is None:
        raise ValueError("PSDS needs framewise outputs: predict with predict.keep_frames=true")
    scores, names = scores_in_time(predictions, test), test.filename if "filename" in test else test.clip_id
    durations = dict(zip(names, test.duration.astype(float), strict=True))
    several = truth.event_label.nunique() > 1
    return {
        name: psds(scores, list(predictions.classes), truth, durations, **scenario)["psds"]
        for name, scenario in (("psds1", PSDS1), ("psds2", PSDS2))
        if name == "psds1" or several
    }


def scores_in_time(predictions: Predictions, test: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Frame scores of the recordings of `test` (clip_id, duration, filename if it has one), cut at their ends: {name:
    (seconds where frames begin and the last one ends (T + 1,), outputs (T, K))}."""
    names = test.filename if "filename" in test else test.clip_id
    found, scores = predictions.aligned(test.clip_id), {}
    for name, seconds, frames in zip(names, test.duration, found.framewise_output, strict=True):
        edges = found.timebase.seconds(np.arange(len(frames) + 1))
        inside = min(int(np.searchsorted(edges, seconds - 1e-6)), len(frames))  # frames that begin before the end
        scores[name] = (np.append(edges[:inside], max(seconds, edges[inside - 1] + 1e-6)), frames[:inside])
    return scores

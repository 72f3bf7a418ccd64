"""What a run's OOF says of its outputs: the post-processing to use, and how sure an output really is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from earshot import runs
from earshot.competitions import get_competition
from earshot.competitions.oof_scores import EVENTS
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.ensemble.choice import as_dict
from earshot.ensemble.post_processing import choose_post
from earshot.events import PostProcess, events_to_frames
from earshot.prediction.detection import peak_output
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth

FLOOR = 1e-6  # an output of 0 or 1 keeps finite log odds
FEWEST = 8  # clips with a class and without it that a calibration of its own takes


@dataclass(frozen=True)
class Calibration:
    """Outputs -> how often they are right: log odds of the output, scaled and moved, a pair a class.

    Fitted on the highest output of each stretch of the OOF (`stretches`) against what is heard there (Platt 1999), so
    that 0.8 of an event means: of ten stretches whose best moment scored so, eight have the class. slope, shift: (K,).
    """

    slope: np.ndarray
    shift: np.ndarray

    def __call__(self, values: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(N,) outputs and (N,) class numbers -> (N,) probabilities."""
        return 1 / (1 + np.exp(-(self.slope[classes] * logit(values) + self.shift[classes])))


@dataclass(frozen=True)
class FromOof:
    """Post-processing, and the calibration where the OOF can give one; `said`: where both came from, for people."""

    post: PostProcess
    calibration: Calibration | None
    said: list[str]
    choice: dict | None = None  # as a file keeps it (ensemble/choice.py), where post-processing was chosen now


def logit(values: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(values, np.float64), FLOOR, 1 - FLOOR)
    return np.log(p / (1 - p))


def from_oof(folder: Path, post: PostProcess | None = None, threshold: float | None = None) -> FromOof:
    """A run's OOF and its data -> what to use; where either is not at hand it is said, and 0.5 is the threshold.

    post: given, in place of one chosen on the OOF; threshold: given, in place of every other: that is said, and none is
    chosen on clips (detections.only puts it in place).
    """
    start = post or replace(EVENTS.start, threshold=0.5)
    shown = f"threshold {start.threshold:g}" if threshold is None else f"threshold {threshold:g}, as given"
    if not (folder / "oof.npz").is_file():
        return FromOof(start, None, [f"no OOF in {folder}: {shown}, confidence is the output"])
    oof = Predictions.load(folder / "oof.npz")
    config = runs.load_run(folder).config
    try:
        truth = truth_of(oof, load_data(config.data))
    except (ValueError, KeyError) as error:
        said = f"the OOF's answers are not at hand ({error}): {shown}, confidence is the output"
        return FromOof(start, None, [said])
    readable = ~oof.unreadable
    oof, truth = oof.take(readable), truth.take(readable)
    said, chosen = [], None
    if post is None:
        competition = get_competition(config.data.competition)
        score, ranges = competition.oof_score, competition.post
        if ranges is None or not np.isfinite(score.value(oof, truth, ranges.start)):
            line = f"{shown}, for every class"
            if threshold is None:
                start, line = _threshold_of_clips(oof, truth.target)
            said.append(line)
        else:
            choice = choose_post(oof, truth, score, ranges)
            start, chosen = choice.post, as_dict(choice, competition.name, [folder], runs.git_commit())
            own = told_post(start, ranges.start) if threshold is None else f"all but the threshold; {shown}"
            said.append(f"post-processing chosen on the OOF by {score.name}: {own}")
    peaks, there, of = stretches(oof, truth, config.predict.window_seconds)
    calibration = calibrate(peaks, there)
    held = "every class" if truth.target.any() else "no class"
    said.append(
        f"confidence: calibrated on the OOF's {of}" if calibration
        else f"confidence is the output: each recording of the OOF holds {held}, which calibrates nothing"
    )  # fmt: skip
    return FromOof(start, calibration, said, chosen)


def told_post(post: PostProcess, start: PostProcess) -> str:
    """The threshold and whatever else a choice changed: 'threshold 0.731, threshold_low 0.439, 3 class_thresholds'."""
    told = [f"threshold {post.threshold:.3g}"]
    for field in fields(post):
        value = getattr(post, field.name)
        if field.name == "threshold" or value == getattr(start, field.name):
            continue
        if isinstance(value, Mapping):
            told.append(f"{len(value)} {field.name}")
        else:
            told.append(f"{field.name} {value:.3g}" if isinstance(value, float) else f"{field.name} {value}")
    return ", ".join(told)


def _threshold_of_clips(oof: Predictions, target: np.ndarray) -> tuple[PostProcess, str]:
    """One threshold a class by the best F1 of each clip's highest output."""
    from earshot.metrics import clips as clip_metrics

    peaks, target = peak_output(oof), target > 0.5
    one, value = clip_metrics.best_threshold(target, peaks, clip_metrics.micro_f1)
    each, _ = clip_metrics.best_thresholds(target, peaks, default=one)
    thresholds = {c: float(t) for c, t, there in zip(oof.classes, each, target.any(axis=0), strict=True) if there}
    post = replace(EVENTS.start, threshold=float(one), class_thresholds=thresholds)
    return post, f"thresholds chosen on the OOF's clips, a class each (micro F1 {value:.3f} at {one:.3g} for all)"


def stretches(oof: Predictions, truth: Truth, seconds: float) -> tuple[np.ndarray, np.ndarray, str]:
    """Part an OOF into what a detection is judged by: annotated recordings in pieces of `seconds`, others whole.

    A long recording holds most classes somewhere, which says nothing of any one moment. (N, K) highest outputs, (N, K)
    whether the class is heard there, and what they are, for people.
    """
    peaks, there = peak_output(oof), truth.target > 0.5
    if (in_time := truth.in_time(oof)) is None:
        return peaks, there, "clips"
    found, events = in_time
    of_clip = dict(tuple(events.groupby("filename")))
    long = max(1, int(oof.timebase.frame(seconds)))
    whole = np.zeros(len(oof.clip_ids), bool) if truth.annotated is None else ~truth.annotated
    all_peaks, all_there = [peaks[whole]], [there[whole]]
    for clip_id, frames in zip(found.clip_ids, found.framewise_output, strict=True):
        true = events_to_frames(of_clip.get(str(clip_id), events.iloc[:0]), oof.classes, oof.timebase, len(frames))
        starts = np.arange(0, len(frames), long)
        all_peaks.append(np.maximum.reduceat(frames, starts, axis=0))
        all_there.append(np.logical_or.reduceat(true, starts, axis=0))
    return np.concatenate(all_peaks), np.concatenate(all_there), f"stretches of {seconds:g} s"


def calibrate(peaks: np.ndarray, target: np.ndarray) -> Calibration | None:
    """Learn how often a highest output is right.

    (N, K) highest outputs and answers -> a calibration; None where all answers are one.

    Classes with few clips of either kind share the one of all classes together.
    """

    def fit(x, y):
        if y.all() or not y.any():
            return None
        found = LogisticRegression(C=10.0).fit(logit(x)[:, None], y)
        return float(found.coef_[0, 0]), float(found.intercept_[0])

    if (shared := fit(peaks.ravel(), target.ravel())) is None:
        return None
    pairs = []
    for k in range(target.shape[1]):
        positive = int(target[:, k].sum())
        own = fit(peaks[:, k], target[:, k]) if min(positive, len(target) - positive) >= FEWEST else None
        pairs.append(own if own is not None and own[0] > 0 else shared)
    return Calibration(*np.array(pairs).T)

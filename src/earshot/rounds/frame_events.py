"""Events that teachers find, as targets in time: 1 in them, 0 between them, unknown where little decides.

Of a source that nobody labelled, networks say little inside its sounds, and a student that learns soft targets learns
to say little. Where events begin and end, thresholds say, and those that fit are not known of such a source: they are
chosen for each fold on the held-out clips of the other folds, as those that judge it are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from earshot.competitions import get_competition
from earshot.data.answers import truth_of
from earshot.ensemble.apart import choose_apart
from earshot.ensemble.blends import Blend
from earshot.ensemble.post_processing import moved
from earshot.events import PostProcess, active_frames, smoothed
from earshot.prediction import predictions
from earshot.prediction.predictions import Predictions
from earshot.rounds.teachers import Teachers
from earshot.sound.timebase import TimeBase

STEPS = ("threshold", "centred", "threshold_low", "min_seconds")


def posts_of(teachers: Teachers) -> dict[int, PostProcess]:
    """Choose each fold's post-processing on what the teachers say of the clips that the other folds hold out.

    Steps (those of `STEPS` that the competition has) and score are the competition's. Errors: a competition without
    events, runs whose held-out answers have no frames, one fold alone.
    """
    name = teachers.runs[0].config.data.competition
    competition = get_competition(name) if name else None
    if competition is None or competition.post is None or not competition.post.threshold_low:
        raise ValueError(
            f"--frame-events needs thresholds of events, which '{name or 'no competition'}' does not search: leave it "
            "out, or label with runs of a competition with events"
        )
    oof = held_out(teachers)
    steps = [step for step in STEPS if getattr(competition.post, step)]
    truth = truth_of(oof, teachers.data)
    return choose_apart(oof, truth, competition.oof_score, competition.post, steps=steps, always=True)


def held_out(teachers: Teachers) -> Predictions:
    """The mean of the runs' out-of-fold predictions, frames and all."""
    oofs = [predictions.join([fold.oof() for fold in run.folds]) for run in teachers.runs]
    for run, oof in zip(teachers.runs, oofs, strict=True):
        if oof.framewise_output is None:
            raise ValueError(
                f"the held-out answers of {run.folder} have no frames, on which thresholds of events are chosen: train "
                "it with predict.oof_frames=true"
            )
    first = oofs[0].clip_ids
    return Blend()([oof.aligned(first) for oof in oofs])


def event_frames(
    probability: np.ndarray, timebase: TimeBase, classes, post: PostProcess, unsure: float = 0.0
) -> np.ndarray:  # fmt: skip
    """Give the frames of a recording that are in an event, (T, K) probabilities -> float32 of 1, 0 and NaN (unknown).

    unsure: log odds by which all thresholds are moved up and down; what is an event at both is one, what is at neither
    is none, and what only the lower ones find is unknown.
    """
    smooth = smoothed(probability, timebase, post)
    sure, possible = (
        active_frames(smooth, timebase, classes, all_moved(post, change)) for change in (unsure, -unsure)
    )  # fmt: skip
    return np.where(sure, 1.0, np.where(possible, np.nan, 0.0)).astype(np.float32)


def all_moved(post: PostProcess, log_odds: float) -> PostProcess:
    """The same with every threshold, upper and lower, moved by so much."""
    if not log_odds:
        return post
    low = None if post.threshold_low is None else moved(post.threshold_low, log_odds)
    many = {label: moved(threshold, log_odds) for label, threshold in post.class_thresholds.items()}
    return replace(post, threshold=moved(post.threshold, log_odds), threshold_low=low, class_thresholds=many)

"""Anomaly scores of clips as predictions: a score a clip, the threshold of its section, runs of machines joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from earshot.anomaly import report as anomaly_report
from earshot.anomaly.report import Scores
from earshot.messages import few, plural
from earshot.prediction.predictions import Predictions, join


def sections_of(clips: pd.DataFrame) -> np.ndarray:
    """Name each clip's class, <machine>_<section> (N,), whether training had that section or not."""
    missing = [c for c in ("machine", "section") if c not in clips]
    if missing:
        raise ValueError(f"anomaly scores need the column {' and '.join(missing)} in the clip table")
    return (clips.machine.astype(str) + "_" + clips.section.astype(str)).to_numpy(str)


def scored(
    found: Predictions, readable: np.ndarray, method: Scores, normal_groups: np.ndarray, groups: np.ndarray
) -> Predictions:
    """Predictions of N clips of `groups` with the scores of the `readable` ones and every clip's threshold.

    An unreadable clip gets the mean score of its group, or of all, so that a submission has a number for it.
    """
    scores = np.full(len(found), np.nan)
    scores[readable] = method.judged
    series = pd.Series(scores)
    scores = series.fillna(series.groupby(groups).transform("mean")).fillna(series.mean()).to_numpy()
    limits = anomaly_report.thresholds(method.training, normal_groups, groups)
    threshold = np.array([limits[str(g)] for g in groups])
    return replace(
        found, framewise_output=None, timebase=None, embedding=None, score=scores.astype(np.float32),
        threshold=threshold.astype(np.float32),
    )  # fmt: skip


def joined(parts: list[Predictions]) -> Predictions:
    """Scored predictions of several runs, each of its own clips and classes -> one of all; a clip twice is an error.

    Where machine types were trained apart each run knows its own sections alone: the output of another run's class is
    0, and only `score` says anything.
    """
    classes = tuple(dict.fromkeys(c for part in parts for c in part.classes))
    wide = []
    for part in parts:
        output = np.zeros((len(part), len(classes)), np.float32)
        output[:, [classes.index(c) for c in part.classes]] = part.clipwise_output
        wide.append(replace(part, classes=classes, clipwise_output=output))
    ids = np.concatenate([part.clip_ids for part in wide])
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{plural((counts > 1).sum(), 'clips are')} scored by more than one run, such as "
            f"{few(names[counts > 1])}: give runs "
            "that were trained apart (data.where), and blend those of the same clips by src/ensemble.py"
        )
    return join(wide)

"""Anomaly scores that hear the clips themselves and need no trained run: `statistics` and `exposure`.

Both hear a log-mel of the run's bands every 16 ms, which modulation up to 31 Hz needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from earshot.anomaly.exposure import exposure_scores
from earshot.anomaly.report import Scores, cross_fitted
from earshot.anomaly.statistics import clip_statistics, nearest_scores
from earshot.messages import suggest
from earshot.sound.logmel import LogmelParams, log_mel

FRAME_SECONDS = 0.016
NEIGHBOURS = (1, 2, 3, 4, 5)


def clip_scores(
    method: str, normal: list[np.ndarray], normal_groups: np.ndarray, clips: list[np.ndarray], groups: np.ndarray,
    params: LogmelParams, seed: int = 0,
) -> Scores:  # fmt: skip
    """Waveforms of M normal training clips and of N to judge, their groups, a front end -> Scores of a method of
    CLIP_METHODS. The hop of the front end is replaced by FRAME_SECONDS."""
    if method not in CLIP_METHODS:
        raise ValueError(f"unknown anomaly score of clips '{method}'{suggest(method, CLIP_METHODS)}")
    params = replace(params, hop_length=round(FRAME_SECONDS * params.sample_rate))
    return CLIP_METHODS[method](normal, normal_groups, clips, groups, params, seed)


def statistics_scores(normal, normal_groups, clips, groups, params: LogmelParams, seed: int = 0) -> Scores:
    """Distances to the nearest normal clips by statistics of the log-mel; nothing is random, the seed says nothing."""
    seconds = params.hop_length / params.sample_rate
    known, heard = (np.stack([clip_statistics(log_mel(x, params), seconds) for x in some]) for some in (normal, clips))
    judged = np.empty(len(heard))
    for group in np.unique(groups):
        own = known[normal_groups == group]
        judged[groups == group] = several_nearest(own if len(own) else known, heard[groups == group])
    return Scores(cross_fitted(several_nearest, known, normal_groups), judged)


def several_nearest(normal: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Mean of `nearest_scores` of 1 to 5 neighbours, (N,), so that no number of neighbours is chosen."""
    return np.mean([nearest_scores(normal, clips, k) for k in NEIGHBOURS], axis=0)


CLIP_METHODS: dict[str, Callable[..., Scores]] = {"statistics": statistics_scores, "exposure": exposure_scores}

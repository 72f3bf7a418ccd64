"""Anomaly scores without a network: statistics of a clip's log-mel, and the distance to the nearest normal clips.

The statistics are of each band's level (mean, standard deviation, 10th, 50th and 90th percentile over time) and of how
fast it goes up and down (its modulation spectrum from 0.5 to 31 Hz in eleven bands). They are standardised by the
normal training clips of the same group, so that no recording device counts for itself. Nothing is random.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

PERCENTILES = (10, 50, 90)
MODULATION_HZ = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 31)
MODULATION_FLOOR = 1e-3  # added before the logarithm: a constant band has no modulation


def level_statistics(logmel: np.ndarray) -> np.ndarray:
    """Describe a clip by how loud each band is and how much its level varies.

    (T, F) decibels -> (5 F,) mean, standard deviation and percentiles of each band.
    """
    return np.concatenate([logmel.mean(axis=0), logmel.std(axis=0), *np.percentile(logmel, PERCENTILES, axis=0)])


def modulation_statistics(logmel: np.ndarray, frame_seconds: float) -> np.ndarray:
    """Describe a clip by how fast the level of each band goes up and down.

    (T, F) decibels -> (11 F,) log of the mean magnitude of each band's level in the bands of MODULATION_HZ.

    A clip too short to have a frequency in the lowest of these bands is an error.
    """
    if 1 / frame_seconds < 2 * MODULATION_HZ[-1]:
        raise ValueError(f"modulation up to {MODULATION_HZ[-1]} Hz needs frames every {500 / MODULATION_HZ[-1]:.1f} ms "
                         f"or less, got {1000 * frame_seconds:.1f} ms")  # fmt: skip
    n = len(logmel)
    moving = (logmel - logmel.mean(axis=0)) * np.hanning(n)[:, None]
    magnitude = np.abs(np.fft.rfft(moving, axis=0)) / np.hanning(n).sum()  # of a sine: half its amplitude
    hz = np.fft.rfftfreq(n, frame_seconds)
    bands = [(hz >= low) & (hz < high) for low, high in pairwise(MODULATION_HZ)]
    if not all(band.any() for band in bands):
        raise ValueError(f"modulation from {MODULATION_HZ[0]} Hz needs clips of at least 2 s, got {n} frames "
                         f"of {1000 * frame_seconds:.1f} ms")  # fmt: skip
    return np.concatenate([np.log(magnitude[band].mean(axis=0) + MODULATION_FLOOR) for band in bands])


def clip_statistics(logmel: np.ndarray, frame_seconds: float) -> np.ndarray:
    """Describe a clip, (T, F) decibels, by the levels and the modulation of its bands: (16 F,)."""
    return np.concatenate([level_statistics(logmel), modulation_statistics(logmel, frame_seconds)])


def nearest_scores(normal: np.ndarray, clips: np.ndarray, neighbours: int = 1) -> np.ndarray:
    """Score clips by their mean distance to the nearest `neighbours` normal ones: (M, D) statistics of normal clips and
    (N, D) of others -> (N,).

    Euclidean, of statistics standardised by the normal ones; fewer normal clips than `neighbours`: all of them count.
    """
    normal, clips = standardised(normal, normal), standardised(normal, clips)
    distance = np.linalg.norm(clips[:, None] - normal[None], axis=2)
    return np.sort(distance, axis=1)[:, :neighbours].mean(axis=1)


def standardised(normal: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Scale statistics by how much they vary among normal clips.

    (N, D) clips in deviations of the normal ones from their mean; what never varies among these is only centred.
    """
    spread = normal.std(axis=0)
    return (clips - normal.mean(axis=0)) / np.where(spread > 1e-3, spread, 1.0)

"""Whether two recordings that have spectral peaks in common really hold one sound: their waveforms, held together.

Peaks of dense sounds that ring alike (two cymbals, two strokes of one drum) can agree by chance. A copy's waveform is
the original's, whatever its level, format, rate or length; noise only lowers their correlation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from earshot.sound import audio

SECONDS, HOP_SECONDS = 1.0, 0.5  # stretches that are held together; they need not all be the same
SLACK_SECONDS = 0.04  # the delay by peaks is no finer
MOST_SECONDS = 60.0  # of two recordings that are heard
FAINT = 1e-3  # stretches of so much less power than the loudest say nothing
COPY = 0.5  # likeness of a copy: 0.7 over noise as loud as the sound, other sounds that peaks take for it 0.04 to 0.46


def likeness(first: str | Path, second: str | Path, delay: float, rate: int) -> float:
    """The highest correlation (0 to 1) of any second of two recordings, heard at a rate in Hz.

    delay: seconds that the sound begins later in the second one. 0 where nothing of them overlaps; NaN where the first
    MOST_SECONDS of what does are unlike, and there is more.
    """
    begin = max(0.0, -delay)
    a = audio.load(first, rate, begin, MOST_SECONDS)
    b = audio.load(second, rate, max(0.0, begin + delay), MOST_SECONDS)
    found = waveform_likeness(a, b, rate)
    return np.nan if found < COPY and min(len(a), len(b)) >= MOST_SECONDS * rate else found


def waveform_likeness(a: np.ndarray, b: np.ndarray, rate: int) -> float:
    """The same of two waveforms, (S,) and (T,), that begin together but for SLACK_SECONDS."""
    n, slack = min(len(a), len(b)), round(SLACK_SECONDS * rate)
    length, hop = min(n, round(SECONDS * rate)), round(HOP_SECONDS * rate)
    if not length:
        return 0.0
    a, b = a[:n].astype(np.float64), np.pad(b[: n + slack].astype(np.float64), (slack, max(0, n + slack - len(b))))
    starts = range(0, n - length + 1, max(hop, 1))
    powers = np.array([np.square(a[s : s + length]).sum() for s in starts])
    best = 0.0
    for s, power in zip(starts, powers, strict=True):
        if power <= FAINT * powers.max():
            continue
        near = b[s : s + length + 2 * slack]
        products = np.abs(fftconvolve(near, a[s : s + length][::-1], mode="valid"))
        totals = np.concatenate([[0.0], np.cumsum(near**2)])
        energy = totals[length:] - totals[:-length]
        loud = energy > FAINT * power * 1e-3  # of a much softer copy, too, but not of silence
        if loud.any():
            best = max(best, float((products[loud] / np.sqrt(energy[loud] * power)).max()))
    return min(best, 1.0)

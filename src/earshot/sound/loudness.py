"""How loud a recording is as a whole: with it, recordings of any level are heard alike (`data.level: normalised`).

The level of a recording is the 95th percentile of the power of its frames of 20 ms after pre-emphasis (each sample less
0.97 of the one before, against rumble and hum), in dB; frames of digital silence do not count. So it is that of its
louder sounds, whatever share of it they fill, if they fill a twentieth of what is no silence. What follows it: the same
recording 12 dB louder is heard the same. A recording that holds noise alone is heard as loud as others, unless that
would take more than 40 dB.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from earshot.sound import audio
from earshot.sound.rows import file_of

HEARD_DB = -30.0  # level that every recording is brought to
FRAME_SECONDS, PRE_EMPHASIS, PERCENTILE = 0.02, 0.97, 95.0
SILENCE_DB = -110.0  # frames below are digital silence and do not count; where there is nothing else it stays as it is
MOST_GAIN_DB = 40.0  # a recording is made at most so much louder or quieter
SPAN_SECONDS, MOST_SPANS = 10.0, 60  # of longer recordings so many spans are heard, spread evenly


def gain_of(path: str | Path, sample_rate: int) -> float:
    """What a recording is multiplied by to be heard at the common level; measured once a file and rate.

    Errors: audio.UnreadableAudio, where nothing of the file can be read.
    """
    try:
        state = os.stat(file_of(str(path)))
    except OSError:
        return 1.0  # reading it says what is wrong
    return _gain(str(path), sample_rate, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _gain(path: str, sample_rate: int, size: int, changed: int) -> float:
    level = level_db(pieces(path, sample_rate), sample_rate)
    return float(10 ** (np.clip(HEARD_DB - level, -MOST_GAIN_DB, MOST_GAIN_DB) / 20)) if np.isfinite(level) else 1.0


def measured_seconds(seconds: float) -> float:
    """How much of a recording of so many seconds is decoded to measure its level, before it is decoded to be heard."""
    return min(seconds, SPAN_SECONDS * MOST_SPANS)


def pieces(path: str | Path, sample_rate: int) -> list[np.ndarray]:
    """The recording, or of a long one spans of it: (S,) each, the mean of the channels."""
    seconds = audio.info(path).duration
    if seconds <= SPAN_SECONDS * MOST_SPANS:
        return [audio.load(path, sample_rate)]
    starts = np.linspace(0, seconds - SPAN_SECONDS, MOST_SPANS)
    return [audio.load(path, sample_rate, float(start), SPAN_SECONDS) for start in starts]


def level_db(waveforms: list[np.ndarray], sample_rate: int) -> float:
    """Level of a recording of which these are parts, in dB of full scale; -inf where all of it is digital silence."""
    size = max(1, round(FRAME_SECONDS * sample_rate))
    powers = np.concatenate([np.zeros(0), *(frame_powers(waveform, size) for waveform in waveforms if len(waveform))])
    heard = powers[powers > 10 ** (SILENCE_DB / 10)]
    return float(10 * np.log10(np.percentile(heard, PERCENTILE))) if len(heard) else -np.inf


def frame_powers(waveform: np.ndarray, size: int) -> np.ndarray:
    """Mean power of each frame of `size` samples after pre-emphasis, (S,) -> (F,); a rest below one is a frame too."""
    wave = np.asarray(waveform, np.float64)
    wave = wave - PRE_EMPHASIS * np.r_[wave[:1], wave[:-1]]
    whole = len(wave) // size * size
    return (wave[:whole].reshape(-1, size) ** 2).mean(axis=1) if whole else np.array([np.mean(wave**2)])

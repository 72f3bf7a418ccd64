"""The same sound recorded otherwise: louder, softer, over noise, by a dull microphone, farther away in a room.

Functions on waveforms (S,) or (C, S) float32 that leave times as they are: what begins at 2.0 s still does. Chance is
of the generator passed in. Training draws from them (augment/waveform.py), the audit asks how much each costs
(audits/robustness.py).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt, sosfilt_zi

ORDER = 4  # of filters: 24 dB an octave
DECAY_DB = 60.0  # what a reverberation falls by in its time
AIR_HZ = 4000.0  # low-pass of the tail: walls and air take the high frequencies first


def louder(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """The sound by `gain_db` louder; nothing is clipped."""
    return (waveform * np.float32(10 ** (gain_db / 20))).astype(np.float32)


def over_noise(waveform: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """The sound over white noise, `snr_db` below the mean power of the whole; silence stays silence."""
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    noise = rng.standard_normal(waveform.shape) * np.sqrt(power * 10 ** (-snr_db / 10))
    return (waveform + noise).astype(np.float32)


def low_passed(waveform: np.ndarray, sample_rate: int, cutoff_hz: float) -> np.ndarray:
    """The sound without what lies above `cutoff_hz` (Butterworth of order 4); as it is where nothing can."""
    if cutoff_hz >= 0.49 * sample_rate:
        return waveform.astype(np.float32)
    sections = butter(ORDER, cutoff_hz, fs=sample_rate, output="sos")
    start = sosfilt_zi(sections).reshape(len(sections), *(1,) * (waveform.ndim - 1), 2) * waveform[..., :1]
    return sosfilt(sections, waveform, axis=-1, zi=start)[0].astype(np.float32)


def impulse_response(sample_rate: int, rt60: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """Invent a room's response, (R,): the direct sound at sample 0, then a tail of noise that falls by 60 dB.

    rt60: seconds of that fall; direct_db: energy of the direct sound over that of the tail, which falls with distance.
    The whole has energy 1, so that the level stays about the same.
    """
    if not rt60 > 0:
        raise ValueError(f"a reverberation needs a time above 0 s, got rt60 {rt60}")
    n = max(2, round(rt60 * sample_rate))
    tail = rng.standard_normal(n) * 10 ** (-DECAY_DB / 20 * np.arange(n) / n)
    tail = low_passed(tail.astype(np.float32), sample_rate, AIR_HZ).astype(np.float64)
    tail[: max(1, round(0.002 * sample_rate))] = 0  # the first reflection comes later
    energy = max(float(np.sum(tail**2)), 1e-12)
    response = tail * np.sqrt(10 ** (-direct_db / 10) / energy)
    response[0] = 1.0
    return (response / np.sqrt(np.sum(response**2))).astype(np.float32)


def reverberant(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The sound in a room with this impulse response, as long as it was."""
    response = response.reshape(*(1,) * (waveform.ndim - 1), -1)
    return fftconvolve(waveform, response, axes=-1)[..., : waveform.shape[-1]].astype(np.float32)

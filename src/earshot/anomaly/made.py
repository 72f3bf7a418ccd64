"""Anomalies made from normal recordings of something that beats, a heart or a machine with strokes.

What goes wrong with a beat is known without an example: noise in the pauses (a murmur, a leak), a further sound in each
of them (a gallop, a click), a sound that has become weak, beats at uneven times. `made` draws one of the four; how
loud, where and how long is random. A recording without a beat comes back unchanged or nearly so. Lengths are kept.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import signal

BEAT_HZ, ENVELOPE_HZ = (25, 250), 15
HEIGHT, PROMINENCE = 0.15, 0.1  # of a beat's sound, relative to the envelope's 97th percentile
LEAST_APART, LONGEST_PAUSE = 0.2, 1.5  # seconds


def pulses(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Find where the beats of a recording are.

    (samples,) -> sample numbers of the beats' sounds: peaks of the envelope of 25 to 250 Hz, 0.2 s apart or more.
    """
    if rate < 2 * BEAT_HZ[1] + 100:
        raise ValueError(
            f"beats are looked for up to {BEAT_HZ[1]} Hz, which {rate} Hz audio does not hold: 600 Hz or more"
        )
    heard = signal.sosfiltfilt(signal.butter(2, BEAT_HZ, "bandpass", fs=rate, output="sos"), waveform)
    smooth = signal.butter(2, ENVELOPE_HZ, fs=rate, output="sos")
    envelope = np.maximum(signal.sosfiltfilt(smooth, np.abs(heard)), 0)
    top = np.percentile(envelope, 97)
    found, _ = signal.find_peaks(
        envelope, height=HEIGHT * top, distance=int(LEAST_APART * rate), prominence=PROMINENCE * top
    )
    return found


def made(waveform: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Put an anomaly of a random kind of KINDS into a normal recording, (samples,) float32."""
    beats = pulses(waveform, rate)
    kind = list(KINDS)[rng.integers(len(KINDS))]
    return KINDS[kind](waveform.astype(float), beats, rate, rng).astype(np.float32)


def murmur(x: np.ndarray, beats: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a band in every second pause, 6 to 26 dB below the beats; rising and falling, falling, or even."""
    y, level = x.copy(), _level(x, beats, rate) * 10 ** (rng.uniform(-26, -6) / 20)
    noise, shape = _band_noise(len(x), rate, rng), rng.integers(3)
    first, last = rng.uniform(0.1, 0.4), rng.uniform(0.6, 0.95)  # of the pause
    for a, b in _pauses(beats, rate, rng):
        i, j = int(a + first * (b - a)), int(a + last * (b - a))
        n = j - i
        if n >= 0.01 * rate:
            rise = [np.hanning(n), np.linspace(1, 0.1, n), signal.windows.tukey(n, 0.2)][shape]
            y[i:j] += level * (rise * rng.uniform(0.7, 1.3)) * noise[i:j]
    return y


def further_sound(x: np.ndarray, beats: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A short tone of 30 to 150 Hz at the same place of every second pause, 3 to 16 dB below the beats."""
    y, where, gain = x.copy(), rng.uniform(0.3, 0.75), 10 ** (rng.uniform(-16, -3) / 20)
    n = int(rng.uniform(0.03, 0.08) * rate)
    tone = np.hanning(n) * np.sin(2 * np.pi * rng.uniform(30, 150) * np.arange(n) / rate)
    tone *= _level(x, beats, rate) * gain * 1.4  # amplitude of a tone of that RMS
    for a, b in _pauses(beats, rate, rng):
        i = int(a + (where + rng.normal(0, 0.01)) * (b - a))
        if i + n < len(y):
            y[i : i + n] += tone
    return y


def weak_sound(x: np.ndarray, beats: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Every second sound of the beat 6 to 20 dB weaker."""
    y, gain, half = x.copy(), 10 ** (rng.uniform(-20, -6) / 20), int(0.07 * rate)
    for q in beats[rng.integers(2) :: 2]:
        i, j = max(0, q - half), min(len(x), q + half)
        y[i:j] *= 1 - (1 - gain) * np.hanning(2 * half)[: j - i]
    return y


def uneven_beats(x: np.ndarray, beats: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Beats shorter or longer by some 20 %: cut at their end, or their end played back and forth. Under four sounds: a
    murmur, there being no rhythm to upset."""
    if len(beats) < 4:
        return murmur(x, beats, rate, rng)
    pieces = [x[: beats[0]]]
    for a, b in zip(beats[:-1:2], beats[2::2], strict=False):
        beat, n = x[a:b], b - a
        wanted = int(n * np.exp(rng.normal(0, 0.2)))
        end = beat[int(0.6 * n) :]
        longer = np.resize(np.concatenate([end, end[::-1]]), max(0, wanted - n))
        pieces += [beat[: max(wanted, n // 2)], longer]
    y = np.concatenate(pieces)
    return np.concatenate([y, np.resize(y, max(0, len(x) - len(y)))])[: len(x)]


KINDS = {"murmur": murmur, "further_sound": further_sound, "weak_sound": weak_sound, "uneven_beats": uneven_beats}


def _pauses(beats: np.ndarray, rate: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Every second pair of neighbouring sounds, from the first or the second on: of a heart systoles or diastoles."""
    pairs = [(a, b) for a, b in pairwise(beats) if b - a < LONGEST_PAUSE * rate]
    return pairs[rng.integers(2) :: 2]


def _level(x: np.ndarray, beats: np.ndarray, rate: int) -> float:
    """Median RMS of the sounds, within 30 ms of their middle."""
    half = int(0.03 * rate)
    return (
        float(np.median([np.sqrt(np.mean(x[max(0, q - half) : q + half] ** 2)) for q in beats]))
        if len(beats)
        else x.std()
    )


def _band_noise(n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) noise of RMS 1 from 50 to 200 Hz up to 1.7 to 4 times as high."""
    low = np.exp(rng.uniform(np.log(50), np.log(200)))
    high = min(low * np.exp(rng.uniform(np.log(1.7), np.log(4))), 0.45 * rate)
    settle = rate // 5
    band = signal.butter(2, (low, high), "bandpass", fs=rate, output="sos")
    noise = signal.sosfilt(band, rng.standard_normal(n + settle))[settle:]
    return noise / (noise.std() + 1e-9)

"""From a recording to what each input hears of it: one way for training, prediction, export and kernels.

A recording is decoded once at the run's rate, to one channel or to left and right. An input with channels or a rate of
its own hears THAT waveform, rearranged and resampled; so does every crop in training and every window in prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soxr

from earshot.inputs.record import Input
from earshot.sound import audio
from earshot.sound.loudness import gain_of

RESAMPLING_MARGIN = audio.MARGIN  # samples at an input's own rate that resampling looks at


def decode(
    path: str | Path, sample_rate: int, n_channels: int = 1, start_seconds: float = 0.0,
    duration_seconds: float | None = None, level: str = "recorded",
) -> np.ndarray:  # fmt: skip
    """Read a recording as one channel or as two.

    (S,) the mean of the channels, or (2, S) left and right; see audio.load.

    A mono file is heard on both sides; of more than two channels the first two count. level `normalised`: multiplied
    so that the recording as a whole has the common level (sound/loudness.py).
    """
    if n_channels == 1:
        waveform = audio.load(path, sample_rate, start_seconds, duration_seconds)
    else:
        waveform = audio.load(path, sample_rate, start_seconds, duration_seconds, mono=False)
        waveform = np.repeat(waveform, 2, axis=0) if len(waveform) == 1 else np.ascontiguousarray(waveform[:2])
    return waveform if level == "recorded" else waveform * np.float32(gain_of(path, sample_rate))


def own_samples(n_samples: int, sample_rate: int, record: Input) -> int:
    """Samples at `sample_rate` -> samples at the input's own, rounded, at least one."""
    own = record.sample_rate or sample_rate
    return n_samples if own == sample_rate else max(1, (2 * n_samples * own + sample_rate) // (2 * sample_rate))


def as_heard(waveform: np.ndarray, sample_rate: int, record: Input) -> np.ndarray:
    """Bring a waveform, (S,) or (2, S) at `sample_rate`, to the channels and the rate of an input."""
    waveform = _arranged(waveform, record.channels)
    own = record.sample_rate or sample_rate
    if own == sample_rate:
        return waveform
    resampled = soxr.resample(np.ascontiguousarray(waveform.T), sample_rate, own, "HQ").T
    n_samples = own_samples(waveform.shape[-1], sample_rate, record)
    kept = resampled[..., :n_samples]
    return np.ascontiguousarray(audio.crop_or_pad(kept, n_samples), np.float32)


def _arranged(waveform: np.ndarray, channels: str) -> np.ndarray:
    """Left and right -> their mean, themselves, or mid = (left + right) / 2 and side = (left - right) / 2."""
    if waveform.ndim == 1:
        if channels not in ("", "mono"):
            raise ValueError(f"an input with channels {channels} needs a waveform (2, S), got {waveform.shape}")
        return waveform
    if channels in ("", "mono"):
        return waveform.mean(axis=0)
    return np.stack([waveform.mean(axis=0), (waveform[0] - waveform[1]) / 2]) if channels == "mid_side" else waveform


def hear(
    records: Mapping[str, Input], waveform: np.ndarray, sample_rate: int, given: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """A waveform at the run's rate -> every input of a network, by name, without a batch axis.

    given: the inputs that no sound makes, by name; a missing one is an error.
    """
    inputs = {}
    for name, record in records.items():
        if record.sounds:
            inputs[name] = record.compute(as_heard(waveform, sample_rate, record))
        elif given is None or name not in given:
            raise ValueError(f"the network takes '{name}', which is no part of the sound and was not given")
        else:
            inputs[name] = np.asarray(given[name], np.float32)
    return inputs


def grid(sample_rate: int, record: Input) -> int:
    """Samples at `sample_rate` between moments that lie on a whole step of the input's time axis; 0: there is none."""
    if not record.hop or not record.cuttable:
        return 0
    step = record.hop * sample_rate
    return step // math.gcd(step, record.sample_rate or sample_rate)


def margin(sample_rate: int, record: Input) -> int:
    """Samples at `sample_rate` beside a piece that its border values look at, as whole steps of `grid`."""
    own, step = record.sample_rate or sample_rate, grid(sample_rate, record)
    looked_at = record.margin + (RESAMPLING_MARGIN if own != sample_rate else 0)
    needed = -(-looked_at * sample_rate // own)
    return -(-needed // step) * step if step else 0


def steps(starts: np.ndarray, sample_rate: int, record: Input) -> np.ndarray:
    """Samples at `sample_rate` that lie on the input's grid -> positions on its time axis."""
    return np.asarray(starts, np.int64) * (record.sample_rate or sample_rate) // (record.hop * sample_rate)

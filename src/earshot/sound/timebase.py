"""Frames <-> seconds <-> samples. Nothing else in Earshot converts.

Conventions: a log-mel frame `t` of a centred STFT sits at `t * hop_length` samples; a model that pools `pool` frames
gives segments, and segment `s` COVERS the frames `s * pool ... (s + 1) * pool - 1`. So a segment starts at
`s * pool * hop_length / sample_rate` seconds whatever the clip's length: frame times cannot drift (the source of the
rainforest system stretches 30 segments over 938 frames by a factor of 30 instead of 32, and drifts).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TimeBase:
    """The grid of framewise outputs: `pool` STFT frames of `hop_length` samples at `sample_rate` Hz each."""

    sample_rate: int
    hop_length: int
    pool: int = 1

    def __post_init__(self):
        for name in ("sample_rate", "hop_length", "pool"):
            if getattr(self, name) < 1:
                raise ValueError(f"TimeBase {name} must be at least 1, got {getattr(self, name)}")

    @property
    def frame_seconds(self) -> float:
        """Seconds from one framewise output to the next."""
        return self.pool * self.hop_length / self.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples from one framewise output to the next."""
        return self.pool * self.hop_length

    def seconds(self, frame):
        """Frame index (number or array) -> the second at which it starts."""
        return np.asarray(frame) * self.frame_samples / self.sample_rate

    def frame(self, seconds):
        """Seconds (number or array) -> index of the frame that covers them (int64).

        A time within 1e-6 frames below a border counts as on it, so that `frame(seconds(t)) == t` for every t.
        """
        return np.floor(np.asarray(seconds) * self.sample_rate / self.frame_samples + 1e-6).astype(np.int64)

    def samples(self, seconds: float) -> int:
        """Seconds -> nearest whole number of samples."""
        return round(seconds * self.sample_rate)

    def n_frames(self, n_samples: int) -> int:
        """Samples of a clip -> its framewise outputs: centred STFT frames, the last segment counted when incomplete."""
        return -(-(1 + n_samples // self.hop_length) // self.pool)

    def pooled(self, pool: int) -> TimeBase:
        """The grid of a model that pools `pool` frames of this one."""
        return TimeBase(self.sample_rate, self.hop_length, self.pool * pool)


def repeat_to_frames(segmentwise: np.ndarray, pool: int, n_frames: int) -> np.ndarray:
    """Repeat segments, (..., S, K), to frames, (..., n_frames, K): each `pool` times, cut, or padded with the last
    value."""
    if pool == 1 and n_frames <= segmentwise.shape[-2]:
        return segmentwise[..., :n_frames, :]  # nothing is copied
    index = np.minimum(np.arange(n_frames) // pool, segmentwise.shape[-2] - 1)
    return segmentwise[..., index, :]

"""A log-mel as a network's input: (C, T, F) decibels, C the channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from earshot.inputs.record import Input
from earshot.sound.logmel import LogmelParams, log_mel, n_frames, silence_db


@dataclass(frozen=True, kw_only=True)
class Logmel(LogmelParams, Input):
    """Mel bands in decibels (sound/logmel.py has the conventions); `channels` '' = those of the data."""

    channels: str = ""

    kind: ClassVar[str] = "logmel"
    picture: ClassVar[bool] = True
    decibels: ClassVar[bool] = True
    time_axis: ClassVar[int] = 1

    @property
    def bands(self) -> int:
        return self.n_mels

    @property
    def hop(self) -> int:
        return self.hop_length

    @property
    def margin(self) -> int:
        return -(-self.n_fft // self.hop_length) * self.hop_length

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return self.n_channels, n_frames(n_samples, self), self.n_mels

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        return log_mel(np.atleast_2d(waveform), self)

    def silence(self, n_samples: int) -> np.ndarray:
        return np.full(self.shape(n_samples), silence_db(self), np.float32)

    def twin(self):
        from earshot.inputs.torch_logmel import LogMel

        return LogMel(self)

    def macs(self, n_samples: int) -> int:
        """Window, radix-2 FFT of real samples, power, mel product, each frame and channel."""
        fft = self.n_fft * math.log2(self.n_fft)
        frame = self.n_fft + fft + 2 * self.n_bins + self.n_bins * self.n_mels
        return round(self.n_channels * n_frames(n_samples, self) * frame)

"""A log-mel as a network's input: (C, T, F) decibels, C the channels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from earshot.inputs.record import Input
from earshot.messages import check_choice
from earshot.sound.logmel import LogmelParams, log_mel, mel_centres, n_frames, silence_db

ENGINES = ("own", "torchlibrosa")


@dataclass(frozen=True, kw_only=True)
class Logmel(LogmelParams, Input):
    """Mel bands in decibels (sound/logmel.py has the conventions); `channels` '' = those of the data.

    engine: "own" = NumPy and its torch twin; "torchlibrosa" = that library, in training and in eager prediction.
    Exported graphs and kernels compute the NumPy one, which agrees within 2e-3 dB.
    """

    channels: str = ""
    engine: str = "own"

    kind: ClassVar[str] = "logmel"
    picture: ClassVar[bool] = True
    decibels: ClassVar[bool] = True
    time_axis: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        check_choice("engine", self.engine, ENGINES)

    @property
    def bands(self) -> int:
        return self.n_mels

    @property
    def hertz(self) -> np.ndarray:
        return mel_centres(self)

    @property
    def hop(self) -> int:
        return self.hop_length

    @property
    def margin(self) -> int:
        return frame_margin(self)

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return self.n_channels, n_frames(n_samples, self), self.n_mels

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        if self.engine == "torchlibrosa":
            from earshot.inputs.torchlibrosa_logmel import log_mel_by_torchlibrosa

            return log_mel_by_torchlibrosa(np.atleast_2d(waveform), self)
        return log_mel(np.atleast_2d(waveform), self)

    def silence(self, n_samples: int) -> np.ndarray:
        return np.full(self.shape(n_samples), silence_db(self), np.float32)

    def twin(self):
        if self.engine == "torchlibrosa":
            from earshot.inputs.torchlibrosa_logmel import TorchlibrosaLogMel

            return TorchlibrosaLogMel(self)
        from earshot.inputs.torch_logmel import LogMel

        return LogMel(self)

    def exported(self) -> Logmel:
        return replace(self, engine="own")

    def cache_params(self) -> dict:
        """The engine names a cache where it is not our own alone, so that older caches keep their names."""
        params = super().cache_params()
        return params if self.engine != "own" else {k: v for k, v in params.items() if k != "engine"}

    def macs(self, n_samples: int) -> int:
        return self.n_channels * frame_macs(self, n_samples)


def frame_margin(params: LogmelParams) -> int:
    """Samples beside a piece that its border frames look at: a whole number of hops."""
    return -(-params.n_fft // params.hop_length) * params.hop_length


def frame_macs(params: LogmelParams, n_samples: int) -> int:
    """Multiply-accumulates of one channel: window, radix-2 FFT of real samples, power, product with the bank."""
    fft = params.n_fft * math.log2(params.n_fft)
    frame = params.n_fft + fft + 2 * params.n_bins + params.n_bins * params.n_mels
    return round(n_frames(n_samples, params) * frame)

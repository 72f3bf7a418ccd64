"""A gammatone filter bank on the power spectrum, in decibels: bands as the ear has them, wider than mel's at low Hz.

Filters of order 4 with the bandwidth 1.019 ERB (Glasberg and Moore 1990: ERB = 24.7 (4.37 f / 1000 + 1) Hz), their
centres evenly on the ERB-rate scale from fmin to fmax, each of gain 1 at its centre. The squared magnitude of a
gammatone filter's response, without its mirror image, is (1 + ((f - centre) / b)^2)^-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from earshot.inputs.logmel import frame_macs, frame_margin
from earshot.inputs.record import Input
from earshot.sound.logmel import LogmelParams, n_frames, power_spectrogram, read_only

ORDER, WIDTH = 4, 1.019


@dataclass(frozen=True, kw_only=True)
class Gammatone(Input):
    """A spectrogram of gammatone bands, which follow the ear's resolution: (C, T, F) decibels, frames as in a log-mel.
    Frequencies in Hz, lengths in samples."""

    sample_rate: int = 0
    channels: str = ""
    n_fft: int = 1024
    hop_length: int = 320
    n_bands: int = 64
    fmin: float = 50.0
    fmax: float = 14000.0
    amin: float = 1e-10

    kind: ClassVar[str] = "gammatone"
    picture: ClassVar[bool] = True
    decibels: ClassVar[bool] = True
    time_axis: ClassVar[int] = 1

    def __post_init__(self):
        _ = self.frames  # checks what it shares with a log-mel

    @property
    def frames(self) -> LogmelParams:
        """How its frames are cut and its decibels floored."""
        return LogmelParams(
            sample_rate=self.sample_rate, n_fft=self.n_fft, hop_length=self.hop_length, n_mels=self.n_bands,
            fmin=self.fmin, fmax=self.fmax, amin=self.amin,
        )  # fmt: skip

    @property
    def bands(self) -> int:
        return self.n_bands

    @property
    def hertz(self) -> np.ndarray:
        return centres(self)

    @property
    def hop(self) -> int:
        return self.hop_length

    @property
    def margin(self) -> int:
        return frame_margin(self.frames)

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return self.n_channels, n_frames(n_samples, self.frames), self.n_bands

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        energy = power_spectrogram(np.atleast_2d(waveform), self.frames) @ gammatone_bank(self).T
        return (10 * np.log10(np.maximum(energy, np.float32(self.amin)))).astype(np.float32)

    def twin(self):
        import torch

        from earshot.inputs.torch_logmel import LogMel

        module = LogMel(self.frames)
        module.bank = torch.tensor(gammatone_bank(self)).T.contiguous()
        return module

    def macs(self, n_samples: int) -> int:
        return self.n_channels * frame_macs(self.frames, n_samples)


def erb(hz):
    """Equivalent rectangular bandwidth in Hz of the ear's filter at a frequency."""
    return 24.7 * (4.37 * np.asarray(hz) / 1000 + 1)


def centres(record: Gammatone) -> np.ndarray:
    """Give the centre frequencies of the bands.

    (F,) Hz, evenly on the ERB-rate scale.
    """
    low, high = np.log(erb([record.fmin, record.fmax]))
    return (np.exp(np.linspace(low, high, record.n_bands)) / 24.7 - 1) * 1000 / 4.37


@lru_cache(maxsize=32)
def gammatone_bank(record: Gammatone) -> np.ndarray:
    """Say how much power each FFT bin gives to each gammatone band.

    (F, n_fft // 2 + 1) float32 squared magnitudes.
    """
    bins = np.arange(record.frames.n_bins) * (record.sample_rate / record.n_fft)
    middle = centres(record)[:, None]
    return read_only((1 + ((bins - middle) / (WIDTH * erb(middle))) ** 2) ** -float(ORDER))

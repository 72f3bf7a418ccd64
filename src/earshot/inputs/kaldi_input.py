"""Kaldi's filter bank as a network's input, standardised: what the Audio Spectrogram Transformer hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from earshot.inputs import kaldi
from earshot.inputs.record import Input


@dataclass(frozen=True, kw_only=True)
class Kaldi(Input):
    """Describe a Kaldi filter bank, (1, T, n_mels), always mono at 16 kHz.

    The bank's natural logarithms (inputs/kaldi.py), less `mean`, divided by twice `deviation`: those of the data that
    the network was trained on. The defaults are AudioSet's, which the published AST was trained with.
    """

    sample_rate: int = kaldi.SAMPLE_RATE
    channels: str = "mono"
    n_mels: int = 128
    mean: float = -4.2677393
    deviation: float = 4.5689974

    kind: ClassVar[str] = "kaldi"
    picture: ClassVar[bool] = True
    time_axis: ClassVar[int] = 1
    hop: ClassVar[int] = kaldi.HOP
    margin: ClassVar[int] = -(-kaldi.WINDOW // kaldi.HOP) * kaldi.HOP

    def __post_init__(self):
        if self.sample_rate != kaldi.SAMPLE_RATE or self.channels != "mono":
            raise ValueError(
                f"a Kaldi filter bank hears mono at {kaldi.SAMPLE_RATE} Hz, got {self.channels} at {self.sample_rate} "
                "Hz: leave both out"
            )
        if not 1 <= self.n_mels <= kaldi.N_FFT // 2:
            raise ValueError(f"kaldi n_mels must be from 1 to {kaldi.N_FFT // 2}, got {self.n_mels}")
        if not self.deviation > 0:
            raise ValueError(f"kaldi deviation must be positive, got {self.deviation}")

    @property
    def bands(self) -> int:
        return self.n_mels

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return 1, kaldi.n_frames(n_samples), self.n_mels

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        bank = kaldi.filter_bank(waveform, self.n_mels)
        return ((bank - np.float32(self.mean)) / np.float32(2 * self.deviation))[None]

    def silence(self, n_samples: int) -> np.ndarray:
        value = (np.log(kaldi.FLOOR) - self.mean) / (2 * self.deviation)
        return np.full(self.shape(n_samples), value, np.float32)

    def twin(self):
        from earshot.inputs.torch_kaldi import TorchKaldi

        return TorchKaldi(self.n_mels, self.mean, self.deviation)

    def macs(self, n_samples: int) -> int:
        """Mean, pre-emphasis, window, radix-2 FFT of 512, power, mel product, each frame."""
        bins = kaldi.N_FFT // 2 + 1
        return kaldi.n_frames(n_samples) * (3 * kaldi.WINDOW + kaldi.N_FFT * 9 + 2 * bins + bins * self.n_mels)

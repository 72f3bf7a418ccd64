"""VGGish's examples as a network's input: (N, 96, 64), one picture every 0.96 s, always mono at 16 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from earshot.inputs import vggish
from earshot.inputs.record import Input


@dataclass(frozen=True)
class VggishInput(Input):
    """The published front end of VGGish (inputs/vggish.py), which has nothing to choose."""

    sample_rate: int = vggish.SAMPLE_RATE
    channels: str = "mono"

    kind: ClassVar[str] = "vggish"
    time_axis: ClassVar[int] = 0
    hop: ClassVar[int] = vggish.FRAMES * vggish.HOP

    def __post_init__(self):
        if self.sample_rate != vggish.SAMPLE_RATE or self.channels != "mono":
            raise ValueError(f"VGGish hears mono at {vggish.SAMPLE_RATE} Hz, got {self.channels} at {self.sample_rate} "
                             "Hz: leave both out")  # fmt: skip

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return vggish.n_examples(n_samples), vggish.FRAMES, vggish.N_MELS

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        return vggish.examples(waveform)

    def twin(self):
        from earshot.inputs.vggish_torch import VggishExamples

        return VggishExamples()

    def macs(self, n_samples: int) -> int:
        """Window, radix-2 FFT of 512, magnitude, mel product, each frame."""
        bins = vggish.N_FFT // 2 + 1
        frame = vggish.WINDOW + vggish.N_FFT * 9 + 2 * bins + bins * vggish.N_MELS
        return vggish.n_examples(n_samples) * vggish.FRAMES * frame

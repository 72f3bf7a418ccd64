"""Per-channel energy normalisation of mel bands: each band divided by what it has been like, then compressed.

Wang et al. 2017, "Trainable frontend for robust and far-field keyword spotting", with fixed parameters as librosa.pcen
has them: M_t = (1 - b) M_{t-1} + b E_t with M_{-1} = 1, PCEN = (E / (eps + M)^gain + bias)^power - bias^power. E are
the mel energies of log-mel times `scale`. Since M remembers, a window's values are no part of the whole recording's:
every window is normalised by itself, in training and prediction alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from earshot.inputs.logmel import Logmel
from earshot.sound.logmel import mel_energies


@dataclass(frozen=True, kw_only=True)
class Pcen(Logmel):
    """A log-mel's bands, (C, T, F), with their levels evened out (PCEN) in place of decibels. `amin`, `ref` and
    `top_db` say nothing here."""

    gain: float = 0.98
    bias: float = 2.0
    power: float = 0.5
    time_constant: float = 0.4  # seconds of the smoothing
    eps: float = 1e-6
    scale: float = 2.0**31  # of a waveform within -1 ... 1 to the range for which the other values are made

    kind: ClassVar[str] = "pcen"
    decibels: ClassVar[bool] = False
    cuttable: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("bias", "power", "time_constant", "eps", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"pcen {name} must be positive, got {getattr(self, name)}")
        if self.engine != "own":
            raise ValueError(f"pcen has no engine but its own, got {self.engine}: leave engine out")
        if self.gain < 0:
            raise ValueError(f"pcen gain must not be negative, got {self.gain}")

    @property
    def smoothing(self) -> float:
        """b, the share of the newest frame, for which the filter's response falls to half at `time_constant`."""
        frames = self.time_constant * self.sample_rate / self.hop_length
        return float((np.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2))

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        from scipy.signal import lfilter  # 50 MB, which a kernel of other front ends need not hold

        energy = self.scale * mel_energies(np.atleast_2d(waveform), self).astype(np.float64)
        b = self.smoothing
        start = np.full((len(energy), 1, energy.shape[2]), 1 - b)
        smooth, _ = lfilter([b], [1, b - 1], energy, axis=1, zi=start)
        quotient = energy * np.exp(-self.gain * (np.log(self.eps) + np.log1p(smooth / self.eps)))
        return (self.bias**self.power * np.expm1(self.power * np.log1p(quotient / self.bias))).astype(np.float32)

    def silence(self, n_samples: int) -> np.ndarray:
        return np.zeros(self.shape(n_samples), np.float32)

    def twin(self):
        from earshot.inputs.torch_pcen import TorchPcen

        return TorchPcen(self)

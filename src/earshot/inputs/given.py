"""Inputs that need no computation: the waveform itself, columns of the clip table, a vector that comes with a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from earshot.inputs.record import Input


@dataclass(frozen=True)
class Waveform(Input):
    """The waveform, (S,), or (2, S) of two channels."""

    sample_rate: int = 0
    channels: str = ""

    kind: ClassVar[str] = "waveform"
    time_axis: ClassVar[int] = -1
    hop: ClassVar[int] = 1

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return (n_samples,) if self.n_channels == 1 else (self.n_channels, n_samples)

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        return waveform

    def twin(self):
        from torch import nn

        return nn.Identity()


@dataclass(frozen=True)
class Given(Input):
    """Numbers of the shape `size` that come with a clip, such as a cached embedding; silence has zeros."""

    sample_rate: int = 0
    channels: str = ""
    size: tuple[int, ...] = (0,)

    kind: ClassVar[str] = "given"
    sounds: ClassVar[bool] = False

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return self.size

    def silence(self, n_samples: int) -> np.ndarray:
        return np.zeros(self.size, np.float32)

    def resolved(self, sample_rate: int, channels: str, where: str) -> Given:
        return self


@dataclass(frozen=True)
class Metadata(Given):
    """Numeric columns of the clip table, in this order (data.metadata); not standardised: the network's own matter.

    missing: the value of each column that stands for one that is not there, as text; '' = there must be one, 'nan' =
    the network is handed the gap.
    """

    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    kind: ClassVar[str] = "metadata"

    def shape(self, n_samples: int) -> tuple[int, ...]:
        return (len(self.columns),)

    def silence(self, n_samples: int) -> np.ndarray:
        return np.zeros(len(self.columns), np.float32)

"""What every kind of network input says of itself: its rate, channels and shape, how it is computed, what silence is.

A kind is one frozen dataclass that inherits from `Input` and stands in `kinds.KINDS`. All others (caches, reading,
training examples, export, calibration, costs, speed) ask the record and know no kind by name. NumPy only: a twin for
training on a device is imported where it is made.

Lengths are in samples at the record's OWN rate; shapes are without the batch. A waveform is (S,) of a mono record and
(2, S) of one with two channels, left and right or mid and side.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from earshot.messages import suggest

CHANNELS = {"mono": 1, "stereo": 2, "mid_side": 2}


class Input:
    """One input of a network. A kind sets the class attributes that differ and the methods that raise here."""

    kind: ClassVar[str] = ""  # its name in a config
    sounds: ClassVar[bool] = True  # made of sound; False: it comes with the clip (columns of a table)
    picture: ClassVar[bool] = False  # (C, T, F): what acts on spectrograms may act on it
    of_clip: ClassVar[bool] = False  # cut from rows of the whole recording, computed once (inputs/extractor.py)
    has_twin: ClassVar[bool] = True  # False: training computes it by NumPy, in the loader
    decibels: ClassVar[bool] = False  # a picture whose values can be turned into energies and back
    time_axis: ClassVar[int | None] = None  # the axis that grows with the sound
    bands: int = 0  # F of a picture
    hop: int = 0  # samples a step of the time axis
    cuttable: ClassVar[bool] = True  # a window's values are (but at its borders) a part of the whole recording's
    margin: int = 0  # samples of true sound beside a piece that its border values look at
    sample_rate: int
    channels: str

    @property
    def n_channels(self) -> int:
        return CHANNELS[self.channels or "mono"]

    @property
    def hertz(self) -> np.ndarray | None:
        """The middle of each band of a picture, (F,) Hz; None where its rows are no bands."""
        return None

    def shape(self, n_samples: int) -> tuple[int, ...]:
        """Shape of the input for so many samples."""
        raise NotImplementedError

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        """Compute the input from a waveform, with NumPy.

        (S,) or (2, S) at its rate -> the input, float32.
        """
        raise NotImplementedError

    def twin(self):
        """The same as a torch module, (B, S) or (B, 2, S) -> (B, ...), where `has_twin`."""
        raise NotImplementedError

    def silence(self, n_samples: int) -> np.ndarray:
        """What it is of digital silence."""
        return self.compute(np.zeros((2, n_samples) if self.n_channels == 2 else n_samples, np.float32))

    def macs(self, n_samples: int) -> int:
        """Multiply-accumulates of computing it."""
        return 0

    def resolved(self, sample_rate: int, channels: str, where: str):
        """Itself with the data's rate and channels where it names none; ValueError where the data cannot give them."""
        own, arranged = self.sample_rate or sample_rate, self.channels or channels
        if own > sample_rate:
            raise ValueError(
                f"{where}.sample_rate is {own} Hz, above data.sample_rate ({sample_rate} Hz), at which recordings are "
                f"decoded: set data.sample_rate={own}, or lower the former"
            )
        if arranged not in CHANNELS:
            raise ValueError(f"{where}.channels is '{arranged}'{suggest(arranged, CHANNELS)}; choose one of "
                             f"{', '.join(CHANNELS)}")  # fmt: skip
        if CHANNELS[arranged] > CHANNELS[channels]:
            raise ValueError(
                f"{where}.channels is {arranged} but data.channels is {channels}: one channel is decoded; set "
                "data.channels=stereo"
            )
        return dataclasses.replace(self, sample_rate=own, channels=arranged)

    def exported(self) -> Input:
        """The record that an exported graph is fed by: computed by NumPy alone."""
        return self

    def to_json(self) -> dict:
        """All that makes it, as JSON holds it; `kinds.make_input` reads it."""
        return {"kind": self.kind} | {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def cache_params(self) -> dict:
        """What names a cache of it: 50 and 50.0 are one, and of one channel nothing is said."""
        params = self.to_json()
        del params["kind"]
        if params["channels"] in ("", "mono"):
            del params["channels"]
        floats = [f.name for f in dataclasses.fields(self) if f.type in ("float", float)]
        return params | {name: float(params[name]) for name in floats}


def _plain(value):
    return list(value) if isinstance(value, tuple) else value

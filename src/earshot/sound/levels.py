"""The level of a recording as a whole: samples that are no sound, floats beyond full scale, channels that cancel.

One rule for every reader, so that a crop, a cache and a prediction hear the same:

- A sample that is NaN, infinite or beyond 2^31 (a whole number of 32 bits taken for a float reaches that) counts as 0,
  and so do rare spikes far beyond the rest. A file of which more than half is so is unreadable.
- A recording of float samples that goes beyond -1 ... 1, as recorders of 32-bit float allow, is divided by its peak.
  Files of lossy codecs overshoot a little when they are decoded: they are left as they are.
- Stereo whose channels are of opposite phase would be silence as a mean: its louder channel is heard alone.
- A recording in which nothing ever moves, as a dead microphone writes it, is heard as it is, and told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LARGEST = np.float32(2**31)
SPIKE_PEAK, SPIKE_SHARE = 100.0, 1e-4  # so few samples beyond full scale that reach so far are faults, not sound
CANCELLED = 0.02  # of the power that the mean of unlike channels has: the channels cancel
SUSPECTED = 0.1  # in one crop: the whole file is looked at


@dataclass(frozen=True, kw_only=True)
class Survey:
    """One pass over a file: `samples` a channel, `values` in all, how many of them are not finite (`infinite`), beyond
    2^31 (`huge`) or beyond full scale (`over`), the largest magnitude `peak` of those below 2^31, the mean `power` of
    each channel and of their mean, and whether all values are the same (`still`)."""

    samples: int
    values: int
    infinite: int
    huge: int
    over: int
    peak: float
    power: tuple[float, ...]
    mean_power: float
    still: bool = False

    @property
    def limit(self) -> float:
        """Magnitude from which on a sample is no sound: 1 where the few beyond it are spikes."""
        spikes = self.peak > SPIKE_PEAK and self.over <= SPIKE_SHARE * self.values
        return 1.0 if spikes else float(LARGEST)

    @property
    def faulty(self) -> int:
        """Values that count as 0."""
        return self.infinite + self.huge + (self.over if self.limit == 1 else 0)

    @property
    def fault(self) -> str:
        """How many values count as 0, in words."""
        beyond = " or far beyond full scale" if self.faulty > self.infinite else ""
        return f"{self.faulty} of its {self.values} samples are NaN or infinite{beyond}"

    @property
    def scale(self) -> float:
        """What float samples are multiplied by."""
        return 1 / self.peak if self.peak > 1 and self.limit > 1 else 1.0

    @property
    def cancels(self) -> bool:
        """Whether the mean of the channels would be next to silence where they are not."""
        return len(self.power) > 1 and self.mean_power * len(self.power) < CANCELLED * float(np.mean(self.power))

    @property
    def loudest(self) -> int:
        return int(np.argmax(self.power))


def survey(pieces: Iterable[np.ndarray]) -> Survey:
    """Arrays (n, C) float32 that follow one another -> Survey."""
    samples = values = infinite = huge = over = 0
    peak, power, mean_power, levels = 0.0, np.zeros(0), 0.0, set()
    for data in pieces:
        sound, faulty = without(data, LARGEST)
        magnitude = np.abs(sound)
        samples, values = samples + len(data), values + data.size
        not_finite = int(data.size - np.isfinite(data).sum()) if faulty else 0
        infinite, huge = infinite + not_finite, huge + faulty - not_finite
        over += int((magnitude > 1).sum())
        peak = max(peak, float(magnitude.max(initial=0)))
        if len(levels) < 2 and data.size:
            levels |= {float(sound.min()), float(sound.max())}
        sound = sound.astype(np.float64)
        power = (sound**2).sum(axis=0) + (power if len(power) else 0)
        mean_power += float((sound.mean(axis=1) ** 2).sum())
    n = max(1, samples)
    return Survey(
        samples=samples,
        values=values,
        infinite=infinite,
        huge=huge,
        over=over,
        peak=peak,
        power=tuple(power / n),
        mean_power=mean_power / n,
        still=len(levels) == 1 and not infinite + huge,
    )


def without(data: np.ndarray, limit: float) -> tuple[np.ndarray, int]:
    """The same with 0 for what is no finite number or beyond `limit`, and how many of them there were."""
    good = np.abs(data) <= limit  # False for NaN
    if good.all():
        return data, 0
    return np.where(good, data, np.float32(0)), int(data.size - good.sum())


def is_still(data: np.ndarray) -> bool:
    """Whether all values of (n, C) are the same."""
    return bool(len(data)) and data[0, 0] == data[-1, 0] == data[len(data) // 2, 0] and bool((data == data[0, 0]).all())


def may_cancel(data: np.ndarray) -> bool:
    """Say whether the mean of the channels, (n, C), has next to nothing of their power."""
    if not data.size:
        return False
    power, mean = float(np.mean(data.astype(np.float64) ** 2)), data.mean(axis=1, dtype=np.float64)
    return power > 0 and float(np.mean(mean**2)) * data.shape[1] < SUSPECTED * power

"""Pictures of recordings: a log-mel with Hz on its axis."""

from __future__ import annotations

import numpy as np

MARKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)  # Hz that an axis names
APART = 0.07  # of the height of a picture, between two named frequencies
FLOOR = 5  # percentile of the levels that is black


def log_mel_axis(axis, logmel: np.ndarray, hertz: np.ndarray, seconds: float, start: float = 0.0):
    """Draw a log-mel into an axis, frequency up, from second `start` on.

    logmel: (T, F) dB; hertz: (F,) centre of each band. The colours go from the 5th percentile to the loudest cell.
    """
    low, high = np.percentile(logmel, FLOOR), logmel.max()
    axis.imshow(
        logmel.T, origin="lower", aspect="auto", extent=(start, start + seconds, -0.5, len(hertz) - 0.5), cmap="magma",
        interpolation="nearest", vmin=low, vmax=max(high, low + 1),
    )  # fmt: skip
    hertz_ticks(axis, hertz)
    axis.tick_params(labelsize=7)
    axis.set_xlim(start, start + seconds)


def hertz_ticks(axis, hertz: np.ndarray):
    """Name frequencies on the y axis of a picture whose rows are bands, the lowest 0; hertz: (F,) their centres."""
    marks = [m for m in MARKS if hertz[0] <= m <= hertz[-1]] or [float(hertz[0]), float(hertz[-1])]
    places, kept = np.interp(marks, hertz, np.arange(len(hertz))), []
    for i in reversed(range(len(marks))):  # on a mel axis low frequencies lie close together
        if not kept or places[kept[-1]] - places[i] >= APART * len(hertz):
            kept.append(i)
    axis.set_yticks(places[kept], [frequency(marks[i]) for i in kept])
    axis.set_ylabel("Hz", fontsize=8)


def frequency(hertz: float) -> str:
    """Write a frequency as axes have room for it: 500, 2k."""
    return f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}"

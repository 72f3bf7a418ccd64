"""Pictures of recordings: log-mels with Hz on their axis, and below them what was predicted and what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.pictures.folds import _figure, _save, shown
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel, mel_centres

MARKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)  # Hz that an axis names
APART = 0.07  # of the height of a picture, between two named frequencies
FLOOR = 5  # percentile of the levels that is black
HIGHEST = 48000  # Hz of the sound that is looked at, at most
LONGEST = 120.0  # seconds of a recording in one map
MOST_ROWS = 12  # classes of a map
SEEN = 0.1  # output from which on a class without an event is worth a row


@dataclass(frozen=True, kw_only=True)
class EventMap:
    """One recording: what a network answered over time, and what is true.

    frames: (S, K) outputs every `step` seconds; true: (S, K) activity, None where nobody knows when; labels: names of
    the classes that are true of the whole; sound: its file.
    """

    title: str
    sound: Path
    frames: np.ndarray
    step: float
    true: np.ndarray | None
    labels: Sequence[str]
    classes: Sequence[str]

    @property
    def start(self) -> float:
        """The first second that is shown: of a long recording where the most is going on."""
        n = int(LONGEST / self.step)
        busy = self.frames.max(axis=1) + (0 if self.true is None else self.true.any(axis=1))
        if len(busy) <= n:
            return 0.0
        sums = np.concatenate([[0], np.cumsum(busy)])
        return float((sums[n:] - sums[:-n]).argmax()) * self.step

    @property
    def rows(self) -> list[int]:
        """The classes that are shown: those that are true or were answered, in their order; all where they are few."""
        if len(self.classes) <= MOST_ROWS:
            return list(range(len(self.classes)))
        known = np.array([c in set(self.labels) for c in self.classes], float)
        weight = self.frames.max(axis=0) + 2 * (known if self.true is None else self.true.any(axis=0))
        best = [k for k in np.argsort(-weight, kind="stable")[:MOST_ROWS] if weight[k] >= SEEN]
        return sorted(int(k) for k in best or np.argsort(-weight, kind="stable")[:1])


def event_maps(maps: Sequence[EventMap], path: Path):
    """Draw recordings below each other: log-mel, predicted activity, true activity, on one time axis each.

    A recording that cannot be read is left out; where none can, nothing is drawn.
    """
    drawn = [(one, view) for one in maps if (view := view_of_file(one.sound, one.start, _span(one))) is not None]
    if not drawn:
        return
    heights = []
    for one, _ in drawn:
        rows = 0.5 + 0.16 * len(one.rows)
        heights += [1.6, rows, rows * (one.true is not None)]
    heights = [h for h in heights if h]
    figure, axes = _figure(11, sum(heights) + 0.75 * len(heights), len(heights), 1)
    grid = axes[0, 0].get_gridspec()
    grid.set_height_ratios(heights)
    place = 0
    for one, (logmel, hertz, seconds) in drawn:
        log_mel_axis(axes[place, 0], logmel, hertz, seconds, one.start)
        axes[place, 0].set_title(shown(one.title, 120), fontsize=9)
        parts = [("predicted", one.frames), ("true", one.true)][: 1 + (one.true is not None)]
        for name, values in parts:
            place += 1
            scale = f"{name}, dark 0 to yellow 1"
            said = f"{scale} (true of the whole: {', '.join(one.labels) or 'nothing'})" if one.true is None else scale
            activity_axis(axes[place, 0], values, one, seconds, shown(said, 100))
        axes[place, 0].set_xlabel("seconds", fontsize=8)
        place += 1
    _save(figure, path)


def activity_axis(axis, values: np.ndarray, one: EventMap, seconds: float, title: str):
    """Draw activity (S, K) as cells, a row a class, on the time axis of the log-mel above."""
    first = round(one.start / one.step)
    cells = values[first : first + max(1, int(np.ceil(seconds / one.step)))][:, one.rows].astype(float)
    extent = (one.start, one.start + len(cells) * one.step, len(one.rows), 0)
    axis.imshow(cells.T, aspect="auto", extent=extent, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    axis.set_yticks(np.arange(len(one.rows)) + 0.5, [shown(one.classes[k], 24) for k in one.rows], fontsize=7)
    axis.set_xlim(one.start, one.start + seconds)
    axis.set_title(title, fontsize=8)
    axis.tick_params(axis="x", labelsize=7)


def _span(one: EventMap) -> float:
    return min(LONGEST, len(one.frames) * one.step)


def view_of_file(path: Path, start: float, seconds: float) -> tuple[np.ndarray, np.ndarray, float] | None:
    """A stretch of a recording -> (log-mel (T, F), Hz of the bands, its seconds); None where it cannot be read."""
    try:
        rate = min(HIGHEST, audio.info(path).sample_rate)
        waveform = audio.load(path, rate, start, seconds)
    except audio.UnreadableAudio:
        return None
    params = view_of(rate)
    return log_mel(waveform, params), mel_centres(params), len(waveform) / rate


def view_of(rate: int) -> LogmelParams:
    """The log-mel that people look at: every 10 ms, windows of about 40 ms, up to half the rate."""
    n_fft = max(512, 2 ** round(np.log2(0.04 * rate)))
    return LogmelParams(sample_rate=rate, n_fft=n_fft, hop_length=rate // 100, n_mels=80, fmin=50, fmax=rate / 2)


def logmels(
    images: list[tuple[str, np.ndarray]], frame_seconds: float, path: Path, columns: int = 3,
    hertz: np.ndarray | None = None,
):  # fmt: skip
    """Draw a sheet of log-mels, time to the right, frequency up, one colour scale.

    images: (title, (T, F) decibels) pairs; hertz: (F,) centre of each band, None: bands are numbered.
    """
    rows = -(-len(images) // columns)
    figure, axes = _figure(4.2 * columns, 2.4 * rows, rows, columns)
    low = min(np.percentile(image, 2) for _, image in images)
    high = max(image.max() for _, image in images)
    for axis, (title, image) in zip(axes.flat, images):
        extent = (0, len(image) * frame_seconds, -0.5, image.shape[1] - 0.5)
        drawn = axis.imshow(image.T, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma",
                            interpolation="nearest")  # fmt: skip
        axis.set_title(shown(title, 60), fontsize=9)
        if hertz is not None and len(hertz) == image.shape[1]:
            hertz_ticks(axis, hertz)
            axis.set_ylabel("")
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    figure.colorbar(drawn, ax=axes, label="dB", pad=0.01, fraction=0.02).ax.tick_params(labelsize=7)
    figure.supxlabel("seconds", fontsize=9)
    figure.supylabel("band" if hertz is None else "Hz", fontsize=9)
    _save(figure, path)


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

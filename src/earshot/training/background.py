"""Background from recordings laid under training clips: focal recordings come to sound as soundscapes do.

Any recordings will do: soundscapes of the sites that count, labelled or not. Labels stay those of the clip, so that
what calls in the background unnamed is a false absence: keep it quiet (`snr_db`), or choose recordings without calls.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot.augment.background import BackgroundMixing
from earshot.config import Config
from earshot.data.unlabelled import find_recordings
from earshot.inputs.record import CHANNELS
from earshot.inputs.waveforms import decode
from earshot.messages import few, plural
from earshot.sound import audio

QUIET = 1e-6  # RMS of silence
EVENTS_HEARD = 32  # of a recording, to know how loud they are


def make_background(config: Config) -> Background | None:
    """The recordings of augment.background, found and opened; None without."""
    record = config.augment.background
    if not record.source or not config.optim.epochs:
        return None
    table, root = find_recordings(Path(record.source))
    return Background(record, table, root, config.data.sample_rate, CHANNELS[config.data.channels])


class Background:
    """Recordings to draw background from."""

    def __init__(
        self, record: BackgroundMixing, table: pd.DataFrame, root: Path, sample_rate: int, n_channels: int = 1
    ):
        """table: `path` of recordings below root. Errors: none of them can be read."""
        self.record, self.sample_rate, self.n_channels = record, sample_rate, n_channels
        self.paths, self.seconds, lost = [], [], []
        for path in table.path:
            try:
                self.seconds.append(audio.info(root / path).duration)
                self.paths.append(root / path)
            except audio.UnreadableAudio as error:
                lost.append(str(error))
        if not self.paths:
            raise ValueError(
                f"augment.background.source {record.source} holds no recording that can be read: {few(lost)}"
            )
        if lost:
            audio.warn_once(
                f"augment.background: {plural(len(lost), 'recordings')} cannot be read, left out: {few(lost, 3)}"
            )

    def under(self, waveform: np.ndarray, rng: np.random.Generator, level: float | None = None) -> np.ndarray:
        """Lay background under a waveform, (S,) or (C, S), with probability p; an unreadable one leaves it as it is.

        level: RMS that stands for the waveform's own, as `level_of_events` gives it.
        """
        chance, place, where = rng.random(), int(rng.integers(len(self.paths))), rng.random()
        snr = rng.uniform(*self.record.snr_db)
        if chance >= self.record.p:
            return waveform
        n_samples, rate = waveform.shape[-1], self.sample_rate
        start = where * max(0.0, self.seconds[place] - n_samples / rate)
        try:
            other = decode(self.paths[place], rate, self.n_channels, start, n_samples / rate)
        except audio.UnreadableAudio as error:
            audio.warn_once(f"augment.background leaves examples that would hear it as they are: {error}")
            return waveform
        if not other.shape[-1]:
            return waveform
        other = np.concatenate([other] * -(-n_samples // other.shape[-1]), axis=-1)[..., :n_samples]
        own, added = rms(waveform) if level is None else level, rms(other)
        if own <= QUIET or added <= QUIET:
            return waveform
        return (waveform + np.float32(own / added * 10 ** (-snr / 20)) * other).astype(np.float32)


def level_of_events(path: Path, events: pd.DataFrame, sample_rate: int, n_channels: int = 1) -> float | None:
    """RMS of a recording over its events (onset, offset in seconds); None where it has none that sound.

    Of more than `EVENTS_HEARD` that many are heard, evenly spread over the recording.
    """
    spans = events[["onset", "offset"]].drop_duplicates().sort_values("onset").to_numpy(float)
    spans = spans[spans[:, 1] > spans[:, 0]]
    if len(spans) > EVENTS_HEARD:
        spans = spans[np.linspace(0, len(spans) - 1, EVENTS_HEARD).round().astype(int)]
    energy, n_samples = 0.0, 0
    for onset, offset in spans:
        heard = decode(path, sample_rate, n_channels, onset, offset - onset)
        energy, n_samples = energy + float(np.sum(np.square(heard, dtype=np.float64))), n_samples + heard.size
    level = float(np.sqrt(energy / n_samples)) if n_samples else 0.0
    return level if level > QUIET else None


def rms(waveform: np.ndarray) -> float:
    """Root of a waveform's mean power over all samples and channels."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))

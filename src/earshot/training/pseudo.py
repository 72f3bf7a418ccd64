"""Pseudo-labelled windows among the training examples: how many, which one, and what it is heard with.

An example's window depends on (seed, epoch, clip, repeat) alone, by a stream of its own, so that nothing else that is
left to chance moves when pseudo-labels come in. `soundscape` of an example says what may not be mixed with what: 1 a
labelled soundscape, 2 one that is or holds a pseudo-labelled window, 0 any other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot.augment.pseudo import PseudoMixing
from earshot.config import Config
from earshot.data.caches import waveform_cache
from earshot.data.labels import annotated_clips
from earshot.data.prepared import PreparedData
from earshot.inputs.network import Inputs
from earshot.inputs.waveforms import decode
from earshot.messages import plural, suggest
from earshot.sound import audio
from earshot.sound.timebase import TimeBase

LABELLED, PSEUDO = 1, 2  # values of `soundscape`
QUIET = 1e-6  # RMS of silence


class PseudoWindows:
    """The windows that a fold's examples draw from, and how often an epoch's examples do."""

    def __init__(self, prepared: PreparedData, config: Config, inputs: Inputs, cache_folder: Path):
        """prepared: the training clips with their fold's pseudo-labels."""
        self.record, self.epochs, self.sample_rate = config.augment.pseudo, config.optim.epochs, inputs.sample_rate
        self.windows, self.n_channels, manifest = prepared.pseudo, inputs.n_channels, prepared.pseudo_manifest
        self.seconds, self.source, self.level = manifest.window_seconds, Path(manifest.source), config.data.level
        self.target, self.mask = self.windows.aligned(manifest.classes, prepared.classes)
        self.frames = self.windows.aligned_frames(manifest.classes, prepared.classes)
        self.frame_seconds = manifest.frame_seconds
        self.cap = mass_cap(self.record, self.target, prepared)
        self.soundscapes = labelled_soundscapes(prepared.clips, self.record)
        self.paths = self.windows.paths
        if config.data.cache == "waveform" and len(self.windows):
            self.paths = self._cached(cache_folder)

    def _cached(self, folder: Path) -> np.ndarray:
        """The windows' recordings resampled once, as the clips' are."""
        first, place = np.unique(self.windows.paths, return_inverse=True)
        table = pd.DataFrame({"clip_id": first, "path": first})
        cached = waveform_cache(folder, table, self.source, self.sample_rate, n_channels=self.n_channels)
        return cached.path.to_numpy()[place]

    def probability(self, epoch: int) -> float:
        """Chance that an example of this epoch is, or holds, a window: the config's ramp under the cap of masses."""
        return min(self.record.probability(epoch, self.epochs), self.cap)

    def draw(self, seed: list[int], labelled_index: int) -> tuple[int, np.random.Generator] | None:
        """The window of an example and the stream that it is cut with, or None: the clip alone."""
        rng = np.random.default_rng([*seed, 0x95])
        chance, window = rng.random(), int(rng.integers(max(1, len(self.windows))))
        if not len(self.windows) or chance >= self.probability(seed[1]):
            return None
        apart = self.record.how == "mix" and not self.record.with_soundscapes
        if apart and self.soundscapes[labelled_index]:
            return None
        return window, rng

    def kind(self, labelled_index: int, window: int | None) -> int:
        """What the example counts as where soundscapes are kept apart."""
        if self.record.with_soundscapes:
            return 0
        return PSEUDO if window is not None else LABELLED * int(self.soundscapes[labelled_index])

    def offset(self, crop: int, rng: np.random.Generator) -> int:
        """Draw where in a window a crop of so many samples begins, in samples."""
        return int(rng.integers(max(0, round(self.seconds * self.sample_rate) - crop) + 1))

    def when(self, window: int, offset: int, base: TimeBase, n_frames: int) -> tuple[np.ndarray, ...]:
        """Targets of a crop that begins `offset` samples into the window: frames (n_frames, K), its own and mask (K,).

        Each frame takes what the teachers' nearest one says, NaN where they are not sure. What is heard nowhere in the
        crop is none of it, and unknown where they are sure of no sound in it but not of every silence.
        """
        middles = offset / self.sample_rate + (np.arange(n_frames) + 0.5) * base.frame_samples / base.sample_rate
        place = np.minimum((middles / self.frame_seconds).astype(int), self.frames.shape[1] - 1)
        own = self.frames[window][place].astype(np.float32)
        highest, unsure = np.fmax.reduce(own, axis=0, initial=0), np.isnan(own).any(axis=0)
        known = self.mask[window].astype(np.float32) * ~(unsure & (highest < 1))
        return own, np.minimum(self.target[window].astype(np.float32), highest), known

    def crop(self, window: int, crop: int, rng: np.random.Generator, offset: int | None = None) -> np.ndarray:
        """Cut `crop` samples, (S,) or (C, S), of the window; UnreadableAudio where there is nothing.

        offset: sample of the window at which it begins; None: drawn.
        """
        rate, offset = self.sample_rate, self.offset(crop, rng) if offset is None else offset
        start = float(self.windows.starts[window]) + offset / rate
        waveform = decode(self.source / self.paths[window], rate, self.n_channels, start, crop / rate, self.level)
        if not waveform.shape[-1]:
            raise audio.UnreadableAudio(f"{self.source / self.paths[window]} holds nothing from {start:.2f} s on")
        return audio.crop_or_pad(waveform, crop)

    def laid_over(self, waveform: np.ndarray, window: int, rng: np.random.Generator) -> np.ndarray:
        """A clip's crop with the window over it, at a level of `gain_db` above the crop's own."""
        other = self.crop(window, waveform.shape[-1], rng)
        gain = rng.uniform(*self.record.gain_db)
        own, added = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (waveform, other))
        level = own / added * 10 ** (gain / 20) if own > QUIET and added > QUIET else 1.0
        return (waveform + np.float32(level) * other).astype(np.float32)

    def over(self, target: np.ndarray, mask: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Targets and mask of a clip with a window over it: a class is there where either has it; a class that the
        clip is not known to have stays unknown unless the clip has it."""
        other, known = self.target[window].astype(np.float32), self.mask[window]
        both = np.maximum(np.where(mask > 0, target, 0), other)
        sure = np.minimum(mask, known)
        return both.astype(np.float32), np.maximum(sure, (mask > 0) & (target >= 1)).astype(np.float32)


def mass_cap(record: PseudoMixing, target: np.ndarray, prepared: PreparedData) -> float:
    """Highest probability at which an epoch's pseudo-labels weigh at most `max_mass` times its labels; 1: no cap."""
    own = float((prepared.target * (prepared.mask > 0)).sum()) / max(1, len(prepared.clips))
    other = record.weight * float(target.sum(dtype=np.float64)) / max(1, len(target))
    if not record.max_mass or not other:
        return 1.0
    if record.how == "mix":
        return min(1.0, record.max_mass * own / other)
    return record.max_mass * own / (record.max_mass * own + other)  # p other = max_mass (1 - p) own


def labelled_soundscapes(clips: pd.DataFrame, record: PseudoMixing) -> np.ndarray:
    """Say which labelled clips are soundscapes, (N,): by the config's columns, else `annotated` beside others."""
    if not record.soundscapes:
        annotated = annotated_clips(clips, None)
        return annotated if not annotated.all() else np.zeros(len(clips), bool)
    found = np.ones(len(clips), bool)
    for column, value in record.soundscapes.items():
        if column not in clips:
            raise ValueError(
                f"augment.pseudo.soundscapes names column '{column}', which clips.csv has not"
                f"{suggest(column, clips.columns)}"
            )
        found &= (clips[column].astype(str) == value).to_numpy()
    return found


def check_pseudo(config: Config, data: PreparedData, inputs: Inputs):
    """Raise where pseudo-labelled windows cannot be heard as this run hears its clips. data: of a fold's training."""
    if not config.data.pseudo or not config.optim.epochs:
        return
    d, how = config.data, config.augment.pseudo.how
    if d.cache == "embedding" or (d.cache == "logmel" and how == "mix"):
        raise ValueError(
            f"data.pseudo has windows that data.cache={d.cache} does not hold"
            f"{' the sound of' * (d.cache == 'logmel')}: set data.cache=waveform or none"
        )
    if given := [name for name in inputs if not inputs[name].sounds or inputs[name].of_clip]:
        raise ValueError(
            f"data.pseudo has windows of sound alone, and the network takes {', '.join(given)} besides: leave "
            "data.pseudo empty, or train a network that hears only"
        )
    window = data.pseudo_manifest.window_seconds
    if d.crop_seconds > window + 1e-6:
        raise ValueError(
            f"data.crop_seconds is {d.crop_seconds:g}, and the pseudo-labels of {d.pseudo} are of windows of "
            f"{window:g} s: what is heard beside them nobody labelled. Set data.crop_seconds={window:g}, or label with "
            "teachers that hear longer windows (predict.window_seconds)"
        )
    labelled_soundscapes(data.clips, config.augment.pseudo)


def told(windows: PseudoWindows) -> str:
    """How the windows train, as a line for people."""
    record = windows.record
    asked = [record.probability(e, windows.epochs) for e in range(windows.epochs)] or [0.0]
    text = f"augment.pseudo: {record.how}, probability {asked[0]:.2f} to {max(asked):.2f}"
    if max(asked) > windows.cap:
        text += f", held at {windows.cap:.2f} so that pseudo-labels weigh at most {record.max_mass:g} x the labels"
    if record.off_epochs:
        text += f", off in the last {plural(record.off_epochs, 'epochs')}"
    count = int(windows.soundscapes.sum())
    apart = "may be" if record.with_soundscapes else "are never"
    return text + (f"; {count} labelled soundscapes {apart} on one example with them" if count else "")

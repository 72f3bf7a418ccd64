"""Sound events without learning: a threshold on the energy of a frequency band, every choice tuned on one split.

With training events it names what it finds: the class whose mean log-mel spectrum is nearest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from event_tuning import Split, best_of, event_f1, post_text, tune_post
from scipy.ndimage import percentile_filter

from earshot.events import PostProcess
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel
from earshot.sound.timebase import TimeBase

RATE, N_FFT = 32000, 512
GRID = TimeBase(RATE, 160)  # frames of 5 ms
BANDS = (
    (500, 14000), (1000, 12000), (1000, 8000), (2000, 8000), (2000, 12000), (3000, 8000), (3000, 12000), (4000, 8000),
)  # Hz  # fmt: skip
BACKGROUNDS = ("none", "recording", "running")
BACKGROUND_PERCENTILE, BACKGROUND_SECONDS = 20, 2.0
FEATURES = ("level", "shape", "over background")
SPECTRUM = LogmelParams(sample_rate=RATE, n_fft=N_FFT, hop_length=GRID.hop_length, n_mels=64, fmin=500, fmax=14000)


def band_levels(waveform: np.ndarray) -> np.ndarray:
    """(S,) -> (T, bands) dB: power of 16-ms Hann frames, centred every 5 ms, in each of BANDS."""
    padded = np.pad(waveform, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[:: GRID.hop_length]
    power = np.abs(np.fft.rfft(frames * np.hanning(N_FFT + 1)[:-1].astype(np.float32), axis=1)) ** 2
    frequency = np.fft.rfftfreq(N_FFT, 1 / RATE)
    bands = [power[:, (frequency >= low) & (frequency < high)].sum(axis=1) for low, high in BANDS]
    return (10 * np.log10(np.stack(bands, axis=1) + 1e-10)).astype(np.float32)


def above_background(level: np.ndarray, background: str) -> np.ndarray:
    """(T,) dB -> (T,) dB over nothing, the 20th percentile of the recording, or that of the 2 s around each frame."""
    if background == "none":
        return level
    if background == "recording":
        return level - np.percentile(level, BACKGROUND_PERCENTILE)
    return level - percentile_filter(level, BACKGROUND_PERCENTILE, size=int(GRID.frame(BACKGROUND_SECONDS)) + 1)


def unit_scores(decibels: list[np.ndarray], span: tuple[float, float]) -> list[np.ndarray]:
    """(T,) dB of each recording -> 0 ... 1 over `span` (dB), so that one grid of thresholds fits every front."""
    low, high = span
    return [np.clip((d - low) / (high - low), 0, 1).astype(np.float32) for d in decibels]


def as_predictions(scores: list[np.ndarray], clip_ids: list[str]) -> Predictions:
    """(T,) scores of each recording -> what a network of the one class `vocal` would have said."""
    return Predictions(
        np.array(clip_ids), ("vocal",), np.array([[s.max()] for s in scores]), np.zeros(len(scores), int),
        np.zeros(len(scores), bool), framewise_output=tuple(s[:, None] for s in scores), timebase=GRID,
    )  # fmt: skip


def event_spectra(events: pd.DataFrame, spectra: Mapping[str, np.ndarray], feature: str) -> np.ndarray:
    """(n, F) mean log-mel of each event; `shape`: less its own mean; `over background`: less the recording's median."""
    silence = {c: np.median(s, axis=0) for c, s in spectra.items()} if feature == "over background" else {}
    out = np.zeros((len(events), SPECTRUM.n_mels), np.float32)
    first = GRID.frame(events.onset.to_numpy())
    stop = np.maximum(GRID.frame(events.offset.to_numpy()), first + 1)
    for i, name in enumerate(events.filename):
        out[i] = spectra[name][first[i] : stop[i]].mean(axis=0) - silence.get(name, 0)
    return out - out.mean(axis=1, keepdims=True) if feature == "shape" else out


class EnergyDetector:
    """Tuned on `val` when it is made; with `train`, an event gets the label of the nearest class-mean spectrum."""

    def __init__(self, val: Split, classes: list[str], train: Split | None = None):
        self.classes, self.feature, self.means, self.spectra = classes, FEATURES[0], {}, {}
        if train is not None:
            self._hear_spectra(train)
            labels = train.events.event_label.to_numpy()
            for feature in FEATURES:
                spectra = event_spectra(train.events, self.spectra, feature)
                self.means[feature] = np.stack([spectra[labels == c].mean(axis=0) for c in classes])
            self._hear_spectra(val)
        self.val_f1 = self._tune(val)

    def _hear_spectra(self, split: Split):
        self.spectra = {c: log_mel(audio.load(p, RATE), SPECTRUM) for c, p in zip(split.clip_ids, split.paths)}

    def _tune(self, val: Split) -> float:
        """Band and background first, then the post-processing, then the feature that labels; returns the val F1."""
        levels = [band_levels(audio.load(p, RATE)) for p in val.paths]

        def f1(events: pd.DataFrame, feature: str = "") -> float:
            return event_f1(self.labelled(events, feature), val, self.classes)["f_measure"]

        def front_score(front: tuple[int, str]) -> float:
            found, _ = self._score(levels, val.clip_ids, front)
            posts = (PostProcess(threshold=t / 20, min_seconds=0.03, iou_threshold=None) for t in range(1, 20))
            return best_of(posts, lambda post: f1(detect_all(found, post)))[0]

        _, self.front = best_of(itertools.product(range(len(BANDS)), BACKGROUNDS), front_score)
        found, self.span = self._score(levels, val.clip_ids, self.front)
        value, self.post = tune_post(found, val, self.classes, self.labelled)
        if self.means:
            events = detect_all(found, self.post)
            value, self.feature = best_of(FEATURES, lambda feature: f1(events, feature))
        return value

    @staticmethod
    def _score(levels: list[np.ndarray], clip_ids, front: tuple[int, str], span=None):
        """(scores as Predictions, span); without a span, the 1st to 99.5th percentile of these recordings is taken."""
        band, background = front
        decibels = [above_background(level[:, band], background) for level in levels]
        span = span or tuple(np.percentile(np.concatenate(decibels), (1, 99.5)))
        return as_predictions(unit_scores(decibels, span), clip_ids), span

    def labelled(self, events: pd.DataFrame, feature: str = "") -> pd.DataFrame:
        """The events with the names of the nearest class means; as they are where nothing was trained."""
        if not self.means or not len(events):
            return events
        feature = feature or self.feature
        spectra, means = event_spectra(events, self.spectra, feature), self.means[feature]
        nearest = ((spectra[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        return events.assign(event_label=np.array(self.classes, dtype=object)[nearest])

    def detect(self, split: Split) -> tuple[pd.DataFrame, Predictions]:
        """Events of recordings that were not tuned on, and their framewise scores."""
        if self.means:
            self._hear_spectra(split)
        levels = [band_levels(audio.load(p, RATE)) for p in split.paths]
        found, _ = self._score(levels, split.clip_ids, self.front, self.span)
        return self.labelled(detect_all(found, self.post)), found

    @property
    def choice(self) -> str:
        """What was chosen, for a table."""
        (low, high), (band, background) = self.span, self.front
        decibels = low + (high - low) * self.post.threshold
        text = (
            f"{BANDS[band][0]}-{BANDS[band][1]} Hz, background {background}, {decibels:.1f} dB: {post_text(self.post)}"
        )
        return text + (f"; spectrum {self.feature}" if self.means else "")

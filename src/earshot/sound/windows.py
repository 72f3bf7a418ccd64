"""Long recordings <-> windows: where windows start, what of the log-mel they see, how their answers become one.

Validation, prediction, exported graphs and kernels all cut and join here. Every sample is heard: the last window is
zero-padded past the end. Starts and lengths are in samples, log-mel positions in STFT frames, framewise outputs in
segments (`TimeBase.frame_samples` samples each).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from earshot.messages import check_choice

CLIP_FROM = ("clipwise", "frame_max", "log_odds")
RULES = ("mean", "max", "sum", "mean_logit")
LEVELS = ("recorded", "normalised")
PROBABILITY_FLOOR = 1e-7  # mean_logit: a saturated float32 probability stays finite, +-16.1 as log-odds


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """How a recording becomes one answer: cut into windows, heard, joined. Seconds outside, samples inside.

    A config's `predict` is this record; what it leaves at 0 follows its training (`followed`).
    """

    sample_rate: int = 0  # Hz; in a config that of the data
    window_seconds: float = 0.0  # 0: the training crop
    stride_seconds: float = 0.0  # 0: the window
    # answer of a window: clipwise (the head's own) | frame_max (its best segment) | log_odds (of the logit's softmax)
    clip_from: str = "clipwise"
    aggregate: str = "mean"  # mean | max | sum | mean_logit, over the windows of a clip
    keep_frames: bool = False  # store framewise output in oof.npz and test.npz
    oof_frames: bool = True  # false: not in oof.npz, where hours of audio times hundreds of classes are gigabytes
    batch_size: int = 0  # windows; 0: optim.batch_size
    extra_window: bool = False  # the birdcall source's quirk: an exact multiple of the window gets one more, of padding
    rest_seconds: float = 0.0  # what a window leaves over of a recording, up to so much, gets no window of its own
    one_pass: bool = False  # the network hears a minute at once and windows share its features: faster, not the same
    tta: tuple[str, ...] = ()  # names of prediction.tta.TTA, which predict.py hears besides
    workers: int = 1  # threads that decode and compute log-mels ahead
    n_channels: int = 1  # decoded of a recording: 1 their mean, 2 left and right; in a config that of data.channels
    level: str = "recorded"  # recorded | normalised: how loud a recording is heard; in a config data.level

    def __post_init__(self):
        object.__setattr__(self, "tta", tuple(self.tta))
        check_choice("clip_from", self.clip_from, CLIP_FROM)
        check_choice("aggregate", self.aggregate, RULES)
        check_choice("level", self.level, LEVELS)
        for name in ("sample_rate", "window_seconds", "stride_seconds", "rest_seconds", "batch_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.workers < 1:
            raise ValueError(f"workers must be positive, got {self.workers}")
        if self.stride_seconds > self.window_seconds > 0:
            raise ValueError(
                f"stride_seconds ({self.stride_seconds}) is longer than the window ({self.window_seconds}): parts of "
                "the clip would never be heard"
            )

    def followed(
        self, sample_rate: int, crop_seconds: float, batch_size: int, n_channels: int = 1, level: str = "recorded"
    ) -> Windowing:  # fmt: skip
        """The same with what is 0 taken from training, a stride of 0 from the window."""
        window = self.window_seconds or crop_seconds
        return replace(
            self, sample_rate=sample_rate, window_seconds=window, stride_seconds=self.stride_seconds or window,
            batch_size=self.batch_size or batch_size, n_channels=n_channels, level=level,
        )  # fmt: skip

    @property
    def window_samples(self) -> int:
        return round(self.window_seconds * self.sample_rate)

    @property
    def rest_samples(self) -> int:
        return round(self.rest_seconds * self.sample_rate)

    @property
    def stride_samples(self) -> int:
        return round((self.stride_seconds or self.window_seconds) * self.sample_rate)


def window_starts(
    n_samples: int, window_samples: int, stride_samples: int = 0, extra_chunk: bool = False
) -> np.ndarray:
    """Say where the windows of a recording start.

    (W,) int64 first sample of every window; at least one, and the last one reaches the end of the clip.

    `stride_samples` 0 = the window: no overlap. `extra_chunk` repeats a quirk of the birdcall source: when the last
    window ends exactly at the clip's end, one more window follows it (pure padding where windows do not overlap).
    """
    stride_samples = stride_samples or window_samples
    if n_samples < 0 or window_samples < 1 or not 1 <= stride_samples <= window_samples:
        raise ValueError(
            f"cannot cut {n_samples} samples into windows of {window_samples} every {stride_samples}: lengths must be "
            "positive and the stride at most the window, or parts of the clip would never be heard"
        )
    n_windows = 1 + -(-max(n_samples - window_samples, 0) // stride_samples)
    starts = np.arange(n_windows, dtype=np.int64) * stride_samples
    if extra_chunk and starts[-1] + window_samples == n_samples:
        starts = np.append(starts, starts[-1] + stride_samples)
    return starts


def join_clipwise(window_outputs: np.ndarray, rule: str) -> np.ndarray:
    """Join the outputs of a clip's windows, (W, K), to one, (K,) float32, by mean, max, sum, or mean_logit.

    mean_logit gives LOG-ODDS, the mean of log(p / (1 - p)) with p kept off 0 and 1 by 1e-7, not a probability.
    """
    outputs = np.asarray(window_outputs, dtype=np.float64)
    if outputs.ndim != 2 or len(outputs) == 0:
        raise ValueError(f"window outputs must be (windows, classes) with at least one window, got {outputs.shape}")
    if rule == "mean_logit":
        p = np.clip(outputs, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
        joined = (np.log(p) - np.log1p(-p)).mean(axis=0)
    elif rule in RULES:
        joined = getattr(np, rule)(outputs, axis=0)
    else:
        raise ValueError(f"unknown rule '{rule}' for joining windows; choose one of {', '.join(RULES)}")
    return joined.astype(np.float32)


def frame_starts(starts: np.ndarray, frame_samples: int) -> np.ndarray:
    """Window starts in samples -> nearest framewise output (int64; halves go up).

    Where the stride is not a whole number of segments (5 s at 32 kHz are 15.625 segments of 32 frames of 320) the
    outputs of a window move by at most half a segment; the rounding is of the start itself, so it never accumulates.
    """
    return (2 * np.asarray(starts, dtype=np.int64) + frame_samples) // (2 * frame_samples)


def join_framewise(windows: Iterable[np.ndarray], starts_frames: np.ndarray, total_frames: int) -> np.ndarray:
    """Join the framewise outputs of a clip's W windows, (t, K) each, to (total_frames, K), the mean where they overlap.

    `starts_frames` (W,) come from `frame_starts`. Outputs past `total_frames` are dropped. A frame that no window
    covers (a model that drops its incomplete last segment, or rounding) repeats the frame before it.
    """
    windows = iter(windows)  # one after the other: made all at once they take as much memory as the clip's frames
    first = next(windows)
    t, n_classes = first.shape
    sums = np.zeros((total_frames, n_classes), np.result_type(first.dtype, np.float32))
    counts = np.zeros(total_frames, np.int64)
    for window, start in zip(chain([first], windows), starts_frames, strict=True):
        stop = min(start + t, total_frames)
        if start < stop:
            sums[start:stop] += window[: stop - start]
            counts[start:stop] += 1
    if total_frames and not counts[0]:
        raise ValueError(f"no window covers the first frame: windows of {t} frames start at {list(starts_frames)[:5]}")
    np.divide(sums, counts[:, None], out=sums, where=counts[:, None] > 1)
    if counts.all():
        return sums
    return sums[np.maximum.accumulate(np.where(counts > 0, np.arange(total_frames), 0))]


def split_framewise(framewise: np.ndarray, frame_samples: int, hop_length: int, chunk_samples: int) -> np.ndarray:
    """Cut joined framewise outputs, (T, K), into chunks as a model gave them, by hop: (C, 1 + chunk_samples //
    hop_length, K).

    Undoes `join_framewise` for windows of `chunk_samples` without overlap: each chunk starts where `frame_starts` put
    it, an output is repeated over its hops, the last one before the next chunk fills up the rest; past the end of
    `framewise` there is 0. Exact for a model that drops its incomplete last segment, such as Cnn14.
    """
    pool, total = frame_samples // hop_length, len(framewise)
    n_chunks = max(1, -(-(total - 1) * frame_samples // chunk_samples))
    borders = frame_starts(np.arange(n_chunks + 1) * chunk_samples, frame_samples)
    wanted = borders[:-1, None] + np.arange(1 + chunk_samples // hop_length) // pool
    index = np.minimum(wanted, borders[1:, None] - 1)
    chunks = framewise[np.minimum(index, total - 1)]
    chunks[index >= total] = 0
    return chunks

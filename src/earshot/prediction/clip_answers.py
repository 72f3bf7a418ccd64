"""What a network said of one recording: windows joined to a clip's answer and to frames on one grid of time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from earshot.prediction.pooling import pool_segments
from earshot.prediction.reading import Span, heard_samples
from earshot.sound.timebase import TimeBase, repeat_to_frames
from earshot.sound.windows import Windowing, join_clipwise, join_framewise


def clip_answer(outputs: Mapping[str, np.ndarray], clip_from: str) -> np.ndarray:
    """A model's outputs of windows (..., K) -> their answers (..., K): clipwise_output, or each class's best segment.

    The best segment ("frame_max") is the rainforest system's answer; attention pooling averages and so answers lower.
    "log_odds": log(p / (1 - p)) of the softmax of `logit`, which says more of how sure a network is than a p of 1.
    """
    if clip_from == "clipwise":
        return outputs["clipwise_output"]
    if clip_from == "log_odds":
        return log_odds(outputs)
    if "segmentwise_output" not in outputs:
        raise ValueError(
            "predict.clip_from=frame_max needs a model with framewise output; this one has clip outputs only"
        )
    return outputs["segmentwise_output"].max(axis=-2)


def log_odds(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """logit (..., K) -> logit_k - log sum of exp over the other classes, float32, finite where p rounds to 1."""
    if "logit" not in outputs:
        raise ValueError("predict.clip_from=log_odds needs a model with a logit; this one averages probabilities")
    logit = np.asarray(outputs["logit"], np.float64)
    classes = logit.shape[-1]
    if classes < 2:
        raise ValueError("predict.clip_from=log_odds compares classes: it needs at least 2")
    others = np.where(np.eye(classes, dtype=bool), -np.inf, logit[..., None, :])
    highest = others.max(axis=-1)
    return (logit - highest - np.log(np.exp(others - highest[..., None]).sum(axis=-1))).astype(np.float32)


def output_timebase(segments: TimeBase, stride_samples: int) -> TimeBase:
    """The grid of joined framewise outputs: the finest that both segments and window starts lie on.

    30-s windows start every 3,000 frames of 10 ms, which is no multiple of a 32-frame segment: joined on segments their
    times would drift by up to half a segment. On the greatest common divisor (8 frames) they are exact.
    """
    if stride_samples % segments.hop_length:
        return TimeBase(segments.sample_rate, segments.hop_length, 1)
    pool = math.gcd(segments.pool, stride_samples // segments.hop_length)
    return TimeBase(segments.sample_rate, segments.hop_length, pool)


class ClipAnswer:
    """The windows of one clip from one member; a hearing is joined as soon as its last window has come."""

    def __init__(self, windowing: Windowing, backend):
        self.windowing, self.segments = windowing, backend.timebase
        self.pooling = getattr(backend, "pooling", "")
        self.timebase = output_timebase(self.segments, self.windowing.stride_samples)
        self.open: dict[int, dict[int, dict]] = {}
        self.clipwise, self.framewise, self.embedding = [], [], []

    @property
    def cells(self) -> int:
        """Cells of the output grid in a window."""
        return max(1, round(self.windowing.window_samples / self.timebase.frame_samples))

    @property
    def repeats(self) -> int:
        """Cells in a segment."""
        return self.segments.pool // self.timebase.pool

    def add(self, span: Span, i: int, outputs: dict):
        """Outputs of the span's i-th window."""
        window = {"answer": clip_answer(outputs, self.windowing.clip_from)}
        keep = ["embedding"] + ["segmentwise_output"] * self.windowing.keep_frames
        self._keep(span, i, window | {k: outputs[k] for k in keep if k in outputs})

    def add_pass(self, span: Span, begin: int, outputs: dict):
        """Outputs of the whole span, which starts on sample `begin`: its windows are pooled from the segments."""
        probability, attention = _segments(outputs), outputs.get("segmentwise_attention")
        repeated = np.repeat(probability, self.repeats, axis=0) if self.windowing.keep_frames else None
        in_window = max(1, round(self.windowing.window_samples / self.segments.frame_samples))
        for i, start in enumerate(span.starts - begin):
            first = min(round(start / self.segments.frame_samples), len(probability) - 1)
            some = slice(first, first + in_window)
            if self.windowing.clip_from == "frame_max":
                window = {"answer": probability[some].max(axis=0)}
            else:
                weights = None if attention is None else attention[some]
                window = {"answer": pool_segments(probability[some], weights, self.pooling)}
            if repeated is not None:
                cells = round(start / self.timebase.frame_samples) + np.arange(self.cells)
                window["frames"] = repeated[np.minimum(cells, len(repeated) - 1)]
            self._keep(span, i, window)

    def _keep(self, span: Span, i: int, window: dict):
        hearing = self.open.setdefault(span.variant, {})
        hearing[span.first_window + i] = window | {"start": int(span.starts[i]), "span": span}
        if len(hearing) == span.n_windows:
            self._join([hearing[w] for w in range(span.n_windows)], span)
            del self.open[span.variant]

    def close(self) -> bool:
        """Make do with a hearing that was cut, as if the clip ended with the last window that came; whether it had to.

        Where another hearing came whole, the cut ones are left out: hearings of one clip reach equally far.
        """
        cut, self.open = list(self.open.values()), {}
        if self.clipwise or not cut:
            return False
        hearing = max(cut, key=unbroken)
        if n_windows := unbroken(hearing):
            windows = [hearing[w] for w in range(n_windows)]
            end = windows[-1]["start"] + self.windowing.window_samples - hearing[0]["span"].delay_samples
            span = replace(hearing[0]["span"], n_samples=min(end, hearing[0]["span"].n_samples))
            self._join(windows, span)
        return True

    def _join(self, windows: list[dict], span: Span):
        # a window of nothing but padding (`extra_window`) has frames, but no say in the clip's answer
        heard = [w for w in windows if w["start"] < span.n_samples + span.delay_samples]
        self.clipwise.append(join_clipwise(np.stack([w["answer"] for w in heard]), self.windowing.aggregate))
        if "embedding" in heard[0]:
            self.embedding.append(np.mean([w["embedding"] for w in heard], axis=0))
        if self.windowing.keep_frames:
            self.framewise.append(self._join_frames(windows, span))

    def _join_frames(self, windows: list[dict], span: Span) -> np.ndarray:
        """(T, K) on the output grid, the delay of a shifted hearing taken off again; T is the same for all hearings."""
        cell = self.timebase.frame_samples
        frames = (self._frames(w) for w in windows)
        first = np.array([round(w["start"] / cell) for w in windows])
        joined = join_framewise(frames, first, int(first[-1]) + self.cells)[round(span.delay_samples / cell) :]
        if self.windowing.extra_window:  # the source's rows know events in the padding
            total = max(1, round(heard_samples(span.n_samples, self.windowing) / cell))
        else:
            total = self.timebase.n_frames(span.n_samples)
        return repeat_to_frames(joined, 1, total)

    def _frames(self, window: dict) -> np.ndarray:
        """(cells, K) of one window."""
        return window["frames"] if "frames" in window else repeat_to_frames(_segments(window), self.repeats, self.cells)


def unbroken(hearing: Mapping[int, dict]) -> int:
    """How many windows have come from the first on without a gap."""
    return next((i for i in range(len(hearing)) if i not in hearing), len(hearing))


def _segments(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if "segmentwise_output" not in outputs:
        raise ValueError("predict.keep_frames needs a model with framewise output; this one has clip outputs only")
    return outputs["segmentwise_output"]

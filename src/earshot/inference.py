"""The one inference path: recordings -> windows -> model -> Predictions. No torch in here.

Validation in train.py, predict.py, exported graphs and kernels all call `predict_clips`, so that the CV is the score of
what is submitted. A backend (see backends.py) is anything with `inputs`, `frontends`, `timebase` and `run`.

How a recording is heard: decoded and resampled once, its log-mel computed once for every distinct front end, windows
cut from it where the hop divides the stride (else each window gets its own log-mel), all backends (folds, models) fed
from the same windows, the windows of a clip joined by the task's rule. Decoding runs ahead in threads. At most
`SPAN_SECONDS` of a recording are in memory at a time for each thread, so a recording may last a day.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from earshot import audio
from earshot.logmel import LogmelParams, log_mel, n_frames
from earshot.predictions import TEST_FOLD, Clip, Predictions
from earshot.spelling import suggest
from earshot.timebase import TimeBase, repeat_to_frames
from earshot.windows import Windowing, join_clipwise, join_framewise, window_starts

SPAN_SECONDS = 600.0


@dataclass(frozen=True)
class Variant:
    """One hearing of a recording for test-time augmentation; the default is the plain one."""

    gain_db: float = 0.0
    noise_db: float | None = None  # white noise this far below the recording's RMS level
    roll: float = 0.0  # circular shift by this share of the recording (clips that are one window long)
    delay: float = 0.0  # silence of this share of a stride before the recording: moves the window borders
    stride: float = 1.0  # stride times this


TTA: dict[str, tuple[Variant, ...]] = {
    "time_shift": (Variant(delay=0.5),),
    "roll": tuple(Variant(roll=i / 8) for i in range(1, 8)),
    "gain": (Variant(gain_db=-6.0), Variant(gain_db=6.0)),
    "noise": (Variant(noise_db=-30.0),),
    "multi_window": (Variant(stride=0.5),),
}


COPIES = "copies:"  # copies:30 = thirty random hearings
COPIES_SEED, COPIES_ROLL, COPIES_GAIN_DB = 30, 0.1, 6.0


def tta_variants(names: Iterable[str]) -> tuple[Variant, ...]:
    """The plain hearing and those of each named augmentation; `copies:N` gives N random ones, always the same."""
    variants = [Variant()]
    for name in names:
        if name.startswith(COPIES):
            variants.extend(random_variants(name.removeprefix(COPIES)))
        elif name in TTA:
            variants.extend(TTA[name])
        else:
            raise ValueError(f"unknown test-time augmentation '{name}'{suggest(name, (*TTA, COPIES + '30'))}")
    return tuple(variants)


def random_variants(count: str) -> list[Variant]:
    """N as text -> N hearings: rolled by normal(0, COPIES_ROLL) of the clip, within COPIES_GAIN_DB louder or softer."""
    if not count.isdigit() or int(count) < 1:
        raise ValueError(f"test-time augmentation {COPIES}{count}: N copies are asked for by {COPIES}N, N from 1")
    rng = np.random.default_rng(COPIES_SEED)
    # a roll of exactly 0 would be heard in spans like the plain recording, which is as good
    return [
        Variant(roll=float(rng.normal(0, COPIES_ROLL)), gain_db=float(rng.uniform(-COPIES_GAIN_DB, COPIES_GAIN_DB)))
        for _ in range(int(count))
    ]


def clip_answer(outputs: Mapping[str, np.ndarray], clip_from: str) -> np.ndarray:
    """A model's outputs of windows (..., K) -> their answers (..., K): clipwise_output, or each class's best segment.

    The best segment ("frame_max") is the rainforest system's answer; attention pooling averages and so answers lower.
    """
    if clip_from == "clipwise":
        return outputs["clipwise_output"]
    if "segmentwise_output" not in outputs:
        raise ValueError(
            "predict.clip_from=frame_max needs a model with framewise output; this one has clip outputs only"
        )
    return outputs["segmentwise_output"].max(axis=-2)


def output_timebase(segments: TimeBase, stride_samples: int) -> TimeBase:
    """The grid of joined framewise outputs: the finest that both segments and window starts lie on.

    30-s windows start every 3,000 frames of 10 ms, which is no multiple of a 32-frame segment: joined on segments their
    times would drift by up to half a segment. On the greatest common divisor (8 frames) they are exact.
    """
    if stride_samples % segments.hop_length:
        return TimeBase(segments.sample_rate, segments.hop_length, 1)
    pool = math.gcd(segments.pool, stride_samples // segments.hop_length)
    return TimeBase(segments.sample_rate, segments.hop_length, pool)


def predict_clips(
    backends: Sequence, clips: Sequence[Clip], windowing: Windowing, classes: Sequence[str], prior: np.ndarray,
    fold: int = TEST_FOLD, tta: Iterable[str] = (), progress=iter,
) -> tuple[list[Predictions], list[tuple[str, str]]]:  # fmt: skip
    """One Predictions per backend, and the (clip_id, reason) of clips that could not be read.

    clips: N recordings; prior: (K,) what an unreadable clip gets; progress: wraps an iterable of the N clips (tqdm).
    The backends must share inputs and front ends (folds of a run, models of one front end).
    """
    variants = tta_variants(tta)
    if windowing.keep_frames and any(v.roll for v in variants):
        raise ValueError("tta 'roll' moves events in time: it cannot be used with keep_frames")
    answers = [[_Answer(windowing, b.timebase) for b in backends] for _ in clips]
    unreadable: dict[int, str] = {}
    batch = _Batch(backends, windowing.batch_size, answers)
    with ThreadPoolExecutor(windowing.workers) as pool:
        jobs = _jobs(progress(clips), windowing, variants, unreadable, backends[0])
        for chunk in _ahead(pool, jobs, windowing.workers + 1):
            if isinstance(chunk, _Failed):
                unreadable.setdefault(chunk.clip, chunk.reason)
            elif chunk.clip not in unreadable:
                batch.add(chunk)
        batch.flush()
    predictions = [
        _collect([a[i] for a in answers], clips, set(unreadable), classes, prior, fold, windowing.keep_frames)
        for i in range(len(backends))
    ]
    return predictions, [(clips[i].clip_id, reason) for i, reason in sorted(unreadable.items())]


@dataclass(frozen=True)
class _Span:
    """Consecutive windows of one hearing of one clip: what a thread reads in one go."""

    clip: int
    variant: int
    path: Path
    metadata: np.ndarray | None
    starts: np.ndarray  # (W,) samples, of the delayed recording
    first_window: int
    n_windows: int  # of the whole hearing
    n_samples: int  # of the recording
    delay_samples: int


@dataclass(frozen=True)
class _Failed:
    clip: int
    reason: str


@dataclass(frozen=True)
class _Chunk:
    """A decoded span: `window(i)` gives the model inputs of its i-th window."""

    span: _Span
    sources: dict[str, tuple[np.ndarray, np.ndarray, int]]  # input -> (array, first index of each window, length)

    @property
    def clip(self) -> int:
        return self.span.clip

    def window(self, i: int) -> dict[str, np.ndarray]:
        inputs = {}
        for name, (array, first, length) in self.sources.items():
            piece = array[i] if length == 0 else array[first[i] : first[i] + length]
            inputs[name] = piece[None] if piece.ndim == 2 else piece  # log-mel (1, T, F); waveform (S,)
        if self.span.metadata is not None:
            inputs["metadata"] = self.span.metadata
        return inputs


def _jobs(clips, windowing, variants, unreadable, backend) -> Iterator:
    """Functions without arguments, one a span: each gives a _Chunk or a _Failed."""
    for index, clip in enumerate(clips):
        try:
            info = audio.info(clip.path)
        except audio.UnreadableAudio as error:
            unreadable[index] = str(error)
            continue
        n_samples = max(1, round(info.n_samples * windowing.sample_rate / info.sample_rate))
        for number, variant in enumerate(variants):
            if variant.delay and n_samples <= windowing.window_samples:
                continue  # one window has no borders to move
            for span in _spans(index, number, clip, variant, windowing, n_samples):
                yield lambda span=span, variant=variant: _read(span, variant, windowing, backend)


def _spans(index, number, clip, variant, windowing, n_samples) -> Iterator[_Span]:
    stride = max(1, round(windowing.stride_samples * variant.stride))
    delay = round(windowing.stride_samples * variant.delay)
    starts = window_starts(n_samples + delay, windowing.window_samples, stride, extra_chunk=windowing.extra_window)
    # a rolled clip is heard whole: its end comes before its start
    size = len(starts) if variant.roll else max(1, int(SPAN_SECONDS * windowing.sample_rate) // stride)
    for first in range(0, len(starts), size):
        some = starts[first : first + size]
        yield _Span(index, number, clip.path, clip.metadata, some, first, len(starts), n_samples, delay)


def _read(span: _Span, variant: Variant, windowing: Windowing, backend) -> _Chunk | _Failed:
    """Decode a span, apply the variant, compute each front end once."""
    try:
        return _Chunk(span, _sources(span, variant, windowing, backend))
    except audio.UnreadableAudio as error:
        return _Failed(span.clip, str(error))


def _sources(span, variant, windowing, backend) -> dict:
    window, starts = windowing.window_samples, span.starts
    margin = max([_margin(p) for p in backend.frontends.values()], default=0)
    begin = max(0, int(starts[0]) - margin)  # of the delayed recording; frames at the border see true context
    end = int(starts[-1]) + window + margin
    waveform = _waveform(span, variant, windowing, begin, end)
    if end > span.n_samples + span.delay_samples:  # the last span ends with its last window
        end = max(int(starts[-1]) + window, min(end, span.n_samples + span.delay_samples))
        waveform = waveform[: end - begin]
    sources = {}
    for name in backend.inputs:
        if name in backend.frontends:
            sources[name] = _logmel_source(waveform, starts - begin, window, backend.frontends[name], begin)
        elif name == "waveform":
            sources[name] = (waveform, starts - begin, window)
        elif name != "metadata":
            raise ValueError(f"model input '{name}' is not a front end of the config{suggest(name, backend.frontends)}")
    return sources


def _waveform(span, variant, windowing, begin: int, end: int) -> np.ndarray:
    """Samples begin..end of the delayed, varied recording, zeros where it has none."""
    rate = windowing.sample_rate
    first, last = max(0, begin - span.delay_samples), end - span.delay_samples
    waveform = np.zeros(end - begin, np.float32)
    if last > first:
        heard = audio.load(span.path, rate, start_seconds=first / rate, duration_seconds=(last - first) / rate)
        heard = heard[: last - first]
        if variant.roll:
            heard = np.roll(heard, round(variant.roll * len(heard)))
        place = max(0, span.delay_samples - begin)
        waveform[place : place + len(heard)] = heard
    if variant.gain_db:
        waveform *= np.float32(10 ** (variant.gain_db / 20))
    if variant.noise_db is not None:
        level = np.sqrt(np.mean(waveform**2)) * 10 ** (variant.noise_db / 20)
        waveform += (level * np.random.default_rng(begin).standard_normal(len(waveform))).astype(np.float32)
    return waveform


def _margin(params: LogmelParams) -> int:
    """Samples beside a span that its border frames look at, as whole hops."""
    return -(-params.n_fft // params.hop_length) * params.hop_length


def _logmel_source(waveform, starts, window, params: LogmelParams, begin: int):
    """Shared log-mel where every window starts on a frame, else one log-mel a window."""
    if np.any(starts % params.hop_length) or begin % params.hop_length:
        pieces = np.stack([waveform[s : s + window] for s in starts])
        return log_mel(pieces, params), starts, 0
    return log_mel(waveform, params), starts // params.hop_length, n_frames(window, params)


def _ahead(pool, jobs: Iterator, depth: int) -> Iterator:
    """Results of jobs in order, at most `depth` of them computed ahead."""
    waiting = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass
class _Batch:
    """Windows of any clips, gathered until the batch is full."""

    backends: Sequence
    size: int
    answers: list
    waiting: list = field(default_factory=list)

    def add(self, chunk: _Chunk):
        for i in range(len(chunk.span.starts)):
            self.waiting.append((chunk.span, i, chunk.window(i)))
            if len(self.waiting) == self.size:
                self.flush()

    def flush(self):
        if not self.waiting:
            return
        inputs = {k: np.stack([w[2][k] for w in self.waiting]) for k in self.waiting[0][2]}
        for number, backend in enumerate(self.backends):
            outputs = backend.run(inputs)
            for row, (span, i, _) in enumerate(self.waiting):
                self.answers[span.clip][number].add(span, i, {k: v[row] for k, v in outputs.items()})
        self.waiting = []


class _Answer:
    """The windows of one clip from one backend; a hearing is joined as soon as its last window has come."""

    def __init__(self, windowing: Windowing, segments: TimeBase):
        self.windowing, self.segments = windowing, segments
        self.timebase = output_timebase(segments, windowing.stride_samples)
        self.open: dict[int, dict[int, dict]] = {}
        self.clipwise, self.framewise, self.embedding = [], [], []

    def add(self, span: _Span, i: int, outputs: dict):
        hearing = self.open.setdefault(span.variant, {})
        keep = ["embedding"] + ["segmentwise_output"] * self.windowing.keep_frames
        window = {"start": int(span.starts[i]), "answer": clip_answer(outputs, self.windowing.clip_from)}
        hearing[span.first_window + i] = window | {k: outputs[k] for k in keep if k in outputs}
        if len(hearing) == span.n_windows:
            self._join([hearing[w] for w in range(span.n_windows)], span)
            del self.open[span.variant]

    def _join(self, windows: list[dict], span: _Span):
        self.clipwise.append(join_clipwise(np.stack([w["answer"] for w in windows]), self.windowing.aggregate))
        if "embedding" in windows[0]:
            self.embedding.append(np.mean([w["embedding"] for w in windows], axis=0))
        if self.windowing.keep_frames:
            self.framewise.append(self._join_frames(windows, span))

    def _join_frames(self, windows, span) -> np.ndarray:
        """(T, K) on the output grid, the delay of a shifted hearing taken off again."""
        if "segmentwise_output" not in windows[0]:
            raise ValueError("predict.keep_frames needs a model with framewise output; this one has clip outputs only")
        cell = self.timebase.frame_samples
        cells = max(1, round(self.windowing.window_samples / cell))
        repeats = self.segments.pool // self.timebase.pool
        frames = np.stack([repeat_to_frames(w["segmentwise_output"], repeats, cells) for w in windows])
        first = np.array([round(w["start"] / cell) for w in windows])
        joined = join_framewise(frames, first, int(first[-1]) + cells)
        if self.windowing.extra_window:
            return joined  # the source's rows know events in the padding
        delay = round(span.delay_samples / cell)
        return repeat_to_frames(joined[delay:], 1, self.timebase.n_frames(span.n_samples))


def _collect(answers, clips, unreadable, classes, prior, fold, keep_frames) -> Predictions:
    """Per-clip answers -> Predictions; unreadable clips get the prior and one frame of it."""
    prior = np.asarray(prior, np.float32)

    def mean(values, fallback):
        return np.mean(values, axis=0, dtype=np.float64).astype(np.float32) if values else fallback

    bad = np.array([i in unreadable for i in range(len(clips))], dtype=bool)
    clipwise = [mean([] if b else a.clipwise, prior) for a, b in zip(answers, bad)]
    frames, embedding = None, None
    if keep_frames:
        frames = tuple(mean([] if b else a.framewise, prior[None]) for a, b in zip(answers, bad))
    width = next((len(a.embedding[0]) for a in answers if a.embedding), 0)
    if width:
        nothing = np.zeros(width, np.float32)
        embedding = np.stack([mean([] if b else a.embedding, nothing) for a, b in zip(answers, bad)])
    return Predictions(
        np.array([c.clip_id for c in clips], dtype=str), tuple(classes),
        np.stack(clipwise) if clipwise else np.zeros((0, len(classes)), np.float32),
        np.full(len(clips), fold), bad, frames, answers[0].timebase if answers and keep_frames else None, embedding,
    )  # fmt: skip

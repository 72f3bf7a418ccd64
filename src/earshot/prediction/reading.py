"""What is heard of recordings: test-time variants, spans of windows, decoding, one log-mel a front end. No torch.

A span is a run of consecutive windows of one hearing of one clip: what a thread reads in one go. Its inputs are keyed
by what makes them (the parameters of a front end, or "waveform"), not by a network's name for them: networks that hear
alike share them, whatever run they come from.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.messages import suggest
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel, n_frames
from earshot.sound.windows import Windowing, window_starts

SPAN_SECONDS = 60.0
ONE_PASS_SECONDS = 60.0  # what a network hears at once in one pass: longer saves little and costs memory


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


@dataclass(frozen=True, kw_only=True)
class Span:
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
    decoded: bool = False  # n_samples was counted, not promised


@dataclass(frozen=True)
class Shorter:
    """A damaged clip, which holds less than its header says: to be heard again by its decoded length."""

    clip: int


class _EndsEarly(Exception):
    """A span of a damaged clip has less sound than the clip's length leaves room for."""


@dataclass(frozen=True)
class Failed:
    """A clip that could not be read."""

    clip: int
    reason: str


@dataclass(frozen=True)
class Chunk:
    """A decoded span. `sources`: input key -> (array, first index of each window, length; 0 = one array a window)."""

    span: Span
    begin: int  # sample of the delayed recording on which the arrays start
    sources: dict[Hashable, tuple[np.ndarray, np.ndarray, int]]

    @property
    def clip(self) -> int:
        return self.span.clip

    def window(self, i: int) -> dict[Hashable, np.ndarray]:
        """Inputs of its i-th window: log-mels (1, T, F), waveform (S,), metadata (M,)."""
        inputs = {}
        for key, (array, first, length) in self.sources.items():
            inputs[key] = _channel(array[i] if length == 0 else array[first[i] : first[i] + length])
        return self._with_metadata(inputs)

    def whole(self) -> dict[Hashable, np.ndarray]:
        """The same of the span as a whole."""
        return self._with_metadata({key: _channel(array) for key, (array, _, _) in self.sources.items()})

    def _with_metadata(self, inputs: dict) -> dict:
        return inputs if self.span.metadata is None else inputs | {"metadata": self.span.metadata}


def input_key(backend, name: str) -> Hashable:
    """What makes a network's input `name`: the parameters of its front end, or the name itself."""
    if name in backend.frontends:
        return backend.frontends[name]
    if name not in ("waveform", "metadata"):
        raise ValueError(f"model input '{name}' is not a front end of the config{suggest(name, backend.frontends)}")
    return name


def jobs(
    clips, windowing: Windowing, variants: Sequence[Variant], unreadable: dict, keys: Sequence[Hashable], context: int,
    decoded: bool = False,
) -> Iterator:  # fmt: skip
    """Functions without arguments, one a span: each gives a Chunk with the inputs `keys`, a Failed or a Shorter.

    clips: pairs of an index and a clip. context: samples of true sound beside a span that the network itself is to hear
    (one pass only). decoded: lengths come from decoding, so that nothing is Shorter. A clip whose header cannot be read
    goes to `unreadable` {index: reason} at once.
    """
    for index, clip in clips:
        try:
            info = (audio.decoded_info if decoded else audio.info)(clip.path)
        except audio.UnreadableAudio as error:
            unreadable[index] = str(error)
            continue
        n_samples = max(1, round(info.n_samples * windowing.sample_rate / info.sample_rate))
        short = n_samples <= windowing.window_samples
        heard = [(i, v) for i, v in enumerate(variants) if not (v.delay and short)]  # one window: no borders to move
        if not heard:
            unreadable[index] = f"{clip.path} is one window long: it has no other hearing"
        for number, variant in heard:
            for span in _spans(index, number, clip, variant, windowing, n_samples, decoded):
                yield lambda span=span, variant=variant: _read(span, variant, windowing, keys, context)


def _spans(index, number, clip, variant, windowing, n_samples, decoded) -> Iterator[Span]:
    stride = max(1, round(windowing.stride_samples * variant.stride))
    delay = round(windowing.stride_samples * variant.delay)
    starts = window_starts(n_samples + delay, windowing.window_samples, stride, extra_chunk=windowing.extra_window)
    size = max(1, int(SPAN_SECONDS * windowing.sample_rate) // stride)
    if windowing.one_pass:
        size = max(1, 1 + (round(ONE_PASS_SECONDS * windowing.sample_rate) - windowing.window_samples) // stride)
    if variant.roll:  # a rolled clip is heard whole: its end comes before its start
        size = len(starts)
    for first in range(0, len(starts), size):
        some = starts[first : first + size]
        yield Span(
            clip=index,
            variant=number,
            path=clip.path,
            metadata=clip.metadata,
            starts=some,
            first_window=first,
            n_windows=len(starts),
            n_samples=n_samples,
            delay_samples=delay,
            decoded=decoded,
        )


def _read(span: Span, variant: Variant, windowing: Windowing, keys, context) -> Chunk | Failed | Shorter:
    """Decode a span, apply the variant, compute each front end once."""
    try:
        return _chunk(span, variant, windowing, keys, context)
    except _EndsEarly:
        return Shorter(span.clip)
    except audio.UnreadableAudio as error:
        return Failed(span.clip, str(error))


def _chunk(span, variant, windowing, keys, context) -> Chunk:
    window, starts = windowing.window_samples, span.starts
    margin = max([_margin(k) for k in keys if isinstance(k, LogmelParams)], default=0)
    margin = context or margin
    overlap = round(windowing.stride_samples * variant.stride) < window
    begin = max(0, int(starts[0]) - margin)  # of the delayed recording; frames at the border see true context
    end = int(starts[-1]) + window + margin
    waveform = _waveform(span, variant, windowing, begin, end)
    recorded = span.n_samples + span.delay_samples
    if end > recorded:  # single windows are filled up with silence; in one pass all windows would hear that
        end = max(begin + window, recorded) if windowing.one_pass else max(int(starts[-1]) + window, recorded)
        waveform = waveform[: end - begin]
    sources = {}
    for key in keys:
        if not isinstance(key, LogmelParams):
            sources[key] = (waveform, starts - begin, window)
        elif windowing.one_pass:
            sources[key] = (log_mel(waveform, key), starts, 0)
        else:
            sources[key] = _logmel_source(waveform, starts - begin, window, key, begin, overlap)
    return Chunk(span, begin, sources)


def _waveform(span, variant, windowing, begin: int, end: int) -> np.ndarray:
    """Samples begin..end of the delayed, varied recording, zeros where it has none."""
    rate = windowing.sample_rate
    first, last = max(0, begin - span.delay_samples), end - span.delay_samples
    waveform = np.zeros(end - begin, np.float32)
    if last > first:
        heard = audio.load(span.path, rate, start_seconds=first / rate, duration_seconds=(last - first) / rate)
        heard = heard[: last - first]
        if not span.decoded and len(heard) < min(last, span.n_samples) - first - audio.ROUNDING_SAMPLES:
            raise _EndsEarly
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


def _logmel_source(waveform, starts, window, params: LogmelParams, begin: int, overlap: bool):
    """One log-mel where windows overlap and start on its frames, else one a window, edges reflected as in training."""
    if not overlap or np.any(starts % params.hop_length) or begin % params.hop_length:
        return np.stack([log_mel(waveform[s : s + window], params) for s in starts]), starts, 0
    return log_mel(waveform, params), starts // params.hop_length, n_frames(window, params)


def _channel(piece: np.ndarray) -> np.ndarray:
    """(T, F) -> (1, T, F); a waveform stays (S,)."""
    return piece[None] if piece.ndim == 2 else piece

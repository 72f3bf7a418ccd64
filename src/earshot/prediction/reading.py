"""What is heard of recordings: spans of windows of each hearing (tta.py), decoding, each distinct input once. No torch.

A span is a run of consecutive windows of one hearing of one clip: what a thread reads in one go. Its inputs are keyed
by what makes them (the record of an input, inputs/record.py), not by a network's name for them: networks that hear
alike share them, whatever run they come from.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earshot.inputs import waveforms
from earshot.inputs.record import Input
from earshot.messages import suggest
from earshot.prediction.tta import Variant
from earshot.sound import audio
from earshot.sound.windows import Windowing, window_starts

SPAN_SECONDS = 60.0
ONE_PASS_SECONDS = 60.0  # what a network hears at once in one pass: longer saves little and costs memory


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
    given: Mapping | None = None  # rows of extractors of the plain recording


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
    """A decoded span. `sources`: record -> (array, first index of each window on its time axis, length there; 0 = one
    array a window)."""

    span: Span
    begin: int  # sample of the delayed recording on which the arrays start
    sources: dict[Input, tuple[np.ndarray, np.ndarray, int]]

    @property
    def clip(self) -> int:
        return self.span.clip

    def window(self, i: int) -> dict[Hashable, np.ndarray]:
        """Inputs of its i-th window, by record; metadata (M,) by its name."""
        inputs = {}
        for key, (array, first, length) in self.sources.items():
            inputs[key] = array[i] if length == 0 else _cut(array, key.time_axis, first[i], length)
        return self._with_metadata(inputs)

    def whole(self) -> dict[Hashable, np.ndarray]:
        """The same of the span as a whole."""
        return self._with_metadata({key: array for key, (array, _, _) in self.sources.items()})

    def _with_metadata(self, inputs: dict) -> dict:
        return inputs if self.span.metadata is None else inputs | {"metadata": self.span.metadata}


def input_key(backend, name: str) -> Hashable:
    """What makes a network's input `name`: its record, or the name itself where no sound does."""
    if name not in backend.frontends:
        raise ValueError(f"model input '{name}' is not a front end of the config{suggest(name, backend.frontends)}")
    return backend.frontends[name] if backend.frontends[name].sounds else name


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
        n_samples = info.samples_at(windowing.sample_rate)
        short = n_samples - windowing.rest_samples <= windowing.window_samples
        heard = [(i, v) for i, v in enumerate(variants) if not (v.delay and short)]  # one window: no borders to move
        if not heard:
            unreadable[index] = f"{clip.path} is one window long: it has no other hearing"
        for number, variant in heard:
            for span in _spans(index, number, clip, variant, windowing, n_samples, decoded=decoded):
                yield lambda span=span, variant=variant: _read(span, variant, windowing, keys, context)


def heard_samples(n_samples: int, windowing: Windowing) -> int:
    """Samples of a recording that every hearing of it gives frames for: to its end, or with `extra_window` to the end
    of the plain hearing's last window, padding included."""
    if not windowing.extra_window:
        return n_samples
    starts = window_starts(n_samples, windowing.window_samples, windowing.stride_samples, extra_chunk=True)
    return int(starts[-1]) + windowing.window_samples


def hearing_starts(n_samples: int, windowing: Windowing, variant: Variant) -> tuple[np.ndarray, int, int]:
    """A recording of `n_samples` -> (first samples of a hearing's windows, its stride, its delay), all in samples.

    Starts count from the beginning of the DELAYED recording. All hearings reach equally far (`heard_samples`).
    """
    stride = max(1, round(windowing.stride_samples * variant.stride))
    delay = round(windowing.stride_samples * variant.delay)
    reach = heard_samples(n_samples, windowing) + delay - windowing.rest_samples
    return window_starts(max(reach, 1), windowing.window_samples, stride), stride, delay


def _spans(index, number, clip, variant, windowing, n_samples, decoded) -> Iterator[Span]:
    starts, stride, delay = hearing_starts(n_samples, windowing, variant)
    size = max(1, int(SPAN_SECONDS * windowing.sample_rate) // stride)
    if windowing.one_pass:
        size = max(1, 1 + (round(ONE_PASS_SECONDS * windowing.sample_rate) - windowing.window_samples) // stride)
    given = clip.given if variant == Variant() else None
    if variant.rolls:  # a rolled clip is heard whole: its end comes before its start
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
            given=given,
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
    window, starts, rate = windowing.window_samples, span.starts, windowing.sample_rate
    margin = context or max([waveforms.margin(rate, k) for k in keys], default=0)
    overlap = round(windowing.stride_samples * variant.stride) < window
    begin = max(0, int(starts[0]) - margin)  # of the delayed recording; frames at the border see true context
    end = int(starts[-1]) + window + margin
    waveform = _waveform(span, variant, windowing, begin, end)
    recorded = span.n_samples + span.delay_samples
    if end > recorded:  # single windows are filled up with silence; in one pass all windows would hear that
        least = begin if windowing.one_pass and not windowing.extra_window else int(starts[-1])
        end = max(least + window, recorded)
        waveform = waveform[..., : end - begin]
    sources = {}
    for key in keys:
        if key.of_clip:
            sources[key] = (_rows(span, variant, windowing, key), starts, 0)
        elif windowing.one_pass:
            sources[key] = (key.compute(waveforms.as_heard(waveform, rate, key)), starts, 0)
        else:
            where = starts - begin
            sources[key] = _source(waveform, where, windowing, key, begin, overlap=overlap, variant=variant)
    return Chunk(span, begin, sources)


def _waveform(span, variant, windowing, begin: int, end: int) -> np.ndarray:
    """Samples begin..end of the delayed, varied recording, zeros where it has none."""
    rate = windowing.sample_rate
    first, last = max(0, begin - span.delay_samples), end - span.delay_samples
    channels = windowing.n_channels
    waveform = np.zeros(end - begin if channels == 1 else (channels, end - begin), np.float32)
    if last > first:
        heard = waveforms.decode(span.path, rate, channels, first / rate, (last - first) / rate, windowing.level)
        heard = heard[..., : last - first]
        if not span.decoded and heard.shape[-1] < min(last, span.n_samples) - first - audio.ROUNDING_SAMPLES:
            raise _EndsEarly
        if variant.rolls:
            shift = round(variant.roll * heard.shape[-1] + variant.roll_seconds * rate)
            heard = np.roll(heard, shift, axis=-1)
        place = max(0, span.delay_samples - begin)
        waveform[..., place : place + heard.shape[-1]] = heard
    if variant.gain_db:
        waveform *= np.float32(10 ** (variant.gain_db / 20))
    if variant.noise_db is not None:
        level = np.sqrt(np.mean(waveform**2)) * 10 ** (variant.noise_db / 20)
        waveform += (level * np.random.default_rng(begin).standard_normal(waveform.shape)).astype(np.float32)
    return waveform


def _source(waveform, starts, windowing: Windowing, key: Input, begin: int, overlap: bool, variant: Variant):
    """One computation where windows overlap and start on its steps, else one a window, at the edges as in training."""
    rate, window = windowing.sample_rate, windowing.window_samples
    grid = waveforms.grid(rate, key)
    plain = key.hop == 1 and key.sample_rate in (0, rate)  # of the waveform itself a window is a slice
    if variant.redraws or (not plain and (not overlap or not grid or np.any(starts % grid) or begin % grid)):
        windows = (key.compute(waveforms.as_heard(waveform[..., s : s + window], rate, key)) for s in starts)
        return np.stack([_redrawn(w, key, variant) for w in windows]), starts, 0
    length = key.shape(waveforms.own_samples(window, rate, key))[key.time_axis]
    return key.compute(waveforms.as_heard(waveform, rate, key)), waveforms.steps(starts, rate, key), length


def _redrawn(picture: np.ndarray, key: Input, variant: Variant) -> np.ndarray:
    """A window's picture (C, T, F) at the variant's tempo and height, as long and as high as it was.

    A slow one loses its end, a fast one begins again; the edge band fills what is left free.
    """
    if variant.tempo != 1:
        n = picture.shape[key.time_axis]
        picture = _between(picture, np.arange(n) * variant.tempo % n, key.time_axis)
    if variant.bands:
        n = picture.shape[-1]
        picture = _between(picture, np.clip(np.arange(n) - variant.bands, 0, n - 1), -1)
    return picture


def _between(array: np.ndarray, where: np.ndarray, axis: int) -> np.ndarray:
    """Values at fractional positions of an axis, linear between neighbours; behind the last comes the first."""
    array = np.moveaxis(array, axis, -1)
    first = where.astype(int)
    part = (where - first).astype(array.dtype)
    found = array[..., first] * (1 - part) + array[..., (first + 1) % array.shape[-1]] * part
    return np.moveaxis(found, -1, axis)


def _rows(span: Span, variant: Variant, windowing: Windowing, key) -> np.ndarray:
    """(W, ...) what an extractor gives the span's windows: of rows that are known, or computed where they lie."""
    rate, own = windowing.sample_rate, key.sample_rate
    size = waveforms.own_samples(windowing.window_samples, rate, key)
    firsts = [key.row_of(int(start) * own // rate) for start in span.starts]
    rows, before = (span.given or {}).get(key, ()), 0
    if not len(rows):
        total = key.total(waveforms.own_samples(span.n_samples + span.delay_samples, rate, key))
        before = min(firsts[0], total - 1)
        stop = min(firsts[-1] + key.count(size), total)
        step = rate // math.gcd(rate, own)  # on its multiples both rates have a sample
        margin = waveforms.RESAMPLING_MARGIN * rate // own
        begin = max(0, before * key.stride_samples * rate // own - margin) // step * step
        end = ((stop - 1) * key.stride_samples + key.window_samples) * rate // own + margin
        heard = waveforms.as_heard(_waveform(span, variant, windowing, begin, end), rate, key)
        rows = key.rows(heard[before * key.stride_samples - begin * own // rate :], 0, stop - before)
    return np.stack([key.taken(rows, first - before, size) for first in firsts])


def _cut(array: np.ndarray, axis: int, first: int, length: int) -> np.ndarray:
    """`length` steps of a time axis from `first` on."""
    return array[(slice(None),) * (axis % array.ndim) + (slice(first, first + length),)]

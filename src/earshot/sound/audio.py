"""Audio files <-> waveforms: float32 in [-1, 1] at the rate asked for, cut by seeking, resampled by soxr HQ.

Conventions: time is in seconds from the start of the file; a crop's borders are rounded to samples of the rate ASKED
FOR, so a crop equals that slice of the whole file read at that rate. Nothing is padded here (`crop_or_pad` does).
What cannot be read is `UnreadableAudio`, whose message names the file and the reason; what can be read in part is
returned with a warning (logger "earshot", each message once a process; `odd_files` lists them). A header's word is
taken for a file's length where the file bears it out (sound/lengths.py); of an Ogg file cut off it is known that it is,
not how long it was. Levels beyond full scale and channels that cancel: sound/levels.py. `FILE#ROW`
reads one recording of a file that holds many (sound/rows.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from earshot.files import whole_file
from earshot.messages import suggest
from earshot.sound.decoding import (
    Contents,
    UnreadableAudio,
    contents,
    decode,
    decoded_samples,
    note,
    note_short,
    notes_of,
    odd_files,
    opened,
    read,
    surveyed,
    warn_once,
)
from earshot.sound.folder import EXTENSIONS
from earshot.sound.levels import LARGEST, is_still, may_cancel, without

__all__ = [
    "EXTENSIONS", "AudioInfo", "UnreadableAudio", "blocks", "crop_or_pad", "decoded_info", "duration_or", "info",
    "load", "notes_of", "odd_files", "warn_once", "write",
]  # fmt: skip
WRITABLE = {".wav": ("WAV", "FLOAT"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
ROUNDING_SAMPLES = 2  # by which a crop may be shorter than a length in seconds says
MARGIN = 256  # samples of the lower rate read either side of a crop; soxr HQ forgets after 128 (measured: 3e-7)


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: Hz, samples a channel, channels, seconds."""

    sample_rate: int
    n_samples: int
    channels: int
    duration: float

    def samples_at(self, sample_rate: int) -> int:
        """How many samples it has at another rate, one at least."""
        return max(1, round(self.n_samples * sample_rate / self.sample_rate))


def info(path: str | Path) -> AudioInfo:
    """What the file holds by its header, which is decoded only where the file does not bear it out.

    The same for the same file, whatever was read before; damage in the middle shows in `decoded_info` alone.
    """
    known = contents(path)
    return AudioInfo(known.sample_rate, known.n_samples, known.channels, known.n_samples / known.sample_rate)


def duration_or(path: str | Path, unreadable: float) -> float:
    """Seconds of a recording by its header, `unreadable` where it cannot be read."""
    try:
        return info(path).duration
    except UnreadableAudio:
        return unreadable


def decoded_info(path: str | Path) -> AudioInfo:
    """The same as `info` by decoding the whole file, once for as long as it is not changed."""
    known = contents(path)
    n_samples = decoded_samples(path)
    if not n_samples:
        raise UnreadableAudio(f"{path}: nothing of it can be decoded (truncated or corrupt)")
    if n_samples < known.n_samples:
        note_short(path, known, n_samples)
    return AudioInfo(known.sample_rate, n_samples, known.channels, n_samples / known.sample_rate)


def load(
    path: str | Path,
    sample_rate: int,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    mono: bool = True,
) -> np.ndarray:
    """Read a recording, or a part of it, at a sample rate.

    (S,) float32 at `sample_rate`, the mean of the channels; (C, S) with mono=False.

    Shorter than asked where the file ends, empty where it ends before `start_seconds`. Only the crop is read, with a
    margin either side when it has to be resampled.
    """
    if start_seconds < 0 or (duration_seconds is not None and duration_seconds < 0):
        raise ValueError(f"a crop of {duration_seconds} s from {start_seconds} s: neither may be negative")
    start = round(start_seconds * sample_rate)
    stop = None if duration_seconds is None else start + round(duration_seconds * sample_rate)
    with opened(path) as (file, known):
        rate = known.sample_rate
        first, last = _input_range(start, stop, rate, sample_rate, known.n_samples)
        data = read(path, file, known, first, last) if last > first else np.zeros((0, known.channels), np.float32)
    data = _levelled(data, path, known)
    if mono:
        data = _mixed(data, path)
    if rate != sample_rate:
        _warn_resampling(rate, sample_rate)
        data = soxr.resample(data, rate, sample_rate, "HQ") if len(data) else data
    skip = start - first * sample_rate // rate
    waveform = np.ascontiguousarray(data[skip : None if stop is None else skip + stop - start].T)
    if start == 0 and stop is None and waveform.shape[1] == 0:
        raise UnreadableAudio(f"{path} holds less than one sample at {sample_rate} Hz")
    return waveform[0] if mono else waveform


def blocks(path: str | Path, sample_rate: int, block_seconds: float) -> Iterator[np.ndarray]:
    """Yields (S,) float32 mono blocks that join to `load(path, sample_rate)`; the last may be shorter.

    Memory is bounded by the block whatever the file's length.
    """
    n_block = round(block_seconds * sample_rate)
    if n_block < 1:
        raise ValueError(f"block_seconds {block_seconds} at {sample_rate} Hz is less than one sample")
    waiting, n_waiting = [], 0
    for piece in _resampled_pieces(path, sample_rate):
        waiting.append(piece)
        n_waiting += len(piece)
        if n_waiting >= n_block:
            joined = np.concatenate(waiting)
            for begin in range(0, n_waiting - n_block + 1, n_block):
                yield joined[begin : begin + n_block].copy()
            waiting, n_waiting = [joined[n_waiting - n_waiting % n_block :]], n_waiting % n_block
    if n_waiting:
        yield np.concatenate(waiting)


def crop_or_pad(waveform: np.ndarray, n_samples: int, offset: int = 0, pad_offset: int = 0) -> np.ndarray:
    """Cut a waveform to a length, or pad it with zeros.

    (..., S) -> (..., n_samples): the slice from `offset` of a longer one, zeros around a shorter one.

    `offset` (samples) counts only for a longer waveform, `pad_offset` (where it begins) only for a shorter one.
    """
    spare = waveform.shape[-1] - n_samples
    used, name = (offset, "offset") if spare >= 0 else (pad_offset, "pad_offset")
    if not 0 <= used <= abs(spare):
        raise ValueError(f"{name} is {used} but {waveform.shape[-1]} samples to {n_samples} leave 0 to {abs(spare)}")
    if spare >= 0:
        return waveform[..., offset : offset + n_samples]
    padded = np.zeros((*waveform.shape[:-1], n_samples), waveform.dtype)
    padded[..., pad_offset : pad_offset + waveform.shape[-1]] = waveform
    return padded


def write(path: str | Path, waveform: np.ndarray, sample_rate: int) -> int:
    """Write a waveform to a file.

    (S,) or (C, S) -> .wav (float32), .flac (16 bit) or .ogg (Vorbis), whole or not at all.

    Returns how many values outside [-1, 1] flac has clipped; wav and ogg keep them.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ValueError(f"{path}: cannot write '{path.suffix}' files{suggest(path.suffix, WRITABLE)}")
    audio_format, subtype = WRITABLE[path.suffix.lower()]
    data = np.atleast_2d(np.asarray(waveform, np.float32)).T
    with whole_file(path) as partial:  # noqa: SIM117, the file is closed before it is renamed
        with sf.SoundFile(partial, "w", sample_rate, data.shape[1], subtype, format=audio_format) as file:
            # one long write crashes some builds of the Vorbis encoder
            for begin in range(0, len(data), sample_rate):
                file.write(data[begin : begin + sample_rate])
    return int((np.abs(data) > 1).sum()) if path.suffix.lower() == ".flac" else 0


def _input_range(start: int, stop: int | None, rate: int, sample_rate: int, n_samples: int) -> tuple[int, int]:
    """Output samples [start, stop) -> the file's samples [first, last) to read, `first` on both rates' common grid."""
    if rate == sample_rate:
        return start, n_samples if stop is None else min(stop, n_samples)
    if stop is not None and stop <= start:
        return start, start
    margin = math.ceil(MARGIN * max(1.0, rate / sample_rate))
    step = rate // math.gcd(rate, sample_rate)
    first = max(0, start * rate // sample_rate - margin) // step * step
    last = n_samples if stop is None else min(n_samples, math.ceil(stop * rate / sample_rate) + margin)
    return first, last


def _resampled_pieces(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Yields (n,) mono pieces of any length at `sample_rate`, decoded and resampled as a stream."""
    known = contents(path)
    rate, stream = known.sample_rate, None
    if rate != sample_rate:
        _warn_resampling(rate, sample_rate)
        stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    received = 0
    for data in decode(path):
        received += len(data)
        piece = _mixed(_levelled(data, path, known), path)[:, 0]
        yield piece if stream is None else stream.resample_chunk(piece)
    if received == 0:
        raise UnreadableAudio(f"{path}: nothing of it can be decoded (truncated or corrupt)")
    if received < known.n_samples:
        note_short(path, known, received)
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _levelled(data: np.ndarray, path: str | Path, known: Contents) -> np.ndarray:
    """(n, C) as the whole file's level demands (levels.py); UnreadableAudio where more than half of it is no sound."""
    if is_still(data) and surveyed(path).still:
        note(path, f"{path} holds no sound: every sample of it is {data[0, 0]:g}")
    if not known.floats and (np.abs(data) <= LARGEST).all():
        return data
    seen = surveyed(path)
    if 2 * seen.faulty > seen.values:
        raise UnreadableAudio(f"{path}: {seen.fault}")
    if seen.faulty:
        note(path, f"{path}: {seen.fault} and count as 0")
        data, _ = without(data, seen.limit)
    if known.floats and seen.scale < 1:
        note(path, f"{path} goes beyond full scale: all of it is divided by its peak of {seen.peak:.4g}")
        data = data * np.float32(seen.scale)
    return data


def _mixed(data: np.ndarray, path: str | Path) -> np.ndarray:
    """(n, C) -> (n, 1): the mean of the channels, or the louder one of a file whose channels cancel."""
    if data.shape[1] == 1:
        return data
    if may_cancel(data) and (seen := surveyed(path)).cancels:
        note(path, f"{path}: its channels are of opposite phase, their mean would be silence; channel "
                   f"{seen.loudest + 1} of {len(seen.power)} is heard alone")  # fmt: skip
        return data[:, seen.loudest : seen.loudest + 1]
    return data.mean(axis=1, keepdims=True)


def _warn_resampling(rate: int, sample_rate: int) -> None:
    lacks = f", and holds nothing above {rate // 2} Hz" if rate < sample_rate else ""
    warn_once(f"audio of {rate} Hz is resampled to {sample_rate} Hz as it is read{lacks}")

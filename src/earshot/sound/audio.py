"""Audio files <-> waveforms: float32 in [-1, 1] at the rate asked for, cut by seeking, resampled by soxr HQ.

Conventions: time is in seconds from the start of the file; a crop's borders are rounded to samples of the rate ASKED
FOR, so a crop equals that slice of the whole file read at that rate. Nothing is padded here (`crop_or_pad` does).
What cannot be read is `UnreadableAudio`, whose message names the file and the reason; what can be read in part is
returned with a warning (logger "earshot", each message once a process). The header's word is taken for a file's
length until decoding shows otherwise; an Ogg file cut off leaves no trace of its former length, so it is only shorter.
`FILE#ROW` reads one recording of a file that holds many (sound/rows.py).
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from earshot.messages import suggest
from earshot.sound.rows import Row, file_of, is_row

LOGGER = logging.getLogger("earshot")
EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".opus", ".aif", ".aiff", ".au", ".w64", ".caf")
WRITABLE = {".wav": ("WAV", "FLOAT"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
MARGIN = 256  # samples of the lower rate read either side of a crop; soxr HQ forgets after 128 (measured: 3e-7)
BLOCK = 4096  # samples a sequential read: what a damaged file loses beyond its damage
IMPLAUSIBLE_SAMPLES = 2**40  # about a year; libsndfile reports 2**63 - 1 where a cut Ogg file has no last page


class UnreadableAudio(ValueError):
    """A file that gives no waveform; the message names the file and the reason."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: Hz, samples a channel, channels, seconds."""

    sample_rate: int
    n_samples: int
    channels: int
    duration: float


def info(path: str | Path) -> AudioInfo:
    """Header of the file, without decoding it; a truncated file may hold fewer samples than its header says."""
    with _open(path) as file:
        n_samples = _n_samples(file, path)
        return AudioInfo(file.samplerate, n_samples, file.channels, n_samples / file.samplerate)


def load(
    path: str | Path,
    sample_rate: int,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    mono: bool = True,
) -> np.ndarray:
    """(S,) float32 at `sample_rate`, the mean of the channels; (C, S) with mono=False.

    Shorter than asked where the file ends, empty where it ends before `start_seconds`. Only the crop is read, with a
    margin either side when it has to be resampled.
    """
    if start_seconds < 0 or (duration_seconds is not None and duration_seconds < 0):
        raise ValueError(f"a crop of {duration_seconds} s from {start_seconds} s: neither may be negative")
    start = round(start_seconds * sample_rate)
    stop = None if duration_seconds is None else start + round(duration_seconds * sample_rate)
    with _open(path) as file:
        rate, channels = file.samplerate, file.channels
        first, last = _input_range(start, stop, rate, sample_rate, _n_samples(file, path))
        data = _read(file, path, first, last) if last > first else np.zeros((0, channels), np.float32)
    data = _finite(data, path)
    if mono and channels > 1:
        data = data.mean(axis=1, keepdims=True)
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
    """(..., S) -> (..., n_samples): the slice from `offset` of a longer one, zeros around a shorter one.

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


def write(path: str | Path, waveform: np.ndarray, sample_rate: int) -> None:
    """(S,) or (C, S) -> .wav (float32), .flac (16 bit) or .ogg (Vorbis), whole or not at all.

    flac clips what is outside [-1, 1]; wav keeps it.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ValueError(f"{path}: cannot write '{path.suffix}' files{suggest(path.suffix, WRITABLE)}")
    audio_format, subtype = WRITABLE[path.suffix.lower()]
    data = np.atleast_2d(np.asarray(waveform, np.float32)).T
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with sf.SoundFile(temporary, "w", sample_rate, data.shape[1], subtype, format=audio_format) as file:
            # one long write crashes some builds of the Vorbis encoder
            for begin in range(0, len(data), sample_rate):
                file.write(data[begin : begin + sample_rate])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def find_audio(folder: str | Path) -> list[Path]:
    """Audio files at any depth, sorted; extensions in any case, hidden files (`._x.wav`) left out."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder: give one that holds audio files")
    found = (Path(root) / name for root, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(p for p in found if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))


class _File(sf.SoundFile):
    """A file that soundfile does not seek in after every read, as it does in a seekable one: that doubles the cost of
    mp3 blocks and breaks the signal at their borders where mp3 can only be sought approximately."""

    def seekable(self) -> bool:
        return False


@contextmanager
def _open(path: str | Path) -> Iterator[sf.SoundFile]:
    """The file, opened and known to promise samples; else UnreadableAudio with the reason."""
    path = Path(path)
    if is_row(path):
        yield _open_row(path)
        return
    _check_file(path)
    try:
        file = _File(path)
    except (sf.LibsndfileError, TypeError, UnicodeEncodeError) as error:  # TypeError: .raw, whose rate nothing tells
        reason = getattr(error, "error_string", error)
        raise UnreadableAudio(f"{path} cannot be decoded{_looks_like(path)}; libsndfile: {reason}") from error
    with file:
        if file.frames == 0:
            raise UnreadableAudio(f"{path} holds no samples (a header alone)")
        _warn_if_cut(file, path)
        yield file


def _check_file(path: Path) -> None:
    """Raise UnreadableAudio unless `path` is a file that holds something."""
    try:
        if not path.exists():
            raise UnreadableAudio(f"{path} does not exist")
        if path.is_dir():
            raise UnreadableAudio(f"{path} is a folder, not an audio file (find_audio lists a folder's files)")
        if path.stat().st_size == 0:
            raise UnreadableAudio(f"{path} is an empty file (0 bytes)")
    except OSError as error:  # no permission, a name too long
        raise UnreadableAudio(f"{path} cannot be opened: {error.strerror}") from error


def _open_row(path: str | Path) -> Row:
    try:
        return Row(path)
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableAudio(f"{path} cannot be read: {error}") from error


def _looks_like(path: Path) -> str:
    """' (it begins with ...)' for a text file under an audio name, such as a saved error page."""
    with path.open("rb") as file:
        head = file.read(64)
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return f" (it is text that begins with {head[:24].decode('ascii')!r})" if is_text else ""


def _warn_if_cut(file: sf.SoundFile, path: Path) -> None:
    """Warns of a RIFF file shorter than its header says; libsndfile corrects the length and tells only in its log."""
    found = re.search(r"(?:data|SSND) +: (\d+) \(should be (\d+)\)", file.extra_info)
    if not found or int(found[2]) == 0 or int(found[1]) >= 0x7FFFFFFF:  # such lengths mean "unknown, streamed"
        return
    expected = int(found[1]) // max(1, int(found[2]) // file.frames)  # bytes over bytes a sample
    if expected > file.frames:
        _warn_once(f"{path} is truncated: its header promises {expected} samples, it holds {file.frames}")


def _n_samples(file: sf.SoundFile, path: str | Path) -> int:
    """Samples a channel by the header, or counted where the header's number cannot be true."""
    if file.frames < IMPLAUSIBLE_SAMPLES:
        return file.frames
    counted, _, _ = _survey(str(path), os.stat(file_of(path)).st_mtime_ns)
    if not counted:
        raise UnreadableAudio(f"{path}: nothing of it can be decoded (truncated or corrupt)")
    _warn_once(f"{path} is truncated: its header promises {file.frames} samples, it holds {counted}")
    return counted


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


def _read(file: sf.SoundFile, path: str | Path, first: int, last: int) -> np.ndarray:
    """(n, C) float32 samples [first, last); fewer, with a warning, where the file is damaged."""
    try:
        if first:
            file.seek(first)
        data = file.read(last - first, dtype="float32", always_2d=True)
    except sf.LibsndfileError:
        data = np.zeros((0, file.channels), np.float32)
    if len(data) == last - first:
        return data
    salvaged, received = _salvage(path, first, last)
    if received == 0:
        raise UnreadableAudio(f"{path}: nothing of it can be decoded (truncated or corrupt)")
    _warn_once(f"{path} is truncated or corrupt: expected {file.frames} samples, received {received}")
    return max(data, salvaged, key=len)


def _salvage(path: str | Path, first: int, last: int) -> tuple[np.ndarray, int]:
    """Samples [first, last) as far as decoding from the start gets, and how far that was."""
    kept, position = [], 0
    for data in _decode(path):
        kept.append(data[max(0, first - position) : max(0, last - position)])
        position += len(data)
        if position >= last:
            break
    return (np.concatenate(kept) if kept else np.zeros((0, 1), np.float32)), position


def _decode(path: str | Path) -> Iterator[np.ndarray]:
    """Yields (n, C) float32 from the start to the end or to the first damage."""
    with _open_row(path) if is_row(path) else _File(path) as file:
        while True:
            try:
                data = file.read(BLOCK, dtype="float32", always_2d=True)
            except sf.LibsndfileError:
                return
            if not len(data):
                return
            yield data


def _resampled_pieces(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Yields (n,) mono pieces of any length at `sample_rate`, decoded and resampled as a stream."""
    with _open(path) as file:
        rate, expected = file.samplerate, file.frames
    stream = None
    if rate != sample_rate:
        _warn_resampling(rate, sample_rate)
        stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    received = 0
    for data in _decode(path):
        received += len(data)
        piece = _finite(data, path).mean(axis=1)
        yield piece if stream is None else stream.resample_chunk(piece)
    if received == 0:
        raise UnreadableAudio(f"{path}: nothing of it can be decoded (truncated or corrupt)")
    if received < expected:
        _warn_once(f"{path} is truncated or corrupt: expected {expected} samples, received {received}")
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _finite(data: np.ndarray, path: str | Path) -> np.ndarray:
    """(n, C) with NaN and inf as 0; a FILE of which more than half is not finite is unreadable, whatever the crop."""
    if np.isfinite(data).all():
        return data
    _, n_bad, n_values = _survey(str(path), os.stat(file_of(path)).st_mtime_ns)
    if 2 * n_bad > n_values:
        raise UnreadableAudio(f"{path}: {n_bad} of its {n_values} samples are NaN or infinite")
    _warn_once(f"{path}: {n_bad} of its {n_values} samples are NaN or infinite and count as 0")
    return np.where(np.isfinite(data), data, np.float32(0))


@lru_cache(maxsize=256)
def _survey(path: str, modified_ns: int) -> tuple[int, int, int]:
    """Samples a channel, values that are NaN or infinite, and values, of the file as it stood at `modified_ns`."""
    n_samples, n_bad, n_values = 0, 0, 0
    for data in _decode(path):
        n_samples += len(data)
        n_bad += data.size - int(np.isfinite(data).sum())
        n_values += data.size
    return n_samples, n_bad, n_values


@lru_cache(maxsize=4096)
def _warn_once(message: str) -> None:
    LOGGER.warning(message)


def _warn_resampling(rate: int, sample_rate: int) -> None:
    _warn_once(f"resampling audio of {rate} Hz to {sample_rate} Hz at every read (a waveform cache does it once)")

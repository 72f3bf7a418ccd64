"""Audio files opened and decoded: what a file really holds, and what could be saved of a damaged one.

`contents` says rate, channels and length of a file, its header held against the file itself (lengths.py): the answer
depends on the file alone, costs no decoding where the two agree, and is remembered in the process. Damage in the
middle of a file shows only when it is decoded: `decoded_samples` counts.

What is odd about a file is logged once (logger "earshot") and kept: `odd_files` lists it for a script's last line.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf

from earshot.sound.flac import with_total
from earshot.sound.folder import printable
from earshot.sound.header import WHOLE, Header, Shown, View
from earshot.sound.lengths import inspect
from earshot.sound.levels import Survey, survey
from earshot.sound.rows import Row, file_of, is_row

LOGGER = logging.getLogger("earshot")
BLOCK = 4096  # samples a sequential read: what a damaged file loses beyond its damage
FLOAT_BLOCK = 16 * BLOCK  # in files of float samples, which no damage hides in
MOST_SAMPLES_A_BYTE = 64  # the best codec's, of anything but silence: a file that promises more is decoded to count
RATES = (10, 10_000_000)  # Hz that a recording may have; infrasound to radar, but no header of 1e9 Hz
FLOATS = ("FLOAT", "DOUBLE")
KINDS = {stat.S_ISDIR: "a folder, not an audio file", stat.S_ISFIFO: "a pipe",
         stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}  # fmt: skip
REMEMBERED = 1 << 16
STREAMED_BYTES = 0x7FFFF000  # from here on a size in a header means "unknown", as sox and ffmpeg write it to a pipe

_odd: dict[str, list[str]] = {}


class UnreadableAudio(ValueError):
    """A file that gives no waveform; the message names the file and the reason, in text that a table can hold."""

    def __init__(self, message: str):
        super().__init__(printable(message))


@dataclass(frozen=True)
class Contents:
    """What a file holds: Hz, channels, samples a channel, whether they are stored as floats; and how the decoder is
    shown the file, where its own header is wrong."""

    sample_rate: int
    channels: int
    n_samples: int
    floats: bool
    view: View = WHOLE


class _File(sf.SoundFile):
    """A file that soundfile does not seek in after every read, as it does in a seekable one: that doubles the cost of
    mp3 blocks and breaks the signal at their borders where mp3 can only be sought approximately."""

    def seekable(self) -> bool:
        return False


def contents(path: str | Path) -> Contents:
    """What the file holds; UnreadableAudio, with the reason, where that is no sound."""
    if is_row(path):
        with _open_row(path) as row:
            return Contents(row.samplerate, row.channels, row.frames, row.is_float)
    return _contents(*_identity(path))


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[sf.SoundFile, Contents]]:
    """The file ready to be read, with a mended header where its own is wrong, and what it holds."""
    known = contents(path)
    with _open_row(path) if is_row(path) else _open(str(path), known.view) as file:
        yield file, known


def read(path: str | Path, file: sf.SoundFile, known: Contents, first: int, last: int) -> np.ndarray:
    """Read some samples of a file as they are stored.

    (n, C) float32 samples [first, last); fewer, with a warning, where the file is damaged.
    """
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
    if received < last:  # else all is there, of a codec that cannot be sought, such as GSM 06.10
        note_short(path, known, received)
    return max(data, salvaged, key=len)


def decode(path: str | Path, known: Contents | Header | None = None) -> Iterator[np.ndarray]:
    """Yields (n, C) float32 from the start to the end or to the first damage."""
    known = contents(path) if known is None else known
    block = FLOAT_BLOCK if getattr(known, "floats", False) else BLOCK
    # a read that meets what is no sound, such as a tag behind the last sample, loses its own: none goes beyond these
    stops = (known.said, sys.maxsize) if isinstance(known, Header) else (known.n_samples,)
    at = 0
    with _open_row(path) if is_row(path) else _open(str(path), known.view) as file:
        for stop in stops:
            while at < stop:
                try:
                    data = file.read(min(block, stop - at), dtype="float32", always_2d=True)
                except sf.LibsndfileError:
                    return
                if not len(data):
                    return
                at += len(data)
                yield data


def surveyed(path: str | Path) -> Survey:
    """Length and levels of the whole file, decoded once for as long as it is not changed."""
    status = os.stat(file_of(path))
    return _survey(str(path), status.st_size, status.st_mtime_ns)


def decoded_samples(path: str | Path) -> int:
    """Samples a channel that decoding gives, where `contents` knows no damage in the middle."""
    return surveyed(path).samples


def odd_files() -> dict[str, tuple[str, ...]]:
    """What was odd about the files that this process read, {path: messages}, by path: threads read in any order."""
    return {path: tuple(_odd[path]) for path in sorted(_odd)}


def notes_of(path: str | Path) -> str:
    """What was odd about this file, '' where nothing was."""
    return "; ".join(_odd.get(str(path), ()))


def note(path: str | Path, message: str) -> None:
    """Log what is odd about a file, once, and keep it for `odd_files`."""
    message = printable(message)
    messages = _odd.setdefault(str(path), [])
    if message not in messages:
        messages.append(message)
    warn_once(message)


def note_short(path: str | Path, known: Contents, received: int) -> None:
    """Note that decoding ended before what the file promises."""
    note(path, f"{path} is truncated or corrupt: expected {known.n_samples} samples, received {received}")


@lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a message once a process."""
    LOGGER.warning(message)


@lru_cache(maxsize=REMEMBERED)
def _contents(path: str, size: int, modified_ns: int) -> Contents:
    """`contents` of the file as it stood at `modified_ns`."""
    try:
        header = inspect(path)
    except OSError as error:
        raise UnreadableAudio(f"{path} cannot be opened: {error.strerror}") from error
    with _open(path, header.view) as file:
        rate, channels, n_samples, floats = file.samplerate, file.channels, file.frames, file.subtype in FLOATS
        cut = _promised_before_cut(file) if n_samples else 0
    if n_samples == 0:
        raise UnreadableAudio(f"{path} holds no samples (a header alone)")
    if not RATES[0] <= rate <= RATES[1]:
        raise UnreadableAudio(f"{path} is of {rate} Hz by its header, which no recording is: mend or convert the file")
    promised, view = 0 if header.agrees else header.said, header.view
    if header.count or n_samples > MOST_SAMPLES_A_BYTE * size:
        promised = n_samples if header.agrees else header.said
        n_samples = sum(len(data) for data in decode(path, header))
        view = replace(view, prefix=with_total(view.prefix, n_samples)) if view.prefix else view
        if not n_samples:
            raise UnreadableAudio(f"{path}: nothing of it can be decoded (truncated or corrupt)")
    if header.note:
        note(path, f"{path}: {header.note}")
    if max(promised, cut) > n_samples:
        wrong = "is truncated: its header" if cut else "is truncated, or its header wrong: it"
        note(path, f"{path} {wrong} promises {max(promised, cut)} samples, it holds {n_samples}")
    elif 0 < promised < n_samples:
        note(path, f"{path} has a wrong header: it promises {promised} samples, it holds {n_samples}")
    return Contents(rate, channels, n_samples, floats, view)


def _identity(path: str | Path) -> tuple[str, int, int]:
    """Path, size and time of change; UnreadableAudio unless it is a file that holds something."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise UnreadableAudio(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # no permission, a name too long, a loop of links, a null byte
        raise UnreadableAudio(f"{path} cannot be opened: {getattr(error, 'strerror', error)}") from error
    for is_kind, name in KINDS.items():
        if is_kind(status.st_mode):
            raise UnreadableAudio(f"{path} is {name}")
    if status.st_size == 0:
        raise UnreadableAudio(f"{path} is an empty file (0 bytes)")
    return str(path), status.st_size, status.st_mtime_ns


@contextmanager
def _open(path: str, view: View) -> Iterator[sf.SoundFile]:
    """The file as libsndfile takes it, in this view of it; UnreadableAudio with the reason."""
    shown = Shown(path, view) if view else None
    try:
        try:
            file = _File(shown or _name(path))
        except (sf.LibsndfileError, TypeError) as error:  # TypeError: .raw, whose rate nothing tells
            reason = str(getattr(error, "error_string", error))
            if "does not exist" in reason:  # what libsndfile says of an mp3 without a frame; that it exists was asked
                reason = "no sound in it"
            raise UnreadableAudio(f"{path} cannot be decoded{_looks_like(path)}; libsndfile: {reason}") from error
        with file:
            yield file
    finally:
        if shown:
            shown.close()


def _name(path: str) -> str | bytes:
    """The path as soundfile takes it: bytes where it is no text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _open_row(path: str | Path) -> Row:
    try:
        return Row(path)
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableAudio(f"{path} cannot be read: {error}") from error


def _looks_like(path: str) -> str:
    """' (it begins with ...)' for a text file under an audio name, such as a saved error page."""
    with open(path, "rb") as file:
        head = file.read(64)
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return f" (it is text that begins with {head[:24].decode('ascii')!r})" if is_text else ""


def _promised_before_cut(file: sf.SoundFile) -> int:
    """Samples that the header of a RIFF or AIFF file promises beyond its end; 0: it does not.

    libsndfile corrects the length and tells only in its log.
    """
    found = re.search(r"(data|SSND) +: (\d+) \(should be (\d+)\)", file.extra_info)
    if not found or int(found[3]) == 0 or int(found[2]) >= STREAMED_BYTES:
        return 0
    said, there = (int(number) - 8 * (found[1] == "SSND") for number in found.group(2, 3))
    block = there // file.frames  # bytes a sample of all channels, 0 of compressed ones
    promised = said // block if block else said * file.frames // there
    return promised if promised > file.frames else 0


def _salvage(path: str | Path, first: int, last: int) -> tuple[np.ndarray, int]:
    """Samples [first, last) as far as decoding from the start gets, and how far that was."""
    kept, position = [], 0
    for data in decode(path):
        kept.append(data[max(0, first - position) : max(0, last - position)])
        position += len(data)
        if position >= last:
            break
    return (np.concatenate(kept) if kept else np.zeros((0, 1), np.float32)), position


@lru_cache(maxsize=REMEMBERED)
def _survey(path: str, size: int, modified_ns: int) -> Survey:
    """The survey of the file as it stood at `modified_ns`."""
    return survey(decode(path))

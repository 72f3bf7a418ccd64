"""Audio files as no recorder should write them, each with what is right: its seconds, or that it is refused.

KINDS: name -> (make, right). `make(path)` writes the file at `path` (without ending) and returns where it lies; `right`
is the seconds to be heard (None: to be refused), and a part of the message that must be said (None: nothing at all).
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import soundfile as sf

from earshot.sound.flac import with_total
from earshot.sound.mpeg import frame

RATE, SECONDS = 16000, 4.0
TRUNCATED, WRONG, SILENT = "is truncated", "has a wrong header", None


def sound(seconds: float = SECONDS, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """(S, C) noise of an even level."""
    return 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels)).astype(np.float32)


def coded(form: str, waveform=None, rate: int = RATE, **options) -> bytes:
    """The bytes of a file of this format."""
    file = io.BytesIO()
    sf.write(file, sound(rate=rate) if waveform is None else waveform, rate, format=form, **options)
    return file.getvalue()


def put(ending: str, data) -> callable:
    """A maker of a file with these bytes (or what a function without arguments gives)."""

    def make(path: Path) -> Path:
        target = path.with_suffix(ending)
        target.write_bytes(data() if callable(data) else data)
        return target

    return make


def cut(share: float, form: str, **options):
    return lambda: (data := coded(form, **options))[: round(len(data) * share)]


def flac_total(total: int):
    def data() -> bytes:
        whole = coded("FLAC")
        return with_total(whole[:42], total) + whole[42:]

    return data


def holed(form: str, at: float = 0.5, length: int = 6000):
    """The middle overwritten by zeros."""

    def data() -> bytes:
        whole = bytearray(coded(form))
        begin = round(len(whole) * at)
        whole[begin : begin + length] = bytes(length)
        return bytes(whole)

    return data


def wav(said=None, riff=None, rate=None, channels=None, bits=None, behind=b"", share=1.0, waveform=None, **options):
    """A WAV with other numbers in its header, and bytes behind its data."""

    def data() -> bytes:
        whole = bytearray(coded("WAV", waveform, **options))
        at = whole.find(b"data")
        for place, value, kind in ((at + 4, said, "<I"), (4, riff, "<I"), (24, rate, "<I"), (22, channels, "<H"),
                                   (34, bits, "<H")):  # fmt: skip
            if value is not None:
                whole[place : place + struct.calcsize(kind)] = struct.pack(kind, value)
        return bytes(whole[: round(len(whole) * share)]) + behind

    return data


def floats(change, subtype: str = "FLOAT"):
    """A WAV of floats, changed."""

    def data() -> bytes:
        waveform = sound()
        return coded("WAV", change(waveform), subtype=subtype)

    return data


def with_value(value: float, count: int = 1):
    def change(waveform):
        waveform[1000 : 1000 + count] = value
        return waveform

    return change


def mp3(
    mode: str = "CONSTANT", loud_first=None, table: bool = True, before: bytes = b"", behind: bytes = b"", share=1.0
):
    """An mp3; loud_first: half of it loud, half next to silence; table=False: without the frame that counts frames."""

    def data() -> bytes:
        waveform = sound(seconds=20)
        if loud_first is not None:
            first = np.arange(len(waveform)) < len(waveform) // 2
            waveform = waveform * np.where(first == loud_first, 3.0, 1e-3).astype(np.float32)[:, None]
        whole = coded("MP3", waveform, bitrate_mode=mode, compression_level=0.3)
        if not table:
            whole = whole[frame(whole[:4])[0] :]
        return before + whole[: round(len(whole) * share)] + behind

    return data


def opposite(form: str, **options):
    def data() -> bytes:
        mono = sound()
        return coded(form, np.concatenate([mono, -0.98 * mono], axis=1), **options)

    return data


def odd_name(name: bytes):
    """A maker of a sound WAV under this name."""

    def make(path: Path) -> Path:
        target = Path(os.fsdecode(os.fsencode(path.parent) + b"/" + name))
        target.write_bytes(coded("WAV"))
        return target

    return make


def strange(do):
    """A maker of what is no file at all: `do(path)`."""

    def make(path: Path) -> Path:
        target = path.with_suffix(".wav")
        do(target)
        return target

    return make


ID3 = b"ID3\x03\0\0\0\0\x4e\x20" + bytes(10016)  # a tag of 10,016 bytes
RANDOM = np.random.default_rng(5).bytes(20000)
LIST = b"LIST" + struct.pack("<I", 8000) + b"INFO" * 2000
MULTI = "it holds several recordings in a row"
FULL_SCALE, OPPOSITE, NOT_FINITE = "goes beyond full scale", "are of opposite phase", "NaN or infinite"
AT_HALF = (1.0, 3.0)  # seconds: what decodes of a file damaged in the middle
REFUSED = None

KINDS = {
    **{f"flac says {n} samples": (put(".flac", flac_total(n)), SECONDS, said) for n, said in (
        (0, SILENT), (1, WRONG), (32000, WRONG), (128000, TRUNCATED), (2**35, TRUNCATED), (2**36 - 1, TRUNCATED))},
    **{f"flac cut at {share}": (put(".flac", cut(share, "FLAC")), (SECONDS * (share - 0.2), SECONDS * share), TRUNCATED)
       for share in (0.25, 0.5, 0.9)},
    "flac cut in its header": (put(".flac", cut(0.0003, "FLAC")), REFUSED, "cannot be decoded"),
    "flac cut in its first frame": (put(".flac", cut(0.02, "FLAC")), REFUSED, "nothing of it can be decoded"),
    "flac with a hole": (put(".flac", holed("FLAC")), AT_HALF, "truncated or corrupt"),
    "flac behind an ID3 tag": (put(".flac", lambda: ID3 + coded("FLAC")), SECONDS, SILENT),
    "flac with rubbish behind": (put(".flac", lambda: coded("FLAC") + RANDOM[:3000]), SECONDS, SILENT),
    "flac named wav": (put(".wav", lambda: coded("FLAC")), SECONDS, SILENT),
    **{f"wav says {n:#x} bytes": (put(".wav", wav(n, n)), SECONDS, SILENT)
       for n in (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000)},
    "wav of no size in its data alone": (put(".wav", wav(0)), SECONDS, SILENT),
    "wav says a quarter": (put(".wav", wav(32000, 32036)), SECONDS, WRONG),
    "wav of floats says a quarter": (put(".wav", wav(64000, subtype="FLOAT")), SECONDS, WRONG),
    "wav says double": (put(".wav", wav(256000, 256036)), SECONDS, TRUNCATED),
    **{f"wav cut at {share}": (put(".wav", wav(share=share)), SECONDS * share, TRUNCATED)
       for share in (0.1, 0.5, 0.99)},
    "wav header alone": (put(".wav", wav(share=0.0003)), REFUSED, "holds no samples|cannot be decoded"),
    "wav with a list behind": (put(".wav", wav(behind=LIST)), SECONDS, SILENT),
    "wav with zeros behind": (put(".wav", wav(behind=bytes(50000))), SECONDS, SILENT),
    **{f"wav of {rate} Hz": (put(".wav", wav(rate=rate)), REFUSED, "Hz by its header|cannot be decoded")
       for rate in (0, 1, 10**9, 2**31 - 1)},
    "wav of no channel": (put(".wav", wav(channels=0)), REFUSED, "cannot be decoded"),
    "wav of 60000 channels": (put(".wav", wav(channels=60000)), REFUSED, "cannot be decoded"),
    "wav of 7 bits": (put(".wav", wav(bits=0)), REFUSED, "cannot be decoded"),
    "wav of one sample at 384 kHz": (put(".wav", lambda: coded("WAV", sound()[:1], 384000)), REFUSED, "less than one"),
    "wav named mp3": (put(".mp3", wav()), SECONDS, SILENT),
    "wav named FLAC": (put(".FLAC", wav()), SECONDS, SILENT),
    **{f"floats times {x:g}": (put(".wav", floats(lambda w, x=x: w * x)), SECONDS, FULL_SCALE)
       for x in (20.0, 327680.0, 2.0**30)},
    "doubles times 50": (put(".wav", floats(lambda w: w * 50, "DOUBLE")), SECONDS, FULL_SCALE),
    **{f"one sample of {x}": (put(".wav", floats(with_value(x))), SECONDS, NOT_FINITE)
       for x in (1e20, -3e38, 1e4, float("nan"), float("inf"))},
    "a tenth NaN": (put(".wav", floats(with_value(np.nan, 6400))), SECONDS, NOT_FINITE),
    "NaN alone": (put(".wav", floats(lambda w: w * np.nan)), REFUSED, NOT_FINITE),
    "1e20 alone": (put(".wav", floats(lambda w: w * 0 + 1e20)), REFUSED, NOT_FINITE),
    **{f"{form.lower()} cut at a half": (put(ending, cut(0.5, form)), (1.9, 2.1), said) for form, ending, said in (
        ("AIFF", ".aiff", TRUNCATED), ("AU", ".au", TRUNCATED), ("W64", ".w64", TRUNCATED), ("RF64", ".wav", TRUNCATED),
        ("CAF", ".caf", TRUNCATED))},
    **{f"{kind.lower()} wav cut at a half": (put(".wav", cut(0.5, "WAV", subtype=kind)), (1.9, 2.1), TRUNCATED)
       for kind in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")},
    "little-endian au cut at a half": (put(".au", cut(0.5, "AU", endian="LITTLE")), (1.9, 2.1), TRUNCATED),
    "short wav of no size": (put(".wav", wav(0, 0, waveform=sound(0.1))), 0.1, SILENT),
    **{f"mp3 {mode.lower()} without table, {name}": (put(".mp3", mp3(mode, loud, table=False)), (19.9, 20.2), SILENT)
       for mode in ("CONSTANT", "VARIABLE") for name, loud in (("even", None), ("loud first", True), ("last", False))},
    **{f"mp3 cut at {share}": (put(".mp3", mp3(share=share)), (20 * share - 0.5, 20 * share + 0.1), TRUNCATED)
       for share in (0.25, 0.5)},
    "mp3 twice": (put(".mp3", lambda: mp3()() * 2), (39.9, 40.3), WRONG),
    "mp3 behind an ID3 tag": (put(".mp3", mp3(before=ID3)), (19.9, 20.2), SILENT),
    "mp3 without table behind an ID3 tag": (put(".mp3", mp3("VARIABLE", True, False, ID3)), (19.9, 20.2), SILENT),
    "mp3 before an ID3v1 tag": (put(".mp3", mp3(behind=b"TAG" + bytes(125))), (19.9, 20.2), SILENT),
    "mp3 before a picture": (put(".mp3", mp3(behind=b"APETAGEX" + RANDOM[:9000])), (19.9, 20.2), SILENT),
    "mp3 named wav": (put(".wav", mp3()), (19.9, 20.2), SILENT),
    **{f"{kind} cut at a half": (put(".ogg", cut(0.5, "OGG", subtype=kind)), (0.5, 2.1), TRUNCATED)
       for kind in ("VORBIS", "OPUS")},
    **{f"{form.lower()} twice": (put(ending, lambda form=form: coded(form) * 2), SECONDS, MULTI) for form, ending in (
        ("WAV", ".wav"), ("RF64", ".wav"), ("W64", ".w64"), ("AIFF", ".aiff"), ("CAF", ".caf"), ("AU", ".au"),
        ("FLAC", ".flac"))},
    **{f"{kind} twice": (put(".ogg", lambda kind=kind: coded("OGG", subtype=kind) * 2), SECONDS, MULTI)
       for kind in ("VORBIS", "OPUS")},
    "ogg cut in its header": (put(".ogg", cut(0.02, "OGG")), REFUSED, "cannot be decoded|holds no samples|nothing of"),
    **{f"{form.lower()} of opposite phase": (put(ending, opposite(form)), SECONDS, OPPOSITE)
       for form, ending in (("WAV", ".wav"), ("FLAC", ".flac"))},
    **{f"{name} as {ending}": (put(ending, data), REFUSED, "cannot be decoded|empty file") for name, ending, data in (
        ("page", ".wav", b"<!DOCTYPE html><html>404</html>"), ("nothing", ".ogg", b""), ("json", ".flac", b'{"a": 1}'),
        ("zip", ".wav", b"PK\3\4" + RANDOM), ("png", ".mp3", b"\x89PNG\r\n\x1a\n" + bytes(3000)),
        ("zeros", ".mp3", bytes(5000)), ("zeros", ".flac", bytes(5000)), ("rubbish", ".wav", RANDOM))},
    "name that is no text": (odd_name(b"b\xff\xfe.wav"), SECONDS, SILENT),
    "name of two lines": (odd_name(b"two\nlines.wav"), SECONDS, SILENT),
    "name of 250 bytes": (odd_name(b"n" * 246 + b".wav"), SECONDS, SILENT),
    "pipe": (strange(os.mkfifo), REFUSED, "is a pipe"),
    "device": (strange(lambda p: os.symlink("/dev/zero", p)), REFUSED, "is a device"),
    "folder": (strange(os.mkdir), REFUSED, "is a folder"),
    "link to itself": (strange(lambda p: os.symlink(p.name, p)), REFUSED, "cannot be opened"),
    "link to nothing": (strange(lambda p: os.symlink("gone.wav", p)), REFUSED, "does not exist"),
}  # fmt: skip

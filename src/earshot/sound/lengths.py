"""What a file's header says of its length, held against the file itself, without decoding it.

A header can lie: recorders write twice the length into FLAC headers or die before they fill in a WAV's size, downloads
end early, an mp3 of variable bit rate without a table (Xing, Info, VBRI) leaves its length to be guessed, and `cat`
joins two recordings to a file that claims to be the first. What the file says beside its header is cheap to read: the
chunks of a WAV and its like (chunked.py), the numbers of a FLAC's frames (flac.py), the pages of an Ogg file (ogg.py),
the frame headers of an mp3 (mpeg.py).

`inspect` compares the two. A header that disagrees is not used: `header.Shown` gives the decoder the same file with a
mended one.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from earshot.sound.chunked import INSPECTORS
from earshot.sound.flac import inspect_flac
from earshot.sound.header import Header
from earshot.sound.mpeg import inspect_mpeg
from earshot.sound.ogg import inspect_ogg

MPEG = (".mp3", ".mp2")


def inspect(path: str | Path) -> Header:
    """The header of a WAV, W64, AIFF, AU, CAF, NIST, FLAC, Ogg or MPEG file against it; of others nothing is known."""
    try:
        return _inspected(path)
    except struct.error:  # it ends within its header, of which libsndfile tells
        return Header()


def _inspected(path: str | Path) -> Header:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = _after_id3(file.read(10))
        file.seek(start)
        head = file.read(64)
        if not start and head[:4] in INSPECTORS:
            return INSPECTORS[head[:4]](file, size, head)
        if head[:4] == b"fLaC":
            return inspect_flac(file, start, head, size)
        if head[:4] == b"OggS":
            return inspect_ogg(file, head, size)
        if start or head[:2] >= b"\xff\xe0" or Path(path).suffix.lower() in MPEG:
            return inspect_mpeg(file, start, size)
    return Header()


def _after_id3(head: bytes) -> int:
    """Where the content begins: behind an ID3v2 tag, whose size is written in 7-bit bytes; else 0."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))

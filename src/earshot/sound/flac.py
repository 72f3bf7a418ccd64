"""FLAC by the numbers of its frames: whether a file holds the samples that its header promises. Source: RFC 9639."""

from __future__ import annotations

import mmap
import re
from dataclasses import replace

from earshot.sound.header import SEVERAL, Header, View

TAIL_BYTES = 65536  # of a file: holds the last frame, unless the header tells of larger ones
PLACES = 8  # at which the numbers of frames are held against each other
BEGINNING = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # with the head of STREAMINFO, which stands first
SYNC = re.compile(rb"\xff[\xf8\xf9]")  # the first bytes of a frame
RATES = {1: 88200, 2: 176400, 3: 192000, 4: 8000, 5: 16000, 6: 22050, 7: 24000, 8: 32000, 9: 44100, 10: 48000,
         11: 96000}  # fmt: skip
BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}


def inspect_flac(file, start: int, head: bytes, size: int) -> Header:
    """The total of the header against the place of the last frame; where they differ it is shown as unknown.

    Frames whose numbers begin again, or a last one of another place, may be those of a second recording, as its first
    bytes near the end are: it is looked for, and the file shown to end before it.
    """
    if len(head) < 42 or head[4] & 0x7F:
        return Header()
    known = int.from_bytes(head[18:26], "big")
    said = known & (1 << 36) - 1
    info = {"rate": known >> 44, "channels": (known >> 41 & 7) + 1, "bits": (known >> 36 & 31) + 1,
            "block": int.from_bytes(head[10:12], "big")}  # fmt: skip
    begin, largest_frame = start + 42, int.from_bytes(head[15:18], "big")
    last = max(begin, size - max(TAIL_BYTES, largest_frame + 1024))
    part = 2 * largest_frame + 64 if largest_frame else TAIL_BYTES
    pieces = [_piece(file, at, part) for at in range(begin, last, max(part, (last - begin) // PLACES))]
    pieces.append(_piece(file, last, size - last))
    ends = [_last_frame_end(piece, info) for piece in pieces]
    true, found = said and ends[-1] == said, [end for end in ends if end]
    alone = true and found == sorted(found) and not BEGINNING.search(pieces[-1])
    if not alone and (another := _another(file, begin, size)):
        first = inspect_flac(file, start, head, another)
        return replace(first, view=replace(first.view, end=another), note=SEVERAL)
    if true:
        return Header(said)
    return Header(said, False, View(with_total(head[:42], 0), begin), count=True)


def _piece(file, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _another(file, begin: int, size: int) -> int:
    """Where a second recording begins; 0: there is none."""
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
        found = BEGINNING.search(data, begin)
        return found.start() if found else 0


def with_total(streaminfo: bytes, n_samples: int) -> bytes:
    """The first 42 bytes of a FLAC file with this number of samples in them."""
    known = int.from_bytes(streaminfo[18:26], "big")
    return streaminfo[:18] + (known >> 36 << 36 | n_samples).to_bytes(8, "big") + streaminfo[26:]


def _last_frame_end(tail: bytes, info: dict) -> int | None:
    """The sample behind the last frame whose header stands in `tail`."""
    places = [found.start() for found in SYNC.finditer(tail)]
    return next((end for at in reversed(places) if (end := _frame_end(tail[at : at + 16], info))), None)


def _frame_end(frame: bytes, info: dict) -> int | None:
    """Bytes that may be a FLAC frame's header -> the sample that its block ends before; None: they are none."""
    if len(frame) < 16:
        frame = frame.ljust(16, b"\0")
    block_code, rate_code, channel_code, bits_code = frame[2] >> 4, frame[2] & 15, frame[3] >> 4, frame[3] >> 1 & 7
    channels = channel_code + 1 if channel_code < 8 else 2
    if not block_code or rate_code == 15 or channel_code > 10 or bits_code == 3 or frame[3] & 1:
        return None
    if channels != info["channels"] or RATES.get(rate_code, info["rate"]) != info["rate"]:
        return None
    if BITS.get(bits_code, info["bits"]) != info["bits"]:
        return None
    number, at = _coded_number(frame)
    if number is None:
        return None
    if block_code in (6, 7):
        width = block_code - 5
        block = int.from_bytes(frame[at : at + width], "big") + 1
        at += width
    else:
        block = 192 if block_code == 1 else 576 << block_code - 2 if block_code < 6 else 256 << block_code - 8
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(frame) or _crc8(frame[:at]) != frame[at] or block > info["block"]:
        return None
    return (number if frame[1] & 1 else number * info["block"]) + block


def _coded_number(frame: bytes) -> tuple[int | None, int]:
    """The frame's or sample's number behind its first four bytes, coded as in UTF-8, and where it ends."""
    ones = 8 - (frame[4] ^ 0xFF).bit_length()  # leading ones of the first byte: none, or the bytes of the number
    rest = frame[5 : 4 + ones]
    if ones in (1, 8) or any(byte >> 6 != 2 for byte in rest):
        return None, 0
    number = frame[4] & 0x7F >> ones
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, 5 + len(rest)


def _crc8(data: bytes) -> int:
    """CRC of polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 7 if crc & 0x80 else crc << 1) & 0xFF
    return crc

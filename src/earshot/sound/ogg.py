"""Ogg by its pages: several streams in a row, an end that came too early, a last page that promises too much.

Source: RFC 3533 (Ogg), RFC 7845 (Opus), the Vorbis I specification.
"""

from __future__ import annotations

from earshot.sound.header import SEVERAL, Header

TAIL_BYTES = 65536  # of a file: holds its last page
OPUS_SAMPLES = 5760  # at most in a packet, at the 48 kHz that its pages count in
CUT = "it is truncated: its last page does not end its stream, and what is lost is not known"
LAST = 4  # the flag of a page that ends its stream


def inspect_ogg(file, head: bytes, size: int) -> Header:
    """libsndfile reads an Ogg file's length off its last page, and only the first of several streams in a row.

    A last page of another serial number, or of a number too small for the file's size, tells of several. One that is
    not whole or does not end its stream tells of a file cut off, whose former length nothing tells.
    """
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    pages = tail.count(b"OggS\0")
    at = tail.rfind(b"OggS\0")
    if at < 0 or len(tail) < at + 27:
        return Header()
    cut = not tail[at + 5] & LAST or len(tail) < (body := at + 27 + tail[at + 26]) + sum(tail[at + 27 : body])
    number = int.from_bytes(tail[at + 18 : at + 22], "little") + 1
    several = tail[at + 14 : at + 18] != head[14:18]
    if not several and _ends_late(tail, head):
        return Header(count=True, note=CUT if cut else "")
    if not several and number * (at + len(tail)) / 2 / pages < 0.7 * size:  # pages are of about one size
        file.seek(0)
        several = file.read().count(b"OggS\0\2") > 1  # pages that begin a stream
    return Header(note=SEVERAL if several else CUT if cut else "")


def _ends_late(tail: bytes, head: bytes) -> bool:
    """Whether the last page of an Ogg file ends later than the one before it and the packets between let it."""
    longest = OPUS_SAMPLES if head[28:36] == b"OpusHead" else 0
    if head[29:35] == b"vorbis" and len(head) > 56:
        longest = (1 << (head[56] >> 4)) // 2
    ends, packets, at = [], 0, tail.find(b"OggS\0")
    while longest and 0 <= at <= len(tail) - 27 and at + 27 + tail[at + 26] <= len(tail):
        lacing = tail[at + 27 : at + 27 + tail[at + 26]]
        packets += sum(value < 255 for value in lacing)
        end = int.from_bytes(tail[at + 6 : at + 14], "little", signed=True)
        if end >= 0:
            ends, packets = [*ends[-1:], (end, packets)], 0
        at = tail.find(b"OggS\0", at + 27 + len(lacing))
    return len(ends) == 2 and ends[1][0] - ends[0][0] > ends[1][1] * longest

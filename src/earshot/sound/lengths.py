"""What a file's header says of its length, held against the file itself, without decoding it.

A header can lie: recorders write twice the length into FLAC headers or die before they fill in a WAV's size, downloads
end early, an mp3 of variable bit rate without a table (Xing, Info, VBRI) leaves its length to be guessed. What the file
says beside its header is cheap to read: a WAV's chunks, the number of a FLAC's last frame, the frame headers of an mp3.

`inspect` compares the two. A header that disagrees is not used: `Shown` gives the decoder the same file with a mended
one. Sources: RIFF/WAVE as Microsoft describes it, RFC 9639 (FLAC), ISO 11172-3 and 13818-3 (MPEG audio).
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from earshot.sound.mpeg import inspect_mpeg

TAIL_BYTES = 65536  # of a FLAC or Ogg file: holds the last frame and the last page
LEAST_TRAILING_BYTES = 4096  # behind a WAV's data: less is padding, not a recording
MPEG = (".mp3", ".mp2")
PCM = (1, 3, 0xFFFE)  # encodings of a WAV whose blocks are one sample of every channel
UNKNOWN_SIZE = 0xFFFFFFFF  # in a WAV: "to the end of the file"
AIFF_PLAIN = (b"NONE", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")  # not compressed
AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # a sample, by the number of an encoding
OPUS_SAMPLES = 5760  # at most in a packet, at the 48 kHz that its pages count in
FLAC_RATES = {1: 88200, 2: 176400, 3: 192000, 4: 8000, 5: 16000, 6: 22050, 7: 24000, 8: 32000, 9: 44100, 10: 48000,
              11: 96000}  # fmt: skip
FLAC_BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}


@dataclass(frozen=True)
class Header:
    """What is known of a header.

    said: the samples a channel that it names, 0 where it names none. agrees: the file bears it out. prefix: bytes to
    show the decoder in place of the file's first `skip` ones, none where the file may be read as it is. count: only
    decoding tells the length. note: what else is odd.
    """

    said: int = 0
    agrees: bool = True
    prefix: bytes = b""
    skip: int = 0
    count: bool = False
    note: str = ""


class Shown(io.RawIOBase):
    """A file with other bytes at its start: `prefix`, then what follows the file's first `skip` bytes."""

    def __init__(self, path: str | Path, prefix: bytes, skip: int):
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._prefix, self._skip, self._at = prefix, skip, 0
        self._length = len(prefix) + max(0, os.fstat(self._file.fileno()).st_size - skip)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._length)[whence])
        return self._at

    def readinto(self, buffer) -> int:
        wanted = memoryview(buffer).cast("B")
        data = self._prefix[self._at : self._at + len(wanted)]
        if not data:
            self._file.seek(self._skip + self._at - len(self._prefix))
            data = self._file.read(len(wanted))
        wanted[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self):
        self._file.close()
        super().close()


def inspect(path: str | Path) -> Header:
    """The header of a WAV, AIFF, AU, CAF, FLAC, Ogg or MPEG file against the file; of other kinds nothing is known."""
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
        if not start and head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return _inspect_wav(file, size, head)
        if not start and head[:4] in OTHERS:
            return OTHERS[head[:4]](file, size)
        if head[:4] == b"fLaC":
            return _inspect_flac(file, start, head, size)
        if head[:4] == b"OggS":
            return _inspect_ogg(file, head, size)
        if start or head[:2] >= b"\xff\xe0" or Path(path).suffix.lower() in MPEG:
            return Header(**inspect_mpeg(file, start, size))
    return Header()


def _after_id3(head: bytes) -> int:
    """Where the content begins: behind an ID3v2 tag, whose size is written in 7-bit bytes; else 0."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))


# ---- WAV


def _inspect_wav(file, size: int, start: bytes) -> Header:
    """A data chunk that says nothing, or less than the file holds, is shown as one that goes to the file's end.

    One that says more is left to libsndfile, which ends it where the file ends. An RF64 file, of more than 4 GB or made
    to grow so, says in its first chunk, ds64, what the data chunk has no room for.
    """
    encoding, block, at = 0, 0, 12
    in_64_bits = start[:4] == b"RF64" and start[12:16] == b"ds64"
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"fmt " and length >= 16:
            encoding, _, _, _, block, _ = struct.unpack("<2H2I2H", file.read(16))
        if name == b"data":
            break
        at += 8 + length + length % 2
    else:
        return Header()
    if in_64_bits and length == UNKNOWN_SIZE:
        length = int.from_bytes(start[28:36], "little")
    begin, said = at + 8, length // block if block and encoding in PCM else 0
    if in_64_bits and begin + length > size:  # libsndfile ends it, but tells nobody
        return Header(said, False)
    if not block or begin + length >= size or not _is_sound(file, begin + length, size):
        return Header(said)
    file.seek(0)
    head = bytearray(file.read(begin))
    head[4:8] = head[-4:] = struct.pack("<I", UNKNOWN_SIZE)
    if in_64_bits:
        head[20:44] = struct.pack("<3Q", size - 8, size - begin, (size - begin) // block)
    return Header(said, False, bytes(head), begin)


def _is_sound(file, begin: int, size: int, order: str = "<") -> bool:
    """Whether what lies behind a data chunk is more of it: neither further chunks, nor padding, nor zeros alone.

    order: of the bytes of a chunk's length, < or >.
    """
    at = begin + begin % 2
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if not all(32 <= byte < 127 for byte in name) or at + 8 + length > size + 1:
            break
        at += 8 + length + length % 2
    if size - at < LEAST_TRAILING_BYTES or at > begin + begin % 2:  # a chunk after the data: what follows is no sound
        return False
    file.seek(at)
    return any(any(piece) for piece in iter(lambda: file.read(1 << 20), b""))


# ---- AIFF, AU, CAF


def _inspect_aiff(file, size: int) -> Header:
    """Sound that goes on behind its chunk is shown as more of it: the chunk's length, and the frames in COMM."""
    at, block, comm = 12, 0, 0
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack(">4sI", file.read(8))
        if name == b"COMM" and length >= 18:
            channels, _, bits, _, kind = struct.unpack(">HIH10s4s", file.read(22).ljust(22, b"\0"))
            plain = length < 22 or kind in AIFF_PLAIN
            block, comm = channels * ((bits + 7) // 8) * plain, at + 10
        if name == b"SSND":
            break
        at += 8 + length + length % 2
    else:
        return Header()
    begin, end = at + 16, at + 8 + length
    said = max(0, length - 8) // block if block else 0
    if not block or at < comm or not 0 < end < size or not _is_sound(file, end, size, ">"):
        return Header(said)
    file.seek(0)
    head = bytearray(file.read(begin))
    head[4:8], head[at + 4 : at + 8] = (struct.pack(">I", min(n, UNKNOWN_SIZE)) for n in (size - 8, size - at - 8))
    head[comm : comm + 4] = struct.pack(">I", min((size - begin) // block, UNKNOWN_SIZE))
    return Header(said, False, bytes(head), begin)


def _inspect_au(file, size: int) -> Header:
    """A header that says less than the file holds, or 0, is shown as one that does not know."""
    file.seek(0)
    head = bytearray(file.read(24))
    if len(head) < 24:
        return Header()
    begin, length, encoding, _, channels = struct.unpack(">5I", head[4:])
    block = AU_BYTES.get(encoding, 0) * channels
    if not block or length == UNKNOWN_SIZE or begin >= size:
        return Header()
    said = length // block
    if begin + length > size:  # libsndfile ends it, but tells nobody
        return Header(said, False)
    if begin + length == size or not _is_sound(file, begin + length, size, ">"):
        return Header(said)
    head[8:12] = struct.pack(">I", UNKNOWN_SIZE)
    return Header(said, False, bytes(head), len(head))


def _inspect_caf(file, size: int) -> Header:
    """Plain samples whose chunk says -1, for unknown as recorders write it, or another length than the file has, which
    libsndfile refuses or believes, are shown as a chunk that goes to the file's end."""
    at, block = 8, 0
    while at + 12 <= size:
        file.seek(at)
        name, length = struct.unpack(">4sq", file.read(12))
        if name == b"desc" and length >= 32:
            kind, _, packet, frames = struct.unpack(">4s3I", file.read(32)[8:24])
            block = packet if kind == b"lpcm" and frames == 1 else 0
        if name == b"data" or length < 0:
            break
        at += 12 + length
    else:
        return Header()
    begin, end = at + 16, at + 12 + length
    if name != b"data" or not block or begin >= size:
        return Header()
    said = max(0, length - 4) // block
    if length >= 4 and (end == size or (end < size and not _is_sound(file, end, size, ">"))):
        return Header(said)
    file.seek(0)
    head = bytearray(file.read(begin))
    head[at + 4 : at + 12] = struct.pack(">q", size - at - 12)
    return Header(said, False, bytes(head), begin)


OTHERS = {b"FORM": _inspect_aiff, b".snd": _inspect_au, b"caff": _inspect_caf}


# ---- FLAC


def _inspect_flac(file, start: int, head: bytes, size: int) -> Header:
    """The total of the header against the place of the last frame; where they differ it is shown as unknown."""
    if len(head) < 42 or head[4] & 0x7F:
        return Header()
    known = int.from_bytes(head[18:26], "big")
    said = known & (1 << 36) - 1
    info = {"rate": known >> 44, "channels": (known >> 41 & 7) + 1, "bits": (known >> 36 & 31) + 1,
            "block": int.from_bytes(head[10:12], "big")}  # fmt: skip
    largest_frame = int.from_bytes(head[15:18], "big")
    file.seek(max(start + 42, size - max(TAIL_BYTES, largest_frame + 1024)))
    if said and _last_frame_end(file.read(), info) == said:
        return Header(said)
    return Header(said, False, with_total(head[:42], 0), start + 42, count=True)


def with_total(streaminfo: bytes, n_samples: int) -> bytes:
    """The first 42 bytes of a FLAC file with this number of samples in them."""
    known = int.from_bytes(streaminfo[18:26], "big")
    return streaminfo[:18] + (known >> 36 << 36 | n_samples).to_bytes(8, "big") + streaminfo[26:]


def _last_frame_end(tail: bytes, info: dict) -> int | None:
    """The sample behind the last frame whose header stands in `tail`."""
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if at + 1 < len(tail) and tail[at + 1] & 0xFE == 0xF8 and (end := _frame_end(tail[at : at + 16], info)):
            return end
    return None


def _frame_end(frame: bytes, info: dict) -> int | None:
    """Bytes that may be a FLAC frame's header -> the sample that its block ends before; None: they are none."""
    if len(frame) < 16:
        frame = frame.ljust(16, b"\0")
    block_code, rate_code, channel_code, bits_code = frame[2] >> 4, frame[2] & 15, frame[3] >> 4, frame[3] >> 1 & 7
    channels = channel_code + 1 if channel_code < 8 else 2
    if not block_code or rate_code == 15 or channel_code > 10 or bits_code == 3 or frame[3] & 1:
        return None
    if channels != info["channels"] or FLAC_RATES.get(rate_code, info["rate"]) != info["rate"]:
        return None
    if FLAC_BITS.get(bits_code, info["bits"]) != info["bits"]:
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


# ---- Ogg


def _inspect_ogg(file, head: bytes, size: int) -> Header:
    """libsndfile reads an Ogg file's length off its last page, and only the first of several streams in a row.

    A last page of another serial number, or of a number too small for the file's size, tells of several.
    """
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    pages = tail.count(b"OggS\0")
    at = tail.rfind(b"OggS\0")
    if at < 0 or len(tail) < at + 22:
        return Header()
    number = int.from_bytes(tail[at + 18 : at + 22], "little") + 1
    several = tail[at + 14 : at + 18] != head[14:18]
    if not several and _ends_late(tail, head):
        return Header(count=True)
    if not several and number * (at + len(tail)) / 2 / pages < 0.7 * size:  # pages are of about one size
        file.seek(0)
        several = file.read().count(b"OggS\0\2") > 1  # pages that begin a stream
    return Header(note="it holds several streams in a row, of which only the first is heard" if several else "")


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

"""Headers of files made of chunks, held against the file: WAV, RF64, W64, AIFF, CAF; AU and NIST have one alone.

Each chunk says its name and its length; the one of the samples is followed by nothing, by further chunks, by padding,
by more sound of which its length does not know, or, in a file that `cat` made, by another recording. Sources: RIFF/WAVE
as Microsoft describes it, EBU Tech 3306 (RF64), Apple's AIFF-C and CAF, Sony's Wave64, Sun's and NeXT's AU.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from earshot.sound.header import SEVERAL, WHOLE, Header, View

LEAST_TRAILING_BYTES = 4096  # behind the data: less, and less than the data themselves, is padding, not a recording
PADDING = 7  # bytes at most between a chunk and what follows it
PCM = (1, 3, 0xFFFE)  # encodings of a WAV whose blocks are one sample of every channel
UNKNOWN_SIZE = 0xFFFFFFFF  # in a WAV or AU: "to the end of the file"
UNKNOWN_SIZES_64 = 1 << 63  # from here on a size of 64 bits is -1 or its like, as recorders write it to a pipe
AIFF_PLAIN = (b"NONE", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")  # not compressed
CAF_PLAIN = (b"lpcm", b"ulaw", b"alaw")
AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # a sample, by the number of an encoding


@dataclass(frozen=True)
class Form:
    """How files of a kind write their chunks.

    head: name and length. magic: the bytes that a file begins with. pad: chunks begin at its multiples. own: bytes of
    the chunk's head that its length counts.
    """

    head: str
    magic: bytes
    pad: int = 2
    own: int = 0


WAV, RF64, AIFF = Form("<4sI", b"RIFF"), Form("<4sI", b"RF64"), Form(">4sI", b"FORM")
UNPADDED = replace(WAV, pad=1)  # some recorders write no byte behind a chunk of an odd length
CAF, W64 = Form(">4sq", b"caff", pad=1), Form("<4s12xQ", b"riff", pad=8, own=24)
NIST = Form("<4sI", b"NIST")  # which has no chunks
AU, AU_LITTLE = Form(">4sI", b".snd"), Form("<4sI", b"dns.")


def chunks(file, at: int, size: int, form: Form) -> Iterator[tuple[bytes, int, int]]:
    """Yields each chunk's name, where its content begins, and its length, from the place `at` on."""
    head = struct.calcsize(form.head)
    while at + head <= size:
        file.seek(at)
        name, length = struct.unpack(form.head, file.read(head))
        length -= form.own
        yield name, at + head, length
        if length < 0:
            return
        at += head + length
        at += -at % form.pad


def _read(file, at: int, form: str) -> tuple:
    file.seek(at)
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _behind(file, begin: int, end: int, size: int, form: Form) -> tuple[bool, int]:
    """What lies behind the samples, which stand in bytes [begin, end): more of them, or another recording.

    Whether it is more, which is neither further chunks, nor padding, nor zeros alone; and where another one begins
    (0: there is none).
    """
    file.seek(end)
    if 0 <= (padding := file.read(PADDING + 4).find(form.magic)) <= PADDING:  # whether it is there or not
        return False, end + padding
    for first in dict.fromkeys((end + -end % form.pad, end, end + end % 2)):  # programs pad as they please
        at = first
        for name, content, length in chunks(file, first, size, form):
            at = content - struct.calcsize(form.head)
            if name == form.magic:
                return False, at
            if not all(32 <= byte < 127 for byte in name) or not 0 <= length <= size + 1 - content:
                break
            at = content + length + -length % form.pad
        if at > first or size - first < min(LEAST_TRAILING_BYTES, end - begin):
            return False, 0
    file.seek(at)
    return any(any(piece) for piece in iter(lambda: file.read(1 << 20), b"")), 0


def _cut(said: int, promised: int, there: int) -> Header:
    """The header of a file that ends before its samples do, of which libsndfile tells nobody; sizes in bytes."""
    if said:
        return Header(said, False)
    return Header(note=f"it is truncated: its header promises {promised} bytes of sound, it holds {there}")


def _data_chunk(file, at: int, size: int, form: Form) -> tuple[int, int, int, int]:
    """Of a WAV or W64: encoding, bytes of a frame, and where the samples begin and how many bytes of them it says.

    Zeros: it has no such chunk.
    """
    encoding, block = 0, 0
    for name, begin, length in chunks(file, at, size, form):
        if name == b"fmt " and length >= 16:
            encoding, _, _, _, block, _ = _read(file, begin, "<2H2I2H")
        if name == b"data":
            return encoding, block, begin, length
    return 0, 0, 0, 0


def _padded_head(file, begin: int) -> bytes:
    """All of an unpadded WAV before its samples, with the bytes that should stand behind chunks of an odd length."""
    file.seek(0)
    head = file.read(12)
    for _, at, length in chunks(file, 12, begin, UNPADDED):
        file.seek(at - struct.calcsize(WAV.head))
        chunk = file.read(min(begin, at + length) - file.tell())
        head += chunk + bytes(len(chunk) % 2)
    return head


def inspect_wav(file, size: int, start: bytes) -> Header:
    """A data chunk that says nothing, or less than the file holds, is shown as one that goes to the file's end.

    One that says more is left to libsndfile, which ends it where the file ends. An RF64 file, of more than 4 GB or made
    to grow so, says in its first chunk, ds64, what the data chunk has no room for. A WAV of more than 4 GB, whose
    recorder counted on from 0 or stopped counting, is shown as one.
    """
    if start[8:12] != b"WAVE":
        return Header()
    (encoding, block, begin, length), view = _data_chunk(file, 12, size, WAV), WHOLE
    if not begin:
        encoding, block, begin, length = _data_chunk(file, 12, size, UNPADDED)
        view = View(_padded_head(file, begin), begin)
    if not begin:
        return Header()
    in_64_bits = start[:4] == b"RF64" and start[12:16] == b"ds64"
    if in_64_bits and length == UNKNOWN_SIZE:
        length = int.from_bytes(start[28:36], "little")
        length *= length < UNKNOWN_SIZES_64
    end, said = begin + length, length // block if block and encoding in PCM else 0
    if in_64_bits and end > size:  # libsndfile ends it, but tells nobody
        return _cut(said, length, size - begin)
    if not block or end >= size:
        return Header(said, view=view)
    more, another = _behind(file, begin, end, size, RF64 if in_64_bits else WAV)
    if another:
        return Header(said, view=replace(view, end=another), note=SEVERAL)
    if not more:
        return Header(said, view=view)
    file.seek(0)
    head = bytearray(view.prefix or file.read(begin))
    head[4:8] = head[-4:] = struct.pack("<I", UNKNOWN_SIZE)
    if not in_64_bits and size - begin > UNKNOWN_SIZE:  # a WAV that grew beyond 4 GB, read as the RF64 it should be
        in_64_bits, head[:12] = True, RF64.magic + head[4:12] + struct.pack("<4sI28x", b"ds64", 28)
    if in_64_bits:
        head[20:44] = struct.pack("<3Q", size - 8, size - begin, (size - begin) // block)
    return Header(said, False, View(bytes(head), begin))


def inspect_w64(file, size: int, start: bytes) -> Header:
    """libsndfile reads the data to the file's end whatever they say: what follows them is hidden where it is no sound.

    A file that ends too early is told.
    """
    if start[24:28] != b"wave":
        return Header()
    encoding, block, begin, length = _data_chunk(file, 40, size, W64)
    if length <= 0 or length >= UNKNOWN_SIZES_64 - W64.own:
        return Header()
    end, said = begin + length, length // block if block and encoding in PCM else 0
    if end > size:
        return _cut(said, length, size - begin)
    more, another = _behind(file, begin, end, size, W64)
    if another:
        return Header(said, view=View(end=another), note=SEVERAL)
    return Header(said, not more, WHOLE if more or end == size else View(end=end))


def inspect_aiff(file, size: int, start: bytes) -> Header:
    """Sound that goes on behind its chunk is shown as more of it: the chunk's length, and the frames in COMM."""
    block, comm = 0, 0
    for name, at, length in chunks(file, 12, size, AIFF):
        if name == b"COMM" and length >= 18:
            channels, _, bits = _read(file, at, ">HIH")
            plain = length < 22 or _read(file, at + 18, "4s")[0] in AIFF_PLAIN
            block, comm = channels * ((bits + 7) // 8) * plain, at + 2
        if name == b"SSND":
            break
    else:
        return Header()
    begin, end = at + 8, at + length
    said = max(0, length - 8) // block if block else 0
    if not 0 < end < size:
        return Header(said)
    more, another = _behind(file, begin, end, size, AIFF)
    if another:
        return Header(said, view=View(end=another), note=SEVERAL)
    if not block or at < comm or not more:
        return Header(said)
    file.seek(0)
    head = bytearray(file.read(begin))
    head[4:8], head[at - 4 : at] = (struct.pack(">I", min(n, UNKNOWN_SIZE)) for n in (size - 8, size - at))
    head[comm : comm + 4] = struct.pack(">I", min((size - begin) // block, UNKNOWN_SIZE))
    return Header(said, False, View(bytes(head), begin))


def inspect_au(file, size: int, start: bytes) -> Header:
    """A header that says less than the file holds, or 0, is shown as one that does not know."""
    form = AU if start[:4] == AU.magic else AU_LITTLE
    order, head = form.head[0], bytearray(start[:24])
    begin, length, encoding, _, channels = struct.unpack(f"{order}5I", head[4:])
    if length == UNKNOWN_SIZE or begin >= size:
        return Header()
    block, end = AU_BYTES.get(encoding, 0) * channels, begin + length
    said = length // block if block else 0
    if end > size:
        return _cut(said, length, size - begin)
    if end == size:
        return Header(said)
    more, another = _behind(file, begin, end, size, form)
    if another:
        return Header(said, view=View(end=another), note=SEVERAL)
    if not block or not more:
        return Header(said)
    head[8:12] = struct.pack(f"{order}I", UNKNOWN_SIZE)
    return Header(said, False, View(bytes(head), len(head)))


def inspect_caf(file, size: int, start: bytes) -> Header:
    """Plain samples whose chunk says -1, for unknown as recorders write it, or another length than the file has, which
    libsndfile refuses or believes, are shown as a chunk that goes to the file's end."""
    block = 0
    for name, at, length in chunks(file, 8, size, CAF):
        if name == b"desc" and length >= 32:
            kind, _, packet, frames = _read(file, at + 8, ">4s3I")
            block = packet if kind in CAF_PLAIN and frames == 1 else 0
        if name == b"data":
            break
    else:
        return Header()
    begin, end = at + 4, at + length
    said = max(0, length - 4) // block if block else 0
    if begin >= size:
        return Header()
    if length >= 4 and end <= size:
        more, another = _behind(file, begin, end, size, CAF)
        if another:
            return Header(said, view=View(end=another), note=SEVERAL)
        if not more:
            return Header(said)
    if not block:
        return Header()
    file.seek(0)
    head = bytearray(file.read(begin))
    head[at - 8 : at] = struct.pack(">q", size - at)
    return Header(said, False, View(bytes(head), begin))


def inspect_nist(file, size: int, start: bytes) -> Header:
    """The header is text, of which libsndfile believes no length: it reads to the file's end."""
    begin = int(start[8:16]) if start[8:16].strip().isdigit() else 0
    file.seek(0)
    told = dict(re.findall(rb"^(\w+) -[is]\d* (\d+)", file.read(begin), re.MULTILINE))
    said, width, channels = (int(told.get(name, 0)) for name in (b"sample_count", b"sample_n_bytes", b"channel_count"))
    end = begin + said * width * max(1, channels)
    if end in (begin, size):
        return Header(said)
    if end > size:
        return Header(said, False)
    more, another = _behind(file, begin, end, size, NIST)
    if another:
        return Header(said, view=View(end=another), note=SEVERAL)
    return Header(said, not more, WHOLE if more else View(end=end))


INSPECTORS = {
    form.magic: inspector
    for inspector, forms in (
        (inspect_wav, (WAV, RF64)),
        (inspect_w64, (W64,)),
        (inspect_aiff, (AIFF,)),
        (inspect_au, (AU, AU_LITTLE)),
        (inspect_caf, (CAF,)),
        (inspect_nist, (NIST,)),
    )
    for form in forms
}

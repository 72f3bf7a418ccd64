"""What is known of an audio file's header, and the file as the decoder is shown it where its own header would mislead.

Nothing on disk is changed: `Shown` reads the same file with other bytes at its start, or with an earlier end.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

SEVERAL = "it holds several recordings in a row, of which only the first is heard"


@dataclass(frozen=True)
class View:
    """What of a file is shown to the decoder: `prefix` in place of its first `skip` bytes, and nothing from `end` on.

    end: 0 is the file's own end.
    """

    prefix: bytes = b""
    skip: int = 0
    end: int = 0

    def __bool__(self) -> bool:
        return bool(self.prefix or self.end)


WHOLE = View()


@dataclass(frozen=True)
class Header:
    """What is known of a header.

    said: the samples a channel that it names, 0 where it names none. agrees: the file bears it out. view: how the
    decoder is shown the file, false where it may be read as it is. count: only decoding tells the length. note: what
    else is odd.
    """

    said: int = 0
    agrees: bool = True
    view: View = WHOLE
    count: bool = False
    note: str = ""


class Shown(io.RawIOBase):
    """A file as a view of it: readable from `prefix` to `end`."""

    def __init__(self, path: str | Path, view: View):
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._prefix, self._skip, self._at = view.prefix, view.skip, 0
        end = view.end or os.fstat(self._file.fileno()).st_size
        self._length = len(view.prefix) + max(0, end - view.skip)

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
            data = self._file.read(min(len(wanted), max(0, self._length - self._at)))
        wanted[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self):
        self._file.close()
        super().close()

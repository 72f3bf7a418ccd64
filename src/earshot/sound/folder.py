"""The recordings of a folder: each once, and everything else with the reason why it is left out.

What a folder may hold besides: links that lead back up, links to nothing, pipes and devices (opening one would wait for
ever), formats that nothing here decodes, tables and pictures, folders that may not be read. Nothing is opened here.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".w64",
              ".rf64", ".caf")  # fmt: skip
UNDECODED = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mkv", ".mov", ".avi", ".ac3", ".amr", ".ape", ".wv",
             ".dsf", ".dff", ".tta", ".mpc", ".3gp", ".ra", ".spx", ".raw", ".pcm", ".sph", ".wac", ".zc",
             ".gsm", ".g722", ".g729", ".sln", ".sln16", ".ulaw", ".alaw", ".ul", ".al", ".vox", ".awb", ".qcp", ".m4b",
             ".mp2", ".voc", ".iff", ".8svx", ".adpcm", ".shn")  # fmt: skip
# what systems put into every folder: deleted files, thumbnails, what an unpacked Mac archive has beside it
SYSTEM_FOLDERS = frozenset(
    ("$recycle.bin", "#recycle", "@recycle", "@eadir", "__macosx", "lost+found", "system volume information")
)
CACHE, CACHE_TABLES = re.compile("[0-9a-f]{16}"), ("params.json", "index.csv")  # a folder's name, and what is in it

REASONS = 4  # why files are left out, that a sentence tells


@dataclass(frozen=True)
class Recordings:
    """The audio files of `folder`, sorted, and {path: why it is none} of what was left out."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)

    def below(self) -> list[str]:
        """The path of each file below the folder, with / between its parts."""
        return [path.relative_to(self.folder).as_posix() for path in self.files]

    def ids(self) -> list[str]:
        """A name for each file: its path below the folder without ending, or with it where two files would share one.

        Bytes that are no text are written as \\xNN, so that tables can hold the name.
        """
        whole = [printable(path) for path in self.below()]
        names = [path[: path.rindex(".")] for path in whole]
        while len(set(names)) < len(names):
            counts = Counter(names)
            changed = [full if counts[name] > 1 else name for name, full in zip(names, whole)]
            if changed == names:  # two names of the same text, as \\xff and the byte FF have
                changed = [f"{name}~{i}" if counts[name] > 1 else name for i, name in enumerate(names)]
            names = changed
        return names

    def said(self, what: str = "files") -> str:
        """Say in one sentence what was left out and why.

        '3 files in recordings are left out: notes.txt (no recording); ...', '' where there is nothing to say.
        """
        if not self.left_out:
            return ""
        folder = printable(str(self.folder))
        return f"{len(self.left_out)} {what} in {folder} are left out: {by_reason(self.left_out)}"


def list_recordings(folder: str | Path, deep: bool = True) -> Recordings:
    """What lies in a folder, at any depth or (deep=False) right in it. ValueError where it is no folder.

    Links are followed, after all that is no link, to whatever was not seen yet: a folder is walked once and a file is
    listed once, by its own name before a link's; a link to a folder above `folder` is not followed. Hidden files
    (`._x.wav`) are left out and not mentioned; SYSTEM_FOLDERS, and caches, are left out and named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one that holds audio files")
    found, seen = Recordings(folder), {}
    folders, links = [folder], deque()
    while folders or links:
        if folders:
            _scan(folders.pop(), seen, found, folders if deep else None, links)
        else:
            _follow(links.popleft(), seen, found, folders if deep else None)
    return Recordings(folder, sorted(found.files), dict(sorted(found.left_out.items())))


def some_recordings(folder: str | Path) -> Recordings:
    """What `list_recordings` finds in a folder that is to hold recordings; none at all is an error that says why."""
    found = list_recordings(folder)
    if not found.files:
        kinds = ", ".join(ending.removeprefix(".") for ending in sorted(EXTENSIONS))
        raise ValueError("; ".join(filter(None, [f"{folder} holds no recording ({kinds})", found.said()])))
    return found


def _scan(at: Path, seen: dict, found: Recordings, folders: list | None, links: deque):
    """List one folder: its files are taken, its folders and links are for later."""
    try:
        status = os.stat(at)
        if (known := seen.setdefault((status.st_dev, status.st_ino), at)) != at:
            found.left_out[at] = f"the folder {printable(str(known))} again"
            return
        entries = sorted(os.scandir(at), key=lambda entry: entry.name)
    except OSError as error:
        found.left_out[at] = f"a folder that cannot be opened: {error.strerror}"
        return
    last = len(folders) if folders is not None else 0
    for entry in entries:
        path = at / entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            links.append(path)
        elif entry.name.casefold() in SYSTEM_FOLDERS:
            found.left_out[path] = "a folder of the system's own, of deleted files or thumbnails"
        elif not entry.is_dir(follow_symlinks=False):
            _take(path, entry.stat(follow_symlinks=False), seen, found)
        elif folders is not None and is_cache(path):
            found.left_out[path] = "a cache, of copies of recordings"
        elif folders is not None:
            folders.insert(last, path)  # the first by name is taken next


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache as data/caches.py writes it, which may lie anywhere (`data.cache_folder`)."""
    return bool(CACHE.fullmatch(folder.name)) and all((folder / name).is_file() for name in CACHE_TABLES)


def _follow(link: Path, seen: dict, found: Recordings, folders: list | None):
    """Take what a link leads to, unless it was seen."""
    try:
        status = os.stat(link)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        found.left_out[link] = "a link to nothing" if missing else f"a link that leads nowhere: {error.strerror}"
        return
    known = seen.get((status.st_dev, status.st_ino))
    if found.folder.resolve().is_relative_to(link.resolve()) and known is None:
        found.left_out[link] = "a link to a folder above"
    elif known is not None:
        found.left_out[link] = f"a link to {printable(str(known))}, which is read already"
    elif not stat.S_ISDIR(status.st_mode):
        _take(link, status, seen, found)
    elif is_cache(link.resolve()):
        found.left_out[link] = "a cache, of copies of recordings"
    elif folders is not None:
        folders.append(link)


def _take(path: Path, status: os.stat_result, seen: dict, found: Recordings):
    """List a file, or say why not. Only what has an audio file's name is remembered as seen."""
    ending = path.suffix.lower()
    if ending in UNDECODED:
        found.left_out[path] = f"a format that nothing here decodes, {ending}: convert it, say with ffmpeg"
    elif ending not in EXTENSIONS:
        found.left_out[path] = f"no recording by its ending, '{path.suffix}'" if path.suffix else "it has no ending"
    elif not stat.S_ISREG(status.st_mode):
        found.left_out[path] = "a pipe, socket or device, not a file"
    elif (known := seen.get((status.st_dev, status.st_ino))) and known.is_symlink():  # two hard links are two files
        found.left_out[path] = f"the file that {printable(str(known))} links to"
    else:
        seen[status.st_dev, status.st_ino] = path
        found.files.append(path)


def by_reason(left_out: Mapping[Path, str], n: int = REASONS) -> str:
    """Say why files are left out, the commonest reason first: "7 such as a.txt (no recording by its ending, '.txt')".

    n: reasons that are told; the files of others are counted, so that all are spoken of.
    """
    names: dict[str, list[str]] = {}
    for path, reason in left_out.items():
        names.setdefault(reason, []).append(printable(path.name))
    ordered = sorted(names.items(), key=lambda item: -len(item[1]))
    told = [
        f"{some[0]} ({reason})" if len(some) == 1 else f"{len(some)} such as {some[0]} ({reason})"
        for reason, some in ordered[:n]
    ]
    more = sum(len(some) for _, some in ordered[n:])
    return "; ".join(told) + (f"; and {more} more" if more else "")


def printable(text: str) -> str:
    """A text that any table can hold: bytes of a file's name that are no UTF-8 stand as \\xNN."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character that no file system has written
        return text.encode("utf-8", "backslashreplace").decode()

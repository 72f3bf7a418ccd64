"""Which recordings a folder of one's own holds, and which of them a table or an annotation file speaks of."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pandas as pd

from earshot.messages import few
from earshot.sound.audio import EXTENSIONS
from earshot.sound.folder import SYSTEM_FOLDERS, Recordings, by_reason, printable, some_recordings

# what programs put behind a recording's name when they name an annotation file: rec_annotations, rec.Table.1.selections
ADDED = re.compile(
    r"([._ -]+(table(\.\d+)?|audacity|birdnet|stats|r|"
    r"(selection|result|label|annotation|score|event|call|detection|prediction|segment)s?))+$",
    re.IGNORECASE,
)

NOTMAT = re.compile(r"(\.cbin)?\.not(?=\.mat$)", re.I)  # of evsonganaly: rec.wav.not.mat, rec.cbin.not.mat

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class OwnRecordings:
    """The recordings below `source`: paths relative to it, in order, with an id each.

    A name in a table is looked for as it stands, then by its last parts, with or without its ending. without: a folder
    of which nothing was taken.
    """

    source: Path
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    by_name: dict[str, list[str]] = field(repr=False)
    without: Path | None = None

    def find(self, name: str, where: str, near: str = "") -> str | None:
        """The path of the recording that a table calls `name`; None where there is none, ValueError where several.

        where: for the error; near: the table's folder below `source`, whose recordings come before those of folders
        further up: recorders of several sites give the same names.
        """
        parts = PurePosixPath(str(name).strip().replace("\\", "/")).parts
        for start in range(len(parts)):
            for text in ("/".join(parts[start:]), _without_ending("/".join(parts[start:]))):
                found = self.by_name.get(_key(text), [])
                if len(found) > 1 and (nearest := _nearest(found, near)):
                    return nearest
                if len(found) > 1:
                    raise ValueError(
                        f"{where} names '{name}', which {len(found)} recordings are called: {few(found)}; give their "
                        "paths below --source"
                    )
                if found:
                    return found[0]
        return None

    def find_all(self, names: Iterable[str], where: str, near: str = "") -> dict[str, str | None]:
        """What each name of a table is called here: {name: path, or None}; `near` as in `find`.

        Names that are none as they stand are read as other programs change them (`_rewritten`), and that is said
        where `where` says of what.
        """
        found = {str(name): self._find_or_none(name, where, near) for name in dict.fromkeys(names)}
        taken, changed = set(found.values()), {}
        for name in (n for n, path in found.items() if path is None):
            near = {p for key in _rewritten(name) for p in self._by_rewritten.get(key, ())} - taken
            if len(near) == 1:
                found[name] = changed[name] = near.pop()
        if changed and where:
            logger.warning("%s names %d recordings as other programs do: %s", where, len(changed),
                           few([f"'{name}' for {path}" for name, path in changed.items()]))  # fmt: skip
        return found

    def _find_or_none(self, name: str, where: str, near: str) -> str | None:
        try:
            return self.find(name, where, near)
        except ValueError:
            if where:
                raise
            return None

    def in_folders(self, names: Iterable[str], folders: Iterable[Path]) -> list[str]:
        """Names of tables in several folders, each with its table's folder in front where that has such a recording."""
        result = []
        for name, folder in zip(names, folders, strict=True):
            place = self.place_of(folder / "table").parent.as_posix()
            found = self._find_or_none(f"{place}/{name}", "", "")
            result.append(f"{place}/{name}" if found and found.startswith(f"{place}/") else name)
        return result

    @functools.cached_property
    def in_folder(self) -> dict[str, list[str]]:
        """The recordings below the folders of each name."""
        result: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            for name in dict.fromkeys(PurePosixPath(path).parts[:-1]):
                result[name].append(path)
        return dict(result)

    @functools.cached_property
    def _by_rewritten(self) -> dict[str, set[str]]:
        """What `_rewritten` makes of each recording's own name -> its paths."""
        result: dict[str, set[str]] = defaultdict(set)
        for path in self.paths:
            for key in _rewritten(path, own=True):
                result[key].add(path)
        return result

    def place_of(self, path: Path, mirror: Path | None = None) -> Path:
        """Where a table lies below `source`, or below a folder of tables that has the same folders; else its name."""
        roots = [root for root in (self.source, mirror) if root not in (None, path) and path.is_relative_to(root)]
        return path.relative_to(roots[0]) if roots else Path(path.name)

    def of_annotation(self, path: Path, mirror: Path | None = None) -> str | None:
        """The recording that an annotation file belongs to by its name: rec.Table.1.selections.txt is rec.wav's."""
        place = self.place_of(path, mirror)
        name = place.with_name(NOTMAT.sub("", place.name)).with_suffix("")
        for text in (name.as_posix(), ADDED.sub("", name.as_posix())):
            if (found := self.find(text, str(path))) is not None:
                return found
        return None

    def bare_folders(self, at: str) -> dict[str, str]:
        """The folders right in a folder below `source` of which no recording was taken: {'es': '10 files: .g722'}."""
        inside = self.source / at
        below = [PurePosixPath(path) for path in self.paths]
        taken = {path.relative_to(at).parts[0] for path in below if path.is_relative_to(at)}
        bare = {}
        for entry in sorted(os.scandir(inside), key=lambda entry: entry.name):
            hidden = entry.name.startswith(".") or entry.name.casefold() in SYSTEM_FOLDERS
            if hidden or entry.name in taken or not entry.is_dir():
                continue
            if self.without is None or not self.without.resolve().is_relative_to(Path(entry.path).resolve()):
                bare[printable(entry.name)] = _contents(Path(entry.path))
        return bare

    def table(self, paths: Iterable[str]) -> pd.DataFrame:
        """`clip_id, path` of some recordings."""
        place = dict(zip(self.paths, self.ids, strict=True))
        paths = list(paths)
        return pd.DataFrame({"clip_id": [place[p] for p in paths], "path": paths}, dtype=object)


def list_own(source: Path, without: Path | None = None) -> OwnRecordings:
    """Walk a folder; what is no recording is counted in a warning, none at all is an error.

    without: a folder, such as one of test recordings, of which nothing is taken.
    """
    found = some_recordings(source)
    if without is not None:
        found = _without_folder(found, source, without)
    odd = {p: r for p, r in found.left_out.items() if not r.startswith("no recording by its ending")}
    if odd:
        logger.warning("left out: %s", by_reason(odd))
    paths = tuple(found.below())
    ids = tuple(found.ids())
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts = path.split("/")
        for start in range(len(parts)):
            whole = "/".join(parts[start:])
            for text in {whole, _without_ending(whole)}:
                by_name[_key(text)].append(path)
    # the path below the folder names one recording, whatever else ends like it
    for path in paths:
        by_name[_key(path)] = [p for p in by_name[_key(path)] if _key(p) == _key(path)]
    return OwnRecordings(source, paths, ids, dict(by_name), without)


def _nearest(paths: list[str], near: str) -> str | None:
    """The one of these paths that lies below a folder, or below the nearest one around it that holds any of them."""
    for folder in (PurePosixPath(near), *PurePosixPath(near).parents):
        if below := [path for path in paths if PurePosixPath(path).is_relative_to(folder)]:
            return below[0] if len(below) == 1 else None
    return None


def _contents(folder: Path) -> str:
    """What lies in a folder without recordings, in a few words: 'empty', '10 files: .g722'."""
    names = [name for _, _, names in os.walk(folder) for name in names if not name.startswith(".")]
    if not names:
        return "empty"
    endings = sorted({Path(name).suffix.lower() or "no ending" for name in names})
    return f"{len(names)} files: {few(endings, 3)}"


def _without_folder(found: Recordings, source: Path, folder: Path) -> Recordings:
    """The recordings that do not lie below a folder, which a warning counts; none left is an error."""
    kept = [path for path in found.files if not path.resolve().is_relative_to(folder.resolve())]
    if not kept:
        raise ValueError(f"--test {folder} holds all recordings of --source {source}: there is nothing to train on")
    if len(kept) < len(found.files):
        logger.warning("%d recordings below %s are of the test and do not train", len(found.files) - len(kept), folder)
    return dataclasses.replace(found, files=kept)


def _key(name: str) -> str:
    """A name without case and spaces around, accents composed: macOS writes them in two parts, tables in one."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _rewritten(name: str, own: bool = False) -> set[str]:
    """What a name is in common with what programs make of it, as keys.

    Spreadsheets take 007 for 7 and write it 7.0, web pages write a space as %20, Label Studio puts eight letters in
    front and underscores for spaces, an address may end in ?v=2; xeno-canto's recording 25119 is called XC25119, the
    Macaulay Library's ML25119. own: the name is a recording's.
    """
    last = str(name).strip().replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem = _without_ending(last)
    keys = {f"text {_key(last).replace(' ', '_')}", f"text {_key(stem).replace(' ', '_')}"}
    if number := re.fullmatch(r"(?:xc|ml)?0*(\d+)(\.0+)?" if not own else r"(?:xc|ml)?0*(\d+)()", stem, re.I):
        keys.add(f"number {number[1]}")
    if not own:
        plain = unquote(last.partition("?")[0])
        for text in {plain, re.sub(r"^[0-9a-f]{8}-", "", plain)}:
            keys |= {f"text {_key(t).replace(' ', '_')}" for t in (text, _without_ending(text))}
    return keys


def _without_ending(name: str) -> str:
    stem, _, ending = name.rpartition(".")
    named = stem and not stem.endswith("/")  # else it begins with the dot
    return stem if named and f".{ending.lower()}" in EXTENSIONS else name

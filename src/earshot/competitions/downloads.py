"""Where a download keeps its tables and recordings: as published, or as copies of it rearranged them.

Copies of a data set put everything into one more folder, drop folders, put tables beside recordings, convert
recordings, write endings in capitals, or hold every recording at several sample rates. `found_below` finds the folder
that holds the tables, `located` the recordings. What lies elsewhere than published is said in a warning.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from earshot.competitions.tables import OF_RECORDINGS, Tables, is_there
from earshot.messages import few
from earshot.sound.audio import EXTENSIONS, warn_once

LEVELS = 3  # so deep below the source its tables are looked for
RATE = re.compile(r"(?:^|[_\-. ])(\d+)(k|khz|hz)?$", re.IGNORECASE)  # audio_16k, 44100
ORIGINAL = float("inf")  # the rate of a folder whose name says none

logger = logging.getLogger("earshot")


def found_below(*names: str) -> Callable:
    """Let a `prepare(source, ...)` work in the folder below `source` that holds one of `names`; see `root_of`.

    The paths of its tables stay relative to the `source` that was given.
    """

    def wrap(prepare: Callable[..., Tables]) -> Callable[..., Tables]:
        @functools.wraps(prepare)
        def inner(source: Path, *args, **options) -> Tables:
            source = Path(source)
            root = root_of(source, names)
            tables = prepare(root, *args, **options)
            return tables if root == source else _prefixed(tables, root.relative_to(source))

        return inner

    return wrap


def root_of(source: Path, names: Sequence[str]) -> Path:
    """The folder that holds one of `names` (files or folders): `source`, else the only one of the next levels.

    Where there is none it is `source`, whose reader will say what it lacks; several are an error.
    """
    level = [source]
    for _ in range(LEVELS + 1):
        if found := [folder for folder in level if any((folder / name).exists() for name in names)]:
            if len(found) > 1:
                inside = few([f.relative_to(source).as_posix() for f in found])
                raise ValueError(f"{source} holds several downloads: {inside}; give one of them as --source")
            return found[0]
        level = [inner for folder in level if folder.is_dir() for inner in _folders(folder)]
    return source


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(
            e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith((".", "__"))
        )
    return [folder / name for name in names]


def _prefixed(tables: Tables, inside: Path) -> Tables:
    def moved(path: str) -> str:
        return path if os.path.isabs(path) else (inside / path).as_posix()

    changed = {"missing": tuple((clip_id, moved(path)) for clip_id, path in tables.missing)}
    for name in OF_RECORDINGS:
        if (clips := getattr(tables, name)) is not None:
            changed[name] = clips.assign(path=clips.path.map(moved))
    return dataclasses.replace(tables, **changed)


def inner_folder(source: Path, *names: str) -> str:
    """The folder of a download that has one of `names`, or the one of the same name inside it that has its recordings.

    A name counts in any case, as published before another; where there is none, the first is answered.
    """
    folder = next(filter(None, (_spelled(source, name) for name in names)), names[0])
    while not list_audio(source / folder) and (inner := _spelled(source / folder, PurePosixPath(folder).name)):
        folder = f"{folder}/{inner}"
    return folder


def _spelled(folder: Path, name: str) -> str:
    """The name of the folder in `folder` that is called `name`, if only in another case; '': there is none."""
    if (folder / name).is_dir():
        return name
    if not folder.is_dir():
        return ""
    found = next((inner.name for inner in _folders(folder) if inner.name.casefold() == name.casefold()), "")
    if found:
        warn_once(f"{folder / found} is taken for {name}, which is not there")
    return found


def list_audio(folder: Path) -> list[Path]:
    """The recordings of one folder, sorted, hidden ones and pipes left out; no folder holds none.

    Two links to one file are two recordings: in a test each name has its rows.
    """
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file()
    )


def located(clips: pd.DataFrame, source: Path) -> pd.DataFrame:
    """Clip table -> the same, `path` being the file that is there where the published one is not.

    A file stands for a published one if it has its name (in any case, with any ending of a recording) and its folders,
    more of them (`audio/audio/44100/x.wav` for `audio/x.wav`) or fewer (`audio/x.wav` for `audio/bird/x.wav`). Of
    several, the sample rate counts that most recordings have, then the highest one, then the shortest path.
    """
    there = is_there(clips, source)
    if there.all():
        return clips
    taken, by_stem = set(clips.path[there]), recordings_by_stem(source)
    candidates = {}
    for path in clips.path[~there].unique():
        wanted = PurePosixPath(path)
        fitting = [p for p in by_stem.get(wanted.stem.casefold(), ()) if fits(wanted, p) and p.as_posix() not in taken]
        if fitting:
            candidates[path] = fitting
    chosen = choose_rate(candidates)
    uses = Counter(chosen.values())
    chosen = {path: file for path, file in chosen.items() if uses[file] == 1}  # two clips are never one file
    if chosen:
        shown = few([f"{file} for {path}" for path, file in chosen.items()], 2)
        logger.warning("%d of %d recordings lie elsewhere than published: %s", len(chosen), len(clips), shown)
    return clips.assign(path=clips.path.map(lambda path: chosen.get(path, path)))


def recordings_by_stem(source: Path) -> dict[str, list[PurePosixPath]]:
    """Every recording below the folder, hidden ones left out: {its name without ending, in lower case: paths}."""
    found: dict[str, list[PurePosixPath]] = {}
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")))
        inside = PurePosixPath(Path(folder).relative_to(source).as_posix())
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                found.setdefault(PurePosixPath(name).stem.casefold(), []).append(inside / name)
    return found


def fits(wanted: PurePosixPath, file: PurePosixPath) -> bool:
    """Whether the folders of one are those of the other and more, in their order, whatever case and sample rate."""
    names, there = folder_names(wanted), folder_names(file)
    species = [part for part in names if part.isdigit()]  # numbers there are names
    other = any(part not in there for part in species)
    a = [part if part in species else plain(part) for part in names]
    b = [part if part in names or (other and part.isdigit()) else plain(part) for part in there]
    return _within(a, b) or _within(b, a)


def folder_names(path: PurePosixPath) -> list[str]:
    """The folders of a recording, in lower case."""
    return [part.casefold() for part in path.parts[:-1]]


def plain(folder: str) -> str:
    """The name of a folder in lower case, without a sample rate at its end."""
    return RATE.sub("", folder.casefold()) if rate_of(folder) < ORIGINAL else folder.casefold()


def _within(short: list[str], long: list[str]) -> bool:
    rest = iter(part for part in long if part)
    return all(part in rest for part in short if part)


def rate_of(folder: str) -> float:
    """The sample rate (Hz) that the name of a folder says; ORIGINAL where it says none."""
    match = RATE.search(folder)
    rate = int(match[1]) * (1000 if (match[2] or "").lower() in ("k", "khz") else 1) if match else 0
    return float(rate) if 4000 <= rate <= 192000 else ORIGINAL


def choose_rate(candidates: dict[str, list[PurePosixPath]]) -> dict[str, str]:
    """Choose one file a key where copies of several sample rates are there.

    {key: files that may be it} -> {key: the one}: of the sample rate that most keys have, at a tie the highest. Folders
    that a key, the published path, names as well say no rate: species may have numbers.
    """

    def rate(file: PurePosixPath, key) -> float:
        own = folder_names(PurePosixPath(key)) if isinstance(key, str) else ()
        return min((rate_of(part) for part in file.parts[:-1] if part.casefold() not in own), default=ORIGINAL)

    rates = {key: {f: rate(f, key) for f in files} for key, files in candidates.items()}
    have = Counter(r for by_file in rates.values() for r in set(by_file.values()))
    order = {r: i for i, r in enumerate(sorted(have, key=lambda r: (-have[r], -r)))}
    chosen = {
        key: min(by_file, key=lambda f: (order[by_file[f]], len(f.parts), f.as_posix()))
        for key, by_file in rates.items()
    }
    used = Counter(rates[key][file] for key, file in chosen.items())
    if len(used) > 1:
        logger.warning("recordings are taken at several sample rates, because none has all of them: %s",
                       few([f"{n} of a folder named {r:g} Hz" if r < ORIGINAL else f"{n} as published"
                            for r, n in used.items()]))  # fmt: skip
    return {key: file.as_posix() for key, file in chosen.items()}

"""An archive's recordings, divided once into numbered shards: what there is to hear, and what was heard already.

The plan (OUT/plan.parquet) gives every recording its shard for good. A shard is heard as a whole and has two files of
its number: events/part-*.parquet, then recordings/part-*.parquet, which says that it was heard. Whoever hears a shard
again, because a process or a machine ended, writes the same two names: nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from earshot import files
from earshot.messages import few, plural
from earshot.sound.folder import EXTENSIONS, printable, some_recordings
from earshot.stored import read_text
from earshot.tables import read_table

PLAN = "plan.parquet"
EVENTS, RECORDINGS = "events", "recordings"  # folders of a shard's two files
PART = re.compile(r"part-(\d{6,})\.parquet")
SHARD_FILES = 32  # what a kill costs at most, a worker
SHARD_BYTES = 2 * 2**30  # of sound, but a single file may be larger: some hours at 32 kHz
SHARDS = 64  # a small archive has so many where a shard is still worth it, for all workers and a bar that moves
LEAST_BYTES = 64 * 2**20  # a quarter of an hour at 32 kHz
LISTS = (".txt", ".csv", ".tsv")

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class Source:
    """Recordings by name, and what is to be said of what was left out."""

    recordings: dict[str, Path]
    said: str = ""


def part(number: int) -> str:
    """The name of a shard's files."""
    return f"part-{number:06d}.parquet"


def read_source(source: Path) -> Source:
    """A folder, at any depth, or a list of recordings -> each once, by its path below the folder or as it is listed.

    A list is a text with a path a line, or a table with a column `path`; relative ones follow the list's own folder.
    What it names need not be there: hearing says which are not.
    """
    if source.is_dir():
        found = some_recordings(source)
        return Source(_named([(p.relative_to(source).as_posix(), p) for p in found.files]), found.said())
    if source.suffix.lower() not in LISTS:
        kinds = "a path a line (.txt), or a table with a column path (.csv, .tsv)"
        what = "does not exist" if not source.exists() else "is neither a folder nor a list"
        raise ValueError(f"--source {source} {what}: give a folder, or {kinds}")
    if source.suffix.lower() == ".txt":
        lines = [line.strip() for line in read_text(source, "list", longest=2**31).splitlines()]
        listed = [line for line in lines if line and not line.startswith("#")]
    else:
        listed = [name for name in read_table(source, ["path"]).path if name]
    if not listed:
        raise ValueError(f"{source} lists no recording")
    once = list(dict.fromkeys(os.path.normpath(name) for name in listed))
    if odd := [name for name in once if Path(name).suffix.lower() not in EXTENSIONS]:
        raise ValueError(f"{source} lists what is no recording by its ending: {few(odd)}")
    twice = len(listed) - len(once)
    said = f"{source} lists {plural(twice, 'recordings')} more than once: each is heard once" if twice else ""
    return Source(_named([(name, source.parent / name) for name in once]), said)


def _named(pairs: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Names that a table can hold; two names that become one text (a byte FF, and backslash x f f) stay apart."""
    found: dict[str, Path] = {}
    for name, path in pairs:
        shown = printable(name)
        while shown in found:
            shown += "~"
        found[shown] = path.absolute()
    return found


def sizes_of(recordings: dict[str, Path]) -> list[int]:
    """Bytes of each recording; 0 where it is not there."""
    found = []
    for path in recordings.values():
        try:
            found.append(path.stat().st_size)
        except OSError:
            found.append(0)
    return found


def extend_plan(
    plan: pd.DataFrame | None, recordings: dict[str, Path], sizes: Sequence[int],
    shard_files: int = SHARD_FILES, shard_bytes: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """A plan, or None, and the recordings that there are now -> the plan with new shards for those it does not know.

    Columns: shard, filename, path (bytes, as the file system has it), size. What a plan has keeps its shard.
    shard_bytes: None is by the size of the archive.
    """
    known = set() if plan is None else set(plan.filename)
    if shard_bytes is None:
        shard_bytes = min(SHARD_BYTES, max(LEAST_BYTES, sum(sizes) // SHARDS))
    number = 0 if plan is None or plan.empty else int(plan.shard.max()) + 1
    rows, count, total = [], 0, 0
    for (name, path), size in zip(recordings.items(), sizes, strict=True):
        if name in known:
            continue
        if count and (count >= shard_files or total + size > shard_bytes):
            number, count, total = number + 1, 0, 0
        rows.append((number, name, os.fsencode(path), size))
        count, total = count + 1, total + size
    new = pd.DataFrame(rows, columns=["shard", "filename", "path", "size"]).astype({"shard": int, "size": int})
    return new if plan is None or plan.empty else pd.concat([plan, new], ignore_index=True)


def changes(plan: pd.DataFrame, recordings: dict[str, Path], sizes: Sequence[int]) -> str:
    """What has changed since the plan was made, in a sentence for people; '' where nothing has."""
    now = dict(zip(recordings, sizes, strict=True))
    gone = [name for name in plan.filename if name not in now]
    other = [name for name, size in zip(plan.filename, plan["size"], strict=True) if now.get(name, size) != size]
    parts = [f"{plural(len(gone), 'recordings are')} gone ({few(gone, 2)})"] * bool(gone)
    parts += [f"{len(other)} have another size ({few(other, 2)}): what was heard of them stays"] * bool(other)
    new = len(now) - (len(plan) - len(gone))
    parts += [f"{new} are new"] * bool(new)
    return f"since the first call {'; '.join(parts)}" if parts else ""


def read_plan(out: Path) -> pd.DataFrame | None:
    """OUT/plan.parquet; None: there is none yet."""
    path = out / PLAN
    if not path.is_file():
        return None
    try:
        return pd.read_parquet(path, columns=["shard", "filename", "path", "size"])
    except Exception as error:  # pyarrow raises kinds of its own
        raise ValueError(f"{path} cannot be read ({error}): it is no plan; choose another --out") from error


def write_plan(out: Path, plan: pd.DataFrame):
    with files.whole_file(out / PLAN, on_disk=True) as partial:
        plan.to_parquet(partial, index=False)


def named_shards(out: Path) -> set[int]:
    """Numbers of the shards that have a file of recordings, whole or not."""
    names = os.listdir(out / RECORDINGS) if (out / RECORDINGS).is_dir() else []
    return {int(found[1]) for name in names if (found := PART.fullmatch(name))}


def heard_shards(out: Path) -> set[int]:
    """Numbers of the shards that were heard. One whose files are cut, or gone, was not: a warning names them."""
    return {number for number in named_shards(out) if was_heard(out, number)}


def was_heard(out: Path, number: int) -> bool:
    """Whether a shard's two files are there, and whole as far as their ends say."""
    paths = [out / folder / part(number) for folder in (RECORDINGS, EVENTS)]
    if not os.path.lexists(paths[0]):
        return False
    for path in paths:
        if problem := _cut(path):
            logger.warning("%s cannot be read (%s): its shard is heard again", path, problem)
            return False
    return True


def _cut(path: Path) -> str:
    """What is wrong with a file of Parquet, '' where its footer can be read."""
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except Exception as error:  # pyarrow raises kinds of its own
        return " ".join(str(error).split())
    return ""


def pending(plan: pd.DataFrame, heard: set[int]) -> list[dict]:
    """What is to be heard: {shard, filenames, paths (bytes)}, in the order of the plan."""
    left = plan[~plan.shard.isin(heard)]
    return [
        {"shard": int(number), "filenames": list(rows.filename), "paths": list(rows.path)}
        for number, rows in left.groupby("shard", sort=True)
    ]

"""The test as a scoring kernel finds it: recordings in a folder, a table beside it, or neither.

When a kernel is committed the folder is empty or missing and the table names a few recordings; when it is scored hidden
recordings lie there, and with most competitions a hidden table replaces the other. Where a table is missing, damaged,
or (a sample submission) does not know every recording to its end, the rows follow from the recordings themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import COMPETITIONS, get_competition
from earshot.competitions.competition import Rules
from earshot.competitions.tables import class_name
from earshot.messages import few, suggest
from earshot.prediction.predictions import Clip
from earshot.sound import audio
from earshot.sound.folder import list_recordings
from earshot.tables import read_table

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")  # no table can hold these
HEADER_THREADS = 8
STAND_IN_SECONDS = 5.0
ROW_SECONDS = 5.0  # a row that a recording does not fill to its end need not be in the sample submission


@dataclass(frozen=True)
class KernelTest:
    """What a kernel has to answer. seconds: (N,) by the headers, of an unreadable file the competition's usual.

    columns: those of the sample submission, which the answer has too; () where there is none, or it has no classes.
    """

    table: pd.DataFrame
    clips: tuple[Clip, ...]
    seconds: np.ndarray
    problems: Mapping[str, str]  # clip_id -> why its file cannot be read
    notes: tuple[str, ...] = ()  # what was odd about the folder
    columns: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not len(self.table)

    def answer(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with the columns of the sample submission, in its order; a class that is not in them is 0."""
        if not self.columns:
            return rows
        named = rows.rename(columns={class_name(column): column for column in self.columns})
        return named.reindex(columns=list(self.columns), fill_value=0.0)

    def unlike(self, classes: Sequence[str]) -> str:
        """What the sample submission's columns and these classes do not have in common, '' where they are the same.

        Nothing in common is an error: such an answer would say nothing.
        """
        asked = [class_name(column) for column in self.columns[1:]]
        lost, extra = [c for c in asked if c not in classes], [c for c in classes if c not in asked]
        if not asked or not (lost or extra):
            return ""
        if len(lost) == len(asked):
            raise ValueError(
                f"the sample submission asks for {few(asked)}, and the bundle's networks know {few(classes)}, none of "
                "them: is it the bundle of this competition?"
            )
        said = f"{len(lost)} of its {len(asked)} classes nobody knows, they get 0: {few(lost)}" if lost else ""
        more = f"{len(extra)} of the networks' are not asked for: {few(extra)}" if extra else ""
        return "; ".join(text for text in (said, more) if text)


def get_rules(competition: str) -> Rules:
    """The rules of a competition; one that no kernel answers is an error."""
    rules = get_competition(competition).hidden
    if rules is None:
        known = all_rules()
        near = suggest(competition, known, "known")
        raise ValueError(
            f"no kernel answers '{competition}'{near}. Name the one whose test and rows are like yours, whatever the "
            "run was trained on; of a test that is at hand, src/submit.py writes the table"
        )
    return rules


def all_rules() -> dict[str, Rules]:
    """The rules of every competition that kernels answer."""
    rules = {name: get_competition(name).hidden for name in COMPETITIONS}
    return {name: of_one for name, of_one in rules.items() if of_one is not None}


def find_test(
    competition: str, folder: str | Path, classes: Sequence[str], table_path: str | Path | None = None
) -> KernelTest:
    """Folder of recordings (may be empty or missing) -> what is to be answered.

    `table_path` is the test table or sample submission, which must then be sound; without it the one beside the folder
    is taken, or where there is none, or it is damaged, the rows that follow from the recordings.
    """
    rules, folder = get_rules(competition), Path(folder)
    files, notes = _recordings(folder, rules)
    table, ids, columns = _given_table(rules, folder, table_path, notes)
    if table is not None and rules.sample and not set(files) <= set(ids):
        notes.append(f"{rules.table} does not know {few(sorted(set(files) - set(ids)))}: rows follow from recordings")
        table = None
    names = list(files) if table is None else list(dict.fromkeys(ids))
    if table is not None and (unasked := sorted(set(files) - set(ids))):
        notes.append(f"{len(unasked)} recordings are in no row and not heard: {few(unasked)}")
    missing = folder / "missing"
    clips = tuple(Clip(name, files.get(name, missing / name)) for name in names)
    seconds, problems = _headers(clips, rules.seconds)
    if table is not None and rules.sample and files:
        lengths = [(name, s - s % ROW_SECONDS) for name, s in zip(names, seconds, strict=True) if name in files]
        needed = rules.make(lengths, classes, folder.parent).iloc[:, 0]
        if short := sorted(set(needed.astype(str)) - set(table[needed.name].astype(str))):
            notes.append(f"{rules.table} lacks {len(short)} rows of its recordings: rows follow from recordings")
            heard = np.array([name in files for name in names])
            clips, seconds, table = tuple(c for c in clips if c.clip_id in files), seconds[heard], None
            names = [name for name in names if name in files]
    if table is None:
        table = rules.make(list(zip(names, seconds, strict=True)), classes, folder.parent)
    return KernelTest(table, clips, seconds, problems, tuple(notes), columns)


def stand_in(competition: str, classes: Sequence[str], folder: str | Path) -> KernelTest:
    """The test of one recording of 5 s that is not there: from its answer an empty test's columns are known."""
    rules = get_rules(competition)
    name = rules.clip_id("none")
    table = rules.make([(name, STAND_IN_SECONDS)], classes, Path(folder).parent)
    return KernelTest(table, (Clip(name, Path(name)),), np.array([STAND_IN_SECONDS]), {name: "it is no file"})


def _recordings(folder: Path, rules: Rules) -> tuple[dict[str, Path], list[str]]:
    """{clip id: file} of a folder, sorted, and what else lies there."""
    files, notes = {}, []
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    if entries and not any(_is_recording(path) for path in entries) and (below := list_recordings(folder).files):
        notes.append(f"the recordings lie deeper: {_printable(str(below[0].parent.relative_to(folder.parent)))}")
        entries = below
    for path in entries:
        if path.name.startswith("."):
            continue
        if not _is_recording(path):
            notes.append(f"{_printable(path.name)} is no recording")
            continue
        name = rules.clip_id(_printable(path.stem))
        if name in files:
            notes.append(f"{_printable(path.name)} has the name of {_printable(files[name].name)} and is not heard")
        files.setdefault(name, path)
    if not entries:
        notes.append("the test folder is empty" if folder.is_dir() else "there is no test folder")
    return files, notes


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in audio.EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _printable(name: str) -> str:
    return UNPRINTABLE.sub("_", name)


def _given_table(rules: Rules, folder: Path, table_path, notes: list[str]):
    """(table, (N,) clip id of each row, columns of a sample submission); (None, (), ()) without one that is sound."""
    beside = folder.parent / rules.table
    if table_path is None and not beside.is_file():
        return None, (), ()
    try:
        table = read_table(table_path or beside)
        columns = tuple(map(str, table.columns)) if rules.sample and len(table.columns) > 1 else ()
        if columns and columns[0] != (key := rules.make([], (), folder.parent).columns[0]):
            notes.append(f"{rules.table} begins with {columns[0]}, not {key}: its columns are not taken")
            columns = ()
        if not len(table):
            notes.append(f"{rules.table} has no rows")
            return None, (), columns
        return table, [str(i) for i in rules.read(table)], columns
    except ValueError as error:
        if table_path is not None:
            raise
        notes.append(f"{rules.table} is not used: {error}".replace(f"{folder.parent}/", ""))
        return None, (), ()


def _headers(clips: Sequence[Clip], usual: float) -> tuple[np.ndarray, dict[str, str]]:
    """Seconds of each recording, and why those that cannot be read cannot."""

    def seconds(clip):
        try:
            return audio.info(clip.path).duration
        except audio.UnreadableAudio as error:
            return str(error)

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        found = list(pool.map(seconds, clips))
    problems = {c.clip_id: s for c, s in zip(clips, found, strict=True) if isinstance(s, str)}
    return np.array([usual if isinstance(s, str) else s for s in found], dtype=float), problems

"""The test as a scoring kernel finds it: recordings in a folder, a table beside it, or neither.

When a kernel is committed the folder is empty or missing and the table names a few recordings; when it is scored hidden
recordings lie there, and with most competitions a hidden table replaces the other. What names its rows is what is
scored (kernel/given_table.py). Where it is missing, is no such table, or (a sample submission) lacks more than a tenth
of the rows of the recordings, the rows follow from the recordings themselves; a few that it lacks are added.
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
from earshot.kernel.given_table import completed, named_alike, read_given
from earshot.messages import few, suggest
from earshot.prediction.predictions import Clip
from earshot.sound import audio
from earshot.sound.folder import list_recordings

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")  # no table can hold these
HEADER_THREADS = 8
STAND_IN_SECONDS = 5.0
ROW_SECONDS = 5.0  # a row that a recording does not fill to its end need not be in the sample submission


@dataclass(frozen=True, kw_only=True)
class KernelTest:
    """What a kernel has to answer. seconds: (N,) by the headers, of an unreadable file the competition's usual.

    columns: those of the sample submission, which the answer has too; () where there is none, or it has no classes.
    unheard: recordings are there, and the table names none of them, or none can be read.
    """

    table: pd.DataFrame
    clips: tuple[Clip, ...]
    seconds: np.ndarray
    problems: Mapping[str, str]  # clip_id -> why its file cannot be read
    notes: tuple[str, ...] = ()  # what was odd about the folder
    columns: tuple[str, ...] = ()
    unheard: bool = False

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
    is taken, mended, or where there is none of use, the rows that follow from the recordings.
    """
    rules, folder = get_rules(competition), Path(folder)
    files, notes = _recordings(folder, rules)
    given = read_given(rules, folder, table_path, notes)
    table, files = given.table, named_alike(files, given.ids)
    asked, missing = list(dict.fromkeys(given.ids)), folder / "missing"
    names = list(dict.fromkeys([*asked, *files])) if rules.sample or table is None else asked
    clips = [Clip(name, files.get(name, missing / name)) for name in names]
    seconds, problems = _headers(clips, rules.seconds)
    if table is not None and rules.sample and files:
        new = set(files) - set(asked)
        lengths = [(n, seconds[n] - (0 if n in new else seconds[n] % ROW_SECONDS)) for n in files]
        needed = [(name, long) for name, long in lengths if name not in problems or name in new]
        given = completed(given, rules, rules.make(needed, classes, folder.parent), notes)
        table = given.table
    if table is None:
        clips = [clip for clip in clips if clip.clip_id in files]
        table = rules.make([(clip.clip_id, seconds[clip.clip_id]) for clip in clips], classes, folder.parent)
    else:
        wanted = set(given.ids)
        clips = [clip for clip in clips if clip.clip_id in wanted]
        notes += _differences(rules, wanted, files)
    return KernelTest(
        table=table, clips=tuple(clips), seconds=np.array([seconds[clip.clip_id] for clip in clips], dtype=float),
        problems={clip.clip_id: problems[clip.clip_id] for clip in clips if clip.clip_id in problems},
        notes=tuple(notes), columns=given.columns,
        unheard=bool(files) and not any(c.clip_id in files and c.clip_id not in problems for c in clips),
    )  # fmt: skip


def _differences(rules: Rules, asked: set[str], files: Mapping[str, Path]) -> list[str]:
    """What the table and the folder do not have in common, in words."""
    unasked, gone = sorted(set(files) - asked), sorted(asked - set(files))
    notes = [f"{len(unasked)} recordings are in no row and not heard: {few(unasked)}"] if unasked else []
    if gone and files:
        notes.append(f"{len(gone)} recordings of {rules.table} are not there and get what unreadable ones get: "
                     f"{few(gone)}")  # fmt: skip
    return notes


def stand_in(competition: str, classes: Sequence[str], folder: str | Path) -> KernelTest:
    """The test of one recording of 5 s that is not there: from its answer an empty test's columns are known."""
    rules = get_rules(competition)
    name = rules.clip_id("none")
    table = rules.make([(name, STAND_IN_SECONDS)], classes, Path(folder).parent)
    return KernelTest(
        table=table, clips=(Clip(name, Path(name)),), seconds=np.array([STAND_IN_SECONDS]),
        problems={name: "it is no file"},
    )  # fmt: skip


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


def _headers(clips: Sequence[Clip], usual: float) -> tuple[dict[str, float], dict[str, str]]:
    """{clip id: seconds} of the recordings, and why those that cannot be read cannot: they count as long as usual."""

    def seconds(clip):
        try:
            return audio.info(clip.path).duration
        except audio.UnreadableAudio as error:
            return str(error)

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        found = dict(zip([clip.clip_id for clip in clips], pool.map(seconds, clips), strict=True))
    problems = {name: s for name, s in found.items() if isinstance(s, str)}
    return {name: usual if name in problems else s for name, s in found.items()}, problems

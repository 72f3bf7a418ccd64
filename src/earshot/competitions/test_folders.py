"""The test as a scoring kernel finds it: recordings in a folder, a table beside it, or neither.

When a kernel is committed the folder is empty or missing and the table names a few recordings; when it is scored hidden
recordings lie there, and with most competitions a hidden table replaces the other. Where a table is missing, damaged,
or (a sample submission) does not know every recording, the rows follow from the recordings themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import birdcall, birdclef2021, birdclef2022, get_competition
from earshot.competitions.birdclef_rows import ROW_SECONDS, check_test
from earshot.messages import few, suggest
from earshot.prediction.predictions import Clip
from earshot.sound import audio
from earshot.tables import read_table, require_columns

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")  # no table can hold these
HEADER_THREADS = 8


@dataclass(frozen=True)
class Rules:
    """Where Kaggle keeps a competition's test, and how its table and its recordings belong together.

    slug: of the competition; folder, table: names in its download; seconds: what an unreadable recording counts as;
    read: (table) -> (N,) clip id of each row, ValueError where it is no such table; make: ([(clip_id, seconds)], class
    names, folder of the download) -> table; sample: the table is a sample submission, which may not know all
    recordings; clip_id: file name without ending -> clip id.
    """

    slug: str
    folder: str
    table: str
    seconds: float
    read: Callable[[pd.DataFrame], np.ndarray]
    make: Callable[[Sequence[tuple[str, float]], Sequence[str], Path], pd.DataFrame]
    sample: bool = False
    clip_id: Callable[[str], str] = str


@dataclass(frozen=True)
class KernelTest:
    """What a kernel has to answer. seconds: (N,) by the headers, of an unreadable file the competition's usual."""

    table: pd.DataFrame
    clips: tuple[Clip, ...]
    seconds: np.ndarray
    problems: Mapping[str, str]  # clip_id -> why its file cannot be read
    notes: tuple[str, ...] = ()  # what was odd about the folder

    @property
    def empty(self) -> bool:
        return not len(self.table)


def get_rules(competition: str) -> Rules:
    """The rules of a competition; one that no kernel answers is an error."""
    get_competition(competition)
    if competition not in RULES:
        raise ValueError(f"no kernel answers '{competition}'{suggest(competition, RULES)}; known: {', '.join(RULES)}")
    return RULES[competition]


def find_test(
    competition: str, folder: str | Path, classes: Sequence[str], table_path: str | Path | None = None
) -> KernelTest:
    """Folder of recordings (may be empty or missing) -> what is to be answered.

    `table_path` is the test table or sample submission, which must then be sound; without it the one beside the folder
    is taken, or where there is none, or it is damaged, the rows that follow from the recordings.
    """
    rules, folder = get_rules(competition), Path(folder)
    files, notes = _recordings(folder, rules)
    table, ids = _given_table(rules, folder, table_path, notes)
    if table is not None and rules.sample and not set(files) <= set(ids):
        notes.append(f"{rules.table} does not know {few(sorted(set(files) - set(ids)))}: rows follow from recordings")
        table = None
    names = list(files) if table is None else list(dict.fromkeys(ids))
    if table is not None and (unasked := sorted(set(files) - set(ids))):
        notes.append(f"{len(unasked)} recordings are in no row and not heard: {few(unasked)}")
    missing = folder / "missing"
    clips = tuple(Clip(name, files.get(name, missing / name)) for name in names)
    seconds, problems = _headers(clips, rules.seconds)
    if table is None:
        table = rules.make(list(zip(names, seconds, strict=True)), classes, folder.parent)
    return KernelTest(table, clips, seconds, problems, tuple(notes))


def stand_in(competition: str, classes: Sequence[str], folder: str | Path) -> KernelTest:
    """The test of one recording of 5 s that is not there: from its answer an empty test's columns are known."""
    rules = get_rules(competition)
    name = rules.clip_id("none")
    table = rules.make([(name, float(ROW_SECONDS))], classes, Path(folder).parent)
    return KernelTest(table, (Clip(name, Path(name)),), np.array([float(ROW_SECONDS)]), {name: "it is no file"})


def _recordings(folder: Path, rules: Rules) -> tuple[dict[str, Path], list[str]]:
    """{clip id: file} of a folder, sorted, and what else lies there."""
    files, notes = {}, []
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in audio.EXTENSIONS or not path.is_file():
            notes.append(f"{_printable(path.name)} is no recording")
            continue
        name = rules.clip_id(_printable(path.stem))
        if name in files:
            notes.append(f"{_printable(path.name)} has the name of {_printable(files[name].name)} and is not heard")
        files.setdefault(name, path)
    if not entries:
        notes.append("the test folder is empty" if folder.is_dir() else "there is no test folder")
    return files, notes


def _printable(name: str) -> str:
    return UNPRINTABLE.sub("_", name)


def _given_table(rules: Rules, folder: Path, table_path, notes: list[str]):
    """(table, (N,) clip id of each row), or (None, ()) where there is none that is sound."""
    beside = folder.parent / rules.table
    if table_path is None and not beside.is_file():
        return None, ()
    try:
        table = read_table(table_path or beside)
        if not len(table):
            notes.append(f"{rules.table} has no rows")
            return None, ()
        return table, [str(i) for i in rules.read(table)]
    except ValueError as error:
        if table_path is not None:
            raise
        notes.append(f"{rules.table} is not used: {error}".replace(f"{folder.parent}/", ""))
        return None, ()


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


def _ends(seconds: float) -> range:
    """Seconds at which rows of 5 s end; the last one may be partial (rests below 0.05 s do not count)."""
    rows = max(1, int(np.ceil((seconds - 0.05) / ROW_SECONDS)))
    return range(ROW_SECONDS, ROW_SECONDS * rows + 1, ROW_SECONDS)


# ---- rows named by site, recording and second: Cornell Birdcall, the embedded competition


def _birdcall_ids(table: pd.DataFrame):
    birdcall.check_test(table)
    return table.audio_id


def _birdcall_rows(recordings, classes, source) -> pd.DataFrame:
    """Without test.csv the site is not known: rows of 5 s, as at the first."""
    site = birdcall.ROW_SITES[0]
    rows = [(site, f"{site}_{name}_{end}", end, name) for name, seconds in recordings for end in _ends(seconds)]
    return pd.DataFrame(rows, columns=list(birdcall.TEST_COLUMNS))


# ---- BirdCLEF


def _2021_ids(table: pd.DataFrame):
    require_columns(table, birdclef2021.TEST_COLUMNS, "test.csv")
    birdclef2021.check_columns(table)
    check_test(table)
    return table.audio_id.astype(str) + "_" + table.site.astype(str)


def _2021_clip(stem: str) -> str:
    """<audio_id>_<site>_<date> -> <audio_id>_<site>; a name without a site gets one, as rows need it."""
    return "_".join([*stem.split("_"), "site"][:2])


def _2021_rows(recordings, classes, source) -> pd.DataFrame:
    rows = [(f"{n}_{end}", *reversed(n.split("_")), end) for n, seconds in recordings for end in _ends(seconds)]
    return pd.DataFrame(rows, columns=list(birdclef2021.TEST_COLUMNS))


def _2022_ids(table: pd.DataFrame):
    birdclef2022.check_test(table)
    return table.file_id


def _2022_rows(recordings, classes, source) -> pd.DataFrame:
    """A row a scored bird and 5 s; without scored_birds.json all classes count as scored."""
    scored = source / "scored_birds.json"
    birds = json.loads(scored.read_text()) if scored.is_file() else classes
    rows = [(f"{n}_{b}_{end}", n, b, end) for n, seconds in recordings for b in birds for end in _ends(seconds)]
    return pd.DataFrame(rows, columns=list(birdclef2022.TEST_COLUMNS))


def _birdclef_ids(table: pd.DataFrame):
    return check_test(table).clip_id


def _birdclef_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"row_id": [f"{name}_{end}" for name, seconds in recordings for end in _ends(seconds)]})


# ---- one row a recording


def _each_once(table: pd.DataFrame, column: str) -> pd.Series:
    require_columns(table, (column,), "sample_submission.csv")
    if (twice := table[column][table[column].duplicated()]).size:
        raise ValueError(f"sample_submission.csv names {twice.nunique()} recordings twice: {few(twice.unique())}")
    return table[column]


def _rfcx_ids(table: pd.DataFrame):
    return _each_once(table, "recording_id")


def _rfcx_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"recording_id": [name for name, _ in recordings]})


def _freesound_ids(table: pd.DataFrame):
    return _each_once(table, "fname").map(lambda name: Path(name).stem)


def _freesound_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"fname": [f"{name}.wav" for name, _ in recordings]})


BIRDCALL = (_birdcall_ids, _birdcall_rows)
BIRDCLEF = ("test_soundscapes", "sample_submission.csv")
BY_FILE = ("test", "sample_submission.csv")
SAMPLE = (_birdclef_ids, _birdclef_rows, True)
RULES = {
    "synth": Rules("synth", "test_audio", "test.csv", 60.0, *BIRDCALL),
    "birdcall": Rules("birdsong-recognition", "test_audio", "test.csv", 600.0, *BIRDCALL),
    "birdclef2021": Rules(
        "birdclef-2021", "test_soundscapes", "test.csv", 600.0, _2021_ids, _2021_rows, clip_id=_2021_clip
    ),
    "birdclef2022": Rules("birdclef-2022", "test_soundscapes", "test.csv", 60.0, _2022_ids, _2022_rows),
    "birdclef2023": Rules("birdclef-2023", *BIRDCLEF, 600.0, *SAMPLE),
    "birdclef2024": Rules("birdclef-2024", *BIRDCLEF, 240.0, *SAMPLE),
    "birdclef2025": Rules("birdclef-2025", *BIRDCLEF, 60.0, *SAMPLE),
    "birdclef2026": Rules("birdclef-2026", *BIRDCLEF, 60.0, *SAMPLE),
    "rfcx": Rules("rfcx-species-audio-detection", *BY_FILE, 60.0, _rfcx_ids, _rfcx_rows, True),
    "freesound2019": Rules("freesound-audio-tagging-2019", *BY_FILE, 10.0, _freesound_ids, _freesound_rows, True),
}

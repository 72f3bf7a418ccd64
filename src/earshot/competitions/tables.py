"""The tables of a data set (contract 1 of ARCHITECTURE.md), and how prepare.py writes them to data/<name>/.

clips.csv: `clip_id, path, labels, ...`; classes.csv: `label`; events.csv and test_events.csv: `filename (= clip_id),
onset, offset, event_label, ...` in seconds; test_clips.csv: `clip_id, path, ...`; test.csv and truth.csv: the
competition's own test table and its answers; missing.csv, unreadable.csv: `clip_id, path, ...`. Paths are relative to
the `source` of dataset.json. Label texts are joined by spaces, so that a class name holds none.

unlabelled.csv: `clip_id, path, ...` of recordings without labels, for pseudo-labels and distillation. validation.csv:
labelled recordings that are like the test's and train nothing, with their validation_events.csv, validation_rows.csv
(as test.csv) and validation_truth.csv (as truth.csv): the honest split.

A training clip whose file is not in the download is in missing.csv and not in clips.csv; a test clip whose file is not
there stays in test_clips.csv, because it needs a row in the submission.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.checks import column_problems, id_problems, number_problems, refuse
from earshot.competitions.label_texts import check_reserved
from earshot.competitions.number_text import is_number_table, write_number_table
from earshot.data.dataset import NOTES, noted, read_dataset
from earshot.data.labels import check_classes
from earshot.files import as_json, whole_file, whole_set, write_or_rescue
from earshot.messages import few, plural
from earshot.sound.folder import list_recordings, printable
from earshot.sound.rows import file_of
from earshot.tables import read_table, require_columns

logger = logging.getLogger("earshot")

NEEDED = {
    "clips": ("clip_id", "path", "labels"),
    "events": ("filename", "onset", "offset", "event_label"),
    "test_events": ("filename", "onset", "offset", "event_label"),
    "test_clips": ("clip_id", "path"),
    "unlabelled": ("clip_id", "path"),
    "validation": ("clip_id", "path", "labels"),
    "validation_events": ("filename", "onset", "offset", "event_label"),
}
NO_WIDTH = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
OF_RECORDINGS = ("clips", "test_clips", "unlabelled", "validation")  # tables with a recording a row


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a competition's download says. `classes` in model order; `missing`: (clip_id, path) of absent files."""

    clips: pd.DataFrame
    classes: tuple[str, ...] | list[str]
    events: pd.DataFrame | None = None
    test_clips: pd.DataFrame | None = None
    test: pd.DataFrame | None = None
    missing: tuple[tuple[str, str], ...] = ()
    task: str = "sed"  # key of tasks.TASKS
    competition: str = ""  # the edition that these tables are of, where `prepare` finds that out
    test_events: pd.DataFrame | None = None  # the true events of the test, where they are known
    truth: pd.DataFrame | None = None  # what the competition's `score` takes as truth of the test, where it is known
    unreadable: pd.DataFrame | None = None  # clip_id, path, reason; filled by prepare.py
    class_columns: pd.DataFrame | None = None  # more columns of classes.csv, one row a class
    unlabelled: pd.DataFrame | None = None
    validation: pd.DataFrame | None = None
    validation_events: pd.DataFrame | None = None
    validation_rows: pd.DataFrame | None = None
    validation_truth: pd.DataFrame | None = None

    def __post_init__(self):
        check_classes(list(self.classes), "the class list of the competition")
        check_reserved(self.classes, "the class list of the competition")
        for name, columns in NEEDED.items():
            table = getattr(self, name)
            if table is None:
                continue
            require_columns(table, columns, f"{name} table")
            if name == "clips" and not len(table):
                raise ValueError("the download names no recording to train on: its table is a header alone")
            key = columns[0]
            if key == "clip_id" and (twice := table.clip_id[table.clip_id.duplicated()]).size:
                raise ValueError(
                    f"{name} table lists {plural(twice.nunique(), 'clips')} twice: {', '.join(twice.unique()[:5])}"
                )


def class_name(text: str) -> str:
    """Any name -> the same without spaces ('Ant bird' -> 'Ant_bird'), as label texts need it.

    Nor has it signs of no width, which spreadsheets and web pages leave around names: two classes would look alike.
    """
    return "_".join(NO_WIDTH.sub("", str(text)).split())


def classes_of_sample(sample: pd.DataFrame, key: str, where: str | Path) -> list[str]:
    """The classes that a sample submission names: its columns behind the `key`, which hold probabilities.

    A column of row numbers, or of anything else that somebody added, is an error: it would be one class more.
    """
    names = list(sample.columns)
    if names[0] != key:
        raise ValueError(f"{where}: its first column is '{names[0]}', expected '{key}': remove what was added")
    for name in names[1:]:
        wrong = ~pd.to_numeric(sample[name], errors="coerce").between(0, 1).to_numpy()
        if name.startswith("Unnamed: ") or wrong.any():
            row = int(wrong.argmax())
            came = f" (but '{sample[name].iloc[row]}' in row {row + 1})" if len(sample) else ""
            raise ValueError(f"{where}: column '{name}' holds no probabilities, as classes do{came}: remove it")
    if (twice := sample[key][sample[key].duplicated()]).size:
        raise ValueError(f"{where}: {twice.nunique()} {key} come twice: {few(twice.unique())}")
    return [class_name(name) for name in names[1:]]


def write_tables(
    tables: Tables, out: str | Path, competition: str, source: str | Path, overwrite: bool = False,
    also: Sequence[str] = (), copied_channels: str = "", command: Sequence[str] = (),
):  # fmt: skip
    """Write the tables under `out`; a folder made from another competition or source needs `overwrite`.

    copied_channels: mono or stereo, where the clips' paths are resampled copies. command: what prepare.py was told.

    All of them or none: every file is complete elsewhere before the first gets its place, dataset.json last; an
    optional table of an earlier run that is no longer there is removed.
    """
    out, source = Path(out), Path(source).resolve()
    check_owner(out, competition, source, overwrite, also)
    special = ("classes", "class_columns", "missing", "task", "competition")
    frames = {f.name: getattr(tables, f.name) for f in fields(tables) if f.name not in special}
    frames["classes"] = pd.DataFrame({"label": list(tables.classes)})
    if tables.class_columns is not None:
        frames["classes"] = pd.concat([frames["classes"], tables.class_columns.reset_index(drop=True)], axis=1)
    frames["missing"] = pd.DataFrame(tables.missing, columns=["clip_id", "path"]) if len(tables.missing) else None
    paths = [path for frame in frames.values() if frame is not None and "path" in frame for path in frame.path]
    if unwritable := [path for path in map(str, [*paths, source]) if printable(path) != path]:
        raise ValueError(
            f"{len(unwritable)} recordings or folders have names that are no UTF-8, which no table can "
            "hold: "
            f"{few(map(printable, unwritable))}; rename them, say with: convmv -r -f cp1252 -t utf8 --notest FOLDER"
        )
    about = {"competition": competition, "source": str(source), "task": tables.task}
    about |= {"copied_channels": copied_channels} if copied_channels else {}
    about |= {"command": list(command)} if command else {}
    with whole_set(out, last="dataset.json", without=[f"{name}.csv" for name in frames]) as partial:
        for name, frame in frames.items():
            if frame is not None:
                frame.to_csv(partial / f"{name}.csv", index=False, lineterminator="\n")
        (partial / NOTES).write_text(as_json(noted(source, paths)) + "\n")
        (partial / "dataset.json").write_text(as_json(about, indent=2) + "\n")


def write_csv(table: pd.DataFrame, path: str | Path):
    """Write one table, without index, \\n at line ends, under a temporary name first; .tsv: tabs, as DCASE has them."""
    separator = "\t" if Path(path).suffix == ".tsv" else ","
    with whole_file(path) as partial:
        if is_number_table(table):
            with open(partial, "w", encoding="utf-8", newline="") as file:
                write_number_table(table, file, separator)
        else:
            table.to_csv(partial, sep=separator, index=False, lineterminator="\n")


def write_checked(table: pd.DataFrame, path: str | Path, validate: Callable[[pd.DataFrame], None]):
    """Write a submission under a temporary name, read it back, validate what was read, and only then rename it.

    What `validate` refuses leaves no file, and a file of that name as it was. Where the disk refuses it the error names
    the temporary file that holds it.
    """
    write_or_rescue(path, lambda target: _write_checked(table, target, validate))


def _write_checked(table: pd.DataFrame, path: Path, validate: Callable[[pd.DataFrame], None]):
    with whole_file(path) as partial:
        write_csv(table, partial)
        validate(read_table(partial))


def check_owner(out: Path, competition: str, source: Path, overwrite: bool = False, also: Sequence[str] = ()):
    """Raise when `out` was made from another competition (or one of `also`) or source; `overwrite`: this is meant."""
    if overwrite or not (out / "dataset.json").is_file():
        return
    about = read_dataset(out)
    known = about.get("competition") in (competition, *also)
    if not known or about.get("source") != str(Path(source).resolve()):
        raise ValueError(
            f"{out} holds '{about.get('competition')}' made from {about.get('source')}, not '{competition}' from "
            f"{Path(source).resolve()}; choose another --out, or replace it with --force"
        )


def find_files(folder: Path) -> dict[str, str]:
    """Recordings of a download's folder -> {name without extension: file name}; no folder: nothing found.

    What is no recording is left out, and so is a second file of one name; both are counted in a warning.
    """
    if not folder.is_dir():
        return {}
    recordings = list_recordings(folder, deep=False)
    found: dict[str, str] = {}
    for path in recordings.files:
        if found.setdefault(path.stem, path.name) != path.name:
            recordings.left_out[path] = f"it has the name of {found[path.stem]}"
    if text := recordings.said():
        logger.warning(text)
    return found


def is_there(clips: pd.DataFrame, source: Path) -> np.ndarray:
    """Clip table -> (N,) booleans: `path` is a file under `source`, or a row of one (sound/rows.py)."""
    files = clips.path.map(file_of)
    there = {f: (source / f).is_file() for f in files.unique()}
    return files.map(there).to_numpy(bool)


def absent(clips: pd.DataFrame, source: Path) -> tuple[tuple[str, str], ...]:
    """Clip table -> (clip_id, path) of the clips whose file is not under `source`: Tables.missing."""
    there = is_there(clips, source)
    return tuple(zip(clips.clip_id[~there], clips.path[~there], strict=True))


def present(clips: pd.DataFrame, source: Path, what: str) -> pd.DataFrame:
    """Clip table -> the clips whose file is under `source`; none at all is an error, the folder is not the download."""
    there = is_there(clips, source)
    if len(clips) and not there.any():
        raise ValueError(
            f"none of the {len(clips)} recordings of {what} is under {source}, such as "
            f"{clips.path.iloc[0]}; is --source the unzipped download?"
        )
    return clips[there].reset_index(drop=True)


def check_submission(submission: pd.DataFrame, columns, ids, numbers=(), low=None, high=None):
    """Raise unless the rows are `columns` in this order, `ids` in its first, in this order, `numbers` all finite (and
    from `low` to `high`). Every problem found is in the message."""
    columns = list(columns)
    problems = column_problems(submission, columns)
    if columns[0] in submission:
        problems += id_problems(submission[columns[0]], ids, columns[0])
    refuse(problems + number_problems(submission, numbers, low, high))

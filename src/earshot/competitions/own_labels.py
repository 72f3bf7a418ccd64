"""Labels of one's own recordings: by the folders they lie in, by a table, or by annotation files."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from earshot.annotations.reading import LABELS, Annotations, read_annotations
from earshot.competitions.label_texts import listed
from earshot.competitions.own_recordings import OwnRecordings
from earshot.competitions.own_tables import check_column, check_header, find_path_column
from earshot.messages import few
from earshot.tables import read_table

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing", "eval", "evaluation")
SEPARATORS = (";", "|", ",")
OWN_COLUMNS = ("clip_id", "path", "labels", "annotated")  # a table's columns of these names are not taken over

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class Labels:
    """What was found.

    clips: `clip_id, path, labels` (a list of names) and more columns, every recording once; events: `filename`
    (clip_id), `onset, offset, event_label`, None where nothing says when; missing: (clip_id, path) of recordings that a
    table names and the folder has not.
    """

    clips: pd.DataFrame
    events: pd.DataFrame | None = None
    missing: tuple[tuple[str, str], ...] = ()

    def with_columns_of(self, other: Labels) -> Labels:
        """The same with the further columns that another table has of these recordings (group, site, split)."""
        more = other.clips.drop(columns=["path", "labels"])
        return replace(self, clips=self.clips.merge(more, on="clip_id", how="left"), missing=other.missing)


def from_folders(recordings: OwnRecordings) -> Labels:
    """The class of a recording is the first folder below --source, or below train/, val/ and test/ there."""
    inside = [PurePosixPath(path).parts[:-1] for path in recordings.paths]
    while all(parts for parts in inside) and len({parts[0] for parts in inside}) == 1 and any(map(_deep, inside)):
        inside = [parts[1:] for parts in inside]  # one folder around everything
    splits = ["train"] * len(inside)
    if all(parts and parts[0].casefold() in SPLIT_FOLDERS for parts in inside):
        splits = [parts[0].casefold() for parts in inside]
        inside = [parts[1:] for parts in inside]
    clips = recordings.table(recordings.paths).assign(labels=[list(parts[:1]) for parts in inside])
    if len(set(splits)) > 1:
        clips["split"] = splits
    names = Counter(name for labels in clips.labels for name in labels)
    if names:
        logger.warning("labels by folder: %s", few([f"{name} ({n})" for name, n in sorted(names.items())], 12))
    return Labels(clips)


def _deep(parts: Sequence[str]) -> bool:
    return len(parts) > 1


def from_table(
    recordings: OwnRecordings, path: Path, path_column: str, label_column: str, separator: str, has_events: bool,
    taken: Sequence[str] = (),
) -> Labels:  # fmt: skip
    """A table's row says what a recording holds; its other columns are kept.

    has_events: annotations say what is heard, so that the table need not. taken: columns that say something else
    (groups, splits, folds): none of them is guessed to hold the labels, and they stay columns
    though the flag of the labels name them too.
    """
    table = read_table(path, all_text=True)
    check_header(table, recordings, path)
    check_column(table, path_column, path, "--path-column")
    check_column(table, label_column, path, "--label-column")
    names = find_path_column(table, recordings, path_column)
    if not names:
        raise ValueError(
            f"no column of {path} names recordings of {recordings.source} ({', '.join(map(str, table.columns))}); "
            "say which one does with --path-column, and where they lie with --source"
        )
    label_column = label_column or ("" if has_events else _label_column(table, names, path, taken))
    found = [recordings.find(name, str(path)) for name in table[names].astype(str)]
    table = table.assign(labels=_split(table[label_column], separator, path) if label_column else [[]] * len(table))
    told = f"{path}: recordings by '{names}'" + (f", labels by '{label_column}'" if label_column else "")
    logger.warning(
        "%s, other columns: %s",
        told,
        few([c for c in table.columns if c not in (names, label_column, *OWN_COLUMNS)], 12),
    )
    missing = tuple((Path(n).stem, n) for n, f in zip(table[names].astype(str), found, strict=True) if f is None)
    table = table.assign(_found=found)[[f is not None for f in found]]
    if not len(table):
        raise ValueError(f"none of the {len(missing)} recordings of {path} is in {recordings.source}: {missing[0][1]}")
    dropped = "" if label_column in taken else label_column
    return Labels(_one_row_each(table, recordings, dropped, path), missing=missing)


def _one_row_each(table: pd.DataFrame, recordings: OwnRecordings, label_column: str, path: Path) -> pd.DataFrame:
    """Rows -> recordings: the labels of several rows of one recording together; other columns by its first row."""
    others = [c for c in table.columns if c not in ("_found", *OWN_COLUMNS) and c != label_column]
    if (twice := table._found.duplicated()).any():
        logger.warning("%s has %d recordings in several rows: their labels are put together", path,
                       table._found[twice].nunique())  # fmt: skip
    first = table.drop_duplicates("_found")
    together = table.groupby("_found", sort=False).labels.agg(lambda rows: sorted({n for names in rows for n in names}))
    clips = recordings.table(first._found).assign(labels=together.reindex(first._found).to_numpy())
    for column in others:
        clips[column] = first[column].to_numpy()
    spoken = set(first._found)
    silent = [p for p in recordings.paths if p not in spoken]
    if silent:
        logger.warning("%d recordings are not in %s and have no label: %s", len(silent), path, few(silent))
        rest = recordings.table(silent).assign(labels=[[]] * len(silent), **dict.fromkeys(others, ""))
        clips = pd.concat([clips, rest], ignore_index=True)
    return clips


def _label_column(table: pd.DataFrame, path_column: str, path: Path, taken: Sequence[str]) -> str:
    """The column of the labels: by its name, else the only one whose values repeat; none of `taken`."""
    left = [c for c in map(str, table.columns) if c not in (path_column, *taken)]
    plain = {re.sub("[^a-z0-9]+", "_", c.casefold()): c for c in left}
    if named := next((plain[name] for name in LABELS if name in plain and name != "id"), None):
        return named
    repeated = [c for c in left if not _are_numbers(table[c]) and 2 <= table[c].nunique() <= len(table) / 2]
    if len(repeated) == 1:
        return repeated[0]
    raise ValueError(
        f"{path}: which column holds the labels? Say it with --label-column (columns: "
        f"{', '.join(left or map(str, table.columns))})"
    )


def _are_numbers(cells: pd.Series) -> bool:
    return bool(pd.to_numeric(cells[cells.str.strip() != ""], errors="coerce").notna().all())


def _split(cells: pd.Series, separator: str, path: Path) -> list[list[str]]:
    """Cells -> lists of names: as Python lists, or separated as given, or as it is guessed (said)."""
    texts = cells.fillna("").astype(str).str.strip()
    filled = texts[texts != ""]
    if separator == "none":
        return [[t] if t else [] for t in texts]
    if not separator and len(filled) and filled.str.match(r"[\[({].*[\])}]$").all():
        return [listed(t, str(path)) if t else [] for t in texts]
    if not separator:
        separator = next((s for s in SEPARATORS if _separates(filled, s)), "")
        if separator:
            logger.warning("%s: several labels in a cell are separated by '%s' (--label-separator none: they are one)",
                           path, separator)  # fmt: skip
    if not separator:
        return [[t] if t else [] for t in texts]
    return [[part.strip() for part in t.split(separator) if part.strip()] for t in texts]


def _separates(cells: pd.Series, separator: str) -> bool:
    """Whether cells are lists.

    Names hold commas with a space behind ('Sparrow, House'): there most parts must come in other cells too.
    'Bark,Cricket' is a list.
    """
    whole = set(cells[cells.str.contains(separator, regex=False)])
    if not whole or separator != "," or not any(", " in cell for cell in whole):
        return bool(whole)
    cells_of = Counter(part for cell in set(cells) for part in {p.strip() for p in cell.split(separator)})
    parts = {p.strip() for cell in whole for p in cell.split(separator)}
    return sum(cells_of[p] > 1 for p in parts) >= len(parts) / 2


def from_annotations(recordings: OwnRecordings, files: Sequence[Path], label_column: str, tier: str) -> Labels:
    """Annotation files -> events; a recording that a file speaks of is annotated, one without any is not."""
    events, spoken, missing, lost = [], set(), {}, []
    for path in files:
        notes = read_annotations(path, label_column, tier)
        own = recordings.of_annotation(path)
        named = notes.events.filename != ""
        found = {name: recordings.find(name, str(path)) for name in notes.events.filename[named].unique()}
        found |= {name: recordings.find(name, str(path)) for name in notes.silent}
        missing |= {name: None for name, where in found.items() if where is None}
        where = notes.events.filename.map(found).where(named, own)
        says_nothing = not found and not len(notes.events)
        if own is not None and (says_nothing or not named.all()):
            spoken.add(own)
        elif own is None and (says_nothing or not named.all()):
            lost.append(path)
        spoken |= set(where.dropna()) | {where for where in found.values() if where}
        events.append(notes.events.assign(path=where)[where.notna().to_numpy(bool)])
        _say(path, notes, len(files))
    if lost:
        logger.warning("%d annotation files belong to no recording by their names: %s", len(lost),
                       few([p.name for p in lost]))  # fmt: skip
    table = pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=["path"])
    if not spoken and missing:
        raise ValueError(
            f"the {len(missing)} recordings that {few([str(p) for p in files])} name are not in "
            f"{recordings.source}: {few(missing)}"
        )
    if not spoken:
        raise ValueError(
            f"{len(files)} annotation files, such as {files[0]}, speak of no recording of {recordings.source}: they "
            "are named as the recordings are (a.wav: a.txt), or have a column of their names"
        )
    clips = recordings.table(recordings.paths)
    table = table.assign(filename=table.path.map(dict(zip(clips.path, clips.clip_id, strict=True))))
    heard = table.groupby("filename").event_label.agg(lambda names: sorted(set(names)))
    clips["labels"] = [heard.get(clip_id, []) for clip_id in clips.clip_id]
    clips["annotated"] = clips.path.isin(spoken).astype(int)
    if silent := list(clips.path[clips.annotated == 0]):
        logger.warning("%d recordings have no annotation and no label: %s", len(silent), few(silent))
    table = table[["filename", "onset", "offset", "event_label"]].sort_values(["filename", "onset"], kind="stable")
    return Labels(clips, table.reset_index(drop=True), tuple((Path(name).stem, name) for name in missing))


def _say(path: Path, notes: Annotations, n_files: int):
    if n_files <= 3 and notes.label_column:
        logger.warning("%s: %s, labels by '%s', %d events", path, notes.kind, notes.label_column, len(notes.events))

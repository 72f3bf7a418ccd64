"""Where the labels of one's own recordings are: in annotation files, in a table, or in the folders that they lie in."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from earshot.annotations.column_names import plain_name
from earshot.annotations.reading import kind_of
from earshot.competitions.label_columns import SOURCE_COLUMN, has_columns, says_splits
from earshot.competitions.own.annotations import from_annotations
from earshot.competitions.own.folders import SUBFOLDER, from_folders
from earshot.competitions.own.labels import Labels, columns_by_recording, from_table
from earshot.competitions.own.recordings import OwnRecordings
from earshot.competitions.own.shares import take_shares
from earshot.competitions.own.splits import listed_splits, say_unused
from earshot.competitions.own.tables import LabelTable, find_annotations, find_label_table
from earshot.messages import few

FOLD_COLUMN = re.compile(r"((official|cv|k|kaggle|val)[_ -]?)?folds?([_ -]?(id|no|number))?$", re.I)
SURE_LABELS = ("event_labels", "labels", "tags", "species", "classes", "class", "categories", "category")
SAID = ("split", "official_fold")  # columns after which lists of a split say nothing

logger = logging.getLogger("earshot")


def find_labels(
    recordings: OwnRecordings, *, table: Path | None, annotations: Path | None, path_column: str, label_column: str,
    label_separator: str, group_column: str, split_column: str, fold_column: str, tier: str, several_labels: str,
    min_confidence: float | None, confidences: str, unsure: str,
) -> Labels:  # fmt: skip
    """Recordings -> their labels, with events where annotations say when; options.py explains the keywords.

    Annotations come first, then a table; beside annotations a table adds its columns. Else folders are the classes.
    """
    if table and annotations and _is_same(annotations, table):
        table = None  # events, whose columns may say groups, splits and folds
    notes = [path for path in find_annotations(recordings.source, annotations, recordings)
             if table is None or not _is_same(path, table)]  # fmt: skip
    doubts = [word.strip() for word in unsure.split(",") if word.strip()]
    sheet = (
        LabelTable((table,))
        if table and not table.is_dir()
        else find_label_table(table or recordings.source, recordings, path_column, notes, label_column)
    )
    if table and not sheet:
        raise ValueError(f"--table {table} is a folder, and no table in it names recordings of {recordings.source}")
    taken = [c for c in (group_column, split_column or "split", fold_column) if c]
    named = [c for c in (group_column, split_column, fold_column) if c]
    about = None
    # beside annotations --label-column is the table's where it has it: labels of recordings without annotation
    of_sheet = sheet is not None and (
        not notes or (bool(label_column) and has_columns(sheet.read(recordings), label_column))
    )
    lone, one_table = LabelTable(tuple(notes)), len(notes) == 1 and kind_of(notes[0]) == "table"
    if sheet:
        about = from_table(recordings, sheet, path_column, label_column if of_sheet else "", label_separator,
                           has_events=bool(notes), taken=taken, several=several_labels,
                           least=None if notes else min_confidence, unsure=() if notes else doubts)  # fmt: skip
    elif one_table and named and has_columns(lone.read(recordings), ",".join(named)):
        about = from_table(recordings, lone, path_column, "", label_separator, has_events=True, taken=named)
        about = about.of_columns(named)
    elif one_table and not group_column:
        hint_columns(columns_by_recording(recordings, notes[0]), split_column, fold_column)
    if notes:
        if about is None and not group_column:
            _hint_folders(recordings)
        labels = from_annotations(recordings, notes, "" if of_sheet else label_column, tier, label_separator,
                                  path_column="" if sheet else path_column, least=min_confidence,
                                  unsure=doubts, mirror=annotations, shares=take_shares(confidences))  # fmt: skip
        if about is not None:
            labels = labels.with_columns_of(about)
            if sheet and not of_sheet:
                _hint_labels(labels, str(sheet))
    elif take_shares(confidences):
        raise ValueError("--confidences shares is of annotations, which say when each sound is heard; here are none")
    else:
        turned = label_column == SUBFOLDER and about is None
        of_tables = {"--label-column": "" if turned else label_column, "--path-column": path_column,
                     "--several-labels": several_labels, "--min-confidence": min_confidence, "--unsure": unsure,
                     "--tier": tier}  # fmt: skip
        if about is None and (asked := [f"{name} {value}" for name, value in of_tables.items() if value]):
            raise ValueError(
                f"{asked[0]} is of tables and annotations, and nothing in {recordings.source} was taken for one that "
                "names its recordings: give it with --table or --annotations, or leave the option out to label by "
                "folders"
            )
        labels = about or from_folders(recordings, label_separator, turned)
    read = [*notes, *(sheet.files if sheet else ())]
    return with_listed(labels, recordings, not split_column and not fold_column, read)


def with_listed(labels: Labels, recordings: OwnRecordings, wanted: bool, read: Sequence[Path] = ()) -> Labels:
    """The same with the split that lists such as train.txt say, where it is wanted and no column says one; read: tables
    that were read for what they hold, which are no such lists."""
    if wanted and labels.clips.columns.intersection(SAID).empty:
        return labels.with_splits(listed_splits(recordings))
    say_unused(recordings, read)
    return labels


def _hint_labels(labels: Labels, sheet: str):
    """Say which column of a table beside annotations seems to hold labels of recordings that those do not speak of."""
    clips, free = labels.clips, labels.unsaid & ~labels.clips.labels.map(bool)
    for column in clips.columns.drop(["labels"]):
        named = plain_name(str(column)) in SURE_LABELS or f"{plain_name(str(column))}s" in SURE_LABELS
        if named and (n := int((clips[column][free].fillna("").astype(str).str.strip() != "").sum())):
            logger.warning("%d recordings without annotation have a '%s' in %s: --label-column '%s' makes it their "
                           "label", n, column, sheet, column)  # fmt: skip
            return


def _is_same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _hint_folders(recordings: OwnRecordings):
    """Say that folds may part recordings of one folder, mostly a site, where several folders hold several each."""
    folders = Counter(Path(path).parent.as_posix() for path in recordings.paths)
    if 1 < len(folders) < len(recordings.paths):
        logger.warning("folds may part the recordings in one folder (%d of them): --group-column folder keeps them "
                       "together in folds that are made afterwards", len(folders))  # fmt: skip


def hint_columns(clips: pd.DataFrame, split_column: str, fold_column: str):
    """Say which columns seem to be folds or a split that is not taken, or name a recordist, a site or the like, whose
    recordings folds would part.

    Of the split nothing is said where there is another, of the latter nothing where there are groups.
    """
    for column in clips.columns:
        values = clips[column].fillna("").astype(str).str.strip()
        values = values[values != ""]
        if column in (split_column, fold_column) or not 1 < values.nunique() < len(values):
            continue
        if FOLD_COLUMN.match(column) and column != "official_fold":
            logger.warning(
                "folds are made anew; --fold-column '%s' takes the %d of the table", column, values.nunique()
            )
        elif says_splits(values):
            if not split_column and "split" not in clips:
                logger.warning("no split is made of '%s', which says %s: --split-column '%s' takes it",
                               column, few(sorted(set(values))), column)  # fmt: skip
        elif "group" not in clips and (column == SUBFOLDER or SOURCE_COLUMN.search(column)):
            logger.warning(
                "folds may part the recordings of one '%s' (%d values): --group-column '%s' keeps them together in "
                "folds that are made afterwards",
                column, values.nunique(), column,
            )  # fmt: skip

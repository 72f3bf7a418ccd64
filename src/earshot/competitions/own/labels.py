"""Labels of one's own recordings by a table; by folders: folders.py, by annotation files: annotations.py."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from earshot.annotations.cells import with_genus
from earshot.annotations.certainty import CONFIDENCES, certainty_of, confidence_of
from earshot.annotations.class_columns import NO_CLASS, UNKNOWN, counted_beside, of_one_class, said_absent
from earshot.annotations.column_names import ONSETS, column_called, plain_names
from earshot.competitions.label_columns import are_classes, label_columns, labels_in, split_cells
from earshot.competitions.own.doubts import take_doubted, unsure_rows
from earshot.competitions.own.recordings import OwnRecordings
from earshot.competitions.own.tables import LabelTable, check_column, find_path_column, of_folders
from earshot.competitions.tables import class_name
from earshot.messages import check_choice, few
from earshot.tables import read_table

FEW_TORN = 10  # of so many recordings one whose rows differ is a mistake, unless it is said to be none
SEVERAL = ("together", "none")  # values of --several-labels
BACKGROUND = ("also", "background_species", "other_species")  # heard besides: xeno-canto, Macaulay
OWN_COLUMNS = ("clip_id", "path", "labels", "annotated")  # a table's columns of these names are not taken over

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class Labels:
    """What was found.

    clips: `clip_id, path, labels` and `doubted` (lists of names: heard, perhaps heard) and more columns, every
    recording once; events: `filename`
    (clip_id), `onset, offset, event_label`, None where nothing says when; missing: (clip_id, path) of recordings that a
    table names and the folder has not.
    """

    clips: pd.DataFrame
    events: pd.DataFrame | None = None
    missing: tuple[tuple[str, str], ...] = ()

    def of_columns(self, columns: Sequence[str]) -> Labels:
        """The same with no other columns than these."""
        return replace(self, clips=self.clips[["clip_id", "path", "labels", "doubted", *columns]])

    @property
    def unsaid(self) -> pd.Series:
        """Of which recordings no annotation says when anything is heard."""
        clips = self.clips
        return clips.annotated == 0 if "annotated" in clips else pd.Series(True, index=clips.index)

    def with_columns_of(self, other: Labels) -> Labels:
        """The same with what another table says of these recordings: further columns (group, site, split), and labels
        of those that no annotation speaks of, or that they hold none."""
        kinds = ["labels", "doubted"]
        clips = self.clips.merge(other.clips.drop(columns=["path", *kinds]), on="clip_id", how="left",
                                 suffixes=("", "_of_table"))  # fmt: skip
        weak = other.clips.set_index("clip_id")
        unsaid = self.unsaid.to_numpy(bool)
        for kind in kinds:
            both = [sorted({*own, *more}) for own, more in zip(clips[kind], clips.clip_id.map(weak[kind]), strict=True)]
            clips[kind] = clips[kind].where(~unsaid, pd.Series(both, index=clips.index))
        if "unknown_labels_of_table" in clips:
            others = clips.pop("unknown_labels_of_table").fillna("").str.split()
            clips["unknown_labels"] = [own + more for own, more in zip(clips.unknown_labels, others, strict=True)]
        if "annotated_of_table" in clips:
            silent = unsaid & (clips.pop("annotated_of_table") == "1") & ~clips.labels.map(bool)
            clips["annotated"] = clips.annotated.mask(silent, 1)
        missing = tuple(dict.fromkeys((*self.missing, *other.missing)))
        return replace(self, clips=clips, missing=missing)

    def with_fields(self, fields: pd.DataFrame) -> Labels:
        """The same with a column a field that names of recordings have (own/names.py), by `clip_id`."""
        new = fields.columns.drop("clip_id")
        if taken := sorted(set(new) & set(self.clips.columns)):
            raise ValueError(
                f"--names has a field {few(taken)}, and a table, list or folder says that already: call the field "
                "otherwise"
            )
        return replace(self, clips=self.clips.merge(fields, on="clip_id", how="left")) if len(new) else self

    def with_splits(self, listed: pd.DataFrame | None) -> Labels:
        """The same with the split, or the official fold, that lists of recordings say (own/splits.py); recordings that
        no list names train. Lists that leave no labelled recording to train on say nothing."""
        if listed is None:
            return self
        clips = self.clips.merge(listed, on="path", how="left")
        column = listed.columns[-1]
        unlisted = clips[column].isna()
        clips[column] = clips[column].fillna("train") if column == "split" else clips[column].fillna(-1).astype(int)
        trains = (clips[column] == "train") if column == "split" else True
        if not (clips.labels.map(bool) & trains).any():
            logger.warning("no split is made of these lists: no recording with a label would train")
            return self
        if unlisted.any() and (listed[column] == "train").any():
            logger.warning("%d recordings are in no list of a split, and train: %s", unlisted.sum(),
                           few(clips.path[unlisted]))  # fmt: skip
        return replace(self, clips=clips)


def from_table(
    recordings: OwnRecordings, path: LabelTable, path_column: str, label_column: str, separator: str, has_events: bool,
    taken: Sequence[str] = (), *, several: str = "", least: float | None = None, unsure: Sequence[str] = (),
) -> Labels:  # fmt: skip
    """A table's row says what a recording holds; its other columns are kept.

    has_events: annotations say what is heard, so that the table need not. taken: columns that say something else
    (groups, splits, folds): none of them is guessed to hold the labels, and they stay columns
    though the flag of the labels name them too. several: what is made of recordings whose rows differ in their label,
    one of SEVERAL, or an error where few do. least: the confidence that a row needs, where the table says one; unsure:
    the words that stand beside labels of which nobody was sure.
    """
    table = _rows_of_recordings(path, recordings, path_column)
    names, kept = str(table.columns[0]), list(map(str, table.columns[1:]))
    columns = [] if has_events and not label_column else label_columns(table, label_column, names, path, taken)
    if len(columns) == 1:
        table[columns[0]] = with_genus(table[columns[0]], table, path)
    near = recordings.place_of(path.files[0]).parent.as_posix() if len(path.files) == 1 else ""
    found = recordings.find_all(table[names], str(path), near)
    told = f"{path}: recordings by '{names}'" + (f", labels by {few([repr(c) for c in columns])}" if columns else "")
    others = [c for c in kept if c not in (*columns, *OWN_COLUMNS)]
    logger.warning("%s%s", told, f", other columns: {few(others, 12)}" if others else "")
    if not has_events and table[names].duplicated().any():
        _hint_times(table[[c for c in others if c not in taken]], table[names], path)
    labels, says = _labels_of_rows(table, columns, taken, path, separator, has_events=has_events)
    table = table.assign(labels=labels, _says=says, _found=table[names].map(found).to_numpy())
    lost = table[names][table._found.isna()]
    missing = tuple((Path(n).stem, n) for n in lost)
    if len(lost) == len(table):
        raise ValueError(f"none of the {len(lost)} recordings of {path} is in {recordings.source}: {lost.iloc[0]}")
    table = table[table._found.notna()]
    if columns:
        table = _with_certainty(table, columns, path, least, unsure)
    else:
        table["labels"], table["doubted"] = take_doubted(table.labels, None)
    _refuse_contradictions(table, [c for c in taken if c in kept], path)
    table, others = _with_secondary(table, others, path)
    for column in ("secondary_labels", "unknown_labels"):  # of the second without a sign between them: by spaces
        if column in others and (column == "secondary_labels" or table[column].str.contains("[;,|]").any()):
            said = split_cells(table[column], separator, path)
            table[column] = [" ".join(map(class_name, names)) for names in said]
    table = _agreeing(table, several, path)
    dropped = [c for c in columns if c not in taken]
    clips = _one_row_each(table, recordings, dropped, path)
    if (free := clips.path.isin(table._found[table._says]) & ~clips.labels.map(bool)).any():
        clips["annotated"] = free.map({True: "1", False: ""})
        logger.warning("%s: %d recordings hold none of the classes, and train as such: %s", path, free.sum(),
                       few(clips.path[free]))  # fmt: skip
    return Labels(clips, missing=missing)


def _with_secondary(table: pd.DataFrame, others: list[str], path: LabelTable) -> tuple[pd.DataFrame, list[str]]:
    """The table with `secondary_labels` of what archives call the species in the background, which is said."""
    plain = {name: c for name, c in zip(plain_names(others), others, strict=True) if name in BACKGROUND}
    if not plain or "secondary_labels" in table.columns:
        return table, others
    column = next(iter(plain.values()))
    logger.warning("%s: secondary labels by '%s'", path, column)
    cells = table[column]
    if not cells.str.contains(r"[\[;|]").any():  # names by commas, of which none holds one
        cells = cells.str.replace(r"\s*,\s*", ";", regex=True)
    return table.drop(columns=column).assign(secondary_labels=cells), [*others, "secondary_labels"]


def _labels_of_rows(
    table: pd.DataFrame, columns: list[str], taken: Sequence[str], path: LabelTable, separator: str, has_events: bool
) -> tuple[list[list[str]], pd.Series]:
    """The labels of each row, and (N,) booleans: which rows say of every class whether it is heard.

    columns: those of the labels, the first one of `table` names recordings.
    """
    labels = labels_in(table, columns, separator, path) if columns else [[] for _ in range(len(table))]
    others = [c for c in map(str, table.columns[1:]) if c not in (*columns, *taken)]
    left_out = (
        of_one_class(list(map(str, table.columns[1:]))) if len(columns) > 1 and are_classes(table, columns) else []
    )
    absent, of_recording = said_absent(table[[c for c in others if c not in left_out]], path)
    labels = [[] if away else names for away, names in zip(absent, labels, strict=True)]
    # one that is empty or says UNK does not
    of_classes = not has_events and are_classes(table, columns)
    cells = table[columns].map(lambda cell: cell.strip().casefold())
    if other := counted_beside(table, columns) if of_classes else []:
        logger.warning("%s: no classes are columns of other numbers than 0 and 1: %s; write 1 where one is heard", path,
                       few(other))  # fmt: skip
    says = of_classes & (not other) & (cells != "").any(axis=1) & ~cells.isin(UNKNOWN).any(axis=1)
    return labels, says | (of_recording & bool(columns))


def _with_certainty(
    table: pd.DataFrame, columns: list[str], path: LabelTable, least: float | None, unsure: Sequence[str]
) -> pd.DataFrame:
    """The table without the labels that are not sure enough; those that somebody doubted are `doubted`."""
    if (sure := confidence_of(table.drop(columns=columns))) is not None:
        counted = confident(table[[]].assign(confidence=sure), least, path, str(sure.name)).index
        table["labels"] = table.labels.where(table.index.isin(counted), pd.Series([[]] * len(table), index=table.index))
    elif least is not None:
        confident(table[[]], least, path)
    doubts = unsure_rows(certainty_of(table.drop(columns=columns)), unsure, str(path))
    table["labels"], table["doubted"] = take_doubted(table.labels, doubts)
    return table


def _hint_times(table: pd.DataFrame, names: pd.Series, path: LabelTable):
    """Say which columns of a table with several rows a recording seem to be times that nobody takes for such."""
    plain = dict(zip(plain_names(list(map(str, table.columns))), map(str, table.columns), strict=True))
    if (onset := column_called(list(plain), (*ONSETS, "timestamp", "time"))) is not None:
        logger.warning("%s: '%s' says when a sound begins and no column when it ends, so that rows are labels of whole "
                       "recordings: add an end, or a duration", path, plain[onset])  # fmt: skip
        return
    cells = table.apply(lambda c: pd.to_numeric(c.str.replace(",", ".", regex=False), errors="coerce"))
    cells = cells[[c for c in cells if cells[c].notna().all() and (cells[c] >= 0).all() and not NO_CLASS.match(c)]]
    for first, second in itertools.pairwise(cells):
        moves = cells[first].groupby(names.to_numpy()).nunique().max() > 1
        if moves and (cells[second] > cells[first]).all() and (cells[[first, second]] % 1 != 0).any(axis=None):
            logger.warning("%s: rows are labels of whole recordings. Where '%s' and '%s' say when each sound is heard, "
                           "call them onset and offset", path, first, second)  # fmt: skip
            return


def _rows_of_recordings(path: LabelTable, recordings: OwnRecordings, path_column: str) -> pd.DataFrame:
    """The rows of a table that name a recording, the column that does so first."""
    table = path.read(recordings, say=True)
    folders = table.pop("_folder") if "_folder" in table else None
    check_column(table, path_column, path, "--path-column")
    names = find_path_column(table, recordings, path_column)
    if not names:
        raise ValueError(
            f"no column of {path} names recordings of {recordings.source} ({', '.join(map(str, table.columns))}); "
            "say which one does with --path-column, and where they lie with --source"
        )
    if folders is not None:
        table[names] = recordings.in_folders(table[names], folders)
    table = table[(table.map(str.strip) != "").any(axis=1)]  # spreadsheets end in rows of separators
    if path_column and "recording" not in table and "recording" in (folders := of_folders(table, names, recordings)):
        table, names = folders, "recording"
    named = table[names].str.strip() != ""
    if not named.all():
        logger.warning("%s: %d rows name no recording and are left out", path, (~named).sum())
    return table[named].reset_index(drop=True)[[names, *(c for c in table.columns if c != names)]]


def columns_by_recording(recordings: OwnRecordings, path: Path) -> pd.DataFrame:
    """What the columns of a table of events say of each recording, a row each, of those that say one thing of each.

    No columns where none of the table's names recordings, and of a table that only `read_annotations` can read.
    """
    try:
        table = read_table(path, all_text=True)
    except ValueError:
        return pd.DataFrame()
    names = find_path_column(table, recordings, "")
    if not names:
        return pd.DataFrame()
    found = table[names].map(recordings.find_all(table[names], ""))
    one = [c for c in table if c != names and table[c].groupby(found).nunique().max() == 1]
    return table[one][(found.notna() & ~found.duplicated()).to_numpy()]


def _refuse_contradictions(table: pd.DataFrame, columns: Sequence[str], path: Path):
    """Raise where rows of one recording say different things of its group, split or fold."""
    for column in columns:
        said = table.assign(_said=table[column].str.strip())[["_found", "_said"]].drop_duplicates()
        if (torn := said._found.duplicated(keep=False)).any():
            of = said[torn]
            first, n_torn = of._found.iloc[0], of._found.nunique()
            raise ValueError(
                f"{path}: rows of one recording differ in '{column}': {first} is "
                f"{' and '.join(sorted(of._said[of._found == first]))}"
                f"{f' (and {n_torn - 1} more)' if n_torn > 1 else ''}; a recording can be in one only"
            )


def _agreeing(table: pd.DataFrame, several: str, path: Path) -> pd.DataFrame:
    """The rows with the labels of recordings whose rows differ: as they are, or none (`several`).

    Where no cell holds two labels and few recordings have rows of two, they are more likely mistakes than recordings
    of two classes, of which one is enough to make another problem of all: an error that names them.
    """
    if several:
        check_choice("--several-labels", several, SEVERAL)
    own = [{class_name(name).casefold() for name in names} for names in table.labels]
    said: dict[str, set[frozenset[str]]] = {}
    for recording, names in zip(table._found, own, strict=True):
        said.setdefault(recording, set()).update({frozenset(names)} if names else ())
    torn = [recording for recording, rows in said.items() if len(rows) > 1]
    if not torn or several == "together":
        return table
    if several == "none":
        differ = table._found.isin(set(torn))
        logger.warning("%s: rows of %d recordings differ in their label, so that they have none: %s", path, len(torn),
                       few(torn))  # fmt: skip
        return table.assign(labels=[[] if odd else names for odd, names in zip(differ, table.labels, strict=True)])
    if max(map(len, own)) > 1 or FEW_TORN * len(torn) > len(said):
        return table
    shown = [f"{r} is {' and '.join(n for names in table.labels[table._found == r] for n in names)}" for r in torn[:3]]
    more = f", ... ({len(torn) - 3} more)" if len(torn) > 3 else ""
    raise ValueError(
        f"{path}: rows of {len(torn)} of {len(said)} recordings differ in their label, and no other recording has two: "
        f"{', '.join(shown)}{more}. Correct the table, or say what holds: --several-labels together (all of these), or "
        "none (they stay without a label)"
    )


def _one_row_each(table: pd.DataFrame, recordings: OwnRecordings, dropped: Sequence[str], path: Path) -> pd.DataFrame:
    """Rows -> recordings: the labels of several rows of one recording together; other columns by its first row."""
    others = [c for c in table.columns if c not in ("_found", "_says", "doubted", *OWN_COLUMNS, *dropped)]
    first = table.drop_duplicates("_found")
    together: dict[str, list[str]] = {}
    doubted: dict[str, set[str]] = {}
    for recording, names, perhaps in zip(table._found, table.labels, table.doubted, strict=True):
        together[recording] = sorted({*together.get(recording, ()), *names})
        doubted.setdefault(recording, set()).update(perhaps)
    if (twice := table._found.duplicated() & table.labels.map(bool)).any():
        several = sorted(table._found[twice].unique(), key=lambda p: len(together[p]) < 2)  # of several labels first
        logger.warning("%s has %d recordings in several rows: their labels are put together: %s", path, len(several),
                       few([f"{p} ({', '.join(together[p])})" for p in several]))  # fmt: skip
    clips = recordings.table(first._found).assign(
        labels=[together[p] for p in first._found], doubted=[sorted(doubted[p]) for p in first._found]
    )
    for column in others:
        clips[column] = first[column].to_numpy()
    spoken = set(first._found)
    silent = [p for p in recordings.paths if p not in spoken]
    if silent:
        logger.warning("%d recordings are not in %s and have no label: %s", len(silent), path, few(silent))
        none = [[]] * len(silent)
        rest = recordings.table(silent).assign(labels=none, doubted=none, **dict.fromkeys(others, ""))
        clips = pd.concat([clips, rest], ignore_index=True)
    return clips


def confident(
    rows: pd.DataFrame, least: float | None, where: Path, name: str = "confidence", *, cut: bool = True, way: str = ""
) -> pd.DataFrame:
    """The rows of at least a `confidence`; None: all, and it is said how many are less likely right than wrong.

    name: what the table calls it; cut: such rows count as heard, so that it has to be said; way: another way out.
    """
    if "confidence" not in rows:
        if least is not None:
            names = ", ".join(CONFIDENCES)
            raise ValueError(f"--min-confidence: {where} has no column such as {names} with numbers from 0 to 1, or "
                             "percents such as 80%")  # fmt: skip
        return rows
    if cut and (none := (rows.confidence == 0).to_numpy(bool)).any():
        logger.warning("%s: %d of %d rows have a %s of 0, which says that a class is not there, and are left out",
                       where, none.sum(), len(rows), name)  # fmt: skip
        rows = rows[~none]
    unsure = (rows.confidence < (0.5 if least is None else least)).to_numpy(bool)
    said = f"{where}: {unsure.sum()} of {len(rows)} rows have a {name} below"
    if least is not None:
        logger.warning("%s %g and are left out", said, least)
        return rows[~unsure]
    if unsure.any() and cut:
        logger.warning("%s 0.5 (lowest %g), and count as heard as all others do: --min-confidence 0.5 leaves them "
                       "out%s", said, rows.confidence.min(), way)  # fmt: skip
    return rows

"""Labels of one's own recordings by a table, or by annotation files; by folders: own_folders.py."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.annotations.certainty import CONFIDENCES, certainty_of, confidence_of
from earshot.annotations.class_columns import UNKNOWN
from earshot.annotations.reading import Annotations, read_annotations, with_genus
from earshot.competitions.label_columns import are_classes, label_columns, labels_in, say_missing_words, split_cells
from earshot.competitions.own_doubts import take_doubted, unsure_rows
from earshot.competitions.own_recordings import OwnRecordings
from earshot.competitions.own_tables import LabelTable, check_column, find_path_column
from earshot.competitions.tables import class_name
from earshot.messages import check_choice, few, pasted
from earshot.sound import audio
from earshot.tables import read_table

SAME_LENGTH = 0.02  # of a recording, by which an event as long as it may differ
FEW_TORN = 10  # of so many recordings one whose rows differ is a mistake, unless it is said to be none
SEVERAL = ("together", "none")  # values of --several-labels
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

    def with_columns_of(self, other: Labels) -> Labels:
        """The same with what another table says of these recordings: further columns (group, site, split), and labels
        of those that no annotation speaks of."""
        kinds = ["labels", "doubted"]
        more = other.clips.drop(columns=["path", *kinds])
        clips = self.clips.merge(more, on="clip_id", how="left")
        weak = other.clips.set_index("clip_id")
        unsaid = (clips.annotated == 0).to_numpy(bool)
        for kind in kinds:
            clips[kind] = clips[kind].where(~unsaid, clips.clip_id.map(weak[kind]))
        missing = tuple(dict.fromkeys((*self.missing, *other.missing)))
        return replace(self, clips=clips, missing=missing)

    def with_splits(self, listed: pd.DataFrame | None) -> Labels:
        """The same with the split, or the official fold, that lists of recordings say (own_splits.py); recordings that
        no list names train. Lists that leave no labelled recording to train on say nothing."""
        if listed is None or not self.clips.columns.intersection(("split", "official_fold")).empty:
            return self
        clips = self.clips.merge(listed, on="path", how="left")
        column = listed.columns[-1]
        unlisted = clips[column].isna()
        clips[column] = clips[column].fillna("train" if column == "split" else -1)
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
    near = recordings.place_of(path.files[0]).parent.as_posix()
    found = recordings.find_all(table[names], str(path), near)
    told = f"{path}: recordings by '{names}'" + (f", labels by {few([repr(c) for c in columns])}" if columns else "")
    others = [c for c in kept if c not in (*columns, *OWN_COLUMNS)]
    logger.warning("%s%s", told, f", other columns: {few(others, 12)}" if others else "")
    labels = labels_in(table, columns, separator, path) if columns else [[] for _ in range(len(table))]
    # a row of 0 in all of its classes says that nothing is heard, one that is empty or says UNK does not
    of_classes = not has_events and are_classes(table, columns)
    cells = table[columns].map(lambda cell: cell.strip().casefold())
    table["_says"] = of_classes & (cells != "").any(axis=1) & (cells != UNKNOWN).all(axis=1)
    table = table.assign(labels=labels, _found=table[names].map(found).to_numpy())
    lost = table[names][table._found.isna()]
    missing = tuple((Path(n).stem, n) for n in lost)
    if len(lost) == len(table):
        raise ValueError(f"none of the {len(lost)} recordings of {path} is in {recordings.source}: {lost.iloc[0]}")
    table = table[table._found.notna()]
    if columns and (sure := confidence_of(table.drop(columns=columns))) is not None:
        counted = confident(table[[]].assign(confidence=sure), least, path, str(sure.name)).index
        table["labels"] = table.labels.where(table.index.isin(counted), pd.Series([[]] * len(table), index=table.index))
    elif columns and least is not None:
        confident(table[[]], least, path)
    doubts = unsure_rows(certainty_of(table.drop(columns=columns)), unsure, str(path)) if columns else None
    table["labels"], table["doubted"] = take_doubted(table.labels, doubts)
    _refuse_contradictions(table, [c for c in taken if c in kept], path)
    if "secondary_labels" in others:
        others_said = split_cells(table.secondary_labels, separator, path)
        table = table.assign(secondary_labels=[" ".join(map(class_name, names)) for names in others_said])
    table = _agreeing(table, several, path)
    dropped = [c for c in columns if c not in taken]
    clips = _one_row_each(table, recordings, dropped, path)
    if (free := clips.path.isin(table._found[table._says]) & ~clips.labels.map(bool)).any():
        clips["annotated"] = free.map({True: "1", False: ""})
        logger.warning("%s: %d recordings hold none of the classes, and train as such: %s", path, free.sum(),
                       few(clips.path[free]))  # fmt: skip
    return Labels(clips, missing=missing)


def _rows_of_recordings(path: LabelTable, recordings: OwnRecordings, path_column: str) -> pd.DataFrame:
    """The rows of a table that name a recording, the column that does so first."""
    table = path.read(say=True)
    check_column(table, path_column, path, "--path-column")
    names = find_path_column(table, recordings, path_column)
    if not names:
        raise ValueError(
            f"no column of {path} names recordings of {recordings.source} ({', '.join(map(str, table.columns))}); "
            "say which one does with --path-column, and where they lie with --source"
        )
    table = table[(table.map(str.strip) != "").any(axis=1)]  # spreadsheets end in rows of separators
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


def from_annotations(
    recordings: OwnRecordings, files: Sequence[Path], label_column: str, tier: str, separator: str = "", *,
    path_column: str = "", least: float | None = None, unsure: Sequence[str] = (), mirror: Path | None = None,
) -> Labels:  # fmt: skip
    """Annotation files -> events; a recording that a file speaks of is annotated, one without any is not.

    path_column: the column that names recordings, guessed by its name, else by what it holds; least: the confidence
    that an event needs, where the files say one; unsure: the words beside events of which nobody was sure; mirror: a
    folder of the files, with folders as those of recordings.
    """
    events, spoken, missing, lost, taken = [], set(), {}, [], False
    for path in files:
        own, near = recordings.of_annotation(path, mirror), recordings.place_of(path, mirror).parent.as_posix()
        notes = read_annotations(path, label_column, tier)
        nameless = own is None and (notes.events.filename == "").all()
        if notes.kind in ("table", "raven") and (path_column or nameless):
            names = find_path_column(read_table(path, all_text=True), recordings, path_column)
            notes = read_annotations(path, label_column, tier, names)
            taken = taken or bool(names)
        named = notes.events.filename != ""
        found = recordings.find_all([*notes.events.filename[named], *notes.silent], str(path), near)
        missing |= {name: None for name, where in found.items() if where is None}
        where = notes.events.filename.map(found).where(named, own)
        says_nothing = not found and not len(notes.events)
        if own is not None and (says_nothing or not named.all()):
            spoken.add(own)
        elif own is None and (says_nothing or not named.all()):
            lost.append(path)
        spoken |= set(where.dropna()) | {where for where in found.values() if where}
        events.append(notes.events.assign(path=where, runs_on=notes.runs_on)[where.notna().to_numpy(bool)])
        _say(path, notes, len(files))
    if path_column and not taken:
        raise ValueError(f"--path-column: no annotation file has a column '{path_column}', such as {files[0]}")
    if lost:
        logger.warning("%d annotation files belong to no recording by their names: %s", len(lost),
                       few([p.name for p in lost]))  # fmt: skip
    table = pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=["path"])
    if not spoken and missing:
        raise ValueError(
            f"the {len(missing)} recordings that {few([str(p) for p in files])} name are not in "
            f"{recordings.source}: {few(missing)} (there are {few(recordings.paths, 2)})"
        )
    if not spoken:
        raise ValueError(
            f"{len(files)} annotation files, such as {files[0]}, speak of no recording of {recordings.source}: they "
            "are named as the recordings are (a.wav: a.txt), or have a column called filename. A table whose start and "
            "end are no times in the recordings is given as --table"
        )
    _check_times(table, recordings, files)
    place = Path(os.path.commonpath(files))
    table = confident(table.reset_index(drop=True), least, place)
    if (twice := table.duplicated(["path", "onset", "offset", "event_label"])).any():
        logger.warning("%d events are there twice, and count once", twice.sum())
        table = table[~twice]
    spoken -= _only_unnamed(table)
    table = table[table.event_label.str.strip() != ""]
    several = split_cells(table.event_label, separator, place)
    table = table.assign(event_label=[names or [""] for names in several]).explode("event_label", ignore_index=True)
    say_missing_words(table.event_label, str(place))
    clips = recordings.table(recordings.paths)
    table = table.assign(filename=table.path.map(dict(zip(clips.path, clips.clip_id, strict=True))))
    doubts = unsure_rows(table.get("certainty"), unsure, str(place))
    table["event_label"], doubted = take_doubted(table.event_label.map(lambda name: [name]), doubts)
    perhaps = doubted.groupby(table.filename).agg(lambda names: sorted({n for some in names for n in some}))
    table = table.explode("event_label", ignore_index=True).dropna(subset="event_label")
    heard = table.groupby("filename").event_label.agg(lambda names: sorted(set(names)))
    clips["labels"] = [heard.get(clip_id, []) for clip_id in clips.clip_id]
    clips["doubted"] = [perhaps.get(clip_id, []) for clip_id in clips.clip_id]
    clips["annotated"] = clips.path.isin(spoken).astype(int)
    if silent := list(clips.path[clips.annotated == 0]):
        logger.warning("%d recordings have no annotation and no label: %s", len(silent), few(silent))
    table = table[["filename", "onset", "offset", "event_label"]].sort_values(["filename", "onset"], kind="stable")
    return Labels(clips, table.reset_index(drop=True), tuple((Path(name).stem, name) for name in missing))


def confident(rows: pd.DataFrame, least: float | None, where: Path, name: str = "confidence") -> pd.DataFrame:
    """The rows of at least a `confidence`; None: all, and it is said how many are less likely right than wrong.

    name: what the table calls it.
    """
    if "confidence" not in rows:
        if least is not None:
            names = ", ".join(CONFIDENCES)
            raise ValueError(f"--min-confidence: {where} has no column such as {names} with numbers from 0 to 1")
        return rows
    unsure = (rows.confidence < (0.5 if least is None else least)).to_numpy(bool)
    said = f"{where}: {unsure.sum()} of {len(rows)} rows have a {name} below"
    if least is not None:
        logger.warning("%s %g and are left out", said, least)
        return rows[~unsure]
    if unsure.any():
        logger.warning("%s 0.5 (lowest %g), and count as heard as all others do: --min-confidence 0.5 leaves them out",
                       said, rows.confidence.min())  # fmt: skip
    return rows


def _only_unnamed(events: pd.DataFrame) -> set[str]:
    """The recordings whose events have no label, which is no silence; said, with how many events have none."""
    unnamed = (events.event_label.str.strip() == "").to_numpy(bool)
    alone = set(events.path[unnamed]) - set(events.path[~unnamed])
    if unnamed.any():
        logger.warning("%d events have no label and are left out%s", unnamed.sum(),
                       f"; {len(alone)} recordings have no others, and count as not annotated: {few(sorted(alone))}"
                       if alone else "")  # fmt: skip
    return alone


def _check_times(events: pd.DataFrame, recordings: OwnRecordings, files: Sequence[Path]):
    """Raise where times cannot be seconds of their recordings: most are past the end, or run on over several files, or
    are those of longer recordings that these were cut out of."""
    if not len(events):
        return
    length = {path: audio.duration_or(recordings.source / path, math.inf) for path in events.path.unique()}
    late = (events.onset >= events.path.map(length)).to_numpy(bool)
    _refuse_cut_clips(events, events.path.map(length), late, files)
    if 2 * late.sum() >= len(late) or late[events.runs_on.to_numpy(bool)].any():
        event = events[late].iloc[0]
        raise ValueError(
            f"{late.sum()} of {len(late)} events begin after the end of their recordings, such as {event.event_label} "
            f"at {event.onset:g} s of {event.path} ({length[event.path]:g} s): times are seconds from the start of "
            "each recording. Are these milliseconds, samples, or times of day? Raven's run on over all files that "
            "were open, unless the column File Offset (s) is exported. A table whose start and end are no times in the "
            "recordings is given as --table"
        )
    runs_on = events[events.runs_on.to_numpy(bool)]
    span = runs_on.groupby("path", sort=False).onset.agg(["min", "max"]).sort_values("min")
    if len(span) > 1 and (span["min"].to_numpy()[1:] >= span["max"].to_numpy()[:-1]).all():
        logger.warning("times of %s come after those of %s: if they run on over the files export Raven's column File "
                       "Offset (s)", span.index[1], span.index[0])  # fmt: skip


def _refuse_cut_clips(events: pd.DataFrame, length: pd.Series, late: np.ndarray, files: Sequence[Path]):
    """Raise where a table says where each recording lay in a longer one: a row each, as long as it, that begins later.

    length: (n,) seconds of each event's recording; late: (n,) whether it begins after that. No event of a recording can
    be as long as it and begin later than at its start.
    """
    whole = ((events.offset - events.onset - length).abs() <= SAME_LENGTH * length) & (events.onset > 0.1 * length)
    times = events.groupby("path").onset.nunique()
    if 3 * whole.sum() <= len(events) or 10 * (times > 1).sum() > len(times):
        return
    event, table = events[whole].iloc[0], files[0] if len(files) == 1 else "FILE"
    raise ValueError(
        f"{whole.sum()} of {len(events)} events are as long as their recordings and begin later than at the start, "
        f"{(late & whole).sum()} of them after the end, such as {event.event_label} at {event.onset:g} s of "
        f"{event.path} ({length[whole].iloc[0]:g} s): {few(files, 1)} speaks of clips that were cut out of longer "
        f"recordings, with times in those. Give it as a table of labels: {pasted('--table', table)}"
    )


def _say(path: Path, notes: Annotations, n_files: int):
    if n_files <= 3 and notes.label_column:
        logger.warning("%s: %s, labels by '%s', %d events", path, notes.kind, notes.label_column, len(notes.events))

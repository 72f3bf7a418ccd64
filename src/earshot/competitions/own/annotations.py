"""Labels of one's own recordings by annotation files, which say when each sound is heard."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.annotations.date_times import recordings_at, since_start
from earshot.annotations.reading import Annotations, read_annotations
from earshot.competitions.label_columns import say_missing_words, split_cells
from earshot.competitions.own.doubts import take_doubted, unsure_rows
from earshot.competitions.own.labels import Labels, confident
from earshot.competitions.own.recordings import OwnRecordings
from earshot.competitions.own.shares import counts_as_heard, with_shares
from earshot.competitions.own.tables import find_path_column, read_own
from earshot.messages import few, pasted
from earshot.sound import audio

SAME_TIME = 4  # digits of a second by which an event is the one of another file
SAME_LENGTH = 0.02  # of a recording, by which an event as long as it may differ
SHARE_HEARD = 0.1  # of most recordings, before the end of their last event
FAR = 10  # times the length of its recording, at which no event can end
SEVERAL_TIMES = 3  # that a class is as long as its recording, to be told

logger = logging.getLogger("earshot")


def from_annotations(
    recordings: OwnRecordings, files: Sequence[Path], label_column: str, tier: str, separator: str = "", *,
    path_column: str = "", least: float | None = None, unsure: Sequence[str] = (), mirror: Path | None = None,
    shares: bool = False,
) -> Labels:  # fmt: skip
    """Annotation files -> events; a recording that a file speaks of is annotated, one without any is not.

    path_column: the column that names recordings, guessed by its name, else by what it holds; least: the confidence
    that an event needs, where the files say one; unsure: the words beside events of which nobody was sure; mirror: a
    folder of the files, with folders as those of recordings; shares: the confidences are soft labels (own/shares.py).
    """
    scored = shares or least is not None
    table, spoken, missing = _read_all(
        recordings, files, label_column, tier, path_column=path_column, mirror=mirror, scored=scored
    )
    length = table.path.map(
        {path: audio.duration_or(recordings.source / path, math.inf) for path in table.path.unique()}
    )
    table = _of_milliseconds(table, length)
    _check_times(table, length, files)
    place = Path(os.path.commonpath(files))
    way = ", --confidences shares trains on them as they are"
    table = confident(table.reset_index(drop=True), least, place, cut=not shares, way=way)
    table = with_shares(table, str(place)) if shares else table
    if (twice := table.round(SAME_TIME).duplicated(["path", "onset", "offset", "event_label"])).any():
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
    table, weak = table[table.onset.notna()], table[table.onset.isna() & counts_as_heard(table)]
    spoken -= set(weak.path) - set(table.path)
    clips = _with_labels(clips, table, weak, perhaps, spoken)
    missing = tuple((Path(name).stem, name) for name in missing)
    if len(weak) and not spoken:
        return Labels(clips.drop(columns="annotated"), missing=missing)
    columns = ["filename", "onset", "offset", "event_label", *(["share", "is_negative"] if shares else [])]
    table = table[columns].sort_values(["filename", "onset"], kind="stable")
    return Labels(clips, table.reset_index(drop=True), missing)


def _read_all(
    recordings: OwnRecordings, files: Sequence[Path], label_column: str, tier: str, path_column: str,
    mirror: Path | None, scored: bool,
) -> tuple[pd.DataFrame, set[str], list[str]]:  # fmt: skip
    """Events of all files with the `path` of their recording, the recordings that are spoken of, names of no recording.

    scored: it was said what a confidence from 0 to 1 means.
    """
    events, spoken, missing, lost, taken = [], set(), {}, [], False
    guessed: dict[tuple[str, tuple[str, ...]], Path] = {}
    kinds: dict[str, dict[tuple[str, str], str]] = {}  # of each recording, with a file of each kind
    for path in files:
        own, near = recordings.of_annotation(path, mirror), recordings.place_of(path, mirror).parent.as_posix()
        notes, names_column = _read_one(path, recordings, label_column, tier, path_column, own=own)
        taken = taken or names_column
        if notes.scores and not scored:
            raise ValueError(
                f"{path}: {len(notes.scores)} columns hold numbers from 0 to 1: {few(notes.scores)}. Where each is a "
                "class with how sure it is heard, say what counts: --min-confidence 0.5, or --confidences shares, "
                "which trains on these numbers; where they are no classes, name the column of the labels with "
                "--label-column"
            )
        named = notes.events.filename != ""
        found = recordings.find_all([*notes.events.filename[named], *notes.silent], str(path), near)
        missing |= {name: None for name, where in found.items() if where is None}
        where = notes.events.filename.map(found).where(named, own)
        if by_clock := "ahead" in notes.events and own is None and len(named) and not named.any():
            lengths = {name: audio.duration_or(recordings.source / name, 0) for name in recordings.paths}
            where = recordings_at(notes.events, lengths, path)
            found = {name: name for name in where.dropna()}
        for name in {own, *found.values()} - {None}:
            kinds.setdefault(name, {}).setdefault((notes.kind, path.suffix.lower()), path.name)
        unnamed = not named.all() and not by_clock
        if (not found and not len(notes.events)) or unnamed:  # by the file's own name, or of nobody
            if own is None:
                lost.append(path)
            else:
                spoken.add(own)
        spoken |= set(where.dropna()) | {where for where in found.values() if where}
        of_path = notes.events.assign(path=where, runs_on=notes.runs_on)[where.notna().to_numpy(bool)]
        events.append(since_start(of_path, "path", path))
        _say(path, notes, len(files))
        if notes.others:
            guessed.setdefault((notes.label_column, notes.others), path)
    if path_column and not taken:
        raise ValueError(f"--path-column: no annotation file has a column '{path_column}', such as {files[0]}")
    if lost:
        logger.warning("%d annotation files belong to no recording by their names: %s", len(lost),
                       few([p.name for p in lost]))  # fmt: skip
    _say_several_kinds(kinds)
    _say_guessed(guessed)
    if not spoken:
        _refuse_unspoken(recordings, files, missing)
    return pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=["path"]), spoken, list(missing)


def _read_one(
    path: Path, recordings: OwnRecordings, label_column: str, tier: str, path_column: str, own: str | None
) -> tuple[Annotations, bool]:
    """What a file says, and whether it names recordings in a column of which nobody but --path-column, or what it
    holds, says that it does. own: the recording that the file is named as."""
    notes = read_annotations(path, label_column, tier)
    nameless = own is None and (notes.events.filename == "").all()
    if notes.kind not in ("table", "raven") or not (path_column or nameless):
        return notes, False
    names = find_path_column(read_own(path, recordings), recordings, path_column)
    return read_annotations(path, label_column, tier, names), bool(names)


def _refuse_unspoken(recordings: OwnRecordings, files: Sequence[Path], missing: Sequence[str]):
    """Raise where the files speak of none of the recordings; missing: names in them that are none."""
    if missing:
        raise ValueError(
            f"the {len(missing)} recordings that {few([str(p) for p in files])} name are not in "
            f"{recordings.source}: {few(missing)} (there are {few(recordings.paths, 2)})"
        )
    raise ValueError(
        f"{len(files)} annotation files, such as {files[0]}, speak of no recording of {recordings.source}: they "
        "are named as the recordings are (a.wav: a.txt), or have a column called filename. A table whose start and "
        "end are no times in the recordings is given as --table"
    )


def _with_labels(
    clips: pd.DataFrame, events: pd.DataFrame, weak: pd.DataFrame, perhaps: pd.Series, spoken: set[str]
) -> pd.DataFrame:
    """Clips with `labels`, `doubted` (classes of which nobody is sure) and `annotated`; those without any are said.

    weak: rows that do not say when; perhaps: doubted classes by clip_id; spoken: paths of annotated recordings.
    """
    heard = events[counts_as_heard(events)].groupby("filename").event_label.agg(lambda names: sorted(set(names)))
    clips["labels"] = [heard.get(clip_id, []) for clip_id in clips.clip_id]
    clips["doubted"] = [perhaps.get(clip_id, []) for clip_id in clips.clip_id]
    clips["annotated"] = clips.path.isin(spoken).astype(int)
    if len(weak):
        clips = _with_weak(clips, weak)
    if silent := list(clips.path[(clips.annotated == 0) & ~clips.labels.map(bool)]):
        logger.warning("%d recordings have no annotation and no label: %s", len(silent), few(silent))
    return clips


def _say_guessed(guessed: dict[tuple[str, tuple[str, ...]], Path]):
    """Warn of labels by a column whose name may say something else, where others hold words too; a file of each kind
    is named."""
    for (column, others), path in list(guessed.items())[:3]:
        logger.warning("%s: labels by '%s', and there are words in %s too: --label-column takes another one", path,
                       column, few([repr(c) for c in others]))  # fmt: skip


def _say_several_kinds(kinds: dict[str, dict[tuple[str, str], str]]):
    """Warn of recordings that files of several kinds speak of, mostly one program's in several forms."""
    if several := {path: files for path, files in kinds.items() if len({kind for kind, _ in files}) > 1}:
        path, files = next(iter(several.items()))
        logger.warning(
            "%d recordings have annotations of several kinds, such as %s: %s. All count, and where they say the same "
            "in other words it is there twice: keep those of one kind, or name their folder with --annotations",
            len(several), path, few(files.values()),
        )  # fmt: skip


def _with_weak(clips: pd.DataFrame, weak: pd.DataFrame) -> pd.DataFrame:
    """Clips with the labels of rows that do not say when: labels of the clip, and of an annotated one whose events do
    not tell when such a class is heard `unknown_labels` too, so that no frame of it counts as without."""
    names = weak.groupby("path").event_label.agg(set)
    more = [sorted(names.get(path, set()) - {*own}) for path, own in zip(clips.path, clips.labels, strict=True)]
    logger.warning("%d rows say what a recording holds and not when: they are labels of whole recordings, such as %s",
                   len(weak), few(sorted(names.index), 3))  # fmt: skip
    labels = [sorted({*own, *new}) for own, new in zip(clips.labels, more, strict=True)]
    unknown = [new if known else [] for new, known in zip(more, clips.annotated, strict=True)]
    return clips.assign(labels=labels, **({"unknown_labels": unknown} if any(unknown) else {}))


def _only_unnamed(events: pd.DataFrame) -> set[str]:
    """The recordings whose events have no label, which is no silence; said, with how many events have none."""
    unnamed = (events.event_label.str.strip() == "").to_numpy(bool)
    alone = set(events.path[unnamed]) - set(events.path[~unnamed])
    if unnamed.any():
        logger.warning("%d events have no label and are left out%s", unnamed.sum(),
                       f"; {len(alone)} recordings have no others, and count as not annotated: {few(sorted(alone))}"
                       if alone else "")  # fmt: skip
    return alone


def _of_milliseconds(events: pd.DataFrame, length: pd.Series) -> pd.DataFrame:
    """Events in seconds, where whole numbers can be no seconds of their recordings and lie in them as milliseconds."""
    if "ahead" in events:  # by a clock
        return events
    times = events[["onset", "offset"]].dropna()
    longest = (times.offset / length[times.index]).groupby(events.path).max()
    late = 2 * (times.onset >= length[times.index]).sum() >= len(times) > 0
    if not late or (times % 1 != 0).any(axis=None) or longest.max() > 1000 * (1 + SAME_LENGTH):
        return events
    if longest.median() < SHARE_HEARD * 1000:  # they end early in all recordings: more likely samples
        return events
    logger.warning("times are whole numbers past the end of their recordings, and are taken for milliseconds, such as "
                   "%g of a recording of %g s", times.onset.max(), length[times.onset.idxmax()])  # fmt: skip
    return events.assign(onset=events.onset / 1000, offset=events.offset / 1000)


def _check_times(events: pd.DataFrame, length: pd.Series, files: Sequence[Path]):
    """Raise where times cannot be seconds of their recordings: most are past the end, or run on over several files, or
    are those of longer recordings that these were cut out of.

    length: (n,) seconds of each event's recording.
    """
    if not len(events):
        return
    late = (events.onset >= length).to_numpy(bool)
    _say_whole(events, length)
    _refuse_cut_clips(events, length, late, files)
    if 2 * late.sum() >= len(late) or late[events.runs_on.to_numpy(bool)].any():
        event = events[late].iloc[0]
        raise ValueError(
            f"{late.sum()} of {len(late)} events begin after the end of their recordings, such as {event.event_label} "
            f"at {event.onset:g} s of {event.path} ({length[late].iloc[0]:g} s): times are seconds from the start of "
            "each recording. Are these milliseconds, samples, or times of day? Raven's run on over all files that "
            "were open, unless the column File Offset (s) is exported. A table whose start and end are no times in the "
            "recordings is given as --table"
        )
    far = (events.offset > np.maximum(FAR * length, length + 60)).to_numpy(bool)
    if 2 * far.sum() >= len(far):
        event = events[far].iloc[0]
        raise ValueError(
            f"{far.sum()} of {len(far)} events end long after their recordings, such as {event.event_label} at "
            f"{event.offset:g} s of {event.path} ({length[far].iloc[0]:g} s), of {few(files, 1)}: times are seconds. "
            "Where they are samples, as in TIMIT, divide them by the rate; a file that holds no events is kept "
            "elsewhere, or the others are given with --annotations"
        )
    runs_on = events[events.runs_on.to_numpy(bool)]
    span = runs_on.groupby("path", sort=False).onset.agg(["min", "max"]).sort_values("min")
    if len(span) > 1 and (span["min"].to_numpy()[1:] >= span["max"].to_numpy()[:-1]).all():
        logger.warning("times of %s come after those of %s: if they run on over the files export Raven's column File "
                       "Offset (s)", span.index[1], span.index[0])  # fmt: skip


def _say_whole(events: pd.DataFrame, length: pd.Series):
    """Warn of classes that are always heard from the start of a recording to its end, as labels of recordings are."""
    whole = (events.onset <= SAME_LENGTH * length) & (events.offset >= (1 - SAME_LENGTH) * length)
    of_class = whole.groupby(events.event_label).agg(["all", "size"])
    always = of_class.index[of_class["all"] & (of_class["size"] >= SEVERAL_TIMES)]
    if len(always):
        logger.warning("all events of %s are as long as their recordings: where nobody said when these are heard, "
                       "leave the cells of their times empty: labels of the recordings", few(always))  # fmt: skip


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

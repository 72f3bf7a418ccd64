"""Events held against their recordings: what cannot be is refused or dropped, what reaches too far is cut; all said."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from earshot.data.labels import negative_events
from earshot.messages import few, plural, suggest

LONGEST_SECONDS = 24 * 3600  # of a recording of unknown duration: rows of longer ones would fill the memory
ROUNDING_SECONDS = 0.05  # an offset so far past the end is cut without a word: tables round, headers too

logger = logging.getLogger("earshot")


def checked_events(
    events: pd.DataFrame, clips: pd.DataFrame, where: str, classes=None
) -> tuple[pd.DataFrame, list[str]]:
    """Drop or mend events that cannot be, and say what was done.

    (events that are possible, what was done, a line each). `clips`: clip_id, and `duration` in seconds if known.

    Dropped: events of no clip, of no length, and those that begin where their recording has ended. Cut: what begins
    before it or ends after it. ValueError: times that are no numbers, events that end before they begin, and labels
    that are not among `classes`.
    """
    labels = events.event_label.astype(str).str.strip()  # as labels of clips, which spaces part
    table = events.assign(filename=events.filename.astype(str), event_label=labels)
    for column in ("onset", "offset"):
        table[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
    _refuse(table, ~np.isfinite(table[["onset", "offset"]]).all(axis=1), where, "have an onset or offset that is no "
            "number of seconds")  # fmt: skip
    _refuse(table, table.offset < table.onset, where, "end before they begin")
    if classes is not None and (unknown := sorted(set(table.event_label) - set(classes))):
        raise ValueError(
            f"{where} has {len(unknown)} labels that are no class: {few(unknown)}{suggest(unknown[0], classes)}"
        )
    said = []

    def drop(rows: pd.Series, what: str):
        nonlocal table
        if rows.any():
            said.append(f"{rows.sum()} events of {where} {what} and are left out: {_named(table[rows])}")
            table = table[~rows]

    drop(~table.filename.isin(clips.clip_id.astype(str)), "are of no recording of the clip table")
    drop(table.offset == table.onset, "have no length")
    length = pd.Series(np.inf, index=table.index)
    if "duration" in clips:
        known = pd.to_numeric(clips.duration, errors="coerce").astype(float).to_numpy()
        length = table.filename.map(dict(zip(clips.clip_id.astype(str), known, strict=True))).fillna(np.inf)
    drop(table.onset >= length, "begin after the end of their recording")
    drop(table.offset <= 0, "end before their recording begins")
    length = length.loc[table.index]
    late, early = table.offset > length + ROUNDING_SECONDS, table.onset < 0
    for rows, what in ((late, "reach past the end of their recording"), (early, "begin before their recording")):
        if rows.any():
            said.append(f"{rows.sum()} events of {where} {what} and are cut there: {_named(table[rows])}")
    _refuse(table, ~np.isfinite(length) & (table.offset > LONGEST_SECONDS), where, "reach past 24 hours, in recordings "
            "whose `duration` the clip table does not say (are their times milliseconds or samples?)")  # fmt: skip
    table = table.assign(onset=table.onset.clip(lower=0), offset=np.minimum(table.offset, length))
    return table.reset_index(drop=True), said


def after_checks(
    clips: pd.DataFrame, events: pd.DataFrame, left: pd.DataFrame, annotated: np.ndarray
) -> tuple[pd.DataFrame, list[str]]:
    """Have clips say what is known once events were left out: (clips, what was done, a line each).

    events: all of them; left: those that `checked_events` gives; annotated: (N,) booleans.
    """
    clips, lost = without_labels_beyond(clips, events, left, annotated)
    clips, points = with_points_unknown(clips, events, annotated)
    said = [f"{lost} annotated clips lose a label that is heard behind their end alone"] * (lost > 0)
    unknown = f"{plural(points, 'clips have')} classes whose events have no length: when they are heard is unknown"
    return clips, said + [f"{unknown} (unknown_labels), but for other events of them"] * (points > 0)


def without_labels_beyond(clips: pd.DataFrame, events: pd.DataFrame, left: pd.DataFrame, annotated: np.ndarray):
    """Take from clips the labels whose every event begins where their recording has ended.

    (clips, how many lost a label). events: all of them; left: those that `checked_events` gives. annotated: (N,)
    booleans, the clips whose labels are those of their events; what is known of others stays.
    """
    length = events.filename.astype(str).map(dict(zip(clips.clip_id.astype(str), clips.duration, strict=True)))
    beyond = pd.to_numeric(events.onset, errors="coerce") >= length.astype(float)
    there, lost = _pairs(left), {}
    for name, label in _pairs(events[beyond]) - there:
        lost.setdefault(name, set()).add(label)
    labels = [
        " ".join(n for n in text.split() if n not in lost[name]) if known and name in lost else text
        for name, text, known in zip(clips.clip_id.astype(str), clips.labels, annotated, strict=True)
    ]
    changed = int((np.array(labels, object) != clips.labels.to_numpy(object)).sum())
    return clips.assign(labels=labels), changed


def with_points_unknown(clips: pd.DataFrame, events: pd.DataFrame, annotated: np.ndarray) -> tuple[pd.DataFrame, int]:
    """Take classes of which an event has no length for `unknown_labels` of their clips: nobody says how long they last.

    (clips, how many got some). Such an event is left out, and the whole clip would count as without its class.
    """
    points = pd.to_numeric(events.onset, errors="coerce") == pd.to_numeric(events.offset, errors="coerce")
    known, found = set(clips.clip_id.astype(str)[annotated]), {}
    for name, label in sorted(_pairs(events[points])):
        if name in known:
            found.setdefault(name, set()).add(label)
    if not found:
        return clips, 0
    before = clips.unknown_labels.fillna("").astype(str) if "unknown_labels" in clips else [""] * len(clips)
    unknown = [
        " ".join(sorted({*text.split(), *found.get(name, ())}))
        for name, text in zip(clips.clip_id.astype(str), before, strict=True)
    ]
    return clips.assign(unknown_labels=unknown), len(found)


def say_overlapping(events: pd.DataFrame, what: str):
    """Warn of events that overlap an earlier one of their class, which are mostly one event that is there twice."""
    ordered = events.sort_values(["filename", "event_label", "onset"], kind="stable")
    before = ordered.groupby(["filename", "event_label"]).offset.transform(lambda o: o.cummax().shift())
    double = ordered[(ordered.onset < before).to_numpy(bool)]
    if len(double):
        some = few([f"{e.filename} ({e.event_label} at {e.onset:g} s)" for e in double.itertuples()], 3)
        logger.warning("%d %s overlap an earlier one of their class: %s", len(double), what, some)


def _pairs(events: pd.DataFrame) -> set[tuple[str, str]]:
    """(recording, label) of the events that are heard."""
    heard = events[~negative_events(events)]
    return set(zip(heard.filename.astype(str), heard.event_label.astype(str).str.strip(), strict=True))


def _refuse(table: pd.DataFrame, rows: pd.Series, where: str, what: str):
    if rows.any():
        raise ValueError(f"{where}: {rows.sum()} of {len(table)} events {what}: {_named(table[rows])}")


def _named(rows: pd.DataFrame) -> str:
    """'a (wren, 1 to 2 s), ...' of the first rows."""
    return few([f"{r.filename} ({r.event_label}, {r.onset:g} to {r.offset:g} s)" for r in rows.itertuples()], 3)

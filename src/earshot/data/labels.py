"""Class lists, label texts and event boxes -> targets and masks. NumPy only.

Conventions: `labels` is a text of class names joined by spaces ("" = none). A target is 1 where the class is there, a
mask is 0 where nobody knows and the loss must look away, else 1; both float32. Times are seconds from the start of
the recording. An event of no duration overlaps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.events import events_to_frames, touched_frames
from earshot.messages import few, plural, suggest
from earshot.prediction.places import all_different, as_names
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table, require_columns

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LARGEST = 1e9  # of a column that a network takes: beyond it one cell would end the training
ANNOTATED = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": -1, "nan": -1}  # -1: nothing is said


def read_clips(path: str | Path) -> pd.DataFrame:
    """clips.csv -> DataFrame with `clip_id, path, ...`; a clip listed twice or without a name is an error."""
    clips = read_table(path, ("clip_id", "path"))
    names = as_names(clips.clip_id)
    empty = np.char.strip(names.astype("U1")) == ""  # the first letter of all, all of the few that begin with a space
    empty[empty] = np.char.strip(names[empty]) == ""
    if empty.any():
        rows = few(np.flatnonzero(empty) + 2)
        raise ValueError(f"{path}: {empty.sum()} of {len(clips)} clips have an empty clip_id (lines {rows}): name them")
    if not all_different(names):
        twice = clips.clip_id[clips.clip_id.duplicated()].unique()
        raise ValueError(f"{path} lists {plural(len(twice), 'clips')} twice: {few(twice)}")
    return clips


def clip_metadata(
    clips: pd.DataFrame, columns, path: str | Path = "the clip table", missing: Sequence[str] = ()
) -> np.ndarray:
    """Read the numeric columns that a network takes besides the sound.

    (N, M) float32 values of numeric `columns` (data.metadata); a column that is not there is an error.

    missing: what stands for an empty cell, a text a column ('nan' too). Without one, and for a text that is no number,
    it is an error.
    """
    require_columns(clips, columns, path)
    values = np.empty((len(clips), len(columns)), np.float32)
    for i, column in enumerate(columns):
        numbers = pd.to_numeric(clips[column], errors="coerce").to_numpy(float)
        given = missing[i] if missing else ""
        empty = (clips[column].isna() | (clips[column].astype(str).str.strip() == "")).to_numpy(bool)
        if (bad := ~(np.abs(numbers) <= LARGEST) & ~(empty & bool(given))).any():  # neither NaN nor infinite is
            raise ValueError(
                f"{path}: column '{column}' is given to the network (data.metadata), but is no number for {bad.sum()} "
                f"of {len(clips)} clips: {few(clips.clip_id[bad])}"
                + (f" (numbers count up to {LARGEST:g})" if np.isfinite(numbers[bad]).any() else "")
                + ("" if given or not empty.any() else f"; data.metadata_missing={{{column}: 0}} says what an empty "
                   "cell counts as")
            )  # fmt: skip
        values[:, i] = np.where(empty, float(given), numbers) if given else numbers
    return values


def sample_weights(clips: pd.DataFrame, column: str, path: str | Path = "the clip table") -> np.ndarray:
    """Read how much each clip counts in the loss (data.sample_weight).

    (N,) float32, at least 0; an empty cell counts as the mean of the others. A column that is not there, a text that
    is no number, a number below 0, and none above 0 are errors.
    """
    require_columns(clips, (column,), path)
    numbers = pd.to_numeric(clips[column], errors="coerce").to_numpy(float)
    empty = (clips[column].isna() | (clips[column].astype(str).str.strip() == "")).to_numpy(bool)
    if (bad := ~((numbers >= 0) & (numbers <= LARGEST)) & ~empty).any():
        raise ValueError(
            f"{path}: column '{column}' says how much clips count (data.sample_weight), but is no number from 0 to "
            f"{LARGEST:g} for {bad.sum()} of {len(clips)} clips: {few(clips.clip_id[bad])}"
        )
    if not (numbers[~empty] > 0).any():
        raise ValueError(f"{path}: no clip has a number above 0 in column '{column}' (data.sample_weight)")
    return np.where(empty, numbers[~empty].mean(), numbers).astype(np.float32)


def read_classes(path: str | Path) -> list[str]:
    """classes.csv (column `label`, one class a row) -> class names in model order."""
    classes = read_table(path, ("label",)).label.tolist()
    check_classes(classes, path)
    return classes


def split_classes(
    path: str | Path, levels: Sequence[str] = (), part: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """classes.csv -> (names of the classes that are chosen, in model order, the others); nothing said: all of them.

    levels: of data.levels, values of the column `level`; part: of data.part, {column: values joined by spaces}, each of
    which a class must have. Errors: the list has no such column, no class has one of the values, or all of them.
    """
    classes, chosen = read_classes(path), np.ones(len(read_classes(path)), bool)
    asked = {"level": list(levels)} if levels else {}
    asked |= {column: text.split() for column, text in (part or {}).items()}
    table = read_table(path, ("label",))
    for column, values in asked.items():
        key = "data.levels" if column == "level" and levels else "data.part"
        if column not in table:
            raise ValueError(
                f"{key} chooses classes by the column '{column}' of {path}, which it does not have"
                f"{suggest(column, table.columns, 'it has')}"
            )
        own = table[column].astype(str)
        known = sorted(set(own))
        if not values:
            raise ValueError(f"{key}.{column} names no value{suggest('', known[:8], 'such as')}")
        for value in values:
            if value not in known:
                raise ValueError(f"{key}: no class has the {column} '{value}'{suggest(value, known)}")
        chosen &= own.isin(values).to_numpy(bool)
    if not chosen.any():
        raise ValueError(f"no class of {path} has all that data.levels and data.part ask for: {part}")
    return [c for c, y in zip(classes, chosen, strict=True) if y], [
        c for c, y in zip(classes, chosen, strict=True) if not y
    ]


def check_classes(classes, path: str | Path = "the class list"):
    """Raise unless `classes` are names that a label text can hold: some, none empty, none twice, none with a space."""
    if not len(classes):
        raise ValueError(f"{path} names no class")
    for row, name in enumerate(classes):
        if not isinstance(name, str) or not name or name != "".join(name.split()) or CONTROL.search(name):
            raise ValueError(
                f"{path} row {row + 1}: {str(name)[:60]!r} cannot be a class name; it must be there, without spaces "
                "or characters that nobody sees"
            )
    if len(set(classes)) < len(classes):
        twice = sorted({c for c in classes if list(classes).count(c) > 1})
        raise ValueError(f"{path} names a class twice: {few(twice)}")


def encode(labels: str, classes, clip_id: str = "") -> np.ndarray:
    """Class names joined by spaces -> (K,) float32 with 1 where named; an unknown name is an error with its clip."""
    target = np.zeros(len(classes), np.float32)
    target[_indices(_split(labels), classes, [clip_id] * len(_split(labels)))] = 1
    return target


def clip_targets(
    clips: pd.DataFrame, classes, secondary_weight: float = 1.0, dtype=np.float32, left_out: Sequence[str] = (),
    mask_unknown: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Clip table -> target (N, K), mask (N, K). A label gives 1, a secondary one `secondary_weight` (-1: masked).

    A class that a clip names both ways counts as a primary label. `unknown_labels` names classes that nobody can tell
    of this clip: masked (with mask_unknown false: absent), unless they are labels too. left_out: names of the class
    list that are no classes here; any other unknown name is an error.
    """
    if secondary_weight != -1 and not 0 <= secondary_weight <= 1:
        raise ValueError(f"secondary_weight must be in 0 ... 1, or -1 to mask, got {secondary_weight}")
    target = np.zeros((len(clips), len(classes)), dtype)
    mask = np.ones_like(target)
    if mask_unknown and "unknown_labels" in clips:
        mask[_positions(clips, "unknown_labels", classes, left_out)] = 0
    if "secondary_labels" in clips:
        at = _positions(clips, "secondary_labels", classes, left_out)
        if secondary_weight == -1:
            mask[at] = 0
        else:
            target[at] = secondary_weight
            mask[at] = 1
    at = _positions(clips, "labels", classes, left_out)
    target[at] = 1
    mask[at] = 1
    return target, mask


def crop_targets(
    events: pd.DataFrame, classes, start: float, end: float, min_overlap: float = 0.0, only_annotated: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Events of ONE clip and a crop (seconds) -> target (K,), mask (K,).

    Every label whose event shares more than `min_overlap` seconds with the crop is 1, or the largest `share` of its
    events where the table has that column (`heard_shares`). An `is_negative` box (an expert
    said: not there) is a statement about its class when the crop holds the box's centre; a positive one wins over it.
    With `only_annotated` every class without a statement about this crop is masked, else it counts as absent.
    """
    onset, offset = events.onset.to_numpy(float), events.offset.to_numpy(float)
    index = _event_indices(events, classes)
    negative = negative_events(events)
    overlap = np.minimum(offset, end) - np.maximum(onset, start)
    centre = (onset + offset) / 2
    target = np.zeros(len(classes), np.float32)
    there = overlap > min_overlap
    np.maximum.at(target, index[there], heard_shares(events)[there])
    if not only_annotated:
        return target, np.ones_like(target)
    mask = (target > 0).astype(np.float32)
    mask[index[negative & (centre >= start) & (centre < end)]] = 1
    return target, mask


def frame_targets(
    events: pd.DataFrame, classes, start: float, timebase: TimeBase, n_frames: int, margin: float = 0.0
) -> np.ndarray:
    """Events of ONE clip -> (T, K) float32: the T = `n_frames` frames from second `start` on the grid of `timebase`.

    1 on every frame that an event touches, as in scoring (`events.events_to_frames`); `is_negative` boxes mark nothing.
    A frame closes any pause shorter than itself, and two events become one. `margin` (seconds) is cut from either end
    of every event first, so that a pause of at least twice the margin stays; a tenth of an event is always left.

    Where the table has a column `share` a frame is the largest share of the events that touch it, whole ones.
    """
    if "share" in events:
        shifted = events.assign(onset=events.onset - start, offset=events.offset - start)
        target = np.zeros((n_frames, len(classes)), np.float32)
        spans = zip(*touched_frames(shifted, classes, timebase, n_frames), heard_shares(events), strict=True)
        for label, first, stop, share in spans:
            np.maximum(target[first:stop, label], share, out=target[first:stop, label])
        return target
    events = events[~negative_events(events)]
    cut = np.minimum(margin, 0.45 * (events.offset - events.onset))
    shifted = events.assign(onset=events.onset + cut - start, offset=events.offset - cut - start)
    return events_to_frames(shifted, classes, timebase, n_frames).astype(np.float32)


def label_lists(clips: pd.DataFrame, column: str = "labels") -> list[list[str]]:
    """Clip table -> the class names of each clip, each once, in the order written; clips of one text share a list."""
    code, lists = distinct_labels(clips, column)
    return [lists[c] for c in code.tolist()]


def distinct_labels(clips: pd.DataFrame, column: str = "labels") -> tuple[np.ndarray, list[list[str]]]:
    """Part each label text that differs once.

    (N,) which of them each clip has, and the class names of those, as above.

    A million clips have few texts: only those are parted.
    """
    code, texts = pd.factorize(clips[column])
    lists = [list(dict.fromkeys(_split(text))) for text in texts]
    return np.where(code < 0, len(lists), code), [*lists, []]  # -1: what pandas reads from an empty cell


def label_pairs(clips: pd.DataFrame, column: str = "labels") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clip table -> (P,) rows and (P,) places in the names that occur, clip by clip, and those names."""
    code, lists = distinct_labels(clips, column)
    names = list(dict.fromkeys(n for some in lists for n in some))
    place = {n: i for i, n in enumerate(names)}
    counts = np.array([len(some) for some in lists])
    each, first = counts[code], (np.cumsum(counts) - counts)[code]
    row = np.repeat(np.arange(len(code)), each)
    within = np.arange(len(row)) - np.repeat(np.cumsum(each) - each, each)
    flat = np.array([place[n] for some in lists for n in some], np.int64)
    return row, flat[np.repeat(first, each) + within], names


def _split(labels) -> list[str]:
    """Label text -> names; what pandas reads from an empty cell (NaN, None) holds none."""
    return labels.split() if isinstance(labels, str) else []


def _positions(
    clips: pd.DataFrame, column: str, classes, left_out: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Clip table -> (row, class) index arrays of every label in `column`, those of `left_out` apart."""
    row, name, names = label_pairs(clips, column)
    place = {c: i for i, c in enumerate(classes)} | dict.fromkeys(left_out, -1)
    if unknown := set(names) - set(place):
        of = np.isin(name, [i for i, n in enumerate(names) if n in unknown]).argmax()
        raise _unknown_label(names[name[of]], clips.clip_id.iloc[row[of]], classes)
    index = np.array([place[n] for n in names], np.int64)[name]
    return row[index >= 0], index[index >= 0]


def _indices(names: list[str], classes, owners) -> np.ndarray:
    """Class names -> (n,) positions in `classes`; `owners` say in an error whose label it was."""
    place = {c: i for i, c in enumerate(classes)}
    for name, owner in zip(names, owners, strict=True):
        if name not in place:
            raise _unknown_label(name, owner, classes)
    return np.array([place[n] for n in names], dtype=np.int64)


def _unknown_label(name: str, owner: str, classes) -> ValueError:
    return ValueError(f"clip '{owner}' has the label '{name}', which is not in the class list{suggest(name, classes)}")


def annotated_clips(
    clips: pd.DataFrame, events: pd.DataFrame | None, path: str | Path = "the clip table"
) -> np.ndarray:
    """Say of which clips the rows in `events` are all that is heard, so that a class without a row is absent: (N,)
    bool.

    The column `annotated` says so: 1 yes (without a row: silent), 0 no (its rows, if any, are only a part). Where it
    says nothing, a clip with a row is annotated and one without is unknown.
    """
    has_rows = np.zeros(len(clips), bool)
    if events is not None:
        has_rows = clips.clip_id.isin(events.filename[~negative_events(events)]).to_numpy(bool)
    if "annotated" not in clips:
        return has_rows
    text = clips.annotated.astype(object).where(clips.annotated.notna(), "").astype(str).str.strip().str.lower()
    said = text.map(ANNOTATED).to_numpy(float)
    if (wrong := np.isnan(said)).any():
        raise ValueError(
            f"{path}: `annotated` is 1, 0 or empty, but '{text[wrong].iloc[0]}' for {wrong.sum()} of {len(clips)} "
            f"clips: {few(clips.clip_id[wrong])}"
        )
    return np.where(said < 0, has_rows, said > 0)


def _event_indices(events: pd.DataFrame, classes) -> np.ndarray:
    owners = events.filename if "filename" in events else [""] * len(events)
    return _indices(events.event_label.tolist(), classes, owners)


def negative_events(events: pd.DataFrame) -> np.ndarray:
    """Say in which boxes an expert did NOT hear the class: (n,) bool."""
    if "is_negative" not in events:
        return np.zeros(len(events), bool)
    said = events.is_negative.fillna(0)
    numbers = pd.to_numeric(said, errors="coerce").astype(float)
    if (wrong := numbers.isna()).any():
        raise ValueError(
            f"is_negative of events is 0, 1 or empty, but '{said[wrong].iloc[0]}' in {plural(wrong.sum(), 'rows')}"
        )
    return numbers.to_numpy() > 0


def heard_shares(events: pd.DataFrame) -> np.ndarray:
    """How much each event counts as heard in training, (n,) float32: its `share` from 0 to 1, such as that of the
    people who heard it; 1 where none is said, 0 of negative boxes."""
    heard = (~negative_events(events)).astype(np.float32)
    if "share" not in events:
        return heard
    numbers = pd.to_numeric(events.share, errors="coerce").to_numpy(np.float32)
    said = events.share.notna().to_numpy() & (events.share.astype(str).str.strip() != "").to_numpy()
    if (wrong := said & ~((numbers >= 0) & (numbers <= 1))).any():
        raise ValueError(
            f"share of events is 0 to 1 or empty, but '{events.share[wrong].iloc[0]}' in {plural(wrong.sum(), 'rows')}"
        )
    return np.where(said, numbers, heard)

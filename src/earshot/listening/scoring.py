"""Scores of anybody's tables: events, tags or anomalies against a truth, matched by the recordings' names."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from earshot.annotations.certainty import is_doubted
from earshot.annotations.class_columns import heard, says_yes_or_no
from earshot.annotations.date_times import since_start
from earshot.annotations.reading import kind_of, read_annotations
from earshot.competitions.label_columns import SEPARATORS, split_cells
from earshot.competitions.label_texts import respelled
from earshot.competitions.oof_scores import psds_of_frames
from earshot.competitions.own.recordings import ADDED
from earshot.competitions.tables import class_name
from earshot.data.event_checks import say_overlapping
from earshot.data.labels import ANNOTATED
from earshot.events import PostProcess
from earshot.messages import few, plural
from earshot.metrics import anomalies as anomaly_metrics
from earshot.metrics import events as event_metrics
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.audio import EXTENSIONS
from earshot.tables import read_table, require_columns
from earshot.tasks import class_table, score_clips

logger = logging.getLogger("earshot")


def read_events_of(path: Path, label_column: str = "", tier: str = "") -> tuple[pd.DataFrame, set[str]]:
    """A table of events, or a folder of annotation files named as the recordings -> (filename, onset, offset, ...; the
    recordings that are said to hold none, in a row without times and label or by a file of their own without a row).

    Names keep their folders and lose their ending (`one_naming` says what is compared); labels are spelled as class
    names, so that 'Song thrush' meets Song_thrush.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p)) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no annotation file")
    tables, silent = [], set()
    for file in files:
        annotations = read_annotations(file, label_column, tier)
        if annotations.scores:
            raise ValueError(
                f"{file}: {plural(len(annotations.scores), 'columns hold')} numbers from 0 to 1 "
                f"({few(annotations.scores)}), and nobody said from where on each is an event: give a table of events"
            )
        table = annotations.events
        own = ADDED.sub("", (file.relative_to(path) if path.is_dir() else file).with_suffix("").as_posix())
        if not path.is_dir() and len(table) and (table.filename == "").any():
            raise ValueError(
                f"{file} does not say which recording its events are of: it has no column such as filename"
            )
        if PurePosixPath(own).suffix.lower() in EXTENSIONS:  # x.wav.txt
            own = PurePosixPath(own).with_suffix("").as_posix()
        silent |= {_whole(name) for name in annotations.silent}
        if path.is_dir() and not len(table) and not annotations.silent:
            silent.add(own)
        table = table.assign(filename=table.filename.map(_whole).where(table.filename != "", own))
        tables.append(since_start(table, "filename", file).drop(columns="ahead", errors="ignore"))
    events = pd.concat(tables, ignore_index=True)
    if (timeless := events.onset.isna()).any():
        logger.warning("%d rows of %s do not say when a class is heard, and are left out", timeless.sum(), path)
        events = events[~timeless].reset_index(drop=True)
    if (unsure := events.event_label.map(is_doubted).to_numpy(bool)).any():
        logger.warning("%d rows of %s have a label that nobody is sure of (%s), and are left out", unsure.sum(), path,
                       few(sorted(set(events.event_label[unsure]))))  # fmt: skip
        events = events[~unsure].reset_index(drop=True)
    return events.assign(event_label=events.event_label.map(class_name)), silent.difference(events.filename)


def one_naming(*names: Iterable[str]) -> Callable[[str], str]:
    """How recordings are called so that all these tables name them alike: without folders, so that `x` meets `audio/x`.

    With their folders where a table has recordings of one name in several, as recorders at several sites write them.
    """
    for whole in (set(some) for some in names):
        if len({PurePosixPath(name).name for name in whole}) < len(whole):
            logger.warning("recordings of one name are in several folders, so that they are matched by folder and name")
            return str
    return lambda name: PurePosixPath(name).name


def _whole(name: str) -> str:
    path = PurePosixPath(str(name).replace("\\", "/"))
    return path.with_name(_plain(path.name)).as_posix() if path.name else ""


def _plain(name: str) -> str:
    path = Path(str(name).replace("\\", "/"))
    ending = path.suffix.lower()
    return path.stem if ending in EXTENSIONS or ending.lstrip(".").isalpha() else path.name


def durations_of(path: Path) -> dict[str, float]:
    """A table with filename (or clip_id) and duration (or seconds) -> {name with its folders: seconds}.

    Recordings that are not `annotated`, as a clip table has it, are no silence: they are left out, which is said.
    """
    table = read_table(path)
    if "annotated" in table:
        unknown = table.annotated.astype(str).str.strip().str.lower().map(ANNOTATED).eq(0).to_numpy()
        if unknown.any():
            logger.warning("%s: %d recordings are not annotated and are left out", path, unknown.sum())
        table = table[~unknown]
    name = next((c for c in ("filename", "clip_id", "path") if c in table), None)
    seconds = next((c for c in ("duration", "seconds", "duration_s") if c in table), None)
    if name is None or seconds is None:
        raise ValueError(f"{path} needs a column filename or clip_id, and one duration or seconds (it has "
                         f"{', '.join(map(str, table.columns))})")  # fmt: skip
    values = pd.to_numeric(table[seconds], errors="coerce")
    known = np.isfinite(values.to_numpy(float))
    if not known.all():
        logger.warning("%s: %d recordings have no duration and are left out", path, (~known).sum())
    return {_whole(n): float(s) for n, s in zip(table[name][known], values[known], strict=True)}


def score_events(
    found: pd.DataFrame, truth: pd.DataFrame, durations: Mapping[str, float] | None = None, collar: float = 0.2,
    offset_share: float = 0.2, segment_seconds: float = 1.0, silent: Iterable[str] = (),
) -> tuple[dict[str, float], list[dict]]:  # fmt: skip
    """Event-based and segment-based F1 of both tables -> (scores, a row a class).

    The recordings of `durations` count, without it those of the truth, `silent` ones (which the truth says hold none)
    included; others are counted, named and left out of both tables. Labels that only one side has count: as missed, or
    as false.
    """
    names, what = (
        ({*truth.filename, *silent}, "in the truth")
        if durations is None
        else (set(durations), "among those to score (--durations)")
    )
    found = _of_recordings(found, names, "found", what)
    truth = _of_recordings(truth, names, "true", what)
    say_overlapping(truth, "true events, of which a found one answers one alone,")
    classes = sorted({*truth.event_label, *found.event_label})
    for side, own in (("truth", truth), ("found", found)):
        if only := sorted(set(own.event_label) - set((found if side == "truth" else truth).event_label)):
            logger.warning("labels of the %s alone: %s", side, few(only))
    if len(found) and len(truth) and set(found.filename).isdisjoint(truth.filename):
        said = "no recording has both found and true events"
        logger.warning(_strangers(said, found.filename, truth.filename))
    elif len(found) and len(truth) and not _overlap(found, truth):
        logger.warning("no event that was found overlaps a true one of its recording: are both in seconds from the "
                       "start of the recording?")  # fmt: skip
    if durations:
        late = pd.concat([truth, found]).groupby("filename").offset.max()
        durations = {name: max(seconds, float(late.get(name, 0))) for name, seconds in durations.items()}
    common = {"classes": classes, "empty_system_output_handling": "zero_score"}
    by_event = event_metrics.event_based_f1(
        truth, found, onset_collar=collar, percentage_of_length=offset_share, **common
    )
    onsets = event_metrics.event_based_f1(truth, found, onset_collar=collar, check_offset=False, **common)
    by_segment = event_metrics.segment_based_f1(truth, found, durations, segment_seconds, **common)
    scores = {}
    for name, result in (("event", by_event), ("onset", onsets), ("segment", by_segment)):
        overall, average = result["overall"]["f_measure"], result["class_wise_average"]["f_measure"]
        scores |= {f"{name}_f1": overall["f_measure"], f"{name}_f1_macro": average["f_measure"],
                   f"{name}_precision": overall["precision"], f"{name}_recall": overall["recall"]}  # fmt: skip
    scores["segment_error_rate"] = by_segment["overall"]["error_rate"]["error_rate"]
    counts = truth.event_label.value_counts(), found.event_label.value_counts()
    rows = []
    for label in classes:
        of_events, of_segments = (result["class_wise"][label]["f_measure"] for result in (by_event, by_segment))
        rows.append({
            "label": label, "true_events": int(counts[0].get(label, 0)), "found_events": int(counts[1].get(label, 0)),
            "event_precision": of_events["precision"], "event_recall": of_events["recall"],
            "event_f1": of_events["f_measure"], "segment_f1": of_segments["f_measure"],
        })  # fmt: skip
    return {name: float(value) for name, value in scores.items()}, rows


def _of_recordings(events: pd.DataFrame, names: set[str], which: str, what: str) -> pd.DataFrame:
    """Rows of the recordings that count; how many others there are is said, and it is an error where all are others."""
    known = events.filename.isin(names)
    if len(events) and not known.any():
        raise ValueError(_strangers(f"none of the recordings with {which} events is {what}", events.filename, names))
    if other := sorted(set(events.filename[~known])):
        lost = f"{len(other)} recordings with {which} events ({(~known).sum()} of {len(events)} events)"
        logger.warning("%s are not %s, and left out: %s", lost, what, few(other))
    return events[known].reset_index(drop=True)


def _strangers(said: str, here: Iterable[str], there: Iterable[str], names: str = "names") -> str:
    """What is said of names that never meet, with some of each side: whoever reads it sees how they differ."""
    sides = (few(sorted({str(name) for name in side}), 3) for side in (here, there))
    return f"{said}: are the {names} the same ({' here, '.join(sides)} there)?"


def _overlap(found: pd.DataFrame, truth: pd.DataFrame) -> bool:
    """Whether any found event shares a moment with a true one of its recording, whatever their labels."""
    by_name = {name: rows[["onset", "offset"]].to_numpy(float) for name, rows in truth.groupby("filename")}
    for name, rows in found.groupby("filename"):
        onset, offset = by_name.get(name, np.zeros((0, 2))).T
        starts, ends = (rows[c].to_numpy(float)[:, None] for c in ("onset", "offset"))
        if ((starts < offset) & (ends > onset)).any():
            return True
    return False


def score_frames(
    found: Predictions, truth: pd.DataFrame, durations: Mapping[str, float], post: PostProcess, called: Callable
) -> tuple[dict[str, float], pd.DataFrame, dict[str, float]]:
    """Predictions with frames -> (PSDS 1 and 2, their events after `post`, lengths of the predicted recordings).

    Recordings of `durations` that were not predicted are named. called: as `one_naming` has it.
    """
    names = [called(_whole(c)) for c in found.clip_ids]
    test = pd.DataFrame({"clip_id": found.clip_ids, "filename": names, "duration": [durations.get(n) for n in names]})
    test = test[test.duration.notna()]
    if not len(test):
        raise ValueError(_strangers("none of the predicted recordings is in --durations", names, durations))
    if lost := sorted(set(durations).difference(names)):
        logger.warning("%d recordings of --durations were not predicted, and are left out: %s", len(lost), few(lost))
    known = truth[truth.event_label.isin(found.classes) & truth.filename.isin(test.filename)]
    events = detect_all(found.aligned(test.clip_id), post)
    heard = dict(zip(test.filename, test.duration.astype(float), strict=True))
    return (
        psds_of_frames(found, test, known),
        events.assign(filename=[called(_whole(n)) for n in events.filename]),
        heard,
    )


def score_tags(found: Predictions, truth: pd.DataFrame) -> tuple[dict[str, float], list[dict]]:
    """Clip outputs against a table of labels -> (every clip score that these clips define, a row a class).

    truth: `clip_id, labels`, or `clip_id` and a column of 0 and 1 a class.
    """
    labels = dict(zip(truth.clip_id.astype(str), _labels_of(truth, found.classes), strict=True))
    ids = [str(c) for c in found.clip_ids]
    if set(ids).isdisjoint(labels):  # a.wav of one is a of the other
        ids = [_plain(c) for c in ids] if len(set(map(_plain, ids))) == len(ids) else ids
        labels = labels if set(ids).isdisjoint(map(_plain, labels)) else {_plain(c): v for c, v in labels.items()}
    known = np.array([c in labels for c in ids], bool)
    if not known.any():
        raise ValueError(
            _strangers(f"none of the {len(found)} predicted clips is in the truth", found.clip_ids, labels)
        )
    found = dataclasses.replace(found, clip_ids=np.array(ids, str))
    if not known.all():
        lost = [str(c) for c in found.clip_ids[~known]]
        logger.warning("%d predicted clips are not in the truth, and left out: %s", len(lost), few(lost))
        found = found.take(known)
    if missing := sorted(set(labels) - set(map(str, found.clip_ids))):
        logger.warning("%d clips of the truth were not predicted, and left out: %s", len(missing), few(missing))
    found = found.take(~found.unreadable)
    target = np.array([[c in labels[str(i)] for c in found.classes] for i in found.clip_ids], bool)
    unknown = {n for i in found.clip_ids for n in labels[str(i)]} - set(found.classes)
    if unknown:
        logger.warning("labels of the truth that were not predicted, and left out: %s", few(sorted(unknown)))
    named = {name for names in labels.values() for name in names}
    if other := [c for c in found.classes if c not in named]:
        logger.warning("predicted classes that no clip of the truth has, and which count as wrong: %s", few(other))
    if not target.any():
        raise ValueError(
            _strangers("no clip of the truth has a label that was predicted", found.classes, named, "class names")
        )
    rows = class_table(found, target, np.zeros(len(found.classes), int))
    return score_clips(found, Truth(target)), [{k: v for k, v in row.items() if k != "train_clips"} for row in rows]


def _labels_of(truth: pd.DataFrame, classes: Sequence[str]) -> list[list[str]]:
    """The labels of each row as the classes are called: by spaces, as people separate and spell them, or by columns.

    Secondary labels of a clip table count as others do, as in the CV of a run.
    """
    own = [c for c in classes if c in truth]
    if "labels" not in truth and own and all(says_yes_or_no(truth[c].astype(str)) for c in own):
        said = np.stack([heard(truth[c].astype(str)) for c in own], axis=1)
        return [[c for c, yes in zip(own, row, strict=True) if yes] for row in said]
    require_columns(truth, ("clip_id", "labels"), "the truth")
    texts, known = truth.labels.fillna("").astype(str), set(classes)
    names = [text.split() for text in texts]
    if all(name in known for several in names for name in several):
        second = truth.get("secondary_labels", pd.Series("", truth.index)).fillna("").astype(str)
        return [[*several, *text.split()] for several, text in zip(names, second, strict=True)]
    near = {name.casefold() for name in known}
    parts = {sign: {class_name(p).casefold() for t in texts if sign in t for p in t.split(sign)} for sign in SEPARATORS}
    sign = next((sign for sign, found in parts.items() if found & near), "")
    if sign or texts.str.startswith("[").any():
        names = [[class_name(name) for name in several] for several in split_cells(texts, sign, Path("the truth"))]
    else:  # Song thrush
        whole = [class_name(text) for text in texts]
        names = [[one] if one in known else several for one, several in zip(whole, names, strict=True)]
    distinct = sorted({name for several in names for name in several})
    spelled = dict(zip(distinct, respelled(distinct, classes, "the truth"), strict=True))
    return [[spelled[name] for name in several] for several in names]


def score_anomalies(scores: pd.DataFrame, truth: pd.DataFrame) -> tuple[dict[str, float], list[dict]]:
    """`clip_id, score` against `clip_id, is_anomaly` (and machine, section, domain) -> (means, a row a section)."""
    require_columns(scores, ("clip_id", "score"), "the found scores")
    require_columns(truth, ("clip_id", "is_anomaly"), "the truth")
    for table, what in ((scores, "the found scores"), (truth, "the truth")):
        if (twice := table.clip_id.astype(str)[table.clip_id.astype(str).duplicated()]).any():
            raise ValueError(f"{what} have clips in several rows: {few(twice.unique())}")
    both = truth.astype({"clip_id": str}).merge(
        scores[["clip_id", "score"]].astype({"clip_id": str}), on="clip_id", validate="one_to_one"
    )
    if not len(both):
        raise ValueError(_strangers("none of the scored clips is in the truth", scores.clip_id, truth.clip_id))
    if (lost := len(truth) - len(both)) or len(scores) > len(both):
        logger.warning("%d clips of the truth have no score, %d scores are of no clip of it", lost,
                       len(scores) - len(both))  # fmt: skip
    both = both.assign(**{c: "all" for c in anomaly_metrics.GROUP if c not in both})
    table = anomaly_metrics.auc_table(both.score.to_numpy(float), both)
    return anomaly_metrics.summary(table), table.to_dict("records")

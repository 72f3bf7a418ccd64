"""Recordings of one's own: labelled by folders, by a table, or by annotation files that say when each sound is heard.

    DIR/wren/a.wav                            folders: the first folder below DIR is the class
    DIR/labels.csv + DIR/**/*.wav             a table: one column names the recording, one its label or labels
    DIR/**/a.wav + a.Table.1.selections.txt   annotations (annotations/reading.py), beside the recordings or in one file

    --names '{speaker}_{label}_{take}'        names: a template says which part of them is what (own/names.py)

Which of the first three it is, and which columns mean what, is guessed and said; flags overrule it. A class named by
spaces gets underscores. Recordings that nothing speaks of stay in the table without a label. `mine` is scored by mean
average precision of the clips; `mine_events`, where there are annotations, by event-based F1 (onsets and offsets within
0.2 s, offsets also within 20 % of the event).
"""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import dcase_task4, finch
from earshot.competitions.clip_rows import class_scores
from earshot.competitions.competition import Competition, by_name
from earshot.competitions.label_columns import HELD_OUT_SPLITS, SPLITS, TEST_SPLITS, split_words
from earshot.competitions.label_texts import is_reserved, one_spelling
from earshot.competitions.oof_scores import EVENTS, MAP, of_events, psds_of_frames
from earshot.competitions.own.doubts import with_unknown
from earshot.competitions.own.folders import SUBFOLDER
from earshot.competitions.own.found import find_labels, hint_columns, with_listed
from earshot.competitions.own.labels import Labels
from earshot.competitions.own.names import LABEL, fields_of_names, from_names
from earshot.competitions.own.options import FLAGS
from earshot.competitions.own.recordings import OwnRecordings, list_own
from earshot.competitions.own.shares import heard_alone, of_classes
from earshot.competitions.tables import Tables, check_submission, class_name
from earshot.data.event_checks import say_overlapping
from earshot.messages import command_line, few
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.tables import require_columns

SILENCE = "nocall"  # a label of recordings in which no class is heard
FEW_CLIPS = 5  # of a class; fewer cannot be in each of the usual five folds

logger = logging.getLogger("earshot")


def prepare(
    source: Path, *, table: Path | None = None, annotations: Path | None = None, test: Path | None = None,
    path_column: str = "", label_column: str = "", label_separator: str = "", group_column: str = "",
    split_column: str = "", fold_column: str = "", tier: str = "", several_labels: str = "",
    min_confidence: float | None = None, confidences: str = "", unsure: str = "", names: str = "",
) -> Tables:  # fmt: skip
    """A folder of recordings -> tables; FLAGS explains the keywords. No label at all is an error with a way out."""
    source = Path(source)
    recordings = list_own(source, without=test)
    fields = fields_of_names(recordings, names)
    told = {
        "table": table, "annotations": annotations, "path_column": path_column, "label_column": label_column,
        "label_separator": label_separator, "several_labels": several_labels, "min_confidence": min_confidence,
        "confidences": confidences, "unsure": unsure, "tier": tier,
    }  # fmt: skip
    columns = {"group_column": group_column, "split_column": split_column, "fold_column": fold_column}
    if (label := label_column or LABEL) in fields:
        labels = with_listed(from_names(recordings, fields, told), recordings, not split_column and not fold_column)
        fields = fields.drop(columns=label)
    else:
        labels = find_labels(recordings, **told, **columns)
    return _tables(labels.with_fields(fields), recordings, test, **columns)


def _tables(
    labels: Labels, recordings: OwnRecordings, test: Path | None, group_column: str, split_column: str, fold_column: str
) -> Tables:
    """Labels by recording -> the tables, train and test apart, and everything that is odd in a warning."""
    clips, events = _named(labels.clips, labels.events)
    if not (clips.labels != "").any():
        source = recordings.source
        raise ValueError(
            f"nothing says what the {len(clips)} recordings of {source} hold: no folder a class, no table "
            "with their names and labels, no annotation files. To train, give --table or --annotations, or "
            "--names where names of files say it, such as {speaker}_{label}_{take}; to hear them "
            f"with a trained run, give the folder to it: {command_line('predict', '--run', 'RUN', '--clips', source)}"
        )
    if group_column:
        clips["group"] = _groups(clips, group_column)
    hint_columns(clips, split_column, fold_column)
    split = _splits(clips, split_column)
    held = split == "test"
    trains, tested = clips[~held].reset_index(drop=True), clips[held].reset_index(drop=True)
    if (held_out := (split[~held] == "val").to_numpy()).any():
        trains["official_fold"] = np.where(held_out, 0, -1)
    if fold_column:
        trains["official_fold"] = _fold_numbers(trains, fold_column)
    classes = sorted({name for text in trains.labels for name in text.split()})
    if "secondary_labels" in trains:
        trains["secondary_labels"] = _of_classes(trains.secondary_labels, classes)
    trains, tested = with_unknown(trains, classes), tested.drop(columns="doubted")
    _warn(trains, tested, events, classes)
    table, truth, test_events = None, None, None
    if len(tested):
        table = tested[["clip_id"]]
        truth = tested[["clip_id", "labels"]] if (tested.labels != "").any() and events is None else None
        if events is not None:
            truth = heard_alone(events[events.filename.isin(tested.clip_id)]).reset_index(drop=True)
            test_events = truth[truth.event_label.isin(classes)].reset_index(drop=True)
    unlabelled = _test_recordings(test, set(clips.clip_id)) if test else None
    if unlabelled is not None:
        if len(tested):
            raise ValueError(f"both --test {test} and the split of the table name a test: leave one of them out")
        tested, table = unlabelled, unlabelled[["clip_id"]]
    if table is not None and events is not None:
        table = table.assign(duration=[audio.duration_or(recordings.source / path, np.nan) for path in tested.path])
    own = None
    if events is not None:
        own = of_classes(events[events.filename.isin(trains.clip_id)], classes).reset_index(drop=True)
    return Tables(
        clips=trains, classes=classes, events=own, test_clips=tested if len(tested) else None, test=table, truth=truth,
        missing=labels.missing, test_events=test_events, task="tagging" if events is None else "sed",
        competition="mine" if events is None else "mine_events",
    )  # fmt: skip


def _named(clips: pd.DataFrame, events: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Labels as class names: no spaces, one spelling, words that say "nothing" dropped; changes are said."""
    doubted = clips.get("doubted", pd.Series([[]] * len(clips), index=clips.index))
    texts = {name for column in (clips.labels, doubted) for names in column for name in names}
    wanted = pd.Series(sorted(texts | (set() if events is None else set(events.event_label))), dtype=object)
    silent = wanted.map(is_reserved).to_numpy(bool)
    if silent.any():
        words = few(sorted(name.strip() or "(empty)" for name in wanted[silent]))
        logger.warning("labels that say that nothing is heard, which is no class: %s", words)
    counts = Counter(name for names in clips.labels for name in names)
    spelled = pd.Series([_composed(n) for n in wanted for _ in range(max(counts[n], 1))], dtype=object)
    one = dict(zip(spelled, one_spelling(spelled, "the source"), strict=True))
    final = {name: "" if quiet else one[_composed(name)] for name, quiet in zip(wanted, silent, strict=True)}
    if changed := [f"'{name}' is {new}" for name, new in final.items() if new and new != name and " " in name]:
        logger.warning("class names hold no spaces: %s", few(changed))
    quiet = clips.labels.map(lambda names: any(n.strip().casefold() == SILENCE for n in names)).to_numpy(bool)
    for kind, names in (("labels", clips.labels), ("doubted", doubted)):
        clips = clips.assign(**{kind: [" ".join(sorted({final[n] for n in some} - {""})) for some in names]})
    if (quiet := quiet & (clips.labels == "").to_numpy(bool)).any():
        said = clips.annotated if "annotated" in clips else pd.Series("", index=clips.index)
        clips["annotated"] = np.where(quiet, "1", said.astype(str))
        logger.warning("%d recordings labelled %s hold none of the classes, and train as such: %s", quiet.sum(),
                       SILENCE, few(clips.path[quiet]))  # fmt: skip
    if "unknown_labels" in clips and clips.unknown_labels.map(lambda names: isinstance(names, list)).all():
        clips["unknown_labels"] = [
            " ".join(sorted({final.get(n, n) for n in names} - {""})) for names in clips.unknown_labels
        ]
    if events is not None:
        events = events.assign(event_label=events.event_label.map(final))
        events = events[events.event_label != ""].reset_index(drop=True)
    return clips, events


def _composed(name: str) -> str:
    """A label as a class name, its accents composed: macOS writes folders' names with accents in two parts."""
    return class_name(unicodedata.normalize("NFC", name))


def _groups(clips: pd.DataFrame, column: str) -> pd.Series:
    """What folds may not split: a column of the table, or `folder`, the folder that a recording lies in."""
    if column == "folder":
        return clips.path.map(lambda path: Path(path).parent.as_posix())
    if column == SUBFOLDER and column not in clips:
        raise ValueError("--group-column subfolder is of recordings in folders below those of their classes, as in "
                         "wren/session1/a.wav; here are none")  # fmt: skip
    require_columns(clips, (column,), "the table of labels")
    return clips[column].astype(str)


def _fold_numbers(clips: pd.DataFrame, column: str) -> pd.Series:
    """(N,) whole numbers of a column of folds; recordings that the table does not name always train: -1."""
    require_columns(clips, (column,), "the table of labels")
    numbers = pd.to_numeric(clips[column], errors="coerce")
    given = clips[column].notna() & (clips[column].astype(str).str.strip() != "")
    if (wrong := given & ~((numbers >= -1) & (numbers % 1 == 0))).any():
        raise ValueError(
            f"--fold-column {column} holds '{clips[column][wrong].iloc[0]}', expected whole numbers from 0"
        )
    return numbers.fillna(-1).astype(int)


def _splits(clips: pd.DataFrame, column: str) -> pd.Series:
    """(N,) test | val | train: by the column named, else by one called split, else by folders train/, val/, test/."""
    if column:
        require_columns(clips, (column,), "the table of labels")
    elif "split" in clips:
        column = "split"
    else:
        return pd.Series("train", index=clips.index)
    words = split_words(clips[column].fillna("").astype(str))
    if (odd := ~words.isin(SPLITS)).any():
        raise ValueError(
            f"'{column}' says train, val or test of recordings, and has {few(sorted(set(clips[column][odd])))}: write "
            "one of the three, or call the column otherwise"
        )
    split = words.map(lambda word: "test" if word in TEST_SPLITS else "val" if word in HELD_OUT_SPLITS else "train")
    counts = ", ".join(f"{n} {'held out' if name == 'val' else name}" for name, n in split.value_counts().items())
    logger.warning("split by '%s': %s", column, counts)
    if (split == "test").all():
        raise ValueError(f"all recordings are of the test by '{column}': there is nothing to train on")
    return split


def _of_classes(texts: pd.Series, classes: list[str]) -> pd.Series:
    """Secondary labels that are classes by another recording's label; what is left out is said."""
    names = texts.fillna("").str.split()
    if other := sorted({name for several in names for name in several} - set(classes)):
        logger.warning("secondary labels that are no recording's label are left out: %s", few(other))
    return names.map(lambda several: " ".join(name for name in several if name in classes))


def _test_recordings(folder: Path, taken: set[str]) -> pd.DataFrame:
    """`clip_id, path` (absolute) of a folder of recordings to predict."""
    found = list_own(folder)
    table = found.table(found.paths)
    table["path"] = [str((folder / p).resolve()) for p in table.path]
    if both := sorted(taken & set(table.clip_id)):
        table["clip_id"] = folder.name + "/" + table.clip_id
        logger.warning("names of the test that the training has too get the folder in front: %s", few(both))
    return table


def _warn(trains: pd.DataFrame, tested: pd.DataFrame, events: pd.DataFrame | None, classes: list[str]):
    """Say which classes are rare, which only the test has, which events of a class overlap, and what has no label."""
    counts = Counter(name for text in trains.labels for name in text.split())
    rare = {name: counts[name] for name in classes if counts[name] < FEW_CLIPS}
    if rare:
        named = few([f"{name} ({n})" for name, n in rare.items()], 10)
        logger.warning("%d of %d classes have fewer than %d clips: %s", len(rare), len(classes), FEW_CLIPS, named)
    if only := sorted({name for text in tested.labels for name in text.split()} - set(classes)):
        logger.warning("only test recordings have these classes, which nothing can learn: %s", few(only))
    if events is not None:
        say_overlapping(events, "events")


# ---- submission: a probability a clip and class


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions -> `clip_id` and a column a class, in the order of `test`; `post` is not used."""
    require_columns(test, ("clip_id",), "the test table")
    scores = class_scores(predictions, test.clip_id, predictions.classes)
    table = pd.DataFrame(scores, columns=list(predictions.classes))
    return pd.concat([test[["clip_id"]].reset_index(drop=True), table], axis=1)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless each clip of `test` has one row with a finite number a class."""
    require_columns(test, ("clip_id",), "the test table")
    check_submission(submission, ("clip_id", *classes), test.clip_id, classes)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Mean average precision (`map`) and, where each clip has one label, accuracy; `truth`: clip_id, labels."""
    require_columns(truth, ("clip_id", "labels"), "the truth")
    classes = [c for c in submission.columns if c != "clip_id"]
    both = truth.astype({"clip_id": str}).merge(submission.astype({"clip_id": str}), on="clip_id")
    if len(both) != len(submission):
        raise ValueError(f"the truth knows {len(both)} of the {len(submission)} clips of the submission")
    labels = both.labels.fillna("").astype(str).str.split()
    target = np.array([[c in names for c in classes] for names in labels])
    if not target.any():
        raise ValueError(f"no label of the truth is a class of the submission ({few(classes)})")
    scores = both[classes].to_numpy(float)
    result = {"map": float(clip_metrics.mean_average_precision(target, scores))}
    if (target.sum(axis=1) == 1).all():
        result["accuracy"] = clip_metrics.accuracy(target, scores)
    return result


EDITIONS = by_name(
    Competition(
        name="mine", task="tagging", prepare=prepare, rows=rows, validate=validate, score=score, oof_score=MAP,
        flags=FLAGS, also=("mine_events",),
    ),
    Competition(
        name="mine_events", prepare=prepare, rows=finch.rows, validate=finch.validate, score=dcase_task4.score,
        oof_score=of_events("event_f1_macro", dcase_task4.score), post=EVENTS, frame_score=psds_of_frames, flags=FLAGS,
        also=("mine",),
    ),
)  # fmt: skip

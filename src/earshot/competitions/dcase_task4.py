"""DCASE task 4, sound events in homes: the DESED data, strong, weak and no labels, ten classes.

Download: metadata/{train,validation,eval}/**/*.tsv and the recordings under audio/ (or audio_16k/) in folders of the
same names. What a table is stands in its columns: `filename, onset, offset, event_label` strong (a row with a name
only: a recording without events), `filename, event_labels` (joined by commas) weak, `filename` alone unlabelled;
*_durations.tsv lists `filename, duration`. The recordings of metadata/train/weak.tsv lie in audio/train/weak/; where
there is no such folder they are looked for by name in all of audio/train/ (the real strong ones lie in
strong_label_real/).

Tables. `kind` is strong, weak or unlabelled, `subset` the table. Train clips always train (fold -1), those of
validation are fold 0. `kinds` chooses what trains, `strong,weak` at first: an event loss wants kinds=strong, because a
weak clip has no events in events.csv; unlabelled clips have no label either, and the trainer leaves clips without one
out. The test is metadata/eval where it is there, else validation, which the OOF answers.

Submission: `filename, onset, offset, event_label` (name it .tsv), seconds, a row with the name only where nothing was
found. Score: event-based F1, onsets within 0.2 s and offsets within 0.2 s or 20 % of the event, as the mean over
classes; `score_frames` gives the PSDS of both scenarios from frame scores. Layouts as remembered from public code.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import finch
from earshot.competitions.competition import Competition, by_name
from earshot.competitions.oof_scores import EVENTS, of_events, psds_of_frames
from earshot.competitions.tables import Tables, absent, class_name, present
from earshot.events import PostProcess
from earshot.messages import few, suggest
from earshot.metrics.events import event_based_f1
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.tables import read_table, require_columns

AUDIO_FOLDERS = ("audio", "audio_16k")
KINDS = ("strong", "weak", "unlabelled")
EVENT_COLUMNS = ("filename", "onset", "offset", "event_label")
COLLAR = 0.2  # seconds
NOMINAL_SECONDS = 10.0  # of a recording whose length nothing says

logger = logging.getLogger("earshot")


def prepare(source: Path, kinds: str = "strong,weak") -> Tables:
    """Download folder -> clips of `kinds` (joined by commas) and of validation, events, and the test."""
    source = Path(source)
    wanted = [k.strip() for k in str(kinds).split(",")]
    for kind in wanted:
        if kind not in KINDS:
            raise ValueError(f"unknown kind '{kind}' in kinds={kinds}{suggest(kind, KINDS)}")
    clips, events, durations = read_metadata(source)
    clips = _unique_ids(clips)
    events = events.merge(clips[["split", "subset", "filename", "clip_id"]], on=["split", "subset", "filename"])
    held_out = "eval" if (clips.split == "eval").any() else "validation"
    test = clips[(clips.split == held_out) & (clips.kind == "strong")]
    truth = events[events.clip_id.isin(test.clip_id)][list(EVENT_COLUMNS)].reset_index(drop=True)
    events = events.assign(filename=events.clip_id)[list(EVENT_COLUMNS)]
    kept = clips.kind.isin(wanted) & (clips.split == "train")
    kept |= (clips.split == "validation") & (clips.kind == "strong")
    missing, trained = absent(clips[kept], source), present(clips[kept], source, "metadata/")
    trained["official_fold"] = np.where(trained.split == "validation", 0, -1)
    test_clips = test.reset_index(drop=True) if held_out == "eval" else None
    table = test[["clip_id", "filename"]].reset_index(drop=True)
    table["duration"] = [durations.get(f) or _length(source / p) for f, p in zip(test.filename, test.path)]
    classes = sorted({n for text in clips.labels for n in text.split()})
    return Tables(
        trained, classes, _of(events, trained), test_clips, table if len(table) else None,
        missing + (absent(test_clips, source) if test_clips is not None else ()), truth=truth if len(truth) else None,
        test_events=_of(events, test_clips) if test_clips is not None else None,
    )  # fmt: skip


def _of(events: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    own = events[events.filename.isin(clips.clip_id)]
    return own.sort_values(["filename", "onset"], kind="stable", ignore_index=True)


def _length(path: Path) -> float:
    try:
        return audio.info(path).duration
    except audio.UnreadableAudio:
        return NOMINAL_SECONDS


def _unique_ids(clips: pd.DataFrame) -> pd.DataFrame:
    """clip_id = the file's name; of a name that two tables have, with the table in front (synthetic: numbers)."""
    stems = pd.Series([Path(f).stem for f in clips.filename], index=clips.index)
    twice = stems.duplicated(keep=False)
    return clips.assign(clip_id=stems.where(~twice, clips.subset.str.replace("/", "_") + "_" + stems))


def read_metadata(source: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """metadata/ -> clips (path, filename, labels, kind, split, subset), strong events, {file name: seconds}."""
    paths = sorted((source / "metadata").rglob("*.tsv"))
    if not paths:
        raise ValueError(f"{source / 'metadata'} holds no .tsv; is --source the folder of DESED?")
    clips, events, durations = [], [], {}
    for path in paths:
        table = read_table(path, ("filename",)).drop_duplicates(ignore_index=True)
        inner = path.relative_to(source / "metadata").with_suffix("")
        if "duration" in table:
            durations |= dict(zip(table.filename, table.duration.astype(float), strict=True))
            continue
        kind, found, labels = _read_kind(table, path)
        events.append(found.assign(split=inner.parts[0], subset=inner.as_posix()))
        files = _recordings_of(source, inner)
        clips.append(pd.DataFrame({
            "clip_id": "", "path": [files.get(f, f"audio/{inner.as_posix()}/{f}") for f in labels.index],
            "filename": labels.index, "labels": labels.to_numpy(), "kind": kind, "split": inner.parts[0],
            "subset": inner.as_posix(),
        }))  # fmt: skip
    if not clips:
        raise ValueError(f"{source / 'metadata'} holds durations only, no table of labels")
    events = [e for e in events if len(e)] or events[:1]
    return pd.concat(clips, ignore_index=True), pd.concat(events, ignore_index=True), durations


def _read_kind(table: pd.DataFrame, path: Path) -> tuple[str, pd.DataFrame, pd.Series]:
    """A table -> (kind, its events, labels by file name)."""
    if "onset" in table:
        require_columns(table, EVENT_COLUMNS, path)
        real = table[table.onset.notna() & (table.event_label != "")]
        wrong = ~(real.offset > real.onset)
        if wrong.any():
            names = few(real.filename[wrong])
            raise ValueError(f"{path.name} has {wrong.sum()} events that end where they begin: {names}")
        real = real.assign(event_label=real.event_label.map(class_name))[list(EVENT_COLUMNS)]
        labels = real.groupby("filename").event_label.agg(lambda names: " ".join(sorted(set(names))))
        return "strong", real, labels.reindex(table.filename.unique()).fillna("")
    none = pd.DataFrame(columns=list(EVENT_COLUMNS))
    if "event_labels" in table:
        texts = [" ".join(sorted({class_name(n) for n in t.split(",") if n})) for t in table.event_labels.astype(str)]
        return "weak", none, pd.Series(texts, index=table.filename)
    return "unlabelled", none, pd.Series("", index=table.filename)


def _recordings_of(source: Path, inner: Path) -> dict[str, str]:
    """Recordings of one table -> {file name: path}: its own folder, else everything of its split."""
    for folder in AUDIO_FOLDERS:
        for place in (source / folder / inner, source / folder / inner.parts[0]):
            if place.is_dir():
                return {p.name: p.relative_to(source).as_posix() for p in sorted(place.rglob("*.wav"))}
    return {}


# ---- submission


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | None = None) -> pd.DataFrame:
    """Framewise predictions -> events `filename, onset, offset, event_label` of the recordings of `test`.

    A recording without an event has one row with its name only; so has one that is unreadable, or, with a warning,
    has no prediction.
    """
    test = test.astype({"clip_id": str})
    there = test[test.clip_id.isin(set(predictions.clip_ids.tolist()))]
    if len(lost := test.clip_id[~test.clip_id.isin(there.clip_id)]):
        logger.warning("%d of %d recordings have no prediction: %s", len(lost), len(test), few(lost))
    found = [finch.rows(predictions, there, post)] if len(there) else []
    table = pd.concat([*found, pd.DataFrame({"filename": lost})]).reindex(columns=list(EVENT_COLUMNS))
    order = table.filename.map({clip: i for i, clip in enumerate(test.clip_id)})
    table = table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)
    return table.assign(filename=table.filename.map(dict(zip(test.clip_id, test.filename, strict=True))))


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every recording of `test` is there, with events inside it and labels of `classes`."""
    require_columns(test, ("clip_id", "filename", "duration"), "the test table")
    finch.validate(submission, test.assign(clip_id=test.filename), classes)


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Event-based F1: the mean over classes (DCASE's figure), and overall; a class that nobody found counts 0."""
    found = submission[submission.onset.notna()]
    classes = sorted({*truth.event_label, *found.event_label})
    result = event_based_f1(
        truth, found, onset_collar=COLLAR, percentage_of_length=0.2, classes=classes,
        empty_system_output_handling="zero_score",
    )  # fmt: skip
    return {
        "event_f1_macro": result["class_wise_average"]["f_measure"]["f_measure"],
        "event_f1": result["overall"]["f_measure"]["f_measure"],
    }


score_frames = psds_of_frames  # truth by filename, as the test table has it
EDITIONS = by_name(
    Competition(
        name="dcase_task4", prepare=prepare, rows=rows, validate=validate, score=score, frame_score=score_frames,
        oof_score=of_events("event_f1_macro", score), post=EVENTS,
    )
)  # fmt: skip

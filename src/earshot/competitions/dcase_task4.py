"""DCASE task 4, sound events in homes: the DESED data, strong, weak and no labels, ten classes.

Download: metadata/{train,validation,eval}/**/*.tsv and recordings under audio/, beside each other in the source or in a
folder below it (dcase_synth/); dcase_task4_tables.py reads them. What a table is stands in its columns: `filename,
onset, offset, event_label` strong (a row with a name only: a recording without events), `filename, event_labels`
(joined by commas) weak, `filename` alone unlabelled, `filename, duration` a list of recordings.

Tables. A recording is one clip, whatever tables name it (validation.tsv is the union of two others); `kind` is strong,
weak or unlabelled, `subset` the table. Train clips always train (fold -1), real recordings of validation are fold 0;
the synthetic validation set is neither, where there is a real one. `kinds` chooses what trains, `strong,weak` at first:
an event loss wants kinds=strong, because a weak clip has no events in events.csv; unlabelled clips have no label
either, and the trainer leaves them out. Strong clips are `annotated`: one without events is silent, and is heard. The
test is metadata/eval where it is there, else validation, which the OOF answers. Tables in none of the three splits
(MAESTRO's) are named and left out.

Submission: `filename, onset, offset, event_label` (name it .tsv), seconds, a row with the name only where nothing was
found. Score: event-based F1, onsets within 0.2 s and offsets within 0.2 s or 20 % of the event, as the mean over
classes; `score_frames` gives the PSDS of both scenarios from frame scores.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import finch
from earshot.competitions.checks import name_problems, refuse
from earshot.competitions.competition import Challenge, Competition, by_name
from earshot.competitions.dcase_task4_tables import EVENT_COLUMNS, KINDS, Recordings, read_metadata
from earshot.competitions.oof_scores import EVENTS, of_events, psds_of_frames, scores_in_time
from earshot.competitions.tables import Tables, absent, present
from earshot.events import PostProcess
from earshot.messages import few, suggest
from earshot.metrics.events import event_based_f1
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound import audio
from earshot.tables import read_table, require_columns

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
    found = read_metadata(source, wanted)
    clips, events = _with_ids(found)
    held_out = "eval" if (clips.split == "eval").any() else "validation"
    test = clips[(clips.split == held_out) & (clips.kind == "strong")].reset_index(drop=True)
    known = (test.annotated == 1).all()
    truth = events[events.clip_id.isin(test.clip_id)][list(EVENT_COLUMNS)].reset_index(drop=True)
    events = events.assign(filename=events.clip_id)[list(EVENT_COLUMNS)]
    trains = clips[clips.split != "eval"]
    missing, trained = absent(trains, source), present(trains, source, "metadata/")
    trained["official_fold"] = np.where(trained.split == "validation", 0, -1)
    test_clips = test if held_out == "eval" else None
    table = test[["clip_id", "filename"]].copy()
    table["duration"] = [
        found.seconds.get(f) or audio.duration_or(source / p, NOMINAL_SECONDS)
        for f, p in zip(test.filename, test.path, strict=True)
    ]
    return Tables(
        clips=trained, classes=found.classes, events=_of(events, trained), test_clips=test_clips,
        test=table if len(table) else None,
        missing=missing + (absent(test_clips, source) if test_clips is not None else ()),
        truth=truth if len(truth) and known else None,
        test_events=_of(events, test_clips) if test_clips is not None and known else None,
    )  # fmt: skip


def _of(events: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    own = events[events.filename.isin(clips.clip_id)]
    return own.sort_values(["filename", "onset"], kind="stable", ignore_index=True)


def _with_ids(found: Recordings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(clips, events) with `clip_id`: the file's name; of a name that two recordings have, with the table in front."""
    clips = found.clips
    stems = pd.Series([Path(f).stem for f in clips.filename], index=clips.index, dtype=object)
    twice = stems.duplicated(keep=False)
    clips = clips.assign(clip_id=stems.where(~twice, clips.subset.str.replace("/", "_") + "_" + stems))
    clips = clips[["clip_id", *(c for c in clips.columns if c not in ("clip_id", "key"))]].assign(key=clips.key)
    events = found.events.assign(clip_id=found.events.key.map(dict(zip(clips.key, clips.clip_id, strict=True))))
    return clips.drop(columns="key"), events.drop(columns="key")


# ---- submission


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | None = None) -> pd.DataFrame:
    """Framewise predictions -> events `filename, onset, offset, event_label` of the recordings of `test`.

    A recording without an event has one row with its name only; so has one that is unreadable, or, with a warning,
    has no prediction.
    """
    require_columns(test, ("clip_id", "filename"), "the test table")
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


# ---- what is handed in


def files(submission: pd.DataFrame, label: str) -> dict[str, str]:
    """The events, tab-separated."""
    return {f"{label}.output.tsv": submission.to_csv(sep="\t", index=False, lineterminator="\n")}


def score_files(predictions: Predictions, test: pd.DataFrame, label: str) -> dict[str, str]:
    """Scores of frames for PSDS, a file a recording, as sed_scores_eval writes and reads them (2023 on): `onset,
    offset`, a column a class. Of the first run; the challenge wants three, trained with other seeds."""
    if predictions.framewise_output is None:
        return {}
    texts, there = {}, test[test.clip_id.astype(str).isin(set(predictions.clip_ids.tolist()))]
    for name, (edges, frames) in scores_in_time(predictions, there).items():
        table = pd.DataFrame(
            {"onset": edges[:-1], "offset": edges[1:]} | dict(zip(predictions.classes, frames.T, strict=True))
        )
        text = table.to_csv(sep="\t", index=False, float_format="%.6f", lineterminator="\n")
        texts[f"{label}_run1.output/{Path(name).stem}.tsv"] = text
    return texts


def read_files(paths: Sequence[Path], test: pd.DataFrame) -> pd.DataFrame:
    """The events of an output file; folders of scores beside it must have a file for each recording of `test`."""
    tables = [p for p in paths if p.is_file()]
    if len(tables) != 1:
        raise ValueError(f"a system has one .output.tsv of events, got {len(tables)}: {few(p.name for p in tables)}")
    wanted = {f"{Path(name).stem}.tsv" for name in test.filename}
    for folder in (p for p in paths if p.is_dir()):
        given = {p.name for p in folder.iterdir()}
        inside = f"in {folder.name}"
        refuse(name_problems(wanted, given, f"are missing {inside}", f"are {inside} of no recording of the test"))
    return read_table(tables[0])


def results(found: Predictions, truth: Truth) -> dict:
    """F-score of events (per cent, of the default threshold) and PSDS of an OOF; {} without true events or frames."""
    if (in_time := truth.in_time(found)) is None:
        return {}
    known, true = in_time
    detected = detect_all(known, EVENTS.start)
    f1 = event_based_f1(
        true, detected, onset_collar=COLLAR, percentage_of_length=0.2, classes=sorted(found.classes),
        empty_system_output_handling="zero_score",
    )  # fmt: skip

    def percent(value: dict) -> dict[str, float]:
        return {"F-score": round(100 * value["f_measure"]["f_measure"], 2)}

    overall = percent(f1["class_wise_average"])
    clips = truth.clips[truth.clips.clip_id.isin(known.clip_ids)] if truth.clips is not None else None
    if clips is not None and "duration" in clips:
        values = psds_of_frames(known, clips[["clip_id", "duration"]], true)
        overall |= {name.upper(): round(float(value), 4) for name, value in values.items()}
    return {"overall": overall, "class_wise": {c: percent(v) for c, v in f1["class_wise"].items()}}


CHALLENGE = Challenge(
    task="task4", own=r".+\.output(\.tsv)?", files=files, read_files=read_files, score_files=score_files,
    results=results,
    description=(
        "input_sampling_rate", "acoustic_features", "data_augmentation", "embeddings", "machine_learning_method",
        "ensemble_method_subsystem_count", "decision_making", "external_data_usage",
    ),
    complexity=("total_parameters", "macs"), more=("energy_consumption", "external_datasets", "source_code"),
)  # fmt: skip
EDITIONS = by_name(
    Competition(
        name="dcase_task4", prepare=prepare, rows=rows, validate=validate, score=score, frame_score=score_frames,
        oof_score=of_events("event_f1_macro", score), post=EVENTS, challenge=CHALLENGE,
    )
)  # fmt: skip

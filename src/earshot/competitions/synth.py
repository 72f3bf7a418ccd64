"""The embedded competitions: made by `earshot.synth` where they are missing, then read.

`synth`: birds, read and scored as birdcall is. Unlike birdcall, clips are grouped by recordist (whose backgrounds the
test does not share), and the test's true events are known.

`synth_scenes`: eight invented acoustic scenes, places and devices that training did not have; `synth_ust`: SONYC-UST's
eight coarse tags on invented sounds, other sensors held out; `synth_asd`: machines, normal sounds of nine sections
train, anomalies are held out. These three have no test set of unknown answers: the held-out clips of the official
split (fold 0) are what is submitted, as rows of `clip_id` and one probability a class (machines: `clip_id, score`,
the anomaly score).

`synth_sonyc`: a city in SONYC-UST's own layout (synth/streets.py), whose tags depend in part on hour and place, with
volunteers' votes and an agreed truth; read, answered and scored as `sonyc_ust_joint` is, with its options.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import birdcall, sonyc_ust
from earshot.competitions.competition import Competition, OofScore, by_name
from earshot.competitions.oof_scores import EVENT_ROWS, ROW_MICRO_F1, scenes
from earshot.competitions.tables import Tables, check_submission, class_name, require_columns
from earshot.data.labels import encode
from earshot.messages import plural
from earshot.metrics import anomalies as anomaly_metrics
from earshot.metrics import clips as clip_metrics
from earshot.metrics import urban as urban_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth, anomaly_scores_of
from earshot.synth import birds, streets
from earshot.synth import tasks as synth_tasks
from earshot.tables import read_table

CLASSES = {
    "scenes": tuple(synth_tasks.SCENES),
    "ust": tuple(synth_tasks.URBAN),
    "asd": tuple(f"{m}_{s}" for m in synth_tasks.MACHINES for s in synth_tasks.SECTIONS),
}


def prepare_birds(source: Path, seed: int | None = None) -> Tables:
    """Tables of the generated competition in `source`, made first where the folder is missing or empty.

    `seed` of what is generated (default 0); an existing folder of another seed or generator version is an error.
    """
    source = Path(source)
    if not source.is_dir() or not any(source.iterdir()):
        birds.make_birds(source, seed or 0)
    birds.check_made(source, seed, version=birds.VERSION)
    tables = birdcall.prepare(source)
    clips = tables.clips.assign(group=tables.clips.recordist.map(class_name))
    events = read_table(source / "test_events.csv", ("filename", "onset", "offset", "event_label"))
    truth = read_table(source / "truth.csv", ("row_id", "birds"))
    return dataclasses.replace(tables, clips=clips, test_events=events, truth=truth)


def prepare_task(kind: str, source: Path, seed: int | None = None) -> Tables:
    """Tables of the variant `kind` in `source`, made first where the folder is missing or empty (seed: default 0)."""
    source = Path(source)
    if not source.is_dir() or not any(source.iterdir()):
        synth_tasks.make_task(kind, source, seed or 0)
    birds.check_made(source, seed, version=synth_tasks.VERSION, kind=kind)
    clips = read_table(source / "meta.csv", ("clip_id", "path", "labels", "official_fold"))
    clips = clips.assign(labels=clips.labels.fillna(""))
    held_out = clips[clips.official_fold == synth_tasks.HELD_OUT].reset_index(drop=True)
    return Tables(
        clips=clips,
        classes=CLASSES[kind],
        test=held_out[["clip_id", "labels"]],
        truth=held_out.drop(columns="path"),
        task=kind,
    )


def prepare_city(
    source: Path, seed: int | None = None, level: str = "joint", votes: str = "majority", crowd: str = "left_out",
    metadata: str = "error",
) -> Tables:  # fmt: skip
    """Tables of the generated city in `source`, made first where the folder is missing or empty; else as sonyc_ust's.

    The crowd's validate clips are left out by default: scores are of verified clips, of sensors that nobody trained on.
    """
    source = Path(source)
    if not source.is_dir() or not any(source.iterdir()):
        streets.make_city(source, seed or 0)
    birds.check_made(source, seed, version=streets.VERSION, kind="sonyc")
    return sonyc_ust.prepare(source, level=level, votes=votes, crowd=crowd, metadata=metadata)


def class_rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Out-of-fold predictions -> `clip_id` and a probability a class, in the order of `test`; `post` is not used."""
    found = predictions.aligned(test.clip_id)
    table = pd.DataFrame(found.clipwise_output, columns=list(found.classes))
    table.insert(0, "clip_id", test.clip_id.to_numpy())
    return table


def validate_classes(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every clip of `test` has one row, in its order, with a probability for each class."""
    check_submission(submission, ("clip_id", *classes), test.clip_id, numbers=classes, low=0, high=1)


def truth_and_scores(submission: pd.DataFrame, truth: pd.DataFrame, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """True classes and submitted probabilities, (N, K) each, in the order of the submission."""
    require_columns(truth, ("clip_id", "labels"), "the truth")
    known = truth.assign(labels=truth.labels.fillna("")).set_index("clip_id").labels
    if set(known.index) != set(submission.clip_id):
        raise ValueError(
            f"the truth knows {plural(len(known), 'clips')}, the submission holds {len(submission)}, not the same"
        )
    target = np.stack([encode(known[c], CLASSES[kind]) for c in submission.clip_id]) > 0
    return target, submission[list(CLASSES[kind])].to_numpy(float)


def score_scenes(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Class-mean accuracy of a submission."""
    return {
        "class_mean_accuracy": float(clip_metrics.class_mean_accuracy(*truth_and_scores(submission, truth, "scenes")))
    }


def score_urban(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """macro_auprc, micro_auprc and micro_f1 of SONYC-UST's public evaluation."""
    tables = (pd.DataFrame(x, columns=CLASSES["ust"]) for x in truth_and_scores(submission, truth, "ust"))
    found = urban_metrics.evaluate(*(t.astype(float) for t in tables))
    return {name: found[name] for name in ("macro_auprc", "micro_auprc", "micro_f1")}


def machine_rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Anomaly scores, where the predictions have them, else log odds of the section that the table names ->
    `clip_id, score`."""
    require_columns(test, ("clip_id", "labels"), "the test table")
    found = predictions.aligned(test.clip_id)
    scores = found.score
    if scores is None:
        own = np.array([list(found.classes).index(name) for name in test.labels])
        scores = anomaly_metrics.own_class_scores(found.clipwise_output, own)
    return pd.DataFrame({"clip_id": test.clip_id.to_numpy(), "score": scores})


def validate_machines(submission: pd.DataFrame, test: pd.DataFrame, classes=()):
    """Raise unless every clip of `test` has one row, in its order, with a finite score."""
    check_submission(submission, ("clip_id", "score"), test.clip_id, numbers=("score",))


def score_machines(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Means of AUC and pAUC over machines, sections and domains; the first is the arithmetic mean of the AUCs."""
    clips = truth.set_index("clip_id").loc[submission.clip_id].reset_index()
    found = anomaly_metrics.summary(anomaly_metrics.auc_table(submission.score.to_numpy(), clips))
    return {name: found[name] for name in ("auc", "pauc", "auc_harmonic", "pauc_harmonic") if name in found}


# ---- what an OOF is scored by


def urban_values(found: Predictions, truth: Truth, post=None) -> dict[str, float]:
    """As `score_urban`, of an OOF."""
    if not len(found):
        return {}
    tables = (pd.DataFrame(np.asarray(x, float), columns=CLASSES["ust"]) for x in (truth.target, found.clipwise_output))
    values = urban_metrics.evaluate(*tables)
    return {name: values[name] for name in ("macro_auprc", "micro_auprc", "micro_f1")}


def machine_values(found: Predictions, truth: Truth, post=None) -> dict[str, float]:
    """As `score_machines`, of an OOF: {} without a group that has both kinds of clips."""
    values = anomaly_metrics.summary(anomaly_metrics.auc_table(anomaly_scores_of(found, truth), truth.clips))
    return {name: values[name] for name in ("auc", "pauc", "auc_harmonic", "pauc_harmonic") if name in values}


# ---- the variants


def _task(kind: str, **functions) -> Competition:
    shared = {"rows": class_rows, "validate": validate_classes}
    return Competition(
        name=f"synth_{kind}", task=kind, prepare=partial(prepare_task, kind), embedded=True, **shared | functions
    )


EDITIONS = by_name(
    Competition(
        name="synth", prepare=prepare_birds, rows=birdcall.rows, validate=birdcall.validate, score=birdcall.score,
        limits=birdcall.EDITIONS["birdcall"].limits, embedded=True,
        hidden=dataclasses.replace(birdcall.HIDDEN, slug="synth", seconds=60.0),
        oof_score=ROW_MICRO_F1, post=EVENT_ROWS,
    ),
    _task("scenes", score=score_scenes, oof_score=scenes("class_mean_accuracy")),
    _task("ust", score=score_urban, oof_score=OofScore("macro_auprc", urban_values)),
    dataclasses.replace(
        sonyc_ust.EDITIONS["sonyc_ust_joint"], name="synth_sonyc", prepare=prepare_city, embedded=True,
    ),
    _task(
        "asd", rows=machine_rows, validate=validate_machines, score=score_machines,
        oof_score=OofScore("auc", machine_values),
    ),
)  # fmt: skip

"""What the embedded scenes, urban tags and machines share: tables from the generator, rows, checks, the task's score.

There is no test set of unknown answers: the held-out clips of the official split (fold 0) are what is submitted, as
rows of `clip_id` and one probability a class (machines: `clip_id, score`, the anomaly score).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.tables import Tables, check_submission, require_columns
from earshot.data.labels import encode
from earshot.metrics import anomalies as anomaly_metrics
from earshot.metrics import clips as clip_metrics
from earshot.metrics import urban as urban_metrics
from earshot.prediction.predictions import Predictions
from earshot.synth import tasks as synth_tasks
from earshot.tables import read_table

CLASSES = {
    "scenes": tuple(synth_tasks.SCENES),
    "ust": tuple(synth_tasks.URBAN),
    "asd": tuple(f"{m}_{s}" for m in synth_tasks.MACHINES for s in synth_tasks.SECTIONS),
}
LIMITS = {}  # nothing is uploaded


def prepare(kind: str, source: Path, seed: int | None = None) -> Tables:
    """Tables of the variant `kind` in `source`, made first where the folder is missing or empty (seed: default 0)."""
    source = Path(source)
    if not source.is_dir() or not any(source.iterdir()):
        synth_tasks.make_task(kind, source, seed or 0)
    about = source / "synth.json"
    made = json.loads(about.read_text()) if about.is_file() else {}
    wanted = {"version": synth_tasks.VERSION, "kind": kind, "seed": made.get("seed") if seed is None else seed}
    if any(made.get(key) != value for key, value in wanted.items()):
        raise ValueError(
            f"{source} was not made with {wanted} (its synth.json: {made or 'missing'}); remove the folder, or choose "
            "another, to have the competition made anew"
        )
    clips = read_table(source / "meta.csv", ("clip_id", "path", "labels", "official_fold"))
    clips = clips.assign(labels=clips.labels.fillna(""))
    held_out = clips[clips.official_fold == synth_tasks.HELD_OUT].reset_index(drop=True)
    return Tables(
        clips, CLASSES[kind], test=held_out[["clip_id", "labels"]], truth=held_out.drop(columns="path"), task=kind
    )


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Out-of-fold predictions -> `clip_id` and a probability a class, in the order of `test`; `post` is not used."""
    found = predictions.aligned(test.clip_id)
    table = pd.DataFrame(found.clipwise_output, columns=list(found.classes))
    table.insert(0, "clip_id", test.clip_id.to_numpy())
    return table


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every clip of `test` has one row, in its order, with a probability for each class."""
    check_submission(submission, ("clip_id", *classes), test.clip_id, numbers=classes, low=0, high=1)


def truth_and_scores(submission: pd.DataFrame, truth: pd.DataFrame, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) true classes and (N, K) submitted probabilities, in the order of the submission."""
    require_columns(truth, ("clip_id", "labels"), "the truth")
    known = truth.assign(labels=truth.labels.fillna("")).set_index("clip_id").labels
    if set(known.index) != set(submission.clip_id):
        raise ValueError(f"the truth knows {len(known)} clips, the submission holds {len(submission)}, not the same")
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
    """Out-of-fold predictions -> `clip_id, score`; a clip's own section is the one that its table names."""
    require_columns(test, ("clip_id", "labels"), "the test table")
    found = predictions.aligned(test.clip_id)
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

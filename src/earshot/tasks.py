"""A task = a frozen record of plain functions. The training loop knows nothing else about what it trains.

To add one: a loss (losses.py), a score (here, from metrics/clips.py) and one line of TASKS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions import get_competition
from earshot.config import Config
from earshot.events import PostProcess, events_to_frames
from earshot.messages import few, suggest
from earshot.metrics import anomalies as anomaly_metrics
from earshot.metrics import clips as clip_metrics
from earshot.metrics import events as event_metrics
from earshot.metrics import urban as urban_metrics
from earshot.pictures import folds as fold_pictures
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth, anomaly_scores_of
from earshot.sound.timebase import TimeBase

WATCH_RANKED = ("scenes", "tagging", "sed")  # others' official scores need domains, anomalies or levels of tags
URBAN_SCORES = ("macro_auprc", "micro_auprc", "micro_f1", "auprc_of_macro_curve")


@dataclass(frozen=True)
class Task:
    """What `train.py` needs to know: `score` gives {name: value}, `watch` names the one that selects a checkpoint.

    `answered`: predictions -> the same with what the task adds to an OOF (an anomaly score).
    `pictures`: file name -> draw(predictions, truth, path), of the readable clips, into the folder of a fold and a run.
    """

    name: str
    score: Callable[[Predictions, Truth], dict[str, float]]
    watch: str
    pictures: dict[str, Callable[[Predictions, Truth, Path], None]] = field(default_factory=dict)
    remarks: Callable[[Predictions, Truth], list[str]] = lambda predictions, truth: []  # what its scores leave out
    answered: Callable[[Predictions, Truth], Predictions] = lambda predictions, truth: predictions


def score_clips(predictions: Predictions, truth: Truth) -> dict[str, float]:
    """Clip-level scores. A score that the data cannot define (one label a clip, ...) is left out, and so are all where
    every clip holds every class: any answer would be perfect.

    `macro_f1` and `micro_f1` are at the best single threshold on these very clips: an optimistic figure, as every
    figure with a threshold chosen on the scored clips is; the others have no threshold. `d_prime` is that of the mean
    AUC (AudioSet's figure), `mean_d_prime` the mean over classes; where an AUC is 1 they are infinite and left out.
    """
    target, scores = truth.target, predictions.clipwise_output
    result = {}
    if target.all():
        return result
    if target.any():
        result["lwlrap"] = clip_metrics.lwlrap(target, scores)
        ranking = clip_metrics.ranked(target, scores)
        if ranking.rated.any():
            auc = ranking.roc_auc()
            result["map"] = float(clip_metrics.class_mean(ranking.average_precision()))
            result["macro_auc"] = float(clip_metrics.class_mean(auc))
            d_primes = {
                "d_prime": clip_metrics.d_prime(result["macro_auc"]),
                "mean_d_prime": float(clip_metrics.mean_of_d_primes(auc)),
            }
            result |= {name: value for name, value in d_primes.items() if np.isfinite(value)}
        if scores.min() >= 0 and scores.max() <= 1 + 1e-5:  # sums over windows are no probabilities
            result["padded_cmap"] = float(ranking.padded_precision(clip_metrics.PADDING).mean())
        for name, f1 in (("macro_f1", clip_metrics.macro_f1), ("micro_f1", clip_metrics.micro_f1)):
            threshold, value = clip_metrics.best_threshold(target, scores, f1, ranking=ranking)
            result |= {name: float(value), f"{name}_threshold": float(threshold)}
    if len(target) and (target.sum(axis=1) == 1).all():
        result["accuracy"] = clip_metrics.accuracy(target, scores)
        result["class_mean_accuracy"] = float(clip_metrics.class_mean_accuracy(target, scores))
    if len(target) and target.any(axis=1).all():  # clips of false positives only have no label
        result["macro_f1_argmax"] = clip_metrics.macro_f1_argmax(target, scores)
    return result


CLASS_COLUMNS = ("label", "train_clips", "clips", "average_precision", "auc", "d_prime")


def class_table(found: Predictions, target: np.ndarray, training: np.ndarray) -> list[dict]:
    """A row a class: `label`, clips of it in training and scored, average precision, AUC, d-prime ('' if undefined).

    target: (N, K) truth of the predictions, whose unreadable clips are left out; training: (K,) clips trained on.
    """
    truth, scores = target[~found.unreadable] > 0.5, found.clipwise_output[~found.unreadable]
    if not len(truth):
        return []
    auc = clip_metrics.roc_auc(truth, scores)
    columns = {
        "average_precision": clip_metrics.average_precision(truth, scores),
        "auc": auc,
        "d_prime": clip_metrics.d_prime(auc),
    }  # fmt: skip
    rows = []
    for k, label in enumerate(found.classes):
        values = {name: "" if np.isnan(v[k]) else round(float(v[k]), 6) for name, v in columns.items()}
        rows.append({"label": label, "train_clips": int(training[k]), "clips": int(truth[:, k].sum())} | values)
    return rows


def score_sed(predictions: Predictions, truth: Truth) -> dict[str, float]:
    """Clip-level scores and, with true events and framewise outputs, those in time of the clips that are annotated.

    `frame_map`: mean over classes of the average precision of frames (no threshold); `event_f1`: event-based F1 at
    threshold 0.5, onsets and offsets within 0.2 s (offset also within 20 % of the event).
    """
    result = score_clips(predictions, truth)
    in_time = truth.in_time(predictions)
    if in_time is None:
        return result
    found, events = in_time
    active, scores = frame_truth(found, events)
    if (active.any(axis=0) & ~active.all(axis=0)).any():
        result["frame_map"] = float(clip_metrics.mean_average_precision(active, scores))
    f1 = event_metrics.event_based_f1(
        events, detect_all(found, PostProcess(threshold=0.5)), classes=list(found.classes),
        empty_system_output_handling="zero_score",
    )  # fmt: skip
    result["event_f1"] = f1["overall"]["f_measure"]["f_measure"]
    return result


def frame_truth(predictions: Predictions, events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Framewise truth and outputs of all clips one after the other, both (sum T, K)."""
    by_clip = dict(list(events.groupby("filename", sort=False)))
    nothing = events.iloc[:0]
    active = [
        events_to_frames(by_clip.get(c, nothing), predictions.classes, predictions.timebase, len(f))
        for c, f in zip(predictions.clip_ids, predictions.framewise_output, strict=True)
    ]
    return np.concatenate(active), np.concatenate(predictions.framewise_output)


def score_scenes(predictions: Predictions, truth: Truth) -> dict[str, float]:
    """One scene a clip: class-mean accuracy (also of each device), accuracy, and log loss of probabilities."""
    target, scores = truth.target, predictions.clipwise_output
    if not len(target):
        return {}
    result = {
        "class_mean_accuracy": float(clip_metrics.class_mean_accuracy(target, scores)),
        "accuracy": clip_metrics.accuracy(target, scores),
    }
    if scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() < 1e-3:
        result["log_loss"] = clip_metrics.log_loss(target, scores)
    if truth.clips is not None and "device" in truth.clips:
        devices = truth.clips.device.astype(str).to_numpy()
        for device in sorted(set(devices)):
            here = devices == device
            result[f"accuracy_{device}"] = float(clip_metrics.class_mean_accuracy(target[here], scores[here]))
    return result


def score_urban(predictions: Predictions, truth: Truth) -> dict[str, float]:
    """The public evaluation of SONYC-UST: macro_auprc, micro_auprc, micro_f1 and each coarse class's AUPRC.

    Of coarse tags, or of fine ones (with their incomplete X) where these are the classes. Of classes of both levels,
    coarse_... and fine_... too, the plain names are then those of the coarse level. Where experts verified some of the
    clips (column `is_verified`) and not all, verified_... are the scores of these clips alone.
    """
    if not len(truth.target):
        return {}
    result = _urban_scores(predictions, truth)
    verified = _is_verified(truth)
    if verified.any() and not verified.all():
        alone = _urban_scores(predictions.take(verified), truth.take(verified))
        result |= {f"verified_{k}": v for k, v in alone.items() if not k.startswith("auprc_")}
    return result


def _is_verified(truth: Truth) -> np.ndarray:
    """(N,) bool, by the column `is_verified` of the clip table; without one none is."""
    if truth.clips is None or "is_verified" not in truth.clips:
        return np.zeros(len(truth.target), bool)
    return pd.to_numeric(truth.clips.is_verified, errors="coerce").fillna(0).to_numpy() > 0


def _urban_scores(predictions: Predictions, truth: Truth) -> dict[str, float]:
    names = [
        c if urban_metrics.TAG.match(c) else f"{i}_{c}" for i, c in enumerate(map(str, predictions.classes), start=1)
    ]
    true, said = (pd.DataFrame(x, columns=names) for x in (truth.target.astype(int), predictions.clipwise_output))
    joint = urban_metrics.is_joint(names)
    if joint:
        said = urban_metrics.complete(said)
    if joint and truth.clips is not None:
        true = urban_metrics.with_incomplete(true, truth.clips.labels.fillna(""))
    levels = urban_metrics.by_level(true, said, own_coarse=True)
    found = next(iter(levels.values()))
    result = {name: found[name] for name in URBAN_SCORES}
    for level, values in levels.items() if joint else ():
        result |= {f"{level}_{name}": values[name] for name in URBAN_SCORES}
    title = {urban_metrics.parse_tag(n)[0]: c for n, c in zip(names, predictions.classes, strict=True)
             if "coarse" not in levels or not urban_metrics.parse_tag(n)[1]}  # fmt: skip
    title = title if "coarse" in levels else {k: k for k in title}
    return result | {f"auprc_{title[k]}": v for k, v in found["class_auprc"].items()}


def score_machines(predictions: Predictions, truth: Truth) -> dict[str, float]:
    """Anomaly AUC and pAUC by machine, section and domain and their means, from the anomaly scores, or where there are
    none from how sure each own section is.

    `accuracy`: how often a normal clip's own section is the best scored. Without any anomaly, only that.
    """
    if truth.clips is None:
        raise ValueError("the asd task needs the clip table: machine, section, domain, is_anomaly")
    table = anomaly_metrics.auc_table(anomaly_scores_of(predictions, truth), truth.clips)
    normal = ~anomaly_metrics.is_anomalous(truth.clips)
    result = anomaly_metrics.summary(table)
    if normal.any():
        result["accuracy"] = clip_metrics.accuracy(truth.target[normal], predictions.clipwise_output[normal])
    return result


def with_anomaly_scores(predictions: Predictions, truth: Truth) -> Predictions:
    """The predictions with an anomaly score: their own, else how unsure the network is of each clip's own section."""
    return replace(predictions, score=anomaly_scores_of(predictions, truth))


def undefined_groups(predictions: Predictions, truth: Truth) -> list[str]:
    """The machines, sections and domains without both kinds of clips, which the anomaly scores leave out."""
    table = anomaly_metrics.auc_table(np.zeros(len(truth.target)), truth.clips)
    table = table[table.auc.isna()]
    rows = zip(*(table[c] for c in (*anomaly_metrics.GROUP, "n_normal", "n_anomaly")), strict=True)
    return [f"no AUC of {m} {s} {d}: {normal} normal clips, {odd} anomalous ones" for m, s, d, normal, odd in rows]


def draw_confusion(predictions: Predictions, truth: Truth, path: Path):
    """The confusion matrix, where every clip has one label; of several labels nothing is drawn."""
    if ((truth.target > 0.5).sum(axis=1) == 1).all():
        fold_pictures.confusion(predictions, truth.target, path)


def draw_roc(predictions: Predictions, truth: Truth, path: Path):
    scores = anomaly_scores_of(predictions, truth)
    fold_pictures.roc_curves(scores, anomaly_metrics.is_anomalous(truth.clips), truth.clips, path)


TASKS: dict[str, Task] = {
    "sed": Task("sed", score_sed, "map", {"confusion.png": draw_confusion}),
    "tagging": Task("tagging", score_clips, "map", {"confusion.png": draw_confusion}),
    "scenes": Task("scenes", score_scenes, "class_mean_accuracy", {"confusion.png": draw_confusion}),
    "ust": Task("ust", score_urban, "macro_auprc"),
    "asd": Task("asd", score_machines, "auc", {"roc.png": draw_roc}, undefined_groups, with_anomaly_scores),
}


def get_task(name: str, competition: str = "") -> Task:
    """Name -> Task; an unknown name is an error with a suggestion.

    competition: its official scores are then among those of the task, in place of what has the same name there. Where
    clips of any kind define it, and no post-processing comes between, the score that it ranks by is watched.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task '{name}'{suggest(name, TASKS)}")
    task = TASKS[name]
    if not competition:
        return task
    official = get_competition(competition)
    post = official.post.start if official.post else None

    def score(predictions: Predictions, truth: Truth) -> dict[str, float]:
        return task.score(predictions, truth) | official.oof_score.of(predictions, truth, post)

    ranked = name in WATCH_RANKED and name == official.task and official.post is None
    return replace(task, score=score, watch=official.oof_score.name if ranked else task.watch)


def task_of(config: Config) -> Task:
    """The task of a run, with its competition's official scores and the score that the run watches."""
    task = get_task(config.task, config.data.competition)
    return replace(task, watch=config.watch or task.watch)


def upward(name: str, value: float) -> float:
    """A score turned so that more is better: a log loss changes its sign."""
    return -value if name in clip_metrics.LOWER_IS_BETTER else value


def score_readable(task: Task, predictions: Predictions, truth: Truth) -> dict[str, float]:
    """The task's scores over the clips that could be read, and under `unreadable` how many could not."""
    readable = ~predictions.unreadable
    scores = task.score(predictions.take(readable), truth.take(readable)) if readable.any() else {}
    return {k: float(v) for k, v in scores.items()} | {"unreadable": int(predictions.unreadable.sum())}


def defined_scores(task: Task, truth: Truth, classes, frames: bool) -> set[str]:
    """Names of the scores that these answers define, whatever is predicted; `frames`: predictions will have them.

    Found by scoring predictions that know nothing.
    """
    n, k = truth.target.shape
    if not n:
        return set()
    ends = {}
    if frames and truth.events is not None and len(truth.events):
        ends = truth.events.groupby("filename").offset.max().to_dict()
    ids = np.arange(n).astype(str) if truth.clips is None else truth.clips.clip_id.to_numpy(str)
    blank = tuple(np.full((int(np.ceil(ends.get(c, 0))) + 1, k), 1 / k, np.float32) for c in ids) if ends else None
    guess = Predictions(
        ids, tuple(classes), np.full((n, k), 1 / k, np.float32), np.zeros(n, int), np.zeros(n, bool),
        framewise_output=blank, timebase=TimeBase(1, 1) if ends else None,
    )  # fmt: skip
    return set(task.score(guess, truth))


def remarks(task: Task, predictions: Predictions, truth: Truth) -> list[str]:
    """What the scores of the readable clips leave out: the task's own lines, and a fold of one class."""
    readable = ~predictions.unreadable
    if not readable.any():
        return []
    found = np.flatnonzero((truth.target[readable] > 0.5).any(axis=0))
    lines, kept = [], truth.take(readable)
    if truth.events is not None and predictions.framewise_output is not None:
        if kept.in_time(predictions.take(readable)) is None:
            lines = ["no annotated clip has an event: no score in time (frame_map, event_f1)"]
        elif kept.annotated is not None and not kept.annotated.all():
            lines = [f"scores in time are of the {kept.annotated.sum()} annotated clips of {len(kept.annotated)}"]
    everywhere = np.flatnonzero((kept.target > 0.5).all(axis=0))
    if len(found) == 1 and len(predictions.classes) > 1:
        name = predictions.classes[found[0]]
        lines += [f"all held-out clips are of one class, {name}: the scores say nothing of the others"]
    elif len(everywhere) == len(predictions.classes):
        lines += ["every held-out clip holds every class: no score of whole clips"]
    elif len(everywhere):
        names = few([predictions.classes[k] for k in everywhere])
        lines += [f"no AP and AUC of {len(everywhere)} classes, which every held-out clip is of: {names}"]
    return lines + task.remarks(predictions.take(readable), kept)


def draw_pictures(task: Task, predictions: Predictions, truth: Truth, folder: Path):
    """The task's own pictures of the clips that could be read, where there are any."""
    readable = ~predictions.unreadable
    for name, draw in task.pictures.items() if readable.any() else ():
        draw(predictions.take(readable), truth.take(readable), folder / name)

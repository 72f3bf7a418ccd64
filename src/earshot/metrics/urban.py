"""The public evaluation of SONYC-UST (DCASE 2019 and 2020 task 5): AUPRC and F1 of coarse and fine urban sound tags.

Tags are named as the data names them: `1_engine` is coarse, `1-2_medium-sounding-engine` fine and complete,
`1-X_engine-of-uncertain-size` fine and incomplete: somebody heard an engine and cannot say which. Tables have a column
a tag and a row a clip, truth and predictions in the same order. A truth other than 0 counts as present (-1 too).

How a coarse class counts one clip at one threshold (`prediction >= threshold`), from its complete fine tags and its X:
- a complete tag that is there and predicted is a TP, there and not predicted a FN; not there and predicted a FP, unless
  the truth has the X: the predicted tag may be what was heard.
- with X in the truth and no TP so far, any prediction (X too) gives one TP; without one, and with no complete tag in
  the truth, one FN.
- a predicted X where the truth has neither X nor a complete tag is one FP (unless every complete tag is predicted).
A coarse tag is the case of one complete tag and no X; its truth is the maximum of its fine columns, X included, where
there are any.

Curves: a class's thresholds are the predictions of its complete tags from 0.01 on, and 1; the micro curve has a point
at every threshold t of any class, where each class counts at its OWN smallest threshold from t on (so that a predicted
X is cut there too, not at t). The points (R 0, P 1) and (R 1, P 0) are added, points are sorted by recall, and the area
is the trapezoids'. An empty precision or recall is 0; a class without positives has AUPRC 0, and counts in the macro
mean. Ties in recall are ordered by chance in the published code; here they keep the order of falling thresholds, which
moves a class by at most 7e-3 and the micro value by 1e-4. Checked by `check_sonyc` in tests/reference_metrics.py and
against a loop over thresholds in tests/test_metrics_ust.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from earshot.messages import plural

LEVELS = ("coarse", "fine")
MIN_THRESHOLD = 0.01
F1_THRESHOLD = 0.5
TAG = re.compile(r"(\d+)(?:-(\d+|X))?_")


@dataclass(frozen=True)
class Curve:
    """Counts of one coarse class at any threshold: `base` (3,) = TP, FP, FN where nothing is predicted; the rows of
    `change` (M, 3) are what changes, clip by clip, once the threshold reaches `values` (M,), which fall."""

    base: np.ndarray
    values: np.ndarray
    change: np.ndarray
    thresholds: np.ndarray  # (U,) falling: 1 and the complete predictions from MIN_THRESHOLD on, each once

    def counts(self, thresholds: np.ndarray) -> np.ndarray:
        """Count hits, false alarms and misses at each threshold.

        (U,) thresholds -> (U, 3) TP, FP, FN.
        """
        reached = np.searchsorted(-self.values, -np.asarray(thresholds), side="right")
        return (self.base + np.concatenate([np.zeros((1, 3), int), np.cumsum(self.change, axis=0)]))[reached]

    def counts_from(self, thresholds: np.ndarray) -> np.ndarray:
        """Count as micro averages do: (U,) thresholds -> (U, 3) TP, FP, FN at the class's own smallest threshold from
        each on; 0 without one."""
        own = self.thresholds[::-1]
        at = np.searchsorted(own, thresholds, side="left")
        counts = self.counts(own[np.minimum(at, len(own) - 1)])
        return np.where((at < len(own))[:, None], counts, 0)


def parse_tag(name: str) -> tuple[str, str]:
    """Column name -> (coarse id, fine id): ('1', '2'), ('1', 'X'), or ('1', '') for a coarse tag."""
    match = TAG.match(str(name))
    if not match:
        raise ValueError(f"'{name}' is no tag of SONYC-UST: expected a name such as 1_engine, 1-2_... or 1-X_...")
    return match[1], match[2] or ""


def coarse_truth(truth: pd.DataFrame) -> pd.DataFrame:
    """Truth columns -> (N, 8) booleans by coarse id: any of its fine tags, X included; without any its own column."""
    tags = {name: parse_tag(name) for name in truth.columns}
    columns = {}
    for coarse_id in sorted({c for c, _ in tags.values()}, key=int):
        fine = [n for n, (c, f) in tags.items() if c == coarse_id and f]
        own = [n for n, (c, f) in tags.items() if c == coarse_id and not f]
        columns[coarse_id] = (truth[fine or own].to_numpy() != 0).any(axis=1)
    return pd.DataFrame(columns, index=truth.index)


def is_joint(names) -> bool:
    """Whether tags of both levels are among the names."""
    return len({bool(parse_tag(name)[1]) for name in names}) == 2


def complete(predictions: pd.DataFrame) -> pd.DataFrame:
    """The columns without those of incomplete tags, which submissions of both levels leave out."""
    return predictions[[c for c in predictions.columns if parse_tag(c)[1] != "X"]]


def with_incomplete(truth: pd.DataFrame, labels) -> pd.DataFrame:
    """Truth of tags and the label texts of its clips -> the same with the incomplete tags that the labels name.

    Classes may leave the X out; the fine level needs it: a tag predicted where somebody heard an X is no mistake.
    """
    groups = {c for c, fine in map(parse_tag, truth.columns) if fine}
    heard = [[n for n in str(text).split() if TAG.match(n) and parse_tag(n)[1] == "X"] for text in labels]
    more = {n: [int(n in some) for some in heard] for n in sorted({n for some in heard for n in some})
            if parse_tag(n)[0] in groups and n not in truth}  # fmt: skip
    return pd.concat([truth, pd.DataFrame(more, index=truth.index)], axis=1)


def by_level(truth: pd.DataFrame, predictions: pd.DataFrame, own_coarse: bool = False) -> dict[str, dict]:
    """`evaluate` at each level that the predictions have tags of: {"coarse": ..., "fine": ...}.

    own_coarse: coarse tags are held against their own columns of the truth, where it has them: of votes that agree on
    the coarse tag alone the fine ones say too little.
    """
    found = {}
    for level in LEVELS:
        if any(bool(parse_tag(c)[1]) == (level == "fine") for c in predictions.columns):
            own = [c for c in truth.columns if not parse_tag(c)[1]]
            at = truth[own] if own_coarse and level == "coarse" and own else truth
            found[level] = evaluate(at, predictions, level)
    return found


def clip_counts(truth, predicted, true_x, predicted_x) -> np.ndarray:
    """Booleans (..., N, K), (..., N, K), (..., N), (..., N) of one coarse class -> (..., N, 3) TP, FP, FN a clip."""
    truth, predicted = np.broadcast_arrays(truth, predicted)
    true_x, predicted_x = np.broadcast_arrays(true_x, predicted_x)
    hits = (truth & predicted).sum(-1)
    wrong = np.where(true_x, 0, (~truth & predicted).sum(-1))
    missed = (truth & ~predicted).sum(-1)
    anything = predicted.any(-1) | predicted_x
    hits = hits + (true_x & anything & (hits == 0))
    missed = missed + (true_x & ~anything & ~truth.any(-1))
    wrong = wrong + (~true_x & ~truth.any(-1) & predicted_x & ~predicted.all(-1))
    return np.stack([hits, wrong, missed], axis=-1)


def class_curve(truth, scores, true_x=None, score_x=None) -> Curve:
    """Count hits, false alarms and misses of a class at all of its thresholds.

    (N, K) truth and predictions of a class's complete tags, (N,) of its X -> its counts at every threshold.

    A clip's counts change only where the threshold passes one of its own K + 1 predictions: one sort of all of them
    instead of one pass a threshold.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    n, k = scores.shape
    true_x = np.zeros(n, bool) if true_x is None else np.asarray(true_x, bool)
    score_x = np.full(n, -np.inf) if score_x is None else np.asarray(score_x, np.float64)
    every = np.column_stack([scores, score_x])
    order = np.argsort(-every, axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    active = place < np.arange(k + 2)[:, None, None]  # (steps, N, K + 1): the clip's highest 0, 1, ... predictions
    counts = clip_counts(truth, active[..., :-1], true_x, active[..., -1])
    values = np.take_along_axis(every, order, axis=1).T.ravel()
    change = np.diff(counts, axis=0).reshape(-1, 3)
    falling = np.argsort(-values, kind="stable")
    thresholds = np.unique(np.append(scores[scores >= MIN_THRESHOLD], 1.0))[::-1]
    return Curve(counts[0].sum(axis=0), values[falling], change[falling], thresholds)


def class_curves(truth: pd.DataFrame, predictions: pd.DataFrame, level: str) -> dict[str, Curve]:
    """Tables of tags -> {coarse id: Curve}. The classes are the truth's; a prediction column that is not there is 0."""
    if level not in LEVELS:
        raise ValueError(f"level is '{level}': choose coarse or fine")
    if len(truth) != len(predictions) or not len(truth):
        raise ValueError(
            f"{plural(len(truth), 'clips')} of truth for {len(predictions)} predictions: give the same, in one order"
        )
    scores = {parse_tag(name): predictions[name].to_numpy(np.float64) for name in predictions.columns}
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise ValueError("a prediction is no finite number")
    zero = np.zeros(len(truth))
    if level == "coarse":
        coarse = coarse_truth(truth)
        return {c: class_curve(coarse[[c]], scores.get((c, ""), zero)[:, None]) for c in coarse.columns}
    tags = {parse_tag(name): truth[name].to_numpy() != 0 for name in truth.columns}
    curves = {}
    for coarse_id in sorted({c for c, fine in tags if fine}, key=int):
        complete = [t for t in tags if t[0] == coarse_id and t[1] not in ("", "X")]
        curves[coarse_id] = class_curve(
            np.column_stack([tags[t] for t in complete]), np.column_stack([scores.get(t, zero) for t in complete]),
            tags.get((coarse_id, "X")), scores.get((coarse_id, "X")),
        )  # fmt: skip
    if not curves:
        raise ValueError("the truth has no fine tag: score the coarse level")
    return curves


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn counts, (..., 3), into precision and recall, 0 where nothing is predicted, or nothing is there."""
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    return tp / np.maximum(tp + fp, 0.5), tp / np.maximum(tp + fn, 0.5)


def auprc(precision: np.ndarray, recall: np.ndarray) -> float:
    """Compute the area under a curve of precision by recall.

    (U,) points by falling threshold -> area, with (R 0, P 1) and (R 1, P 0) added; ties in recall stay in order.
    """
    precision, recall = np.r_[1.0, precision, 0.0], np.r_[0.0, recall, 1.0]
    order = np.argsort(recall, kind="stable")
    return float(np.trapezoid(precision[order], recall[order]))


def evaluate(truth: pd.DataFrame, predictions: pd.DataFrame, level: str = "coarse") -> dict:
    """Tables of tags (N clips) -> the public evaluation's values.

    `macro_auprc` (mean of the classes'), `micro_auprc`, `class_auprc` {coarse id: value}, `micro_f1` at the smallest
    threshold from 0.5 on (`threshold`; 1 and an F1 of 0 where no prediction reaches 0.5) with its `tp, fp, fn`,
    `n_thresholds`, and `auprc_of_macro_curve`: the area under mean precision against mean recall of the classes, which
    is the equation of the SE-Trans paper.
    """
    curves = class_curves(truth, predictions, level)
    class_auprc = {c: auprc(*precision_recall(curve.counts(curve.thresholds))) for c, curve in curves.items()}
    thresholds = np.unique(np.concatenate([c.thresholds for c in curves.values()]))[::-1]
    by_class = np.stack([c.counts(thresholds) for c in curves.values()])  # (classes, U, 3)
    total = sum(c.counts_from(thresholds) for c in curves.values())
    precision, recall = precision_recall(by_class)
    at = np.flatnonzero(thresholds >= F1_THRESHOLD)[-1]
    tp, fp, fn = (int(v) for v in total[at])
    return {
        "macro_auprc": float(np.mean(list(class_auprc.values()))),
        "micro_auprc": auprc(*precision_recall(total)),
        "micro_f1": 2 * tp / max(2 * tp + fp + fn, 1),
        "class_auprc": class_auprc,
        "auprc_of_macro_curve": auprc(precision.mean(axis=0), recall.mean(axis=0)),
        "threshold": float(thresholds[at]),
        "tp": tp, "fp": fp, "fn": fn, "n_thresholds": len(thresholds),
    }  # fmt: skip

"""Scores of clips on plain arrays, each in agreement with the scorer that decides in its competition.

Conventions. `truth` (N, K) holds 0 and 1, `scores` (N, K) finite numbers: a row a clip, a column a class;
anomaly scores are (N,). A decision is `score >= threshold`, compared in the dtype of the scores, as kernels
do. A class that a score cannot rate is NaN in a (K,) result and left out of a mean, which then is a
`ClassMean`: a float that knows how many classes it stands for. Wrong input is a ValueError.

| function | agrees with | to | shown by |
|---|---|---|---|
| macro_f1, micro_f1, macro_f1_argmax | scikit-learn's f1_score | 1e-12 | test_f1_equals_sklearn |
| row_micro_f1 | Birdcall 2020, BirdCLEF 2021: `nocall` is a label | hand | test_row_micro_f1_by_hand |
| macro_roc_auc | BirdCLEF 2024-26 where that has a value | 1e-12 | test_macro_roc_auc_equals_official |
| padded_cmap | BirdCLEF 2023: ones under truth AND scores | 1e-12 | test_padded_cmap_pads_both_with_ones |
| lwlrap | label_ranking_average_precision_score weighted by labels | 1e-12 | check_lwlrap |
| auc, pauc, precision_recall_f1 | DCASE Task 2; pAUC McClish-standardised | 1e-12 | check_asd |
| class_mean_accuracy, log_loss | scikit-learn | 1e-12 | test_single_label_equals_sklearn |

`check_*` are in tests/reference_metrics.py and compare with values from other people's code, the tests are in
tests/test_metrics.py. Where a number is not the published code's: the official macro ROC-AUC fails or is NaN
with a class of only positives, ours skips it; per_class_lwlrap is NaN, not 0, for a class without positives
(weight 0 in both); the NumPy form of lwlrap orders ties by chance, ours counts them at the worst rank, as
scikit-learn's does. Events and PSDS are in `metrics/events.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy.stats import hmean, norm
from sklearn import metrics as sk

from earshot.metrics.ranking import BLOCK, Ranking, f1

LOWER_IS_BETTER = ("log_loss", "class_mean_log_loss")  # names of scores
PADDING = 5  # rows of ones of padded_cmap


class ClassMean(float):
    """Mean over the classes that could be scored; `n_scored` and `n_skipped` say how many those are."""

    def __new__(cls, mean: float, n_scored: int, n_skipped: int):
        self = super().__new__(cls, mean)
        self.n_scored, self.n_skipped = n_scored, n_skipped
        return self

    def __getnewargs__(self):  # for copy and pickle
        return float(self), self.n_scored, self.n_skipped


def class_mean(per_class: np.ndarray) -> ClassMean:
    """Mean of (K,) values over the classes that could be scored; the others are NaN."""
    scored = ~np.isnan(per_class)
    if not scored.any():
        raise ValueError(f"none of {len(scored)} classes can be scored: positives or negatives are missing")
    return ClassMean(np.mean(per_class[scored]), int(scored.sum()), int((~scored).sum()))


# ---------------------------------------------------------------- what comes in


def _binary(truth, what: str = "truth") -> np.ndarray:
    """Anything array-like -> booleans of the same shape; every value must be 0 or 1."""
    truth = np.asarray(truth)
    if len(truth.shape) == 0 or truth.size == 0:
        raise ValueError(f"{what} of shape {truth.shape} has nothing to score")
    if truth.dtype == bool:
        return truth
    wrong = ~np.isin(truth, (0, 1))
    if wrong.any():
        raise ValueError(f"{what} must hold 0 and 1 only, got {truth[wrong][0]}: threshold soft labels first")
    return truth.astype(bool)


def _check(truth, scores, ndim: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Truth as booleans and scores as floats of the dtype they came in, of equal shape, or a ValueError."""
    truth, scores = _binary(truth), np.asarray(scores)
    if truth.shape != scores.shape:
        raise ValueError(f"truth is {truth.shape}, scores are {scores.shape}: give the same rows and classes")
    if truth.ndim != ndim:
        raise ValueError(f"expected {'(N, K)' if ndim == 2 else '(N,)'} arrays, got shape {truth.shape}")
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        first = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise ValueError(f"scores hold {scores[tuple(first)]} at {first}: every score must be finite")
    return truth, scores


def _check_single(truth, scores) -> tuple[np.ndarray, np.ndarray]:
    """As `_check`, and every row of the truth has exactly one label."""
    truth, scores = _check(truth, scores)
    labels = truth.sum(axis=1)
    if (labels != 1).any():
        row = int(np.argmax(labels != 1))
        raise ValueError(
            f"row {row} has {labels[row]} labels: this score needs exactly one a row ({(labels != 1).sum()} of "
            f"{len(labels)} have not)"
        )
    return truth, scores


def _check_anomaly(truth, scores) -> tuple[np.ndarray, np.ndarray]:
    """As `_check` for (N,) arrays, and the truth has both normal and anomalous clips."""
    truth, scores = _check(truth, scores, ndim=1)
    if truth.all() or not truth.any():
        what = "anomalous" if truth[0] else "normal"
        raise ValueError(f"all {len(truth)} clips are {what}: an AUC needs both kinds")
    return truth, scores


def _decide(scores: np.ndarray, threshold) -> np.ndarray:
    """(N, K) floats and one threshold, or (K,), -> (N, K) booleans: `>=` in the dtype of the scores."""
    threshold = np.asarray(threshold, dtype=scores.dtype)
    if threshold.shape not in ((), (scores.shape[1],)):
        raise ValueError(f"{threshold.shape} thresholds for {scores.shape[1]} classes: give 1 or 1 a class")
    if np.isnan(threshold).any():
        raise ValueError("a threshold is NaN: use inf for a class that is never to be predicted")
    return scores >= threshold


# ---------------------------------------------------------------- F1 and its thresholds


def macro_f1(truth, scores, threshold=0.5) -> float:
    """Mean over classes of F1 at one threshold, or at (K,); a class never there nor predicted has 0."""
    truth, scores = _check(truth, scores)
    positive = _decide(scores, threshold)
    return float(np.mean(f1((truth & positive).sum(0), positive.sum(0), truth.sum(0), empty=0.0)))


def micro_f1(truth, scores, threshold=0.5) -> float:
    """F1 over all N * K decisions at one threshold, or at (K,)."""
    truth, scores = _check(truth, scores)
    positive = _decide(scores, threshold)
    return float(f1((truth & positive).sum(), positive.sum(), truth.sum(), empty=0.0))


def row_micro_f1_at(truth, scores, threshold=0.5) -> float:
    """`row_micro_f1` of the rows that one threshold, or (K,), gives; an empty row is `nocall` in both."""
    truth, scores = _check(truth, scores)
    positive = _decide(scores, threshold)
    return float(np.mean(f1((truth & positive).sum(1), positive.sum(1), truth.sum(1), empty=1.0)))


def row_micro_f1(truth_rows: Iterable[str], predicted_rows: Iterable[str]) -> float:
    """Mean over rows of 2 TP / (2 TP + FP + FN); a row is its labels between spaces, `nocall` one of them."""
    truth_rows, predicted_rows = list(truth_rows), list(predicted_rows)
    if len(truth_rows) != len(predicted_rows) or not truth_rows:
        raise ValueError(f"{len(truth_rows)} truth rows, {len(predicted_rows)} predicted: they must pair up")
    score = 0.0
    for index, (truth, predicted) in enumerate(zip(truth_rows, predicted_rows)):
        truth, predicted = _labels(truth, f"truth row {index}"), _labels(predicted, f"predicted row {index}")
        score += 2 * len(truth & predicted) / (len(truth) + len(predicted))
    return score / len(truth_rows)


def _labels(row: str, where: str) -> set[str]:
    labels = set(row.split()) if isinstance(row, str) else set()
    if not labels:
        raise ValueError(f"{where} is {row!r}: a row without a bird must say nocall")
    return labels


def macro_f1_argmax(truth, scores) -> float:
    """Macro F1 of each row's best-scored class against its (first) label, over classes that occur."""
    truth, scores = _check(truth, scores)
    if not truth.any(axis=1).all():
        raise ValueError(f"row {np.argmin(truth.any(axis=1))} has no label: its arg-max would be class 0")
    own, said, k = truth.argmax(1), scores.argmax(1), truth.shape[1]
    actual, predicted, hits = (np.bincount(each, minlength=k) for each in (own, said, own[own == said]))
    return float(f1(hits, predicted, actual, empty=0.0)[actual + predicted > 0].mean())


def best_threshold(
    truth, scores, metric: Callable = macro_f1, grid=None, ranking: Ranking | None = None
) -> tuple[float, float]:
    """Find the first threshold of a grid with the highest `metric(truth, scores, threshold)`: (threshold, score).

    Without a grid the search is exact, for macro_f1, micro_f1 and row_micro_f1_at: it tries every distinct
    score in O(NK log NK) and returns the middle of the best gap between two, the highest gap on a tie. ranking: of
    these arrays, where it was made before.
    """
    truth, scores = _check(truth, scores)
    if grid is not None:
        grid = list(grid)
        values = [metric(truth, scores, threshold) for threshold in grid]
        if not values:
            raise ValueError("the grid of thresholds is empty")
        threshold = float(grid[int(np.argmax(values))])
    elif metric is row_micro_f1_at:
        threshold, _ = Ranking(truth.T, scores.T).sweep(empty=1.0)
    elif metric in (macro_f1, micro_f1):
        mean, together = (ranking or Ranking(truth, scores)).best_f1
        threshold = mean if metric is macro_f1 else together
    else:
        raise ValueError("exact search knows macro_f1, micro_f1 and row_micro_f1_at: give a grid")
    return threshold, float(metric(truth, scores, threshold))


def best_thresholds(truth, scores, grid=None, default: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Find the threshold of the highest F1 for each class.

    (K,) thresholds of the highest F1 and those F1; a class without positives gets `default` and NaN.
    """
    truth, scores = _check(truth, scores)
    thresholds, best = np.full(truth.shape[1], default), np.full(truth.shape[1], np.nan)
    for k in np.flatnonzero(truth.any(axis=0)):
        thresholds[k], best[k] = best_threshold(truth[:, [k]], scores[:, [k]], macro_f1, grid)
    return thresholds, best


# ---------------------------------------------------------------- ranking


def ranked(truth, scores) -> Ranking:
    """Each class's clips in falling order of score, for several of the figures below."""
    return Ranking(*_check(truth, scores))


def average_precision(truth, scores) -> np.ndarray:
    """Average precision of each class, (K,): NaN for one without positives, or negatives (any ranking has 1 there)."""
    return ranked(truth, scores).average_precision()


def mean_average_precision(truth, scores) -> ClassMean:
    """Mean of the average precision over the classes with positives and negatives (AudioSet's mAP)."""
    return class_mean(average_precision(truth, scores))


def roc_auc(truth, scores) -> np.ndarray:
    """Area under the ROC curve of each class, (K,): NaN for one without positives or without negatives."""
    return ranked(truth, scores).roc_auc()


def macro_roc_auc(truth, scores) -> ClassMean:
    """Mean ROC-AUC over the classes with positives and negatives (BirdCLEF 2024 to 2026)."""
    return class_mean(roc_auc(truth, scores))


def mean_of_d_primes(auc: np.ndarray) -> ClassMean:
    """Mean of the d-primes of (K,) areas under the ROC curve, NaN where there is none; not finite with one of 0 or 1.

    AudioSet's figure is the d-prime of the mean area instead.
    """
    with np.errstate(invalid="ignore"):  # inf - inf, of a perfect class and one that is all wrong
        return class_mean(d_prime(auc))


def padded_cmap(truth, scores, padding: int = PADDING) -> float:
    """Macro average precision after `padding` rows of ones under both arrays (BirdCLEF 2023).

    They keep a class without positives scorable. Zeros, or rows under the truth alone, give other numbers.
    """
    truth, scores = _check(truth, scores)
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f"scores reach from {scores.min()} to {scores.max()}: rows of ones need [0, 1]")
    if padding < 1 and not truth.any(axis=0).all():
        raise ValueError(f"padding {padding} leaves classes without positives: at least one row is needed")
    return float(Ranking(truth, scores).padded_precision(padding).mean())


def lwlrap(truth, scores) -> float:
    """Label-weighted label-ranking average precision: mean over positives of the precision at their rank."""
    truth, _, precision = _precision_at_positives(truth, scores)
    return float(precision.sum() / truth.sum())


def per_class_lwlrap(truth, scores) -> tuple[np.ndarray, np.ndarray]:
    """Compute the label-weighted ranking precision of each class, and the weights of their mean.

    (K,) lwlrap, NaN without positives, and (K,) weights: `nansum(values * weights)` is `lwlrap`.
    """
    truth, column, precision = _precision_at_positives(truth, scores)
    labels, total = truth.sum(axis=0), np.bincount(column, precision, truth.shape[1])
    return np.where(labels > 0, total / np.maximum(labels, 1), np.nan), labels / labels.sum()


def _precision_at_positives(truth, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, K) booleans; of each positive its class and the share of positives among scores of its row not below it."""
    truth, scores = _check(truth, scores)
    if not truth.any():
        raise ValueError("the truth has no positive at all: lwlrap is not defined")
    row, column = np.nonzero(truth)
    precision = np.empty(len(row))
    step = max(1, BLOCK // truth.shape[1])
    for at in range(0, len(row), step):  # ties count at the worst rank
        i, k = row[at : at + step], column[at : at + step]
        not_below = scores[i] >= scores[i, k][:, None]
        precision[at : at + step] = (not_below & truth[i]).sum(axis=1) / not_below.sum(axis=1)
    return truth, column, precision


# ---------------------------------------------------------------- one label a clip


def accuracy(truth, scores) -> float:
    """Share of rows whose best-scored class is their one label."""
    truth, scores = _check_single(truth, scores)
    return float(np.mean(truth.argmax(1) == scores.argmax(1)))


def class_mean_accuracy(truth, scores) -> ClassMean:
    """Mean over the classes that occur of the share of their rows that are right (DCASE Task 1)."""
    truth, scores = _check_single(truth, scores)
    right = truth & (truth.argmax(1) == scores.argmax(1))[:, None]
    rows = truth.sum(axis=0)
    return class_mean(np.where(rows > 0, right.sum(axis=0) / np.maximum(rows, 1), np.nan))


def log_loss(truth, probabilities) -> float:
    """Mean over rows of -log of the probability given to the one label, in float64 (a 0 counts as 2e-16)."""
    truth, probabilities = _check_single(truth, probabilities)
    total = probabilities.sum(axis=1, dtype=np.float64)
    wrong = (probabilities < 0).any(axis=1) | (np.abs(total - 1) > 1e-3)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row} holds no probabilities (sum {total[row]:.4g}): apply softmax first")
    given = (probabilities.astype(np.float64) / total[:, None])[truth]
    return float(-np.mean(np.log(np.maximum(given, np.finfo(np.float64).eps))))


# ---------------------------------------------------------------- anomalies


def auc(truth, scores) -> float:
    """Area under the ROC curve of (N,) anomaly scores; truth 1 = anomalous."""
    return float(sk.roc_auc_score(*_check_anomaly(truth, scores)))


def pauc(truth, scores, max_fpr: float = 0.1) -> float:
    """Area up to a false positive rate of `max_fpr`, McClish-standardised: chance is 0.5, perfect is 1."""
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr is {max_fpr}: it must be above 0 and at most 1")
    return float(sk.roc_auc_score(*_check_anomaly(truth, scores), max_fpr=max_fpr))


def precision_recall_f1(truth, positive, empty: float = 0.0) -> tuple[float, float, float]:
    """Precision, recall and F1 of (N,) decisions; `empty` is what 0 / 0 counts as. DCASE Task 2: `score > threshold`.

    Precision is undefined without a positive decision, recall without a positive truth, F1 without either.
    """
    truth, positive = _binary(truth), _binary(positive, "positive")
    if truth.shape != positive.shape or truth.ndim != 1:
        raise ValueError(f"truth is {truth.shape} and decisions are {positive.shape}: both must be (N,)")
    hits = (truth & positive).sum()
    precision, recall = (float(hits / n) if n else empty for n in (positive.sum(), truth.sum()))
    return precision, recall, float(f1(hits, positive.sum(), truth.sum(), empty=empty))


def harmonic_mean(values) -> float:
    """Harmonic mean of AUCs over machines and sections; a 0 counts as 2.2e-16, as in DCASE's evaluator."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not (values >= 0).all():
        raise ValueError(f"a harmonic mean needs values of at least 0, got {values.ravel().tolist()}")
    return float(hmean(np.maximum(values.ravel(), np.finfo(np.float64).eps)))


def d_prime(auc):
    """sqrt(2) * z(AUC): standard deviations between two normal score distributions with this AUC; NaN stays NaN."""
    values = np.asarray(auc, dtype=np.float64)
    if not ((values >= 0) & (values <= 1) | np.isnan(values)).all():
        raise ValueError(f"an AUC lies between 0 and 1, got {auc}")
    distance = np.sqrt(2) * norm.ppf(values)
    return float(distance) if distance.ndim == 0 else distance

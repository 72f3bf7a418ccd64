"""Clip-level scores: values derivable by hand, scikit-learn or a slow twin beside ours, properties."""

import copy
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from sklearn import metrics as sk

from earshot.metrics import clips as clip_metrics


@st.composite
def scored(draw, min_classes=1):
    """(truth (N, K), scores (N, K)) with many ties, at least one positive."""
    shape = (draw(st.integers(1, 7)), draw(st.integers(min_classes, 4)))
    truth = draw(arrays(np.int8, shape, elements=st.integers(0, 1)))
    truth[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = 1
    return truth, draw(arrays(np.int8, shape, elements=st.integers(0, 6))) / 8


def random_case(seed, n=40, k=6, rate=0.3):
    rng = np.random.default_rng(seed)
    return (rng.random((n, k)) < rate).astype(int), rng.random((n, k)).round(2)


def one_hot(labels, k):
    return np.eye(k, dtype=int)[np.asarray(labels)]


# ---------------------------------------------------------------- F1


@pytest.mark.parametrize("seed", range(3))
def test_f1_equals_sklearn(seed):
    truth, scores = random_case(seed)
    truth[:, 2] = 0  # a class that is never there
    scores[:, 3] = 0  # a class that is never predicted
    per_class = np.linspace(0.2, 0.8, 6)
    for threshold in (0.5, per_class):
        positive = scores >= threshold
        for name, ours in (("macro", clip_metrics.macro_f1), ("micro", clip_metrics.micro_f1)):
            expected = sk.f1_score(truth, positive, average=name, zero_division=0)
            assert ours(truth, scores, threshold) == pytest.approx(expected, abs=1e-12)
    truth[:, 0] |= ~truth.any(axis=1)
    expected = sk.f1_score(truth.argmax(1), scores.argmax(1), average="macro")
    assert clip_metrics.macro_f1_argmax(truth, scores) == pytest.approx(expected, abs=1e-12)


def test_f1_by_hand():
    truth = [[1, 0], [1, 0], [0, 1], [0, 0]]
    scores = [[0.9, 0.1], [0.4, 0.2], [0.6, 0.5], [0.1, 0.1]]
    # class 0: TP 1, FP 1, FN 1 -> 1/2; class 1: TP 1 -> 1; together TP 2, FP 1, FN 1 -> 2/3
    assert clip_metrics.macro_f1(truth, scores) == pytest.approx(0.75)
    assert clip_metrics.micro_f1(truth, scores) == pytest.approx(2 / 3)
    assert clip_metrics.macro_f1(truth, scores, [0.4, 0.5]) == pytest.approx((0.8 + 1) / 2)
    best_of = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]  # 0, 1, 0 for 0, 1, 1: F1 2/3 each
    assert clip_metrics.macro_f1_argmax([[1, 0], [0, 1], [0, 1]], best_of) == pytest.approx(2 / 3)


def test_a_score_on_the_threshold_is_positive_in_its_own_dtype():
    # float32(0.7) is below 0.7: compared as float64 it would be a miss that the kernel does not make
    assert clip_metrics.micro_f1([[1]], np.array([[0.7]], dtype=np.float32), 0.7) == 1
    assert clip_metrics.micro_f1([[1]], [[0.7]], 0.7) == 1


@given(scored())
def test_exact_threshold_search_equals_trying_all(case):
    truth, scores = case
    for metric in (clip_metrics.macro_f1, clip_metrics.micro_f1, clip_metrics.row_micro_f1_at):
        candidates = [*np.unique(scores), scores.max() + 1]
        brute = max(metric(truth, scores, t) for t in candidates)
        threshold, score = clip_metrics.best_threshold(truth, scores, metric)
        assert score == pytest.approx(brute, abs=1e-12)
        assert score == metric(truth, scores, threshold)


def test_best_threshold_lies_in_the_middle_of_its_gap():
    truth, scores = [[1], [1], [0], [0]], [[0.9], [0.7], [0.3], [0.1]]
    assert clip_metrics.best_threshold(truth, scores) == (0.5, 1.0)
    assert clip_metrics.best_threshold(truth, scores, grid=[0.1, 0.4, 0.6]) == (0.4, 1.0)
    assert clip_metrics.best_threshold(truth, scores, grid=(t / 10 for t in (2, 6))) == (0.6, 1.0)
    assert clip_metrics.best_threshold([[0], [0]], [[0.2], [0.9]], clip_metrics.row_micro_f1_at)[0] > 0.9  # all nocall
    neighbours = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]], dtype=np.float32)
    assert clip_metrics.best_threshold([[0], [1]], neighbours)[1] == 1  # no float lies between the two


def test_best_threshold_takes_other_metrics_on_a_grid():
    def share_right(truth, scores, threshold):
        return float(np.mean((np.asarray(scores) >= threshold) == np.asarray(truth)))

    truth, scores = [[1, 0], [0, 1]], [[0.8, 0.3], [0.2, 0.6]]
    assert clip_metrics.best_threshold(truth, scores, share_right, grid=[0.1, 0.5, 0.9]) == (0.5, 1.0)
    with pytest.raises(ValueError, match="give a grid"):
        clip_metrics.best_threshold(truth, scores, share_right)
    with pytest.raises(ValueError, match="grid of thresholds is empty"):
        clip_metrics.best_threshold(truth, scores, grid=[])


def test_best_thresholds_per_class_are_never_worse_than_one_for_all():
    truth, scores = random_case(5)
    truth[:, 4] = 0
    thresholds, best = clip_metrics.best_thresholds(truth, scores, default=0.25)
    assert thresholds[4] == 0.25
    assert np.isnan(best[4])
    assert clip_metrics.macro_f1(truth, scores, thresholds) == pytest.approx(np.nansum(best) / 6)
    assert clip_metrics.macro_f1(truth, scores, thresholds) >= clip_metrics.best_threshold(truth, scores)[1]
    on_grid, best_on_grid = clip_metrics.best_thresholds(truth, scores, grid=[0.3, 0.6])
    assert set(on_grid) <= {0.3, 0.6, 0.5}
    assert np.nansum(best_on_grid) <= np.nansum(best)


# ---------------------------------------------------------------- rows of labels


def test_row_micro_f1_by_hand():
    truth = ["aldfly ameavo", "nocall", "nocall", "aldfly"]
    predicted = ["ameavo amebit", "nocall", "aldfly", "nocall"]
    # TP 1, FP 1, FN 1 -> 1/2; nocall right -> 1; nocall against a bird, either way -> 0
    assert clip_metrics.row_micro_f1(truth, predicted) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert clip_metrics.row_micro_f1(["a b"], ["b a b"]) == 1  # a row is a set


@pytest.mark.parametrize("empty", ["", "  ", None, float("nan")])
def test_an_empty_row_must_say_nocall(empty):
    with pytest.raises(ValueError, match=r"predicted row 1 .* must say nocall"):
        clip_metrics.row_micro_f1(["nocall", "nocall"], ["nocall", empty])
    with pytest.raises(ValueError, match=r"truth row 0 .* must say nocall"):
        clip_metrics.row_micro_f1([empty], ["nocall"])


@given(scored())
def test_rows_from_arrays_equal_rows_from_strings(case):
    def rows(positive):
        return [" ".join(f"bird{k}" for k in np.flatnonzero(row)) or "nocall" for row in positive]

    truth, scores = case
    expected = clip_metrics.row_micro_f1(rows(truth), rows(scores >= 0.4))
    assert clip_metrics.row_micro_f1_at(truth, scores, 0.4) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------- ranking


def test_average_precision_by_hand_and_skipped_classes():
    truth, scores = [[1, 0], [0, 0], [1, 0], [0, 0]], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
    assert clip_metrics.average_precision(truth, scores)[0] == pytest.approx((1 + 2 / 3) / 2)
    mean = clip_metrics.mean_average_precision(truth, scores)
    assert (mean.n_scored, mean.n_skipped) == (1, 1)
    assert mean == pytest.approx(5 / 6)
    always = [[1, 1], [0, 1], [1, 1], [0, 1]]  # without negatives any ranking has 1: that is no score
    assert np.isnan(clip_metrics.average_precision(always, scores)).tolist() == [False, True]
    mean = clip_metrics.mean_average_precision(always, scores)
    assert (mean, mean.n_scored, mean.n_skipped) == (pytest.approx(5 / 6), 1, 1)


def test_a_class_mean_is_a_float_that_survives_copy_and_pickle():
    mean = clip_metrics.ClassMean(0.25, 3, 2)
    for same in (copy.deepcopy(mean), pickle.loads(pickle.dumps(mean))):
        assert (float(same), same.n_scored, same.n_skipped) == (0.25, 3, 2)
    assert f"{mean:.3f}" == "0.250"


def official_macro_roc_auc(truth, scores):
    """BirdCLEF 2024: the classes with a positive, scikit-learn's macro average."""
    scored_classes = truth.sum(axis=0) > 0
    return sk.roc_auc_score(truth[:, scored_classes], scores[:, scored_classes], average="macro")


def test_macro_roc_auc_equals_official():
    truth, scores = random_case(1)
    truth[:, 2] = 0
    mean = clip_metrics.macro_roc_auc(truth, scores)
    assert mean == pytest.approx(official_macro_roc_auc(truth, scores), abs=1e-12)
    assert (mean.n_scored, mean.n_skipped) == (5, 1)


def test_macro_roc_auc_skips_a_class_with_only_positives():  # pitfall (a)
    truth, scores = random_case(1)
    without = clip_metrics.macro_roc_auc(truth[:, 1:], scores[:, 1:])
    truth[:, 0] = 1
    with pytest.warns(match="Only one class"):  # older versions raise; either way the official number is lost
        assert np.isnan(official_macro_roc_auc(truth, scores))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = clip_metrics.macro_roc_auc(truth, scores)
    assert mean == pytest.approx(without)
    assert (mean.n_scored, mean.n_skipped) == (5, 1)
    with pytest.raises(ValueError, match="none of 2 classes can be scored"):
        clip_metrics.macro_roc_auc([[1, 0], [1, 0]], [[0.1, 0.2], [0.3, 0.4]])


@given(scored())
def test_roc_auc_is_the_share_of_pairs_in_order(case):
    truth, scores = case
    for k, value in enumerate(clip_metrics.roc_auc(truth, scores)):
        high, low = scores[truth[:, k] == 1, k], scores[truth[:, k] == 0, k]
        pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
        assert np.isnan(value) if not pairs else value == pytest.approx(np.mean(pairs))


def test_padded_cmap_pads_both_with_ones():  # pitfall (b)
    truth, scores = random_case(2, rate=0.1)
    truth[:, 0] = 0
    ones, zeros = np.ones((5, 6)), np.zeros((5, 6))
    ours = clip_metrics.padded_cmap(truth, scores)

    def padded(under_truth, under_scores):
        return sk.average_precision_score(np.vstack([truth, under_truth]), np.vstack([scores, under_scores]))

    assert ours == pytest.approx(padded(ones, ones), abs=1e-12)
    assert abs(ours - padded(ones, zeros)) > 0.1
    with pytest.warns(match="No positive"):
        assert abs(ours - padded(zeros, zeros)) > 0.1
    assert clip_metrics.padded_cmap([[0]], [[0.2]]) == 1  # no positive of its own: only the five that rank on top
    assert clip_metrics.padded_cmap([[1], [0]], [[0.2], [0.5]]) == pytest.approx((5 * 1 + 6 / 7) / 6)
    assert clip_metrics.padded_cmap([[1], [0]], [[1.0], [0.0]]) == 1
    for beyond in (1.001, -0.001):
        with pytest.raises(ValueError, match=r"rows of ones need \[0, 1\]"):
            clip_metrics.padded_cmap([[1], [0]], [[0.2], [beyond]])


def slow_lwlrap(truth, scores):
    """Mean over positives of hits above or at the positive's score, divided by all scores above or at it."""
    total = [
        Fraction(sum(t for t, s in zip(row, line) if s >= line[k]), sum(1 for s in line if s >= line[k]))
        for row, line in zip(truth.tolist(), scores.tolist())
        for k in range(len(row))
        if row[k]
    ]
    return sum(total) / len(total)


@given(scored())
def test_lwlrap_equals_slow_twin_and_sklearn(case):
    truth, scores = case
    ours = clip_metrics.lwlrap(truth, scores)
    assert ours == pytest.approx(float(slow_lwlrap(truth, scores)), abs=1e-12)
    weight = truth.sum(axis=1)
    if truth.shape[1] > 1:  # scikit-learn wants at least two labels
        used = weight > 0
        official = sk.label_ranking_average_precision_score
        expected = official(truth[used], scores[used], sample_weight=weight[used])
        assert ours == pytest.approx(expected, abs=1e-12)
    values, weights = clip_metrics.per_class_lwlrap(truth, scores)
    assert ours == pytest.approx(np.nansum(values * weights), abs=1e-12)


def test_lwlrap_weights_classes_by_their_labels():  # pitfall (d)
    truth = [[1, 0, 0], [1, 0, 0], [1, 1, 0]]
    scores = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.1], [0.7, 0.5, 0.6]]
    # class 0: precisions 1, 1/2, 1; class 1: 2/3 (two of the three scores from 0.5 up are positive)
    values, weights = clip_metrics.per_class_lwlrap(truth, scores)
    assert values[:2].tolist() == pytest.approx([5 / 6, 2 / 3])
    assert np.isnan(values[2])
    assert weights.tolist() == [0.75, 0.25, 0]
    assert clip_metrics.lwlrap(truth, scores) == pytest.approx(0.75 * 5 / 6 + 0.25 * 2 / 3)
    assert clip_metrics.lwlrap([*truth, [0, 0, 0]], [*scores, [0, 1, 0]]) == clip_metrics.lwlrap(truth, scores)
    assert clip_metrics.lwlrap([[1, 0, 0, 0]], [[0.5] * 4]) == 0.25  # a tie counts at the worst rank
    with pytest.raises(ValueError, match="no positive at all"):
        clip_metrics.lwlrap([[0, 0]], [[0.1, 0.2]])


@given(scored(min_classes=2), st.randoms(use_true_random=False))
def test_ranking_scores_ignore_order_and_scale(case, random):
    truth, scores = case
    assume((truth.any(axis=0) & ~truth.all(axis=0)).any())  # else no class has an average precision
    rows, columns = list(range(truth.shape[0])), list(range(truth.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = truth[rows][:, columns], np.exp(3 * scores[rows][:, columns])
    assert clip_metrics.lwlrap(*shuffled) == pytest.approx(clip_metrics.lwlrap(truth, scores), abs=1e-12)
    mean = clip_metrics.mean_average_precision(truth, scores)
    assert clip_metrics.mean_average_precision(*shuffled) == pytest.approx(mean, abs=1e-12)


# ---------------------------------------------------------------- one label a clip


def test_accuracies_by_hand():
    truth, scores = one_hot([0, 0, 0, 1], 3), one_hot([0, 0, 1, 1], 3) * 0.9
    assert clip_metrics.accuracy(truth, scores) == 0.75
    mean = clip_metrics.class_mean_accuracy(truth, scores)
    assert mean == pytest.approx((2 / 3 + 1) / 2)
    assert (mean.n_scored, mean.n_skipped) == (2, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_label_equals_sklearn(dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    raw = rng.random((50, 4))
    probabilities = (raw / raw.sum(axis=1, keepdims=True)).astype(dtype)
    truth, best = one_hot(labels, 4), probabilities.argmax(axis=1)
    assert clip_metrics.accuracy(truth, probabilities) == pytest.approx(sk.accuracy_score(labels, best), abs=1e-12)
    recalls = sk.balanced_accuracy_score(labels, best)
    assert clip_metrics.class_mean_accuracy(truth, probabilities) == pytest.approx(recalls, abs=1e-12)
    double = probabilities.astype(np.float64)
    expected = sk.log_loss(labels, double / double.sum(axis=1, keepdims=True))
    assert clip_metrics.log_loss(truth, probabilities) == pytest.approx(expected, abs=1e-12)


def test_log_loss_by_hand():
    even = clip_metrics.log_loss(one_hot([0, 1], 2), [[0.5, 0.5], [0.75, 0.25]])
    assert even == pytest.approx(1.5 * np.log(2))
    wrong = clip_metrics.log_loss(one_hot([0], 2), [[0.0, 1.0]])
    assert wrong == pytest.approx(52 * np.log(2))  # a 0 counts as 2^-52
    with pytest.raises(ValueError, match=r"row 1 holds no probabilities \(sum 1.5\): apply softmax"):
        clip_metrics.log_loss(one_hot([0, 1], 2), [[0.5, 0.5], [0.5, 1.0]])
    with pytest.raises(ValueError, match="row 0 holds no probabilities"):
        clip_metrics.log_loss(one_hot([0], 2), [[-0.5, 1.5]])


# ---------------------------------------------------------------- anomalies


def test_pauc_is_the_mcclish_standardised_area():  # pitfall (e)
    truth = np.repeat([0, 1], [20, 10])
    assert clip_metrics.pauc(truth, np.repeat([0, 1], [20, 10])) == 1
    assert clip_metrics.pauc(truth, np.zeros(30)) == pytest.approx(0.5)  # chance, though the raw area is 0.005
    # half of the anomalies above every normal clip, the rest below all: TPR 0.5 up to FPR 0.1, raw area 0.05
    scores = np.concatenate([np.linspace(0.4, 0.6, 20), np.repeat([0.9, 0.1], 5)])
    least, most = 0.1**2 / 2, 0.1
    assert clip_metrics.pauc(truth, scores) == pytest.approx(0.5 * (1 + (0.05 - least) / (most - least)))
    assert clip_metrics.auc(truth, scores) == pytest.approx(0.5)
    assert clip_metrics.pauc(truth, scores, max_fpr=1.0) == pytest.approx(clip_metrics.auc(truth, scores))


def test_precision_recall_f1_by_hand():
    scores = np.array([7.0, 6.0, 8.0, 1.0])
    assert clip_metrics.precision_recall_f1([1, 1, 0, 0], scores > 6.0) == (0.5, 0.5, 0.5)  # 6.0 itself is normal
    assert clip_metrics.precision_recall_f1([1, 0], [False, False]) == (0, 0, 0)
    undefined = clip_metrics.precision_recall_f1([1, 0], [False, False], empty=np.nan)
    assert np.isnan(undefined[0])
    assert undefined[1:] == (0, 0), "an anomaly that was missed is a recall of 0, and F1 with it"
    assert np.isnan(clip_metrics.precision_recall_f1([0, 0], [0, 0], empty=np.nan)).all()
    assert clip_metrics.precision_recall_f1([1, 1, 0], [1, 1, 1]) == pytest.approx((2 / 3, 1, 0.8))


def test_harmonic_mean_with_a_zero_is_tiny_and_defined():  # pitfall (f)
    assert clip_metrics.harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert clip_metrics.harmonic_mean([0.0, 1.0, 1.0]) == pytest.approx(3 * np.finfo(float).eps, rel=1e-9, abs=0)
    for bad in ([], [0.5, np.nan], [0.5, -0.1]):
        with pytest.raises(ValueError, match="harmonic mean needs"):
            clip_metrics.harmonic_mean(bad)


def test_d_prime_by_hand():
    assert clip_metrics.d_prime(0.5) == 0
    # two unit normals one apart have AUC = Phi(1 / sqrt 2)
    assert clip_metrics.d_prime(norm.cdf(1 / np.sqrt(2))) == pytest.approx(1)
    assert clip_metrics.d_prime(np.array([0.2, 0.8])).tolist() == pytest.approx([-1.19023, 1.19023], abs=1e-5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        clip_metrics.d_prime(1.2)


# ---------------------------------------------------------------- d prime


def test_d_prime_of_the_published_tables():
    # PANNs, Table IV: the embedding baseline's AUC 0.959 beside d-prime 2.452; chance
    assert clip_metrics.d_prime(0.959) == pytest.approx(2.452, abs=0.015)  # both were rounded
    assert clip_metrics.d_prime(0.5) == 0
    assert np.isnan(clip_metrics.d_prime([np.nan, 0.7])).tolist() == [True, False]


def test_mean_d_prime_is_of_the_classes_that_have_an_auc():
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.9, 0], [0.8, 0.3, 0], [0.7, 0.4, 0], [0.1, 0.6, 0]])  # AUC 3/4, 1/4, none
    mean = clip_metrics.mean_of_d_primes(clip_metrics.roc_auc(truth, scores))
    assert mean == pytest.approx(0, abs=1e-12)
    assert (mean.n_scored, mean.n_skipped) == (2, 1)
    assert clip_metrics.mean_of_d_primes(np.array([1.0])) == np.inf

"""SONYC-UST's public evaluation: counts by hand, and the whole against a loop over thresholds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.metrics import urban as urban_metrics
from earshot.metrics.urban import clip_counts, coarse_truth, evaluate, parse_tag

FINE = ["1-1_small", "1-2_large", "1-X_unsure", "2-1_dog"]


def one(truth, predicted, true_x=0, predicted_x=0):
    counts = clip_counts(*(np.array(v, bool) for v in (truth, predicted, true_x, predicted_x)))
    return tuple(counts.tolist())


@pytest.mark.parametrize(("case", "expected"), [
    (([1, 0], [1, 0]), (1, 0, 0)),
    (([1, 0], [0, 1]), (0, 1, 1)),
    (([0, 0], [0, 0], 1), (0, 0, 1)),  # somebody heard one of the kind, nothing was predicted
    (([0, 0], [0, 1], 1), (1, 0, 0)),  # any tag of the kind finds it
    (([0, 0], [0, 0], 1, 1), (1, 0, 0)),  # so does the X itself
    (([1, 0], [1, 1], 1), (1, 0, 0)),  # the X forgives the second tag, and gives no second hit
    (([1, 0], [0, 1], 1), (1, 0, 1)),
    (([1, 0], [0, 0], 1), (0, 0, 1)),  # one miss, not two
    (([0, 0], [0, 0], 0, 1), (0, 1, 0)),
    (([0, 0], [1, 1], 0, 1), (0, 2, 0)),
    (([1, 0], [1, 0], 0, 1), (1, 0, 0)),
])  # fmt: skip
def test_counts_of_a_clip_with_incomplete_tags(case, expected):
    assert one(*case) == expected


def slow(truth: pd.DataFrame, scores: pd.DataFrame, level: str) -> dict:
    """The same evaluation as a loop over thresholds, classes and clips."""

    def count(coarse_id, t):
        total = np.zeros(3, int)
        for (_, row), (_, said) in zip(truth.iterrows(), scores.iterrows(), strict=True):
            names = [n for n in truth if parse_tag(n)[0] == coarse_id and parse_tag(n)[1]]
            if level == "coarse":
                there, found = any(row[n] != 0 for n in names), said[f"{coarse_id}_all"] >= t
                total += (there and found, found and not there, there and not found)
                continue
            complete = [n for n in names if "-X" not in n]
            x = [n for n in names if "-X" in n]
            true_x = any(row[n] != 0 for n in x)
            said_x = any(said[n] >= t for n in x)
            hits = sum(bool(row[n] != 0 and said[n] >= t) for n in complete)
            wrong = sum(bool(row[n] == 0 and said[n] >= t) for n in complete)
            missed = sum(bool(row[n] != 0 and said[n] < t) for n in complete)
            something = said_x or any(said[n] >= t for n in complete)
            if true_x:
                wrong = 0
                if something and not hits:
                    hits = 1
                elif not something and not missed:
                    missed = 1
            elif said_x and not any(row[n] != 0 for n in complete) and not all(said[n] >= t for n in complete):
                wrong += 1
            total += (hits, wrong, missed)
        return total

    def area(counts):
        points = [(0.0, 1.0)]
        points += [(tp / max(tp + fn, 0.5), tp / max(tp + fp, 0.5)) for tp, fp, fn in counts] + [(1.0, 0.0)]
        points = sorted(points, key=lambda p: p[0])
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))

    thresholds = {}
    for c in ("1", "2"):
        names = [f"{c}_all"] if level == "coarse" else [n for n in FINE if n.startswith(c) and "-X" not in n]
        values = scores[names].to_numpy().ravel()
        thresholds[c] = sorted({*values[values >= 0.01], 1.0}, reverse=True)
    every = sorted(set(thresholds["1"]) | set(thresholds["2"]), reverse=True)
    at = [t for t in every if t >= 0.5][-1]

    def together(t):
        """Both classes, each at its own smallest threshold from t on."""
        return sum(count(c, min(own for own in thresholds[c] if own >= t)) for c in ("1", "2"))

    tp, fp, fn = together(at)
    classes = {c: area([count(c, t) for t in thresholds[c]]) for c in ("1", "2")}
    return {
        "micro_auprc": area([together(t) for t in every]), "class_auprc": classes,
        "macro_auprc": sum(classes.values()) / 2, "micro_f1": 2 * tp / max(2 * tp + fp + fn, 1), "threshold": at,
        "tp": tp, "fp": fp, "fn": fn, "n_thresholds": len(every),
    }  # fmt: skip


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["coarse", "fine"]), st.integers(1, 8), st.sampled_from([4, 1000]))
def test_equals_a_loop_over_thresholds(seed, level, n, steps):
    """`steps` 4: many ties between clips and classes."""
    rng = np.random.default_rng(seed)
    truth = pd.DataFrame(rng.choice([0, 0, 1, -1], (n, 4)), columns=FINE)
    names = [*FINE, "1_all", "2_all"]
    scores = pd.DataFrame(rng.integers(0, steps + 1, (n, 6)) / steps, columns=names)
    ours = evaluate(truth, scores, level)
    for field, expected in slow(truth, scores, level).items():
        assert ours[field] == pytest.approx(expected, abs=1e-12), field


def test_perfect_and_silent_predictions():
    truth = pd.DataFrame({"1-1_a": [1, 0, 0, 1], "2-1_b": [0, 1, 0, 1]})
    scores = truth * 0.9 + 0.05
    result = evaluate(truth, scores, "fine")
    assert result["micro_f1"] == 1
    assert result["threshold"] == pytest.approx(0.95)
    silent = evaluate(truth, truth * 0.0 + 0.2, "fine")
    assert (silent["micro_f1"], silent["threshold"], silent["tp"], silent["fn"]) == (0, 1, 0, 4)


def test_a_class_without_positives_counts_as_zero():
    """As published: it lowers the macro mean."""
    truth = pd.DataFrame({"1_engine": [1, 0], "2_dog": [0, 0]})
    result = evaluate(truth, pd.DataFrame({"1_engine": [0.9, 0.1], "2_dog": [0.3, 0.4]}))
    assert result["class_auprc"]["2"] == 0
    assert result["macro_auprc"] == pytest.approx(result["class_auprc"]["1"] / 2)


def test_coarse_truth_is_any_fine_tag_with_the_x():
    truth = pd.DataFrame(
        {"1-1_a": [0, 1, 0, -1], "1-X_u": [0, 0, 1, 0], "1_engine": [1, 0, 0, 0], "2_dog": [0, 1, 0, -1]}
    )
    coarse = coarse_truth(truth)
    assert coarse["1"].tolist() == [False, True, True, True]
    assert coarse["2"].tolist() == [False, True, False, True]


def test_wrong_input():
    truth = pd.DataFrame({"1_engine": [1, 0]})
    with pytest.raises(ValueError, match="2 clips of truth for 1 predictions"):
        evaluate(truth, pd.DataFrame({"1_engine": [0.5]}))
    with pytest.raises(ValueError, match="'engine' is no tag of SONYC-UST"):
        evaluate(pd.DataFrame({"engine": [1]}), pd.DataFrame({"1_engine": [0.5]}))
    with pytest.raises(ValueError, match="the truth has no fine tag"):
        evaluate(truth, truth, "fine")
    with pytest.raises(ValueError, match="level is 'medium'"):
        evaluate(truth, truth, "medium")
    with pytest.raises(ValueError, match="no finite number"):
        evaluate(truth, pd.DataFrame({"1_engine": [0.5, np.nan]}))
    assert urban_metrics.LEVELS == ("coarse", "fine")


def test_tags_predicted_at_exactly_one_lose_nothing():
    """The curve starts at (R 0, P 1): a class whose every positive is predicted at 1, and no other clip, is perfect."""
    truth = pd.DataFrame({"1_engine": [1, 1, 0, 0]})
    result = evaluate(truth, truth.astype(float))
    assert (result["macro_auprc"], result["micro_auprc"], result["micro_f1"]) == (1, 1, 1)


def test_an_incomplete_tag_is_cut_at_the_own_threshold_of_its_class():
    """At t = 0.5, class 2's threshold, class 1 counts at 0.9, its own: its X of 0.6 is no false positive there."""
    truth = pd.DataFrame({"1-1_a": [1, 0], "1-X_b": [0, 0], "2-1_c": [1, 0]})
    scores = pd.DataFrame({"1-1_a": [0.9, 0.0], "1-X_b": [0.0, 0.6], "2-1_c": [0.5, 0.0]})
    result = evaluate(truth, scores, "fine")
    assert (result["threshold"], result["tp"], result["fp"], result["fn"]) == (0.5, 2, 0, 0)
    truth["1-2_d"], scores["1-2_d"] = (
        [1, 0],
        [0.55, 0.0],
    )  # now class 1 has a threshold, 0.55, that its X of 0.6 reaches
    result = evaluate(truth, scores, "fine")
    assert (result["threshold"], result["tp"], result["fp"], result["fn"]) == (0.5, 3, 1, 0)

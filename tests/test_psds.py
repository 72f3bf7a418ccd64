"""Merging of events and PSDS."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.metrics import events as event_metrics
from earshot.metrics import psds as psds_metrics
from test_event_metrics import LABELS, table


@st.composite
def events(draw):
    rows = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(1, 5),
                                   st.sampled_from(LABELS)), min_size=1, max_size=10))  # fmt: skip
    return table(*[(name, float(onset), float(onset + length), label) for name, onset, length, label in rows])


def covered(events):
    """The whole seconds that the events cover, with file and label."""
    return {
        (row.filename, row.event_label, second)
        for row in events.itertuples()
        for second in range(int(row.onset), int(row.offset))
    }


@settings(max_examples=25)
@given(events())
def test_merging_keeps_the_time_covered_and_leaves_gaps(reference):  # pitfall (g)
    merged = event_metrics.merge_overlapping_events(reference)
    assert covered(merged) == covered(reference)
    for _, group in merged.groupby(["filename", "event_label"]):
        for before, after in itertools.pairwise(group.itertuples()):
            assert before.offset < after.onset
    pd.testing.assert_frame_equal(event_metrics.merge_overlapping_events(merged), merged)


def test_merging_by_hand():
    apart = ("a", 10.5, 11.0, "dog")
    nested = table(("a", 0.0, 9.0, "dog"), ("a", 1.0, 2.0, "dog"), ("a", 8.0, 10.0, "dog"), apart)
    merged = event_metrics.merge_overlapping_events(nested)
    pd.testing.assert_frame_equal(merged, table(("a", 0.0, 10.0, "dog"), apart))


EDGES = np.arange(0.0, 11.0)


def frames(**active):
    """Scores of 10 one-second frames, one column a keyword, as the pair that psds wants."""
    return EDGES, np.array(list(active.values()), dtype=float).T


def test_psds_by_hand():
    # in one hour: a hit at score 0.9, a false alarm at 0.8, the other hit at 0.7
    scores = {"a": frames(dog=[0, 0.9, 0, 0, 0.8, 0, 0, 0.7, 0, 0])}
    reference = table(("a", 1.0, 2.0, "dog"), ("a", 7.0, 8.0, "dog"))
    result = psds_metrics.psds(
        scores, ["dog"], reference, {"a": 3600.0}, dtc_threshold=0.7, gtc_threshold=0.7, max_efpr=2.0
    )
    # half the events up to one false alarm an hour, all of them from there to two
    assert result["psds"] == pytest.approx((0.5 * 1 + 1.0 * 1) / 2)
    assert result["class_wise"] == {"dog": result["psds"]}
    assert result["skipped"] == []


@pytest.mark.parametrize(("alpha_st", "expected"), [(0.0, 0.5), (0.5, 0.25), (1.0, 0.0)])
def test_psds_punishes_uneven_classes(alpha_st, expected):
    """One class always right, one never found: mean curve 0.5, deviation 0.5 between the classes."""
    scores = {"a": frames(dog=[0, 1, 1, 0, 0, 0, 0, 0, 0, 0], cat=[0] * 10)}
    reference = table(("a", 1.0, 3.0, "dog"), ("a", 6.0, 8.0, "cat"))
    result = psds_metrics.psds(
        scores, ["dog", "cat"], reference, {"a": 10.0}, dtc_threshold=0.5, gtc_threshold=0.5, alpha_st=alpha_st
    )
    assert result["psds"] == pytest.approx(expected)


def test_psds_merges_overlapping_reference_events():  # pitfall (g)
    scores = {"a": frames(dog=[0, 0.9, 0.9, 0.9, 0, 0, 0, 0, 0, 0])}
    overlapping = table(("a", 1.0, 3.0, "dog"), ("a", 2.0, 4.0, "dog"))
    one = table(("a", 1.0, 4.0, "dog"))
    for reference in (overlapping, one):
        result = psds_metrics.psds(scores, ["dog"], reference, {"a": 10.0}, **psds_metrics.PSDS1)
        assert result == {"psds": 1.0, "class_wise": {"dog": 1.0}, "skipped": []}


def three_files():
    """Perfect scores of 10 s files, their reference and durations; nothing in the reference is an alarm."""
    scores = {
        "a": frames(dog=[0, 1, 1, 1, 0, 0, 0, 0, 0, 0], alarm=[0] * 10, water=[0, 0, 0, 0, 0, 0, 1, 1, 0, 0]),
        "b": frames(dog=[0, 0, 1, 0, 0, 0, 0, 0, 0, 0], alarm=[0.5] * 10, water=[0] * 10),
        "c": frames(dog=[0] * 10, alarm=[0] * 10, water=[0] * 10),
    }
    reference = table(("a", 1.0, 4.0, "dog"), ("b", 2.0, 3.0, "dog"), ("a", 6.0, 8.0, "water"))
    return scores, ["dog", "alarm", "water"], reference, dict.fromkeys(scores, 10.0)


@pytest.mark.parametrize("scenario", [psds_metrics.PSDS1, psds_metrics.PSDS2])
def test_psds_of_perfect_scores_is_one(scenario):
    result = psds_metrics.psds(*three_files(), **scenario)
    assert result == {"psds": 1.0, "class_wise": {"dog": 1.0, "water": 1.0}, "skipped": ["alarm"]}


def test_psds_ignores_the_scale_of_the_scores():
    scores, *rest = three_files()
    noise = np.random.default_rng(0).normal(0, 0.7, (10, 3))
    noisy = {name: (edges, values + noise) for name, (edges, values) in scores.items()}
    stretched = {name: (edges, np.exp(values)) for name, (edges, values) in noisy.items()}
    result = psds_metrics.psds(noisy, *rest, **psds_metrics.PSDS1)
    assert result == psds_metrics.psds(stretched, *rest, **psds_metrics.PSDS1)
    assert 0 < result["psds"] < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"b": frames(dog=[0.5] * 10)}}, r"scores lack the files \['a'\]"),
        ({"durations": {"a": 10.0, "z": 10.0}}, r"only one names \['z'\]"),
        ({"durations": {"a": -1.0}}, "duration of a is -1.0"),
        ({"scores": {"a": frames(dog=[0.5] * 10, cat=[0.1] * 10)}}, r"a: scores \(10, 2\) for 1 class"),
        ({"scores": {"a": (EDGES[:-1], np.zeros((10, 1)))}}, r"\(10,\) timestamps for 10 frames"),
        ({"scores": {"a": (EDGES[::-1], np.zeros((10, 1)))}}, "rising seconds"),
        ({"scores": {"a": frames(dog=[np.nan] * 10)}}, "a: a score is not finite"),
        ({"reference": table(("a", 1.0, 1.0, "dog"))}, "zero length"),
        ({"reference": table(("a", 1.0, 2.0, "cat"))}, r"unknown labels \['cat'\]"),
        ({"reference": table()}, r"events of \[\] only"),
        ({"alpha_ct": 0.5, "cttc_threshold": 0.3}, "alpha_ct needs two"),
    ],
)
def test_bad_psds_input_is_refused(changes, message):
    good = {
        "scores": {"a": frames(dog=[0.5] * 10)},
        "classes": ["dog"],
        "reference": table(("a", 1.0, 2.0, "dog")),
        "durations": {"a": 10.0},
        "dtc_threshold": 0.5,
        "gtc_threshold": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        psds_metrics.psds(**(good | changes))

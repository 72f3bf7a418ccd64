"""Runs of a part of the classes put back into the columns of the full list, and blended where they know."""

from dataclasses import replace

import numpy as np
import pytest

from earshot.ensemble import search
from earshot.ensemble.blends import MEANS, Blend
from earshot.ensemble.specialists import blend_weights, full_classes, knowledge, scattered
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase

FULL = ("low", "mid", "high")


def member(classes, value, n=4, frames=True) -> Predictions:
    shape = (n, len(classes))
    rng = np.random.default_rng(len(classes))
    clip = (value + 0.1 * rng.random(shape)).astype(np.float32)
    return Predictions(
        np.arange(n).astype(str), tuple(classes), clip, np.arange(n) % 2, np.zeros(n, bool),
        framewise_output=tuple(np.stack([c, c]) for c in clip) if frames else None, timebase=TimeBase(1, 1),
    )  # fmt: skip


def test_answers_return_to_the_columns_of_the_full_list():
    special = member(("high", "low"), 0.5)
    wide = scattered(special, FULL)
    assert wide.classes == FULL
    np.testing.assert_array_equal(wide.clipwise_output[:, [2, 0]], special.clipwise_output)
    np.testing.assert_array_equal(wide.clipwise_output[:, 1], 0)
    np.testing.assert_array_equal(wide.framewise_output[1][:, [2, 0]], special.framewise_output[1])
    assert scattered(wide, FULL) is wide


@pytest.mark.parametrize("mean", MEANS)
def test_a_specialist_counts_where_it_knows_and_nowhere_else(mean):
    general, special = member(FULL, 0.2), member(("mid",), 0.8)
    mask = knowledge(FULL, [FULL, ("mid",)])
    assert mask.tolist() == [[True] * 3, [False, True, False]]
    blend = Blend(mean, blend_weights(None, mask))
    found = blend([general, scattered(special, FULL)])
    alone, both = Blend(mean)([general]), Blend(mean)([general, replace(scattered(special, FULL))])
    np.testing.assert_allclose(found.clipwise_output[:, [0, 2]], alone.clipwise_output[:, [0, 2]], rtol=1e-5)
    np.testing.assert_allclose(found.clipwise_output[:, 1], both.clipwise_output[:, 1], rtol=1e-5)
    np.testing.assert_allclose(found.framewise_output[0][:, [0, 2]], general.framewise_output[0][:, [0, 2]], rtol=1e-5)


def test_weights_keep_to_what_members_know():
    mask = knowledge(FULL, [FULL, ("mid",)])
    assert blend_weights(np.array([3.0, 1.0]), mask) == ((3.0, 3.0, 3.0), (0.0, 1.0, 0.0))
    assert blend_weights(np.array([0.0, 1.0]), mask) == ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0)), "else no one answers"
    assert blend_weights(None, np.ones((2, 3), bool)) == ()
    assert blend_weights(np.array([3.0, 1.0]), None) == (3.0, 1.0)


def test_searched_weights_find_the_specialist():
    """The general run knows nothing of mid, the specialist all: its weight is found, by nested search too."""
    rng = np.random.default_rng(0)
    n, target = 90, np.eye(3)[np.arange(90) % 3] > 0.5
    sure = np.where(target, 0.9, 0.1) + 0.02 * rng.standard_normal((n, 3))
    sure[:, 1] = rng.random(n)
    ids, fold = np.arange(n).astype(str), np.arange(n) // 3 % 3
    general = Predictions(ids, FULL, sure.astype(np.float32), fold, np.zeros(n, bool))
    right = np.where(target[:, [1]], 0.9, 0.1).astype(np.float32)
    special = scattered(Predictions(ids, ("mid",), right, fold, np.zeros(n, bool)), FULL)
    mask = knowledge(FULL, [FULL, ("mid",)])

    def score(found, truth):
        return float(clip_metrics.mean_average_precision(truth.target, found.clipwise_output))

    for weights in ("search", "per_class"):
        blend = search.fit_blend([general, special], Truth(target), score, "mean", weights, mask)
        table = np.array(blend.weights)
        assert table[1, [0, 2]].tolist() == [0, 0]
        assert table[1, 1] > 0.5 * table[:, 1].sum()
        honest = search.nested([general, special], Truth(target), score, "mean", weights, mask)
        assert score(honest, Truth(target)) > 0.99 > score(general, Truth(target)) + 0.1


def test_what_is_put_back_keeps_its_types_and_lacks_what_was_lacking():
    special = member(("mid",), 0.5)
    wide = scattered(special, list(FULL))
    assert (wide.clipwise_output.dtype, wide.framewise_output[0].dtype) == (np.float32, np.float32)
    assert wide.classes == FULL
    assert scattered(replace(special, framewise_output=None), FULL).framewise_output is None
    assert knowledge(FULL, []).shape == (0, 3)
    assert knowledge((), [FULL]).dtype == bool
    for mask in (None, np.array([[1, 1, 1], [0, 1, 0]])):
        weights = np.array(blend_weights(np.array([3, 1]), mask), dtype=object).ravel()
        assert all(type(w) is float for w in weights)
    assert blend_weights(None, np.array([[1, 1, 1], [0, 1, 0]])) == ((1, 1, 1), (0, 1, 0))


def test_one_run_must_know_every_class():
    assert full_classes(["a", "b", "c"], [("x", "y"), ["y"], ("x", "y")]) == ("x", "y")
    assert full_classes(["a"], [["x"]]) == ("x",)
    with pytest.raises(ValueError, match="^b and c cannot be blended: their classes differ, same classes in another"):
        full_classes(["a", "b", "c"], [("x",), ("x", "y"), ("y", "x")])
    assert full_classes(["a", "b"], [("x",), ("x", "y")]) == ("x", "y")
    with pytest.raises(ValueError, match="a and b cannot be blended: their classes differ, only in the second: z; one"):
        full_classes(["a", "b"], [("x", "y"), ("z",)])
    with pytest.raises(ValueError, match="same classes in another order"):
        full_classes(["a", "b"], [("x", "y"), ("y", "x")])

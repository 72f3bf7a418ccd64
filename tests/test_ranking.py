"""One order of the clips for all figures, in blocks and at once, against scikit-learn; names found as numbers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from earshot.data.labels import clip_targets
from earshot.metrics import clips as clip_metrics
from earshot.metrics import ranking
from earshot.metrics.ranking import Ranking, falling_order
from earshot.prediction.places import all_different, as_names, hashed, places


def drawn(n: int, k: int, digits: int, dtype=np.float32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth, scores = rng.random((n, k)) < 0.3, rng.random((n, k)).round(digits).astype(dtype)
    truth[0], truth[1] = True, False
    return truth, scores


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_order_is_that_of_a_stable_sort_of_the_falling_scores(dtype):
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(0, 100, 5000).round(1), [0.0, -0.0, 1e-30, -1e-30, 65000, -65000]])
    scores = np.stack([scores, rng.permutation(scores)]).astype(dtype)
    assert (falling_order(scores) == np.argsort(-scores, axis=1, kind="stable")).all()


@pytest.mark.parametrize("digits", [1, 7])
def test_figures_of_a_ranking_are_those_of_scikit_learn(digits):
    truth, scores = drawn(2000, 4, digits)
    found = Ranking(truth, scores)
    expected = [average_precision_score(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
    np.testing.assert_allclose(found.average_precision(), expected, rtol=1e-13)
    expected = [roc_auc_score(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
    np.testing.assert_allclose(found.roc_auc(), expected, rtol=1e-13)


@pytest.mark.parametrize("digits", [2, 7])
def test_thresholds_found_block_by_block_are_those_found_at_once(digits, monkeypatch):
    truth, scores = drawn(3000, 3, digits)
    at_once = Ranking(truth, scores).best_f1
    monkeypatch.setattr(ranking, "BLOCK", 200)
    monkeypatch.setattr(ranking, "SHORT", 2)
    spans = list(Ranking(truth, scores)._spans())
    assert len(spans) > 10, "it was not parted into blocks"
    assert Ranking(truth, scores).best_f1 == at_once
    tried = np.unique(scores)
    for metric, threshold in zip((clip_metrics.macro_f1, clip_metrics.micro_f1), at_once, strict=True):
        best = max(metric(truth, scores, t) for t in (tried if digits == 2 else tried[::50]))
        assert metric(truth, scores, threshold) >= best - 1e-12


def test_equal_scores_enter_as_one(monkeypatch):
    """Predictions that know nothing, by which a training asks at its start what can be scored."""
    monkeypatch.setattr(ranking, "SHORT", 2)
    truth, entered, plain = drawn(300, 4, 7)[0], [], falling_order
    found = Ranking(truth, np.full((300, 4), 0.25, np.float32))
    monkeypatch.setattr(ranking, "falling_order", lambda values: (entered.append(values.size), plain(values))[1])
    assert found.best_f1 == (0.25, 0.25)
    assert entered == [4], "a score of each class"


def test_a_score_of_all_classes_sorts_each_of_them_once(monkeypatch):
    from earshot.prediction.predictions import Predictions
    from earshot.prediction.truth import Truth
    from earshot.tasks import get_task

    truth, scores = drawn(500, 4, 7)
    sorted_values, plain = [], falling_order

    def counted(values):
        sorted_values.append(values.size)
        return plain(values)

    monkeypatch.setattr(ranking, "falling_order", counted)
    ids = np.arange(500).astype(str)
    found = Predictions(ids, tuple("abcd"), scores, np.zeros(500, int), np.zeros(500, bool))
    get_task("tagging").score(found, Truth(truth))
    assert sum(sorted_values) == 2 * scores.size, "once by class, once together for the thresholds"


def test_names_are_found_whatever_the_width_of_their_arrays():
    among = np.array(["a", "bb", "b", "ccc", ""])
    wanted = np.array(["ccc", "a", "a long name of nothing", "", "b"])
    assert places(wanted, among).tolist() == [3, 0, -1, 4, 2]
    assert places(among, among).tolist() == [0, 1, 2, 3, 4]
    assert hashed(np.array(["a", "bb"])).tolist() == hashed(np.array(["a", "bb", "cccc"]))[:2].tolist()
    assert all_different(among)
    assert not all_different(np.array(["x", "y", "x"]))
    assert as_names(pd.Series(["1", "x"])).tolist() == as_names(iter(["1", "x"])).tolist() == ["1", "x"]


def test_names_whose_numbers_are_equal_are_still_told_apart(monkeypatch):
    monkeypatch.setattr("earshot.prediction.places.hashed", lambda names: np.zeros(len(names), np.uint64))
    assert places(np.array(["b", "z", "a"]), np.array(["a", "b"])).tolist() == [1, -1, 0]
    assert places(np.array(["z"]), np.array(["a"])).tolist() == [-1]
    assert all_different(np.array(["a", "b"]))
    assert not all_different(np.array(["a", "a"]))


def test_label_texts_are_parted_once_however_many_clips_have_them(monkeypatch):
    from earshot.data import labels

    parted, plain = [], labels._split
    monkeypatch.setattr(labels, "_split", lambda text: (parted.append(text), plain(text))[1])
    clips = pd.DataFrame({"clip_id": [f"c{i}" for i in range(600)], "labels": ["a b", "b", np.nan] * 200})
    target, mask = clip_targets(clips, ["a", "b"])
    assert target[:4].tolist() == [[1, 1], [0, 1], [0, 0], [1, 1]]
    assert mask.all()
    assert len(parted) <= 3
    clips.loc[500, "labels"] = "b c a"
    with pytest.raises(ValueError, match="clip 'c500' has the label 'c', which is not in the class list"):
        clip_targets(clips, ["a", "b"])

"""Blends as JSON, their means at the ends of what numbers can be, and the search for weights step by step."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from earshot.data.answers import read_truth, truth_of
from earshot.data.prepared import PreparedData
from earshot.ensemble import search
from earshot.ensemble.blends import Blend, Ensemble, build_blend, correlations, ranks, read_ensemble
from earshot.ensemble.oof import score_table, spread
from earshot.prediction.origin import Origin, TableDigests
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from earshot.tasks import Truth


def clip_outputs(*rows, fold=None, ids=None) -> Predictions:
    n = len(rows)
    ids = np.array(ids or [f"c{i}" for i in range(n)])
    fold = np.zeros(n, int) if fold is None else np.array(fold)
    classes = tuple("abc"[: len(rows[0])])
    return Predictions(ids, classes, np.array(rows, np.float32), fold, np.zeros(n, bool))


# ---- blends


def test_means_where_numbers_end():
    certain, none = clip_outputs([1.0, 0.0]), clip_outputs([0.0, 0.0])
    geometric = Blend("geometric")([certain, none]).clipwise_output
    np.testing.assert_allclose(geometric, [[1e-7**0.5, 1e-7]], rtol=1e-5)
    below = clip_outputs([-0.5, 0.25])  # not a probability: counts as 0
    np.testing.assert_allclose(Blend("power", power=0.5)([below, below]).clipwise_output, [[0, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(
        Blend("power", power=3.0)([certain, none]).clipwise_output, [[0.5 ** (1 / 3), 0]], rtol=1e-6
    )
    assert Blend().power == 2.0
    for power in (0, -1):
        with pytest.raises(ValueError, match=f"power.* must be positive, got {power}"):
            Blend("power", power=power)
    with pytest.raises(ValueError, match="weights of 3 members, 2 came"):
        Blend(weights=(1.0, 1.0, 1.0))([certain, none])
    assert Blend(weights=(1.0, 0.0))([certain, none]).clipwise_output.tolist() == [[1, 0]]


def test_ranks_lie_in_zero_to_one_inside_each_class():
    found = ranks(np.array([[0.1, 5.0], [0.3, 5.0], [0.2, 7.0], [0.3, 1.0]]))
    assert found.tolist() == [[0.25, 0.625], [0.875, 0.625], [0.5, 1.0], [0.875, 0.25]]
    assert found.dtype == np.float32
    assert ranks(np.zeros((0, 2))).shape == (0, 2)
    weighted = Blend("rank", (3.0, 1.0))([clip_outputs([0.1], [0.9]), clip_outputs([0.8], [0.2])])
    assert weighted.clipwise_output.tolist() == [[0.625], [0.875]]


def test_correlations_by_hand():
    a = clip_outputs([1.0, 0.5], [2.0, 0.5], [3.0, 0.5])
    b = clip_outputs([9.0, 0.1], [1.0, 0.2], [5.0, 0.3], ids=["c2", "c0", "c1"])  # the same order as a's, by id
    c = clip_outputs([3.0, 0.3], [2.0, 0.1], [1.0, 0.2])
    found = correlations([a, b, c])
    expected = [[1, 1, -1], [1, 1, 0], [-1, 0, 1]]  # a is silent on its second class; b and c: -1 and 1
    expected[1][2] = expected[2][1] = (-1 + correlation_of([0.2, 0.3, 0.1], [0.3, 0.1, 0.2])) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(correlations([a]), [[1]], atol=1e-6)


def correlation_of(x, y) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1])


def test_blends_from_json():
    assert build_blend({}) == Blend()
    assert build_blend({"mean": "rank", "weights": [1, 0], "power": 3}) == Blend("rank", (1.0, 0.0), 3.0)
    assert build_blend({"weights": [[1, 0], [0, 2]]}).weights == ((1.0, 0.0), (0.0, 2.0))
    for weights, message in (
        ([1, float("inf")], "weights must be numbers from 0"), ([-1, 2], "weights must be numbers from 0"),
        ([[[1.0]]], "weights must be numbers from 0"), ([[0, 1], [0, 1]], "not all of them 0"),
        (["x"], "weights must be numbers, one a run or one a run and class"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^here: .*{message}"):
            build_blend({"weights": weights}, "here")
    with pytest.raises(ValueError, match="^the blend: unknown key 'weigths'; did you mean 'weights'"):
        build_blend({"weigths": [1]})
    with pytest.raises(ValueError, match="unknown mean 'geo'"):
        build_blend({"mean": "geo"})


def test_an_ensemble_leaves_runs_of_no_weight_out(tmp_path):
    path = tmp_path / "x.json"

    def read(**blend):
        values = {"runs": ["runs/a", "runs/b", "runs/c"], "blend": blend, "thresholds": None}
        path.write_text(json.dumps(values))
        return read_ensemble(str(path))

    found = read(mean="rank", weights=[0.25, 0, 0.75])
    assert found.runs == (Path("runs/a"), Path("runs/c"))
    assert found.blend == Blend("rank", (0.25, 0.75))
    assert found.thresholds == {}
    by_class = read(weights=[[0, 1], [0, 0], [1, 0]])
    assert by_class.runs == (Path("runs/a"), Path("runs/c"))
    assert by_class.blend.weights == ((0.0, 1.0), (1.0, 0.0))
    assert len(read().runs) == 3
    assert read().blend.weights == ()
    with pytest.raises(ValueError, match=rf"{path} names 3 runs and weights of 2"):
        read(weights=[1, 1])
    with pytest.raises(ValueError, match=rf"^{path}: unknown mean 'geo'"):
        read(mean="geo")
    for text in ("{", "[]", '{"runs": 3, "blend": {}}', '{"runs": []}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{path} .*src/ensemble\.py --out x\.npz writes x\.json"):
            read_ensemble(path)


def test_an_ensemble_says_what_it_was_made_of(tmp_path):
    path = tmp_path / "x.json"
    tables = {"folds": "f", "classes": "c", "clips": "k"}
    about = {
        "runs": ["runs/a"], "blend": {}, "thresholds": {"threshold": 0.25}, "post_processing": {"post": {}},
        "origins": [{"run": "sed/a", "fold": 1, "tables": tables, "weights": "w"}],
    }  # fmt: skip
    path.write_text(json.dumps(about))
    found = read_ensemble(path)
    assert found.origins == (Origin(run="sed/a", fold=1, tables=TableDigests(**tables), weights="w"),)
    assert (found.thresholds, found.post_processing) == ({"threshold": 0.25}, {"post": {}})
    path.write_text(json.dumps({"runs": ["runs/a"], "blend": {}}))
    assert read_ensemble(path) == Ensemble((Path("runs/a"),), Blend(), {}, None, ())
    remedy = "; src/ensemble.py --out x.npz writes x.json, which it should be$"
    for key in ("thresholds", "post_processing"):
        path.write_text(json.dumps(about | {key: [0.5]}))
        with pytest.raises(ValueError, match=rf"^ensemble {path} has '\[0.5\]' as '{key}'{remedy}"):
            read_ensemble(path)
    path.write_text(json.dumps(about | {"origins": [{"run": "sed/a"}]}))
    with pytest.raises(ValueError, match=f"^{path}"):
        read_ensemble(path)
    path.write_text(json.dumps(about | {"runs": ["runs/a", 3]}))
    with pytest.raises(ValueError, match=f"^ensemble {path}: runs are not all names of folders{remedy}"):
        read_ensemble(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=f"^ensemble {path} is not valid JSON.*{remedy}"):
        read_ensemble(path)


def test_a_member_that_says_the_same_of_every_clip_has_no_correlation():
    a, silent = clip_outputs([1.0, 0.5], [2.0, 0.7]), clip_outputs([0.5, 0.5], [0.5, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = correlations([a, silent, a])
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[[0, 0, 2], [0, 2, 0]], 1, atol=1e-6)


def test_frames_are_joined_by_the_same_mean_and_by_none_of_ranks():
    def framed(value):
        frames = (np.full((2, 1), value, np.float32),)
        return replace(clip_outputs([0.5]), framewise_output=frames, timebase=TimeBase(8, 1))

    pair = [framed(0.25), framed(0.75)]
    for mean, expected in (
        ("mean", 0.5),
        ("geometric", (0.25 * 0.75) ** 0.5),
        ("power", (0.625 / 2) ** 0.5),
        ("rank", 0.5),
    ):
        np.testing.assert_allclose(Blend(mean)(pair).framewise_output[0], expected, rtol=1e-6)
    weighted = Blend("geometric", (3, 1))(pair).framewise_output[0]
    np.testing.assert_allclose(weighted, (0.25**3 * 0.75) ** 0.25, rtol=1e-6)
    assert Blend("power")([clip_outputs([0.5])]).framewise_output is None


# ---- the search


def asked(values):
    """A score that knows the members' weights by what their mean is: member m answers 10 ** m."""
    tried = []

    def score(found, truth):
        tried.append(round(float(found.clipwise_output[0, 0]), 4))
        return values(found.clipwise_output[0, 0])

    return score, tried


def test_the_search_adds_the_member_that_helps_most_and_keeps_the_best_prefix():
    members, truth = [clip_outputs([v]) for v in (0.0, 1.0)], Truth(np.ones((1, 1), bool))
    score, tried = asked(lambda mean: -abs(mean - 0.75))
    weights = search.search_weights(members, truth, score, steps=6)
    np.testing.assert_allclose(weights, [0.25, 0.75])
    # 1 alone; then 0.5 or 1; 2/3 ... : each step tries both members on top of what was chosen
    assert tried[:6] == [0.0, 1.0, 0.5, 1.0, pytest.approx(1 / 3, abs=1e-4), pytest.approx(2 / 3, abs=1e-4)]
    assert len(tried) == 12
    tie, _ = asked(lambda mean: 0.0)
    np.testing.assert_array_equal(search.search_weights(members, truth, tie, steps=3), [1, 0])
    default, tried = asked(lambda mean: 0.0)
    search.search_weights(members, truth, default)
    assert len(tried) == 2 * 30


def test_classes_are_weighed_where_both_kinds_are_common_enough():
    """Member 0 is right, member 1 wrong; classes of 5 and 4 positives, and of 5 and 4 negatives."""
    target = np.zeros((20, 4), bool)
    for c, positives in enumerate((5, 4, 15, 16)):
        target[:positives, c] = True
    ids = np.array([f"c{i}" for i in range(20)])
    right, wrong = (
        Predictions(ids, tuple("abcd"), p.astype(np.float32), np.zeros(20, int), np.zeros(20, bool))
        for p in (target * 0.9, 0.9 - 0.9 * target)
    )
    weights = search.search_class_weights([right, wrong], Truth(target))
    assert weights.tolist() == [[1, 0.5, 1, 0.5], [0, 0.5, 0, 0.5]]


def test_classes_are_weighed_in_the_mean_that_will_join_them():
    """A member of small numbers says nothing in a plain mean of equal weights, and as much as others by rank."""
    rng = np.random.default_rng(1)
    target = rng.random((60, 2)) < 0.5
    members = [clip_outputs(*(s * (0.4 * target + rng.random((60, 2))))) for s in (1, 1e-3)]
    truth, found = Truth(target), {}
    for mean in ("mean", "rank"):
        found[mean] = search.search_class_weights(members, truth, mean)
        for c in (0, 1):
            one = [clip_outputs(*m.clipwise_output[:, [c]]) for m in members]
            precision = search.search_weights(one, Truth(target[:, [c]]), search._class_precision, mean)
            np.testing.assert_array_equal(found[mean][:, c], precision)
    assert np.abs(found["mean"] - found["rank"]).max() > 0.1


def test_fits_and_candidates():
    members, truth = [clip_outputs([v]) for v in (0.0, 1.0)], Truth(np.ones((1, 1), bool))
    score, _ = asked(lambda mean: mean)
    assert search.fit_blend(members, truth, score, "power", "equal") == Blend("power")
    assert search.fit_blend(members, truth, score, "power", "search") == Blend("power", (0.0, 1.0))
    assert search.fit_blend(members, truth, score, "rank", "per_class") == Blend("rank", ((0.5,), (0.5,)))
    candidate = search.Candidate("rank", "search", members[0], np.array([0.03, 0.01]))
    assert candidate.kept
    assert str(candidate) == "rank mean, search weights: +0.0200 +- 0.0100, kept"
    assert replace(candidate, mean="mean").way == "arithmetic mean, search weights"
    for gains in ([0.02, 0.0], [-0.02, -0.01], [0.0, 0.0], [0.03, 0.0, 0.0]):
        assert not replace(candidate, gains=np.array(gains)).kept
    assert str(replace(candidate, gains=np.array([-0.01, -0.01]))).endswith("-0.0100 +- 0.0000, not kept")


def test_a_nested_blend_of_one_fold_is_the_plain_mean():
    members = [clip_outputs([v], [v]) for v in (0.0, 1.0)]
    score, tried = asked(lambda mean: mean)
    found = search.nested(members, Truth(np.ones((2, 1), bool)), score, "mean", "search")
    assert found.clipwise_output.tolist() == [[0.5], [0.5]]
    assert not tried


def test_candidates_are_scored_fold_by_fold_against_the_plain_mean():
    """Member 1 is right on all; the plain mean halves it. Members in other orders are aligned by id."""
    a = clip_outputs([0.0], [0.0], [0.0], [0.0], fold=[0, 0, 1, 1])
    b = clip_outputs([1.0], [1.0], [1.0], [0.5], fold=[0, 0, 1, 1]).take([3, 2, 1, 0])
    truth = Truth(np.ones((4, 1), bool))

    def score(found, truth):
        return float(found.clipwise_output.mean())

    plain, (found,) = search.try_blends([a, b], truth, score, [("mean", "search")])
    np.testing.assert_allclose(plain.clipwise_output.ravel(), [0.5, 0.5, 0.5, 0.25])
    np.testing.assert_allclose(found.oof.clipwise_output.ravel(), [1, 1, 1, 0.5])
    np.testing.assert_allclose(found.gains, [0.5, 0.375])
    assert (found.mean, found.weights) == ("mean", "search")
    assert found.oof.clip_ids.tolist() == a.clip_ids.tolist()


def test_truth_follows_the_predictions_order():
    clips = pd.DataFrame({"clip_id": ["x", "y", "z"], "site": [1, 2, 3]})
    events = pd.DataFrame(
        [("z", 0.0, 1.0, "b"), ("y", 0.0, 1.0, "a")], columns=["filename", "onset", "offset", "event_label"]
    )
    target = np.array([[0.4, 0.6], [1.0, 0.0], [0.5, 1.0]])
    mask = np.ones((3, 2))
    data = PreparedData(
        clips=clips, classes=["a", "b"], source=Path(), target=target, mask=mask, events=events, whole=clips
    )
    found = truth_of(clip_outputs([0.1, 0.2], [0.3, 0.4], ids=["z", "x"]), data)
    assert found.target.tolist() == [[False, True], [False, True]], "soft labels count from above a half"
    assert found.events.filename.tolist() == ["z"]
    assert found.clips.site.tolist() == [3, 1]


def test_scores_as_lines():
    text = score_table({"map": 0.5, "by": {"x": 1}, "auc_of_a_long_name": 1, "note": "x"})
    assert text == f"  {'map':24s} 0.5000\n  {'auc_of_a_long_name':24s} 1.0000"


def test_folds_that_do_not_define_a_score_are_said():
    found = spread({0: 0.5, 1: float("nan"), 2: 0.7, 4: float("nan")})
    assert found == " (mean of folds 0.6000 +- 0.1000: 0.5000 0.7000; not defined in fold 1, 4)"
    assert spread({0: 0.5}) == " (mean of folds 0.5000 +- 0.0000: 0.5000)"
    assert spread({3: float("nan")}) == " (not defined in fold 3)"


def test_answers_of_a_clip_table_with_and_without_events(tmp_path):
    """In the order of the predictions; what an expert denies is no event, the table says what is annotated."""
    path = tmp_path / "clips.csv"
    table = pd.DataFrame({"clip_id": list("xyz"), "path": list("xyz"), "labels": ["a", "b a", ""],
                          "annotated": [1, 0, 1]})  # fmt: skip
    table.to_csv(path, index=False)
    found = clip_outputs([0.1, 0.2], [0.3, 0.4], ids=["z", "y"])
    without = read_truth(found, path)
    assert without.target.tolist() == [[False, False], [True, True]]
    assert without.clips.clip_id.tolist() == ["z", "y"]
    assert (without.events, without.annotated) == (None, None)
    events = pd.DataFrame({"filename": ["x", "z", "z"], "onset": [0.0, 0.0, 1.0], "offset": 2.0,
                           "event_label": ["a", "b", "a"], "is_negative": [0, 0, 1]})  # fmt: skip
    events.to_csv(tmp_path / "events.csv", index=False)
    timed = read_truth(found, path)
    assert timed.events[["filename", "event_label"]].values.tolist() == [["z", "b"]]
    assert timed.annotated.tolist() == [True, False]
    assert timed.clips.clip_id.tolist() == ["z", "y"]
    table.drop(columns="labels").to_csv(path, index=False)
    with pytest.raises(ValueError, match=rf"^{path} has no column 'labels'"):
        read_truth(found, path)

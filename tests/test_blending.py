"""Weights by OOF search, nested CV, joining folds, thresholds on the OOF."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.ensemble import search
from earshot.ensemble.blends import MEANS, Blend, correlations, least, ranks, weighted_median
from earshot.ensemble.oof import oof_when_complete, score_table
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions, weighted_mean
from earshot.sound.timebase import TimeBase
from earshot.tasks import Truth, get_task

CLASSES = ("a", "b", "c")


def member(target, noise, seed, folds=3):
    """Predictions that know the truth up to noise."""
    rng = np.random.default_rng(seed)
    n = len(target)
    output = np.clip(0.5 * target + 0.25 + noise * rng.standard_normal(target.shape), 0, 1).astype(np.float32)
    ids = np.array([f"clip{i}" for i in range(n)])
    return Predictions(ids, CLASSES, output, np.arange(n) % folds, np.zeros(n, bool))


@pytest.fixture
def blend():
    target = np.eye(3)[np.random.default_rng(0).integers(0, 3, 90)]
    members = [member(target, noise, seed) for seed, noise in enumerate((0.25, 0.3, 3.0))]
    return members, Truth(target > 0.5)


def score(found, truth):
    return float(clip_metrics.mean_average_precision(truth.target, found.clipwise_output))


def test_search_is_never_worse_than_the_best_member_on_what_it_searched(blend):
    members, truth = blend
    weights = search.search_weights(members, truth, score)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert score(weighted_mean(members, weights), truth) >= max(score(m, truth) for m in members) - 1e-12
    assert weights[2] < weights[0], "noise gets less"


def test_copies_of_one_member_change_nothing(blend):
    members, truth = blend
    weights = search.search_weights([members[0]] * 3, truth, score)
    assert score(weighted_mean([members[0]] * 3, weights), truth) == pytest.approx(score(members[0], truth))


@pytest.mark.parametrize("weights", ["search", pytest.param("per_class", marks=pytest.mark.slow)])
def test_nested_weights_do_not_see_their_own_fold(blend, weights):
    """Other answers for fold 0 change the weights used elsewhere, never the blend of fold 0 itself."""
    members, truth = blend
    honest = search.nested(members, truth, score, "mean", weights)
    turned = truth.target.copy()
    turned[members[0].fold == 0] = np.roll(turned[members[0].fold == 0], 1, axis=1)
    other = search.nested(members, Truth(turned), score, "mean", weights)
    held = honest.fold == 0
    np.testing.assert_array_equal(honest.clipwise_output[held], other.clipwise_output[held])
    assert honest.clip_ids.tolist() == members[0].clip_ids.tolist()


def test_oof_needs_every_fold_and_every_clip(tiny):
    config = load_config(tiny)
    data, task, folder = load_data(config.data), get_task("sed"), Path("runs/sed/x")
    names = data.clips.clip_id.to_numpy()
    for fold in (0, 1, 2):
        report = oof_when_complete(folder, data, task)
        assert (report.oof, report.truth, report.scores) == (None, None, {})
        assert "to go before an OOF" in report.text
        (folder / f"fold{fold}").mkdir(parents=True)
        (folder / f"fold{fold}" / "run.json").write_text(json.dumps({"finished": True}))
        ids = names[data.clips.fold == fold]
        truth = data.target[data.clips.fold == fold].astype(np.float32)
        Predictions(ids, tuple(data.classes), truth, np.full(len(ids), fold), np.zeros(len(ids), bool)).save(
            folder / f"fold{fold}" / "oof.npz"
        )
    report = oof_when_complete(folder, data, task)
    assert report.scores["map"] == 1.0
    first, *table = report.text.splitlines()
    assert first.startswith(f"{folder}: OOF of 24 clips together, map 1.0000 (mean of folds 1.0000 +- 0.0000: 1.0000 1")
    assert table == score_table(report.scores).splitlines()
    oof = Predictions.load(folder / "oof.npz")
    assert oof.clip_ids.tolist() == names.tolist()
    short = Predictions.load(folder / "fold1" / "oof.npz")
    short.take(slice(1, None)).save(folder / "fold1" / "oof.npz")
    with pytest.raises(ValueError, match=f"OOF misses 1 of 24 clips: {short.clip_ids[0]}"):
        oof_when_complete(folder, data, task)
    short.save(folder / "fold2" / "oof.npz")
    short.save(folder / "fold1" / "oof.npz")
    with pytest.raises(ValueError, match="clips are predicted more than once"):
        oof_when_complete(folder, data, task)


def test_means_by_hand():
    ids, fold, fine = np.array(["x", "y"]), np.zeros(2, int), np.zeros(2, bool)
    outputs = ([[0.1, 0.4], [0.9, 0.4]], [[0.3, 0.2], [0.5, 0.8]])
    frames = tuple(np.full((2, 2), v, np.float32) for v in (0.25, 0.5))
    a, b = (
        Predictions(
            ids, ("k", "l"), np.array(o, np.float32), fold, fine, framewise_output=frames, timebase=TimeBase(8, 1)
        )
        for o in outputs
    )
    expected = {
        "mean": [[0.2, 0.3], [0.7, 0.6]],
        "geometric": [[0.03**0.5, 0.08**0.5], [0.45**0.5, 0.32**0.5]],
        "power": [[0.05**0.5, 0.1**0.5], [0.53**0.5, 0.4**0.5]],
        "rank": [[0.5, (0.75 + 0.5) / 2], [1.0, (0.75 + 1.0) / 2]],
        "median": [[0.2, 0.3], [0.7, 0.6]],
        "minimum": [[0.1, 0.2], [0.5, 0.4]],
    }
    assert set(expected) == set(MEANS)
    for mean, values in expected.items():
        found = Blend(mean)([a, b])
        np.testing.assert_allclose(found.clipwise_output, values, rtol=1e-6)
        np.testing.assert_allclose(found.framewise_output[1], 0.5, rtol=1e-6)
    weighted = Blend("mean", ((1.0, 0.0), (0.0, 2.0)))([a, b])
    np.testing.assert_allclose(weighted.clipwise_output, [[0.1, 0.2], [0.9, 0.8]], rtol=1e-6)
    with pytest.raises(ValueError, match="weights of 1 members, 2 came"):
        Blend("mean", (1.0,))([a, b])
    with pytest.raises(ValueError, match="unknown mean 'geometrical'; did you mean 'geometric'"):
        Blend("geometrical")


@given(st.data())
def test_a_weighted_median_is_that_of_members_given_as_often_as_they_weigh(data):
    """A second way: each value written down so many times, NumPy's median of them."""
    n = data.draw(st.integers(1, 6))
    values = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)), np.float32)
    times = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n).filter(any))
    found = weighted_median([np.full((2, 1), v) for v in values], [t / sum(times) for t in times])
    np.testing.assert_allclose(found, np.median(np.repeat(values, times)), rtol=1e-6)
    assert least([np.full(2, v) for v in values], times).tolist() == [np.repeat(values, times).min()] * 2


@pytest.mark.parametrize("mean", MEANS)
def test_a_mean_of_copies_is_the_member_or_its_ranks(blend, mean):
    member = blend[0][0]
    found = Blend(mean, (1.0, 3.0))([member, member]).clipwise_output
    wanted = ranks(member.clipwise_output) if mean == "rank" else np.maximum(member.clipwise_output, 1e-7)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-7)


def test_a_blend_is_kept_only_where_it_gains_over_the_folds(blend):
    """One member is noise: weights that find it out gain in every fold. Equal good members: nothing to gain."""
    members, truth = blend
    _, (found,) = search.try_blends(members, truth, score, [("mean", "search")])
    assert found.kept
    assert found.gains.shape == (3,)
    assert found.gains.mean() > found.gains.std()
    _, (found,) = search.try_blends([members[0]] * 2, truth, score, [("mean", "per_class")])
    assert not found.kept, "no gain is no reason"


def test_weights_per_class_trust_who_knows_the_class(blend):
    members, truth = blend
    good, noise = members[0], members[2]
    a, b = good.clipwise_output.copy(), good.clipwise_output.copy()
    a[:, 0], b[:, 2] = noise.clipwise_output[:, 0], noise.clipwise_output[:, 2]
    pair = [replace(good, clipwise_output=a), replace(good, clipwise_output=b)]
    weights = search.search_class_weights(pair, truth)
    assert weights[0, 0] < 0.2
    assert weights[1, 2] < 0.2
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    rare = Truth(truth.target & (np.arange(90) < 6)[:, None])
    assert rare.target.sum(axis=0).min() < search.RARE, "the case is there"
    few = rare.target.sum(axis=0) < search.RARE
    np.testing.assert_array_equal(search.search_class_weights(pair, rare)[:, few], 0.5)


def test_correlations_against_scipy(blend):
    members, _ = blend
    found = correlations(members)
    columns = zip(members[0].clipwise_output.T, members[2].clipwise_output.T, strict=True)
    assert found[0, 2] == pytest.approx(np.mean([spearmanr(x, y)[0] for x, y in columns]), abs=1e-6)
    np.testing.assert_allclose(np.diag(found), 1)
    constant = replace(members[0], clipwise_output=np.full((90, 3), 0.5, np.float32))
    assert np.isnan(correlations([members[0], constant])[0, 1])


def test_oofs_that_do_not_belong_together_are_named(blend):
    members, _ = blend
    a, b = members[:2]
    search.check_alike(["runs/a", "runs/b"], [a, b.take(np.random.default_rng(0).permutation(len(b)))])
    other_folds = replace(b, fold=(np.arange(len(b)) + (np.arange(len(b)) == 4)) % 3)
    with pytest.raises(ValueError, match=r"runs/a and runs/b cannot be blended: they were trained on different fold "
                       r"tables\. 1 of 90 clips are in another fold, such as clip4 in 1 and 2"):  # fmt: skip
        search.check_alike(["runs/a", "runs/b"], [a, other_folds])
    turned = replace(b, classes=("b", "a", "c"))
    with pytest.raises(ValueError, match="runs/a and runs/b .* same classes in another order"):
        search.check_alike(["runs/a", "runs/b"], [a, turned])
    with pytest.raises(ValueError, match="runs/a and runs/b .* 1 clip is in one OOF only: clip0"):
        search.check_alike(["runs/a", "runs/b"], [a, b.take(slice(1, None))])

"""Weights by OOF search, nested CV, joining folds, thresholds on the OOF."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earshot import blending, metrics
from earshot.config import load_config
from earshot.dataset import load_data
from earshot.postprocessing import best_event_threshold, peak_output
from earshot.predictions import Predictions, weighted_mean
from earshot.tasks import Truth, get_task
from earshot.timebase import TimeBase

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
    return float(metrics.mean_average_precision(truth.target, found.clipwise_output))


def test_search_is_never_worse_than_the_best_member_on_what_it_searched(blend):
    members, truth = blend
    weights = blending.search_weights(members, truth, score)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert score(weighted_mean(members, weights), truth) >= max(score(m, truth) for m in members) - 1e-12
    assert weights[2] < weights[0], "noise gets less"


def test_copies_of_one_member_change_nothing(blend):
    members, truth = blend
    weights = blending.search_weights([members[0]] * 3, truth, score)
    assert score(weighted_mean([members[0]] * 3, weights), truth) == pytest.approx(score(members[0], truth))


def test_nested_weights_do_not_see_their_own_fold(blend):
    """Other answers for fold 0 change the weights used elsewhere, never the blend of fold 0 itself."""
    members, truth = blend
    honest, _ = blending.nested_blend(members, truth, score)
    turned = truth.target.copy()
    turned[members[0].fold == 0] = np.roll(turned[members[0].fold == 0], 1, axis=1)
    other, _ = blending.nested_blend(members, Truth(turned), score)
    held = honest.fold == 0
    np.testing.assert_array_equal(honest.clipwise_output[held], other.clipwise_output[held])
    assert honest.clip_ids.tolist() == members[0].clip_ids.tolist()


def test_oof_needs_every_fold_and_every_clip(tiny):
    config = load_config(tiny)
    data, task, folder = load_data(config.data), get_task("sed"), Path("runs/sed/x")
    names = data.clips.clip_id.to_numpy()
    for fold in (0, 1, 2):
        report = blending.oof_when_complete(folder, data, task)
        assert report.oof is None
        assert "to go before an OOF" in report.text
        (folder / f"fold{fold}").mkdir(parents=True)
        (folder / f"fold{fold}" / "run.json").write_text(json.dumps({"finished": True}))
        ids = names[data.clips.fold == fold]
        truth = data.target[data.clips.fold == fold].astype(np.float32)
        Predictions(ids, tuple(data.classes), truth, np.full(len(ids), fold), np.zeros(len(ids), bool)).save(
            folder / f"fold{fold}" / "oof.npz"
        )
    report = blending.oof_when_complete(folder, data, task)
    assert report.scores["map"] == 1.0
    assert "map 1.0000 (folds 1.0000 +- 0.0000" in report.text
    oof = Predictions.load(folder / "oof.npz")
    assert oof.clip_ids.tolist() == names.tolist()
    short = Predictions.load(folder / "fold1" / "oof.npz")
    short.take(slice(1, None)).save(folder / "fold1" / "oof.npz")
    with pytest.raises(ValueError, match=f"OOF misses 1 of 24 clips: {short.clip_ids[0]}"):
        blending.oof_when_complete(folder, data, task)
    short.save(folder / "fold2" / "oof.npz")
    short.save(folder / "fold1" / "oof.npz")
    with pytest.raises(ValueError, match="clips are predicted more than once"):
        blending.oof_when_complete(folder, data, task)


def test_event_threshold_against_every_threshold(blend):
    members, truth = blend
    rng = np.random.default_rng(4)
    frames = tuple(rng.random((5, 3)).astype(np.float32) * m for m in members[0].clipwise_output)
    oof = replace(members[0], framewise_output=frames, timebase=TimeBase(16000, 160))
    np.testing.assert_array_equal(peak_output(oof)[7], frames[7].max(axis=0))
    threshold, value = best_event_threshold(oof, truth.target)

    def rows(at):
        found = [" ".join(np.array(CLASSES)[p >= at]) or "nocall" for p in peak_output(oof)]
        true = [" ".join(np.array(CLASSES)[t]) or "nocall" for t in truth.target]
        return metrics.row_micro_f1(true, found)

    assert value == pytest.approx(rows(np.float32(threshold)))
    assert value >= max(rows(at) for at in np.linspace(0, 1, 101)) - 1e-9
    with pytest.raises(ValueError, match="no clip of the OOF could be read"):
        best_event_threshold(replace(oof, unreadable=np.ones(90, bool)), truth.target)

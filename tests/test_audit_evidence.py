"""What an audit says of outputs: calibration, expected positives, drift by site; folds that keep copies together."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import make_folds
import planted_leaks
from earshot.audits import evidence, leaks
from earshot.audits.fingerprints import fingerprints
from earshot.pages import audit as audit_page
from earshot.prediction.predictions import Predictions
from scripts import run


def judged(n=400, classes=3, sure=1.0, seed=0):
    """Outputs whose log odds are `sure` times what answers were drawn by, and groups of four clips."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 2, (n, classes))
    target = rng.random((n, classes)) < 1 / (1 + np.exp(-odds))
    return (1 / (1 + np.exp(-sure * odds))).astype(np.float32), target, np.arange(n) // 4


def test_calibration_is_judged_on_other_groups():
    losses = {}
    for sure in (1.0, 3.0):
        table = evidence.calibrated(*judged(sure=sure)).set_index("method")
        losses[sure] = table.log_loss
        assert (table.calibration_error >= 0).all()
    assert losses[3.0]["as it is"] > losses[1.0]["as it is"] + 0.1
    assert losses[3.0]["temperature"] == pytest.approx(losses[1.0]["as it is"], abs=0.01), "a temperature undoes it"
    assert losses[3.0]["isotonic"] < losses[3.0]["as it is"] - 0.1
    assert losses[1.0]["temperature"] == pytest.approx(losses[1.0]["as it is"], abs=0.01), "nothing to gain"


def test_a_temperature_near_zero_leaves_losses_finite(recwarn):
    """Outputs that are always right and never sure: their log odds are divided by nearly 0."""
    target = np.arange(200)[:, None] % 2 == 0
    scores = np.where(target, 0.9, 0.1)
    table = evidence.calibrated(scores.astype(np.float32), target, np.arange(200)).set_index("method")
    assert np.isfinite(table.log_loss).all()
    assert not [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_what_a_group_says_of_itself_does_not_calibrate_it():
    """Each group's answers are its own: from other clips of the same group isotonic regression would know them."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(20), 10)
    scores = np.repeat(rng.random(20), 10)[:, None].astype(np.float32)
    target = np.repeat(rng.random(20) < 0.5, 10)[:, None]
    apart = evidence.calibrated(scores, target, group, parts=20).set_index("method").log_loss
    together = evidence.calibrated(scores, target, np.arange(200), parts=20).set_index("method").log_loss
    assert apart["isotonic"] > together["isotonic"] + 0.1


def test_expected_positives_beside_true_ones():
    scores, target, groups = judged(classes=3)
    scores[:, 1] = np.minimum(1, scores[:, 1] * 0.5)
    table = evidence.expected_positives(scores, target, groups, ["fair", "half", "fair too"]).set_index("class")
    assert table.index[0] == "half", "beyond chance first"
    assert table.outside.to_dict() == {"half": True, "fair": False, "fair too": False}
    np.testing.assert_array_equal(table.true[["fair", "half", "fair too"]], target.sum(axis=0))
    np.testing.assert_allclose(table.expected[["fair", "half", "fair too"]], scores.sum(axis=0), rtol=1e-5)
    half = table.loc["half"]
    assert half["from"] < half.true - half.expected < half["to"]


def predictions(names, values) -> Predictions:
    values = np.array(values, np.float32)
    return Predictions(np.array(names), ("a", "b"), values, np.full(len(values), -1), np.zeros(len(values), bool))


def test_drift_by_site_names_the_odd_one():
    oof = predictions(["x", "y"], [[0.2, 0.1], [0.2, 0.3]])
    test = predictions(["1", "2", "3"], [[0.2, 0.2], [0.2, 0.01], [0.2, 0.03]])
    table = evidence.drift_by_site(oof, test, ["S1", "S2", "S2"])
    assert table.site.tolist() == ["S2", "S1"]
    first = table.iloc[0]
    assert (first.recordings, first["class"]) == (2, "b")
    assert first.ratio == pytest.approx(0.021 / 0.201)
    assert first.positives == pytest.approx(0.22)
    assert table.iloc[1].distance == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="differ in their classes: same classes in another order"):
        evidence.drift_by_site(oof, Predictions(test.clip_ids, ("b", "a"), test.clipwise_output, test.fold,
                                                test.unreadable), ["", "", ""])  # fmt: skip


def test_the_page_has_these_tables(tmp_path):
    scores, target, groups = judged(classes=2)
    oof = predictions([f"c{i}" for i in range(len(scores))], scores)
    config = SimpleNamespace(data=SimpleNamespace(root=str(tmp_path)))
    e = SimpleNamespace(
        oof=oof, truth=SimpleNamespace(target=target), groups=groups,
        run=SimpleNamespace(folder=tmp_path, config=config),
    )  # fmt: skip
    calibration, counts = audit_page.of_calibration(e, "mine")
    assert [row[0] for row in calibration.rows] == ["as it is", "temperature", "isotonic"]
    assert {row[0] for row in counts.rows} == {"a", "b"}
    json.dumps([counts.rows, calibration.rows], default=float)
    assert audit_page.of_drift(e, "mine") == []
    named = [f"T_{i}_S0{i % 2}_20250227_060000" for i in range(4)]
    predictions(named, [[0.1, 0.1]] * 4).save(tmp_path / "test.npz")
    by_class, by_site = audit_page.of_drift(e, "mine")
    assert {row[0] for row in by_site.rows} == {"S00", "S01"}
    assert by_class.title == "Drift from OOF to test: mine"
    clips = pd.DataFrame({"clip_id": named, "path": named, "site": ["north", "north", "", "south"]})
    clips.to_csv(tmp_path / "test_clips.csv", index=False)
    assert audit_page.sites_of(predictions(named, [[0, 0]] * 4), tmp_path / "test_clips.csv") == [
        "north", "north", "S00", "south",
    ]  # fmt: skip
    beyond = SimpleNamespace(oof=predictions(["x"], [[3.0, 0.1]]), truth=SimpleNamespace(target=np.zeros((1, 2))),
                             groups=np.array(["x"]))  # fmt: skip
    assert audit_page.of_calibration(beyond, "sums") == [], "sums over windows are no probabilities"


@pytest.mark.slow
def test_folds_keep_the_same_sound_together(tmp_path, monkeypatch, capsys):
    """The planted copies, in every disguise: no fold table made so has one sound in two folds."""
    clips, *_ = planted_leaks.plant(tmp_path)
    data = tmp_path / "prepared"
    data.mkdir()
    clips.assign(official_fold=np.arange(len(clips)) % 3).to_csv(data / "clips.csv", index=False)
    (data / "dataset.json").write_text(json.dumps({"competition": "mine", "source": str(tmp_path), "task": "tagging"}))
    monkeypatch.chdir(tmp_path)
    arguments = ["--clips", data / "clips.csv", "--k", 3, "--apart-duplicates"]
    with pytest.raises(ValueError, match="joins the groups of the column group, not of recordist"):
        run(make_folds, *arguments, "--out", "x.csv", "--group", "recordist")
    run(make_folds, *arguments, "--out", "apart.csv")
    assert "recordings of the same sound are in one now" in capsys.readouterr().out
    folds = pd.read_csv("apart.csv").set_index("clip_id").loc[clips.clip_id].reset_index()
    prints = fingerprints([tmp_path / p for p in clips.path])
    kinds = {leak.kind for leak in leaks.leaks_of(clips, folds, prints)}
    assert "one sound in two folds" not in kinds

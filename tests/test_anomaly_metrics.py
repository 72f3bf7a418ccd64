"""AUCs by machine, section and domain against scikit-learn, their means by hand, scores of classifiers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from earshot.metrics import anomalies


def random_clips(n=400, seed=0) -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    clips = pd.DataFrame({
        "machine": rng.choice(["valve", "fan"], n), "section": rng.integers(0, 2, n),
        "domain": rng.choice(["target", "source"], n), "is_anomaly": rng.integers(0, 2, n),
    })  # fmt: skip
    return rng.normal(clips.is_anomaly, 1.5).round(1), clips


@pytest.mark.parametrize(("max_fpr", "across"), [(0.1, False), (0.3, True)])
def test_every_group_has_scikit_learns_areas(max_fpr, across):
    scores, clips = random_clips()
    table = anomalies.auc_table(scores, clips, max_fpr, across)
    assert table.columns.tolist() == ["machine", "section", "domain", "n_normal", "n_anomaly", "auc", "pauc"]
    groups = [(m, s, d) for m in ("fan", "valve") for s in ("0", "1") for d in ("source", "target")]
    assert list(table[["machine", "section", "domain"]].itertuples(index=False, name=None)) == groups
    for row in table.itertuples():
        same = (clips.machine == row.machine) & (clips.section.astype(str) == row.section)
        here = same & (clips.domain == row.domain)
        chosen = here | (same & (clips.is_anomaly == 1)) if across else here
        truth, some = clips.is_anomaly[chosen], scores[chosen]
        assert (row.n_normal, row.n_anomaly) == ((truth == 0).sum(), truth.sum())
        assert row.auc == pytest.approx(roc_auc_score(truth, some), abs=1e-12)
        assert row.pauc == pytest.approx(roc_auc_score(truth, some, max_fpr=max_fpr), abs=1e-12)
    default = anomalies.auc_table(scores, clips)
    pd.testing.assert_frame_equal(default, anomalies.auc_table(scores, clips, 0.1, False))


def test_groups_of_one_kind_have_no_area():
    clips = pd.DataFrame({"machine": "fan", "section": ["0", "0", "1", "1"], "domain": "source",
                          "condition": ["normal", "normal", "anomaly", "anomaly"]})  # fmt: skip
    table = anomalies.auc_table(np.arange(4), clips)
    assert table[["n_normal", "n_anomaly"]].to_numpy().tolist() == [[2, 0], [0, 2]]
    assert table[["auc", "pauc"]].isna().all(axis=None)
    assert anomalies.summary(table) == {"undefined": 2.0}


def test_means_over_groups_by_hand():
    table = pd.DataFrame(
        [("fan", "0", "source", 0.5, 0.6), ("fan", "0", "target", 1.0, 0.8), ("pump", "0", "source", 0.8, 0.9),
         ("pump", "1", "source", np.nan, np.nan)],
        columns=["machine", "section", "domain", "auc", "pauc"],
    )  # fmt: skip
    harmonic = 3 / (1 / 0.5 + 1 / 1.0 + 1 / 0.8), 3 / (1 / 0.6 + 1 / 0.8 + 1 / 0.9)
    assert anomalies.summary(table) == {
        "undefined": 1.0, "auc": pytest.approx(2.3 / 3), "pauc": pytest.approx(2.3 / 3),
        "auc_harmonic": pytest.approx(harmonic[0]), "pauc_harmonic": pytest.approx(harmonic[1]),
        "score_harmonic": pytest.approx(6 / (3 / harmonic[0] + 3 / harmonic[1])),
        "auc_fan": pytest.approx(0.75), "pauc_fan": pytest.approx(0.7), "auc_pump": pytest.approx(0.8),
        "pauc_pump": pytest.approx(0.9), "auc_source": pytest.approx(0.65), "pauc_source": pytest.approx(0.75),
        "auc_target": pytest.approx(1.0), "pauc_target": pytest.approx(0.8),
    }  # fmt: skip


def test_rows_that_sum_to_one_are_probabilities_and_others_log_odds():
    own = np.array([0, 1])
    probabilities = np.array([[0.2, 0.8], [0.0, 1.0]])
    floor = np.log(np.finfo(float).eps)  # -36.04, the published evaluation's
    np.testing.assert_allclose(anomalies.own_class_scores(probabilities, own), [np.log(4), floor], rtol=1e-12)
    for p, expected in ((0.0, -floor), (1e-12, np.log(1e12)), (1 - 2**-40, -40 * np.log(2)), (1.0, floor)):
        found = anomalies.own_class_scores(np.array([[p, 1 - p]]), np.array([0]))
        np.testing.assert_allclose(found, [expected], rtol=1e-9, err_msg=f"p of {p} is no less sure than it says")
    nearly = np.array([[0.2, 0.8005], [0.5, 0.5]])  # float16 or rounded CSV
    np.testing.assert_allclose(anomalies.own_class_scores(nearly, own), [np.log(4), 0], atol=1e-12)
    for odds in ([[0.2, 0.802], [0.5, 0.5]], [[-0.1, 1.1], [0.5, 0.5]], [[0.2, 0.7], [0.5, 0.5]], [[3.0, -2], [0, 1]]):
        odds = np.array(odds)
        np.testing.assert_array_equal(anomalies.own_class_scores(odds, own), [-odds[0, 0], -odds[1, 1]])
    assert len(anomalies.own_class_scores(np.zeros((0, 3)), np.zeros(0, int))) == 0


def test_which_clips_are_anomalous():
    clips = pd.DataFrame({"machine": "fan", "section": "0", "domain": "source", "is_anomaly": ["0", "1", "1"]})
    assert anomalies.is_anomalous(clips).tolist() == [False, True, True]
    both = clips.assign(condition="normal")
    assert anomalies.is_anomalous(both).tolist() == [False, True, True], "the number is asked first"
    words = clips.drop(columns="is_anomaly").assign(condition=["normal", "anomaly", "normal"])
    assert anomalies.is_anomalous(words).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="column 'is_anomaly' must be 0 or 1, got maybe"):
        anomalies.is_anomalous(clips.assign(is_anomaly=["0", "maybe", "1"]))
    with pytest.raises(ValueError, match="column 'is_anomaly' must be 0 or 1, got nan"):
        anomalies.is_anomalous(clips.assign(is_anomaly=[0, np.nan, 1]))
    with pytest.raises(ValueError, match=r"need the columns machine, section in clips\.csv"):
        anomalies.is_anomalous(clips[["domain", "is_anomaly"]])

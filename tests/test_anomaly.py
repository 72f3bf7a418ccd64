"""Anomaly scores, their tables by machine, section and domain, embeddings' distances, the gamma threshold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from earshot import tasks
from earshot.anomaly import scores as anomaly_scores
from earshot.metrics import anomalies as anomaly_metrics
from earshot.metrics import clips as clip_metrics
from earshot.prediction.clip_answers import clip_answer
from earshot.prediction.predictions import Predictions
from earshot.sound.windows import join_clipwise


def clip_table(rows):
    return pd.DataFrame(rows, columns=["machine", "section", "domain", "condition"])


TABLE = clip_table([
    ("fan", "00", "source", "normal"), ("fan", "00", "source", "anomaly"), ("fan", "00", "target", "normal"),
    ("fan", "00", "target", "anomaly"), ("fan", "01", "source", "normal"), ("fan", "01", "source", "normal"),
])  # fmt: skip


def test_the_sources_score_from_probabilities_and_from_logits():
    """Mean over windows of log((1 - p) / p), by hand and by the run's own way: log_odds windows, mean, own class."""
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 3, (5, 4))  # windows, sections
    p = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    for own in range(4):
        by_hand = np.mean(np.log((1 - p[:, own]) / p[:, own]))
        joined = join_clipwise(clip_answer({"logit": logit}, "log_odds"), "mean")
        assert anomaly_metrics.own_class_scores(joined[None], np.array([own]))[0] == pytest.approx(by_hand, rel=1e-5)
        one = anomaly_metrics.own_class_scores(p[:1], np.array([own]))[0]
        assert one == pytest.approx(np.log((1 - p[0, own]) / p[0, own]))


def test_log_odds_do_not_saturate():
    logit = np.array([[40.0, 0.0, 0.0], [80.0, 0.0, -3.0]])
    scores = -clip_answer({"logit": logit}, "log_odds")[:, 0]
    assert scores == pytest.approx([-40 + np.log(2), -80 + np.log(1 + np.exp(-3))], rel=1e-6)
    with pytest.raises(ValueError, match="needs a model with a logit"):
        clip_answer({"clipwise_output": logit}, "log_odds")
    with pytest.raises(ValueError, match="at least 2"):
        clip_answer({"logit": logit[:, :1]}, "log_odds")


def test_auc_by_group_and_a_group_without_anomalies():
    table = anomaly_metrics.auc_table(np.array([1.0, 2.0, 5.0, 4.0, 0.0, 9.0]), TABLE)
    assert table[["section", "domain", "n_normal", "n_anomaly"]].to_numpy().tolist() == [
        ["00", "source", 1, 1], ["00", "target", 1, 1], ["01", "source", 2, 0],
    ]  # fmt: skip
    assert table.auc.tolist()[:2] == [1.0, 0.0]
    assert np.isnan(table.auc[2])
    found = anomaly_metrics.summary(table)
    assert found["auc"] == 0.5
    assert found["auc_source"] == 1.0
    assert found["auc_fan"] == 0.5
    assert found["undefined"] == 1
    assert found["auc_harmonic"] == pytest.approx(clip_metrics.harmonic_mean([1.0, 0.0]))
    assert anomaly_metrics.summary(table[2:]) == {"undefined": 1.0}


def test_anomalies_of_both_domains_where_asked():
    scores = np.array([1.0, 2.0, 5.0, 4.0, 0.0, 9.0])
    table = anomaly_metrics.auc_table(scores, TABLE, across_domains=True)
    assert table.n_anomaly.tolist() == [2, 2, 0]
    assert table.auc.tolist()[:2] == [1.0, 0.0]
    assert anomaly_metrics.auc_table(scores[::-1], TABLE, across_domains=True).auc[0] == 0.0


def test_wrong_tables_are_named():
    with pytest.raises(ValueError, match="need the columns domain, is_anomaly"):
        anomaly_metrics.auc_table(np.zeros(6), TABLE[["machine", "section"]])
    with pytest.raises(ValueError, match="must be normal or anomaly, got 'broken'"):
        anomaly_metrics.auc_table(np.zeros(1), clip_table([("fan", "00", "source", "broken")]))
    numbers = TABLE.drop(columns="condition").assign(is_anomaly=[0, 1, 0, 1, 0, 0])
    scores = np.arange(6.0)
    pd.testing.assert_frame_equal(anomaly_metrics.auc_table(scores, numbers), anomaly_metrics.auc_table(scores, TABLE))
    with pytest.raises(ValueError, match="must be 0 or 1, got 2"):
        anomaly_metrics.auc_table(scores, numbers.assign(is_anomaly=[0, 2, 0, 1, 0, 0]))
    with pytest.raises(ValueError, match="5 anomaly scores for 6 clips"):
        anomaly_metrics.auc_table(np.zeros(5), TABLE)


@pytest.mark.parametrize("method", anomaly_scores.EMBEDDING_SCORES)
def test_what_lies_far_from_the_normal_ones_of_its_group_scores_higher(method):
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 4, (3, 6))
    groups = np.repeat(np.arange(3), 40)
    normal = centres[groups] + rng.normal(0, 0.3, (120, 6))
    test_groups = np.repeat(np.arange(3), 20)
    test = centres[test_groups] + rng.normal(0, 0.3, (60, 6))
    moved = centres[(test_groups + 1) % 3] + rng.normal(0, 0.3, (60, 6))  # another group's place is far for this one
    scores = anomaly_scores.embedding_scores(
        method, normal, groups, np.concatenate([test, moved]), np.concatenate([test_groups] * 2)
    )
    assert clip_metrics.auc(np.repeat([0, 1], 60), scores) > 0.99
    unseen = anomaly_scores.embedding_scores(method, normal, groups, moved, np.full(60, 7))
    assert np.isfinite(unseen).all(), "a machine that training never saw is compared with all normal clips"


def test_embedding_scores_by_hand_and_bad_input():
    normal, x = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 3.0], [0.0, 1.0]])
    assert anomaly_scores.knn_scores(normal, x) == pytest.approx([1 - np.sqrt(0.5), 0])
    assert anomaly_scores.knn_scores(normal, x, neighbours=9) == pytest.approx([1 - np.sqrt(0.5), 0.5])
    assert anomaly_scores.mahalanobis_scores(normal[:1], x) == pytest.approx([np.hypot(2, 3), np.hypot(1, 1)])
    with pytest.raises(ValueError, match="unknown anomaly score 'knnn'; did you mean 'knn'"):
        anomaly_scores.embedding_scores("knnn", normal, np.zeros(2), x, np.zeros(2))
    with pytest.raises(ValueError, match="no normal training clip"):
        anomaly_scores.embedding_scores("knn", normal[:0], np.zeros(0), x, np.zeros(2))


@settings(max_examples=25)
@given(st.floats(1, 20), st.floats(0.01, 50), st.floats(0.5, 0.99), st.integers(0, 20))
def test_gamma_threshold_is_the_fitted_quantile(shape, scale, quantile, seed):
    scores = stats.gamma.rvs(shape, scale=scale, size=400, random_state=seed)
    threshold = anomaly_scores.gamma_threshold(scores, quantile)
    assert (scores < threshold).mean() == pytest.approx(quantile, abs=0.08)
    assert scores.min() <= threshold
    shifted = anomaly_scores.gamma_threshold(
        scores - scores.mean(), quantile
    )  # scores of log odds lie on both sides of 0
    assert (scores - scores.mean() < shifted).mean() == pytest.approx(quantile, abs=0.15)


def test_gamma_threshold_of_odd_scores():
    assert anomaly_scores.gamma_threshold(np.full(4, -3.0)) == -3.0
    with pytest.raises(ValueError, match="finite training scores, got 2 of which 1"):
        anomaly_scores.gamma_threshold(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        anomaly_scores.gamma_threshold(np.ones(3), 1)


# the three tasks on predictions


def predictions(outputs, classes):
    n = len(outputs)
    ids = np.array([f"c{i}" for i in range(n)])
    return Predictions(ids, tuple(classes), np.asarray(outputs, np.float32), np.zeros(n, int), np.zeros(n, bool))


def test_the_asd_task_scores_own_sections(tmp_path):
    target = np.eye(2)[[0, 0, 1, 1]] > 0
    found = predictions([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], ("fan_00", "fan_01"))
    clips = clip_table([("fan", s, "source", c) for s in ("00", "01") for c in ("normal", "anomaly")])
    truth = tasks.Truth(target, clips=clips)
    scores = tasks.get_task("asd").score(found, truth)
    assert scores["auc"] == 1.0
    assert scores["accuracy"] == 1.0
    assert tasks.get_task("asd").watch == "auc"
    tasks.draw_pictures(tasks.get_task("asd"), found, truth, tmp_path)
    assert (tmp_path / "roc.png").stat().st_size > 1000
    only_normal = tasks.Truth(target, clips=clips.assign(condition="normal"))
    assert tasks.get_task("asd").score(found, only_normal)["undefined"] == 2
    assert tasks.remarks(tasks.get_task("asd"), found, truth) == []
    lines = tasks.remarks(tasks.get_task("asd"), found, only_normal)
    assert lines[0] == "no AUC of fan 00 source: 2 normal clips, 0 anomalous ones"
    assert len(lines) == 2
    with pytest.raises(ValueError, match="needs the clip table"):
        tasks.get_task("asd").score(found, tasks.Truth(target))


def test_the_scenes_task_scores_classes_and_devices(tmp_path):
    target = np.eye(3)[[0, 0, 0, 1]] > 0
    found = predictions([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], ("bus", "park", "tram"))
    clips = pd.DataFrame({"device": ["a", "b", "b", "a"]})
    truth = tasks.Truth(target, clips=clips)
    scores = tasks.get_task("scenes").score(found, truth)
    assert scores["class_mean_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["accuracy"] == 0.75
    assert scores["accuracy_a"] == 1.0
    assert scores["accuracy_b"] == 0.5
    assert scores["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps) / 4)
    assert "log_loss" not in tasks.get_task("scenes").score(
        predictions(found.clipwise_output * 3, found.classes), truth
    )
    tasks.draw_pictures(tasks.get_task("scenes"), found, truth, tmp_path)
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    assert truth.take(np.array([True, False, False, True])).clips.device.tolist() == ["a", "a"]


def test_a_fold_with_one_class_only_is_scored_and_said():
    """Held out: the scores are of that class. Trained on: cross entropy refuses."""
    from earshot.training.setup import check_several_classes

    found = predictions([[1, 0, 0], [0, 1, 0]], ("bus", "park", "tram"))
    one = tasks.Truth(np.eye(3)[[0, 0]] > 0)
    assert tasks.get_task("scenes").score(found, one)["class_mean_accuracy"] == 0.5
    said = tasks.remarks(tasks.get_task("scenes"), found, one)
    assert said == ["all held-out clips are of one class, bus: the scores say nothing of the others"]
    assert tasks.remarks(tasks.get_task("scenes"), found, tasks.Truth(np.eye(3)[[0, 1]] > 0)) == []
    always = tasks.Truth(np.array([[1, 1, 0], [1, 0, 0]]) > 0)  # a class without negatives has no AP
    said = tasks.remarks(tasks.get_task("tagging"), found, always)
    assert said == ["no AP and AUC of 1 classes, which every held-out clip is of: bus"]
    nothing = tasks.Truth(np.zeros((0, 3)))
    assert tasks.remarks(tasks.get_task("scenes"), found.take(np.zeros(2, bool)), nothing) == []
    with pytest.raises(
        ValueError, match=r"fold 2 trains on clips of 1 classes \(bus\): loss cross_entropy tells classes"
    ):
        check_several_classes(2, one.target, found.classes, "cross_entropy")
    check_several_classes(2, one.target, found.classes, "bce")


def test_the_urban_task_is_the_public_evaluation_of_coarse_tags():
    from earshot.metrics import urban as urban_metrics

    rng = np.random.default_rng(1)
    for classes in (("1_engine", "6_music", "8_dog"), ("engine", "music", "dog")):
        target, output = rng.random((40, 3)) < 0.4, rng.random((40, 3)).astype(np.float32)
        names = classes if classes[0][0] == "1" else [f"{i}_{c}" for i, c in enumerate(classes, start=1)]
        expected = urban_metrics.evaluate(
            pd.DataFrame(target.astype(int), columns=names), pd.DataFrame(output, columns=names)
        )
        scores = tasks.get_task("ust").score(predictions(output, classes), tasks.Truth(target))
        assert scores["macro_auprc"] == pytest.approx(expected["macro_auprc"])
        assert scores["micro_auprc"] == pytest.approx(expected["micro_auprc"])
        assert scores["micro_f1"] == pytest.approx(expected["micro_f1"])
        assert scores[f"auprc_{classes[1]}"] == pytest.approx(list(expected["class_auprc"].values())[1])


def test_the_urban_task_takes_fine_tags_too():
    from earshot.metrics import urban as urban_metrics

    names = ("1-1_small", "1-2_large", "1-X_engine", "6-1_music")
    rng = np.random.default_rng(2)
    target, output = rng.random((30, 4)) < 0.4, rng.random((30, 4)).astype(np.float32)
    scores = tasks.get_task("ust").score(predictions(output, names), tasks.Truth(target))
    truth, found = pd.DataFrame(target.astype(int), columns=names), pd.DataFrame(output, columns=names)
    expected = urban_metrics.evaluate(truth, found, "fine")
    assert scores["macro_auprc"] == pytest.approx(expected["macro_auprc"])
    assert scores["auprc_1"] == pytest.approx(expected["class_auprc"]["1"])

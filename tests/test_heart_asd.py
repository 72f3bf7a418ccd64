"""Heart sounds as a competition, its baselines, and the report of every anomaly score of a run."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import make_folds
import prepare
import score_anomalies
import train
from conftest import HEART_CONFIG
from earshot.anomaly import autoencoder
from earshot.anomaly import report as anomaly_report
from earshot.anomaly import scores as anomaly_scores
from earshot.anomaly import statistics as anomaly_statistics
from earshot.anomaly.report import Scores
from earshot.competitions import get_competition, heart_asd
from earshot.prediction.predictions import Predictions
from scripts import run


def write_pack(folder, rate=2000):
    """Domain a is a tone of 200 Hz, b of 500; anomalies are noise. 6 training, 2 + 2 test clips each."""
    rng = np.random.default_rng(0)
    rows = []
    for domain, hz in (("a", 200), ("b", 500)):
        for i in range(10):
            label, split = ("anomaly" if i >= 8 else "normal"), ("train" if i < 6 else "test")
            wave = np.sin(2 * np.pi * hz * np.arange(rate) / rate + i) * 0.3 + rng.normal(0, 0.01, rate)
            wave = rng.normal(0, 0.3, rate).clip(-1, 1) if label == "anomaly" else wave
            name = f"audio/{domain}/{domain}{i}_{label}_{split}.wav"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name, wave, rate)
            rows.append((name, label, domain, split, f"{domain}{i}"))
    meta = pd.DataFrame(rows, columns=["filename", "label", "domain", "split", "record"])
    meta.to_csv(folder / "meta.csv", index=False)
    return meta


def test_the_pack_becomes_tables_and_every_domain_is_scored_by_itself(tmp_path):
    write_pack(tmp_path)
    tables = heart_asd.prepare(tmp_path)
    assert list(tables.classes) == ["heart_a", "heart_b"]
    assert tables.clips.official_fold.value_counts().to_dict() == {-1: 12, 0: 8}
    assert not tables.clips.is_anomaly[tables.clips.official_fold == -1].any()
    # a device that alone is recognised: all of b above all of a, right order inside a, wrong order inside b
    truth = tables.truth
    score = np.where(truth.domain == "b", 10.0 - truth.is_anomaly, truth.is_anomaly)
    found = heart_asd.score(pd.DataFrame({"clip_id": truth.clip_id, "score": score}), truth)
    assert (found["auc_a"], found["auc_b"], found["auc"]) == (1.0, 0.0, 0.5)
    known = Predictions(
        truth.clip_id.to_numpy(str), ("heart_a", "heart_b"), np.zeros((8, 2), np.float32), np.zeros(8), np.zeros(8) > 0,
        score=score,
    )  # fmt: skip
    submission = heart_asd.rows(known, tables.test)
    get_competition("heart_asd").validate(submission, tables.test)
    assert submission.score.tolist() == score.tolist()


def test_domain_c_is_listed_and_left_out_of_the_mean():
    table = pd.DataFrame({"domain": list("acde"), "auc": [0.6, 0.0, 0.7, 0.8], "pauc": [0.5, 1.0, 0.5, 0.5]})
    found = heart_asd.means(table)
    assert found["auc"] == pytest.approx(0.7)
    assert found["pauc"] == pytest.approx(0.5)
    assert found["auc_c"] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.assign(label=m.label.replace("anomaly", "abnormal")), "label is normal or anomaly, got abnormal"),
        (lambda m: m.assign(split="train"), "4 training clips are anomalous, only normal ones may train: audio/a/a8"),
        (lambda m: m[(m.domain == "a") | (m.split == "test")], "no clip of domain b is in the split train"),
        (lambda m: m.drop(columns="domain"), "domain"),
        (lambda m: m.assign(domain=m.domain.where(m.index != 2, "")), "1 clip has no domain: audio/a/a2"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, change, message):
    change(write_pack(tmp_path)).to_csv(tmp_path / "meta.csv", index=False)
    with pytest.raises(ValueError, match=message):
        heart_asd.prepare(tmp_path)


def test_the_real_pack_has_the_counts_of_its_readme(shared_data):
    source = shared_data / "heart_asd"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    tables = heart_asd.prepare(source)
    assert (len(tables.clips), len(tables.missing)) == (566, 0)
    counts = tables.truth.groupby(["domain", "is_anomaly"]).size().to_dict()
    assert (counts["c", 0], counts["c", 1], counts["d", 0], counts["d", 1]) == (3, 24, 11, 28)


@pytest.mark.slow
def test_a_run_is_scored_by_every_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_pack(tmp_path / "source")
    (tmp_path / "heart.yaml").write_text(HEART_CONFIG)
    run(prepare, "heart_asd", "--source", "source", "--out", "data")
    run(make_folds, "--clips", "data/clips.csv", "--out", "folds.csv")
    run(train, "--config", "heart.yaml")
    run(score_anomalies, "--run", "runs/asd/heart")
    found = pd.read_csv(tmp_path / "runs/asd/heart/anomaly_scores.csv")
    assert found.method.unique().tolist() == ["log_odds", "knn", "mahalanobis", "gmm"]
    assert (found.groupby("method").domain.apply(list).map(tuple) == ("a", "b")).all()
    assert found[found.method == "knn"].auc.tolist() == [1.0, 1.0]  # noise is unlike any tone
    assert "means" in capsys.readouterr().out
    first = (tmp_path / "runs/asd/heart/fold0/train.npz").stat().st_mtime_ns
    run(score_anomalies, "--run", "runs/asd/heart")
    assert (tmp_path / "runs/asd/heart/fold0/train.npz").stat().st_mtime_ns == first  # predicted once
    assert pd.read_csv(tmp_path / "runs/asd/heart/anomaly_scores.csv").equals(found)


# ---- report


def test_a_training_clip_is_not_its_own_neighbour():
    normal, groups = np.random.default_rng(0).normal(size=(12, 5)), np.array(["a"] * 11 + ["b"])
    scores = anomaly_report.cross_fitted(anomaly_scores.knn_scores, normal, groups)
    assert (scores[:11] > 0.01).all()
    assert scores[11] == pytest.approx(0, abs=1e-12)  # alone in its group
    part = np.arange(11) % 10
    for i in range(11):
        others = normal[:11][part != part[i]]
        assert scores[i] == pytest.approx(anomaly_scores.knn_scores(others, normal[[i]])[0])


def test_the_threshold_of_a_group_is_that_of_its_own_training_scores():
    training, groups = np.r_[np.linspace(1, 2, 20), np.linspace(101, 102, 20)], np.repeat(["a", "b"], 20)
    judged = np.array([1.5, 3.0, 99.0, 105.0, 60.0, 150.0])
    decided = anomaly_report.decisions(judged, np.array(["a", "a", "b", "b", "new", "new"]), training, groups)
    assert decided.tolist() == [False, True, False, True, False, True]  # a new group: the threshold of all


def test_a_table_has_a_row_a_method_and_group():
    clips = pd.DataFrame({"machine": "m", "section": "0", "domain": list("aabb"), "is_anomaly": [0, 1, 0, 0]})
    training = np.linspace(0.5, 1.5, 10)
    found = anomaly_report.table(
        {"one": Scores(training, np.array([1.0, 9.0, 1.0, 1.0]))}, np.repeat("m_0", 10), np.repeat("m_0", 4), clips
    )
    assert found.auc.tolist()[0] == 1.0
    assert np.isnan(found.auc.tolist()[1])
    assert (found.precision[0], found.recall[0], found.f1[0]) == (1.0, 1.0, 1.0)
    assert "1 row lacks one kind of clips" in anomaly_report.text(found)


# ---- baselines


def test_statistics_see_levels_and_the_rate_of_a_pulse():
    time = np.arange(625) * 0.016
    flat, pulse = np.full((625, 3), -40.0), np.repeat(-40 + 10 * np.sin(2 * np.pi * 5 * time)[:, None], 3, axis=1)
    assert anomaly_statistics.level_statistics(flat)[:6].tolist() == [-40, -40, -40, 0, 0, 0]
    modulation = anomaly_statistics.modulation_statistics(pulse, 0.016).reshape(11, 3)
    assert (modulation.argmax(axis=0) == 5).all()  # 4 to 6 Hz
    assert anomaly_statistics.modulation_statistics(flat, 0.016) == pytest.approx(np.full(33, np.log(1e-3)))
    louder = anomaly_statistics.modulation_statistics(pulse + 20, 0.016)
    assert louder == pytest.approx(modulation.ravel(), abs=1e-6)
    with pytest.raises(ValueError, match="at least 2 s"):
        anomaly_statistics.modulation_statistics(flat[:40], 0.016)
    with pytest.raises(ValueError, match=r"needs frames every 16\.1 ms or less, got 32"):
        anomaly_statistics.modulation_statistics(flat, 0.032)


def test_nearest_scores_against_loops():
    rng = np.random.default_rng(1)
    normal, clips = rng.normal(3, 2, (7, 4)), rng.normal(3, 2, (5, 4))
    normal[:, 3] = 1  # never varies: only centred
    mean, spread = normal.mean(axis=0), np.r_[normal.std(axis=0)[:3], 1]
    for k in (1, 3, 99):
        found = anomaly_statistics.nearest_scores(normal, clips, k)
        for i, clip in enumerate(clips):
            distances = sorted(np.sqrt((((clip - n) / spread) ** 2).sum()) for n in normal)
            assert found[i] == pytest.approx(np.mean(distances[:k]))
    assert anomaly_statistics.standardised(normal, normal).mean(axis=0) == pytest.approx(mean * 0, abs=1e-12)


def test_the_autoencoder_rebuilds_what_it_learned_and_repeats_itself():
    rng = np.random.default_rng(2)

    def clip(shape):
        return np.outer(rng.normal(size=60), shape).astype(np.float32)

    shape, other = np.array([1.0, 2, 3, 4]), np.array([4.0, -3, 2, -1])
    normal = [clip(shape) for _ in range(8)]
    clips = [clip(shape), clip(other)]
    scores = autoencoder.autoencoder_scores(normal, clips, seed=0, epochs=10, batch_size=64)
    assert scores[1] > 2 * scores[0]
    again = autoencoder.autoencoder_scores(normal, clips, seed=0, epochs=10, batch_size=64)
    assert again.tolist() == scores.tolist()
    network = autoencoder.autoencoder(640)
    moving = sum(v.numel() for k, v in network.state_dict().items() if "running" in k)  # Keras counts them
    assert sum(p.numel() for p in network.parameters()) + moving == 269992  # that of DCASE 2020's baseline
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="5 frames in a row, the clip has 3"):
        autoencoder.in_context(np.zeros((3, 4)))


def test_frames_stand_in_order():
    frames = autoencoder.in_context(np.arange(14).reshape(7, 2))
    assert frames.shape == (3, 10)
    assert frames[1].tolist() == list(range(2, 12))

"""DCASE task 2 from recordings to the challenge's files: machines trained apart, methods, thresholds, one table."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.stats import hmean

import make_folds
import predict
import prepare
import score_anomalies
import submit
import train
from conftest import HEART_CONFIG
from earshot.anomaly import report as anomaly_report
from earshot.anomaly.judged import joined, scored
from earshot.anomaly.report import Scores
from earshot.competitions import dcase_task2
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table
from scripts import run

NAME = "dcase2021_task2"
RATE, SECONDS = 2000, 2.4
PITCH = {("fan", "00"): 150, ("fan", "01"): 250, ("saw", "00"): 400, ("saw", "01"): 700}


def write_download(folder):
    """Tones of a machine's section in noise; what is anomalous is noise alone. Sections train normally; section_00 of
    each machine has clips of unknown condition too (the evaluation's)."""
    rng = np.random.default_rng(0)

    def write(path, pitch, odd):
        t = np.arange(round(RATE * SECONDS)) / RATE
        tone = 0.0 if odd else 0.3 * np.sin(2 * np.pi * pitch * t)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, (tone + 0.03 * rng.standard_normal(len(t))).astype(np.float32), RATE)

    for (machine, s), pitch in PITCH.items():
        for domain in ("source", "target"):
            for i in range(6):
                write(folder / f"dev/{machine}/train/section_{s}_{domain}_train_normal_{i:04d}.wav", pitch, False)
            for i in range(3):
                for kind in ("normal", "anomaly"):
                    name = f"section_{s}_{domain}_test_{kind}_{i:04d}.wav"
                    write(folder / f"dev/{machine}/{domain}_test/{name}", pitch, kind == "anomaly")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of prepared data and two trained runs, runs/asd/fan and runs/asd/saw."""
    folder = tmp_path_factory.mktemp("machines")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_download(folder / "source")
        run(prepare, NAME, "--source", "source", "--out", "data")
        run(make_folds, "--clips", "data/clips.csv", "--out", "folds.csv")
        config = HEART_CONFIG.replace("heart_asd", NAME).replace("epochs: 2", "epochs: 3")
        (folder / "asd.yaml").write_text(config)
        for machine in ("fan", "saw"):
            run(train, "--config", "asd.yaml", "--name", machine, f"data.where={{machine: {machine}}}")
    return folder


@pytest.fixture
def machines(trained, monkeypatch):
    """The working directory is that folder."""
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.slow
def test_machines_trained_apart_make_one_submission(machines, capsys):
    oof = Predictions.load("runs/asd/fan/fold0/oof.npz")
    assert oof.score is not None, "training writes the network's own anomaly score"
    both = ("--run", "runs/asd/fan", "runs/asd/saw")
    run(score_anomalies, *both, "--method", "knn", "--out", "knn.npz")
    said = capsys.readouterr().out
    found = Predictions.load("knn.npz")
    assert len(found) == 48
    assert set(found.classes) == {f"{m}_section_{s}" for m, s in PITCH}
    assert np.isfinite(found.score).all()
    tables = pd.concat([read_table(f"runs/asd/{m}/anomaly_scores.csv") for m in ("fan", "saw")])
    knn = tables[tables.method == "knn"]
    assert knn.machine.value_counts().to_dict() == {"fan": 4, "saw": 4}
    means = anomaly_report.machine_means(tables)
    line = means[(means.method == "knn") & (means.machine == "mean")].iloc[0]
    assert f"knn mean {line.auc:.4f} {line.pauc:.4f}" in " ".join(said.split())

    arguments = ("--competition", NAME, "--test", "data/test.csv", "--truth", "data/truth.csv")
    run(submit, *arguments, "--predictions", "knn.npz", "--out", "submissions/knn.csv")
    said = capsys.readouterr().out
    official = means[(means.method == "knn") & (means.machine == "harmonic")].official_2021.iloc[0]
    assert f"official                 {official:.4f}" in said  # in 2021 that harmonic mean is the official score
    assert official > 0.99, "noise is unlike any tone"
    rows = read_table("submissions/knn.csv")
    clips = read_table("data/clips.csv").set_index("clip_id")
    by_file = {(r.machine, r.part, r.filename): r for r in rows.itertuples()}
    for clip, score, threshold in zip(found.clip_ids, found.score, found.threshold, strict=True):
        row = by_file[tuple(clips.loc[clip, ["machine", "part", "filename"]])]
        assert row.score == pytest.approx(score, rel=1e-6)
        assert row.decision == int(score > threshold)
    files = {p.name for p in (machines / "submissions/knn_files").iterdir()}
    assert "anomaly_score_saw_section_01_target_test.csv" in files
    assert "decision_result_fan_section_00_source_test.csv" in files
    log = read_table("submissions/log.csv")
    assert log.score[0] == pytest.approx(official, abs=1e-6)

    run(score_anomalies, *both, "--also", "statistics", "--combine", "knn", "statistics", "--out", "both.npz")
    run(submit, *arguments, "--predictions", "both.npz", "--out", "submissions/both.csv")
    assert "knn+statistics of 48 clips" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--method: no anomaly score 'kn'; did you mean 'knn'"):
        run(score_anomalies, *both, "--method", "kn", "--out", "x.npz")
    with pytest.raises(ValueError, match=r"clips are scored by more than one run, such as fan_section"):
        run(score_anomalies, "--run", "runs/asd/fan", "runs/asd/fan", "--out", "x.npz")


@pytest.mark.slow
def test_recordings_of_a_table_are_scored_too(machines, capsys):
    """The held-out clips again, as a table of unknown conditions: the same scores as from their OOF, of each method,
    also by predict.py; each run takes its own machine's clips."""
    table = read_table("data/clips.csv")
    table = table[table.split == "test"].assign(labels="", is_anomaly="")
    table.to_csv("unknown.csv", index=False)
    both = ("--run", "runs/asd/fan", "runs/asd/saw")
    for method in ("log_odds", "knn"):
        run(score_anomalies, *both, "--method", method, "--out", "oof.npz")
        run(score_anomalies, *both, "--method", method, "--out", "test.npz", "--clips", "unknown.csv")
        of_table, of_oof = Predictions.load("test.npz"), Predictions.load("oof.npz")
        of_oof = of_oof.aligned(of_table.clip_ids)
        np.testing.assert_allclose(of_table.score, of_oof.score, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(of_table.threshold, of_oof.threshold, rtol=1e-5)
    fans = table[table.machine == "fan"]
    fans.to_csv("fans.csv", index=False)
    run(score_anomalies, "--run", "runs/asd/fan", "--out", "own.npz", "--clips", "fans.csv")
    run(predict, "--run", "runs/asd/fan", "--clips", "fans.csv", "--audio-root", "source", "--out", "predicted.npz")
    own, predicted = Predictions.load("own.npz"), Predictions.load("predicted.npz")
    np.testing.assert_allclose(predicted.score, own.score, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(predicted.threshold, own.threshold, rtol=1e-5)
    with pytest.raises(ValueError, match=r"fans\.csv lists no clip of machine=saw for runs/asd/saw"):
        run(score_anomalies, *both, "--out", "x.npz", "--clips", "fans.csv")


# ---- the parts


def test_the_papers_table_by_hand():
    """Two sections of a fan, one of a saw, one without anomalies."""
    found = pd.DataFrame({
        "method": "knn", "machine": ["fan", "fan", "saw", "saw"], "auc": [0.9, 0.5, 0.8, np.nan],
        "pauc": [0.6, 0.5, 0.7, np.nan],
    })  # fmt: skip
    means = anomaly_report.machine_means(found).set_index("machine")
    assert (means.auc["fan"], means.auc["saw"], means.auc["mean"]) == pytest.approx((0.7, 0.8, 0.75))
    assert means.pauc["mean"] == pytest.approx((0.55 + 0.7) / 2)
    assert means.auc["harmonic"] == pytest.approx(hmean([0.9, 0.5, 0.8]))
    assert means.official_2021["harmonic"] == pytest.approx(hmean([0.9, 0.5, 0.8, 0.6, 0.5, 0.7]))
    assert means.official_2021.drop("harmonic").isna().all()


def plain(ids, classes=("fan_section_00",), **fields) -> Predictions:
    n = len(ids)
    return Predictions(np.array(ids), classes, np.ones((n, len(classes)), np.float32), np.zeros(n, int),
                       np.zeros(n, bool), **fields)  # fmt: skip


def test_an_unreadable_clip_gets_the_mean_of_its_section():
    groups = np.array(["fan_section_00", "fan_section_00", "fan_section_00", "fan_section_01"])
    method = Scores(np.linspace(1, 2, 20), np.array([1.0, 4.0]))
    readable = np.array([True, False, True, False])
    found = scored(plain(list("abcd")), readable, method, np.repeat("fan_section_00", 20), groups)
    assert found.score.tolist() == [1.0, 2.5, 4.0, 2.5]
    assert len(set(found.threshold.tolist())) == 1, "a section without training clips takes the threshold of all"
    assert 1.5 < found.threshold[0] < 2.5


def test_runs_are_joined_over_the_union_of_their_classes():
    a = plain(["x"], score=np.array([1.0]), threshold=np.array([0.5]))
    b = plain(["y"], ("saw_section_00", "saw_section_01"), score=np.array([2.0]), threshold=np.array([3.0]))
    both = joined([a, b])
    assert both.classes == ("fan_section_00", "saw_section_00", "saw_section_01")
    assert both.clipwise_output.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert (both.score.tolist(), both.threshold.tolist()) == ([1, 2], [0.5, 3])


def test_thresholds_survive_saving_and_decide(tmp_path, caplog):
    found = plain(list("abc"), score=np.array([1.0, 2.0, 3.0]), threshold=np.array([1.5, 2.5, np.nan]))
    found.save(tmp_path / "x.npz")
    found = Predictions.load(tmp_path / "x.npz").take([2, 0, 1])
    assert found.threshold[1:].tolist() == [1.5, 2.5]
    test = pd.DataFrame({
        "clip_id": list("abc"), "machine": "fan", "section": "section_00", "part": "p", "filename": list("abc"),
        "domain": "",
    })  # fmt: skip
    assert dcase_task2.rows(found, test).decision.tolist() == [0, 0, 1]  # c: above the section's median, 2
    assert "1 of 3 clips have no threshold from training scores" in caplog.text
    caplog.clear()
    assert dcase_task2.rows(found, test, {"thresholds": {"fan_section_00": 0.5}}).decision.tolist() == [1, 1, 1]
    assert not caplog.text

"""Freesound Audio Tagging 2019: layout -> tables -> rows -> checks -> LWLRAP."""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from earshot.competitions import freesound2019
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

CLASSES = ["Bark", "Accordion", "Bathtub_(filling_or_washing)"]


def download(folder, curated=None, noisy=None, test=("00.wav", "1e5.wav"), absent=()):
    curated = curated or [(f"c{i}.wav", CLASSES[i % 3] + (",Bark" if i == 1 else "")) for i in range(12)]
    noisy = noisy or [("n0.wav", "Accordion"), ("n1.wav", "Bark,Accordion")]
    for name, rows in (("curated", curated), ("noisy", noisy)):
        pd.DataFrame(rows, columns=["fname", "labels"]).to_csv(folder / f"train_{name}.csv", index=False)
        (folder / f"train_{name}").mkdir(exist_ok=True)
        for fname, _ in rows:
            if fname not in absent:
                (folder / f"train_{name}" / fname).touch()
    sample = pd.DataFrame(0, index=range(len(test)), columns=CLASSES)
    sample.insert(0, "fname", list(test))
    sample.to_csv(folder / "sample_submission.csv", index=False)
    (folder / "test").mkdir(exist_ok=True)
    (folder / "test" / test[0]).touch()
    return folder


def predictions(ids, scores):
    n = len(ids)
    scores = np.asarray(scores, np.float32)
    return Predictions(np.array(ids), tuple(CLASSES), scores, np.full(n, -1), np.zeros(n, bool))


def test_tables(tmp_path):
    tables = freesound2019.prepare(download(tmp_path, absent=("c3.wav",)))
    assert tables.classes == CLASSES
    assert len(tables.clips) == 11
    assert tables.clips.labels[1] == "Accordion Bark"
    assert "official_fold" not in tables.clips
    assert tables.test_clips.clip_id.tolist() == ["00", "1e5"]
    assert [clip for clip, _ in tables.missing] == ["c3", "1e5"]
    both = freesound2019.prepare(tmp_path, noisy=True).clips.set_index("clip_id")
    assert both.official_fold[["n0", "n1"]].tolist() == [-1, -1]
    assert set(both.official_fold[both.subset == "curated"]) == set(range(5))


def test_broken_tables(tmp_path):
    with pytest.raises(ValueError, match=r"sample_submission\.csv does not exist"):
        freesound2019.prepare(tmp_path)
    with pytest.raises(ValueError, match="train_curated.csv names 1 labels .*: Brak; did you mean 'Bark'"):
        freesound2019.prepare(download(tmp_path, [("a.wav", "Brak")]))
    with pytest.raises(ValueError, match="train_curated.csv has no label for 1 clip: a.wav"):
        freesound2019.prepare(download(tmp_path, [("a.wav", "")]))


def test_rows_checks_and_score(tmp_path, caplog):
    test = freesound2019.prepare(download(tmp_path, test=("00.wav", "1e5.wav", "b.wav"))).test
    scores = np.random.default_rng(0).random((2, 3))
    with caplog.at_level(logging.WARNING, "earshot"):
        rows = freesound2019.rows(predictions(["b", "00"], scores), test)
    assert (
        "1 of 3 recordings have no prediction (missing or unreadable) and get the mean of each class: 1e5"
        in caplog.text
    )
    np.testing.assert_allclose(rows[CLASSES], [scores[1], scores.mean(0), scores[0]], rtol=1e-6)
    rows.to_csv(tmp_path / "s.csv", index=False)
    freesound2019.validate(read_table(tmp_path / "s.csv"), test, CLASSES)
    wrong = rows.assign(fname=["00.wav", "00.wav", "b.wav"]).rename(columns={"Bark": "Bork"})
    with pytest.raises(
        ValueError, match="unknown Bork; did you mean.*1 fname twice: 00.wav; 1 fname not there: 1e5.wav"
    ):
        freesound2019.validate(wrong, test, CLASSES)
    truth = pd.DataFrame([[1, 0, 0], [1, 1, 0], [0, 0, 0]], columns=CLASSES).assign(fname=rows.fname)
    expected = label_ranking_average_precision_score(
        truth[CLASSES].iloc[:2], rows[CLASSES].iloc[:2], sample_weight=[1, 2]
    )
    assert freesound2019.score(rows, truth.iloc[::-1])["lwlrap"] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="the truth lacks b.wav"):
        freesound2019.score(rows, truth.iloc[:2])

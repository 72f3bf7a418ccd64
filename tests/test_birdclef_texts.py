"""BirdCLEF 2021 and 2022: rows of texts, and of yes or no for the scored birds."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from earshot.tables import read_table
from test_birdclef import BIRDCLEF2021, BIRDCLEF2022, POST, focal, predictions


def download_2021(folder):
    focal(folder, "train_short_audio", prefixed=False)
    labels = [("3575_COL_5", "COL", 3575, 5, "nocall"), ("3575_COL_10", "COL", 3575, 10, "ameavo zebdov")]
    columns = ["row_id", "site", "audio_id", "seconds", "birds"]
    pd.DataFrame(labels, columns=columns).to_csv(folder / "train_soundscape_labels.csv", index=False)
    (folder / "train_soundscapes").mkdir()
    (folder / "train_soundscapes/3575_COL_20190101.ogg").touch()
    rows = [(f"{i}_SSW_{s}", "SSW", i, s) for i in (17, 42) for s in (5, 10)]
    pd.DataFrame(rows, columns=columns[:4]).to_csv(folder / "test.csv", index=False)
    (folder / "test_soundscapes").mkdir()
    (folder / "test_soundscapes/17_SSW_20190202.ogg").touch()
    return folder


def test_2021_from_layout_to_score(tmp_path, caplog):
    made = BIRDCLEF2021.prepare(download_2021(tmp_path))
    assert made.classes == ["22930", "ameavo", "zebdov"]
    assert made.clips.path.tolist()[0] == "train_short_audio/zebdov/XC1.ogg"
    clip = made.clips.set_index("clip_id").loc["3575_COL"]
    assert (clip.path, clip.labels) == ("train_soundscapes/3575_COL_20190101.ogg", "ameavo zebdov")
    assert made.events[["onset", "offset"]].values.tolist() == [[5, 10], [5, 10]]
    assert made.test_clips.path.tolist() == ["test_soundscapes/17_SSW_20190202.ogg", "test_soundscapes/42_SSW.ogg"]
    heard = [("zebdov", 1, 6), ("ameavo", 2, 5)]
    found = predictions({"17_SSW": (10, heard)}, made.classes)
    with caplog.at_level(logging.WARNING, "earshot"):
        submission = BIRDCLEF2021.rows(found, made.test, POST)
    assert "1 of 2 recordings have no prediction: 42_SSW" in caplog.text
    assert submission.birds.tolist() == ["ameavo zebdov", "zebdov", "nocall", "nocall"]
    BIRDCLEF2021.validate(submission, made.test, made.classes)
    truth = submission.assign(birds=["ameavo", "zebdov", "nocall", "ameavo"])
    assert BIRDCLEF2021.score(submission, truth)["row_micro_f1"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    labels = ["22930", "ameavo", "zebdov", "nocall"]
    hot = [[[int(n in row.split()) for n in labels] for row in t.birds] for t in (truth, submission)]
    assert BIRDCLEF2021.score(submission, truth)["row_micro_f1"] == pytest.approx(f1_score(*hot, average="samples"))


def test_2021_bad_rows(tmp_path):
    made = BIRDCLEF2021.prepare(download_2021(tmp_path))
    good = made.test[["row_id"]].assign(birds="nocall")
    for wrong, message in (
        (good.assign(birds=["nocall ameavo", "nocall", "", "nocall"]), "is empty.*mixes nocall with labels"),
        (good.assign(birds=["wewpew", "zebdov ameavo", "nocall", "nocall"]), "unknown labels.*not sorted"),
        (good.assign(row_id=["17_SSW_0", "17_SSW_5", "42_SSW_5", "42_SSW_10"]), "not in the test table: 17_SSW_0"),
    ):
        with pytest.raises(ValueError, match=message):
            BIRDCLEF2021.validate(wrong, made.test, made.classes)
    read_table(tmp_path / "test.csv").assign(seconds=5).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(ValueError, match="2 row_id do not follow from audio_id, site, seconds: 17_SSW_10"):
        BIRDCLEF2021.prepare(tmp_path)


def download_2022(folder):
    focal(folder)
    (folder / "scored_birds.json").write_text(json.dumps(["ameavo", "zebdov"]))
    rows = [("soundscape_7", b, e) for e in (5, 10) for b in ("ameavo", "zebdov")]
    test = pd.DataFrame(rows, columns=["file_id", "bird", "end_time"])
    test.insert(0, "row_id", [f"{f}_{b}_{e}" for f, b, e in rows])
    test.to_csv(folder / "test.csv", index=False)
    return folder


def test_2022_from_layout_to_score(tmp_path):
    made = BIRDCLEF2022.prepare(download_2022(tmp_path))
    assert made.classes == ["22930", "ameavo", "zebdov"]
    assert made.test_clips.path.tolist() == ["test_soundscapes/soundscape_7.ogg"]
    found = predictions({"soundscape_7": (10, [("zebdov", 1, 3), ("ameavo", 7, 8), ("22930", 1, 9)])}, made.classes)
    submission = BIRDCLEF2022.rows(found, made.test, POST)
    assert submission.target.tolist() == [False, True, True, False]  # 22930 is not scored
    submission.to_csv(tmp_path / "s.csv", index=False)
    BIRDCLEF2022.validate(read_table(tmp_path / "s.csv"), made.test, made.classes)
    assert BIRDCLEF2022.score(submission, submission.iloc[::-1])["balanced_accuracy"] == 1
    silent = BIRDCLEF2022.rows(predictions({}, made.classes), made.test, POST)
    assert not silent.target.any()
    for wrong, message in (
        (submission.assign(target=[0.5, "maybe", True, True]), "neither True nor False in 2 rows: 0.5, maybe"),
        (submission.iloc[:3], "1 row_id not there"),
        (submission.rename(columns={"target": "birds"}), "missing target, unknown birds"),
    ):
        with pytest.raises(ValueError, match=message):
            BIRDCLEF2022.validate(wrong, made.test, made.classes)
    with pytest.raises(ValueError, match="do not follow from file_id, bird, end_time"):
        BIRDCLEF2022.validate(submission, made.test.assign(end_time=[5, 5, 5, 10]), made.classes)
    (tmp_path / "scored_birds.json").write_text('["ameavo", "zebdof"]')
    with pytest.raises(
        ValueError, match="scored_birds.json names 1 .*: zebdof; did you mean 'zebdov'.*test.csv names 1"
    ):
        BIRDCLEF2022.prepare(tmp_path)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_2022_score_is_the_mean_balanced_accuracy(seed):
    rng = np.random.default_rng(seed)
    truth, said = rng.random((2, 9, 4)) < 0.5
    truth[:, 0], truth[:, 1] = True, False  # neither can be scored
    truth[0, 2:], truth[1, 2:] = True, False
    ids = [f"soundscape_1_{b}_{5 * i + 5}" for i in range(9) for b in "abcd"]
    frame = pd.DataFrame({"row_id": ids, "target": said.ravel()})
    result = BIRDCLEF2022.score(frame, frame.assign(target=truth.ravel()).sample(frac=1, random_state=1))
    expected = np.mean([balanced_accuracy_score(truth[:, k], said[:, k]) for k in (2, 3)])
    assert result == {"balanced_accuracy": pytest.approx(expected), "birds_scored": 2}
    with pytest.raises(ValueError, match="none of 4 birds"):
        BIRDCLEF2022.score(frame, frame.assign(target=False))


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ("train_soundscape_labels.csv", "seconds", "column 'seconds' holds 'soon' in row 1, expected a number"),
        ("test.csv", "seconds", "row_id do not follow"),
        ("test.csv", None, "1 row_id twice: 17_SSW_5"),
    ],
)
def test_2021_with_a_text_for_a_time_or_a_row_twice(tmp_path, table, column, message):
    download_2021(tmp_path)
    rows = pd.read_csv(tmp_path / table, dtype=str)
    if column:
        rows.loc[0, column] = "soon"
    else:
        rows = pd.concat([rows, rows.head(1)])
    rows.to_csv(tmp_path / table, index=False)
    with pytest.raises(ValueError, match=message):
        BIRDCLEF2021.prepare(tmp_path)

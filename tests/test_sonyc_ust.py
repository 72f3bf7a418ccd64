"""Urban sound tagging: votes and truth of several annotators -> labels, the test, submissions and their score."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

import make_folds
import prepare
from earshot.competitions import get_competition, sonyc_ust
from earshot.data.labels import read_classes, read_clips
from earshot.metrics import urban as urban_metrics
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table
from scripts import run

TAGS = ["1-1_small-engine", "1-X_engine-of-uncertain-size", "8-1_dog-barking-whining", "1_engine", "8_dog"]


def annotations(rows, **columns) -> pd.DataFrame:
    """(split, sensor, file, annotator, five presences) -> annotations.csv."""
    table = pd.DataFrame(rows, columns=[*sonyc_ust.COLUMNS, *(f"{t}_presence" for t in TAGS)])
    table["1-1_small-engine_proximity"] = "near"
    return table.assign(**columns)


ROWS = [
    ("train", 3, "03_1.wav", 5, 1, 0, 0, 1, 0), ("train", 3, "03_1.wav", 6, 0, 0, 0, 0, 0),  # a tie
    ("train", 3, "03_1.wav", 7, -1, -1, -1, -1, -1),  # was not asked
    ("train", 4, "04_2.wav", 5, 1, 0, 0, 1, 0), ("train", 4, "04_2.wav", 6, 0, 0, 0, 0, 0),
    ("train", 4, "04_2.wav", 7, 0, 0, 0, 0, -1),
    ("validate", 5, "05_3.wav", 5, 1, 1, 1, 1, 1), ("validate", 5, "05_3.wav", -1, 1, 0, 0, 1, 0),
    ("validate", 5, "05_3.wav", 0, 0, 1, 0, 1, 0),
    ("validate", 5, "05_4.wav", 9, 0, 0, 1, 0, 1),  # nobody verified it
]  # fmt: skip


def download(folder, table, folders=("audio", "audio-dev/validate")):
    table.to_csv(folder / "annotations.csv", index=False)
    for i, name in enumerate(table.audio_filename.unique()):
        path = folder / folders[i % len(folders)] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(800, np.float32), 8000)
    return folder


def test_votes_and_truth():
    clips = sonyc_ust.clip_table(annotations(ROWS)).set_index("clip_id")
    assert clips.labels.to_dict() == {"03_1": "1_engine", "04_2": "", "05_3": "1_engine", "05_4": "8_dog"}
    assert clips.group.tolist() == ["sensor_3", "sensor_4", "sensor_5", "sensor_5"]
    assert clips.is_verified.tolist() == [0, 0, 1, 0]
    assert clips.n_annotations.tolist() == [3, 3, 2, 1]
    assert clips.votes_1_engine.tolist() == [0.5, 0.3333, 1, 0]  # the truth is no vote
    assert clips.votes_8_dog.tolist() == [0, 0, 0.5, 1]
    heard = sonyc_ust.clip_table(annotations(ROWS), votes="any").set_index("clip_id").labels
    assert heard.to_dict() == {"03_1": "1_engine", "04_2": "1_engine", "05_3": "1_engine", "05_4": "8_dog"}
    fine = sonyc_ust.clip_table(annotations(ROWS), "fine").set_index("clip_id").labels
    assert fine["05_3"] == "1-X_engine-of-uncertain-size"
    nobody = sonyc_ust.clip_table(annotations([("train", 3, "a.wav", 5, -1, -1, -1, -1, -1)]))
    assert nobody.labels[0] == ""
    assert np.isnan(nobody.votes_1_engine[0])


def test_annotators_who_disagree_wholly_and_recordings_without_annotations(tmp_path, caplog):
    """A tie counts as present; three who each heard something else leave no label; both are said."""
    rows = [
        *((("train", 3, "03_7.wav", who, *heard)) for who, heard in ((5, (1, 0, 0, 1, 0)), (6, (0, 0, 1, 0, 1)))),
        *(("train", 3, "03_8.wav", who, *heard) for who, heard in
          ((5, (1, 0, 0, 1, 0)), (6, (0, 0, 1, 0, 1)), (7, (0, 0, 0, 0, 0)))),
        ("train", 3, "03_9.wav", 5, 0, 0, 0, 0, 0),
    ]  # fmt: skip
    folder = download(tmp_path, annotations(rows))
    (folder / "audio/99_1.wav").touch()
    with caplog.at_level("WARNING", "earshot"):
        clips = sonyc_ust.prepare(folder).clips.set_index("clip_id")
    assert clips.labels.to_dict() == {"03_7": "1_engine 8_dog", "03_8": "", "03_9": ""}
    assert clips.votes_8_dog.tolist() == [0.5, 0.3333, 0]
    assert "1 clips have tags that half of their annotators heard, which count as present: 03_7.wav" in caplog.text
    assert (
        "the annotators of 1 clips heard something, but no tag has a majority: these clips have no label" in caplog.text
    )
    assert "1 recordings are not in annotations.csv and are left out: 99_1.wav" in caplog.text
    caplog.clear()
    clips = sonyc_ust.prepare(folder, votes="any").clips.set_index("clip_id")
    assert clips.labels["03_8"] == "1_engine 8_dog"
    assert "majority" not in caplog.text


def test_from_the_download_to_the_score(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    download(tmp_path, annotations(ROWS, hour=13, block=547))
    run(prepare, "sonyc_ust", "--source", tmp_path, "--set", "votes=any")
    run(make_folds, "--clips", "data/sonyc_ust/clips.csv", "--out", "folds/ust.csv")
    folds = read_table("folds/ust.csv").set_index("clip_id").fold
    assert folds.to_dict() == {"03_1": -1, "04_2": -1, "05_3": 0, "05_4": 0}
    clips = read_clips("data/sonyc_ust/clips.csv")
    assert clips.path.tolist()[:2] == ["audio/03_1.wav", "audio-dev/validate/04_2.wav"]
    assert clips.hour.tolist() == [13] * 4
    test, classes = read_table("data/sonyc_ust/test.csv"), read_classes("data/sonyc_ust/classes.csv")
    assert (test.audio_filename.tolist(), classes) == (["05_3.wav"], ["1_engine", "8_dog"])  # the verified ones only
    oof = predictions(["05_4", "05_3"], [[0, 0], [0.9, 0.2]], classes)
    submission = sonyc_ust.rows(oof, test)
    sonyc_ust.validate(submission, test, classes)
    truth = read_table("data/sonyc_ust/truth.csv")
    score = sonyc_ust.score(submission, truth)
    assert list(score) == ["coarse_macro_auprc", "coarse_micro_auprc", "coarse_micro_f1"]
    assert score["coarse_micro_f1"] == 1
    with pytest.raises(ValueError, match="has no option 'vote'; did you mean 'votes'"):
        run(prepare, "sonyc_ust", "--source", tmp_path, "--set", "vote=any", "--force")


def predictions(ids, scores, classes):
    n = len(ids)
    return Predictions(np.array(ids), tuple(classes), np.array(scores, np.float32), np.zeros(n, int), np.zeros(n, bool))


def test_the_test_split_of_v2_and_the_fine_level(tmp_path):
    rows = [*ROWS, *(("test", 6, f"06_{i}.wav", a, i, 0, 0, i, 0) for i in (0, 1) for a in (0, 8))]
    rows.append(("test", 6, "06_5.wav", 8, 0, 0, 0, 0, 0))
    fine = get_competition("sonyc_ust_fine")
    tables = fine.prepare(download(tmp_path, annotations(rows)))
    assert tables.classes == TAGS[:3]
    assert tables.test_clips.clip_id.tolist() == ["06_0", "06_1", "06_5"]
    assert tables.test.audio_filename.tolist() == ["06_0.wav", "06_1.wav"]
    found = predictions(["06_1", "06_0", "06_5"], [[0.2, 0.7, 0.1], [0.1, 0.3, 0.2], [0, 0, 0]], tables.classes)
    submission = fine.rows(found, tables.test)
    assert submission.columns.tolist() == ["audio_filename", *TAGS]
    np.testing.assert_allclose(submission[["1_engine", "8_dog"]], [[0.3, 0.2], [0.7, 0.1]], rtol=1e-6)
    fine.validate(submission, tables.test, tables.classes)
    score = fine.score(submission, tables.truth)
    fine = urban_metrics.evaluate(tables.truth[TAGS], submission[TAGS], "fine")
    assert score["fine_micro_auprc"] == fine["micro_auprc"]
    assert score["coarse_micro_f1"] == 1
    hidden = annotations([r for r in rows if not (r[0] == "test" and r[3] == 0)])
    hidden.to_csv(tmp_path / "annotations.csv", index=False)
    tables = sonyc_ust.prepare(tmp_path)
    assert len(tables.test) == 3
    assert tables.truth is None


def test_wrong_tables_and_submissions(tmp_path):
    with pytest.raises(ValueError, match=r"annotations\.csv does not exist"):
        sonyc_ust.prepare(tmp_path)
    download(tmp_path, annotations(ROWS))
    with pytest.raises(ValueError, match="unknown option 'medium'; known: coarse, fine"):
        sonyc_ust.prepare(tmp_path, level="medium")
    twice = annotations([*ROWS, ROWS[8]])
    with pytest.raises(ValueError, match="annotator 0 has 1 clip twice: 05_3.wav"):
        sonyc_ust.clip_table(twice)
    with pytest.raises(ValueError, match="1 clip is in more than one split: 03_1.wav"):
        sonyc_ust.clip_table(annotations([*ROWS, ("test", *ROWS[0][1:])]))
    with pytest.raises(ValueError, match="has the split 'dev', not train"):
        sonyc_ust.clip_table(annotations([("dev", *ROWS[0][1:])]))
    with pytest.raises(ValueError, match="has no fine presence column"):
        sonyc_ust.tags_of(annotations(ROWS).filter(regex="^[^-]*$"), "fine")
    test = pd.DataFrame({"audio_filename": ["a.wav"], "clip_id": ["a"]})
    good = sonyc_ust.rows(predictions(["a"], [[0.5, 0.5]], ["1_engine", "8_dog"]), test)
    for wrong, message in (
        (good.assign(**{"8_dog": 1.5}), "8_dog holds 1 value outside 0 to 1"),
        (good.assign(audio_filename="b.wav"), "1 audio_filename not there: a.wav; 1 .* not asked for: b.wav"),
        (good.drop(columns="8_dog"), "missing 8_dog"),
    ):
        with pytest.raises(ValueError, match=message):
            sonyc_ust.validate(wrong, test, ["1_engine", "8_dog"])


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    import os
    from pathlib import Path

    from conftest import ROOT

    folder = Path(os.environ.get("EARSHOT_SHARED", ROOT.parent / "shared" / "data")) / "sonyc_ust_labels"
    if not folder.is_dir():
        pytest.skip(f"no annotations at {folder}")
    out = tmp_path_factory.mktemp("sonyc")
    for name in ("annotations_v1", "annotations_v2_coarse"):
        with gzip.open(folder / f"{name}.csv.gz") as packed, open(out / f"{name}.csv", "wb") as plain:
            shutil.copyfileobj(packed, plain)
    shutil.copy(folder / "meta.csv", out / "meta.csv")
    return out


def test_the_counts_of_the_2019_release(released):
    table = read_table(released / "annotations_v1.csv", sonyc_ust.COLUMNS)
    assert len(table) == 10347
    assert (len(sonyc_ust.tags_of(table, "fine")), sonyc_ust.tags_of(table, "coarse")) == (29, list(sonyc_ust.COARSE))
    clips = sonyc_ust.clip_table(table, votes="any")
    assert clips.split.value_counts().to_dict() == {"train": 2351, "validate": 443}
    sensors = clips.groupby("split").group.nunique()
    assert sensors.to_dict() == {"train": 35, "validate": 8}  # 43 in all; the README's 37 is not what the table holds
    assert (clips.is_verified == (clips.split == "validate")).all()
    meta = read_table(released / "meta.csv").sort_values("filename", ignore_index=True)
    expected = meta[list(sonyc_ust.COARSE)].apply(lambda r: " ".join(r.index[r == 1]), axis=1)
    assert clips.labels.tolist() == expected.tolist()
    assert (clips.n_annotations + clips.is_verified).tolist() == meta.n_annotations.tolist()


def test_the_votes_of_v2(released):
    table = read_table(released / "annotations_v2_coarse.csv")
    assert (len(table), table.audio_filename.nunique()) == (62022, 18510)
    shares = sonyc_ust.vote_shares(table, list(sonyc_ust.COARSE))
    assert shares.shape == (18510, 8)
    asked = (table.filter(regex="presence") >= 0).groupby(table.audio_filename).any()
    assert (shares.isna().to_numpy() == ~asked.sort_index().to_numpy()).all()


@pytest.mark.parametrize(("column", "value", "message"), [
    ("8_dog_presence", "x", "annotations.csv: column '8_dog_presence' holds 'x' in row 2, expected a number"),
    ("8_dog_presence", "", "annotations.csv: column '8_dog_presence' holds 'nan' in row 2"),
    ("8_dog_presence", "2", "annotations.csv: 8_dog_presence is 2.* in row 2, expected 1, 0 or -1"),
    ("annotator_id", "x", "annotations.csv: column 'annotator_id' holds 'x' in row 2"),
])  # fmt: skip
def test_cells_that_say_neither_heard_nor_not_are_named(tmp_path, column, value, message):
    """An empty presence would count as a true tag."""
    table = annotations(ROWS).astype(str)
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=message):
        sonyc_ust.prepare(download(tmp_path, table))

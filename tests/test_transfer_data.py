"""The data sets that PANNs are transferred to: layouts as published, made small; folds, rows and scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import prepare as prepare_script
from earshot.competitions import dcase2018_task2, get_competition, gtzan, ravdess
from earshot.data.folds import make_folds
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from scripts import run


def touch(*paths: Path):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, np.full(800, 0.1, np.float32), 8000)


def predictions(ids, scores, classes):
    n = len(ids)
    return Predictions(np.array(ids), tuple(classes), np.array(scores, np.float32), np.zeros(n, int), np.zeros(n, bool))


# DCASE 2018 task 2

LABELS = ("Applause", "Bark", "Cello", "Oboe")


def freesound(folder, archive=False):
    meta = folder / "FSDKaggle2018.meta" if archive else folder
    audio_folder = str(folder / ("FSDKaggle2018.audio_{}" if archive else "audio_{}"))
    meta.mkdir(parents=True, exist_ok=True)
    names = [f"{i:08x}.wav" for i in range(8)]
    train = pd.DataFrame({"fname": names, "label": LABELS * 2, "manually_verified": [1, 0] * 4})
    tests = [f"ff{i:06x}.wav" for i in range(3)]
    truth = pd.DataFrame({"fname": tests, "label": ["Oboe", "Bark", "None"], "usage": ["Public", "Private", "Ignored"]})
    if archive:
        train.to_csv(meta / "train_post_competition.csv", index=False)
        truth[:2].to_csv(meta / "test_post_competition_scoring_clips.csv", index=False)
    else:
        train.to_csv(meta / "train.csv", index=False)
        truth.to_csv(meta / "test_post_competition.csv", index=False)
        pd.DataFrame({"fname": tests, "label": "Bark"}).to_csv(meta / "sample_submission.csv", index=False)
    touch(*(Path(audio_folder.format("train"), n) for n in names))
    touch(*(Path(audio_folder.format("test"), n) for n in tests))
    return folder


def test_freesound_in_both_layouts(tmp_path):
    kaggle = dcase2018_task2.prepare(freesound(tmp_path / "a"))
    archive = dcase2018_task2.prepare(freesound(tmp_path / "b", archive=True))
    assert tuple(kaggle.classes) == tuple(archive.classes) == LABELS
    first = kaggle.clips.iloc[1]
    assert (first.clip_id, first.path, first.labels) == ("00000001", "audio_train/00000001.wav", "Bark")
    assert first.manually_verified == 0
    assert archive.clips.path[0] == "FSDKaggle2018.audio_train/00000000.wav"
    assert (len(kaggle.test), len(archive.test)) == (3, 2)
    assert kaggle.truth.label.tolist() == archive.truth.label.tolist() == ["Oboe", "Bark"]
    assert sorted(make_folds(kaggle.clips, 2).fold.value_counts()) == [4, 4]
    (tmp_path / "a" / "train.csv").unlink()
    with pytest.raises(ValueError, match=r"holds none of train\.csv, train_post_competition\.csv"):
        dcase2018_task2.prepare(tmp_path / "a")


def test_freesound_rows_score_and_validation(tmp_path):
    """MAP@3 by hand: the truth on the first place counts 1, on the third 1/3."""
    tables = dcase2018_task2.prepare(freesound(tmp_path))
    scores = [[0.1, 0.2, 0.3, 0.9], [0.1, 0.2, 0.5, 0.4], [0, 0, 0, 1]]
    found = predictions(tables.test.clip_id[::-1], scores[::-1], tables.classes)
    submission = dcase2018_task2.rows(found, tables.test)
    assert submission.label.tolist()[:2] == ["Oboe Cello Bark", "Cello Oboe Bark"]
    dcase2018_task2.validate(submission, tables.test, tables.classes)
    assert dcase2018_task2.score(submission, tables.truth) == {"map@3": pytest.approx((1 + 1 / 3) / 2)}
    for text, message in (("Barc", "unknown label 'Barc'; did you mean 'Bark'"),
                          ("Bark Oboe Cello Applause", "needs 1 to 3 different labels"),
                          ("Bark Bark", "needs 1 to 3 different labels"), (np.nan, "got 'nan'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            dcase2018_task2.validate(submission.assign(label=text), tables.test, tables.classes)
    with pytest.raises(ValueError, match="1 fname not there: ff000002"):
        dcase2018_task2.validate(submission[:2], tables.test, tables.classes)
    with pytest.raises(ValueError, match="lacks 1 of the 2 scored clips"):
        dcase2018_task2.score(submission[1:], tables.truth)


# MSoS


def test_msos(tmp_path):
    sheet = [("Nature", "Dog", "1.wav"), ("Music", "Guitar solo", "2.wav"), ("Urban", "Bus", "3.wav")]
    pd.DataFrame(sheet, columns=["Category", "Event", "File"]).to_csv(
        tmp_path / "Logsheet_Development.csv", index=False
    )
    touch(*(tmp_path / "Development" / c / f for c, _, f in sheet[:2]))
    msos = get_competition("msos")
    assert msos.prepare(tmp_path).test_clips is None
    master = pd.DataFrame({"File": ["1.wav", "9.wav"], "Event": ["Bus", "Dog"], "Category": ["Urban", "Nature"]})
    master.to_csv(tmp_path / "Logsheet_EvaluationMaster.csv", index=False)
    touch(tmp_path / "Evaluation" / "1.wav", tmp_path / "Evaluation" / "9.wav")
    tables = msos.prepare(tmp_path)
    assert tables.clips.path.tolist() == ["Development/Nature/1.wav", "Development/Music/2.wav"]
    assert tables.clips.event.tolist() == ["Dog", "Guitar_solo"]
    assert tables.missing == (("3", "Development/Urban/3.wav"),)
    assert not set(tables.clips.clip_id) & set(tables.test_clips.clip_id)
    submission = msos.rows(predictions(tables.test.clip_id, np.eye(5)[[4, 0]], tables.classes), tables.test)
    msos.validate(submission, tables.test, tables.classes)
    assert msos.score(submission, tables.truth) == {"accuracy": 0.5}
    pd.DataFrame([("Speech", "x", "1.wav")], columns=["Category", "Event", "File"]).to_csv(
        tmp_path / "Logsheet_Development.csv", index=False
    )
    with pytest.raises(ValueError, match="has the category 'Speech'; known are Effects, Human"):
        msos.prepare(tmp_path)


# GTZAN


def test_gtzan_with_its_broken_file(tmp_path, monkeypatch, capsys):
    """Ten stratified folds; a file that cannot be decoded is listed and ends nothing."""
    source = tmp_path / "genres"
    touch(*(source / g / f"{g}.{i:05d}.wav" for g in gtzan.GENRES for i in range(10)))
    (source / "jazz" / "jazz.00005.wav").write_bytes(b"\x80\xa5not audio at all")
    (source / "jazz" / "._jazz.00001.wav").write_bytes(b"resource fork")
    (source / "bextract.mf").touch()
    monkeypatch.chdir(tmp_path)
    run(prepare_script, "gtzan", "--source", tmp_path)
    assert "unreadable" in capsys.readouterr().out
    assert pd.read_csv("data/gtzan/unreadable.csv").clip_id.tolist() == ["jazz.00005"]
    clips = pd.read_csv("data/gtzan/clips.csv", dtype={"clip_id": str})
    assert len(clips) == 100
    assert clips.path[0] == "genres/blues/blues.00000.wav"
    folds = make_folds(clips, 10).merge(clips, on="clip_id")
    assert (pd.crosstab(folds.fold, folds.labels) == 1).all(axis=None)
    (source / "rock").rename(tmp_path.with_name(f"{tmp_path.name}_rock"))
    with pytest.raises(ValueError, match="lacks the genres rock"):
        gtzan.prepare(tmp_path)
    with pytest.raises(ValueError, match="holds no folder of genres such as blues/"):
        gtzan.prepare(tmp_path / "data")


# RAVDESS


def test_ravdess(tmp_path):
    """Emotion and actor come from the name; four folds, no actor in two; song, video and second copies are left out."""
    names = [f"03-01-{e:02d}-01-0{s}-01-{a:02d}" for a in range(1, 9) for e in range(1, 9) for s in (1, 2)]
    files = [tmp_path / f"Actor_{n[-2:]}" / f"{n}.wav" for n in names]
    extra = [tmp_path / "Actor_01" / "03-02-03-01-01-01-01.wav", tmp_path / "Actor_01" / "01-01-03-01-01-01-01.wav"]
    for path in [*files, *extra, tmp_path / "audio_speech" / "Actor_01" / files[0].name]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tables = ravdess.prepare(tmp_path)
    assert len(tables.clips) == 128
    clip = tables.clips.set_index("clip_id").loc["03-01-06-01-02-01-07"]
    assert (clip.labels, clip.group, clip.statement, clip.path) == (
        "fearful", "actor07", 2, "Actor_07/03-01-06-01-02-01-07.wav",
    )  # fmt: skip
    folds = make_folds(tables.clips, 4)
    assert folds.groupby("fold").group.nunique().tolist() == [2, 2, 2, 2]
    assert (folds.groupby("group").fold.nunique() == 1).all()
    (tmp_path / "Actor_02" / "03-01-09-01-01-01-02.wav").touch()
    with pytest.raises(ValueError, match="the third number must be an emotion from 01 to 08"):
        ravdess.prepare(tmp_path)
    (tmp_path / "Actor_02" / "notes.wav").touch()
    with pytest.raises(ValueError, match=r"1 file is not named like 03-01-06-01-02-01-12\.wav: notes\.wav"):
        ravdess.prepare(tmp_path)
    with pytest.raises(ValueError, match="holds no speech file"):
        ravdess.prepare(tmp_path / "Actor_01")

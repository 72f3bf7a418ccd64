"""ESC-50 and ESC-10: both layouts of the download, official folds, accuracy."""

import numpy as np
import pandas as pd
import pytest

from earshot.competitions import esc50, get_competition
from earshot.data.folds import audit, fold_table, make_folds
from earshot.prediction.predictions import Predictions

META = pd.DataFrame({
    "filename": ["1-11-A-0.wav", "1-11-B-0.wav", "2-12-A-0.wav", "1-13-A-10.wav", "2-14-A-10.wav", "2-11-A-2.wav"],
    "fold": [1, 1, 2, 1, 2, 2],
    "target": [0, 0, 0, 10, 10, 2],
    "category": ["dog", "dog", "dog", "rain", "rain", "pig"],
    "esc10": [True, True, True, True, True, False],
    "src_file": [11, 11, 12, 13, 14, 11],
    "take": list("ABAAAA"),
})  # fmt: skip


def official(folder, meta=META):
    (folder / "meta").mkdir()
    (folder / "audio").mkdir()
    meta.to_csv(folder / "meta" / "esc50.csv", index=False)
    for name in meta.filename:
        (folder / "audio" / name).touch()
    return folder


def predictions(ids, best, classes):
    return Predictions(
        np.array(ids), tuple(classes), np.eye(len(classes), dtype=np.float32)[best], np.zeros(len(ids), int),
        np.zeros(len(ids), bool),
    )  # fmt: skip


def test_the_official_layout(tmp_path):
    tables = esc50.prepare(official(tmp_path))
    assert list(tables.classes) == ["dog", "pig", "rain"]  # by official number
    first = tables.clips.iloc[0]
    assert (first.clip_id, first.path, first.labels, first.group) == ("1-11-A-0", "audio/1-11-A-0.wav", "dog", "11")
    assert tables.task == "tagging"
    folds = make_folds(tables.clips)
    assert folds.set_index("clip_id").fold.to_dict() == {
        "1-11-A-0": 0, "1-11-B-0": 0, "1-13-A-10": 0, "2-11-A-2": 1, "2-12-A-0": 1, "2-14-A-10": 1,
    }  # fmt: skip
    assert folds.official_fold.tolist() == [1, 1, 1, 2, 2, 2]
    assert audit(tables.clips, folds).value.tolist() == ["11"]


def test_esc10_is_a_subset(tmp_path):
    tables = get_competition("esc10").prepare(official(tmp_path))
    assert list(tables.classes) == ["dog", "rain"]
    assert len(tables.clips) == len(tables.test) == 5
    assert get_competition("esc10").score is esc50.score
    with pytest.raises(ValueError, match="unknown subset 'esc5'; did you mean"):
        esc50.prepare(tmp_path, subset="esc5")


def test_the_classes_that_esc10_lacks_and_no_recording_of_its(tmp_path, caplog):
    more = META.iloc[[-1]].assign(filename="1-15-A-2.wav", src_file=15, fold=1)
    tables = esc50.prepare(official(tmp_path, pd.concat([META, more], ignore_index=True)), subset="esc40")
    assert list(tables.classes) == ["pig"]
    assert tables.clips.clip_id.tolist() == ["1-15-A-2"]
    assert "1 clips are of recordings that ESC-10 has too and are left out: 2-11-A-2.wav" in caplog.text


def test_a_flat_layout_and_absent_files(tmp_path):
    META.assign(filename="sounds/" + META.filename).to_csv(tmp_path / "meta.csv", index=False)
    (tmp_path / "sounds").mkdir()
    for name in META.filename[1:]:
        (tmp_path / "sounds" / name).touch()
    tables = esc50.prepare(tmp_path)
    assert tables.missing == (("1-11-A-0", "sounds/1-11-A-0.wav"),)
    assert len(tables.clips) == 5


def test_errors_of_a_wrong_folder(tmp_path):
    with pytest.raises(ValueError, match=r"holds none of meta\.csv, meta/esc50\.csv"):
        esc50.prepare(tmp_path)
    META.drop(columns="src_file").to_csv(tmp_path / "meta.csv", index=False)
    with pytest.raises(ValueError, match="no column 'src_file'"):
        esc50.prepare(tmp_path)
    META.to_csv(tmp_path / "meta.csv", index=False)
    with pytest.raises(ValueError, match="none of the 6 recordings of the meta table"):
        esc50.prepare(tmp_path)


def test_rows_validate_and_score(tmp_path):
    tables = esc50.prepare(official(tmp_path))
    ids = tables.clips.clip_id.tolist()
    found = predictions(ids[::-1], [1, 2, 2, 0, 2, 0], tables.classes)  # one of six is wrong
    submission = esc50.rows(found, tables.test)
    assert submission.iloc[0].tolist() == ["1-11-A-0.wav", "dog"]
    esc50.validate(submission, tables.test, tables.classes)
    assert esc50.score(submission, tables.truth) == {"accuracy": pytest.approx(5 / 6)}
    assert esc50.score(submission, META)["accuracy"] == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="names 1 that are no classes: dogs; did you mean 'dog'"):
        esc50.validate(submission.replace("dog", "dogs"), tables.test, tables.classes)
    with pytest.raises(ValueError, match=r"1 filename not there: 2-11-A-2\.wav"):
        esc50.validate(submission.iloc[:-1], tables.test, tables.classes)
    with pytest.raises(ValueError, match="the truth knows 2 of the 6 files"):
        esc50.score(submission, tables.truth.iloc[:2])


def test_the_whole_of_esc50(shared_data):
    groups = {}
    for name, n_classes, n_clips in (("esc50", 50, 2000), ("esc10", 10, 400), ("esc40", 40, 1596)):
        tables = esc50.prepare(shared_data / "esc50", subset=name)
        assert (len(tables.classes), len(tables.clips)) == (n_classes, n_clips)
        assert not tables.missing
        folds = make_folds(tables.clips)
        assert (fold_table(tables.clips, folds) == 8).all(axis=None) == (name != "esc40")
        shared = audit(tables.clips, folds).value.tolist()
        assert shared == (["131943", "134049", "209698", "234879"] if name == "esc50" else [])
        groups[name] = set(tables.clips.group)
    assert not groups["esc10"] & groups["esc40"]

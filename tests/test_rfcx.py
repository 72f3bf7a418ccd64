"""RFCX: download layout -> tables, the source's folds, submission, score."""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.model_selection import StratifiedKFold

from earshot.competitions import get_competition, rfcx
from earshot.data.folds import make_folds
from earshot.data.labels import crop_targets
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

CLASSES = list(rfcx.CLASSES)


def box(recording, species, t_min=1.0, t_max=2.0):
    return (recording, species, 1, t_min, 500.0, t_max, 2500.0)


def download(folder, tp, fp=(), test=("ta", "tb"), absent=()):
    """The competition's folder, audio files being empty (only their names are read here)."""
    columns = list(rfcx.BOX_COLUMNS)
    pd.DataFrame(tp, columns=columns).to_csv(folder / "train_tp.csv", index=False)
    pd.DataFrame(list(fp), columns=columns).to_csv(folder / "train_fp.csv", index=False)
    sample = pd.DataFrame(0.0, index=range(len(test)), columns=CLASSES)
    sample.insert(0, "recording_id", list(test))
    sample.to_csv(folder / "sample_submission.csv", index=False)
    for name, ids in (("train", {r[0] for r in [*tp, *fp]}), ("test", set(test))):
        (folder / name).mkdir()
        for recording in ids - set(absent):
            (folder / name / f"{recording}.flac").touch()
    return folder


def predictions(ids, scores, classes=CLASSES, unreadable=None):
    n = len(ids)
    unreadable = np.zeros(n, bool) if unreadable is None else np.array(unreadable)
    scores = np.asarray(scores, np.float32)
    return Predictions(np.array(ids), tuple(classes), scores, np.full(n, -1), unreadable)


def test_prepare_makes_one_clip_a_recording_and_one_event_a_box(tmp_path):
    tp = [box("b", 3, 10, 12), box("a", 23), box("b", 1, 4, 5), box("b", 3, 30, 31)]
    fp = [box("a", 7, 2, 3), box("z", 5)]
    tables = rfcx.prepare(download(tmp_path, tp, fp))
    clips = tables.clips.set_index("clip_id")
    assert clips.labels.to_dict() == {"a": "s23", "b": "s1 s3", "z": ""}
    assert clips.first_label["a"] == "s23"
    assert clips.first_label["z"] == ""
    assert clips.path["b"] == "train/b.flac"
    assert set(clips.split) == {"train"}
    assert tables.events.filename.tolist() == ["a", "a", "b", "b", "b", "z"]
    assert tables.events.event_label.tolist() == ["s23", "s7", "s1", "s3", "s3", "s5"]
    assert tables.events.is_negative.tolist() == [0, 1, 0, 0, 0, 1]
    assert tables.events.loc[0, ["onset", "offset"]].tolist() == [1, 2]
    assert list(tables.classes) == CLASSES
    assert tables.test_clips.path.tolist() == ["test/ta.flac", "test/tb.flac"]
    of_z = tables.events[tables.events.filename == "z"]
    target, mask = crop_targets(of_z, CLASSES, 0, 10, only_annotated=True)
    assert target.sum() == 0
    assert np.flatnonzero(mask).tolist() == [5]


def test_prepare_lists_absent_files_and_keeps_test_rows(tmp_path):
    tables = rfcx.prepare(download(tmp_path, [box("a", 1), box("b", 2)], absent=("b", "ta")))
    assert tables.clips.clip_id.tolist() == ["a"]
    assert tables.events.filename.tolist() == ["a"]
    assert tables.missing == (("b", "train/b.flac"), ("ta", "test/ta.flac"))
    assert tables.test_clips.clip_id.tolist() == ["ta", "tb"]


def test_prepare_says_what_is_wrong_with_a_download(tmp_path):
    with pytest.raises(ValueError, match=r"train_tp\.csv does not exist"):
        rfcx.prepare(tmp_path)
    folder = download(tmp_path, [box("a", 24)])
    with pytest.raises(ValueError, match="species_id 24 is not in 0-23"):
        rfcx.prepare(folder)
    pd.DataFrame([box("a", 2, 3, 3)], columns=list(rfcx.BOX_COLUMNS)).to_csv(folder / "train_tp.csv", index=False)
    with pytest.raises(ValueError, match=r"a box of a ends \(3 s\) where it begins"):
        rfcx.prepare(folder)
    (folder / "train" / "a.flac").unlink()
    boxes = pd.DataFrame([box("a", 2)], columns=list(rfcx.BOX_COLUMNS)).assign(t_min="soon")
    boxes.to_csv(folder / "train_tp.csv", index=False)
    with pytest.raises(ValueError, match="train_tp.csv: column 't_min' holds 'soon' in row 1, expected a number"):
        rfcx.prepare(folder)
    pd.DataFrame([box("a", 2)], columns=list(rfcx.BOX_COLUMNS)).to_csv(folder / "train_tp.csv", index=False)
    with pytest.raises(ValueError, match="none of the 1 recordings of train_tp"):
        rfcx.prepare(folder)
    pd.DataFrame({"recording_id": ["a"], "species": [2]}).to_csv(folder / "train_tp.csv", index=False)
    with pytest.raises(ValueError, match="no column 'species_id'"):
        rfcx.prepare(folder)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_folds_are_those_of_the_source(tmp_path):
    """Second implementation: the source's steps on the CSV itself, with ties that an unstable sort decides."""
    rng = np.random.default_rng(0)
    ids = [f"{v:09x}" for v in rng.integers(0, 16**9, 130)]
    tp = [box(ids[i], int(rng.integers(24)), t, t + 1) for t, i in enumerate(rng.integers(0, 130, 300))]
    held = {r[0] for r in tp}
    fp = [box(i, 4) for i in sorted(set(ids) - held)] + [box("fffffffff0", 2), box(tp[0][0], 3)]
    tables = rfcx.prepare(download(tmp_path, tp, fp))
    folds = make_folds(tables.clips.sample(frac=1, random_state=1), method=rfcx.source_folds).set_index("clip_id").fold

    train = pd.read_csv(tmp_path / "train_tp.csv").sort_values("recording_id")
    first = train.groupby("recording_id")["species_id"].first().reset_index()
    first = first.sample(frac=1, random_state=42).reset_index(drop=True)
    for fold, (_, valid) in enumerate(StratifiedKFold(5).split(first.recording_id, first.species_id)):
        assert (folds[first.recording_id[valid]] == fold).all()
    rest = folds.drop(first.recording_id)
    assert len(rest) == len({r[0] for r in fp} - held)
    assert np.ptp(np.bincount(rest, minlength=5)) <= 1


def test_rows_follow_the_test_table_and_fill_what_is_missing(caplog):
    test = pd.DataFrame({"recording_id": ["b", "c", "a", "d"]})
    scores = np.arange(72).reshape(3, 24)
    found = predictions(["a", "b", "d"], scores[:, ::-1], CLASSES[::-1], [False, False, True])
    with caplog.at_level(logging.WARNING, logger="earshot"):
        submission = rfcx.rows(found, test, None)
    assert submission.recording_id.tolist() == ["b", "c", "a", "d"]
    np.testing.assert_array_equal(submission[CLASSES].iloc[[0, 2]], scores[[1, 0]])
    np.testing.assert_array_equal(submission[CLASSES].iloc[[1, 3]], np.stack([scores[:2].mean(0)] * 2))
    assert "2 of 4 recordings have no prediction" in caplog.text
    assert "c, d" in caplog.text
    rfcx.validate(submission, test)
    with pytest.raises(ValueError, match="no class 's0'"):
        rfcx.rows(predictions(["a"], np.zeros((1, 2)), ["bird", "frog"]), test, None)
    with pytest.raises(ValueError, match="nothing to submit"):
        rfcx.rows(predictions(["a"], np.zeros((1, 24)), unreadable=[True]), test, None)


def test_validate_names_every_problem():
    test = pd.DataFrame({"recording_id": ["a", "b", "c"]})
    good = rfcx.rows(predictions(["a", "b", "c"], np.full((3, 24), 0.5)), test, None)
    rfcx.validate(good, test)
    cases = (
        (good.iloc[[1, 0, 2]], "recording_id is in another order"),
        (good.iloc[:2], "1 recording_id not there: c"),
        (pd.concat([good, good.iloc[:1]]), "1 recording_id twice: a"),
        (good.assign(recording_id=["a", "b", "x"]), "1 recording_id not asked for: x"),
        (good.drop(columns="s3"), "missing s3, unknown none"),
        (good[["recording_id", *CLASSES[::-1]]], "in another order"),
        (good.assign(s5=[0.1, np.nan, np.inf]), "column s5 holds 2 values that are no finite number"),
        (good.assign(s5="x").drop(columns="s6"), "missing s6.*column s5 holds 3 values"),
    )
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            rfcx.validate(wrong, test)


def test_score_is_lwlrap():
    rng = np.random.default_rng(3)
    truth = (rng.random((6, 24)) < 0.2).astype(int)
    truth[0] = 0
    scores = rng.random((6, 24))
    ids = list("abcdef")
    submission = pd.DataFrame(scores, columns=CLASSES).assign(recording_id=ids)
    table = pd.DataFrame(truth, columns=CLASSES).assign(recording_id=ids).iloc[::-1]
    weight = truth.sum(1)
    expected = label_ranking_average_precision_score(truth[1:], scores[1:], sample_weight=weight[1:])
    assert rfcx.score(submission, table)["lwlrap"] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="the truth lacks f"):
        rfcx.score(submission, table[table.recording_id != "f"])


def test_it_is_registered_and_round_trips_through_csv(tmp_path):
    assert get_competition("rfcx").rows is rfcx.rows
    with pytest.raises(ValueError, match="unknown competition 'rcfx'; did you mean 'rfcx'"):
        get_competition("rcfx")
    test = pd.DataFrame({"recording_id": ["00204008d", "1e5"]})
    rows = rfcx.rows(predictions(test.recording_id, np.random.default_rng(0).random((2, 24))), test, None)
    rows.to_csv(tmp_path / "s.csv", index=False)
    rfcx.validate(read_table(tmp_path / "s.csv"), test)

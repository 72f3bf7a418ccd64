"""Acoustic scenes: TAU's layout, the official split, devices, the output file and its scores."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss

import make_folds
import prepare
import submit
from earshot.competitions import dcase_task1, get_competition
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table
from scripts import run

SCENES = ["airport", "metro_station", "tram"]


def names(per_scene=4):
    devices = ["a", "b", "s1", "s6"]
    return [
        f"audio/{scene}-{('lyon', 'oslo')[i % 2]}-{i}-{100 + i}-0-{devices[i % 4]}.wav"
        for scene in SCENES
        for i in range(per_scene)
    ]


def download(folder, lost_in_meta=(), lists=None):
    """The last clip of each scene is held out; of each scene one clip is in no list."""
    files = names()
    meta = [(f, f[6:].split("-")[0], "-".join(f.split("-")[1:3]), f[-5]) for f in files if f not in lost_in_meta]
    (folder / "evaluation_setup").mkdir(parents=True)
    pd.DataFrame(meta, columns=list(dcase_task1.META)).to_csv(folder / "meta.csv", sep="\t", index=False)
    lists = lists or {"train": files[0::4] + files[1::4], "evaluate": files[3::4], "test": files[3::4]}
    for name, some in lists.items():
        table = pd.DataFrame({"filename": some, "scene_label": [f[6:].split("-")[0] for f in some]})
        table = table[["filename"]] if name == "test" else table
        table.to_csv(folder / "evaluation_setup" / f"fold1_{name}.csv", sep="\t", index=False)
    (folder / "audio").mkdir()
    for f in files:
        (folder / f).touch()
    return folder


def predictions(ids, scores, classes=SCENES):
    n = len(ids)
    scores = np.asarray(scores, np.float32)
    return Predictions(np.array(ids), tuple(classes), scores, np.zeros(n, int), np.zeros(n, bool))


@pytest.mark.parametrize("year", [2019, 2020, 2021, 2022, 2023])
def test_from_the_download_to_the_output_file(tmp_path, monkeypatch, capsys, year):
    monkeypatch.chdir(tmp_path)
    name = f"dcase{year}_task1"
    run(prepare, name, "--source", download(tmp_path / "download"))
    clips = read_table(f"data/{name}/clips.csv")
    assert clips.official_fold.tolist() == [-1] * 6 + [0] * 3
    assert (clips.device[0], clips.city[0], clips.group[0]) == ("a", "lyon", "lyon-0")
    run(make_folds, "--clips", f"data/{name}/clips.csv", "--out", "folds/f.csv")
    assert read_table("folds/f.csv").fold.value_counts().to_dict() == {-1: 6, 0: 3}
    test = read_table(f"data/{name}/test.csv")
    scores = [[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.1, 0.1, 0.8]]
    predictions(test.clip_id, scores).save(tmp_path / "oof.npz")
    arguments = ("--competition", name, "--test", f"data/{name}/test.csv")
    run(submit, *arguments, "--predictions", "oof.npz", "--out", "submissions/s.csv")
    run(submit, *arguments, "--check", "submissions/s.csv")
    capsys.readouterr()
    with pytest.raises(
        ValueError, match=r"meta.yaml: meta file is not valid: the label 'LASTNAME_INSTITUTE_task1a?_1'"
    ):
        run(submit, *arguments, "--check", "submissions/s_files")
    assert f"submissions/s_files: 3 rows, valid for {name}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="s.csv exists already"):
        run(submit, *arguments, "--predictions", "oof.npz", "--out", "submissions/s.csv")
    first = next((tmp_path / "submissions/s_files").glob("*.output.csv")).read_text().split("\n")[0]
    assert first == ("audio/airport-oslo-3-103-0-s6.wav\tairport" if year == 2019 else
                     "filename\tscene_label\tairport\tmetro_station\ttram")  # fmt: skip
    competition = get_competition(name)
    score = competition.score(read_table("submissions/s.csv"), read_table(f"data/{name}/truth.csv"))
    assert next(iter(score)) == ("log_loss" if year in (2021, 2022) else "class_mean_accuracy")
    assert score["class_mean_accuracy"] == pytest.approx(2 / 3)
    assert score["class_mean_accuracy_s6"] == pytest.approx(2 / 3)
    assert competition.limits.mmacs == (30 if year >= 2022 else 0)


def test_the_data_sets_have_names_of_their_own():
    assert get_competition("tau2019") is get_competition("dcase2019_task1")
    assert get_competition("tau2022") is get_competition("dcase2022_task1")


def test_clips_outside_the_split_and_outside_meta(tmp_path, caplog):
    lost = [names()[0], names()[3]]
    with caplog.at_level(logging.WARNING, "earshot"):
        tables = dcase_task1.prepare(download(tmp_path, lost_in_meta=lost))
    assert f"meta.csv lacks 2 clips of the split, read from their names: {lost[0]}, {lost[1]}" in caplog.text
    assert "3 clips of meta.csv are in no list of the split and are left out" in caplog.text
    clip = tables.clips.set_index("filename").loc[lost[0]]
    assert (clip.labels, clip.group) == ("airport", "lyon-0")
    assert tables.truth.scene_label.tolist() == SCENES
    assert tables.task == "scenes"


def test_a_share_of_the_training_clips(tmp_path):
    folder = download(tmp_path)
    with pytest.raises(ValueError, match=r"split5\.csv does not exist"):
        get_competition("dcase2024_task1").prepare(folder, subset=5)
    (folder / "split_setup").mkdir()
    pd.DataFrame({"filename": names()[:2]}).to_csv(folder / "split_setup/split5.csv", sep="\t", index=False)
    clips = get_competition("dcase2024_task1").prepare(folder, subset=5).clips
    assert clips.official_fold.tolist() == [-1, -1, 0, 0, 0]
    with pytest.raises(ValueError, match="subset is 7: choose one of 5, 10, 25, 50, 100 per cent"):
        get_competition("dcase2024_task1").prepare(folder, subset=7)


def test_the_evaluation_set_is_the_test(tmp_path):
    folder, evaluation = download(tmp_path / "dev"), tmp_path / "eval"
    with pytest.raises(ValueError, match=r"holds none of evaluation_setup/fold1_test\.csv, "):
        dcase_task1.prepare(folder, evaluation=str(evaluation))
    (evaluation / "evaluation_setup").mkdir(parents=True)
    (evaluation / "audio").mkdir()
    (evaluation / "audio/0.wav").touch()
    pd.DataFrame({"filename": ["audio/0.wav", "audio/1.wav"]}).to_csv(
        evaluation / "evaluation_setup/fold1_test.csv", sep="\t", index=False
    )
    tables = dcase_task1.prepare(folder, evaluation=str(evaluation))
    assert tables.test_clips.clip_id.tolist() == ["0", "1"]
    assert tables.missing == (("1", str(evaluation / "audio/1.wav")),)
    assert tables.truth is None


def test_recordings_that_no_table_names_are_said(tmp_path, caplog):
    folder = download(tmp_path / "dev")
    with caplog.at_level(logging.WARNING, "earshot"):
        before = dcase_task1.prepare(folder)
        assert "in neither" not in caplog.text
        (folder / "audio/tram-oslo-9-9-9-a.wav").touch()
        after = dcase_task1.prepare(folder)
    assert (
        "1 recordings are in neither meta.csv nor the split and are left out: audio/tram-oslo-9-9-9-a.wav"
        in caplog.text
    )
    pd.testing.assert_frame_equal(before.clips, after.clips)


def test_broken_downloads(tmp_path):
    with pytest.raises(ValueError, match=r"meta\.csv does not exist; is --source the folder"):
        dcase_task1.prepare(tmp_path)
    files = names()
    with pytest.raises(ValueError, match="1 clips are both in fold1_train and in fold1_evaluate"):
        dcase_task1.prepare(download(tmp_path / "a", lists={"train": files[:2], "evaluate": files[1:3]}))
    other = ["audio/tarm-lyon-0-0-0-a.wav"]
    with pytest.raises(ValueError, match="names the scene 'tarm', which meta.csv lacks; did you mean 'tram'"):
        dcase_task1.prepare(download(tmp_path / "b", lists={"train": other, "evaluate": files[:1]}))
    pd.DataFrame({"file": ["a"]}).to_csv(tmp_path / "meta.csv", sep="\t", index=False)
    with pytest.raises(ValueError, match=r"meta\.csv has no column 'filename'"):
        dcase_task1.prepare(tmp_path)


def test_a_fold_of_one_scene_has_a_score():
    truth = pd.DataFrame({"filename": ["a", "b"], "scene_label": ["tram", "tram"], "device": ["a", ""]})
    submission = pd.DataFrame({"filename": ["b", "a"], "scene_label": ["tram", "airport"]})
    assert get_competition("dcase2019_task1").score(submission, truth) == {
        "class_mean_accuracy": 0.5, "accuracy": 0.5, "class_mean_accuracy_a": 0.0,
    }  # fmt: skip


def test_sums_of_sigmoids_become_probabilities():
    test = pd.DataFrame({"filename": ["audio/a.wav", "audio/b.wav"], "clip_id": ["a", "b"]})
    rows = dcase_task1.rows(predictions(["a", "b"], [[0.2, 0.8, 1], [0, 0, 0]]), test)
    np.testing.assert_allclose(rows[SCENES], [[0.1, 0.4, 0.5], [1 / 3] * 3], rtol=1e-6)
    dcase_task1.validate(rows, test, SCENES)
    for wrong, message in (
        (rows.assign(tram=[0.4, 1 / 3]), r"probabilities sum to 0\.9, not 1, in 1 rows"),
        (
            rows.assign(scene_label=["tarm", "tram"]),
            "scene_label names 1 that are no classes: tarm; did you mean 'tram'",
        ),
        (rows.assign(tram=-1.0, filename="audio/a.wav"), "filename twice.*tram holds 2 values outside 0 to 1"),
        (rows[["filename", "scene_label"]], "missing airport, metro_station, tram"),
    ):
        with pytest.raises(ValueError, match=message):
            dcase_task1.validate(wrong, test, SCENES)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.integers(2, 20))
def test_scores_equal_sklearn(seed, n):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(3), n)
    files = [f"{i}.wav" for i in range(n)]
    truth = pd.DataFrame({"filename": files, "scene_label": rng.choice(SCENES, n), "device": rng.choice(["a", "b"], n)})
    said = np.array(SCENES)[shares.argmax(1)]
    submission = pd.DataFrame(shares, columns=SCENES)
    submission.insert(0, "filename", files)
    submission.insert(1, "scene_label", said)
    score = get_competition("dcase2022_task1").score(submission.sample(frac=1, random_state=seed), truth)
    there = set(truth.scene_label)
    recall = [np.mean(said[truth.scene_label == s] == s) for s in there]
    assert score["class_mean_accuracy"] == pytest.approx(np.mean(recall))
    if set(said) <= there and len(there) > 1:
        assert score["class_mean_accuracy"] == pytest.approx(balanced_accuracy_score(truth.scene_label, said))
    assert score["log_loss"] == pytest.approx(log_loss(truth.scene_label, shares, labels=SCENES), rel=1e-9)
    losses = -np.log(shares[np.arange(n), [SCENES.index(s) for s in truth.scene_label]])
    by_scene = [losses[truth.scene_label == s].mean() for s in there]
    assert score["class_mean_log_loss"] == pytest.approx(np.mean(by_scene), rel=1e-9)

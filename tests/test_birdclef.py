"""BirdCLEF 2021 to 2026: each edition's layout -> tables -> rows -> checks -> score, and what has cost teams hours."""

import logging

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

import prepare
import submit
from earshot.competitions import birdclef_recordings, get_competition
from earshot.competitions.birdclef_rows import arithmetic_problems, pool_rows, split_rows, tables_of_test
from earshot.data.labels import read_classes
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table
from scripts import run

BIRDS = ["zebdov", "ameavo", "22930"]  # the submission's order is not the alphabet's; numbers name other taxa
GRID = TimeBase(32000, 320, 10)  # 0.1 s a frame
POST = PostProcess(iou_threshold=None)
BIRDCLEF2021, BIRDCLEF2022, BIRDCLEF2023 = (get_competition(f"birdclef{year}") for year in (2021, 2022, 2023))


def focal(folder, audio="train_audio", prefixed=True, table="train_metadata.csv", **columns):
    """Training table and (empty) files of four recordings."""
    names = ["XC1.ogg", "XC2.ogg", "XC2.ogg", "iNat3.ogg"]
    labels = ["zebdov", "ameavo", "22930", "22930"]
    rows = pd.DataFrame({
        "primary_label": labels,
        "secondary_labels": ["['ameavo', 'crow1', 'zebdov']", "[]", "['']", ""],
        "filename": [f"{c}/{n}" if prefixed else n for c, n in zip(labels, names, strict=True)],
        "author": ["A. Bird", "A. Bird", "C. Wren", "NA"], "rating": [4.5, 3, 0, 5],
    }).assign(**columns)  # fmt: skip
    rows.to_csv(folder / table, index=False)
    for label, name in zip(labels, names, strict=True):
        (folder / audio / label).mkdir(parents=True, exist_ok=True)
        (folder / audio / label / name).touch()
    return folder


def sample(folder, *row_ids):
    table = pd.DataFrame(1 / 3, index=range(len(row_ids)), columns=BIRDS)
    table.insert(0, "row_id", list(row_ids))
    table.to_csv(folder / "sample_submission.csv", index=False)


def sound(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * 8000), np.float32), 8000)


def predictions(recordings: dict, classes=BIRDS, unreadable=(), grid=GRID):
    """{clip: (seconds, [(class, onset, offset), ...])} -> 0.9 within the events, 0.1 elsewhere."""
    frames = []
    for seconds, events in recordings.values():
        prob = np.full((grid.n_frames(int(seconds * grid.sample_rate)), len(classes)), 0.1, np.float32)
        for name, onset, offset in events:
            prob[grid.frame(onset) : grid.frame(offset), classes.index(name)] = 0.9
        frames.append(prob)
    n = len(frames)
    return Predictions(
        np.array(list(recordings)), tuple(classes),
        np.stack([f.max(axis=0) for f in frames]) if n else np.zeros((0, len(classes)), np.float32), np.full(n, -1),
        np.array([c in unreadable for c in recordings], bool), framewise_output=tuple(frames), timebase=grid,
    )  # fmt: skip


# ---- 2023 to 2026: probabilities


@pytest.mark.parametrize("year", [2023, 2024, 2025, 2026])
def test_from_the_download_to_a_checked_submission(tmp_path, monkeypatch, capsys, year):
    """prepare.py, rows, submit.py and the score; the test has a partial row, and a file that is no recording."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "download"
    source.mkdir()
    focal(source, table="train_metadata.csv" if year < 2025 else "train.csv")
    sample(source, "soundscape_1_5")
    sound(source / "test_soundscapes" / "soundscape_8.ogg", 12)
    sound(source / "test_soundscapes" / "soundscape_9.ogg", 5.02)
    (source / "test_soundscapes" / "readme.txt").write_text("hidden")
    run(prepare, f"birdclef{year}", "--source", source)
    data = tmp_path / f"data/birdclef{year}"
    assert read_classes(data / "classes.csv") == BIRDS
    test = read_table(data / "test.csv")
    assert test.row_id.tolist() == ["soundscape_8_5", "soundscape_8_10", "soundscape_8_15", "soundscape_9_5"]
    assert read_table(data / "test_clips.csv").path.tolist()[0] == "test_soundscapes/soundscape_8.ogg"
    found = predictions({"soundscape_9": (5.02, []), "soundscape_8": (12, [("ameavo", 4, 6), ("22930", 11, 12)])})
    found.save(tmp_path / "test.npz")
    arguments = ("--competition", f"birdclef{year}", "--test", data / "test.csv")
    run(submit, *arguments, "--predictions", "test.npz", "--out", "submissions/s.csv")
    run(submit, *arguments, "--check", "submissions/s.csv")  # the class names are found beside the test table
    assert f"submissions/s.csv: 4 rows, valid for birdclef{year}" in capsys.readouterr().out
    submission = read_table("submissions/s.csv")
    loud = (submission[BIRDS] > 0.5).to_numpy().astype(int)
    assert loud.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    truth = pd.concat([submission.row_id, pd.DataFrame(loud, columns=BIRDS)], axis=1)
    score = get_competition(f"birdclef{year}").score(submission, truth.iloc[::-1])
    assert list(score.values()) == [1.0]
    assert get_competition(f"birdclef{year}").limits.minutes == (120 if year < 2025 else 90)


def test_training_table(tmp_path, caplog):
    sample(focal(tmp_path), "soundscape_1_5")
    (tmp_path / "train_audio/zebdov/XC1.ogg").unlink()
    with caplog.at_level(logging.WARNING, "earshot"):
        tables = BIRDCLEF2023.prepare(tmp_path)
    assert tables.clips.clip_id.tolist() == ["ameavo_XC2", "22930_XC2", "iNat3"]  # XC2 is there twice
    assert tables.clips.path.tolist()[1] == "train_audio/22930/XC2.ogg"
    assert tables.clips.group.tolist() == ["XC2", "XC2", "iNat3"]  # one recording is never split
    assert tables.clips.author.tolist()[-1] == "NA"
    assert tables.missing[0] == ("XC1", "train_audio/zebdov/XC1.ogg")
    assert "1 secondary labels of 1 species outside the classes are dropped: crow1 (1)" in caplog.text
    (tmp_path / "train_audio/zebdov/XC1.ogg").touch()
    clips = BIRDCLEF2023.prepare(tmp_path).clips
    assert clips.secondary_labels.tolist() == ["ameavo", "", "", ""]  # neither the unknown one nor its own


def test_broken_downloads(tmp_path):
    with pytest.raises(ValueError, match=r"holds none of train_metadata\.csv, train\.csv"):
        BIRDCLEF2023.prepare(tmp_path)
    sample(tmp_path, "soundscape_1_5")
    with pytest.raises(ValueError, match=r"holds none of train_metadata\.csv, train\.csv"):
        BIRDCLEF2023.prepare(tmp_path)
    focal(tmp_path, primary_label=["zebdof", "ameavo", "22930", "22930"])
    with pytest.raises(ValueError, match="1 primary labels are no column .* zebdof; did you mean 'zebdov'"):
        BIRDCLEF2023.prepare(tmp_path)
    focal(tmp_path, secondary_labels="zebdov")
    with pytest.raises(ValueError, match="row 2 of the training table is 'zebdov', expected a list"):
        BIRDCLEF2023.prepare(tmp_path)


def test_labelled_soundscapes_of_2026(tmp_path, caplog):
    sample(focal(tmp_path, table="train.csv"), "soundscape_1_5")
    name = "BC2026_Train_0001_S05_20250227_010002.ogg"
    rows = [(name, "00:00:00", "00:00:05", "ameavo"), (name, "00:00:05", "00:00:10", "22930;ameavo"),
            (name, "00:00:05", "00:00:10", "22930;ameavo"), (name, "00:01:00", "00:01:05", "zebdov;frog")]  # fmt: skip
    labels = pd.DataFrame(rows, columns=["filename", "start", "end", "primary_label"])
    labels.to_csv(tmp_path / "train_soundscapes_labels.csv", index=False)
    sound(tmp_path / "train_soundscapes" / name, 1)
    with caplog.at_level(logging.WARNING, "earshot"):
        tables = get_competition("birdclef2026").prepare(tmp_path)
    assert "1 soundscape labels of 1 species outside the classes are dropped: frog (1)" in caplog.text
    clip = tables.clips.iloc[-1]
    assert (clip.labels, clip.kind, clip.group) == ("22930 ameavo zebdov", "soundscape", "site_S05")
    events = tables.events[["onset", "offset", "event_label"]].values.tolist()
    assert events == [[0, 10, "ameavo"], [5, 10, "22930"], [60, 65, "zebdov"]]
    test, truth = birdclef_recordings.soundscape_truth(tmp_path, BIRDS)
    assert test.seconds.tolist() == [5, 10, 65]
    assert truth[BIRDS].to_numpy().tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]
    stem = name.removesuffix(".ogg")
    heard = [("ameavo", 0.1, 9.9), ("22930", 5.5, 6), ("zebdov", 62, 63)]
    submission = BIRDCLEF2023.rows(predictions({stem: (65, heard)}), test)
    assert BIRDCLEF2023.score(submission, truth)["padded_cmap"] == 1
    labels.assign(end="later").to_csv(tmp_path / "train_soundscapes_labels.csv", index=False)
    with pytest.raises(ValueError, match="has the time 'later', expected hh:mm:ss"):
        birdclef_recordings.labelled_rows(tmp_path)


def test_without_a_sample_submission_the_training_table_names_the_classes(tmp_path, caplog):
    tables = BIRDCLEF2023.prepare(focal(tmp_path))
    assert tables.classes == ["22930", "ameavo", "zebdov"]
    assert tables.test is None
    assert "has no sample_submission.csv: the 3 classes are those of the training table" in caplog.text
    sound(tmp_path / "test_soundscapes" / "soundscape_7.ogg", 12)
    assert BIRDCLEF2023.prepare(tmp_path).test.row_id.tolist() == [f"soundscape_7_{s}" for s in (5, 10, 15)]


def test_a_sample_submission_may_be_shorter_than_its_recording(tmp_path, caplog):
    """The public sample names the first seconds of one recording; a rest of half a second it may leave out."""
    sample(focal(tmp_path), "a_5", "a_10", "b_5")
    sound(tmp_path / "test_soundscapes" / "a.ogg", 10.3)
    assert BIRDCLEF2023.prepare(tmp_path).test.row_id.tolist() == ["a_5", "a_10", "b_5"]
    sound(tmp_path / "test_soundscapes" / "a.ogg", 16)
    assert BIRDCLEF2023.prepare(tmp_path).test.row_id.tolist() == ["a_5", "a_10", "a_15", "a_20"]
    assert "does not have all rows of 1 recordings of test_soundscapes" in caplog.text


def test_folders_in_capitals_are_found(tmp_path, caplog):
    sample(focal(tmp_path, "Train_Audio"))
    for name in ("TEST_soundscapes/Test_Soundscapes/a.ogg", "Unlabeled_Soundscapes/b.ogg", "train_SOUNDSCAPES/c.ogg"):
        sound(tmp_path / name, 5)
    tables = BIRDCLEF2023.prepare(tmp_path)
    assert tables.missing == ()
    assert tables.clips.path[0] == "Train_Audio/zebdov/XC1.ogg"
    assert tables.test_clips.path.tolist() == ["TEST_soundscapes/Test_Soundscapes/a.ogg"]
    assert tables.unlabelled.path.tolist() == ["Unlabeled_Soundscapes/b.ogg", "train_SOUNDSCAPES/c.ogg"]
    assert f"{tmp_path / 'TEST_soundscapes'} is taken for test_soundscapes, which is not there" in caplog.messages


def test_an_empty_test_folder_takes_the_sample_rows(tmp_path, caplog):
    """As at commit time: nothing is predicted, and the submission is complete and valid all the same."""
    sample(focal(tmp_path), "soundscape_1_5", "soundscape_1_10")
    (tmp_path / "test_soundscapes").mkdir()
    tables = BIRDCLEF2023.prepare(tmp_path)
    assert tables.test.row_id.tolist() == ["soundscape_1_5", "soundscape_1_10"]
    assert tables.missing == (("soundscape_1", "test_soundscapes/soundscape_1.ogg"),)
    with caplog.at_level(logging.WARNING, "earshot"):
        submission = BIRDCLEF2023.rows(predictions({}), tables.test)
    assert "1 of 1 recordings have no prediction: soundscape_1" in caplog.text
    BIRDCLEF2023.validate(submission, tables.test, BIRDS)
    np.testing.assert_allclose(submission[BIRDS], 1 / 3)


def test_a_full_sample_submission_gives_the_order(tmp_path):
    sample(focal(tmp_path), "b_5", "b_10", "a_5", "a_10")
    for name in "ab":
        sound(tmp_path / f"test_soundscapes/{name}.ogg", 10)
    assert BIRDCLEF2023.prepare(tmp_path).test.row_id.tolist() == ["b_5", "b_10", "a_5", "a_10"]


@pytest.mark.parametrize(("seconds", "last"), [(0.5, 5), (5, 5), (5.04, 5), (5.1, 10), (60, 60), (58.7, 60), (62, 65)])
def test_the_last_partial_row(tmp_path, seconds, last):
    sound(tmp_path / "test_soundscapes/a.ogg", seconds)
    rows, _ = tables_of_test(tmp_path, pd.DataFrame({"row_id": ["a_0"]}), 60)
    assert rows.seconds.tolist() == list(range(5, last + 1, 5))


def test_an_unreadable_recording_gets_the_rows_of_the_usual_length(tmp_path, caplog):
    (tmp_path / "test_soundscapes").mkdir()
    (tmp_path / "test_soundscapes/a.ogg").write_text("no sound")
    rows, _ = tables_of_test(tmp_path, pd.DataFrame({"row_id": ["a_5"]}), 240)
    assert rows.row_id.tolist() == [f"a_{end}" for end in range(5, 241, 5)]
    assert "a.ogg cannot be read and gets the rows of 240 s" in caplog.text


def test_rows_of_unpredicted_recordings_get_the_mean(caplog):
    test = pd.DataFrame({"row_id": ["a_5", "a_10", "b_5", "c_5", "a_20"]})
    found = predictions({"c": (5, []), "a": (10, [("ameavo", 1, 2)])}, unreadable=["c"])
    with caplog.at_level(logging.WARNING, "earshot"):
        submission = BIRDCLEF2023.rows(found, test)
    assert "2 of 3 recordings have no prediction: b, c" in caplog.text
    mean = [0.1, 0.5, 0.1]
    np.testing.assert_allclose(submission[BIRDS].iloc[[2, 3, 4]], [mean] * 3, rtol=1e-6)  # a ends at 10 s
    clipwise = Predictions(np.array(["a"]), tuple(BIRDS), np.zeros((1, 3)), np.array([-1]), np.array([False]))
    with pytest.raises(ValueError, match=r"need framewise outputs: predict with predict\.keep_frames=true"):
        BIRDCLEF2023.rows(clipwise, test)


@settings(max_examples=12)
@given(st.floats(0.3, 23), st.sampled_from([(32000, 320, 32), (48000, 512, 32), (32000, 500, 1), (16000, 160, 16)]))
def test_rows_pool_the_frames_that_they_touch(seconds, grid):
    """Second implementation: frame by frame, by its own times."""
    grid = TimeBase(*grid)
    frames = np.random.default_rng(0).random((grid.n_frames(int(seconds * grid.sample_rate)), 2)).astype(np.float32)
    ends = np.arange(5, 5 * np.ceil(seconds / 5) + 1, 5)
    for pool, join in (("max", np.max), ("mean", np.mean)):
        ours = pool_rows(frames, grid, ends, pool)
        for end, row in zip(ends, ours, strict=True):
            begin = np.arange(len(frames)) * grid.frame_seconds
            touched = frames[(begin < end - 1e-5) & (begin + grid.frame_seconds > end - 5 + 1e-5)]
            np.testing.assert_allclose(row, join(touched, axis=0), rtol=1e-5)


def test_row_pool_and_median_filter_are_options():
    test = pd.DataFrame({"row_id": ["a_5"]})
    found = predictions({"a": (5, [("ameavo", 1, 1.1)])})
    assert BIRDCLEF2023.rows(found, test)["ameavo"][0] == pytest.approx(0.9)
    assert BIRDCLEF2023.rows(found, test, {"row_pool": "mean"})["ameavo"][0] == pytest.approx(0.116)
    assert BIRDCLEF2023.rows(found, test, {"median_filter_seconds": 0.5})["ameavo"][0] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="row_pool is 'maximum'; did you mean 'max'"):
        BIRDCLEF2023.rows(found, test, {"row_pool": "maximum"})


def test_validate_names_every_problem_at_once():
    test = pd.DataFrame({"row_id": ["a_5", "a_10", "b_5"]})
    good = BIRDCLEF2023.rows(predictions({"a": (10, []), "b": (5, [])}), test)
    BIRDCLEF2023.validate(good, test, BIRDS)
    for wrong, message in (
        (good[["row_id", *sorted(BIRDS)]], "columns are not .*: in another order"),
        (good.rename(columns={"zebdov": "zebdof"}), "missing zebdov, unknown zebdof; did you mean 'zebdov'"),
        (good.iloc[::-1], "row_id is in another order"),
        (good.iloc[[0, 1, 1, 2]], "1 row_id twice: a_10"),
        (good.assign(row_id=["a_0", "a_5", "b_5"]), "1 row_id not there: a_10; 1 .* not asked for: a_0"),
        (good.assign(row_id=["a_4", "a_10", "b_5"]), "1 row_id do not end on a multiple of 5 s: a_4"),
        (good.assign(ameavo=[0.2, np.nan, 0.1]), "ameavo holds 1 values that are no finite number"),
        (good.assign(ameavo=[0.2, 1.2, -0.1]), "ameavo holds 2 values outside 0 to 1, such as 1.2"),
        (good.assign(ameavo="x", zebdov=7.0).iloc[:2], "not there: b_5.*ameavo holds 2 values that.*zebdov.*such as 7"),
    ):
        with pytest.raises(ValueError, match=f"submission is not valid: .*{message}"):
            BIRDCLEF2023.validate(wrong, test, BIRDS)
    for rows, message in (
        (["a_5", "a_7"], "1 row_id do not end on a multiple of 5 s: a_7"),
        (["a_5", "a_5"], "1 row_id twice: a_5"),
        (["a"], "row_id 'a' is not <recording>_<second"),
        ([], "it has no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            BIRDCLEF2023.validate(good, pd.DataFrame({"row_id": pd.Series(rows, dtype=str)}), BIRDS)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_whole_recordings_have_no_arithmetic_problem(lengths):
    ids = [f"r_{i}_{5 * row}" for i, n in enumerate(lengths) for row in range(1, n + 1)]
    assert arithmetic_problems(split_rows(pd.DataFrame({"row_id": ids}))) == []
    assert arithmetic_problems(split_rows(pd.DataFrame({"row_id": ids[1:]}))) == [], "not all rows need be asked for"


# ---- the official scores


def tables(truth, scores):
    names = [f"s{k}" for k in range(truth.shape[1])]
    rows = pd.Series([f"r_{5 * i + 5}" for i in range(len(truth))], name="row_id")
    return [pd.concat([rows, pd.DataFrame(a, columns=names)], axis=1) for a in (scores, truth)]


@settings(max_examples=4)
@given(st.integers(0, 10**6))
def test_padded_cmap_and_macro_auc_are_the_official_ones(seed):
    """Both as the published scorers compute them, classes without positives or without negatives among them."""
    rng = np.random.default_rng(seed)
    truth, scores = (rng.random((12, 5)) < 0.3).astype(int), rng.random((12, 5))
    truth[:, 0], truth[0, 1], truth[1, 1] = 0, 1, 0
    submission, answers = tables(truth, scores)
    ones = np.ones((5, 5), int)
    padded = average_precision_score(np.r_[truth, ones], np.r_[scores, ones], average="macro")
    assert BIRDCLEF2023.score(submission, answers)["padded_cmap"] == pytest.approx(padded, abs=1e-12)
    only_truth = average_precision_score(np.r_[truth, ones], np.r_[scores, 0 * ones], average="macro")
    assert abs(padded - only_truth) > 1e-3, "padding the truth alone is another score"
    scored = truth.any(axis=0)
    expected = roc_auc_score(truth[:, scored], scores[:, scored], average="macro")
    for year in (2024, 2025, 2026):
        ours = get_competition(f"birdclef{year}").score(submission.sample(frac=1, random_state=0), answers)
        assert ours == {"macro_roc_auc": pytest.approx(expected, abs=1e-12)}
    truth[:, 2] = 1  # the official scorer has no value for a class without negatives
    submission, answers = tables(truth, scores)
    scored[2] = False
    expected = roc_auc_score(truth[:, scored], scores[:, scored], average="macro")
    assert ours.keys() == {"macro_roc_auc"}
    assert get_competition("birdclef2025").score(submission, answers)["macro_roc_auc"] == pytest.approx(expected)


def test_truth_and_submission_must_match():
    submission, answers = tables(np.eye(3, dtype=int), np.eye(3))
    with pytest.raises(ValueError, match="do not have the same rows, each once: r_15"):
        BIRDCLEF2023.score(submission.iloc[:2], answers)
    with pytest.raises(ValueError, match="none of 3 classes can be scored"):
        get_competition("birdclef2024").score(submission, answers.assign(s0=0, s1=0, s2=0))

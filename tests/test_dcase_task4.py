"""DESED: strong, weak and unlabelled tables -> clips and events; event tables and PSDS."""

import numpy as np
import pandas as pd
import pytest
import soundfile

import prepare
import submit
from earshot.competitions import dcase_task4
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table
from scripts import run

GRID = TimeBase(16000, 160, 5)  # 0.05 s
STRONG = ("filename", "onset", "offset", "event_label")


def table(folder, name, columns, rows):
    path = folder / "metadata" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, sep="\t", index=False)


def sound(folder, *names, seconds=10.0):
    for name in names:
        (folder / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "audio" / name, np.zeros(int(seconds * 100), np.float32), 100)


def download(folder):
    synthetic, validation = "train/synthetic21_train/soundscapes", "validation/validation"
    table(folder, "train/weak", ("filename", "event_labels"), [("w1.wav", "Dog,Speech"), ("w2.wav", "Dog")])
    table(
        folder,
        synthetic,
        STRONG,
        [("1.wav", 1, 2, "Speech"), ("1.wav", 0.5, 4, "Running water"), ("2.wav", 0, 1, "Dog")],
    )
    table(folder, "train/audioset_strong", STRONG, [("r1.wav", 0, 9.5, "Dog")])
    table(folder, "train/unlabel_in_domain", ("filename",), [("u1.wav",)])
    table(
        folder, validation, STRONG, [("v1.wav", 1, 3, "Dog"), ("v1.wav", 2, 4, "Speech"), ("v2.wav", None, None, None)]
    )
    sound(folder, "train/weak/w1.wav", "train/weak/w2.wav", f"{synthetic}/1.wav", f"{synthetic}/2.wav",
          "train/strong_label_real/r1.wav", "train/unlabel_in_domain/u1.wav", f"{validation}/v1.wav")  # fmt: skip
    sound(folder, f"{validation}/v2.wav", seconds=6)
    return folder


def predictions(clips, classes=("Dog", "Running_water", "Speech")):
    """{clip: (seconds, [(class, onset, offset)])}"""
    frames = []
    for seconds, events in clips.values():
        prob = np.full((GRID.n_frames(int(seconds * 16000)), len(classes)), 0.1, np.float32)
        for name, onset, offset in events:
            prob[GRID.frame(onset) : GRID.frame(offset), classes.index(name)] = 0.9
        frames.append(prob)
    n = len(frames)
    return Predictions(
        np.array(list(clips)), classes, np.stack([f.max(0) for f in frames]), np.zeros(n, int), np.zeros(n, bool),
        framewise_output=tuple(frames), timebase=GRID,
    )  # fmt: skip


def test_from_the_download_to_the_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(prepare, "dcase_task4", "--source", download(tmp_path / "desed"))
    clips = read_table("data/dcase_task4/clips.csv").set_index("clip_id")
    assert clips.labels.to_dict() == {
        "r1": "Dog", "1": "Running_water Speech", "2": "Dog",
        "w1": "Dog Speech", "w2": "Dog", "v1": "Dog Speech", "v2": "",
    }  # fmt: skip
    assert clips.official_fold.tolist() == [-1, -1, -1, -1, -1, 0, 0]
    assert clips.path["r1"] == "audio/train/strong_label_real/r1.wav"
    assert clips.kind["w1"] == "weak"
    events = read_table("data/dcase_task4/events.csv")
    assert events.filename.tolist() == ["1", "1", "2", "r1", "v1", "v1"]
    test, truth = read_table("data/dcase_task4/test.csv"), read_table("data/dcase_task4/truth.csv")
    assert test.duration.tolist() == [10, 6]
    heard = {"v2": (6, []), "v1": (10, [("Dog", 1, 3), ("Speech", 2.15, 3.9)])}
    predictions(heard).save(tmp_path / "oof.npz")
    (tmp_path / "post.yaml").write_text("{threshold: 0.5, iou_threshold: null}")
    arguments = ("--competition", "dcase_task4", "--test", "data/dcase_task4/test.csv")
    run(submit, *arguments, "--predictions", "oof.npz", "--out", "submissions/s.tsv", "--post", "post.yaml")
    run(submit, *arguments, "--check", "submissions/s.tsv")
    assert "submissions/s.tsv: 3 rows, valid for dcase_task4" in capsys.readouterr().out
    text = (tmp_path / "submissions/s.tsv").read_text().split("\n")
    assert text[0] == "filename\tonset\toffset\tevent_label"
    assert text[3].split("\t") == ["v2.wav", "", "", ""]
    score = dcase_task4.score(read_table("submissions/s.tsv"), truth)
    assert score == {"event_f1_macro": 1, "event_f1": 1}  # 0.15 s and 0.1 s off are within the collars
    late = read_table("submissions/s.tsv").assign(onset=lambda t: t.onset + 0.21 * (t.event_label == "Dog"))
    assert dcase_task4.score(late, truth) == {"event_f1_macro": 0.5, "event_f1": 0.5}


def test_a_recording_without_prediction_has_its_row(tmp_path, caplog):
    test = pd.DataFrame({"clip_id": ["z", "a", "y"], "filename": ["z.wav", "a.wav", "y.wav"], "duration": 10.0})
    rows = dcase_task4.rows(predictions({"a": (10, [("Dog", 1, 3)])}), test)
    assert rows.filename.tolist() == ["z.wav", "a.wav", "y.wav"]
    assert rows.onset.notna().tolist() == [False, True, False]
    dcase_task4.validate(rows, test, ["Dog"])
    assert "2 of 3 recordings have no prediction: z, y" in caplog.text
    assert dcase_task4.rows(predictions({"b": (5, [])}), test).onset.isna().all()


def test_a_class_that_nobody_found_counts_zero():
    truth = pd.DataFrame([("a.wav", 0, 1, "Dog"), ("a.wav", 2, 3, "Speech")], columns=list(STRONG))
    assert dcase_task4.score(truth.iloc[:1], truth)["event_f1_macro"] == 0.5
    assert dcase_task4.score(truth.iloc[:0], truth) == {"event_f1_macro": 0, "event_f1": 0}


def test_the_evaluation_set_is_the_test_where_it_is_there(tmp_path):
    folder = download(tmp_path)
    table(folder, "eval/public", STRONG, [("e1.wav", 1, 2, "Dog"), ("1.wav", 0, 1, "Dog")])
    table(folder, "eval/public_durations", ("filename", "duration"), [("e1.wav", 9.9)])
    sound(folder, "eval/public/e1.wav")
    tables = dcase_task4.prepare(folder)
    assert tables.test_clips.clip_id.tolist() == ["e1", "eval_public_1"]  # another clip is called 1 too
    assert "train_synthetic21_train_soundscapes_1" in tables.clips.clip_id.tolist()
    assert tables.test.duration.tolist() == [9.9, 10.0]
    assert tables.missing == (("eval_public_1", "audio/eval/public/1.wav"),)
    assert tables.test_events.filename.tolist() == ["e1", "eval_public_1"]
    assert tables.truth.filename.tolist() == ["e1.wav", "1.wav"]


def test_kinds_choose_what_trains(tmp_path):
    folder = download(tmp_path)
    strong = dcase_task4.prepare(folder, kinds="strong").clips
    assert set(strong.kind) == {"strong"}
    every = dcase_task4.prepare(folder, kinds="strong, weak, unlabelled").clips
    assert every.labels[every.kind == "unlabelled"].tolist() == [""]
    with pytest.raises(ValueError, match="unknown kind 'storng' in kinds=storng; did you mean 'strong'"):
        dcase_task4.prepare(folder, kinds="storng")


def test_broken_downloads_and_submissions(tmp_path):
    with pytest.raises(ValueError, match=r"metadata holds no \.tsv"):
        dcase_task4.prepare(tmp_path)
    table(tmp_path, "train/strong", STRONG, [("a.wav", 2, 2, "Dog")])
    with pytest.raises(ValueError, match=r"strong\.tsv has 1 events that end where they begin: a\.wav"):
        dcase_task4.prepare(tmp_path)
    table(tmp_path, "train/strong", ("filename", "onset", "offset"), [("a.wav", 2, 3)])
    with pytest.raises(ValueError, match="no column 'event_label'"):
        dcase_task4.prepare(tmp_path)
    test = pd.DataFrame({"clip_id": ["a"], "filename": ["a.wav"], "duration": [10.0]})
    wrong = pd.DataFrame([("a.wav", 9, 12, "Dgo"), ("b.wav", 0, 1, "Dog")], columns=list(STRONG))
    message = "b.wav; 1 events do not lie in their recording.*; label 'Dgo' is not a class; did you mean 'Dog'"
    with pytest.raises(ValueError, match=message):
        dcase_task4.validate(wrong, test, ["Dog"])


def test_psds_of_both_scenarios():
    pytest.importorskip("sed_scores_eval")
    events = [("a.wav", 1, 3, "Dog"), ("a.wav", 5, 9, "Speech"), ("b.wav", 2, 4, "Speech")]
    truth = pd.DataFrame(events, columns=list(STRONG))
    test = pd.DataFrame({"clip_id": ["b", "a"], "filename": ["b.wav", "a.wav"], "duration": [5.98, 10.0]})
    right = predictions({"a": (10, [("Dog", 1, 3), ("Speech", 5, 9)]), "b": (6, [("Speech", 2, 4)])})
    assert dcase_task4.score_frames(right, test, truth) == pytest.approx({"psds1": 1, "psds2": 1})
    half = predictions({"a": (10, [("Dog", 1, 2), ("Speech", 5, 9)]), "b": (6, [("Speech", 2, 4)])})
    found = dcase_task4.score_frames(half, test, truth)
    assert found["psds1"] < 0.6  # half of the only dog is too little there, enough here
    assert found["psds2"] == pytest.approx(1)

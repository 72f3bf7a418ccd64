"""DESED: strong, weak and unlabelled tables -> clips and events; event tables and PSDS."""

import io

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


def test_events_end_with_their_recording():
    """A recording of 9.98 s whose last frame reaches to 10 s; one that begins in that rest of a frame is none."""
    test = pd.DataFrame({"clip_id": ["a", "b"], "filename": ["a.wav", "b.wav"], "duration": [9.98, 9.92]})
    heard = {"a": (10, [("Dog", 9, 10), ("Speech", 2, 3)]), "b": (10, [("Dog", 9.96, 10)])}
    rows = dcase_task4.rows(predictions(heard), test)
    assert rows[["filename", "offset"]].fillna(0).values.tolist() == [["a.wav", 3], ["a.wav", 9.98], ["b.wav", 0]]
    dcase_task4.validate(rows, test, ["Dog", "Running_water", "Speech"])


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


@pytest.mark.parametrize(("row", "message"), [
    (("a.wav", None, None, "Dog"), "rows with a label and no times, or times and no label: a.wav"),
    (("a.wav", 1, 2, None), "rows with a label and no times, or times and no label: a.wav"),
    (("a.wav", 3, 1, "Dog"), "1 events that do not end after they begin: a.wav"),
    (("a.wav", "x", 2, "Dog"), "strong.tsv: column 'onset' holds 'x' in row 2, expected a number"),
    (("a.wav", 1, None, "Dog"), "strong.tsv: column 'offset' holds '.*' in row 2, expected a number"),
])  # fmt: skip
def test_a_row_that_says_half_of_an_event_is_no_silence(tmp_path, row, message):
    table(download(tmp_path), "train/strong", STRONG, [("b.wav", 1, 2, "Dog"), row])
    with pytest.raises(ValueError, match=message):
        dcase_task4.prepare(tmp_path)


def test_a_duration_that_is_no_number_is_named(tmp_path):
    table(download(tmp_path), "validation/validation_durations", ("filename", "duration"), [("v1.wav", "ten")])
    with pytest.raises(ValueError, match="validation_durations.tsv: column 'duration' holds 'ten' in row 1"):
        dcase_task4.prepare(tmp_path)


def test_folders_above_may_have_any_name(tmp_path):
    """DESED's synthetic part unpacks to dcase_synth, into which people put the rest."""
    download(tmp_path / "unpacked/dcase_synth/dataset")
    plain = dcase_task4.prepare(download(tmp_path / "desed"))
    inside = dcase_task4.prepare(tmp_path / "unpacked")
    assert inside.missing == plain.missing == ()
    assert inside.clips.path.tolist() == [f"dcase_synth/dataset/{path}" for path in plain.clips.path]


def test_broken_downloads_and_submissions(tmp_path):
    with pytest.raises(ValueError, match=r"metadata holds no \.tsv"):
        dcase_task4.prepare(tmp_path)
    table(tmp_path, "train/strong", STRONG, [("a.wav", 2, 2, "Dog")])
    with pytest.raises(ValueError, match=r"strong\.tsv has 1 events that do not end after they begin: a\.wav"):
        dcase_task4.prepare(tmp_path)
    table(tmp_path, "train/strong", ("filename", "onset", "offset"), [("a.wav", 2, 3)])
    with pytest.raises(ValueError, match="no column 'event_label'"):
        dcase_task4.prepare(tmp_path)
    test = pd.DataFrame({"clip_id": ["a"], "filename": ["a.wav"], "duration": [10.0]})
    wrong = pd.DataFrame([("a.wav", 9, 12, "Dgo"), ("b.wav", 0, 1, "Dog")], columns=list(STRONG))
    message = "b.wav; 1 event does not lie in their recording.*; label 'Dgo' is not a class; did you mean 'Dog'"
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


def test_scores_of_frames_cover_each_recording_to_its_end():
    """A table's duration may go beyond what was heard; what has no prediction has no file, and a check says so."""
    test = pd.DataFrame({"clip_id": ["b", "a", "lost"], "filename": ["b.wav", "a.wav", "lost.wav"],
                         "duration": [7.0, 4.5, 3.0]})  # fmt: skip
    found = predictions({"a": (10, [("Dog", 1, 3)]), "b": (6, [("Speech", 2, 4)])})
    texts = dcase_task4.score_files(found, test, "Muster_TUX_task4_1")
    assert sorted(texts) == [f"Muster_TUX_task4_1_run1.output/{name}.tsv" for name in "ab"]
    for name, end in (("a", 4.5), ("b", 7.0)):
        scores = pd.read_csv(io.StringIO(texts[f"Muster_TUX_task4_1_run1.output/{name}.tsv"]), sep="\t")
        assert scores.columns.tolist() == ["onset", "offset", "Dog", "Running_water", "Speech"]
        assert (scores.onset[0], scores.offset.iloc[-1]) == (0, end)
        assert np.array_equal(scores.onset[1:], scores.offset[:-1])


def test_a_recording_that_several_tables_name_is_one_clip(tmp_path, caplog):
    """validation.tsv is the union of two tables beside it, an old one disagrees; a strong recording is weak too."""
    first, second = ("v1.wav", 1, 3, "Speech"), ("v2.wav", 2, 6, "Cat")
    table(tmp_path, "validation/test_dcase2018", STRONG, [first])
    table(tmp_path, "validation/eval_dcase2018", STRONG, [second])
    table(tmp_path, "validation/validation", STRONG, [first, second, second, ("v3.wav", None, None, None)])
    table(tmp_path, "validation/validation_old", STRONG, [("v1.wav", 1.5, 3, "Speech"), second])
    table(tmp_path, "train/weak", ("filename", "event_labels"), [("y.wav", "Cat,Speech"), ("z.wav", "Cat")])
    table(tmp_path, "train/audioset_strong", STRONG, [("y.wav", 1, 2, "Cat")])
    sound(tmp_path, "validation/v1.wav", "validation/v2.wav", "validation/v3.wav", "train/weak/y.wav",
          "train/weak/z.wav", "train/strong_label_real/y.wav")  # fmt: skip
    tables = dcase_task4.prepare(tmp_path)
    assert tables.test.clip_id.tolist() == ["v1", "v2", "v3"]
    assert tables.truth.values.tolist() == [list(first), list(second)]
    assert dcase_task4.score(tables.truth, tables.truth) == {"event_f1_macro": 1, "event_f1": 1}
    clips = tables.clips.set_index("clip_id")
    assert clips.kind.to_dict() == {"y": "strong", "z": "weak", "v1": "strong", "v2": "strong", "v3": "strong"}
    assert clips.annotated["v3"] == 1
    assert clips.labels["v3"] == ""
    assert "1 recordings have other events in another table: v1.wav (validation/validation counts)" in caplog.text


def test_silent_recordings_of_the_evaluation_set_stay(tmp_path, caplog):
    """A list of durations names them; one that is in no table at all is there all the same."""
    folder = download(tmp_path)
    table(folder, "eval/public", STRONG, [("e1.wav", 1, 2, "Dog")])
    table(folder, "eval/public_meta", ("filename", "duration"), [("e1.wav", 10), ("e2.wav", 11)])
    sound(folder, "eval/public/e1.wav", "eval/public/e2.wav", "eval/public/e3.WAV")
    tables = dcase_task4.prepare(folder)
    assert tables.test[["filename", "duration"]].values.tolist() == [["e1.wav", 10], ["e2.wav", 11], ["e3.WAV", 10]]
    assert len(tables.truth) == 1
    assert "1 recordings of the evaluation set are in no table" in caplog.text
    (folder / "metadata/eval/public.tsv").unlink()
    tables = dcase_task4.prepare(folder)  # as in the challenge: nobody knows the events
    assert tables.test.filename.tolist() == ["e1.wav", "e2.wav", "e3.WAV"]
    assert tables.truth is None


def test_sets_beside_the_real_one(tmp_path, caplog):
    """dcase_synth/, a synthetic validation set, MAESTRO's tables, copies at 16 kHz: each is used or named."""
    folder = download(tmp_path)
    table(folder / "dcase_synth", "train/synthetic21_train/soundscapes", STRONG, [("7.wav", 1, 2, "dog")])
    table(folder / "dcase_synth", "validation/synthetic21_validation/soundscapes", STRONG, [("1.wav", 1, 2, "Dog")])
    sound(folder / "dcase_synth", "train/synthetic21_train/soundscapes/7.wav",
          "validation/synthetic21_validation/soundscapes/1.wav")  # fmt: skip
    table(folder, "maestro_real_train", STRONG, [("cafe.wav", 0, 1, "people talking")])
    sound(folder, "train/strong_label_real_16k/r1.wav", "maestro_real_train/cafe.wav")
    tables = dcase_task4.prepare(folder)
    clips = tables.clips.set_index("clip_id")
    assert clips.path["7"] == "dcase_synth/audio/train/synthetic21_train/soundscapes/7.wav"
    assert clips.path["r1"] == "audio/train/strong_label_real/r1.wav"
    assert tables.test.clip_id.tolist() == ["v1", "v2"]
    assert tables.classes == ["Dog", "Running_water", "Speech"]
    assert "left out: maestro_real_train (1 recording)" in caplog.text
    assert "neither train nor are they the test: validation/synthetic21_validation/soundscapes (1 rec" in caplog.text
    for path in (folder / "audio").rglob("*.wav"):
        if "16k" not in path.parent.name:
            target = folder / "audio_16k" / path.relative_to(folder / "audio")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    assert dcase_task4.prepare(folder).clips.path.str.contains("16k").sum() == 7  # all but dcase_synth's own


def test_silent_recordings_are_heard_in_training_and_scored(tmp_path, tiny):
    """`annotated` says that no label is a statement; without it such a clip is left out."""
    from earshot.config import load_config
    from earshot.data.prepared import load_data

    clips = read_table(tmp_path / "data/clips.csv")
    clips.loc[:1, "labels"] = ""
    clips.assign(annotated=[1] + [0] * 23).to_csv(tmp_path / "data/clips.csv", index=False)
    data = load_data(load_config(tiny).data)
    assert len(data.clips) == 23
    assert data.target[data.clips.clip_id == "c0"].sum() == 0

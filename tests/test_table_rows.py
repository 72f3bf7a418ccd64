"""Rows that spreadsheets and hasty exports leave in a download's tables: empty ones, none at all, other separators."""

import logging
from pathlib import PurePosixPath

import pandas as pd
import pytest

import prepare
import submit
from earshot.competitions import get_competition, headers
from earshot.competitions.checks import form_problems
from earshot.competitions.dcase_task1 import read_tsv
from earshot.competitions.dcase_task2 import ground_truth
from earshot.competitions.dcase_task4_tables import read_metadata
from earshot.competitions.downloads import choose_rate, fits
from earshot.competitions.freesound2019 import vocabulary
from earshot.competitions.label_texts import check_labelled
from earshot.competitions.tables import Tables, classes_of_sample
from earshot.messages import few
from earshot.tables import read_rows, read_table
from scripts import run

CODINGS = pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])


@pytest.mark.parametrize("below", [",,\n", ",,\n,,\n", '"","",""\n'])
def test_rows_of_empty_cells_are_none_and_change_no_number(tmp_path, below):
    path = tmp_path / "t.csv"
    path.write_text("row_id,seconds,duration\n007,5,1.5\n" + below + "a,10,\n,15,\n" + below)
    table = read_table(path)
    assert table.row_id.tolist() == ["007", "a", ""], "a row that says anything stays"
    assert table.seconds.tolist() == [5, 10, 15]
    assert table.seconds.dtype == int
    assert table.duration.tolist()[0] == 1.5
    assert read_table(path, all_text=True).seconds.tolist() == ["5", "10", "15"]
    assert form_problems(path) == [f"{2 * below.count(chr(10))} of its rows are empty"], "a scorer reads them"


def test_an_empty_cell_of_a_single_column_stays(tmp_path):
    (tmp_path / "classes.csv").write_text('label\na\n""\n')
    assert read_table(tmp_path / "classes.csv").label.tolist() == ["a", ""]


def test_a_tsv_with_other_separators_is_read(tmp_path):
    (tmp_path / "t.tsv").write_text("filename;onset\na.wav;1.5\n")
    assert read_table(tmp_path / "t.tsv", ("filename", "onset")).onset.tolist() == [1.5]
    (tmp_path / "u.tsv").write_text("filename\na b.wav\n")
    assert read_table(tmp_path / "u.tsv").filename.tolist() == ["a b.wav"]


@CODINGS
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_tables_without_a_header_in_every_writing(tmp_path, coding, sign):
    path = tmp_path / "t.csv"
    path.write_bytes(f'"section_00_0186.wav"{sign} 1\r\n\r\n{sign}\r\né.wav{sign}"0"\r\n'.encode(coding))
    assert read_rows(path) == [["section_00_0186.wav", "1"], ["é.wav", "0"]]


@CODINGS
def test_published_truth_and_vocabulary_in_every_writing(tmp_path, coding):
    truth = tmp_path / "ground_truth_fan_section_03_source_test.csv"
    truth.write_bytes('"section_03_source_test_0182.wav";"1"\nsection_03_source_test_0183.wav;0\n'.encode(coding))
    known = ground_truth(tmp_path)
    assert known["fan", "section_03_source_test_0182"] == (1, "")
    assert known["fan", "section_03_source_test_0183"] == (0, "")
    (tmp_path / "vocabulary.csv").write_bytes('0,Accordion\n1,"Male_speech, man"\n2,Bass,drum\n'.encode(coding))
    assert vocabulary(tmp_path / "vocabulary.csv") == ["Accordion", "Male_speech,_man", "Bass,drum"]


def test_a_truth_of_one_column_is_named(tmp_path):
    (tmp_path / "ground_truth_fan_section_03_source_test.csv").write_text("section_03_source_test_0182.wav\n")
    with pytest.raises(ValueError, match="needs a file's name and what it is, got 'section_03_source_test_0182.wav'"):
        ground_truth(tmp_path)


def test_lists_of_scenes_in_utf16_and_without_rows(tmp_path):
    (tmp_path / "a.csv").write_bytes("filename\tscene_label\naudio/a.wav\ttram\n".encode("utf-16"))
    assert read_tsv(tmp_path / "a.csv", ("filename",)).scene_label.tolist() == ["tram"]
    (tmp_path / "b.csv").write_text("filename\tscene_label\n")
    with pytest.raises(ValueError, match=r"b.csv has no rows below its header"):
        read_tsv(tmp_path / "b.csv", ("filename",))


def test_tables_that_are_a_header_alone(tmp_path):
    """Nothing to train on is refused; a test without recordings, as of songs without labels, is one of 0 clips."""
    clips = pd.DataFrame({"clip_id": ["a"], "path": ["a.wav"], "labels": ["x"]})
    with pytest.raises(ValueError, match="the download names no recording to train on: its table is a header alone"):
        Tables(classes=["x"], clips=clips.head(0))
    tables = Tables(classes=["x"], clips=clips, test_clips=clips.head(0))
    assert "test: 0 clips, 0.00 h, no readable file" in prepare.summary(
        headers.with_headers(tables, tmp_path, decode=False, workers=1), "mine"
    )


def test_a_sample_s_odd_cell_is_shown_with_its_row(tmp_path):
    sample = pd.DataFrame({"row_id": ["a", "b"], "bird": [0.5, 2.0]})
    with pytest.raises(ValueError, match=r"column 'bird' holds no probabilities, as classes do \(but '2.0' in row 2\)"):
        classes_of_sample(sample, "row_id", "sample_submission.csv")


def test_recordings_without_a_label_are_named():
    check_labelled(["a.wav"], ["Bark"], "train.csv")
    with pytest.raises(ValueError, match="train.csv has no label for 2 clips: b.wav, c.wav"):
        check_labelled(["a.wav", "b.wav", "c.wav"], ["Bark", "", "nan"], "train.csv")


def test_names_that_nobody_would_see_stand_in_quotes():
    assert few(["a", "", " b", "c d"]) == "a, '', ' b', c d"


def test_numbers_of_species_are_no_sample_rates(caplog):
    """Folders of BirdCLEF 2025 and 2026 are numbers; some would do as rates."""
    wanted = PurePosixPath("train_audio/126247/x.ogg")
    assert fits(wanted, PurePosixPath("audio/TRAIN_AUDIO/126247/x.ogg"))
    assert fits(wanted, PurePosixPath("train_audio_16k/126247/x.ogg"))
    assert fits(wanted, PurePosixPath("train_audio/126247/16000/x.ogg"))
    assert not fits(wanted, PurePosixPath("train_audio/134933/x.ogg")), "another species"
    paths = ("train_audio/126247/x.ogg", "train_audio/amerob/y.ogg")
    moved = {path: [PurePosixPath("copy", path)] for path in paths}
    assert choose_rate(moved) == {path: f"copy/{path}" for path in paths}
    assert caplog.messages == []
    both = {p: [PurePosixPath("audio_16k", p), PurePosixPath("audio_32k", p)] for p in paths}
    assert choose_rate(both) == {path: f"audio_32k/{path}" for path in paths}


def test_what_a_mac_leaves_beside_tables_is_no_table(tmp_path):
    folder = tmp_path / "metadata/train"
    folder.mkdir(parents=True)
    (folder / "weak.tsv").write_text("filename\tevent_labels\na.wav\tDog\n")
    (folder / "._weak.tsv").write_bytes(b"\0\5\x16\7\0\2")
    (tmp_path / "audio/train/weak").mkdir(parents=True)
    (tmp_path / "audio/train/weak/a.wav").touch()
    assert read_metadata(tmp_path, ("weak", "strong")).clips.filename.tolist() == ["a.wav"]


def test_a_label_of_another_case_is_taken_as_the_organisers_own_sample_has_it(tmp_path, caplog, capsys):
    """DCASE 2018's sample_submission.csv answers Laughter Hi-Hat Flute, its training table has Hi-hat."""
    test = pd.DataFrame({"fname": ["a.wav"], "clip_id": ["a"]})
    test.to_csv(tmp_path / "test.csv", index=False)
    pd.DataFrame({"label": ["Flute", "Hi-hat", "Laughter"]}).to_csv(tmp_path / "classes.csv", index=False)
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("fname,label\na.wav,Laughter Hi-Hat Flute\n")
    with caplog.at_level(logging.WARNING):
        run(submit, "--competition", "dcase2018_task2", "--test", tmp_path / "test.csv", "--check", sample)
    assert "1 row, valid for dcase2018_task2" in capsys.readouterr().out
    assert "the submission writes Hi-Hat for Hi-hat" in caplog.text
    for text in ("Hi-Hat Hi-hat", "Hi_hat"):
        with pytest.raises(ValueError, match="different labels|unknown label 'Hi_hat'; did you mean 'Hi-hat'"):
            get_competition("dcase2018_task2").validate(
                pd.DataFrame({"fname": ["a.wav"], "label": [text]}), test, ["Flute", "Hi-hat", "Laughter"]
            )

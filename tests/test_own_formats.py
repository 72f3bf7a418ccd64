"""Recordings of one's own beside what AviaNZ, DCASE's SELD, DAS, DeepSqueak, xeno-canto and others wrote of them."""

import json
import shutil
from pathlib import Path

import pytest

from earshot.annotations.seld import is_seld
from earshot.competitions.mine import prepare
from earshot.listening.scoring import read_events_of
from own_folders import events_of, record


def test_segments_of_avianz(tmp_path, said):
    """Less than certain is unknown, what nobody knows has no label, a file without segments is silence."""
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    who = {"Operator": "O", "Reviewer": "", "Duration": 10.0}
    cat, kiwi = {"species": "Cat", "certainty": 100, "filter": "M"}, {"species": "Kiwi", "certainty": 50}
    nobody = {"species": "Don't Know", "certainty": 0}
    (tmp_path / "a.wav.data").write_text(json.dumps([who, [0.1, 0.3, 700, 900, [cat]], [0.4, 0.5, 0, 0, [kiwi]]]))
    (tmp_path / "b.wav.data").write_text(json.dumps([who, [0.2, 0.6, 0, 0, [kiwi | {"certainty": 100}, nobody]]]))
    (tmp_path / "c.wav.data").write_text(json.dumps([who]))
    tables = prepare(tmp_path)
    assert events_of(tables) == [["a", 0.1, 0.3, "Cat"], ["b", 0.2, 0.6, "Kiwi"]]
    clips = tables.clips.set_index("clip_id")
    assert clips.annotated.tolist() == [1, 1, 1]
    assert clips.unknown_labels["a"] == "Kiwi"
    assert "1 events have no label" in said.text


def test_other_files_that_end_in_data_are_named(tmp_path, said):
    record(tmp_path, "x/a.wav", "y/b.wav")
    (tmp_path / "a.data").write_text("1 2 3\n")
    assert prepare(tmp_path).events is None
    assert "not read, save them as CSV where they hold labels: a.data" in said.text


def test_frames_of_seld_are_events(tmp_path, said):
    record(tmp_path, "foa_dev/dev-train-x/mix1.wav", "foa_dev/dev-test-x/mix2.wav")
    for name, rows in (("dev-train-x/mix1", "1,4,0,-50,30\n2,4,0,-50,30\n2,4,1,10,-20\n2,1,0,0,0\n5,4,0,1,1\n"),
                       ("dev-test-x/mix2", "0,1,0,180,-90,140\n")):  # fmt: skip
        path = tmp_path / "metadata_dev" / f"{name}.csv"
        path.parent.mkdir(parents=True)
        path.write_text(rows)
    tables = prepare(tmp_path)
    clip = "foa_dev/dev-train-x/mix1"
    expected = [[clip, 0.1, 0.3, "4"], [clip, 0.2, 0.3, "1"], [clip, 0.5, 0.6, "4"]]
    assert [[name, round(on, 6), round(off, 6), label] for name, on, off, label in events_of(tables)] == expected
    assert tables.test_clips.clip_id.tolist() == ["foa_dev/dev-test-x/mix2"]


@pytest.mark.parametrize("line", ["1,4,0,-500,30", "1,4,0,-50,95", "1,4,0,5", "1.5,4,0,5,6", "1,-4,0,5,6"])
def test_other_rows_of_numbers_are_no_frames_of_seld(line):
    assert is_seld(["1,4,0,-50,30", "1,4,1,-50,30"])
    assert not is_seld(["1,4,0,-50,30", line])
    assert not is_seld(["9,4,0,-50,30", "1,4,0,-50,30"])


def test_labels_that_are_names_of_sounds_are_their_classes(tmp_path, said):
    """DCASE 2018 and 2019."""
    record(tmp_path, "m.wav")
    (tmp_path / "m.csv").write_text("sound_event_recording,start_time,end_time,ele\nknock004.wav,0.1,0.2,30\n")
    assert events_of(prepare(tmp_path)) == [["m", 0.1, 0.2, "knock"]]


def test_what_das_may_hear_is_no_label(tmp_path):
    """And its files are called after recordings, with _annotations behind."""
    record(tmp_path, "a.wav")
    (tmp_path / "a_annotations.csv").write_text("name,start_seconds,stop_seconds\nsine,0.1,0.2\npulse,,\n")
    assert prepare(tmp_path).classes == ["sine"]


@pytest.mark.parametrize(("column", "no"), [("Accepted", "false"), ("label_type", "NEGATIVE")])
def test_rows_that_a_person_refused(tmp_path, column, no):
    """DeepSqueak, Perch Hoplite."""
    yes = "true" if no == "false" else "POSITIVE"
    record(tmp_path, "a.wav")
    (tmp_path / "a.csv").write_text(f"Label,{column},Begin Time (s),End Time (s)\nu,{yes},0.1,0.2\nv,{no},0.3,0.4\n")
    assert prepare(tmp_path).classes == ["u"]


@pytest.mark.parametrize(
    ("header", "cells"),
    [("also", ("['Parus major', 'Pica pica']", "['']")), ("Background Species", ("Parus major, Pica pica", ""))],
)
def test_what_archives_say_of_the_background_are_secondary_labels(tmp_path, said, header, cells):
    record(tmp_path, "a.wav", "b.wav")
    rows = [f'a.wav,Turdus merula,"{cells[0]}"', f'b.wav,Parus major,"{cells[1]}"']
    (tmp_path / "t.csv").write_text("\n".join([f"file,species,{header}", *rows]))
    assert prepare(tmp_path).clips.secondary_labels.tolist() == ["Parus_major", ""]
    assert "no recording's label are left out: Pica_pica" in said.text


def test_numbers_of_selections_are_no_class(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("sound.files,channel,selec,start,end\na.wav,1,1,0.1,0.2\nb.wav,1,1,0.3,0.4\n")
    with pytest.raises(ValueError, match="no column has a name that labels have"):
        prepare(tmp_path)
    (tmp_path / "t.csv").write_text(",uuid,SNR,status\n0,a,7.2,x\n1,b,8.1,y\n")  # the first column is the rows' number
    with pytest.raises(ValueError, match="which column holds the labels"):
        prepare(tmp_path)


def test_the_only_table_of_labels_among_several(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "tags.csv").write_text("mp3_path,singer,duet\na.mp3,1,0\nb.mp3,0,1\n")
    (tmp_path / "info.csv").write_text("mp3_path,title,artist\na.mp3,A,X\nb.mp3,B,Y\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["singer", "duet"]
    assert "the table of labels is" in said.text


def test_a_folder_of_tables_is_given(tmp_path):
    """FSD50K, which has the same recordings in tables of another folder."""
    record(tmp_path, "dev_audio/a.wav", "dev_audio/b.wav", "eval_audio/c.wav")
    for folder, prefix in (("ground_truth", ""), ("metadata", "collection_")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{prefix}dev.csv").write_text("fname,labels\na,Bark\nb,Meow\n")
        (tmp_path / folder / f"{prefix}eval.csv").write_text("fname,labels\nc,Bark\n")
    (tmp_path / "ground_truth" / "vocabulary.csv").write_text("0,Bark\n1,Meow\n")
    with pytest.raises(ValueError, match="or the folder in which those lie that belong together"):
        prepare(tmp_path)
    tables = prepare(tmp_path, table=tmp_path / "ground_truth")
    assert tables.clips.labels.tolist() == ["Bark", "Meow"]
    assert tables.test_clips.clip_id.tolist() == ["eval_audio/c"]
    with pytest.raises(ValueError, match="no table in it names recordings"):
        prepare(tmp_path, table=tmp_path / "dev_audio")


def test_folders_named_after_splits_are_no_classes(tmp_path):
    """NSynth: nsynth-train/audio, nsynth-test/audio."""
    record(tmp_path, "n-train/wren/a.wav", "n-train/robin/b.wav", "n-test/wren/c.wav")
    tables = prepare(tmp_path)
    assert tables.clips.labels.tolist() == ["robin", "wren"]
    assert tables.test_clips.clip_id.tolist() == ["n-test/wren/c"]


CLOCKED = "filename,annotation,start_datetime,end_datetime\n"


@pytest.mark.parametrize(
    ("recording", "row"),
    [
        ("s_20240131_063000.wav", "2024-01-31T06:30:01.500+00:00,2024-01-31T06:30:02+00:00"),
        ("20240131T063000+1000_x.wav", "2024-01-30T20:30:01.5Z,2024-01-30 20:30:02Z"),
        ("20240131T063000+1000_x.wav", "2024/01/31 06:30:01.5,2024/1/31 6:30:02"),
    ],
)
def test_times_by_the_clock_count_from_the_one_in_the_name(tmp_path, said, recording, row):
    """APLOSE, Triton, BioDCASE; scores of a table read them too."""
    record(tmp_path, recording)
    (tmp_path / "t.csv").write_text(f"{CLOCKED}{recording},Bm,{row}\n")
    stem = recording.removesuffix(".wav")
    assert events_of(prepare(tmp_path)) == [[stem, 1.5, 2.0, "Bm"]]
    assert read_events_of(tmp_path / "t.csv")[0].onset.tolist() == [1.5]
    assert "says when sounds are heard by the clock" in said.text


@pytest.mark.parametrize(
    ("recording", "row", "message"),
    [
        ("20240131_063000.wav", "2024-01-31 05:30:01,2024-01-31 05:30:02", "end before their recordings begin"),
        ("20240131_063000.wav", "2024-01-31 07:30:01,2024-01-31 07:30:02", "begin after the end"),
        ("20240131_063000.wav", "2024-13-31 07:30:01,2024-01-31 07:30:02", "is no day and time"),
        ("20240131_063000.wav", "2024-01-31 06:30:03,2024-01-31 06:30:02", "no later one"),
        ("20240131_063000.wav", "31/01/2024 06:30:03,31/01/2024 06:30:04", "or say the day and time"),
    ],
)
def test_times_by_another_clock_are_an_error(tmp_path, recording, row, message):
    record(tmp_path, recording)
    (tmp_path / "t.csv").write_text(f"{CLOCKED}{recording},Bm,{row}\n")
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path)


def test_when_recordings_were_made_is_no_event(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    rows = [f"{name},{label},2024-01-31 06:30:00,2024-01-31 06:31:00\n" for name, label in (("a", "x"), ("b", "y"))]
    (tmp_path / "t.csv").write_text(CLOCKED + "".join(rows))
    tables = prepare(tmp_path)
    assert tables.events is None
    assert tables.clips.labels.tolist() == ["x", "y"]
    (tmp_path / "t.csv").write_text((CLOCKED + rows[0]).replace("_datetime", "_time"))
    with pytest.raises(ValueError, match="does not say when it began"):
        prepare(tmp_path)


def test_samples_taken_for_seconds_are_an_error(tmp_path):
    """TIMIT's SA1.TXT, a sentence from the first sample to the last."""
    record(tmp_path, "SA1.wav", seconds=3)
    (tmp_path / "SA1.txt").write_text("0 46797 She had your dark suit.\n")
    with pytest.raises(ValueError, match=r"1 of 1 events end long after .* at 46797 s of SA1.wav \(3 s\)"):
        prepare(tmp_path)


def test_a_table_of_folders_is_of_all_recordings_in_them(tmp_path, said):
    """Coswara: a folder a day, in it one a person, whom the table names."""
    record(tmp_path, "20200413/ann/cough.wav", "20200413/ann/vowel.wav", "20200414/bob/cough.wav")
    (tmp_path / "data.csv").write_text("id,covid_status\nann,healthy\nbob,positive\ncyd,healthy\n")
    with pytest.raises(ValueError, match="nothing says"):
        prepare(tmp_path)
    assert "folders named by dates are no classes" in said.text
    assert "'id' names folders of recordings: --table" in said.text
    columns = {"path_column": "id", "label_column": "covid_status", "group_column": "id"}
    tables = prepare(tmp_path, table=tmp_path / "data.csv", **columns)
    assert tables.clips.labels.tolist() == ["healthy", "healthy", "positive"]
    assert tables.clips.group.tolist() == ["ann", "ann", "bob"]
    assert [name for name, _ in tables.missing] == ["cyd"]


def test_a_table_named_as_a_recording_without_names_of_times_is_said(tmp_path, said):
    record(tmp_path, "x/a.wav", "y/b.wav")
    (tmp_path / "a.csv").write_text("TIME,VALUE,LABEL\n0.5,1,song\n")
    prepare(tmp_path)
    assert "a.csv is named as a recording, and none of its columns are called as times are" in said.text


def test_events_by_the_clock_alone_are_of_the_recording_of_that_time(tmp_path, said):
    """PAMGuard's annotations, logs of Triton."""
    record(tmp_path, "20240131_063000.wav", "20240131_063100.wav")
    rows = ["2024-01-31 06:30:01.500,0.5,Bm", "2024-01-31 06:31:02,1,Bp", "2024-01-31 06:30:30,1,Bp"]
    (tmp_path / "log.csv").write_text("\n".join(["UTC,Duration,Label", *rows]))
    assert events_of(prepare(tmp_path)) == [["20240131_063000", 1.5, 2.0, "Bm"], ["20240131_063100", 2.0, 3.0, "Bp"]]
    assert "1 of 3 events name no recording, and begin in none" in said.text
    record(tmp_path, "other/20240131_063000.wav")
    assert events_of(prepare(tmp_path)) == [["20240131_063100", 2.0, 3.0, "Bp"]]
    assert "2 of 3 events name no recording, and begin in none or in several" in said.text


EXAMPLES = "gy6or6_baseline_230312_0808.138.cbin.not.mat", "sa1.phn"  # of crowsetta


@pytest.fixture
def examples():
    crowsetta = pytest.importorskip("crowsetta")
    return [Path(crowsetta.__file__).parent / "examples" / name for name in EXAMPLES]


@pytest.mark.parametrize("name", ["s.wav.not.mat", "s.cbin.not.mat"])
def test_syllables_of_evsonganaly(tmp_path, examples, name):
    record(tmp_path, "s.wav", seconds=20)
    shutil.copy(examples[0], tmp_path / name)
    first = events_of(prepare(tmp_path))[0]
    assert [first[0], round(first[1], 6), round(first[2], 6), first[3]] == ["s", 1.277781, 1.351219, "i"]
    (tmp_path / name).write_bytes(b"MATLAB")
    with pytest.raises(ValueError, match="is no file that crowsetta can read"):
        prepare(tmp_path)


def test_phones_of_timit_count_samples(tmp_path, examples):
    """And the sentence beside them is no label."""
    record(tmp_path, "D/SA1.WAV", seconds=60)  # at 1 kHz
    shutil.copy(examples[1], tmp_path / "D" / "SA1.PHN")
    (tmp_path / "D" / "SA1.TXT").write_text("0 57140 She had your dark suit.\n")
    assert events_of(prepare(tmp_path))[:2] == [["D/SA1", 0.0, 7.812, "h#"], ["D/SA1", 7.812, 9.507, "sh"]]
    (tmp_path / "D" / "SA1.WAV").rename(tmp_path / "SA1.WAV")
    with pytest.raises(ValueError, match="no recording of its name lies beside it"):
        prepare(tmp_path)


def test_times_as_pandas_writes_their_differences(tmp_path):
    """audformat: file, start, end."""
    record(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text("file,start,end,emotion\na.wav,0 days,0 days 00:00:01.500000,happy\n")
    assert events_of(prepare(tmp_path)) == [["a", 0.0, 1.5, "happy"]]


def test_other_numbers_behind_a_name_are_no_times(tmp_path):
    """Song Scope: name, clock, duration, level, score, recognizer."""
    record(tmp_path, "a.wav", "b.wav")
    rows = ["a.wav,00:00:01.5,0.8,75.1,62.0,wren", "b.wav,00:00:03.5,0.8,75.1,62.0,robin"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    tables = prepare(tmp_path)
    assert tables.events is None
    assert tables.clips.labels.tolist() == ["wren", "robin"]


def test_a_table_called_clips_is_somebodys_own(tmp_path):
    """Vesper; ours lies beside a dataset.json."""
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "clips.csv").write_text("file,classification\na.wav,Call\nb.wav,Noise\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["Call", "Noise"]
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="nothing says"):
        prepare(tmp_path)


def test_numbers_that_are_named_as_no_recording_are_no_frames(tmp_path):
    record(tmp_path, "x/a.wav", "y/b.wav")
    (tmp_path / "index.csv").write_text("0,1,2,3,4\n1,1,2,3,4\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["x", "y"]

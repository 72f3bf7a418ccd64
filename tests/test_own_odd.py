"""Recordings of one's own as people have them: odd tables, odd names, a test among the training, merged annotations."""

import logging
import os
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from earshot.annotations.reading import kind_of, read_annotations
from earshot.competitions.mine import prepare
from earshot.competitions.tables import write_tables
from prepare import summary

NAMES = ("a.wav", "b.wav", "c.wav", "d.wav")
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n"


def record(folder, *names, seconds=0.5):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(round(seconds * 4000), 0.1, np.float32), 4000)


def labels_of(tables):
    return dict(zip(tables.clips.clip_id, tables.clips.labels, strict=True))


@pytest.fixture
def four(tmp_path):
    record(tmp_path, *NAMES)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_tables_in_any_encoding_and_separator(four, encoding, separator):
    rows = [("file", "species"), ("a.wav", "Grünspecht"), ("b.wav", "wren"), ("c.wav", "wren"), ("d.wav", "Grünspecht")]
    (four / "t.csv").write_bytes("\r\n".join(separator.join(row) for row in rows).encode(encoding))
    assert labels_of(prepare(four)) == {"a": "Grünspecht", "b": "wren", "c": "wren", "d": "Grünspecht"}


def test_labels_names_and_groups_that_look_like_numbers_stay_as_they_are(tmp_path):
    record(tmp_path, "001.wav", "1.wav", "2.wav")
    (tmp_path / "t.csv").write_text("recording,species,k,site\n001,01,1,7\n1,1,,\n2,NA,2,7\n")
    tables = prepare(tmp_path, group_column="site", fold_column="k")
    assert labels_of(tables) == {"001": "01", "1": "1", "2": "NA"}
    assert tables.clips.group.tolist() == ["7", "", "7"]
    assert tables.clips.official_fold.tolist() == [1, -1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.wav,wren,x\nb.wav,robin,y\n", r"which .*--label-column: column_2 \(wren\), column_3 \(x\)"),
        ("file,label,split\na.wav,x,train\nb.wav,y,tets\n", "train, val or test of recordings, and has tets"),
    ],
)
def test_tables_that_cannot_be_meant_are_errors(four, text, message):
    (four / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(four)


@pytest.mark.parametrize("text", ["file,label\na.wav,Sparrow, House\n", "foo,bar\n1,2\n", "file,label\n"])
def test_a_table_that_is_not_taken_is_named(four, text, caplog):
    caplog.set_level(logging.WARNING, "earshot")
    (four / "t.csv").write_text(text)
    with pytest.raises(ValueError, match="nothing says what"):
        prepare(four)
    assert "not the table of labels" in caplog.text
    assert "t.csv" in caplog.text


def test_words_of_splits_as_people_write_them(four):
    (four / "t.csv").write_text("file,label,split\na.wav,x,Train_set\nb.wav,y,test-set\nc.wav,x,Validation\nd.wav,x,\n")
    tables = prepare(four)
    assert tables.test_clips.clip_id.tolist() == ["b"]
    assert tables.clips.official_fold.tolist() == [-1, 0, -1]


def test_accents_in_one_part_or_two_are_one_class_and_one_name(tmp_path):
    two_parts = unicodedata.normalize("NFD", "café")
    record(tmp_path, f"{two_parts}.wav", "b.wav")
    (tmp_path / "t.csv").write_text(f"file,label\ncafé.wav,café\nb.wav,{two_parts}\n")
    tables = prepare(tmp_path)
    assert (tables.classes, tables.missing) == (["café"], ())


def test_recordings_of_the_test_do_not_train(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "earshot")
    record(tmp_path, "wren/a.wav", "robin/b.wav", "unknown/c.wav")
    tables = prepare(tmp_path, test=tmp_path / "unknown")
    assert tables.classes == ["robin", "wren"]
    assert tables.test_clips.clip_id.tolist() == ["c"]
    assert "1 recordings below" in caplog.text
    with pytest.raises(ValueError, match="nothing to train on"):
        prepare(tmp_path, test=tmp_path)


def test_raven_tables_that_were_put_together_lose_no_event(four):
    rows = ["1\tWaveform 1\t1\t0.1\t0.2\ta.wav\twren", "1\tSpectrogram 1\t1\t0.1\t0.2\ta.wav\twren",
            "1\tSpectrogram 1\t1\t0.1\t0.2\tb.wav\twren", '2\tSpectrogram 1\t1\t0.3\t0.4\tb.wav\t"5\\" tit',
            "3\tSpectrogram 1\t1\t0.3\t0.4\tc.wav\trobin"]  # fmt: skip
    (four / "all.txt").write_text(RAVEN + "\n".join(rows) + "\n")
    assert prepare(four).events.filename.tolist() == ["a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("all.txt", "a.wav\t0.1\t0.2\tdog\nb.wav\t0.1\t0.3\tdog\n"),  # DCASE without a header
        ("all.txt", "audio/a.wav\thome\t0.1\t0.2\tdog\naudio/b.wav\thome\t0.1\t0.3\tdog\n"),
        ("all.csv", "a.wav,0.1,0.2,dog\nb.wav,0.1,0.3,dog\n"),
        ("all.csv", "filename,onset,duration,label\na.wav,0.1,0.1,dog\nb.wav,0.1,0.2,dog\n"),
        ("all.tsv", "filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.2\tdog\nb.wav\t.1\t.3\tdog\nc.wav\t\t\t\n"),
    ],
)
def test_tables_of_events_of_many_kinds(four, name, text):
    (four / name).write_text(text)
    tables = prepare(four)
    np.testing.assert_allclose(tables.events[["onset", "offset"]], [[0.1, 0.2], [0.1, 0.3]])
    assert tables.clips.annotated.tolist() == [1, 1, int("c.wav" in text), 0]


def test_an_empty_track_is_silence_beside_others(four):
    (four / "a.txt").write_text("0,1\t0,2\tdog\n")
    (four / "b.txt").write_text("")
    tables = prepare(four)
    assert tables.clips.annotated.tolist() == [1, 1, 0, 0]
    assert tables.events[["onset", "offset"]].to_numpy().tolist() == [[0.1, 0.2]]


def test_annotations_of_other_recordings_name_them(four):
    (four / "all.csv").write_text("filename,onset,offset,label\nx.wav,0,1,dog\n")
    with pytest.raises(ValueError, match=r"1 recordings that .*all.csv name are not in .*: x.wav"):
        prepare(four)


def test_rows_of_events_with_too_many_cells_are_an_error(tmp_path):
    (tmp_path / "all.csv").write_text("filename,onset,offset,label\na.wav,0,1,Sparrow, House\n")
    with pytest.raises(ValueError, match="rows of more cells than its header"):
        read_annotations(tmp_path / "all.csv")


@pytest.mark.parametrize("name", ["a.TextGrid", "a.textgrid"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_textgrids_in_any_encoding(tmp_path, name, encoding):
    pytest.importorskip("crowsetta")
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
    text = head + '0\n2\n<exists>\n1\n"IntervalTier"\n"w"\n0\n2\n2\n0\n0.5\n""\n0.5\n2\n"é ""hi"""\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert kind_of(tmp_path / name) == "textgrid"
    assert read_annotations(tmp_path / name).events.event_label.tolist() == ['é "hi"']


def test_names_that_no_table_can_hold_are_an_error(tmp_path):
    record(tmp_path, "x/a.wav", "y/b.wav")
    os.rename(os.fsencode(tmp_path / "x/a.wav"), os.fsencode(tmp_path) + b"/x/Zaunk\xf6nig.wav")
    with pytest.raises(ValueError, match=r"1 recordings or folders have names that are no UTF-8.*Zaunk\\xf6nig"):
        write_tables(prepare(tmp_path), tmp_path / "out", "mine", tmp_path)
    assert not (tmp_path / "out").exists()


def test_folders_of_which_no_recording_is_taken_are_named(tmp_path, caplog):
    record(tmp_path, "all/wren/a.wav", "all/robin/b.wav", "all/to_predict/c.wav")
    for name in ("owl/a.gsm", "owl/b.gsm", "owl/c.g722", "notes/read.txt", ".git/x", "@eaDir/y"):
        (tmp_path / "all" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"x")
    (tmp_path / "all/lark").mkdir()
    assert prepare(tmp_path, test=tmp_path / "all/to_predict").classes == ["robin", "wren"]
    said = [line for line in caplog.messages if "no class" in line]
    bare = "lark (empty), notes (1 files: .txt), owl (3 files: .g722, .gsm)"
    assert said == [f"folders without a recording, which are no class: {bare}"]
    assert "2 such as a.gsm (a format that nothing here decodes, .gsm: convert it" in caplog.text


def test_a_class_that_one_split_lacks_is_a_class(tmp_path, caplog):
    record(tmp_path, "train/wren/a.wav", "train/robin/b.wav", "test/wren/c.wav")
    for name in ("robin", "owl"):
        (tmp_path / "test" / name).mkdir()
    assert prepare(tmp_path).classes == ["robin", "wren"]
    assert "which are no class: owl (empty)" in caplog.text


def test_a_table_in_the_folder_of_a_site_means_that_sites_recordings(tmp_path, caplog):
    sites, tables = tmp_path / "sites", tmp_path / "tables"
    record(sites, "pond/1.wav", "pond/2.wav", "ridge/1.wav", seconds=4)
    for place in (sites, tables):
        for site, label in (("pond", "wren"), ("ridge", "robin")):
            (place / site).mkdir(parents=True, exist_ok=True)
            (place / site / "all.txt").write_text(RAVEN + f"1\tx\t1\t0.5\t1\t1.wav\t{label}\n")
    expected = {"pond/1": "wren", "pond/2": "", "ridge/1": "robin"}
    assert labels_of(prepare(sites)) == expected  # beside the recordings
    assert "in one folder (2 of them): --group-column folder" in caplog.text
    for path in sites.rglob("*.txt"):
        path.unlink()
    assert labels_of(prepare(sites, annotations=tables)) == expected  # in folders as theirs
    (sites / "all.txt").write_text(RAVEN + "1\tx\t1\t0.5\t1\t1.wav\twren\n")
    with pytest.raises(ValueError, match="names '1.wav', which 2 recordings are called"):
        prepare(sites)


def test_labels_of_which_nobody_was_sure_are_unknown_and_not_absent(tmp_path, caplog):
    record(tmp_path, "a.wav", "b.wav", "c.wav", seconds=4)
    (tmp_path / "b.txt").write_text("0.5\t1\twren?\n2\t3\trobin\n1\t2\towl?\n")
    (tmp_path / "c.txt").write_text("")
    raven = RAVEN.replace("Species", "Species\tCertainty")
    (tmp_path / "a.Table.1.selections.txt").write_text(
        raven + "1\tx\t1\t0.5\t1\ta.wav\twren\thigh\n2\tx\t1\t2\t3\ta.wav\trobin\tLow\n"
    )
    tables = prepare(tmp_path)
    assert labels_of(tables) == {"a": "robin wren", "b": "robin", "c": ""}
    assert tables.clips.unknown_labels.tolist() == ["", "wren", ""]
    assert tables.events.event_label.tolist() == ["wren", "robin", "robin"]
    assert tables.classes == ["robin", "wren"]
    for said in ("rows say how sure they are ('high' 1, 'Low' 1)", "question mark", "nobody was sure of any owl"):
        assert said in caplog.text
    tables = prepare(tmp_path, unsure="low")
    assert tables.clips.unknown_labels.tolist() == ["robin", "wren", ""]
    assert tables.clips.annotated.tolist() == [1, 1, 1]
    assert tables.events.event_label.tolist() == ["wren", "robin"]
    with pytest.raises(ValueError, match="no row of .* is 'lwo'; there are: high, Low"):
        prepare(tmp_path, unsure="lwo")


@pytest.mark.parametrize("mark", ["crow?", "crow ??", "crow (?)", "crow [ ? ]", "?crow", "(?) crow", "? crow?"])
def test_a_question_mark_beside_a_label_is_a_doubt(tmp_path, mark):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "t.csv").write_text(f"file,label\na.wav,wren\nb.wav,{mark}\nc.wav,crow\n")
    tables = prepare(tmp_path)
    assert tables.classes == ["crow", "wren"]
    assert labels_of(tables) == {"a": "wren", "b": "", "c": "crow"}
    assert tables.clips.unknown_labels.tolist() == ["", "crow", ""]


def test_a_doubted_recording_is_not_called_silent(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    for name, text in (("a", "0.1\t0.5\twren\n"), ("b", "0.1\t0.5\twren?\n"), ("c", "")):
        (tmp_path / f"{name}.txt").write_text(text)
    tables = prepare(tmp_path)
    tables = replace(tables, clips=tables.clips.assign(duration=1.0, sample_rate=8000))
    assert "without a label: 2 clips, 1 of them silence" in summary(tables, "mine")


def test_doubts_of_whole_recordings_are_unknown_too(four):
    (four / "t.csv").write_text("file,label,certainty\na.wav,wren,2\nb.wav,wren,1\nc.wav,robin,2\nd.wav,robin?,2\n")
    tables = prepare(four, unsure="1")
    assert labels_of(tables) == {"a": "wren", "b": "", "c": "robin", "d": ""}
    assert tables.clips.unknown_labels.tolist() == ["", "wren", "", "robin"]
    (four / "t.csv").write_text("file,label\na.wav,wren\nb.wav,wren\n")
    with pytest.raises(ValueError, match="--unsure low: .* has no column such as certainty"):
        prepare(four, unsure="low")

"""Annotation files of other programs: read as crowsetta, a second implementation, reads its own real examples."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from earshot.annotations.reading import kind_of, read_annotations

FOUND = importlib.util.find_spec("crowsetta")
if FOUND is None:
    pytest.skip("crowsetta is not installed", allow_module_level=True)
EXAMPLES = Path(FOUND.origin).parent / "examples"


@pytest.fixture
def crowsetta():
    """Imported where it is used: half a second that only the process of these tests needs."""
    return importlib.import_module("crowsetta")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Recording_1_Segment_02.Table.1.selections.txt", "raven"),
        ("405_marron1_June_14_2016_69640887.audacity.txt", "audacity"),
        ("spinetail.txt", "audacity"),
        ("AVO-maea-basic.TextGrid", "textgrid"),
        ("bird1.csv", "table"),
        ("bl26lb16_190412_0721.20144_annotations.csv", "table"),
        ("bird1.txt", ""),
        ("Annotation.xml", ""),
        ("sa1.phn", "timit"),
    ],
)
def test_kinds_of_real_files(name, kind):
    assert kind_of(EXAMPLES / name) == kind


def test_a_real_raven_table_as_crowsetta_reads_it(crowsetta):
    path = EXAMPLES / "Recording_1_Segment_02.Table.1.selections.txt"
    other = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species").df
    ours = read_annotations(path)
    assert ours.label_column == "Species"
    np.testing.assert_allclose(ours.events.onset, other.begin_time_s)
    np.testing.assert_allclose(ours.events.offset, other.end_time_s)
    assert ours.events.event_label.tolist() == other.annotation.tolist()


def test_a_real_audacity_track_as_crowsetta_reads_it(crowsetta):
    path = EXAMPLES / "405_marron1_June_14_2016_69640887.audacity.txt"
    other = crowsetta.formats.seq.AudSeq.from_file(path)
    ours = read_annotations(path).events
    np.testing.assert_allclose(ours.onset, other.start_times)
    np.testing.assert_allclose(ours.offset, other.end_times)
    assert ours.event_label.tolist() == list(other.labels)


def test_audacity_boxes_as_crowsetta_reads_them(crowsetta):
    other = crowsetta.formats.bbox.AudBBox.from_file(EXAMPLES / "spinetail.txt").df
    ours = read_annotations(EXAMPLES / "spinetail.txt").events
    np.testing.assert_allclose(ours.onset, other.begin_time_s)
    assert ours.event_label.tolist() == other.label.tolist()


def test_a_textgrid_of_several_tiers_asks_which(tmp_path):
    path = EXAMPLES / "AVO-maea-basic.TextGrid"
    with pytest.raises(ValueError, match=r"2 tiers of intervals, Samoan, Gloss: say which .* --tier"):
        read_annotations(path)
    assert read_annotations(path, tier="Gloss").events.event_label[:2].tolist() == ["PRES", "Sione"]
    (tmp_path / "broken.TextGrid").write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="broken.TextGrid"):
        read_annotations(tmp_path / "broken.TextGrid", tier="Gloss")


def test_raven_takes_each_selection_once_and_times_from_the_file(tmp_path):
    table = tmp_path / "all.txt"
    table.write_text(
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tAnnotation\n"
        "1\tWaveform 1\t1\t61.0\t62.5\tb.wav\t1.0\twren\n"
        "1\tSpectrogram 1\t1\t61.0\t62.5\tb.wav\t1.0\twren\n"
        "2\tSpectrogram 1\t1\t2.0\t2.5\ta.wav\t2.0\trobin\n"
    )
    events = read_annotations(table).events
    assert events.values.tolist() == [["b.wav", 1.0, 2.5, "wren"], ["a.wav", 2.0, 2.5, "robin"]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("filename\tonset\toffset\tevent_label\nx.wav\t0\t1,5\tdog\n", [["x.wav", 0, 1.5, "dog"]]),
        ("Start (s),End (s),Scientific name,Common name,Confidence,File\n0,3,Turdus merula,Blackbird,0.9,d/x.wav\n",
         [["d/x.wav", 0, 3, "Blackbird", 0.9]]),
        ("start;end;label\n0:01:02.5;62.75;wren\n", [["", 62.5, 62.75, "wren"]]),
        ("id,file,start,end,wren,robin\n7,x.wav,0,5,1,0\n8,x.wav,5,10,0,0\n9,y.wav,0,5,1,1\n",
         [["x.wav", 0, 5, "wren"], ["y.wav", 0, 5, "wren"], ["y.wav", 0, 5, "robin"]]),
        ("file,start,end,species,wren,robin\nx.wav,0,5,owl,1,0\ny.wav,0,5,owl,0,1\n",
         [["x.wav", 0, 5, "owl"], ["y.wav", 0, 5, "owl"]]),
        ("file,start_time,end_time,gibbon\nx.wav,0,5,1\nx.wav,5,10,0\n", [["x.wav", 0, 5, "gibbon"]]),
        ("start,end,wren,robin,fold\n0,5,1,0,3\n", [["", 0, 5, "wren"]]),  # one recording: no column varies
        ("start,end,wren,robin\n", []),
        ("start;end;species;wren;robin\n0;5;;y;NA\n5;6;;-;y\n", [["", 0, 5, "wren"], ["", 5, 6, "robin"]]),
        ("Selection\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\twren\trobin\n1\t0\t5\t0\t1\t1\n",
         [["", 0, 5, "wren"], ["", 0, 5, "robin"]]),
    ],
)  # fmt: skip
def test_tables_by_their_columns(tmp_path, text, rows):
    (tmp_path / "t.csv").write_text(text)
    assert read_annotations(tmp_path / "t.csv").events.values.tolist() == rows


def test_a_recording_in_which_no_class_is_heard_is_silent(tmp_path):
    (tmp_path / "t.csv").write_text("file,start,end,wren,robin\nx.wav,0,5,1,0\ny.wav,0,5,0,1\nz.wav,0,5,,\n")
    found = read_annotations(tmp_path / "t.csv")
    assert found.silent == ("z.wav",)
    assert list(found.events.filename) == ["x.wav", "y.wav"]


@pytest.mark.parametrize(
    ("given", "rows"),
    [("wren,robin", [[0, 5, "wren"], [5, 10, "robin"]]), ("checked", [[0, 5, "checked"], [5, 10, "checked"]]),
     ("label", [[0, 5, "1"], [5, 10, "0"]])],
)  # fmt: skip
def test_columns_that_are_named_are_classes_where_they_are_not_called_labels(tmp_path, given, rows):
    (tmp_path / "t.csv").write_text("start,end,wren,robin,checked,label\n0,5,1,0,1,1\n5,10,0,1,1,0\n")
    found = read_annotations(tmp_path / "t.csv", given)
    assert found.events.drop(columns="filename").values.tolist() == rows


def test_columns_of_counts_are_no_classes_and_that_is_said(tmp_path, caplog):
    (tmp_path / "t.csv").write_text("start,end,wren,robin,owl\n0,5,1,0,2\n5,10,0,1,0\n")
    assert list(read_annotations(tmp_path / "t.csv").events.event_label) == ["wren", "robin"]
    assert "'owl' (2); write 1 where one is heard" in caplog.text
    for given, message in (("wren,owl", "each is a class.*'owl' holds others: 0, 2"), ("wren,rbin", "mean 'robin'")):
        with pytest.raises(ValueError, match=message):
            read_annotations(tmp_path / "t.csv", given)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "onset,offset\n1,2\n", "no column has a name that labels have"),
        ("t.csv", "onset,offset,label\none,2,wren\n", "1 of 1 times are no seconds: 'one'"),
        ("t.csv", "onset,offset,wren\n1,2,3\n2,3,0\n", r"'wren' \(3\) hold other numbers .*write 1 where one is heard"),
        ("t.csv", "onset,offset,wren,wren\n1,2,1,0\n2,3,0,1\n", "has two columns 'wren', both of 0 and 1"),
        ("t.csv", "onset,offset,wren,robin,\n1,2,1,0,0\n2,3,0,1,1\n", "column 5 holds 0 and 1 .* has no name"),
        ("t.csv", "a,b\n1,2\n", "is no annotation file"),
        ("t.txt", "0.1\t0.2\twren\nrobin\n", "label 2 is"),
    ],
)
def test_what_it_cannot_mean_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(tmp_path / name)
    assert name in str(error.value)

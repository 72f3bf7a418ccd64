"""Columns that say more of a row than its label: present, how many, judged right or wrong; times in two columns."""

import pytest

from earshot.annotations.reading import read_annotations
from earshot.competitions.mine import prepare
from own_folders import record


@pytest.fixture
def three(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    return tmp_path


@pytest.mark.parametrize(
    ("column", "cells", "annotated"),
    [("present", "101", "1"), ("Count", "203", "1"), ("is_negative", "010", None), ("correct", "yny", None),
     ("tp", ("1", "0", ""), None), ("verification", ("positive", "negative", "unknown"), None)],
)  # fmt: skip
def test_rows_of_a_class_that_is_not_there(three, said, column, cells, annotated):
    rows = [f"{n}.wav,{x},{c}" for n, x, c in zip("abc", ("wren", "wren", "robin"), cells, strict=True)]
    (three / "t.csv").write_text("\n".join([f"file,species,{column}", *rows]) + "\n")
    clips = prepare(three, label_column="species").clips
    assert clips.labels.tolist() == ["wren", "", "robin"]
    assert (clips.annotated[1] if "annotated" in clips else None) == annotated
    assert f"1 rows say that a class was not there ({column})" in said.text
    timed = [row.replace(".wav,", ".wav,0,1,") for row in rows]
    (three / "t.csv").write_text("\n".join([f"file,start,end,species,{column}", *timed]) + "\n")
    assert prepare(three).events.event_label.tolist() == ["wren", "robin"]


def test_a_count_beside_columns_of_classes_is_of_none_of_them(three):
    (three / "t.csv").write_text("file,rain,wind,birds,count\na,1,0,x,0\nb,0,1,,3\nc,1,1,,0\n")
    assert prepare(three, label_column="rain,wind").clips.labels.tolist() == ["rain", "wind", "rain wind"]
    (three / "t.csv").write_text("file,start,end,rain,wind,count\na,0,1,1,0,0\nb,0,1,0,1,3\nc,0,1,1,1,0\n")
    assert prepare(three).events.event_label.tolist() == ["rain", "wind", "rain", "wind"]


def test_a_column_that_says_that_nobody_looked_yet_refuses_nothing(three):
    (three / "t.csv").write_text("file,species,validated\na,wren,0\nb,wren,1\nc,robin,0\n")
    assert prepare(three, label_column="species").clips.labels.tolist() == ["wren", "wren", "robin"]


def test_counts_beside_classes_are_said_and_no_silence(three, said):
    (three / "t.csv").write_text("file,wren,robin,owl\na,1,0,2\nb,0,1,0\nc,0,0,1\n")
    clips = prepare(three).clips
    assert clips.labels.tolist() == ["wren", "robin", ""]
    assert "annotated" not in clips, "the owl of c is no class, and c is not silent"
    assert "columns of other numbers than 0 and 1: owl; write 1 where one is heard" in said.text


@pytest.mark.parametrize(
    ("header", "row", "times"),
    [
        ("start_min,start_sec,end_min,end_sec", "1,2.5,1,4", [62.5, 64]),
        ("Start (h),Start (min),Start (s),End (h),End (min),End (s)", "1,0,30,1,1,0", [3630, 3660]),
        ("start_min,start_s,end_min,end_s", "1.5,90,2,120", [90, 120]),  # the same in two units
        ("start_ms,start_s,end_ms,end_s", "500,0.5,1500,1.5", [0.5, 1.5]),
        ("start,end,start_hour", "1,2,5", [1, 2]),  # of the day
        ("start_sec,start_min,end_min,end_sec", "2.5,1,1,4", [62.5, 64]),
    ],
)
def test_times_in_several_columns(tmp_path, header, row, times):
    (tmp_path / "t.csv").write_text(f"file,{header},label\nx.wav,{row},a\n")
    assert read_annotations(tmp_path / "t.csv").events[["onset", "offset"]].values.tolist() == [times]


@pytest.mark.parametrize(("column", "said"), [("Q", True), ("Crow", False)])
def test_the_sound_that_a_few_shot_table_asks_for_is_said_to_be_one_class(tmp_path, caplog, column, said):
    path = tmp_path / "a.csv"
    path.write_text(f"Audiofilename,Starttime,Endtime,{column}\na.wav,0.5,0.7,POS\na.wav,1.5,1.7,UNK\n")
    read_annotations(path)
    assert ("a.csv: Q is the sound asked for in this recording" in caplog.text) == said

"""Tables of one's own recordings as spreadsheets, annotation programs and web pages write them."""

import json
from functools import partial

import pytest

from earshot.annotations.reading import read_annotations
from earshot.competitions.mine import prepare
from earshot.tables import read_table
from own_folders import record as record_of

record = partial(record_of, seconds=1.0)
FOUR = ("r1.wav", "r2.wav", "r3.wav", "r4.wav")
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n"


def labels_of(folder, **options):
    tables = prepare(folder, **options)
    return dict(zip(tables.clips.clip_id, tables.clips.labels, strict=True))


def events_of(folder, **options):
    events = prepare(folder, **options).events
    return events[["filename", "onset", "offset", "event_label"]].values.tolist()


@pytest.fixture
def four(tmp_path):
    record(tmp_path, *FOUR)
    return tmp_path


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        ("file,wren,Song thrush", ["1,0", "0,1", "1,1", "0,0"], ["wren", "Song_thrush", "Song_thrush wren", ""]),
        ("file,wren,robin", ["1.0,", ",1", "TRUE,x", "no,0"], ["wren", "robin", "robin wren", ""]),
        ("file,label1,label_2", ["wren,robin", "wren,", "robin,", ","], ["robin wren", "wren", "robin", ""]),
        ("file,labels", ["wren robin", "wren", "robin", "robin wren"], ["robin wren", "wren", "robin", "robin wren"]),
        ("file,labels", ["red fox", "fox", "dog", "red fox"], ["red_fox", "fox", "dog", "red_fox"]),
        ("file,species", ["0.0", "1", "1.0", "0"], ["0", "1", "1", "0"]),
        ("file,species", ["0.5", "1", "1.0", "0.5"], ["0.5", "1", "1.0", "0.5"]),
        ("file,species", ["wren\u200b", "wren", "\ufeffrobin", "robin"], ["wren", "wren", "robin", "robin"]),
        ("file,species,,", ["a,,", "b,,", "a,,", "b,,\n,,,\n,,,"], ["a", "b", "a", "b"]),
    ],
)
def test_labels_in_any_columns(four, header, rows, expected):
    lines = [f"{name},{row}" for name, row in zip(FOUR, rows, strict=True)]
    (four / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    assert list(labels_of(four).values()) == expected
    assert not prepare(four).missing


def test_label_columns_that_are_named(four, said):
    (four / "t.csv").write_text("file,is_wren,is_robin,k\nr1.wav,1,0,a\nr2.wav,0,1,b\nr3.wav,1,1,a\nr4.wav,0,1,b\n")
    assert labels_of(four, label_column="is_wren, is_robin")["r3"] == "is_robin is_wren"
    assert labels_of(four)["r3"] == "a", "what is called is_... is no class unless it is named"
    with pytest.raises(ValueError, match="no column 'is_wrem'; did you mean 'is_wren'"):
        prepare(four, label_column="is_wrem,is_robin")
    (four / "t.csv").write_text("file,label\nr1.wav,NA\nr2.wav,wren\nr3.wav,NA\nr4.wav,wren\n")
    assert labels_of(four)["r1"] == "NA"
    assert "taken as classes are 'NA' (2)" in said.text


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (("001.wav", "002.wav", "010.wav"), ("1", "2", "10")),
        (("1.wav", "2.wav", "10.wav"), ("1.0", "2.0", "10.0")),
        (("my song.wav", "b&c.wav", "Ä.wav"), ("my%20song.wav", "b%26c.wav", "%C3%84.wav")),
        (("my song.wav", "b.wav", "c.wav"), ("/data/upload/1/0f3c1a2b-my_song.wav", "12345678-b.wav", "c.wav")),
    ],
)
def test_names_as_other_programs_write_them(tmp_path, names, written, said):
    record(tmp_path, *names)
    rows = [f"{k},{name},{label}" for k, name, label in zip("111", written, ("x", "y", "x"), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["fold,recording,species", *rows]) + "\n")
    assert labels_of(tmp_path) == dict(zip((n[:-4] for n in names), ("x", "y", "x"), strict=True))
    assert "recordings as other programs do" in said.text


def test_a_number_that_several_recordings_have_is_none_of_them(tmp_path):
    record(tmp_path, "01.wav", "001.wav", "7.wav")
    (tmp_path / "t.csv").write_text("recording,species\n01,x\n1,y\n7,x\n")
    assert labels_of(tmp_path) == {"01": "x", "7": "x", "001": "y"}, "001 is the only one that is left"
    (tmp_path / "t.csv").write_text("recording,species\n1,y\n7,x\n7.0,x\n")
    assert prepare(tmp_path, path_column="recording").missing == (("1", "1"), ("7", "7.0"))


@pytest.mark.parametrize("text", [
    "sep=;\r\nfile;species\r\n{rows}", '"sep=;"\nfile;species\n{rows}', "file;remark, long;species\n{rows}",
    'file;species;"a, b, c"\n{rows}',
])  # fmt: skip
def test_what_separates_columns(four, text):
    order = text.split("\n")[-2].strip().split(";")
    cells = {"file": FOUR, "species": ("x", "y", "x", "y"), "remark, long": ("d, e", "", "f", "")}
    rows = [";".join(cells.get(column, ("",) * 4)[i] for column in order) for i in range(4)]
    (four / "t.csv").write_text(text.format(rows="\n".join(rows)) + "\n")
    assert list(labels_of(four).values()) == ["x", "y", "x", "y"]


def test_signs_in_a_header_that_separate_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("id,labels (a;b;c)\n1,x\n2,y;z\n")
    assert read_table(tmp_path / "t.csv", all_text=True).values.tolist() == [["1", "x"], ["2", "y;z"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Survey,,\nfile,note,species\nr1.wav,,x\nr2.wav,,y\nr3.wav,,x\nr4.wav,,y\n", "is the header further down"),
        ("file,label,label\nr1.wav,x,y\nr2.wav,x,y\n", "two columns 'label'"),
        ("file,species,split\nr1.wav,x,train\nr1.wav,y,test\nr2.wav,x,train\n", "'split': r1.wav is test and train"),
        ("file,start_sample,end_sample,label\nr1.wav,1,5,x\n", "'start_sample' counts samples"),
        ("file,start,end,label\nr1.wav,4000,8000,x\nr2.wav,0.1,0.2,x\n", "1 of 2 events begin after the end.*millisec"),
        (f"{RAVEN}1\tS\t1\t0.5\t0.6\tr1.wav\tx\n2\tS\t1\t0.7\t0.8\tr1.wav\tx\n3\tS\t1\t1.5\t1.6\tr2.wav\tx\n",
         "1 of 3 events.*File Offset"),
    ],
)  # fmt: skip
def test_tables_that_would_be_read_wrongly(four, text, message):
    (four / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(four)


def test_a_table_of_cut_clips_is_no_table_of_events(four):
    """Clips of a second cut out of longer recordings, with their start in those."""
    rows = [f"{name},x,{start},1.0" for name, start in zip(FOUR, (0, 0.5, 12.8, 0), strict=True)]
    (four / "t.csv").write_text("\n".join(["filename,label,start_s,duration_s", *rows]) + "\n")
    with pytest.raises(ValueError, match="2 of 4 events are as long as their .*, 1 of them after .*--table .*t.csv"):
        prepare(four)
    assert labels_of(four, table=four / "t.csv") == dict.fromkeys(("r1", "r2", "r3", "r4"), "x")


def test_windows_as_long_as_their_recordings_are_events(four):
    """As BirdNET has them: overlapping windows, of which the later reach behind the end."""
    rows = [f"{name},x,{start},1.0" for name in FOUR for start in (0, 0.5)]
    (four / "t.csv").write_text("\n".join(["filename,label,start_s,duration_s", *rows]) + "\n")
    assert len(events_of(four)) == 8


def test_recordings_of_several_rows_are_named(four, said):
    (four / "t.csv").write_text("file,species\nr1.wav,x\nr1.wav,x\nr2.wav,y\nr3.wav,x\nr4.wav,y\nr4.wav,x\n")
    assert labels_of(four)["r4"] == "x y"
    assert "2 recordings in several rows: their labels are put together: r4.wav (x, y), r1.wav (x)" in said.text


def test_few_rows_that_differ_make_no_problem_of_several_labels(tmp_path, said):
    """One contradictory row of a table of one label a recording is named; where many differ they hold several."""
    names = [f"r{i}.wav" for i in range(10)]
    record(tmp_path, *names)
    rows = [f"{name},{'xy'[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["file,species", *rows, "r4.wav,y", "r5.wav,Y"]) + "\n")
    with pytest.raises(ValueError, match=r"rows of 1 of 10 recordings .* r4.wav is x and y\. Correct"):
        prepare(tmp_path)
    assert labels_of(tmp_path, several_labels="together")["r4"] == "x y"
    assert labels_of(tmp_path, several_labels="none")["r4"] == ""
    assert "rows of 1 recordings differ in their label, so that they have none: r4.wav" in said.text
    assert "r4.wav ()" not in said.text
    with pytest.raises(ValueError, match="--several-labels is 'all'; choose one of"):
        prepare(tmp_path, several_labels="all")
    (tmp_path / "t.csv").write_text("\n".join(["file,species", *rows, "r4.wav,y", "r6.wav,y"]) + "\n")
    assert labels_of(tmp_path)["r4"] == "x y", "a recording in five has two: that is how they are"
    (tmp_path / "t.csv").write_text("\n".join(["file,species", *rows[:9], "r9.wav,x;y", "r4.wav,y"]) + "\n")
    assert labels_of(tmp_path)["r4"] == "x y", "another one has two in its cell"
    found = labels_of(tmp_path, several_labels="none")
    assert [found[name] for name in ("r3", "r4", "r9")] == ["y", "", "x y"], "whose rows differ, not who has two"


@pytest.mark.parametrize(
    ("column", "cells", "labels"),
    [
        ("has_wren", "1010", ("wren", "no_wren", "wren", "no_wren")),
        ("wren", "x x ", ("wren", "no_wren", "wren", "no_wren")),
        ("wren", "10 0", ("wren", "no_wren", "", "no_wren")),
        ("label", "1010", tuple("1010")),
    ],
)
def test_a_lone_column_of_0_and_1_names_its_classes(four, said, column, cells, labels):
    rows = [f"{name},{cell.strip()}" for name, cell in zip(FOUR, cells, strict=True)]
    (four / "t.csv").write_text("\n".join([f"file,{column}", *rows]) + "\n")
    assert tuple(labels_of(four, label_column=column).values()) == labels
    assert ("words in their place, such as bird and no_bird" in said.text) == (column == "label")


def test_sources_in_a_lone_table_of_events_are_named(four, said):
    """As those of a table of labels are; not what differs within a recording, nor once it is given."""
    rows = [f"{n},0.1,0.2,x,{'ann' if n < 'r3' else 'bob'},{i}" for i, n in enumerate(FOUR)]
    rows += ["r1.wav,0.3,0.4,y,ann,9"]
    (four / "t.csv").write_text("\n".join(["filename,onset,offset,event_label,recordist,observer", *rows]) + "\n")
    assert len(events_of(four)) == 5
    assert "one 'recordist' (2 values): --group-column 'recordist'" in said.text
    assert "observer" not in said.text
    said.clear()
    assert prepare(four, group_column="recordist").clips.group.tolist() == ["ann", "ann", "bob", "bob"]
    assert "--group-column" not in said.text


def test_times_of_raven_that_may_run_on_are_said(four, said):
    (four / "t.txt").write_text(f"{RAVEN}1\tS\t1\t0.1\t0.2\tr1.wav\tx\n2\tS\t1\t0.5\t0.6\tr2.wav\tx\n")
    assert len(events_of(four)) == 2
    assert "times of r2.wav come after those of r1.wav" in said.text


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("file,Start Time (ms),End Time (ms),Species\nx.wav,500,1000,a\n", [["x.wav", 0.5, 1.0, "a"]]),
        ("file,start_ms,end_ms,label\nx.wav,500,1000,a\n", [["x.wav", 0.5, 1.0, "a"]]),
        ("file,start,duration_min,label\nx.wav,1,0.5,a\n", [["x.wav", 1, 31.0, "a"]]),
        ("Tier\tBegin Time - hh:mm:ss.ms\tBegin Time - ss.msec\tEnd Time - ss.msec\tAnnotation\n"
         "t\t00:01:00.500\t60.5\t61.0\ta\n", [["", 60.5, 61.0, "a"]]),
        ("Begin Time - msec\tEnd Time - msec\tAnnotation\n500\t1000\ta\n", [["", 0.5, 1.0, "a"]]),
        ("INDIR,FOLDER,IN FILE,OFFSET,DURATION,TOP1MATCH,MANUAL ID\nd,,x.wav,3,2,a,\n", [["x.wav", 3, 5, "a"]]),
        ("IN FILE,OFFSET,DURATION,TOP1MATCH,MANUAL ID\nx.wav,3,2,a,b\n", [["x.wav", 3, 5, "b"]]),
        ("Filename,Start Time (s),End Time (s),Species eBird Code\nx.wav,1,2,amerob\n", [["x.wav", 1, 2, "amerob"]]),
        ("filename,onset,offset,event_label\nx.wav,1,2,a\ny.wav,NA,NA,NA\n", [["x.wav", 1, 2, "a"]]),
        ("sep=;\nonset;offset;label\n0,5;1;a\n", [["", 0.5, 1, "a"]]),
    ],
)  # fmt: skip
def test_times_and_columns_of_many_programs(tmp_path, text, rows):
    (tmp_path / "t.csv").write_text(text)
    assert read_annotations(tmp_path / "t.csv").events.values.tolist() == rows


def test_several_labels_of_an_event_and_weak_labels_beside(four, said):
    (four / "strong.csv").write_text("filename,start,end,label\nr1.wav,0.1,0.2,a;b\nr2.wav,0.5,0.6,a\ngone.wav,0,1,a\n")
    assert events_of(four)[:2] == [["r1", 0.1, 0.2, "a"], ["r1", 0.1, 0.2, "b"]]
    assert events_of(four, label_separator="none")[0] == ["r1", 0.1, 0.2, "a;b"]
    (four / "weak.csv").write_text("file,tags,site\nr1.wav,c,x\nr3.wav,b,y\nlost.wav,b,y\n")
    tables = prepare(four, label_column="tags")
    assert tables.clips[["labels", "annotated"]].values.tolist() == [["a b", 1], ["a", 1], ["b", 0], ["", 0]]
    assert [name for name, _ in tables.missing] == ["gone", "lost"]
    assert prepare(four).clips.labels.tolist() == ["a b", "a", "", ""]


def test_a_table_whose_times_are_of_something_else(four):
    rows = [f"{name},100,103.5,{label}" for name, label in zip(FOUR, "xyxy", strict=True)]
    (four / "UrbanSound.csv").write_text("\n".join(["slice_file_name,start,end,class", *rows]) + "\n")
    with pytest.raises(ValueError, match="no times in the recordings is given as --table"):
        prepare(four)
    assert list(labels_of(four, table=four / "UrbanSound.csv").values()) == ["x", "y", "x", "y"]


def test_secondary_labels_are_names_that_training_reads(four, said):
    (four / "t.csv").write_text(
        "file,primary_label,secondary_labels\nr1.wav,a,\"['b', 'owl']\"\nr2.wav,a,[]\nr3.wav,b,[]\nr4.wav,b,['a']\n"
    )
    assert prepare(four).clips.secondary_labels.tolist() == ["b", "", "", "a"]
    assert "secondary labels that are no recording's label are left out: owl" in said.text


def region(start, end, *labels):
    return {"start": start, "end": end, "channel": 0, "labels": list(labels)}


def test_exports_of_label_studio(four, said):
    def task(name, *values, **more):
        result = [{"type": "labels", "value": value} for value in values]
        annotation = {"was_cancelled": False, "result": result} | more
        return {"id": 1, "data": {"audio": f"/data/upload/1/0f3c1a2b-{name}"}, "annotations": [annotation]}

    tasks = [task("r1.wav", region(0.1, 0.2, "a", "b")), task("r2.wav"),
             task("r3.wav", region(0.1, 0.2, "c"), was_cancelled=True)]  # fmt: skip
    (four / "export.json").write_text(json.dumps(tasks))
    expected = [["r1", 0.1, 0.2, "a"], ["r1", 0.1, 0.2, "b"]]
    assert events_of(four) == expected
    assert prepare(four).clips.annotated.tolist() == [1, 1, 0, 0], "nobody said anything of the others"
    (four / "export.json").write_text(json.dumps(
        [{"audio": "r1.wav", "id": 1, "label": [region(0.1, 0.2, "a", "b")]}, {"audio": "r2.wav", "label": []}]
    ))  # fmt: skip
    assert events_of(four) == expected
    (four / "export.json").unlink()
    cell = json.dumps([region(0.1, 0.2, "a", "b")]).replace('"', '""')
    (four / "export.csv").write_text(f'audio,id,label\nr1.wav,1,"{cell}"\nr2.wav,2,[]\nr4.wav,3,\n')
    assert events_of(four) == expected
    assert prepare(four).clips.annotated.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"data": {"audio": "r1.wav"}, "annotations": [', "export of Label Studio"),
        ('[3, {"annotations": []}]', "task 1 is no object"),
        (
            '[{"data": {}, "annotations": [{"result": [{"value": {"start": 0, "end": 1, "labels": ["a"]}}]}]}]',
            "names no",
        ),
        ('[{"data": {"audio": "r1.wav"}, "annotations": [{"result": [{"value": {"choices": ["a"]}}]}]}]', "as CSV"),
        ('[{"audio": "r1.wav", "label": [{"start": "x", "end": 1, "labels": ["a"]}]}]', "is no number"),
    ],
)
def test_exports_that_are_damaged(four, text, message):
    (four / "export.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(four)

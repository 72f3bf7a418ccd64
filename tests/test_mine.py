"""Recordings of one's own: labelled by folders, a table or annotation files, from a folder to tables."""

import logging

import numpy as np
import pandas as pd
import pytest
import soundfile

from earshot.competitions import get_competition
from earshot.competitions.mine import prepare
from earshot.prediction.predictions import Predictions

RATE = 4000


def record(folder, *names, seconds=1.0):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(round(seconds * RATE), 0.1, np.float32), RATE)


def labels_of(tables):
    return dict(zip(tables.clips.clip_id, tables.clips.labels, strict=True))


@pytest.fixture(autouse=True)
def say(caplog):
    caplog.set_level(logging.WARNING, "earshot")


def test_a_folder_a_class(tmp_path):
    record(tmp_path, "wren/a.wav", "wren/site 2/b.wav", "Song thrush/c.flac")
    tables = prepare(tmp_path)
    assert labels_of(tables) == {"wren/a": "wren", "wren/site 2/b": "wren", "Song thrush/c": "Song_thrush"}
    assert (tables.task, tables.competition, tables.classes) == ("tagging", "mine", ["Song_thrush", "wren"])


def test_folders_in_one_folder_and_a_split(tmp_path):
    record(tmp_path, "download/train/wren/a.wav", "download/train/robin/b.wav", "download/test/wren/c.wav")
    tables = prepare(tmp_path)
    assert sorted(tables.clips.labels) == ["robin", "wren"]
    assert tables.test_clips.labels.tolist() == tables.truth.labels.tolist() == ["wren"]


def test_a_folder_by_recordist_may_not_be_split(tmp_path):
    record(tmp_path, "wren/ann/a.wav", "wren/ann/b.wav", "robin/bob/c.wav")
    assert prepare(tmp_path, group_column="folder").clips.group.tolist() == ["robin/bob", "wren/ann", "wren/ann"]


def test_a_session_in_the_folders_of_several_classes_may_not_be_split(tmp_path, caplog):
    record(tmp_path, "train/wren/s1/x/a.wav", "train/robin/s1/b.wav", "train/robin/s2/c.wav", "train/robin/d.wav")
    assert prepare(tmp_path, group_column="subfolder").clips.group.tolist() == ["", "s1", "s2", "s1"]
    assert not caplog.text.count("folds may part")
    prepare(tmp_path)
    assert "folds may part the recordings of one 'subfolder' (2 values): --group-column 'subfolder'" in caplog.text
    record(tmp_path / "flat", "wren/a.wav", "robin/b.wav")
    with pytest.raises(ValueError, match=r"folders below those of their classes, as in wren/session1/a\.wav; here are"):
        prepare(tmp_path / "flat", group_column="subfolder")


def test_folders_or_a_column_of_train_and_test_are_no_sessions_but_a_split(tmp_path, caplog):
    """Anomalous machines have them below each machine."""
    names = ["fan/train/a.wav", "fan/train/b.wav", "fan/test/c.wav", "pump/train/d.wav", "pump/test/e.wav"]
    record(tmp_path, *names)
    prepare(tmp_path)
    assert "no split is made of 'subfolder', which says test, train: --split-column 'subfolder'" in caplog.text
    assert "folds may part" not in caplog.text
    assert len(prepare(tmp_path, split_column="subfolder").test_clips) == 2
    rows = [f"{name},{name[:3]},Train set" if "train" in name else f"{name},{name[:3]},Test set" for name in names]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,recording_name", *rows]))
    prepare(tmp_path)
    assert "no split is made of 'recording_name', which says Test set, Train set: " in caplog.text
    assert "folds may part" not in caplog.text


@pytest.mark.parametrize("given", [{}, {"table": "notes.csv"}])
def test_a_table_of_events_may_say_groups_too(tmp_path, given):
    """Given as the table of recordings besides, its events stay events."""
    record(tmp_path, "a.wav", "b.wav")
    notes = tmp_path / "notes.csv"
    notes.write_text("filename,onset,offset,label,bird\na,0.1,0.2,x,ann\nb,0.1,0.2,y,bob\na,0.3,0.4,y,ann\n")
    given = {name: tmp_path / file for name, file in given.items()}
    tables = prepare(tmp_path, annotations=notes, group_column="bird", **given)
    assert tables.clips.group.tolist() == ["ann", "bob"]
    assert tables.clips.labels.tolist() == ["x y", "y"]
    assert len(tables.events) == 3
    assert "onset" not in tables.clips
    notes.write_text(notes.read_text().replace("y,ann", "y,bob"))
    with pytest.raises(ValueError, match="rows of one recording differ in 'bird': a.wav is ann and bob"):
        prepare(tmp_path, annotations=notes, group_column="bird", **given)


def test_rows_of_one_recording_may_differ_in_spaces_alone(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = ["a,x,ann", "b,x,bob", "c,y,dan", "a,y, ann ", "b,y,bob", "b,z,bob"]

    def prepared():
        (tmp_path / "labels.csv").write_text("\n".join(["file,label,bird", *rows]) + "\n")
        return prepare(tmp_path, group_column="bird").clips

    clips = prepared()
    assert clips.group.tolist() == ["ann", "bob", "dan"]
    assert clips.labels.tolist() == ["x y", "x y z", "y"]
    rows += ["c,x,cid", "b,y,eve", "b,y,abe"]
    with pytest.raises(ValueError, match=r"'bird': b.wav is abe and bob and eve \(and 1 more\); a recording can be"):
        prepared()


def test_a_column_of_recordists_is_offered_for_folds(tmp_path, caplog):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "info.csv").write_text(
        "file,species,Recordist,serial,site id,long_recording\na,wren,ann,1,x,r\nb,robin,ann,2,y,r\nc,wren,bob,3,z,s\n"
    )
    prepare(tmp_path)
    assert "one 'Recordist' (2 values): --group-column 'Recordist' keeps them together" in caplog.text
    assert "one 'long_recording' (2 values)" in caplog.text, "clips that were cut out of it"
    assert caplog.text.count("--group-column") == 2, "a column whose values are all different groups nothing"
    caplog.clear()
    prepare(tmp_path, group_column="Recordist")
    assert "'Recordist'" not in caplog.text


def test_a_table_whose_columns_are_guessed_and_said(tmp_path, caplog):
    record(tmp_path, "rec/a.wav", "rec/b.wav", "rec/c.wav", "rec/d.wav")
    (tmp_path / "info.csv").write_text(
        "recorder;file;species;day\n1;A.WAV;wren|robin;3\n1;b;wren;4\n2;rec/c.wav;robin;5\n2;gone.wav;robin;5\n"
    )
    tables = prepare(tmp_path, group_column="recorder")
    assert labels_of(tables) == {"rec/a": "robin wren", "rec/b": "wren", "rec/c": "robin", "rec/d": ""}
    assert tables.missing == (("gone", "gone.wav"),)
    assert tables.clips.group.astype(str).str[:1].tolist()[:3] == ["1", "1", "2"]
    for told in ("recordings by 'file'", "labels by 'species'", "separated by '|'", "1 recordings are not in"):
        assert told in caplog.text


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["House, sparrow", "Tree, sparrow"], ["House,_sparrow", "Tree,_sparrow"]),
        (["a,b", "a", "b"], ["a b", "a", "b"]),
        (
            ["Bark,Cricket", "Acoustic_guitar,Strum"],
            ["Bark Cricket", "Acoustic_guitar Strum"],
        ),  # as FSDKaggle2019 has them
        (["a, b", "a", "b, c"], ["a b", "a", "b c"]),
        (["['a', 'b']", "[]", "['b']"], ["a b", "", "b"]),
        (["a;b", "b;c", "nocall"], ["a b", "b c", ""]),
    ],
)
def test_separators_of_labels(tmp_path, cells, expected):
    record(tmp_path, *(f"r{i}.wav" for i in range(len(cells))))
    pd.DataFrame({"filename": [f"r{i}.wav" for i in range(len(cells))], "label": cells}).to_csv(
        tmp_path / "t.csv", index=False
    )
    assert prepare(tmp_path).clips.labels.tolist() == expected


def test_split_and_fold_columns(tmp_path):
    record(tmp_path, *(f"{i}.wav" for i in range(5)))
    pd.DataFrame({
        "filename": [f"{i}.wav" for i in range(5)], "label": list("ababa"), "fold": [2, 1, 2, 1, 1],
        "set": ["train", "train", "valid", "train", "test"],
    }).to_csv(tmp_path / "t.csv", index=False)  # fmt: skip
    tables = prepare(tmp_path, split_column="set")
    assert tables.clips.official_fold.tolist() == [-1, -1, 0, -1]
    assert tables.test_clips.clip_id.tolist() == ["4"]
    assert prepare(tmp_path, fold_column="fold").clips.official_fold.tolist() == [2, 1, 2, 1, 1]


def test_a_column_named_by_a_flag_is_not_guessed_to_hold_the_labels(tmp_path, caplog):
    record(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    (tmp_path / "labels.csv").write_text("file,digit,speaker\na.wav,1,ann\nb.wav,1,bob\nc.wav,2,ann\nd.wav,2,bob\n")
    with pytest.raises(ValueError, match=r"Say it with --label-column NAME.*\(columns: digit\)"):
        prepare(tmp_path, group_column="speaker")
    tables = prepare(tmp_path, group_column="speaker", label_column="digit")
    assert (tables.clips.labels.tolist(), tables.clips.group.tolist()) == (list("1122"), ["ann", "bob"] * 2)
    both = prepare(tmp_path, group_column="speaker", label_column="speaker")
    assert both.clips.labels.tolist() == both.clips.group.tolist() == ["ann", "bob"] * 2


def test_annotations_beside_the_recordings(tmp_path, caplog):
    record(tmp_path, "a.wav", "b.wav", "c.wav", seconds=3)
    (tmp_path / "a.Table.1.selections.txt").write_text(
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tSpecies\n"
        "1\tS\t1\t0.5\t1.0\twren\n2\tS\t1\t0.8\t1.5\twren\n"
    )
    (tmp_path / "b.txt").write_text("0.2\t0.4\tgreat tit\n1.0\t2.0\tnocall\n")
    tables = prepare(tmp_path)
    assert (tables.task, tables.competition) == ("sed", "mine_events")
    assert tables.events.values.tolist() == [
        ["a", 0.5, 1.0, "wren"], ["a", 0.8, 1.5, "wren"], ["b", 0.2, 0.4, "great_tit"],
    ]  # fmt: skip
    assert tables.clips.annotated.tolist() == [1, 1, 0]
    assert "1 events overlap an earlier one of their class: a (wren at 0.8 s)" in caplog.text
    assert "1 recordings have no annotation and no label: c.wav" in caplog.text


def test_one_table_of_events_and_one_of_recordings(tmp_path):
    record(tmp_path, "audio/a.wav", "audio/b.wav", "audio/t.wav")
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tdog\nt.wav\t0\t1\tcat\n")
    (tmp_path / "meta.csv").write_text("filename,site,split\na.wav,n,train\nb.wav,s,train\nt.wav,s,test\n")
    tables = prepare(tmp_path, group_column="site")
    assert tables.clips.group.tolist() == ["n", "s"]
    assert tables.classes == ["dog"]
    assert tables.truth.event_label.tolist() == ["cat"]
    assert not len(tables.test_events)  # no class of the training


def test_a_test_folder_without_labels(tmp_path):
    record(tmp_path / "train", "wren/a.wav", "robin/b.wav")
    record(tmp_path / "field", "x.wav")
    tables = prepare(tmp_path / "train", test=tmp_path / "field")
    assert tables.test_clips.path.tolist() == [str((tmp_path / "field" / "x.wav").resolve())]
    assert tables.test.clip_id.tolist() == ["x"]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "holds no recording"),
        ({"a.wav": None}, {}, "nothing says what the 1 recordings .* src/predict.py --run RUN --clips"),
        ({"a.wav": None, "a.csv": "filename,x\na.wav,1\n"}, {}, "which column holds the labels.*--label-column"),
        ({"a.wav": None, "a.csv": "filename,label\na.wav,1\n"}, {"label_column": "lable"}, "did you mean 'label'"),
        ({"a.wav": None, "a.csv": "filename,label\na.wav,1\n"}, {"path_column": "x"},
         "--path-column: .* no column 'x'"),
        ({"a.wav": None, "a.csv": "filename,label\na.wav,1\n", "b.csv": "filename,label\na.wav,1\n"}, {},
         "2 tables name recordings .*--table"),
        ({"x/a.wav": None, "y/a.wav": None, "a.csv": "filename,label\na.wav,1\n"}, {}, "2 recordings are called"),
        ({"a.wav": None, "z.txt": "0\t1\twren\n"}, {}, "speak of no recording"),
        ({"a.wav": None, "a.csv": "filename,label,fold\na.wav,1,one\n"}, {"fold_column": "fold"}, "holds 'one'"),
        ({"a.wav": None, "a.csv": "filename,label,split\na.wav,1,test\n"}, {}, "nothing to train on"),
        ({"wren/a.wav": None, "robin/b.wav": None}, {"label_column": "species"},
         "--label-column species is of tables and annotations, and nothing in .* label by folders"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(tmp_path, files, options, message):
    for name, text in files.items():
        if text is None:
            record(tmp_path, name)
        else:
            (tmp_path / name).write_text(text)
    options = {"table": tmp_path / "a.csv", **options} if "path_column" in options else options
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, **options)


def test_rows_are_scored_by_their_mean_average_precision():
    competition, test = get_competition("mine"), pd.DataFrame({"clip_id": ["a", "b"]})
    found = Predictions(
        np.array(["b", "a"]), ("x", "y"), np.array([[0.9, 0.2], [0.1, 0.8]], np.float32), np.array([-1, -1]),
        np.array([False, False]),
    )  # fmt: skip
    rows = competition.rows(found, test)
    competition.validate(rows, test, ("x", "y"))
    assert rows.columns.tolist() == ["clip_id", "x", "y"]
    truth = pd.DataFrame({"clip_id": ["b", "a"], "labels": ["x", "y"]})
    assert competition.score(rows, truth) == {"map": 1.0, "accuracy": 1.0}
    assert competition.score(rows, truth.assign(labels=["y", "x"]))["accuracy"] == 0.0

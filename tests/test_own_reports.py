"""Folders and tables of one's own as people reported them of other tools."""

import pytest

from earshot.competitions.mine import prepare
from own_folders import record

SELECTIONS = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tTags\n1\tSpectrogram 1\t1\t1\t2\tcall\n"


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("a.txt", "0.5 1.25 siren\n2 3e0 dog bark\n", "siren"),  # scaper
        ("a.ann", "0.5\t1.25\tbird singing\n", "bird singing"),  # TUT Sound events
        ("a.ann", "audio/a.wav\tstreet\t0.5\t1.25\tcar\tm\ta\n", "car"),
        ("a.selections.txt", SELECTIONS, "call"),  # Koogu
        ("a_annotations.csv", "name,start_seconds,stop_seconds\nsine,0.5,0.8\n", "sine"),  # DAS
        ("a_Stats.csv", "ID,Label,Accepted,Begin Time (s),End Time (s)\n1,noise,0,0.1,0.2\n2,USV,1,0.5,0.6\n", "USV"),
        ("a - detections.csv", "onset,offset,label\n0.5,0.6,USV\n", "USV"),
    ],
)
def test_annotations_beside_a_recording_are_its_events(tmp_path, name, text, label):
    record(tmp_path, "audio/a.wav")
    (tmp_path / "audio" / name).write_text(text)
    events = prepare(tmp_path).events
    assert events.event_label[0] == label.replace(" ", "_")
    assert events.onset[0] in (0.5, 1.0)


def test_annotations_that_nothing_reads_are_named(tmp_path, said):
    record(tmp_path, "call/a.wav", "call/b.wav", "song/c.wav")
    (tmp_path / "call/a.rttm").write_text("SPEAKER a 1 0.5 1.2 <NA> <NA> CHI <NA> <NA>\n")
    (tmp_path / "call/b.txt").write_text("heard at noon\n")
    (tmp_path / "README.txt").write_text("recordings of mine\n")
    prepare(tmp_path)
    assert "not read, save them as CSV where they hold labels: call/a.rttm, call/b.txt\n" in said.text + "\n"


@pytest.mark.parametrize("flags", [{}, {"path_column": "video_id"}])
def test_the_column_that_names_recordings_may_have_any_name(tmp_path, flags):
    record(tmp_path, "P01.wav", "P02.wav")
    rows = "P01,00:00:01.000,00:00:02.500,24000,60000,rustle\nP02,00:00:03.000,00:00:03.500,72000,84000,metal\n"
    header = "video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,class\n"
    (tmp_path / "sounds.csv").write_text(header + rows)
    events = prepare(tmp_path, **flags).events
    assert events.filename.tolist() == ["P01", "P02"]
    assert events.offset.tolist() == [2.5, 3.5], "seconds, where a table has samples too"
    with pytest.raises(ValueError, match="--path-column: no annotation file has a column 'video'"):
        prepare(tmp_path, path_column="video")


def test_folders_that_are_no_class(tmp_path, said):
    record(tmp_path, *(f"audio/fold{i}/{i}.wav" for i in (1, 2, 10)))
    with pytest.raises(ValueError, match="the folders fold1, fold10, fold2 are folds, no classes"):
        prepare(tmp_path)
    (tmp_path / "meta.csv").write_text("slice,label,fold,fsID\n1.wav,dog,1,7\n2.wav,dog,2,7\n10.wav,siren,2,8\n")
    prepare(tmp_path, path_column="slice", label_column="label")
    assert "folds are made anew; --fold-column 'fold' takes the 2 of the table" in said.text
    assert "folds may part the recordings of one 'fsID' (2 values)" in said.text
    said.clear()
    kept = prepare(tmp_path, path_column="slice", label_column="label", fold_column="fold", group_column="fsID")
    assert kept.clips.official_fold.tolist() == [1, 2, 2]
    assert "made anew" not in said.text


def test_folders_of_several_classes(tmp_path, said):
    record(tmp_path, "robin/a.wav", "wren/b.wav", "robin,wren/c.wav", "-wren/d.wav", "tit,mouse/e.wav")
    labels = dict(prepare(tmp_path).clips[["clip_id", "labels"]].itertuples(index=False))
    assert labels["robin,wren/c"] == "robin wren"
    assert labels["tit,mouse/e"] == "tit,mouse", "neither is a folder"
    assert "folders '-wren' are classes of their own; where they are recordings without wren" in said.text
    assert "tit" in prepare(tmp_path, label_separator=",").classes
    assert "robin,wren" in prepare(tmp_path, label_separator="none").classes


def test_texts_that_list_recordings_are_splits(tmp_path, said):
    record(tmp_path, *(f"{c}/{c}{i}.wav" for c in ("yes", "no") for i in range(4)), "_noise_/white.wav")
    (tmp_path / "testing_list.txt").write_bytes(b"yes/yes0.wav\r\nno/no0.wav\r\n")
    (tmp_path / "validation_list.txt").write_text("yes/yes1.wav\nno/no1.wav\n")
    (tmp_path / "test_notes.txt").write_text("heard on a rainy day\n")
    tables = prepare(tmp_path)
    assert sorted(tables.test_clips.clip_id) == ["no/no0", "yes/yes0"]
    assert sorted(tables.clips.clip_id[tables.clips.official_fold == 0]) == ["no/no1", "yes/yes1"]
    assert "testing_list.txt: 2 recordings are in the split 'test'" in said.text
    assert "folders '_noise_' are classes as others are" in said.text
    (tmp_path / "validation_list.txt").write_text("yes/yes0.wav\n")
    with pytest.raises(ValueError, match=r"validation_list.txt lists recordings of another list too: yes/yes0.wav"):
        prepare(tmp_path)


def test_sessions_around_classes_are_turned_round(tmp_path, said):
    record(tmp_path, *(f"{day}/{bird}/{i}.wav" for day in ("am", "pm") for bird in ("robin", "wren") for i in range(2)))
    plain = prepare(tmp_path)
    assert sorted(plain.classes) == ["am", "pm"]
    assert (
        "each of the folders am, pm holds folders robin, wren: where those are the classes, say --label-column "
        in said.text
    )
    turned = prepare(tmp_path, label_column="subfolder", group_column="subfolder")
    assert sorted(turned.classes) == ["robin", "wren"]
    assert set(turned.clips.group) == {"am", "pm"}
    record(tmp_path, "am/loose.wav")
    with pytest.raises(ValueError, match="1 recording lies in no folder within a folder: am/loose.wav"):
        prepare(tmp_path, label_column="subfolder")

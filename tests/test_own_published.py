"""Annotations in the forms in which data sets are published, read as somebody's own."""

import json

import numpy as np
import pytest

from earshot.annotations.reading import kind_of, read_annotations
from earshot.competitions.mine import prepare
from own_folders import record

SOFT = "0.0\t1.0\tcutlery and dishes\t0.226\n0.0\t1.0\tfootsteps\t0.612\n"  # MAESTRO
NAMED = "0.0\t3.0\tTurdus merula, Eurasian Blackbird, 0.82\n3.0\t6.0\tCorvus corax, Northern Raven, 0.13\n"  # BirdNET
LUNGS = "0.036\t0.579\t0\t0\n0.579\t2.45\t1\t0\n2.45\t3.893\t1\t1\n"  # ICBHI: crackles, wheezes


@pytest.mark.parametrize(
    ("text", "labels", "sure"),
    [
        (SOFT, ["cutlery and dishes", "footsteps"], [0.226, 0.612]),
        (NAMED, ["Turdus merula, Eurasian Blackbird", "Corvus corax, Northern Raven"], [0.82, 0.13]),
        ("0\t1\tSparrow, House\n", ["Sparrow, House"], None),
        ("0\t1\tdog\t\n1\t2\n", ["dog\t", ""], None),
    ],
)
def test_a_confidence_behind_a_label_is_no_part_of_it(tmp_path, text, labels, sure):
    (tmp_path / "a.txt").write_text(text)
    events = read_annotations(tmp_path / "a.txt").events
    assert events.event_label.str.rstrip("\t").tolist() == [label.rstrip("\t") for label in labels]
    assert events.get("confidence", np.array(None)).tolist() == sure


def test_events_that_are_unsure_are_said_or_left_out(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.txt").write_text(SOFT)
    (tmp_path / "b.txt").write_text("0.0\t1.0\tfootsteps\t0.1\n")
    assert len(prepare(tmp_path).events) == 3
    assert "2 of 3 rows have a confidence below 0.5 (lowest 0.1), and count as heard" in said.text
    tables = prepare(tmp_path, min_confidence=0.5)
    assert tables.clips.labels.tolist() == ["footsteps", ""]
    assert tables.clips.annotated.tolist() == [1, 1], "silence, as far as anybody is sure"
    (tmp_path / "a.txt").write_text("0.0\t1.0\tfootsteps\n")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(ValueError, match="--min-confidence: .*a.txt has no column such as confidence"):
        prepare(tmp_path, min_confidence=0.5)


def test_rows_of_a_table_of_labels_that_are_unsure(tmp_path, said):
    """As OpenMIC has them: a row an instrument that people were asked for, most of them not heard."""
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text(
        "sample_key,instrument,relevance\na,flute,0.1\na,drums,0.9\nb,drums,0.0\nb,flute,0.2\n"
    )
    assert prepare(tmp_path, label_column="instrument").clips.labels.tolist() == ["drums flute", "flute"]
    assert "2 of 3 rows have a relevance below 0.5 (lowest 0.1), and count as heard" in said.text
    clips = prepare(tmp_path, label_column="instrument", min_confidence=0.5).clips
    assert clips.labels.tolist() == ["drums", ""]
    (tmp_path / "t.csv").write_text("file,label,score,site\na,flute,,x\na,drums,0.4,x\nb,drums,0.6,y\n")
    assert prepare(tmp_path, min_confidence=0.5).clips.labels.tolist() == ["flute", "drums"]
    (tmp_path / "t.csv").write_text("file,label,score,site\na,flute,1,x\na,drums,1,z\nb,drums,1,y\n")
    with pytest.raises(ValueError, match="rows of one recording differ in 'site': a.wav is x and z"):
        prepare(tmp_path, group_column="site")


def test_a_score_that_is_the_label_is_no_confidence(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("file,score\na,0\nb,1\n")
    assert prepare(tmp_path, label_column="score").clips.labels.tolist() == ["no_score", "score"]
    assert "below 0.5" not in said.text


def test_cells_of_a_table_of_labels_that_say_unk_are_told(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "t.csv").write_text("file,wren,robin\na,POS,NEG\nb,UNK,POS\nc,NEG,NEG\n")
    clips = prepare(tmp_path).clips
    assert clips.labels.tolist() == ["wren", "robin", ""]
    assert clips.unknown_labels.tolist() == ["", "wren", ""]
    assert "1 of 6 cells say UNK, nobody could tell: these classes are unknown in their recordings" in said.text


def test_a_column_without_a_word_says_of_no_event_that_it_was_absent(tmp_path):
    (tmp_path / "t.csv").write_text("filename,onset,offset,label,present\na.wav,0,1,wren,\n")
    assert len(read_annotations(tmp_path / "t.csv").events) == 1


def test_a_text_that_begins_with_numbers_is_no_track(tmp_path):
    (tmp_path / "notes.txt").write_text("2020 12 recordings of wrens\nby a lake\n")
    assert kind_of(tmp_path / "notes.txt") == ""
    (tmp_path / "notes.txt").write_text("0.5 1.2 wren\n\n2 3 great tit\n")
    assert kind_of(tmp_path / "notes.txt") == "audacity"


def test_columns_of_0_and_1_in_the_place_of_a_label_need_names(tmp_path):
    (tmp_path / "a.txt").write_text(LUNGS)
    with pytest.raises(ValueError, match=r"2 columns of numbers \(0, 0\) stand where .* --label-column NAME,NAME"):
        read_annotations(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="1 names are given"):
        read_annotations(tmp_path / "a.txt", "crackles")
    events = read_annotations(tmp_path / "a.txt", "crackles,wheezes").events
    assert events.event_label.tolist() == ["crackles", "crackles", "wheezes"]
    assert events.onset.tolist() == [0.579, 2.45, 2.45]
    (tmp_path / "a.txt").write_text("0\t1\tdog\t17\n")
    with pytest.raises(ValueError, match="behind the label 'dog' stands 17, no confidence"):
        read_annotations(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "rows", "told"),
    [
        ("Audiofilename,Starttime,Endtime,Q\na.wav,1,2,POS\na.wav,3,4,UNK\n",
         [["a.wav", 1, 2, "Q"], ["a.wav", 3, 4, "Q?"]], "1 of 2 cells"),
        ("Audiofilename,Starttime,Endtime,AMRE,OVEN\na.wav,1,2,UNK,NEG\na.wav,3,4,NEG,POS\n",
         [["a.wav", 1, 2, "AMRE?"], ["a.wav", 3, 4, "OVEN"]], "1 of 4 cells say UNK"),
        ("segment_id\tstart_time_seconds\tend_time_seconds\tlabel\tpresent\na_30000\t0\t1\t/m/04rlf\tPRESENT\n"
         "a_30000\t0\t1\t/m/07rv9rh\tNOT_PRESENT\n", [["a_30000", 0, 1, "/m/04rlf"]], "1 rows say that a class"),
        ("filename,class_id,label,start,end\na,-1,-1,-1.0,-1.0\nb,2,bus,3.5,10.0\n", [["b", 3.5, 10, "bus"]], ""),
        ("sound_event_recording,start_time,end_time,ele\ncough,0.5,1.5,-10\n", [["", 0.5, 1.5, "cough"]], ""),
    ],
)  # fmt: skip
def test_tables_of_events_as_data_sets_have_them(tmp_path, said, text, rows, told):
    """DCASE's few-shot tables, AudioSet's strong labels, Urbansas, TAU's spatial events."""
    (tmp_path / "t.tsv").write_text(text)
    assert read_annotations(tmp_path / "t.tsv").events.values.tolist() == rows
    assert told in said.text


def test_the_lists_of_several_folds_count_an_event_once(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav")
    for name, rows in (("fold1_train", "a.wav\t1\t2\tcar\n"), ("fold2_train", "a.wav\t1\t2\tcar\nb.wav\t3\t4\tdog\n")):
        (tmp_path / f"{name}.txt").write_text(rows)
    assert len(prepare(tmp_path).events) == 2
    assert "1 events are there twice, and count once" in said.text


def test_an_event_without_a_label_is_no_silence(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "id.csv").write_text("file,start,end,species\na,1,2,bat\nb,1,2,\nc,1,2,bat\nc,3,4,\nc,5,6,????\n")
    tables = prepare(tmp_path)
    assert tables.clips.annotated.tolist() == [1, 0, 1]
    assert len(tables.events) == 3
    assert "2 events have no label and are left out; 1 recordings have no others" in said.text
    assert "taken as classes are '????' (1)" in said.text


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("rec/a.wav\tbus\nrec/b.wav\tpark\n", ["bus", "park"]),  # DCASE's scenes, without a header
        ("a.wav\t30.000\t40.000\tTrain horn\nb.wav\t0.000\t10.000\tBicycle\nb.wav\t0.000\t10.000\tTrain horn\n",
         ["Train_horn", "Bicycle Train_horn"]),  # and its clips from YouTube, with times there
        ("gone.wav\t1\na.wav\t1\nb.wav\t0\n", ["1", "0"]),
    ],
)  # fmt: skip
def test_tables_of_labels_without_a_header(tmp_path, said, text, labels):
    record(tmp_path, "rec/a.wav", "rec/b.wav")
    (tmp_path / "meta.txt").write_text(text)
    assert prepare(tmp_path, table=tmp_path / "meta.txt").clips.labels.tolist() == labels
    assert "has no header: its columns are called column_1, column_2" in said.text


def test_species_of_one_epithet_are_told_apart_by_their_genus(tmp_path, said):
    """As Kaggle's British Birdsong has them, whose recordings are called xc25119.flac."""
    record(tmp_path, "songs/xc25119.wav", "songs/XC046032.wav", "songs/xc7.wav")
    rows = [
        "id,file_id,genus,species",
        "1,25119,Poecile,palustris",
        "2,46032,Acrocephalus,palustris",
        "3,7,,Parus major",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["Poecile_palustris", "Acrocephalus_palustris", "Parus_major"]
    (tmp_path / "n.csv").write_text("file,start,end,genus,species\nxc7,0,1,Parus,major\n")
    assert read_annotations(tmp_path / "n.csv").events.event_label.tolist() == ["Parus major"]


def test_a_column_of_data_sets_or_recordists_is_not_guessed_to_be_the_labels(tmp_path):
    record(tmp_path, *(f"{i}.wav" for i in range(4)))
    (tmp_path / "t.csv").write_text("itemid,datasetid,recordist,hasbird\n0,x,ann,1\n1,x,ann,0\n2,y,bob,0\n3,y,bob,1\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["hasbird", "no_hasbird", "no_hasbird", "hasbird"]
    (tmp_path / "t.csv").write_text("file,speaker\n0,ann\n1,ann\n2,bob\n3,bob\n")
    assert prepare(tmp_path).classes == ["ann", "bob"], "where there is nothing else it is what they are for"


def test_a_lone_folder_is_no_class_and_lists_are_said(tmp_path, said):
    record(tmp_path, "audio/a.wav", "audio/b.wav")
    (tmp_path / "testing_list.txt").write_text("audio/a.wav\n")
    (tmp_path / "fold1.txt").write_text("audio/a.wav  beach\n")
    (tmp_path / "README.txt").write_text("See a.csv.\n")
    with pytest.raises(ValueError, match="nothing says what the 2 recordings"):
        prepare(tmp_path)
    assert "one folder alone, audio, is no class" in said.text
    assert "are not read: fold1.txt;" in said.text


ANURA = (
    "sample_name,fname,min_t,max_t,site,SPHSUR,BOABIS,SCIPER,ADEMAR,LEPLAB,subset\n"
    "x_0_3,x,10,13,I4,0,1,0,0,1,train\nx_1_4,x,11,14,I4,1,0,1,1,0,train\ny_0_3,y,0,3,I4,0,0,0,0,0,train\n"
    "y_1_4,y,1,4,I7,1,0,0,0,0,test\nz_0_3,z,0,3,I7,,,,,,test\n"
)


def test_many_columns_of_0_and_1_are_the_classes_whatever_texts_stand_beside(tmp_path, said):
    """AnuraSet: its windows are recordings, and a split is no label; a row of 0 is silence, an empty one is not."""
    record(tmp_path, *(f"{name}.wav" for name in ("x_0_3", "x_1_4", "y_0_3", "y_1_4", "z_0_3")))
    (tmp_path / "metadata.csv").write_text(ANURA)
    clips = prepare(tmp_path).clips
    assert clips.labels.tolist() == ["BOABIS LEPLAB", "ADEMAR SCIPER SPHSUR", "", "SPHSUR", ""]
    assert clips.annotated.tolist() == ["", "", "1", "", ""]
    assert "1 recordings hold none of the classes, and train as such: y_0_3.wav" in said.text
    assert "no split is made of 'subset', which says test, train: --split-column 'subset'" in said.text
    (tmp_path / "metadata.csv").write_text(ANURA.replace("0,0,0,0,0", "0,UNK,0,0,0"))
    assert "annotated" not in prepare(tmp_path).clips, "nobody knows whether it is silent"
    tables = prepare(tmp_path, split_column="subset", label_column="SPHSUR,LEPLAB")
    assert tables.clips.labels.tolist() == ["LEPLAB", "SPHSUR", ""]
    (tmp_path / "metadata.csv").write_text(ANURA.replace("0,1,train", "0,0,train"))
    assert prepare(tmp_path, label_column="SPHSUR,LEPLAB").classes == ["SPHSUR"], "no class is called 0"


def test_a_space_in_front_of_a_name_is_of_the_file_or_of_the_table(tmp_path):
    record(tmp_path, " Ambience Birds.wav", "rain.wav")
    (tmp_path / "t.csv").write_text("file_name,label\n Ambience Birds.wav,birds\n rain.wav,rain\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["birds", "rain"]


def test_rows_that_say_how_sure_they_are_may_not_differ_in_their_group(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("file,label,confidence,site\na,x,0.9,1\nb,y,0.9,1\na,x,0.9,2\n")
    with pytest.raises(ValueError, match="rows of one recording differ in 'site'"):
        prepare(tmp_path, group_column="site")


FMA = ",album,album,set,track\n,comments,title,split,genre_top\ntrack_id,,,,\n2,0,A,training,Rock\n1010,1,B,test,Rock\n"


def test_two_rows_of_header_are_one(tmp_path):
    """FMA's tracks.csv, whose recordings are called 000002.mp3."""
    record(tmp_path, "000/000002.wav", "001/001010.wav")
    (tmp_path / "tracks.csv").write_text(FMA)
    tables = prepare(tmp_path, label_column="track_genre_top", split_column="set_split")
    assert tables.clips[["labels", "track_id", "album_title"]].values.tolist() == [["Rock", "2", "A"]]
    assert tables.test_clips.clip_id.tolist() == ["001/001010"]


def bats(name, *calls, annotated=True):
    inner = [{"start_time": s, "end_time": s + 0.1, "class": c, "event": "Social", "det_prob": 0.6} for s, c in calls]
    about = {"annotated": annotated, "class_name": "Myotis", "duration": 0.5, "issues": False, "time_exp": 1}
    return about | {"id": name, "annotation": inner}


@pytest.mark.parametrize("together", [True, False])
def test_json_of_bats(tmp_path, together, said):
    """BatDetect2's, an object a recording, in one file or one each."""
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    found = {"a": bats("a.wav", (0.1, "Myotis"), (0.3, "Noctule")), "b": bats("b.wav"),
             "c": bats("c.wav", annotated=False)}  # fmt: skip
    for name, value in {"all": list(found.values())}.items() if together else found.items():
        (tmp_path / f"{name}.wav.json").write_text(json.dumps(value, indent=1))
    tables = prepare(tmp_path)
    assert tables.events[["filename", "onset", "event_label"]].values.tolist() == [
        ["a", 0.1, "Myotis"], ["a", 0.3, "Noctule"],
    ]  # fmt: skip
    assert tables.clips.annotated.tolist() == [1, 1, 0]
    (tmp_path / "a.json").write_text(json.dumps(found["a"] | {"time_exp": 10}))
    with pytest.raises(ValueError, match="time_exp is not 1"):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "x/a.wav", "label": "x"}\n{"file_name": "b.wav", "label": ["x", "y"]}\n'),
        ("data.json", '{"data": [{"wav": "/d/a.wav", "labels": "x"}, {"wav": "/d/b.wav", "labels": "y,x"}]}'),
        ("examples.json", '{"a": {"label": "x", "pitch": 3}, "b": {"label": "x;y", "pitch": 4}}'),
    ],
)
def test_json_tables_of_labels(tmp_path, name, text):
    """Hugging Face's, AST's and NSynth's."""
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / name).write_text(text)
    (tmp_path / "info.json").write_text('{"version": 3, "parts": [{"size": 1}]}')
    assert prepare(tmp_path).clips.labels.tolist() == ["x", "x y"]


@pytest.mark.parametrize(
    "text",
    [
        '{"start_time": "2024-05-01T10:00:00", "duration": 60, "device": "AudioMoth"}',
        '{"name": "x", "scripts": {"start": "node a.js"}}',
        '[{"start": "10:00", "site": "s1"}]',
    ],
)
def test_json_that_holds_no_events_is_no_annotation(tmp_path, text):
    record(tmp_path, "x/a.wav", "y/b.wav")
    (tmp_path / "x" / "a.json").write_text(text)
    assert prepare(tmp_path).clips.labels.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"file": "a.wav", "start": 0.5, "end": 1.5, "label": "x"}, '
        '{"file": "b.wav", "start": 1, "end": 2, "label": "y"}]',
        '[{"file": "a.wav", "annotations": [{"start": 0.5, "end": 1.5, "label": "x"}]}, '
        '{"file": "b.wav", "annotations": [{"start": 1, "end": 2, "label": "y"}]}]',
    ],
)
def test_json_lists_of_events_are_no_export_of_label_studio(tmp_path, text):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "events.json").write_text(text)
    found = prepare(tmp_path).events[["filename", "onset", "offset", "event_label"]]
    assert found.values.tolist() == [["a", 0.5, 1.5, "x"], ["b", 1.0, 2.0, "y"]]


def test_json_beside_recordings_that_holds_no_labels_is_said(tmp_path, said):
    """A list of check sums; a file a recording."""
    record(tmp_path, "x/a.wav", "y/b.wav")
    (tmp_path / "manifest.json").write_text('[{"file": "x/a.wav", "md5": "1"}, {"file": "y/b.wav", "md5": "2"}]')
    assert prepare(tmp_path).clips.labels.tolist() == ["x", "y"]
    assert "which column holds labels is not clear (md5)" in said.text
    assert prepare(tmp_path, label_column="md5").clips.labels.tolist() == ["1", "2"]
    (tmp_path / "manifest.json").unlink()
    for name in ("x/a", "y/b"):
        (tmp_path / f"{name}.json").write_text(f'[{{"file": "{name}.wav", "tag": "t"}}]')
    assert prepare(tmp_path).clips.labels.tolist() == ["x", "y"]
    assert "2 JSON files name recordings and are not read" in said.text


def test_a_table_of_the_training_with_splits_beside_one_of_the_test_without(tmp_path):
    """FSD50K: its evaluation is not training."""
    record(tmp_path, *(f"{i}.wav" for i in range(4)))
    (tmp_path / "dev.csv").write_text("fname,labels,split\n0,x,train\n1,y,train\n2,x,val\n")
    (tmp_path / "eval.csv").write_text("fname,labels\n3,x\n")
    tables = prepare(tmp_path)
    assert tables.clips.official_fold.tolist() == [-1, -1, 0]
    assert tables.test_clips.clip_id.tolist() == ["3"]
    (tmp_path / "collection_dev.csv").write_text("fname,labels\n0,z\n1,z\n")
    with pytest.raises(ValueError, match="3 tables name recordings"):
        prepare(tmp_path)

"""Tables that other people's programs wrote: Tadarida, Arbimon, HawkEars, SPRSound, xeno-canto, and more."""

import json

import pytest

from earshot.annotations.certainty import confidence_of
from earshot.annotations.tracks import read_track
from earshot.competitions.label_columns import split_of
from earshot.competitions.mine import prepare
from earshot.listening.scoring import read_events_of
from earshot.tables import read_table
from own_folders import events_of, record


@pytest.mark.parametrize(
    "text",
    [
        '"nom du fichier";"temps_debut";"temps_fin";"tadarida_taxon"\n"a";0,5;1,5;"Pippip"\n',
        "Fichier;Début;Fin;Espèce\na.wav;0,5;1,5;Pippip\n",
        "Dateiname;Beginn (s);Ende (s);Art\na.wav;0,5;1,5;Pippip\n",
        "idx,filename,window_start,window_end,label,logits\n1,a.wav,0.5,1.5,Pippip,1.2\n",
        "recording,species,x1,x2,y1,y2,validated,score\na.WAV,Pippip,0.5,1.5,100,200,(not validated),0.6\n",
        '"sound.files","selec","start","end","sound_type"\n"a.wav",1,0.5,1.5,"Pippip"\n',
        '[{"audio_file": "a.wav", "onset": 0.5, "offset_time": 1.5, "species": "Pippip"}]',
    ],
)
def test_columns_as_programs_and_languages_call_them(tmp_path, text):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / ("t.json" if text.startswith("[") else "t.csv")).write_text(text)
    assert events_of(prepare(tmp_path)) == [["a", 0.5, 1.5, "Pippip"]]


def test_confidences_with_a_decimal_comma_or_behind_a_semicolon(tmp_path):
    (tmp_path / "t.csv").write_text("file;probability\na;0,42\nb;0,9\n")
    assert confidence_of(read_table(tmp_path / "t.csv", all_text=True)).tolist() == [0.42, 0.9]
    track = read_track(["2\t4\tMAWR;0.88", "5\t8\tCOYE;0.91"], tmp_path)
    assert track.event_label.tolist() == ["MAWR", "COYE"]
    assert track.confidence.tolist() == ["0.88", "0.91"]


def test_times_in_milliseconds_are_said_where_nothing_else_fits(tmp_path, said):
    """SPRSound: a file a recording."""
    record(tmp_path, "wav/a.wav", "wav/b.wav")
    for name, start in (("a", 5778), ("b", 2771)):
        spoken = {
            "record_annotation": "DAS",
            "event_annotation": [{"start": f"{start}", "end": "7419", "type": "Rhonchi"}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(spoken))
    assert events_of(prepare(tmp_path)) == [["wav/a", 5.778, 7.419, "Rhonchi"], ["wav/b", 2.771, 7.419, "Rhonchi"]]
    assert "taken for milliseconds" in said.text
    for name in "ab":  # samples, at 16 kHz in the first half second
        (tmp_path / f"{name}.json").write_text('{"events": [{"start": "400", "end": "700", "type": "Rhonchi"}]}')
    with pytest.raises(ValueError, match="begin after the end of their recordings"):
        prepare(tmp_path)


def test_pages_of_a_download_are_one_table(tmp_path, said):
    """xeno-canto's answers: genus and epithet apart, lists that may be empty."""
    record(tmp_path, *(f"XC{n}.wav" for n in range(1, 5)))
    for page in (1, 2):
        kinds = enumerate(("major", "ater"), start=2 * page - 1)
        found = [{"id": str(n), "gen": "Parus", "sp": kind, "also": [], "rmk": ""} for n, kind in kinds]
        answer = {"numRecordings": "4", "page": page, "recordings": found}
        (tmp_path / f"page{page}.json").write_text(json.dumps(answer))
    assert prepare(tmp_path).clips.labels.tolist() == ["Parus_major", "Parus_ater"] * 2
    assert "2 tables of the same columns are read as one" in said.text
    (tmp_path / "page3.json").write_text((tmp_path / "page2.json").read_text())  # recordings in two of them
    with pytest.raises(ValueError, match="nothing says what"):
        prepare(tmp_path)
    assert "--table says which one holds labels" in said.text


def test_an_empty_list_of_something_else_is_no_recording_without_events(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    notes = {name: {"qualities_str": [], "family": "bass" if name < "c" else "organ"} for name in "abcd"}
    (tmp_path / "examples.json").write_text(json.dumps(notes))
    assert prepare(tmp_path).clips.labels.tolist() == ["bass", "bass", "organ", "organ"]


def test_a_list_without_endings_and_without_a_header_keeps_its_first_row(tmp_path, said):
    """ICBHI's train and test in one file."""
    record(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    (tmp_path / "notes_train_test.txt").write_text("a\ttest\nb\ttrain\nc\ttrain\nd\ttrain\n")
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text("0.5\t1.5\tcrackle\n")
    tables = prepare(tmp_path, split_column="column_2")
    assert tables.clips.clip_id.tolist() == ["b", "c", "d"]
    assert tables.test_clips.clip_id.tolist() == ["a"]
    assert len(prepare(tmp_path).clips) == 4
    assert "no split is made of 'column_2'" in said.text
    names = ("a_train_test.txt", "dev_train.csv", "x_test.csv")
    assert [split_of(tmp_path / name) for name in names] == ["", "train", "test"]


def test_a_column_of_file_names_is_not_guessed_to_be_the_labels(tmp_path):
    """AnuraSet: windows, the recording that each was cut from, and a column a species."""
    record(tmp_path, "x_0.wav", "x_1.wav", "y_0.wav", "y_1.wav")
    rows = ["x_0,x,1,0", "x_1,x,0,1", "y_0,y,1,1", "y_1,y,0,0"]
    (tmp_path / "metadata.csv").write_text("\n".join(["sample_name,fname,SPHSUR,BOABIS", *rows]))
    assert prepare(tmp_path).clips.labels.tolist() == ["SPHSUR", "BOABIS", "BOABIS SPHSUR", ""]


def test_names_of_the_macaulay_library_and_of_addresses(tmp_path):
    record(tmp_path, "ML105.wav", "556.wav")
    (tmp_path / "t.csv").write_text("url,label\n105,wren\nhttps://x.org/sounds/556.wav?161,robin\n")
    assert sorted(prepare(tmp_path).clips.labels) == ["robin", "wren"]


def test_two_words_for_the_test_are_one_split(tmp_path):
    """TUT: its test, and what is heard in it."""
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "street_train.txt").write_text("a.wav\tstreet\t0\t1\tcar\n")
    (tmp_path / "street_test.txt").write_text("b.wav\tstreet\n")
    (tmp_path / "street_evaluate.txt").write_text("b.wav\tstreet\t1\t2\tcar\n")
    tables = prepare(tmp_path)
    assert tables.test_clips.clip_id.tolist() == ["b"]
    assert len(tables.truth) == 1


def test_what_is_not_taken_is_said(tmp_path, said):
    """Lists beside a column of the split, starts without ends, times of other names, two kinds of files, no header."""
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "meta.csv").write_text("file,label,split\na.wav,x,train\nb.wav,y,test\nc.wav,x,train\n")
    (tmp_path / "test_list.txt").write_text("a.wav\n")
    assert prepare(tmp_path).test_clips.clip_id.tolist() == ["b"]
    assert "so that these lists say nothing: test_list.txt" in said.text
    (tmp_path / "test_list.txt").unlink()
    (tmp_path / "meta.csv").write_text("file,timestamp_s,label\na.wav,0.5,x\na.wav,5.5,y\nb.wav,1,y\n")
    prepare(tmp_path)
    assert "'timestamp_s' says when a sound begins and no column when it ends" in said.text
    (tmp_path / "meta.csv").write_text("file,from,till,label\na.wav,0.5,0.9,x\na.wav,5.5,6,y\nb.wav,1,2,y\n")
    prepare(tmp_path)
    assert "Where 'from' and 'till' say when each sound is heard, call them onset and offset" in said.text
    (tmp_path / "meta.csv").unlink()
    (tmp_path / "a.txt").write_text("0.5\t1.5\twren\n")
    (tmp_path / "b.csv").write_text("0.5,0.2,wren\n")
    (tmp_path / "c.wrd").write_text("0 100 she\n")
    (tmp_path / "a.csv").write_text("onset,offset,label\n0.5,1.5,Troglodytes\n")
    prepare(tmp_path)
    assert "1 recordings have annotations of several kinds, such as a.wav: a.csv, a.txt" in said.text
    assert "have no names of columns, and are not read: b.csv" in said.text
    assert "not read, save them as CSV where they hold labels: c.wrd" in said.text


def test_unknown_labels_of_a_table_stay_beside_those_of_annotations(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "events.csv").write_text("filename,onset,offset,label\na.wav,0,1,wren\na.wav,,,tit\nb.wav,0,1,owl\n")
    (tmp_path / "meta.csv").write_text("file,unknown_labels\na.wav,owl\nb.wav,tit wren\n")
    assert prepare(tmp_path).clips.unknown_labels.tolist() == ["owl tit", "tit wren"]


def test_what_nobody_could_tell_is_no_class_of_a_truth(tmp_path, said):
    (tmp_path / "t.csv").write_text("filename,onset,offset,wren,owl\na.wav,0,1,POS,UNK\n")
    assert read_events_of(tmp_path / "t.csv")[0].event_label.tolist() == ["wren"]
    assert "(owl?), and are left out" in said.text


@pytest.mark.parametrize("name", ["events.csv", "a.csv"])
def test_one_annotation_file_is_given_in_place_of_a_folder(tmp_path, name):
    record(tmp_path / "sounds", "a.wav", "b.wav")
    (tmp_path / name).write_text("filename,onset,offset,label\na.wav,0.1,0.2,dog\nb.wav,0.1,0.3,cat\n")
    tables = prepare(tmp_path / "sounds", annotations=tmp_path / name)
    assert events_of(tables) == [["a", 0.1, 0.2, "dog"], ["b", 0.1, 0.3, "cat"]]

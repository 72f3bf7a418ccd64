"""Columns whose names say one thing in one table and another in the next: times, labels, confidences."""

import pytest

from earshot.competitions.mine import prepare
from own_folders import events_of, record


@pytest.fixture
def read(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav")

    def tables_of(text, **flags):
        (tmp_path / "t.csv").write_text(text)
        return prepare(tmp_path, **flags)

    return tables_of


@pytest.mark.parametrize(
    ("columns", "classes"),
    [("blue,fin,humpback", ["blue", "fin", "humpback"]), ("SP,BW,HB", ["BW", "HB", "SP"])],
)
def test_a_class_may_be_called_as_a_time_or_a_label_is(read, columns, classes):
    """A fin whale is no end in French, and SP, a sperm whale, no species."""
    with_times = read(f"file,start,end,{columns}\na.wav,0,4,1,0,0\na.wav,4,8,0,1,0\nb.wav,0,4,0,0,1\n")
    assert with_times.classes == classes
    assert len(with_times.events) == 3
    assert read(f"file,start,{columns}\na.wav,0,1,0,0\nb.wav,4,0,1,0\nc.wav,4,0,0,1\n").classes == classes


def test_a_word_of_one_meaning_goes_before_one_of_several(read):
    """Art is a species or a kind of sound, an id the number of a row, an epithet half a name."""
    german = "Datei;Vogelart;Art;von;bis\na.wav;Amsel;Ruf;0,5;1,5\n"
    assert events_of(read(german)) == [["a", 0.5, 1.5, "Amsel"]]
    assert read("Datei;Spezies;Art\na.wav;Amsel;Ruf\nb.wav;Meise;Ruf\n").classes == ["Amsel", "Meise"]
    assert events_of(read("id,file,start,end,type\n7,a.wav,1,2,song\n")) == [["a", 1, 2, "song"]]
    names = "file,sp,specific_epithet,common_name\na.wav,1,palustris,Marsh Tit\nb.wav,2,palustris,Marsh Warbler\n"
    assert read(names).classes == ["Marsh_Tit", "Marsh_Warbler"]


@pytest.mark.parametrize(
    "header", ["Datei;Gattung;Art;von;bis", "fichier;genre;espèce;début;fin", "archivo;género;especie;inicio;fin"]
)
def test_species_get_their_genus_in_other_languages(read, said, header):
    rows = "a.wav;Poecile;palustris;0,5;1,5\nb.wav;Acrocephalus;palustris;1;2\n"
    assert read(f"{header}\n{rows}").classes == ["Acrocephalus_palustris", "Poecile_palustris"]
    assert f"labels by '{header.split(';')[2]}'" in said.text


def test_columns_in_hz_are_no_times(read):
    rows = "a.wav;Zwerg;42,5;48,5;1;2\nb.wav;Abend;20;26;3;4\n"
    assert events_of(read(f"Datei;Art;von (kHz);bis (kHz);von (s);bis (s)\n{rows}"))[0] == ["a", 1, 2, "Zwerg"]
    assert read("file,species,start (kHz),end (kHz)\na.wav,pip,4.5,6\nb.wav,noc,2,3\n").events is None


def test_corners_of_pictures_are_no_seconds(read):
    """Arbimon's are seconds and Hz; x1 and x2 alone may be anything."""
    boxes = "file,label,x1,y1,x2,y2\n"
    assert events_of(read(f"{boxes}a.wav,wren,0.5,1000,1.5,2000\n")) == [["a", 0.5, 1.5, "wren"]]
    with pytest.raises(ValueError, match="x1, y1, x2, y2 seem to be corners in a picture, in pixels.*--table"):
        read(f"{boxes}a.wav,wren,1,100,80,200\nb.wav,robin,2,30,6,90\n")
    with pytest.raises(ValueError, match="in shares of it"):
        read(f"{boxes}a.wav,wren,0.1,0.2,0.8,0.9\n")
    assert read("file,label,x1,x2,x3\na.wav,wren,0.1,0.5,0.2\nb.wav,robin,0.2,0.1,3\n").events is None


def test_labels_by_a_doubtful_name_name_the_other_columns(read, said):
    read("file,start,end,bird,type\na.wav,0,1,wren,song\nb.wav,2,3,robin,call\n")
    assert "labels by 'type', and there are words in 'bird' too: --label-column takes another one" in said.text
    said.clear()
    read("file,start,end,bird,type\na.wav,0,1,wren,song\nb.wav,2,3,robin,call\n", label_column="bird")
    read("file,start,end,species,type\na.wav,0,1,wren,song\nb.wav,2,3,robin,call\n")
    assert "--label-column takes" not in said.text


def test_empty_columns_of_a_template_are_passed_over_and_twins_refused(read):
    template = "file,onset,offset,start,duration,label,species\na.wav,,,1,2,,wren\n"
    assert events_of(read(template)) == [["a", 1, 3, "wren"]]
    assert events_of(read("file,start,end,label,label\na.wav,1,3,wren,wren\n")) == [["a", 1, 3, "wren"]]
    for header in ("start,end,label,label", "start,start,end,label"):
        with pytest.raises(ValueError, match="has two columns '(label|start)', which differ"):
            read(f"file,{header}\na.wav,1,2,3,4\n")


def test_quotes_behind_a_space_are_quotes(read):
    assert events_of(read('file, start, end, label\na.wav, 1, 2, "wren, old"\n')) == [["a", 1, 2, "wren,_old"]]
    assert read('file, label\na.wav, "wren, old"\nb.wav, robin\n').classes == ["robin", "wren,_old"]


def test_a_question_mark_in_a_column_of_a_class_is_nobodys_knowledge(read, said):
    tables = read("file,wren,robin,owl\na.wav,1,0,?\nb.wav,?,1,0\nc.wav,0,1,1\n")
    assert tables.clips[["labels", "unknown_labels"]].values.tolist() == [
        ["wren", "owl"], ["robin", "wren"], ["owl robin", ""],
    ]  # fmt: skip
    assert "2 of 9 cells say ?, nobody could tell" in said.text


def test_confidences_are_the_first_column_that_can_be_some(read):
    """A score of 3 is none, and a percent is a hundredth."""
    for columns, cells in (("score,prob", "3,0.6"), ("confidence", "60%"), ("confidence", "60 %")):
        tables = read(f"file,start,end,label,{columns}\na.wav,1,2,wren,{cells}\n", confidences="shares")
        assert tables.events.share.tolist() == [0.6]

"""Lists written as text, other spellings of one name, and words that are no class."""

import logging

import pandas as pd
import pytest

from earshot.competitions import get_competition
from earshot.competitions.label_texts import check_reserved, is_reserved, listed, one_spelling, respelled, unlabelled
from earshot.competitions.tables import Tables


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[]", []), ("['']", []), ("", []), (float("nan"), []), ("nan", []), ("[nan]", []), ("  [ ]  ", []),
        ("['a', 'b']", ["a", "b"]), ("\"['a', 'b']\"", ["a", "b"]), ("('a', 'b')", ["a", "b"]), ("['a',]", ["a"]),
        ("['a' 'b']", ["a", "b"]), ("['a'\n 'b']", ["a", "b"]), ("[a, b]", ["a", "b"]),
        ("[22930, 116570]", ["22930", "116570"]),
        ('["Wilson\'s Snipe", \'b\']', ["Wilson's Snipe", "b"]), (r"['it\'s']", ["it's"]),
        ("['a', '', 'nocall']", ["a"]),
        ("['Genus x_Name, Common']", ["Genus x_Name, Common"]), ("{'a'}", ["a"]),
    ],
)  # fmt: skip
def test_lists_as_text(text, names):
    assert listed(text, "row 2") == names


@pytest.mark.parametrize("text", ["zebdov", "['a'", "a, b", "['a' + 'b']", "['a', b]"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match="the list in row 7 is .*, expected a list such as"):
        listed(text, "row 7")


def test_reserved_words_are_no_class(caplog):
    assert all(is_reserved(n) for n in ("nocall", "NoCall ", "nan", "", None, float("nan")))
    assert not is_reserved("nocallx")
    with caplog.at_level(logging.WARNING, "earshot"):
        labels = unlabelled(pd.Series(["wren", "nocall", ""]), "train.csv")
    assert labels.tolist() == ["wren", "", ""]
    assert "2 recordings of train.csv are labelled (empty), nocall: clips without a label" in caplog.text
    with pytest.raises(ValueError, match="the list has the class 'Nocall', which cannot be one"):
        check_reserved(["wren", "Nocall"], "the list")
    clips = pd.DataFrame({"clip_id": ["a"], "path": ["a.wav"], "labels": ["wren"]})
    with pytest.raises(ValueError, match="'nan', which cannot be one"):
        Tables(clips=clips, classes=["wren", "nan"])


def test_names_that_differ_by_case_alone_are_one(caplog):
    with caplog.at_level(logging.WARNING, "earshot"):
        assert respelled(["Hi-Hat", "Flute", "Cow"], ["Hi-hat", "Flute"], "the truth") == ["Hi-hat", "Flute", "Cow"]
        assert respelled(["ab"], ["Ab", "aB"], "the truth") == ["ab"]  # which one is not clear
        table = one_spelling(pd.Series(["Hi-hat", "Hi-Hat", "Hi-hat", "Oboe"]), "train.csv")
    assert table.tolist() == ["Hi-hat", "Hi-hat", "Hi-hat", "Oboe"]
    assert caplog.messages == ["the truth writes Hi-Hat for Hi-hat", "train.csv writes Hi-Hat for Hi-hat"]


def test_nocall_of_a_network_never_stands_beside_a_bird():
    """freefield1010's silent clips, added as a species: an older network may still have the class."""
    marked = pd.DataFrame({"row_id": ["a_5", "a_5", "a_10"], "event_label": ["amerob", "nocall", "nocall"]})
    from earshot.competitions import birdcall

    answers = birdcall.answers(marked, pd.DataFrame({"row_id": ["a_5", "a_10", "a_15"]}))
    assert answers.birds.tolist() == ["amerob", "nocall", "nocall"]


def test_silent_recordings_in_the_training_table(tmp_path, caplog):
    rows = [("amerob", "XC1.ogg"), ("nocall", "XC2.ogg"), ("wewpew", "XC3.ogg")]
    for label, name in rows:
        (tmp_path / "train_short_audio" / label).mkdir(parents=True)
        (tmp_path / "train_short_audio" / label / name).touch()
    table = pd.DataFrame(rows, columns=["primary_label", "filename"]).assign(secondary_labels="['nocall']", author="x")
    table.to_csv(tmp_path / "train_metadata.csv", index=False)
    test = pd.DataFrame([("1_COR_5", "COR", "1", 5)], columns=["row_id", "site", "audio_id", "seconds"])
    test.to_csv(tmp_path / "test.csv", index=False)
    tables = get_competition("birdclef2021").prepare(tmp_path)
    assert tables.classes == ["amerob", "wewpew"]
    assert tables.clips.labels.tolist() == ["amerob", "", "wewpew"]
    assert tables.clips.secondary_labels.tolist() == ["", "", ""]
    assert "1 recordings of the training table are labelled nocall" in caplog.text

"""Rows of labelled soundscapes as organisers and people write them: other times, lengths, separators, spellings."""

import numpy as np
import pandas as pd
import pytest

import prepare
from earshot.competitions.birdclef_recordings import known_labels, labelled_rows
from earshot.data.event_checks import checked_events, without_labels_beyond
from earshot.sound import audio
from scripts import run

NAME = "BC2026_Train_0001_S08_20250606_030007.ogg"


def rows_of(tmp_path, *rows) -> pd.DataFrame:
    """(start, end, labels) of one soundscape -> its rows."""
    table = pd.DataFrame([(NAME, *row) for row in rows], columns=["filename", "start", "end", "primary_label"])
    table.to_csv(tmp_path / "train_soundscapes_labels.csv", index=False)
    return known_labels(labelled_rows(tmp_path), ["116570", "brnowl"])


@pytest.mark.parametrize(("start", "end"), [
    ("00:00:05", "00:00:10"), ("00:05", "00:10"), ("5", "10"), ("5.0", "10.0"), ("0:00:05.0", "0:00:10.0"),
    ("0 days 00:00:05", "0 days 00:00:10"),
])  # fmt: skip
def test_times_in_every_writing(tmp_path, start, end):
    rows = rows_of(tmp_path, (start, end, "brnowl"))
    assert rows.seconds.tolist() == [10]
    assert rows.site.tolist() == ["S08"]


def test_times_of_two_kinds_in_one_column(tmp_path):
    assert rows_of(tmp_path, ("0", "5", "brnowl"), ("00:00:05", "00:01:05", "brnowl")).seconds.tolist() == [
        5, *range(10, 70, 5)
    ]  # fmt: skip


def test_a_longer_row_is_labelled_throughout(tmp_path):
    rows = rows_of(tmp_path, ("00:00:10", "00:00:25", "brnowl;116570"), ("00:00:00", "00:00:05", "nocall"))
    assert rows.seconds.tolist() == [15, 20, 25, 5]
    assert rows.labels.tolist() == [["brnowl", "116570"]] * 3 + [[]]
    assert set(rows.clip_id) == {NAME.removesuffix(".ogg")}


@pytest.mark.parametrize("text", ["brnowl;116570", "brnowl; 116570", "brnowl,116570", "['brnowl', '116570']",
                                  "BRNOWL;116570", "brnowl;nocall;116570"])  # fmt: skip
def test_labels_in_every_writing(tmp_path, text):
    assert rows_of(tmp_path, (0, 5, text)).labels.tolist() == [["brnowl", "116570"]]


@pytest.mark.parametrize(("row", "message"), [
    (("00:00:01", "00:00:06", "brnowl"), "1 row does not last from one multiple of 5 s to a later one, such as 1 to 6"),
    (("00:00:05", "00:00:00", "brnowl"), "such as 5 to 0 s of BC2026_Train_0001"),
    (("x", "00:00:05", "brnowl"), "train_soundscapes_labels.csv has the time 'x', expected hh:mm:ss"),
    (("", "00:00:05", "brnowl"), "has the time 'nan', expected hh:mm:ss"),
])  # fmt: skip
def test_rows_that_cannot_be_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path, row)


def test_a_label_heard_behind_the_end_alone_is_none():
    events = pd.DataFrame(
        [("a", 0, 5, "wren"), ("a", 60, 65, "owl"), ("a", 60, 65, "wren"), ("b", 60, 65, "owl"), ("c", 2, 2, "owl")],
        columns=["filename", "onset", "offset", "event_label"],
    )
    clips = pd.DataFrame({"clip_id": list("abc"), "labels": ["owl wren", "owl", "owl"], "duration": 15.0})
    left, _ = checked_events(events, clips, "t")
    found, changed = without_labels_beyond(clips, events, left, np.array([True, False, True]))
    assert found.labels.tolist() == ["wren", "owl", "owl"], "of b nobody says that its events are all; c has a point"
    assert changed == 1


def test_a_soundscape_cut_off_keeps_the_labels_of_what_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000 * 15).astype(np.float32)
    for name in ("train_audio/116570/a.ogg", "train_audio/brnowl/b.ogg", f"train_soundscapes/{NAME}"):
        audio.write(tmp_path / name, noise, 8000)
    columns = ["primary_label", "secondary_labels", "filename", "author"]
    train = [("116570", "[]", "116570/a.ogg", "x"), ("brnowl", "[]", "brnowl/b.ogg", "x")]
    pd.DataFrame(train, columns=columns).to_csv("train.csv", index=False)
    rows_of(tmp_path, (0, 5, "brnowl"), (60, 65, "116570"))
    run(prepare, "birdclef2026", "--source", ".", "--out", "data")
    assert "1 annotated clips lose a label that is heard behind their end alone" in capsys.readouterr().out
    clips = pd.read_csv("data/clips.csv", dtype=str).set_index("clip_id")
    assert clips.labels[NAME.removesuffix(".ogg")] == "brnowl"

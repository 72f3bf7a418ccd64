"""Events held against their recordings: refused, dropped or cut, and named, in prepare.py and where training reads."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import prepare
from earshot.config import load_config
from earshot.data.event_checks import checked_events, with_points_unknown
from earshot.data.prepared import load_data
from scripts import run

CLIPS = pd.DataFrame({"clip_id": ["a", "b", "007"], "duration": [10.0, np.nan, 2.0]})


def events(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


def test_what_cannot_be_is_named():
    table = events(
        ("a", 1, 2, "x"), ("z", 0, 1, "x"), ("a", 3, 3, "x"), ("a", 12, 13, "x"), ("a", 8, 14, "y"), ("a", -1, 1, "x"),
        ("a", -2, -1, "x"), ("a", 9, 10.04, "x"), ("b", 50, 60, "x"), ("007", 1, 2, "x"),
    )  # fmt: skip
    found, said = checked_events(table, CLIPS, "events.csv", ["x", "y"])
    assert found.to_numpy().tolist() == [
        ["a", 1, 2, "x"], ["a", 8, 10, "y"], ["a", 0, 1, "x"], ["a", 9, 10, "x"], ["b", 50, 60, "x"],
        ["007", 1, 2, "x"],
    ]  # fmt: skip
    assert said == [
        "1 events of events.csv are of no recording of the clip table and are left out: z (x, 0 to 1 s)",
        "1 events of events.csv have no length and are left out: a (x, 3 to 3 s)",
        "1 events of events.csv begin after the end of their recording and are left out: a (x, 12 to 13 s)",
        "1 events of events.csv end before their recording begins and are left out: a (x, -2 to -1 s)",
        "1 events of events.csv reach past the end of their recording and are cut there: a (y, 8 to 14 s)",
        "1 events of events.csv begin before their recording and are cut there: a (x, -1 to 1 s)",
    ]


def test_an_event_without_a_length_says_that_its_class_is_there_and_not_when():
    """Point labels of Audacity: without them the clip would train as one that holds none of the class."""
    clips = pd.DataFrame({"clip_id": ["a", "b", "c", "d"], "labels": ["x y", "x", "x", "y"]})
    table = events(("a", 3, 3, "x"), ("a", 1, 2, "y"), ("b", 0, 0, "x"), ("b", 1, 2, "x"), ("c", 0, 1, "x"),
                   ("d", 2, 2, "y"), ("z", 2, 2, "x"))  # fmt: skip
    annotated = np.array([True, True, True, False])
    found, count = with_points_unknown(clips, table, annotated)
    assert (found.unknown_labels.tolist(), count) == (["x", "x", "", ""], 2)
    assert found.labels.tolist() == clips.labels.tolist()
    found, _ = with_points_unknown(clips.assign(unknown_labels=["w", "", None, "v"]), table, annotated)
    assert found.unknown_labels.tolist() == ["w x", "x", "", "v"]
    found, count = with_points_unknown(clips, table[table.onset < table.offset], annotated)
    assert "unknown_labels" not in found
    assert not count


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", 2, 1, "x"), r"1 of 2 events end before they begin: a \(x, 2 to 1 s\)"),
        (("a", np.nan, 1, "x"), "1 of 2 events have an onset or offset that is no number of seconds"),
        (("a", 0, np.inf, "x"), "no number of seconds"),
        (("a", 0, "00:05", "x"), "no number of seconds"),
        (("b", 0, 1e9, "x"), r"reach past 24 hours, in recordings whose `duration` .* b \(x, 0 to 1e\+09 s"),
        (("a", 0, 1, "wran"), "1 labels that are no class: wran; did you mean 'wren'"),
    ],
)
def test_what_has_no_meaning_is_refused(row, message):
    with pytest.raises(ValueError, match=f"events.csv.*{message}"):
        checked_events(events(("a", 0, 1, "x"), row), CLIPS, "events.csv", ["x", "wren"])


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "z"]), st.floats(-5, 20), st.floats(0, 20)), max_size=8))
def test_what_is_left_lies_in_its_recording(rows):
    table = events(*((name, onset, onset + length, "x") for name, onset, length in rows)).astype({"onset": float})
    found, said = checked_events(table, CLIPS, "t", ["x"])
    assert (found.onset >= 0).all()
    assert (found.offset > found.onset).all()
    assert (found.offset[found.filename == "a"] <= 10).all()
    assert found.filename.isin(["a", "b"]).all()
    again, nothing = checked_events(found, CLIPS, "t", ["x"])
    pd.testing.assert_frame_equal(found, again)
    assert nothing == []
    assert bool(said) or len(found) == len(table)


def test_a_table_of_ones_own_is_held_against_its_clips(tiny, caplog):
    clips, table = pd.read_csv("data/clips.csv"), pd.read_csv("data/events.csv")
    clips["duration"] = [1 + (i % 5) / 4 for i in range(len(clips))]
    clips.to_csv("data/clips.csv", index=False)
    extra = events(("c0", 0.5, 9.0, "low"), ("gone", 0, 1, "low"))
    pd.concat([table, extra]).to_csv("data/events.csv", index=False)
    data = load_data(load_config(tiny, []).data)
    assert data.events.offset[data.events.filename == "c0"].max() == 1.0
    assert "are of no recording of the clip table and are left out: gone" in caplog.text
    assert "reach past the end of their recording and are cut there: c0 (low, 0.5 to 9 s)" in caplog.text


def test_prepare_compares_events_and_lengths(tmp_path, monkeypatch, capsys):
    """Boxes of a recording that is shorter than they say; their file's header is read without --check-audio."""
    source = tmp_path / "rfcx"
    for folder, names in (("train", "ab"), ("test", "c")):
        (source / folder).mkdir(parents=True)
        for name in names:
            soundfile.write(source / folder / f"{name}.flac", np.zeros(4000, np.float32) + 0.1, 1000)
    boxes = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    (source / "train_tp.csv").write_text(boxes + "a,0,1,1.0,10,3.0,20\na,1,1,3.5,10,6.0,20\nb,0,1,7.0,10,8.0,20\n")
    (source / "train_fp.csv").write_text(boxes + "b,2,1,0.5,10,1.0,20\n")
    classes = [f"s{i}" for i in range(24)]
    (source / "sample_submission.csv").write_text(f"recording_id,{','.join(classes)}\nc{',0' * 24}\n")
    monkeypatch.chdir(tmp_path)
    run(prepare, "rfcx", "--source", source, "--out", "data")
    said = capsys.readouterr().out
    assert (
        "1 events of the event table begin after the end of their recording and are left out: b (s0, 7 to 8 s)" in said
    )
    assert (
        "1 events of the event table reach past the end of their recording and are cut there: a (s1, 3.5 to 6" in said
    )
    assert "0 of 2 clips are annotated, of the others nobody said when" in said
    assert pd.read_csv("data/events.csv").offset.tolist() == [3.0, 4.0, 1.0]
    assert json.loads(Path("data/dataset.json").read_text())["competition"] == "rfcx"

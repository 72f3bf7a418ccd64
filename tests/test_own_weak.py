"""Labels of whole recordings beside events: rows of a table that do not say when."""

import numpy as np
import pandas as pd
import pytest

from earshot.competitions.mine import prepare
from earshot.config import DataConfig
from earshot.data.prepared import PreparedData
from earshot.data.targets import CropTargets
from earshot.listening.scoring import read_events_of
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from own_folders import record

APLOSE = (
    "dataset,filename,start_time,end_time,start_frequency,annotation,annotator,is_box\n"
    "d,a.wav,0.0,8.0,0,whale,ann,0\nd,a.wav,1.0,2.0,9,whale,ann,1\nd,a.wav,0.0,8.0,0,ship,ann,0\n"
    "d,b.wav,0.0,8.0,0,ship,ann,0\n"
)
EMPTY = "filename,onset,offset,event_label\na.wav,1,2,whale\na.wav,,,ship\na.wav,NA,NA,whale\nb.wav,,,ship\nd.wav,,,\n"


@pytest.mark.parametrize("text", [APLOSE, EMPTY])
def test_rows_without_times_are_labels_of_recordings(tmp_path, said, text):
    record(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    (tmp_path / "t.csv").write_text(text)
    tables = prepare(tmp_path)
    assert tables.events[["filename", "onset", "event_label"]].values.tolist() == [["a", 1.0, "whale"]]
    assert tables.clips.labels.tolist() == ["ship whale", "ship", "", ""]
    assert tables.clips.unknown_labels.tolist() == ["ship", "", "", ""]
    assert tables.clips.annotated.tolist()[:3] == [1, 0, 0]
    assert "3 rows say what a recording holds and not when" in said.text
    assert len(read_events_of(tmp_path / "t.csv")[0]) == 1
    rows = [line for line in APLOSE.splitlines() if not line.endswith("1")]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    tables = prepare(tmp_path)
    assert tables.events is None
    assert tables.clips.labels.tolist() == ["ship whale", "ship", "", ""]


def test_labels_of_a_table_beside_annotations_are_named(tmp_path, said):
    """As DESED has them: strong labels of some recordings, weak ones of others."""
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "strong.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t1\t2\tdog\n")
    (tmp_path / "weak.tsv").write_text("filename\tevent_labels\na.wav\tcat\nb.wav\tcat\n")
    assert prepare(tmp_path).clips.labels.tolist() == ["dog", ""]
    assert "1 recordings without annotation have a 'event_labels' in" in said.text
    said.clear()
    assert prepare(tmp_path, label_column="event_labels").clips.labels.tolist() == ["dog", "cat"]
    assert "without annotation have" not in said.text


def test_weak_labels_alone_beside_a_table(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "weak.csv").write_text("filename,onset,offset,event_label\na.wav,,,cat\nb.wav,,,dog\n")
    (tmp_path / "sites.csv").write_text("filename,site,species\na.wav,s1,\nb.wav,s2,\nc.wav,s2,cat\n")
    tables = prepare(tmp_path)
    assert tables.events is None
    assert tables.clips[["labels", "site"]].values.tolist() == [["cat", "s1"], ["dog", "s2"], ["", "s2"]]
    assert prepare(tmp_path, label_column="species").clips.labels.tolist() == ["cat", "dog", "cat"]


def test_a_recording_that_a_table_beside_annotations_says_holds_none(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "strong.csv").write_text("filename,onset,offset,event_label\na.wav,1,2,dog\n")
    (tmp_path / "seen.csv").write_text("filename,species,count\na.wav,dog,0\nb.wav,cat,2\nc.wav,cat,0\n")
    clips = prepare(tmp_path, label_column="species").clips
    assert clips[["labels", "annotated"]].values.tolist() == [["dog", 1], ["cat", 0], ["", 1]]


def test_a_weak_call_is_no_weak_label(tmp_path):
    record(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text("file,start,end,label,type\na,1,2,wren,weak\na,3,4,wren,loud\n")
    assert len(prepare(tmp_path).events) == 2


def test_classes_that_are_always_as_long_as_their_recording_are_said(tmp_path, said):
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = [f"{name}.wav,0,8,ship" for name in "abc"] + ["a.wav,1,2,whale"]
    (tmp_path / "t.csv").write_text("\n".join(["filename,onset,offset,event_label", *rows]) + "\n")
    assert len(prepare(tmp_path).events) == 4
    assert "all events of ship are as long as their recordings" in said.text


def test_a_label_of_a_clip_whose_events_do_not_say_when():
    """It is the label of every crop, no frame counts, and scores in time do not hold it against anybody."""
    clips = pd.DataFrame({"clip_id": ["a"], "labels": ["ship whale"], "unknown_labels": ["ship"], "annotated": [1]})
    events = pd.DataFrame({"filename": ["a"], "onset": [1.0], "offset": [2.0], "event_label": ["whale"]})
    prepared = PreparedData(
        clips=clips, classes=["owl", "ship", "whale"], source=None, target=np.array([[0, 1, 1]]),
        mask=np.array([[1, 1, 1]]), events=events, whole=clips,
    )  # fmt: skip
    targets, grid = CropTargets(prepared, DataConfig(targets="events", frame_targets=True)), TimeBase(10, 1)
    for start, whale in ((0.0, 1), (5.0, 0)):
        target, mask = targets.of_crop(0, start, start + 3)
        assert (target.tolist(), mask.tolist()) == ([0, 1, whale], [1, 1, 1])
        assert targets.of_frames(0, start, grid, 30)[1].tolist() == [1, 0, 1]
    found = Predictions(
        np.array(["a"]), ("owl", "ship", "whale"), np.ones((1, 3), np.float32), np.zeros(1, int), np.zeros(1, bool),
        framewise_output=(np.full((80, 3), 0.9, np.float32),), timebase=grid,
    )  # fmt: skip
    kept, _ = Truth(prepared.target, events, clips=clips).in_time(found)
    np.testing.assert_allclose(kept.framewise_output[0].mean(axis=0), [0.9, 0, 0.9], rtol=1e-6)
    assert found.framewise_output[0].min() > 0.8, "as it was"

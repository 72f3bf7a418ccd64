"""Soft labels in time, such as MAESTRO's: values between 0 and 1 train, their cut at a half is scored."""

import pandas as pd
import pytest
import torch

from earshot.competitions.mine import prepare
from earshot.config import load_config
from earshot.data.labels import crop_targets, frame_targets, heard_shares
from earshot.data.prepared import load_data
from earshot.data.targets import CropTargets
from earshot.listening.scoring import read_events_of
from earshot.losses import frame_bce
from earshot.sound.timebase import TimeBase
from own_folders import record

ROWS = [(0, 1, "a", 0.25, 1), (0, 2, "b", 0.75, 0), (1, 2, "a", 1.0, 0), (1.5, 3, "b", 0.5, 0), (2, 3, "a", None, 1)]
EVENTS = pd.DataFrame(ROWS, columns=["onset", "offset", "event_label", "share", "is_negative"]).assign(filename="x")
GRID = TimeBase(100, 50)  # frames of half a second


def test_targets_of_events_with_shares():
    assert heard_shares(EVENTS).tolist() == [0.25, 0.75, 1, 0.5, 0]
    assert heard_shares(EVENTS.drop(columns="share")).tolist() == [0, 1, 1, 1, 0]
    frames = frame_targets(EVENTS, ["a", "b"], 0.0, GRID, 6)
    assert frames[:, 0].tolist() == [0.25, 0.25, 1, 1, 0, 0]
    assert frames[:, 1].tolist() == [0.75, 0.75, 0.75, 0.75, 0.5, 0.5]
    assert frame_targets(EVENTS, ["a", "b"], 0.5, GRID, 2, margin=0.2)[:, 0].tolist() == [0.25, 1], (
        "no gap between rows"
    )
    assert crop_targets(EVENTS, ["a", "b"], 0, 1)[0].tolist() == [0.25, 0.75]
    assert crop_targets(EVENTS, ["a", "b"], 0.5, 3)[0].tolist() == [1, 0.75]
    for wrong in (1.5, "loud"):
        with pytest.raises(ValueError, match=f"share of events is 0 to 1 or empty, but '{wrong}' in 1 row"):
            heard_shares(EVENTS.assign(share=[wrong, *EVENTS.share[1:]]))


def test_a_loss_on_shares_is_least_at_them():
    target = torch.tensor([[[0.25], [0.75]]])
    batch = {"target": torch.ones(1, 1), "mask": torch.ones(1, 1), "frame_target": target}
    at = [
        frame_bce({"clipwise_output": torch.ones(1, 1), "segmentwise_output": target + d}, batch)
        for d in (-0.1, 0, 0.1)
    ]
    assert at[1] < min(at[0], at[2])


def test_training_hears_shares_and_scores_the_cut(tiny):
    """Through the tables of a data set; data.event_shares=false trains on the cut too."""
    events = pd.read_csv("data/events.csv")
    first = events.filename.iloc[0]
    events["share"] = 1.0
    row = {"filename": first, "onset": 0.0, "offset": 0.4, "event_label": events.event_label.iloc[0], "share": 0.3}
    others = events[events.filename != first]
    table = pd.concat([others, pd.DataFrame([row | {"is_negative": 1}])])
    table.to_csv("data/events.csv", index=False)
    keys = ["data.targets=events", "data.frame_targets=true"]
    found = {}
    for kept in ("true", "false"):
        config = load_config(tiny, [*keys, f"data.event_shares={kept}", "data.keep_unlabelled=true"])
        data = load_data(config.data)
        index = data.clips.clip_id.tolist().index(first)
        targets = CropTargets(data, config.data)
        found[kept] = targets.of_frames(index, 0.0, TimeBase(8000, 80), 10)[0].max(), data.digests.clips
        assert len(data.clip_events([first])) == 0, "no true event"
    assert found["true"][0] == pytest.approx(0.3)
    assert found["false"][0] == 0
    table.assign(share=0.4).to_csv("data/events.csv", index=False)
    assert load_data(config.data).digests.clips != found["true"][1], "other shares are other tables"


def test_shares_of_tracks(tmp_path, caplog):
    """Values of 0 say that a class is not there, whether they are shares or not."""
    record(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "a.txt").write_text("0.0\t1.0\tfootsteps\t0.25\n0.0\t1.0\tcar\t0.5\n1.0\t2.0\tdishes\t0.125\n")
    (tmp_path / "b.txt").write_text("0.0\t1.0\tcar\t0.75\n1.0\t2.0\tcar\t0.0\n3.0\t4.0\tfootsteps\t1.0\n")
    tables = prepare(tmp_path, confidences="shares")
    assert tables.classes == ["car", "footsteps"]
    assert tables.clips.labels.tolist() == ["car", "car footsteps", ""]
    assert tables.events.drop(columns="offset").values.tolist() == [
        ["a", 0, "footsteps", 0.25, 1], ["a", 0, "car", 0.5, 0], ["b", 0, "car", 0.75, 0], ["b", 3, "footsteps", 1, 0]
    ]  # fmt: skip
    assert "4 of 6 rows train on a share between 0 and 1; 3 of 0.5 or more count as heard" in caplog.text
    assert "no event of dishes has a share of 0.5 or more: no class" in caplog.text
    assert len(prepare(tmp_path).events) == 5
    assert "1 of 6 rows have a confidence of 0, which says that a class is not there" in caplog.text


def test_the_truth_of_a_test_is_cut(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "events.csv").write_text(
        "filename,onset,offset,label,confidence,split\na,0,1,x,0.9,train\nb,0,1,x,0.4,test\nb,1,2,x,0.6,test\n"
    )
    tables = prepare(tmp_path, confidences="shares", split_column="split")
    assert tables.truth.values.tolist() == [["b", 1, 2, "x"]]
    assert tables.test_events.values.tolist() == [["b", 1, 2, "x"]]


def test_shares_where_there_are_none(tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("file,label\na,x\nb,y\n")
    with pytest.raises(ValueError, match="--confidences shares is of annotations"):
        prepare(tmp_path, confidences="shares")
    with pytest.raises(ValueError, match="--confidences is 'soft'; choose one of heard, shares"):
        prepare(tmp_path, confidences="soft")
    (tmp_path / "t.csv").write_text("file,onset,offset,label\na,0,1,x\n")
    with pytest.raises(ValueError, match="has no column such as confidence"):
        prepare(tmp_path, confidences="shares")


def test_a_column_of_scores_a_class(tmp_path):
    """As OpenSoundscape writes windows: what counts has to be said."""
    record(tmp_path, "a.wav", "b.wav")
    (tmp_path / "s.csv").write_text("file,start_time,end_time,wren,tit\na.wav,0,3,0.9,0.05\na.wav,3,6,0.2,0\n")
    with pytest.raises(ValueError, match="2 columns hold numbers from 0 to 1: wren, tit. .* --min-confidence 0.5, or"):
        prepare(tmp_path)
    assert prepare(tmp_path, min_confidence=0.5).events.values.tolist() == [["a", 0, 3, "wren"]]
    shares = prepare(tmp_path, confidences="shares").events
    assert shares[["onset", "event_label", "share"]].values.tolist() == [[0, "wren", 0.9], [3, "wren", 0.2]]
    with pytest.raises(ValueError, match=r"2 columns hold numbers from 0 to 1 \(wren, tit\)"):
        read_events_of(tmp_path / "s.csv")

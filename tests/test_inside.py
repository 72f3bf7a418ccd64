"""A fold's training clips as a data set of their own: what is in it, what of the outside it keeps, and the proof."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import make_folds as script
from earshot.config import DataConfig
from earshot.data.inside import clips_inside, digest_inside
from earshot.data.prepared import load_data
from earshot.prediction.origin import Origin
from earshot.prediction.predictions import Predictions
from earshot.training.lessons import check_unseen
from scripts import run

CLIPS = [f"c{i:02}" for i in range(24)]
OUTER = [i // 2 % 3 for i in range(22)] + [-1, -1]  # two that train in every fold


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder of 24 clips, two of a group, with events, and a fold table whose groups are its own."""
    monkeypatch.chdir(tmp_path)
    Path("data/mine").mkdir(parents=True)
    labels = ["low" if i % 4 < 2 else "high" for i in range(24)]
    clips = pd.DataFrame({"clip_id": CLIPS, "path": [f"a/{c}.wav" for c in CLIPS], "labels": labels, "note": "007"})
    clips.to_csv("data/mine/clips.csv", index=False)
    events = pd.DataFrame({"filename": CLIPS, "onset": 0.5, "offset": 1.0, "event_label": labels})
    events.to_csv("data/mine/events.csv", index=False)
    Path("data/mine/classes.csv").write_text("label\nlow\nhigh\n")
    Path("data/mine/dataset.json").write_text('{"competition": "mine_events", "source": "/recordings", "task": "sed"}')
    folds = pd.DataFrame({"clip_id": CLIPS, "group": [f"g{i // 2}" for i in range(24)], "fold": OUTER})
    folds.to_csv("outer.csv", index=False)
    return pd.read_csv("data/mine/clips.csv", dtype=str)


def inside(fold=1, *more):
    what = ("--clips", "data/mine/clips.csv", "--inside", "outer.csv", "--fold", fold)
    run(script, *what, "--k", 2, "--out", "inside.csv", *more)


def test_a_fold_s_training_clips_are_a_data_set_of_their_own(prepared, capsys):
    inside()
    assert "data.root=data/mine_inside1 data.folds=inside.csv" in capsys.readouterr().out
    data = load_data(DataConfig(root="data/mine_inside1", folds="inside.csv", competition="mine_events"))
    outside = {c for c, fold in zip(CLIPS, OUTER, strict=True) if fold == 1}
    assert set(data.clips.clip_id) == set(CLIPS) - outside
    assert set(data.events.filename) == set(CLIPS) - outside
    assert data.classes == ["low", "high"]
    assert data.source == Path("/recordings")
    assert pd.read_csv("data/mine_inside1/clips.csv", dtype=str).note.eq("007").all(), "other columns come as they are"
    folds = data.clips.set_index("clip_id").fold
    assert (folds[["c22", "c23"]] == -1).all(), "what trains in every fold outside does so inside"
    assert set(folds.drop(["c22", "c23"])) == {0, 1}
    assert all(folds[f"c{i:02}"] == folds[f"c{i + 1:02}"] for i in range(0, 22, 2) if f"c{i:02}" not in outside)


def test_what_is_there_is_not_replaced_unasked(prepared):
    inside()
    before = Path("data/mine_inside1/clips.csv").read_bytes()
    inside()
    prepared.assign(labels="low").to_csv("data/mine/clips.csv", index=False)
    with pytest.raises(ValueError, match="data/mine_inside1 exists and differs|inside.csv exists and differs"):
        inside()
    assert Path("data/mine_inside1/clips.csv").read_bytes() == before
    inside(1, "--force")
    assert Path("data/mine_inside1/clips.csv").read_bytes() != before


def test_no_such_fold_and_half_of_the_options(prepared, capsys):
    with pytest.raises(ValueError, match=r"fold 7 is not in outer.csv \(folds: 0-2\)"):
        inside(7)
    assert not Path("data/mine_inside7").exists()
    for half in (("--inside", "outer.csv"), ("--fold", 1)):
        with pytest.raises(SystemExit):
            run(script, "--clips", "data/mine/clips.csv", "--out", "inside.csv", *half)
        assert "--inside FOLDS and --fold N go together" in capsys.readouterr().err


def test_only_answers_of_networks_that_heard_nothing_else_are_taken_as_nested(prepared):
    inside()
    outer = load_data(DataConfig(root="data/mine", folds="outer.csv", competition="mine_events"))
    inner = load_data(DataConfig(root="data/mine_inside1", folds="inside.csv", competition="mine_events"))
    train, _ = outer.split(1, "outer.csv")
    held_out = inner.clips.fold.to_numpy() >= 0
    ids, folds = inner.clips.clip_id.to_numpy()[held_out], inner.clips.fold.to_numpy()[held_out]
    origins = tuple(Origin(run="sed/in", fold=k, tables=inner.digests) for k in (0, 1))
    oof = Predictions(
        clip_ids=ids, classes=("low", "high"), clipwise_output=np.full((len(ids), 2), 0.5, np.float32), fold=folds,
        unreadable=np.zeros(len(ids), bool), origins=origins,
    )  # fmt: skip
    student = Origin(run="sed/out", fold=1, tables=outer.digests)
    n = len(train.clips)

    def accepted(found, fold=1, data=train):
        check_unseen(
            found, data, len(data.clips), ["in.npz"], student,
            lambda: digest_inside(Path("data/mine"), "outer.csv", fold),
        )  # fmt: skip

    accepted(oof)
    assert n == 16
    with pytest.raises(ValueError, match="made with other folds than this run's: .*--inside"):
        accepted(replace(oof, origins=None))  # nobody knows what they heard
    with pytest.raises(ValueError, match="made with other folds than this run's"):
        accepted(replace(oof, origins=(origins[0], replace(origins[1], tables=outer.digests))))
    other, _ = outer.split(0, "outer.csv")
    with pytest.raises(ValueError, match="made with other folds than this run's"):
        accepted(oof, 0, other)  # they heard clips that fold 0 holds out
    assert len(clips_inside(prepared, "outer.csv", 0)) == 16


def test_a_table_given_from_its_own_folder(prepared, monkeypatch, capsys):
    monkeypatch.chdir("data/mine")
    run(script, "--clips", "clips.csv", "--inside", "../../outer.csv", "--fold", 1, "--k", 2, "--out", "inside.csv")
    assert Path("../mine_inside1/clips.csv").is_file()
    assert "mine_inside1 data.folds=inside.csv" in capsys.readouterr().out


def test_a_folder_that_is_refused_leaves_no_fold_table(prepared):
    inside()
    Path("inside.csv").unlink()
    prepared.assign(labels="low").to_csv("data/mine/clips.csv", index=False)
    with pytest.raises(ValueError, match="data/mine_inside1 exists and differs"):
        inside()
    assert not Path("inside.csv").exists()

"""What a table does not say is unknown: clips without rows in an event table, folds without events, watched scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train
from earshot import losses, tasks
from earshot.augment import mixing
from earshot.config import load_config
from earshot.data.answers import truth_of
from earshot.data.labels import annotated_clips
from earshot.data.prepared import load_data
from earshot.data.targets import CropTargets
from earshot.ensemble.oof import fold_scores, spread
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from scripts import run


def four_kinds(said=("1", "1", "", "0")):
    """The tiny competition with a clip of each kind in front: rows and annotated, none and annotated, none, a few."""
    clips, events = pd.read_csv("data/clips.csv"), pd.read_csv("data/events.csv")
    clips.loc[clips.clip_id == "c1", "labels"] = ""
    clips["annotated"] = [*said, *[""] * (len(clips) - len(said))]
    clips.to_csv("data/clips.csv", index=False)
    events = events[~events.filename.isin(["c1", "c2"])]
    events.loc[events.filename == "c3", ["onset", "offset"]] = (0.0, 0.4)
    events.to_csv("data/events.csv", index=False)


def clips_of(*said) -> pd.DataFrame:
    return pd.DataFrame({"clip_id": list("abcd")[: len(said)], "annotated": list(said)})


EVENTS = pd.DataFrame({"filename": ["a", "b"], "onset": 0.0, "offset": 1.0, "event_label": "x", "is_negative": [0, 1]})


def test_a_row_annotates_a_clip_where_nothing_else_is_said():
    clips = clips_of("", "", "")
    assert annotated_clips(clips.drop(columns="annotated"), EVENTS).tolist() == [True, False, False]
    assert annotated_clips(clips, EVENTS).tolist() == [True, False, False], "a false positive annotates nothing"
    assert annotated_clips(clips_of("0", "1", "1"), EVENTS).tolist() == [False, True, True]
    assert annotated_clips(clips_of(1.0, np.nan, 0.0), EVENTS).tolist() == [True, False, False]
    assert annotated_clips(clips_of(True, False), None).tolist() == [True, False]
    with pytest.raises(ValueError, match="`annotated` is 1, 0 or empty, but 'maybe' for 1 of 2 clips: b"):
        annotated_clips(clips_of("1", "maybe"), EVENTS)


def test_targets_of_each_kind_of_clip(tiny, caplog):
    four_kinds()
    config = load_config(tiny, ["data.targets=events", "data.frame_targets=true"])
    data = load_data(config.data)
    assert "1 of 24 clips have no events and are not `annotated`" in caplog.text
    assert data.clips.clip_id[:4].tolist() == ["c0", "c1", "c2", "c3"], "the silent clip stays"
    targets = CropTargets(data, config.data)
    low, none, all_known, unknown = [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]
    assert [x.tolist() for x in targets.of_crop(0, 0.0, 1.0)] == [low, all_known]
    assert [x.tolist() for x in targets.of_crop(1, 0.0, 1.0)] == [none, all_known]
    assert [x.tolist() for x in targets.of_crop(2, 0.5, 1.5)] == [[0, 0, 1], all_known], "the clip's label"
    assert [x.tolist() for x in targets.of_crop(3, 0.0, 1.0)] == [low, all_known]
    assert [x.tolist() for x in targets.of_crop(3, 0.5, 1.5)] == [none, unknown], "nobody said what is here"
    frames = [targets.of_frames(i, 0.0, TimeBase(8000, 80), 100) for i in range(4)]
    assert [known.tolist() for _, known in frames] == [all_known, all_known, unknown, unknown]
    assert frames[0][0][:, 0].all()
    assert not frames[1][0].any()


def test_what_nobody_can_tell_of_an_annotated_clip_is_masked(tiny):
    """Its own events stay known; a class of unknown_labels is masked where no event of it is written."""
    clips, events = pd.read_csv("data/clips.csv"), pd.read_csv("data/events.csv")
    classes = pd.read_csv("data/classes.csv").label.tolist()
    events = events[events.filename != "c0"]
    row = {"filename": "c0", "onset": 0.0, "offset": 0.4, "event_label": classes[0]}
    pd.concat([events, pd.DataFrame([row])]).to_csv("data/events.csv", index=False)
    clips.loc[0, ["clip_id", "labels"]] = "c0", classes[0]
    clips["unknown_labels"] = ""
    clips.loc[0, "unknown_labels"] = f"{classes[0]} {classes[2]}"
    clips.to_csv("data/clips.csv", index=False)
    config = load_config(tiny, ["data.targets=events", "data.frame_targets=true"])
    targets, grid = CropTargets(load_data(config.data), config.data), TimeBase(8000, 80)
    assert [x.tolist() for x in targets.of_crop(0, 0.0, 1.0)] == [[1, 0, 0], [1, 1, 0]]
    assert [x.tolist() for x in targets.of_crop(0, 0.5, 1.5)] == [[0, 0, 0], [0, 1, 0]]
    assert targets.of_frames(0, 0.0, grid, 100)[1].tolist() == [1, 1, 0]
    assert targets.of_frames(0, 0.5, grid, 100)[1].tolist() == [0, 1, 0]
    assert targets.of_crop(1, 0.0, 1.0)[1].tolist() == [1, 1, 1]
    off = load_config(tiny, ["data.targets=events", "data.frame_targets=true", "data.mask_unknown=false"])
    targets = CropTargets(load_data(off.data), off.data)
    assert targets.of_crop(0, 0.0, 1.0)[1].tolist() == [1, 1, 1]


def test_a_clip_without_label_and_annotation_says_nothing(tiny, caplog):
    four_kinds(("1", "", "", "0"))
    data = load_data(load_config(tiny, ["data.targets=events"]).data)
    assert "c1" not in data.clips.clip_id.tolist()
    assert "c3" in data.clips.clip_id.tolist()
    assert "1 of 24 clips have no label and are left out" in caplog.text


def test_frame_targets_need_an_annotated_clip(tiny):
    clips = pd.read_csv("data/clips.csv").assign(annotated=0)
    clips.to_csv("data/clips.csv", index=False)
    with pytest.raises(ValueError, match="no clip of .*clips.csv is annotated in time"):
        load_data(load_config(tiny, ["data.frame_targets=true"]).data)


def test_a_masked_frame_never_moves_the_loss():
    generator = torch.Generator().manual_seed(0)
    out = {
        "clipwise_output": torch.rand(3, 2, generator=generator),
        "segmentwise_output": torch.rand(3, 5, 2, generator=generator),
    }
    batch = {"target": torch.ones(3, 2), "mask": torch.ones(3, 2), "frame_target": torch.zeros(3, 5, 2)}
    batch["frame_mask"] = torch.tensor([[1.0, 1], [0, 0], [1, 0]])
    loss = losses.frame_bce(out, batch)
    changed = batch | {"frame_target": batch["frame_target"].clone()}
    changed["frame_target"][1], changed["frame_target"][2, :, 1] = 1, 1
    assert losses.frame_bce(out, changed) == loss
    known = -torch.log1p(-torch.cat([out["segmentwise_output"][0].ravel(), out["segmentwise_output"][2, :, 0]]))
    assert loss == pytest.approx(known.mean().item(), abs=1e-6)
    assert losses.bce(out, batch) == losses.bce(out, {k: v for k, v in batch.items() if k != "frame_mask"})
    mixed = mixing.mix_batch(batch, (), 0.5, torch.tensor([1, 0, 2]))
    assert mixed["frame_mask"].tolist() == [[0, 0], [0, 0], [1, 0]]
    assert mixed["mask"].all()


def oracle(data, wrong=()) -> Predictions:
    """Every event exactly where it is, 10-ms frames; of the clips `wrong` the opposite."""
    grid, frames = TimeBase(8000, 80), []
    for clip in data.clips.itertuples():
        active = np.full((300, len(data.classes)), 0.1, np.float32)
        for row in data.events[data.events.filename == clip.clip_id].itertuples():
            first, last = grid.frame(row.onset), -grid.frame(-row.offset)
            active[int(first) : int(last), data.classes.index(row.event_label)] = 0.9
        frames.append(1 - active if clip.clip_id in wrong else active)
    n = len(frames)
    clipwise = np.where(data.target > 0.5, 0.9, 0.1).astype(np.float32)
    ids = data.clips.clip_id.to_numpy(str)
    fold = data.clips.fold.to_numpy()
    return Predictions(
        ids, tuple(data.classes), clipwise, fold, np.zeros(n, bool), framewise_output=tuple(frames), timebase=grid
    )


def test_scores_in_time_are_of_annotated_clips(tiny):
    """Whatever is said of clips that nobody annotated, an oracle of the others scores 1."""
    four_kinds()
    data = load_data(load_config(tiny, ["data.targets=events"]).data)
    found = oracle(data, wrong=("c2", "c3"))
    scores = tasks.score_sed(found, truth_of(found, data))
    assert (scores["map"], scores["frame_map"], scores["event_f1"]) == (1, 1, 1)
    found = oracle(data, wrong=("c1",))
    assert tasks.score_sed(found, truth_of(found, data))["event_f1"] < 1, "a silent clip counts"


def test_a_fold_without_events_has_the_other_scores(tiny):
    events, folds = pd.read_csv("data/events.csv"), pd.read_csv("folds.csv").set_index("clip_id").fold
    events[events.filename.map(folds) != 1].to_csv("data/events.csv", index=False)
    data = load_data(load_config(tiny, []).data)
    found = oracle(data)
    truth = truth_of(found, data)
    by_fold = fold_scores(tasks.get_task("sed"), found, truth, "event_f1")
    assert by_fold[0] == by_fold[2] == 1
    assert np.isnan(by_fold[1])
    assert spread(by_fold) == " (mean of folds 1.0000 +- 0.0000: 1.0000 1.0000; not defined in fold 1)"
    assert spread({0: np.nan}) == " (not defined in fold 0)"
    one = found.fold == 1
    scores = tasks.score_sed(found.take(one), truth.take(one))
    assert scores["map"] == 1
    assert not {"frame_map", "event_f1"} & set(scores)
    said = tasks.remarks(tasks.get_task("sed"), found.take(one), truth.take(one))
    assert said == ["no annotated clip has an event: no score in time (frame_map, event_f1)"]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6), st.booleans())
def test_what_answers_define_does_not_depend_on_predictions(labels, with_events):
    """`defined_scores` names what `score_sed` gives for any predictions (but d-primes, which may be infinite)."""
    target = np.array(labels)
    ids = np.array([f"c{i}" for i in range(len(target))])
    rows = [(c, 0.0, 1.0, "ab"[k]) for c, row in zip(ids, target) for k in range(2) if row[k] and with_events]
    events = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    truth = tasks.Truth(target, events, clips=pd.DataFrame({"clip_id": ids}))
    rng = np.random.default_rng(len(labels))
    frames = tuple(rng.random((4, 2)).astype(np.float32) for _ in ids)
    found = Predictions(
        ids, ("a", "b"), rng.random((len(ids), 2)).astype(np.float32), np.zeros(len(ids), int),
        np.zeros(len(ids), bool), framewise_output=frames, timebase=TimeBase(2, 1),
    )  # fmt: skip
    loose = {"d_prime", "mean_d_prime"}
    expected = set(tasks.score_sed(found, truth)) - loose
    assert tasks.defined_scores(tasks.get_task("sed"), truth, ("a", "b"), True) - loose == expected


def test_clips_that_hold_every_class_have_no_clip_scores():
    """Any answer would be perfect: an LWLRAP or F1 of 1 says nothing, and an arg-max has no one class to hit."""
    ids, answers = np.array(["a", "b"]), np.array([[0.1, 0.9], [0.4, 0.2]], np.float32)
    found = Predictions(ids, ("x", "y"), answers, np.zeros(2, int), np.zeros(2, bool))
    both, one = tasks.Truth(np.ones((2, 2))), tasks.Truth(np.array([[1.0, 1], [1, 0]]))
    assert tasks.score_clips(found, both) == {}
    assert tasks.remarks(tasks.get_task("sed"), found, both) == [
        "every held-out clip holds every class: no score of whole clips"
    ]
    assert {"lwlrap", "map", "macro_f1"} <= set(tasks.score_clips(found, one))
    assert tasks.remarks(tasks.get_task("sed"), found, one) == [
        "no AP and AUC of 1 classes, which every held-out clip is of: x"
    ]


def test_a_watch_that_no_fold_defines_is_refused_before_training(tiny):
    labels = pd.read_csv("data/clips.csv").assign(labels="low mid")
    labels.to_csv("data/clips.csv", index=False)
    with pytest.raises(ValueError, match="watch 'accuracy' is not among the scores.*map"):
        run(train, "--config", tiny, "--fold", "0", "watch=accuracy")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_fold_that_does_not_define_the_watch_keeps_its_last_weights(tiny, capsys):
    clips, folds = pd.read_csv("data/clips.csv"), pd.read_csv("folds.csv").set_index("clip_id").fold
    clips.loc[clips.clip_id.map(folds) == 1, "labels"] = ""
    clips.to_csv("data/clips.csv", index=False)
    run(train, "--config", tiny, "--fold", "all", "data.keep_unlabelled=true", "optim.epochs=2")
    said = capsys.readouterr().out
    assert "fold 1: its held-out clips do not define map: the last epoch's weights are kept" in said
    assert "; not defined in fold 1)" in said
    log = pd.read_csv("runs/sed/tiny/fold1/log.csv")
    assert "map" not in log
    assert len(log) == 2

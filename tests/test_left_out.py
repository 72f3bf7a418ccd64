"""Training clips whose labels are left out, of which teachers alone speak: what is known of them, and rehearsing it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import train
from earshot.config import load_config
from earshot.data.embeddings import EmbeddingCache
from earshot.data.prepared import load_data
from earshot.data.targets import CropTargets
from earshot.inputs.given import Metadata
from earshot.inputs.teacher import Distill
from earshot.training.lessons import prepare_lessons
from earshot.training.unlabelled import with_left_out
from scripts import run
from test_distillation import teacher, teacher_file


@pytest.mark.parametrize("changed", [{"targets": "events"}, {"crop": "box"}, {"frame_targets": True}])
def test_events_of_clips_that_are_left_out_train_nothing(tiny, changed):
    """Neither a crop nor a frame of them says what is heard; those of the clips that keep their labels do."""
    teacher_file()
    table = pd.read_csv("data/clips.csv")
    table.assign(annotated=1).to_csv("data/clips.csv", index=False)
    config = load_config(tiny)
    how = replace(config.data, clips_per_class=2, **changed)
    config = replace(config, data=how, distill=Distill(teacher=teacher(), unlabelled="left_out"))
    few = load_data(how).split(0, how.folds)[0].limit(2, config.seed)
    data, lessons = prepare_lessons(config, 0, few, few.classes, Path("cache"), None)
    targets, grid = CropTargets(data, how), config.inputs().timebase(1)
    for index in range(len(data.clips)):
        keeps = index < lessons.n_labelled
        assert len(targets.events(index)) == keeps
        assert targets.of_crop(index, 0.0, 1.0)[1].all() == keeps
        assert targets.of_frames(index, 0.0, grid, 10)[1].all() == keeps


def test_clips_that_are_left_out_keep_what_the_network_takes_of_them(tiny):
    table = pd.read_csv("data/clips.csv")
    table.assign(hour=np.arange(len(table))).to_csv("data/clips.csv", index=False)
    config = load_config(tiny)
    data = replace(load_data(config.data), metadata=Metadata(columns=("hour",)))
    few = data.split(0, config.data.folds)[0].limit(2, config.seed)
    joined, _ = with_left_out(few, data.clips, 0)
    hours = dict(zip(data.clips.clip_id, data.clips.hour, strict=True))
    assert joined.metadata_values()[:, 0].tolist() == [hours[clip_id] for clip_id in joined.clips.clip_id]


def test_clips_of_other_classes_that_do_not_train_are_not_left_out(tiny):
    """`data.part_others` keeps them from a specialist, its teacher does not bring them back."""
    config = load_config(tiny, ["data.part={label: mid}", "data.part_others=0.1"])
    whole = load_data(config.data)
    train, _ = whole.split(0, config.data.folds)
    assert 0 < len(train.clips) < (whole.clips.fold != 0).sum()
    with pytest.raises(ValueError, match=f"all {len(train.clips)} clips of fold 0 train with their labels"):
        with_left_out(train, whole.clips, 0)
    few = train.limit(1, config.seed)
    joined, _ = with_left_out(few, whole.clips, 0)
    assert set(joined.clips.clip_id) == set(train.clips.clip_id)


def taught(config, *options):
    teacher_file()
    said = ["file=teacher.onnx", "sample_rate=4000", "output=embedding", "logits=scores", "labels=labels.txt"]
    run(train, "--config", config, "--fold", "0", *(f"distill.teacher.{text}" for text in said), *options)


def dry_run(config, *options):
    taught(config, "--dry-run", *options)


def test_a_dry_run_leaves_clips_out_too(tiny, capsys):
    dry_run(tiny, "distill.unlabelled=left_out", "data.clips_per_class=2")
    assert "Nothing was written; leave --dry-run out to train" in capsys.readouterr().out


def test_clips_that_are_left_out_are_not_called_unreadable(tiny, capsys):
    pd.read_csv("data/clips.csv").assign(duration=2.0).to_csv("data/clips.csv", index=False)
    taught(tiny, "optim.epochs=1", "distill.unlabelled=left_out", "data.clips_per_class=2")
    said = capsys.readouterr().out
    assert "clips train, " in said
    assert "unreadable" not in said


def test_of_many_recordings_without_labels_a_dry_run_hears_a_batch(tiny, monkeypatch):
    """All are checked: one that is a labelled clip is refused though it may not be among those heard."""
    wild, heard = Path("wild"), []
    wild.mkdir()
    for i in range(9):
        soundfile.write(wild / f"w{i}.wav", np.full(8000, 0.1), 8000)
    build = EmbeddingCache.build
    monkeypatch.setattr(
        EmbeddingCache, "build", lambda *args, **how: heard.extend(args[1].clip_id) or build(*args, **how)
    )
    dry_run(tiny, "distill.unlabelled=wild")
    assert sorted(clip_id for clip_id in heard if clip_id.startswith("w")) == ["w0", "w2", "w5", "w8"]
    soundfile.write(wild / "c3.wav", np.full(8000, 0.1), 8000)
    with pytest.raises(ValueError, match="1 recordings of distill.unlabelled are labelled clips of the data set: c3"):
        dry_run(tiny, "distill.unlabelled=wild")

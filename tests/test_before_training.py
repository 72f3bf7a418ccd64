"""What can be known before the first batch is said then: no folder is left, and the rehearsal leaves none either."""

from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import train
from earshot.augment.batch import BatchAugment
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.inputs.teacher import Distill
from earshot.runs import make_model
from earshot.training import clock
from earshot.training.checks import check_inputs, check_recordings, check_run, say_idle, say_of_data, say_slow_precision
from earshot.training.learnable import Head, Targets, why_not
from earshot.training.lessons import Lessons
from earshot.training.rehearsal import batches_of
from earshot.training.reporting import say_unreadable
from earshot.training.schedule import time_is_up
from earshot.training.watch import check_watch
from scripts import run

SIGMOID = Head(activation="sigmoid", logit=False, segments=True)
TAGGER = Head(activation="sigmoid", logit=True, segments=False)
SOFTMAX = Head(activation="softmax", logit=True, segments=True)
ONE = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1, 2]]
SEVERAL = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]], np.uint8)


def asked(target=ONE, mask=None, **what) -> Targets:
    return Targets(target=target, mask=np.ones_like(target) if mask is None else mask, **what)


@pytest.mark.parametrize(("override", "message"), [
    ("watch=mapp", r"watch 'mapp' .*did you mean"),
    ("task=sedd", r"unknown task 'sedd'.*did you mean 'sed'"),
    ("loss.name=bcee", r"unknown loss 'bcee'.*did you mean 'bce'"),
    ("loss={name: focal, params: {gama: 1}}", r"unknown parameter 'gama' of loss focal.*gamma"),
    ("optim.name=adamm", r"unknown optimizer 'adamm'"),
    ("augment.batch.logmel=[{name: rol}]", r"unknown log-mel augmentation 'rol'"),
    ("augment.batch.logmel=[{name: gain_db, min_db: x}]", r"'min_db' of log-mel .* gain_db must be a number, got 'x'"),
    ("augment.batch.logmel=[{name: roll, p: 2}]", r"augmentation roll: p must be a number from 0 to 1, got 2"),
    pytest.param("augment.batch.image=[{name: Rotat}]", r"Rotat", marks=pytest.mark.slow),
    ("augment.waveform=[{name: Gainn}]", r"Gainn"),
    ("augment.spec_augment={time_widht: 3}", r"time_widht"),
    ("predict.tta=[time_shft]", r"unknown test-time augmentation 'time_shft'"),
    ("data.crop_seconds=1.0e+9", r"a batch of 4 training crops of 1e\+09 s is .* GiB"),
    ("predict.window_seconds=1.0e+9", r"windows of 1e\+09 s"),
    ("optim.ema_decay=2", r"ema_decay must be from 0 to below 1"),
    ("optim.warmup_epochs=-1", r"warmup_epochs must be 0 or more"),
    ("optim.min_lr=0.1", r"optim.min_lr \(0.1\) is above optim.lr \(0.01\), so that the rate would rise"),
    ("optim.unfreeze_epochs=3", r"unfreeze_epochs \(3\) leaves no epoch of optim.epochs \(3\) to anything but"),
    ("data.crop_seconds=.nan", r"crop_seconds must be a number, got nan"),
    ("data.box_jitter=-0.5", r"box_jitter must be from 0 to 1"),
    ("frontends.logmel={kind: waveform}", r"augment.spec_augment acts on a log-mel"),
    ("model={name: cnn14_att}", r"cnn14_att cannot hear a crop of 1 s as 'logmel' of kind logmel, \(1, 101, 16\)"),
    ("model={name: cnn_smal}", r"unknown model 'cnn_smal'"),
    ("model.weights=nowhere.pth", r"nowhere.pth.*to train from random weights"),
    ("predict.clip_from=log_odds", r"log_odds needs a model with a logit"),
    ("loss.class_weights={lwo: 2}", r"loss.class_weights names 'lwo', which is no class; did you mean 'low'"),
    ("loss.class_weights={low: -2}", r"class_weights of 'low' must be from 0 to 1e\+06, got -2"),
    ("loss.class_weights={low: 1.0e+39}", r"class_weights of 'low' must be from 0 to 1e\+06, got 1e\+39"),
    ("model.params.dilations=[0]", r"'dilations' of model cnn_small must be 1 or more, got \[0\]"),
    ("model.params.dilations=3", r"'dilations' of model cnn_small must be a list, got 3"),
    ("augment.spec_augment={time_width: abc}", r"'time_width' of augment.spec_augment must be a whole number, got 'a"),
    ("augment.spec_augment={time_width: -1}", r"'time_width' of augment.spec_augment must be 0 or more, got -1"),
    ("augment.spec_augment_pp={layers: input}", r"spec_augment_pp.layers must be a list .*, got 'input'"),
    ("augment.batch.image=[{name: OneOf, transforms: 5}]", r"transforms of OneOf must be a list .*, got 5"),
    ("augment.batch.fmix_alpha=-1", r"augment.batch.fmix_alpha must be 0 or more, got -1"),
    ("loss={name: focal, params: {alpha: 5}}", r"loss.params.alpha .* at most 1, got 5"),
    ("budget.mmacs=-1", r"budget.mmacs must be 0 or more, got -1"),
    ("threads=1.0e+12", r"threads must be from 0 to 1024, got 1000000000000"),
    ("data.root=", r"data.root is empty: name the folder that prepare.py wrote"),
    ("predict.tta=[tempo]", r"tta 'tempo' moves events in time: .* Leave it out .*, or keep no frames"),
    ("loss={name: cross_entropy}", r"cnn_small cannot learn this: cross_entropy of sigmoid .*activation=softmax"),
])  # fmt: skip
def test_a_wrong_setting_leaves_no_folder(tiny, override, message):
    with pytest.raises(ValueError, match=message):
        run(train, "--config", tiny, "--fold", "0", override)
    assert not Path("runs").exists()


def test_a_front_end_that_the_network_cannot_hear(tiny):
    config = load_config(tiny, ["frontends.logmel={kind: waveform}", "augment.spec_augment={}", "augment.batch={}"])
    with pytest.raises(ValueError, match=r"cannot hear a crop of 1 s as 'logmel' of kind waveform, \(8000,\)"):
        check_run(config, load_data(config.data), [0])


@pytest.mark.parametrize("name", ["gain_db", "equalise"])
def test_decibels_are_added_to_pictures_in_decibels_alone(tiny, name):
    override = f"augment.batch.logmel=[{{name: {name}}}]"
    config = load_config(tiny, [override, "frontends.logmel.kind=pcen"])
    network = make_model(config, 2, weights_follow=True)
    with pytest.raises(ValueError, match=f"{name} adds decibels, and logmel is in another scale: use Gain"):
        check_inputs(network, config)
    check_inputs(network, load_config(tiny, [override]))


def test_recordings_that_are_not_there_are_said_first(tiny):
    Path("source").rename("elsewhere")
    with pytest.raises(ValueError, match=r"none of the first 20 recordings of the clip table is there.*dataset.json"):
        run(train, "--config", tiny, "--fold", "0")
    assert not Path("runs").exists()


def test_names_with_signs_of_rows_are_found(tiny):
    """`x.h5#17` is a row of a file, `rec #10 100%.wav` a file."""
    clips = pd.read_csv("data/clips.csv")
    for path in clips.path:
        (Path("source") / path).rename(Path("source") / f"rec #10 100% {path}")
    clips.assign(path="rec #10 100% " + clips.path).to_csv("data/clips.csv", index=False)
    check_recordings(load_data(load_config(tiny).data))


def test_classes_that_lost_their_recordings_are_said(tiny, caplog):
    config = load_config(tiny)
    say_of_data(config, load_data(config.data))
    assert not caplog.messages
    clips = pd.read_csv("data/clips.csv")
    for path in [*clips.path[clips.labels == "low"][1:], clips.path[clips.labels == "mid"].iloc[0]]:
        (Path("source") / path).unlink()
    data = load_data(config.data)
    say_of_data(config, data)
    (said,) = caplog.messages
    assert said.startswith("8 of 24 recordings that were looked at are not in ")
    assert said.endswith(", ... (5 more), and train nothing; most or all of low (7 of 8)")
    assert say_unreadable({"c0": "", "c1": ""}, data) == "2 clips could not be read"
    lost = dict.fromkeys(["c1", *(f"c{i}" for i in range(0, 15, 3))], "")
    assert say_unreadable(lost, data) == "6 clips could not be read, most or all that train low (5 of 8)"


def test_groups_that_the_folds_do_not_know_are_said_once(tiny, caplog):
    clips = pd.read_csv("data/clips.csv")
    clips.assign(group=["x", "y"] * 12).to_csv("data/clips.csv", index=False)
    run(train, "--config", tiny, "--fold", "0", "--dry-run")
    (said,) = [message for message in caplog.messages if "groups" in message]
    assert said.startswith("2 of 2 groups of ")
    assert "such as x (folds 0, 1, 2)" in said


@pytest.mark.parametrize(
    ("competition", "more", "said"),
    [
        ("rfcx", [], False),  # chosen by it
        ("esc50", [], True),  # a task that is not the competition's
        ("esc50", ["watch=accuracy"], False),
        ("esc50", ["watch=macro_auc"], False),  # as asked
        ("esc50", ["optim.select=last"], False),
        ("birdcall", [], False),  # ranked by rows, which post-processing cuts
        ("mine", [], False),
    ],
)
def test_weights_chosen_by_another_score_than_the_competitions_are_said(tiny, caplog, competition, more, said):
    config = load_config(tiny, ["optim.select=best"] * ("optim.select=last" not in more) + more)
    config = replace(config, data=replace(config.data, competition=competition))
    check_watch(config, load_data(config.data))
    assert ("are chosen by map, and esc50 ranks by accuracy: watch=accuracy chooses by that" in caplog.text) == said
    assert ("are chosen by" in caplog.text) == said


def test_outputs_too_far_apart_for_the_events_are_said(tiny, caplog):
    """A step of 40 ms; the tiny competition's events are longer, these are not."""
    config = load_config(tiny, ["data.targets=events", "data.frame_targets=true"])
    data = load_data(config.data)
    check_run(config, data, [0])
    assert "answers every" not in caplog.text
    check_run(config, replace(data, events=data.events.assign(offset=data.events.onset + 0.05)), [0])
    assert "cnn_small answers every 40 ms, and half of the events last 50 ms at most" in caplog.text


def test_what_is_left_of_a_folds_clips_is_checked(tiny):
    """A share of them may be of one class alone."""
    config = load_config(tiny, ["model.params.activation=softmax", "loss.name=cross_entropy", "data.train_share=0.05"])
    with pytest.raises(ValueError, match=r"fold 0 trains on clips of 1 classes"):
        check_run(config, load_data(config.data), [0])


def test_every_fold_is_checked_before_the_first(tiny):
    """Of two folds the second would train on one class alone."""
    table = pd.read_csv("folds.csv")
    labels = pd.read_csv("data/clips.csv").set_index("clip_id").labels[table.clip_id].to_numpy()
    table.assign(fold=(labels != "low").astype(int)).to_csv("folds.csv", index=False)
    config = load_config(tiny, ["model.params.activation=softmax", "loss.name=cross_entropy"])
    with pytest.raises(ValueError, match=r"fold 1 trains on clips of 1 classes \(low\)"):
        check_run(config, load_data(config.data), [0, 1])


def test_a_rehearsal_says_what_a_run_takes_and_leaves_nothing(tiny, capsys):
    before = sorted(Path().rglob("*"))
    run(train, "--config", tiny, "--fold", "all", "--dry-run", "data.cache=logmel")
    said = capsys.readouterr().out
    assert "a batch of 4 clips forwards and backwards: loss" in said
    for part in ("memory: ", " GiB", "an epoch: 3 batches, about", "3 epochs: about", "; 3 folds: about"):
        assert part in said
    assert sorted(Path().rglob("*")) == before


def test_a_rehearsal_counts_the_batches_of_a_whole_run(tiny):
    """Drawn unlabelled recordings among them, in whole steps of several batches."""
    config = load_config(tiny)
    train_data, _ = load_data(config.data).split(0, config.data.folds)
    assert len(train_data.clips) == 15
    batch = train_data.take(slice(0, 4))
    how = Distill(predictions=("oof.npz",), unlabelled="wild", unlabelled_share=0.5)
    lessons = Lessons(how=how, n_labelled=len(batch.clips), epochs=3, n_classes=3, chance=np.ones(9) / 9)
    assert batches_of(train_data, None, config.optim, 1) == 3
    assert batches_of(train_data, lessons, config.optim, 1) == 5, "15 clips and 8 draws"
    assert batches_of(train_data, lessons, replace(config.optim, accumulate=2), 1) == 4
    assert batches_of(train_data, lessons, config.optim, 2) == 2


@pytest.mark.slow
def test_an_epoch_says_its_place_and_the_time_left(tiny, capsys):
    run(train, "--config", tiny, "--fold", "0", "1", "optim.epochs=2")
    lines = [line for line in capsys.readouterr().out.splitlines() if " epoch " in line]
    assert [line.split(" | ")[0] for line in lines] == [f"fold {f} epoch {e}/2" for f in (0, 1) for e in (1, 2)]
    assert " s left, " in lines[0]
    assert lines[0].endswith(" of the run")
    assert all(len(line) < 160 for line in lines)


def test_folds_share_the_time():
    now = clock.time.time()
    end = now + 600
    assert clock.end_of_fold(end, 5) - now == pytest.approx(120, abs=1)
    assert clock.end_of_fold(end, 5, jobs=2) - now == pytest.approx(200, abs=1), "three rounds"
    assert clock.end_of_fold(now - 5, 3) == pytest.approx(now, abs=1), "late already: no fold gets a time below 0"
    assert clock.end_of_run(0) == float("inf")
    assert 8 * 60 < clock.end_of_run(10) - now < 10 * 60


def test_the_slow_first_step_does_not_end_a_training_of_long_recordings():
    now = clock.time.monotonic()
    config = SimpleNamespace(optim=SimpleNamespace(batch_size=2), predict=SimpleNamespace(stride_seconds=2.5),
                             data=SimpleNamespace(crop_seconds=5.0))  # fmt: skip
    t = SimpleNamespace(
        config=config, deadline=now + 60, progress=SimpleNamespace(log=[], out_of_time=False), step_began=now - 5.0,
        step_seconds=deque(), held_out=SimpleNamespace(clips=pd.DataFrame({"duration": [120.0] * 4})),
        accelerator=SimpleNamespace(num_processes=1, device="cpu", reduce=lambda value, how: value),
    )  # fmt: skip
    assert not time_is_up(t), "5 s for the first step are not 5 s for each: that would be 240 s to validate"
    t.step_began -= 0.1
    assert not time_is_up(t)
    t.deadline = now + 4
    assert time_is_up(t), "192 crops at 0.025 s each do not fit"


@pytest.mark.parametrize(("head", "loss", "task", "targets", "message"), [
    (SIGMOID, "cross_entropy", "tagging", asked(), "activation=softmax"),
    (SOFTMAX, "bce", "tagging", asked(SEVERAL), "activation=sigmoid"),
    (SOFTMAX, "cross_entropy", "tagging", asked(SEVERAL), "loss.name=bce"),
    (SOFTMAX, "cross_entropy", "tagging", asked(ONE[:, :1]), "loss.name=bce"),
    (SOFTMAX, "bce", "tagging", asked(ONE[:, :1]), "activation=sigmoid"),
    (SOFTMAX, "cross_entropy", "tagging", asked(mask=1 - np.roll(ONE, 1, axis=1)), "cannot mask single classes"),
    (SOFTMAX, "bce_clip_frame", "sed", asked(frames=True), "moments without one"),
    (SOFTMAX, "cross_entropy", "sed", asked(cut=True), "have no label"),
    (TAGGER, "bce_clip_frame", "sed", asked(), "loss.name=bce"),
    (SIGMOID, "bce", "scenes", asked(SEVERAL), "task=tagging"),
    (SIGMOID, "bce", "tagging", asked(mask=np.zeros_like(ONE)), "every one is masked"),
    (SIGMOID, "bce", "tagging", asked(np.ones_like(ONE)), "nothing to tell apart"),
])  # fmt: skip
def test_what_cannot_learn_is_refused_with_what_to_set(head, loss, task, targets, message):
    assert message in why_not(head, loss, task, targets)


@pytest.mark.parametrize(("head", "loss", "targets"), [
    (SIGMOID, "bce", asked()), (SIGMOID, "bce", asked(SEVERAL)), (SIGMOID, "focal", asked(SEVERAL)),
    (SIGMOID, "bce_clip_frame", asked(frames=True)), (SIGMOID, "bce", asked(mask=1 - np.roll(ONE, 1, axis=1))),
    (SOFTMAX, "cross_entropy", asked()), (SOFTMAX, "bce", asked()), (TAGGER, "cross_entropy", asked()),
    (SIGMOID, "bce_clip_frame", asked(np.ones_like(ONE), frames=True)), (SIGMOID, "bce", asked(ONE[:, :1])),
])  # fmt: skip
def test_what_can_learn_is_not(head, loss, targets):
    assert why_not(head, loss, "tagging", targets) == ""


def test_a_head_is_read_from_its_answers():
    logit = torch.randn(4, 5)
    softmax = {"clipwise_output": logit.softmax(dim=1), "logit": logit}
    assert Head.of(softmax) == Head(activation="softmax", logit=True, segments=False)
    assert Head.of({"clipwise_output": logit.sigmoid()}).activation == "sigmoid"
    zeros = torch.zeros(4, 2)
    assert Head.of({"clipwise_output": zeros.sigmoid(), "logit": zeros}).activation == "sigmoid", "sums to 1 by chance"


def test_a_way_to_mix_where_nothing_is_mixed_is_said(caplog):
    say_idle(BatchAugment(mixup_on="waveform", mixup_domain="level"))
    say_idle(BatchAugment())
    assert not caplog.records
    say_idle(BatchAugment(mixup_domain="level"))
    assert caplog.messages == [
        "augment.batch.mixup_domain=level does nothing while augment.batch.mixup_on is none: set it to waveform or "
        "logmel"
    ]


@pytest.mark.parametrize(("can", "said"), [((), ["bf16", "fp16"]), (("bf16",), ["fp16"]), (("bf16", "fp16"), [])])
def test_half_precision_that_the_processor_lacks_is_said(can, said, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "bf16" in can)
    monkeypatch.setattr(torch.cpu, "_is_amx_fp16_supported", lambda: "fp16" in can)
    for precision in ("no", "bf16", "fp16"):
        say_slow_precision(precision)
    assert [message.split(" is slower")[0] for message in caplog.messages] == [f"optim.precision={p}" for p in said]
    caplog.clear()
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    say_slow_precision("bf16")
    assert not caplog.messages

"""Training end to end on a tiny competition, through the scripts' own main()."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

import ensemble
import predict
import submit
import train
from conftest import write_tiny
from earshot import runs
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.prediction.origin import weights_origin
from earshot.prediction.predictions import Predictions
from earshot.sound.logmel import log_mel
from earshot.training.examples import TrainingClips, collate
from earshot.training.schedule import seed_step
from scripts import run

SRC = Path(__file__).parents[1] / "src"


def same_fold(a: Path, b: Path):
    """Weights, OOF and log (its times apart) are equal bit by bit."""
    one, two = (load_file(f / "best.safetensors") for f in (a, b))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = Predictions.load(a / "oof.npz"), Predictions.load(b / "oof.npz")
    np.testing.assert_array_equal(one.clipwise_output, two.clipwise_output)
    times = ["seconds", "clips_per_second", "validation_seconds"]
    logs = [pd.read_csv(f / "log.csv").drop(columns=times) for f in (a, b)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Fold 0 of the tiny run, trained to its end without a break."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(train, "--config", write_tiny(folder), "--fold", "0")
    return folder / "runs/sed/tiny/fold0"


@pytest.mark.slow
def test_from_training_to_a_valid_submission(tiny, capsys):
    run(
        train, "--config", tiny, "--fold", "all", "--name", "a", "optim.epochs=25", "optim.ema_decay=0",
        "optim.select=last",
    )  # fmt: skip
    run_dir = Path("runs/sed/a")
    assert {p.name for p in (run_dir / "fold1").iterdir()} >= {
        "config.yaml", "run.json", "log.csv", "best.safetensors", "last.ckpt", "oof.npz", "unreadable.csv",
        "curves.png", "classes.png",
    }  # fmt: skip
    log = pd.read_csv(run_dir / "fold0" / "log.csv")
    assert log.loss.iloc[-1] < 0.6 * log.loss.iloc[0]
    oof = Predictions.load(run_dir / "oof.npz")
    assert sorted(oof.clip_ids) == sorted(pd.read_csv("data/clips.csv").clip_id)
    run(predict, "--run", run_dir, "--clips", "data/test_clips.csv")
    test = Predictions.load(run_dir / "test.npz")
    folds = [Predictions.load(run_dir / f"fold{k}" / "test.npz").clipwise_output for k in range(3)]
    np.testing.assert_allclose(test.clipwise_output, np.mean(folds, axis=0), rtol=1e-5)
    run(
        train, "--config", tiny, "--fold", "all", "--name", "b", "optim.epochs=20", "optim.ema_decay=0",
        "optim.select=last", "seed=9",
    )  # fmt: skip
    run(predict, "--run", "runs/sed/b", "--clips", "data/test_clips.csv", "--tta", "time_shift", "gain")
    run(ensemble, "--runs", run_dir, "runs/sed/b", "--weights", "search", "--out", "runs/both.npz")
    run(submit, "--competition", "birdcall", "--predictions", "runs/both.npz", "--test", "data/test.csv", "--out",
        "submissions/x.csv", "--tune-on", "runs/both_oof.npz", "--clips", "data/clips.csv")  # fmt: skip
    rows = pd.read_csv("submissions/x.csv")
    assert rows.row_id.tolist() == pd.read_csv("data/test.csv").row_id.tolist()
    assert rows.birds.iloc[[0, 2, 4]].tolist() == ["low", "mid", "high"], capsys.readouterr().out
    log = pd.read_csv("submissions/log.csv")
    assert log.runs.tolist() == ["runs/sed/a runs/sed/b"]
    assert 0 < log.cv[0] <= 1
    with pytest.raises(ValueError, match=r"x.csv exists already"):
        run(submit, "--competition", "birdcall", "--predictions", "runs/both.npz", "--test", "data/test.csv", "--out",
            "submissions/x.csv")  # fmt: skip


def test_training_learns_to_tell_tones(tiny):
    """Eight epochs on three tones: every held-out clip is ranked right, and the log says what the OOF says."""
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=8", "optim.ema_decay=0", "optim.select=last",
        "augment.batch.mixup_p=0", draw=True)  # fmt: skip
    fold = runs.FoldRun(Path("runs/sed/tiny/fold0"))
    log, oof = pd.read_csv(fold.folder / "log.csv"), fold.oof()
    assert log.loss.iloc[-1] < 0.6 * log.loss.iloc[0]
    clips = pd.read_csv("data/clips.csv").set_index("clip_id")
    truth = np.stack([clips.labels[oof.clip_ids] == c for c in oof.classes], axis=1)
    found = average_precision_score(truth, oof.clipwise_output, average="macro")
    assert log["map"].iloc[-1] == pytest.approx(found, abs=1e-9)
    assert found > 0.95, "chance is 0.5 on nine clips"
    assert min((fold.folder / name).stat().st_size for name in ("curves.png", "classes.png")) > 5000


@pytest.mark.slow
def test_same_seed_same_bits_and_another_seed_not(tiny, whole):
    for name, seed in (("b", 3), ("c", 4)):
        run(train, "--config", tiny, "--fold", "0", "--name", name, f"seed={seed}")
    same_fold(whole, Path("runs/sed/b/fold0"))
    digests = [weights_origin(f / "best.safetensors").weights for f in (whole, Path("runs/sed/c/fold0"))]
    assert digests[0] != digests[1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("stop_after", "extra"), [
    (1, []), pytest.param(1, ["optim.accumulate=2"], marks=pytest.mark.slow),
    *(pytest.param(n, [], marks=pytest.mark.slow) for n in (3, 5, 8)),
    pytest.param(3, ["optim.accumulate=2"], marks=pytest.mark.slow),
])  # fmt: skip
def test_a_stopped_run_ends_like_one_never_stopped(tiny, whole, monkeypatch, stop_after, extra):
    """The process dies at the start of a step (of 3 an epoch): within an epoch, at its border, in the last one."""
    if extra:
        run(train, "--config", tiny, "--fold", "0", "--name", "whole", *extra)
        whole = Path("runs/sed/whole/fold0")
    extra = ["optim.checkpoint_steps=1", *extra]
    steps = []

    def dying(*arguments):
        steps.append(arguments)
        if len(steps) > stop_after:
            raise Killed
        return seed_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "seed_step", dying)
        with pytest.raises(Killed):
            run(train, "--config", tiny, "--fold", "0", "--name", "stopped", *extra)
    torch.manual_seed(999)  # whatever the new process starts from
    run(train, "--config", tiny, "--fold", "0", "--name", "stopped", "--resume", *extra)
    same_fold(whole, Path("runs/sed/stopped/fold0"))


@pytest.mark.slow
def test_folds_of_several_jobs_are_joined_and_said_once(tiny, capfd):
    run(train, "--config", tiny, "--fold", "all", "--name", "jobs", "--jobs", "2", "optim.epochs=1")
    said = capfd.readouterr().out
    assert said.count("OOF of 24 clips together, map") == 1
    assert "to go before an OOF" not in said
    assert len(Predictions.load("runs/sed/jobs/oof.npz")) == 24


@pytest.mark.slow
def test_out_of_time_leaves_a_valid_oof_and_can_go_on(tiny, whole, capsys):
    run(train, "--config", tiny, "--fold", "all", "--name", "short", "--max-minutes", "0.0001")
    said = capsys.readouterr().out
    assert "fold 1: stopped by time after 0 of 3 epochs; --resume goes on" in said
    assert "finished" not in said, "what time cut is not finished"
    oof = Predictions.load("runs/sed/short/oof.npz")
    assert len(oof) == 24
    assert not runs.FoldRun(Path("runs/sed/short/fold0")).finished
    run(train, "--config", tiny, "--fold", "0", "--name", "short", "--resume")
    same_fold(whole, Path("runs/sed/short/fold0"))


def test_early_stop(tiny, capsys):
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=9", "optim.early_stop_epochs=2", "optim.lr=1e-12")
    log = pd.read_csv("runs/sed/tiny/fold0/log.csv")
    assert len(log) < 9
    assert "no better score for 2 epochs" in capsys.readouterr().out


@pytest.mark.slow
def test_unreadable_clips_are_listed_and_lose_nothing_else(tiny, capsys):
    Path("source/c3.wav").write_bytes(b"RIFF nonsense")  # trains in folds 0 and 2
    Path("source/c0.wav").unlink()  # held out in fold 0
    run(train, "--config", tiny, "--fold", "0", "1", "2", "optim.epochs=1")
    listed = pd.read_csv("runs/sed/tiny/fold0/unreadable.csv")
    assert listed.clip_id.tolist() == ["c0", "c3"]
    assert "does not exist" in listed.reason[0]
    oof = Predictions.load("runs/sed/tiny/oof.npz")
    assert len(oof) == 24
    assert sorted(oof.clip_ids[oof.unreadable]) == ["c0", "c3"]
    place = list(oof.clip_ids).index("c0")
    np.testing.assert_allclose(oof.clipwise_output[place], runs.FoldRun(Path("runs/sed/tiny/fold0")).about["prior"])
    assert "unreadable" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_with_the_clips(tiny, monkeypatch):
    def nan_loss(**_):
        return lambda out, batch: out["clipwise_output"].sum() * float("nan")

    monkeypatch.setattr(train.losses, "build_loss", nan_loss)
    with pytest.raises(RuntimeError, match=r"loss is nan at epoch 0, step 0; clips c\d+, c\d+"):
        run(train, "--config", tiny, "--fold", "0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fold", "7"], r"fold 7 is not in .*folds.csv \(folds: 0-2\)"),
        (["--fold", "x"], "--fold takes numbers from 0, or 'all', got 'x'"),
        (["--fold", "0", "optim.lr"], "'optim.lr' is no fold; a setting is written as optim.lr=VALUE"),
        (["--fold", "0", "watch=mapp"], "watch 'mapp' is not among the scores .* did you mean 'map'"),
        (["--fold", "0", "task=sedd"], "unknown task 'sedd'; did you mean 'sed'"),
        (["--fold", "0", "model.name=cnn_smal"], "unknown model 'cnn_smal'; did you mean 'cnn_small'"),
        (["--fold", "0", "data.competition=bird"], "unknown competition 'bird'; did you mean 'birdcall'"),
        (
            ["--fold", "0", "augment.batch.logmel=[{name: gain}]"],
            "unknown log-mel augmentation 'gain'; did you mean 'gain_db'",
        ),
        (["--fold", "0", "loss.name=bcee"], "unknown loss 'bcee'; did you mean 'bce'"),
        (
            ["--fold", "0", "model.weights=nowhere.pth"],
            r"'nowhere.pth' not found: no such path, nor below /kaggle/input, .*to train from random weights: model.w",
        ),
        (["--fold", "0", "data.root=elsewhere"], "elsewhere"),
    ],
)
def test_bad_input_is_named(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(train, "--config", tiny, *arguments)


def test_labels_and_tables_that_do_not_fit(tiny):
    clips = pd.read_csv("data/clips.csv")
    clips.assign(labels=clips.labels.replace("mid", "midd")).to_csv("data/clips.csv", index=False)
    with pytest.raises(
        ValueError, match="clip 'c1' has the label 'midd', which is not in the class list; did you mean"
    ):
        run(train, "--config", tiny, "--fold", "0")
    clips.drop(columns="path").to_csv("data/clips.csv", index=False)
    with pytest.raises(ValueError, match="has no column 'path'"):
        run(train, "--config", tiny, "--fold", "0")


@pytest.mark.slow
def test_a_finished_fold_is_kept(tiny, capsys):
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=1")
    with pytest.raises(ValueError, match="never overwritten"):
        run(train, "--config", tiny, "--fold", "0", "optim.epochs=1")
    before = Path("runs/sed/tiny/fold0/best.safetensors").stat().st_mtime_ns
    run(train, "--config", tiny, "--fold", "0", "--resume", "optim.epochs=1")
    assert "finished before; kept" in capsys.readouterr().out
    assert Path("runs/sed/tiny/fold0/best.safetensors").stat().st_mtime_ns == before


def test_caches_hear_the_same(tiny):
    """A log-mel cut from the cache differs from the crop's own at most at its borders; a cached waveform by 16 bits."""
    crops = {}
    for name in ("none", "waveform", "logmel"):
        config = load_config(tiny, [f"data.cache={name}", "data.crop=full"])
        train_data, _ = load_data(config.data).split(0, config.data.folds)
        clips = TrainingClips(train_data, config.data, config.inputs(), config.seed, None, Path("cache"))
        batch = collate([clips[(0, i)] for i in range(len(clips))])
        crops[name] = FrontEnds(config.inputs())(batch)["logmel"]
    assert crops["none"].shape == crops["logmel"].shape
    assert (crops["none"] - crops["logmel"])[:, :, 2:-2].abs().max() < 2e-3
    assert (crops["none"] - crops["waveform"])[:, :, 2:-2].abs().mean() < 0.05
    run(train, "--config", tiny, "--fold", "0", "data.cache=logmel", "optim.epochs=1")


def test_frame_margin_shortens_the_frame_targets_alone(tiny):
    examples = []
    for margin in (0, 0.1):
        config = load_config(tiny, ["data.crop=full", "data.frame_targets=true", f"data.frame_margin_seconds={margin}"])
        train_data, _ = load_data(config.data).split(0, config.data.folds)
        examples.append(TrainingClips(train_data, config.data, config.inputs(), config.seed)[(0, 0)])
    plain, short = (np.flatnonzero(e["frame_target"].any(axis=1)) for e in examples)
    assert short[0] - plain[0] == 0.1 * config.data.sample_rate / config.frontends["logmel"].hop_length
    assert set(short) < set(plain)
    np.testing.assert_array_equal(examples[0]["target"], examples[1]["target"])


@pytest.mark.slow
def test_loader_workers_change_nothing(tiny, whole):
    run(train, "--config", tiny, "--fold", "0", "--name", "there", "data.workers=2")
    same_fold(whole, Path("runs/sed/there/fold0"))


def test_boxes_frames_and_waveform_augmentation(tiny):
    run(train, "--config", tiny, "--fold", "0", "data.crop=box", "data.frame_targets=true",
        "augment.waveform=[{name: Gain, p: 1.0}]", "augment.batch.mixup_on=waveform", "watch=frame_map",
        "optim.epochs=1")  # fmt: skip
    log = pd.read_csv("runs/sed/tiny/fold0/log.csv")
    assert {"frame_map", "event_f1"} <= set(log.columns)


def test_box_crops_are_scored_against_their_own_labels(tiny):
    """`crop_lwlrap` by a second way: crops one by one, scikit-learn's weighted ranking precision; never watched."""
    run(train, "--config", tiny, "--fold", "1", "data.crop=box", "optim.epochs=2", "optim.select=last",
        "optim.ema_decay=0", "predict.clip_from=frame_max", "predict.aggregate=sum", "watch=lwlrap")  # fmt: skip
    fold = runs.FoldRun(Path("runs/sed/tiny/fold1"))
    config, model = fold.config, runs.load_model(fold)
    _, held_out = load_data(config.data).split(1, config.data.folds)
    crops = TrainingClips(held_out, config.data, config.inputs(), config.seed)
    examples = [crops[(0, i)] for i in range(len(crops))]
    truth = np.stack([e["target"] for e in examples])
    answers = []
    for example in examples:
        logmel = log_mel(example["waveform"], config.frontends["logmel"])
        with torch.inference_mode():
            answers.append(model(torch.from_numpy(logmel)[None, None])["framewise_output"][0].amax(dim=0).numpy())
    expected = label_ranking_average_precision_score(truth, np.stack(answers), sample_weight=truth.sum(axis=1))
    log = pd.read_csv(fold.folder / "log.csv")
    assert log.crop_lwlrap.iloc[-1] == pytest.approx(expected, abs=1e-6)
    assert {"lwlrap", "map"} <= set(log.columns)
    with pytest.raises(ValueError, match="watch 'crop_lwlrap' is not among the scores"):
        run(train, "--config", tiny, "--fold", "0", "--name", "b", "data.crop=box", "watch=crop_lwlrap")


def test_crops_of_unreadable_and_unlabelled_clips_are_left_out(tiny):
    """A held-out clip with a false positive only has no label, another cannot be read: neither ends the run."""
    Path("source/c0.wav").write_bytes(b"RIFF nonsense")
    clips, events = pd.read_csv("data/clips.csv"), pd.read_csv("data/events.csv")
    clips.loc[clips.clip_id == "c1", "labels"] = ""
    clips.to_csv("data/clips.csv", index=False)
    events.assign(is_negative=(events.filename == "c1") * 1).to_csv("data/events.csv", index=False)
    run(train, "--config", tiny, "--fold", "0", "data.crop=box", "data.false_positives=true", "optim.epochs=1")
    log = pd.read_csv("runs/sed/tiny/fold0/log.csv")
    assert 0 < log.crop_lwlrap[0] <= 1
    assert log.unreadable[0] == 1
    assert "macro_f1_argmax" not in log, "a clip without a label has no arg-max class"


def test_frames_can_stay_out_of_the_oof_and_a_lookahead_that_never_looks_is_said(tiny, capsys):
    run(train, "--config", tiny, "--fold", "0", "predict.oof_frames=false", "optim.epochs=1", "optim.lookahead=999")
    assert "optim.lookahead=999 does nothing" in capsys.readouterr().out
    assert Predictions.load("runs/sed/tiny/fold0/oof.npz").framewise_output is None
    run(predict, "--run", "runs/sed/tiny", "--clips", "data/test_clips.csv")
    assert len(Predictions.load("runs/sed/tiny/test.npz").framewise_output) == 3


@pytest.mark.slow
def test_two_processes_hear_every_clip_once(tiny):
    """torchrun: both processes train, and the OOF holds each held-out clip exactly once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29555"]
    command += [str(SRC / "train.py"), "--config", str(tiny), "--fold", "0", "optim.batch_size=2"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "2 x 2 = 4 clips a step" in done.stdout
    oof = Predictions.load("runs/sed/tiny/fold0/oof.npz")
    folds = pd.read_csv("folds.csv")
    assert sorted(oof.clip_ids) == sorted(folds.clip_id[folds.fold == 0])


@pytest.mark.slow
def test_wandb_offline_needs_no_account(tiny):
    environment = os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_API_KEY", None)
    command = [sys.executable, str(SRC / "train.py"), "--config", str(tiny), "--fold", "0", "track=wandb:earshot"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(Path("runs/sed/tiny/fold0/wandb").glob("offline-run-*"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_on_the_cpu(tiny, precision):
    run(train, "--config", tiny, "--fold", "0", f"optim.precision={precision}", "optim.epochs=8")
    log = pd.read_csv("runs/sed/tiny/fold0/log.csv")
    assert np.isfinite(log.loss).all()
    assert log.loss.iloc[-1] < log.loss.iloc[0]

"""Validation loss by a second way, and runs made of given weights without a training step."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import export
import predict
import report
import train
from earshot import runs
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.kaggle.bundling import BundleSettings, build
from earshot.pictures import folds as fold_pictures
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.sound.logmel import log_mel
from earshot.training.validation import WindowLosses
from scripts import run

LAST = ("optim.epochs=1", "optim.select=last", "optim.ema_decay=0")


def window_answers(fold: runs.FoldRun, path: Path) -> list[dict]:
    """A model's outputs of each second of a recording, one by one."""
    model, config = runs.load_model(fold), fold.config
    waveform = audio.load(path, 8000)
    seconds = [audio.crop_or_pad(waveform[i : i + 8000], 8000) for i in range(0, len(waveform), 8000)]
    with torch.inference_mode():
        logmels = [torch.from_numpy(log_mel(s, config.frontends["logmel"]))[None, None] for s in seconds]
        return [{k: v[0].double().numpy() for k, v in model(x).items()} for x in logmels]


def binary_cross_entropy(p, t):
    epsilon = np.finfo(np.float32).eps  # how near 0 and 1 a probability comes
    p = np.clip(p, epsilon, 1 - epsilon)
    return float(np.mean(-(t * np.log(p) + (1 - t) * np.log1p(-p))))


def test_val_loss_is_the_loss_of_the_windows_a_clip_at_a_time(tiny):
    Path("source/c1.wav").write_bytes(b"RIFF nonsense")  # held out: says nothing, ends nothing
    run(train, "--config", tiny, "--fold", "0", *LAST)
    fold = runs.FoldRun(Path("runs/sed/tiny/fold0"))
    _, held_out = load_data(fold.config.data).split(0, fold.config.data.folds)
    each = []
    for clip in held_out.clips.itertuples():
        if clip.clip_id != "c1":
            truth = (np.array(held_out.classes) == clip.labels).astype(float)
            answers = window_answers(fold, Path("source") / clip.path)
            clip_terms = [binary_cross_entropy(a["clipwise_output"], truth) for a in answers]
            strongest = [a["segmentwise_logit"].max(axis=0) for a in answers]
            frame_terms = [np.mean(np.logaddexp(0, x) - truth * x) for x in strongest]
            each.append(np.mean(clip_terms) + 0.5 * np.mean(frame_terms))
    assert len(each) == 8
    assert max(len(window_answers(fold, Path("source") / p)) for p in held_out.clips.path if p != "c1.wav") == 2
    log = pd.read_csv(fold.folder / "log.csv")
    assert log.val_loss.tolist() == pytest.approx([np.mean(each)], rel=1e-4)
    assert fold.about["scores"]["val_loss"] == pytest.approx(log.val_loss[0], rel=1e-12)  # written as text in the log


def test_windows_have_the_targets_of_crops_at_their_place(tiny):
    """targets=events, frame targets: c0's tone from 0.5 s; its first second is half silent, its second has no event."""
    events = pd.read_csv("data/events.csv")
    events.loc[events.filename == "c0", ["onset", "offset"]] = 0.5, 1.0
    events.to_csv("data/events.csv", index=False)
    run(train, "--config", tiny, "--fold", "1", "--name", "a", *LAST, "data.targets=events", "data.frame_targets=true")
    config = runs.FoldRun(Path("runs/sed/a/fold1")).config
    data = load_data(config.data)
    losses = WindowLosses(config, data.take(np.flatnonzero(data.clips.clip_id == "c0")))
    first, second = (losses._targets(0, start) for start in (0.0, 1.0))
    np.testing.assert_array_equal(first["target"], [1, 0, 0])
    assert first["frame_target"].shape == (101, 3)
    active = np.flatnonzero(first["frame_target"][:, 0])
    assert (active[0], active[-1], len(active)) == (50, 99, 50)
    assert not second["target"].any()
    assert not second["frame_target"].any()


def test_around_a_false_positive_only_that_is_known(tiny):
    events = pd.DataFrame({"filename": "c0", "onset": [0.2, 1.2], "offset": [0.8, 1.8], "event_label": ["low", "mid"],
                           "is_negative": [0, 1]})  # fmt: skip
    events.to_csv("data/events.csv", index=False)
    config = load_config(tiny, ["data.crop=box", "data.false_positives=true"])
    data = load_data(config.data)
    losses = WindowLosses(config, data.take(np.flatnonzero(data.clips.clip_id == "c0")))
    first, second, third = (losses._targets(0, start) for start in (0.0, 1.0, 2.0))
    np.testing.assert_array_equal([first["target"], first["mask"]], [[1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal([second["target"], second["mask"]], [[0, 0, 0], [0, 1, 0]])
    assert not third["mask"].any()
    quarter = np.full((25, 3), 0.25, np.float32)
    outputs = {"clipwise_output": quarter[0], "segmentwise_output": quarter}
    losses.hear(0, 16000, outputs)
    assert losses.of_clips() == [], "nothing is known of these seconds"
    losses.hear(0, 8000, outputs)
    assert losses.of_clips() == [pytest.approx(1.5 * -np.log(0.75))]


@pytest.mark.slow
def test_no_val_loss_where_there_are_no_windows(tiny):
    run(train, "--config", tiny, "--fold", "0", *LAST, "predict.one_pass=true")
    assert "val_loss" not in pd.read_csv("runs/sed/tiny/fold0/log.csv")


@pytest.mark.slow
def test_a_run_of_given_weights_needs_no_step(tiny, capsys, image_with_runtimes):
    """optim.epochs=0: the same OOF as the run that trained them; predict, report and export take it as any other."""
    run(train, "--config", tiny, "--fold", "all", "--name", "a", "optim.epochs=2")
    given = "runs/sed/a/fold{fold}/best.safetensors"
    run(train, "--config", tiny, "--fold", "all", "--name", "b", "optim.epochs=0", f"model.weights={given}",
        "data.cache=logmel", "--max-minutes", "5")  # fmt: skip
    for fold in range(3):
        before, after = (load_file(f"runs/sed/{name}/fold{fold}/best.safetensors") for name in "ab")
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before), "batch norm's statistics too"
    assert "weights as given, no training step" in capsys.readouterr().out
    assert not Path("data/cache").exists(), "no training clip is decoded"
    a, b = (runs.FoldRun(Path(f"runs/sed/{name}/fold0")) for name in "ab")
    assert (b.finished, b.about["epochs_trained"]) == (True, 0)
    log = pd.read_csv(b.folder / "log.csv")
    for name in ("map", "val_loss"):
        assert log[name].tolist() == [b.about["scores"][name]] == [a.about["scores"][name]]
    oofs = [Predictions.load(f"runs/sed/{name}/oof.npz") for name in "ab"]
    np.testing.assert_array_equal(oofs[0].clipwise_output, oofs[1].clipwise_output)
    for name in "ab":
        run(predict, "--run", f"runs/sed/{name}", "--clips", "data/test_clips.csv")
    tests = [Predictions.load(f"runs/sed/{name}/test.npz").clipwise_output for name in "ab"]
    np.testing.assert_array_equal(*tests)
    run(export, "--run", "runs/sed/b", "--format", "onnx")
    run(report, "--runs", "runs/sed/a", "runs/sed/b", "--out", "pictures")
    built = build(
        BundleSettings(runs=(Path("runs/sed/b"),), competition="birdclef2026", slug="some-one/given-weights"),
        Path("kernels"),
    )
    assert (built / "dataset" / "sed-b_fold0.onnx").is_file()
    run(train, "--config", tiny, "--fold", "0", "--name", "b", "--resume", "optim.epochs=0", f"model.weights={given}",
        "data.cache=logmel")  # fmt: skip
    assert "finished before; kept" in capsys.readouterr().out


@pytest.mark.slow
def test_a_published_checkpoint_becomes_a_run(tiny):
    """A file of tensors under `model`, as others publish them, with the counters that old versions of torch lack."""
    run(train, "--config", tiny, "--fold", "0", "--name", "a", *LAST)
    state = load_file("runs/sed/a/fold0/best.safetensors")
    published = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save({"model": published, "iteration": 7}, "published.pth")
    run(train, "--config", tiny, "--fold", "1", "--name", "b", "optim.epochs=0", "model.weights=published.pth",
        "optim.warmup_epochs=1")  # fmt: skip
    kept = load_file("runs/sed/b/fold1/best.safetensors")
    assert all(torch.equal(kept[k], published[k]) for k in published)


@pytest.mark.parametrize(("overrides", "message"), [
    ([], "optim.epochs=0 evaluates given weights .* model.weights names none"),
    (["model.weights=runs/sed/a/fold0/best.safetensors", "model.drop=[fc1]"], "fc1.weight, fc1.bias would keep random"),
    (["model.weights=nowhere.pth"], "'nowhere.pth' not found"),
])  # fmt: skip
def test_without_all_weights_there_is_nothing_to_evaluate(tiny, overrides, message):
    run(train, "--config", tiny, "--fold", "0", "--name", "a", *LAST)
    with pytest.raises(ValueError, match=message):
        run(train, "--config", tiny, "--fold", "0", "--name", "b", "optim.epochs=0", *overrides)


def test_curves_show_both_losses(tmp_path):
    from matplotlib.axes import Axes

    drawn = []
    original = Axes.plot

    def plot(axes, *arguments, **options):
        drawn.append((options.get("label"), [list(a) for a in arguments]))
        return original(axes, *arguments, **options)

    log = [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5, "val_loss": 0.7, "map": 0.2}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Axes, "plot", plot)
        fold_pictures.learning_curves(log, "map", tmp_path / "curves.png")
        fold_pictures.learning_curves([{"epoch": 0, "val_loss": 0.7}], "map", tmp_path / "given.png")
    assert drawn[:2] == [("training", [[1, 2], [1.0, 0.5]]), ("held-out", [[2], [0.7]])], "epochs count from 1"
    assert drawn[-1] == ("held-out", [[1], [0.7]])

"""What the birdcall source does its own way, as options: folds, the score on one crop, the rate of an epoch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import StratifiedKFold

import train
from earshot import runs
from earshot.data.folds import make_folds
from earshot.data.prepared import load_data
from earshot.inputs.waveforms import as_heard
from earshot.training.examples import TrainingClips
from scripts import run


def test_table_order_is_scikit_learns_call_on_the_competitions_own_table():
    """Not sorted by clip_id, ids that sort otherwise, groups or not: the folds of a notebook's StratifiedKFold."""
    rng = np.random.default_rng(5)
    labels = rng.choice(list("dacb"), 400, p=[0.5, 0.3, 0.15, 0.05])
    clips = pd.DataFrame({"clip_id": [f"XC{n}" for n in rng.permutation(400)], "labels": labels})
    clips["group"] = rng.choice(list("xyz"), 400)
    expected = pd.Series(-1, index=clips.clip_id)
    for fold, (_, held_out) in enumerate(StratifiedKFold(5, shuffle=True, random_state=42).split(clips, clips.labels)):
        expected.iloc[held_out] = fold
    found = make_folds(clips, method="table_order").set_index("clip_id").fold
    assert found.to_dict() == expected.to_dict()
    again = make_folds(clips.iloc[::-1], method="table_order").set_index("clip_id").fold
    assert again.to_dict() != expected.to_dict(), "the order counts"
    clips.loc[0, "labels"] = "a b"
    with pytest.raises(ValueError, match="stratifies by the one label of each clip; some clips have several"):
        make_folds(clips, method="table_order")


@pytest.mark.slow
def test_one_random_crop_of_every_held_out_clip_is_scored_beside_the_whole_recordings(tiny):
    """By a second way: crops one by one, scikit-learn's F1 of the arg-max class and average precision."""
    run(train, "--config", tiny, "--fold", "1", "optim.epochs=2", "optim.select=last", "optim.ema_decay=0",
        "optim.score_crops=true", "watch=map")  # fmt: skip
    fold = runs.FoldRun(Path("runs/sed/tiny/fold1"))
    config, model = fold.config, runs.load_model(fold)
    _, held_out = load_data(config.data).split(1, config.data.folds)
    crops = TrainingClips(held_out, config.data, config.inputs(), config.seed)
    examples = [crops[(0, i)] for i in range(len(crops))]
    record, answers = config.frontends["logmel"], []
    for example in examples:
        logmel = record.compute(as_heard(example["waveform"], config.data.sample_rate, record))
        with torch.inference_mode():
            answers.append(model(torch.from_numpy(logmel)[None])["clipwise_output"][0].numpy())
    truth, answers = np.stack([e["target"] for e in examples]) > 0.5, np.stack(answers)
    log = pd.read_csv(fold.folder / "log.csv").iloc[-1]
    precision = [average_precision_score(t, a) for t, a in zip(truth.T, answers.T, strict=True) if t.any()]
    assert log.crop_map == pytest.approx(np.mean(precision), abs=1e-6)
    best = np.eye(truth.shape[1], dtype=int)[answers.argmax(axis=1)]
    expected = f1_score(truth.astype(int), best, average="macro", zero_division=0)
    assert log.crop_macro_f1_argmax == pytest.approx(expected, abs=1e-6)
    assert {"map", "macro_f1_argmax"} <= set(log.index)


def test_the_rate_of_a_cosine_that_moves_on_once_an_epoch(tiny):
    """The last step of each epoch, as log.csv has it: that of torch's CosineAnnealingLR stepped once an epoch."""
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=4", "optim.lr=0.01", "optim.schedule=cosine",
        "optim.schedule_every=epoch", "optim.warmup_epochs=0")  # fmt: skip
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.01)
    schedule, expected = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4), []
    for _ in range(4):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(pd.read_csv("runs/sed/tiny/fold0/log.csv").lr, expected, rtol=1e-9)

"""Clips that count in the loss by a column of clips.csv (data.sample_weight)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train
from earshot import losses
from earshot.config import load_config
from earshot.data.labels import sample_weights
from earshot.data.prepared import load_data
from earshot.training.examples import TrainingClips, collate
from scripts import run


def with_ratings(config_path: Path, ratings) -> Path:
    """A column `rating` in the clip table of a config: these cells in turn."""
    path = Path(load_config(config_path).data.root) / "clips.csv"
    table = pd.read_csv(path, dtype=str)
    table["rating"] = np.resize(np.array(ratings, object), len(table))
    table.to_csv(path, index=False)
    return path


def batch_of(config_path: Path, *settings: str) -> dict:
    config = load_config(config_path, ["data.sample_weight=rating", *settings])
    train_data, _ = load_data(config.data).split(0, config.data.folds)
    clips = TrainingClips(train_data, config.data, config.inputs(), config.seed)
    return collate([clips[(0, i)] for i in range(len(clips))])


def test_weights_are_one_on_average_and_an_empty_cell_is_the_mean():
    clips = pd.DataFrame({"clip_id": list("abcd"), "rating": ["1", "", "3", None]})
    np.testing.assert_array_equal(sample_weights(clips, "rating"), [1, 2, 3, 2])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1", "good"], "is no number from 0 to 1e.09 for 1 of 2 clips: b"),
        (["-1", "2"], "for 1 of 2 clips: a"),
        (["inf", "2"], "for 1 of 2 clips: a"),
        (["0", ""], "no clip has a number above 0 in column 'rating'"),
    ],
)
def test_what_cannot_weigh_is_named(cells, said):
    with pytest.raises(ValueError, match=said):
        sample_weights(pd.DataFrame({"clip_id": ["a", "b"], "rating": cells}), "rating")


def test_a_column_that_is_not_there_is_named(tiny):
    with pytest.raises(ValueError, match="rating"):
        load_data(replace(load_config(tiny).data, sample_weight="rating"))


def test_a_clip_that_weighs_nothing_teaches_nothing(tiny, caplog):
    with_ratings(tiny, ["0", "5", "2"])
    batch = batch_of(tiny)
    n = len(batch["weight"])
    assert batch["weight"].mean() == pytest.approx(1)
    none = batch["weight"] == 0
    assert f"{int(none.sum())} of {n} clips have a rating of 0" in caplog.text
    out = {"logit": torch.randn(batch["target"].shape, generator=torch.Generator().manual_seed(0))}
    before = losses.bce(out, batch)
    assert (
        losses.bce(out, batch | {"target": torch.where(none[:, None], 1 - batch["target"], batch["target"])}) == before
    )
    assert losses.bce(out, {k: v for k, v in batch.items() if k != "weight"}) != before


def test_equal_ratings_are_none(tiny):
    with_ratings(tiny, ["3"])
    assert (batch_of(tiny)["weight"] == 1).all()


@pytest.mark.slow
def test_a_run_learns_by_ratings(tiny):
    scores = {}
    with_ratings(tiny, ["1", "5", ""])
    for name, settings in (("plain", []), ("rated", ["data.sample_weight=rating"])):
        run(train, "--config", tiny, "--fold", "0", "--name", name, "optim.epochs=1", *settings)
        scores[name] = pd.read_csv(f"runs/sed/{name}/fold0/log.csv").loss[0]
    assert scores["plain"] != scores["rated"]

"""Networks that take columns of the clip table beside the sound: trained, exported, predicted; kernels have none."""

import numpy as np
import pandas as pd
import pytest
import torch

import export
import predict
import tiny_graphs
import train
from earshot import runs
from earshot.config import load_config
from earshot.data.labels import clip_metadata
from earshot.data.prepared import load_data
from earshot.kaggle.bundling import BundleSettings, build
from earshot.models import MODELS
from earshot.prediction.backends import open_graph
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Predictions
from scripts import run

pytestmark = pytest.mark.usefixtures("image_with_runtimes")

COLUMNS = ("week", "hour")


class Aware(torch.nn.Module):
    """Answers by the level of the sound, and by week and hour alone where there is none."""

    inputs, activation, in_chans, min_frames, pool, dead_parameters = ("logmel", "metadata"), "sigmoid", 1, 1, 1, ()
    spec_augment = None

    def __init__(self, classes, n_mels):
        super().__init__()
        self.of_sound, self.of_metadata = torch.nn.Linear(n_mels, classes), torch.nn.Linear(len(COLUMNS), classes)

    def forward(self, logmel, metadata):
        logit = self.of_sound(logmel[:, 0].mean(dim=1) / 50) + self.of_metadata(metadata / 10)
        return {"clipwise_output": logit.sigmoid(), "logit": logit}


def add_columns(path, **columns):
    table = pd.read_csv(path)
    table.assign(**{name: values[: len(table)] for name, values in columns.items()}).to_csv(path, index=False)


@pytest.fixture
def aware(tiny, monkeypatch):
    """The tiny competition with week and hour, and the folder of a run trained on them."""
    monkeypatch.setitem(MODELS, "aware", Aware)
    for table in ("clips", "test_clips"):
        add_columns(f"data/{table}.csv", week=np.arange(60) % 52 + 0.5, hour=np.arange(60) % 24)
    run(train, "--config", tiny, "--fold", 0, "--name", "aware", "model.name=aware", "model.params={}",
        "data.metadata=[week, hour]", "predict.keep_frames=false", "loss.name=bce",
        "watch=map", "optim.epochs=1")  # fmt: skip
    return runs.load_run("runs/sed/aware")


def test_validation_and_prediction_give_the_network_its_columns(aware):
    fold = aware.folds[0]
    held_out = load_data(aware.config.data).split(0, aware.config.data.folds)[1]
    heard = held_out.recordings()
    np.testing.assert_array_equal(heard[1].metadata, held_out.clips.loc[1, list(COLUMNS)].to_numpy(np.float32))
    oof = fold.oof().aligned([c.clip_id for c in heard])
    run(predict, "--run", aware.folder, "--clips", "data/test_clips.csv")
    before = Predictions.load(aware.folder / "test.npz")
    add_columns("data/test_clips.csv", week=np.full(60, 1000.0), hour=np.arange(60))
    run(predict, "--run", aware.folder, "--clips", "data/test_clips.csv")
    assert np.abs(before.clipwise_output - Predictions.load(aware.folder / "test.npz").clipwise_output).max() > 0.1
    assert len(oof) == len(heard)


@pytest.mark.parametrize("graph_format", ["onnx", "openvino"])
def test_graphs_take_them_too(aware, graph_format):
    run(export, "--run", aware.folder, "--format", graph_format)
    run(predict, "--run", aware.folder, "--clips", "data/test_clips.csv", "--out", "torch.npz")
    run(
        predict, "--run", aware.folder, "--clips", "data/test_clips.csv", "--backend", graph_format, "--out",
        "graph.npz",
    )  # fmt: skip
    ours, theirs = (Predictions.load(f"{name}.npz").clipwise_output for name in ("graph", "torch"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    graph = open_graph(aware.folder / "fold0" / ("model.onnx" if graph_format == "onnx" else "model.xml"))
    assert graph.about["metadata"] == list(COLUMNS)
    if graph_format == "onnx":
        with pytest.raises(
            ValueError, match=r"sed/aware takes week, hour of each recording, which the hidden test of synth"
        ):
            build(BundleSettings(runs=(aware.folder,), competition="synth", slug="user/aware-net"), "kernels")


def test_tables_that_lack_them(aware, tiny):
    with pytest.raises(
        ValueError, match=r"takes week, hour of each recording, which a folder does not say: give --clips"
    ):
        run(predict, "--run", aware.folder, "--clips", "source")
    pd.read_csv("data/test_clips.csv").drop(columns="hour").to_csv("data/less.csv", index=False)
    with pytest.raises(ValueError, match=r"less\.csv has no column 'hour'"):
        run(predict, "--run", aware.folder, "--clips", "data/less.csv")
    table = pd.DataFrame({"clip_id": ["a", "b", "c"], "week": [1, "", "x"]})
    with pytest.raises(ValueError, match=r"column 'week' is given to the network .* no number for 2 of 3 clips: b, c"):
        clip_metadata(table, ("week",))
    with pytest.raises(ValueError, match=r"clips\.csv has no column 'weak'; did you mean 'week'"):
        load_data(load_config(tiny, ["data.metadata=[weak]"]).data)
    config = aware.config
    held_out = load_data(config.data).recordings()
    bare = [type(c)(c.clip_id, c.path) for c in held_out[:2]]
    backend = type("B", (), {"inputs": ("logmel", "metadata"), "frontends": {}})()
    with pytest.raises(ValueError, match="takes metadata of each recording, which 2 of 2 come without, such as "):
        predict_clips([backend], bare, config.predict, ("a",), np.zeros(1))


def test_columns_that_no_network_takes_are_no_reason_to_refuse_a_bundle(tmp_path):
    tiny_graphs.write_graph(tmp_path / "run" / "fold0" / "model.onnx", metadata=["hour"])
    assert build(
        BundleSettings(runs=(tmp_path / "run",), competition="birdclef2026", slug="user/kernel"), tmp_path / "kernels"
    ).is_dir()

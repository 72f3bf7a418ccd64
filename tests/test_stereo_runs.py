"""Two channels and several rates, from files to training, caches, graphs and predictions."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

import export
import predict
import train
from earshot import runs
from earshot.augment.pipeline import BatchAugment, augment_batch
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.inputs.given import Metadata
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.models import MODELS
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.training.examples import TrainingClips, collate
from scripts import run

SIDED = ("data.channels=mid_side", "predict.keep_frames=false", "loss.name=bce", "optim.epochs=1")


@pytest.fixture
def sided(tiny):
    """The tiny competition in stereo: the sound left, half of it and other noise right; clip 4 and test 1 stay mono."""
    rng = np.random.default_rng(5)
    names = [f"c{i}" for i in range(24) if i != 4] + ["t0", "t2"]
    for name in names:
        left = audio.load(f"source/{name}.wav", 8000)
        noise = 0.02 * rng.standard_normal(len(left)).astype(np.float32)
        audio.write(f"source/{name}.wav", np.stack([left, 0.5 * left + noise]), 8000)
    return tiny


@pytest.mark.slow
def test_stereo_trains_and_predicts(sided):
    run(train, "--config", sided, "--fold", 0, "--name", "sides", *SIDED)
    model = runs.load_model(runs.load_run("runs/sed/sides").folds[0])
    assert model.in_chans == 2
    predict_here = ("--run", "runs/sed/sides", "--clips", "data/test_clips.csv")
    run(predict, *predict_here)
    before = Predictions.load("runs/sed/sides/test.npz").clipwise_output
    sides = audio.load("source/t0.wav", 8000, mono=False)
    audio.write("source/t0.wav", np.stack([sides.mean(axis=0)] * 2), 8000)  # the same mid, no side
    run(predict, *predict_here, "--out", "mono.npz")
    after = Predictions.load("mono.npz").clipwise_output
    assert np.abs(after[0] - before[0]).max() > 1e-4, "the side channel is heard"
    np.testing.assert_array_equal(after[1:], before[1:])


@pytest.mark.slow
def test_graphs_hear_both_channels(sided):
    run(train, "--config", sided, "--fold", 0, "--name", "sides", *SIDED)
    folder = runs.load_run("runs/sed/sides").folder
    run(export, "--run", folder, "--format", "onnx", "--int8")
    run(export, "--run", folder, "--format", "openvino")
    for name, options in {"torch": (), "onnx": ("--int8",), "openvino": ()}.items():
        run(predict, "--run", folder, "--clips", "data/test_clips.csv", "--out", f"{name}.npz", "--backend", name,
            *options)  # fmt: skip
    ours, graph, int8 = (Predictions.load(f"{n}.npz").clipwise_output for n in ("torch", "openvino", "onnx"))
    np.testing.assert_allclose(ours, graph, atol=1e-4)
    assert np.abs(ours - int8).mean() < 0.2, "three epochs leave weights that int8 rounds coarsely"


@pytest.mark.parametrize("channels", ["stereo", "mid_side"])
def test_every_cache_hears_both_channels(sided, channels):
    crops = {}
    for cache in ("none", "waveform", "packed", "logmel"):
        options = [f"data.cache={cache}", f"data.channels={channels}", "data.crop=full", "data.pack_seconds=3"]
        config = load_config(sided, options)
        train_data, _ = load_data(config.data).split(0, config.data.folds)
        clips = TrainingClips(train_data, config.data, config.inputs(), config.seed)
        crops[cache] = FrontEnds(config.inputs())(collate([clips[(0, i)] for i in range(len(clips))]))["logmel"]
    place = train_data.clips.clip_id.tolist().index("c4")
    for cache, crop in crops.items():
        assert crop.shape == (15, 2, 101, 16), cache
        inside = (crops["none"] - crop)[:, :, 2:-2].abs()
        assert inside.max() < 2e-3 if cache == "logmel" else inside[:, 0].mean() < 0.05, cache
        one, other = crop[place]  # a mono file: both sides alike, or no side
        assert torch.equal(one, other) if channels == "stereo" else other.max() < -60


def test_networks_that_hear_one_channel_say_so(sided):
    with pytest.raises(ValueError, match=r"two channels \(stereo\), leenet11 takes 1 .* frontends.waveform.channels="):
        run(train, "--config", sided, "--fold", 0, "data.channels=stereo", "model.name=leenet11", "model.params={}",
            "augment.spec_augment={}", "augment.batch.mixup_on=none", "loss.name=bce")  # fmt: skip
    with pytest.raises(ValueError, match=r"input 'logmel' has two channels \(stereo\), cnn_small takes 1"):
        run(train, "--config", sided, "--fold", 0, "data.channels=stereo", "model.params.in_chans=1")


class TwoRates(torch.nn.Module):
    """Answers by the levels of a log-mel at the data's rate, one at half of it, and a column."""

    inputs, in_chans, min_frames, pool, dead_parameters, spec_augment = ("logmel", "low", "metadata"), 1, 1, 1, (), None

    def __init__(self, classes, n_mels, n_metadata):
        super().__init__()
        self.of = torch.nn.ModuleList([torch.nn.Linear(n, classes) for n in (n_mels, 12, n_metadata)])

    def forward(self, logmel, low, metadata):
        given = (logmel[:, 0].mean(dim=1) / 50, low[:, 0].mean(dim=1) / 50, metadata.nan_to_num(5.0))
        logit = sum(layer(x) for layer, x in zip(self.of, given, strict=True))
        return {"clipwise_output": logit.sigmoid(), "logit": logit}


@pytest.mark.parametrize("cache", ["none", "logmel"])
def test_two_rates_and_metadata_with_gaps(tiny, monkeypatch, cache):
    monkeypatch.setitem(MODELS, "two_rates", TwoRates)
    for table in ("clips", "test_clips"):
        path = f"data/{table}.csv"
        clips = pd.read_csv(path)
        clips.assign(week=np.where(np.arange(len(clips)) % 3, np.arange(len(clips)), np.nan)).to_csv(path, index=False)
    options = ("model.name=two_rates", "model.params={}", "predict.keep_frames=false", "loss.name=bce",
               "frontends.low={sample_rate: 4000, n_fft: 128, hop_length: 40, n_mels: 12, fmax: 2000}",
               "data.metadata=[week]", "augment.spec_augment={}", "predict.stride_seconds=0.5",
               f"data.cache={cache}")  # fmt: skip
    with pytest.raises(ValueError, match=r"no number for 8 of 24 clips.*data.metadata_missing=\{week: 0\} says"):
        run(train, "--config", tiny, "--fold", 0, *options)
    options += ("data.metadata_missing={week: 7}", "optim.epochs=1", "watch=map")
    run(train, "--config", tiny, "--fold", 0, "--name", "two", *options)
    fold = runs.load_run("runs/sed/two").folds[0]
    run(predict, "--run", "runs/sed/two", "--clips", "data/test_clips.csv")
    found = Predictions.load("runs/sed/two/test.npz").clipwise_output[0]
    model, config = runs.load_model(fold), fold.config
    heard = config.inputs(model.inputs)
    assert heard["low"].sample_rate == 4000
    waveform, answers = audio.load("source/t0.wav", 8000), []
    for start in range(0, 76000, 4000):
        window = heard.hear(audio.crop_or_pad(waveform[start : start + 8000], 8000), {"metadata": np.array([7.0])})
        with torch.inference_mode():
            out = model(**{name: torch.from_numpy(value[None]) for name, value in window.items()})
        answers.append(expit(out["logit"][0].numpy()))
    np.testing.assert_allclose(found, np.max(answers, axis=0), atol=0.02)  # slices see true sound at their borders
    if cache == "none":
        run(export, "--run", "runs/sed/two", "--format", "onnx")


def test_metadata_is_mixed_with_the_sound():
    heard = Inputs.made({"logmel": Logmel(sample_rate=8000, fmax=4000)}, ("logmel", "metadata"), 8000,
                        metadata=Metadata(columns=("a", "b")))  # fmt: skip
    gap = float("nan")
    batch = {
        "clip_id": ["a", "b", "c"], "waveform": torch.randn(3, 800), "target": torch.eye(3), "mask": torch.ones(3, 3),
        "metadata": torch.tensor([[1.0, gap], [2.0, 5.0], [4.0, 6.0]]),
    }  # fmt: skip
    for on in ("waveform", "logmel"):
        generator = torch.Generator().manual_seed(4)
        mixing = BatchAugment(mixup_on=on, mixup_alpha=1.0)
        out = augment_batch(batch, FrontEnds(heard), mixing, generator)
        shares = out["target"]  # rows are the shares of the three clips
        assert not torch.equal(shares, batch["target"])
        torch.testing.assert_close(out["metadata"][:, 0], shares @ batch["metadata"][:, 0])
        unknown = shares[:, 0] > 0  # the first clip's gap spreads to whatever it is mixed into
        assert torch.equal(out["metadata"][:, 1].isnan(), unknown)


def test_members_that_decode_other_channels_do_not_share_a_pass(sided):
    config = load_config(sided, ["data.channels=stereo"])
    windowing = config.predict
    assert windowing.n_channels == 2
    heard = config.inputs(("logmel",))

    class Left:
        inputs, frontends, timebase, pooling = ("logmel",), heard, heard.timebase(1), "mean"

        def run(self, inputs):
            mean = inputs["logmel"].mean(axis=(2, 3))
            return {"clipwise_output": mean, "segmentwise_output": mean[:, None]}

    clips = load_data(config.data).recordings()[:5]
    (found,), _ = predict_clips([Left()], clips, windowing, ("left", "right"), np.zeros(2))
    assert (found.clipwise_output[:4, 0] > found.clipwise_output[:4, 1]).all()
    assert found.clipwise_output[4, 0] == found.clipwise_output[4, 1], "a mono file is heard on both sides"

"""Transfer: a network's embedding into a new head, frozen or fine-tuned, its embeddings cached."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import predict
import train
from earshot import optim, runs
from earshot.config import load_config
from earshot.data.embeddings import EmbeddingCache, segment_starts
from earshot.data.prepared import load_data
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.models import blocks as network_blocks
from earshot.models import build_model
from earshot.models.weights import load_weights
from earshot.prediction.predictions import Predictions
from earshot.training.examples import TrainingClips, collate
from earshot.training.frozen import extractor_cache
from earshot.training.schedule import seed_step
from scripts import run
from test_train import Killed, same_fold

BASE = {"base": "cnn6", "base_classes": 5, "base_params": {"widths": [4, 8, 8, 8], "embedding": 16}}


def build(classes=3, **params):
    torch.manual_seed(1)
    return build_model("transfer", classes, 16, BASE | params)


def logmel(batch=4, frames=64):
    return torch.randn(batch, 1, frames, 16, generator=torch.Generator().manual_seed(0)) * 8 - 30


def test_a_frozen_base_does_not_move():
    """No gradient, no optimiser memory, batch norm statistics as they were; the same embedding in training."""
    model = build(hidden=[12, 8], dropout=0.5).train()
    before = {k: v.clone() for k, v in model.base.state_dict().items()}
    optimizer = optim.build_optimizer("adamw", model, 0.1, 0.1)
    for _ in range(3):
        model(logmel=logmel())["logit"].square().sum().backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in model.base.state_dict().items())
    assert all(p.grad is None for p in model.base.parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for n, p in model.named_parameters() if n.startswith("fc_")}
    assert len(model.fc_hidden) == 2
    assert not model.base.training
    assert model.fc_hidden.training
    torch.testing.assert_close(model(logmel=logmel())["embedding"], model.eval()(logmel=logmel())["embedding"])


def test_fine_tuning_moves_all_but_the_base_s_own_head():
    model = build(freeze=False).train()
    assert model.dead_parameters == ("base.fc_audioset.weight", "base.fc_audioset.bias")
    mean = model.base.bn0.running_mean.clone()
    model(logmel=logmel())["logit"].square().sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == set(model.dead_parameters)
    assert not torch.equal(mean, model.base.bn0.running_mean)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_head_by_hand(activation):
    model = build(activation=activation).eval()
    out, embedding = model(logmel=logmel()), model.base(logmel=logmel())["embedding"]
    logit = embedding @ model.fc_transfer.weight.T + model.fc_transfer.bias
    torch.testing.assert_close(out["logit"], logit)
    expected = logit.softmax(1) if activation == "softmax" else logit.sigmoid()
    torch.testing.assert_close(out["clipwise_output"], expected)
    torch.testing.assert_close(model(embedding=embedding)["logit"], logit)


@pytest.mark.parametrize("base", ["cnn_small", "cnn_modulation", "cnn14_att"])
def test_any_network_with_an_embedding_can_be_the_base(base):
    params = {"widths": [4, 8, 8, 8, 8, 8], "embedding": 16} if base == "cnn14_att" else {}
    model = build_model("transfer", 3, 64, {"base": base, "base_params": params})
    assert model(logmel=torch.zeros(4, 1, 64, 64))["logit"].shape == (4, 3)
    assert model.embedding_width == model.fc_transfer.in_features


def test_wrong_parameters_are_named():
    with pytest.raises(ValueError, match="unknown model 'cnn66'; did you mean 'cnn6'"):
        build(base="cnn66")
    with pytest.raises(ValueError, match="activation is 'soft'; choose one of "):
        build(activation="soft")
    with pytest.raises(ValueError, match="unknown parameter 'hiden' of model transfer; did you mean 'hidden'"):
        build(hiden=[3])


def test_a_checkpoint_of_the_base_loads_strictly(tmp_path):
    """Keys without `base.`; only the new head is named as kept. A checkpoint of the whole loads too."""
    base = build_model("cnn6", 5, 16, BASE["base_params"])
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    model = build(hidden=[7])
    report = load_weights(model, tmp_path / "base.safetensors", prefix=model.weights_prefix)
    assert set(report.kept) == {"fc_hidden.0.weight", "fc_hidden.0.bias", "fc_transfer.weight", "fc_transfer.bias"}
    assert not report.dropped
    assert all(torch.equal(v, model.base.state_dict()[k]) for k, v in base.state_dict().items())
    save_file(model.state_dict(), tmp_path / "whole.safetensors")
    assert load_weights(build(hidden=[7]), tmp_path / "whole.safetensors", prefix="base.").kept == ()
    with pytest.raises(ValueError, match=r"other shape: base\.fc_audioset\.weight: \(5, 16\) in the file, \(9, 16\)"):
        load_weights(build(base_classes=9), tmp_path / "base.safetensors", prefix="base.")
    report = load_weights(build(base_classes=9), tmp_path / "base.safetensors", drop=["fc_audioset"], prefix="base.")
    assert set(report.dropped) == {"base.fc_audioset.weight", "base.fc_audioset.bias"}
    state = {k: v for k, v in base.state_dict().items() if k != "fc1.bias"}
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"missing from the file: base\.fc1\.bias"):
        load_weights(build(), tmp_path / "less.safetensors", prefix="base.")


# blocks, layer-wise rates, gradual unfreezing


def names(model):
    for name, parameter in model.named_parameters():  # as training does
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(model.dead_parameters))
    return [block.name for block in network_blocks.depth_blocks(model)]


def test_blocks_run_from_the_input_to_the_head():
    inner = [f"base.conv_block{i}" for i in (2, 3, 4)]
    whole = ["base.bn0 base.conv_block1", *inner, "base.fc1", "fc_hidden.0", "fc_transfer"]
    assert names(build(freeze=False, hidden=[6])) == whole
    assert names(build(hidden=[6])) == ["fc_hidden.0", "fc_transfer"]
    small = names(build_model("cnn_small", 3, 16))
    assert small == ["bn0 stages.0", "stages.1", "stages.2", "stages.3", "fc1", "head"]
    model = build(freeze=False)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for block in network_blocks.depth_blocks(model) for p in block.parameters} == trained


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_each_block_learns_slower_than_the_one_above(name):
    model = build_model("cnn_small", 3, 16)
    groups = optim.build_optimizer(name, model, 0.1, 0.01, layer_decay=0.5).param_groups
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    expected = {"head.cla.weight": 1, "fc1.bias": 0.5, "stages.3.conv1.weight": 0.25, "stages.0.conv1.weight": 1 / 32,
                "bn0.weight": 1 / 32}  # fmt: skip
    parameters = dict(model.named_parameters())
    assert {n: scale[id(parameters[n])] for n in expected} == expected
    assert len(scale) == len(parameters)
    assert groups[0]["lr"] == 0.1
    assert all(group["lr"] == pytest.approx(0.1 * group["lr_scale"]) for group in groups)
    decays = {p.ndim > 1: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == ({True: 0.01, False: 0.0} if name == "adamw" else {True: 0.01, False: 0.01})


def test_unfreezing_goes_down_from_the_head():
    model = build(freeze=False).train()
    names(model)
    blocks = network_blocks.depth_blocks(model)
    network_blocks.unfreeze(blocks, 2)
    learning = {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {"fc1", "fc_transfer"}
    assert not model.base.conv_block4.bn1.training
    assert not model.base.bn0.training
    model.train()
    network_blocks.unfreeze(blocks, 99)
    assert all(m.training for m in model.modules())
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == set(model.dead_parameters)


# the cache of embeddings


@pytest.fixture
def frozen(tiny):
    """The tiny competition's config with a frozen base that has a checkpoint."""
    torch.manual_seed(5)
    base = build_model("cnn6", 5, 16, BASE["base_params"])
    with torch.no_grad():
        base(logmel=logmel(64))  # batch norm statistics that are not the initial ones
    save_file(base.state_dict(), "base.safetensors")
    text = tiny.read_text()
    text = text[: text.index("model:")] + f"model: {{name: transfer, weights: base.safetensors, params: {BASE}}}\n"
    text = text.replace("crop_seconds: 1.0", "crop: full, crop_seconds: 1.0") + (
        "task: tagging\nloss: {name: cross_entropy}\noptim: {epochs: 3, batch_size: 4, lr: 1.0e-2}\n"
    )
    tiny.write_text(text.replace("task: sed\n", ""))
    return tiny


def load(config):
    model = build_model("transfer", 3, 16, config.model.params)
    load_weights(model, config.model.weights, prefix="base.")
    return model.eval()


def test_cached_and_fresh_embeddings_give_the_same_logits(frozen):
    config = load_config(frozen)
    model, data = load(config), load_data(config.data)
    cache = extractor_cache(model, config, data, Path("cache"), "cpu", iter)
    batches = []
    for embeddings in (None, cache):
        clips = TrainingClips(data, config.data, config.inputs(), 3, None, Path("cache"), embeddings)
        batches.append(collate([clips[(0, i)] for i in range(len(clips))]))
    fresh = model(**FrontEnds(config.inputs())(batches[0]))
    torch.testing.assert_close(model(embedding=batches[1]["embedding"])["logit"], fresh["logit"], rtol=1e-4, atol=1e-5)
    assert fresh["logit"].std() > 0
    for key in ("target", "mask", "clip_id"):
        assert np.array_equal(np.array(batches[0][key]), np.array(batches[1][key]))


def test_the_cache_is_made_again_when_anything_that_shapes_it_changes(frozen):
    def key(*overrides):
        config = load_config(frozen, overrides)
        return extractor_cache(load(config), config, load_data(config.data), Path("cache"), "cpu", iter).path.name

    first = key()
    made = Path("cache", first, "embedding.f32").stat().st_mtime_ns
    assert key("model.params.hidden=[8]", "data.clips_per_class=2", "optim.lr=1") == first
    assert Path("cache", first, "embedding.f32").stat().st_mtime_ns == made
    others = [key("data.crop=random"), key("data.crop_seconds=0.5"), key("frontends.logmel.fmin=100")]
    state = build_model("cnn6", 5, 16, BASE["base_params"]).state_dict()
    save_file(state, "other.safetensors")
    others.append(key("model.weights=other.safetensors"))
    Path("source/c1.wav").write_bytes(Path("source/c2.wav").read_bytes())
    others.append(key())
    assert len({first, *others}) == 6


def test_a_segment_counts_when_half_of_it_is_sound():
    assert segment_starts(100, 40, True).tolist() == [0, 40, 80]
    assert segment_starts(99, 40, True).tolist() == [0, 40]
    assert segment_starts(100, 40, False).tolist() == [0]
    assert segment_starts(3, 40, True).tolist() == [0]


def test_segments_of_long_short_and_unreadable_clips(tiny):
    Path("source/c4.wav").write_bytes(b"RIFF nonsense")
    clips = pd.DataFrame({"clip_id": ["c2", "c4", "c0", "t0"], "path": ["c2.wav", "c4.wav", "c0.wav", "t0.wav"]})

    def embed(waveform):
        return np.stack([np.abs(waveform).mean(1), waveform[:, 0]], axis=1)

    cache = EmbeddingCache.build("cache", clips, "source", embed, 2, {}, 8000, 8000, True, batch_size=3)
    assert [len(cache[c]) for c in clips.clip_id] == [2, 0, 1, 10]
    assert cache["t0"][5:].max() == 0  # its second half is silence
    with pytest.raises(ValueError, match="clip 'c22' is not in embedding cache .*did you mean 'c2'"):
        cache["c22"]
    assert pd.read_csv(cache.path / "unreadable.csv").clip_id.tolist() == ["c4"]


# whole runs


@pytest.mark.slow
def test_freeze_l1_from_cached_embeddings(frozen, caplog):
    Path("source/c7.wav").write_bytes(b"RIFF nonsense")
    options = ["data.cache=embedding", "optim.epochs=25", "optim.select=last", "optim.lr=0.1", "watch=accuracy",
               "optim.validate_every=25", "predict.stride_seconds=1.0"]  # fmt: skip
    run(train, "--config", frozen, "--fold", "0", "1", "--name", "a", *options)
    fold = runs.FoldRun(Path("runs/tagging/a/fold0"))
    assert fold.about["scores"]["accuracy"] > 0.8
    assert pd.read_csv(fold.folder / "unreadable.csv").clip_id.tolist() == ["c7"]
    assert len(list(Path("data/cache").iterdir())) == 1, "both folds share the cache"
    base = build_model("cnn6", 5, 16, BASE["base_params"])
    load_weights(base, "base.safetensors")
    trained = runs.load_model(fold).base.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in base.state_dict().items())
    run(predict, "--run", "runs/tagging/a", "--clips", "data/test_clips.csv")
    assert Predictions.load("runs/tagging/a/fold0/test.npz").embedding.shape == (3, 16)
    for name in ("one", "same"):
        fewer = [o.replace("optim.epochs=25", "optim.epochs=2") for o in options]
        run(train, "--config", frozen, "--fold", "0", "--name", name, *fewer)
    same_fold(Path("runs/tagging/one/fold0"), Path("runs/tagging/same/fold0"))


def test_freeze_l3_without_a_cache_says_what_it_left_and_kept(frozen, capsys, caplog):
    run(train, "--config", frozen, "--fold", "0", "model.params.hidden=[12, 8]", "model.params.dropout=0.2")
    printed = capsys.readouterr().out
    assert "loaded" in printed
    assert "initial values kept in fc_hidden.0, fc_hidden.1, fc_transfer" in printed
    log = pd.read_csv("runs/tagging/tiny/fold0/log.csv")
    assert log.loss.iloc[-1] < log.loss.iloc[0]
    assert not caplog.records
    run(train, "--config", frozen, "--fold", "0", "--name", "b", "model.weights=", "optim.epochs=1")
    assert "the frozen base keeps its RANDOM weights" in caplog.text


@pytest.mark.slow  # tests/test_train.py stops and resumes a plain run
def test_gradual_unfreezing_with_layer_wise_rates_resumes_bit_by_bit(frozen, monkeypatch):
    options = ["model.params.freeze=false", "optim.layer_decay=0.7", "optim.unfreeze_epochs=1", "optim.epochs=5",
               "optim.lr_scale={base.fc1: 0.5}",
               "optim.checkpoint_steps=1", "optim.select=last"]  # fmt: skip
    run(train, "--config", frozen, "--fold", "1", "--name", "whole", *options)
    steps = []

    def dying(*arguments):
        steps.append(arguments)
        if len(steps) > 8:  # of 3 an epoch: inside the third, where three of six blocks learn
            raise Killed
        return seed_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "seed_step", dying)
        with pytest.raises(Killed):
            run(train, "--config", frozen, "--fold", "1", "--name", "stopped", *options)
    state = runs.load_checkpoint(Path("runs/tagging/stopped/fold1/last.ckpt"))
    before = build_model("cnn6", 5, 16, BASE["base_params"])
    load_weights(before, "base.safetensors")
    moved = {k.split(".")[0] for k, v in before.state_dict().items() if not torch.equal(v, state["model"][f"base.{k}"])}
    assert moved == {"fc1", "conv_block4"}
    run(train, "--config", frozen, "--fold", "1", "--name", "stopped", "--resume", *options)
    same_fold(Path("runs/tagging/whole/fold1"), Path("runs/tagging/stopped/fold1"))
    about = json.loads(Path("runs/tagging/whole/fold1/run.json").read_text())
    assert about["epochs_trained"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.batch.logmel=[{name: roll, p: 1.0}]", "leaves no input to augment, but augment.batch.logmel would"),
        ("augment.batch.mixup_on=waveform", "but augment.batch.mixup_on would"),
        ("augment.waveform=[{name: Gain, p: 1.0}]", "but augment.waveform would"),
        ("data.crop=box", "data.crop must be full or random"),
        ("model.params.freeze=false", "data.cache=embedding needs a frozen extractor"),
        ("model={name: cnn_small, params: {}, weights: ''}", "data.cache=embedding needs a frozen extractor"),
        ("optim.layer_decay=0", "optim.layer_decay must be above 0 and at most 1, got 0.0"),
        (
            "optim.lr_scale={fc_transfer: 0}",
            "optim.lr_scale of 'fc_transfer' must be above 0, got 0.0; to keep it as it",
        ),
        ("optim.lr_scale={bass: 0.1}", "names 'bass', which is no part of the network; did you mean 'base'"),
        ("optim.unfreeze_epochs=-1", "optim.unfreeze_epochs must be 0 or more, got -1"),
        ("data.clips_per_class=-1", "data.clips_per_class must be 0 or more, got -1"),
    ],
)
def test_what_does_not_go_together_is_named(frozen, override, message):
    with pytest.raises(ValueError, match=message):
        run(train, "--config", frozen, "--fold", "0", "data.cache=embedding", override)


def test_spec_augment_on_a_frozen_base_is_an_error(frozen):
    with pytest.raises(
        ValueError, match=r"spec_augment \(and _pp\) acts in training only, and a frozen base stays in eval mode"
    ):
        run(train, "--config", frozen, "--fold", "0", "augment.spec_augment={time_width: 8, time_stripes: 1}")

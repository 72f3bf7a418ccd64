"""Every network of MODELS against the contract; then what the single families promise."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earshot.augment.spectrogram import SpecAugment
from earshot.models import MODELS, build_model
from earshot.models.noise_floor import above_floor
from earshot.sound import timebase
from tiny_networks import INPUTS, SMALL, F, K

DEEP = (  # graphs of many layers: what goes through all of them takes long
    "machines_baseline", "mobilenet_v2", "res1dnet31", "res1dnet51", "resnet38", "resnet54", "talnet", "urban_tagger",
)  # fmt: skip


def deep_ones_slow(names) -> list:
    """Parameters of a test: the deep networks among the slow ones."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in names]


@pytest.fixture(scope="module")
def networks():
    """Each network of MODELS, built once."""
    torch.manual_seed(0)
    return {name: build_model(name, K, F, SMALL.get(name)) for name in MODELS}


def inputs_of(model, batch, frames, seed=0):
    torch.manual_seed(seed)
    return {name: INPUTS[name](batch, frames) for name in model.inputs}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("batch", "frames"),
    [(2, 101), (1, 5), (2, 1), *(pytest.param(*shape, marks=pytest.mark.slow) for shape in ((1, 101), (2, 64)))],
)
def test_outputs_have_the_contracts_keys_shapes_and_range(networks, name, batch, frames):
    model = networks[name].eval()
    inputs = inputs_of(model, batch, frames)
    with torch.no_grad():
        out = model(**inputs)
    if model.inputs == ("extractor",):  # its frames are the extractor's rows
        frames = inputs["extractor"].shape[1]
    assert out["clipwise_output"].shape == (batch, K)
    assert out["embedding"].shape[0] == batch
    assert out["embedding"].ndim == 2
    for key, value in out.items():
        assert value.dtype == torch.float32, key
        assert torch.isfinite(value).all(), key
        if key.endswith("_output"):
            assert ((value >= 0) & (value <= 1)).all(), key
    if "logit" in out:
        softmax = getattr(model, "activation", "sigmoid") == "softmax"
        expected = out["logit"].softmax(dim=1) if softmax else torch.sigmoid(out["logit"])
        torch.testing.assert_close(expected, out["clipwise_output"])
    if "framewise_output" in out:
        segments = out["segmentwise_output"].shape[1]
        assert max(1, frames // model.pool) <= segments <= math.ceil(max(frames, model.min_frames) / model.pool)
        assert out["framewise_output"].shape == (batch, frames, K)
        for kind in ("output", "logit"):
            expected = timebase.repeat_to_frames(out[f"segmentwise_{kind}"].numpy(), model.pool, frames)
            np.testing.assert_array_equal(out[f"framewise_{kind}"].numpy(), expected)
        torch.testing.assert_close(torch.sigmoid(out["segmentwise_logit"]), out["segmentwise_output"])


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_is_deterministic_and_clips_do_not_see_each_other(networks, name):
    model = networks[name].eval()
    inputs = inputs_of(model, 3, 101)
    with torch.no_grad():
        both = [model(**inputs)["clipwise_output"] for _ in range(2)]
        alone = model(**{k: v[1:2] for k, v in inputs.items()})["clipwise_output"]
    assert torch.equal(*both)
    torch.testing.assert_close(alone, both[0][1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", deep_ones_slow(MODELS))
def test_a_gradient_reaches_every_parameter_but_the_declared_dead_ones(networks, name):
    model = copy.deepcopy(networks[name]).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) and not module.weight.any():
            torch.nn.init.ones_(module.weight)  # a residual branch that starts at 0 learns from the second step on
    out = model(**inputs_of(model, 4, 101))
    output = out["clipwise_output"]
    # a weight for each clip AND class: classes of one weight sum to a constant under softmax, whose gradient is 0
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weights).sum().backward()
    for key, parameter in model.named_parameters():
        if key.startswith(tuple(model.dead_parameters)):
            assert parameter.grad is None, key
        else:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", MODELS)
def test_training_takes_one_clip_and_spec_augment_acts_there_only(networks, name):
    model = copy.deepcopy(networks[name])
    if "logmel" not in model.inputs:
        assert not hasattr(model, "spec_augment")
        assert torch.isfinite(model.train()(**inputs_of(model, 1, 201))["clipwise_output"]).all()
        return
    assert model.spec_augment is None
    keys = list(model.state_dict())
    model.spec_augment = SpecAugment(time_width=30, freq_width=10)
    assert list(model.state_dict()) == keys
    inputs = inputs_of(model, 1, 101)
    seen = []
    model.spec_augment.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    model.train()
    assert torch.isfinite(model(**inputs)["clipwise_output"]).all()
    (before, after), *rest = seen
    assert not rest
    assert float(before.detach().mean()) == pytest.approx(0, abs=1e-2)  # bn0 has centred the mel bins
    assert ((after == 0) & (before != 0)).any()
    model.eval()(**inputs)
    assert len(seen) == 1


@pytest.mark.parametrize("name", MODELS)
def test_autocast_leaves_probabilities_in_float32(networks, name):
    model = networks[name].eval()
    inputs = inputs_of(model, 1, 101)
    with torch.no_grad():
        full = model(**inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(**inputs)
    assert half["clipwise_output"].dtype == torch.float32
    torch.testing.assert_close(half["clipwise_output"], full["clipwise_output"], rtol=0, atol=0.1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*is deprecated", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "name", [n if n.startswith("cnn_") else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_a_traced_graph_follows_other_lengths_and_batches(networks, name):
    """What an exported graph must do: one trace, any batch and number of frames."""
    graph = Positional(networks[name].eval())
    with torch.no_grad():
        traced = torch.jit.trace(graph, tuple(inputs_of(graph.model, 1, 96).values()), check_trace=False)
        inputs = tuple(inputs_of(graph.model, 2, 141, seed=1).values())
        for value, expected in zip(traced(*inputs), graph(*inputs), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


class Positional(torch.nn.Module):
    """A model with its inputs in order and its outputs as a tuple."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *tensors):
        return tuple(self.model(**dict(zip(self.model.inputs, tensors, strict=True))).values())


@pytest.mark.parametrize("name", MODELS)
def test_weights_survive_a_state_dict(networks, name):
    model = networks[name].eval()
    again = build_model(name, K, F, SMALL.get(name), weights_follow=True).eval()
    again.load_state_dict(model.state_dict())
    inputs = inputs_of(model, 1, 70)
    with torch.no_grad():
        assert torch.equal(model(**inputs)["clipwise_output"], again(**inputs)["clipwise_output"])


def test_the_wrong_number_of_mel_bins_is_named(networks):
    for model in networks.values():
        if model.inputs == ("logmel",):
            with pytest.raises(ValueError, match=r"logmel must be \(batch, 1, frames, 64\), got \(1, 1, 50, 40\)"):
                model(logmel=torch.zeros(1, 1, 50, 40))


def test_a_waveform_of_another_shape_is_named(networks):
    for model in networks.values():
        if model.inputs == ("waveform",):
            with pytest.raises(ValueError, match=r"waveform must be \(batch, samples\), got \(1, 1, 9\)"):
                model(waveform=torch.zeros(1, 1, 9))


def test_unknown_names_are_errors_with_a_suggestion():
    with pytest.raises(ValueError, match="unknown model 'cnn_smal'; did you mean 'cnn_small'"):
        build_model("cnn_smal", K, F)
    with pytest.raises(ValueError, match="unknown parameter 'poling' of model cnn_small; did you mean 'pooling'"):
        build_model("cnn_small", K, F, {"poling": "max"})
    how = "set model.name=timm_sed and model.params.backbone=efficientnet_b0"
    for name, said in (
        ("efficientnet_b0", "timm has it"),
        ("efficentnet_b0", "timm has the backbone 'efficientnet_b0'"),
    ):
        with pytest.raises(ValueError, match=f"unknown model '{name}'; {said}.*: {how}$"):
            build_model(name, K, F)
    with pytest.raises(ValueError, match="pooling is 'maxx'; choose one of attention, "):
        build_model("cnn_small", K, F, {"pooling": "maxx"})
    for params, said in (
        ({"widths": 3}, r"^parameter 'widths' of model cnn_small must be a list, got 3$"),
        ({"embedding": "many"}, r"^parameter 'embedding' of model cnn_small must be a whole number, got 'many'$"),
        ({"widths": []}, r"^parameter 'widths' of model cnn_small must not be empty; its default is \[16, "),
        ({"embedding": 0}, r"^parameter 'embedding' of model cnn_small must be 1 or more, got 0$"),
        ({"dropout": -1}, r"^parameter 'dropout' of model cnn_small is a share, from 0 to below 1, got -1$"),
        ({"pooling": ["max"]}, r"^parameter 'pooling' of model cnn_small must be one text, got \['max'\]$"),
        ({"embedding": 10**14}, r"^model cnn_small cannot be made of its parameters \(embedding=100000000000000\): "),
    ):
        with pytest.raises(ValueError, match=said):
            build_model("cnn_small", K, F, params)
    with pytest.raises(ValueError, match="timm has no model 'tf_eficientnet_b0'; did you mean 'tf_efficientnet_b0"):
        build_model("timm_sed", K, F, {"backbone": "tf_eficientnet_b0", "pretrained": False})
    with pytest.raises(
        ValueError, match=r"no weights 'test_efficientnet.r160'; did you mean 'test_efficientnet.r160_in1k'"
    ):
        build_model("timm_sed", K, F, {"backbone": "test_efficientnet.r160", "pretrained": False})


# heads and poolings


# single families


@pytest.mark.parametrize(("strides", "frames", "segments"), [((1, 1, 1, 1), 101, 101), ((2, 2, 2, 1), 101, 13),
                                                             ((2, 2, 2, 2), 501, 32)])  # fmt: skip
def test_cnn_small_has_the_time_resolution_of_its_strides(strides, frames, segments):
    model = build_model("cnn_small", K, F, {"time_strides": list(strides), "widths": [4, 4, 4, 4]}).eval()
    assert model.pool == math.prod(strides)
    with torch.no_grad():
        assert model(logmel=torch.zeros(1, 1, frames, F))["segmentwise_output"].shape == (1, segments, K)


def test_cnn_small_size_options_and_errors():
    model = build_model("cnn_small", 10, F)
    assert 0.1e6 < sum(p.numel() for p in model.parameters()) < 0.4e6
    single = build_model("cnn_small", K, 40, {"activation": "softmax", "pooling": "clip", "frequency": "mean"}).eval()
    with torch.no_grad():
        out = single(logmel=torch.zeros(2, 1, 30, 40))
    torch.testing.assert_close(out["clipwise_output"].sum(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="one entry a stage each, got 4, 4, 3, 4 entries"):
        build_model("cnn_small", K, F, {"time_strides": [2, 2, 2]})
    with pytest.raises(ValueError, match="frequency is 'flaten'; choose one of "):
        build_model("cnn_small", K, F, {"frequency": "flaten"})


def test_above_its_floor_a_band_says_nothing_of_microphone_and_level():
    """A gain a band changes nothing; frames of digital silence are no part of the floor and stay at it."""
    x = 10 * torch.randn(2, 1, 101, F, generator=torch.Generator().manual_seed(0)) - 50
    heard = above_floor(x, 0.1)
    torch.testing.assert_close(above_floor(x + 7 * torch.randn(1, 1, 1, F), 0.1), heard, atol=1e-4, rtol=0)
    torch.testing.assert_close(heard, x - x.quantile(0.1, dim=2, keepdim=True))
    padded = torch.cat([x, torch.full((2, 1, 300, F), -100.0)], dim=2)
    torch.testing.assert_close(above_floor(padded, 0.1)[:, :, :101], heard)
    assert not above_floor(padded, 0.1)[:, :, 101:].any()
    silence = torch.full((1, 1, 20, F), -100.0)
    assert torch.equal(above_floor(silence, 0.1), silence)
    out = build_model("cnn_small", K, F, {"floor": 0.1}).eval()(logmel=silence)
    assert torch.isfinite(out["clipwise_output"]).all()
    with pytest.raises(ValueError, match=r"floor is a quantile of 0 \.\.\. 1 .*got 1.5"):
        build_model("cnn_small", K, F, {"floor": 1.5})


def test_cnn_small_segments_see_where_they_claim_to_be():
    """A click in frame t moves most the segment that covers t: strides and repetition do not drift."""
    torch.manual_seed(0)
    model = build_model("cnn_small", K, F, {"pooling": "mean"}).eval()
    silence = torch.full((1, 1, 800, F), -60.0)
    with torch.no_grad():
        still = model(logmel=silence)["segmentwise_logit"]
        for frame in (36, 404, 772):
            click = silence.clone()
            click[:, :, frame - 3 : frame + 4] = 0.0
            change = (model(logmel=click)["segmentwise_logit"] - still).abs().sum(dim=(0, 2))
            center = float((change * torch.arange(len(change))).sum() / change.sum())
            assert center == pytest.approx((frame + 0.5) / model.pool - 0.5, abs=1.0)


def test_cnn_small_learns_a_tone_and_where_it_is():
    """Weak labels alone: class 0 is a low tone, class 1 a high one, each somewhere in the clip."""
    torch.manual_seed(0)
    model = build_model("cnn_small", 2, 32, {"widths": [8, 8, 16, 16], "embedding": 16, "dropout": 0.0})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x = torch.randn(32, 1, 96, 32)
    target = (torch.rand(32, 2) < 0.5).float()
    starts = torch.randint(0, 64, (32, 2))
    for i in range(32):
        for k in range(2):
            band = slice(4, 8) if k == 0 else slice(22, 26)
            x[i, 0, starts[i, k] : starts[i, k] + 32, band] += 4 * target[i, k]
    for _ in range(25):
        out = model(logmel=x)
        loss = torch.nn.functional.binary_cross_entropy(out["clipwise_output"], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        out = model.eval()(logmel=x)
    assert ((out["clipwise_output"] > 0.5) == (target > 0)).float().mean() > 0.95
    inside, outside = [], []
    for i in range(32):
        if target[i, 0]:
            active = torch.zeros(96, dtype=torch.bool)
            active[starts[i, 0] : starts[i, 0] + 32] = True
            inside.append(out["framewise_output"][i, active, 0].mean())
            outside.append(out["framewise_output"][i, ~active, 0].mean())
    assert torch.stack(inside).mean() > torch.stack(outside).mean() + 0.3


def test_timm_repeats_or_keeps_channels_and_says_when_weights_are_missing(tmp_path, monkeypatch):
    params = {"backbone": "test_efficientnet", "pretrained": False, "in_chans": 3, "units": 8, "drop_path": 0.2}
    model = build_model("timm_sed", K, F, params).eval()
    x = torch.randn(1, 1, 70, F)
    with torch.no_grad():
        one, three = (model(logmel=v)["clipwise_output"] for v in (x, x.repeat(1, 3, 1, 1)))
    assert torch.equal(one, three)
    with pytest.raises(ValueError, match=r"logmel must be \(batch, 1 or 3, frames, 64\), got \(1, 2, 70, 64\)"):
        model(logmel=torch.zeros(1, 2, 70, F))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"'hf:timm/test_efficientnet.r160_in1k' are not in the cache .* pretrained: f"
    ):
        build_model("timm_sed", K, F, {"backbone": "test_efficientnet"})
    with pytest.raises(ValueError, match=r"gives no feature map .* choose a convolutional"):
        build_model("timm_sed", K, F, {"backbone": "test_vit", "pretrained": False})


def test_timm_takes_pretrained_weights_from_the_cache_and_sums_their_colours(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(3)
    source = timm.create_model("test_efficientnet", pretrained=False)
    snapshot = tmp_path / "models--timm--test_efficientnet.r160_in1k" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    params = {"backbone": "test_efficientnet.r160_in1k", "units": 8}
    model = build_model("timm_sed", K, F, params)
    loaded, original = model.backbone.state_dict(), source.state_dict()
    torch.testing.assert_close(loaded["conv_stem.weight"], original["conv_stem.weight"].sum(dim=1, keepdim=True))
    torch.testing.assert_close(loaded["blocks.2.0.conv_pwl.weight"], original["blocks.2.0.conv_pwl.weight"])
    assert "state_dict" not in model.backbone.pretrained_cfg
    by_path = build_model("timm_sed", K, F, params | {"pretrained": str(snapshot / "model.safetensors")})
    assert torch.equal(by_path.backbone.state_dict()["conv_stem.weight"], loaded["conv_stem.weight"])
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    build_model("timm_sed", K, F, params, weights_follow=True)  # trained weights come next: none are looked for


@pytest.mark.parametrize("name", ["dainet19", "leenet11", "leenet24", "res1dnet31", "wavegram_cnn14"])
def test_waveform_networks_give_one_frame_for_min_samples_and_pad_what_is_shorter(networks, name):
    """`min_samples` is exact: that many pass every pooling, and a shorter clip equals itself with zeros behind it."""
    model = networks[name].eval()
    waveform = torch.randn(1, model.min_samples, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.isfinite(model(waveform=waveform)["logit"]).all()
        if model.min_samples > 1:
            waveform[:, -5:] = 0
            whole, cut = model(waveform=waveform), model(waveform=waveform[:, :-5])
            assert torch.equal(whole["logit"], cut["logit"])


def test_wavegram_and_logmel_must_be_of_the_same_clip_and_hop(networks):
    model = networks["wavegram_logmel_cnn14"].eval()
    for frames in (100, 101):  # an odd number gives the log-mel's branch one frame more
        with torch.no_grad():
            model(waveform=torch.zeros(1, 320 * (frames - 1)), logmel=torch.zeros(1, 1, frames, F))
    with pytest.raises(ValueError, match="log-mel gives 25 frames where the wavegram gives 50: .* hop_length 320"):
        model(waveform=torch.zeros(1, 32000), logmel=torch.zeros(1, 1, 51, F))


@given(st.integers(0, 3), st.sampled_from([1, 2]))
def test_pooled_convolutions_of_mobilenet_by_a_second_implementation(seed, stride):
    """A stride-1 convolution followed by average pooling, as the weights need; not a strided convolution."""
    from earshot.models.panns_mobilenet import _pooled_conv

    torch.manual_seed(seed)
    conv, pool, norm = _pooled_conv(2, 3, stride)
    x = torch.randn(1, 2, 6, 4)
    full = torch.nn.functional.conv2d(x, conv.weight, padding=1)
    expected = full.unflatten(3, (-1, stride)).unflatten(2, (-1, stride)).mean(dim=(3, 5))
    torch.testing.assert_close(pool(conv(x)), expected)
    assert norm.num_features == 3

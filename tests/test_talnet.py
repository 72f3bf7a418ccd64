"""TALNet: its sizes and names, its five poolings by hand, where its segments lie, weights of other scales."""

import pytest
import torch

from earshot.augment.spectrogram import SpecAugment
from earshot.models import build_model
from earshot.models.talnet import POOLINGS
from earshot.models.weights import load_weights

SMALL = {"embedding": 32}


@pytest.mark.parametrize(("pooling", "parameters"), [("lin", 9_980_527), ("exp", 9_980_527), ("max", 9_980_527),
                                                     ("ave", 9_980_527), ("att", 10_520_702)])  # fmt: skip
def test_sizes_are_the_published_ones(pooling, parameters):
    with torch.device("meta"):
        model = build_model("talnet", 527, 64, {"pooling": pooling})
    assert sum(p.numel() for p in model.parameters()) == parameters
    heads = {"gru", "fc_prob"} | ({"fc_att"} if pooling == "att" else set())
    assert {name for name, _ in model.named_children()} - {"spec_augment"} == {
        *(f"conv{i}" for i in range(1, 11)), *heads,
    }  # fmt: skip
    assert "conv10.bn.running_var" in model.state_dict()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_by_hand(pooling):
    torch.manual_seed(0)
    model = build_model("talnet", 3, 64, SMALL | {"pooling": pooling}).eval()
    with torch.no_grad():
        model.fc_prob.weight.mul_(20)
        out = model(logmel=torch.randn(2, 1, 83, 64))
    p = out["segmentwise_output"].double()
    assert p.shape == (2, 20, 3)
    assert p.amax() - p.amin() > 0.2
    expected = {
        "lin": lambda: (p * p).sum(dim=1) / p.sum(dim=1),
        "exp": lambda: (p * p.exp()).sum(dim=1) / p.exp().sum(dim=1),
        "max": lambda: p.max(dim=1).values,
        "ave": lambda: p.mean(dim=1),
        "att": lambda: (p * out["segmentwise_attention"].double().softmax(dim=1)).sum(dim=1),
    }[pooling]()
    torch.testing.assert_close(out["clipwise_output"].double(), expected, atol=1e-6, rtol=0)
    assert ("logit" in out) == (pooling == "max")
    out = model.train()(logmel=torch.randn(2, 1, 40, 64))
    out["clipwise_output"][:, 0].sum().backward()
    unused = {n for n, v in model.named_parameters() if v.grad is None or not v.grad.abs().sum()}
    assert unused <= {f"conv{i}.conv.bias" for i in range(1, 11)}, "what a batch norm takes off again may get none"


def test_the_gru_is_given_channels_with_their_bands():
    """The published flattening: the two bands of a channel are neighbours."""
    model = build_model("talnet", 3, 64, SMALL).eval()
    seen = {}
    model.conv10.register_forward_hook(lambda _, __, out: seen.update(map=out))
    model.gru.register_forward_pre_hook(lambda _, args: seen.update(given=args[0]))
    model(logmel=torch.randn(1, 1, 40, 64))
    assert seen["map"].shape == (1, 16, 10, 2)
    torch.testing.assert_close(seen["given"][0, :, 6:8], seen["map"][0, 3])


def test_spec_augment_needs_the_norm_that_makes_zero_the_mean(tmp_path):
    model = build_model("talnet", 3, 64, SMALL)
    model.spec_augment = SpecAugment()
    with pytest.raises(ValueError, match="set model.params.input_norm=true"):
        model(logmel=torch.zeros(1, 1, 40, 64))
    torch.save(build_model("talnet", 527, 64, SMALL).state_dict(), tmp_path / "talnet.pt")
    normed = build_model("talnet", 3, 64, SMALL | {"input_norm": True})
    report = load_weights(normed, tmp_path / "talnet.pt", drop=("bn0", "fc_prob"))
    assert set(report.kept) >= {"bn0.weight", "fc_prob.weight"}


def test_sizes_that_cannot_be_are_errors():
    with pytest.raises(ValueError, match=r"n_mels of at least 32 \(got 24\)"):
        build_model("talnet", 3, 24)
    with pytest.raises(ValueError, match="pooling is 'linn'; choose one of "):
        build_model("talnet", 3, 64, {"pooling": "linn"})
    with pytest.raises(ValueError, match="set activation: sigmoid, not softmax"):
        build_model("talnet", 3, 64, {"activation": "softmax"})
    with pytest.raises(ValueError, match=r"logmel must be \(batch, 1, frames, 64\), got \(1, 1, 9, 40\)"):
        build_model("talnet", 3, 64, SMALL)(logmel=torch.zeros(1, 1, 9, 40))

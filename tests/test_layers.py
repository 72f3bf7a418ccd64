"""The layers that networks share: poolings over time, repeating and padding, PANNs' attention."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earshot.models import layers
from earshot.sound import timebase
from tiny_networks import K


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
@pytest.mark.parametrize("pooling", layers.POOLINGS)
def test_every_pooling_lies_between_the_segments_minimum_and_maximum(pooling, activation):
    torch.manual_seed(1)
    if activation == "softmax" and pooling in ("linear_softmax", "gem", "auto_pool"):
        with pytest.raises(ValueError, match="defined on sigmoid probabilities"):
            layers.SEDHead(8, K, pooling, activation)
        return
    head = layers.SEDHead(8, K, pooling, activation)
    out = head(torch.randn(2, 6, 8) * 3, n_frames=20, pool=4)
    clip = out["clipwise_output"]
    if activation == "softmax":
        torch.testing.assert_close(clip.sum(dim=1), torch.ones(2))
        torch.testing.assert_close(torch.softmax(out["logit"], dim=1), clip)
    else:
        assert ("logit" in out) == (pooling in ("max", "clip"))
    if pooling == "clip":
        assert set(out) == {"clipwise_output", "logit"}
        return
    assert out["framewise_output"].shape == (2, 20, K)
    if activation == "sigmoid":
        segments = out["segmentwise_output"]
        assert (clip >= segments.amin(dim=1) - 1e-6).all()
        assert (clip <= segments.amax(dim=1) + 1e-6).all()
    clip[:, 0].sum().backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize(("pooling", "logit"), [("max", [2, 1]), ("mean", [1, 0]), ("attention", [1.5, -0.5]),
                                                ("clip", [3, 1])])  # fmt: skip
def test_one_label_poolings_by_hand(pooling, logit):
    """Two segments whose logits are (0, 1) and (2, -1); the attention weighs them 1 to 3."""
    head = layers.SEDHead(2, 2, pooling, "softmax")
    with torch.no_grad():
        head.cla.weight.copy_(torch.eye(2))
        if pooling == "attention":
            head.att.weight.copy_(torch.tensor([[math.log(3) / 2, 0.0]] * 2))
        out = head(torch.tensor([[[0.0, 1.0], [2.0, -1.0]]]), n_frames=2, pool=1)
    torch.testing.assert_close(out["logit"], torch.tensor([logit], dtype=torch.float32))
    first = 1 / (1 + math.exp(logit[1] - logit[0]))
    torch.testing.assert_close(out["clipwise_output"], torch.tensor([[first, 1 - first]]))


def test_poolings_by_hand():
    p = torch.tensor([0.2, 0.6]).reshape(1, 2, 1)
    assert float(layers.linear_softmax(p)) == pytest.approx((0.04 + 0.36) / 0.8)
    assert float(layers.gem(p, 1.0)) == pytest.approx(0.4)
    assert float(layers.gem(p, 3.0)) == pytest.approx(((0.008 + 0.216) / 2) ** (1 / 3))
    assert float(layers.auto_pool(p, 0.0)) == pytest.approx(0.4)
    e = math.exp(0.4)
    assert float(layers.auto_pool(p, 1.0)) == pytest.approx((0.2 + 0.6 * e) / (1 + e))
    assert float(layers.auto_pool(p, 500.0)) == pytest.approx(0.6)
    uniform = layers.attention_pool(p, torch.zeros(1, 2, 1))
    assert float(uniform) == pytest.approx(0.4)
    # logits beyond +-10 are cut: the weights are those of 10 and -10, not of 99
    weight = 1 / (1 + math.exp(-20))
    clamped = layers.attention_pool(p, torch.tensor([99.0, -99.0]).reshape(1, 2, 1))
    assert float(clamped) == pytest.approx(0.2 * weight + 0.6 * (1 - weight), rel=1e-6)


@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 60))
def test_repeat_to_frames_equals_the_numpy_one(segments, pool, frames):
    values = torch.randn(2, segments, 3, generator=torch.Generator().manual_seed(segments))
    out = layers.repeat_to_frames(values, pool, frames)
    np.testing.assert_array_equal(out.numpy(), timebase.repeat_to_frames(values.numpy(), pool, frames))


def test_padding_repeats_the_last_frame():
    x = torch.arange(6.0).reshape(1, 1, 3, 2)
    assert layers.pad_frames(x, 3) is x
    assert layers.pad_frames(x, 5)[0, 0].tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]


def test_panns_attention_block_by_a_second_implementation():
    torch.manual_seed(0)
    block = layers.AttentionBlock(6, K)
    x = torch.randn(2, 6, 5) * 4
    out = block(x, n_frames=5, pool=1)
    att, cla = (m.weight[:, :, 0].detach().numpy() for m in (block.att, block.cla))
    for b in range(2):
        for k in range(K):
            logits = np.clip(att[k] @ x[b].numpy(), -10, 10)
            p = 1 / (1 + np.exp(-(cla[k] @ x[b].numpy())))
            weight = np.exp(logits) / np.exp(logits).sum()
            assert float(out["clipwise_output"][b, k].detach()) == pytest.approx((weight * p).sum(), rel=1e-5)

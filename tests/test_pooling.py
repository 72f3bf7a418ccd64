"""Windowed pooling on NumPy against the heads of the networks."""

import numpy as np
import pytest
import torch

from earshot.models import build_model, layers
from earshot.prediction.pooling import POOLINGS, pool_segments


@pytest.mark.parametrize("pooling", POOLINGS)
def test_equals_the_heads(pooling):
    torch.manual_seed(0)
    head = layers.SEDHead(8, 5, pooling)
    assert head.window_pooling == pooling
    with torch.no_grad():
        out = {k: v.numpy() for k, v in head(20 * torch.randn(2, 7, 8), 28, 4).items()}
    found = pool_segments(out["segmentwise_output"], out.get("segmentwise_attention"), pooling)
    np.testing.assert_allclose(found, out["clipwise_output"], atol=1e-6)


@pytest.mark.parametrize(("pooling", "expected"), [
    ("max", [0.6, 0.5]), ("mean", [0.4, 0.3]), ("linear_softmax", [0.4 / 0.8, 0.26 / 0.6]),
    ("attention", [0.5, 0.5]),
])  # fmt: skip
def test_poolings_by_hand(pooling, expected):
    """Two segments of two classes; attention weighs them 1 to 3 in one class, exp(10) to exp(-10) in the other."""
    probability = np.array([[0.2, 0.5], [0.6, 0.1]])
    attention = np.array([[0.0, 99.0], [np.log(3), -99.0]])  # PANNs' clamp cuts at 10 either side
    found = pool_segments(probability, attention, pooling)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    batch = pool_segments(np.stack([probability, probability[::-1]]), np.stack([attention, attention[::-1]]), pooling)
    np.testing.assert_allclose(batch, [expected, expected], atol=1e-8)


def test_silent_segments_pool_to_silence_and_attention_is_cut_at_ten():
    assert pool_segments(np.zeros((3, 2)), None, "linear_softmax").tolist() == [0, 0]
    found = pool_segments(np.array([[0.0], [1.0]]), np.array([[99.0], [0.0]]), "attention")
    assert found == pytest.approx(1 / (1 + np.exp(10)), rel=1e-6)
    found = pool_segments(np.array([[0.0], [1.0]]), np.array([[0.0], [-99.0]]), "attention")
    assert found == pytest.approx(1 / (1 + np.exp(10)), rel=1e-6)


@pytest.mark.parametrize("name", ["cnn_small", "cnn14_att", "cnn14_max", "cnn14_avg"])
def test_networks_say_how_they_pool(name):
    narrow = {} if name == "cnn_small" else {"widths": [8] * 6, "embedding": 8}
    model = build_model(name, 3, 64, narrow).eval()
    with torch.no_grad():
        out = {k: v.numpy() for k, v in model(logmel=torch.randn(1, 1, 200, 64)).items()}
    found = pool_segments(out["segmentwise_output"], out.get("segmentwise_attention"), model.pooling)
    np.testing.assert_allclose(found, out["clipwise_output"], atol=1e-6)


def test_heads_that_segments_do_not_tell_say_so():
    assert build_model("cnn14", 3, 64, {"widths": [8] * 6, "embedding": 8}).pooling == ""
    for pooling, activation in (("gem", "sigmoid"), ("auto_pool", "sigmoid"), ("max", "softmax")):
        assert layers.SEDHead(8, 5, pooling, activation).window_pooling == ""
    with pytest.raises(ValueError, match="windows cannot be pooled by 'gem'"):
        pool_segments(np.ones((2, 3)), None, "gem")
    with pytest.raises(ValueError, match="needs segmentwise_attention"):
        pool_segments(np.ones((2, 3)), None, "attention")

"""What SE-Trans, its baselines and the low-complexity network promise beyond the contract of test_models.py."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from earshot.models import build_model
from earshot.models.se_trans import EncoderLayer, SELayer, StepPool
from earshot.models.separable import CoordinateAttention


def parameters(name, classes, n_mels, params=None):
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name, classes, n_mels, params).parameters())


def test_sizes_are_the_published_ones():
    assert parameters("se_trans", 10, 40) == 340_794
    assert parameters("se_trans", 10, 40) - parameters("cnn4_trans", 10, 40) == 2 * 2 * (64 * 4 + 128 * 8)
    layer = parameters("se_trans", 10, 40, {"layers": 2}) - 340_794
    assert layer == 4 * 128 * 128 + 4 * 128 + 2 * 128 * 32 + 32 + 128 + 4 * 128
    assert parameters("se_trans", 10, 40, {"ffn": 64}) - 340_794 == 32 * (128 + 128 + 1)
    assert parameters("se_trans", 10, 40, {"heads": 4}) == 340_794
    # Kong et al.'s convolutions by hand, two batch norm numbers a channel, bn0, the linear layer
    assert parameters("cnn5", 10, 40) == 25 * (128 + 128 * 128 + 128 * 256 + 256 * 512) + 2 * 1024 + 80 + 5130
    assert round(parameters("cnn_bigru_avg", 10, 40) / 1e6, 1) == 5.9
    # the official baseline has 46,246 numbers, its 128 batch norm statistics among them; ours adds bn0
    assert parameters("scenes_baseline", 10, 40) == 46_246 - 128 + 80


def test_the_separable_network_stays_within_the_challenges_limits():
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model("separable_cnn", 10, 64).eval()
    assert sum(p.numel() for p in model.parameters()) == 75_178 <= 128_000  # int8: one byte each
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(logmel=torch.zeros(1, 1, 101, 64))  # 1 s in hops of 10 ms
    assert 20e6 < counter.get_total_flops() / 2 <= 30e6
    apart = parameters("separable_cnn", 10, 64, {"shared": False})
    assert apart - 75_178 == 64 + 64 * 128 + 2 * 128 * 128


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 20))
def test_step_pool_is_adaptive_average_pooling(frames, bins, steps):
    x = torch.randn(2, 3, frames, bins, generator=torch.Generator().manual_seed(frames))
    torch.testing.assert_close(StepPool(steps)(x), F.adaptive_avg_pool2d(x, (steps, 1)))


def test_the_encoder_is_torchs():
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(16, 4, 8, dropout=0.1, batch_first=True).eval()
    ours = EncoderLayer(16, 4, 8, dropout=0.1).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_gates_by_hand():
    layer = SELayer(2, reduction=2)
    with torch.no_grad():
        layer.fc[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.fc[2].weight.copy_(torch.tensor([[2.0], [0.0]]))
    x = torch.stack([torch.full((3, 4), 5.0), torch.full((3, 4), 2.0)])[None]
    out = layer(x).detach()
    assert float(out[0, 0, 0, 0]) == pytest.approx(5 / (1 + torch.exp(torch.tensor(-6.0)).item()))
    assert float(out[0, 1, 2, 3]) == pytest.approx(1.0)
    torch.manual_seed(0)
    attention, x = CoordinateAttention(16).eval(), torch.randn(2, 16, 6, 5)
    gate = attention(x) / x
    assert ((gate > 0) & (gate < 1)).all()
    # a gate of a frame times a gate of a bin: a table of rank one for each channel
    torch.testing.assert_close(gate[..., 0, 0] * gate[..., 3, 4], gate[..., 0, 4] * gate[..., 3, 0])


def test_the_urban_baseline_hears_seconds():
    torch.manual_seed(0)
    model = build_model("urban_baseline", 3, 8, {"piece_frames": 10, "hidden": 4}).eval()
    x = torch.randn(1, 1, 35, 8)
    out = model(logmel=x)
    assert out["segmentwise_output"].shape == (1, 3, 3)
    other = x.clone()
    other[:, :, 10:20] += 5
    moved = (model(logmel=other)["segmentwise_logit"] != out["segmentwise_logit"]).any(dim=2)[0]
    assert moved.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="extractor cnn6 is frozen and needs weights"):
        build_model("urban_baseline", 3, 8, {"extractor": "cnn6"})


def test_a_frozen_extractor_is_left_as_it_is(tmp_path):
    torch.manual_seed(0)
    source = build_model("cnn6", 527, 16)
    torch.save({"model": source.state_dict()}, tmp_path / "cnn6.pth")
    params = {"extractor": "cnn6", "pretrained": str(tmp_path / "cnn6.pth"), "piece_frames": 20, "hidden": 4}
    model = build_model("urban_baseline", 3, 16, params).train()
    before = {k: v.clone() for k, v in model.extractor.state_dict().items()}
    model(logmel=torch.randn(2, 1, 50, 16))["clipwise_output"].sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in model.extractor.state_dict().items())
    assert torch.equal(before["fc1.weight"], source.state_dict()["fc1.weight"])
    assert model.fc1.weight.grad is not None
    assert all(p.grad is None for p in model.extractor.parameters())


def test_sizes_that_cannot_be_are_errors():
    with pytest.raises(ValueError, match="multiple of heads"):
        build_model("se_trans", 3, 40, {"heads": 7})
    for name, bins in (("cnn9", 8), ("scenes_baseline", 16)):
        with pytest.raises(ValueError, match=f"at least .* mel bins, got {bins}"):
            build_model(name, 3, bins)
    with pytest.raises(ValueError, match="halve the mel bins to nothing"):
        build_model("separable_cnn", 3, 8)

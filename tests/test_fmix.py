"""FMix: the mask is what the paper says, and what a batch keeps and loses adds up."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earshot.augment import mixing
from earshot.augment.pipeline import BatchAugment, augment_batch
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0, 5), st.integers(0, 99))
def test_mask_mean_is_lambda_to_one_pixel(height, width, lam, decay, seed):
    mask = mixing.sample_fmix_mask(generator(seed), (height, width), lam, decay)
    assert mask.shape == (height, width)
    assert mask.dtype == torch.bool
    assert abs(float(mask.double().mean()) - lam) * height * width <= 1


def test_the_mask_is_the_top_of_the_image_and_decay_makes_it_smooth():
    def borders(decay):
        masks = [mixing.sample_fmix_mask(generator(seed), (64, 64), 0.5, decay).int() for seed in range(20)]
        return np.mean([float(m.diff(dim=0).abs().sum() + m.diff(dim=1).abs().sum()) for m in masks])

    rough, paper, smooth = borders(0.0), borders(3.0), borders(6.0)
    assert rough == pytest.approx(64 * 63, rel=0.1), "without decay every second neighbour differs"
    assert smooth < paper < rough / 10
    # more of the same picture: a larger share holds every pixel of a smaller one
    small, large = (mixing.sample_fmix_mask(generator(7), (50, 20), lam) for lam in (0.3, 0.6))
    assert (large | ~small).all()


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 99))
def test_every_pixel_comes_from_one_of_two_clips_and_labels_keep_their_mass(size, lam, seed):
    g = generator(seed)
    x = torch.arange(size, dtype=torch.float32)[:, None, None, None].expand(size, 2, 9, 7)
    target = torch.eye(size, 8)
    mask, index = mixing.sample_fmix_mask(g, (9, 7), lam), mixing.sample_partners(size, g)
    batch = {"clip_id": list("abcdef"[:size]), "logmel": x, "target": target, "mask": torch.ones_like(target)}
    out = mixing.fmix_batch(batch, ("logmel",), mask, index)
    for i in range(size):
        assert (out["logmel"][i][:, mask] == i).all()
        assert (out["logmel"][i][:, ~mask] == int(index[i])).all()
        own = float(mask.double().mean()) if index[i] != i else 1.0
        assert float(out["target"][i, i]) == pytest.approx(own, abs=1e-6)
    torch.testing.assert_close(out["target"].sum(dim=1), torch.ones(size))


def test_frame_targets_follow_the_mask_in_time():
    mask = torch.tensor([[True, True], [True, False], [False, False], [False, False]])
    frames = torch.stack([torch.ones(4, 1), torch.zeros(4, 1)])
    batch = {"clip_id": ["a", "b"], "logmel": torch.zeros(2, 1, 4, 2), "target": torch.tensor([[1.0], [0.0]])}
    batch |= {"mask": torch.ones(2, 1), "frame_target": frames}
    out = mixing.fmix_batch(batch, ("logmel",), mask, torch.tensor([1, 0]))
    assert out["frame_target"][0, :, 0].tolist() == [1, 0.5, 0, 0]
    assert out["frame_target"][1, :, 0].tolist() == [0, 0.5, 1, 1]
    assert out["target"][:, 0].tolist() == [0.375, 0.625]
    on_segments = batch | {"frame_target": frames[:, ::2]}
    out = mixing.fmix_batch(on_segments, ("logmel",), mask, torch.tensor([1, 0]))
    assert out["frame_target"][0, :, 0].tolist() == [0.75, 0]


def test_unknown_labels_stay_unknown_and_other_inputs_are_cut_alike():
    batch = {
        "clip_id": ["a", "b"], "logmel": torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 4, 4),
        "fine": torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 8, 8),
        "target": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "mask": torch.tensor([[1.0, 1.0], [0.0, 1.0]]),
    }  # fmt: skip
    mask = torch.arange(4)[:, None].expand(4, 4) < 2
    out = mixing.fmix_batch(batch, ("logmel", "fine"), mask, torch.tensor([1, 0]))
    assert out["mask"].tolist() == [[0, 1], [0, 1]]
    assert out["fine"][0, 0, :, 0].tolist() == [0] * 4 + [1] * 4


def test_a_config_of_fmix_mixes_batches_with_its_probability():
    batch = {"clip_id": list("abcd"), "logmel": torch.randn(4, 1, 20, 10), "target": torch.eye(4)}
    batch["mask"] = torch.ones(4, 4)
    front_ends = FrontEnds(Inputs.made({"logmel": Logmel(sample_rate=32000)}))
    mixed = 0
    for seed in range(60):
        out = augment_batch(batch, front_ends, BatchAugment(fmix_p=0.5), generator(seed))
        mixed += not torch.equal(out["logmel"], batch["logmel"])
    assert 15 < mixed < 45
    again = [augment_batch(batch, front_ends, BatchAugment(fmix_p=1), generator(3))
             for _ in range(2)]  # fmt: skip
    assert torch.equal(again[0]["logmel"], again[1]["logmel"])

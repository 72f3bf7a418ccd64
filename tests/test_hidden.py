"""SpecAugment++ on inputs and hidden maps, and random copies at test time."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earshot.augment import hidden
from earshot.models import build_model
from earshot.prediction.tta import TTA, tta_variants

sizes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 30), st.integers(1, 30))


@given(sizes, st.floats(0, 1), st.sampled_from(hidden.SCHEMES), st.integers(0, 99))
def test_masked_places_hold_what_the_scheme_says_and_others_are_kept(shape, share, scheme, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    numbers = hidden.sample_spec_augment_pp(torch.Generator().manual_seed(seed), shape, share, share)
    mask, partner = numbers["mask"].expand(shape), x[numbers["index"]]
    out = hidden.spec_augment_pp(x, **numbers, scheme=scheme)
    inside = {"zero": torch.zeros_like(x), "mixture": (x + partner) / 2, "cutting": partner}[scheme]
    assert torch.equal(out[mask], inside[mask])
    assert torch.equal(out[~mask], x[~mask])
    # stripes: a masked place shares its row or its column with all others there
    rows, columns = mask[:, 0].all(dim=2), mask[:, 0].all(dim=1)
    assert torch.equal(mask[:, 0], rows[:, :, None] | columns[:, None, :])
    assert rows.sum(dim=1).max() <= max(2 * round(share * shape[2]), shape[2] * columns.all(dim=1).any())


def test_hidden_maps_are_masked_in_training_only_and_the_state_dict_stays():
    torch.manual_seed(0)
    model = build_model("separable_cnn", 3, 32, {"widths": [4, 4], "hidden": 4})
    plain = copy.deepcopy(model).eval()
    keys = list(model.state_dict())
    hidden.attach_spec_augment_pp(model, {"scheme": "zero", "time_share": 0.5, "layers": ["input", "block1"]})
    assert list(model.state_dict()) == keys
    x = torch.randn(4, 1, 40, 32)
    seen = []
    model.block2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.train()(logmel=x)
    assert (seen[-1].abs().sum(dim=(1, 3)) == 0).any(), "whole frames of block1's map are 0"
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(logmel=x)["logit"], plain(logmel=x)["logit"])
    assert not (seen[-1].abs().sum(dim=(1, 3)) == 0).any()


def test_a_step_can_be_seeded_and_copies_of_the_network_augment_too():
    model = build_model("se_trans", 3, 32, {"widths": [4, 8], "heads": 2, "dropout": 0.0}).train()
    hidden.attach_spec_augment_pp(model, {"layers": ["SE_block1", "SE_block2"]})
    x, outs = torch.randn(4, 1, 40, 32), []
    for network, seed in ((model, 1), (copy.deepcopy(model), 1), (model, 2)):
        torch.manual_seed(seed)
        outs.append(network(logmel=x)["logit"])
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_what_cannot_be_is_named():
    model = build_model("se_trans", 3, 32, {"widths": [4, 8], "heads": 2})
    with pytest.raises(ValueError, match="no layer 'SE_blok1'; did you mean 'SE_block1'"):
        hidden.attach_spec_augment_pp(model, {"layers": ["SE_blok1"]})
    with pytest.raises(ValueError, match="unknown parameter 'time_width' of augment.spec_augment_pp"):
        hidden.attach_spec_augment_pp(model, {"time_width": 3})
    with pytest.raises(ValueError, match="unknown scheme 'mix'"):
        hidden.attach_spec_augment_pp(model, {"scheme": "mix"})
    with pytest.raises(ValueError, match="share of the map's length, got 3"):
        hidden.attach_spec_augment_pp(model, {"time_share": 3})
    hidden.attach_spec_augment_pp(model, {"layers": ["fc"]})
    with pytest.raises(ValueError, match="layer 'fc' gives no"):
        model.train()(logmel=torch.randn(2, 1, 20, 32))


def test_copies_are_random_but_always_the_same():
    variants = tta_variants(["copies:30"])
    assert len(variants) == 30, "they stand for the plain hearing"
    assert variants == tta_variants(["copies:30"]) == tta_variants(["copies:30"], plain=False)
    assert tta_variants(["copies:10"]) == variants[:10]
    assert len({v.roll_seconds for v in variants}) > 15
    assert len(tta_variants(["gain", "copies:2"])) == len(TTA["gain"]) + 2
    assert len(tta_variants(["gain"])) == 1 + len(TTA["gain"])
    assert tta_variants(["gain"], plain=False) == TTA["gain"]
    for wrong in ("copies:", "copies:0", "copies:x"):
        with pytest.raises(ValueError, match="copies:N, N from 1"):
            tta_variants([wrong])
    with pytest.raises(ValueError, match="unknown test-time augmentation 'copie'"):
        tta_variants(["copie"])


def test_copies_are_rolled_by_a_normal_number_of_the_networks_frames():
    frames = np.array([v.roll_seconds for v in tta_variants(["copies:4000"], hop_seconds=0.02)]) / 0.02
    np.testing.assert_allclose(frames, frames.round(), atol=1e-9)
    assert frames.std() == pytest.approx(10, rel=0.05)
    assert abs(frames.mean()) < 0.5

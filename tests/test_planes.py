"""Planes beside a log-mel, held against librosa's deltas, and a backbone that takes them."""

import librosa
import numpy as np
import pytest
import torch

from earshot.models import build_model
from earshot.models.planes import PLANES, Planes


def test_deltas_are_librosas():
    x = torch.randn(2, 1, 50, 8, generator=torch.Generator().manual_seed(0))
    found = Planes(("delta2", "logmel", "delta"), 8)(x).numpy()
    once = librosa.feature.delta(x[:, 0].numpy(), width=9, axis=1, mode="nearest")
    twice = librosa.feature.delta(once, width=9, axis=1, mode="nearest")
    for plane, wanted in zip((0, 1, 2), (twice, x[:, 0].numpy(), once), strict=True):
        np.testing.assert_allclose(found[:, plane], wanted, atol=1e-5)


def test_a_frequency_plane_says_which_band_it_is():
    found = Planes(("logmel", "frequency"), 5)(torch.zeros(1, 1, 3, 5))
    assert found[0, 1].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 3


@pytest.mark.parametrize("planes", [["delta"], ["logmel", "logmel"], ["logmel", "velocity"]])
def test_planes_that_are_none(planes):
    with pytest.raises(ValueError, match="planes"):
        Planes(planes, 8)


def test_a_backbone_sees_the_planes_and_learns_from_them():
    torch.manual_seed(0)
    params = {"backbone": "test_efficientnet", "pretrained": False, "units": 16}
    model = build_model("timm_sed", 3, 32, params | {"planes": list(PLANES)}).eval()
    stem = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert stem.in_channels == 4
    x = torch.randn(2, 1, 96, 32)
    assert model(logmel=x)["framewise_output"].shape == (2, 96, 3)
    assert not any("planes" in key for key in model.state_dict()), "nothing of them is stored"
    with torch.no_grad():
        before = model(logmel=x)["clipwise_output"]
        stem.weight[:, 1:] = 0  # what does not see the other planes answers otherwise
        assert not torch.allclose(model(logmel=x)["clipwise_output"], before)

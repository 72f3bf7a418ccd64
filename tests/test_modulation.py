"""The network that hears what repeats: by a second way, and as many frames as its graph."""

import math

import pytest
import torch

from earshot.models import build_model


def test_modulation_expert_hears_what_repeats():
    """A level that moves 5 times a second has its power at that rate and repeats after 0.2 s, in every band alike."""
    from earshot.models.modulation import modulation_images

    frame_seconds, rate = 0.02, 5.0
    t = torch.arange(250) * frame_seconds
    level = 10 * torch.sin(2 * math.pi * rate * t)
    image = modulation_images(level[None, None, :, None].repeat(1, 1, 1, 8) - 40)
    assert image.shape == (1, 2, 128, 2)
    power, repeats = image[0, :, :, 0]
    assert power.argmax().item() == round(rate * 250 * frame_seconds)  # rows of 1 / (5 s)
    assert repeats[5:15].argmax().item() + 5 == round(1 / rate / frame_seconds)
    assert 9 < repeats[0].item() <= 10


@pytest.mark.parametrize("frames", [16, 63, 64, 101, 128, 251])
def test_modulation_by_products_equals_the_fft(frames):
    from earshot.models.modulation import LAGS, modulation_images

    logmel = torch.randn(2, 1, frames, 8, dtype=torch.float64) * 15 - 40
    level = (logmel[:, 0] - logmel[:, 0].mean(1, keepdim=True)) * torch.hann_window(frames, dtype=torch.float64)[
        :, None
    ]
    power = torch.fft.rfft(level, n=2 * frames, dim=1).abs().square() / frames
    power = power.unflatten(2, (2, 4)).mean(dim=3)
    repeats = torch.fft.irfft(power, dim=1)
    rates = power[:, : (frames + 1) // 2 * 2].unflatten(1, (-1, 2)).mean(dim=2)
    rows = [10 * torch.log10(rates + 0.1), 10 * repeats / (repeats[:, :1] + 1)]
    expected = torch.zeros(2, 2, LAGS, 2, dtype=torch.float64)
    expected[:, 0] = -10  # no such rate
    for i, row in enumerate(rows):
        expected[:, i, : row.shape[1]] = row[:, :LAGS]
    torch.testing.assert_close(modulation_images(logmel.float()).double(), expected, atol=2e-5, rtol=1e-5)


def test_modulation_hears_as_many_frames_as_the_graph():
    """Both experts get the same padded input: an exported graph is given `min_frames` frames at least."""
    model = build_model("cnn_modulation", 3, n_mels=64).eval()
    short = torch.randn(2, 1, 5, 64)
    padded = torch.cat([short, short[:, :, -1:].expand(-1, -1, model.min_frames - 5, -1)], dim=2)
    torch.testing.assert_close(model(logmel=short)["logit"], model(logmel=padded)["logit"])

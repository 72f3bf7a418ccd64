"""Clips mixed so that each is heard by the share of its label: levels, shares, and a batch of either road."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train
from earshot.augment import levels, mixing
from earshot.augment.batch import BatchAugment
from earshot.augment.pipeline import augment_batch
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.sound.logmel import LogmelParams
from scripts import run

RATE = 16000
PARAMS = LogmelParams(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=64, fmin=50, fmax=8000)


def tone(hertz: float, decibels: float, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(int(RATE * seconds)) / RATE
    return 10 ** (decibels / 20) * torch.sin(2 * math.pi * hertz * time)


def test_a_weighting_is_that_of_the_standard():
    hertz = [31.5, 100, 500, 1000, 2000, 4000, 10000]
    assert levels.a_weighting(np.array(hertz)) == pytest.approx([-39.4, -19.1, -3.2, 0.0, 1.2, 1.0, -2.5], abs=0.2)
    assert np.isfinite(levels.a_weighting(np.zeros(1))).all()


def test_levels_follow_the_loudest_part_and_the_ear():
    burst = torch.cat([tone(1000, -20, 0.2), torch.zeros(RATE)])
    sounds = torch.stack([torch.cat([tone(1000, -20), torch.zeros(len(burst) - RATE)]), burst])
    of_wave = levels.sound_levels(sounds, RATE)
    assert of_wave[0].item() == pytest.approx(of_wave[1].item(), abs=0.1), "how long a sound is does not count"
    low, high = levels.sound_levels(torch.stack([tone(100, -20), tone(1000, -20)]), RATE)
    assert (high - low).item() == pytest.approx(19.1, abs=1.0)
    stereo = levels.sound_levels(sounds[:, None].expand(-1, 2, -1), RATE)
    torch.testing.assert_close(stereo, of_wave)
    assert torch.isfinite(levels.sound_levels(torch.zeros(1, 40), RATE)).all(), "silence, shorter than a window"


def test_both_roads_hear_the_same_differences():
    heard = FrontEnds(Inputs.made({"logmel": PARAMS}, ("logmel",)))
    sounds = torch.stack([tone(1000, -20), tone(3000, -32)])
    of_wave = levels.sound_levels(sounds, RATE)
    of_mel = levels.logmel_levels(heard({"waveform": sounds})["logmel"], heard.inputs["logmel"].hertz)
    # a mel band of Slaney's scale has area 1, so that wide ones hold less: some 6 dB from 1 to 3 kHz
    assert (of_wave[0] - of_wave[1]).item() == pytest.approx(12, abs=1.5)
    louder = levels.logmel_levels(heard({"waveform": sounds * 2})["logmel"], heard.inputs["logmel"].hertz)
    assert (louder - of_mel).tolist() == pytest.approx([6.02, 6.02], abs=0.05)


def test_shares_by_hand():
    level, index = torch.tensor([-10.0, -30.0, -200.0]), torch.tensor([1, 0, 0])
    found = levels.amplitude_shares(0.5, level, index)
    assert found[:2].tolist() == pytest.approx([1 / 11, 10 / 11]), "20 dB louder: a tenth of the amplitude"
    assert found[2].item() == pytest.approx(100 / 101), "silence takes nothing more than 40 dB"
    assert levels.amplitude_shares(torch.tensor([1.0, 0.0, 1.0]), level, index).tolist() == [1, 0, 1]
    torch.testing.assert_close(levels.amplitude_shares(0.3, torch.zeros(3), index), torch.full((3,), 0.3))


@given(st.floats(0.01, 0.99), st.floats(-30, 0), st.floats(-30, 0))
def test_each_clip_is_heard_by_the_share_of_its_label(lam, own, other):
    """After mixing the two sounds' levels differ by 20 log10(lam / (1 - lam)), whatever they were."""
    sounds = torch.stack([tone(1000, own, 0.2), tone(1000, other, 0.2)])
    level, index = levels.sound_levels(sounds, RATE), torch.tensor([1, 0])
    share = levels.amplitude_shares(lam, level, index)[0]
    parts = levels.sound_levels(torch.stack([share * sounds[0], (1 - share) * sounds[1]]), RATE)
    assert (parts[0] - parts[1]).item() == pytest.approx(20 * math.log10(lam / (1 - lam)), abs=0.05)


def test_sounds_keep_their_energy_where_they_have_nothing_in_common():
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 50000, generator=g)
    for lam in (0.1, 0.5, 1.0):
        mixed = mixing.mix_sounds(noise, lam, torch.tensor([1, 0]))
        assert mixed.square().mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("road", ["waveform", "logmel"])
def test_a_batch_is_mixed_by_levels_and_labelled_by_shares(road):
    """A loud and a soft tone are as loud as their labels say in the mixture; a plain mean leaves 30 dB between them."""
    batch = {"clip_id": ["a", "b"], "waveform": torch.stack([tone(500, 0), tone(4000, -30)]), "target": torch.eye(2),
             "mask": torch.ones(2, 2)}  # fmt: skip
    heard = FrontEnds(Inputs.made({"logmel": PARAMS}, ("logmel",)))
    bands = [int(np.abs(heard.inputs["logmel"].hertz - hertz).argmin()) for hertz in (500, 4000)]

    def difference(domain: str) -> tuple[float, float]:
        augment = BatchAugment(mixup_on=road, mixup_alpha=1.0, mixup_p=1.0, mixup_domain=domain)
        for seed in range(100):
            out = augment_batch(dict(batch), heard, augment, torch.Generator().manual_seed(seed))
            share = out["target"][0, 0].item()
            if 0.4 < share < 0.6 and out["target"][0, 1].item() > 0:
                frames = out["logmel"][0, 0, 20:80, bands].mean(0)
                return (frames[0] - frames[1]).item(), 20 * math.log10(share / (1 - share))
        raise AssertionError("no seed mixed both")

    alone = heard(batch)["logmel"][:, 0, 20:80, bands].mean(1)
    ear = levels.a_weighting(np.array([500.0, 4000.0]))
    heard_apart, wanted = difference("level")
    before = (alone[0, 0] - alone[1, 1]).item()
    assert before > 25
    # each road takes its own levels: of the waveform those of the tones, of the log-mel those of its bands
    even = before - (30 + ear[0] - ear[1]) if road == "waveform" else -(ear[0] - ear[1])
    assert heard_apart == pytest.approx(even + wanted, abs=2.5)
    plain, _ = difference("input" if road == "waveform" else "power")
    assert plain - heard_apart > 20


def test_waveforms_are_not_mixed_as_log_mels():
    for domain in ("power", "either"):
        with pytest.raises(ValueError, match=f"mixup_domain={domain} is of log-mels, and mixup_on is waveform"):
            BatchAugment(mixup_on="waveform", mixup_domain=domain)


def test_a_run_trains_with_it(tiny):
    run(train, "--config", tiny, "--fold", "0", "--name", "level", "augment.batch.mixup_domain=level",
        "augment.batch.mixup_p=1.0", "optim.epochs=1")  # fmt: skip
    assert Path("runs/sed/level/fold0/oof.npz").is_file()

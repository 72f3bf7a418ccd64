"""Kaldi's filter bank as an input: against transformers' ASTFeatureExtractor, NumPy against torch, whole and cut."""

import numpy as np
import pytest
import torch

from earshot.config import load_config
from earshot.inputs.kaldi import HOP, n_frames
from earshot.inputs.kaldi_input import Kaldi
from earshot.inputs.waveforms import grid, own_samples


def sound(n_samples, seed=0):
    t = np.arange(n_samples) / 16000
    tone = 0.2 * np.sin(2 * np.pi * 1000 * t) * (t > t[-1] / 2)
    return (tone + 0.03 + 0.01 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize(("n_mels", "mean", "deviation"), [(128, -4.2677393, 4.5689974), (64, -6.6, 5.0)])
def test_it_is_what_the_published_extractor_gives(n_mels, mean, deviation):
    from transformers import ASTFeatureExtractor  # a second that only the process of this file needs

    waveform = sound(5 * 16000)
    theirs = ASTFeatureExtractor(num_mel_bins=n_mels, mean=mean, std=deviation, max_length=1024)(
        waveform, sampling_rate=16000, return_tensors="np"
    )["input_values"][0]
    record = Kaldi(n_mels=n_mels, mean=mean, deviation=deviation)
    ours = record.compute(waveform)
    assert ours.shape == record.shape(80000) == (1, 501, n_mels)
    whole = 1 + (80000 - 400) // 160  # frames that lie in the sound
    np.testing.assert_allclose(ours[0, :whole], theirs[:whole], atol=2e-4)
    np.testing.assert_allclose(theirs[whole:], -mean / (2 * deviation), atol=1e-5)  # theirs are filled up from there


@pytest.mark.parametrize("n_samples", [1, 2, 159, 160, 400, 5000, 50001])
def test_twins_agree_at_every_length(n_samples):
    record, waveform = Kaldi(n_mels=40), sound(n_samples)
    ours = record.compute(waveform)
    twin = record.twin()(torch.from_numpy(np.stack([waveform, waveform[::-1].copy()])))
    assert ours.shape == record.shape(n_samples) == (1, n_frames(n_samples), 40)
    assert twin.dtype == torch.float32
    # energies over what is at hand: a few samples leave rounding errors alone in most bands
    heard = np.exp([ours * 9.1379948, twin[0].numpy() * 9.1379948])
    np.testing.assert_allclose(heard[0], heard[1], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(record.twin()(torch.from_numpy(waveform)[None, None])[0], twin[0], atol=1e-5, rtol=0)


def test_a_piece_is_a_part_of_the_whole_but_for_its_end():
    record, waveform = Kaldi(), sound(48000)
    step = grid(16000, record)
    assert step == HOP == grid(32000, record) // 2
    whole, part = record.compute(waveform), record.compute(waveform[50 * HOP : 50 * HOP + 16000])
    np.testing.assert_allclose(part[:, :98], whole[:, 50:148], atol=1e-5)
    assert own_samples(96000, 32000, record) == 48000


def test_silence_gradients_and_what_it_does_not_hear():
    record = Kaldi()
    np.testing.assert_allclose(record.silence(4000), record.compute(np.zeros(4000, np.float32)), rtol=1e-6)
    waveform = torch.from_numpy(sound(4000)[None]).requires_grad_()
    record.twin()(waveform).sum().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().max() > 0
    with pytest.raises(ValueError, match="hears mono at 16000 Hz, got mono at 32000 Hz: leave both out"):
        load_config(None, ["frontends.logmel={kind: kaldi, sample_rate: 32000}"])
    with pytest.raises(ValueError, match=r"above data.sample_rate \(8000 Hz\)"):
        load_config(None, ["data.sample_rate=8000", "frontends.logmel={kind: kaldi}"])
    with pytest.raises(ValueError, match="kaldi deviation must be positive, got 0"):
        Kaldi(deviation=0)
    with pytest.raises(ValueError, match="n_mels must be from 1 to 256, got 300"):
        Kaldi(n_mels=300)
    with pytest.raises(ValueError, match=r"needs \(samples,\) with samples in it"):
        record.compute(np.zeros(0, np.float32))

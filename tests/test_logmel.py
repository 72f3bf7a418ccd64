"""logmel.py and inputs/torch_logmel.py against librosa, torchlibrosa, each other and values derived by hand."""

import logging
import warnings
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

from earshot.inputs.torch_logmel import LogMel
from earshot.sound import logmel
from earshot.sound.logmel import (
    LogmelParams,
    empty_mel_bands,
    fft_window,
    log_mel,
    mel_filterbank,
    n_frames,
    silence_db,
)

PANNS = LogmelParams(sample_rate=32000)
RAINFOREST = LogmelParams(sample_rate=48000, n_fft=512, hop_length=512, n_mels=128, fmin=0, fmax=24000)
FRONT_ENDS = [
    PANNS,
    RAINFOREST,
    LogmelParams(sample_rate=16000, win_length=400, hop_length=160, n_mels=40, fmin=20, fmax=8000),
    LogmelParams(sample_rate=32000, window="hamming", pad_mode="constant", ref=2.0, amin=1e-8),
    LogmelParams(sample_rate=32000, center=False),
]


def noise(*shape, seed=0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def by_torchlibrosa(waveform: np.ndarray, p: LogmelParams) -> np.ndarray:
    """(B, S) -> (B, T, F) by somebody else's convolutions."""
    spectrogram = Spectrogram(p.n_fft, p.hop_length, p.win_length or p.n_fft, p.window, p.center, p.pad_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # librosa's own word on empty bands
        bank = LogmelFilterBank(p.sample_rate, p.n_fft, p.n_mels, p.fmin, p.fmax, True, p.ref, p.amin, None)
    with torch.no_grad():
        return bank(spectrogram(torch.from_numpy(waveform)))[:, 0].numpy()


@pytest.mark.parametrize(
    "params", [*FRONT_ENDS[:2], *(pytest.param(p, marks=pytest.mark.slow) for p in FRONT_ENDS[2:])]
)
def test_both_paths_equal_torchlibrosa(params):
    waveform = noise(2, params.sample_rate)
    expected = by_torchlibrosa(waveform, params)
    # 2e-3 dB: torchlibrosa's own float32 error where a bin's power nearly cancels (n_fft 512 at 48 kHz)
    np.testing.assert_allclose(log_mel(waveform, params), expected, rtol=0, atol=2e-3)
    np.testing.assert_allclose(LogMel(params)(torch.from_numpy(waveform))[:, 0], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("params", [*FRONT_ENDS, replace(PANNS, top_db=40.0), replace(PANNS, n_fft=1023)])
@pytest.mark.parametrize("n_samples", [1, 2, 300, 512, 513, 2000])
def test_the_paths_are_one_for_every_length(params, n_samples):
    waveform = noise(2, 3, n_samples)
    ours, front = log_mel(waveform, params), LogMel(params)
    assert ours.shape == (2, 3, n_frames(n_samples, params), params.n_mels)
    assert ours.dtype == np.float32
    for path in (front._by_blocks, front._by_stft):  # the second is what a GPU runs
        front._by_blocks = path
        theirs = front(torch.from_numpy(waveform)).numpy()
        # energies: one or two samples reflected are a tone, and all other bands hold rounding errors alone
        np.testing.assert_allclose(10 ** (theirs / 10), 10 ** (ours / 10), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("params", [*FRONT_ENDS, replace(PANNS, n_fft=1023), replace(PANNS, fmin=0, fmax=900.0)])
def test_mel_filterbank_equals_librosas(params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = librosa.filters.mel(
            sr=params.sample_rate, n_fft=params.n_fft, n_mels=params.n_mels, fmin=params.fmin, fmax=params.fmax
        )
    bank = mel_filterbank(params)
    assert (bank.shape, bank.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(bank, expected, rtol=0, atol=2e-7 * expected.max())
    assert empty_mel_bands(params) == np.flatnonzero(expected.max(axis=1) == 0).tolist()


def test_empty_bands_are_counted_and_warned_of_once(caplog):
    mel_filterbank.cache_clear()
    with caplog.at_level(logging.WARNING, "earshot"):
        assert empty_mel_bands(RAINFOREST) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 40]
        mel_filterbank(RAINFOREST)
    assert [r.getMessage()[:38] for r in caplog.records] == ["13 of 128 mel bands hold no bin of n_f"]
    values = log_mel(noise(4800), RAINFOREST)
    np.testing.assert_allclose(values[:, 40], -100, atol=1e-4)
    assert (values[:, 41] > -99).all()


def test_window_is_scipys_periodic_one_centred():
    for name in logmel.WINDOWS:
        params = LogmelParams(n_fft=64, win_length=41, window=name)
        expected = np.zeros(64)
        expected[11:52] = librosa.filters.get_window(name, 41, fftbins=True)
        np.testing.assert_allclose(fft_window(params), expected, atol=1e-7)


def test_a_tone_by_hand():
    """cos of amplitude 1 on bin 64 under a periodic Hann window: power (n_fft / 4)^2, half-amplitude neighbours."""
    waveform = np.cos(2 * np.pi * 64 / 1024 * np.arange(32000)).astype(np.float32)
    power = logmel.power_spectrogram(waveform, PANNS)
    assert power.shape == (101, 513)
    np.testing.assert_allclose(power[50, 62:67] / 256**2, [0, 0.25, 1, 0.25, 0], atol=1e-5)
    level = 10 * np.log10(1e-10 + 256**2 * mel_filterbank(PANNS)[:, 63:66] @ [0.25, 1, 0.25])
    loudest = level.argmax()
    assert log_mel(waveform, PANNS)[50, loudest] == pytest.approx(level[loudest], abs=1e-4)
    assert log_mel(waveform, PANNS)[50].argmax() == loudest


def test_frame_t_is_centred_on_sample_t_hops():
    waveform = np.zeros(32000, np.float32)
    waveform[40 * 320] = 1.0
    values = log_mel(waveform, PANNS).max(axis=1)
    assert values.argmax() == 40
    assert values[39] == pytest.approx(values[41], abs=1e-4)
    assert np.flatnonzero(values > -100).tolist() == [39, 40, 41]


def test_silence_is_silence_db():
    assert silence_db(PANNS) == -100
    assert silence_db(replace(PANNS, ref=10.0)) == pytest.approx(-110)
    assert silence_db(replace(PANNS, ref=1e-12)) == 0  # the reference is floored at amin too
    for params in FRONT_ENDS:
        np.testing.assert_allclose(log_mel(np.zeros(2000), params), silence_db(params), rtol=1e-6)


def test_top_db_counts_from_each_clip_alone():
    params = replace(PANNS, top_db=30.0)
    tone = np.cos(np.arange(4000)).astype(np.float32)
    pair = np.stack([tone, 1e-3 * noise(4000, seed=1) + 1e-2 * tone])
    values = log_mel(pair, params)
    np.testing.assert_allclose(np.ptp(values, axis=(1, 2)), 30, atol=1e-4)
    np.testing.assert_array_equal(values[1], log_mel(pair[1], params))
    np.testing.assert_allclose(LogMel(params)(torch.from_numpy(pair))[:, 0], values, atol=2e-4)
    plain = log_mel(pair, PANNS)
    np.testing.assert_allclose(values[0], np.where(plain[0] > plain[0].max() - 30, plain[0], plain[0].max() - 30))


def test_blocks_leave_no_seam(monkeypatch):
    waveform = noise(3000 * 320)
    whole = log_mel(waveform, PANNS)
    monkeypatch.setattr(logmel, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(log_mel(waveform[: 320 * 100], PANNS)[:90], whole[:90], atol=1e-4)


def test_reflection_repeats_as_numpy_does():
    short = noise(5)
    index = logmel.reflected_index(5, 16)
    np.testing.assert_array_equal(short[index], np.pad(short, 16, "reflect"))
    assert logmel.reflected_index(1, 3).tolist() == [0] * 7
    assert logmel.reflected_index(2, 3).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


@given(st.integers(1, 3000), st.integers(0, 200), st.booleans())
def test_n_frames_and_shift(n_samples, hops, center):
    """n_frames is the length of log_mel; a shift by whole hops shifts the frames that see no edge."""
    params = LogmelParams(sample_rate=8000, n_fft=64, hop_length=16, n_mels=8, fmin=100, fmax=4000, center=center)
    waveform = noise(n_samples, seed=n_samples)
    values = log_mel(waveform, params)
    assert len(values) == n_frames(n_samples, params)
    shifted = log_mel(waveform[16 * hops :], params) if n_samples > 16 * hops else values[:0]
    edge = 4 if center else 0
    inside = slice(edge, max(edge, min(len(values) - hops, len(shifted)) - edge)) if n_samples > 128 else slice(0)
    np.testing.assert_allclose(shifted[inside], values[hops:][inside], atol=1e-3)


def test_whole_numbers_and_float64_are_taken_as_float32():
    assert log_mel(np.array([1, 2, 3]), PANNS).dtype == np.float32
    np.testing.assert_array_equal(log_mel(noise(900).astype(np.float64), PANNS), log_mel(noise(900), PANNS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fmax": 17000.0}, "fmax 17000 Hz is above the Nyquist frequency 16000 Hz"),
        ({"sample_rate": 16000}, "fmax 14000 Hz is above the Nyquist frequency 8000 Hz"),
        ({"fmin": 15000.0}, "0 <= fmin < fmax, got fmin 15000"),
        ({"hop_length": 0}, "hop_length must be positive"),
        ({"n_mels": 0}, "n_mels must be positive"),
        ({"amin": 0.0}, "amin must be positive"),
        ({"win_length": 2048}, "win_length 2048 must be 0"),
        ({"window": "han"}, "unknown log-mel window 'han'"),
        ({"pad_mode": "reflet"}, "unknown log-mel pad_mode 'reflet'"),
        ({"top_db": -1.0}, "top_db must not be negative"),
    ],
)
def test_senseless_parameters_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PANNS, **change)


def test_errors_name_what_came():
    with pytest.raises(ValueError, match=r"at least one sample, got a waveform of shape \(2, 0\)"):
        log_mel(np.zeros((2, 0)), PANNS)
    with pytest.raises(ValueError, match=r"needs LogmelParams\.sample_rate"):
        mel_filterbank(LogmelParams())
    with pytest.raises(ValueError, match=r"needs \(B, S\) or \(B, C, S\) with samples in it, got \(5,\)"):
        LogMel(PANNS)(torch.zeros(5))
    with pytest.raises(ValueError, match=r"got \(2, 0\)"):
        LogMel(PANNS)(torch.zeros(2, 0))


def test_torch_shapes_and_state():
    front = LogMel(PANNS)
    assert front(torch.zeros(2, 32000)).shape == (2, 1, 101, 64)
    assert front(torch.zeros(2, 2, 32000)).shape == (2, 2, 101, 64)
    assert front(torch.zeros(1, 1)).shape == (1, 1, 1, 64)
    assert front.state_dict() == {}
    assert list(front.parameters()) == []


def test_torch_computes_in_float32_whatever_autocast_says():
    waveform = torch.from_numpy(noise(2, 8000))
    expected = LogMel(PANNS)(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = LogMel(PANNS)(waveform)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    assert LogMel(PANNS)(waveform.double()).dtype == torch.float32


@pytest.mark.parametrize("path", ["_by_blocks", "_by_stft"])
def test_gradient_equals_finite_difference_and_is_finite_in_silence(path):
    front = LogMel(LogmelParams(sample_rate=8000, n_fft=64, hop_length=32, n_mels=8, fmin=100, fmax=4000))
    front._by_blocks = getattr(front, path)
    waveform = torch.from_numpy(noise(1, 400)).requires_grad_()
    front(waveform).sum().backward()
    step = torch.zeros(1, 400)
    step[0, 123] = 1e-3
    with torch.no_grad():
        slope = (front(waveform + step).double().sum() - front(waveform - step).double().sum()) / 2e-3
    assert waveform.grad[0, 123].item() == pytest.approx(slope.item(), rel=0.02)
    silence = torch.zeros(1, 400, requires_grad=True)
    front(silence).sum().backward()
    assert silence.grad.isfinite().all()


@pytest.mark.gpu
def test_gpu_equals_numpy():
    waveform = noise(3, 32000)
    for params in FRONT_ENDS:
        on_gpu = LogMel(params).cuda()(torch.from_numpy(waveform).cuda())[:, 0].cpu().numpy()
        np.testing.assert_allclose(on_gpu, log_mel(waveform, params), rtol=0, atol=2e-3)

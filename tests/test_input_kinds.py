"""PCEN, gammatone bands and VGGish's examples as inputs: against librosa and scipy, and NumPy against torch."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

import export
import predict
import train
from earshot import runs
from earshot.config import load_config
from earshot.inputs import vggish
from earshot.inputs.gammatone import Gammatone, centres, gammatone_bank
from earshot.inputs.kinds import KINDS, make_input
from earshot.inputs.pcen import Pcen
from earshot.inputs.vggish_examples import VggishInput
from earshot.inputs.waveforms import as_heard, grid, own_samples
from earshot.models import MODELS
from earshot.prediction.predictions import Predictions
from earshot.sound.logmel import mel_energies
from scripts import run

PCEN = Pcen(sample_rate=16000, n_fft=512, hop_length=160, n_mels=40, fmin=50, fmax=8000)
GAMMATONE = Gammatone(sample_rate=16000, channels="mono", n_fft=1024, hop_length=160, n_bands=32, fmin=50, fmax=7000)


def sound(*shape, seed=0):
    t = np.arange(shape[-1]) / 16000
    tone = 0.2 * np.sin(2 * np.pi * 1000 * t) * (t > t[-1] / 2)
    return (tone + 0.01 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("changes", [{}, {"gain": 0.8, "bias": 10.0, "power": 0.25, "time_constant": 0.06}])
def test_pcen_is_that_of_librosa(changes):
    record, waveform = replace(PCEN, **changes), sound(16000)
    energy = record.scale * mel_energies(waveform, record).astype(np.float64)
    options = {"gain": 0.98, "bias": 2, "power": 0.5, "time_constant": 0.4} | changes
    theirs = librosa.pcen(energy, sr=16000, hop_length=160, axis=0, **options)
    ours = record.compute(waveform)
    assert ours.shape == (1, 101, 40) == record.shape(16000)
    np.testing.assert_allclose(ours[0], theirs, rtol=1e-4, atol=1e-5)


def test_pcen_forgets_loudness():
    """Its purpose: a sound ten times as loud gives nearly the same once the smoothing has followed."""
    quiet, loud = PCEN.compute(sound(48000)), PCEN.compute(10 * sound(48000))
    settled = slice(250, 300)
    assert np.abs(loud - quiet)[:, settled].max() < 0.1 * quiet[:, settled].max()
    np.testing.assert_array_equal(PCEN.silence(16000), PCEN.compute(np.zeros(16000, np.float32)))


@pytest.mark.parametrize(("kind", "n_channels"), [(k, n) for k in ("pcen", "gammatone", "logmel") for n in (1, 2)])
@pytest.mark.parametrize("n_samples", [1, 300, 16000, 33333])
def test_twins_agree(kind, n_channels, n_samples):
    record = make_input(
        {"kind": kind, "sample_rate": 16000, "fmax": 7000, "channels": ("", "mono", "stereo")[n_channels]}
    )
    waveform = sound(*(2, n_samples) if n_channels == 2 else (n_samples,))
    ours = record.compute(waveform)
    twin = record.twin()(torch.from_numpy(waveform)[None])[0].numpy()
    assert ours.shape == twin.shape == record.shape(n_samples)
    assert ours.dtype == twin.dtype == np.float32
    np.testing.assert_allclose(ours, twin, atol=5e-3, rtol=1e-3)


def test_gradients_reach_the_waveform():
    for record in (PCEN, GAMMATONE):
        waveform = torch.from_numpy(sound(4000)[None]).requires_grad_()
        record.twin()(waveform).sum().backward()
        assert waveform.grad.isfinite().all()
        assert waveform.grad.abs().max() > 0


def test_gammatone_filters_have_the_response_of_scipys():
    bank, middle = gammatone_bank(GAMMATONE), centres(GAMMATONE)
    assert bank.shape == (32, 513)
    np.testing.assert_allclose(middle[[0, -1]], [50, 7000], rtol=1e-6)
    hz = np.arange(513) * 16000 / 1024
    for band in (8, 16, 24):
        b, a = scipy.signal.gammatone(middle[band], "iir", fs=16000)
        response = np.abs(scipy.signal.freqz(b, a, hz, fs=16000)[1]) ** 2
        near = np.abs(hz - middle[band]) < 300
        np.testing.assert_allclose(bank[band, near], response[near] / response.max(), atol=0.05)
    assert np.argmax(GAMMATONE.compute(sound(16000))[0, 80]) == np.argmin(np.abs(middle - 1000))


def test_vggish_examples_are_cut_from_the_whole():
    record, waveform = VggishInput(), sound(16000 * 5)
    np.testing.assert_array_equal(record.compute(waveform), vggish.examples(waveform))
    step = grid(16000, record)
    assert step == 15360
    assert grid(32000, record) == 30720
    part = record.compute(waveform[step : step + 32000])
    np.testing.assert_allclose(record.compute(waveform)[1:3], part, atol=1e-5)
    assert record.shape(own_samples(320000, 32000, record)) == (10, 96, 64)
    assert as_heard(np.zeros((2, 32000), np.float32), 32000, record).shape == (16000,)
    with pytest.raises(ValueError, match="VGGish hears mono at 16000 Hz, got mono at 32000 Hz: leave both out"):
        load_config(None, ["frontends.vggish={kind: vggish, sample_rate: 32000}"])
    with pytest.raises(ValueError, match=r"above data.sample_rate \(8000 Hz\).* set data.sample_rate=16000"):
        load_config(None, ["data.sample_rate=8000", "frontends.vggish.kind=vggish"])


class Both(torch.nn.Module):
    """Answers by the levels of PCEN, gammatone bands and VGGish's examples."""

    inputs, in_chans, min_frames, pool, dead_parameters, spec_augment = ("pcen", "ear", "vggish"), 1, 1, 1, (), None

    def __init__(self, classes, n_mels):
        super().__init__()
        self.of = torch.nn.ModuleList([torch.nn.Linear(n, classes) for n in (16, 12, 64)])

    def forward(self, pcen, ear, vggish):
        given = (pcen[:, 0].mean(dim=1), ear[:, 0].mean(dim=1) / 50, vggish.mean(dim=(1, 2)))
        logit = sum(layer(x) for layer, x in zip(self.of, given, strict=True))
        return {"clipwise_output": logit.sigmoid(), "logit": logit}


@pytest.mark.slow
def test_a_run_of_three_kinds(tiny, monkeypatch):
    monkeypatch.setitem(MODELS, "both", Both)
    tiny.write_text(tiny.read_text().replace("sample_rate: 8000", "sample_rate: 16000"))
    options = ("model.name=both", "model.params={}", "predict.keep_frames=false", "loss.name=bce", "optim.epochs=1",
               "frontends.pcen={kind: pcen, n_fft: 512, hop_length: 160, n_mels: 16, fmax: 8000}",
               "frontends.ear={kind: gammatone, n_fft: 256, hop_length: 80, n_bands: 12, fmax: 4e3, sample_rate: 8000}",
               "frontends.vggish={kind: vggish}", "augment.spec_augment={}", "predict.stride_seconds=0.5")  # fmt: skip
    with pytest.raises(ValueError, match="data.cache=logmel leaves no waveform, and both reads pcen and ear and"):
        run(train, "--config", tiny, "--fold", 0, "--name", "cached", *options, "data.cache=logmel")
    run(train, "--config", tiny, "--fold", 0, "--name", "both", *options)
    run(export, "--run", "runs/sed/both", "--format", "onnx")
    for backend in ("torch", "onnx"):
        run(predict, "--run", "runs/sed/both", "--clips", "data/test_clips.csv", "--out", f"{backend}.npz",
            "--backend", backend)  # fmt: skip
    ours, theirs = (Predictions.load(f"{name}.npz").clipwise_output for name in ("torch", "onnx"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert runs.load_run("runs/sed/both").config.inputs().shapes(16000) == {
        "logmel": (1, 201, 16), "pcen": (1, 101, 16), "ear": (1, 101, 12), "vggish": (1, 96, 64),
    }  # fmt: skip


def test_every_kind_is_made_of_its_own_json():
    for name, kind in KINDS.items():
        record = kind().resolved(32000, "mono", name)
        assert record.kind == name
        assert make_input(record.to_json()) == record
        assert hash(record) == hash(make_input(record.to_json()))

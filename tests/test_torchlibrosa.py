"""`engine: torchlibrosa` against the fast twins, in training, in eager prediction, and in what is exported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import predict
import train
from earshot import runs
from earshot.config import load_config
from earshot.inputs.logmel import Logmel
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.prediction.backends import open_graph
from earshot.prediction.predictions import Predictions
from earshot.sound.logmel import log_mel
from scripts import run

CONFIGS = Path(__file__).parents[1] / "configs"
PANNS = Logmel(sample_rate=32000, channels="mono", engine="torchlibrosa")
RECORDS = {
    "panns": PANNS,
    "rainforest": replace(PANNS, sample_rate=48000, n_fft=512, hop_length=512, n_mels=128, fmin=0, fmax=24000),
    "short window": replace(PANNS, sample_rate=16000, win_length=400, hop_length=160, n_mels=40, fmax=8000),
    "top_db": replace(PANNS, top_db=40.0, ref=2.0, window="hamming", pad_mode="constant"),
    "not centred": replace(PANNS, center=False),
    "stereo": replace(PANNS, channels="stereo"),
}


def noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("case", RECORDS)
@pytest.mark.parametrize("n_samples", [1, pytest.param(300, marks=pytest.mark.slow), 20000])
def test_the_library_and_both_twins_agree(case, n_samples):
    record = RECORDS[case]
    waveform = noise(*(2, n_samples) if record.n_channels == 2 else (n_samples,))
    own = record.exported()
    assert own.engine == "own"
    assert own == replace(record, engine="own")
    ours, library = own.compute(waveform), record.compute(waveform)
    assert library.shape == ours.shape == record.shape(n_samples)
    assert library.dtype == np.float32
    np.testing.assert_array_equal(ours, log_mel(np.atleast_2d(waveform), own))
    batch = torch.from_numpy(np.stack([waveform, 0.5 * waveform]))
    twin = record.twin()(batch).numpy()
    # energies: one sample reflected is a tone, and all other bands hold rounding errors alone
    tolerance = {"atol": 2e-3} if n_samples > 1000 else {"atol": 1e-6, "rtol": 1e-4}
    heard = (lambda x: x) if n_samples > 1000 else (lambda x: 10 ** (x / 10))
    np.testing.assert_allclose(heard(library), heard(ours), **tolerance)
    np.testing.assert_allclose(heard(twin[0]), heard(ours), **tolerance)
    np.testing.assert_allclose(heard(twin[1]), heard(own.compute(0.5 * waveform)), **tolerance)
    np.testing.assert_array_equal(record.silence(n_samples), own.silence(n_samples))


def test_it_is_the_library_that_computes(monkeypatch):
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    called = []
    for part in (Spectrogram, LogmelFilterBank):
        plain = part.forward if part is Spectrogram else part.power_to_db
        name = "forward" if part is Spectrogram else "power_to_db"
        monkeypatch.setattr(part, name, lambda self, x, plain=plain: called.append(type(self)) or plain(self, x))
    PANNS.compute(noise(4000))
    assert called == [Spectrogram, LogmelFilterBank]
    front_ends = FrontEnds({"logmel": PANNS})
    assert front_ends.state_dict() == {}
    waveform = torch.from_numpy(noise(2, 4000)).requires_grad_()
    front_ends({"waveform": waveform})["logmel"].sum().backward()
    assert called == [Spectrogram, LogmelFilterBank] * 2
    assert waveform.grad.abs().max() > 0
    assert not any(p.requires_grad for p in front_ends.parameters())


def test_the_faithful_configs_name_it_and_others_do_not():
    faithful = ["tagging/panns/cnn14", "tagging/panns/wavegram_logmel_cnn14", "sed/birdcall_cnn14_att", "sed/rfcx_b0"]
    for name in faithful:
        assert load_config(CONFIGS / f"{name}.yaml").frontends["logmel"].engine == "torchlibrosa", name
    for name in ("sed/synth_cnn", "tagging/esc10_cnn", "tagging/transfer/esc50_finetune_cnn14"):
        assert load_config(CONFIGS / f"{name}.yaml").frontends["logmel"].engine == "own", name
    with pytest.raises(ValueError, match="frontends.logmel.engine is 'librosa'; choose one of own, torchlibrosa"):
        load_config(None, ["frontends.logmel={engine: librosa}"])
    with pytest.raises(ValueError, match="pcen has no engine but its own, got torchlibrosa: leave engine out"):
        load_config(None, ["frontends.logmel={kind: pcen, engine: torchlibrosa}"])


def test_a_cache_keeps_the_name_that_it_had():
    plain = Logmel(sample_rate=32000, channels="mono")
    assert "engine" not in plain.cache_params()
    assert PANNS.cache_params() == plain.cache_params() | {"engine": "torchlibrosa"}


@pytest.mark.slow
def test_a_run_trains_predicts_and_exports_with_it(tiny, capsys):
    engine = "frontends.logmel.engine=torchlibrosa"
    with pytest.raises(
        (ValueError, SystemExit), match="data.cache=logmel keeps what NumPy computes.*set data.cache=waveform"
    ):
        run(train, "--config", tiny, "--fold", 0, "--name", "cached", engine, "data.cache=logmel")
    run(train, "--config", tiny, "--fold", 0, "--name", "library", engine, "optim.epochs=1")
    run(train, "--config", tiny, "--fold", 0, "--name", "own", "optim.epochs=1")
    found, own = (runs.load_run(f"runs/sed/{name}").folds[0] for name in ("library", "own"))
    np.testing.assert_allclose(found.oof().clipwise_output, own.oof().clipwise_output, atol=2e-3)
    capsys.readouterr()
    run(export, "--run", "runs/sed/library", "--format", "onnx", "--oof-clips", 3)
    assert "fed by the NumPy log-mel, which agrees within 2e-3 dB" in capsys.readouterr().out
    graph = open_graph("runs/sed/library/fold0/model.onnx")
    assert graph.frontends["logmel"] == found.config.frontends["logmel"].exported()
    for backend in ("torch", "onnx"):
        run(predict, "--run", "runs/sed/library", "--clips", "data/test_clips.csv", "--out", f"{backend}.npz",
            "--backend", backend)  # fmt: skip
    ours, theirs = (Predictions.load(f"{name}.npz").clipwise_output for name in ("torch", "onnx"))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)

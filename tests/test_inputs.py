"""What a network hears: records and their twins, rates and channels, the description in a file, a kind made here."""

import re
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from earshot.config import from_dict, load_config
from earshot.inputs import waveforms
from earshot.inputs.given import Metadata, Waveform
from earshot.inputs.kinds import KINDS, make_input
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.inputs.torch_logmel import LogMel
from earshot.records import to_dict
from earshot.sound import audio
from earshot.sound.logmel import log_mel
from pages import ROOT, blocks

PAGE = (ROOT / "docs" / "inputs.md").read_text()
PANNS = Logmel(sample_rate=32000)
LOW = Logmel(sample_rate=16000, n_fft=512, hop_length=160, n_mels=40, fmin=20, fmax=8000)


def noise(*shape, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# front ends


def test_front_ends_compute_pass_and_take_from_the_cache():
    short = replace(PANNS, n_mels=32)
    front_ends = {"logmel": PANNS, "second": short, "unused": PANNS}
    fronts = FrontEnds(Inputs.made(front_ends, ("logmel", "second", "metadata")))
    waveform, metadata = torch.from_numpy(noise(2, 3200)), torch.ones(2, 3)
    made = fronts({"waveform": waveform, "metadata": metadata, "clip_id": ["a", "b"]})
    assert list(made) == ["logmel", "second", "metadata"]
    assert made["metadata"] is metadata
    assert torch.equal(made["logmel"], LogMel(PANNS)(waveform))
    assert made["second"].shape == (2, 1, 11, 32)
    assert list(fronts.extractors) == ["logmel", "second"]
    cached = fronts({"logmel": made["logmel"][:, 0].half(), "second": made["second"], "metadata": metadata})
    assert cached["logmel"].shape == (2, 1, 11, 64)
    assert cached["logmel"].dtype == torch.float32
    assert torch.equal(cached["second"], made["second"])
    assert tuple(FrontEnds(Inputs.made({"logmel": PANNS})).inputs) == ("logmel",)


def test_front_ends_name_what_is_missing():
    with pytest.raises(ValueError, match="wants input 'logmle', which no front end makes; did you mean 'logmel'"):
        Inputs.made({"logmel": PANNS}, ("logmle",))
    with pytest.raises(ValueError, match="input 'logmel' needs 'waveform', which the batch lacks"):
        FrontEnds(Inputs.made({"logmel": PANNS}))({"target": torch.zeros(1)})
    with pytest.raises(ValueError, match="input 'metadata' needs 'metadata', which the batch lacks"):
        FrontEnds(Inputs.made({}, ("metadata",), 32000))({"waveform": torch.zeros(1, 9)})


# rates and channels


def test_an_input_of_a_lower_rate_hears_the_same_sound_resampled(tmp_path):
    waveform = noise(32000)
    heard = waveforms.as_heard(waveform, 32000, LOW)
    audio.write(tmp_path / "x.wav", waveform, 32000)
    assert heard.shape == (16000,)
    np.testing.assert_allclose(heard, audio.load(tmp_path / "x.wav", 16000), atol=1e-6)
    assert waveforms.as_heard(waveform, 32000, PANNS) is waveform
    for n in (1, 2, 3, 441, 44101):
        for rate, own in ((44100, 16000), (32000, 22050), (48000, 8000)):
            assert len(waveforms.as_heard(noise(n), rate, Waveform(own))) == waveforms.own_samples(
                n, rate, Waveform(own)
            )


def test_channels_are_arranged():
    sides = np.stack([noise(800), noise(800, seed=1)])
    mono, stereo, mid_side = (Waveform(8000, channels) for channels in ("mono", "stereo", "mid_side"))
    np.testing.assert_array_equal(waveforms.as_heard(sides, 8000, mono), sides.mean(axis=0))
    assert waveforms.as_heard(sides, 8000, stereo) is sides
    mid, side = waveforms.as_heard(sides, 8000, mid_side)
    np.testing.assert_allclose(mid + side, sides[0], atol=1e-7)
    np.testing.assert_allclose(mid - side, sides[1], atol=1e-7)
    with pytest.raises(ValueError, match=r"channels mid_side needs a waveform \(2, S\), got \(800,\)"):
        waveforms.as_heard(sides[0], 8000, mid_side)
    low = waveforms.as_heard(sides, 8000, Waveform(4000, "stereo"))
    np.testing.assert_allclose(low[1], waveforms.as_heard(sides[1], 8000, Waveform(4000)), atol=1e-7)


def test_files_of_one_two_and_six_channels(tmp_path):
    sides = noise(6, 8000)
    for n in (1, 2, 6):
        audio.write(tmp_path / f"{n}.wav", sides[:n], 8000)
    for n, expected in ((1, sides[[0, 0]]), (2, sides[:2]), (6, sides[:2])):
        np.testing.assert_array_equal(waveforms.decode(tmp_path / f"{n}.wav", 8000, 2), expected)
    np.testing.assert_allclose(waveforms.decode(tmp_path / "2.wav", 8000, 1), sides[:2].mean(axis=0), atol=1e-7)


def test_batches_hold_each_distinct_sound_once():
    front_ends = {"logmel": PANNS, "low": LOW, "low_waveform": Waveform(16000), "waveform": Waveform(32000)}
    heard = Inputs.made(front_ends)
    sounds = heard.training_sounds(noise(32000))
    assert {key: v.shape for key, v in sounds.items()} == {"waveform": (32000,), "waveform_16000_mono": (16000,)}
    by_torch = FrontEnds(heard)({key: torch.from_numpy(v[None]) for key, v in sounds.items()})
    for name, values in heard.hear(noise(32000)).items():
        np.testing.assert_allclose(by_torch[name][0].numpy(), values, atol=2e-3)
        assert values.shape == heard.shapes(32000)[name]


@pytest.mark.parametrize("rate", [32000, 44100])
def test_steps_of_a_time_axis_at_another_rate(rate):
    """Where a window starts on the grid, its frames are those of the whole recording's log-mel."""
    grid = waveforms.grid(rate, LOW)
    assert grid * LOW.sample_rate % (LOW.hop_length * rate) == 0
    assert waveforms.grid(rate, replace(LOW, sample_rate=rate, fmax=8000)) == LOW.hop_length
    waveform = noise(rate * 3)
    whole = LOW.compute(waveforms.as_heard(waveform, rate, LOW))
    start = 40 * grid
    own = LOW.compute(waveforms.as_heard(waveform[start : start + rate], rate, LOW))
    first = int(waveforms.steps(start, rate, LOW))
    inside = slice(4, own.shape[1] - 4)  # borders hear resampling's and reflected edges
    np.testing.assert_allclose(whole[:, first : first + own.shape[1]][:, inside], own[:, inside], atol=0.05)


# description


def test_a_description_read_back_is_the_same_object():
    front_ends = {"logmel": replace(PANNS, channels="mid_side"), "low": LOW, "raw": Waveform(16000)}
    names = ("low", "logmel", "raw", "metadata")
    heard = Inputs.made(front_ends, names, 32000, "stereo", Metadata(columns=("week", "hour")))
    about = {
        "inputs": list(names), "frontends": heard.to_json(), "channels": "stereo", "timebase": [32000, 320, 4],
        "windowing": {"sample_rate": 32000}, "metadata": ["week", "hour"],
    }  # fmt: skip
    assert Inputs.from_json(about) == heard
    old = about | {"frontends": {"logmel": {"sample_rate": 32000, "n_mels": 64}}, "inputs": ["logmel", "metadata"]}
    assert Inputs.from_json(old)["logmel"].n_mels == 64
    assert Inputs.from_json(old).columns == ("week", "hour")
    assert heard.hop_length == 320
    assert heard.shapes(32000) == {"low": (2, 101, 40), "logmel": (2, 101, 64), "raw": (2, 16000), "metadata": (2,)}


def test_configs_name_kinds_and_old_ones_are_log_mels():
    config = load_config(None, ["frontends={logmel: {}, raw: {kind: waveform, sample_rate: 16000}}"])
    assert config.frontends["raw"] == Waveform(16000, "mono")
    assert config.frontends["logmel"] == Logmel(sample_rate=32000, channels="mono")
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ValueError, match="unknown key 'n_mel'.*did you mean 'n_mels'"):
        load_config(None, ["frontends.logmel.n_mel=3"])
    with pytest.raises(ValueError, match="a waveform has no 'n_mels'"):
        make_input({"kind": "waveform", "n_mels": 3})


def test_a_grid_that_would_drift_is_refused():
    with pytest.raises(ValueError, match="hop of 512 samples at 16000 Hz is no whole number .* 44100 Hz"):
        Inputs.made({"low": replace(LOW, hop_length=512)}, None, 44100)
    assert Inputs.made({"low": LOW}, None, 44100).hop_length == 441


# a kind of one class


@pytest.fixture
def envelope(monkeypatch):
    """The recipe of docs/inputs.md, done."""
    (recipe,) = blocks(PAGE, "python")
    module = types.ModuleType("envelope")
    monkeypatch.setitem(sys.modules, "envelope", module)  # dataclasses look there
    exec(recipe, vars(module))
    name, value = re.search(r'one line of KINDS: "(\w+)": (\w+)', recipe).groups()
    monkeypatch.setitem(KINDS, name, getattr(module, value))


def test_a_new_kind_is_one_class(envelope, tiny, capsys):
    """Trained, predicted, exported to a graph, calibrated and described by the recipe alone."""
    import describe
    import export
    import predict
    import train
    from earshot import runs
    from earshot.prediction.backends import open_graph, silent_window
    from earshot.prediction.predictions import Predictions
    from scripts import run

    options = ["frontends={logmel: {kind: envelope, block: 80, sample_rate: 4000}}", "optim.epochs=1",
               "model.params={widths: [8], blocks: [1], time_strides: [2], freq_strides: [1], embedding: 8}",
               "augment.spec_augment={}", "predict.stride_seconds=0.5"]  # fmt: skip
    config = load_config(tiny, options)
    assert load_config(tiny, options[:1]).frontends["logmel"].block == 80
    run(train, "--config", tiny, "--fold", 0, "--name", "envelope", *options)
    run(train, "--config", tiny, "--fold", 0, "--name", "cached", *options, "data.cache=logmel")
    folder = runs.load_run("runs/sed/envelope").folder
    assert runs.load_run(folder).config.frontends == config.frontends
    run(export, "--run", folder, "--format", "onnx")
    run(predict, "--run", folder, "--clips", "data/test_clips.csv", "--out", "torch.npz")
    run(predict, "--run", folder, "--clips", "data/test_clips.csv", "--out", "onnx.npz", "--backend", "onnx")
    ours, theirs = (Predictions.load(f"{name}.npz").clipwise_output for name in ("torch", "onnx"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert ours.std() > 0
    assert silent_window(open_graph(folder / "fold0" / "model.onnx"))["logmel"].shape == (1, 1, 50, 1)
    run(describe, "--config", tiny, *options, "--classes", 3)
    assert "50 frames x 1 bands at 4000 Hz" in capsys.readouterr().out


def test_log_mel_records_are_the_log_mel():
    waveform = noise(2, 16000)
    np.testing.assert_array_equal(replace(PANNS, channels="stereo").compute(waveform), log_mel(waveform, PANNS))
    # NumPy's float32 logarithm differs between processors in its last bit
    np.testing.assert_allclose(PANNS.silence(16000), PANNS.compute(np.zeros(16000, np.float32)), rtol=1e-6)


def test_the_examples_of_the_docs_are_configs(envelope):
    examples = [yaml.safe_load(block) for block in blocks(PAGE, "yaml")]
    assert len(examples) >= 6
    for block in examples:
        config = from_dict(block)
        assert set(block.get("frontends", {})) <= set(config.frontends)
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M))
    assert named == set(KINDS) - {"envelope"}, "every kind is explained"

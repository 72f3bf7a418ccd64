"""Augmentation of waveforms by audiomentations: its streams, its files, and what is tried before training."""

import contextlib
import importlib
import random

import audiomentations
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.augment import waveform

NOISE_AND_GAIN = [
    {"name": "AddGaussianNoise", "min_amplitude": 0.01, "max_amplitude": 0.02, "p": 1.0},
    {"name": "OneOf", "transforms": [{"name": "Gain", "p": 1.0}, {"name": "PolarityInversion", "p": 1.0}]},
    {"name": "Shift", "p": 0.5},
]


def test_waveform_gain_is_the_amplitude_of_its_decibels():
    augment = waveform.build_waveform_augment([{"name": "Gain", "min_gain_db": -6.0, "max_gain_db": -6.0, "p": 1.0}])
    out = waveform.apply(augment, np.full(1000, 0.5, np.float32), 16000, np.random.default_rng(0))
    np.testing.assert_allclose(out, 0.5 * 0.5011872, rtol=1e-6)
    assert out.dtype == np.float32


@given(st.integers(0, 2**32 - 1))
def test_waveform_stream_depends_on_its_generator_alone_and_moves_no_other(seed):
    augment = waveform.build_waveform_augment(NOISE_AND_GAIN)
    clip = np.sin(np.arange(2000, dtype=np.float32))
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()
    first = waveform.apply(augment, clip, 16000, np.random.default_rng(seed))
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1][1])
    random.seed(2)
    np.random.seed(2)
    np.testing.assert_array_equal(waveform.apply(augment, clip, 16000, np.random.default_rng(seed)), first)
    assert not np.array_equal(waveform.apply(augment, clip, 16000, np.random.default_rng(seed + 1)), first)
    np.testing.assert_array_equal(clip, np.sin(np.arange(2000, dtype=np.float32)))


def test_waveform_states_come_back_after_an_error():
    def fail(samples, sample_rate):
        random.random()
        raise RuntimeError("broken")

    before = random.getstate()
    with pytest.raises(RuntimeError, match="broken"):
        waveform.apply(fail, np.zeros(10, np.float32), 16000, np.random.default_rng(0))
    assert random.getstate() == before


def test_waveform_takes_channels_and_refuses_another_length():
    augment = waveform.build_waveform_augment(NOISE_AND_GAIN)
    assert waveform.apply(augment, np.ones((2, 500), np.float32), 16000, np.random.default_rng(0)).shape == (2, 500)
    longer = waveform.build_waveform_augment([{"name": "AdjustDuration", "duration_samples": 800, "p": 1.0}])
    with pytest.raises(ValueError, match=r"changed the shape from \(500,\) to \(800,\)"):
        waveform.apply(longer, np.ones(500, np.float32), 16000, np.random.default_rng(0))


def test_waveform_unknown_names_are_errors_with_a_suggestion():
    assert waveform.build_waveform_augment([]) is None
    with pytest.raises(ValueError, match="'AddGausianNoise'; did you mean 'AddGaussianNoise'"):
        waveform.build_waveform_augment([{"name": "AddGausianNoise"}])
    with pytest.raises(ValueError, match="'min_amplitud' of waveform augmentation AddGaussianNoise; did you mean"):
        waveform.build_waveform_augment([{"name": "AddGaussianNoise", "min_amplitud": 0.1}])


@pytest.mark.parametrize(
    ("spec", "channels", "message"),
    [
        ({"name": "Gain", "p": 0.0}, 2, ""),
        (
            {"name": "OneOf", "transforms": [{"name": "Gain"}, {"name": "Repeat"}]},
            1,
            "Repeat fails .* changed the shape",
        ),
        ({"name": "OneEar"}, 2, "OneEar fails on a crop: hears one channel"),
        ({"name": "OneEar"}, 1, ""),
        ({"name": "Absent", "p": 0.01}, 1, r"Absent needs a package .* 'nowhere_to_be_found'\)\: leave it out, or pip"),
    ],
)
def test_waveform_transforms_are_tried_once_whatever_their_probability(spec, channels, message, monkeypatch):
    class OneEar(audiomentations.Gain):
        def apply(self, samples, sample_rate):
            if samples.ndim > 1:
                raise RuntimeError("hears one channel")
            return samples

    class Absent(audiomentations.Gain):
        def apply(self, samples, sample_rate):
            importlib.import_module("nowhere_to_be_found")

    class Repeat(audiomentations.Gain):
        def apply(self, samples, sample_rate):
            return np.concatenate([samples, samples], axis=-1)

    for kind in (OneEar, Absent, Repeat):
        monkeypatch.setattr(audiomentations, kind.__name__, kind, raising=False)
    augment = waveform.build_waveform_augment([spec])
    with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
        waveform.check_waveform_augment(augment, 500, 16000, channels)
    assert [t.p for t in waveform._transforms_in(augment)] == [spec.get("p", 0.5)] * len(spec.get("transforms", "1"))


@pytest.mark.parametrize("spec", [{"name": "AdjustDuration"}, {"name": "AddBackgroundNoise"}])
def test_waveform_parameters_that_make_nothing_are_errors(spec):
    with pytest.raises(ValueError, match=f"{spec['name']} cannot be made of {{}}: (these parameters|.*sounds_path)"):
        waveform.build_waveform_augment([spec])


def test_waveform_background_files_are_sorted(tmp_path):
    import soundfile

    for name in "cab":
        soundfile.write(tmp_path / f"{name}.wav", np.ones(100), 16000)
    augment = waveform.build_waveform_augment([{"name": "AddBackgroundNoise", "sounds_path": str(tmp_path)}])
    assert [p[-5:] for p in augment.transforms[0].sound_file_paths] == ["a.wav", "b.wav", "c.wav"]

"""Test-time augmentation: what each further hearing of a recording gives a network."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from earshot.augment.spectrogram import frequency_shift, time_stretch
from earshot.inputs.given import Waveform
from earshot.prediction.inference import predict_clips, predict_members
from earshot.prediction.predictions import Clip
from earshot.sound import audio
from earshot.sound.logmel import log_mel
from earshot.sound.timebase import TimeBase
from test_inference import CLASSES, PARAMS, PRIOR, RATE, MeanBackend, network_of, windowing


class FirstSample:
    """Answers with the first sample that it hears and the one at an eighth of the window: positions tell."""

    inputs = ("waveform",)
    frontends = {"waveform": Waveform(sample_rate=RATE)}  # noqa: RUF012
    timebase = TimeBase(RATE, 160, 8)

    def run(self, inputs):
        x = inputs["waveform"]
        return {"clipwise_output": x[:, [0, x.shape[1] // 8]]}


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_rolled_hearings_are_circular_shifts_by_eighths(tmp_path, seconds):
    """A ramp as long as the window, or two: the mean of what stands first in the plain and the seven rolled ones."""
    n = round(seconds * RATE)
    ramp = np.linspace(-0.5, 0.5, n, dtype=np.float32)
    soundfile.write(tmp_path / "x.wav", ramp, RATE, subtype="FLOAT")
    how = windowing(1.0, 1.0, keep_frames=False, aggregate="max")
    hearings = [np.roll(ramp, i * n // 8) for i in range(8)]
    answers = [np.max([h[s : s + RATE][[0, RATE // 8]] for s in range(0, n, RATE)], axis=0) for h in hearings]
    clip = [Clip("x", tmp_path / "x.wav")]
    (found,), _ = predict_clips([FirstSample()], clip, how, CLASSES, PRIOR, tta=["roll"])
    np.testing.assert_allclose(found.clipwise_output[0], np.mean(answers, axis=0), atol=1e-5)
    (plain,), _ = predict_clips([FirstSample()], clip, how, CLASSES, PRIOR)
    assert np.abs(found.clipwise_output - plain.clipwise_output).min() > 0.01, "no roll, no difference"
    only, _ = predict_members([network_of(FirstSample(), how)], clip, ["roll"], plain=False)
    np.testing.assert_allclose(only[0].clipwise_output[0], np.mean(answers[1:], axis=0), atol=1e-5)
    half, _ = predict_members([network_of(FirstSample(), how)], clip, ["roll_half"], plain=False)
    np.testing.assert_allclose(half[0].clipwise_output[0], answers[4], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_hearings_are_what_time_stretch_and_frequency_shift_train(tmp_path, channels):
    params = replace(PARAMS, channels="stereo" if channels == 2 else "mono")
    rng = np.random.default_rng(0)
    sound = 1e-4 * rng.standard_normal((2 * RATE, channels)) * np.linspace(0.01, 1, 2 * RATE)[:, None]
    sound += 0.02 * np.sin(2 * np.pi * 900 * np.arange(2 * RATE) / RATE)[:, None]  # close to the band that parts both
    soundfile.write(tmp_path / "x.wav", sound.squeeze(), RATE, subtype="FLOAT")
    how = windowing(1.0, 0.5, keep_frames=False, aggregate="mean", n_channels=channels)

    class First(MeanBackend):
        frontends = {"logmel": params}  # noqa: RUF012

    clip, heard = [Clip("x", tmp_path / "x.wav")], sound.T.astype(np.float32).squeeze()
    (found,), _ = predict_members([network_of(First(), how)], clip, ["tempo"], plain=False)
    (higher,), _ = predict_members([network_of(First(), how)], clip, ["pitch"], plain=False)
    windows = [log_mel(heard[..., s : s + RATE], params) for s in range(0, RATE + 1, RATE // 2)]
    pictures = torch.from_numpy(np.stack(windows)).reshape(3, channels, -1, PARAMS.n_mels)
    for answers, changed in (
        (found, [time_stretch(pictures, torch.full((3,), rate)) for rate in (0.9, 1.1)]),
        (higher, [frequency_shift(pictures, torch.full((3,), bands)) for bands in (1.0, -1.0)]),
    ):
        expected = [First().run({"logmel": c.numpy()})["clipwise_output"].mean(axis=0) for c in changed]
        np.testing.assert_allclose(answers.clipwise_output[0], np.mean(expected, axis=0), atol=1e-5)
    plain = First().run({"logmel": pictures.numpy()})["clipwise_output"].mean(axis=0)
    assert np.abs(higher.clipwise_output[0] - plain).max() > 1e-4, "no shift, no difference"


def test_tempo_is_for_windows_of_spectrograms(tmp_path):
    audio.write(tmp_path / "x.wav", np.full(RATE, 0.1, np.float32), RATE)
    clip = [Clip("x", tmp_path / "x.wav")]
    with pytest.raises(ValueError, match="'tempo' changes spectrograms, and this network hears wavef"):
        predict_clips([FirstSample()], clip, windowing(keep_frames=False), CLASSES, PRIOR, tta=["tempo"])
    with pytest.raises(ValueError, match="'tempo' moves events in time"):
        predict_clips([MeanBackend()], clip, windowing(keep_frames=True), CLASSES, PRIOR, tta=["tempo"])
    with pytest.raises(
        ValueError, match="'tempo' changes the spectrograms of single windows: predict without one_pass"
    ):
        predict_clips([MeanBackend()], clip, windowing(keep_frames=False, one_pass=True), CLASSES, PRIOR, tta=["tempo"])


def test_gain_hearing_by_hand(tmp_path):
    """+-6 dB on a steady tone: the mean of three squashed levels."""
    audio.write(tmp_path / "x.wav", (0.1 * np.sin(np.arange(2 * RATE))).astype(np.float32), RATE)
    clip = [Clip("x", tmp_path / "x.wav")]
    (found,), _ = predict_clips([MeanBackend(pool=1000)], clip, windowing(), CLASSES, PRIOR, tta=["gain"])
    levels = [log_mel(g * audio.load(tmp_path / "x.wav", RATE), PARAMS)[..., :8].mean() for g in (1, 10**-0.3, 10**0.3)]
    expected = np.mean([1 / (1 + np.exp(-(v + 60) / 10)) for v in levels])
    assert found.clipwise_output[0, 0] == pytest.approx(expected, abs=1e-4)

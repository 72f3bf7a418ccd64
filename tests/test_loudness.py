"""Recordings of any level heard alike, and the same sound recorded otherwise, by hand where it can be."""

import numpy as np
import pytest
import soundfile

from earshot.augment import waveform as waveform_augment
from earshot.config import load_config
from earshot.data.caches import LogmelCache
from earshot.inputs.logmel import Logmel
from earshot.inputs.waveforms import decode
from earshot.prediction.inference import Member, predict_members
from earshot.prediction.predictions import Clip
from earshot.sound import changes, loudness
from earshot.sound.windows import Windowing
from test_inference import CLASSES, PRIOR, RATE, MeanBackend


def song(seconds: float = 3.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * 2000 * t) * (t % 1 < 0.2) + 1e-3 * np.sin(2 * np.pi * 700 * t)).astype(np.float32)


def put(path, sound):
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    return path


def test_level_by_hand():
    """A tone's pre-emphasised power: 0.5 a^2 |1 - 0.97 e^-jw|^2, in the loud fifth of the frames."""
    w = 2 * np.pi * 2000 / RATE
    expected = 10 * np.log10(0.5 * 0.2**2 * abs(1 - 0.97 * np.exp(-1j * w)) ** 2)
    assert loudness.level_db([song()], RATE) == pytest.approx(expected, abs=0.1)


def test_a_recording_of_any_level_is_heard_alike(tmp_path):
    heard = [
        decode(put(tmp_path / f"{g}.wav", song() * 10 ** (g / 20)), RATE, level="normalised") for g in (-40, -12, 0, 12)
    ]
    for other in heard[1:]:
        np.testing.assert_allclose(other, heard[0], rtol=1e-3, atol=1e-6)
    assert loudness.level_db([heard[0]], RATE) == pytest.approx(loudness.HEARD_DB, abs=1e-3)


def test_a_part_has_the_gain_of_the_whole(tmp_path):
    path = put(tmp_path / "a.wav", song())
    whole, both = decode(path, RATE, level="normalised"), decode(path, RATE, 2, level="normalised")
    np.testing.assert_array_equal(decode(path, RATE, 1, 0.5, 0.2, "normalised"), whole[8000:11200])
    np.testing.assert_array_equal(both, np.stack([whole, whole]))


@pytest.mark.parametrize("sound", [np.zeros(8000, np.float32), np.full(8000, 1e-8, np.float32)])
def test_silence_stays_silence(tmp_path, sound):
    assert loudness.gain_of(put(tmp_path / "a.wav", sound), RATE) == 1.0


@pytest.mark.parametrize("background", [0.0, 1e-7])
def test_digital_silence_around_a_sound_does_not_count(tmp_path, background):
    rng = np.random.default_rng(0)
    short = song(0.2)  # all of it is loud
    padded = np.r_[background * rng.standard_normal(9 * RATE), short].astype(np.float32)
    alone = loudness.gain_of(put(tmp_path / "alone.wav", short), RATE)
    assert loudness.gain_of(put(tmp_path / "padded.wav", padded), RATE) == pytest.approx(alone, rel=0.02)


@pytest.mark.parametrize(("scale", "gain"), [(1e-5, 100.0), (1e-4, 100.0), (1e-3, 22.7), (0.1, 0.227)])
def test_the_gain_has_a_limit(tmp_path, scale, gain):
    """White noise of this deviation is heard at 20 log10(scale) + 10 log10(1 + 0.97^2) dB; -30 dB are wanted."""
    noise = scale * np.random.default_rng(0).standard_normal(10 * RATE)
    path = put(tmp_path / "a.wav", noise.astype(np.float32))
    assert loudness.gain_of(path, RATE) == pytest.approx(gain, rel=0.1)


def test_an_edited_file_is_measured_again_and_a_missing_one_is_said_by_its_reader(tmp_path):
    path = put(tmp_path / "a.wav", song())
    first = loudness.gain_of(path, RATE)
    put(path, np.tile(song() * 0.1, 2))
    assert loudness.gain_of(path, RATE) == pytest.approx(10 * first, rel=0.02)
    assert loudness.gain_of(tmp_path / "none.wav", RATE) == 1.0


def test_of_a_long_recording_spans_are_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(loudness, "SPAN_SECONDS", 0.5)
    monkeypatch.setattr(loudness, "MOST_SPANS", 4)
    spans = loudness.pieces(put(tmp_path / "a.wav", song(10)), RATE)
    assert [len(s) for s in spans] == [8000] * 4


def test_predictions_do_not_change_with_the_level(tmp_path):
    """The backend's answers follow the level; normalised they are the same for recordings 12 dB apart."""
    clips = [Clip(str(g), put(tmp_path / f"{g}.wav", song() * 10 ** (g / 20))) for g in (-12, 12)]

    def answers(level):
        how = Windowing(sample_rate=RATE, window_seconds=1.0, keep_frames=True, batch_size=4, level=level)
        found, _ = predict_members([Member(backend=MeanBackend(), windowing=how, classes=CLASSES, prior=PRIOR)], clips)
        return found[0].clipwise_output

    assert np.diff(answers("recorded"), axis=0).min() > 0.04
    np.testing.assert_allclose(*answers("normalised"), atol=2e-4)


def test_members_that_hear_other_levels_share_no_windows(tmp_path):
    clip = Clip("a", put(tmp_path / "a.wav", song()))
    how = [Windowing(sample_rate=RATE, window_seconds=1.0, batch_size=4, level=level) for level in loudness_levels()]
    members = [Member(backend=MeanBackend(), windowing=w, classes=CLASSES, prior=PRIOR) for w in how]
    with pytest.raises(ValueError, match="level is recorded and normalised"):
        predict_members(members, [clip])


def loudness_levels():
    return ("recorded", "normalised")


def test_a_cache_of_pictures_holds_the_level(tmp_path):
    import pandas as pd

    put(tmp_path / "a.wav", song())
    table = pd.DataFrame({"clip_id": ["a"], "path": ["a.wav"]})
    record = Logmel(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=16, fmin=50, fmax=7000)
    plain, level = (
        LogmelCache.build(tmp_path / "cache", table, tmp_path, record, RATE, level=how) for how in loudness_levels()
    )
    assert plain.path != level.path
    gain = 20 * np.log10(loudness.gain_of(tmp_path / "a.wav", RATE))
    loud = plain["a"] > -80  # far above the floor
    np.testing.assert_allclose(level["a"][loud], plain["a"][loud] + gain, atol=1e-3)


@pytest.mark.parametrize(
    "overrides", [["data.cache=embedding", "data.level=normalised", "model.name=extractor_head"], ["data.level=loud"]]
)
def test_what_cannot_be_normalised_is_refused(overrides):
    with pytest.raises(ValueError, match="level"):
        load_config(None, overrides)


def test_a_cache_of_beginnings_is_refused_with_what_to_set():
    with pytest.raises(ValueError, match=r"data\.cache=packed keeps the first 4 s: set data\.cache=waveform"):
        load_config(None, ["data.level=normalised", "data.cache=packed", "data.pack_seconds=4"])
    assert load_config(None, ["data.level=normalised", "data.cache=waveform"]).predict.level == "normalised"
    assert load_config(None, ["data.cache=packed"]).predict.level == "recorded"


@pytest.mark.parametrize(("trained", "predicted"), [("recorded", "normalised"), ("normalised", "recorded")])
def test_a_network_is_heard_as_it_was_trained(trained, predicted, tmp_path):
    said = f"predict.level is {predicted} but data.level is {trained}"
    with pytest.raises(ValueError, match=said):
        load_config(None, [f"data.level={trained}", f"predict.level={predicted}"])
    (tmp_path / "a.yaml").write_text(f"data: {{level: {trained}}}\npredict: {{level: {predicted}}}\n")
    with pytest.raises(ValueError, match=f"a.yaml: {said}"):
        load_config(tmp_path / "a.yaml")
    assert load_config(tmp_path / "a.yaml", [f"predict.level={trained}"]).predict.level == trained


# ---- recorded otherwise


def test_noise_has_the_power_that_was_asked_for():
    sound = song()
    noise = changes.over_noise(sound, 10.0, np.random.default_rng(0)) - sound
    assert 10 * np.log10(np.mean(sound**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.2)
    assert not changes.over_noise(np.zeros(100, np.float32), 0.0, np.random.default_rng(0)).any()


def test_low_pass_keeps_what_is_below_and_takes_what_is_above():
    t = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (500, 6000))
    assert np.abs(changes.low_passed(low, RATE, 2000.0)[2000:]).max() == pytest.approx(1, abs=0.02)
    assert np.abs(changes.low_passed(high, RATE, 2000.0)[2000:]).max() < 0.02
    np.testing.assert_array_equal(changes.low_passed(high, RATE, 8000.0), high)
    stereo = changes.low_passed(np.stack([low, high]), RATE, 2000.0)
    np.testing.assert_allclose(stereo[0], changes.low_passed(low, RATE, 2000.0), rtol=1e-5)


def test_a_room_keeps_onsets_and_falls_in_its_time():
    response = changes.impulse_response(RATE, 0.5, 6.0, np.random.default_rng(0))
    assert np.sum(response**2) == pytest.approx(1, rel=1e-4)
    assert 10 * np.log10(response[0] ** 2 / np.sum(response[1:] ** 2)) == pytest.approx(6, abs=0.01)
    left = np.cumsum(response[:0:-1] ** 2)[::-1]  # energy that is still to come
    half = 10 * np.log10(left[len(left) // 2] / left[0])
    assert half == pytest.approx(-30, abs=3)
    click = np.zeros(4000, np.float32)
    click[1000] = 1
    wet = changes.reverberant(click, response)
    assert np.abs(wet[:1000]).max() < 1e-6
    assert wet.argmax() == 1000
    with pytest.raises(ValueError, match="above 0 s"):
        changes.impulse_response(RATE, 0.0, 0.0, np.random.default_rng(0))


def test_reverberate_trains_by_its_own_stream():
    augment = waveform_augment.build_waveform_augment([{"name": "Reverberate", "p": 1.0, "max_rt60": 0.2}])
    sound = song(1.0)
    first, again, other = (
        waveform_augment.apply(augment, sound, RATE, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == sound.shape
    assert np.abs(first - other).max() > 1e-3
    with pytest.raises(ValueError, match="min_rt60"):
        waveform_augment.build_waveform_augment([{"name": "Reverberate", "min_rt60": 0.0}])

"""Levels of whole recordings: floats beyond full scale, samples that are no sound, channels that cancel."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from earshot.data.caches import waveform_cache
from earshot.data.packed import packed_clips
from earshot.sound import audio

RATE = 8000


def noise(seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)


def put(path, waveform, subtype="FLOAT"):
    sf.write(path, waveform, RATE, subtype=subtype)
    return path


@pytest.mark.parametrize("factor", [1.5, 4.0, 32768.0, 2.0**31 - 1])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_beyond_full_scale_are_divided_by_the_peak_of_the_file(tmp_path, caplog, factor, subtype):
    sound = noise()
    sound[:4000] *= 1e-3
    sound *= factor / np.abs(sound).max()
    path = put(tmp_path / "a.wav", sound, subtype)
    whole = audio.load(path, RATE)
    np.testing.assert_allclose(whole, sound / np.abs(sound).max(), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(audio.load(path, RATE, 0.0, 0.5), whole[:4000])  # the quiet half is scaled alike
    np.testing.assert_allclose(np.concatenate(list(audio.blocks(path, RATE, 0.3))), whole)
    assert caplog.messages == [f"{path} goes beyond full scale: all of it is divided by its peak of {factor:.4g}"]
    assert len(audio.odd_files()[str(path)]) == 1


def test_every_store_holds_the_same_scaled_sound(tmp_path, caplog):
    sound = noise(level=2.0)
    put(tmp_path / "loud.wav", sound)
    clips = pd.DataFrame({"clip_id": ["loud"], "path": ["loud.wav"]})
    expected = sound / np.abs(sound).max()
    for cached in (
        waveform_cache(tmp_path / "w", clips, tmp_path, RATE),
        packed_clips(tmp_path / "p", clips, tmp_path, RATE, 1.0),
    ):
        heard = audio.load(cached.path[0], RATE)
        np.testing.assert_allclose(heard, expected, atol=1.01 / 32767)
        assert (np.abs(heard) > 0.999).mean() < 1e-3, "nothing is clipped to a square wave"
    assert "clipped" not in caplog.text


def test_what_a_lossy_decoder_overshoots_is_kept_and_counted_where_it_is_stored_in_16_bit(tmp_path, caplog):
    sf.write(tmp_path / "a.ogg", np.sign(noise()), RATE)
    whole = audio.load(tmp_path / "a.ogg", RATE)
    beyond = int((np.abs(whole) > 1).sum())
    assert beyond > 100
    clips = pd.DataFrame({"clip_id": ["a"], "path": ["a.ogg"]})
    waveform_cache(tmp_path / "w", clips, tmp_path, RATE)
    assert caplog.messages[-1] == f"{beyond} samples of 1 clips lay beyond -1 ... 1 and are clipped"
    assert audio.write(tmp_path / "b.flac", whole, RATE) == beyond
    assert audio.write(tmp_path / "b.wav", whole, RATE) == 0


@pytest.mark.parametrize("value", [1e20, -3e38, 5000.0, np.nan, np.inf])
def test_a_spike_counts_as_zero_and_the_rest_keeps_its_level(tmp_path, caplog, value):
    sound = noise(4.0)
    sound[12345] = value
    path = put(tmp_path / "a.wav", sound)
    loaded = audio.load(path, RATE)
    sound[12345] = 0
    np.testing.assert_array_equal(loaded, sound)
    beyond = " or far beyond full scale" if np.isfinite(value) else ""
    assert caplog.messages == [f"{path}: 1 of its 32000 samples are NaN or infinite{beyond} and count as 0"]


def test_a_file_mostly_beyond_all_sound_is_unreadable(tmp_path):
    path = put(tmp_path / "a.wav", np.full(1000, 1e20, np.float32))
    with pytest.raises(audio.UnreadableAudio, match="1000 of its 1000 samples are NaN or infinite or far beyond"):
        audio.load(path, RATE)


def test_channels_of_opposite_phase_are_heard_by_the_louder_one(tmp_path, caplog):
    sound = noise()
    path = put(tmp_path / "a.wav", np.column_stack([0.99 * sound, -sound]), "PCM_16")
    heard = audio.load(path, RATE)
    np.testing.assert_allclose(heard, -sound, atol=1e-4)
    np.testing.assert_array_equal(audio.load(path, RATE, 0.25, 0.25), heard[2000:4000])
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, RATE, 0.3))), heard)
    assert caplog.messages == [
        f"{path}: its channels are of opposite phase, their mean would be silence; channel 2 of 2 is heard alone"
    ]
    assert audio.load(path, RATE, mono=False).shape == (2, RATE)


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_dead_microphone_is_told_and_heard_as_it_is(tmp_path, caplog, value, channels):
    path = put(tmp_path / "a.wav", np.full((RATE, channels), value), "PCM_16")
    assert (audio.load(path, RATE) == value).all()
    assert (np.concatenate(list(audio.blocks(path, RATE, 0.3))) == value).all()
    assert caplog.messages == [f"{path} holds no sound: every sample of it is {value:g}"]


def test_a_still_part_of_a_recording_is_no_dead_microphone(tmp_path, caplog):
    path = put(tmp_path / "a.wav", np.concatenate([np.zeros(RATE), noise()]), "PCM_16")
    assert not audio.load(path, RATE, 0.2, 0.3).any()
    assert len(np.concatenate(list(audio.blocks(path, RATE, 0.3)))) == 2 * RATE
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["alike", "unlike", "one silent", "many unlike"])
def test_other_channels_are_averaged(tmp_path, caplog, kind):
    rng, sound = np.random.default_rng(3), noise()
    stereo = {
        "alike": np.column_stack([sound, sound]),
        "unlike": 0.1 * rng.standard_normal((RATE, 2)),
        "one silent": np.column_stack([sound, np.zeros_like(sound)]),
        "many unlike": 0.1 * rng.standard_normal((RATE, 200)),
    }[kind]
    path = put(tmp_path / "a.wav", stereo, "PCM_16")
    np.testing.assert_allclose(audio.load(path, RATE), stereo.mean(axis=1), atol=1e-4)
    assert caplog.messages == []

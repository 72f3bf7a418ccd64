"""Crops drawn where a long recording is loudest (data.loudest_of)."""

import numpy as np
import pytest
import soundfile

from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.training.examples import TrainingClips


def clips_of(tiny, *settings: str) -> TrainingClips:
    config = load_config(tiny, ["data.crop=random", *settings])
    train_data, _ = load_data(config.data).split(0, config.data.folds)
    return TrainingClips(train_data, config.data, config.inputs(), config.seed)


@pytest.mark.parametrize("cache", ["none", "waveform"])
def test_the_call_in_a_long_pause_is_heard(tiny, cache):
    """One second of sound in twenty of silence: one crop seldom holds it, the loudest of forty nearly always does."""
    clips = clips_of(tiny, f"data.cache={cache}")
    sound = np.zeros(20 * 8000, np.float32)
    sound[7 * 8000 : 8 * 8000] = 0.1
    soundfile.write(clips.prepared.source / clips.prepared.clips.path[0], sound, 8000)

    def heard(*settings: str) -> float:
        clips = clips_of(tiny, f"data.cache={cache}", *settings)
        return np.mean([np.abs(clips[(epoch, 0)]["waveform"]).max() > 0.05 for epoch in range(20)])

    assert heard() < 0.4
    assert heard("data.loudest_of=40") > 0.9


def test_one_crop_is_drawn_as_before_and_short_clips_have_one_place(tiny):
    plain, loudest = clips_of(tiny), clips_of(tiny, "data.loudest_of=3", "data.crop_seconds=2.5")
    again = clips_of(tiny, "data.loudest_of=1")
    np.testing.assert_array_equal(plain[(0, 1)]["waveform"], again[(0, 1)]["waveform"])
    np.testing.assert_array_equal(
        loudest[(0, 1)]["waveform"], clips_of(tiny, "data.crop_seconds=2.5")[(0, 1)]["waveform"]
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [("crop=full", "crop is full"), ("cache=logmel", "cache logmel"), ("loudest_of=0", "loudest_of")],
)
def test_where_no_crop_can_be_compared(tiny, setting, said):
    settings = {"crop": "random", "loudest_of": "3"} | dict([setting.split("=")])
    with pytest.raises(ValueError, match=said):
        load_config(tiny, [f"data.{key}={value}" for key, value in settings.items()])

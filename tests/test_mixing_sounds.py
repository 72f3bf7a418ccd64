"""Clips added as sounds, spans of time exchanged, background laid under: physics, labels, and training with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import train
from earshot.augment.background import BackgroundMixing
from earshot.augment.batch import BatchAugment
from earshot.augment.mixing import add_decibels, add_sounds, sample_cutmix_mask, sum_batch
from earshot.augment.pipeline import augment_batch
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.sound.logmel import LogmelParams
from earshot.training.background import Background, level_of_events, make_background, rms
from earshot.training.checks import check_background
from earshot.training.examples import TrainingClips
from scripts import run

PARAMS = LogmelParams(sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000)


def batch_of(n: int = 4, frames: int = 0) -> dict:
    """Clips of white noise, each of a class of its own; of the last one class 0 is unknown."""
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(n, n)
    mask[-1, 0] = 0
    batch = {"clip_id": [f"c{i}" for i in range(n)], "waveform": torch.randn(n, 8000, generator=g) / 10,
             "target": torch.eye(n), "mask": mask}  # fmt: skip
    if frames:
        batch |= {"frame_target": torch.eye(n)[:, None].expand(n, frames, n).clone(), "frame_mask": mask.clone()}
    return batch


def test_added_clips_sound_as_their_sum_in_waveforms_and_in_log_mels():
    """White noise 6 dB up on white noise: 1 + 4 = 5 times the energy, 7 dB, on both roads."""
    batch, index = batch_of(2), torch.tensor([1, 0])
    gain = torch.tensor([2.0, 0.0])
    added = add_sounds(batch["waveform"], gain, index)
    level = 10 * torch.log10(added.square().mean(1) / batch["waveform"].square().mean(1))
    assert level.tolist() == pytest.approx([7.0, 0.0], abs=0.1)
    front_ends = FrontEnds(Inputs.made({"logmel": PARAMS}, ("logmel",)))
    by_energy = add_decibels(front_ends(batch)["logmel"], gain, index)
    by_sound = front_ends({"waveform": added})["logmel"]
    assert (by_energy - by_sound).mean().item() == pytest.approx(0, abs=0.3)
    torch.testing.assert_close(by_energy[1], front_ends(batch)["logmel"][1])


def test_labels_of_both_stay_whole():
    batch = batch_of(3, frames=5) | {"weight": torch.tensor([1.0, 3.0, 1.0])}
    out = sum_batch(batch, ("waveform",), torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1, 2, 0]), add_sounds)
    assert out["target"].tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert out["mask"].tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 1]], "class 0 of the last clip nobody knows"
    assert out["frame_target"][0, 2].tolist() == [1, 1, 0]
    assert out["weight"].tolist() == [2, 2, 1]
    third = sum_batch(batch, ("waveform",), torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0, 1, 0]), add_sounds)
    assert third["mask"][2].tolist() == [1, 1, 1], "what one surely has is there"


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 1000))
def test_cutmix_takes_one_span_of_time(length, lam, seed):
    mask = sample_cutmix_mask(torch.Generator().manual_seed(seed), (length, 3), lam)
    assert mask.shape == (length, 3)
    rows = mask[:, 0]
    assert torch.equal(mask, rows[:, None].expand_as(mask)), "all bands alike"
    assert abs(rows.sum().item() - lam * length) <= 0.5
    assert (rows.int().diff().abs().sum()) <= 2, "one span"


def test_cutmix_in_a_batch_gives_each_frame_the_labels_of_its_clip():
    front_ends = FrontEnds(Inputs.made({"logmel": PARAMS}, ("logmel",)))
    batch = batch_of(4, frames=101)
    augment = BatchAugment(cutmix_p=1.0)
    plain = front_ends(batch)["logmel"]
    out = augment_batch(dict(batch), front_ends, augment, torch.Generator().manual_seed(2))
    own = (out["logmel"] == plain).all(dim=3)[:, 0]  # (B, T)
    assert 0 < own.float().mean(dim=1).min() < 1
    for b in range(4):
        assert out["frame_target"][b, own[b], b].min() == 1
        assert out["target"][b, b].item() == pytest.approx(own[b].float().mean().item(), abs=0.01)


def test_sums_come_as_often_and_as_loud_as_asked():
    front_ends = FrontEnds(Inputs.made({"logmel": PARAMS}, ("logmel",)))
    batch = batch_of(64)
    augment = BatchAugment(summix_on="waveform", summix_p=0.5, summix_db=(-3.0, -3.0))
    out = augment_batch(dict(batch), front_ends, augment, torch.Generator().manual_seed(0))
    summed = out["target"].sum(1) > 1
    assert 0.3 < summed.float().mean() < 0.7
    energy = out["waveform"].square().mean(1) / batch["waveform"].square().mean(1)
    assert 10 * torch.log10(energy[summed].mean()).item() == pytest.approx(10 * np.log10(1 + 10**-0.3), abs=0.15)
    assert torch.equal(out["waveform"][~summed], batch["waveform"][~summed])
    for changed, said in (({"summix_on": "x"}, "summix_on is 'x'"), ({"summix_db": (3.0, 1.0)}, "summix_db must be"),
                          ({"cutmix_p": 2.0}, "cutmix_p is a probability")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            replace(augment, **changed)


def test_background_has_the_level_that_is_asked(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(800) / 8000), 8000)  # short: repeated
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    table = pd.DataFrame({"path": ["a.wav", "broken.wav"]})
    under = Background(BackgroundMixing(source="x", p=1.0, snr_db=(10.0, 10.0)), table, tmp_path, 8000, 1)
    clip = rng.standard_normal(8000).astype(np.float32) * 0.1
    added = under.under(clip, rng) - clip
    assert 20 * np.log10(clip.std() / added.std()) == pytest.approx(10, abs=0.05)
    assert np.abs(np.fft.rfft(added)).argmax() == 1000
    never = Background(BackgroundMixing(source="x", p=0.0), table, tmp_path, 8000, 1)
    assert never.under(clip, rng) is clip
    with pytest.raises(ValueError, match="source x holds no recording that can be read"):
        Background(BackgroundMixing(source="x"), table.iloc[1:], tmp_path, 8000, 1)
    with pytest.raises(ValueError, match="snr_db must be two levels"):
        BackgroundMixing(snr_db=(3.0,))
    with pytest.raises(ValueError, match="level is 'event'"):
        BackgroundMixing(level="event")


@pytest.mark.slow
def test_training_with_all_of_it(tiny):
    """Fold 0 trains with background from a folder, sums of waveforms, CutMix; what cannot go together is refused."""
    plain = ("--config", tiny, "--fold", "0", "optim.epochs=1", "loss.name=soft_auc", "augment.batch.mixup_on=none")
    mixed = ("augment.background.source=source", "augment.batch.summix_on=waveform", "augment.batch.cutmix_p=0.5")
    run(train, *plain, *mixed, "--name", "mixed")
    assert Path("runs/sed/mixed/fold0/run.json").is_file()
    for settings, said in (
        (("data.cache=logmel", "augment.background.source=source"), "data.cache=logmel leaves no waveform to augment"),
        (("data.cache=logmel", "augment.batch.summix_on=waveform"), "data.cache=logmel leaves no waveform to augment"),
        (("augment.background.source=nowhere",), "nowhere"),
    ):
        with pytest.raises(ValueError, match=said):
            run(train, *plain, "--name", "x", *settings)
    assert load_config(tiny, mixed).augment.acting["background"]


def test_background_can_lie_by_the_level_of_a_clips_events(tmp_path):
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(8000)
    soundfile.write(tmp_path / "noise.wav", noise, 8000)
    clip = np.full(16000, 0.001, np.float32)
    clip[4000:6000], clip[12000:14000] = 0.2, -0.1
    soundfile.write(tmp_path / "clip.wav", clip, 8000)
    events = pd.DataFrame({"onset": [0.5, 1.5, 1.5], "offset": [0.75, 1.75, 1.75]})  # one of two classes counts once
    level = level_of_events(tmp_path / "clip.wav", events, 8000)
    assert level == pytest.approx(np.sqrt((0.2**2 + 0.1**2) / 2), rel=1e-3)
    record = BackgroundMixing(source="x", p=1.0, snr_db=(6.0, 6.0), level="events")
    under = Background(record, pd.DataFrame({"path": ["noise.wav"]}), tmp_path, 8000, 1)
    quiet = clip[:4000]  # a crop without an event hears the background as loud as beside one
    added = under.under(quiet, rng, level) - quiet
    assert 20 * np.log10(level / np.sqrt(np.mean(added**2))) == pytest.approx(6, abs=0.01)
    assert level_of_events(tmp_path / "clip.wav", events.iloc[:0], 8000) is None
    silent = pd.DataFrame({"onset": [3.0], "offset": [4.0]})  # behind the end
    assert level_of_events(tmp_path / "clip.wav", silent, 8000) is None


def test_training_clips_hear_background_by_the_level_of_their_own_events(tiny, caplog):
    """Each of another length; one clip has no event, and a pause of a clip hears as much as the rest of it."""
    events = pd.read_csv("data/events.csv")
    events[events.filename != "c1"].assign(offset=0.25).to_csv("data/events.csv", index=False)
    loud = soundfile.read("source/c0.wav")[0]
    loud[2000:] *= 0.01  # what follows the event counts nothing
    soundfile.write("source/c0.wav", loud, 8000)
    Path("noise").mkdir()
    soundfile.write("noise/n.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 8000)
    config = load_config(tiny, ["augment.background={source: noise, p: 1, snr_db: [0, 0], level: events}"])
    data = load_data(config.data)
    clips = TrainingClips(data, config.data, config.frontends, 3, background=make_background(config))
    heard = {name: clips.event_level(i) for i, name in enumerate(data.clips.clip_id[:2])}
    assert heard["c0"] == pytest.approx(rms(loud[:2000]), rel=1e-3)
    assert heard["c1"] is None
    clips.background.record = replace(config.augment.background, level="crop")
    assert clips.event_level(0) is None
    check_background(config, data)
    for none in (None, data.events.assign(is_negative=1)):
        with pytest.raises(ValueError, match="level=events goes by the events .* set augment.background.level=crop"):
            check_background(config, replace(data, events=none))
    assert not caplog.text
    check_background(load_config(tiny, ["augment.background.level=events"]), data)
    assert "augment.background.level=events does nothing without augment.background.source" in caplog.text

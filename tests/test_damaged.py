"""Recordings damaged in the middle, and what lies in folders beside recordings: training and prediction around them."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import predict
import prepare
import train
from earshot.augment import waveform as augmentation
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.messages import fewer_alike
from earshot.prediction.inference import predict_clips
from earshot.prediction.predictions import Clip, Predictions
from earshot.sound import audio, decoding
from earshot.training.examples import TrainingClips
from scripts import run
from test_inference import CLASSES, PRIOR, RATE, MeanBackend, windowing


@pytest.fixture(autouse=True)
def fresh_surveys():
    decoding._survey.cache_clear()


def damaged(path: Path, seconds: float = 10.0, rate: int = RATE, at: float = 0.4, hole: float = 0.02) -> Path:
    """A FLAC that decodes to about `at` of its length, which its header and its last frame both tell as whole; `hole`:
    of the file, behind which a seek finds sound again."""
    sf.write(path, 0.2 * np.random.default_rng(0).standard_normal(round(seconds * rate)), rate)
    data = bytearray(path.read_bytes())
    middle = round(len(data) * at)
    end = min(middle + round(hole * len(data)), len(data) - 20000)
    data[middle:end] = bytes(end - middle)
    path.write_bytes(data)
    return path


def longer_than_it_is(path: Path):
    """Have a WAV's header promise 44 bytes more than there are."""
    data = bytearray(path.read_bytes())
    data[40:44] = (int.from_bytes(data[40:44], "little") + 44).to_bytes(4, "little")
    path.write_bytes(data)


def test_a_fault_of_every_file_is_said_of_some_and_listed_of_all(tmp_path, caplog, monkeypatch):
    """A recorder that writes wrong headers writes them into every file of a card."""
    monkeypatch.chdir(tmp_path)
    with fewer_alike():
        for path in (folder / f"{i}.wav" for folder in (Path(), tmp_path / "a b") for i in range(4)):
            path.parent.mkdir(exist_ok=True)
            sf.write(path, 0.1 * np.sin(np.arange(100)), 8000)
            longer_than_it_is(path)
            assert len(audio.load(path, 8000)) == 100
            assert "is truncated" in audio.notes_of(path)
    assert len(caplog.messages) == 6
    assert caplog.messages[-1].startswith("3 more: a file is truncated: its header promises ... samples")


@pytest.mark.slow
def test_loader_processes_say_once_what_is_odd(tiny):
    folds = pd.read_csv("folds.csv")
    for clip_id in folds.clip_id[folds.fold != 0][:3]:
        longer_than_it_is(Path(f"source/{clip_id}.wav"))
    log = logging.FileHandler("log.txt")  # the loaders' too
    logging.getLogger("earshot").addHandler(log)
    try:
        run(train, "--config", tiny, "--fold", "0", "optim.epochs=3", "data.workers=1")
    finally:
        logging.getLogger("earshot").removeHandler(log)
        log.close()
    lines = [line for line in Path("log.txt").read_text().splitlines() if "samples, it holds " in line]
    assert len(lines) == len(set(lines)) == 3


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"stride": 0.5}, {"one_pass": True, "clip_from": "frame_max"}])
@pytest.mark.parametrize("tta", [(), ("time_shift",), ("gain",)])
def test_prediction_hears_what_decodes_and_no_silence_behind_it(tmp_path, options, tta):
    path = damaged(tmp_path / "a.flac")
    whole = audio.load(path, RATE)
    assert 3 * RATE < len(whole) < 5 * RATE
    sf.write(tmp_path / "cut.wav", whole, RATE, subtype="FLOAT")
    sf.write(tmp_path / "good.wav", 0.1 * np.random.default_rng(1).standard_normal(3 * RATE), RATE)
    clips = [Clip("good", tmp_path / "good.wav"), Clip("a", path), Clip("cut", tmp_path / "cut.wav")]
    decoding._survey.cache_clear()
    (found,), unreadable = predict_clips([MeanBackend()], clips, windowing(**options), CLASSES, PRIOR, tta=tta)
    assert not unreadable
    np.testing.assert_allclose(found.clipwise_output[1], found.clipwise_output[2], atol=1e-6)
    assert found.framewise_output[1].shape == found.framewise_output[2].shape
    np.testing.assert_allclose(found.framewise_output[1], found.framewise_output[2], atol=1e-6)
    (alone,), _ = predict_clips([MeanBackend()], clips[:1], windowing(**options), CLASSES, PRIOR, tta=tta)
    np.testing.assert_allclose(found.clipwise_output[0], alone.clipwise_output[0], atol=1e-6)


@pytest.fixture
def long_clips(tiny) -> TrainingClips:
    """The tiny competition's training clips, the first replaced by one of 10 s that is damaged at 40 %."""
    config = load_config(tiny, [])
    source = Path("source")
    damaged(source / "c0.flac", rate=8000)
    (source / "c0.wav").unlink()
    table = pd.read_csv("data/clips.csv")
    table.loc[0, "path"] = "c0.flac"
    table.to_csv("data/clips.csv", index=False)
    return TrainingClips(load_data(config.data), config.data, config.frontends, 3)


def test_no_crop_of_a_damaged_clip_is_silence_and_what_was_read_before_changes_none(long_clips, monkeypatch):
    first = [long_clips[(epoch, 0)]["waveform"] for epoch in range(60)]
    assert all(np.abs(crop[-400:]).max() > 0 and np.abs(crop[:400]).max() > 0 for crop in first)
    decoding._survey.cache_clear()
    decoding._contents.cache_clear()
    again = {epoch: long_clips[(epoch, 0)]["waveform"] for epoch in reversed(range(60))}  # as another worker reads them
    for epoch, crop in enumerate(first):
        np.testing.assert_array_equal(again[epoch], crop)
    places = {crop.tobytes() for crop in first}
    assert len(places) > 50


# ---- files that augmentation mixes in


def noises(folder: Path) -> Path:
    """Two that can be heard, one damaged in the middle, and seven that are no sound."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    for name in ("b.wav", "a.WAV"):
        sf.write(folder / name, 0.1 * rng.standard_normal(3 * RATE), RATE, format="WAV")
    (folder / "page.wav").write_bytes(b"<html>404 Not Found</html>")
    (folder / "empty.ogg").write_bytes(b"")
    (folder / "notes.txt").write_text("rain")
    (folder / "song.m4a").write_bytes(b"x")
    os.mkfifo(folder / "pipe.wav")
    os.symlink("..", folder / "up")
    os.symlink("gone.wav", folder / "link.wav")
    return folder


@pytest.mark.parametrize(("name", "key"), [
    ("AddBackgroundNoise", "sounds_path"), ("AddShortNoises", "sounds_path"), ("ApplyImpulseResponse", "ir_path"),
])  # fmt: skip
def test_augmentation_folders_are_looked_through_when_it_is_built(tmp_path, caplog, name, key):
    folder = noises(tmp_path / "noise")
    augment = augmentation.build_waveform_augment([{"name": name, key: str(folder), "p": 1.0}])
    listed = getattr(augment.transforms[0], augmentation.FILE_LISTS[key])
    assert [Path(path).name for path in listed] == ["a.WAV", "b.wav"]
    assert f"{name}.{key}: 5 files in" in caplog.text
    assert f"{name}.{key}: 2 files cannot be read, left out" in caplog.text
    assert "page.wav cannot be decoded (it is text that begins with '<html>404 Not Found</htm" in caplog.text
    sound = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    outputs = [augmentation.apply(augment, sound, RATE, np.random.default_rng(seed)) for seed in range(8)]
    assert all(np.isfinite(out).all() for out in outputs)
    assert not all(np.array_equal(out, sound) for out in outputs)
    for path in listed:
        Path(path).unlink()
    with pytest.raises(ValueError, match=f"{name}.{key} names no recording that can be read: .*noise"):
        augmentation.build_waveform_augment([{"name": name, key: str(folder), "p": 1.0}])


def test_a_noise_file_damaged_in_the_middle_ends_no_run(tmp_path, caplog):
    damaged(tmp_path / "noise.flac", seconds=10.0, at=0.2, hole=1.0)
    augment = augmentation.build_waveform_augment(
        [{"name": "AddBackgroundNoise", "sounds_path": str(tmp_path), "p": 1.0}]
    )
    sound = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    outputs = [augmentation.apply(augment, sound, RATE, np.random.default_rng(seed)) for seed in range(30)]
    same = [np.array_equal(out, sound) for out in outputs]
    assert 0 < sum(same) < 30, "noise from before the damage is mixed in, what falls behind it leaves the example alone"
    assert "leaves examples that would hear it as they are" in caplog.text


# ---- a folder of everything, through predict.py


def test_a_folder_of_everything_is_predicted_and_counted(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = noises(tmp_path / "mixed")
    shutil.copy(trained / "source/t0.wav", os.fsdecode(os.fsencode(folder) + b"/n\xff.wav"))
    damaged(folder / "cut.flac", rate=8000)
    os.rename(folder / "empty.ogg", os.fsdecode(os.fsencode(folder) + b"/e\xff.ogg"))
    run(predict, "--run", trained / "runs/sed/tiny", "--clips", folder, "--out", "found.npz")
    found = Predictions.load("found.npz")
    assert found.clip_ids.tolist() == ["a", "b", "cut", "e\\xff", "n\\xff", "page"]
    assert found.clip_ids[found.unreadable].tolist() == ["e\\xff", "page"]
    out = capsys.readouterr().out
    assert "2 recordings could not be read and got the training prior; see found_unreadable.csv" in out
    last = out.rstrip().splitlines()[-1]
    assert last.startswith("5 files are left out ("), last
    assert "; and 1 more), 1 recording" in last, "four of the reasons are said, and how many files have others"
    assert last.endswith("), 1 recording is not as their files say; see found_odd_files.csv")
    listed = pd.read_csv("found_odd_files.csv").set_index("path").note
    assert {Path(p).name for p in listed.index} == {"notes.txt", "song.m4a", "pipe.wav", "up", "link.wav", "cut.flac"}
    assert listed[str(folder / "cut.flac")].startswith(f"{folder / 'cut.flac'} is truncated or corrupt: expected 80000")


def test_a_folder_without_recordings_says_what_it_holds(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.m4a").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no recording \(aif, .*\); 1 files in .* a\.m4a \(a format that"):
        run(predict, "--run", trained / "runs/sed/tiny", "--clips", "empty", "--out", "found.npz")


def test_prepare_lists_files_that_are_not_as_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = Path("source")
    (source / "train_audio/wren").mkdir(parents=True)
    damaged(source / "train_audio/wren/XC1.flac")
    sf.write(source / "train_audio/wren/XC2.wav", 4 * np.sin(np.arange(RATE)), RATE, subtype="FLOAT")
    sf.write(source / "train_audio/wren/XC3.wav", 0.1 * np.sin(np.arange(RATE)), RATE)
    rows = [("wren", "[]", f"wren/XC{i}.{e}", "a") for i, e in ((1, "flac"), (2, "wav"), (3, "wav"))]
    columns = ["primary_label", "secondary_labels", "filename", "author"]
    pd.DataFrame(rows, columns=columns).to_csv(source / "train_metadata.csv", index=False)
    pd.DataFrame([("soundscape_1_5", 0.5)], columns=["row_id", "wren"]).to_csv(
        source / "sample_submission.csv", index=False
    )
    run(prepare, "birdclef2024", "--source", source, "--out", "data", "--check-audio")
    assert "not as they say (odd_files.csv): 2 files: XC1.flac, XC2.wav" in capsys.readouterr().out
    listed = pd.read_csv("data/odd_files.csv")
    assert [Path(path).name for path in listed.path] == ["XC1.flac", "XC2.wav"]
    duration = pd.read_csv("data/clips.csv").set_index("clip_id").duration
    assert 3 < duration["XC1"] < 5
    assert duration["XC2"] == 1

"""data/caches.py: content against the direct computation, keys, interruption, damaged clips, pickling."""

import json
import logging
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from earshot.config import load_config
from earshot.config.difference import config_difference
from earshot.config.sections import DataConfig
from earshot.data import caches
from earshot.data.caches import LogmelCache, waveform_cache
from earshot.data.prepared import load_data
from earshot.inputs.logmel import Logmel
from earshot.inputs.waveforms import as_heard
from earshot.inventory.caches import asked_by, caches_of
from earshot.processes import lock
from earshot.sound import audio
from earshot.sound.logmel import log_mel
from earshot.training.examples import TrainingClips

RATE = 8000
PARAMS = Logmel(n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000)
RESOLVED = replace(PARAMS, sample_rate=RATE)


@pytest.fixture
def clips(tmp_path) -> pd.DataFrame:
    """Five clips of four files: two share one, one is at another rate, one is no audio; ids that look like numbers."""
    source = tmp_path / "source"
    random = np.random.default_rng(0)
    for name, seconds, rate in (("a.wav", 0.5, RATE), ("sub/b.flac", 0.31, RATE), ("c.wav", 0.7, 22050)):
        audio.write(source / name, 0.1 * random.standard_normal(round(seconds * rate)), rate)
    (source / "d.ogg").write_text("<html>")
    ids = ["007", "NA", "c", "bad", "a again"]
    return pd.DataFrame({"clip_id": ids, "path": ["a.wav", "sub/b.flac", "c.wav", "d.ogg", "a.wav"], "labels": ids})


def build(tmp_path, clips, params=PARAMS, **options) -> LogmelCache:
    return LogmelCache.build(tmp_path / "cache", clips, tmp_path / "source", params, RATE, **options)


def folders(tmp_path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache"))


@pytest.mark.parametrize("workers", [1, 3])
def test_content_is_log_mel_of_each_clip(tmp_path, clips, workers):
    made = build(tmp_path, clips, workers=workers)
    assert len(made) == 5
    for row in clips.itertuples():
        if row.clip_id == "bad":
            continue
        waveform = audio.load(tmp_path / "source" / row.path, RATE)
        np.testing.assert_array_equal(made[row.clip_id], log_mel(waveform, RESOLVED))
        assert made.n_samples(row.clip_id) == len(waveform)
        assert made[row.clip_id].dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        made["007"][0, 0] = 1
    assert "NA" in made
    assert "b" not in made
    with pytest.raises(ValueError, match=r"clip '07' is not in log-mel cache .*; did you mean '007'"):
        made["07"]


def test_unreadable_clips_have_no_frames_and_are_listed(tmp_path, clips, caplog):
    with caplog.at_level(logging.INFO, "earshot"):
        made = build(tmp_path, clips)
    assert made.unreadable == ["bad"]
    assert made["bad"].shape == (0, 16)
    assert made.n_samples("bad") == 0
    listed = pd.read_csv(made.path / "unreadable.csv")
    assert listed["clip_id"].tolist() == ["bad"]
    assert "text that begins with '<html>'" in listed["reason"][0]
    told = " ".join(caplog.messages)
    frames = 51 + 32 + 71
    assert f"5 clips, {frames} frames x 16 mels of float32 = 0.000 GB" in told
    assert f"1 of 5 clips cannot be read (unreadable.csv of the cache lists them): {listed['reason'][0]}" in told


def test_clips_of_one_file_share_their_frames(tmp_path, clips):
    made = build(tmp_path, clips)
    assert np.load(made.path / "logmel.npy", mmap_mode="r").shape == (51 + 32 + 71, 16)
    assert np.shares_memory(made["007"], made["a again"])


def test_a_second_build_reads_nothing(tmp_path, clips, monkeypatch):
    first = build(tmp_path, clips)
    monkeypatch.setattr(audio, "load", None)
    again = build(tmp_path, clips.iloc[::-1], replace(RESOLVED, fmin=50.0))  # order and 50 = 50.0 change nothing
    assert again.path == first.path
    np.testing.assert_array_equal(again["NA"], first["NA"])


CHANGES = [
    {"n_fft": 512}, {"win_length": 200}, {"hop_length": 100}, {"n_mels": 20}, {"fmin": 60.0}, {"fmax": 3900.0},
    {"window": "hamming"}, {"center": False}, {"pad_mode": "constant"}, {"amin": 1e-8}, {"ref": 2.0}, {"top_db": 80.0},
    {"channels": "stereo"}, {"engine": "torchlibrosa"},
]  # fmt: skip


def test_every_parameter_is_in_the_key():
    assert {name for change in CHANGES for name in change} | {"sample_rate"} == set(vars(PARAMS))

    def key(record=PARAMS, rate=RATE, channels=1):
        return caches.cache_key(caches.picture_settings(record, rate, channels))

    keys = [key(replace(PARAMS, **change)) for change in CHANGES]
    keys += [key(), key(rate=16000), key(replace(PARAMS, sample_rate=RATE), rate=16000)]
    keys += [key(channels=2)]  # a mono input in a stereo run: the mean is taken after resampling
    assert len(set(keys)) == len(CHANGES) + 4
    assert all(len(key) == 16 for key in keys)


def test_the_key_of_a_mono_log_mel_is_what_it_has_always_been(tmp_path, clips):
    record = replace(PARAMS, sample_rate=RATE, channels="mono")
    params = {k: v for k, v in vars(record).items() if k not in ("channels", "engine")}
    settings = caches.picture_settings(record, RATE)
    assert settings == {"kind": "logmel", "params": params, "sample_rate": RATE, "dtype": "float32"}
    files = caches.file_stamps(clips, tmp_path / "source")
    assert build(tmp_path, clips, record).path.name == caches.cache_key(settings | {"files": files})


def test_two_channels_and_other_rates_are_cached_as_they_are_computed(tmp_path, clips):
    sides = np.stack([np.linspace(-0.5, 0.5, 8000), np.linspace(0.2, -0.2, 8000) ** 3]).astype(np.float32)
    audio.write(tmp_path / "source" / "a.wav", sides, RATE)
    for record in (
        replace(PARAMS, channels="mid_side"),
        replace(PARAMS, channels="mono"),
        replace(PARAMS, sample_rate=4000, fmax=2000.0, channels="stereo"),
    ):
        made = build(tmp_path, clips, record, n_channels=2)
        record = replace(record, sample_rate=record.sample_rate or RATE)
        expected = record.compute(as_heard(sides, RATE, record))
        np.testing.assert_array_equal(made["a again"], expected if record.n_channels == 2 else expected[0])
        assert made.n_samples("a again") == 8000


def test_a_changed_file_id_path_or_format_is_another_key(tmp_path, clips, monkeypatch):
    def key(table=clips):
        settings = caches.picture_settings(replace(PARAMS, sample_rate=RATE), RATE)
        return caches.cache_key(settings | {"files": caches.file_stamps(table, tmp_path / "source")})

    keys = [key(), key(clips.iloc[:4]), key(clips.replace("007", "008")), key(clips.replace("c.wav", "a.wav"))]
    status = (tmp_path / "source/a.wav").stat()
    os.utime(tmp_path / "source/a.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    keys.append(key())
    with (tmp_path / "source/a.wav").open("ab") as file:
        file.write(b"1")
    os.utime(tmp_path / "source/a.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
    keys.append(key())
    (tmp_path / "source/c.wav").unlink()
    keys.append(key())
    monkeypatch.setattr(caches, "FORMAT", caches.FORMAT + 1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_front_end_of_a_higher_rate_than_the_cache_is_refused(tmp_path, clips):
    with pytest.raises(ValueError, match="front end is of 16000 Hz, the cache of 8000 Hz"):
        build(tmp_path, clips, replace(PARAMS, sample_rate=16000))


def test_a_folder_that_is_not_what_its_name_says_is_refused(tmp_path, clips):
    made = build(tmp_path, clips)
    description = json.loads((made.path / "params.json").read_text())
    renamed = made.path.rename(made.path.with_name("0123456789abcdef"))
    with pytest.raises(ValueError, match="does not match its name"):
        LogmelCache(renamed)
    description["params"]["hop_length"] = 81
    renamed = renamed.rename(made.path)
    (renamed / "params.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="does not match its name"):
        LogmelCache(renamed)
    with pytest.raises(ValueError, match=r"holds no params\.json"):
        LogmelCache(tmp_path)


def test_an_interrupted_build_leaves_nothing(tmp_path, clips, monkeypatch):
    build(tmp_path, clips, replace(PARAMS, n_mels=8))
    before = folders(tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audio, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, clips, workers=2)
    with pytest.raises(KeyboardInterrupt):
        waveform_cache(tmp_path / "cache", clips, tmp_path / "source", RATE)
    assert folders(tmp_path) == before  # the stale sibling is left alone
    monkeypatch.undo()
    assert len(build(tmp_path, clips)["c"]) == 71


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, clips, monkeypatch):
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"154 frames x 16 mels of float32 = 0.000 GB, but .* has 0.000 GB free"):
        build(tmp_path, clips)
    assert folders(tmp_path) == []


def test_another_process_that_was_first_wins(tmp_path, clips, monkeypatch):
    rename = caches.Path.rename

    def second(self, target):
        monkeypatch.setattr(caches.Path, "rename", rename)
        build(tmp_path, clips)
        return rename(self, target)

    monkeypatch.setattr(caches.os, "getpid", iter(range(10**6, 10**6 + 99)).__next__)
    monkeypatch.setattr(caches.Path, "rename", second)
    assert len(build(tmp_path, clips)["c"]) == 71
    assert len(folders(tmp_path)) == 1


def test_truncated_clip_has_the_frames_that_it_has(tmp_path, clips):
    path = tmp_path / "source/sub/b.flac"
    audio.write(path, 0.1 * np.random.default_rng(1).standard_normal(10 * RATE), RATE)
    path.write_bytes(path.read_bytes()[:80000])
    made = build(tmp_path, clips)
    assert 100 < len(made["NA"]) < 1000
    np.testing.assert_array_equal(made["NA"], log_mel(audio.load(path, RATE), RESOLVED))
    np.testing.assert_array_equal(made["c"], log_mel(audio.load(tmp_path / "source/c.wav", RATE), RESOLVED))


def test_all_unreadable_is_a_cache_without_frames(tmp_path, clips):
    made = build(tmp_path, clips.assign(path="gone.wav"))
    assert len(made.unreadable) == 5
    assert made["c"].shape == (0, 16)


def test_a_clip_twice_is_an_error(tmp_path, clips):
    with pytest.raises(ValueError, match="clip_id 'c' stands twice"):
        build(tmp_path, pd.concat([clips, clips.iloc[2:3]]))


def sum_of(made: LogmelCache, clip_id: str) -> float:
    return float(made[clip_id].sum())


def test_workers_open_the_file_themselves(tmp_path, clips):
    made = build(tmp_path, clips)
    assert len(pickle.dumps(made)) < 4000  # not the data
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(sum_of, made, "c").result() == float(made["c"].sum())


def test_waveform_cache_is_the_resampled_clip(tmp_path, clips, monkeypatch):
    arguments = (tmp_path / "cache", clips, tmp_path / "source", RATE)
    made = waveform_cache(*arguments, workers=2)
    assert made.drop(columns="path").equals(clips.drop(columns="path"))
    for old, new in zip(clips["path"], made["path"]):
        if old == "d.ogg":
            assert new == str(tmp_path / "source/d.ogg")
            continue
        assert audio.info(new).sample_rate == RATE
        expected = audio.load(tmp_path / "source" / old, RATE)
        np.testing.assert_allclose(audio.load(new, RATE), expected, atol=2e-5)
    assert made["path"].nunique() == 4  # two clips share a file
    folder = next((tmp_path / "cache").iterdir())
    assert pd.read_csv(folder / "unreadable.csv")["clip_id"].tolist() == ["bad"]
    monkeypatch.setattr(audio, "load", None)
    assert waveform_cache(*arguments).equals(made)
    assert len(folders(tmp_path)) == 1
    reordered = waveform_cache(tmp_path / "cache", clips.iloc[::-1], tmp_path / "source", RATE)
    assert reordered.equals(made.iloc[::-1])


def test_waveform_cache_key(tmp_path, clips):
    first = waveform_cache(tmp_path / "cache", clips, tmp_path / "source", RATE)
    second = waveform_cache(tmp_path / "cache", clips, tmp_path / "source", 4000)
    assert audio.info(second["path"][0]).sample_rate == 4000
    assert first["path"][0] != second["path"][0]
    assert len(folders(tmp_path)) == 2


@pytest.mark.parametrize("kind", ["waveform", "packed", "logmel"])
def test_what_a_config_asks_for_is_what_training_writes(kind, tiny):
    """And where its `cache_folder` says, in a folder of the data set's own."""
    config = load_config(tiny, [f"data.cache={kind}", "data.cache_folder=scratch"])
    prepared, _ = load_data(config.data).split(0, config.data.folds)
    TrainingClips(prepared, config.data, config.inputs(), config.seed, None, config.data.caches)
    (params,) = Path("scratch").glob("data-*/*/params.json")
    settings = json.loads(params.read_text())
    del settings["format"]
    assert asked_by(config) == [settings]
    assert not Path("data/cache").exists()


def test_a_run_goes_on_with_its_caches_elsewhere():
    assert config_difference({"data": {"cache_folder": ""}}, {"data": {"cache_folder": "/scratch"}}) == ""
    assert config_difference({"data": {"cache": "none"}}, {"data": {"cache": "logmel"}})


def test_links_to_a_data_set_share_its_caches(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "linked").symlink_to("own")
    folders = {DataConfig(root=str(tmp_path / n), cache_folder="c").caches for n in ("own", "linked", "linked/../own/")}
    assert len(folders) == 1
    assert DataConfig(root="data/x", cache_folder="~/c").caches.parent == Path.home() / "c"
    assert DataConfig(root="data/x").caches == Path("data/x/cache")


@pytest.mark.parametrize("kind", ["waveform", "packed", "logmel"])
def test_a_cache_that_a_process_reads_is_not_cleaned(kind, tiny):
    """Whatever runs the process belongs to, or none yet: caches are read before a run's folder says so."""
    config = load_config(tiny, [f"data.cache={kind}"])
    config = replace(config, data=replace(config.data, root="data/own"))
    shutil.copytree("data", "copy")
    Path("copy").rename("data/own")
    prepared, _ = load_data(config.data).split(0, config.data.folds)
    TrainingClips(prepared, config.data, config.inputs(), config.seed, None, config.data.caches)
    (params,) = Path("data/own/cache").glob("*/params.json")
    of_another = lock._HELD.pop(str(params.resolve()))  # locks are of open files, as if another process held it
    assert [cache.stays for cache in caches_of([], [])] == ["a process reads it"]
    of_another.close()
    lock.hold(params)
    assert [cache.stays for cache in caches_of([], [])] == [""], "one's own reading is over"
    for number in range(lock.MOST_HELD + 3):
        Path(f"f{number}").write_text("")
        lock.hold(Path(f"f{number}"))
    assert len(lock._HELD) <= lock.MOST_HELD

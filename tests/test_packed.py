"""data/packed.py and sound/rows.py: samples, sizes, interruption, damaged clips, rows of HDF5 files as recordings."""

import json
import logging
import multiprocessing
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import prepare
from earshot.data import caches, packed
from earshot.data.packed import longer_than, packed_bytes, packed_clips, packed_events
from earshot.sound import audio
from earshot.sound import rows as audio_rows
from scripts import run

RATE = 8000


@pytest.fixture
def clips(tmp_path) -> pd.DataFrame:
    """Two of 8 kHz (short, and too long), one of another rate, one too loud, one that is no audio, one twice."""
    source, random = tmp_path / "source", np.random.default_rng(0)
    sounds = {
        "a.wav": (0.3, RATE, 0.1),
        "b.wav": (0.8, RATE, 0.1),
        "c.wav": (0.5, 16000, 0.1),
        "loud.ogg": (0.4, RATE, 1),
    }
    for name, (seconds, rate, level) in sounds.items():
        audio.write(source / name, np.clip(level * random.standard_normal(round(seconds * rate)), -1, 1), rate)
    (source / "bad.wav").write_text("<html>")
    paths = ["a.wav", "b.wav", "c.wav", "loud.ogg", "bad.wav", "a.wav"]
    return pd.DataFrame({"clip_id": ["a", "b", "c", "loud", "bad", "a again"], "path": paths, "labels": "x"})


def pack(tmp_path, clips, **options) -> pd.DataFrame:
    return packed_clips(tmp_path / "cache", clips, tmp_path / "source", RATE, 0.5, **options).set_index("clip_id")


def store_of(packed: pd.DataFrame) -> str:
    return packed.path.iloc[0].rpartition("/")[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_row_is_the_beginning_of_its_clip(tmp_path, clips, workers):
    packed = pack(tmp_path, clips, workers=workers)
    for clip_id, path in (("a", "a.wav"), ("b", "b.wav"), ("c", "c.wav"), ("a again", "a.wav")):
        expected = audio.load(tmp_path / "source" / path, RATE, 0, 0.5)
        heard = audio.load(packed.path[clip_id], RATE)
        assert len(heard) == len(expected)
        np.testing.assert_allclose(heard, expected, atol=0.51 / 32767)
        assert audio.info(packed.path[clip_id]).n_samples == len(expected)
    assert packed.path["a"] == packed.path["a again"], "clips that share a file share a row"
    whole = np.load(f"{store_of(packed)}/waveform.npy", mmap_mode="r")
    assert whole.dtype == np.int16
    assert whole.shape == (5, 4000)


def test_a_crop_is_that_slice_and_other_rates_are_resampled(tmp_path, clips):
    path = pack(tmp_path, clips).path["b"]
    whole = audio.load(path, RATE)
    np.testing.assert_array_equal(audio.load(path, RATE, 0.1, 0.2), whole[800:2400])
    assert len(audio.load(path, RATE, 0.45, 0.2)) == 400, "shorter at the end, as from a file"
    assert len(audio.load(path, 4000)) == 2000
    assert np.concatenate(list(audio.blocks(path, RATE, 0.2))).tolist() == whole.tolist()


def test_samples_that_a_lossy_decoder_overshoots_are_clipped_and_counted(tmp_path, clips, caplog):
    packed = pack(tmp_path, clips)
    true = audio.load(tmp_path / "source/loud.ogg", RATE, 0, 0.5)
    beyond = int((np.abs(true) > 1).sum())
    assert beyond > 100
    assert f"{beyond} samples of 1 clips lay beyond" in caplog.text
    np.testing.assert_allclose(audio.load(packed.path["loud"], RATE), np.clip(true, -1, 1), atol=0.51 / 32767)


def test_unreadable_clips_are_listed_and_say_so(tmp_path, clips, caplog):
    packed = pack(tmp_path, clips)
    bad = pd.read_csv(f"{store_of(packed)}/unreadable.csv")
    assert bad.clip_id.tolist() == ["bad"]
    assert "cannot be decoded" in bad.reason[0]
    with pytest.raises(audio.UnreadableAudio, match=r"could not be read when it was packed, see .*unreadable\.csv"):
        audio.load(packed.path["bad"], RATE)
    assert "1 of 6 clips cannot be read" in caplog.text


def test_the_size_is_said_before_and_is_right(tmp_path, clips):
    said = []
    packed = pack(tmp_path, clips, say=said.append)
    assert said[0].startswith("packed store: 5 clips x 0.5 s at 8000 Hz in 16 bit = 0.000 GB, ")
    on_disk = (tmp_path / "cache").joinpath(store_of(packed)).joinpath("waveform.npy").stat().st_size
    assert abs(packed_bytes(5, RATE, 0.5) - on_disk) < 300
    # AudioSet: 1,934,187 clips of 10 s
    assert packed_bytes(1_934_187, 32000, 10) == pytest.approx(1.238e12, rel=1e-3)


def test_too_little_space_is_an_error_before_anything_is_written(tmp_path, clips, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 39_000))
    with pytest.raises(ValueError, match=r"5 clips x 0\.5 s at 8000 Hz in 16 bit = 0\.000 GB, but .* has 0\.000 GB"):
        pack(tmp_path, clips)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_killed_packing_goes_on_and_ends_with_the_same_bytes(tmp_path, clips, monkeypatch):
    whole = pack(tmp_path, clips)
    waveform = np.load(f"{store_of(whole)}/waveform.npy")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(packed, "BLOCK", 1)
    load, calls = audio.load, []

    def dying(path, *arguments):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return load(path, *arguments)

    monkeypatch.setattr(audio, "load", dying)
    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path, clips)
    assert not [p for p in (tmp_path / "cache").iterdir() if not p.name.startswith(".")], "nothing has the final name"
    said = []
    again = pack(tmp_path, clips, say=said.append)
    assert "packing goes on: 1 of 5 clips are there" in said or "packing goes on: 2 of 5 clips are there" in said
    assert len(calls) <= 3 + 4, "what was there is not read again"
    np.testing.assert_array_equal(np.load(f"{store_of(again)}/waveform.npy"), waveform)
    assert again.equals(whole)
    monkeypatch.setattr(audio, "load", None)
    assert pack(tmp_path, clips).equals(whole), "a finished store is used as it is"


def test_other_settings_and_changed_files_are_other_stores(tmp_path, clips):
    first = store_of(pack(tmp_path, clips))
    other = packed_clips(tmp_path / "cache", clips, tmp_path / "source", RATE, 0.25).set_index("clip_id")
    assert store_of(other) != first
    audio.write(tmp_path / "source/a.wav", np.zeros(100), RATE)
    assert store_of(pack(tmp_path, clips)) != first


def test_what_is_packed_already_stays(tmp_path, clips):
    packed = pack(tmp_path, clips).reset_index()
    assert packed_clips(tmp_path / "elsewhere", packed, tmp_path, RATE, 0.5) is packed
    assert not (tmp_path / "elsewhere").exists()


def _pack_and_send(arguments):
    logging.disable()
    return packed_clips(*arguments).path.tolist()


def test_two_processes_make_one_store(tmp_path, clips):
    arguments = (tmp_path / "cache", clips, tmp_path / "source", RATE, 0.5)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        one, two = pool.map(_pack_and_send, [arguments] * 2)
    assert one == two
    assert len([p for p in (tmp_path / "cache").iterdir() if not p.name.startswith(".")]) == 1


# ---- HDF5, as PANNs pack it


def write_hdf5(path, waveform: np.ndarray, rate: int | None = RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["audio_name"] = np.array([f"Y{i:011d}.wav" for i in range(len(waveform))], "S20")
        file["waveform"] = waveform
        if rate:
            file.attrs["sample_rate"] = np.int32(rate)


def test_rows_of_an_hdf5_file_are_recordings(tmp_path):
    values = np.random.default_rng(0).integers(-32767, 32768, (3, 4000)).astype(np.int16)
    write_hdf5(tmp_path / "x.h5", values)
    path = tmp_path / "x.h5#1"
    assert audio.info(path) == audio.AudioInfo(RATE, 4000, 1, 0.5)
    np.testing.assert_array_equal(audio.load(path, RATE), values[1] / np.float32(32767))
    np.testing.assert_array_equal(audio.load(path, RATE, 0.25, 0.1), audio.load(path, RATE)[2000:2800])
    for wrong, message in (("x.h5#3", "x.h5 has 3 rows"), ("y.h5#0", "cannot be read")):
        with pytest.raises(audio.UnreadableAudio, match=message):
            audio.load(tmp_path / wrong, RATE)


def test_an_hdf5_file_without_a_rate_holds_ten_seconds(tmp_path):
    write_hdf5(tmp_path / "x.h5", np.zeros((1, 40000), np.int16), rate=None)
    assert audio.info(tmp_path / "x.h5#0").sample_rate == 4000


def test_an_hdf5_file_of_something_else_says_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["embedding"] = np.zeros(3)
    with pytest.raises(audio.UnreadableAudio, match="no dataset 'waveform'.*it holds embedding"):
        audio.info(tmp_path / "x.h5#0")


def test_packing_hdf5_rows_keeps_every_bit(tmp_path):
    values = np.random.default_rng(0).integers(-32767, 32768, (3, 4000)).astype(np.int16)
    write_hdf5(tmp_path / "source/x.h5", values)
    clips = pd.DataFrame({"clip_id": list("abc"), "path": [f"x.h5#{i}" for i in (2, 0, 1)]})
    packed = pack(tmp_path, clips)
    store = np.load(f"{store_of(packed)}/waveform.npy")
    for clip_id, row in (("a", 2), ("b", 0), ("c", 1)):
        np.testing.assert_array_equal(store[int(packed.path[clip_id].split("#")[1])], values[row])


def test_only_rows_are_rows():
    assert audio_rows.is_row("a/b.hdf5#12")
    assert not audio_rows.is_row("a/b#12.wav")
    assert audio_rows.file_of("x/y.h5#3") == "x/y.h5"
    assert audio_rows.file_of("x/y.wav") == "x/y.wav"


def test_params_say_what_a_store_holds(tmp_path, clips):
    about = json.loads(Path(store_of(pack(tmp_path, clips)), "params.json").read_text())
    assert about == {"kind": "packed", "sample_rate": RATE, "n_samples": 4000, "format": caches.FORMAT}


def test_events_and_labels_of_a_beginning_are_those_heard_in_it():
    """What is behind the packed seconds is neither an event nor a label; what nobody annotated stays."""
    events = pd.DataFrame(
        [("s", 0.0, 5.0, "wren"), ("s", 5.0, 9.0, "owl"), ("t", 8.0, 9.0, "owl"), ("u", 6.0, 7.0, "owl")],
        columns=["filename", "onset", "offset", "event_label"],
    )
    clips = pd.DataFrame({"clip_id": list("stuf"), "labels": ["owl wren", "owl", "owl", "wren"], "duration": 4.0})
    kept, clips, notes = packed_events(events, clips, np.array([True, True, False, False]), ["owl", "wren"])
    assert kept.to_numpy().tolist() == [["s", 0.0, 4.0, "wren"]]
    assert clips.labels.tolist() == ["wren", "", "owl", "wren"]
    assert clips.annotated.tolist() == [1, 1, "", ""], "a soundscape without an event left is known to be silent"
    assert "3 events of the event table, of packed clips, begin after the end of their recording" in notes[0]
    assert notes[-1] == "2 annotated clips have the labels of their packed beginning alone"


def test_clips_of_which_the_end_is_lost_are_counted(tmp_path, clips, caplog):
    assert longer_than(pd.DataFrame({"duration": [1.0, 1.04, 1.06, np.nan]}), 1.0).tolist() == [
        False,
        False,
        True,
        False,
    ]
    pack(tmp_path, clips.assign(duration=100.0))
    assert f"{len(clips)} of {len(clips)} clips are longer than" in caplog.text


def test_a_test_longer_than_what_is_packed_is_copied_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = {"train_audio/wren/XC1.wav": 2, "train_audio/owl/XC2.wav": 2, "test_soundscapes/soundscape_1.wav": 6}
    for name, seconds in names.items():
        audio.write(tmp_path / "source" / name, 0.1 * rng.standard_normal(8000 * seconds).astype(np.float32), 8000)
    pd.DataFrame([("wren", "[]", "wren/XC1.wav", "a"), ("owl", "[]", "owl/XC2.wav", "a")],
                 columns=["primary_label", "secondary_labels", "filename", "author"]).to_csv(
        tmp_path / "source/train_metadata.csv", index=False)  # fmt: skip
    pd.DataFrame([("soundscape_1_5", 0.5, 0.5)], columns=["row_id", "owl", "wren"]).to_csv(
        tmp_path / "source/sample_submission.csv", index=False
    )
    run(prepare, "birdclef2024", "--source", "source", "--out", "data", "--resample", 4000, "--pack", 1)
    said = capsys.readouterr().out
    assert "1 of 1 recordings of test_clips are longer than 1 s: they are copied whole, not packed" in said
    assert "test: 1 clip of 6 s" in said
    assert audio.info(pd.read_csv("data/test_clips.csv").path[0]).duration == 6
    assert pd.read_csv("data/clips.csv").path.str.contains("#").all()

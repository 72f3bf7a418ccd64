"""audio.py on generated files of every kind, whole and damaged."""

import logging
import os

import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import given
from hypothesis import strategies as st

from earshot.sound import audio, decoding
from earshot.sound.audio import AudioInfo, UnreadableAudio, blocks, crop_or_pad, info, load, write
from earshot.sound.folder import list_recordings

RATE = 16000
FORMATS = ("wav", "flac", "ogg", "mp3")
TOLERANCE = {"wav": 1e-7, "flac": 2e-5, "ogg": 0.05, "mp3": 0.05}


@pytest.fixture(autouse=True)
def fresh_surveys():
    decoding._survey.cache_clear()


def tone(seconds: float, rate: int = RATE, hz: float = 440.0, channels: int = 1) -> np.ndarray:
    """(S,) or (S, C): a sine in a little noise; channel c is (c + 1) times as loud."""
    time = np.arange(round(seconds * rate)) / rate
    mono = 0.2 * np.sin(2 * np.pi * hz * time) + 0.01 * np.random.default_rng(0).standard_normal(len(time))
    waveform = mono[:, None] * np.arange(1, channels + 1)
    return (waveform[:, 0] if channels == 1 else waveform).astype(np.float32)


def put(path, waveform, rate=RATE, **options):
    sf.write(path, waveform, rate, **({"subtype": "FLOAT"} if path.suffix.lower() == ".wav" else {}), **options)
    return path


def cut(path, share: float):
    """The file without its end."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_file_and_header(tmp_path, kind):
    waveform = tone(2.0)
    path = put(tmp_path / f"a.{kind}", waveform)
    assert info(path) == AudioInfo(RATE, 32000, 1, 2.0)
    loaded = load(path, RATE)
    assert (loaded.dtype, loaded.shape) == (np.float32, (32000,))
    np.testing.assert_allclose(loaded, waveform, atol=TOLERANCE[kind])
    assert load(str(path), RATE, mono=False).shape == (1, 32000)


@pytest.mark.parametrize("kind", FORMATS)
def test_crops_are_slices_of_the_whole(tmp_path, kind):
    path = put(tmp_path / f"a.{kind}", tone(3.0))
    whole = load(path, RATE)
    for start, duration in ((0.0, 1.0), (0.73, 0.51), (1.999, 1.0), (2.5, 2.0), (1.0, None), (0.0, 0.0)):
        first = round(start * RATE)
        expected = whole[first : None if duration is None else first + round(duration * RATE)]
        np.testing.assert_allclose(load(path, RATE, start, duration), expected, atol=1e-6)
    assert load(path, RATE, 2.5, 2.0).shape == (8000,)  # shorter than asked, never padded
    assert load(path, RATE, 3.0, 1.0).shape == (0,)
    assert load(path, RATE, 99.0, 1.0).shape == (0,)
    assert load(path, RATE, 99.0, mono=False).shape == (1, 0)


@pytest.mark.parametrize("rate", [44100, 22050, 8000, 192000, 22051])
def test_resampled_crops_are_slices_of_the_whole(tmp_path, rate):
    path = put(tmp_path / "a.wav", tone(3.0, rate), rate)
    whole = load(path, RATE)
    np.testing.assert_allclose(whole, soxr.resample(tone(3.0, rate), rate, RATE, "HQ"), atol=1e-6)
    for start, duration in ((0.0, 0.5), (0.7371, 0.51), (1.0, 1.0), (2.9, 0.5), (1.2, None), (1.5, 0.0)):
        first = round(start * RATE)
        expected = whole[first : None if duration is None else first + round(duration * RATE)]
        crop = load(path, RATE, start, duration)
        assert crop.shape == expected.shape
        np.testing.assert_allclose(crop, expected, atol=1e-5)
    assert load(path, RATE, 3.001, 1.0).shape == (0,)
    assert load(path, RATE, 50.0, 1.0).shape == (0,)


def test_resampling_keeps_a_tone_and_removes_what_folds(tmp_path):
    time = np.arange(2 * 192000) / 192000
    path = put(
        tmp_path / "a.wav", (0.5 * np.sin(2 * np.pi * 1000 * time) + 0.5 * np.sin(2 * np.pi * 50000 * time)), 192000
    )
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)
    np.testing.assert_allclose(load(path, RATE)[500:-500], expected[500:-500], atol=1e-3)


def test_resampling_is_told_once_a_pair_of_rates(tmp_path, caplog):
    paths = [put(tmp_path / f"{i}.wav", tone(0.1, rate), rate) for i, rate in enumerate((8000, 8000, 22050, RATE))]
    with caplog.at_level(logging.WARNING, "earshot"):
        for path in paths:
            load(path, RATE)
            list(blocks(path, RATE, 1.0))
    assert [r.getMessage() for r in caplog.records] == [
        "audio of 8000 Hz is resampled to 16000 Hz as it is read, and holds nothing above 4000 Hz",
        "audio of 22050 Hz is resampled to 16000 Hz as it is read",
    ]


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_stereo_is_averaged_or_kept(tmp_path, rate):
    waveform = tone(1.0, rate, channels=2)
    path = put(tmp_path / "a.wav", waveform, rate)
    assert info(path).channels == 2
    both = load(path, RATE, mono=False)
    assert both.shape == (2, RATE)
    np.testing.assert_allclose(both[1], 2 * both[0], atol=1e-6)
    np.testing.assert_allclose(load(path, RATE), both.mean(axis=0), atol=1e-6)
    assert load(path, RATE, 0.25, 0.5, mono=False).flags["C_CONTIGUOUS"]


def test_non_finite_samples_are_zero_and_counted(tmp_path, caplog):
    waveform = tone(1.0)
    waveform[[5, 6, 7000]] = [np.nan, np.inf, -np.inf]
    path = put(tmp_path / "a.wav", waveform)
    with caplog.at_level(logging.WARNING, "earshot"):
        loaded = load(path, RATE)
        load(path, RATE, 0.4, 0.2)
        joined = np.concatenate(list(blocks(path, RATE, 0.1)))
    assert caplog.messages == [f"{path}: 3 of its 16000 samples are NaN or infinite and count as 0"]
    np.testing.assert_array_equal(loaded, np.where(np.isfinite(waveform), waveform, 0))
    np.testing.assert_array_equal(joined, loaded)
    assert np.isfinite(load(path, 8000)).all()


def test_a_file_mostly_not_finite_is_unreadable_from_every_crop(tmp_path):
    waveform = tone(1.0)
    waveform[:9000] = np.nan
    path = put(tmp_path / "a.wav", waveform)
    for crop in ((0.0, None), (0.5, 0.2)):
        with pytest.raises(UnreadableAudio, match="9000 of its 16000 samples are NaN or infinite"):
            load(path, RATE, *crop)
    with pytest.raises(UnreadableAudio, match="9000 of its 16000"):
        list(blocks(path, RATE, 0.1))
    waveform[:9000] = tone(1.0)[:9000]
    waveform[4000:9000] = np.inf
    path = put(tmp_path / "b.wav", waveform)
    assert not load(path, RATE, 0.3, 0.1).any()  # all of this crop, yet not half of the file


@pytest.mark.parametrize(
    ("kind", "expected", "received"),
    [("wav", 160000, (70000, 80000)), ("flac", 160000, (60000, 80000)), ("mp3", 160000, (70000, 80000))],
)
def test_truncated_files_give_what_they_hold(tmp_path, caplog, kind, expected, received):
    path = put(tmp_path / f"a.{kind}", tone(10.0))
    whole = load(path, RATE)
    cut(path, 0.47)
    with caplog.at_level(logging.WARNING, "earshot"):
        loaded = load(path, RATE)
    assert received[0] < len(loaded) < received[1]
    np.testing.assert_allclose(loaded[:-2000], whole[: len(loaded) - 2000], atol=1e-6)
    assert len(caplog.messages) == 1
    assert "is truncated" in caplog.messages[0]
    assert f" {expected} samples" in caplog.messages[0]
    assert caplog.messages[0].endswith(f" {len(loaded)}")
    np.testing.assert_allclose(load(path, RATE, 1.0, 1.0), loaded[RATE : 2 * RATE], atol=1e-6)
    assert load(path, RATE, 8.0, 1.0).shape == (0,)
    joined = np.concatenate(list(blocks(path, RATE, 0.3)))
    assert joined.shape == loaded.shape
    np.testing.assert_allclose(joined[:-2000], loaded[:-2000], atol=1e-6)  # mp3: its last, broken frame is guesswork


def test_truncated_ogg_is_only_shorter(tmp_path):
    path = put(tmp_path / "a.ogg", tone(10.0))
    whole = load(path, RATE)
    loaded = load(cut(path, 0.5), RATE)
    assert 60000 < len(loaded) < 90000
    assert info(path).n_samples == len(loaded)
    np.testing.assert_allclose(loaded[:-4000], whole[: len(loaded) - 4000], atol=1e-6)


def test_an_implausible_header_length_is_counted(tmp_path, monkeypatch, caplog):
    """libsndfile says 2**63 - 1 samples for an Ogg file without a last page; a low limit stands for it here."""
    path = put(tmp_path / "a.ogg", tone(2.0))
    monkeypatch.setattr(decoding, "MOST_SAMPLES_A_BYTE", 0.1)
    with caplog.at_level(logging.WARNING, "earshot"):
        assert info(path) == AudioInfo(RATE, 32000, 1, 2.0)
    assert caplog.messages == []  # counted, and it is so
    assert load(path, RATE, 1.5, 1.0).shape == (8000,)


@pytest.mark.parametrize("kind", ["flac", "ogg"])
def test_truncated_to_nothing_is_unreadable(tmp_path, kind):
    path = cut(put(tmp_path / f"a.{kind}", tone(5.0)), 0.01)
    with pytest.raises(UnreadableAudio, match=rf"a\.{kind}"):
        load(path, RATE)
    with pytest.raises(UnreadableAudio, match=rf"a\.{kind}"):
        list(blocks(path, RATE, 1.0))


def test_damage_in_the_middle_gives_the_part_before_it(tmp_path, caplog):
    path = put(tmp_path / "a.flac", tone(10.0))
    whole, content = load(path, RATE), bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5000] = np.random.default_rng(0).bytes(5000)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "earshot"):
        loaded = load(path, RATE)
    assert 60000 < len(loaded) < 90000
    np.testing.assert_array_equal(loaded, whole[: len(loaded)])
    assert caplog.messages == [f"{path} is truncated or corrupt: expected 160000 samples, received {len(loaded)}"]


def test_what_is_no_audio_says_why(tmp_path):
    random = np.random.default_rng(0).bytes(5000)
    (tmp_path / "noise.wav").write_bytes(random)
    (tmp_path / "noise.mp3").write_bytes(bytes(5000))
    (tmp_path / "tag.mp3").write_bytes(b"ID3\x03\0\0\0\0\x08\0" + bytes(1024))
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "page.ogg").write_text("<!DOCTYPE html><html>404 not found</html>\n" * 9)
    (tmp_path / "list.raw").write_text("a,b\n")
    put(tmp_path / "none.wav", np.zeros(0, np.float32))
    (tmp_path / "folder.wav").mkdir()
    reasons = {
        "missing.wav": "does not exist",
        "folder.wav": "is a folder, not an audio file",
        "zero.wav": r"is an empty file \(0 bytes\)",
        "none.wav": "holds no samples",
        "noise.wav": "cannot be decoded; libsndfile: ",
        "noise.mp3": "cannot be decoded; libsndfile: ",
        "tag.mp3": "cannot be decoded; libsndfile: no sound in it",
        "page.ogg": "cannot be decoded .it is text that begins with '<!DOCTYPE html><html>404'",
        "list.raw": "cannot be decoded .it is text",
    }
    for name, reason in reasons.items():
        for call in (lambda p: load(p, RATE), info, lambda p: list(blocks(p, RATE, 1.0))):
            with pytest.raises(UnreadableAudio, match=rf"{name}.*{reason}"):
                call(tmp_path / name)
    assert issubclass(UnreadableAudio, ValueError)


def test_one_sample_is_read_or_refused(tmp_path):
    path = put(tmp_path / "a.wav", np.ones(1, np.float32), 44100)
    assert load(path, 44100).tolist() == [1.0]
    with pytest.raises(UnreadableAudio, match="less than one sample at 16000 Hz"):
        load(path, RATE)


def test_upper_case_extension(tmp_path):
    path = put(tmp_path / "A.WAV", tone(0.5))
    np.testing.assert_array_equal(load(path, RATE), tone(0.5))


def test_negative_times_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"a crop of None s from -1\.0 s"):
        load(tmp_path / "a.wav", RATE, -1.0)
    with pytest.raises(ValueError, match=r"a crop of -2\.0 s"):
        load(tmp_path / "a.wav", RATE, 0.0, -2.0)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_blocks_join_to_load(tmp_path, kind, rate):
    path = put(tmp_path / f"a.{kind}", tone(2.0, rate, channels=2), rate)
    whole = load(path, RATE)
    for seconds in (0.1, 0.37, 5.0):
        pieces = list(blocks(path, RATE, seconds))
        assert {len(p) for p in pieces[:-1]} <= {round(seconds * RATE)}
        assert 0 < len(pieces[-1]) <= round(seconds * RATE)
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


def test_blocks_need_a_length(tmp_path):
    with pytest.raises(ValueError, match="less than one sample"):
        next(blocks(put(tmp_path / "a.wav", tone(0.1)), RATE, 0.0))


@given(st.integers(0, 20), st.integers(1, 20), st.data())
def test_crop_or_pad_property(n, wanted, data):
    """Every sample of the answer is a sample of the waveform at its shifted place, or zero padding."""
    spare = n - wanted
    offset, pad_offset = data.draw(st.integers(0, max(0, spare))), data.draw(st.integers(0, max(0, -spare)))
    waveform = np.arange(1, 2 * n + 1, dtype=np.float32).reshape(2, n)
    result = crop_or_pad(waveform, wanted, offset, pad_offset)
    place = np.arange(wanted) + (offset if spare >= 0 else -pad_offset)
    inside = (place >= 0) & (place < n)
    expected = np.zeros((2, wanted), np.float32)
    expected[:, inside] = waveform[:, place[inside]]
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32


def test_crop_or_pad_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="offset is 3 but 5 samples to 3 leave 0 to 2"):
        crop_or_pad(np.zeros(5), 3, offset=3)
    with pytest.raises(ValueError, match="pad_offset is -1 but 3 samples to 5 leave 0 to 2"):
        crop_or_pad(np.zeros(3), 5, pad_offset=-1)


def test_write_and_read_back(tmp_path):
    stereo = tone(2.3, channels=2).T
    for name, tolerance in (("sub/a.wav", 0), ("a.flac", 2e-5), ("a.OGG", 0.05)):
        write(tmp_path / name, stereo, RATE)
        np.testing.assert_allclose(load(tmp_path / name, RATE, mono=False), stereo, atol=tolerance)
    write(tmp_path / "mono.wav", 3 * stereo[0], RATE)
    np.testing.assert_array_equal(load(tmp_path / "mono.wav", RATE), 3 * stereo[0])  # float32: nothing is clipped
    write(tmp_path / "loud.flac", np.float32([2.0, -2.0, 0.5]), RATE)
    np.testing.assert_allclose(load(tmp_path / "loud.flac", RATE), [1, -1, 0.5], atol=4e-5)
    assert sorted(os.listdir(tmp_path)) == ["a.OGG", "a.flac", "loud.flac", "mono.wav", "sub"]


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", np.ones(10, np.float32), RATE)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(sf.SoundFile, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "a.wav", np.zeros(10, np.float32), RATE)
    assert os.listdir(tmp_path) == ["a.wav"]
    assert load(tmp_path / "a.wav", RATE).tolist() == [1.0] * 10
    with pytest.raises(ValueError, match=r"cannot write '.mp3' files; .*\.wav"):
        write(tmp_path / "a.mp3", np.zeros(10), RATE)


def test_real_recordings(shared_data):
    """Crops of real files equal the slices of the whole; every file is finite and within bounds."""
    paths = list_recordings(shared_data).files
    assert paths
    for path in paths[:: max(1, len(paths) // 12)]:
        whole, header = load(path, RATE), info(path)
        assert len(whole) == pytest.approx(header.duration * RATE, abs=1)
        assert np.isfinite(whole).all()
        assert 0 < np.abs(whole).max() < 2
        start = 0.37 * header.duration
        crop = load(path, RATE, start, 0.5)
        np.testing.assert_allclose(crop, whole[round(start * RATE) :][: len(crop)], atol=1e-4)


def test_names_that_the_system_cannot_take_are_unreadable_and_names_that_are_no_text_are_read(tmp_path):
    with pytest.raises(audio.UnreadableAudio, match="cannot be opened: File name too long"):
        audio.info(tmp_path / ("n" * 300 + ".wav"))
    no_text = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav")
    audio.write(tmp_path / "a.wav", np.full(10, 0.5, np.float32), 8000)
    os.rename(tmp_path / "a.wav", no_text)
    assert audio.info(no_text).n_samples == 10
    assert audio.load(no_text, 8000).tolist() == [0.5] * 10


@pytest.mark.parametrize("subtype", ["GSM610", "NMS_ADPCM_16", "G721_32"])
def test_a_codec_that_cannot_be_sought_is_no_damage(tmp_path, caplog, subtype):
    sf.write(tmp_path / "a.wav", np.sin(np.arange(32000) / 9) / 2, 16000, subtype)
    crop = audio.load(tmp_path / "a.wav", 16000, 0.5, 0.25)
    np.testing.assert_allclose(crop, audio.load(tmp_path / "a.wav", 16000)[8000:12000], atol=2e-3)
    assert "truncated" not in caplog.text

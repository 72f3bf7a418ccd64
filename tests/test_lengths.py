"""Headers that lie: lengths come from the file where its header disagrees, and cost no decoding where it agrees."""

import struct

import numpy as np
import pytest
import soundfile as sf

from earshot.sound import audio, decoding, lengths
from earshot.sound.audio import UnreadableAudio
from earshot.sound.flac import with_total
from earshot.sound.header import Shown
from earshot.sound.mpeg import frame

RATE = 16000
SECONDS = 4.0


@pytest.fixture
def counted(monkeypatch):
    """How often a file was decoded from the start."""
    calls, decode = [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *args: calls.append(args[0]) or decode(*args))
    return calls


def noise(seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


def wav(path, said=None, riff=None, cut=None, rate=None, behind=b"", subtype="PCM_16"):
    """A WAV whose header is made to say something else."""
    sf.write(path, noise(), RATE, subtype=subtype)
    data = bytearray(path.read_bytes())
    at = data.find(b"data")
    for place, value in ((at + 4, said), (4, riff), (24, rate)):
        if value is not None:
            data[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(bytes(data[:cut]) + behind)
    return path


def flac(path, total=None, cut=None, **options):
    """A FLAC whose STREAMINFO is made to say another number of samples."""
    sf.write(path, noise(), RATE, **options)
    data = path.read_bytes()
    if total is not None:
        data = with_total(data[:42], total) + data[42:]
    path.write_bytes(data[:cut])
    return path


def all_agree(path) -> int:
    """Samples by info, by load, by blocks and by decoding, which are all the same."""
    found = {
        audio.info(path).n_samples, len(audio.load(path, RATE)), sum(map(len, audio.blocks(path, RATE, 0.7))),
        audio.decoded_info(path).n_samples,
    }  # fmt: skip
    assert len(found) == 1, found
    n = found.pop()
    whole = audio.load(path, RATE)
    assert whole[-RATE // 10 :].any(), "the end is sound, not invented silence"
    np.testing.assert_allclose(audio.load(path, RATE, 0.5, 0.5), whole[RATE // 2 : RATE], atol=1e-6)
    return n


@pytest.mark.parametrize(("total", "note"), [
    (128000, "is truncated, or its header wrong: it promises 128000 samples, it holds 64000"),
    (32000, "has a wrong header: it promises 32000 samples, it holds 64000"),
    (2**35, f"is truncated, or its header wrong: it promises {2**35} samples, it holds 64000"),
    (0, None),  # streamed: the header says that it does not know
])  # fmt: skip
def test_flac_headers_that_lie(tmp_path, caplog, counted, total, note):
    path = flac(tmp_path / "a.flac", total)
    assert audio.info(path).n_samples == 64000
    assert caplog.messages == ([f"{path} {note}"] if note else [])
    assert counted == [str(path)], "counted once"
    audio.info(path), audio.load(path, RATE, 1.0, 1.0)
    assert counted == [str(path)], "and remembered"
    assert all_agree(path) == 64000
    assert (str(path) in audio.odd_files()) == (note is not None)


def test_a_flac_cut_off_holds_what_decodes(tmp_path, caplog):
    path = flac(tmp_path / "a.flac", cut=30000)
    n = all_agree(path)
    assert 10000 < n < 40000
    assert f"it promises 64000 samples, it holds {n}" in caplog.text


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_S8"])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [2000, 8000, 44099, 44100, 192000])
@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, pytest.param(300000, marks=pytest.mark.slow)])
def test_true_flac_headers_cost_no_decoding(tmp_path, counted, subtype, channels, rate, n):
    path = tmp_path / "a.flac"
    sf.write(path, 0.1 * np.random.default_rng(n).standard_normal((n, channels)), rate, subtype=subtype)
    header = lengths.inspect(path)
    assert (header.said, header.agrees, header.count) == (n, True, False)
    assert audio.info(path).n_samples == n
    assert counted == []


def test_wav_headers_that_lie(tmp_path, caplog):
    for i, (said, riff) in enumerate([(0, None), (0, 0), (2**32 - 1, 2**32 - 1), (2**31 - 1, None), (2**31, None)]):
        assert all_agree(wav(tmp_path / f"streamed{i}.wav", said, riff)) == 64000
    assert caplog.messages == []
    path = wav(tmp_path / "short.wav", 32000, 32036)  # a recorder that stopped before it wrote the true size
    assert all_agree(path) == 64000
    assert caplog.messages == [f"{path} has a wrong header: it promises 16000 samples, it holds 64000"]
    path = wav(tmp_path / "cut.wav", cut=44 + 2 * 20000)
    assert all_agree(path) == 20000
    assert caplog.messages[1:] == [f"{path} is truncated: its header promises 64000 samples, it holds 20000"]


def test_what_follows_the_data_of_a_wav_is_no_sound(tmp_path, caplog):
    text = b"LIST" + struct.pack("<I", 8000) + b"INFO" * 2000
    for i, behind in enumerate((text, text * 2, b"\0" * 20000, b"junk" * 100)):
        assert audio.info(wav(tmp_path / f"{i}.wav", behind=behind)).n_samples == 64000
    sf.write(tmp_path / "none.wav", np.zeros(0), RATE)
    with (tmp_path / "none.wav").open("ab") as file:
        file.write(text)
    with pytest.raises(UnreadableAudio, match="holds no samples"):
        audio.info(tmp_path / "none.wav")
    assert caplog.messages == []


@pytest.mark.parametrize("rate", [0, 1, 9, 10**9, 2**31 - 1])
def test_a_rate_that_no_recording_has_is_refused(tmp_path, rate):
    with pytest.raises(UnreadableAudio, match=rf"is of {rate} Hz by its header|cannot be decoded"):
        audio.info(wav(tmp_path / "a.wav", rate=rate))


def vbr(path, seconds: float = 20.0, rate: int = 32000):
    """Loud noise, then quiet: the first frames are the largest."""
    sound = noise(seconds, rate) * np.where(np.arange(round(seconds * rate)) < 3 * rate, 3, 1e-3)
    sf.write(path, sound, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    return path


def test_an_mp3_of_variable_rate_without_a_table_has_its_whole_length(tmp_path, caplog):
    path = vbr(tmp_path / "a.mp3")
    whole, data = audio.load(path, 32000), path.read_bytes()
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(data[frame(data[:4])[0] :])
    assert sf.info(bare).frames < 12 * 32000, "libsndfile's guess, which is wrong here"
    assert audio.info(bare).duration == pytest.approx(20.0, abs=0.1)
    loaded = audio.load(bare, 32000)
    assert len(loaded) == audio.info(bare).n_samples == sum(map(len, audio.blocks(bare, 32000, 3.0)))
    shift = len(loaded) - len(whole)
    assert 0 <= shift < 3 * 1152, "without a table the encoder's delay is not known"
    best = max(range(0, 2400), key=lambda s: float(loaded[s : s + 30000] @ whole[:30000]))
    np.testing.assert_allclose(loaded[best : best + 90000], whole[:90000], atol=1e-4)
    np.testing.assert_allclose(audio.load(bare, 32000, 15.0, 1.0), loaded[15 * 32000 : 16 * 32000], atol=1e-4)
    assert caplog.messages == []


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_an_mp3_whose_table_is_of_another_length_is_counted(tmp_path, caplog, share):
    path = vbr(tmp_path / "a.mp3")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    n = audio.info(path).n_samples
    assert 32000 < n < 19 * 32000
    assert len(audio.load(path, 32000)) == n
    assert caplog.messages == [f"{path} is truncated, or its header wrong: it promises 640000 samples, it holds {n}"]
    double = tmp_path / "double.mp3"
    double.write_bytes(data * 2)  # two recordings joined by cat
    assert audio.info(double).duration == pytest.approx(40.0, abs=0.2)


@pytest.mark.parametrize(
    "rate", [8000, 22050, 44100, *(pytest.param(r, marks=pytest.mark.slow) for r in (11025, 16000, 48000))]
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_mp3_of_every_rate_agrees_with_its_table_and_without_it(tmp_path, rate, channels, mode):
    path, n = tmp_path / "a.mp3", 3 * rate
    sound = 0.1 * np.random.default_rng(0).standard_normal((n, channels))
    sf.write(path, sound, rate, format="MP3", bitrate_mode=mode)
    assert audio.info(path).n_samples == n
    data = path.read_bytes()
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(b"ID3\x03\0\0\0\0\0\x0a" + b"\0" * 10 + data[frame(data[:4])[0] :] + b"TAG" + b"x" * 125)
    assert n <= audio.info(bare).n_samples < n + 4 * 1152
    assert len(audio.load(bare, rate)) == audio.info(bare).n_samples


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_files_in_a_row_are_told(tmp_path, caplog, subtype):
    path = tmp_path / "a.ogg"
    sf.write(path, noise(), RATE, format="OGG", subtype=subtype)
    assert all_agree(path) == 64000
    assert caplog.messages == []
    data = path.read_bytes()
    double = tmp_path / "double.ogg"
    double.write_bytes(data * 2)
    audio.info(double)
    assert caplog.messages == [f"{double}: it holds several recordings in a row, of which only the first is heard"]


def test_damage_in_the_middle_shows_by_decoding_alone(tmp_path, caplog):
    path = flac(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    assert audio.info(path).n_samples == 64000
    n = audio.decoded_info(path).n_samples
    assert 20000 < n < 40000
    assert audio.info(path).n_samples == 64000, "info depends on the file alone, not on what was read before"
    assert caplog.messages == [f"{path} is truncated or corrupt: expected 64000 samples, received {n}"]


def test_a_mended_header_leaves_the_file_as_it_is(tmp_path):
    path = wav(tmp_path / "a.wav", 0)
    before = path.read_bytes()
    header = lengths.inspect(path)
    with Shown(path, header.view) as shown:
        seen = shown.read()
        assert len(seen) == len(before)
        assert seen[header.view.skip :] == before[header.view.skip :]
        assert shown.seek(-4, 2) == len(before) - 4
        assert shown.read(10) == before[-4:]
    assert path.read_bytes() == before


def test_random_bytes_under_any_name_are_refused_with_the_reason(tmp_path):
    rng = np.random.default_rng(1)
    heads = [
        b"fLaC\0\0\0\x22",
        b"OggS\0\2",
        b"RIFF\xff\xff\xff\xffWAVE",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"\xff\xfb\x90\x64",
        b"",
    ]
    for i in range(60):
        ending = audio.EXTENSIONS[i % len(audio.EXTENSIONS)]
        path = tmp_path / f"{i}{ending}"
        path.write_bytes(heads[i % len(heads)] + rng.bytes(int(rng.integers(1, 4000))))
        found, reason = None, ""
        try:
            found = audio.info(path)
        except UnreadableAudio as error:
            reason = str(error)
        if found is None:
            assert path.name in reason
        else:  # a decoder that made sound of it
            assert 0 < len(audio.load(path, found.sample_rate)) <= found.n_samples

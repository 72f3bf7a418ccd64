"""Headers that lie in AIFF, AU, CAF, RF64, Ogg and the tables of mp3: the length is what the file holds."""

import io
import struct

import numpy as np
import pytest
import soundfile as sf

from earshot.sound import audio, lengths, mpeg

RATE, N = 16000, 64000
SOUND = (0.1 * np.random.default_rng(0).standard_normal(N)).astype(np.float32)


def written(path, format: str, subtype: str = "PCM_16", sound=SOUND, **how) -> bytearray:
    sf.write(path, sound, RATE, format=format, subtype=subtype, **how)
    return bytearray(path.read_bytes())


def held(path, n: int, tolerance: int = 0) -> int:
    """Samples by info, load, blocks and decoding, which agree and end in sound."""
    found = {
        audio.info(path).n_samples, len(audio.load(path, RATE)), sum(map(len, audio.blocks(path, RATE, 0.7))),
        audio.decoded_info(path).n_samples,
    }  # fmt: skip
    assert len(found) == 1
    assert abs(found.copy().pop() - n) <= tolerance
    assert np.abs(audio.load(path, RATE)[-800:]).max() > 0.01
    return found.pop()


def put(data: bytearray, at: int, form: str, *values) -> bytearray:
    struct.pack_into(form, data, at, *values)
    return data


def aiff(data, said: int):
    comm, ssnd = data.find(b"COMM"), data.find(b"SSND")
    return put(put(data, comm + 10, ">I", said), ssnd + 4, ">I", 2 * said + 8)


def caf(data, said: int):
    return put(data, data.find(b"data") + 4, ">q", 2 * said + 4)


def rf64(data, said: int):
    return put(data, data.find(b"ds64") + 16, "<Q", 2 * said)


def au(data, said: int):
    return put(data, 8, ">I", 2 * said)


KINDS = pytest.mark.parametrize(
    ("ending", "format", "say"), [("aiff", "AIFF", aiff), ("caf", "CAF", caf), ("wav", "RF64", rf64), ("au", "AU", au)]
)


@KINDS
def test_a_header_that_says_half(tmp_path, caplog, ending, format, say):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(say(written(path, format), N // 2))
    held(path, N)
    assert caplog.messages == [f"{path} has a wrong header: it promises {N // 2} samples, it holds {N}"]
    shown = lengths.inspect(path)
    assert path.read_bytes()[shown.view.skip :].endswith(path.read_bytes()[-100:])


@KINDS
def test_a_header_that_says_twice_as_much_and_a_file_cut_off(tmp_path, caplog, ending, format, say):
    path, cut = tmp_path / f"a.{ending}", tmp_path / f"cut.{ending}"
    data = written(path, format)
    cut.write_bytes(data[: len(data) - N])
    path.write_bytes(say(data, 2 * N))
    held(path, N)
    n = held(cut, N // 2)
    for file, said, holds in ((path, 2 * N, N), (cut, N, n)):
        assert any(f"promises {said} samples, it holds {holds}" in text for text in caplog.messages), file


@KINDS
def test_a_true_header_and_what_follows_the_sound(tmp_path, caplog, ending, format, say):
    path = tmp_path / f"a.{ending}"
    data = written(path, format)
    for behind in (b"", bytes(20000), b"junk" * 100):
        path.write_bytes(data + behind)
        assert held(path, N) == N
    assert caplog.messages == []
    assert lengths.inspect(path).said == N


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("format", ["AIFF", "AU", "CAF"])
def test_encodings_of_a_true_header(tmp_path, caplog, format, subtype):
    path = tmp_path / f"a.{format.lower()}"
    written(path, format, subtype)
    assert held(path, N) == N
    assert lengths.inspect(path).said in (N, 0), "of compressed samples nothing is said"
    assert caplog.messages == []


def test_headers_that_nobody_filled_in(tmp_path, caplog):
    caf_file, au_file, rf64_file = (tmp_path / name for name in ("a.caf", "a.au", "a.wav"))
    data = written(caf_file, "CAF")
    caf_file.write_bytes(put(data, data.find(b"data") + 4, ">q", -1))  # as the format allows of a last chunk
    au_file.write_bytes(au(written(au_file, "AU"), 0))
    rf64_file.write_bytes(rf64(written(rf64_file, "RF64"), 0))
    for path in (caf_file, au_file, rf64_file):
        assert held(path, N) == N
    assert caplog.messages == []


# ---- Ogg


@pytest.mark.parametrize("said", [0, 100, 0xFFFFFFFF])
def test_a_wav_that_grew_beyond_4_gb(tmp_path, said):
    path, size = tmp_path / "night.wav", (1 << 32) + 9000
    put(written(path, "WAV"), 40, "<I", said)
    with open(path, "r+b") as file:  # a sparse file: 4 GB of zeros on no disk
        for at in (40, 44 + 100, size - 4):
            file.seek(at)
            file.write(said.to_bytes(4, "little") if at == 40 else bytes(range(1, 5)))
    assert audio.info(path).n_samples == (size - 44) // 2
    assert audio.load(path, RATE, (size - 44) / 2 / RATE - 1).any()


@pytest.mark.parametrize("end", ["right", "half", "second"])
def test_a_wav_without_the_byte_behind_an_odd_chunk(tmp_path, caplog, end):
    path, text = tmp_path / "bat.wav", b"GUANO|Version: 1.0\n"
    data = written(path, "WAV", sound=SOUND)
    at = data.find(b"data")
    for tag in (b"guan", b"note"):
        data[at:at] = tag + struct.pack("<I", len(text)) + text
    half = put(data.copy(), data.find(b"data") + 4, "<I", N)
    path.write_bytes({"right": data, "half": half, "second": data + data}[end])
    assert held(path, N) == N
    assert len(caplog.messages) == (end != "right")
    assert np.array_equal(audio.load(path, RATE), sf.read(io.BytesIO(written(path, "WAV")), dtype="float32")[0])


def page_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_last_page_that_ends_too_late(tmp_path, caplog, subtype):
    path = tmp_path / "a.ogg"
    data = written(path, "OGG", subtype, np.tile(SOUND, 2))
    assert not lengths.inspect(path).count, "a true one costs no decoding"
    last = data.rfind(b"OggS\0")
    end = struct.unpack_from("<q", data, last + 6)[0]
    put(put(data, last + 6, "<q", 2 * end), last + 22, "<I", 0)
    path.write_bytes(put(data, last + 22, "<I", page_crc(data[last:])))
    n = held(path, 2 * N, 100)
    assert audio.info(path).n_samples == n
    assert f"it holds {n}" in caplog.text
    assert "is truncated, or its header wrong: it promises" in caplog.text


@pytest.mark.parametrize("subtype", ["VORBIS", pytest.param("OPUS", marks=pytest.mark.slow)])
def test_an_ogg_that_ends_in_silence_is_not_decoded_for_its_length(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    written(path, "OGG", subtype, np.r_[SOUND, np.zeros(40 * RATE, np.float32)])
    assert not lengths.inspect(path).count
    assert audio.info(path).n_samples == N + 40 * RATE


# ---- tables of mp3


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("share", [0.0, 0.5, 2.0, 10.0])
def test_a_table_of_a_wrong_number_of_frames_and_the_right_size(tmp_path, caplog, mode, share):
    path = tmp_path / "a.mp3"
    data = written(path, "MP3", None, np.tile(SOUND, 3), bitrate_mode=mode)
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    frames = struct.unpack_from(">I", data, at)[0]
    assert audio.info(path).n_samples == 3 * N
    path.write_bytes(put(data, at, ">I", int(share * frames)))
    held(path, 3 * N, 1152)
    said = [text for text in caplog.messages if "promises" in text]
    assert len(said) == (share > 0)


def test_a_table_that_may_be_true_is_believed_without_counting(tmp_path, monkeypatch):
    monkeypatch.setattr(mpeg, "walk", lambda *_: pytest.fail("all frames are counted"))
    for mode in ("VARIABLE", "CONSTANT", "AVERAGE"):
        path = tmp_path / f"{mode}.mp3"
        written(path, "MP3", None, np.tile(SOUND, 3), bitrate_mode=mode)
        assert audio.info(path).n_samples == 3 * N


def test_a_second_recording_of_another_rate_is_told(tmp_path, caplog):
    path, other = tmp_path / "a.mp3", tmp_path / "b.mp3"
    data = written(path, "MP3", None)
    sf.write(other, SOUND, 22050, format="MP3")
    path.write_bytes(data + other.read_bytes())
    held(path, N)
    assert caplog.messages == [f"{path}: {mpeg.ANOTHER}"]


@pytest.mark.parametrize(
    ("ending", "format", "subtype"),
    [("wav", "WAV", "PCM_16"), ("wav", "RF64", "PCM_16"), ("aiff", "AIFF", "PCM_16"), ("aiff", "AIFF", "ULAW"),
     ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16"), ("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"),
     ("opus", "OGG", "OPUS"), ("mp3", "MP3", None)],
)  # fmt: skip
def test_a_file_that_ends_within_its_header_is_unreadable_and_no_crash(tmp_path, ending, format, subtype):
    data = written(tmp_path / "whole", format, subtype, SOUND[:4000])
    for n in range(1, 120):
        path = tmp_path / f"{n}.{ending}"
        path.write_bytes(data[:n])
        said = info_or_reason(path)
        assert path.name in said or 0 < int(said) <= 4000


def info_or_reason(path) -> str:
    try:
        return str(audio.info(path).n_samples)
    except audio.UnreadableAudio as error:
        return str(error)

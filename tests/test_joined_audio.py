"""Audio files that `cat` joined, that end too early, or whose header says 0: no sound is lost without a word."""

import io
import struct

import numpy as np
import pytest
import soundfile as sf

from earshot.sound import audio, decoding
from earshot.sound.header import SEVERAL

SECONDS, RATE = 0.5, 8000
FORMATS = [
    ("WAV", "PCM_16", "wav", {}), ("WAV", "ULAW", "wav", {}), ("WAV", "IMA_ADPCM", "wav", {}),
    ("WAV", "MS_ADPCM", "wav", {}), ("WAV", "GSM610", "wav", {}), ("WAVEX", "FLOAT", "wav", {}),
    ("RF64", "PCM_24", "wav", {}), ("W64", "PCM_16", "w64", {}), ("W64", "IMA_ADPCM", "w64", {}),
    ("AIFF", "PCM_16", "aiff", {}), ("AIFF", "ULAW", "aifc", {}), ("CAF", "PCM_16", "caf", {}),
    ("CAF", "ULAW", "caf", {}), ("AU", "PCM_16", "au", {}), ("AU", "PCM_16", "au", {"endian": "LITTLE"}),
    ("AU", "G721_32", "au", {}),
    ("NIST", "PCM_16", "wav", {}), ("NIST", "ULAW", "wav", {}), ("FLAC", "PCM_16", "flac", {}),
    ("OGG", "VORBIS", "ogg", {}), ("OGG", "OPUS", "opus", {}),
]  # fmt: skip
EVERY = pytest.mark.parametrize(("form", "subtype", "ending", "options"), FORMATS)


def coded(form: str, subtype: str, options: dict, seconds: float = SECONDS, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))
    sf.write(file, noise, rate, format=form, subtype=subtype, **options)
    return file.getvalue()


def heard(path, data: bytes) -> np.ndarray:
    path.write_bytes(data)
    known = audio.info(path)
    waveform = audio.load(path, known.sample_rate)
    assert len(waveform) == known.n_samples == audio.decoded_info(path).n_samples
    return waveform


@EVERY
def test_of_recordings_in_a_row_the_first_is_heard_and_the_rest_told(tmp_path, caplog, form, subtype, ending, options):
    first, path = coded(form, subtype, options), tmp_path / f"a.{ending}"
    whole = heard(tmp_path / f"first.{ending}", first)
    for rest in (first, coded(form, subtype, options, rate=16000), first * 2, coded(form, subtype, options, 0.1)):
        decoding.warn_once.cache_clear(), caplog.clear()
        assert np.array_equal(heard(path, first + rest), whole)
        assert caplog.messages == [f"{path}: {SEVERAL}"]


@EVERY
def test_a_file_that_ends_too_early_is_told(tmp_path, caplog, form, subtype, ending, options):
    data, path = coded(form, subtype, options, 4.0), tmp_path / f"a.{ending}"
    whole = len(heard(tmp_path / f"whole.{ending}", data))
    assert not caplog.messages
    held = len(heard(path, data[: round(0.7 * len(data))]))
    assert 0.1 * whole < held < 0.75 * whole
    assert len(caplog.messages) == 1
    assert "is truncated" in caplog.messages[0]


SIZES = [("WAV", 0, "<I"), ("AU", 8, ">I"), ("AU little", 8, "<I"), ("CAF", 0, ">q"), ("RF64", 0, "<Q")]


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize(("form", "at", "how"), SIZES)
def test_a_short_file_whose_header_says_no_size_is_heard(tmp_path, caplog, form, at, how, size):
    data = bytearray(coded(form.split()[0], "PCM_16", {"endian": "LITTLE"} if "little" in form else {}, 0.1))
    mark = {"WAV": (b"data", 4), "CAF": (b"data", 4), "RF64": (b"ds64", 16)}.get(form)
    at = data.find(mark[0]) + mark[1] if mark else at
    struct.pack_into(how, data, at, size & (1 << 8 * struct.calcsize(how)) - 1 if how != ">q" else size)
    assert len(heard(tmp_path / "a.wav", bytes(data))) == 800
    assert not caplog.messages


def test_chunks_behind_the_sound_of_a_w64_are_no_sound(tmp_path, caplog):
    chunk = b"list" + bytes(12) + struct.pack("<Q", 24 + 4000) + b"INFO" * 1000
    assert len(heard(tmp_path / "a.w64", coded("W64", "PCM_16", {}) + chunk)) == SECONDS * RATE
    assert not caplog.messages


@pytest.mark.parametrize(("form", "head"), [("CAF", b"free" + struct.pack(">q", 8000)), ("WAV", b"LIST@\x1f\0\0")])
@pytest.mark.parametrize("gap", [b"", b"\0"])
def test_chunks_behind_an_odd_number_of_bytes_are_no_sound(tmp_path, caplog, form, head, gap):
    data = coded(form, "PCM_24", {}, 4001 / RATE)[:-1]  # without its own padding
    assert len(heard(tmp_path / "a.x", data + gap + head + b"INFO" * 2000)) == 4001
    assert not caplog.messages


@pytest.mark.parametrize("tag", [b"TAG".ljust(128, b"x"), b"APETAGEX".ljust(100_000, b"x")])
@pytest.mark.parametrize("n_samples", [100, 50_001])
def test_a_tag_behind_a_flac_of_silence_costs_no_sample(tmp_path, caplog, tag, n_samples):
    """More samples a byte than other files have, so that they are counted by decoding."""
    file = io.BytesIO()
    sf.write(file, np.zeros(n_samples), RATE, format="FLAC", subtype="PCM_16")
    assert len(heard(tmp_path / "a.flac", file.getvalue() + tag)) == n_samples
    assert all("holds no sound" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("form", "subtype"), [("W64", "PCM_16"), ("CAF", "ALAC_16"), ("WAV", "ULAW"), ("AIFF", "ULAW")]
)
def test_another_recording_begins_with_or_without_padding(tmp_path, caplog, form, subtype):
    lengths = {len(coded(form, subtype, {}, n / RATE)) % 8 for n in range(200, 206)}
    assert len(lengths) > 2
    for n in range(200, 206):
        first = coded(form, subtype, {}, n / RATE)
        assert np.array_equal(heard(tmp_path / f"{n}.x", 2 * first), heard(tmp_path / f"{n}.y", first))
        assert caplog.messages.pop().endswith(SEVERAL)


def test_a_flac_far_behind_another_is_found(tmp_path, caplog):
    """Of as many samples and more bytes than what is looked at in the end."""
    first, path = coded("FLAC", "PCM_16", {}, 30.0), tmp_path / "a.flac"
    assert len(first) > 1 << 18
    short = coded("FLAC", "PCM_16", {})
    for joined, seconds in ((first * 3, 30), (short + coded("FLAC", "PCM_16", {}, 30.0, 16000), SECONDS)):
        decoding.warn_once.cache_clear(), caplog.clear()
        assert len(heard(path, joined)) == seconds * RATE
        assert caplog.messages == [f"{path}: {SEVERAL}"]

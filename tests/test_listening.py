"""From recordings of a folder to events for people and programs: clocks in names, files out, confidence, the stream."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from earshot.annotations.reading import read_annotations
from earshot.annotations.writing import file_names, write_events
from earshot.events import PostProcess
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.listening.confidence import calibrate, stretches
from earshot.listening.detections import AT_A_TIME, Asked, best_examples, events_of, hear, only, summary_of
from earshot.listening.members import Ears, with_frames
from earshot.prediction.inference import Member
from earshot.prediction.predictions import Clip, Predictions
from earshot.prediction.truth import Truth
from earshot.sound import audio
from earshot.sound.timebase import TimeBase
from earshot.sound.wall_clock import start_of
from earshot.sound.windows import Windowing

UTC = UTC


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("20240131_063000.WAV", datetime(2024, 1, 31, 6, 30)),  # AudioMoth
        ("5E9A1F4C.WAV", datetime(2020, 4, 17, 21, 27, 40, tzinfo=UTC)),  # AudioMoth before firmware 1.0
        ("SM4-12_20200512_054500.wav", datetime(2020, 5, 12, 5, 45)),  # Song Meter
        ("S4A01234_20180712_003000_000.wav", datetime(2018, 7, 12, 0, 30)),
        ("BC2026_Train_0001_S08_20250606_030007.ogg", datetime(2025, 6, 6, 3, 0, 7)),
        ("rec/2024-01-31T06-30-00Z.flac", datetime(2024, 1, 31, 6, 30, tzinfo=UTC)),
        ("2024-01-31 06.30.00.mp3", datetime(2024, 1, 31, 6, 30)),
        ("x_20240131T063000+0200.wav", datetime(2024, 1, 31, 6, 30, tzinfo=timezone(timedelta(hours=2)))),
        (
            "S20210205T035946676+1000_E20210205T040446501+1000_-08.0.wav",  # Frontier Labs, of 2021
            datetime(2021, 2, 5, 3, 59, 46, tzinfo=timezone(timedelta(hours=10))),
        ),
        ("20230502_010000_Z.WAV", datetime(2023, 5, 2, 1, tzinfo=UTC)),
        ("20230612_050000(UTC-5).wav", datetime(2023, 6, 12, 5, tzinfo=timezone(timedelta(hours=-5)))),
        ("20240131_063000_Zoo.wav", datetime(2024, 1, 31, 6, 30)),
        ("20240131_063000-05.wav", datetime(2024, 1, 31, 6, 30)),  # a number behind, maybe
        ("Corvus-85-2022-07-08-birdnet-14:26:11.mp3", datetime(2022, 7, 8, 14, 26, 11)),  # BirdNET-Pi
        ("2023-11-26-birdnet-RTSP_1-19:10:40.wav", datetime(2023, 11, 26, 19, 10, 40)),
        ("site-2014-05-12_12-30.flac", datetime(2014, 5, 12, 12, 30)),  # Arbimon
        ("5146.210504050000.wav", datetime(2021, 5, 4, 5)),  # SoundTrap
        ("20240131063000.wav", datetime(2024, 1, 31, 6, 30)),
        ("20230801T1830.wav", datetime(2023, 8, 1, 18, 30)),
        ("20190814_0600.wav", None),  # a time, or a number
        ("XC123456.mp3", None),
        ("20241340_063000.wav", None),
        ("12345678.wav", None),  # a number, not hexadecimal seconds
        ("120240131_0630001.wav", None),
        ("DEADBEEF.wav", None),
    ],
)
def test_when_a_recording_began(name, start):
    found = start_of(name)
    assert found == start
    assert (found is None) or found.tzinfo == start.tzinfo


@given(
    st.datetimes(datetime(1995, 1, 1), datetime(2099, 12, 31)).map(lambda t: t.replace(microsecond=0)), st.booleans()
)
def test_any_time_that_a_recorder_writes_is_read(time, song_meter):
    name = f"{'SITE-7_' if song_meter else ''}{time:%Y%m%d_%H%M%S}.wav"
    assert start_of(name) == time


def events(*rows):
    columns = [
        "filename",
        "onset",
        "offset",
        "event_label",
        "confidence",
        "max_output",
        "mean_output",
        "begins",
        "path",
    ]
    return pd.DataFrame([(*r, "", f"/rec/{r[0]}.wav") for r in rows], columns=columns)


def test_raven_and_audacity_files_are_what_their_readers_read(tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    table = events(("a", 0.5, 1.25, "great_tit", 0.9, 0.8, 0.7), ("a", 2.0, 3.0, "wren", 0.6, 0.6, 0.5))
    write_events(table, tmp_path, ("raven", "audacity", "csv", "json"), ["/rec/a.wav", "/rec/b.wav"], lambda _: 32000)
    raven = crowsetta.formats.bbox.Raven.from_file(tmp_path / "raven/a.Table.1.selections.txt", annot_col="Species").df
    assert raven.begin_time_s.tolist() == [0.5, 2.0]
    assert raven.high_freq_hz.tolist() == [16000, 16000]
    assert raven.annotation.tolist() == ["great_tit", "wren"]
    track = crowsetta.formats.seq.AudSeq.from_file(tmp_path / "audacity/a.txt")
    assert list(track.labels) == ["great_tit", "wren"]
    again = read_annotations(tmp_path / "raven/a.Table.1.selections.txt")
    assert again.events.values.tolist() == [["a.wav", 0.5, 1.25, "great_tit", 0.9], ["a.wav", 2.0, 3.0, "wren", 0.6]]
    assert (tmp_path / "audacity/b.txt").read_text() == ""  # heard, and nothing there
    assert (tmp_path / "raven/b.Table.1.selections.txt").read_text().count("\n") == 1
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "events.csv", keep_default_na=False), pd.read_json(tmp_path / "events.json")
    )


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)), max_size=60), max_size=6))
def test_file_names_stay_in_their_folder_and_apart(names):
    paths = [f"/r{i}/{name}.wav" for i, name in enumerate(names)]
    found = file_names(paths)
    assert len({n.casefold() for n in found.values()}) == len(paths)
    for name in found.values():
        assert name == Path(name).name
        assert len(name.encode()) < 255
        assert "\\" not in name


def test_recordings_of_one_name_are_named_by_their_folders():
    """Recorders at several sites write the same names: whose table it is can be read."""
    paths = ["field/AM 1/DATA/x_0430.WAV", "field/AM 2/DATA/x_0430.WAV", "field/AM 2/DATA/x_1930.WAV"]
    assert list(file_names(paths).values()) == ["AM 1_DATA_x_0430", "AM 2_DATA_x_0430", "x_1930"]


def test_confidence_is_how_often_outputs_are_right():
    rng = np.random.default_rng(0)
    truth = rng.random((4000, 2)) < 0.3
    peaks = np.clip(np.where(truth, rng.beta(4, 2, truth.shape), rng.beta(2, 4, truth.shape)), 0.01, 0.99)
    calibrated = calibrate(peaks, truth)
    sure = calibrated(peaks[:, 0], np.zeros(len(peaks), int))
    for low in (0.1, 0.4, 0.7):
        near = (sure > low) & (sure < low + 0.2)
        assert truth[near, 0].mean() == pytest.approx(sure[near].mean(), abs=0.06)
    assert calibrate(peaks, np.zeros_like(truth)) is None


def test_recordings_that_hold_every_class_somewhere_make_no_detection_sure():
    """Four minutes with a call in a tenth of their stretches, another recording whose labels alone are known."""
    rng = np.random.default_rng(0)
    heard_in = rng.random((2, 240)) < 0.1
    rows = [(f"c{i}", s + 0.2, s + 0.8, "low") for i in range(2) for s in np.flatnonzero(heard_in[i])]
    events = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    loud = np.where(heard_in, rng.beta(4, 2, heard_in.shape), rng.beta(2, 4, heard_in.shape))
    frames = [np.stack([np.repeat(r, 10), np.full(2400, 0.1)], axis=1) for r in [*loud, np.full(240, 0.3)]]
    truth = Truth(np.array([[1, 0]] * 3), events, annotated=np.array([True, True, False]))
    peaks, there, of = stretches(heard([f.astype(np.float32) for f in frames]), truth, 1.0)
    assert of == "stretches of 1 s"
    assert len(peaks) == 481, "the third recording is one"
    assert (there[1:, 0] == heard_in.ravel()).all()
    sure = calibrate(peaks, there)(peaks[1:, 0], np.zeros(480, int))
    assert sure.mean() == pytest.approx(heard_in.mean(), abs=0.02), "by recordings it would be 1"
    assert stretches(heard(frames), Truth(truth.target), 1.0)[2] == "clips"


def test_a_rare_class_takes_the_common_calibration():
    rng = np.random.default_rng(0)
    truth = np.zeros((100, 2), bool)
    truth[:50, 0], truth[:3, 1] = True, True
    peaks = np.where(truth, 0.7, 0.3) + rng.uniform(-0.2, 0.2, truth.shape)
    found = calibrate(peaks, truth)
    assert found.slope[1] != found.slope[0]
    assert found.slope[1] > 0


def heard(frames, seconds=2.0):
    n = len(frames)
    return Predictions(
        np.array([f"c{i}" for i in range(n)]), ("low", "high"), np.stack([f.max(axis=0) for f in frames]),
        np.full(n, -1), np.zeros(n, bool), framewise_output=tuple(frames), timebase=TimeBase(1000, 100),
    )  # fmt: skip


def test_events_end_with_their_recording_and_tell_the_time(tmp_path):
    path = tmp_path / "20240131_235959.wav"
    soundfile.write(path, np.zeros(1950), 1000)
    frames = np.zeros((22, 2), np.float32)
    frames[12:, 1] = 0.9  # two frames past the end
    frames[3:5, 0] = 0.6
    audio.note(path, "it clicks")
    found = events_of(heard([frames]), [Clip("c0", path)], Asked(PostProcess(iou_threshold=None)), {})
    assert found.notes == {str(path): "it clicks"}
    assert found.events[["onset", "offset", "event_label"]].values.tolist() == [[0.3, 0.5, "low"], [1.2, 1.95, "high"]]
    assert found.events.begins.tolist() == ["2024-01-31T23:59:59.300", "2024-02-01T00:00:00.200"]
    assert summary_of(found.events)[["event_label", "day", "hour", "events"]].values.tolist() == [
        ["high", "2024-02-01", "00", 1], ["low", "2024-01-31", "23", 1],
    ]  # fmt: skip
    sites = pd.concat([found.events.assign(filename=f"{site}/c0") for site in ("north", "south")])
    assert summary_of(sites)[["event_label", "folder", "events"]].values.tolist()[:2] == [
        ["high", "north", 1], ["high", "south", 1],
    ]  # fmt: skip
    one = events_of(heard([frames]), [Clip("c0", path)], Asked(PostProcess(iou_threshold=None), top=1), {})
    assert one.events.event_label.tolist() == ["high"]
    none = Asked(PostProcess(iou_threshold=None), least_confidence=0.95)
    assert not len(events_of(heard([frames]), [Clip("c0", path)], none, {}).events)


def test_examples_come_from_different_recordings_first():
    table = events(("a", 0, 1, "x", 0.9, 0, 0), ("a", 2, 3, "x", 0.8, 0, 0), ("b", 0, 1, "x", 0.5, 0, 0),
                   ("b", 0, 1, "y", 0.1, 0, 0))  # fmt: skip
    assert best_examples(table, 2)[["filename", "event_label"]].values.tolist() == [["a", "x"], ["b", "x"], ["b", "y"]]
    assert best_examples(table, 3).confidence.tolist() == [0.9, 0.5, 0.8, 0.1]


class Loud:
    """A network whose clip output is 1 where a window is loud; it has no framewise outputs."""

    inputs, pooling = ("logmel",), ""

    def __init__(self):
        record = Logmel(sample_rate=1000, n_fft=64, hop_length=50, n_mels=8, fmin=0, fmax=500, channels="mono")
        self.frontends = Inputs.made({"logmel": record}, self.inputs)
        self.timebase = TimeBase(1000, 50, 1)

    def run(self, inputs):
        level = inputs["logmel"].max(axis=(1, 2, 3))
        return {"clipwise_output": (level > -40).astype(np.float32)[:, None]}


def test_a_network_without_frames_answers_by_windows_and_folders_stream(tmp_path):
    sound = np.zeros(6000)
    sound[2200:2800] = 0.5 * np.sin(np.arange(600))
    clips = []
    for i in range(AT_A_TIME + 3):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, sound, 1000)
        clips.append(Clip(str(i), path))
    (tmp_path / "1.wav").write_text("no sound")
    windowing = Windowing(sample_rate=1000, window_seconds=1.0, stride_seconds=0.5, batch_size=16)
    ears = with_frames(
        Ears(
            Path("run"),
            [Member(backend=Loud(), windowing=windowing, classes=("loud",), prior=np.zeros(1))],
            ("roll", "roll_half", "gain", "copies:2"),
            "sed",
            "",
        )
    )
    assert ears.tta == ("gain",)
    ears = replace(ears, tta=())
    counts = []
    heard = hear(ears, clips, Asked(PostProcess(threshold=0.9, iou_threshold=None)), progress=counts.append)
    assert counts == [AT_A_TIME, 3]
    assert list(heard.unreadable) == [str(tmp_path / "1.wav")]
    table = heard.events
    assert table.filename.nunique() == AT_A_TIME + 2
    assert set(zip(table.onset, table.offset, strict=True)) == {(2.0, 3.0)}


def test_what_the_command_line_says_wins():
    post = only(PostProcess(threshold=0.3, class_thresholds={"a": 0.2}, threshold_low=0.1), 0.7, 0.25)
    assert (post.threshold, post.class_thresholds, post.threshold_low, post.min_seconds) == (0.7, {}, None, 0.25)

"""Recordings that were replaced after prepare.py listed them are named when training begins."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

import predict
import train
from earshot.competitions.tables import Tables, write_tables
from earshot.data.dataset import LOOKED_AT, NOTES, noted, say_changed
from scripts import run


def later(path: Path, seconds: float):
    made = Path("data/dataset.json").stat().st_mtime
    os.utime(path, (made + seconds, made + seconds))


@pytest.fixture
def recordings(tiny):
    """Paths of the tiny competition's recordings, all older than its tables."""
    found = sorted(Path("source").rglob("*.wav"))
    for path in found:
        later(path, -10)
    return found


def test_what_was_written_later_is_said(tiny, recordings, caplog):
    names = [str(path.relative_to("source")) for path in recordings]
    say_changed("data", "source", names)
    assert not caplog.messages
    later(recordings[1], 1)  # within what clocks differ by
    say_changed("data", "source", names)
    say_changed("nowhere", "source", names)
    assert not caplog.messages
    later(recordings[1], 60)
    say_changed("data", "source", [*names, names[1], "gone.wav"])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        f"1 of {len(names) + 1} recordings that were looked at were changed after data"
    )
    assert f"such as {names[1]}: what it says" in caplog.messages[0]


def test_of_many_recordings_some_are_asked(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr("earshot.data.dataset._state", lambda path: asked.append(path) or [1, 0])
    say_changed("data", "source", (f"{i}.wav" for i in range(3 * LOOKED_AT + 1)))
    assert 0.7 * LOOKED_AT < len(asked) <= LOOKED_AT


def test_another_recording_of_an_older_time_is_noticed(tiny, recordings, caplog):
    names = [str(path.relative_to("source")) for path in recordings]
    Path("data", NOTES).write_text(json.dumps(noted("source", names)))
    say_changed("data", "source", names)
    assert not caplog.messages
    shutil.copy2(recordings[0], recordings[2])  # as `cp -p` does: its time is old
    os.utime(recordings[2], ns=(0, recordings[2].stat().st_mtime_ns - 10**9))
    say_changed("data", "source", names)
    assert f"such as {names[2]}: what it says" in caplog.messages[-1]
    caplog.clear()
    for path in recordings:  # copied elsewhere, without their times
        later(path, -5)
    say_changed("data", "source", names)
    assert not caplog.messages
    recordings[3].write_bytes(recordings[3].read_bytes() + b"\0\0")
    later(recordings[3], -5)
    say_changed("data", "source", names)
    assert caplog.messages[-1].startswith(f"1 of {len(names)} recordings")
    assert names[3] in caplog.messages[-1]


def test_prepared_folders_note_their_recordings(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"1234")
    clips = pd.DataFrame({"clip_id": ["a", "b"], "path": ["a.wav", "b.wav"], "labels": "x"})
    write_tables(Tables(clips=clips, classes=("x",), task="tagging"), tmp_path / "data", "mine", tmp_path)
    known = json.loads((tmp_path / "data" / NOTES).read_text())
    assert known == {name: [4, (tmp_path / name).stat().st_mtime_ns] for name in ("a.wav", "b.wav")}


def test_training_and_prediction_say_it(tiny, recordings, caplog):
    for path in recordings:
        later(path, 60)
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=1")
    assert sum("were changed after" in text for text in caplog.messages) == 1
    caplog.clear()
    run(predict, "--run", "runs/sed/tiny", "--clips", "data/test_clips.csv")
    assert sum("were changed after" in text for text in caplog.messages) == 1

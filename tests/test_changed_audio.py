"""Recordings that were replaced after prepare.py listed them are named when training begins."""

import os
from pathlib import Path

import pytest

import predict
import train
from earshot.data.dataset import LOOKED_AT, say_changed
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
        f"1 of {len(names) + 1} recordings that were looked at were written after data"
    )
    assert f"such as {names[1]}: what it says" in caplog.messages[0]


def test_of_many_recordings_some_are_asked(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr("earshot.data.dataset._changed_at", lambda path: asked.append(path) or 0)
    say_changed("data", "source", (f"{i}.wav" for i in range(3 * LOOKED_AT + 1)))
    assert 0.7 * LOOKED_AT < len(asked) <= LOOKED_AT


def test_training_and_prediction_say_it(tiny, recordings, caplog):
    for path in recordings:
        later(path, 60)
    run(train, "--config", tiny, "--fold", "0", "optim.epochs=1")
    assert sum("were written after" in text for text in caplog.messages) == 1
    caplog.clear()
    run(predict, "--run", "runs/sed/tiny", "--clips", "data/test_clips.csv")
    assert sum("were written after" in text for text in caplog.messages) == 1

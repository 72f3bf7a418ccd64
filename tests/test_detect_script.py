"""src/detect.py on folders that change: recordings that go, what it wrote itself, and files that are no recordings."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import detect
from earshot.events import PostProcess
from earshot.listening.detections import COLUMNS, Heard
from earshot.listening.recordings import find_clips
from earshot.prediction.predictions import Clip


def record(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(4000, 0.1, np.float32), 4000)
    return path


def test_recordings_that_went_keep_their_events_and_have_no_example(tmp_path, capsys):
    here, gone = record(tmp_path / "a.wav"), record(tmp_path / "b.wav")
    gone.unlink()
    assert (detect.rate_of(str(here)), detect.rate_of(str(gone))) == (4000, 0)
    events = pd.DataFrame({"path": [str(gone), str(here)], "onset": 0.1, "offset": 0.5, "event_label": "wren",
                           "confidence": 0.9})  # fmt: skip
    detect.cut_examples(events, tmp_path / "examples")
    assert [p.name for p in (tmp_path / "examples/wren").iterdir()] == ["0.900_a_0.10s.wav"]
    assert "no example: " in capsys.readouterr().out


def test_classes_have_examples_of_their_own_whatever_their_names_hold(tmp_path):
    classes = ["Anas_a/rubripes", "Aythya_b/rubripes", "E._rubecula", "E._citrinella", "../up", "a?", "a*", "..."]
    events = pd.DataFrame({"path": str(record(tmp_path / "a.wav")), "onset": 0.1, "offset": 0.5, "event_label": classes,
                           "confidence": 0.9})  # fmt: skip
    detect.cut_examples(events, tmp_path / "examples")
    folders = sorted(p.name for p in (tmp_path / "examples").iterdir())
    assert len(folders) == len(classes)
    assert {"Anas_a_rubripes", "Aythya_b_rubripes", "E._rubecula", "E._citrinella", "_up", "a_", "class"} < set(folders)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "examples"]


def test_own_examples_are_no_recordings(tmp_path):
    record(tmp_path / "a.wav")
    record(tmp_path / "found/examples/wren/0.9_a.wav")
    assert [clip.clip_id for clip in find_clips(tmp_path, tmp_path / "found/examples")[0]] == ["a"]
    assert len(find_clips(tmp_path, tmp_path / "elsewhere")[0]) == 2


def test_what_was_heard_is_written_recording_by_recording_and_counted(tmp_path, capsys):
    paths = {name: str(record(tmp_path / f"{name}.wav")) for name in ("a", "b", "c")}
    events = pd.DataFrame([["a", 0.1, 0.5, "wren", 0.9, 0.9, 0.8, "", paths["a"]]], columns=list(COLUMNS))
    heard = Heard(events, {paths["a"]: 1.0, paths["b"]: 1.0}, {paths["c"]: "cut"}, {paths["b"]: "shorter"})
    out = tmp_path / "found"
    options = argparse.Namespace(out=out, kinds=["csv"], examples=0, run="r", clips=tmp_path, top=0,
                                 min_confidence=0.0, level="frames")  # fmt: skip
    detect.write(heard, [Clip(name, path) for name, path in paths.items()], PostProcess(), options)
    detect.report_unreadable(heard, out)
    table = pd.read_csv(out / "recordings.csv", keep_default_na=False)
    assert table.filename.tolist() == ["a", "b", "c"]
    assert table.events.tolist() == [1, 0, 0]
    assert table.unreadable.tolist() == ["", "", "cut"]
    assert table.note.tolist() == ["", "shorter", ""]
    assert pd.read_csv(out / "events.csv").event_label.tolist() == ["wren"]
    assert pd.read_csv(out / "summary.csv").events.tolist() == [1]
    assert json.loads((out / "detect.json").read_text())["events"] == 1
    said = capsys.readouterr().out
    assert "1 recording could not be read" in said
    assert "1 recording is not as their files say" in said
    with pytest.raises(ValueError, match="none of the 1 recordings could be read"):
        detect.report_unreadable(Heard(events.iloc[:0], {}, {paths["c"]: "cut"}), out)


@pytest.mark.parametrize("name", ["clips.csv", "a.txt"])
def test_a_file_that_is_no_recording_is_refused(tmp_path, name):
    (tmp_path / name).write_text("clip_id,path\n")
    with pytest.raises(ValueError, match="no recording by its ending"):
        find_clips(tmp_path / name)


def test_options_that_cannot_be_meant():
    options = argparse.Namespace(kinds=["ravn"])
    with pytest.raises(ValueError, match="--as is 'ravn'; choose one of .*raven"):
        detect.check_options(options)

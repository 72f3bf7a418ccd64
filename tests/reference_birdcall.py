"""Checks of our strict birdcall rows against those that the source's own notebook cells gave.

`check_birdcall` takes the reference folder (or its `birdcall/`), checks every case that it finds there, returns how
many rows and events it compared, and raises an AssertionError naming the case that differs or the entry that no check
knows.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from earshot.competitions import birdcall
from earshot.events import EVENT_COLUMNS, PostProcess, overlap_losers, strict_events
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase

IOU = 0.4
FILE_KEYS = {"_meta", "cases", "error_cases"}
CASE_KEYS = {
    "name", "kind", "threshold", "classes", "audios", "expected_rows", "rows_computed_but_not_in_test", "n_events",
    "n_removed", "events",
}  # fmt: skip
AUDIO_KEYS = {"site", "audio_id", "duration"}


def check_birdcall(folder: Path) -> int:
    """Every case and error case of birdcall/cases.json: events, what is removed, and all rows, exactly."""
    folder = folder / "birdcall" if (folder / "birdcall").is_dir() else folder
    content = json.loads((folder / "cases.json").read_text())
    _known(content, FILE_KEYS, "cases.json")
    meta = content["_meta"]
    assert (meta["frame_seconds"], meta["chunk_seconds"]) == (0.01, birdcall.CHUNK_SECONDS)
    assert content["cases"], "cases.json holds no case"
    compared = 0
    for case in content["cases"]:
        _known(case, CASE_KEYS, f"case {case.get('name')}")
        with np.load(folder / f"{case['name']}.npz", allow_pickle=False) as file:
            _check_case(case, dict(file), meta["frames"])
        compared += len(case["expected_rows"]) + len(case["events"])
    _known(content.get("error_cases", {}), ERROR_CASES, "error_cases")
    for name in content.get("error_cases", {}):
        ERROR_CASES[name]()
        compared += 1
    return compared


def _known(entry: dict, keys, where: str):
    unknown = set(entry) - set(keys)
    assert not unknown, f"{where} holds {sorted(unknown)}, which this check does not know"


def _check_case(case: dict, chunks: dict[str, np.ndarray], n_frames: int):
    """Events, their removal, the rows and the rows past the end, of one case."""
    where, test = case["name"], _test_table(case["audios"], case["expected_rows"])
    assert set(chunks) == {a["audio_id"] for a in case["audios"]}, where
    assert sorted(test.row_id) == sorted(case["expected_rows"]), where
    events = _events(chunks, case["classes"], case["threshold"], n_frames)
    assert (len(events), int(events.removed.sum())) == (case["n_events"], case["n_removed"]), where
    assert len(case["events"]) == min(60, len(events)), where
    for row, (audio_id, label, onset, offset, maximum, mean, removed) in enumerate(case["events"]):
        got, place = events.iloc[row], f"{where}, event {row}"
        assert (got.filename, got.event_label, bool(got.removed)) == (audio_id, label, bool(removed)), place
        assert [got.onset, got.offset] == pytest.approx([onset, offset], abs=1e-9), place
        assert [got.max_confidence, got.mean_confidence] == pytest.approx([maximum, mean], abs=2e-6), place
    marked = birdcall.touched_rows(events[~events.removed], test, strict=True)
    past_end = set(marked.row_id) - set(test.row_id)
    assert past_end == set(case["rows_computed_but_not_in_test"]), where
    post = PostProcess(threshold=case["threshold"], iou_threshold=IOU, strict=True)
    survivors = [birdcall.strict_survivors(chunks[a], a, case["classes"], post) for a in sorted(chunks)]
    assert pd.concat(survivors)[list(EVENT_COLUMNS)].reset_index(drop=True).equals(
        events.loc[~events.removed, list(EVENT_COLUMNS)].reset_index(drop=True)
    ), where  # fmt: skip
    birds = birdcall.answers(marked, test).set_index("row_id").birds.to_dict()
    assert birds == case["expected_rows"], where


def _events(chunks: dict[str, np.ndarray], classes, threshold: float, n_frames: int) -> pd.DataFrame:
    """Events of every recording, ids sorted, with `removed`."""
    tables = []
    for audio_id in sorted(chunks):
        assert chunks[audio_id].shape[1:] == (n_frames, len(classes)), audio_id
        events = strict_events(chunks[audio_id], audio_id, classes, threshold)
        events["removed"] = overlap_losers(events.onset, events.offset, events.max_confidence, IOU)
        tables.append(events)
    return pd.concat(tables, ignore_index=True)


def _test_table(audios: list[dict], row_ids) -> pd.DataFrame:
    """The rows asked for, with the site and the recording that each belongs to."""
    rows = []
    for audio in audios:
        _known(audio, AUDIO_KEYS, f"recording {audio.get('audio_id')}")
        site, audio_id = audio["site"], audio["audio_id"]
        for row_id in row_ids:
            if row_id == f"{site}_{audio_id}":
                rows.append((site, row_id, None, audio_id))
            elif row_id.startswith(f"{site}_{audio_id}_"):
                rows.append((site, row_id, float(row_id.rsplit("_", 1)[1]), audio_id))
    test = pd.DataFrame(rows, columns=["site", "row_id", "seconds", "audio_id"])
    birdcall.check_site_rows(test)
    return test


def _one_frame_event():
    """The source crashes; here the event has its own frame's value, and marks its row."""
    chunks = np.zeros((1, 3001, 1), np.float32)
    chunks[0, 712, 0] = 0.75
    events = strict_events(chunks, "a", ["aldfly"], 0.5)
    row = events[["onset", "offset", "max_confidence", "mean_confidence"]].to_numpy().tolist()
    assert row == [[7.12, 7.12, 0.75, 0.75]]
    assert _rows(chunks).tolist() == ["nocall", "aldfly", "nocall", "nocall", "nocall", "nocall"]


def _no_event():
    """The source crashes; here every row is nocall."""
    assert _rows(np.full((1, 3001, 1), 0.4, np.float32)).tolist() == ["nocall"] * 6


def _rows(chunks: np.ndarray) -> pd.Series:
    """One recording of 30 s at site_1 through the door that submit.py uses."""
    found = Predictions(
        np.array(["a"]), ("aldfly",), chunks[0].max(axis=0, keepdims=True), np.array([-1]), np.array([False]),
        framewise_output=(chunks[0],), timebase=TimeBase(32000, 320),
    )  # fmt: skip
    test = _test_table([{"site": "site_1", "audio_id": "a"}], [f"site_1_a_{end}" for end in range(5, 31, 5)])
    return birdcall.rows(found, test, {"strict": True}).birds


ERROR_CASES = {"single_frame_event": _one_frame_event, "no_event_in_any_audio": _no_event}

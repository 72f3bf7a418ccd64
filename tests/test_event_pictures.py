"""Which held-out recordings a run draws, and what of them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from earshot.training import event_pictures


@pytest.fixture
def drawn(monkeypatch):
    kept = []
    monkeypatch.setattr(event_pictures, "event_maps", lambda maps, path: kept.extend(maps))
    return kept


def held_out(n=5, frames=10):
    ids = np.array([f"c{i}" for i in range(n)])
    outputs = tuple(np.full((frames, 2), i / n, np.float32) for i in range(n))
    clipwise = np.stack([f.max(axis=0) for f in outputs])
    found = Predictions(ids, ("wren", "tit"), clipwise, np.zeros(n, int), np.zeros(n, bool), framewise_output=outputs,
                        timebase=TimeBase(1000, 100))  # fmt: skip
    data = SimpleNamespace(source=Path("/rec"), clips=pd.DataFrame({"clip_id": ids, "path": ids}))
    return found, data


def test_the_best_a_middle_and_the_worst_by_overlap_in_time(drawn, tmp_path):
    found, data = held_out()
    events = pd.DataFrame({"filename": found.clip_ids, "onset": 0.0, "offset": 1.0, "event_label": "wren"})
    event_pictures.draw_event_maps(found, Truth(np.eye(2)[[0] * 5], events), data, tmp_path / "x.png")
    assert [m.title.split(" (")[0] for m in drawn] == ["c4", "c2", "c0"]
    assert "best of 5 by overlap" in drawn[0].title
    assert drawn[0].true.tolist() == [[True, False]] * 10
    assert str(drawn[0].sound) == "/rec/c4"


def test_without_events_the_labels_rank_and_unreadable_clips_are_not_drawn(drawn, tmp_path):
    found, data = held_out()
    bad = np.array([False, False, False, False, True])
    event_pictures.draw_event_maps(replace(found, unreadable=bad), Truth(np.ones((5, 2))), data, tmp_path / "x.png")
    assert [m.title.split(" (")[0] for m in drawn] == ["c3", "c1", "c0"]
    assert drawn[0].true is None
    assert drawn[0].labels == ["wren", "tit"]


def test_a_run_without_outputs_over_time_draws_nothing(drawn, tmp_path):
    found, data = held_out()
    event_pictures.draw_event_maps(
        replace(found, framewise_output=None, timebase=None), Truth(np.ones((5, 2))), data, tmp_path / "x.png"
    )
    assert drawn == []


def test_overlap():
    one = np.array([[1.0, 0], [0, 0]])
    assert event_pictures.overlap(one, one) == 1
    assert event_pictures.overlap(one, 1 - one) == 0
    assert event_pictures.overlap(one * 0.5, one) == 0.5

"""The answers that predictions are scored by: which clips can be scored in time, and whose anomaly score counts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth, anomaly_scores_of
from earshot.sound.timebase import TimeBase

EVENTS = pd.DataFrame({"filename": ["y", "x", "z", "v"], "onset": 0.0, "offset": 1.0, "event_label": list("aaba")})


def predicted(**changed) -> Predictions:
    frames = tuple(np.full((2, 2), i, np.float32) for i in range(3))
    output = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]], np.float32)
    found = Predictions(
        np.array(["x", "y", "z"]), ("a", "b"), output, np.zeros(3, int), np.zeros(3, bool), framewise_output=frames,
        timebase=TimeBase(8, 1),
    )  # fmt: skip
    return replace(found, **changed)


def test_clips_are_scored_in_time_where_their_events_are_known():
    truth = Truth(np.zeros((3, 2)), EVENTS)
    found, events = truth.in_time(predicted())
    assert found.clip_ids.tolist() == ["x", "y", "z"]
    assert events.filename.tolist() == ["y", "x", "z"], "v is no clip of these"
    some, events = replace(truth, annotated=np.array([True, False, True])).in_time(predicted())
    assert some.clip_ids.tolist() == ["x", "z"]
    assert [float(f[0, 0]) for f in some.framewise_output] == [0, 2]
    assert events.filename.tolist() == ["x", "z"]
    assert Truth(np.zeros((3, 2))).in_time(predicted()) is None
    assert truth.in_time(predicted(framewise_output=None)) is None
    assert replace(truth, annotated=np.zeros(3, bool)).in_time(predicted()) is None
    assert replace(truth, events=EVENTS[EVENTS.filename == "v"]).in_time(predicted()) is None
    (one, events) = replace(truth, events=EVENTS[EVENTS.filename == "z"]).in_time(predicted())
    assert (len(one), len(events)) == (3, 1)


def test_the_predictions_own_anomaly_score_comes_first():
    truth = Truth(np.array([[1, 0], [0, 1], [0, 1]]))
    own = anomaly_scores_of(predicted(score=np.array([3, 1, 2], np.float32)), truth)
    assert (own.tolist(), own.dtype) == ([3, 1, 2], np.float64)
    found = anomaly_scores_of(predicted(), truth)
    assert found == pytest.approx([np.log(0.25 / 0.75), 0, np.log(0.125 / 0.875)], rel=1e-5), "unsure of its own class"

"""The report's page: intervals, which clips are shown, and HTML that holds whatever names data have."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from earshot.events import PostProcess
from earshot.metrics import clips as clip_metrics
from earshot.pages import audit as audit_page
from earshot.pages.clip_cards import make_card, moment_of, surprising
from earshot.pages.intervals import bootstrap
from earshot.pages.report import Evidence, Picture, RunPage, Table, names_the_label, page, shown, tables
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from earshot.tasks import get_task


def test_an_interval_holds_the_score_and_shrinks_with_evidence():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.7
    few = bootstrap(lambda i: right[:40][i].mean(), np.arange(40))
    many = bootstrap(lambda i: right[i].mean(), np.arange(400))
    assert many[0] < right.mean() < many[1]
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    binomial = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert many[1] - many[0] == pytest.approx(binomial, rel=0.2)


def test_clips_of_one_group_are_one_piece_of_evidence():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.7, 10)
    alone = bootstrap(lambda i: right[i].mean(), np.arange(400))
    grouped = bootstrap(lambda i: right[i].mean(), np.repeat(np.arange(40), 10))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_a_score_that_is_rarely_defined_has_no_interval():
    assert np.isnan(bootstrap(lambda i: np.nan, np.arange(5))).all()


def predictions(scores, unreadable=(), frames=None):
    scores = np.asarray(scores, np.float32)
    bad = np.zeros(len(scores), bool)
    bad[list(unreadable)] = True
    return Predictions(
        np.array([f"c{i}" for i in range(len(scores))]), ("wren", "<b>tit</b>"), scores, np.zeros(len(scores), int),
        bad,
        framewise_output=frames, timebase=TimeBase(1000, 100) if frames else None,
    )  # fmt: skip


def test_surprising_clips_are_the_wrong_ones_each_once():
    found = predictions([[0.9, 0.1], [0.1, 0.95], [0.02, 0.3], [0.5, 0.5], [0.0, 1.0]], unreadable=[4])
    target = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [1, 0]])
    chosen = surprising(found, target, 1)
    assert [(c.index, c.why) for c in chosen] == [
        (1, "largest loss 2.65, most of it by <b>tit</b>"), (2, "surest false alarm 0.30: <b>tit</b>"),
        (3, "surest miss 0.50: wren"),
    ]  # fmt: skip
    assert len({c.index for c in surprising(found, target, 9)}) == len(surprising(found, target, 9)) == 4


def card(tmp_path, name="c0"):
    path = tmp_path / "c0.wav"
    soundfile.write(path, 0.2 * np.sin(np.arange(32000) / 5), 16000)
    frames = np.zeros((20, 2), np.float32)
    frames[5:10, 0] = 0.9
    found = predictions([[0.9, 0.2]], frames=(frames,))
    events = pd.DataFrame({"filename": ["c0"], "onset": [0.4], "offset": [1.0], "event_label": ["wren"]})
    truth = Truth(np.array([[1, 0]]), events)
    chosen = surprising(found, truth.target, 1)[0]
    return make_card(chosen, found, truth, path, PostProcess(threshold=0.5, iou_threshold=None))


def run_page(cards=()):
    return RunPage(
        name="run <1>", score=0.5, low=0.4, high=0.6, fold_mean=0.5, fold_deviation=0.1, folds=5, clips=10,
        parameters=1000, multiply_adds=10**9, minutes=2.0, scores=[("map", 0.5)],
        tables=[Table("By class", ("class", "clips"), [("<script>alert(1)</script>", 3), ("$x^$, =1+1", np.nan)])],
        pictures=[Picture("Calibration", "data:image/png;base64,AAAA")], cards=list(cards),
    )  # fmt: skip


def test_a_card_has_sound_picture_and_events(tmp_path):
    made = card(tmp_path)
    assert made.sound.startswith("data:audio/ogg;base64,")
    assert made.picture.startswith("data:image/png;base64,")
    assert made.events == [(0.4, 1.0, "wren", "true"), (0.5, 1.0, "wren", "predicted")]
    assert made.outputs[0][0] == "wren"


def test_of_a_long_recording_the_moment_is_shown_that_it_was_chosen_for(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, 0.2 * np.sin(np.arange(60 * 4000) / 5), 4000)
    frames = np.zeros((600, 2), np.float32)
    frames[400:410, 1] = 0.9
    found = predictions([[0.9, 0.95]], frames=(frames,))
    events = pd.DataFrame({"filename": ["c0"] * 2, "onset": [1.0, 41.0], "offset": [2.0, 50.0], "event_label": "wren"})
    chosen, post = surprising(found, np.array([[1, 0]]), 1)[0], PostProcess(threshold=0.5, iou_threshold=None)
    made = make_card(chosen, found, Truth(np.array([[1, 0]]), events), path, post)
    assert made.note == "12 s of 60.0 s, from 34.0 s on"
    assert [(round(a, 6), round(b, 6), *what) for a, b, *what in made.events] == [
        (6.0, 7.0, "<b>tit</b>", "predicted"), (7.0, 16.0, "wren", "true"),
    ]  # fmt: skip
    missed = replace(chosen, about=0)
    assert moment_of(missed, found, events) == 1.5
    assert moment_of(missed, found, None) == 0.05


def test_a_page_is_one_file_and_names_cannot_break_it(tmp_path):
    text = page("Report: <run>", "now", "map", [run_page([card(tmp_path)])], [])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)  # nothing is fetched
    assert text.count("<audio") == 1
    assert 'data-at="0.5"' in text


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.1235"), (3, "3"), ("a", "a"), (np.nan, ""), (None, "")])
def test_cells(value, text):
    assert shown(value) == text


def test_a_column_thatnames_the_label_is_no_table():
    clips = pd.DataFrame({"labels": ["a", "a", "b"], "species": ["Alda", "Alda", "Bea"], "site": ["x", "y", "x"]})
    assert names_the_label(clips.species, clips)
    assert not names_the_label(clips.site, clips)
    assert not names_the_label(pd.Series(["bird0", "bird1", "bird0"]), clips.assign(labels="song")), (
        "birds of one class"
    )


def test_average_precision_by_class_has_intervals():
    from earshot.pages.report import by_class

    rng = np.random.default_rng(0)
    target = rng.random((60, 2)) < 0.4
    found = predictions(np.clip(target * 0.4 + rng.random((60, 2)) * 0.6, 0, 1))
    table = by_class(found, target, np.arange(60))
    precision = clip_metrics.average_precision(target, found.clipwise_output)
    assert [row[2] for row in table.rows] == sorted(precision)
    assert all(row[3] <= row[2] <= row[4] for row in table.rows)


def events_run() -> Evidence:
    """Six clips of two folds whose frames are judged, of two lengths; one network found all but a clip of fold 1."""
    frames = [np.eye(2, dtype=np.float32)[i % 2] * np.ones((10, 1), np.float32) * (i < 5) for i in range(6)]
    for block in frames:
        block[5:] = 0
    found = predictions(np.array([[0.9, 0.1], [0.1, 0.9]] * 3), frames=tuple(frames))
    found = replace(found, fold=np.repeat([0, 1], 3))
    events = pd.DataFrame(
        [(f"c{i}", 0.0, 0.5, found.classes[i % 2]) for i in range(6)],
        columns=["filename", "onset", "offset", "event_label"],
    )
    clips = pd.DataFrame({"clip_id": found.clip_ids, "labels": "a", "duration": [0.5, 2.0] * 3})
    return Evidence(None, get_task("sed"), "event_f1", found, Truth(np.eye(2)[[0, 1] * 3], events, clips=clips), None)


def test_scores_in_time_are_known_by_fold_and_length():
    e = events_run()
    found = {table.title: table.rows for table in tables(e)}
    assert found["event_f1 by fold"] == [("0", 3, 1.0), ("1", 3, pytest.approx(0.8))]
    assert found["event_f1 by length in seconds"] == [("0 to 1", 3, 1.0), ("1 to 3", 3, pytest.approx(0.8))]
    scores, differences = audit_page.of_runs({"a": e, "b": e})
    assert scores.rows[0][:3] == ("a", "event_f1", pytest.approx(10 / 11))
    assert differences.rows[0][:2] == ("a - b", 0.0)
    assert differences.rows[0][2:4] == (0.0, 0.0)


def test_a_run_without_an_interval_says_so():
    text = page("Report", "now", "event_f1", [replace(run_page(), low=np.nan, high=np.nan)], [])
    assert "<td>none</td>" in text
    assert "<td> to </td>" not in text

"""Intervals of scores in time: what clips drawn with repeats score, against scoring a set that holds them so often."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from earshot.competitions import dcase_task4, oof_scores
from earshot.competitions.birdclef_rows import pool_rows
from earshot.competitions.oof_scores import ROW_MICRO_F1, has_labels, of_events, of_pooled_rows, padded_cmap
from earshot.events import PostProcess
from earshot.pages import in_time, report
from earshot.pages.intervals import bootstrap
from earshot.pages.report import Evidence, interval
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.timebase import TimeBase
from earshot.tasks import get_task

CLASSES = ("crow", "owl", "wren")
ROWS = of_pooled_rows("padded_cmap", padded_cmap, has_labels, pool_rows, 1.0)


def made(n: int = 12, seed: int = 0) -> tuple[Predictions, Truth]:
    """Clips of several lengths with outputs of few levels, so that scores tie; two of them are not annotated."""
    rng = np.random.default_rng(seed)
    ids, rows, frames = np.array([f"c{i}" for i in range(n)]), [], []
    for clip_id in ids:
        active = np.zeros((int(rng.integers(20, 40)), len(CLASSES)), bool)
        for k in range(len(CLASSES)):
            if rng.random() < 0.5:
                start = int(rng.integers(0, 10))
                stop = start + int(rng.integers(4, 10))
                active[start:stop, k] = True
                rows.append((clip_id, start / 10, stop / 10, CLASSES[k]))
        frames.append(np.round(0.4 * active + 0.7 * rng.random(active.shape), 1).clip(0, 1).astype(np.float32))
    target = np.array([[(c, k) in {(r[0], r[3]) for r in rows} for k in CLASSES] for c in ids]).astype(int)
    found = Predictions(
        ids, CLASSES, rng.random(target.shape).astype(np.float32), np.arange(n) % 2, np.zeros(n, bool),
        framewise_output=tuple(frames), timebase=TimeBase(1000, 100),
    )  # fmt: skip
    events = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    annotated = np.ones(n, bool)
    annotated[[3, 7]] = False
    clips = pd.DataFrame({"clip_id": ids, "group": [f"g{i // 2}" for i in range(n)], "labels": ""})
    return found, Truth(target, events, None, clips, annotated)


def repeated(found: Predictions, truth: Truth, index: np.ndarray) -> tuple[Predictions, Truth]:
    """The clips drawn as a set of their own, each under a name of its own, their events with them."""
    names = np.array([f"d{i}" for i in range(len(index))])
    by_clip = {c: truth.events[truth.events.filename == c] for c in found.clip_ids}
    events = pd.concat([by_clip[found.clip_ids[i]].assign(filename=n) for n, i in zip(names, index, strict=True)])
    drawn = Predictions(
        names, found.classes, found.clipwise_output[index], found.fold[index], found.unreadable[index],
        framewise_output=tuple(found.framewise_output[i] for i in index), timebase=found.timebase,
    )  # fmt: skip
    return drawn, replace(truth.take(index), events=events)


def directly(watch: str, found: Predictions, truth: Truth) -> float:
    """As the task and the competition score a set."""
    values = of_events("", dcase_task4.score).of(found, truth) | get_task("sed").score(found, truth)
    values |= ROWS.of(found, truth)
    return (values | {"row_micro_f1": ROW_MICRO_F1.of(found, truth).get("row_micro_f1")}).get(watch, np.nan)


WAYS = {
    "event_f1": lambda f, t: in_time.event_f1(f, t, PostProcess()),
    "event_f1_macro": lambda f, t: in_time.event_f1(f, t, PostProcess(iou_threshold=None), by_class=True),
    "frame_map": in_time.frame_map,
    "padded_cmap": ROWS.drawn,
}


@pytest.mark.parametrize("watch", WAYS)
def test_what_drawn_clips_score_is_what_a_set_of_them_would(watch):
    found, truth = made()
    way = WAYS[watch](found, truth)
    rng, values = np.random.default_rng(1), set()
    for index in [np.arange(12), np.array([0, 0, 1]), *(rng.integers(0, 12, 12) for _ in range(8))]:
        value = way(index)
        np.testing.assert_allclose(value, directly(watch, *repeated(found, truth, index)), rtol=1e-12)
        values.add(round(value, 6))
    assert len(values) > 5, "the draws differ"
    assert np.isnan(way(np.array([3, 7]))), "none of them is annotated"


def evidence(watch: str, found: Predictions, truth: Truth) -> Evidence:
    task = get_task("sed")
    scores = {"row_micro_f1", "event_f1_macro"}

    def score(found, truth):
        return task.score(found, truth) | {name: directly(name, found, truth) for name in scores if name == watch}

    return Evidence(None, replace(task, score=score), watch, found, truth, None)


@pytest.mark.parametrize(
    "watch",
    [
        "event_f1",
        "frame_map",
        "row_micro_f1",
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("event_f1_macro", "map")),
    ],
)
def test_an_interval_is_that_of_sets_that_are_scored_one_by_one(watch, monkeypatch):
    """The same groups drawn; a score of the highest frames too, which clips' own outputs would not give."""
    monkeypatch.setattr(bootstrap, "__defaults__", (12, 0))
    found, truth = made()
    unreadable = np.arange(12) == 5
    found = replace(found, unreadable=unreadable)
    e = evidence(watch, found, truth)
    readable = np.flatnonzero(~unreadable)

    def one_by_one(index):
        return directly(watch, *repeated(found, truth, readable[index]))

    expected = bootstrap(one_by_one, e.groups[readable])
    assert interval(e) == pytest.approx(expected, rel=1e-9)
    assert expected[0] < directly(watch, found.take(readable), truth.take(readable)) < expected[1]


def test_rows_of_a_competition_have_an_interval(monkeypatch):
    monkeypatch.setattr(bootstrap, "__defaults__", (12, 0))
    found, truth = made()
    monkeypatch.setattr(report, "get_competition", lambda name: SimpleNamespace(oof_score=ROWS, post=None))
    run = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(competition="")))
    task = replace(get_task("sed"), score=lambda found, truth: ROWS.of(found, truth))
    low, high = interval(Evidence(run, task, "padded_cmap", found, truth, None))
    assert low < directly("padded_cmap", found, truth) < high
    monkeypatch.setattr(oof_scores, "MOST_DRAWN", 10)
    assert ROWS.drawn(found, truth) is None
    assert ROWS.drawn(replace(found, framewise_output=None, timebase=None), truth) is None


def test_a_score_that_no_quick_way_gives_has_no_interval():
    found, truth = made()
    task = replace(get_task("sed"), score=lambda found, truth: {"own": float(found.framewise_output is not None)})
    assert np.isnan(interval(Evidence(None, task, "own", found, truth, None))).all()
    plain = replace(found, framewise_output=None, timebase=None)
    assert not np.isnan(interval(Evidence(None, task, "own", plain, truth, None))).any()
    silent = replace(truth, events=truth.events.iloc[:0])
    assert in_time.frame_map(found, silent) is in_time.event_f1(found, silent, PostProcess()) is None

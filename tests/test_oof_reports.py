"""The OOF of a run: joined when complete, scored, told; the answers that belong to it. Folds are stand-ins."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from earshot.data.answers import read_truth, truth_of
from earshot.data.prepared import PreparedData
from earshot.ensemble import oof as oofs
from earshot.ensemble.oof import (
    _stopped_lines,
    fold_scores,
    frame_scores,
    oof_when_complete,
    score_table,
    stopped_folds,
)
from earshot.ensemble.search import check_alike
from earshot.prediction.origin import TableDigests
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from earshot.tasks import Truth

NAN = float("nan")


def said(ids="vwxyz", fold=(1, 0, 1, 0, 3), values=None, **changed) -> Predictions:
    n = len(ids)
    values = np.arange(2 * n).reshape(n, 2) / 10 if values is None else values
    return replace(Predictions(np.array(list(ids)), ("a", "b"), np.array(values, np.float32), np.array(fold[:n]),
                               np.zeros(n, bool)), **changed)  # fmt: skip


def table_of(fold=(1, 0, -1, 1, 0, 3), ids="vwtxyz", digests=None) -> PreparedData:
    """Clips by fold; t always trains. v, w are of class a, the others of b."""
    clips = pd.DataFrame({"clip_id": list(ids), "fold": fold})
    target = np.array([[c in "vw", c not in "vw"] for c in ids], float)
    return PreparedData(clips=clips, classes=["a", "b"], source=Path(), target=target, mask=np.ones_like(target),
                        events=None, whole=clips, digests=digests)  # fmt: skip


def mean_of_answers() -> SimpleNamespace:
    """A task whose scores are the mean answer and the number of clips."""
    return SimpleNamespace(
        watch="mean",
        score=lambda found, truth: {
            "mean": found.clipwise_output.mean(),
            "n": len(found),
            "a": truth.target[:, 0].sum(),
        },
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder and a function that makes a fold of it: its OOF and run.json; what was checked."""
    folder = tmp_path / "runs" / "sed" / "m"
    checked = []

    class Fold:
        def __init__(self, path):
            self.folder, self.fold = path, int(path.name.removeprefix("fold"))

        about = property(lambda self: json.loads((self.folder / "run.json").read_text()))

        def oof(self):
            return said().take(said().fold == self.fold)

        def check(self):
            checked.append(self.fold)

    def finish(fold, **about):
        (folder / f"fold{fold}").mkdir(parents=True, exist_ok=True)
        (folder / f"fold{fold}" / "run.json").write_text(json.dumps(about))

    monkeypatch.setattr(oofs.runs, "FoldRun", Fold)
    monkeypatch.setattr(oofs.runs, "train_command", lambda of, *a: f"train {of.name} {a}")
    tables = []
    monkeypatch.setattr(oofs, "check_tables", lambda folds, now, of: tables.append(([f.fold for f in folds], now, of)))
    return SimpleNamespace(folder=folder, finish=finish, checked=checked, tables=tables)


def test_an_oof_is_joined_scored_and_told_when_all_folds_have_one(run):
    digests = TableDigests(folds="f", classes="c", clips="k")
    data, task = table_of(digests=digests), mean_of_answers()
    run.finish(0)
    (run.folder / "fold1").mkdir()  # begun
    report = oof_when_complete(run.folder, data, task)
    assert (report.oof, report.truth, report.scores) == (None, None, {})
    assert report.text == f"{run.folder}: folds [0] finished, [1, 3] to go before an OOF (train m (1, 3))"
    run.finish(3, finished=False, epochs_trained=2, epochs=9)
    report = oof_when_complete(run.folder, data, task)
    assert report.text.splitlines() == [
        f"{run.folder}: folds [0] finished, [1] to go before an OOF (train m (1,))",
        "  fold 3: stopped by time after 2 of 9 epochs; --resume goes on",
    ]
    assert not (run.folder / "oof.npz").exists()
    run.finish(1, finished=True)
    report = oof_when_complete(run.folder, data, task, "mean", ("folds",))
    assert report.oof.clip_ids.tolist() == list("vwxyz"), "in the order of the table"
    np.testing.assert_array_equal(report.oof.clipwise_output, said().clipwise_output)
    assert report.truth.target.tolist() == [[True, False], [True, False], [False, True], [False, True], [False, True]]
    assert report.scores == {"mean": pytest.approx(0.45), "n": 5, "a": 2, "unreadable": 0}
    first, *table, last = report.text.splitlines()
    # folds 0, 1 and 3 answer 0.45, 0.25 and 0.85 in the mean
    assert first == (f"{run.folder}: OOF of 5 clips together, mean 0.4500 "
                     "(mean of folds 0.5167 +- 0.2494: 0.4500 0.2500 0.8500)")  # fmt: skip
    assert table == score_table(report.scores).splitlines()
    assert last == "  fold 3: stopped by time after 2 of 9 epochs; --resume goes on"
    assert Predictions.load(run.folder / "oof.npz").clip_ids.tolist() == list("vwxyz")
    assert run.checked == [0, 0, 3, 0, 1, 3]
    assert run.tables[-1] == ([0, 1, 3], digests, ("folds",))
    assert list(run.tables[0][2]) == ["folds", "classes", "clips"], "the tables that are compared where none are named"


def test_a_run_watches_what_its_task_does_and_an_undefined_score_is_nan(run):
    for fold in (0, 1, 3):
        run.finish(fold)
    text = oof_when_complete(run.folder, table_of(), mean_of_answers()).text
    assert "together, mean 0.4500" in text
    text = oof_when_complete(run.folder, table_of(), mean_of_answers(), "other").text
    assert text.splitlines()[0].endswith("together, other nan (not defined in fold 0, 1, 3)")
    assert "stopped" not in text
    with pytest.raises(ValueError, match=r"runs/sed/m: no clip of the fold table is held out \(every fold is -1\)"):
        oof_when_complete(run.folder, table_of((-1,) * 6), mean_of_answers())


def test_folds_that_ran_out_of_time():
    folds = [SimpleNamespace(fold=2, about={"finished": False, "epochs": 4}), SimpleNamespace(fold=1, about={}),
             SimpleNamespace(fold=0, about={"finished": False, "epochs_trained": 3})]  # fmt: skip
    found = stopped_folds(folds)
    assert found == {2: folds[0].about, 0: folds[2].about}
    assert _stopped_lines(found) == [
        "  fold 0: stopped by time after 3 of 0 epochs; --resume goes on",
        "  fold 2: stopped by time after 0 of 4 epochs; --resume goes on",
    ]


def test_each_fold_is_scored_by_its_readable_clips():
    oof = said(unreadable=np.array([True, False, False, False, True]))
    truth = Truth(np.zeros((5, 2), bool))
    found = fold_scores(mean_of_answers(), oof, truth, "mean")
    assert found == {0: pytest.approx(0.45), 1: pytest.approx(0.45), 3: pytest.approx(NAN, nan_ok=True)}
    assert all(type(f) is int for f in found)


# ---- answers


def test_answers_follow_the_clips_and_what_is_annotated():
    data = table_of()
    truth = truth_of(said("zw", (3, 0)), data)
    assert truth.target.tolist() == [[False, True], [True, False]]
    assert truth.clips.clip_id.tolist() == ["z", "w"]
    assert (truth.events, truth.annotated, truth.durations) == (None, None, None)
    assert len(truth_of(said(""), data).target) == 0
    events = pd.DataFrame({"filename": ["z", "y"], "onset": 0.0, "offset": 1.0, "event_label": "b"})
    timed = truth_of(said("zw", (3, 0)), replace(data, events=events))
    assert timed.events.filename.tolist() == ["z"]
    assert timed.annotated.tolist() == [True, False], "a clip without a row is unknown"


def frame_competition(calls):
    def frame_score(found, durations, events):
        calls.append((found.clip_ids.tolist(), durations, events.filename.tolist()))
        return {"psds": 0.5}

    return SimpleNamespace(frame_score=frame_score)


def test_scores_of_frames_are_of_readable_clips_that_are_annotated():
    frames = tuple(np.zeros((2, 2), np.float32) for _ in range(4))
    oof = said("vwxy", framewise_output=frames, timebase=TimeBase(8, 1), unreadable=np.array([0, 0, 0, 1], bool))
    events = pd.DataFrame({"filename": list("vwxy"), "onset": 0.0, "offset": 1.0, "event_label": "a"})
    clips = pd.DataFrame({"clip_id": list("vwxy"), "duration": [1.0, 2.0, 3.0, 4.0], "site": "s"})
    truth = Truth(np.zeros((4, 2), bool), events, clips=clips, annotated=np.array([True, False, True, True]))
    calls = []
    assert frame_scores(frame_competition(calls), oof, truth) == {"psds": 0.5}
    ((ids, durations, of),) = calls
    assert (ids, of) == (["v", "x"], ["v", "x"])
    assert durations.to_dict("list") == {"clip_id": ["v", "x"], "duration": [1.0, 3.0]}
    for competition, found, answers in (
        (SimpleNamespace(frame_score=None), oof, truth),
        (frame_competition(calls), replace(oof, framewise_output=None), truth),
        (frame_competition(calls), oof, replace(truth, events=None)),
        (frame_competition(calls), oof, replace(truth, clips=None)),
        (frame_competition(calls), oof, replace(truth, clips=clips.drop(columns="duration"))),
    ):
        assert frame_scores(competition, found, answers) == {}
    assert len(calls) == 1


@pytest.fixture
def clips_csv(tmp_path):
    """A clip table, its classes and events; a function that reads the answers to x and y in another order."""
    path = tmp_path / "clips.csv"
    pd.DataFrame({"clip_id": list("xyz"), "path": list("xyz"), "labels": ["a c", "b", ""]}).to_csv(path, index=False)
    pd.DataFrame({"filename": ["x", "x", "y", "z"], "onset": [1.0, 0.0, 0.0, 0.0], "offset": 2.0,
                  "event_label": ["c", "a", "b", "b"]}).to_csv(tmp_path / "events.csv", index=False)  # fmt: skip
    return path


def test_classes_that_are_not_answered_are_left_out_of_the_answers(clips_csv):
    (clips_csv.parent / "classes.csv").write_text("label\na\nb\nc\n")
    truth = read_truth(said("yx"), clips_csv)
    assert truth.target.tolist() == [[False, True], [True, False]], "in the order of the predictions, without c"
    assert truth.clips.clip_id.tolist() == ["y", "x"]
    assert truth.clips.index.tolist() == [0, 1]
    assert truth.events[["filename", "event_label"]].values.tolist() == [["x", "a"], ["y", "b"]]
    assert truth.annotated.tolist() == [True, True]
    alone = read_truth(said("z"), clips_csv)
    assert alone.events.filename.tolist() == ["z"]


def test_answers_of_another_list_or_other_clips_are_refused(clips_csv):
    with pytest.raises(ValueError, match="label 'c', which is not in the class list"):  # c is a mistake
        read_truth(said("yx"), clips_csv)
    (clips_csv.parent / "classes.csv").write_text("label\na\nc\n")
    with pytest.raises(ValueError, match="label 'c', which is not in the class list"):  # b is of another list
        read_truth(said("yx"), clips_csv)
    (clips_csv.parent / "classes.csv").write_text("label\na\nb\nc\n")
    events = clips_csv.parent / "events.csv"
    events.write_text(events.read_text().replace("c", "d", 1))
    with pytest.raises(ValueError, match="events.csv has 1 labels that are no class: d; known: a, b, c"):
        read_truth(said("yx"), clips_csv)
    with pytest.raises(ValueError, match=rf"^{clips_csv} does not list 2 of the predicted clips: q, r$"):
        read_truth(said("xqr"), clips_csv)


def test_labels_alone_are_answers_too(clips_csv, caplog):
    (clips_csv.parent / "classes.csv").write_text("label\na\nb\nc\n")
    (clips_csv.parent / "events.csv").unlink()
    with caplog.at_level(logging.WARNING):
        truth = read_truth(said("xz"), clips_csv)
    assert truth.target.tolist() == [[True, False], [False, False]]
    assert (truth.events, truth.annotated, truth.clips.clip_id.tolist()) == (None, None, ["x", "z"])


# ---- members that belong together


def test_members_that_belong_together_may_have_another_order():
    check_alike(["m"], [said()])
    check_alike(["m", "n", "o"], [said(), said().take([4, 2, 0, 1, 3]), said()])


@pytest.mark.parametrize(("other", "message"), [
    (said("vwxy"), "^m and o cannot be blended: 1 clip is in one OOF only: z$"),
    (said("vwxyzq", (1, 0, 1, 0, 3, 0)), "^m and o cannot be blended: 1 clip is in one OOF only: q$"),
    (said("vwxyq"), "2 clips are in one OOF only: q, z$"),
    (said(fold=(1, 0, 0, 3, 3)).take([4, 3, 2, 1, 0]),
     "^m and o .* 2 of 5 clips are in another fold, such as x in 1 and 0: train both on one table$"),
    (replace(said(), classes=("a", "c")), "^m and o .* only in the first: b; only in the second: c$"),
])  # fmt: skip
def test_members_that_do_not_belong_together_are_named(other, message):
    with pytest.raises(ValueError, match=message):
        check_alike(["m", "n", "o"], [said(), said(), other])

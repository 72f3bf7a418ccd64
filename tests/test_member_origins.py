"""Members held against each other and against what lies beside them: runs that are stand-ins, files in a folder."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from earshot.ensemble import origins
from earshot.prediction.origin import Origin, TableDigests
from earshot.prediction.predictions import Predictions

TABLES = TableDigests(folds="f" * 32, classes="c" * 32, clips="k" * 32)


@pytest.fixture
def unchecked(monkeypatch) -> list[str]:
    """What is said to carry no origin."""
    said = []
    monkeypatch.setattr(origins, "say_unchecked", said.append)
    return said


def origin(fold=0, run="sed/a", **changed) -> Origin:
    return replace(Origin(run=run, fold=fold, tables=TABLES, weights=f"{run}{fold}"), **changed)


def fold_of(one, folder="runs/sed/a/fold0") -> SimpleNamespace:
    data = SimpleNamespace(folds="folds/x.csv", root="data/x")
    return SimpleNamespace(origin=one, folder=Path(folder), config=SimpleNamespace(data=data))


def run_of(folder, *known, origins=()) -> SimpleNamespace:
    return SimpleNamespace(folder=Path(folder), folds=[fold_of(o) for o in known], origins=list(origins) or None)


def predicted(*known, unknown=False) -> Predictions:
    return Predictions(np.array(["x"]), ("a",), np.zeros((1, 1), np.float32), np.array([-1]), np.array([False]),
                       origins=None if unknown else known)  # fmt: skip


def test_each_fold_is_held_against_the_tables_of_now(unchecked):
    now = replace(TABLES, classes="n" * 32, targets="t")
    origins.check_tables([fold_of(origin()), fold_of(origin(1))], TABLES)
    with pytest.raises(ValueError, match=r"runs/sed/a/fold0 \(run sed/a fold 0\) was trained on other tables than "
                       r"folds/x.csv and data/x hold now: class list cccccccccc against nnnnnnnnnn; put"):  # fmt: skip
        origins.check_tables([fold_of(origin()), fold_of(origin(1))], now)
    origins.check_tables([fold_of(origin())], now, ("folds", "clips"))
    with pytest.raises(ValueError, match="soft targets t1 against t"):
        origins.check_tables([fold_of(origin(tables=replace(TABLES, targets="t1")))], now, ("targets",))
    origins.check_tables([fold_of(origin(tables=replace(TABLES, targets="t1")))], replace(now, classes="c" * 32))
    assert not unchecked
    origins.check_tables([fold_of(None, "runs/old/fold2")], now)
    origins.check_tables([fold_of(origin())], None)
    assert unchecked == ["runs/old/fold2", "runs/sed/a/fold0"]
    with pytest.raises(ValueError, match="class list"):
        origins.check_tables([fold_of(None), fold_of(origin())], now)  # the others are checked all the same


def test_runs_share_their_tables_or_say_which_not():
    a, b = run_of("runs/a", origin()), run_of("runs/b", origin(run="sed/b"))
    c = run_of("runs/c", origin(tables=replace(TABLES, clips="n" * 32, classes="m" * 32)))
    old = run_of("runs/old", None)
    origins.check_same_tables([a, b], "train anew")
    origins.check_same_tables([a, old], "")
    origins.check_same_tables([old, a], "")
    origins.check_same_tables([a], "")
    said = (r"^runs/a and runs/c were trained on different tables: class list c+ against m+; "
            "clip table k+ against n+; train anew$")  # fmt: skip
    with pytest.raises(ValueError, match=said):
        origins.check_same_tables([a, b, c], "train anew")
    with pytest.raises(ValueError, match=said):
        origins.check_same_tables([a, c], "train anew")
    with pytest.raises(ValueError, match="clip table"):
        origins.check_same_tables([a, old, c], "train anew", ("clips",))
    origins.check_same_tables([a, c], "", ("folds",))


def test_a_member_counts_once():
    a = run_of("runs/a", origins=[origin(0), origin(1)])
    b = run_of("runs/b", origins=[origin(0, "sed/b"), origin(1, "sed/b")])
    old = run_of("runs/old")
    origins.check_distinct([a, b, old, run_of("runs/older")])
    with pytest.raises(ValueError, match="^runs/../runs/a is named twice"):
        origins.check_distinct([a, b, run_of("runs/../runs/a", origins=[origin(5)])])
    copy = run_of("runs/copy", origins=[origin(3), origin(1), origin(0)])
    with pytest.raises(ValueError, match=r"^runs/a and runs/copy hold the same weights \(sed/a0, sed/a1\)"):
        origins.check_distinct([b, a, copy])
    with pytest.raises(ValueError, match="runs/a and runs/copy"):
        origins.check_distinct([old, a, copy])


def test_predictions_are_of_all_folds_of_their_run(unchecked):
    run = run_of("runs/sed/a", origins=[origin(0), origin(1)])
    origins.check_predictions(predicted(origin(0), origin(1)), Path("t.npz"), run)
    remedy = r"; predict again: python .*src/predict.py'? --run runs/sed/a --clips TABLE$"
    with pytest.raises(
        ValueError, match=r"^t.npz is of run sed/a fold 0 and lacks run sed/a fold 1 of runs/sed/a" + remedy
    ):
        origins.check_predictions(predicted(origin(0)), Path("t.npz"), run)
    changed = predicted(origin(0), origin(1, weights="w"))
    with pytest.raises(ValueError, match="^t.npz does not belong to runs/sed/a: weights w against sed/a1" + remedy):
        origins.check_predictions(changed, Path("t.npz"), run)
    assert not unchecked
    origins.check_predictions(predicted(unknown=True), Path("t.npz"), run)
    origins.check_predictions(predicted(origin(0)), Path("t.npz"), run_of("runs/old"))
    assert unchecked == ["t.npz", "runs/old"]


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Folders of a run of two folds; loading it gives a run of these origins, a fold its own."""
    monkeypatch.chdir(tmp_path)
    for fold in (0, 1):
        Path(f"runs/sed/a/fold{fold}").mkdir(parents=True)
    checked = []

    def fold_run(folder):
        return SimpleNamespace(folder=folder, fold=int(folder.name[-1]), check=lambda: checked.append(folder))

    def of_folds(folder, folds):
        return SimpleNamespace(folder=folder, origins=[origin(f.fold) for f in folds])

    whole = SimpleNamespace(folder=Path("runs/sed/a"), origins=[origin(0), origin(1)])
    monkeypatch.setattr(origins, "load_run", lambda folder: {Path("runs/sed/a"): whole}[folder])
    monkeypatch.setattr(origins, "FoldRun", fold_run)
    monkeypatch.setattr(origins, "Run", of_folds)
    return checked


def test_predictions_belong_to_what_they_lie_beside(beside, unchecked):
    both, second = predicted(origin(0), origin(1)), predicted(origin(1))
    of_run, of_fold = Path("runs/sed/a/test.npz"), Path("runs/sed/a/fold1/test.npz")
    origins.check_where_it_lies(both, of_run)
    assert beside == []
    origins.check_where_it_lies(second, of_fold)
    assert beside == [of_fold.parent], "the fold itself is held together first"
    with pytest.raises(ValueError, match="runs/sed/a/test.npz is of run sed/a fold 1 and lacks run sed/a fold 0"):
        origins.check_where_it_lies(second, of_run)
    with pytest.raises(ValueError, match="fold1/test.npz does not belong to runs/sed/a: run sed/a fold 0 against run"):
        origins.check_where_it_lies(both, of_fold)
    for elsewhere in ("runs/sed/a/other.npz", "runs/sed/a/fold1/other.npz", "runs/sed/test.npz", "test.npz"):
        origins.check_where_it_lies(predicted(origin(7, "sed/z")), Path(elsewhere))
    Path("runs/sed/a/fold1_old").mkdir()
    origins.check_where_it_lies(both, Path("runs/sed/a/fold1_old/test.npz"))
    assert not unchecked


def test_predictions_belong_to_the_ensemble_beside_them(beside, unchecked):
    known = [
        {
            "run": "sed/a",
            "fold": f,
            "weights": f"sed/a{f}",
            "tables": {"folds": TABLES.folds, "classes": TABLES.classes, "clips": TABLES.clips},
        }
        for f in (0, 1)
    ]
    Path("x.json").write_text(json.dumps({"runs": ["runs/sed/a"], "blend": {}, "origins": known}))
    origins.check_where_it_lies(predicted(origin(0), origin(1)), Path("x.npz"))
    with pytest.raises(ValueError, match=r"^x.npz is of run sed/a fold 0 and lacks run sed/a fold 1 of x.json; "
                       r"blend again with src/ensemble.py$"):  # fmt: skip
        origins.check_where_it_lies(predicted(origin(0)), Path("x.npz"))
    with pytest.raises(
        ValueError, match=r"^x.npz does not belong to x.json: run sed/a fold 2 against run sed/a fold 0"
    ):
        origins.check_where_it_lies(predicted(origin(2)), Path("x.npz"))
    assert not unchecked
    origins.check_where_it_lies(predicted(unknown=True), Path("x.npz"))
    assert unchecked == ["x.npz"]
    Path("x.json").write_text(json.dumps({"runs": ["runs/sed/a"], "blend": {}}))  # an older version wrote it
    origins.check_where_it_lies(predicted(origin(5)), Path("x.npz"))
    assert unchecked == ["x.npz"]


def test_post_processing_is_chosen_on_the_runs_that_predicted_the_test(unchecked):
    def check(oof, found):
        origins.check_tuned_on(oof, Path("oof.npz"), found, Path("t.npz"))

    a0, a1, b0 = origin(0), origin(1), origin(0, "sed/b")
    check(predicted(a0, a1, b0), predicted(a0, a1, b0))
    check(predicted(a0), predicted(a0, a1))  # the OOF of some of the folds
    for oof, found, said in (
        (predicted(a0), predicted(b0), "run sed/b fold 0 against run sed/a fold 0"),
        (predicted(a0, b0), predicted(a0, replace(b0, weights="w")), "weights w against sed/b0"),
        (predicted(a0, a1), predicted(a0, replace(a1, weights="w")), "weights w against sed/a1"),
        (predicted(a0), predicted(a0, b0), "run sed/b fold 0 against run sed/a fold 0"),
    ):
        with pytest.raises(
            ValueError, match=f"^t.npz does not belong to oof.npz: {said}.*; give the OOF of the runs that"
        ):
            check(oof, found)
    assert not unchecked
    check(predicted(unknown=True), predicted(a0))
    check(predicted(a0), predicted())
    assert unchecked == ["oof.npz", "t.npz"]

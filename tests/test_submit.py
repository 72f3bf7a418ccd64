"""Nothing gets the name of a submission before it was written, read back and found valid."""

import re
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import submit
from earshot.competitions.checks import (
    column_problems,
    form_problems,
    id_problems,
    label_problems,
    number_problems,
    refuse,
)
from earshot.competitions.tables import check_submission, write_checked
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions
from earshot.sound.timebase import TimeBase
from earshot.tables import read_table
from scripts import run

GOOD = pd.DataFrame({"fname": ["001", "NA"], "dog": [0.1, 1e-9]})


def test_what_is_validated_is_what_was_read_back(tmp_path):
    seen = []
    write_checked(GOOD, tmp_path / "s.csv", seen.append)
    pd.testing.assert_frame_equal(seen[0], GOOD)
    pd.testing.assert_frame_equal(read_table(tmp_path / "s.csv"), GOOD)
    write_checked(GOOD, tmp_path / "s.tsv", seen.append)
    assert (tmp_path / "s.tsv").read_text() == "fname\tdog\n001\t0.1\nNA\t1e-09\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.tsv"]


def test_what_is_refused_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "s.csv").write_text("the last good one")
    lost = GOOD.assign(dog=[0.1, None])  # NaN only once it is read back

    def validate(table):
        check_submission(table, ("fname", "dog"), ["001", "NA"], ["dog"], 0, 1)

    with pytest.raises(ValueError, match="column dog holds 1 values that are no finite number"):
        write_checked(lost, tmp_path / "s.csv", validate)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["the last good one"]


def test_every_problem_is_in_one_message():
    wrong = pd.DataFrame({"fname": ["a", "a", "x"], "cat": [0.1, float("inf"), 2.0], "dig": 0.5})
    with pytest.raises(ValueError) as error:
        check_submission(wrong, ("fname", "dog", "cat"), ["a", "b", "c"], ("dog", "cat"), 0, 1)
    for part in (
        "submission is not valid: ", "missing dog, unknown dig; did you mean 'dog'?", "1 fname twice: a",
        "2 fname not there: b, c", "1 fname not asked for: x", "cat holds 1 values that are no finite number",
        "cat holds 1 value outside 0 to 1, such as 2",
    ):  # fmt: skip
        assert part in str(error.value)


def test_problems_are_counted_not_repeated():
    many = pd.DataFrame({f"c{i}": [float("nan"), 5.0] for i in range(9)})
    problems = number_problems(many, many.columns, 0, 1)
    assert len(problems) == 5
    assert problems[3] == "so do 6 more columns"
    assert problems[4] == "column c0 (and 8 more columns) holds 1 value outside 0 to 1, such as 5"
    assert number_problems(many.iloc[1:], many.columns) == []
    assert id_problems(pd.Series(["b", "a"]), ["a", "b"], "row_id") == [
        "row_id is in another order than the test table"
    ]
    assert column_problems(many, many.columns) == []
    assert label_problems(["cat", "dgo"], ["cat", "dog"], "row 1") == [
        "row 1 names 1 that are no classes: dgo; did you mean 'dog'?"
    ]
    refuse([])


def test_check_finds_the_class_names_beside_the_test_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"row_id": ["a_5", "a_10"]}).to_csv("test.csv", index=False)
    pd.DataFrame({"row_id": ["a_5", "a_10"], "007": [0.5, 1], "crow": [0, 1]}).to_csv("s.csv", index=False)
    arguments = ("--check", "s.csv", "--competition", "birdclef2025", "--test", "test.csv")
    with pytest.raises(ValueError, match=r"classes\.csv does not exist: give the class names by --classes"):
        run(submit, *arguments)
    pd.DataFrame({"label": ["007", "crow"]}).to_csv("classes.csv", index=False)
    run(submit, *arguments)
    assert "s.csv: 2 rows, valid for birdclef2025" in capsys.readouterr().out
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder is a folder; a submission of this competition is one CSV file"):
        run(submit, "--check", "folder", *arguments[2:])


def test_predictions_of_none_of_the_test_recordings_are_refused(tmp_path, monkeypatch):
    """An OOF in place of the test's predictions: every row would be the answer for what nobody heard."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    pd.DataFrame({"label": ["low", "mid"]}).to_csv(data / "classes.csv", index=False)
    rows = {"site": "site_1", "row_id": "site_1_a_5", "seconds": 5, "audio_id": "a"}
    pd.DataFrame([rows]).to_csv(data / "test.csv", index=False)
    pd.DataFrame({"clip_id": ["a"], "path": ["a.ogg"]}).to_csv(data / "test_clips.csv", index=False)
    command = ["--competition", "birdcall", "--test", "data/test.csv", "--log", "log.csv"]
    for name, out in (("b", "wrong.csv"), ("a", "right.csv")):
        found = Predictions(np.array([name]), ("low", "mid"), np.zeros((1, 2)), np.zeros(1, int), np.zeros(1, bool))
        found.save(tmp_path / f"{name}.npz")
        arguments = [*command, "--predictions", f"{name}.npz", "--out", out]
        if name == "b":
            with pytest.raises(ValueError, match="predicts none of the 1 recordings of .*: it has b; is it an OOF"):
                run(submit, *arguments)
            assert not (tmp_path / out).exists()
            continue
        framed = replace(found, framewise_output=(np.zeros((500, 2), np.float32),), timebase=TimeBase(16000, 160))
        framed.save(tmp_path / "a.npz")
        run(submit, *arguments)
        assert (tmp_path / out).is_file()


def test_the_log_holds_the_score_that_the_cv_is_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text('{"watch": "accuracy", "cv": 0.2}')
    out, log = tmp_path / "s.csv", tmp_path / "log.csv"
    write_checked(GOOD, out, lambda table: None)
    options = Namespace(predictions=tmp_path / "p.npz", out=out, competition="mine", log=log)
    submit.log_submission(options, GOOD, PostProcess(), {"map": 0.7, "accuracy": 0.3})
    submit.log_submission(options, GOOD, PostProcess(), {"map": 0.7})
    rows = pd.read_csv(log)
    assert rows[["cv", "cv_of", "score", "score_of"]].to_numpy().tolist() == [
        [0.2, "accuracy", 0.3, "accuracy"], [0.2, "accuracy", 0.7, "map"],
    ]  # fmt: skip
    rows.drop(columns=["cv_of", "score_of"]).to_csv(log, index=False)  # as earlier versions wrote it
    submit.log_submission(options, GOOD, PostProcess(), {})
    assert pd.read_csv(log).cv_of.fillna("").tolist() == ["", "", "accuracy"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n", None),
        ("\ufeffa,b\r\n1,2\r\n", None),
        ("a;b\n1;2\n", "';' separates its columns"),
        ("a\tb\n1\t2\n", r"'\\t' separates its columns"),
        ("sep=,\na,b\n1,2\n", "its first line is sep=,"),
        ("a, b\n1,2\n", "spaces around them: ' b'"),
    ],
)
def test_what_a_scorer_would_not_read_is_no_valid_submission(tmp_path, text, problem):
    (tmp_path / "s.csv").write_text(text, newline="")
    problems = form_problems(tmp_path / "s.csv")
    assert bool(problems) == bool(problem)
    assert not problem or re.search(problem, problems[0])
    (tmp_path / "s.csv").write_text(text, encoding="utf-16")
    assert "it is not UTF-8" in form_problems(tmp_path / "s.csv")


def test_tabs_are_of_tsv_and_of_dcase(tmp_path):
    for name, tabs in (("s.tsv", False), ("s.csv", True)):
        (tmp_path / name).write_text("a\tb\n1\t2\n")
        assert not form_problems(tmp_path / name, tabs)

"""Searches: trials ended early, stopped and gone on with; the figure that is reported is not the searched one."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import search as script
from earshot.config import Config, load_config
from earshot.processes.running import machine
from earshot.records import to_dict
from earshot.searching import study as studies
from earshot.searching.plan import SearchPlan
from earshot.searching.training import Trainer, scored_rows
from scripts import run

SRC = Path(__file__).parents[1] / "src"
PLAN = SearchPlan(
    config="tiny.yaml", space={"optim.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "optim.name": ["adamw", "sgd"]},
    trials=6, startup_trials=2, warmup_epochs=1, seeds=(1, 2),
)  # fmt: skip
EPOCHS = 3


class Training:
    """A training whose score is known: best at a learning rate of 0.01; counts what it was asked for."""

    def __init__(self, stop_after: int = 10**9):
        self.asked, self.epochs, self.stop_after = [], 0, stop_after

    def __call__(self, settings, seed, fold):
        self.asked.append((settings["optim.lr"], settings["optim.name"], seed, fold))
        for epoch in range(EPOCHS):
            self.epochs += 1
            if self.epochs > self.stop_after:
                raise KeyboardInterrupt
            yield epoch, worth(settings) - 1 / (epoch + 2) + 0.01 * seed


def worth(settings) -> float:
    return -abs(math.log10(settings["optim.lr"]) + 2) - 0.5 * (settings["optim.name"] == "sgd")


def opened(folder: Path, plan: SearchPlan = PLAN):
    return studies.open_study(folder, plan, {"plan": "this one"})


def go_on(folder: Path, plan: SearchPlan = PLAN, training: Training | None = None, **options):
    study, training = opened(folder, plan), training or Training()
    studies.run_trials(study, plan, folder, training, (3,), EPOCHS, **options)
    return study, training


@pytest.mark.slow
def test_a_search_finds_what_is_best_and_ends_the_others_early(tmp_path):
    study, training = go_on(tmp_path, replace(PLAN, trials=12))
    settings, score = studies.best_settings(study, PLAN.read_space)
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") + states.count("PRUNED") == 12
    assert states.count("PRUNED") >= 2
    assert training.epochs < 12 * 2 * EPOCHS
    assert settings["optim.name"] == "adamw"
    assert score == pytest.approx(worth(settings) - 1 / (EPOCHS + 1) + 0.015), "the mean over its seeds"
    assert score == max(trial.value for trial in study.trials if trial.state.name == "COMPLETE")
    whole = [asked for asked in training.asked if asked[2] == 2]
    assert {(seed, fold) for *_, seed, fold in training.asked} == {(1, 3), (2, 3)}
    assert states.count("COMPLETE") <= len(whole)


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_with_what_it_was_at(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go_on(tmp_path, training=Training(stop_after=8))
    stopped = [trial for trial in opened(tmp_path).trials if trial.state.name == "FAIL"]
    assert len(stopped) == 1
    study, training = go_on(tmp_path)
    assert studies.counted(study) == PLAN.trials
    assert training.asked[0][0] == stopped[0].params["optim.lr"], "its settings come first"
    uninterrupted, _ = go_on(tmp_path / "whole")
    drawn = [t.params["optim.lr"] for t in uninterrupted.trials[:2]]
    assert [t.params["optim.lr"] for t in study.trials[:2]] == drawn, "the same draws, stopped or not"


def test_trials_of_a_process_that_died_are_tried_again(tmp_path):
    study = opened(tmp_path)
    trial = studies.next_trial(study, PLAN, tmp_path)
    trial.set_user_attr("pid", 2**22 + 1)  # of no process
    silent = study.ask(studies.distributions(PLAN.read_space))  # killed before it could say whose it is
    again = [studies.next_trial(opened(tmp_path), PLAN, tmp_path) for _ in range(2)]
    assert [one.params for one in again] == [trial.params, silent.params]
    again[1].set_user_attr("machine", "elsewhere")
    again[1].set_user_attr("pid", 2**22 + 1)
    studies.take_up(study)
    states = [t.state.name for t in study.get_trials()]
    assert states == ["FAIL", "FAIL", "RUNNING", "RUNNING"], f"of the last {machine()} cannot know"


def test_no_more_trials_run_than_were_asked_for(tmp_path):
    plan = replace(PLAN, trials=2)
    study = opened(tmp_path, plan)
    assert studies.next_trial(study, plan, tmp_path)
    assert studies.next_trial(study, plan, tmp_path)
    assert studies.next_trial(study, plan, tmp_path) is None, "two are under way"


def test_time_that_is_up_begins_no_trial(tmp_path):
    study, training = go_on(tmp_path, deadline=time.monotonic() - 1)
    assert not training.asked
    assert not study.trials


@pytest.mark.slow
def test_trials_that_fail_are_kept_apart_and_the_first_ones_end_the_search(tmp_path):
    class Failing(Training):
        def __call__(self, settings, seed, fold):
            if settings["optim.name"] == "sgd":
                raise ValueError("loss is nan at epoch 0\nLower optim.lr")
            yield from super().__call__(settings, seed, fold)

    study, _ = go_on(tmp_path, training=Failing())
    assert studies.counted(study) == PLAN.trials
    failed = [trial for trial in study.trials if "error" in trial.user_attrs]
    assert failed
    assert all(trial.user_attrs["error"] == "Lower optim.lr" for trial in failed)
    studies.write_trials(study, PLAN.read_space, tmp_path / "trials.csv", lambda value: value)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert set(table.state) <= {"complete", "pruned", "error"}
    assert (table.state == "error").tolist() == (table["optim.name"] == "sgd").tolist()
    assert (table.error.fillna("") != "").sum() == len(failed)

    def never(settings, seed, fold):
        raise ValueError("no such folder")
        yield

    with pytest.raises(ValueError, match="first 3 trials ended with an error; the last: no such folder"):
        go_on(tmp_path / "never", training=never)
    with pytest.raises(ValueError, match="nothing to choose from"):
        studies.best_settings(opened(tmp_path / "never"), PLAN.read_space)


def test_another_plan_does_not_go_on_with_a_search(tmp_path):
    opened(tmp_path)
    with pytest.raises(ValueError, match="begun with other plan: give --out another folder"):
        studies.open_study(tmp_path, PLAN, {"plan": "another one"})


@pytest.mark.parametrize("damage", ["text", "cut", "middle", "tables", "folder"])
def test_a_damaged_data_base_is_one_error_with_its_name(tmp_path, damage):
    path = tmp_path / studies.DATABASE
    if damage == "text":
        path.write_text("no data base, " * 100)
    elif damage == "folder":
        path.mkdir()
    elif damage == "tables":
        with closing(sqlite3.connect(path)) as base:
            base.execute("create table studies (number integer)")
    else:
        opened(tmp_path)._storage.remove_session()
        with closing(sqlite3.connect(path)) as base:
            base.execute("pragma wal_checkpoint(truncate)")
        whole = path.read_bytes()
        middle = whole[: 4096 * 3] + b"\xff" * 4096 * 4 + whole[4096 * 7 :]
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else middle)
        for left in tmp_path.glob("*-wal"):
            left.unlink()
    with pytest.raises(ValueError, match=r"study.db cannot be read as the data base of a search \(.*another folder"):
        opened(tmp_path)


def test_a_search_of_an_earlier_version_goes_on(tmp_path):
    config = to_dict(Config())
    older = {key: value for key, value in config.items() if key != "track"}
    studies.open_study(tmp_path, PLAN, {"config": older})
    studies.open_study(tmp_path, PLAN, {"config": config})
    with pytest.raises(ValueError, match="begun with other config"):
        studies.open_study(tmp_path, PLAN, {"config": config | {"seed": 5}})


def test_a_grid_tries_each_combination_once(tmp_path):
    space = {"optim.lr": [0.1, 0.01], "optim.name": ["adamw", "sgd"], "model.params.widths": [[8], [4, 8]]}
    plan = replace(PLAN, space=space, sampler="grid", trials=8, prune=False, seeds=(1,))
    study, training = go_on(tmp_path, plan)
    assert len(set(training.asked)) == 4
    assert len(training.asked) == 8
    settings, _ = studies.best_settings(study, plan.read_space)
    assert settings["model.params.widths"] in ([8], [4, 8]), "lists come back as lists"


def test_without_optuna_there_is_an_install_line(tiny, monkeypatch):
    Path("plan.yaml").write_text(yaml.safe_dump({"config": "tiny.yaml", "space": dict(PLAN.space)}))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install -r .*requirements/search\.txt"):
        run(script, "plan.yaml")


# ---- what is reported


@pytest.mark.slow
def test_the_figure_reported_is_of_clips_and_seeds_that_the_search_never_saw(tiny, monkeypatch, capsys):
    heard = []

    class Known(Trainer):
        """Scores by which tables it is given: what was searched looks better than it is."""

        def __call__(self, settings, seed, fold):
            heard.append((bool(self.tables), seed, fold, bool(settings)))
            lucky = 0.3 if self.tables else 0.0
            yield 0, worth({"optim.lr": 0.03, "optim.name": "adamw"} | settings) + lucky + 0.001 * seed

    monkeypatch.setattr(script, "Trainer", Known)
    values = {"config": "tiny.yaml", "space": dict(PLAN.space), "trials": 3, "outer": [0, 2], "report_seeds": [7, 8]}
    Path("plan.yaml").write_text(yaml.safe_dump(values))
    run(script, "plan.yaml")
    report = json.loads(Path("runs/search/plan/report.json").read_text())
    searched = [entry for entry in heard if entry[0]]
    assert len(searched) == 6
    assert {(seed, fold) for _, seed, fold, _ in searched} == {(1, 1), (1, 0)}, "inner folds beside folds 0 and 2"
    reported = [entry[1:] for entry in heard if not entry[0]]
    assert sorted(reported) == [(s, f, c) for s in (7, 8) for f in (0, 2) for c in (False, True)]
    values = [value for fold in report["folds"] for value in fold["chosen"]]
    assert report["reported"] == pytest.approx(np.mean(values))
    expected = [worth(fold["settings"]) + 0.001 * seed for fold in report["folds"] for seed in (7, 8)]
    assert values == pytest.approx(expected)
    assert report["searched"] > report["reported"] + 0.2
    assert report["gain"] == pytest.approx(report["reported"] - report["as_it_is"])
    out = capsys.readouterr().out
    assert "no figure to report" in out
    assert f"reported map {report['reported']:.4f}" in out
    best = load_config("runs/search/plan/outer2/best.yaml")
    assert best.optim.lr == report["folds"][1]["settings"]["optim.lr"]


def test_rows_without_the_score_are_passed_over(tmp_path):
    path = tmp_path / "log.csv"
    assert scored_rows(path, "map") == []
    path.write_text("epoch,loss,map\n0,0.5,\n1,0.4,0.25\n")
    assert scored_rows(path, "map") == [(1, 0.25)]


@pytest.mark.slow
def test_the_tiny_competition_end_to_end_through_a_kill(tiny, monkeypatch):
    """Real trainings: killed in its first trial, it goes on in two processes, reports; again, it trains nothing."""
    space = {"optim.lr": [1e-3, 3e-2]}
    values = {"config": "tiny.yaml", "overrides": ["optim.epochs=2"], "space": space, "sampler": "grid", "outer": [2],
              "report_seeds": [5], "prune": False}  # fmt: skip
    Path("plan.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, SRC / "search.py", "plan.yaml"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        until = time.monotonic() + 120
        while not list(Path("runs").rglob("config.yaml")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(script, "plan.yaml", "--jobs", "2")
    report = json.loads(Path("runs/search/plan/report.json").read_text())
    table = pd.read_csv("runs/search/plan/outer2/trials.csv")
    assert table.state.tolist().count("complete") == 2
    assert set(table.state) == {"complete", "fail"}
    (fold,) = report["folds"]
    assert fold["searched"] == pytest.approx(table.score[table.state == "complete"].max())
    oof = next(Path("runs/search/plan/outer2/chosen").rglob("oof.npz"))
    assert oof.parent.name == "fold2"
    assert not list(Path("runs/search/plan/outer2/trials").rglob("*.safetensors")), "trials keep no weights"
    before = oof.stat().st_mtime_ns
    run(script, "plan.yaml")
    assert oof.stat().st_mtime_ns == before
    assert json.loads(Path("runs/search/plan/report.json").read_text()) == report

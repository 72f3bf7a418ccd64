"""Trackers: one table, trackio, wandb; what is missing is said before training, what fails later never ends one."""

import builtins
import json
import logging
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import train
from earshot.config import Config, from_run, load_config
from earshot.training import tracking
from earshot.training.tracking import COLUMNS, start_tracker
from scripts import run

FOLD = Path("runs/sed/birds/fold1")


def tracker(track: str):
    return start_tracker(replace(Config(), track=track), FOLD)


def test_nothing_is_tracked_unless_asked_for():
    assert tracker("") is None


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("csw:x.csv", "did you mean 'csv'"),
        ("wandb", "write csv:FILE, trackio:PROJECT or wandb:PROJECT"),
        ("csv:", "write csv:FILE"),
        ("csv:log.txt", "end it in .csv"),
    ],
)
def test_what_is_no_tracker_is_an_error(track, said):
    with pytest.raises(ValueError, match=said):
        tracker(track)


def test_all_runs_share_one_table(tmp_path):
    path = tmp_path / "new" / "all.csv"
    first, second = (
        tracker(f"csv:{path}"),
        start_tracker(replace(Config(), track=f"csv:{path}"), Path("runs/a/b/fold0")),
    )
    first.log({"epoch": 0, "steps": 5, "loss": 0.5, "map": 0.25, "note": "text is no figure"})
    second.log({"epoch": 0, "loss": 1})
    first.log({"epoch": 1, "steps": 10, "loss": 0.25})
    first.finish()
    table = pd.read_csv(path)
    assert tuple(table.columns) == COLUMNS
    assert table.run.tolist() == ["sed/birds/fold1"] * 2 + ["a/b/fold0"] + ["sed/birds/fold1"]
    assert table.name.tolist() == ["loss", "map", "loss", "loss"]
    assert table.value.tolist() == [0.5, 0.25, 1.0, 0.25]
    assert table.steps.fillna(-1).tolist() == [5, 5, -1, 10]
    assert [p.name for p in path.parent.iterdir()] == ["all.csv"], "no lock is left"


def test_a_line_that_a_kill_cut_is_taken_away(tmp_path):
    path = tmp_path / "all.csv"
    tracker(f"csv:{path}").log({"epoch": 0, "loss": 0.5})
    whole = path.read_text()
    path.write_text(whole + "sed/birds/fold1,1,,lo")
    tracker(f"csv:{path}").log({"epoch": 1, "loss": 0.25})
    assert path.read_text().startswith(whole)
    assert pd.read_csv(path).value.tolist() == [0.5, 0.25]


def test_another_table_is_not_written_to(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("clip_id,path\na,a.wav\n")
    with pytest.raises(ValueError, match=r"clips\.csv"):
        tracker(f"csv:{path}")
    assert path.read_text() == "clip_id,path\na,a.wav\n"


def test_a_tracker_that_fails_is_left_alone(tmp_path, monkeypatch, caplog):
    class Failing:
        calls = 0

        def log(self, row):
            self.calls += 1
            raise ConnectionError("the network is gone\nand more")

        finish = log

    failing = Failing()
    monkeypatch.setitem(tracking.TRACKERS, "wandb", lambda *_: failing)
    with caplog.at_level(logging.WARNING):
        guarded = tracker("wandb:birds")
        guarded.log({})
        guarded.log({})
        guarded.finish()
    assert failing.calls == 1
    assert len(caplog.records) == 1
    assert "ConnectionError: the network is gone); training goes on" in caplog.text


@pytest.mark.parametrize("package", ["trackio", "wandb"])
def test_a_missing_package_is_an_error_with_its_install_line(package, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] == package:
            raise ImportError(f"No module named '{package}'")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install -r .*requirements/tracking.txt"):
        tracker(f"{package}:birds")


def test_the_key_of_earlier_versions():
    with pytest.raises(ValueError, match="wandb is now track"):
        load_config(None, ["wandb=birds"])
    assert from_run({"wandb": "birds"}).track == "wandb:birds"
    assert from_run({"wandb": ""}).track == ""


def test_a_wrong_tracker_is_said_before_training(tiny):
    with pytest.raises(ValueError, match="did you mean 'csv'"):
        run(train, "--config", tiny, "--fold", "0", "track=csw:all.csv")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_training_writes_the_rows_of_its_log(tiny):
    run(train, "--config", tiny, "--fold", "0", "track=csv:all.csv", "optim.epochs=2")
    log, table = pd.read_csv("runs/sed/tiny/fold0/log.csv"), pd.read_csv("all.csv")
    assert set(table.run) == {"sed/tiny/fold0"}
    assert table[table.name == "loss"].value.tolist() == pytest.approx(log.loss.tolist())
    assert table[table.name == "map"].steps.tolist() == log.steps.tolist()


@pytest.mark.slow
def test_trackio_keeps_a_run_on_this_machine(tmp_path):
    pytest.importorskip("trackio")
    code = """
import sys
from dataclasses import replace
from pathlib import Path
from earshot.config import Config
from earshot.training.tracking import start_tracker
for epoch in range(2):  # the second time as --resume begins it
    t = start_tracker(replace(Config(), track="trackio:birds"), Path("runs/sed/birds/fold1"))
    t.log({"epoch": epoch, "loss": 0.5 / (epoch + 1)})
    t.finish()
    assert t.works
"""
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path)}
    src = Path(__file__).parents[1] / "src"
    done = subprocess.run([sys.executable, "-c", code], cwd=src, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "birds.db") as base:
        rows = base.execute("select run_name, metrics from metrics order by id").fetchall()
    assert [name for name, _ in rows] == ["birds/fold1"] * 2
    assert json.loads(rows[1][1])["loss"] == 0.25

"""Scripts that are killed or doubled: what a killed training or submission leaves, and what goes on from it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import ensemble
import submit
import train
from earshot import files, runs
from earshot.pictures import folds as fold_pictures
from earshot.prediction.predictions import Predictions
from earshot.processes import kill_points, lock
from earshot.sound.timebase import TimeBase
from earshot.training.loading import shortage_explained
from scripts import run
from test_kills import wait_for
from test_runs import tiny_config
from test_train import Killed, same_fold

KILLS = Path(__file__).parents[1] / "benchmarks" / "kills.py"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "),
            "set data.workers lower than 2 .*--resume",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."),
            "set optim.batch_size to less than 4 .*Tried to",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "set optim.batch_size"),
        (MemoryError(), "memory ran out: set optim.batch_size"),
        (RuntimeError("shapes cannot be multiplied"), "^shapes cannot be multiplied$"),
    ],
)
def test_memory_that_ran_out_says_what_to_set(error, said):
    config = tiny_config("data.workers=2", "optim.batch_size=4")
    with pytest.raises(RuntimeError, match=said), shortage_explained(config):
        raise error


@pytest.mark.slow
def test_a_kill_in_the_last_step_loses_no_picture_and_no_table(tiny, monkeypatch):
    settings = ("--config", tiny, "--fold", "0", "optim.epochs=1")
    run(train, *settings, "--name", "whole")

    def dying(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fold_pictures, "class_scores", dying)
        with pytest.raises(Killed):
            run(train, *settings, "--name", "killed")
    fold = runs.FoldRun(Path("runs/sed/killed/fold0"))
    assert (fold.folder / "best.safetensors").is_file()
    assert not fold.finished
    run(train, *settings, "--name", "killed", "--resume")
    assert fold.finished
    same_fold(Path("runs/sed/whole/fold0"), fold.folder)
    assert {p.name for p in fold.folder.iterdir()} == {p.name for p in Path("runs/sed/whole/fold0").iterdir()}


def test_a_second_training_of_a_fold_is_refused_and_changes_nothing(tiny):
    folder = Path("runs/sed/tiny/fold0")
    with lock.locked(folder):
        with pytest.raises(ValueError, match=rf"fold0 is in use by process {os.getpid()} of"):
            run(train, "--config", tiny, "--fold", "0")
        assert [p.name for p in folder.iterdir()] == ["lock.json"]
    assert not Path("runs").exists()


@pytest.fixture
def submission(tiny):
    """Arguments of a submission of made predictions."""
    times, frames = TimeBase(8000, 80, 4), (np.full((250, 3), 0.9, np.float32),) * 3
    ids = np.array([f"t{i}" for i in range(3)])
    found = Predictions(
        ids, ("low", "mid", "high"), np.full((3, 3), 0.9, np.float32), np.full(3, -1), np.zeros(3, bool),
        framewise_output=frames, timebase=times,
    )  # fmt: skip
    found.save("test.npz")
    return ("--competition", "birdcall", "--predictions", "test.npz", "--test", "data/test.csv", "--out", "s/x.csv")


def test_a_submission_killed_before_its_line_in_the_log_goes_on(submission):
    run(submit, *submission)
    rows, log = Path("s/x.csv").read_text(), pd.read_csv("submissions/log.csv")
    with pytest.raises(ValueError, match=r"x.csv exists already; choose another --out, or --force"):
        run(submit, *submission)
    Path("submissions/log.csv").unlink()
    run(submit, *submission)
    again = pd.read_csv("submissions/log.csv")
    assert Path("s/x.csv").read_text() == rows
    pd.testing.assert_frame_equal(log.drop(columns="time"), again.drop(columns="time"))
    Path("submissions/log.csv").unlink()
    Path("s/x.csv").write_text(rows.replace("nocall", "low") + "\n")
    with pytest.raises(ValueError, match="exists already"):
        run(submit, *submission)
    assert list(Path("s").iterdir()) == [Path("s/x.csv")]


@pytest.mark.slow
def test_an_ensemble_of_before_never_lends_its_figures_to_new_files(tiny, monkeypatch):
    """Killed among the moves: OUT.json, which the kernel's bundle reads, is away, not that of other members."""
    run(train, "--config", tiny, "--fold", "0", "1", "2", "optim.epochs=1")
    command = ("--runs", "runs/sed/tiny", "--out", "e/two.npz")
    run(ensemble, *command)
    assert json.loads(Path("e/two.json").read_text())["runs"] == ["runs/sed/tiny"]
    child = os.fork()
    if not child:
        os.environ[kill_points.AT] = "renamed two_oof.npz:2"  # the second one, out of the set
        run(ensemble, *command)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not Path("e/two.json").exists()
    files._swept.clear()  # as in a process of its own
    run(ensemble, *command)
    assert {p.name for p in Path("e").iterdir()} == {"two.json", "two_oof.npz"}


PLAN = """
tasks: {sed: [map]}
systems: [synth_cnn]
seeds: [1]
overrides:
  all: [data.root=data, data.folds=folds.csv, data.competition=birdcall, watch=map, optim.epochs=400]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["train --config tiny.yaml --fold 0 1 --jobs 2 optim.epochs=400", "compare plan.yaml"]
)
def test_children_end_when_their_parent_is_killed_and_their_folds_can_be_resumed(tiny, command):
    Path("plan.yaml").write_text(PLAN)
    name, *arguments = command.split()
    parent = subprocess.Popen([sys.executable, KILLS.parents[1] / "src" / f"{name}.py", *arguments])
    wait_for(lambda: list(Path("runs").glob("sed/*/fold*/lock.json")), 300)
    children = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert children
    assert not psutil.wait_procs(children, timeout=120)[1], "children go on without their parent"
    left = [path for path in Path("runs").rglob("*") if path.name == "lock.json" or ".part." in path.name]
    assert not left, "SIGTERM lets a child clean up"
    if name == "train":
        run(train, "--config", "tiny.yaml", "--fold", "0", "--resume", "--max-minutes", "0.001", "optim.epochs=400")


@pytest.mark.slow
def test_kills_of_every_script_lose_nothing():
    """Some of those that the benchmark makes, two or three a script, and real processes with their children."""
    done = subprocess.run([sys.executable, KILLS, "--kills", "40"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "LOST" not in done.stdout

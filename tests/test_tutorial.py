"""The tutorial of the README, run as it stands there: its own commands, in a copy of the repository, fewer epochs."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from earshot.prediction.predictions import Predictions
from pages import ROOT, blocks, our_commands, section, shell_lines

COPIED = ("src", "configs", "folds")
SHORTER = ["optim.epochs=1", "optim.warmup_epochs=0"]  # of every training; all else is the README's


def tutorial() -> list[list[str]]:
    """The commands of the section, each as script and arguments."""
    text = section((ROOT / "README.md").read_text(), "Tutorial")
    lines = [line for block in blocks(text) for line in shell_lines(block)]
    return [shlex.split(command) for command in our_commands(lines)]


def digests(folder: Path) -> dict[str, str]:
    files = [p for part in COPIED for p in sorted((folder / part).rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def argument(command: list[str], flag: str) -> Path:
    return Path(command[command.index(flag) + 1])


def test_the_tutorial_is_the_whole_road():
    scripts = [Path(script).stem for script, *_ in tutorial()]
    assert scripts == ["prepare", "make_folds", "train", "train", "predict", "ensemble", "submit", "submit"]


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    for part in COPIED:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    before = digests(tmp_path)
    commands = tutorial()
    for script, *arguments in commands:
        shorter = SHORTER if script == "src/train.py" else []
        run_in(tmp_path, [script, *arguments, *shorter])

    clips = pd.read_csv(tmp_path / "data/synth/clips.csv")
    ensemble = tmp_path / argument(commands[5], "--out")
    oof = Predictions.load(ensemble.with_name(f"{ensemble.stem}_oof.npz"))
    assert sorted(oof.clip_ids) == sorted(clips.clip_id)
    folds = pd.read_csv(tmp_path / "folds/synth.csv").set_index("clip_id").fold
    assert oof.fold.tolist() == folds[list(oof.clip_ids)].tolist()
    assert len(json.loads(ensemble.with_suffix(".json").read_text())["cv_folds"]) == 5
    rows = pd.read_csv(tmp_path / argument(commands[6], "--out"))
    assert rows.row_id.tolist() == pd.read_csv(tmp_path / "data/synth/test.csv").row_id.tolist()
    assert pd.read_csv(tmp_path / "submissions/log.csv").competition.tolist() == ["synth"]
    after = digests(tmp_path)
    assert {path: after[path] for path in before} == before, "a file of the repository was changed"


def run_in(folder: Path, command: list[str]):
    """Run one of our scripts there as its user would; what it printed is shown if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

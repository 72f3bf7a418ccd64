"""What stands before a training: embedded data that make themselves, and the checks of whole lists of trainings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earshot.competitions import get_competition
from earshot.config import Config
from earshot.data.folds import folds_in
from earshot.data.prepared import load_data
from earshot.messages import REPOSITORY
from earshot.processes import children


def make_embedded_data(config: Config):
    """Make an embedded competition and its folds where they are missing; every other one is prepared by its user."""
    root, folds, name = Path(config.data.root), Path(config.data.folds), config.data.competition
    if not get_competition(name).embedded:
        return
    scripts, clips = REPOSITORY / "src", root / "clips.csv"
    if not clips.is_file():
        print(f"making the embedded competition in {root} ...", flush=True)
        children.run([sys.executable, scripts / "prepare.py", name, "--out", root], check=True)
    if not folds.is_file():
        children.run([sys.executable, scripts / "make_folds.py", "--clips", clips, "--out", folds], check=True)


def check_training(config: Config, folds: Sequence[int] = ()):
    """Ask of a training that is to come what train.py asks before its first batch. folds: (): all of the table."""
    from earshot.training.checks import check_run  # PyTorch: seconds

    make_embedded_data(config)
    check_run(config, load_data(config.data), folds or folds_in(config.data.folds))

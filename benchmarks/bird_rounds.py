"""What a bird without labels is worth: two birds train, a third is held out, with and without pseudo-labels of bird0.

Three folds (G402, bl26lb16, kat02), each held out whole: its network hears the labels of the other two. `with`: the
same training, as many steps, in which an example is more and more often (0.3 to 0.5) a window of bird0's recordings,
with the framewise answers of the SAME fold's network of the training without (src/pseudo_label.py --frames). Neither
has heard the bird that judges both; its post-processing is chosen on the other two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from earshot import runs
from earshot.competitions.competition import Competition, OofScore
from earshot.data.prepared import load_data
from earshot.ensemble.apart import choose_apart, scores_apart
from earshot.ensemble.search import truth_of
from earshot.prediction import predictions

CONFIG = "configs/sed/finch_without_bird0.yaml"
ROOT = Path("data/finch_without_bird0")
MIXING = ("augment.pseudo.first=0.3", "augment.pseudo.last=0.5", "augment.pseudo.max_mass=0")


def check_data():
    """Raise, with the commands, unless the recordings of bird0 lie without labels beside those of the others."""
    if not (ROOT / "unlabelled.csv").is_file():
        raise ValueError(
            f"{ROOT} is not prepared: python src/prepare.py finch_vocal --source FINCH --set unlabelled=bird0 "
            f"--out {ROOT}"
        )


def call(*words):
    """Run a script of src/."""
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)


def train(name: str, seed: int, *more: str):
    call("src/train.py", "--config", CONFIG, "--fold", "all", "--name", name, "--resume", f"seed={seed}", *more)


def compared(seeds: tuple[int, ...], competition: Competition, score: OofScore, steps: tuple[str, ...]) -> pd.DataFrame:
    """A row a seed and bird: event F1 without and with pseudo-labels of bird0. Trains what is missing."""
    check_data()
    rows = []
    for seed in seeds:
        without, labels = f"finch_rounds_without{seed}", ROOT / f"round_seed{seed}"
        train(without, seed)
        if not (labels / "manifest.json").is_file():
            call("src/pseudo_label.py", "--runs", f"runs/sed/{without}", "--clips", ROOT / "unlabelled.csv",
                 "--out", labels, "--frames", "--mass", "0")  # fmt: skip
        train(f"finch_rounds_with{seed}", seed, f"data.pseudo={labels}", *MIXING)
        for kind in ("without", "with"):
            for bird, value in of_birds(f"finch_rounds_{kind}{seed}", competition, score, steps).items():
                rows.append({"seed": seed, "pseudo_labels": kind, "bird": bird, "event_f1": value})
    return pd.DataFrame(rows)


def of_birds(name: str, competition: Competition, score: OofScore, steps: tuple[str, ...]) -> dict[str, float]:
    """{bird: event F1 of its recordings, held out, at the post-processing that the other two choose}."""
    run = runs.load_run(Path("runs/sed", name))
    oof = predictions.join([fold.oof() for fold in run.folds])
    data = load_data(run.folds[0].config.data)
    truth = truth_of(oof, data)
    posts = choose_apart(oof, truth, score, competition.post, steps=steps, always=True)
    values = scores_apart(oof, truth, score, posts)
    birds = data.clips.groupby("fold").individual.first()
    return {birds[fold]: value.get(score.name, np.nan) for fold, value in values.items()}


def gains(table: pd.DataFrame) -> pd.Series:
    """Gain of each seed: mean over birds with pseudo-labels less that without."""
    means = table.groupby(["seed", "pseudo_labels"]).event_f1.mean().unstack()
    return means["with"] - means["without"]

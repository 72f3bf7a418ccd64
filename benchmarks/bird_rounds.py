"""What a bird without labels is worth: two birds train, a third is held out, with and without pseudo-labels of bird0.

Three folds (G402, bl26lb16, kat02), each held out whole: its network hears the labels of the other two. With them: the
same training, as many steps, in which an example is more and more often (0.3 to 0.5) a window of bird0's recordings.
What is heard in it the SAME fold's network of the training without says, in one of three `WAYS` (src/pseudo_label.py):
its probabilities, the events that thresholds of the other folds find, or these without the frames that are decided by
little. Neither network has heard the bird that judges both; its post-processing is chosen on the other two birds. The
way of each bird is chosen by the gain on the other two (`chosen_by_others`), so that no bird chooses what judges it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from earshot import runs
from earshot.competitions.competition import Competition, OofScore
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.ensemble.apart import choose_apart, scores_apart
from earshot.prediction import predictions

CONFIG = "configs/sed/finch_without_bird0.yaml"
ROOT = Path("data/finch_without_bird0")
WAYS = {
    "soft": ("--frames",), "events": ("--frames", "--frame-events"),
    "sure": ("--frames", "--frame-events", "--frame-unsure", "1"),
}  # fmt: skip
WITHOUT, FOLDS = "without", 3
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
    if not all(Path("runs/sed", name, f"fold{fold}", "run.json").is_file() for fold in range(FOLDS)):
        call("src/train.py", "--config", CONFIG, "--fold", "all", "--name", name, "--resume", f"seed={seed}", *more)


def compared(
    seeds: tuple[int, ...], ways: Sequence[str], competition: Competition, score: OofScore, steps: tuple[str, ...]
) -> pd.DataFrame:  # fmt: skip
    """A row a seed, bird and way: event F1 without pseudo-labels of bird0 and with them. Trains what is missing."""
    check_data()
    rows = []
    for seed in seeds:
        without = f"finch_rounds_without{seed}"
        train(without, seed)
        names = {WITHOUT: without}
        for way in ways:
            labels, names[way] = ROOT / f"round_{way}{seed}", f"finch_rounds_{way}{seed}"
            if not (labels / "manifest.json").is_file():
                call("src/pseudo_label.py", "--runs", f"runs/sed/{without}", "--clips", ROOT / "unlabelled.csv",
                     "--out", labels, "--mass", "0", *WAYS[way])  # fmt: skip
            train(names[way], seed, f"data.pseudo={labels}", *MIXING)
        for way, name in names.items():
            for bird, value in of_birds(name, competition, score, steps).items():
                rows.append({"seed": seed, "pseudo_labels": way, "bird": bird, "event_f1": value})
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


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Gain of each way, seed and bird over the same seed without pseudo-labels: a column a way."""
    wide = table.pivot_table(index=["seed", "bird"], columns="pseudo_labels", values="event_f1")
    return wide.drop(columns=WITHOUT).sub(wide[WITHOUT], axis=0)


def chosen_by_others(gained: pd.DataFrame) -> pd.DataFrame:
    """Each seed's and bird's gain by the way that gains most on the other birds, all seeds together."""
    found = {}
    for _, own in gained.groupby("bird"):
        best = gained.drop(own.index).mean().idxmax()
        found |= {place: (best, value) for place, value in own[best].items()}
    table = pd.DataFrame.from_dict(found, orient="index", columns=["way", "gain"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=gained.index.names)
    return table.sort_index()

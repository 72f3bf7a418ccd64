"""The hard embedded competition: what a stage scores on soundscapes of hidden sites, and which split foretells it.

python benchmarks/bench_shift.py                             # trains what is missing, then scores; three seeds, fold 0
python benchmarks/bench_shift.py --stages supervised --record

A stage is a config and what it needs beforehand (STAGES), the stages before it included. Each seed is one fold's
network, so that a deviation is of single networks. Folds: by recordist (folds/synth_shift.csv) and random ones, made
beside them. Scores are macro ROC-AUC: of 5-s rows for the labelled soundscapes (the honest split) and the test's hidden
sites, of clips for folds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from accelerate.state import AcceleratorState, GradientState

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from results import record

from earshot import runs
from earshot.competitions import get_competition
from earshot.data.answers import truth_of
from earshot.data.prepared import load_data
from earshot.metrics.clips import macro_roc_auc
from earshot.prediction.predictions import Predictions, weighted_mean

DATA, FOLDS = Path("data/synth_shift"), Path("folds/synth_shift.csv")
RANDOM_FOLDS = DATA / "random_folds.csv"
SEEDS = (1213, 1214, 1215)
RUNS = Path("runs/sed")
RECORDISTS, RANDOM, HONEST = "held-out recordists", "random folds", "labelled soundscapes"


def taught_by_supervised():
    """The unlabelled soundscapes as the supervised networks of all seeds hear them, averaged, of fold 0."""
    out = RUNS / "shift_teachers" / "fold0" / "unlabelled.npz"
    if not out.is_file():
        found = [Predictions.load(predicted(RUNS / f"shift_supervised_s{seed}", "unlabelled")) for seed in SEEDS]
        out.parent.mkdir(parents=True, exist_ok=True)
        weighted_mean(found).save(out)


@dataclass(frozen=True)
class Stage:
    """What is trained, and what has to be there before it is."""

    config: str
    overrides: Callable[[int], tuple[str, ...]] = lambda seed: ()  # of a seed
    after: str = ""  # the stage whose networks of all seeds it needs
    before: Callable[[], None] = lambda: None  # then


def from_supervised(seed: int) -> tuple[str, ...]:
    """Start from the supervised network of the same seed and fold."""
    return (f"model.weights={RUNS}/shift_supervised_s{seed}/fold0/best.safetensors",)


def goes_on(seed: int) -> tuple[str, ...]:
    """As many steps more as the distilled stage has, of labels alone: the control."""
    return (*from_supervised(seed), "optim.lr=5e-4", "optim.epochs=8", "optim.warmup_epochs=0.4",
            "optim.validate_every=8")  # fmt: skip


def labelled_by(stage: str, out: str) -> Callable[[], None]:
    """What the networks of a stage, all seeds of fold 0, say of the windows of unlabelled soundscapes."""

    def label():
        if not (DATA / out / "manifest.json").is_file():
            found = [RUNS / f"shift_{stage}_s{seed}" for seed in SEEDS]
            script("pseudo_label.py", "--runs", *found, "--clips", DATA / "unlabelled.csv", "--out", DATA / out,
                   "--folds", "0", *CHOICE)  # fmt: skip

    return label


def learns_on(stage: str, pseudo: str) -> Callable[[int], tuple[str, ...]]:
    """A round: from the same seed's network of a stage, on a folder of pseudo-labels ("" for none: the control)."""
    folder = f"data.pseudo={DATA / pseudo if pseudo else ''}"
    return lambda seed: (folder, f"model.weights={RUNS}/shift_{stage}_s{seed}/fold0/best.safetensors")


CHOICE = ("--min-confidence", "0.2", "--floor", "0.05")  # of the windows of a round
ROUND = "configs/sed/shift_round.yaml"
STAGES = {
    "supervised": Stage("configs/sed/shift_cnn.yaml"),
    "continued": Stage("configs/sed/shift_cnn.yaml", goes_on, "supervised"),
    "distilled": Stage("configs/sed/shift_distilled.yaml", from_supervised, "supervised", taught_by_supervised),
    "round1": Stage(ROUND, learns_on("distilled", "round1"), "distilled", labelled_by("distilled", "round1")),
    "rounds": Stage(ROUND, learns_on("round1", "round2"), "round1", labelled_by("round1", "round2")),
    "no_round1": Stage(ROUND, learns_on("distilled", ""), "distilled"),
    "no_rounds": Stage(ROUND, learns_on("no_round1", ""), "no_round1"),
}


def main():
    options = parse_args()
    os.chdir(ROOT)
    prepare()
    for name in options.stages:
        rows = [scores_of(network) for network in networks(name)]
        found = table_of(rows, f"{name}, fold 0, {len(SEEDS)} seeds")
        if name == "supervised" and not options.no_random:
            found[RANDOM] = [oof_score(trained_at_random(seed)) for seed in SEEDS]
        gaps = found.drop(columns="test").sub(found["test"], axis=0).abs()
        table_of(gaps.to_dict("records"), f"{name}: absolute difference of each split's score and the test's")
        if options.record:
            keep(f"shift_{name}", found["test"], f"macro AUC, {len(found)} seeds, sd {found['test'].std():.4f}", name)
            others = ", ".join(f"{split} {gaps[split].mean():.4f}" for split in gaps if split != HONEST)
            unit = f"macro AUC, stage {name}, sd {gaps[HONEST].std():.4f}; {others}"
            keep("shift_cv_gap" + ("" if name == "rounds" else f"_{name}"), gaps[HONEST], unit, name)


def networks(stage: str) -> list[Path]:
    """The runs of a stage, one a seed, trained now where they are not there; so are those of the stages it needs."""
    plan = STAGES[stage]
    if plan.after:
        networks(plan.after)
    plan.before()
    return [trained(f"shift_{stage}_s{seed}", plan.config, f"seed={seed}", *plan.overrides(seed)) for seed in SEEDS]


def table_of(rows: list[dict], title: str) -> pd.DataFrame:
    """Print what was found for each seed, with mean and deviation."""
    table = pd.DataFrame(rows, index=[f"seed {seed}" for seed in SEEDS])
    print(f"\n{title}\n{pd.concat([table, table.agg(['mean', 'std'])]).round(4).to_string()}", flush=True)
    return table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument(
        "--no-random", action="store_true", help="train no random folds; the gap is then of the other splits"
    )
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    return parser.parse_args()


def prepare():
    """The competition, folds by recordist, and random folds of the same number."""
    if not (DATA / "dataset.json").is_file():
        script("prepare.py", "synth_shift", "--out", DATA)
    for out, more in ((FOLDS, ()), (RANDOM_FOLDS, ("--group", "none"))):
        if not out.is_file():
            script("make_folds.py", "--clips", DATA / "clips.csv", "--out", out, *more)


def scores_of(folder: Path) -> dict[str, float]:
    """Macro AUC of one network by each split."""
    return {RECORDISTS: oof_score(folder), HONEST: row_score(folder, "validation"), "test": row_score(folder, "test")}


def trained_at_random(seed: int) -> Path:
    """The supervised stage on random folds."""
    return trained(f"shift_random_s{seed}", STAGES["supervised"].config, f"seed={seed}", f"data.folds={RANDOM_FOLDS}")


def trained(name: str, config: str, *overrides: str) -> Path:
    """The run's folder, trained now where it is not finished."""
    folder = RUNS / name
    if not (folder / "fold0" / "oof.npz").is_file() or not runs.FoldRun(folder / "fold0").finished:
        script("train.py", "--config", config, "--fold", "0", "--name", name, "--resume", *overrides)
    return folder


def predicted(folder: Path, table: str) -> Path:
    """Predictions of fold 0 for a table of recordings."""
    out = folder / f"{table}.npz"
    if not out.is_file():
        script("predict.py", "--run", folder, "--clips", DATA / f"{table}.csv", "--out", out)
    return out


def oof_score(folder: Path) -> float:
    """Macro AUC of the held-out focal recordings, over the classes that these have."""
    fold = runs.FoldRun(folder / "fold0")
    oof = fold.oof()
    return float(macro_roc_auc(truth_of(oof, load_data(fold.config.data)).target > 0.5, oof.clipwise_output))


def row_score(folder: Path, split: str) -> float:
    """Macro AUC of the rows of soundscapes, each the maximum of its frames, as a submission has them."""
    competition, test = get_competition("synth_shift"), split == "test"
    found = Predictions.load(predicted(folder, "test_clips" if test else split))
    rows = pd.read_csv(DATA / ("test.csv" if test else f"{split}_rows.csv"))
    truth = pd.read_csv(DATA / ("truth.csv" if test else f"{split}_truth.csv"))
    return competition.score(competition.rows(found, rows), truth)["macro_roc_auc"]


def keep(name: str, values: pd.Series, unit: str, stage: str):
    """Record the mean over seeds."""
    record(name, float(values.mean()), unit, f"python benchmarks/bench_shift.py --stages {stage} --record")


def script(name: str, *arguments):
    """Call one of our scripts, in this process: libraries are loaded once for all of them."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    old, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        importlib.import_module(name.removesuffix(".py")).main()
    finally:
        sys.argv = old


if __name__ == "__main__":
    main()

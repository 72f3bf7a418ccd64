"""Song detection in birds that nobody heard: leave-one-bird-out event F1, and what another level costs.

python benchmarks/bench_new_birds.py            # trains what is missing, scores, writes benchmarks/new_birds.csv
python benchmarks/bench_new_birds.py --record   # and append the figures to benchmarks/results.json

Three recipes, configs/sed/finch_birds.yaml (recordings heard at one level, bands above their noise floor),
finch_birds_strong.yaml (bands apart, recordings changed in training) and the control finch_birds_plain.yaml, on
folds/finch_birds.csv: four birds, a fold each, trained on the other three to a fixed number of epochs, once a seed.
Post-processing is chosen by event F1 on the held-out recordings of the OTHER birds alone, all of them together, by the
search of submit.py, going by each recording's own levels (`CENTRED`): threshold, the lower threshold that an event goes
on to, least length. Event F1: onset and offset within 50 ms.

Beside it, with --inside, the split inside each bird: finch_birds on folds/finch_vocal.csv (val recordings held out, of
birds that train). Per bird: its train and val recordings (the OOF), and those of the test split, which no recipe was
looked at by.
--rounds SEEDS: pseudo-labels of a bird without labels against without (bird_rounds.py).
The changes of the audit (levels of -12 to +12 dB, cut off at full scale, noise, microphones, rooms) are heard in
--heard held-out recordings, by the networks of the first seed, at the post-processing that the other birds chose.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from earshot.script import run_script

import numpy as np
import pandas as pd
from bench_finch import ROOT  # first: it finds earshot
from bird_rounds import WAYS, chosen_by_others, compared, gains
from event_tuning import COLLAR, post_text

from earshot import runs, tasks
from earshot.audits.robustness import LEVEL, Judge, robustness
from earshot.competitions import get_competition
from earshot.competitions.competition import Competition, OofScore
from earshot.competitions.tables import write_csv
from earshot.data.answers import read_truth, truth_of
from earshot.data.labels import read_clips
from earshot.data.prepared import load_data
from earshot.ensemble.apart import choose_apart, scores_apart
from earshot.events import PostProcess
from earshot.listening.members import fold_members
from earshot.messages import Parser
from earshot.metrics.events import event_based_f1
from earshot.prediction import predictions
from earshot.prediction.detection import detect_all
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Clip, Predictions
from earshot.prediction.truth import Truth

COMMAND = "OMP_NUM_THREADS=1 python benchmarks/bench_new_birds.py --record --recipes finch_birds --heard 24"
DATA, FOLDS, INSIDE = Path("data/finch_vocal"), Path("folds/finch_birds.csv"), Path("folds/finch_vocal.csv")
RECIPES = ("finch_birds_plain", "finch_birds_strong", "finch_birds")  # the last one is recorded
STEPS = ("threshold", "threshold_low", "min_seconds")
CENTRED = 0.75  # how thresholds go by each recording's own levels
SEEDS = (1, 2, 3)
BIRDS = 4


def f1_of(found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
    """Event F1, precision and recall at COLLAR; {} where these recordings have no event."""
    in_time = truth.in_time(found)
    if in_time is None:
        return {}
    result = event_based_f1(
        in_time[1], detect_all(found, post), **COLLAR, classes=list(found.classes),
        empty_system_output_handling="zero_score",
    )["overall"]["f_measure"]  # fmt: skip
    return {"event_f1": result["f_measure"], "precision": result["precision"], "recall": result["recall"]}


F1 = OofScore("event_f1", f1_of)


def competition() -> Competition:
    """The finches, post-processing beginning with thresholds that go by each recording's own levels."""
    own = get_competition("finch_vocal")
    return replace(own, post=replace(own.post, start=replace(own.post.start, centred=CENTRED)))


def name_of(recipe: str, seed: int) -> str:
    """Name of the run of a recipe and seed."""
    return f"{recipe}_seed{seed}"


def train(recipe: str, name: str, folds: Sequence[int], *more: str):
    """Train what is missing of a recipe's run."""
    if all(Path("runs/sed", name, f"fold{fold}", "run.json").is_file() for fold in folds):
        return  # resumed, it would be reported again
    wanted = ("--fold", *map(str, folds), "--name", name, "--resume")
    command = [sys.executable, "src/train.py", "--config", f"configs/sed/{recipe}.yaml", *wanted, *more]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)


class BirdRun:
    """A recipe's four networks, their OOF, the answers, and each bird's post-processing by the other birds."""

    def __init__(self, recipe: str, seed: int):
        self.recipe, self.seed = recipe, seed
        self.run = runs.load_run(Path("runs/sed", name_of(recipe, seed)))
        self.data = load_data(self.run.config.data)
        self.oof = predictions.join([fold.oof() for fold in self.run.folds])
        self.truth = truth_of(self.oof, self.data)
        self.competition = replace(competition(), oof_score=F1)
        self.posts = choose_apart(self.oof, self.truth, F1, self.competition.post, steps=STEPS, always=True)
        self.members = {runs.FoldRun(folder).fold: member for member, folder in fold_members(self.run.folder)}
        clips = self.data.clips
        self.birds = {int(f): clips.individual[clips.fold == f].iloc[0] for f in sorted(clips.fold.unique())}

    def test(self) -> tuple[Predictions, Truth]:
        """The recordings of the test split, each by the network that never heard its bird."""
        table, parts = read_clips(DATA / "test_clips.csv"), []
        for fold, bird in self.birds.items():
            own = table[table.individual == bird]
            clips = [Clip(c, self.data.source / p) for c, p in zip(own.clip_id, own.path, strict=True)]
            parts += predict_members([replace(self.members[fold], fold=fold)], clips)[0]
        found = predictions.join(parts)
        events = pd.read_csv(DATA / "test_events.csv")
        return found, Truth(np.ones((len(found), 1), bool), events)

    def rows(self) -> list[dict]:
        """A row a bird: its scores and what the other birds chose."""
        known = scores_apart(self.oof, self.truth, F1, self.posts)
        of_test = scores_apart(*self.test(), F1, self.posts)
        return [
            {"recipe": self.recipe, "seed": self.seed, "bird": bird, **known[f],
             "test_event_f1": of_test[f].get("event_f1", np.nan),
             "recordings": int((self.oof.fold == f).sum()), "chosen_by_the_others": post_text(self.posts[f])}
            for f, bird in self.birds.items()
        ]  # fmt: skip

    def otherwise(self, heard: int) -> pd.DataFrame:
        """Event F1, mean over birds, as it is and recorded otherwise, at the posts that the other birds chose."""
        task = tasks.get_task("sed", "finch_vocal")
        judge = Judge(task=task, watch="frame_map", competition=self.competition, posts=self.posts)
        place = {c: i for i, c in enumerate(self.data.clips.clip_id)}
        recordings = self.data.recordings()
        own = [recordings[place[c]] for c in self.oof.clip_ids]
        return robustness(judge, self.members, self.oof, self.truth, own, heard)


def inside(recipe: str) -> dict:
    """The same recipe's score on val recordings of the birds that train, post-processing nested in those."""
    name = f"{recipe}_inside"
    train(recipe, name, (0,), f"data.folds={INSIDE}", f"seed={SEEDS[0]}")
    oof = runs.FoldRun(Path("runs/sed", name, "fold0")).oof()
    truth = read_truth(oof, DATA / "clips.csv")
    halves = replace(oof, fold=np.arange(len(oof)) % 2)  # each half's post-processing by the other half
    posts = choose_apart(halves, truth, F1, competition().post, steps=STEPS, always=True)
    values = scores_apart(halves, truth, F1, posts).values()
    return {"recipe": recipe, "seed": SEEDS[0], "bird": "split inside each bird", "recordings": len(oof),
            "event_f1": float(np.mean([v["event_f1"] for v in values]))}  # fmt: skip


def record_figures(table: pd.DataFrame, otherwise: pd.DataFrame):
    from results import record

    own = table[(table.recipe == RECIPES[-1]) & table.chosen_by_the_others.notna()]
    of_bird, of_seed = (own.groupby(column).event_f1.mean() for column in ("bird", "seed"))
    lowest = own.loc[own.event_f1.idxmin()]
    unit = (
        f"event F1, mean over {len(of_bird)} birds held out and {len(of_seed)} seeds, deviation over seeds "
        f"{of_seed.std(ddof=0):.4f}, over birds {of_bird.std(ddof=0):.4f}; worst bird {of_bird.min():.4f} "
        f"({of_bird.idxmin()}), worst of one seed {lowest.event_f1:.4f} ({lowest.bird}); on the test split's "
        f"recordings of the same birds mean {own.test_event_f1.mean():.4f}"
    )
    record("finch_new_bird_f1", round(float(own.event_f1.mean()), 4), unit, COMMAND)
    falls = otherwise[(otherwise.recipe == RECIPES[-1]) & otherwise.change.str.startswith(LEVEL)]
    fall = falls.loc[falls["event_f1 falls"].idxmax()]
    unit = (
        f"largest fall of event F1 over -12 to +12 dB ({fall.change}), {int(fall.recordings)} held-out recordings, "
        f"seed {int(fall.seed)}"
    )
    record("finch_level_drop", round(max(0.0, float(fall["event_f1 falls"])), 4), unit, COMMAND)


def rounds(seeds: tuple[int, ...], ways: Sequence[str], recorded: bool):
    """Event F1 with and without pseudo-labels of a bird without labels, by bird, seed and way."""
    table = compared(seeds, ways, competition(), F1, STEPS)
    gained = gains(table)
    chosen = chosen_by_others(gained)
    by_seed = chosen.gain.groupby("seed").mean()
    write_csv(table.round(4), Path("benchmarks/new_birds_rounds.csv"))
    print(table.pivot_table(index=["bird", "seed"], columns="pseudo_labels", values="event_f1").round(4).to_string())
    print(
        f"gains\n{gained.groupby('bird').mean().round(4).to_string()}\nchosen by the other birds\n{chosen.to_string()}"
    )
    print(f"gain by seed {by_seed.round(4).to_dict()}, mean {by_seed.mean():.4f}, deviation {by_seed.std(ddof=0):.4f}")
    if recorded:
        from results import record

        means = table.groupby("pseudo_labels").event_f1.mean().round(4).to_dict()
        unit = (
            f"gain of event F1 by pseudo-labels of bird0, mean over {table.bird.nunique()} birds held out and "
            f"{len(by_seed)} seeds, deviation over seeds {by_seed.std(ddof=0):.4f}; the way of each bird by the other "
            f"two ({', '.join(dict.fromkeys(chosen.way))}); means {means}"
        )
        command = f"{COMMAND} --rounds {' '.join(map(str, seeds))} --ways {' '.join(ways)} --only-rounds"
        record("finch_rounds_gain", round(float(by_seed.mean()), 4), unit, command)


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--inside", action="store_true", help="the split inside each bird too")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--rounds", type=int, nargs="*", default=[], metavar="SEED", help="pseudo-labels, these seeds")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=tuple(WAYS), help="how pseudo-labels say when")
    parser.add_argument("--only-rounds", action="store_true", help="leave the rest out")
    parser.add_argument("--heard", type=int, default=24, help="held-out recordings heard otherwise")
    options = parser.parse_args()
    if options.record and RECIPES[-1] not in options.recipes:
        raise ValueError(f"--record is of {RECIPES[-1]}: name it in --recipes")
    os.chdir(ROOT)
    if not (DATA / "clips.csv").is_file():
        raise ValueError(f"{DATA} is not prepared: python src/prepare.py finch_vocal --source FINCH")
    if options.rounds:
        rounds(tuple(options.rounds), tuple(options.ways), options.record)
    if options.only_rounds:
        return
    rows, changed = [], []
    for recipe in options.recipes:
        for seed in options.seeds:
            train(recipe, name_of(recipe, seed), range(BIRDS), f"seed={seed}")
            birds = BirdRun(recipe, seed)
            rows += birds.rows()
            print(pd.DataFrame(rows).round(4).to_string(index=False), flush=True)
            if seed == options.seeds[0]:  # a dozen changes of every recording heard: of one seed
                changed.append(birds.otherwise(options.heard).assign(recipe=recipe, seed=seed))
                print(changed[-1].round(4).to_string(index=False), flush=True)
        rows += [inside(recipe)] if options.inside and recipe == RECIPES[-1] else []
    table, otherwise = pd.DataFrame(rows), pd.concat(changed)
    write_csv(table.round(4), Path("benchmarks/new_birds.csv"))
    write_csv(otherwise.round(4), Path("benchmarks/new_birds_otherwise.csv"))
    if options.record:
        record_figures(table, otherwise)


if __name__ == "__main__":
    run_script(main)

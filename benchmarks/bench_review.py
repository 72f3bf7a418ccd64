"""Does a round of review better the model, and does the order of the questions matter?

nice -n 10 python benchmarks/bench_review.py --record                  # three seeds, 9 small trainings
nice -n 10 python benchmarks/bench_review.py --rounds 2 --work runs/r2  # what a second round brings

A network trained on few weakly labelled clips of the embedded birds hears soundscapes that nobody labelled. A simulated
reviewer answers questions about its detections from the truth, as a person does on the page: accept where the class is
all that is heard, else exactly what is heard. The answers train the next network. One arm asks what is most
uncertain first (the page's default), the other draws from the same questions; both give equally many answers. Scored
are other soundscapes with other songs at the same sites: mean average precision of their 5-s rows. All networks hear
each clip equally often.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from results import record

import detect
import make_folds
import predict
import prepare
import review as review_page
import scripts
import train
from earshot.listening.recordings import lengths_of
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.review.decisions import ACCEPT, CORRECT, DecisionLog
from earshot.review.questions import Question, questions_of
from earshot.review.session import Session
from earshot.synth.birds import ROW_SECONDS, make_birds
from earshot.tables import read_table

ARMS = {"active": "uncertainty", "random": "random"}
CLIPS_A_SPECIES = 6
ANSWERS, SEEDS = 40, 3
EPOCHS = 45  # of every training; with fewer, networks of more clips are not done learning
SMALL = (  # an eighth of the demo's network
    "frontends.logmel.hop_length=640", "model.params={widths: [8, 16, 32, 64], time_strides: [2, 2, 1, 1]}",
)  # fmt: skip
FAINTEST = 0.15  # output from which on a detection is a question
HEARD_SHARE = 0.3  # of an event, that must lie in a stretch for the reviewer to hear it
COMMAND = "nice -n 10 python benchmarks/bench_review.py --record"


def main():
    options = parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    table = options.work.resolve() / "scores.csv"
    rows = pd.read_csv(table).to_dict("records") if table.is_file() else []
    done = {(r["seed"], r["arm"], r["round"]) for r in rows}
    for seed in range(options.seeds):
        work = table.parent / f"seed{seed}"
        make_data(work, seed)
        for arm in ("before", *ARMS):
            for number in range(1, options.rounds + 1) if arm != "before" else (0,):
                if (seed, arm, number) not in done:
                    rows.append({"seed": seed, "arm": arm, "round": number, **one_round(work, seed, arm, number)})
                    pd.DataFrame(rows).to_csv(table, index=False)
                    print(rows[-1], flush=True)
    report(pd.DataFrame(rows), options.record)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/review_rounds"), help="folder; goes on where it was")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--rounds", type=int, default=1, help="of hearing, answering and training")
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    return parser.parse_args()


def make_data(work: Path, seed: int):
    """Few labelled clips and the soundscapes that are reviewed (`pool`), and other soundscapes to score (`apart`)."""
    if (work / "folds.csv").is_file():
        return
    make_birds(work / "pool", seed, CLIPS_A_SPECIES, recordings=4, short_recordings=0)
    make_birds(work / "apart", 1000 + seed, 1, recordings=4, short_recordings=0)
    script(work, prepare, "synth", "--source", "pool", "--out", "data")
    script(work, make_folds, "--clips", "data/clips.csv", "--out", "folds.csv")


def one_round(work: Path, seed: int, arm: str, number: int) -> dict:
    """Answers about what the run before detects in the pool, a training with them, its score on the set apart."""
    name, data, folds, kinds = f"{arm}{number}", "data", "folds.csv", {}
    if number:
        before = "before0" if number == 1 else f"{arm}{number - 1}"
        found, decisions = work / f"found_{before}_{arm}", work / f"{arm}.csv"
        script(work, detect, "--run", f"runs/sed/{before}", "--clips", "pool/test_audio", "--out", found,
               "--threshold", FAINTEST)  # fmt: skip
        kinds = answer(work, found / "events.csv", decisions, arm, seed, number)
        data, folds = f"data_{name}", f"folds_{name}.csv"
        script(work, review_page, "--run", "runs/sed/before0", "--decisions", decisions, "--train-table", data,
               "--train-folds", folds)  # fmt: skip
    clips = int((read_table(work / folds).fold != 0).sum())
    script(work, train, "--config", ROOT / "configs/sed/synth_cnn.yaml", "--fold", 0, "--name", name,
           f"seed={seed}", f"data.root={data}", f"data.folds={folds}", f"optim.epochs={EPOCHS}",
           "optim.validate_every=1000", *SMALL)  # fmt: skip
    script(work, predict, "--run", f"runs/sed/{name}", "--clips", "apart/test_audio", "--out", f"{name}.npz")
    return {"clips": clips, **score(work, name), **kinds}


def answer(work: Path, found: Path, decisions: Path, arm: str, seed: int, number: int) -> dict[str, int]:
    """ANSWERS answers of the simulated reviewer in this arm's order; how many were accepted, how many corrected."""
    events = read_table(found)
    truth = read_table(work / "pool/test_events.csv")
    questions = questions_of(events, lengths_of(events.path.unique()), ROW_SECONDS)
    if ARMS[arm] == "random":  # a seed for each round and repeat; the session keeps the order of equals
        order = np.random.default_rng([seed, number]).permutation(len(questions))
        questions = [questions[i] for i in order]
    session = Session(questions, DecisionLog(decisions), "simulated", classes_of(work), str(found))
    if ARMS[arm] == "random":
        session.queue = [q for q in questions if q in set(session.queue)]
    kinds = {"questions": len(session.queue), ACCEPT: 0, CORRECT: 0}
    for _ in range(ANSWERS):
        question = session.next()
        if question is None:
            raise RuntimeError(f"{arm}, round {number}: fewer than {ANSWERS} questions")
        labels = heard(truth, question)
        kind = ACCEPT if labels == [question.event_label] else CORRECT
        session.decide(question.item, kind, labels)
        kinds[kind] += 1
    return kinds


def heard(truth: pd.DataFrame, question: Question) -> list[str]:
    """What the truth says of a stretch: classes of which an event lies in it, or a good part of one."""
    own = truth[truth.filename == Path(question.path).stem]
    joint = np.minimum(own.offset, question.end) - np.maximum(own.onset, question.start)
    return sorted(set(own.event_label[joint >= HEARD_SHARE * (own.offset - own.onset)]))


def classes_of(work: Path) -> list[str]:
    return read_table(work / "data/classes.csv").label.tolist()


def score(work: Path, name: str) -> dict[str, float]:
    """Mean average precision and AUC of the set apart's 5-s rows, each by the highest frame in it."""
    found = Predictions.load(work / f"{name}.npz")
    truth = read_table(work / "apart/test.csv").merge(read_table(work / "apart/truth.csv"), on="row_id")
    place = {str(c): i for i, c in enumerate(found.clip_ids)}
    step, outputs, target = found.timebase.frame_seconds, [], []
    for row in truth.itertuples():
        frames = found.framewise_output[place[row.audio_id]]
        first, last = round((row.seconds - ROW_SECONDS) / step), round(row.seconds / step)
        outputs.append(frames[first:last].max(axis=0))
        target.append([c in row.birds.split() for c in found.classes])
    target, outputs = np.array(target), np.array(outputs)
    return {"map": float(clip_metrics.mean_average_precision(target, outputs)),
            "auc": float(np.nanmean(clip_metrics.roc_auc(target, outputs)))}  # fmt: skip


def script(work: Path, module, *arguments):
    """Run one of our scripts in `work`; what it prints goes to a file there."""
    os.chdir(work)
    with open(work / "log.txt", "a") as log, redirect_stdout(log):
        scripts.run(module, *arguments)


def report(rows: pd.DataFrame, recorded: bool):
    """Gains over `before` after the last round, means and deviations over seeds; the same seeds in every arm."""
    print(rows.pivot_table("map", ["arm", "round"], aggfunc=["mean", "std", "count"]).round(4))
    last = rows[rows["round"] == rows["round"].max()].pivot(index="seed", columns="arm", values="map")
    before = rows[rows.arm == "before"].set_index("seed")["map"]
    gains = last.sub(before, axis=0)
    gains["difference"] = gains.active - gains.random
    told = {
        "review_rounds_gain": ("active", "uncertain first"),
        "review_rounds_gain_random": ("random", "drawn at random"),
        "review_rounds_active_over_random": ("difference", "active minus random"),
    }
    for name, (column, what) in told.items():
        mean, deviation = gains[column].mean(), gains[column].std(ddof=1)
        unit = (
            f"mAP of 5-s rows apart, {what}, {rows['round'].max()} x {ANSWERS} answers, mean of {len(gains)} seeds, "
            f"deviation {deviation:.4f}, before {before.mean():.4f}"
        )
        print(f"{name}: {mean:+.4f} ({unit})")
        if recorded:
            record(name, mean, unit, COMMAND)
    print(json.dumps({str(k): round(v, 4) for k, v in gains.difference.items()}))


if __name__ == "__main__":
    main()

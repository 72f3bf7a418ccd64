"""Sound events in real recordings with strong labels (finch songs): trained networks against an energy detector.

python benchmarks/bench_finch.py            # trains what is missing, tunes, scores, writes benchmarks/finch.csv
python benchmarks/bench_finch.py --record   # and append the figures to benchmarks/results.json
python benchmarks/bench_finch.py --one-network --record   # one network for both tasks at 0 dB instead: finch_songs.csv
python benchmarks/bench_finch.py --one-network --record --seeds 1213 1214 1215   # their mean and deviation

{vocal, syllables} x {clean, 0 dB} x {weak + strong, weak} labels: the runs of configs/sed/finch_*.yaml, one process at
a time. Everything chosen after training (post-processing; the detector's band, background and spectrum) is chosen by
event F1 on the val recordings alone, by the product's search for both; the test recordings are scored once.

Scores on test. event_f1: see event_tuning.py (50 ms for onset and offset). segment_f1: overall F1 of 50-ms segments.
psds1: PSDS of the unsmoothed framewise outputs with the parameters of DCASE's first scenario (dtc = gtc = 0.7, up to
100 false positives an hour); psds1_rate: the same with as many false positives an hour as a class has events an hour,
which is about the ratio in DCASE's own data. The detector has none for syllables: it names events, not frames.

--one-network: configs/sed/finch_songs_0db.yaml, the same recordings of val and test over the same backgrounds. Each
task is asked of its own columns of the same outputs, syllables in the recordings of the bird that has them, and has
post-processing of its own, chosen on val as above, for each seed's network by itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from energy_detector import EnergyDetector
from event_tuning import Split, event_f1, post_text, read_split, tune_post

from earshot.competitions.tables import write_csv
from earshot.data.labels import read_classes
from earshot.metrics.events import segment_based_f1
from earshot.metrics.psds import PSDS1, psds
from earshot.prediction.detection import detect_all
from earshot.prediction.predictions import Predictions
from earshot.runs import FoldRun

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/bench_finch.py --record"
TASKS, LEVELS, LABELS = ("vocal", "syllables"), ("clean", "0db"), ("weak+strong", "weak")
SEGMENT_SECONDS = 0.05
SONGS, SEED = Path("data/finch_songs_0db"), 1213  # the seed of configs/sed/_finch.yaml


def data_name(task: str, level: str) -> str:
    """The folder below data/ that holds a task at a level of background."""
    return f"finch_{task}" + ("" if level == "clean" else f"_{level}")


def check_data():
    """Raise, with the commands, unless all four data folders are there."""
    names = [data_name(task, level) for task in TASKS for level in LEVELS]
    if missing := [n for n in names if not Path("data", n, "clips.csv").is_file()]:
        raise ValueError(
            f"data/ has no {', '.join(missing)}; prepare them from finch_sed (FINCH) and ESC-50 (ESC50):\n"
            "  python src/prepare.py finch_vocal --source FINCH\n"
            "  python src/prepare.py finch_syllables --source FINCH\n"
            "  python src/prepare.py finch_vocal --source FINCH --backgrounds ESC50 --out data/finch_vocal_0db\n"
            "  python src/prepare.py finch_syllables --source data/finch_vocal_0db/mixed --out data/finch_syllables_0db"
        )


def train_missing(name: str, data: Path, seed: int = SEED) -> Path:
    """Train fold 0 of a config (val held out) and predict the test recordings, each unless it is done; its folder."""
    folder, environment = Path("runs/sed", name), os.environ | {"OMP_NUM_THREADS": "1"}
    own = []
    if seed != SEED:
        folder = folder.with_name(f"{name}_seed{seed}")
        own = ["--name", folder.name, f"seed={seed}"]
    if not FoldRun(folder / "fold0").finished:
        command = [sys.executable, "src/train.py", "--config", f"configs/sed/{name}.yaml", "--fold", "0", "--resume"]
        subprocess.run(command + own, env=environment, check=True)
    if not (folder / "test.npz").is_file():
        command = [sys.executable, "src/predict.py", "--run", folder, "--clips", data / "test_clips.csv"]
        subprocess.run(command, env=environment, check=True)
    return folder


def network_row(task: str, level: str, labels: str, val: Split, test: Split, classes: list[str]) -> dict:
    """Train, tune on val, score on test."""
    data = Path("data", data_name(task, level))
    name = data.name + ("_weak" if labels == "weak" else "")
    train_missing(name, data)
    oof = Predictions.load(Path("runs/sed", name, "fold0/oof.npz"))
    value, post = tune_post(oof, val, classes)
    found = Predictions.load(Path("runs/sed", name, "test.npz"))
    seconds = pd.read_csv(Path("runs/sed", name, "fold0/log.csv")).seconds.sum()
    row = {"task": task, "background": level, "system": f"{labels} labels", "val_event_f1": value}
    row |= scores_on_test(detect_all(found, post), found, test, classes)
    return row | {"train_minutes": seconds / 60, "chosen_on_val": post_text(post)}


def of_task(task: str, found: Predictions, split: Split) -> tuple[Predictions, Split, list[str]]:
    """What one network for both tasks says of one of them: its columns, recordings, events and classes."""
    columns = [i for i, label in enumerate(found.classes) if (label == "vocal") == (task == "vocal")]
    classes = [found.classes[i] for i in columns]
    events = split.events[split.events.event_label.isin(classes)].reset_index(drop=True)
    named = set(events.filename)
    there = [i for i, clip_id in enumerate(split.clip_ids) if task == "vocal" or clip_id in named]
    ids = [split.clip_ids[i] for i in there]
    own = Split(ids, [split.paths[i] for i in there], {c: split.durations[c] for c in ids}, events)
    found = found.aligned(ids)
    frames = tuple(f[:, columns] for f in found.framewise_output)
    clipwise = found.clipwise_output[:, columns]
    found = replace(found, classes=tuple(classes), clipwise_output=clipwise, framewise_output=frames)
    return found, own, classes


def one_network_rows(seeds: list[int]) -> list[dict]:
    """Train one network for both tasks, choose each task's post-processing on val, score test; a row each of both."""
    rows = []
    if not (SONGS / "clips.csv").is_file():
        raise ValueError(
            f"{SONGS} is not prepared: python src/prepare.py finch_songs --source FINCH --backgrounds ESC50 "
            f'--mixed-splits "val test" --out {SONGS}'
        )
    for seed in seeds:
        folder = train_missing(SONGS.name, SONGS, seed)
        oof, found = (Predictions.load(folder / part) for part in ("fold0/oof.npz", "test.npz"))
        log = pd.read_csv(folder / "fold0/log.csv")
        for task in TASKS:
            known, val, classes = of_task(task, oof, read_split(SONGS, "val"))
            value, post = tune_post(known, val, classes)
            heard, test, _ = of_task(task, found, read_split(SONGS, "test"))
            row = {"task": task, "background": "0db", "system": "one network", "seed": seed, "val_event_f1": value}
            row |= scores_on_test(detect_all(heard, post), heard, test, classes)
            row |= {"epochs": int(log.epoch.max()) + 1, "train_minutes": log.seconds.sum() / 60}
            rows.append(row | {"chosen_on_val": post_text(post)})
            print(f"seed {seed}, {task}: event F1 {row['event_f1']:.3f} on test, {value:.3f} on val", flush=True)
    return rows


def record_songs(table: pd.DataFrame):
    """Record the mean over seeds of each task's event F1 on test, the deviation and the seeds' own values beside it."""
    from results import record

    for task, own in table.groupby("task", sort=False):
        mean, seeds = own.mean(numeric_only=True), " ".join(map(str, own.seed))
        each = ", ".join(f"{value:.4f}" for value in own.event_f1)
        unit = (
            f"event F1 on test at 0 dB, one network for vocal activity and syllables, {own.epochs.iloc[0]} epochs, "
            f"mean of seeds {seeds} ({each}), deviation {own.event_f1.std(ddof=0):.4f}; precision "
            f"{mean.event_precision:.4f}, recall {mean.event_recall:.4f}, val {mean.val_event_f1:.4f}"
        )
        record(f"finch_{task}_f1_0db", round(mean.event_f1, 4), unit, f"{COMMAND} --one-network --seeds {seeds}")


def baseline_row(task: str, level: str, val: Split, test: Split, classes: list[str]) -> dict:
    """Tune the energy detector on val, score it on test."""
    train = read_split(Path("data", data_name(task, level)), "train") if task == "syllables" else None
    detector = EnergyDetector(val, classes, train)
    row = {"task": task, "background": level, "system": "energy", "val_event_f1": detector.val_f1}
    row |= scores_on_test(*detector.detect(test), test, classes)
    return row | {"train_minutes": 0.0, "chosen_on_val": detector.choice}


def scores_on_test(found: pd.DataFrame, frames: Predictions, split: Split, classes: list[str]) -> dict[str, float]:
    """The scores of one system on the test recordings; psds1 is NaN where the frames do not tell classes apart."""
    f1 = event_f1(found, split, classes)
    segments = segment_based_f1(split.events, found, split.durations, SEGMENT_SECONDS, classes, "zero_score")
    psds1 = psds1_rate = np.nan
    if list(frames.classes) == list(classes):
        scores = {
            clip_id: (frames.timebase.seconds(np.arange(len(output) + 1)), output)
            for clip_id, output in zip(frames.clip_ids, frames.framewise_output)
        }
        rate = len(split.events) / len(classes) / (sum(split.durations.values()) / 3600)  # events an hour and class
        truth = scores, classes, split.events, split.durations
        psds1, psds1_rate = (psds(*truth, **PSDS1, max_efpr=efpr)["psds"] for efpr in (100.0, rate))
    return {
        "event_f1": f1["f_measure"], "event_precision": f1["precision"], "event_recall": f1["recall"],
        "segment_f1": segments["overall"]["f_measure"]["f_measure"], "psds1": psds1, "psds1_rate": psds1_rate,
    }  # fmt: skip


def record_figures(table: pd.DataFrame):
    from results import record

    at_0db = table[(table.task == "vocal") & (table.background == "0db")].set_index("system").event_f1
    record("finch_event_f1_0db", float(at_0db["weak+strong labels"]), "event F1", COMMAND)
    record("finch_baseline_event_f1_0db", float(at_0db["energy"]), "event F1", COMMAND)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=LEVELS)
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=LABELS)
    parser.add_argument("--one-network", action="store_true", help="one network for both tasks at 0 dB, and no other")
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED], help="with --one-network: those to train")
    options = parser.parse_args()
    os.chdir(ROOT)
    if options.one_network:
        table = pd.DataFrame(one_network_rows(options.seeds)).round(4)
        write_csv(table, Path("benchmarks/finch_songs.csv"))
        print(table.to_string(index=False))
        if options.record:
            record_songs(table)
        return
    check_data()
    rows = []
    for task, level in itertools.product(options.tasks, options.levels):
        data = Path("data", data_name(task, level))
        classes, val, test = read_classes(data / "classes.csv"), read_split(data, "val"), read_split(data, "test")
        rows.append(baseline_row(task, level, val, test, classes))
        rows += [network_row(task, level, labels, val, test, classes) for labels in options.labels]
        print(
            f"{task}, {level}: event F1 on test", *(f"{r['system']} {r['event_f1']:.3f}" for r in rows[-3:]), flush=True
        )
    table = pd.DataFrame(rows).round(4)
    write_csv(table, Path("benchmarks/finch.csv"))
    print("\n" + table.drop(columns="chosen_on_val").round(3).to_string(index=False))
    for row in rows:
        print(f"{row['task']}, {row['background']}, {row['system']}: {row['chosen_on_val']}")
    if options.record:
        record_figures(table)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")

"""The embedded competition from nothing to a scored submission, through the same commands a user types.

python src/demo.py            # what `make demo` runs: minutes on two cores
python src/demo.py --quick    # two epochs of each fold: only shows that everything runs

Prints the commands as it goes. Figures go to runs/demo/summary.json, pictures lie beside it and in the run's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

from earshot.script import run_script

import numpy as np
import psutil

from earshot import files, runs
from earshot.competitions import get_competition
from earshot.competitions.tables import write_csv
from earshot.data.dataset import read_dataset
from earshot.data.labels import read_classes
from earshot.events import PostProcess, events_to_frames, load_post
from earshot.messages import Parser
from earshot.pictures.sounds import EventMap, event_maps
from earshot.prediction.predictions import Predictions
from earshot.processes import children
from earshot.tables import read_table

CONFIG, POST = Path("configs/sed/synth_cnn.yaml"), Path("configs/post/synth.yaml")
DATA, FOLDS, OUT = Path("data/synth"), Path("folds/synth.csv"), Path("runs/demo")
SUBMISSION = Path("submissions/demo.csv")
THRESHOLDS = np.round(np.arange(0.02, 0.99, 0.02), 2)
QUICK = ("optim.epochs=2", "optim.warmup_epochs=0")


def main():
    quick = parse_args().quick
    os.chdir(Path(__file__).resolve().parents[1])
    files.check_writable(OUT / "summary.json", "the demo writes into the checkout")
    started, memory = time.monotonic(), PeakMemory()
    OUT.mkdir(parents=True, exist_ok=True)
    name = free_name("demo-quick" if quick else "demo")
    jobs = str(min(2, os.cpu_count() or 1))
    changes = list(QUICK) if quick else []
    run_dir, control_dir = Path("runs/sed") / name, Path("runs/sed") / f"{name}-shuffled"

    script("prepare.py", ["synth", "--out", DATA])
    script("make_folds.py", ["--clips", DATA / "clips.csv", "--out", FOLDS])
    script("train.py", ["--config", CONFIG, "--fold", "all", "--jobs", jobs, "--name", name, *changes])
    script(
        "train.py",
        ["--config", CONFIG, "--fold", "0", "--name", control_dir.name, "data.shuffle_labels=true", *changes],
    )
    for folder in (run_dir, control_dir):
        script("predict.py", ["--run", folder, "--clips", DATA / "test_clips.csv"])
    script("ensemble.py", ["--runs", run_dir, "--out", OUT / "ensemble.npz"])
    submit(OUT / "ensemble.npz", run_dir / "oof.npz", SUBMISSION)
    submit(control_dir / "test.npz", control_dir / "fold0" / "oof.npz", OUT / "control_shuffled.csv")
    summary = score(run_dir) | {
        "seconds": round(time.monotonic() - started, 1), "peak_rss_mb": round(memory.stop()), "run": str(run_dir),
        "commit": runs.git_commit(), "quick": quick,
    }  # fmt: skip
    files.write_text(OUT / "summary.json", files.as_json(summary, indent=1) + "\n")
    draw(run_dir)
    script("report.py", ["--runs", run_dir, "--out", OUT / "report"])
    report(summary, run_dir)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two epochs a fold: shows that it runs, scores mean nothing"
    )
    return parser.parse_args()


def script(name: str, arguments: list):
    """Run one of our scripts, its command line shown first."""
    command = [f"src/{name}", *map(str, arguments)]
    print(f"\n$ python {' '.join(command)}", flush=True)
    children.run([sys.executable, *command], check=True)


def submit(predictions: Path, oof: Path, out: Path):
    where = ("--predictions", predictions, "--test", DATA / "test.csv", "--out", out, "--force")
    script(
        "submit.py", ["--competition", "synth", *where, "--post", POST, "--tune-on", oof, "--clips", DATA / "clips.csv"]
    )


def free_name(name: str) -> str:
    """A run's name that is not taken: a run folder is never overwritten."""
    taken, number = Path("runs/sed"), 1
    while (taken / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"


def score(run_dir: Path) -> dict:
    """CV, and the submission's score against the truth beside the controls and the best threshold on the test."""
    competition = get_competition("synth")
    truth, test = read_table(DATA / "truth.csv"), read_table(DATA / "test.csv")
    classes = read_classes(DATA / "classes.csv")
    post, found = load_post(POST), Predictions.load(OUT / "ensemble.npz")

    def f1(rows) -> float:
        return competition.score(rows, truth)["row_micro_f1"]

    def at(threshold: float) -> float:
        changed = PostProcess(**{**vars(post), "threshold": float(threshold)})
        return f1(competition.rows(found, test, changed))

    constants = [f1(truth.assign(birds=answer)) for answer in ["nocall", *classes]]
    about = json.loads((OUT / "ensemble.json").read_text())
    return {
        "cv": about["cv"], "cv_metric": about["watch"], "cv_folds": about["cv_folds"],
        "test_row_micro_f1": f1(read_table(SUBMISSION)), "best_possible_threshold_f1": max(map(at, THRESHOLDS)),
        "control_constant": max(constants), "control_shuffled": f1(read_table(OUT / "control_shuffled.csv")),
    }  # fmt: skip


def draw(run_dir: Path):
    """Predicted and true activity of the longest test recording."""
    found = Predictions.load(OUT / "ensemble.npz")
    events = read_table(DATA / "test_events.csv")
    i = int(np.argmax([len(f) for f in found.framewise_output]))
    clip_id, frames = str(found.clip_ids[i]), found.framewise_output[i]
    true = events_to_frames(events[events.filename == clip_id], found.classes, found.timebase, len(frames))
    clips = read_table(DATA / "test_clips.csv", ("clip_id", "path"))
    sound = Path(read_dataset(DATA)["source"]) / clips.path[clips.clip_id == clip_id].iloc[0]
    one = EventMap(title=clip_id, sound=sound, frames=frames, step=found.timebase.frame_seconds, true=true, labels=(),
                   classes=found.classes)  # fmt: skip
    event_maps([one], OUT / "soundscape.png")
    write_csv(read_table(SUBMISSION), OUT / "submission.csv")


def report(summary: dict, run_dir: Path):
    if summary["quick"]:
        print(f"""
The whole road ran, from making the data to a checked submission, {SUBMISSION}: that is all that --quick shows. Two
epochs teach a network almost nothing, so its scores say nothing (test {summary["test_row_micro_f1"]:.2f}; the full demo
reaches 0.91 to 0.97, in three minutes: make demo).
{summary["seconds"]:.0f} s, {summary["peak_rss_mb"]} MB at the peak (all processes)
page: {OUT / "report" / "report.html"}; figures: {OUT / "summary.json"}""")
        return
    print(f"""
CV ({summary["cv_metric"]}, out of fold)            {summary["cv"]:.4f}
test, row-wise micro F1, {SUBMISSION}  {summary["test_row_micro_f1"]:.4f}   (thresholds from the OOF alone)
  the best threshold on the test would give      {summary["best_possible_threshold_f1"]:.4f}
  control: best constant answer                  {summary["control_constant"]:.4f}
  control: labels shuffled before training       {summary["control_shuffled"]:.4f}
{summary["seconds"]:.0f} s, {summary["peak_rss_mb"]} MB at the peak (all processes)
page:     {OUT / "report" / "report.html"} (open it in a browser: scores, and clips to hear)
pictures: {OUT / "soundscape.png"}, {run_dir}/classes.png, {run_dir}/fold*/curves.png
figures:  {OUT / "summary.json"}""")


class PeakMemory:
    """Largest resident memory of this process and its children together, sampled in a thread."""

    def __init__(self, interval_seconds: float = 0.25):
        self.peak, self.running, self.interval = 0, True, interval_seconds
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        me = psutil.Process()
        while self.running:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:  # it ended between the listing and the look
                    continue
            self.peak = max(self.peak, total)
            time.sleep(self.interval)

    def stop(self) -> float:
        """Megabytes."""
        self.running = False
        self.thread.join()
        return self.peak / 2**20


if __name__ == "__main__":
    run_script(main)

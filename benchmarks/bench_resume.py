"""How often does a run that was killed and resumed end bit-identical to one that was never stopped?

python benchmarks/bench_resume.py [--kills 20] [--record]

Trains a small configuration of the embedded competition once, whole; then again and again with a SIGKILL at a random
moment (seeded), resumed by --resume (and killed again with probability 1/3), and compares weights, OOF and log (its
times apart). `resume_identical` is the share of kills whose run ended identical.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from results import record
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
TIMES = ["seconds", "clips_per_second", "validation_seconds"]
OVERRIDES = ["optim.epochs=2", "optim.warmup_epochs=1", "optim.checkpoint_steps=3", "optim.validate_every=1",
             "optim.ema_decay=0.9", "model.params.widths=[8, 16]", "model.params.blocks=[1, 1]",
             "model.params.time_strides=[4, 2]", "model.params.freq_strides=[4, 2]"]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.chdir(ROOT)
    rng = random.Random(options.seed)
    started = time.monotonic()
    train("bench-whole", kill_after=None, fresh=True)
    whole_seconds = time.monotonic() - started
    kills = identical = 0
    while kills < options.kills:
        stops, fresh = 0, True
        while stops == 0 or (rng.random() < 1 / 3 and kills + stops < options.kills):
            moment = rng.uniform(0.25, 1.0) * whole_seconds
            stops += train("bench-killed", kill_after=moment, fresh=fresh)
            fresh = False
            if finished("bench-killed"):
                break
        if not finished("bench-killed"):
            train("bench-killed", kill_after=None, fresh=False)
        if not stops:
            continue  # it was faster than the kill: no kill to count
        same = equal(folder("bench-whole"), folder("bench-killed"))
        kills, identical = kills + stops, identical + stops * same
        print(f"{kills} kills, {identical} in runs that ended identical", flush=True)
    share = identical / kills
    print(f"resume_identical {share:.3f} of {kills} kills")
    if options.record:
        record(
            "resume_identical",
            share,
            f"share of {kills} kills",
            f"python benchmarks/bench_resume.py --kills {options.kills} --record",
        )


def folder(name: str) -> Path:
    return Path("runs/sed") / name / "fold0"


def finished(name: str) -> bool:
    path = folder(name) / "run.json"
    return path.is_file() and '"finished": true' in path.read_text()


def train(name: str, kill_after: float | None, fresh: bool) -> int:
    """Train or resume; 1 when the process was killed on the way."""
    if fresh:
        shutil.rmtree(folder(name).parent, ignore_errors=True)
    command = [sys.executable, "src/train.py", "--fold", "0", "--name", name, *OVERRIDES] + ["--resume"] * (not fresh)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return 1
    if code:
        raise SystemExit(f"training failed with exit code {code}")
    return 0


def equal(a: Path, b: Path) -> bool:
    """Weights, OOF and log are the same, bit by bit; the name of the run, which both carry, is another."""
    weights = [load_file(f / "best.safetensors") for f in (a, b)]
    logs = [pd.read_csv(f / "log.csv").drop(columns=TIMES) for f in (a, b)]
    oofs = [np.load(f / "oof.npz") for f in (a, b)]
    return (
        weights[0].keys() == weights[1].keys()
        and all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[0])
        and logs[0].equals(logs[1])
        and all(np.array_equal(oofs[0][k], oofs[1][k]) for k in oofs[0].files if k != "origins")
    )


if __name__ == "__main__":
    main()

"""Some sixty swaps of tables, weights, checkpoints and predictions between runs: is each refused, with both named?

python benchmarks/swaps.py                    # prints what was taken in silence
python benchmarks/swaps.py --record           # and records swaps_refused
python benchmarks/swaps.py --list             # names every swap and loss
python benchmarks/swaps.py --say              # prints the error of every swap

Tiny runs are trained, predicted, exported and blended for real; then every swap is made on a copy of them and the
script that would read it is started. It must end with an error that names both sides. What is only missing (LOST) must
be made again by --resume, with the bytes that it had.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from earshot.script import run_script

import numpy as np
import pandas as pd
from results import record

import scripts
from conftest import write_tiny
from earshot.data.soft_targets import SoftTargets
from earshot.prediction.predictions import Predictions

TRAIN = "train --config tiny.yaml"
RUNS = "runs/sed"
A, B, C, D, S = (f"{RUNS}/{name}" for name in "abcds")
SUBMIT = "submit --competition birdcall --test data/test.csv --out s.csv --log log.csv --predictions"
OTHER_FOLDS = "data.folds=folds_c.csv"
OTHER_ORDER = "data.classes=classes_d.csv"
BASE = (  # a and b belong together; c has other folds, d other classes, s was stopped in its first epoch
    f"{TRAIN} --fold all --name a",
    f"{TRAIN} --fold all --name b seed=4",
    f"{TRAIN} --fold all --name c {OTHER_FOLDS}",
    f"{TRAIN} --fold all --name d {OTHER_ORDER}",
    f"{TRAIN} --fold all --name s --max-minutes 0.00001 optim.checkpoint_steps=1",
    f"{TRAIN} --fold 0 --name p",
    f"predict --run {A} {B} --clips data/test_clips.csv",
    f"predict --run {D} --clips data/test_clips.csv",
    f"ensemble --runs {A} {B} --out two.npz",
    *(f"export --run {run} --no-oof" for run in (A, B, D)),
)


@dataclass(frozen=True)
class Swap:
    """reader: the script that must find it; what: was swapped; named: both sides, as its error must name them."""

    reader: str
    what: str
    swap: Callable[[], object]
    command: str
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.reader}: {self.what}"


def copy(source: str, target: str):
    """A swap: `target`, a file or a folder, becomes what `source` is."""

    def swap():
        if Path(source).is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)

    return swap


def exchange(one: str, other: str):
    def swap():
        os.replace(one, "held")
        os.replace(other, one)
        os.replace("held", other)

    return swap


def several(*swaps):
    return lambda: [swap() for swap in swaps]


def rows(path: str, change: Callable[[pd.DataFrame], pd.DataFrame]):
    return lambda: change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def predictions(source: str, target: str, change: Callable[[Predictions], Predictions]):
    return lambda: change(Predictions.load(source)).save(target)


def truth(birds: Callable[[int], str], times: int = 1):
    def write():
        test = pd.read_csv("data/test.csv")
        table = pd.DataFrame({"row_id": test.row_id, "birds": [birds(i) for i in range(len(test))]})
        pd.concat([table] * times).to_csv("data/truth.csv", index=False)

    return write


def soft_targets():
    """A relabelled training set appears beside the clip table."""
    ids = pd.read_csv("data/clips.csv", dtype=str).clip_id.to_numpy()
    classes = tuple(pd.read_csv("data/classes.csv", dtype=str).iloc[:, 0])
    target = np.full((len(ids), len(classes)), 0.5)
    SoftTargets(clip_ids=ids, classes=classes, target=target, mask=np.ones_like(target)).save("data/targets.npz")


def nothing():
    """The command itself is the fault."""


turn_folds = rows("folds.csv", lambda t: t.assign(fold=np.roll(t.fold.to_numpy(), 1)))
turn_labels = rows("data/clips.csv", lambda t: t.assign(labels=np.roll(t.labels.to_numpy(), 1)))
turn_paths = rows("data/clips.csv", lambda t: t.assign(path=np.roll(t.path.to_numpy(), 1)))
turn_classes = rows("data/classes.csv", lambda t: t.iloc[::-1])
lose_event = rows("data/events.csv", lambda t: t.iloc[1:])
WEIGHTS, OOF, CKPT, TEST, GRAPH = "best.safetensors", "oof.npz", "last.ckpt", "test.npz", "model.onnx"
GO_ON = f"{TRAIN} --resume --max-minutes 5 --name s optim.checkpoint_steps=1 --fold 0"
RESUME_A = f"{TRAIN} --resume --name a --fold 0"
REPORT, PREDICT = "report --out out --runs", "predict --clips data/test_clips.csv --out t.npz --run"
ENSEMBLE, EXPORT = "ensemble --out x.npz --runs", "export --run"
BUNDLE = "bundle --slug me/swaps --competition birdcall --root kernels"
COMPARE = "compare plan.yaml --only-table --out table"


def plan(*of: str):
    """Runs under the names that compare.py gives to seeds 1, 2, ... of one system."""

    def write():
        for seed, run in enumerate(of, start=1):
            copy(run, f"{RUNS}/plan-synth_cnn-seed{seed}")()
        seeds = list(range(1, len(of) + 1))
        Path("plan.yaml").write_text(json.dumps({"tasks": {"sed": ["map"]}, "systems": ["synth_cnn"], "seeds": seeds}))

    return write


def swapped(reader: str, command: str, *more: str) -> list[Swap]:
    """What every reader of a trained run must find in the folder of run a, fold 0."""
    files = {"another run's weights": (f"{B}/fold0/{WEIGHTS}", "run sed/b fold 0"),
             "another fold's weights": (f"{A}/fold1/{WEIGHTS}", "run sed/a fold 1")}  # fmt: skip
    if OOF in more:
        files |= {"another run's OOF": (f"{B}/fold0/{OOF}", "run sed/b fold 0"),
                  "another fold's OOF": (f"{A}/fold1/{OOF}", "run sed/a fold 1")}  # fmt: skip
    found = [
        Swap(reader, what, copy(source, f"{A}/fold0/{Path(source).name}"), command, (named, "run sed/a fold 0"))
        for what, (source, named) in files.items()
    ]
    folders = exchange(f"{A}/fold0", f"{A}/fold1")
    return [*found, Swap(reader, "folders of two folds exchanged", folders, command, ("fold 1", "fold0"))]


SWAPS = [
    *swapped("resume", RESUME_A, OOF),
    Swap("resume", "the fold table replaced since", turn_folds, GO_ON, ("fold table", "against", f"{S}/fold0")),
    Swap("resume", "the classes re-ordered since", turn_classes, GO_ON, ("class list", "against")),
    Swap("resume", "labels replaced since", turn_labels, GO_ON, ("clip table", "against")),
    Swap("resume", "recordings under other ids since", turn_paths, GO_ON, ("clip table", "against")),
    Swap("resume", "an event removed since", lose_event, GO_ON, ("clip table", "against")),
    Swap("resume", "soft targets since", soft_targets, GO_ON, ("data.soft_targets", "data/targets.npz")),
    Swap("resume", "another fold's last.ckpt", copy(f"{S}/fold1/{CKPT}", f"{S}/fold0/{CKPT}"), GO_ON,
         (f"{S}/fold0/{CKPT}", "run sed/s fold 1 against run sed/s fold 0")),
    Swap("resume", "another run's last.ckpt", copy(f"{A}/fold0/{CKPT}", f"{S}/fold0/{CKPT}"), GO_ON,
         (f"{S}/fold0/{CKPT}", "run sed/a fold 0 against run sed/s fold 0")),
    Swap("resume", "another fold's weights, stopped run", copy(f"{S}/fold1/{WEIGHTS}", f"{S}/fold0/{WEIGHTS}"), GO_ON,
         ("run sed/s fold 1 against run sed/s fold 0",)),
    Swap("train", "a second fold by another fold table", turn_folds, f"{TRAIN} --fold 1 --name p",
         ("fold table", f"{RUNS}/p/fold0", "folds.csv")),
    Swap("train", "from weights of another fold", nothing,
         f"{TRAIN} --fold 1 --name n model.weights={A}/fold0/{WEIGHTS}", ("run sed/a fold 0", "run sed/n fold 1")),
    Swap("train", "from weights of another fold table", nothing,
         f"{TRAIN} --fold 0 --name n model.weights={C}/fold0/{WEIGHTS}", ("run sed/c fold 0", "run sed/n fold 0",
                                                                       "fold table")),
    *swapped("report", f"{REPORT} {A}", OOF),
    Swap("report", "runs of different fold tables", nothing, f"{REPORT} {A} {C}", (A, C, "fold table")),
    Swap("report", "runs of re-ordered classes", nothing, f"{REPORT} {A} {D}", (A, D, "class list")),
    *swapped("predict", f"{PREDICT} {A}"),
    Swap("predict", "another run's graph", copy(f"{B}/fold0/{GRAPH}", f"{A}/fold0/{GRAPH}"),
         f"{PREDICT} {A} --backend onnx", (f"{A}/fold0/{GRAPH}", "run sed/b")),
    Swap("predict", "another fold's graph", copy(f"{A}/fold1/{GRAPH}", f"{A}/fold0/{GRAPH}"),
         f"{PREDICT} {A} --backend onnx", (f"{A}/fold0/{GRAPH}", "fold 1 of run sed/a")),
    Swap("predict", "another run's graph and weights", several(
        copy(f"{B}/fold0/{GRAPH}", f"{A}/fold0/{GRAPH}"), copy(f"{B}/fold0/{WEIGHTS}", f"{A}/fold0/{WEIGHTS}")),
         f"{PREDICT} {A} --backend onnx", ("run sed/b fold 0 against run sed/a fold 0",)),
    *swapped("ensemble", f"{ENSEMBLE} {A} {B}", OOF),
    Swap("ensemble", "runs of different fold tables", nothing, f"{ENSEMBLE} {A} {C}", (A, C, "fold table")),
    Swap("ensemble", "runs of re-ordered classes", nothing, f"{ENSEMBLE} {A} {D}", (A, D, "class list")),
    Swap("ensemble", "the fold table replaced since", turn_folds, f"{ENSEMBLE} {A} {B}",
         ("fold table", "run sed/a fold 0", "folds.csv")),
    Swap("ensemble", "labels replaced since", turn_labels, f"{ENSEMBLE} {A} {B}", ("clip table", "run sed/a fold 0")),
    Swap("ensemble", "a run twice", nothing, f"{ENSEMBLE} {A} {B} {A}", (A, "twice")),
    Swap("ensemble", "a copy of a run", copy(A, f"{RUNS}/z"), f"{ENSEMBLE} {A} {RUNS}/z", (A, f"{RUNS}/z", "copy")),
    Swap("ensemble", "another run's test predictions", copy(f"{B}/{TEST}", f"{A}/{TEST}"), f"{ENSEMBLE} {A} {B}",
         (f"{A}/{TEST}", "run sed/b fold 0 against run sed/a fold 0")),
    Swap("ensemble", "test predictions of one fold", copy(f"{A}/fold0/{TEST}", f"{A}/{TEST}"), f"{ENSEMBLE} {A} {B}",
         (f"{A}/{TEST}", "lacks run sed/a fold 1")),
    Swap("export", "the fold table replaced since", turn_folds, f"{EXPORT} {A}", ("fold table", "run sed/a fold 0")),
    *swapped("export", f"{EXPORT} {A}", OOF),
    Swap("submit", "another run's test predictions", copy(f"{B}/{TEST}", f"{A}/{TEST}"), f"{SUBMIT} {A}/{TEST}",
         (f"{A}/{TEST}", "run sed/b fold 0 against run sed/a fold 0")),
    Swap("submit", "another fold's test predictions", copy(f"{A}/fold1/{TEST}", f"{A}/fold0/{TEST}"),
         f"{SUBMIT} {A}/fold0/{TEST}", ("run sed/a fold 1 against run sed/a fold 0",)),
    Swap("submit", "another blend's predictions", copy(f"{A}/{TEST}", "two.npz"), f"{SUBMIT} two.npz",
         ("two.npz", "two.json", "run sed/b fold 0")),
    Swap("submit", "tuned on another run's OOF", nothing,
         f"{SUBMIT} {A}/{TEST} --tune-on {B}/{OOF} --clips data/clips.csv", ("run sed/a fold 0 against run sed/b",)),
    Swap("submit", "an OOF for the test", copy(f"{A}/{OOF}", "o.npz"), f"{SUBMIT} o.npz", ("none of the 3", "o.npz")),
    Swap("submit", "a recording not predicted", predictions(f"{A}/{TEST}", "t.npz", lambda p: p.take([0, 1])),
         f"{SUBMIT} t.npz", ("lacks 1 of the 3", "t2")),
    Swap("submit", "predictions of other classes", several(
        rows("data/classes.csv", lambda t: t.assign(label=["x", "y", "z"])), copy(f"{A}/{TEST}", "t.npz")),
         f"{SUBMIT} t.npz", ("t.npz", "birdcall's", "low, mid, high")),
    Swap("submit", "another competition's table", nothing,
         f"{SUBMIT} {A}/{TEST}".replace("birdcall", "synth"), ("birdcall", "not for synth")),
    Swap("submit", "a truth that has every row twice", truth(lambda i: "low", times=2),
         f"{SUBMIT} {A}/{TEST} --truth data/truth.csv", ("data/truth.csv", "row_id")),
    Swap("submit", "a truth of no known class", truth(lambda i: "raven"),
         f"{SUBMIT} {A}/{TEST} --truth data/truth.csv", ("data/truth.csv", "raven")),
    Swap("bundle", "another run's graph", copy(f"{B}/fold0/{GRAPH}", f"{A}/fold0/{GRAPH}"), f"{BUNDLE} --runs {A}",
         (f"{A}/fold0/{GRAPH}", "run sed/b")),
    Swap("bundle", "a run exchanged since it was blended", copy(B, A), f"{BUNDLE} --blend two.json",
         ("sed/b", "named twice")),
    Swap("bundle", "a blend of other weights", several(
        rows("folds.csv", lambda t: t), lambda: Path("two.json").write_text(
            Path("two.json").read_text().replace(blended("two.json", 0), 32 * "0"))),
         f"{BUNDLE} --blend two.json", (f"{A}/fold0/{GRAPH}", "two.json", "weights")),
    Swap("bundle", "runs of re-ordered classes", nothing, f"{BUNDLE} --runs {A} {D}", ("sed/a", "sed/d")),
    Swap("compare", "seeds of different fold tables", plan(A, C), COMPARE, ("seed1", "seed2", "fold table")),
    Swap("compare", "another run's weights", several(
        plan(A, B), copy(f"{B}/fold0/{WEIGHTS}", f"{RUNS}/plan-synth_cnn-seed1/fold0/{WEIGHTS}")), COMPARE,
         ("run sed/b fold 0 against run sed/a fold 0",)),
]  # fmt: skip
RESUME_ALL = f"{TRAIN} --resume --name a --fold all"
LOST = {f"{A}/{name}": RESUME_ALL for name in (
    f"fold0/{WEIGHTS}", f"fold0/{OOF}", "fold0/classes.csv", "fold0/log.csv", "fold0/origin.json", OOF, TEST,
    f"fold1/{TEST}")}  # fmt: skip


def blended(path: str, place: int) -> str:
    """Digest of the weights of one fold that an ensemble's JSON names."""
    return json.loads(Path(path).read_text())["origins"][place]["weights"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--list", action="store_true", help="name every swap and loss, try none")
    parser.add_argument("--say", action="store_true", help="print what each swap was refused by")
    options = parser.parse_args()
    if options.list:
        print("\n".join([*map(str, SWAPS), *(f"lost and made again: {path}" for path in LOST)]))
        return
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with tempfile.TemporaryDirectory() as work:
        base = make_base(Path(work) / "base")
        problems = {str(swap): try_swap(swap, base, Path(work) / "copy", options.say) for swap in SWAPS}
        problems |= {f"lost: {path}": try_loss(path, base, Path(work) / "copy") for path in LOST}
    for name, problem in problems.items():
        if problem:
            print(f"{name}: {problem}")
    right = sum(not problem for problem in problems.values())
    print(f"{right} of {len(problems)}: {len(SWAPS)} swaps refused with both named, {len(LOST)} losses made again")
    if options.record:
        record("swaps_refused", right, f"of {len(problems)} swaps and losses", "python benchmarks/swaps.py --record")


def make_base(folder: Path) -> Path:
    """Train, predict, export and blend the tiny runs in `folder`, once; paths of their configs are relative."""
    config = write_tiny(folder, folds=2)
    text = config.read_text().replace(f"{folder}/", "").replace("epochs: 3", "epochs: 1")
    config.write_text(text)
    with contextlib.chdir(folder):
        table = pd.read_csv("folds.csv")
        table.assign(fold=np.roll(table.fold.to_numpy(), 1)).to_csv("folds_c.csv", index=False)
        pd.read_csv("data/classes.csv").iloc[::-1].to_csv("classes_d.csv", index=False)
        for command in BASE:
            code, said = start(command)
            if code:
                raise ValueError(f"{command} failed: {said}")
    return folder


def start(command: str) -> tuple[int, str]:
    """(exit code, what was printed) of a script's command line; an exception that it lets out is one."""
    name, *arguments = command.split()
    script, said = importlib.import_module(name), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run_script(lambda: scripts.run(script, *arguments), RuntimeError)
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def try_swap(swap: Swap, base: Path, at: Path, say: bool = False) -> str:
    """'' where the swap is refused with both sides named, else what happened."""
    with copied(base, at):
        swap.swap()
        code, said = start(swap.command)
    error = next((line for line in said.splitlines() if line.startswith("error: ")), "")
    if say:
        print(f"{swap}\n    {error}", flush=True)
    if code != 2 or not error:
        return f"taken in silence: {swap.command}: {said[-300:]}"
    lacking = [name for name in swap.named if name not in error]
    return f"{error} (does not name {', '.join(lacking)})" if lacking else ""


def try_loss(path: str, base: Path, at: Path) -> str:
    """'' where what was deleted is made again as it was, else what happened."""
    with copied(base, at):
        before = content(Path(path))
        Path(path).unlink()
        code, said = start(LOST[path])
        if code or not Path(path).is_file():
            return f"not made again: {said[-300:]}"
        if content(Path(path)) != before:
            return "made again, but not as it was"
    return ""


def content(path: Path):
    """What a file holds: of an npz its arrays, for the zip around them has a time."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


@contextlib.contextmanager
def copied(base: Path, at: Path):
    """A copy of the runs and tables at `at` (the recordings stay where they are), which is the working directory."""
    shutil.copytree(base, at, ignore=shutil.ignore_patterns("source", "cache", "*.png"))
    try:
        with contextlib.chdir(at):
            yield
    finally:
        shutil.rmtree(at)


if __name__ == "__main__":
    main()

"""How many of 200 kills lose nothing: the same command again, and all is as if it had never been killed?

python benchmarks/kills.py [--kills 200] [--only train predict] [--processes 2] [--record]

A tiny competition goes through every script once, and the places that each passes are noted (processes/kill_points.py).
Then, from the same start, the process dies by SIGKILL at one of them: before and after a file is written, half-way
through it, before and after it gets its name, in the middle and at the end of an epoch. What lies under a final name
must then be whole, and after the same command (training: with --resume) every file must be there, equal to those of the
run that was never killed, and no temporary one. These processes are forks of one that has imported everything; the last
kills are of real processes at random moments, of parents of `--jobs` and of compare.py among them, whose children have
to end too. `kills_survived` counts the kills after which all of that was so, `resume_identical` is their share among
trainings: weights, OOF, log and checkpoint bit by bit, clocks apart.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ["OMP_NUM_THREADS"] = "1"  # the processes are forked: no pool of threads may be there before
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from earshot.script import run_script

import psutil
from killed_files import differences, not_whole
from killed_world import make_world
from results import record

from earshot.processes import kill_points

TRAIN = "train --config tiny.yaml --fold 1 --name killed optim.checkpoint_steps=1 data.cache=logmel"
TRAIN_ALL = "train --config tiny.yaml --fold all --name all optim.epochs=1"
COMPARE = "compare tiny_plan.yaml"
PART = 13  # kills of one job
PATIENCE_SECONDS = 60  # for children to end, on a machine that has other work


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command, the folder that it starts from, and how many of 200 kills it gets."""

    name: str
    start: str  # a folder of the world
    command: str
    share: int
    again: str = ""  # added to the command after a kill
    places: str = "*"  # only those after the last one of this name
    done: int = 0  # places at the end after which all is done, and a script says so instead of doing it again
    twice: bool = False  # the command has run once before: what is there is replaced


SCENARIOS = [
    Scenario(name="train", start="data", command=TRAIN, again="--resume", share=52),
    Scenario(name="finish", start="data", command=TRAIN, again="--resume", places="renamed last.ckpt", share=26),
    Scenario(name="join", start="data", command=TRAIN_ALL, again="--resume", places="renamed run.json", share=8),
    Scenario(
        name="predict", start="trained", share=10, command="predict --run runs/sed/all --clips data/test_clips.csv"
    ),
    Scenario(
        name="ensemble", start="predicted", share=12,
        command="ensemble --runs runs/sed/all --tune --steps threshold --out runs/e.npz",
    ),
    Scenario(
        name="ensemble again", start="predicted", twice=True, share=6,
        command="ensemble --runs runs/sed/all --out runs/e.npz",
    ),
    Scenario(name="export", start="trained", command="export --run runs/sed/all --format onnx", share=8),
    Scenario(name="export again", start="trained", command="export --run runs/sed/all", twice=True, share=6),
    Scenario(
        name="bundle", start="exported", share=8,
        command="bundle --runs runs/sed/all --competition birdclef2026 --slug me/my-kernel --image-packages image.txt "
        "--root kernels",
    ),
    Scenario(
        name="bundle again", start="exported", twice=True, share=6,
        command="bundle --runs runs/sed/all --competition birdclef2026 --slug me/my-kernel --image-packages image.txt "
        "--root kernels",
    ),
    Scenario(
        name="prepare", start="download", share=8,
        command="prepare esc50 --source download --out data/esc --check-audio",
    ),
    Scenario(
        name="prepare again", start="download", command="prepare esc50 --source download --out data/esc", twice=True,
        share=6,
    ),
    Scenario(
        name="pack", start="download", share=8,
        command="prepare esc50 --source download --out data/esc --resample 4000 --pack 1",
    ),
    Scenario(
        name="submit", start="blended", share=8, done=1,
        command="submit --competition birdcall --predictions runs/e.npz --test data/test.csv --out submissions/s.csv "
        "--tune-on runs/e_oof.npz --clips data/clips.csv --steps threshold",
    ),
    Scenario(name="compare", start="compared", command=f"{COMPARE} --only-table", share=6),
    Scenario(
        name="kernel", start="bundled", share=8,
        command="run_kernel --bundle kernels/my-kernel/build/dataset --competition birdclef2026 --test-folder hidden "
        "--minutes 2 --cores 1 --out submission.csv",
    ),
]  # fmt: skip
TRAININGS = ("train", "finish", "join", "random train", "random jobs")
RANDOM = {"train": 8, "jobs": 3, "compare": 3}  # real processes, killed at random moments


@dataclass(frozen=True)
class Kill:
    """One kill: where, and what was wrong afterwards ('': nothing)."""

    scenario: str
    place: str
    wrong: str


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="so many in all, shared out over the scenarios")
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", help="only these; real processes are 'random'")
    parser.add_argument("--processes", type=int, default=1, help="so many commands at a time")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    os.environ["GIT_DIR"] = os.devnull  # runs note no commit, which may change meanwhile
    import_scripts()
    with tempfile.TemporaryDirectory() as folder:
        kills = list(all_kills(Path(folder), options.kills, options.only, options.processes))
    survived = sum(not kill.wrong for kill in kills)
    for kill in kills:
        if kill.wrong:
            print(f"LOST {kill.scenario}, {kill.place}: {kill.wrong}")
    print(f"kills_survived {survived} of {len(kills)}")
    del os.environ["GIT_DIR"]
    if options.record and not options.only:
        command = f"python benchmarks/kills.py --kills {options.kills} --processes {options.processes} --record"
        record("kills_survived", survived, f"of {len(kills)} kills", command)
        trained = [kill for kill in kills if kill.scenario in TRAININGS]
        same = sum(not kill.wrong for kill in trained) / len(trained)
        record("resume_identical", same, f"share of {len(trained)} kills", command)
    sys.exit(survived < len(kills))


def import_scripts():
    """Everything that takes long to import, once."""
    for name in dict.fromkeys(s.command.split()[0] for s in SCENARIOS):
        importlib.import_module(name)
    for name in ("torch", "onnx", "onnxruntime", "matplotlib.pyplot", "earshot.competitions.birdcall"):
        importlib.import_module(name)


def all_kills(folder: Path, total: int, only: list[str] | None, processes: int) -> Iterator[Kill]:
    """Kill after kill, each told as it is done."""
    world = make_world(folder / "world", in_fork)
    jobs = []
    for scenario in SCENARIOS:
        if only is None or scenario.name in only:
            number = max(1, round(scenario.share * total / 200))
            parts = -(-number // PART)
            jobs += [(kills_of, scenario, number, (part, parts)) for part in range(parts)]
    if only is None or "random" in only:
        jobs += [(random_kills, kind, max(1, round(n * total / 200)), None) for kind, n in RANDOM.items()]
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        places = [(world, folder / f"job{number}", *job) for number, job in enumerate(jobs)]
        for kills in pool.imap_unordered(do, places, chunksize=1):
            yield from kills


def do(job: tuple) -> list[Kill]:
    """The kills of one job, in a process of its own."""
    world, folder, kills, what, number, part = job
    found = []
    for kill in kills(what, world, folder / "work", number, part):
        print(f"{kill.scenario:16s} {kill.place:44s} {kill.wrong or 'survived'}", flush=True)
        found.append(kill)
    return found


def in_fork(command: str, folder: Path, learn: bool = True, **environment: str) -> int:
    """Run a script in a fork of this process, in `folder`; returns its exit code, -9 for a kill.

    learn: what it imported on its way is imported here afterwards, so that the next forks need not.
    """
    name, *arguments = command.split()
    sys.stdout.flush()
    known, learned = set(sys.modules), folder.parent / f"{folder.name}.modules"
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if learn and not code:
            for module in learned.read_text().split():
                with suppress(Exception):  # a module that only another one can import
                    importlib.import_module(module)
        return code
    code = 1
    try:
        os.chdir(folder)
        os.environ.update(environment)
        log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = [f"src/{name}.py", *arguments]
        run_script(sys.modules[name].main, RuntimeError)
        code = 0
        learned.write_text("\n".join(m for m in sys.modules if m not in known))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # a fault of ours: shown in the log
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code or 0)


def start_folder(scenario: Scenario, world: Path, work: Path) -> Path:
    """A fresh copy of the folder that a scenario starts from."""
    folder = work / scenario.name.replace(" ", "-")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copytree(world / scenario.start, folder, symlinks=True)
    if scenario.twice and (code := in_fork(scenario.command + forced(scenario), folder)):
        raise SystemExit(f"{scenario.command} ended with {code}: {log_of(folder)}")
    return folder


def forced(scenario: Scenario) -> str:
    return " --force" if scenario.twice and scenario.command.startswith("submit") else ""


def log_of(folder: Path) -> str:
    log = folder.parent / f"{folder.name}.log"
    return " / ".join(log.read_text().strip().splitlines()[-3:]) if log.is_file() else ""


def kills_of(scenario: Scenario, world: Path, work: Path, number: int, part: tuple[int, int]) -> Iterator[Kill]:
    """`number` kills spread over the places that the command passes; part (i, n): every n-th of them from the i-th."""
    folder = start_folder(scenario, world, work)
    noted = work / "places.txt"
    if code := in_fork(scenario.command, folder, **{kill_points.NOTED: str(noted)}):
        raise SystemExit(f"{scenario.command} ended with {code}: {log_of(folder)}")
    whole = work.with_name("whole")
    places = noted.read_text().splitlines()
    shutil.rmtree(whole, ignore_errors=True)
    folder.rename(whole)
    first = 0 if scenario.places == "*" else len(places) - places[::-1].index(scenario.places)
    there = len(places) - scenario.done - first
    chosen = [first + (2 * i + 1) * there // (2 * number) for i in range(number)]
    for index in chosen[part[0] :: part[1]]:
        folder = start_folder(scenario, world, work)
        code = in_fork(scenario.command, folder, learn=False, **{kill_points.AT: f"*:{index + 1}"})
        wrong = f"it ended with {code}, not by the kill: {log_of(folder)}" if code != -signal.SIGKILL else ""
        wrong = wrong or not_whole(folder) or go_on(scenario.command, scenario.again, folder, whole)
        yield Kill(scenario.name, f"{index + 1}/{len(places)} {places[index]}", wrong)


def go_on(command: str, again: str, folder: Path, whole: Path) -> str:
    """Give the command again; what then differs from the run that was never killed ('': nothing)."""
    if code := in_fork(f"{command} {again}".strip(), folder, learn=False):
        return f"the command again ended with {code}: {log_of(folder)}"
    return differences(folder, whole)


# ---- real processes


def random_kills(kind: str, world: Path, work: Path, number: int, part=None) -> Iterator[Kill]:
    """Real processes, killed at random moments of the time that a whole run takes."""
    start, command, again = {
        "train": ("data", TRAIN, f"{TRAIN} --resume"),
        "jobs": ("data", f"{TRAIN_ALL} --jobs 2", f"{TRAIN_ALL} --resume"),
        "compare": ("plan", COMPARE, COMPARE),
    }[kind]
    scenario = Scenario(name=f"random {kind}", start=start, command=command, share=0)
    folder = start_folder(scenario, world, work)
    began = time.monotonic()
    process = start_process(command, folder)
    if process.wait():
        raise SystemExit(f"{command} ended with {process.returncode}: {log_of(folder)}")
    seconds, whole = time.monotonic() - began, work.with_name("whole")
    shutil.rmtree(whole, ignore_errors=True)
    folder.rename(whole)
    rng, done = random.Random(kind), 0
    while done < number:
        folder, moment = start_folder(scenario, world, work), rng.uniform(0.3, 1.0) * seconds
        began, process = time.monotonic(), start_process(command, folder)
        try:
            process.wait(moment)
            seconds = time.monotonic() - began  # it was faster: no kill to count, and a machine with less other work
            continue
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        done += 1
        orphans = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]
        wrong = f"{len(orphans)} children go on without their parent" if orphans else not_whole(folder)
        wrong = wrong or go_on(again, "", folder, whole)
        yield Kill(scenario.name, f"after {moment:.1f} of {seconds:.1f} s, {len(children)} children", wrong)


def start_process(command: str, folder: Path) -> subprocess.Popen:
    name, *arguments = command.split()
    log = open(folder.parent / f"{folder.name}.log", "a")  # noqa: SIM115, the child's own
    return subprocess.Popen(
        [sys.executable, str(ROOT / "src" / f"{name}.py"), *arguments], cwd=folder, stdout=log, stderr=log
    )


if __name__ == "__main__":
    main()

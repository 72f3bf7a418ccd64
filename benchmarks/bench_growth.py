"""How time and memory of preparing, folds, the start of training and joining the OOF grow with the number of clips.

python benchmarks/bench_growth.py --record                  # 10,000, 100,000 and 1,000,000 clips: some minutes
python benchmarks/bench_growth.py --clips 3000 10000        # smaller; at least two sizes
python benchmarks/bench_growth.py --steps folds oof         # some of: prepare, folds, training, oof

The data are made: for prepare, recordings of a fiftieth of a second that are names of a few files by hard links, beside
a table of their labels; for the rest, the tables that prepare would write, of rows that share some files. There are ten
classes and a tenth as many recordists as clips. Each step is the command that a user gives, in a process of its own;
the OOF is joined by the function that training ends with, out of folders of five folds with made answers. prepare opens
every recording and so has sizes of its own (--recordings). What counts is CPU time, user and system, of the process
(wall clock beside it), the least of --repeats processes, since other work on the machine only adds to it (the sizes
take turns, so that the machine is as busy for all of them), and the largest memory that any of them asked for itself,
seen every 10 ms. Pages of libraries' files are only printed: loading them takes more for a moment than 100,000 clips
do, and would hide them.

The exponent is the slope of a straight line through the logarithms, after what the same step takes for 100 clips
(imports) is taken off both; it says over which sizes. A size that adds less than a tenth to the 100 clips is noise and
left out, as long as two are left. The start of an epoch is the wall clock from the call of the loop to its first batch,
the fastest of three.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
import numpy as np
from results import machine, record

SIZES, RECORDINGS = (10_000, 100_000, 1_000_000), (10_000, 30_000, 100_000)
EVERY = 0.01  # s between two looks at a process's memory
LEAST = 100  # clips: what a step takes for them is what it takes for any
CLASSES = [f"bird{i}" for i in range(10)]
RATE, SAMPLES = 16000, 320
LINKS, A_FOLDER = 20_000, 1000  # names of one file (ext4 allows 65,000); recordings a folder
FILES = 50  # that the clips of made tables share
FOLDS = 5
NOISE = 0.1
QUICK, QUICK_REPEATS = 2.5, 3  # s: what takes less adds little to the 100 clips, so that more processes are measured
STEPS = ("prepare", "folds", "training", "oof")
GOAL, EPOCH_GOAL = 1.05, 2.0


def main():
    options = parse_args()
    if options.one:
        what, n, folder = options.one
        print(json.dumps(ONE[what](int(n), Path(folder))))
        return
    print(machine(), flush=True)
    steps, found = [step for step in options.steps if step != "prepare"], {}
    print("| step | clips | CPU s | wall s | own memory, MB | with libraries | |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        if "prepare" in options.steps:
            measure(sorted({LEAST, *options.recordings}), ["prepare"], Path(work), found, options.repeats)
        if steps:
            measure(sorted({LEAST, *options.clips}), steps, Path(work), found, options.repeats)
    figures = summary(found)
    sizes = [f"--{name} {' '.join(map(str, vars(options)[name]))}" for name in ("clips", "recordings")]
    sizes.append(f"--repeats {options.repeats}")
    command = " ".join(["python benchmarks/bench_growth.py --steps", *options.steps, *sizes, "--record"])
    for name, (value, unit) in figures.items():
        print(f"{name} = {value:.3f} {unit}")
        if options.record:
            record(name, round(value, 4), unit, command)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=list(SIZES), help="numbers of clips, at least two")
    parser.add_argument("--recordings", type=int, nargs="+", default=list(RECORDINGS), help="the same for prepare")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--repeats", type=int, default=3, help="processes of each step and size (default 3)")
    parser.add_argument("--work", type=Path, help="folder for what is made (default: the system's temporary one)")
    parser.add_argument("--record", action="store_true", help="append the figures to results.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # step, clips, folder: a process of its own
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is at least 1, got {options.repeats}")
    for name in ("clips", "recordings") if not options.one else ():
        if len(set(sizes := vars(options)[name])) < 2 or min(sizes) <= LEAST:
            parser.error(f"--{name} takes at least two numbers above {LEAST}: growth is a slope")
    return options


def measure(sizes: list[int], steps: list[str], work: Path, found: dict[str, dict[int, dict]], repeats: int):
    """Fill {step: {clips: what it took}}; prints a row each."""
    folders, given = {n: work / str(n) for n in sizes}, {}
    for n, folder in folders.items():
        (make_source if steps == ["prepare"] else make_tables)(folder, n)
        given[n] = commands(folder, n, steps)
    for step in given[sizes[0]]:
        if step.startswith("tables"):  # of what a step needs
            for n, folder in folders.items():
                run(given[n][step], folder)
            continue
        found[step] = in_turns({n: given[n][step] for n in sizes}, folders, repeats)
        for n, took in found[step].items():
            more = ", ".join(f"{k} {v:.3f}" for k, v in took.items() if k not in ("cpu", "wall", "own_mb", "peak_mb"))
            print(f"| {step} | {n:,} | {took['cpu']:.2f} | {took['wall']:.2f} | {took['own_mb']:.0f} | "
                  f"{took['peak_mb']:.0f} | {more} |", flush=True)  # fmt: skip
    for folder in folders.values():
        shutil.rmtree(folder)


def commands(folder: Path, n: int, steps: list[str]) -> dict[str, list]:
    """What a user gives, in order; `tables ...` make what a step needs and are not measured."""
    python, data = sys.executable, folder / "data"
    one = [python, __file__, "--one"]
    prepare = [python, ROOT / "src/prepare.py", "mine", "--source", folder / "source", "--out", data,
               "--group-column", "recordist"]  # fmt: skip
    folds = [python, ROOT / "src/make_folds.py", "--clips", data / "clips.csv"]
    training = [python, ROOT / "src/train.py", "--config", folder / "c.yaml", "--root", folder / "runs"]
    (folder / "c.yaml").write_text(config(folder))
    chosen = {"prepare": prepare} if "prepare" in steps else {}
    if "folds" in steps:
        alone, several = ["--group", "none"], [*folds[:-1], data / "several.csv"]
        chosen |= {
            "folds, groups": [*folds, "--out", folder / "folds.csv"],
            "folds, a label a clip": [*folds, "--out", folder / "single.csv", *alone],
            "tables of several labels": [*one, "several", n, data],
            "folds, several labels": [*several, "--out", folder / "many.csv", *alone],
        }
    elif {"training", "oof"} & set(steps):
        chosen["tables of folds"] = [*folds, "--out", folder / "folds.csv", "--group", "none"]
    if "training" in steps:
        chosen |= {"training, to the first step": training, "training, an epoch's start": [*one, "epoch", n, folder]}
    return chosen | ({"oof": [*one, "oof", n, folder]} if "oof" in steps else {})


def config(folder: Path) -> str:
    """The small network on recordings as short as these."""
    return json.dumps({
        "task": "tagging",
        "data": {"competition": "mine", "root": str(folder / "data"), "folds": str(folder / "folds.csv"),
                 "sample_rate": RATE, "crop_seconds": 0.25},
        "frontends": {"logmel": {"n_fft": 512, "hop_length": 320, "n_mels": 32, "fmin": 200, "fmax": 8000}},
        "model": {"name": "cnn_small", "params": {"widths": [4, 4], "blocks": [1, 1], "time_strides": [2, 2],
                                                  "freq_strides": [2, 2]}},
        "optim": {"epochs": 1, "batch_size": 32},
        "predict": {"window_seconds": 0.25, "stride_seconds": 0.25},
    })  # fmt: skip


def make_source(folder: Path, n: int):
    """`source/`: `n` recordings of 20 ms in folders of 1,000, as names of few files, and a table of their labels."""
    sounds, rng = make_sounds(folder / "files", -(-n // LINKS) + 1), np.random.default_rng(0)
    source = folder / "source"
    source.mkdir()
    with open(source / "labels.csv", "w") as table:
        table.write("file,label,recordist\n")
        for i in range(n):
            name = f"{i // A_FOLDER:04d}/r{i:07d}.wav"
            if i % A_FOLDER == 0:
                (source / name).parent.mkdir()
            os.link(sounds[i % len(sounds)], source / name)
            table.write(f"{name},{CLASSES[i * 7 % 10]},person{int(rng.integers(n // 10))}\n")


def make_tables(folder: Path, n: int):
    """`data/`: the tables that prepare would write, of `n` clips that share some files."""
    sounds, rng = make_sounds(folder / "files", FILES), np.random.default_rng(0)
    data = folder / "data"
    data.mkdir()
    with open(data / "clips.csv", "w") as table:
        table.write("clip_id,path,labels,group,sample_rate,duration\n")
        for i in range(n):
            label, person = CLASSES[i * 7 % 10], int(rng.integers(n // 10))
            table.write(f"r{i:07d},{sounds[i % FILES].name},{label},person{person},{RATE},{SAMPLES / RATE}\n")
    (data / "classes.csv").write_text("\n".join(["label", *CLASSES]) + "\n")
    about = {"competition": "mine", "source": str(folder / "files"), "task": "tagging"}
    (data / "dataset.json").write_text(json.dumps(about))


def make_sounds(folder: Path, count: int) -> list[Path]:
    """So many recordings of 20 ms of noise."""
    from earshot.sound import audio

    folder.mkdir(parents=True)
    rng, files = np.random.default_rng(0), [folder / f"{i}.wav" for i in range(count)]
    for file in files:
        audio.write(file, 0.1 * rng.standard_normal(SAMPLES).astype(np.float32), RATE)
    return files


def in_turns(commands: dict[int, list], folders: dict[int, Path], repeats: int) -> dict[int, dict]:
    """What `run` says of so many processes of each size: the least, of memory the most.

    One of each size after the other, so that a machine that grows slower for a while does so for all sizes; each
    without what the one before wrote.
    """
    before = {n: set(folder.iterdir()) for n, folder in folders.items()}
    took: dict[int, list[dict]] = {n: [] for n in commands}
    for turn in range(repeats * QUICK_REPEATS):
        for n, command in commands.items():
            if turn >= repeats and took[n][0]["cpu"] >= QUICK:
                continue
            for made in set(folders[n].iterdir()) - before[n] - {folders[n] / "said.txt"}:
                shutil.rmtree(made) if made.is_dir() else made.unlink()
            took[n].append(run(command, folders[n]))
    return {
        n: {key: (max if key.endswith("_mb") else min)(one[key] for one in of) for key in of[0]}
        for n, of in took.items()
    }


def run(command: list, folder: Path) -> dict:
    """What a command takes: CPU and wall-clock seconds, the largest memory of its own and with the pages of libraries'
    files (MB), and the figures that it prints as JSON.

    Training is killed after its first step, by the place that tests kill it at.
    """
    environment = os.environ | {"EARSHOT_KILL_AT": "step trained:1", "TQDM_DISABLE": "1"}
    with open(folder / "said.txt", "w+") as said:
        began = time.monotonic()
        actions = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
        command = [str(part) for part in command]
        process = os.posix_spawn(command[0], command, environment, file_actions=actions)
        own, ended = 0, 0
        while not ended:
            own = max(own, own_memory(process))
            time.sleep(EVERY)
            ended, status, used = os.wait4(process, os.WNOHANG)
        wall = time.monotonic() - began
        said.seek(0)
        text = said.read()
    if status not in (0, 9):  # 9: killed, as asked
        raise RuntimeError(f"{' '.join(command)} failed: {text[-2000:]}")
    took = {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "own_mb": own, "peak_mb": used.ru_maxrss / 1024}
    last = text.strip().splitlines()[-1] if text.strip() else ""
    return took | (json.loads(last) if last.startswith("{") else {})


def own_memory(process: int) -> float:
    """MB that a process holds now beside the pages of files; 0 where it has ended or the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0.0)


# what has no command of its own


def several_labels(n: int, data: Path) -> dict:
    """The clip table again, a third of the clips with a second label."""
    from earshot.tables import read_table

    clips, rng = read_table(data / "clips.csv"), np.random.default_rng(1)
    second = np.where(rng.random(n) < 1 / 3, rng.choice([f" {c}" for c in CLASSES], n), "")
    clips.assign(labels=clips.labels + second).to_csv(data / "several.csv", index=False)
    return {}


def epoch_start(n: int, folder: Path) -> dict:
    """Seconds from the call of the loop to its first batch, with one sampler and the other, in this and in a worker."""
    from dataclasses import replace

    from accelerate import Accelerator

    from earshot.config import load_config
    from earshot.data.prepared import load_data
    from earshot.training.loading import epoch_loader
    from earshot.training.setup import set_up

    given, took = load_config(folder / "c.yaml"), {}
    data = load_data(given.data)
    train, held_out = data.split(0, given.data.folds)
    for sampler in ("uniform", "balanced"):
        for workers in (0, 2):
            config = replace(given, data=replace(given.data, sampler=sampler, workers=workers))
            t = set_up(config, 0, folder / "x", train, held_out, data.classes, Accelerator(cpu=True), float("inf"))
            seconds = []
            for epoch in (1, 2, 3):  # the fastest of three: other work on the machine only adds
                began = time.monotonic()
                batch = next(iter(epoch_loader(t, epoch)))
                seconds.append(time.monotonic() - began)
                assert len(batch["clip_id"]) == config.optim.batch_size
            took[f"{sampler}, {workers} workers"] = min(seconds)
    return took


def join_oof(n: int, folder: Path) -> dict:
    """Seconds of CPU of joining, checking, scoring and writing the OOF of five folds with made answers."""
    from earshot import files, runs, tasks
    from earshot.config import load_config
    from earshot.data.prepared import load_data
    from earshot.ensemble.oof import oof_when_complete
    from earshot.prediction.predictions import Predictions
    from earshot.sound.timebase import TimeBase
    from earshot.training.origins import begin, origin_of

    config = load_config(folder / "c.yaml")
    data, rng = load_data(config.data), np.random.default_rng(2)
    for k in range(FOLDS):
        of_fold = data.take((data.clips.fold == k).to_numpy())
        n_fold, where = len(of_fold.clips), folder / "runs" / "tagging" / "c" / f"fold{k}"
        noise = rng.random(of_fold.target.shape, np.float32)
        origin = origin_of(where, data.digests, config)
        found = Predictions(
            of_fold.clips.clip_id.to_numpy(str), tuple(data.classes), 0.5 * of_fold.target + 0.5 * noise,
            np.full(n_fold, k), np.zeros(n_fold, bool), origins=(origin,),
        )  # fmt: skip
        fold = runs.create_fold(where, config, resume=True)
        found.save(fold.folder / "oof.npz")
        begin(fold, origin)
        about = runs.describe_run(config, k, data.classes, np.zeros(len(data.classes)), TimeBase(RATE, 320, 4))
        files.write_text(fold.folder / "run.json", json.dumps(about | {"finished": True}))
    began = time.process_time()
    result = oof_when_complete(folder / "runs" / "tagging" / "c", data, tasks.get_task("tagging", "mine"))
    assert len(result.oof) == n, "the OOF is not whole"
    return {"join": time.process_time() - began}


# figures


def exponent(by_size: dict[int, float]) -> tuple[float, str]:
    """Slope of the line through log(value) over log(clips), the smallest size taken off both, and which sizes it is of.

    A size that adds less than a tenth to the smallest one's value says nothing but noise and is left out, as long as
    two are left.
    """
    least, *sizes = sorted(by_size)
    grown = [n for n in sizes if by_size[n] > (1 + NOISE) * by_size[least]]
    sizes = grown if len(grown) > 1 else sizes[-2:]
    rest = [max(by_size[n] - by_size[least], 1e-6) for n in sizes]
    slope = np.polyfit(np.log(np.subtract(sizes, least)), np.log(rest), 1)[0]
    return float(slope), f"{sizes[0]:,} to {sizes[-1]:,}"


def summary(found: dict[str, dict[int, dict]]) -> dict[str, tuple[float, str]]:
    """{name: (figure, unit)}: of a step with several rows the steepest one."""
    figures, where = {}, processor()
    for name, start, key in (
        ("prepare", "prepare", "cpu"), ("folds", "folds", "cpu"), ("oof", "oof", "join"),
        ("training_start", "training, to", "cpu"),
    ):  # fmt: skip
        rows = {step: by_size for step, by_size in found.items() if step.startswith(start)}
        for kind, unit, value in (("", "CPU time", key), ("_memory", "peak memory", "own_mb")):
            slopes = {s: exponent({n: took[value] for n, took in by_size.items()}) for s, by_size in rows.items()}
            for step, (slope, over) in slopes.items():
                print(f"{step}: exponent of {unit} over {over} clips {slope:.3f}")
            if slopes:
                slope, over = max(slopes.values())
                own = " of its own, libraries' files apart" if kind else ""
                figures[f"growth_exponent_{name}{kind}"] = (
                    slope, f"exponent of {unit}{own}, {over} clips, goal {GOAL}, {where}",
                )  # fmt: skip
    starts = found.get("training, an epoch's start", {})
    if starts:
        largest = max(starts)
        taken = {k: v for k, v in starts[largest].items() if "workers" in k}
        name = f"epoch_start_seconds_{np.format_float_scientific(largest, trim='-', exp_digits=1).replace('+', '')}"
        figures[name] = (
            max(taken.values()),
            f"s, slowest of both samplers, 0 and 2 workers, goal {EPOCH_GOAL}, {where}",
        )
    return figures


def processor() -> str:
    return machine().split(",")[0]


ONE = {"several": several_labels, "epoch": epoch_start, "oof": join_oof}


if __name__ == "__main__":
    main()

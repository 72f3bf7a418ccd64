"""src/bulk.py on an archive of short recordings: what an hour costs, how cost grows with files, what kills lose.

python benchmarks/bench_bulk.py --run runs/sed/synth_cnn --sound ../shared/data/esc50/audio growth kills --record

growth: 500, 1,000 and 2,000 recordings by one worker. What a call on one recording takes is the start, and is taken
off. The cost of an hour counts the CPU time (user and system) of every process that the command started; the exponent
is fitted to that of the worker and the command (log CPU time on log files, the least of --repeats), since Ray's own
processes look around all the time, and cost by the clock, which on a busy machine says nothing. The worker's memory is
told by quarters of the 2,000.
kills: 240 recordings on two Ray nodes of this machine; one node is killed, then a worker, then the command, which is
given again. Every recording has to be there once, with the events that are heard in it in this process, without Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
from results import record

from earshot.listening.confidence import from_oof
from earshot.listening.detections import Asked, hear, only
from earshot.listening.members import ears_of, with_frames
from earshot.prediction.predictions import Clip

COMMAND = "python benchmarks/bench_bulk.py --run {run} --sound {sound} {what} --record"
COUNTS = (500, 1000, 2000)
KILLED = 240
THRESHOLD = 0.3
SHARD_FILES = {"growth": 25, "kills": 10}
HOUR_PRICE = 0.02  # US dollars of a core hour: spot price of a general machine, for the reckoning alone
GB_MONTH_PRICE = 0.023  # of a GB stored a month


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=("growth", "kills"))
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--sound", type=Path, required=True, help="a folder of at least 2,000 short recordings")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--repeats", type=int, default=3, help="of each count: the least CPU time is taken")
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    options = parser.parse_args()
    sound = sorted(p.absolute() for p in options.sound.rglob("*.*") if p.suffix in (".ogg", ".wav", ".flac"))
    with tempfile.TemporaryDirectory() as work:
        for what in dict.fromkeys(options.what):
            figures = {"growth": growth, "kills": kills}[what](options, sound, Path(work))
            for name, (value, unit) in figures.items():
                print(f"{name} {value:.4g} {unit}".rstrip(), flush=True)
                if options.record:
                    record(name, value, unit, COMMAND.format(run=options.run, sound=options.sound, what=what))


def command(options, sound: list[Path], out: Path, *more) -> list[str]:
    listed = out.with_suffix(".txt")
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join(map(str, sound)) + "\n")
    arguments = ["--run", options.run, "--source", listed, "--out", out, "--backend", options.backend,
                 "--threshold", THRESHOLD, *more]  # fmt: skip
    return [sys.executable, str(ROOT / "src" / "bulk.py"), *map(str, arguments)]


def cpu_of(arguments: list[str]) -> float:
    """CPU seconds of a command and of every process below it, looked at four times a second."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = psutil.Popen(arguments, stdout=subprocess.DEVNULL, env=environment)
    used: dict[tuple[int, float], float] = {}
    while process.poll() is None:
        try:
            everyone = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for one in everyone:
            try:
                times = one.cpu_times()
                used[one.pid, one.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.25)
    if process.wait():
        raise SystemExit(f"{arguments} failed")
    return sum(used.values())


def growth(options, sound: list[Path], work: Path) -> dict:
    """Cost of one recording, which is the start, and of each count."""
    if len(sound) < max(COUNTS):
        raise SystemExit(f"{options.sound} holds {len(sound)} recordings, {max(COUNTS)} are wanted")
    every = np.linspace(0, len(sound) - 1, max(COUNTS)).astype(int)  # of all, so that each count hears alike sound
    used, working, told = {}, {}, {}
    for i in range(options.repeats):
        for count in (1, *COUNTS):
            some = [sound[k] for k in every[:: max(COUNTS) // count]][:count]
            began, out = time.monotonic(), work / f"{count}-{i}"
            used.setdefault(count, []).append(
                cpu_of(command(options, some, out, "--workers", "1", "--shard-files", SHARD_FILES["growth"]))
            )
            told[count] = json.loads((out / "bulk.json").read_text())
            took, last = time.monotonic() - began, told[count]["last_call"]
            working.setdefault(count, []).append(last["worker_cpu_seconds"] + last["driver_cpu_seconds"])
            print(f"{count}: {used[count][-1]:.1f} CPU seconds, {last['worker_cpu_seconds']:.1f} of the worker, "
                  f"{last['driver_cpu_seconds']:.1f} of the command, {took:.0f} s", flush=True)  # fmt: skip
    net = [min(used[count]) - min(used[1]) for count in COUNTS]  # the least disturbed by what else runs here
    exponent, with_ray = (
        float(np.polyfit(np.log(COUNTS), np.log(values), 1)[0])
        for values in ([min(working[count]) - min(working[1]) for count in COUNTS], net)
    )
    print(f"exponent {exponent:.3f}; with Ray's own processes, which cost by the clock, {with_ray:.3f}")
    last = told[max(COUNTS)]
    rate = last["hours"] / (net[-1] / 3600)
    quarters = [float(np.median(part)) for part in np.array_split(last["last_call"]["memory_mb"], 4)]
    print("worker's memory by quarters, MB: " + " ".join(f"{q:.0f}" for q in quarters))
    bytes_an_hour = last["bytes"] / last["hours"]
    print(f"{bytes_an_hour:.0f} bytes out an hour, {last['events'] / last['hours']:.0f} events an hour")
    million = 1e6 / rate
    stored = bytes_an_hour / 1e3  # GB of 10^6 hours
    print(f"10^6 hours: {million:.0f} core hours, {million * HOUR_PRICE:.0f} dollars")
    print(f"10^6 hours: {stored:.1f} GB out, {stored * GB_MONTH_PRICE:.2f} dollars a month")
    return {
        "bulk_hours_per_core_hour": (rate, "h/core h"),
        "bulk_growth_exponent": (exponent, ""),
        "bulk_memory_growth": (quarters[-1] / quarters[1] - 1, "of the second quarter"),
    }


def kills(options, sound: list[Path], work: Path) -> dict:
    """Two nodes, three kills; lost and double recordings, and recordings with other events than without kills."""
    from ray.cluster_utils import Cluster

    some = [sound[i] for i in np.linspace(0, len(sound) - 1, KILLED).astype(int)]
    asked = Asked(only(from_oof(options.run).post, THRESHOLD, None))
    ears = with_frames(ears_of(options.run, options.backend))
    alone = hear(ears, [Clip(str(path), path) for path in some], asked).events
    print(f"{len(alone)} events without Ray", flush=True)
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    out = work / "killed"
    try:
        second = cluster.add_node(**node)
        arguments = command(options, some, out, "--ray", cluster.address, "--shard-files", SHARD_FILES["kills"])
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        wait_for(out, 6, process)
        cluster.remove_node(second, allow_graceful=False)
        print(f"killed a node after {shards(out)} shards", flush=True)
        wait_for(out, shards(out) + 3, process)
        worker = next(p for p in psutil.process_iter(["cmdline"])
                      if "ray::MapWorker" in " ".join(p.info["cmdline"] or []) and below(p))  # fmt: skip
        worker.send_signal(signal.SIGKILL)
        print(f"killed a worker after {shards(out)} shards", flush=True)
        wait_for(out, shards(out) + 3, process)
        process.kill()
        process.wait()
        print(f"killed the command after {shards(out)} shards of {KILLED // SHARD_FILES['kills']}", flush=True)
        if subprocess.run(arguments).returncode:
            raise SystemExit("the command that was given again failed")
    finally:
        cluster.shutdown()
    counts = pd.read_parquet(out / "recordings").path.value_counts()
    lost, double = len(set(map(str, some)) - set(counts.index)), int((counts > 1).sum())
    key = ["path", "onset", "event_label"]
    tables = [alone, pd.read_parquet(out / "events")]
    same = [set(map(tuple, table[key].round({"onset": 3}).values)) for table in tables]
    other = len({path for path, *_ in same[0] ^ same[1]})
    twice = int(tables[1].duplicated(key).sum())
    print(f"{lost} lost, {double} double of {len(some)} recordings; {other} with other events, {twice} events twice")
    return {"bulk_lost_or_double": (lost + double + twice, f"of {len(some)} recordings")}


def below(process: psutil.Process) -> bool:
    """Whether a process was started by this one: others may use Ray here too."""
    return os.getpid() in [parent.pid for parent in process.parents()]


def shards(out: Path) -> int:
    return len(list(out.glob("recordings/part-*.parquet")))


def wait_for(out: Path, count: int, process: subprocess.Popen):
    while shards(out) < count:
        if process.poll() is not None:
            raise SystemExit("the command ended before it was killed")
        time.sleep(0.1)


if __name__ == "__main__":
    main()

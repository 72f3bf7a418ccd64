"""Events of an archive of any size: the same as detect.py, on Ray, on this machine or a cluster.

python src/bulk.py --run runs/sed/synth_cnn --source ~/archive --out found
python src/bulk.py --run runs/sed/synth_cnn --source list.txt --out found --workers 8 --backend openvino
python src/bulk.py --run R --source /mnt/archive --out /mnt/found --ray 10.0.0.1:6379    # folders that all machines see

Writes OUT/events/ and OUT/recordings/ (Parquet in shards, each whole), OUT/summary.csv (a row a class, folder, day and
hour), OUT/unreadable.csv, OUT/odd_files.csv (what is odd about those that were heard) and OUT/bulk.json. The same
command again goes on where a stopped one was, and takes new recordings.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from earshot.script import run_script

from earshot import files, runs
from earshot.ensemble.choice import fields_of
from earshot.listening import archive, detections
from earshot.listening.archive_totals import add_up, table_of
from earshot.listening.confidence import FromOof
from earshot.listening.detections import Asked
from earshot.listening.on_ray import OBJECT_STORE_MB, Hearing, Workers, hear_on_ray, start, stop
from earshot.listening.shards import ATTEMPTS
from earshot.messages import Parser, check_numbers, few, need, plural, progress_bar
from earshot.processes.lock import locked
from earshot.stored import read_json

SETTINGS = "settings.json"
ROUNDS = 3  # of shards of which nothing could be heard
MEMORIES = 200  # of the workers' memory, in bulk.json
ODD_SHARDS = 3  # so many at most may be odd themselves; more, and the fault lies elsewhere


def main():
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    check_options(options)
    runs.check_is_there(options.run)
    files.check_writable(options.out / "bulk.json", "give --out FOLDER")
    for module in ("pyarrow", "ray"):
        need(module, "ray", "hearing an archive")
    run, source = runs.load_run(options.run), archive.read_source(options.source)
    if source.said:
        print(source.said)
    asked, found = detections.asked_of(options)
    print("\n".join(found.said))
    with locked(options.out):
        check_settings(options, settings_of(options, run, asked, found))
        shutil.rmtree(options.out / ATTEMPTS, ignore_errors=True)
        plan = make_plan(options, source)
        heard = archive.heard_shards(options.out)
        left = archive.pending(plan, heard)
        done = int(plan.shard.isin(heard).sum())
        print(
            f"{plural(len(plan), 'recordings')} in {plural(plan.shard.nunique(), 'shards')}"
            + f", {done} heard already" * bool(done)
        )
        spent = hear(left, asked, options) if left else {}
        finish(options, spent)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of a run: runs/<task>/<name>")
    add("--source", type=Path, required=True, help="a folder, or a list: .txt a path a line, .csv with a column path")
    add("--out", type=Path, required=True, help="folder to write, or to go on with")
    add("--ray", default="", metavar="ADDRESS", help="a cluster's (host:port, or auto); default: Ray on this machine")
    add(
        "--workers",
        type=int,
        default=0,
        help="actors, each with the run's networks (default: as many as there is room)",
    )
    add("--threads", type=int, default=1, help="CPUs of a worker")
    add("--gpus", type=float, default=0.0, help="GPUs of a worker, such as 1 or 0.25 (default 0)")
    add("--shard-files", type=int, default=archive.SHARD_FILES, help="recordings of a shard, which is written whole")
    add("--object-store-mb", type=int, default=OBJECT_STORE_MB, help="memory that Ray shares, started on this machine")
    detections.add_options(parser)
    return parser.parse_args()


def check_options(options: argparse.Namespace):
    """Options that cannot be meant are errors before anything is read."""
    detections.check_options(options)
    check_numbers(options, "workers", "gpus")
    check_numbers(options, "threads", "shard_files", low=1)
    if options.gpus and options.backend != "torch":
        raise ValueError(f"--gpus goes with --backend torch: {options.backend} graphs are heard on CPUs")


def settings_of(options: argparse.Namespace, run: runs.Run, asked: Asked, found: FromOof) -> dict:
    """What all shards of a folder must share."""
    weights = {f"fold{fold.fold}": files.file_digest(fold.weights)[:16] for fold in run.folds}
    calibration = None
    if found.calibration is not None:
        calibration = {name: [round(float(v), 6) for v in values] for name, values in asdict(found.calibration).items()}
    return {
        "run": run.name, "weights": weights, "source": str(options.source.absolute()), "post": fields_of(asked.post),
        "calibration": calibration, "top": asked.top, "min_confidence": asked.least_confidence,
        "level": options.level, "backend": options.backend, "int8": options.int8,
    }  # fmt: skip


def check_settings(options: argparse.Namespace, settings: dict):
    """The first call writes them; another with other ones is refused."""
    path = options.out / SETTINGS
    settings = json.loads(json.dumps(settings))
    if not path.is_file():
        if archive.heard_shards(options.out):
            raise ValueError(f"{options.out} holds shards and no {SETTINGS}: choose another --out")
        files.write_text(path, files.as_json(settings, indent=1) + "\n")
        return
    before = read_json(path)
    if other := [key for key in settings if settings[key] != before.get(key)]:
        told = few([line for key in other for line in differences(key, before.get(key), settings[key])], 3)
        raise ValueError(f"{options.out} was begun with other settings ({told}): choose another --out")


def differences(key: str, before, now) -> list[str]:
    """What two values of a setting do not share, each part by its own name: 'post.threshold 0.5, now 0.3'."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
        return [line for name in names for line in differences(f"{key}.{name}", before.get(name), now.get(name))]
    if isinstance(before, list) and isinstance(now, list):
        places = [i for i, (a, b) in enumerate(zip(before, now)) if a != b]
        more = f" and {len(places) - 1} more values" * (len(places) > 1)
        if len(before) != len(now) or not places:
            return [f"{key} of {len(before)} values, now of {len(now)}"]
        return [f"{key}[{places[0]}] {json.dumps(before[places[0]])}, now {json.dumps(now[places[0]])}{more}"]
    return [f"{key} {json.dumps(before)}, now {json.dumps(now)}"]


def make_plan(options: argparse.Namespace, source: archive.Source):
    """The plan on the disk, with new shards for recordings that it does not know."""
    before, sizes = archive.read_plan(options.out), archive.sizes_of(source.recordings)
    if before is not None and (said := archive.changes(before, source.recordings, sizes)):
        print(said)
    plan = archive.extend_plan(before, source.recordings, sizes, options.shard_files)
    if before is None or len(plan) > len(before):
        archive.write_plan(options.out, plan)
    return plan


def hear(left: list[dict], asked: Asked, options: argparse.Namespace) -> dict:
    """Hear shards until none is left -> what it took."""
    began, cpu = time.monotonic(), time.process_time()
    asked_for = Workers(count=options.workers, threads=options.threads, gpus=options.gpus)
    workers = start(options.ray, asked_for, options.object_store_mb)
    hearing = Hearing(run=str(options.run.absolute()), backend=options.backend, int8=options.int8,
                      windows=options.level == "windows", asked=asked, out=str(options.out.absolute()))  # fmt: skip
    kind = f"{workers.threads} thread{'s' * (workers.threads > 1)}" + f", {workers.gpus:g} GPU" * bool(workers.gpus)
    print(f"{workers.count} worker{'s' * (workers.count > 1)} of {kind}{f' at {options.ray}' * bool(options.ray)}")
    spent = {"workers": workers.count, "worker_cpu_seconds": 0.0, "memory_mb": []}
    try:
        with progress_bar(None, "bulk", sum(len(s["paths"]) for s in left), "file") as bar:
            for row in in_rounds(left, hearing, workers):
                bar.update(row["recordings"])
                spent["worker_cpu_seconds"] += row["cpu_seconds"]
                spent["memory_mb"].append(round(row["memory_mb"]))
    finally:
        stop()
    spent["seconds"] = round(time.monotonic() - began, 1)
    spent["driver_cpu_seconds"] = round(time.process_time() - cpu, 1)
    return spent


def in_rounds(left: list[dict], hearing: Hearing, workers: Workers) -> Iterator[dict]:
    """Rows of shards that were heard, each once. Those of which nothing could be heard are tried again.

    In the last round a few of them may blame their recordings, which are then listed; where it is many, or no shard
    was heard at all, the fault is not theirs, and ValueError says it.
    """
    told, errors = set(), {}
    for attempt in range(ROUNDS):
        errors = {}
        for row in hear_on_ray(left, replace(hearing, blame=attempt == ROUNDS - 1), workers):
            if row["error"]:
                errors[row["shard"]] = row["error"]
                if not told and len(errors) > ODD_SHARDS:
                    break
            elif row["shard"] not in told:
                told.add(row["shard"])
                yield row
        left = [shard for shard in left if shard["shard"] in errors]
        if not left or not told or len(left) > ODD_SHARDS:
            break
    if errors:
        raise ValueError(
            f"{plural(len(errors), 'shards')} could not be heard: {next(iter(errors.values()))}; what was heard is "
            "kept, and the same command goes on"
        )


def finish(options: argparse.Namespace, spent: dict):
    """Totals of all shards; bulk.json is last."""
    totals = add_up(options.out)
    shutil.rmtree(options.out / ATTEMPTS, ignore_errors=True)
    memory = spent.pop("memory_mb", [])
    memory = memory[:: max(1, len(memory) // MEMORIES)]
    figures = totals.as_dict() | {"last_call": spent | {"memory_mb": memory}} | {"commit": runs.git_commit()}
    files.write_text(options.out / "bulk.json", files.as_json(figures, indent=1) + "\n")
    print(table_of(totals))
    if spent:
        used = (spent["worker_cpu_seconds"] + spent["driver_cpu_seconds"]) / 3600
        print(f"{spent['seconds']:.0f} s, {60 * used:.1f} core minutes -> {options.out}")
    if totals.unreadable == totals.recordings:
        raise ValueError(f"none of {totals.recordings} recordings could be read: {options.out}/unreadable.csv says why")
    if totals.unreadable:
        print(f"{plural(totals.unreadable, 'recordings')} could not be read: see {options.out / 'unreadable.csv'}")
    if totals.odd:
        print(f"{plural(totals.odd, 'recordings are')} not as their files say: see {options.out / 'odd_files.csv'}")


if __name__ == "__main__":
    run_script(main)

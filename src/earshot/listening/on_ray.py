"""Shards of an archive on Ray Data: one network an actor, on this machine or a cluster.

Ray starts actors, hands each the next shards, keeps back what nobody can take yet (two shards an actor are under way),
and gives the shards of an actor or machine that ended to others. What was heard is on the disk all machines share;
what travels is names and a row of figures.
"""

from __future__ import annotations

import logging
import os
import resource
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import earshot
from earshot.listening.detections import Asked, Heard, hear
from earshot.listening.members import ears_of, with_frames
from earshot.listening.shards import NothingHeard, hear_shard
from earshot.messages import first_line, need
from earshot.prediction.free_cores import allowed_cores, use_threads
from earshot.prediction.predictions import Clip

OBJECT_STORE_MB = 300  # of a local start: rows of figures need few
IN_FLIGHT = 2  # shards an actor has: one is heard, one waits
MOST_BLOCKS = 4000  # of Ray's: an archive of more shards has several in one
CONNECT_SECONDS = 10
STARTS = 5  # of Ray on this machine, before it is given up
STORE_LEAST_MB = 80  # Ray takes no less


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many actors, and what each has: threads of a CPU, a share of a GPU."""

    count: int = 0  # 0: as many as there is room for
    threads: int = 1
    gpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """What an actor has to know: the run and how it is heard, what is kept of it, where to write."""

    run: str
    backend: str
    int8: bool
    windows: bool
    asked: Asked
    out: str
    blame: bool = False


class Listener:
    """An actor: loads a run's networks once, then hears one shard a call."""

    def __init__(self, hearing: Hearing, threads: int):
        if hearing.backend == "torch":
            use_threads(threads)
        self.hearing, self.out = hearing, Path(hearing.out)
        ears = ears_of(Path(hearing.run), hearing.backend, int8=hearing.int8)
        self.ears = with_frames(ears, hearing.windows)
        self.used = 0.0  # CPU seconds that are told already; those of loading count with the first shard

    def hear(self, clips: Sequence[Clip]) -> Heard:
        return hear(self.ears, clips, self.hearing.asked)

    def __call__(self, batch: dict) -> dict:
        """A row {shard, filenames, paths} -> a row of figures; `error` where nothing could be heard."""
        shard, names = int(batch["shard"][0]), list(batch["filenames"][0])
        paths = [Path(os.fsdecode(bytes(path))) for path in batch["paths"][0]]
        clips = [Clip(name, path) for name, path in zip(names, paths, strict=True)]
        zero = {"shard": shard, "recordings": 0, "unreadable": 0, "seconds": 0.0, "events": 0, "bytes": 0}
        try:
            row = {**hear_shard(self.out, shard, clips, self.hear, blame=self.hearing.blame), "error": ""}
        except (NothingHeard, OSError) as error:  # OSError: of what is written
            row = {**zero, "error": str(error) or type(error).__name__}
        used = time.process_time()
        row |= {"cpu_seconds": used - self.used, "memory_mb": memory_mb(), "process": os.getpid()}
        self.used = used
        return {key: [value] for key, value in row.items()}


def memory_mb() -> float:
    """The memory that this process has now, in MB; where the system does not say, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def runtime_environment(workers: Workers, python: str = sys.executable) -> dict:
    """What Ray's processes run in: Earshot as it is here, by this Python, and so many threads each."""
    variables = {"OMP_NUM_THREADS": str(workers.threads)}
    if workers.gpus <= 0:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    environment = {"env_vars": variables, "py_modules": [str(Path(earshot.__file__).parent)]}
    if shlex.quote(python) == python:
        return environment  # each node takes its own
    return environment | {"py_executable": shlex.quote(python)}  # a shell starts them, and would read two words


def start(address: str, workers: Workers, store_mb: int = OBJECT_STORE_MB) -> Workers:
    """Join the cluster at `address`, or start Ray on this machine ('') -> the workers that there is room for."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of each restart to come, on the terminal
    ray = need("ray", "ray", "hearing an archive")
    settings = {
        "log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": runtime_environment(workers),
    }  # fmt: skip
    if address:
        check_address(address)
    else:
        settings |= {
            "num_cpus": workers.count * workers.threads or allowed_cores(), "num_gpus": None if workers.gpus else 0,
            "object_store_memory": max(store_mb, STORE_LEAST_MB) * 2**20, "include_dashboard": False,
        }  # fmt: skip
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        for starts in range(1, 1 if address else STARTS):
            try:
                ray.init(address="local", **settings)
                break
            except Exception as error:  # on a busy machine Ray gives up on its own processes after half a minute
                print(f"Ray did not start ({first_line(error)}): trying again, {starts} of {STARTS - 1}", flush=True)
                ray.shutdown()
        else:
            ray.init(address=address or "local", **settings)
    except Exception as error:  # Ray's own kinds, by what it finds
        what = f"no Ray cluster answers at {address}" if address else "Ray cannot start here"
        raise ValueError(f"{what}: {first_line(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)  # Ray puts one of its own in its place
    there = ray.cluster_resources()
    room = int(there.get("CPU", 0) // workers.threads)
    if workers.gpus:
        room = min(room, int(there.get("GPU", 0) / workers.gpus))
    if room < 1:
        told = f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        stop()
        raise ValueError(
            f"no worker fits: one takes {workers.threads} CPUs and {workers.gpus:g} GPUs, there are {told}"
        )
    return Workers(count=min(workers.count or room, room), threads=workers.threads, gpus=workers.gpus)


def check_address(address: str):
    """Raise ValueError where nothing listens at host:port: Ray would end the process with a page of its own."""
    host, colon, port = address.rpartition(":")
    if address == "auto" or "//" in address:
        return
    if not (colon and host and port.isdigit()):
        raise ValueError(f"--ray {address} is no address: give host:port as `ray start --head` says it, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"no Ray cluster answers at {address}: {error}") from error


def stop():
    need("ray", "ray", "hearing an archive").shutdown()


def hear_on_ray(shards: Sequence[dict], hearing: Hearing, workers: Workers) -> Iterator[dict]:
    """Shards (see archive.pending) -> a row of figures of each as it is done, in any order.

    A shard may be told twice where a machine ended after it was heard; the files are there once.
    """
    data = need("ray.data", "ray", "hearing an archive")
    context = data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray_errors = need("ray.exceptions", "ray", "hearing an archive").RayError
    count = min(workers.count, len(shards))
    rows = data.from_items(list(shards), override_num_blocks=min(len(shards), MOST_BLOCKS)).map_batches(
        Listener,
        batch_size=1,
        compute=data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=IN_FLIGHT),
        fn_constructor_kwargs={"hearing": hearing, "threads": workers.threads},
        num_cpus=workers.threads,
        num_gpus=workers.gpus or None,
    )
    try:
        for batch in rows.iter_batches(batch_size=1, prefetch_batches=0):
            yield {key: values[0].item() if hasattr(values[0], "item") else values[0] for key, values in batch.items()}
    except ray_errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"the workers cannot go on: {lines[-1] if lines else type(error).__name__}") from error

"""src/bulk.py on Ray: this machine, two nodes of which one is killed, the command killed and given again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import bulk
import detect
import train
from conftest import write_tiny
from scripts import run

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="pip install -r requirements/ray.txt")
BULK = Path(bulk.__file__)
SECONDS = 300  # that a wait may last before it counts as never


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A trained tiny run with its OOF, and an archive of 24 recordings of which one is damaged."""
    root = tmp_path_factory.mktemp("archive")
    config = write_tiny(root, n_clips=12, folds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run(train, "--config", config, "--fold", "all", "optim.epochs=1")
    rng = np.random.default_rng(1)
    (root / "sound" / "site").mkdir(parents=True)
    for i in range(24):
        sound = 0.3 * np.sin(np.arange(16000) * (0.2 + 0.05 * i)) + 0.01 * rng.standard_normal(16000)
        name = f"site/S_20260501_{i:02d}0000.wav" if i < 16 else f"r{i}.flac"
        soundfile.write(root / "sound" / name, sound.astype(np.float32), 8000)
    (root / "sound" / "r23.flac").write_bytes(b"fLaC no more")
    return root


def command(world: Path, out: str, *more) -> list[str]:
    arguments = [
        "--run",
        "runs/sed/tiny",
        "--source",
        "sound",
        "--out",
        out,
        "--shard-files",
        "2",
        "--threshold",
        "0.2",
    ]
    return [sys.executable, str(BULK), *arguments, *map(str, more)]


def started(world: Path, out: str, *more) -> subprocess.Popen:
    return subprocess.Popen(command(world, out, *more), cwd=world, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for_shards(out: Path, count: int, process: subprocess.Popen):
    until = time.monotonic() + SECONDS
    while len(list(out.glob("recordings/part-*.parquet"))) < count:
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < until, "no shards come"
        time.sleep(0.05)


def check_all_once(world: Path, out: Path):
    """Each recording once, and its events are those that detect.py finds in it."""
    recordings, events = pd.read_parquet(out / "recordings"), pd.read_parquet(out / "events")
    assert sorted(recordings.filename) == sorted(p.relative_to(world / "sound").as_posix()
                                                 for p in (world / "sound").rglob("*.*"))  # fmt: skip
    assert recordings.filename[recordings.unreadable != ""].tolist() == ["r23.flac"]
    assert events.groupby("filename").size().to_dict() == recordings[recordings.events > 0].set_index(
        "filename").events.to_dict()  # fmt: skip
    found = pd.read_csv(detected(world) / "events.csv")
    assert len(events) == len(found) > 10
    key = ["path", "onset", "event_label"]
    pd.testing.assert_frame_equal(
        events.sort_values(key)[[*key, "offset", "max_output"]].reset_index(drop=True),
        found.assign(path=[str(world / p) for p in found.path]).sort_values(key)[
            [*key, "offset", "max_output"]].reset_index(drop=True),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def detected(world: Path) -> Path:
    """The same archive by detect.py, once."""
    if not (world / "detected").is_dir():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(world)
            run(detect, "--run", "runs/sed/tiny", "--clips", "sound", "--out", "detected", "--threshold", "0.2")
    return world / "detected"


def test_an_archive_on_this_machine_killed_and_given_again(world):
    """Kill -9 in the middle; the same command hears the rest alone, then nothing; a new recording is taken later."""
    out = world / "here"
    process = started(world, "here", "--workers", "1")
    wait_for_shards(out, 3, process)
    process.kill()
    process.wait()
    time.sleep(1)
    before = {p: p.stat().st_mtime_ns for p in out.glob("recordings/part-*.parquet")}
    assert 3 <= len(before) < 12
    done = subprocess.run(command(world, "here", "--workers", "2"), cwd=world, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "heard already" in done.stdout
    assert "1 recording could not be read" in done.stdout
    assert before.items() <= {p: p.stat().st_mtime_ns for p in out.glob("recordings/part-*.parquet")}.items()
    check_all_once(world, out)
    figures = json.loads((out / "bulk.json").read_text())
    assert (figures["recordings"], figures["unreadable"]) == (24, 1)
    summary = pd.read_csv(out / "summary.csv", dtype={"hour": str})
    assert summary.events.sum() == figures["events"]
    assert set(summary.day.dropna()) == {"2026-05-01"}
    assert not list(out.glob("attempts*"))


def test_two_nodes_of_which_one_is_killed(world):
    """Its raylet and workers get SIGKILL in the middle: the other node hears what was under way there."""
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    quick = {"health_check_failure_threshold": 5, "health_check_period_ms": 1000, "health_check_timeout_ms": 3000}
    cluster = Cluster()
    try:
        try:
            cluster.add_node(**settings, include_dashboard=False, _system_config=quick)
            node = cluster.add_node(**settings)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            pytest.skip("Ray gives its own nodes half a minute to start, too little on so busy a machine")
        out = world / "nodes"
        process = started(world, "nodes", "--ray", cluster.address)
        wait_for_shards(out, 3, process)
        cluster.remove_node(node, allow_graceful=False)
        assert len(list(out.glob("recordings/part-*.parquet"))) < 12
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said.decode()
        assert b"2 workers of 1 thread" in said
    finally:
        cluster.shutdown()
    check_all_once(world, out)


def test_terminated_it_says_how_to_go_on(world):
    process = started(world, "stopped", "--workers", "1")
    wait_for_shards(world / "stopped", 1, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"again with\n  python " in said
    assert not (world / "stopped" / "bulk.json").exists()
    assert os.path.exists(world / "stopped" / "plan.parquet")

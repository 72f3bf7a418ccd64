"""Threads are as many as cores are free: affinity, quota of a control group, load of others; a user overrules."""

import math
import os
import subprocess
import sys

import pytest

from earshot.prediction import free_cores
from earshot.prediction.free_cores import Cores, choose_threads


def control_group(root, version: int, path: str, quota: str, period: str = "100000"):
    """Files of a control group as Linux has them; returns (root, the process's own /proc/self/cgroup)."""
    folder = (root if version == 2 else root / "cpu") / path.strip("/")
    folder.mkdir(parents=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} {period}\n")
        (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
        own = f"0::{path}\n"
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")
        own = f"5:memory:/elsewhere\n4:cpu,cpuacct:{path}\n0::/\n"
        accounts = root / "cpuacct" / path.strip("/")
        accounts.mkdir(parents=True)
        (accounts / "cpuacct.usage").write_text("2500000000\n")
        own = own.replace("cpu,cpuacct", "cpu") + f"3:cpuacct:{path}\n"
    (root / "own").write_text(own)
    return root, root / "own"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("quota", "cores"), [("150000", 1.5), ("400000", 4.0), ("-1", math.inf), ("max", math.inf)])
def test_the_quota_of_a_control_group(tmp_path, version, quota, cores):
    root, own = control_group(tmp_path, version, "/docker/abc", quota)
    assert free_cores.cgroup_quota(root, own) == cores
    assert free_cores.group_seconds(root, own) == 2.5


def test_the_smallest_quota_of_the_groups_above_counts(tmp_path):
    root, own = control_group(tmp_path, 2, "/a/b", "800000")
    (root / "a" / "cpu.max").write_text("200000 100000\n")
    assert free_cores.cgroup_quota(root, own) == 2


def test_a_container_sees_its_own_group_at_the_root(tmp_path):
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    (tmp_path / "own").write_text("0::/../outside\n")
    assert free_cores.cgroup_quota(tmp_path, tmp_path / "own") == 2.5
    assert free_cores.cgroup_quota(tmp_path / "nothing", tmp_path / "no such file") == math.inf


def test_ticks_of_the_cores_that_are_allowed(tmp_path):
    path = tmp_path / "stat"
    path.write_text("cpu  999 0 0 999 0 0 0 0 0 0\ncpu0 10 1 4 80 5 0 0 0 0 0\ncpu1 90 0 0 10 0 0 0 0 0 0\nctxt 5\n")
    assert free_cores.core_times({0}, path) == (15, 85)
    assert free_cores.core_times({0, 1}, path) == (105, 95)
    path.write_text("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    assert free_cores.core_times({0}, path) is None, "a sandbox that counts nothing"


@pytest.mark.parametrize(("cores", "free"), [
    (Cores(8), 8), (Cores(8, busy=5.9), 2), (Cores(2, busy=1.0), 1), (Cores(2, busy=2.0), 1), (Cores(2, busy=0.3), 2),
    (Cores(64, quota=4.0, busy=10.0), 4), (Cores(64, quota=4.0, quota_used=2.9), 1), (Cores(4, quota=0.5), 1),
    (Cores(4, quota=1.5), 1), (Cores(4, quota=1.7), 2),
])  # fmt: skip
def test_what_is_free(cores, free):
    assert cores.free == free


def test_a_busy_machine_is_measured(monkeypatch):
    """Of four cores, others use three while we look."""
    ticks = iter([(100, 100), (130, 110)])
    monkeypatch.setattr(free_cores, "affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(free_cores, "core_times", lambda cores: next(ticks))
    monkeypatch.setattr(free_cores, "cgroup_quota", lambda: math.inf)
    found = free_cores.measure(0.01)
    assert found.busy == pytest.approx(3)
    assert found.free == 1


def test_who_overrules(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads, text = choose_threads(look=lambda: Cores(8, busy=2.1))
    assert threads == 6
    assert text == "6 threads (6 of 8 cores free, others use 2.1; OMP_NUM_THREADS=N or threads=N overrules)"
    assert choose_threads(apart=4, look=lambda: Cores(8))[0] == 4, "loader workers need cores too"
    assert choose_threads(apart=40, look=lambda: Cores(8))[0] == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose_threads(look=lambda: Cores(8)) == (3, "3 threads (OMP_NUM_THREADS)")
    assert choose_threads(2, look=lambda: Cores(8)) == (2, "2 threads, as asked")


@pytest.mark.slow
def test_busy_processes_leave_one_thread(monkeypatch):
    """As many busy processes as cores: nothing is free, and it takes less than a second to see it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in free_cores.affinity()]
    try:
        before = os.times().elapsed
        threads, text = choose_threads()
        assert os.times().elapsed - before < 1
        assert threads <= max(1, len(busy) // 2), text
    finally:
        for process in busy:
            process.kill()
            process.wait()

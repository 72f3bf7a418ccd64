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


@pytest.mark.parametrize(("cores", "told"), [
    (Cores(1), "1 of 1 core free"),
    (Cores(8), "8 of 8 cores free"),
    (Cores(8, quota=8.0), "8 of 8 cores free"),
    (Cores(8, quota=2.5), "2 of 8 cores free, quota 2.5"),
    (Cores(8, busy=0.09), "8 of 8 cores free"),
    (Cores(8, busy=0.1, quota_used=0.05), "8 of 8 cores free, others use 0.1"),
    (Cores(8, quota=4.0, busy=1.0, quota_used=2.0), "2 of 8 cores free, quota 4, others use 2.0"),
])  # fmt: skip
def test_how_cores_are_told(cores, told):
    assert str(cores) == told


def test_cores_by_affinity_and_quota(monkeypatch):
    for n, quota, expected in ((4, math.inf, 4), (4, 2.0, 2), (4, 1.5, 2), (4, 9.0, 4), (1, 0.1, 1)):
        monkeypatch.setattr(free_cores, "affinity", lambda n=n: set(range(n)))
        monkeypatch.setattr(free_cores, "cgroup_quota", lambda quota=quota: quota)
        assert free_cores.allowed_cores() == expected
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 7} if process == 0 else set(), raising=False)
    assert free_cores.affinity() == {5, 7}
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert free_cores.affinity() == {0, 1, 2}
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert free_cores.affinity() == {0}


@pytest.fixture
def looked_at(monkeypatch):
    """A machine of four cores: what `measure` finds when these are the ticks and seconds before and after."""

    def look(ticks, seconds=(None, None), load=2.5, slept=None):
        ticks, seconds, clock = iter(ticks), iter(seconds), iter((100.0, 100.5))
        monkeypatch.setattr(free_cores, "affinity", lambda: {0, 1, 2, 3})
        monkeypatch.setattr(free_cores, "core_times", lambda cores: next(ticks) if cores == {0, 1, 2, 3} else None)
        monkeypatch.setattr(free_cores, "group_seconds", lambda: next(seconds))
        monkeypatch.setattr(free_cores, "cgroup_quota", lambda: 3.0)
        monkeypatch.setattr(free_cores.time, "monotonic", lambda: next(clock))
        monkeypatch.setattr(free_cores.time, "sleep", lambda s: slept.append(s) if slept is not None else None)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0), raising=False)
        return free_cores.measure(0.5)

    return look


def test_what_others_use_is_what_was_not_idle(looked_at):
    slept = []
    assert looked_at([(100, 100), (150, 250)], (1.0, 1.5), slept=slept) == Cores(4, 3.0, 1.0, 1.0)
    assert slept == [0.5]
    assert looked_at([(100, 100), (100, 300)], (1.5, 1.0)) == Cores(4, 3.0, 0.0, 0.0), "never less than nothing"
    assert looked_at([(100, 100), (100, 100)]) == Cores(4, 3.0, 2.5, 0.0), "clocks that stand: the load of a minute"
    assert looked_at([None, (1, 1)]) == looked_at([(1, 1), None]) == Cores(4, 3.0, 2.5, 0.0)
    assert looked_at([None, None], load=9.0).busy == 4
    assert looked_at([None, None], (1.0, None)) == looked_at([None, None], (None, 1.0)) == Cores(4, 3.0, 2.5, 0.0)


def test_a_system_that_says_nothing(tmp_path):
    assert free_cores.core_times({0}, tmp_path / "absent") is None
    assert free_cores.group_seconds(tmp_path, tmp_path / "absent") is None
    (tmp_path / "own").write_text("0::/a\n")
    (tmp_path / "cpu.stat").write_text("user_usec 7\nusage_usec 3000000\n")
    assert free_cores.group_seconds(tmp_path, tmp_path / "own") is None, "of the own group, not of all"
    (tmp_path / "own").write_text("0::/\n")
    assert free_cores.group_seconds(tmp_path, tmp_path / "own") == 3.0


def test_folders_of_control_groups(tmp_path):
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/x/y\n0::/p/q\n")
    assert free_cores.group_folders("", tmp_path, own) == [tmp_path / "p/q", tmp_path / "p", tmp_path]
    cpu = tmp_path / "cpu"
    assert free_cores.group_folders("cpu", tmp_path, own) == [cpu / "x/y", cpu / "x", cpu]
    (tmp_path / "cpu,cpuacct").mkdir()
    both = tmp_path / "cpu,cpuacct"
    assert free_cores.group_folders("cpuacct", tmp_path, own) == [both / "x/y", both / "x", both]
    assert free_cores.group_folders("memory", tmp_path, own) == [tmp_path / "memory"]
    for quota, period, cores in (("100000", "0", math.inf), ("x", "100000", math.inf), ("50000", "100000", 0.5)):
        (tmp_path / "cpu.max").write_text(f"{quota} {period}\n")
        assert free_cores.cgroup_quota(tmp_path, own) == cores


def test_what_is_said_of_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def eight():
        return Cores(8)

    assert choose_threads(1, look=eight) == (1, "1 thread, as asked")
    left = "4 threads (8 of 8 cores free, 4 for loader workers; OMP_NUM_THREADS=N or threads=N overrules)"
    assert choose_threads(apart=4, look=eight) == (4, left)
    assert choose_threads(apart=40, look=eight)[1].startswith("1 thread (8 of 8 cores free, 7 for loader workers;")
    assert choose_threads(apart=1, look=lambda: Cores(1)) == (
        1, "1 thread (1 of 1 core free; OMP_NUM_THREADS=N or threads=N overrules)"
    )  # fmt: skip
    assert choose_threads(key="", look=eight)[1].endswith("free; OMP_NUM_THREADS=N overrules)")
    assert choose_threads(key="--n N", look=eight)[1].endswith("free; OMP_NUM_THREADS=N or --n N overrules)")
    for given, threads in (("2,1", 2), (" 3 ", 3), ("0", 8), ("x", 8), ("", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert choose_threads(look=eight)[0] == threads


def test_libraries_are_told_how_many(monkeypatch, capsys):
    import threadpoolctl
    import torch

    told = []
    monkeypatch.setattr(torch, "set_num_threads", lambda n: told.append(("torch", n)))
    monkeypatch.setattr(threadpoolctl, "threadpool_limits", lambda n: told.append(("others", n)))
    free_cores.use_free_cores(3, "threads=N")
    assert told == [("torch", 3), ("others", 3)]
    assert capsys.readouterr().out == "3 threads, as asked\n"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(free_cores, "choose_threads", lambda asked, key: (1, f"{asked} {key}"))
    free_cores.use_free_cores()
    free_cores.use_free_cores(key="--threads N")
    assert capsys.readouterr().out == "0 threads=N\n0 --threads N\n"


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

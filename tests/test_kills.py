"""Runs that are killed, doubled or orphaned: files under final names are whole, one process a folder, no orphans."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from earshot.script import run_script

import pytest

from earshot import files
from earshot.processes import children, kill_points, lock, running

SRC, BENCHMARKS = Path(__file__).parents[1] / "src", Path(__file__).parents[1] / "benchmarks"


def killed_at(place: str, work) -> list[str]:
    """Call `work` in a fork that dies at `place` ('': nowhere); the places that it passed."""
    noted = Path("places.txt").absolute()
    noted.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        os.environ |= {kill_points.AT: place, kill_points.NOTED: str(noted)}
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if place else 0)
    places = noted.read_text().splitlines()
    noted.unlink()
    return places


def write_file():
    files.write_text("new/a.txt", "new text", on_disk=True)


def write_folder():
    with files.whole_folder("new/folder", replace=True) as partial:
        (partial / "a").write_text("new")
        (partial / "b").write_text("new")


def write_set():
    with files.whole_set("new", last="all.json", without=["old.csv"]) as partial:
        for name in ("a.csv", "b.csv", "all.json"):
            (partial / name).write_text("new")


def texts(folder="new") -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.mark.parametrize("before", [pytest.param(False, marks=pytest.mark.slow), True], ids=["fresh", "replacing"])
@pytest.mark.parametrize("work", [write_file, write_folder, write_set])
def test_a_kill_anywhere_leaves_the_old_or_the_new_and_the_next_writer_cleans_up(work, before, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    work()
    new = texts()
    old = dict.fromkeys(new, "old") if before else {}

    def start():
        files._swept.clear()
        files.shutil.rmtree("new")
        for name, text in {**old, "old.csv": "old"}.items() if work is write_set and before else old.items():
            files.write_text(Path("new", name), text)
        Path("new").mkdir(exist_ok=True)

    start()
    places = killed_at("", work)
    assert len(places) >= 3
    for number, place in enumerate(places, 1):
        start()
        killed_at(f"*:{number}", work)
        left = {n: t for n, t in texts().items() if not n.startswith(".") and n != "old.csv"}
        if work is write_set:  # a mixture never has the file that says that all are there
            assert left in (old, new) or "all.json" not in left, place
        else:  # a folder that is away between two moves comes back with the next writer there
            assert left in (old, new) or place == "moved away folder/", place
        files._swept.clear()
        if place == "moved away folder/":
            assert left == {}
            files.sweep(Path("new"))
            assert texts() == old
        work()
        assert texts() == new, place


def test_only_what_a_process_that_has_ended_left_is_swept(tmp_path, caplog):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = "0" * 8 if running.machine() != "0" * 8 else "1" * 8
    names = {
        "ended": f".{running.machine()}-{ended.pid}-1.part.a.txt",
        "ours": f".{running.machine()}-{os.getpid()}-1.part.a.txt",
        "parent's": f".{running.machine()}-{os.getppid()}-1.part.a.txt",
        "elsewhere": f".{others}-{ended.pid}-1.part.a.txt",
        "elsewhere, old": f".{others}-{ended.pid}-2.part.a.txt",
        "a user's": ".a.part.txt",
    }
    for name in names.values():
        (tmp_path / name).write_text("")
    old = time.time() - 2 * files.OLD_SECONDS
    os.utime(tmp_path / names["elsewhere, old"], (old, old))
    files.sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {names[k] for k in ("ours", "parent's", "elsewhere", "a user's")}


def test_a_long_name_still_has_a_temporary_one(tmp_path):
    path = tmp_path / ("ä" * 120 + ".txt")
    files.write_text(path, "text")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_two_processes_and_two_threads_never_share_a_temporary_name(tmp_path):
    here = files.temporary_name(tmp_path / "a")
    assert str(os.getpid()) in here.name
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, files.temporary_name(tmp_path / "a").name.encode())
        os._exit(0)
    assert os.read(reading, 1000).decode() != here.name


def test_a_running_process_is_told_from_an_ended_one_and_from_a_later_one():
    assert running.is_running(os.getpid(), time.time())
    assert not running.is_running(os.getpid(), 1.0), "a process that came later with the same number is another one"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # its end is not asked for yet
    assert not running.is_running(ended.pid, time.time()), "a zombie has ended"
    ended.wait()
    assert not running.is_running(ended.pid, time.time())


# ---- the lock of a folder


def test_a_second_process_is_refused_by_name_and_the_lock_goes_with_its_owner(tmp_path):
    with lock.locked(tmp_path / "fold0"):
        owner = json.loads((tmp_path / "fold0" / "lock.json").read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), platform.node())
        refused = rf"fold0 is in use by process {os.getpid()} of .* on .* \(since .*\): two at once would spoil it"
        with pytest.raises(ValueError, match=refused), lock.locked(tmp_path / "fold0"):
            pytest.fail("two owners")
        with pytest.raises(ValueError, match="is in use"), lock.locked(tmp_path / "fold0", take=True):
            pytest.fail("an owner that is seen to run keeps its folder")
    assert not (tmp_path / "fold0").exists(), "a new folder that nothing was put into"


def test_the_lock_of_a_killed_process_is_taken_over_and_that_is_said(tmp_path):
    child = os.fork()
    if not child:
        with lock.locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "lock.json").is_file()
    said = []
    with lock.locked(tmp_path, say=said.append):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert f"taking over from process {child} of" in said[0]
    assert not (tmp_path / "lock.json").exists()


def test_a_lock_of_another_machine_is_asked_about_until_it_is_old(tmp_path, monkeypatch):
    path = tmp_path / "lock.json"
    owner = {"pid": 1, "host": "elsewhere", "user": "ann", "since": "2026-01-01", "machine": "another"}
    path.write_text(json.dumps(owner))
    with (
        pytest.raises(ValueError, match=r"process 1 of ann on elsewhere .* If it has ended, add --take-lock"),
        lock.locked(tmp_path),
    ):
        pytest.fail("nobody knows whether it has ended")
    assert json.loads(path.read_text()) == owner
    said = []
    with lock.locked(tmp_path, take=True, say=said.append):
        pass
    assert "by --take-lock" in said.pop()
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - 2 * lock.OLD_SECONDS,) * 2)
    with lock.locked(tmp_path, say=said.append):
        pass
    assert "which has ended" in said.pop()


def test_without_locks_of_the_system_the_owner_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_try_lock", lambda file, wait=False: None)
    with lock.locked(tmp_path), pytest.raises(ValueError, match="is in use by process"), lock.locked(tmp_path):
        pytest.fail("two owners")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "lock.json").write_text(json.dumps(lock._own() | {"pid": ended.pid}))
    said = []
    with lock.locked(tmp_path, say=said.append):
        assert "taking over" in said[0]


def test_an_owner_whose_lock_was_taken_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    said, asked = [], []
    monkeypatch.setattr(lock.os, "kill", lambda pid, number: asked.append((pid, number)))
    with lock.locked(tmp_path, say=said.append):
        (tmp_path / "lock.json").write_text(json.dumps(lock._own() | {"pid": 1}))
        until = time.monotonic() + 10
        while not asked and time.monotonic() < until:
            time.sleep(0.01)
    assert asked == [(os.getpid(), signal.SIGTERM)]
    assert "was taken over by process 1" in said[0]
    assert (tmp_path / "lock.json").is_file(), "it is the other one's"


@pytest.mark.parametrize("ended", [True, False])
def test_an_interrupt_anywhere_in_taking_a_folder_leaves_no_lock(ended, tmp_path):
    """KeyboardInterrupt at every line of lock.py in turn, until the folder is had; ended: of a killed owner."""
    folder, code = tmp_path / "runs" / "fold0", lock.locked.__wrapped__.__code__.co_filename

    def interrupted_at(line: int) -> bool:
        """Whether there was such a line."""
        passed = 0

        def trace(frame, event, _):
            nonlocal passed
            if frame.f_code.co_filename != code or threading.current_thread() is not threading.main_thread():
                return None
            passed += event == "line"
            if passed == line and event == "line":
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with lock.locked(folder, say=len):
                sys.settrace(None)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    line = 1
    while True:
        if ended:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lock.json").write_text(json.dumps(lock._own() | {"pid": 2**22 + 1}))
        if not interrupted_at(line):
            break
        left = lock._read(folder / "lock.json")
        assert (folder / "lock.json").exists() == bool(left), f"an empty one after line {line}"
        assert left.get("pid") != os.getpid(), f"ours after line {line}"
        assert ended or not (tmp_path / "runs").exists(), f"a folder after line {line}"
        line += 1
    assert line > 20


# ---- children and interrupts


PARENT = """
import sys, time
sys.path.insert(0, {src!r})
from earshot.processes import children
child = children.start([sys.executable, "-c", {child!r}])
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import sys, time
sys.path.insert(0, {src!r})
from earshot.processes import children
{without}
children.follow_parent()
open({ready!r}, "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("without", ["", "children.sys.platform = 'other'; children.watch.__defaults__ = (0.05, 1)"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path, without):
    """By the system's own word on Linux, and by the watch where there is none."""
    ready = tmp_path / "ready"
    child = CHILD.format(src=str(SRC), without=without, ready=str(ready))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(src=str(SRC), child=child)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    wait_for(ready.exists)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not running.is_running(pid, time.time()))


def wait_for(happened, seconds: float = 30):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


CLEANING = """
import sys, time
sys.path.insert(0, {src!r})
from pathlib import Path
from earshot.script import run_script
from earshot.processes import lock
def main():
    with lock.locked(Path({folder!r})):
        read = lock._read
        lock._read = lambda path: time.sleep(2.5) or read(path)  # the watch says it again by then
        time.sleep(60)
run_script(main)
"""


def test_a_child_that_is_told_twice_to_end_cleans_up_once(tmp_path):
    lockfile = tmp_path / "fold0" / "lock.json"
    child = CLEANING.format(src=str(SRC), folder=str(lockfile.parent))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(src=str(SRC), child=child)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    wait_for(lockfile.exists)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not running.is_running(pid, time.time()))
    assert not lockfile.exists()


def test_an_interrupted_run_ends_its_child_and_one_that_does_not_listen_is_killed():
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    child = children.start([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    child.stdout.readline()
    children.end([child], grace=0.1)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    with pytest.raises(ValueError, match=r"failed \(exit 3\); its error stands above"):
        children.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)


def test_a_child_that_never_comes_to_its_end_is_ended_by_the_system():
    stubborn = "import atexit, sys, time; sys.path.insert(0, sys.argv[1]); from earshot.processes import children; "
    stubborn += "children.end_soon(0.3); atexit.register(time.sleep, 60)"
    ended = subprocess.run([sys.executable, "-c", stubborn, str(SRC)], timeout=50)
    assert ended.returncode == -signal.SIGALRM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("resume", [True, False])
def test_an_interrupt_says_how_to_go_on(number, resume, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["src/train.py", "--config", "my config.yaml"])
    before = signal.getsignal(signal.SIGTERM)
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background start without it

    def main():
        os.kill(os.getpid(), number)
        time.sleep(10)

    with pytest.raises(SystemExit) as ended:
        run_script(main, resume=resume)
    signal.signal(signal.SIGINT, ctrl_c)
    assert ended.value.code == 128 + number
    said = capsys.readouterr().err
    assert f"python src/train.py --config 'my config.yaml'{' --resume' * resume}\n" in said
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_set_that_fails_leaves_no_folder_that_was_not_there(tmp_path):
    with pytest.raises(ValueError, match="no graph"), files.whole_set(tmp_path / "run" / "fold0", last="all.json"):
        raise ValueError("no graph")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="no graph"), files.whole_set(tmp_path / "there", last="all.json"):
        raise ValueError("no graph")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]

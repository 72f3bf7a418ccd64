"""What a kernel does where the frames of all recordings would not fit into memory, and how it knows."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import tiny_graphs
from earshot.ensemble.blends import Blend
from earshot.events import PostProcess
from earshot.kernel import runner
from earshot.kernel.answers import KernelBlend, frame_bytes, hearing_bytes
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.memory_limit import memory_left
from earshot.prediction.predictions import Clip, Predictions
from earshot.sound.timebase import TimeBase

GRID = TimeBase(100, 10, 1)  # 0.1 s


def answered(room: float, frames: np.ndarray, grid: TimeBase = GRID) -> KernelBlend:
    """The blend of two runs, of which one has answered the first of two recordings of 1 s."""
    test = SimpleNamespace(clips=[Clip("x", "x"), Clip("y", "y")], seconds=np.array([1.0, 1.0]))
    blend = KernelBlend(test, ("a", "b"), np.full(2, 0.05), Blend(), ("r", "s"), room=room)
    found = Predictions(np.array(["x"]), ("a", "b"), np.array([[0.5, 0.5]], np.float32), np.zeros(1, int),
                        np.zeros(1, bool), framewise_output=(frames,), timebase=grid)  # fmt: skip
    blend.add([0], found, 1.0, "r")
    return blend


FRAMES = np.arange(20, dtype=np.float32).reshape(10, 2) / 20


def test_frames_are_kept_as_they_are_where_there_is_room():
    needed = frame_bytes([1.0, 1.0], GRID, 2, 2)
    assert needed == 2 * 10 * 2 * 4 * 3.5
    blend = answered(needed, FRAMES)
    assert blend.notes == []
    found = blend.predictions()
    assert found.timebase == GRID
    np.testing.assert_allclose(found.framewise_output[0], FRAMES)


def test_of_frames_without_room_the_strongest_is_kept():
    blend = answered(frame_bytes([1.0, 1.0], GRID, 2, 2) / 2.5, FRAMES)
    found = blend.predictions()
    assert found.timebase == GRID.pooled(3)
    assert found.framewise_output[0].tolist() == FRAMES[[2, 5, 8, 9]].tolist()
    assert "of 3 together the strongest is kept, every 0.3 s" in blend.notes[0]
    other = TimeBase(100, 10, 2)  # of a second run, moved to the grid that is kept
    coarse = Predictions(np.array(["x"]), ("a", "b"), np.array([[0.5, 0.5]], np.float32), np.zeros(1, int),
                         np.zeros(1, bool), framewise_output=(FRAMES[:5],), timebase=other)  # fmt: skip
    blend.add([0], coarse, 1.0, "s")
    assert len(blend.predictions().framewise_output[0]) == 4


def test_half_a_row_is_the_coarsest():
    assert answered(1.0, FRAMES).timebase == GRID.pooled(25)


def test_memory_is_what_the_system_or_a_control_group_leaves(tmp_path):
    """Of a container's own group (version 2), of one above that of the process, and of version 1."""
    system, root, own = tmp_path / "meminfo", tmp_path / "groups", tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert memory_left(system, root, own) == math.inf
    system.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert memory_left(system, root, own) == 4000 * 1024

    def write(folder, **files):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"memory.{name}").write_text(text)

    write(root / "a" / "b", max="max\n", current="900\n", stat="anon 500\ninactive_file 300\n")
    assert memory_left(system, root, own) == 4000 * 1024
    write(root / "a", max="1000\n", current="900\n", stat="anon 500\ninactive_file 300\n")
    assert memory_left(system, root, own) == 400
    write(root / "a", current="2000\n")
    assert memory_left(system, root, own) == 0
    own.write_text("4:memory:/c\n")
    write(root / "memory" / "c", limit_in_bytes="5000", usage_in_bytes="4000", stat="total_inactive_file 50\n")
    assert memory_left(system, root, own) == 1050


@pytest.mark.skipif(not math.isfinite(memory_left()), reason="this system does not say")
def test_this_system_has_some():
    assert 1e7 < memory_left() < 1e14


def test_a_batch_and_networks_heard_together_are_as_many_as_fit_into_memory(tmp_path, monkeypatch):
    bundle = open_bundle(tiny_graphs.write_bundle(tmp_path / "bundle", folds=3))
    (folder := tmp_path / "test_soundscapes").mkdir()
    for i, seconds in enumerate((5, 5, 5, 20)):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(8000 * seconds), 8000)
    test = find_test("birdclef2026", folder, bundle.classes)
    heard, answers = [], []
    predict = runner.predict_members

    def counted(members, clips, *args, **options):
        heard.append((len(members), len(clips)))
        return predict(members, clips, *args, **options)

    monkeypatch.setattr(runner, "predict_members", counted)
    two_short = hearing_bytes(10, 5, TimeBase(8000, 80, 10), 3, 2)
    for free in (math.inf, two_short / runner.SHARE_OF_BATCH):
        heard.clear()
        monkeypatch.setattr(runner, "memory_left", lambda free=free: free)
        run = runner.KernelRun(
            competition="birdclef2026", test=test, networks=bundle.networks, post=PostProcess(), out=tmp_path / "s.csv"
        )
        run.answers.room = math.inf  # what is kept is another test's
        report = runner.run_kernel(run, 1.0)
        assert not report["failures"]
        answers.append(run.answers.predictions().clipwise_output)
        if free == math.inf:
            assert heard == [(1, 4), (2, 4)]
        else:
            assert heard[-4:] == [(2, 2), (2, 1), (1, 1), (1, 1)], "the long one by one network after the other"
    np.testing.assert_array_equal(*answers)

"""What a kernel does where the frames of all recordings would not fit into memory, and how it knows."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from earshot.ensemble.blends import Blend
from earshot.kernel.answers import KernelBlend, frame_bytes
from earshot.kernel.memory_limit import free_memory
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


def test_memory_is_what_the_system_or_the_group_leaves(tmp_path):
    system, group = tmp_path / "meminfo", tmp_path / "group"
    assert free_memory(system, group) == math.inf
    system.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert free_memory(system, group) == 4000 * 1024
    group.mkdir()
    for name, text in (("max", "max"), ("current", "900"), ("stat", "anon 500\ninactive_file 300\n")):
        (group / f"memory.{name}").write_text(text)
    assert free_memory(system, group) == 4000 * 1024
    (group / "memory.max").write_text("1000\n")
    assert free_memory(system, group) == 400
    (group / "memory.current").write_text("2000")
    assert free_memory(system, group) == 0


@pytest.mark.skipif(not math.isfinite(free_memory()), reason="this system does not say")
def test_this_system_has_some():
    assert 1e7 < free_memory() < 1e14

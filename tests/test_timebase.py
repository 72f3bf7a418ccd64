import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.sound.timebase import TimeBase, repeat_to_frames

grids = st.builds(TimeBase, st.sampled_from([8000, 16000, 20480, 22050, 32000, 44100, 48000]),
                  st.integers(1, 2048), st.sampled_from([1, 2, 4, 8, 30, 32]))  # fmt: skip


def test_birdcall_grid_by_hand():
    segments = TimeBase(32000, 320).pooled(32)
    assert segments.frame_seconds == pytest.approx(0.32)
    assert segments.n_frames(5 * 32000) == 16  # 501 frames: 15 whole segments and a piece
    assert segments.seconds(3) == pytest.approx(0.96)
    assert segments.frame(0.9599) == 2
    assert segments.frame(0.96) == 3


@given(grids, st.integers(0, 100_000))
def test_frame_and_seconds_are_inverse(grid, frame):
    assert grid.frame(grid.seconds(frame)) == frame


@given(grids, st.integers(1, 1000))
def test_segment_times_do_not_drift(grid, frame):
    assert grid.seconds(frame) == pytest.approx(frame * grid.pool * grid.hop_length / grid.sample_rate, rel=1e-12)


def test_bad_grid_is_named():
    with pytest.raises(ValueError, match="hop_length must be at least 1, got 0"):
        TimeBase(32000, 0)


@given(st.integers(1, 40), st.integers(1, 33), st.integers(1, 200))
def test_repeat_to_frames_against_a_loop(segments, pool, n_frames):
    values = np.random.default_rng(segments).random((segments, 3))
    loop = [values[min(t // pool, segments - 1)] for t in range(n_frames)]
    np.testing.assert_array_equal(repeat_to_frames(values, pool, n_frames), loop)

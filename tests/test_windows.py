"""Cutting and joining: every sample heard, overlaps averaged, chunks recovered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.sound.timebase import TimeBase, repeat_to_frames
from earshot.sound.windows import frame_starts, join_clipwise, join_framewise, split_framewise, window_starts

SECOND = 32000


def readable_starts(n_samples, window_samples, stride_samples):
    """One start after the other until the end is heard."""
    starts = [0]
    while starts[-1] + window_samples < n_samples:
        starts.append(starts[-1] + stride_samples)
    return starts


def notebook_chunks(n_samples, window_samples):
    """The source's loop: pieces until one is not full."""
    starts = [0]
    while len(range(starts[-1], min(starts[-1] + window_samples, n_samples))) == window_samples:
        starts.append(starts[-1] + window_samples)
    return starts


@pytest.mark.parametrize(
    ("n_samples", "stride", "expected"),
    [
        (0, 10, [0]),
        (3, 10, [0]),
        (10, 10, [0]),
        (11, 10, [0, 10]),
        (20, 10, [0, 10]),
        (20, 5, [0, 5, 10]),
        (21, 0, [0, 10, 20]),
    ],
)
def test_starts_by_hand(n_samples, stride, expected):
    assert window_starts(n_samples, 10, stride).tolist() == expected


@given(n=st.integers(0, 500), window=st.integers(1, 60), data=st.data())
def test_every_sample_is_heard_and_no_window_is_idle(n, window, data):
    stride = data.draw(st.integers(1, window))
    starts = window_starts(n, window, stride)
    assert starts.tolist() == readable_starts(n, window, stride)
    heard = np.zeros(n, bool)
    for start in starts:
        heard[start : start + window] = True
    assert heard.all()
    assert n == 0 or (starts < n).all()


@given(n=st.integers(0, 200), window=st.integers(1, 30))
def test_extra_chunk_is_the_sources_loop(n, window):
    assert window_starts(n, window, extra_chunk=True).tolist() == notebook_chunks(n, window)


@pytest.mark.parametrize(("n", "window", "stride"), [(-1, 5, 5), (10, 0, 0), (10, 5, 6), (10, 5, -1)])
def test_senseless_lengths_are_errors(n, window, stride):
    with pytest.raises(ValueError, match="never be heard"):
        window_starts(n, window, stride)


def test_clip_rules_by_hand():
    outputs = np.array([[0.2, 0.9], [0.8, 0.5]], np.float32)
    assert join_clipwise(outputs, "mean") == pytest.approx([0.5, 0.7])
    assert join_clipwise(outputs, "max") == pytest.approx([0.8, 0.9])
    assert join_clipwise(outputs, "sum") == pytest.approx([1.0, 1.4])
    assert join_clipwise(outputs, "mean_logit") == pytest.approx([0.0, np.log(9) / 2], abs=1e-6)
    assert join_clipwise(np.array([[0.0, 1.0]]), "mean_logit") == pytest.approx([-16.118, 16.118], abs=1e-3)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5))
def test_one_window_is_its_own_answer(row):
    outputs = np.array([row], np.float32)
    for rule in ("mean", "max", "sum"):
        assert np.array_equal(join_clipwise(outputs, rule), outputs[0])


def test_clip_rule_errors():
    with pytest.raises(ValueError, match="unknown rule 'median'"):
        join_clipwise(np.ones((2, 3)), "median")
    with pytest.raises(ValueError, match="at least one window"):
        join_clipwise(np.ones((0, 3)), "mean")


def test_frame_starts_round_each_start_by_itself():
    starts = np.arange(7) * 30 * SECOND  # 93.75 segments of 32 x 320 samples each
    assert frame_starts(starts, 10240).tolist() == [0, 94, 188, 281, 375, 469, 563]
    drift = frame_starts(np.arange(1000) * 5 * SECOND, 10240) * 10240 - np.arange(1000) * 5 * SECOND
    assert np.abs(drift).max() <= 5120


@given(
    n_windows=st.integers(1, 6),
    t=st.integers(1, 8),
    stride=st.integers(1, 8),
    cut=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_joined_frames_equal_the_mean_of_what_covers_them(n_windows, t, stride, cut, seed):
    stride = min(stride, t)
    windows = np.random.default_rng(seed).random((n_windows, t, 2)).astype(np.float32)
    starts = np.arange(n_windows) * stride
    total = max(int(starts[-1]) + t - cut, 1)
    joined = join_framewise(windows, starts, total)
    assert joined.dtype == np.float32
    for frame in range(total):
        covering = [w[frame - s] for w, s in zip(windows, starts) if 0 <= frame - s < t]
        if len(covering) == 1:
            assert np.array_equal(joined[frame], covering[0])  # exact, not only close
        else:
            assert joined[frame] == pytest.approx(np.mean(covering, axis=0), abs=1e-6)


def test_frames_without_a_window_repeat_the_last_one():
    windows = np.array([[[1.0], [2.0]], [[3.0], [4.0]]], np.float32)
    assert join_framewise(windows, np.array([0, 3]), 6).ravel().tolist() == [1, 2, 2, 3, 4, 4]
    with pytest.raises(ValueError, match="no window covers the first frame"):
        join_framewise(windows, np.array([1, 3]), 6)
    assert join_framewise(windows, np.array([0, 3]), 0).shape == (0, 1)


@pytest.mark.parametrize("n_chunks", [1, 2, 3, 9, 20])
def test_split_gives_back_the_chunks_of_a_pooling_model(n_chunks):
    """Cnn14 gives 93 segments for the 3001 frames of 30 s: repeated 32 times, padded with the last value."""
    grid = TimeBase(SECOND, 320, 32)
    segments = np.random.default_rng(n_chunks).random((n_chunks, 93, 3)).astype(np.float32)
    starts = window_starts(n_chunks * 30 * SECOND, 30 * SECOND)
    joined = join_framewise(segments, frame_starts(starts, grid.frame_samples), grid.n_frames(n_chunks * 30 * SECOND))
    chunks = split_framewise(joined, grid.frame_samples, grid.hop_length, 30 * SECOND)
    assert np.array_equal(chunks, repeat_to_frames(segments, 32, 3001))


def test_split_keeps_to_the_chunk_and_ends_in_silence():
    joined = np.arange(1.0, 9.0)[:, None]  # frames 0..7 of 10 samples, chunks of 40 samples
    assert split_framewise(joined, 10, 10, 40)[..., 0].tolist() == [[1, 2, 3, 4, 4], [5, 6, 7, 8, 8]]
    assert split_framewise(joined[:5], 10, 10, 40)[..., 0].tolist() == [[1, 2, 3, 4, 4]]
    assert split_framewise(joined[:2], 10, 10, 40)[..., 0].tolist() == [[1, 2, 0, 0, 0]]

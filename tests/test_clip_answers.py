"""What a network said of one recording, joined: windows of two segments by hand, a stand-in for the network."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from earshot.prediction.clip_answers import ClipAnswer, clip_answer, log_odds, output_timebase, unbroken
from earshot.prediction.reading import Span
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing

GRID = TimeBase(8, 1, 4)  # a segment is half a second
OUT = {"clipwise_output": np.array([0.25, 0.5]), "segmentwise_output": np.array([[0.0, 1.0], [0.5, 0.25]]),
       "logit": np.array([1.0, 3.0])}  # fmt: skip


def span(starts=(0, 8), n_samples=16, first=0, n_windows=None, variant=0, delay=0) -> Span:
    starts = np.array(starts)
    return Span(clip=0, variant=variant, path=Path("x"), metadata=None, starts=starts, first_window=first,
                n_windows=n_windows or len(starts), n_samples=n_samples, delay_samples=delay)  # fmt: skip


def answer(pooling="", **changed) -> ClipAnswer:
    """Windows of a second every second, two segments each."""
    windowing = Windowing(**{"sample_rate": 8, "window_seconds": 1.0, "keep_frames": True, "batch_size": 1} | changed)
    return ClipAnswer(windowing, SimpleNamespace(timebase=GRID, pooling=pooling))


def said(value, embedding=None) -> dict:
    """A window that answers `value`, its segments value and value + 1."""
    out = {"clipwise_output": np.float32([value]), "segmentwise_output": np.float32([[value], [value + 1]])}
    return out if embedding is None else out | {"embedding": np.float32(embedding)}


def test_the_answer_of_a_window():
    assert clip_answer(OUT, "clipwise").tolist() == [0.25, 0.5]
    assert clip_answer(OUT, "frame_max").tolist() == [0.5, 1.0]
    batch = {"segmentwise_output": np.array([OUT["segmentwise_output"]] * 3)}
    assert clip_answer(batch, "frame_max").tolist() == [[0.5, 1.0]] * 3
    np.testing.assert_allclose(clip_answer(OUT, "log_odds"), [-2, 2], rtol=1e-6)
    with pytest.raises(ValueError, match="clip_from=frame_max needs a model with framewise output"):
        clip_answer({"clipwise_output": OUT["logit"]}, "frame_max")


def test_log_odds_are_of_the_softmax_and_finite():
    logit = np.array([[0.5, -1.0, 2.0], [3.0, 3.0, 3.0]], np.float32)
    p = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    found = log_odds({"logit": logit})
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(log_odds({"logit": np.array([900.0, -900.0])}), [1800, -1800])
    with pytest.raises(ValueError, match="needs at least 2"):
        log_odds({"logit": np.zeros((3, 1))})
    with pytest.raises(ValueError, match="log_odds needs a model with a logit"):
        log_odds({"clipwise_output": np.zeros((3, 2))})


def test_the_grid_is_the_finest_that_segments_and_windows_lie_on():
    assert output_timebase(TimeBase(8, 2, 4), 16) == TimeBase(8, 2, 4)
    assert output_timebase(TimeBase(8, 2, 4), 12) == TimeBase(8, 2, 2)
    assert output_timebase(TimeBase(8, 2, 4), 14) == TimeBase(8, 2, 1)
    assert output_timebase(TimeBase(8, 2, 4), 9) == TimeBase(8, 2, 1), "windows start between frames"


def test_windows_are_joined_when_the_last_one_has_come():
    one = answer()
    assert (one.cells, one.repeats) == (2, 1)
    part = span()
    one.add(part, 1, said(3.0, [2, 4]))
    assert (one.clipwise, list(one.open)) == ([], [0])
    one.add(part, 0, said(1.0, [0, 0]))
    assert one.open == {}
    assert [c.tolist() for c in one.clipwise] == [[2.0]]
    assert [e.tolist() for e in one.embedding] == [[1.0, 2.0]]
    # 16 samples have 17 frames of a centred STFT, the fifth segment repeats the fourth
    assert [f[:, 0].tolist() for f in one.framewise] == [[1, 2, 3, 4, 4]]
    assert one.close() is False


def test_spans_of_one_hearing_are_one_and_hearings_are_apart():
    one = answer(keep_frames=False)
    one.add(span((0,), n_windows=2), 0, said(1.0))
    one.add(span((0,), n_windows=1, variant=1), 0, said(5.0))
    one.add(span((8,), first=1, n_windows=2), 0, said(3.0))
    assert [c.tolist() for c in one.clipwise] == [[5.0], [2.0]]
    assert (one.framewise, one.embedding) == ([], [])
    best = answer(aggregate="max", keep_frames=False)
    for i in (0, 1):
        best.add(span(), i, said(i))
    assert best.clipwise[0].tolist() == [1.0]


def test_overlapping_windows_share_their_frames_and_a_delay_is_taken_off():
    half = answer(stride_seconds=0.5)
    part = span((0, 4, 8))
    for i in range(3):
        half.add(part, i, said(4.0 * i))
    assert half.framewise[0][:, 0].tolist() == [0, 2.5, 6.5, 9, 9]
    late = answer(stride_seconds=0.5)
    part = span((0, 4, 8), n_samples=12, delay=4)
    for i in range(3):
        late.add(part, i, said(4.0 * i))
    assert late.framewise[0][:, 0].tolist() == [2.5, 6.5, 9, 9], "13 frames of 12 samples are four segments"
    fine = answer(stride_seconds=0.75)
    assert (fine.timebase, fine.cells, fine.repeats) == (TimeBase(8, 1, 2), 4, 2)


def test_a_window_of_padding_alone_has_frames_and_no_say():
    one = answer(extra_window=True)
    part = span((0, 8), n_samples=8)
    one.add(part, 0, said(1.0, [1]))
    one.add(part, 1, said(9.0, [9]))
    assert one.clipwise[0].tolist() == [1.0]
    assert one.embedding[0].tolist() == [1.0]
    assert one.framewise[0][:, 0].tolist() == [1, 2, 9, 10]
    shifted = span((0, 8), n_samples=6, delay=4)
    two = answer()
    two.add(shifted, 0, said(1.0))
    two.add(shifted, 1, said(9.0))
    assert two.clipwise[0].tolist() == [5.0], "of the delayed recording sample 8 is the fifth of six"


def test_a_cut_hearing_ends_with_its_last_window_in_a_row():
    assert [unbroken(h) for h in ({}, {0: 1}, {1: 1}, {0: 1, 2: 1}, {1: 1, 0: 1, 2: 1})] == [0, 1, 0, 1, 3]
    one = answer()
    part = span((0, 8, 16), n_samples=24)
    one.add(part, 0, said(1.0))
    one.add(part, 2, said(7.0))
    assert one.close() is True
    assert one.clipwise[0].tolist() == [1.0]
    assert one.framewise[0][:, 0].tolist() == [1, 2, 2], "as if the clip had 8 samples"
    assert one.open == {}
    assert one.close() is False
    longest = answer(keep_frames=False)
    for variant, windows in ((0, (1, 2)), (1, (0, 1)), (2, (0,))):
        for i in windows:
            longest.add(span((0, 8, 16), n_samples=24, variant=variant), i, said(10.0 * variant + i))
    assert longest.close() is True
    assert [c.tolist() for c in longest.clipwise] == [[10.5]], "the hearing that got furthest"
    nothing = answer()
    nothing.add(part, 1, said(1.0))
    assert nothing.close() is True
    assert nothing.clipwise == []
    whole = answer(keep_frames=False)
    whole.add(span((0,)), 0, said(1.0))
    whole.add(span((0, 8), variant=1), 0, said(3.0))
    assert whole.close() is False
    assert [c.tolist() for c in whole.clipwise] == [[1.0]]
    short = answer()
    late = span((0, 8, 16), n_samples=12, delay=6)
    for i in (0, 1):
        short.add(late, i, said(float(i)))
    short.close()
    assert len(short.framewise[0]) == GRID.n_frames(10), "of 16 samples heard six are the delay"


def test_one_pass_pools_each_window_from_the_segments_it_covers():
    segments = np.arange(6, dtype=np.float32)[:, None]
    part = span((16, 20, 24), n_samples=40, first=0)
    for clip_from, pooling, expected in (
        ("frame_max", "mean", [[1], [2], [3]]), ("clipwise", "mean", [[0.5], [1.5], [2.5]]),
        ("clipwise", "max", [[1], [2], [3]]),
    ):  # fmt: skip
        heard = answer(pooling, stride_seconds=0.5, clip_from=clip_from, keep_frames=False, aggregate="sum")
        heard.add_pass(part, 16, {"segmentwise_output": segments})
        assert heard.clipwise[0].tolist() == np.sum(expected, axis=0).tolist()
    weighted = answer("attention", keep_frames=False)
    attention = np.log(np.float32([[1], [3], [1], [1], [1], [1]]))
    weighted.add_pass(span((0,)), 0, {"segmentwise_output": segments, "segmentwise_attention": attention})
    np.testing.assert_allclose(weighted.clipwise[0], [0.75], rtol=1e-6)
    framed = answer("mean", stride_seconds=0.5)
    framed.add_pass(span((0, 4, 8)), 0, {"segmentwise_output": segments[:4]})
    assert framed.framewise[0][:, 0].tolist() == [0, 1, 2, 3, 3]
    beyond = answer("mean")
    beyond.add_pass(span((0, 8), n_samples=12), 0, {"segmentwise_output": segments[:2]})
    assert beyond.clipwise[0].tolist() == [0.75], "a window behind the last segment hears that one"
    assert beyond.framewise[0][:, 0].tolist() == [0, 1, 1, 1]


def test_frames_need_segments():
    with pytest.raises(ValueError, match="keep_frames needs a model with framewise output"):
        answer().add(span((0,)), 0, {"clipwise_output": np.float32([1])})
    answer(keep_frames=False).add(span((0,)), 0, {"clipwise_output": np.float32([1])})

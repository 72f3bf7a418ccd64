import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.prediction.predictions import Predictions, check_complete, join, weighted_mean
from earshot.sound.timebase import TimeBase

GRID = TimeBase(32000, 320, 8)


def make(ids, seed=0, fold=0, frames=True, classes=("a", "b", "c")):
    rng = np.random.default_rng(seed)
    n, k = len(ids), len(classes)
    return Predictions(
        np.array(ids, dtype=str),
        tuple(classes),
        rng.random((n, k)).astype(np.float32),
        np.full(n, fold),
        np.zeros(n, bool),
        framewise_output=tuple(rng.random((2 + i, k)).astype(np.float32) for i in range(n)) if frames else None,
        timebase=GRID if frames else None,
        embedding=rng.random((n, 4)).astype(np.float32),
        score=rng.random(n),
    )


def same(a, b):
    assert a.classes == b.classes
    assert a.timebase == b.timebase
    for name in ("clip_ids", "clipwise_output", "fold", "unreadable", "embedding", "score"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.framewise_output is None) == (b.framewise_output is None)
    for x, y in zip(a.framewise_output or (), b.framewise_output or (), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("frames", [True, False])
def test_save_and_load_are_inverse(tmp_path, frames):
    found = make(["x", "y/1", "ü"], frames=frames)
    found.save(tmp_path / "deep" / "oof.npz")
    same(Predictions.load(tmp_path / "deep" / "oof.npz"), found)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["oof.npz"], "no temporary file is left"


def test_load_refuses_what_is_not_ours(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    np.savez(tmp_path / "pickled.npz", clip_ids=np.array([{"evil": 1}], dtype=object))
    (tmp_path / "text.npz").write_text("<html>")
    with pytest.raises(ValueError, match="no clip_ids, classes"):
        Predictions.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="without pickles"):
        Predictions.load(tmp_path / "pickled.npz")
    with pytest.raises(ValueError, match="is not a predictions file"):
        Predictions.load(tmp_path / "text.npz")
    with pytest.raises(ValueError, match="do not exist"):
        Predictions.load(tmp_path / "absent.npz")


@given(st.permutations(list("abcdef")), st.integers(1, 5))
def test_join_and_align_restore_any_order(order, cut):
    whole = make(list("abcdef"))
    place = ["abcdef".index(c) for c in order]
    parts = [whole.take(np.array(place[:cut])), whole.take(np.array(place[cut:]))]
    same(join(parts).aligned(list("abcdef")), whole)


def test_join_refuses_a_clip_twice_and_other_classes():
    with pytest.raises(ValueError, match="1 clips are predicted more than once: b"):
        join([make(["a", "b"]), make(["b"])])
    with pytest.raises(ValueError, match="only in the first: c; only in the second: d"):
        join([make(["a"]), make(["b"], classes=("a", "b", "d"))])


@given(st.integers(1, 5))
def test_mean_of_copies_changes_nothing(copies):
    found = make(["a", "b"])
    mean = weighted_mean([found] * copies)
    np.testing.assert_allclose(mean.clipwise_output, found.clipwise_output, rtol=1e-6)
    np.testing.assert_allclose(mean.framewise_output[1], found.framewise_output[1], rtol=1e-6)


def test_weighted_mean_by_hand_and_by_id():
    a, b = make(["a", "b"], 1), make(["b", "a"], 2, frames=False)
    mean = weighted_mean([a, b], [3, 1])
    expected = 0.75 * a.clipwise_output[0] + 0.25 * b.clipwise_output[1]
    np.testing.assert_allclose(mean.clipwise_output[0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="one member has 2 clips, another 1"):
        weighted_mean([a, make(["a"])])
    with pytest.raises(ValueError, match="1 clips have no prediction: b"):
        weighted_mean([a, make(["a", "c"])])
    with pytest.raises(ValueError, match="clip a has 2 frames in one member, 3 in another"):
        weighted_mean([a, make(["b", "a"])])


def test_oof_must_be_complete():
    found = make(["a", "b"])
    check_complete(found, ["b", "a"])
    with pytest.raises(ValueError, match="misses 1 of 3 clips: c"):
        check_complete(found, ["a", "b", "c"])
    with pytest.raises(ValueError, match="not in the table: b"):
        check_complete(found, ["a"])


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        Predictions(np.array(["a", "b"]), ("x", "y", "z"), np.zeros((2, 2)), np.zeros(2), np.zeros(2, bool))
    with pytest.raises(ValueError, match="needs a timebase"):
        Predictions(
            np.array(["a"]),
            ("x",),
            np.zeros((1, 1)),
            np.zeros(1),
            np.zeros(1, bool),
            framewise_output=(np.zeros((3, 1)),),
        )

"""The file of predictions: what it holds, how parts are joined and members averaged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.prediction.predictions import Predictions, check_complete, join, weighted_mean
from earshot.prediction.truth import Truth
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
    with pytest.raises(ValueError, match="do not exist; make them with src/train.py$"):
        Predictions.load(tmp_path / "oof.npz")


@given(st.permutations(list("abcdef")), st.integers(1, 5))
def test_join_and_align_restore_any_order(order, cut):
    whole = make(list("abcdef"))
    place = ["abcdef".index(c) for c in order]
    parts = [whole.take(np.array(place[:cut])), whole.take(np.array(place[cut:]))]
    same(join(parts).aligned(list("abcdef")), whole)


def test_join_refuses_a_clip_twice_and_other_classes():
    with pytest.raises(ValueError, match="1 clip is predicted more than once: b"):
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
    with pytest.raises(ValueError, match="1 clip has no prediction: b"):
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


def test_frames_are_keptby_name_or_by_place():
    """Kept scripts give them by place; scores of clips, which are easily taken for each other, only by name."""
    by_name = make(["x", "y"])
    fields = (by_name.clip_ids, by_name.classes, by_name.clipwise_output, by_name.fold, by_name.unreadable)
    frames = (by_name.framewise_output, by_name.timebase)
    by_place = Predictions(*fields, *frames)
    assert by_place.timebase == GRID
    for found, kept in zip(by_place.framewise_output, by_name.framewise_output, strict=True):
        np.testing.assert_array_equal(found, kept)
    with pytest.raises(TypeError, match="positional"):
        Predictions(*fields, *frames, by_name.embedding)


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


@pytest.mark.parametrize(("name", "value"), [
    ("fold", np.zeros(3)), ("unreadable", np.zeros(1, bool)), ("framewise_output", (np.zeros((2, 3)),)),
    ("embedding", np.zeros((3, 4))), ("score", np.zeros(3)),
])  # fmt: skip
def test_every_part_has_an_entry_a_clip(name, value):
    with pytest.raises(ValueError, match=f"{name} has {len(value)} entries for 2 clips"):
        replace(make(["a", "b"]), **{name: value})
    with pytest.raises(ValueError, match="2 clips are predicted more than once: a, b"):
        make(["a", "b", "a", "b", "c"])


def test_files_hold_plain_types_and_no_more_than_there_is(tmp_path):
    found = Predictions(
        np.array(["x", "y"], object), ("k",), np.array([[0.1], [0.2]]), [3, -1], [0, 1],
        framewise_output=(np.zeros((2, 1)), np.zeros((0, 1))), timebase=GRID,
    )  # fmt: skip
    found.save(tmp_path / "oof.npz")
    with np.load(tmp_path / "oof.npz") as file:
        assert set(file.files) == {
            "clip_ids", "classes", "clipwise_output", "fold", "unreadable", "frame_counts", "framewise_output",
            "timebase",
        }  # fmt: skip
        types = {name: file[name].dtype for name in file.files if name not in ("clip_ids", "classes")}
        assert file["frame_counts"].tolist() == [2, 0]
    assert types == {
        "clipwise_output": np.float32, "fold": np.int64, "unreadable": bool, "frame_counts": np.int64,
        "framewise_output": np.float32, "timebase": np.int64,
    }  # fmt: skip
    again = Predictions.load(tmp_path / "oof.npz")
    assert [f.shape for f in again.framewise_output] == [(2, 1), (0, 1)]
    assert again.timebase == GRID
    assert type(again.timebase.pool) is int
    assert again.classes == ("k",)
    assert type(again.classes[0]) is str
    nothing = make([])
    nothing.save(tmp_path / "nothing.npz")
    assert len(Predictions.load(tmp_path / "nothing.npz")) == 0


def test_take_by_mask_and_by_place():
    found = make(["a", "b", "c"])
    some = found.take(np.array([True, False, True]))
    assert some.clip_ids.tolist() == ["a", "c"]
    assert [len(f) for f in some.framewise_output] == [2, 4]
    turned = found.take([2, 0])
    np.testing.assert_array_equal(turned.score, found.score[[2, 0]])
    np.testing.assert_array_equal(turned.embedding, found.embedding[[2, 0]])
    bare = Predictions(np.array(["a", "b"]), ("k",), np.zeros((2, 1)), np.zeros(2), np.zeros(2, bool)).take([1])
    assert (bare.framewise_output, bare.embedding, bare.score) == (None, None, None)


def test_join_keeps_only_what_all_parts_have():
    a, b = make(["a"]), make(["b"], 1, fold=1, frames=False)
    with pytest.raises(ValueError, match=r"on different time grids: TimeBase\(.*\) and None"):
        join([a, b])
    found = join([replace(a, framewise_output=None, timebase=None, score=None), replace(b, embedding=None)])
    assert found.fold.tolist() == [0, 1]
    assert (found.framewise_output, found.score, found.embedding) == (None, None, None)
    np.testing.assert_array_equal(found.clipwise_output, np.concatenate([a.clipwise_output, b.clipwise_output]))
    with pytest.raises(ValueError, match="same classes in another order"):
        join([make(["a"]), make(["b"], classes=("b", "a", "c"))])
    with pytest.raises(ValueError, match="only in the first: none; only in the second: c"):
        join([make(["a"], classes=("a", "b")), make(["b"])])
    with pytest.raises(ValueError, match="different class lists: only in the first: c; only in the second: none"):
        weighted_mean([make(["a"]), make(["a"], classes=("a", "b"))])


def test_weighted_mean_of_every_part():
    """Weights 1 to 3, then one a class: scores take the mean of a member's weights; embeddings are not comparable."""
    a, b = make(["a", "b"], 1, fold=4), make(["a", "b"], 2)
    mean = weighted_mean([a, b], [1, 3])
    np.testing.assert_allclose(mean.score, 0.25 * a.score + 0.75 * b.score, rtol=1e-6)
    np.testing.assert_allclose(
        mean.framewise_output[1], 0.25 * a.framewise_output[1] + 0.75 * b.framewise_output[1], rtol=1e-6
    )
    assert mean.embedding is None
    assert mean.timebase == GRID
    assert mean.fold.tolist() == [4, 4]
    assert mean.clipwise_output.dtype == mean.score.dtype == mean.framewise_output[0].dtype == np.float32
    by_class = weighted_mean([a, b], [[1, 0, 1], [0, 2, 3]])
    weights = np.array([1, 0, 0.25])
    np.testing.assert_allclose(
        by_class.clipwise_output, weights * a.clipwise_output + (1 - weights) * b.clipwise_output, rtol=1e-6
    )
    share = np.mean(weights)
    np.testing.assert_allclose(by_class.score, share * a.score + (1 - share) * b.score, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean([a, b]).score, (a.score + b.score) / 2, rtol=1e-6)


def test_weighted_mean_without_what_a_member_lacks():
    a, b = make(["a", "b"], 1), make(["a", "b"], 2)
    for other in (make(["a", "b"], 2, frames=False), replace(b, timebase=TimeBase(32000, 320, 4))):
        mean = weighted_mean([a, other])
        assert (mean.framewise_output, mean.timebase) == (None, None)
    assert weighted_mean([a, replace(b, score=None)]).score is None


def test_members_that_could_not_read_a_clip_have_no_say_in_it():
    """As kernels blend (`kernel.answers`): the training prior in place of an answer is no answer."""
    ids, classes = np.array(["a", "b", "c"]), ("x", "y")
    lost = ([1, 1, 0], [1, 0, 0], [1, 0, 0])
    values = [np.full((3, 2), p, np.float32) for p in (0.1, 0.5, 0.8)]
    members = [
        Predictions(
            ids, classes, value, np.full(3, -1), np.array(gone, bool), timebase=TimeBase(10, 1), score=value[:, 0],
            framewise_output=tuple(np.full((1 if no else 4, 2), value[0, 0], np.float32) for no in gone),
        )
        for value, gone in zip(values, lost, strict=True)
    ]  # fmt: skip
    found = weighted_mean(members, [2, 1, 1])
    assert found.unreadable.tolist() == [True, False, False]
    every, without_first = (2 * 0.1 + 0.5 + 0.8) / 4, (0.5 + 0.8) / 2
    np.testing.assert_allclose(found.clipwise_output[:, 0], [every, without_first, every], rtol=1e-6)
    np.testing.assert_allclose(found.score, found.clipwise_output[:, 0])
    assert [len(f) for f in found.framewise_output] == [1, 4, 4]
    for frames, clip in zip(found.framewise_output, found.clipwise_output, strict=True):
        np.testing.assert_allclose(frames, np.broadcast_to(clip, frames.shape))
    by_class = weighted_mean(members, [[1, 1], [0, 1], [0, 3]])
    np.testing.assert_allclose(by_class.clipwise_output[1], [without_first, (0.5 + 3 * 0.8) / 4], rtol=1e-6)


def test_complete_means_neither_fewer_nor_more():
    with pytest.raises(ValueError, match="OOF misses 1 of 2 clips: b; are all folds trained"):
        check_complete(make(["a"]), ["a", "b"])
    with pytest.raises(ValueError, match="the mean holds 1 clips that are not in the table: a"):
        check_complete(make(["a", "b"]), ["b"], "the mean")


def test_answers_are_taken_with_their_predictions():
    clips = pd.DataFrame({"clip_id": list("xyz"), "device": list("abc")})
    events = pd.DataFrame({"filename": ["x"], "onset": [0.0], "offset": [1.0], "event_label": ["k"]})
    truth = Truth(np.eye(3) > 0, events, np.array([1.0, 2.0, 3.0]), clips, np.array([True, False, True]))
    for index in ([2, 0], np.array([2, 0])):
        some = truth.take(index)
        np.testing.assert_array_equal(some.target, np.eye(3)[[2, 0]] > 0)
        assert some.durations.tolist() == [3.0, 1.0]
        assert some.clips.device.tolist() == ["c", "a"]
        assert some.annotated.tolist() == [True, True]
        assert some.events is events
    assert truth.take(np.array([False, True, False])).durations.tolist() == [2.0]
    bare = Truth(np.eye(3) > 0).take([1])
    assert (bare.events, bare.durations, bare.clips, bare.annotated) == (None, None, None, None)

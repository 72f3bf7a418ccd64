"""The file of predictions, part by part, and what its arrays may not be; answers of networks as predictions."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from earshot.prediction.inference import Member, _collect, _of_place
from earshot.prediction.origin import Origin, TableDigests
from earshot.prediction.predictions import Predictions, check_arrays, weighted_mean
from earshot.sound.timebase import TimeBase
from earshot.sound.windows import Windowing

ORIGIN = Origin(run="sed/a", fold=1, tables=TableDigests(folds="f", classes="c", clips="k"), weights="w")
PARTS = {
    "embedding": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "score": np.array([0.5, 1.5], np.float32),
    "threshold": np.array([1.0, 2.0], np.float32), "origins": (ORIGIN, replace(ORIGIN, fold=0)),
}  # fmt: skip


def predicted(**changed) -> Predictions:
    found = Predictions(np.array(["x", "y"]), ("a", "b"), np.array([[0.25, 0.5], [0.75, 1.0]], np.float32),
                        np.array([0, -1]), np.array([False, True]))  # fmt: skip
    return replace(found, **changed)


@pytest.mark.parametrize("part", [*PARTS, "framewise_output", None])
def test_each_part_is_kept_and_what_is_not_there_is_none(tmp_path, part):
    frames = (np.full((1, 2), 0.25, np.float32), np.zeros((3, 2), np.float32))
    framed = {"framewise_output": frames, "timebase": TimeBase(8, 2, 3)}
    changed = {} if part is None else {part: PARTS[part]} if part in PARTS else framed
    predicted(**changed).save(str(tmp_path / "p.npz"))
    found = Predictions.load(str(tmp_path / "p.npz"))
    assert (found.clip_ids.tolist(), found.classes, found.fold.tolist()) == (["x", "y"], ("a", "b"), [0, -1])
    assert (found.clipwise_output.tolist(), found.unreadable.tolist()) == ([[0.25, 0.5], [0.75, 1.0]], [False, True])
    for name in (*PARTS, "framewise_output", "timebase"):
        value = getattr(found, name)
        if name not in changed:
            assert value is None
        elif name in ("origins", "timebase"):
            assert value == changed[name]
        else:
            assert [np.asarray(v).tolist() for v in value] == [np.asarray(v).tolist() for v in changed[name]]


def arrays(**changed) -> dict:
    return {
        "clip_ids": np.array(["x", "y"]), "classes": np.array(["a", "b"]), "clipwise_output": np.zeros((2, 2)),
        "fold": np.zeros(2, int), "unreadable": np.zeros(2, bool), "framewise_output": np.zeros((3, 2)),
        "frame_counts": np.array([1, 2]), "timebase": np.array([8, 1, 1]), "embedding": np.zeros((2, 4)),
        "score": np.zeros(2), "threshold": np.zeros(2),
    } | changed  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), [
    ("clip_ids", np.array([1, 2]), "clip_ids is of int64"), ("classes", np.array([["a"], ["b"]]), r"shape \(2, 1\)"),
    ("clipwise_output", np.zeros((2, 2), int), "clipwise_output is of int64"), ("fold", np.zeros(2), "fold is of"),
    ("clipwise_output", np.zeros(2), r"shape \(2,\)"), ("unreadable", np.zeros(2, int), "unreadable is of int64"),
    ("fold", np.zeros((2, 1), int), "fold is of"), ("score", np.zeros((0, 1)), "score is of"),
    ("threshold", np.array(["1", "2"]), "threshold is of"), ("timebase", np.zeros(3), "timebase is of float"),
    ("clipwise_output", np.array([[0, np.nan], [0, 0]]), "clipwise_output has 1 row with values that are NaN"),
    ("embedding", np.full((2, 4), np.inf), "embedding has 2 rows"),
    ("framewise_output", np.array([[0, 0], [np.nan, 0], [0, 0]]), "framewise_output has 1 row"),
    ("frame_counts", np.array([4, -1]), "frame_counts do not part the 3 rows"),
    ("frame_counts", np.array([1, 1]), "frame_counts do not part the 3 rows"),
    ("frame_counts", np.array([3]), "frame_counts do not part the 3 rows"),
    ("frame_counts", np.array([1, 1, 1]), "frame_counts do not part the 3 rows"),
    ("framewise_output", np.zeros((3, 1)), r"framewise_output has shape \(3, 1\), not a column a class"),
    ("timebase", np.array([8, 1]), r"timebase is \[8 1\], not rate, hop and pool"),
    ("timebase", np.array([8, 1, 1, 1]), "not rate, hop and pool"),
])  # fmt: skip
def test_arrays_that_cannot_be_are_named(name, value, said):
    check_arrays(arrays())
    with pytest.raises(ValueError, match=said):
        check_arrays(arrays(**{name: value}))


def test_a_table_is_told_how_to_become_predictions(tmp_path):
    (tmp_path / "x.csv").write_text("clip_id,dog\na,0.5\n")
    with pytest.raises(ValueError, match=r"make it again with src/predict.py, with --out FILE.npz"):
        Predictions.load(tmp_path / "x.csv")


def test_arrays_that_may_be():
    check_arrays(arrays(fold=np.zeros(2, np.uint8), clip_ids=np.array([], float)[:0], frame_counts=np.zeros(0, int),
                        framewise_output=np.zeros((0, 2))))  # fmt: skip
    check_arrays({k: v for k, v in arrays().items() if k not in ("embedding", "score", "threshold", "timebase")})
    without = {k: v for k, v in arrays().items() if k != "frame_counts"}
    with pytest.raises(ValueError, match="frame_counts do not part"):
        check_arrays(without)


def test_whole_numbers_weigh_too():
    pair = [predicted(score=PARTS["score"]), predicted(clipwise_output=np.zeros((2, 2), np.float32), score=np.zeros(2))]
    found = weighted_mean(pair, [3, 1])
    np.testing.assert_allclose(found.clipwise_output, 0.75 * pair[0].clipwise_output)
    np.testing.assert_allclose(found.score, [0.375, 1.125])
    assert (found.clipwise_output.dtype, found.score.dtype, found.threshold) == (np.float32, np.float32, None)
    by_class = weighted_mean(pair, [[1, 0], [1, 2]])
    np.testing.assert_allclose(by_class.clipwise_output, pair[0].clipwise_output * [0.5, 0])
    np.testing.assert_allclose(by_class.score, 0.25 * PARTS["score"], rtol=1e-6)


def heard(clipwise=(), framewise=(), embedding=()) -> SimpleNamespace:
    arrays = [[np.array(v, np.float32) for v in values] for values in (clipwise, framewise, embedding)]
    return SimpleNamespace(clipwise=arrays[0], framewise=arrays[1], embedding=arrays[2], timebase=TimeBase(8, 1))


def test_hearings_of_each_clip_become_predictions():
    clips = [SimpleNamespace(clip_id=c) for c in "xy"]
    how = Windowing(sample_rate=8, window_seconds=1.0, keep_frames=True)
    member = Member(backend=None, windowing=how, classes=["a"], prior=[0.125], fold=3, origin=ORIGIN)
    twice = heard([[0.5], [1.0]], [[[1.0], [2.0]], [[3.0], [2.0]]], [[1, 2], [3, 4]])
    answers = [twice, heard([[0.75]], [[[9.0]]], [[9, 9]])]
    found = _collect(answers, clips, {1}, member)
    assert (found.clip_ids.tolist(), found.classes, found.fold.tolist()) == (["x", "y"], ("a",), [3, 3])
    assert found.unreadable.tolist() == [False, True]
    assert found.clipwise_output.tolist() == [[0.75], [0.125]]
    assert found.clipwise_output.dtype == np.float32
    assert [f.tolist() for f in found.framewise_output] == [[[2.0], [2.0]], [[0.125]]]
    assert all(f.dtype == np.float32 for f in found.framewise_output)
    assert (found.embedding.tolist(), found.timebase) == ([[2, 3], [0, 0]], TimeBase(8, 1))
    assert found.origins == (ORIGIN,)
    plain = _collect(answers, clips, set(), replace(member, windowing=replace(how, keep_frames=False), origin=None))
    assert (plain.framewise_output, plain.timebase, plain.origins) == (None, None, None)
    assert plain.clipwise_output.tolist() == [[0.75], [0.75]]
    none = _collect([], [], set(), replace(member, windowing=replace(how, keep_frames=False)))
    assert (none.clipwise_output.shape, none.clip_ids.dtype.kind, none.unreadable.dtype) == ((0, 1), "U", bool)
    assert none.embedding is None
    mute = _collect([heard(), heard([[0.5]])], clips, {0}, replace(member, windowing=replace(how, keep_frames=False)))
    assert (mute.embedding, mute.clipwise_output.tolist()) == (None, [[0.125], [0.5]])


def test_a_fold_of_a_stacked_graph_is_taken_from_its_place():
    outputs = {"clipwise_output": np.arange(12).reshape(2, 3, 2)}
    assert _of_place(outputs, 1)["clipwise_output"].tolist() == [[2, 3], [8, 9]]
    assert _of_place(outputs, None) is outputs

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.data.sampling import ClassTurns, epoch_batches, epoch_order, n_batches, stratified_share


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(1, 3))
def test_processes_share_an_epoch(n_clips, batch_size, processes, drop_last, accumulate):
    every = [epoch_batches(n_clips, batch_size, 7, 3, drop_last, p, processes, accumulate) for p in range(processes)]
    count = n_batches(n_clips, batch_size, drop_last, processes, accumulate)
    assert all(len(b) == count for b in every)
    assert all(len(keys) == batch_size for b in every for keys in b)
    seen = [key for b in every for keys in b for key in keys]
    assert {epoch for epoch, *_ in seen} == {3}
    indices = [i for _, i, _ in seen]
    assert len(set(seen)) == len(seen), "a clip heard again is another key"
    assert set(indices) <= set(range(n_clips))
    if len(indices) <= n_clips:
        assert len(set(indices)) == len(indices), "a clip twice although there are enough"
    if not drop_last and accumulate == 1:
        assert set(indices) == set(range(n_clips)), "every clip is heard"


def test_order_depends_on_seed_and_epoch_alone():
    assert np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 3))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 2, 2))


def test_source_counts_of_the_birdcall_fold():
    # 17,100 training clips, batch 64, the last incomplete batch dropped
    assert n_batches(17_100, 64, drop_last=True) == 267


def test_no_clips_is_an_error():
    with pytest.raises(ValueError, match="no clips to train on"):
        epoch_batches(0, 4, 0, 0)


# ---- balanced: classes take turns


@st.composite
def labelled(draw) -> np.ndarray:
    """(N, K) booleans with at least one label; some classes and some clips may have none."""
    n, k = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    target = np.random.default_rng(draw(st.integers(0, 999))).random((n, k)) < draw(st.sampled_from([0.05, 0.3, 0.9]))
    target[draw(st.integers(0, n - 1)), draw(st.integers(0, k - 1))] = True
    return target


def draws_by_class(target: np.ndarray, seed: int, epochs: int) -> dict[int, list[int]]:
    """The clips of each class's turns in the order drawn, by a second, slow implementation of who has which turn."""
    turns = ClassTurns(target)
    draws = np.concatenate([turns.order(seed, e) for e in range(epochs)])
    k, heard = len(turns.classes), {int(c): [] for c in turns.classes}
    for r in range(-(-len(draws) // k)):
        order = turns.classes[np.random.default_rng([seed, 1, r]).permutation(k)]
        for c, clip in zip(order.tolist(), draws[r * k : (r + 1) * k].tolist(), strict=False):
            heard[c].append(clip)
    return heard


@given(labelled(), st.integers(0, 5), st.integers(1, 4))
def test_every_class_has_as_many_turns_give_or_take_one(target, seed, epochs):
    heard = draws_by_class(target, seed, epochs)
    assert set(heard) == set(np.flatnonzero(target.any(axis=0)))
    assert sum(map(len, heard.values())) == epochs * len(target), "an epoch is as many draws as clips"
    counts = [len(clips) for clips in heard.values()]
    assert max(counts) - min(counts) <= 1
    for c, clips in heard.items():
        assert target[clips, c].all(), "a turn is a clip of the class"


@given(labelled(), st.integers(0, 5))
def test_every_clip_of_a_class_comes_before_one_comes_again(target, seed):
    for c, clips in draws_by_class(target, seed, 4).items():
        size = int(target[:, c].sum())
        for start in range(0, len(clips), size):
            cycle = clips[start : start + size]
            assert len(set(cycle)) == len(cycle)
    assert ClassTurns(target).empty.tolist() == np.flatnonzero(~target.any(axis=0)).tolist()


@given(labelled(), st.integers(1, 5), st.integers(1, 3))
def test_balanced_draws_belong_to_one_process_each(target, batch_size, processes):
    order, n = ClassTurns(target).order(7, 2), len(target)
    every = [epoch_batches(n, batch_size, 7, 2, False, p, processes, order=order) for p in range(processes)]
    together = [key for keys in zip(*every, strict=True) for batch in keys for key in batch]
    assert [i for _, i, _ in together[:n]] == order.tolist(), "dealt out in order, none twice, none lost"
    assert len(set(together)) == len(together)


def test_balanced_order_depends_on_seed_and_epoch_alone():
    target = np.random.default_rng(0).random((100, 5)) < 0.2
    one, two = ClassTurns(target), ClassTurns(target)
    later = two.order(1, 3)  # without the epochs before it: as after a resume
    assert np.array_equal([one.order(1, e) for e in range(4)][3], later)
    assert not np.array_equal(one.order(1, 0), one.order(1, 1))
    assert not np.array_equal(one.order(1, 0), one.order(2, 0))


def test_rare_classes_are_heard_as_often_as_common_ones():
    target = np.zeros((1000, 2), bool)
    target[:990, 0], target[990:, 1] = True, True
    heard = target[ClassTurns(target).order(0, 0)].sum(axis=0)
    assert heard.tolist() == [500, 500]


def test_balanced_needs_labels():
    with pytest.raises(ValueError, match="no clip has one"):
        ClassTurns(np.zeros((3, 2), bool))


# ---- a share of the training clips


@given(labelled(), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 5))
def test_a_smaller_share_is_part_of_a_larger_one(target, one, other, seed):
    less, more = (stratified_share(target, s, seed) for s in sorted((one, other)))
    assert set(less) <= set(more)
    assert len(set(more)) == len(more) == max(1, round(max(one, other) * len(target)))


def test_a_share_holds_its_part_of_every_class():
    rng = np.random.default_rng(0)
    label = rng.choice(4, 2000, p=[0.7, 0.2, 0.09, 0.01])
    target = np.eye(4, dtype=bool)[label]
    for share in (0.1, 0.5, 0.8):
        kept = target[stratified_share(target, share, 3)].sum(axis=0)
        np.testing.assert_allclose(kept, share * target.sum(axis=0), atol=3)  # others rounded up
    assert not np.array_equal(stratified_share(target, 0.5, 3), stratified_share(target, 0.5, 4))

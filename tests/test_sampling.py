import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.sampling import epoch_batches, epoch_order, n_batches


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(1, 3))
def test_processes_share_an_epoch(n_clips, batch_size, processes, drop_last, accumulate):
    every = [epoch_batches(n_clips, batch_size, 7, 3, drop_last, p, processes, accumulate) for p in range(processes)]
    count = n_batches(n_clips, batch_size, drop_last, processes, accumulate)
    assert all(len(b) == count for b in every)
    assert all(len(keys) == batch_size for b in every for keys in b)
    seen = [key for b in every for keys in b for key in keys]
    assert {epoch for epoch, _ in seen} == {3}
    indices = [i for _, i in seen]
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

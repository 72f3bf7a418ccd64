"""Which clips make up which batch: plain functions of (seed, epoch), so that any process or a resumed run agrees.

A key is (epoch, index): the data set derives its random stream from it, so no worker holds a state of its own.
"""

from __future__ import annotations

import numpy as np

Key = tuple[int, int]  # (epoch, index of the clip in the training table)


def epoch_order(n_clips: int, seed: int, epoch: int) -> np.ndarray:
    """(n_clips,) a permutation that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(n_clips)


def n_batches(n_clips: int, batch_size: int, drop_last: bool, processes: int = 1, accumulate: int = 1) -> int:
    """Batches an epoch and process: equal for all processes, a multiple of `accumulate`, at least one step."""
    whole = n_clips // (batch_size * processes)
    if not drop_last and n_clips % (batch_size * processes):
        whole += 1
    return max(whole - whole % accumulate, accumulate)


def epoch_batches(
    n_clips: int, batch_size: int, seed: int, epoch: int, drop_last: bool = True,
    process: int = 0, processes: int = 1, accumulate: int = 1,
) -> list[list[Key]]:  # fmt: skip
    """The batches of one process: lists of (epoch, index).

    The epoch's order is dealt out in runs of `batch_size * processes`; process p takes the p-th part of each run. When
    the clips do not fill the last run (drop_last=False, or fewer clips than one run) it is filled from the start of the
    order, so that every process has the same number of equally long batches.
    """
    if n_clips < 1:
        raise ValueError("there are no clips to train on: every clip of the other folds is missing or unreadable")
    count = n_batches(n_clips, batch_size, drop_last, processes, accumulate)
    order = np.resize(epoch_order(n_clips, seed, epoch), count * batch_size * processes)
    parts = order.reshape(count, processes, batch_size)[:, process]
    return [[(epoch, int(i)) for i in batch] for batch in parts]

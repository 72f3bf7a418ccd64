"""Which clips make up which batch: plain functions of (seed, epoch), so that any process or a resumed run agrees.

Two orders of an epoch: `epoch_order`, every clip once, and `ClassTurns`, the balanced sampler of PANNs.

A key is (epoch, index, repeat): the data set derives its random stream from it, so no worker holds a state of its own.
`repeat` counts how often the epoch heard that clip before: another crop each time.
"""

from __future__ import annotations

import numpy as np

Key = tuple[int, int, int]  # (epoch, index of the clip in the training table, repeat)


def epoch_order(n_clips: int, seed: int, epoch: int) -> np.ndarray:
    """Draw the order in which an epoch goes through the clips.

    (n_clips,) a permutation that depends on (seed, epoch) alone.
    """
    return np.random.default_rng([seed, epoch]).permutation(n_clips)


def evenly(n: int, wanted: int) -> np.ndarray:
    """At most `wanted` of range(n), evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(int)) if n else np.zeros(0, int)


class ClassTurns:
    """Balanced sampling: classes take turns, each turn a clip of the class; an epoch is as many draws as clips.

    Draws are numbered through all epochs. In round r every class has one turn, in an order of (seed, r). Its clips come
    by its own permutations, one after the other: each clip of a class before any of them again. A clip with several
    labels belongs to each of its classes. Any epoch is computed without the ones before it.
    """

    def __init__(self, target: np.ndarray):
        """`target` (N, K) booleans. `empty`: the classes without a clip, which have no turns."""
        clips, classes = np.nonzero(target)
        if not len(clips):
            raise ValueError("the balanced sampler needs labels: no clip has one")
        by_class = np.argsort(classes, kind="stable")
        counts = np.bincount(classes, minlength=target.shape[1])
        self.n_clips, self.empty = len(target), np.flatnonzero(counts == 0)
        self.classes = np.flatnonzero(counts)
        self.members = np.split(clips[by_class], np.cumsum(counts[self.classes])[:-1])  # of each class with clips

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Draw the clips of an epoch, one after the other: (N,) indices."""
        first, k = epoch * self.n_clips, len(self.classes)
        rounds = np.arange(first // k, (first + self.n_clips - 1) // k + 1)
        heard = np.stack([self._turns(seed, c, rounds) for c in range(k)], axis=1)
        turn = np.stack([np.random.default_rng([seed, 1, r]).permutation(k) for r in rounds])
        draws = np.take_along_axis(heard, turn, axis=1).ravel()
        skip = first - rounds[0] * k
        return draws[skip : skip + self.n_clips]

    def _turns(self, seed: int, c: int, rounds: np.ndarray) -> np.ndarray:
        """(R,) the clips of the c-th class in these rounds."""
        members, k = self.members[c], self.classes[c]
        cycles = range(rounds[0] // len(members), rounds[-1] // len(members) + 1)
        stream = [np.random.default_rng([seed, 2, k, n]).permutation(members) for n in cycles]
        return np.concatenate(stream)[rounds - cycles[0] * len(members)]


def stratified_share(target: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose round(share * N) of the clips, at least one, that hold about that share of every class: (N, K) booleans ->
    indices.

    A clip stands for its rarest class; the clips of a class are shuffled and those of all classes merged in proportion.
    A share is the beginning of that order, so that a smaller one is part of a larger one.
    """
    n = len(target)
    stands_for = np.full(n, -1)  # clips without a label are a class of their own
    counts = target.sum(axis=0)
    clips, classes = np.nonzero(target)
    commonest_first = np.argsort(-counts[classes], kind="stable")
    stands_for[clips[commonest_first]] = classes[commonest_first]  # the last one written is the rarest
    shuffled = np.random.default_rng([seed, 0x5A]).permutation(n)
    shuffled = shuffled[np.argsort(stands_for[shuffled], kind="stable")]
    _, first, size = np.unique(stands_for[shuffled], return_index=True, return_counts=True)
    rank = np.arange(n) - np.repeat(first, size)
    order = shuffled[np.argsort(rank / np.repeat(size, size), kind="stable")]
    return order[: max(1, round(share * n))]


def n_batches(n_clips: int, batch_size: int, drop_last: bool, processes: int = 1, accumulate: int = 1) -> int:
    """Batches an epoch and process: equal for all processes, a multiple of `accumulate`, at least one step."""
    whole = n_clips // (batch_size * processes)
    if not drop_last and n_clips % (batch_size * processes):
        whole += 1
    return max(whole - whole % accumulate, accumulate)


def epoch_batches(
    n_clips: int, batch_size: int, seed: int, epoch: int, drop_last: bool = True,
    process: int = 0, processes: int = 1, accumulate: int = 1, order: np.ndarray | None = None,
) -> list[list[Key]]:  # fmt: skip
    """The batches of one process: lists of (epoch, index, repeat).

    The epoch's order (`order`, else every clip once) is dealt out in runs of `batch_size * processes`; process p takes
    the p-th part of each run. When the clips do not fill the last run (drop_last=False, or fewer clips than one run) it
    is filled from the start of the order, so that every process has the same number of equally long batches.
    """
    if n_clips < 1:
        raise ValueError("there are no clips to train on: every clip of the other folds is missing or unreadable")
    count = n_batches(n_clips, batch_size, drop_last, processes, accumulate)
    order = np.resize(epoch_order(n_clips, seed, epoch) if order is None else order, count * batch_size * processes)
    shape = (count, processes, batch_size)
    parts, repeats = order.reshape(shape)[:, process], _repeats(order).reshape(shape)[:, process]
    return [[(epoch, i, n) for i, n in zip(*pair, strict=True)] for pair in zip(parts.tolist(), repeats.tolist())]


def _repeats(order: np.ndarray) -> np.ndarray:
    """(N,) how often each entry occurred before: [5, 3, 5, 5] -> [0, 0, 1, 2]."""
    by_value = np.argsort(order, kind="stable")
    _, first, size = np.unique(order[by_value], return_index=True, return_counts=True)
    repeats = np.empty(len(order), int)
    repeats[by_value] = np.arange(len(order)) - np.repeat(first, size)
    return repeats

"""Clips of every class in falling order of their scores, sorted once for all the figures that follow from the order.

Average precision, ROC-AUC and the threshold of the highest F1 need no more of the scores than which clips come first
and which come together. Sorting is what takes long of a million clips, so that it is done once, and for float32 in two
passes over 16 bits each, which numpy counts instead of compares: the time grows with the clips, not faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

BLOCK = 1 << 20  # values that are sorted together: what is held meanwhile stays small
SHORT = 256  # values from which counting is faster than comparing


def falling_order(scores: np.ndarray) -> np.ndarray:
    """Positions of finite scores along the last axis, the highest first, equal ones in the order given."""
    if scores.dtype not in (np.float32, np.float16) or scores.shape[-1] < SHORT:
        return np.argsort(-scores, axis=-1, kind="stable")
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0: -0 is equal to 0
    key = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))  # grows as the score falls
    low, high = key.astype(np.uint16), (key >> 16).astype(np.uint16)
    order = np.argsort(low, axis=-1, kind="stable")
    then = np.argsort(np.take_along_axis(high, order, axis=-1), axis=-1, kind="stable")
    return np.take_along_axis(order, then, axis=-1)


def f1(hits, predicted, actual, empty: float) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) from counts; `empty` where nothing is there and nothing is predicted."""
    total = np.asarray(predicted) + actual
    return np.where(total > 0, 2 * np.asarray(hits) / np.maximum(total, 1), empty)


class Ranking:
    """Truth (N, K) and finite scores (N, K), class by class in falling order of score.

    falling (K, N): the scores; hit (K, N): which of them are of clips of the class.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray):
        n, k = truth.shape
        self.falling, self.hit = np.empty((k, n), scores.dtype), np.empty((k, n), bool)
        self.positives = truth.sum(axis=0)
        for rows in self._blocks():
            own = np.ascontiguousarray(scores.T[rows])
            order = falling_order(own)
            self.falling[rows] = np.take_along_axis(own, order, axis=1)
            self.hit[rows] = np.take_along_axis(np.ascontiguousarray(truth.T[rows]), order, axis=1)

    def _blocks(self) -> Iterator[slice]:
        k, n = self.falling.shape
        step = max(1, BLOCK // max(n, 1))
        return (slice(first, first + step) for first in range(0, k, step))

    def _counts(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Hits and clips of a class at and above each of its distinct scores; those that are equal enter together."""
        last = _ends(self.falling[k])
        return np.cumsum(self.hit[k])[last], last + 1

    @property
    def _long(self) -> bool:
        """Whether to go class by class: of many short ones the Python between them would take longest."""
        return self.falling.shape[1] > 16 * SHORT

    @property
    def rated(self) -> np.ndarray:
        """Say which classes have positives and negatives, (K,) bool."""
        return (self.positives > 0) & (self.positives < self.falling.shape[1])

    def average_precision(self) -> np.ndarray:
        """Average precision of each class, (K,), NaN for one without positives or without negatives."""
        return np.array([_precision(*self._counts(k)) if use else np.nan for k, use in enumerate(self.rated)])

    def padded_precision(self, padding: int) -> np.ndarray:
        """Average precision, (K,), with `padding` clips more of every class, each with a score of 1; what is above 1
        counts as 1, and a class has a clip, its own or one of those."""
        found = np.empty(len(self.falling))
        for k, falling in enumerate(self.falling):
            last = _ends(np.minimum(falling, 1))
            hits, clips = np.cumsum(self.hit[k])[last], last + 1
            if falling[0] < 1 and padding:
                hits, clips = np.append(0, hits), np.append(0, clips)
            found[k] = _precision(hits + padding, clips + padding)
        return found

    def roc_auc(self) -> np.ndarray:
        """Area under each ROC curve, (K,), by the ranks of the positives (Mann and Whitney), NaN as above."""
        found, n = np.full(len(self.falling), np.nan), self.falling.shape[1]
        for k in np.flatnonzero(self.rated):
            hits, clips = self._counts(k)
            rank = n + 1 - (np.append(0, clips[:-1]) + 1 + clips) / 2  # mean of those that are equal; the lowest is 1
            positive = float(self.positives[k])
            ranks = (np.diff(hits, prepend=0) * rank).sum()
            found[k] = (ranks - positive * (positive + 1) / 2) / (positive * (n - positive))
        return found

    @cached_property
    def best_f1(self) -> tuple[float, float]:
        """What `sweep` gives with an F1 of 0 for classes that are never there nor predicted."""
        return self.sweep(0.0)

    def sweep(self, empty: float) -> tuple[float, float]:
        """Thresholds of the highest mean F1 of the classes and of the highest F1 of all decisions together.

        Each is the middle of the gap between two scores, the highest gap on a tie; `empty`: F1 of a class never there
        nor predicted. As the threshold falls one score enters at a time and changes the F1 of its own class only, so
        that one running sum gives the mean everywhere.
        """
        k, start = len(self.falling), np.where(self.positives == 0, empty, 0.0)
        hits, own, total, entered = np.zeros(k, int), start.copy(), 0.0, 0  # of each class; of all
        mean, together = _Best(start.sum() / k), _Best(0.0)
        for spans in self._spans():
            entering, clips, hit, change = self._entering(spans, hits, own, empty)
            order = falling_order(entering)
            entering, change, found = entering[order], change[order], hits.sum() - hit.sum()
            last, change[0] = _ends(entering), change[0] + total
            mean.offer(entering[last], (start.sum() + np.cumsum(change, out=change)[last]) / k)
            found = found + np.cumsum(hit[order])[last]
            above = entered + np.cumsum(clips[order])[last]
            together.offer(entering[last], f1(found, above, self.positives.sum(), 0.0))
            total, entered = change[-1], above[-1]
        return mean.threshold(), together.threshold()

    def _spans(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """First and stop of each class, (K,) each, of what enters together: all of it, or about a BLOCK of all classes,
        from the highest scores on; equal scores stay together."""
        k, n = self.falling.shape
        first = np.zeros(k, int)
        if n * k > 2 * BLOCK and self._long:
            pieces = n * k // BLOCK
            places = np.linspace(0, n - 1, min(n, 2 + 16 * pieces // k)).astype(int)
            some = np.sort(self.falling[:, places], axis=None)[::-1]
            cuts = np.unique(some[:: len(some) // pieces])[::-1]
            for stop in np.stack([n - np.searchsorted(own[::-1], cuts) for own in self.falling], axis=1):
                if (stop > first).any():
                    yield first, stop
                first = stop
        if (first < n).any():
            yield first, np.full(k, n)

    def _entering(
        self, spans: tuple[np.ndarray, np.ndarray], hits: np.ndarray, own: np.ndarray, empty: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Scores, how many clips and how many hits enter with each, and what that changes of its class's F1; `hits` and
        `own`, the classes' hits and F1 so far, go on to their end. Of a long class equal scores are one."""
        k, n = self.falling.shape
        if (spans[1] - spans[0]).sum() == n * k and not self._long:
            found = np.cumsum(self.hit, axis=1)
            value = f1(found, np.arange(1, n + 1), self.positives[:, None], empty)
            change = np.diff(value, axis=1, prepend=own[:, None])
            hits[:], own[:] = found[:, -1], value[:, -1]
            return self.falling.ravel(), np.ones(n * k, bool), self.hit.ravel(), change.ravel()
        entering = []
        for c, (first, stop) in enumerate(zip(*spans, strict=True)):
            if first < stop:
                falling = self.falling[c, first:stop]
                last = _ends(falling)
                found = hits[c] + np.cumsum(self.hit[c, first:stop])[last]
                value = f1(found, first + last + 1, self.positives[c], empty)
                more = np.diff(last, prepend=-1), np.diff(found, prepend=hits[c]), np.diff(value, prepend=own[c])
                entering.append((falling[last], *more))
                hits[c], own[c] = found[-1], value[-1]
        return tuple(np.concatenate(parts) for parts in zip(*entering, strict=True))


class _Best:
    """The highest of values that are offered as the threshold falls, the first one on a tie."""

    def __init__(self, nothing: float):
        """nothing: the value where nothing is predicted."""
        self.value, self.highest, self.above, self.below, self.asked = nothing, None, None, None, False

    def offer(self, entering: np.ndarray, values: np.ndarray):
        """Take (M,) distinct falling scores, lower than those before, and the values once each has entered."""
        self.highest = entering[0] if self.highest is None else self.highest
        if self.asked:
            self.below, self.asked = entering[0], False
        i = int(np.argmax(values))
        if values[i] > self.value:
            self.value, self.above, self.asked = values[i], entering[i], i + 1 == len(entering)
            self.below = None if self.asked else entering[i + 1]

    def threshold(self) -> float:
        """The middle between the last score that enters and the next, above all where none does."""
        if self.above is None:
            return float(np.nextafter(self.highest, np.array(np.inf, self.highest.dtype)))
        if self.below is None:
            return float(self.above)
        middle = self.below / 2 + self.above / 2
        return float(middle if middle > self.below else self.above)  # two neighbouring floats have no middle


def _ends(falling: np.ndarray) -> np.ndarray:
    """Positions of the last of each run of equal values."""
    return np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)


def _precision(hits: np.ndarray, clips: np.ndarray) -> float:
    """Average precision from (hits, clips) at falling thresholds, added up as scikit-learn adds."""
    recall = np.append((hits / hits[-1])[::-1], 0.0)
    return float(max(0.0, -np.sum(np.diff(recall) * (hits / clips)[::-1])))

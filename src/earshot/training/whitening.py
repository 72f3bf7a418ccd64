"""Embeddings made comparable: centred on the clips that a fold trains on, and as wide in every direction that is kept.

Embeddings behind a ReLU all point much the same way: over ESC-50's clips two of BirdNET's have a cosine of 0.59 on
average. A student that follows this has learned their mean before anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from earshot.messages import plural

NEGLIGIBLE = 1e-7  # a direction of so small a share of the widest one's variance is none


@dataclass(frozen=True)
class Whitening:
    """Embeddings (D,) as they are seen from the mean, by their N widest directions, each scaled to variance 1."""

    mean: np.ndarray  # (D,) float32
    basis: np.ndarray  # (D, N) float32

    def __call__(self, embedding: np.ndarray) -> np.ndarray:
        """(D,) -> (N,) float32."""
        return (embedding - self.mean) @ self.basis

    @classmethod
    def of_rows(cls, rows: Iterable[np.ndarray], components: int) -> Whitening:
        """Principal components of all rows, read once: arrays (W, D); rows of nothing but zeros are left out.

        The largest entry of every direction is positive, so that the same rows give the same signs. Error where rows
        vary in fewer directions than are asked for.
        """
        n, total, products = 0, 0.0, 0.0
        for some in rows:
            some = np.asarray(some, np.float64)
            some = some[some.any(axis=1)]
            n, total, products = n + len(some), total + some.sum(axis=0), products + some.T @ some
        found = np.zeros(0)
        if n > 1:
            mean = total / n
            variance, directions = np.linalg.eigh(products / n - np.outer(mean, mean))
            variance, directions = variance[::-1], directions[:, ::-1]
            found = variance[variance > NEGLIGIBLE * max(variance[0], 0)]
        if len(found) < components:
            raise ValueError(
                f"distill.embedding_components is {components}, but over the {plural(n, 'windows')} of the clips "
                "that train the "
                f"teacher's embedding varies in {len(found)} directions: set it to at most {len(found)}, or to 0"
            )
        basis = directions[:, :components]
        largest = basis[np.abs(basis).argmax(axis=0), np.arange(components)]
        basis = basis * np.sign(largest) / np.sqrt(found[:components])
        return cls(mean.astype(np.float32), basis.astype(np.float32))

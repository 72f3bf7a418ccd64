"""Segments of a window -> the window's answer, on NumPy: what one pass over a long recording needs (no torch).

A fully convolutional network gives segments for a recording of any length. Where its clip output is a pooling of them,
the answer of every window can be pooled from the segments that it covers, and overlapping windows share all the
convolutions. It is not the same as hearing the windows one by one: the convolutions (and squeeze-and-excitation, an
average over the whole input) see past the window's edges.
"""

from __future__ import annotations

import numpy as np

from earshot.messages import suggest

POOLINGS = ("attention", "max", "mean", "linear_softmax")


def pool_segments(probability: np.ndarray, attention: np.ndarray | None, pooling: str) -> np.ndarray:
    """Pool segment probabilities, (..., S, K), by their attention logits to (..., K), as the network's own head pools
    them."""
    if pooling == "attention":
        if attention is None:
            raise ValueError("pooling 'attention' needs segmentwise_attention, which this network does not give")
        weight = np.exp(np.clip(attention, -10, 10))  # PANNs' clamp: no maximum has to be taken off
        return (weight * probability).sum(axis=-2) / weight.sum(axis=-2)
    if pooling == "linear_softmax":
        return np.square(probability).sum(axis=-2) / np.maximum(probability.sum(axis=-2), 1e-7)
    if pooling not in POOLINGS:
        raise ValueError(f"windows cannot be pooled by '{pooling}'{suggest(pooling, POOLINGS)}")
    return getattr(probability, pooling)(axis=-2)

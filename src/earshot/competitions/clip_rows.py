"""Predictions of whole clips -> one row a clip, for competitions that ask a probability a class and clip."""

from __future__ import annotations

import logging

import numpy as np

from earshot.messages import few, suggest
from earshot.prediction.predictions import Predictions

logger = logging.getLogger("earshot")


def clip_scores(predictions: Predictions, clip_ids, classes, what: str = "recordings") -> np.ndarray:
    """(N, K) float64 clip outputs of `clip_ids`, in their order and that of `classes`.

    A clip without prediction, or unreadable, gets the mean of each class over the others, and a warning.
    """
    for name in classes:
        if name not in predictions.classes:
            raise ValueError(f"the predictions have no class '{name}'{suggest(name, predictions.classes)}")
    order = [predictions.classes.index(c) for c in classes]
    place = {str(c): i for i, c in enumerate(predictions.clip_ids)}
    clip_ids = [str(c) for c in clip_ids]
    index = np.array([place.get(c, -1) for c in clip_ids], dtype=int)
    readable = ~np.asarray(predictions.unreadable, dtype=bool)
    if not readable.any():
        raise ValueError("no recording could be read, so there is nothing to submit")
    scores = predictions.clipwise_output[:, order].astype(np.float64)
    lost = (index < 0) | ~readable[index]
    if lost.any():
        logger.warning(
            "%d of %d %s have no prediction (missing or unreadable) and get the mean of each class: %s",
            lost.sum(), len(clip_ids), what, few(np.array(clip_ids)[lost]),
        )  # fmt: skip
    return np.where(lost[:, None], scores[readable].mean(axis=0), scores[index])

"""Which windows become pseudo-labels, and what their targets are. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earshot.messages import check_choice


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is asked of windows, and what becomes of their probabilities."""

    min_confidence: float = 0.5  # of a window: its highest probability
    per_class: int = 0  # windows whose surest class it is, at most; 0: no limit
    per_site: int = 0  # windows of a site, at most
    per_recording: int = 0  # windows of a recording, at most
    power: float = 1.0  # targets are probabilities to this power: above 1 what is unsure counts less
    hard: float = 0.0  # targets of 1 from this probability on, else 0; 0: soft ones
    floor: float = 0.0  # lower probabilities become targets of 0
    mass: float = 1.0  # all targets together are at most so many times the labels; 0: no cap
    order: str = "classes"  # classes: they take turns, each with its surest window left; surest: the surest first
    frame_events: bool = False  # frames are 1 in the events that teachers find, else 0, in place of probabilities
    frame_unsure: float = 0.0  # log odds: frames that are in an event or not by so little are unknown

    def __post_init__(self):
        check_choice("order", self.order, ("classes", "surest"))
        for name in ("min_confidence", "hard", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name):g}")
        for name in ("per_class", "per_site", "per_recording", "mass"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name):g}")
        if not 0 <= self.frame_unsure < float("inf"):
            raise ValueError(f"frame_unsure must be 0 or more log odds, got {self.frame_unsure:g}")
        if self.frame_unsure and not self.frame_events:
            raise ValueError("frame_unsure is of thresholds that find events: give frame_events too")
        if not 0 < self.power <= 100:
            raise ValueError(f"power must be above 0 and at most 100, got {self.power:g}")
        if self.hard and self.power != 1:
            raise ValueError(f"hard targets are 0 or 1, which power={self.power:g} does not change: leave one out")

    def targets(self, probability: np.ndarray) -> np.ndarray:
        """Make targets of probabilities: (..., K) -> the same shape, float32."""
        p = np.asarray(probability, np.float32)
        if self.hard:
            return (p >= self.hard).astype(np.float32)
        return np.where(p >= self.floor, p, 0) ** np.float32(self.power)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """N windows that are sure enough: (N,) numbers of their recordings, sites and surest classes, and their masses."""

    confidence: np.ndarray
    top: np.ndarray
    recording: np.ndarray
    site: np.ndarray  # -1: not known, for which no quota holds
    mass: np.ndarray

    def __len__(self) -> int:
        return len(self.confidence)


def choose(found: Candidates, asked: Choice, labelled_mass: float) -> np.ndarray:
    """Indices of the candidates that are taken, in the order in which they were, under all quotas and the cap of mass.

    labelled_mass: of the labels that train beside them. Of two equally sure windows the earlier one is taken.
    """
    surest = np.argsort(-found.confidence, kind="stable")
    turn = np.zeros(len(found), np.int64)
    if asked.order == "classes":
        by_class = surest[np.argsort(found.top[surest], kind="stable")]
        _, first, size = np.unique(found.top[by_class], return_index=True, return_counts=True)
        turn[by_class] = np.arange(len(found)) - np.repeat(first, size)
    rank = np.empty(len(found), np.int64)
    rank[surest] = np.arange(len(found))
    quotas = ((found.top, asked.per_class), (found.site, asked.per_site), (found.recording, asked.per_recording))
    quotas = [(values.tolist(), most, {}) for values, most in quotas if most]
    left = asked.mass * labelled_mass if asked.mass else np.inf
    taken, masses = [], found.mass.tolist()
    for i in np.lexsort((rank, turn)).tolist():
        full = any(values[i] >= 0 and counts.get(values[i], 0) >= most for values, most, counts in quotas)
        if full or masses[i] > left:
            continue
        left -= masses[i]
        for values, _, counts in quotas:
            counts[values[i]] = counts.get(values[i], 0) + 1
        taken.append(i)
    return np.array(taken, np.int64)

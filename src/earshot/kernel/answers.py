"""What a kernel's networks answered, joined recording by recording as the bundle's blend says. No torch.

A run's answer is the mean of its networks' (folds, further hearings); the runs' answers are blended as ensemble.py
blends them (ensemble/blends.py). Where not all networks answered, the weights are renormalised over those that did:
of a run that was heard with two of its five folds, two fifths of its weight count. Further hearings never make a run's
weight more than the whole of it: a blend of which one run alone is heard again keeps its weights.

A run that knows a part of the classes has no weight in the others; a class that nobody who answered knows has its
prior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from earshot.ensemble.blends import Blend, ranks
from earshot.kernel.hidden_test import KernelTest
from earshot.prediction.predictions import TEST_FOLD, Predictions
from earshot.sound.timebase import TimeBase

PRIOR_GRID = TimeBase(1, 1, 1)  # a prior is the same every second
BESIDE = 1.5  # times the frames of a run that their blend and its rows take besides, measured
OPEN = 1.5  # times the frames of a recording that its windows take before they are joined, measured
AT_ONCE = 4096  # frames that are joined at once
COARSEST = 2.5  # seconds: half a row


class KernelBlend:
    """Sums of what networks answered, on the time grid of the first.

    `runs` are those that the blend has weights of, in its order; framewise outputs take as many times the memory.
    classes_of: what runs know that do not know all `classes`. room: bytes that frames may take; where those of all
    recordings would take more, so many together become one, the strongest, and `notes` says so.
    """

    def __init__(
        self, test: KernelTest, classes: Sequence[str], prior: np.ndarray, blend: Blend | None = None,
        runs: Sequence[str] = ("",), classes_of: Mapping[str, Sequence[str]] | None = None, room: float = math.inf,
    ):  # fmt: skip
        self.test, self.classes, self.prior = test, tuple(classes), np.asarray(prior, np.float32)
        self.blend, self.runs = blend or Blend(), tuple(runs)
        n, k = len(test.clips), len(self.classes)
        place = {c: i for i, c in enumerate(self.classes)}
        self.columns = {run: np.array([place[c] for c in own]) for run, own in (classes_of or {}).items()}
        self.knows = {run: np.isin(np.arange(k), self.columns.get(run, np.arange(k))) for run in self.runs}
        weights = zip(self.runs, run_weights(self.blend, len(self.runs), k), strict=True)
        self.of_run = {run: own * self.knows[run] for run, own in weights}
        self.heard = {run: np.zeros(n) for run in self.runs}  # sums of shares: 1 is the whole run, heard once
        self.clipwise = {run: np.zeros((n, k)) for run in self.runs}
        self.frames: dict[str, list[np.ndarray | None]] = {run: [None] * n for run in self.runs}
        self.frame_weight = {run: np.zeros(n) for run in self.runs}
        self.timebase: TimeBase | None = None
        self.room, self.notes = room, []
        self.together, self.finest = 1, self.timebase  # so many frames become one, of those on this grid

    @property
    def answered(self) -> np.ndarray:
        """Which recordings any network has answered, (N,) booleans."""
        return sum(self.heard.values()) > 0

    def add(self, index: Sequence[int], found: Predictions, share: float = 1.0, run: str = "") -> list[int]:
        """`found` are the recordings at `index`, `share` is that of the network in its run; unreadable ones add
        nothing, nor do answers that are no numbers, whose recordings are returned."""
        if found.framewise_output is not None:
            self.timebase = self.timebase or self._with_room(found.timebase)
        broken = []
        for row, i in enumerate(index):
            if found.unreadable[row]:
                continue
            frames = found.framewise_output[row] if found.framewise_output is not None else None
            said = [values for values in (found.clipwise_output[row], frames) if values is not None]
            if not all(np.isfinite(values).all() for values in said):
                broken.append(i)
                continue
            self.heard[run][i] += share
            self.clipwise[run][i] += share * self._wide(found.clipwise_output[row], run)
            if frames is not None:
                self._add_frames(i, self._wide(frames, run), found.timebase, share, run)
        return broken

    def _with_room(self, grid: TimeBase) -> TimeBase:
        """The grid of the frames that are kept: that of the first network, or a coarser one."""
        needed = frame_bytes(self.test.seconds, grid, len(self.classes), len(self.runs))
        if needed <= self.room:
            return grid
        self.finest = grid
        self.together = max(1, min(math.ceil(needed / self.room), int(COARSEST / grid.frame_seconds)))
        kept = grid.pooled(self.together)
        self.notes.append(
            f"the frames of all recordings would take {needed / 1e9:.1f} GB, and {self.room / 1e9:.1f} are free for "
            f"them: of {self.together} together the strongest is kept, every {kept.frame_seconds:.3g} s"
        )
        return kept

    def _wide(self, values: np.ndarray, run: str) -> np.ndarray:
        """(..., own classes) of a run -> (..., K), 0 where it knows nothing."""
        if run not in self.columns:
            return values
        out = np.zeros((*values.shape[:-1], len(self.classes)), values.dtype)
        out[..., self.columns[run]] = values
        return out

    def _add_frames(self, i: int, frames: np.ndarray, grid: TimeBase, share: float, run: str):
        if self.together > 1 and grid == self.finest:
            frames = np.maximum.reduceat(frames, np.arange(0, len(frames), self.together), axis=0)
            grid = self.timebase
        known = next((f[i] for f in self.frames.values() if f[i] is not None), None)
        if grid != self.timebase or (known is not None and len(known) != len(frames)):
            frames = on_grid(frames, grid, self.timebase, None if known is None else len(known))
        more = np.float32(share) * frames
        if self.frames[run][i] is None:
            self.frames[run][i] = more
        else:
            self.frames[run][i] += more
        self.frame_weight[run][i] += share

    def predictions(self) -> Predictions:
        """What is known now; recordings that nobody answered hold the prior and count as unreadable."""
        answered = self.answered
        clipwise = np.where(answered[:, None], self._clips(), self.prior).astype(np.float32)
        frames = None
        if self.timebase is not None:
            frames = tuple(self._frames(i) for i in range(len(answered)))
        return self._predictions(clipwise, ~answered, frames, self.timebase)

    def _clips(self) -> np.ndarray:
        """(N, K) the blend of the runs' clip outputs; of recordings that nobody answered anything."""
        means = []
        for run, heard in self.heard.items():
            mean = self.clipwise[run] / np.where(heard > 0, heard, 1)[:, None]
            if self.blend.mean == "rank":  # among the recordings that the run answered
                mean[heard > 0] = ranks(mean[heard > 0])
            means.append(mean)
        return self._joined(self.runs, means, [heard[:, None] for heard in self.heard.values()])

    def _frames(self, i: int) -> np.ndarray:
        """(T, K) of a recording; where nobody answered one frame of the prior."""
        runs = [run for run, frames in self.frames.items() if frames[i] is not None]
        if not runs:
            return self.prior[None]
        shares = [np.float32(self.frame_weight[run][i]) for run in runs]
        sums = [self.frames[run][i] for run in runs]
        out = np.empty(sums[0].shape, np.float32)
        for begin in range(0, len(out), AT_ONCE):  # joined they take many times the memory
            part = slice(begin, begin + AT_ONCE)
            out[part] = self._joined(runs, [s[part] / share for s, share in zip(sums, shares, strict=True)], shares)
        return out

    def _joined(self, runs: Sequence[str], means: list[np.ndarray], shares: list[np.ndarray]) -> np.ndarray:
        """The blend of runs of which `shares` were heard; in a class where none of them has weight all are alike."""
        before, after = self.blend.transforms()
        shares = [np.minimum(share, 1) * self.knows[run] for run, share in zip(runs, shares, strict=True)]
        weights = [share * self.of_run[run] for run, share in zip(runs, shares, strict=True)]
        nothing = sum(weights) == 0
        weights = [np.where(nothing, share, w) for w, share in zip(weights, shares, strict=True)]
        total = np.maximum(sum(weights), np.finfo(np.float32).tiny)
        mixed = after(self.blend.join([before(mean) for mean in means], [w / total for w in weights]))
        return np.where(sum(weights) > 0, mixed, self.prior).astype(means[0].dtype)

    def fallback(self) -> Predictions:
        """The prior at every second of every recording, as if it had been heard."""
        lengths = np.maximum(1, np.ceil(self.test.seconds)).astype(int)
        prior = np.array([float(f"{p:.4g}") for p in self.prior])  # short texts are written and read faster
        frames = tuple(np.broadcast_to(prior, (n, len(prior))) for n in lengths)
        clipwise = np.tile(prior, (len(self.test.clips), 1))
        return self._predictions(clipwise, np.zeros(len(lengths), bool), frames, PRIOR_GRID)

    def shares(self) -> dict[str, dict[str, float]]:
        """Say how much of the answers each run gave, beside the weight that was chosen for it.

        {run: {"weight": as chosen, "share": of the answers given by now}}, means over classes (and recordings).
        """
        all_weights = np.maximum(sum(self.of_run.values()), np.finfo(float).tiny)
        chosen = {run: w / all_weights for run, w in self.of_run.items()}
        answered = self.answered
        weights = {run: np.minimum(self.heard[run][answered, None], 1) * w for run, w in self.of_run.items()}
        total = np.maximum(sum(weights.values()), np.finfo(float).tiny)
        share = {run: float((w / total).mean()) if len(w) else 0.0 for run, w in weights.items()}
        return {run: {"weight": float(chosen[run].mean()), "share": share[run]} for run in self.runs}

    def _predictions(self, clipwise, unreadable, frames, timebase) -> Predictions:
        ids = np.array([clip.clip_id for clip in self.test.clips], dtype=str)
        return Predictions(
            ids, self.classes, clipwise, np.full(len(ids), TEST_FOLD), unreadable, framewise_output=frames,
            timebase=timebase,
        )  # fmt: skip


def frame_bytes(seconds: Sequence[float], grid: TimeBase, n_classes: int, n_runs: int) -> float:
    """Bytes that the frames of recordings of so many seconds take, with their blend and its rows."""
    return float(np.ceil(np.asarray(seconds) / grid.frame_seconds).sum()) * n_classes * 4 * (n_runs + BESIDE)


def hearing_bytes(seconds: float, longest: float, grid: TimeBase, n_classes: int, n_networks: int) -> float:
    """Bytes that frames of so many networks, or hearings, take while recordings of so many seconds are heard together.

    Each network's joined frames; of the longest recording its windows before they are joined, and what they become.
    """
    frames = seconds * n_networks + longest * (OPEN * n_networks + 1)
    return frames / grid.frame_seconds * n_classes * 4


def run_weights(blend: Blend, n_runs: int, n_classes: int) -> np.ndarray:
    """Spread given weights over runs and classes.

    (R, K) weights of the runs; a number of them that fits neither runs nor classes is an error.
    """
    if len(blend.weights) not in (0, n_runs):
        raise ValueError(f"the blend has weights of {len(blend.weights)} runs, there are {n_runs}")
    weights = np.array(blend.weights, float) if len(blend.weights) else np.ones(n_runs)
    if weights.ndim == 2 and weights.shape[1] != n_classes:
        raise ValueError(f"the blend has weights of {weights.shape[1]} classes, the runs know {n_classes}")
    return np.broadcast_to(weights.reshape(n_runs, -1), (n_runs, n_classes))


def on_grid(frames: np.ndarray, grid: TimeBase, wanted: TimeBase, length: int | None = None) -> np.ndarray:
    """Read framewise answers at the frames of another grid.

    (T, K) on `grid` -> (length or as long as it sounds, K) on `wanted`: at each middle, what was there.
    """
    step, wanted_step = grid.frame_samples / grid.sample_rate, wanted.frame_samples / wanted.sample_rate
    length = length or max(1, round(len(frames) * step / wanted_step))
    index = ((np.arange(length) + 0.5) * wanted_step / step).astype(int)
    return frames[np.minimum(index, len(frames) - 1)]

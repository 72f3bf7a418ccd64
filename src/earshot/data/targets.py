"""What a crop of a clip is to answer: by the events heard in it, or by the clip's labels where nobody wrote them down.

| the clip | `data.targets=events`, `data.crop=box` | `data.frame_targets` |
|---|---|---|
| is annotated | the events of the crop; a class without one is absent, or masked if in `unknown_labels` | the same |
| is, and names a class as label and as unknown, without an event | its label, wherever the crop lies | masked |
| is not, and has no row | the clip's labels, wherever the crop lies | masked |
| is not, and has some rows | the crop's events, others absent; a crop without any: masked | masked |

`labels.annotated_clips` says which is which.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from earshot.config import DataConfig
from earshot.data.labels import crop_targets, frame_targets
from earshot.data.prepared import PreparedData
from earshot.sound.timebase import TimeBase


class CropTargets:
    """Targets and masks of crops of N prepared clips; times are seconds in the recording."""

    def __init__(self, prepared: PreparedData, data: DataConfig, labels: tuple[np.ndarray, np.ndarray] | None = None):
        """labels: (target, mask) of the clips, (N, K) each, where they are not the prepared ones (shuffled)."""
        self.prepared, self.data = prepared, data
        self.target, self.mask = labels or (prepared.target, prepared.mask)
        self.from_events = data.crop == "box" or data.targets == "events"
        self.annotated, clips, classes = prepared.annotated, prepared.clips, list(prepared.classes)
        self.unknown: dict[int, np.ndarray] = {}  # of annotated clips: (K,) classes that nobody can tell of them
        if data.mask_unknown and "unknown_labels" in clips:
            texts = clips.unknown_labels.fillna("").astype(str)
            named = {i: texts.iloc[i].split() for i in np.flatnonzero((texts != "").to_numpy() & self.annotated)}
            self.unknown = {i: np.isin(classes, names) for i, names in named.items() if names}
        self.weak: dict[int, np.ndarray] = {}  # of those: (K,) classes that the clip holds, nobody says when
        names = np.zeros(0, str) if prepared.events is None else prepared.events.filename.to_numpy(str)
        ids = prepared.clips.clip_id.to_numpy(str)
        self.rows = np.stack([np.searchsorted(names, ids, side) for side in ("left", "right")], axis=1)
        for i, unknown in self.unknown.items():
            timed = np.isin(classes, self.events(i).event_label) if self.rows[i, 0] < self.rows[i, 1] else False
            if (weak := unknown & (self.target[i] > 0) & ~timed).any():
                self.weak[i] = weak

    def events(self, index: int) -> pd.DataFrame:
        """The rows of a clip in the event table, those of negative boxes among them."""
        first, stop = self.rows[index]
        return self.prepared.events.iloc[first:stop]

    def of_crop(
        self, index: int, start: float, end: float, only_annotated: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The target of a crop and which of its classes are known, float32 (K,) each; `only_annotated`: classes without
        a statement are masked."""
        has_rows = self.rows[index, 0] < self.rows[index, 1]
        if not self.from_events or not (has_rows or self.annotated[index]):
            return self.target[index].astype(np.float32), self.mask[index].astype(np.float32)
        target, mask = crop_targets(
            self.events(index), self.prepared.classes, start, end, self.data.min_overlap_seconds, only_annotated
        )
        if not (self.annotated[index] or only_annotated or target.any()):
            mask = np.zeros_like(mask)  # some rows, but none here: what is heard here nobody said
        if index in self.unknown:
            mask = np.where(self.unknown[index] & (target == 0), np.float32(0), mask)
        if index in self.weak:
            target = np.where(self.weak[index], self.target[index], target).astype(np.float32)
            mask = np.where(self.weak[index], self.mask[index], mask).astype(np.float32)
        return target, mask

    def of_frames(self, index: int, start: float, timebase: TimeBase, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the target of each frame of a crop and which classes are known.

        (target (T, K), mask (K,)) of `n_frames` frames from second `start` on, float32.
        """
        known = np.full(len(self.prepared.classes), self.annotated[index], np.float32)
        frames = frame_targets(
            self.events(index), self.prepared.classes, start, timebase, n_frames, self.data.frame_margin_seconds
        )
        if index in self.unknown:
            known = np.where(self.unknown[index] & ~frames.any(axis=0), np.float32(0), known)
        return frames, known

"""The answers that predictions are scored by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from earshot.metrics import anomalies as anomaly_metrics
from earshot.prediction.predictions import Predictions


@dataclass(frozen=True)
class Truth:
    """The answers to N clips, in the order of the predictions that they score."""

    target: np.ndarray  # (N, K) in {0, 1}
    events: pd.DataFrame | None = None
    durations: np.ndarray | None = None  # (N,) seconds
    clips: pd.DataFrame | None = None  # N rows of the clip table: device, machine, section, domain, is_anomaly, ...
    annotated: np.ndarray | None = None  # (N,) bool: `events` has all that is heard in the clip; None: in every clip

    def take(self, index) -> Truth:
        """The answers to the clips at `index` (integers or a boolean mask), in that order."""
        if np.asarray(index).dtype == bool and np.all(index):
            return self
        durations = None if self.durations is None else self.durations[index]
        clips = None if self.clips is None else self.clips.iloc[np.arange(len(self.target))[index]]
        annotated = None if self.annotated is None else self.annotated[index]
        return Truth(self.target[index], self.events, durations, clips, annotated)

    def in_time(self, found: Predictions) -> tuple[Predictions, pd.DataFrame] | None:
        """Predictions and true events of the annotated clips, which can be scored in time; None where no such clip has
        an event or frames.

        What a clip without annotation holds is unknown: scores in time leave it out. So do they with the outputs of a
        clip's `unknown_labels`, unless it has events of them: they count as silent.
        """
        if self.events is None or found.framewise_output is None:
            return None
        found = found if self.annotated is None else found.take(self.annotated)
        events = self.events[self.events.filename.isin(set(found.clip_ids.tolist()))]
        return (self._without_unknown(found, events), events) if len(events) else None

    def _without_unknown(self, found: Predictions, events: pd.DataFrame) -> Predictions:
        """Predictions with frames of 0 for the classes that nobody can tell of a clip."""
        if self.clips is None or "unknown_labels" not in self.clips:
            return found
        texts = dict(zip(self.clips.clip_id.astype(str), self.clips.unknown_labels.fillna("").astype(str), strict=True))
        timed = set(zip(events.filename.astype(str), events.event_label, strict=True))
        frames = list(found.framewise_output)
        for i, clip_id in enumerate(found.clip_ids.tolist()):
            doubted = {name for name in texts.get(clip_id, "").split() if (clip_id, name) not in timed}
            unknown = [k for k, name in enumerate(found.classes) if name in doubted]
            if unknown:
                frames[i] = frames[i].copy()
                frames[i][:, unknown] = 0
        return replace(found, framewise_output=tuple(frames))


def anomaly_scores_of(found: Predictions, truth: Truth) -> np.ndarray:
    """Anomaly score of each clip, (N,): the predictions' own, else how unsure the network is of a clip's own class."""
    if found.score is not None:
        return np.asarray(found.score, np.float64)
    return anomaly_metrics.own_class_scores(found.clipwise_output, truth.target.argmax(axis=1))

"""PSDS: how well frame scores find sound events, over all thresholds at once. Computed by sed_scores_eval.

It agrees with its authors' library (0.0.4), which computes it, to 1e-12: `check_sed` in tests/reference_metrics.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from earshot.messages import install_line, plural
from earshot.metrics.events import check_durations, check_known_files, checked_events, merge_overlapping_events

# The two scenarios of DCASE Task 4, as `psds(..., **PSDS1)`.
PSDS1 = {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0, "alpha_st": 1.0}
PSDS2 = {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0}


def psds(
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    reference: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    dtc_threshold: float,
    gtc_threshold: float,
    cttc_threshold: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    max_efpr: float = 100.0,
) -> dict:
    """Compute the polyphonic sound detection score of events or frame scores.

    {"psds": float, "class_wise": {label: float}, "skipped": [classes without a reference event]}.

    `scores` {filename: (timestamps (T + 1,), scores (T, K))}: the seconds where the frames begin and the last
    one ends, and a column for each of `classes`. `max_efpr` is per hour. Overlapping reference events of one
    class are merged first. Exact over all thresholds: Ebbers et al., "Threshold independent evaluation of
    sound event detection scores", ICASSP 2022.
    """
    library_psds, frame_table = _sed_scores_eval()
    classes = list(classes)
    reference = merge_overlapping_events(checked_events(reference, "reference", classes))
    _check_psds_files(reference, scores, durations)
    scored = [label for label in classes if (reference["event_label"] == label).any()]
    if len(scored) < (1 if alpha_ct == 0 else 2):
        raise ValueError(f"the reference has events of {scored} only: PSDS needs a class, alpha_ct needs two")
    columns = [classes.index(label) for label in scored]
    frames, events = {}, {name: [] for name in scores}
    for name, (timestamps, values) in scores.items():
        timestamps, values = _frames(name, timestamps, values, len(classes))
        frames[name] = frame_table(values[:, columns], timestamps, scored)
    for row in reference.itertuples(index=False):
        events[row.filename].append((row.onset, row.offset, row.event_label))
    value, class_wise, _, _ = library_psds(
        frames, events, dict(durations), dtc_threshold=dtc_threshold, gtc_threshold=gtc_threshold,
        cttc_threshold=cttc_threshold, alpha_ct=alpha_ct, alpha_st=alpha_st, max_efpr=max_efpr,
    )  # fmt: skip
    class_wise = {label: float(class_wise[label]) for label in scored}
    return {"psds": float(value), "class_wise": class_wise, "skipped": sorted(set(classes) - set(scored))}


def _check_psds_files(reference: pd.DataFrame, scores: Mapping, durations: Mapping) -> None:
    if (reference["offset"] <= reference["onset"]).any():
        raise ValueError("the reference has an event of zero length: PSDS measures overlap, drop it")
    check_durations(durations)
    check_known_files(reference, scores, "scores")
    if set(scores) != set(durations):
        differing = sorted(set(scores) ^ set(durations))
        raise ValueError(f"scores and durations must name the same files; only one names {differing[:5]}")


def _frames(name: str, timestamps, values, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of one file, checked: (T + 1,) rising seconds and (T, K) finite scores."""
    timestamps, values = np.asarray(timestamps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != n_classes or not len(values):
        raise ValueError(f"{name}: scores {values.shape} for {plural(n_classes, 'classes')}: they must be (T, K)")
    if timestamps.shape != (len(values) + 1,) or not (np.diff(timestamps) > 0).all():
        raise ValueError(
            f"{name}: {timestamps.shape} timestamps for {len(values)} frames: give the rising seconds where "
            f"frames begin and the one where the last ends, ({len(values) + 1},)"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: a score is not finite")
    return timestamps, values


def _sed_scores_eval():
    """PSDS and the frame table of the authors' library, or a ValueError that says how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dcase_util warns of pkg_resources
            from sed_scores_eval.base_modules.scores import create_score_dataframe
            from sed_scores_eval.intersection_based import psds as library_psds
    except ImportError as error:
        raise ValueError(f"PSDS needs sed_scores_eval: {install_line('scores')}") from error
    return library_psds, create_score_dataframe

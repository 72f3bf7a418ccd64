"""Scores of sound events: tables of events against tables. Frame scores against a table (PSDS) are in psds.py.

Conventions. A table of events is a DataFrame with the columns filename, onset, offset, event_label, in
seconds; a row with a filename only (DCASE lists files without events so) is no event. Results are nested
dicts with sed_eval's names: `result["overall"]["f_measure"]["f_measure"]`. Wrong input is a ValueError.

| function | agrees with | to | shown by |
|---|---|---|---|
| event_based_f1 | sed_eval 0.2.1 EventBasedMetrics | 1e-12 | test_events_equal_sed_eval, check_sed |
| segment_based_f1 | sed_eval 0.2.1 SegmentBasedMetrics | 1e-12 | test_segments_equal_sed_eval, check_sed |

The tests are in tests/test_event_metrics.py, `check_sed` in tests/reference_metrics.py. Kept from sed_eval
because published numbers have it: precision is NaN without any estimated event, and a class with NaN is left
out of the class average, which flatters a silent system (`empty_system_output_handling="zero_score"`, as in
DCASE Task 4, counts 0); an insertion in a class without reference events is divided by 2e-16; a segment is
found by floor(onset / segment) in floating point, so that 0.3 s lies in the third segment of 0.1 s, not the
fourth. Where several maximum matchings exist, F1 is the same for all but the number of substitutions is not:
it is sed_eval's as long as scipy visits the events in its order (on 14,000 random tables with scipy 1.17).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

COLUMNS = ["filename", "onset", "offset", "event_label"]

_EPS = np.spacing(1)  # what sed_eval adds to a count before it divides
_NO_EVENTS = np.zeros((3, 0))


# ---------------------------------------------------------------- tables


def checked_events(table: pd.DataFrame, what: str, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """The events of a table, checked, in the table's order, seconds as floats."""
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(f"{what} has no column {missing}: it needs {COLUMNS}, seconds and names")
    table = table[COLUMNS]
    table = table[table[["onset", "offset", "event_label"]].notna().any(axis=1)].reset_index(drop=True)
    table = table.astype({"onset": np.float64, "offset": np.float64})
    wrong = ~((table["onset"] >= 0) & (table["offset"] >= table["onset"]) & np.isfinite(table["offset"]))
    if wrong.any():
        row = table[wrong].iloc[0]
        raise ValueError(f"{what}: {row.to_dict()} needs 0 <= onset <= offset, in seconds")
    if table[["filename", "event_label"]].isna().any().any():
        raise ValueError(f"{what} has an event without filename or label")
    if classes is not None:
        unknown = sorted(set(table["event_label"]) - set(classes))
        if unknown:
            raise ValueError(f"{what} has unknown labels {unknown}; the classes are {list(classes)}")
    return table


def _both(reference, estimated, classes) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Both tables, checked, and the classes: those given, or the labels of the reference, sorted."""
    if classes is None:
        classes = sorted(set(checked_events(reference, "reference")["event_label"]))
    reference = checked_events(reference, "reference", classes)
    if not len(reference):
        raise ValueError("the reference has no events: nothing can be scored against it")
    return reference, checked_events(estimated, "estimated", classes), list(classes)


def check_known_files(table: pd.DataFrame, known: Mapping, where: str) -> None:
    unknown = sorted(set(table["filename"]) - set(known))
    if unknown:
        raise ValueError(f"{where} lack the files {unknown[:5]}; they have {len(known)}: {sorted(known)[:3]}")


def check_durations(durations: Mapping[str, float]) -> None:
    for name, seconds in durations.items():
        if not 0 <= seconds < np.inf:
            raise ValueError(f"the duration of {name} is {seconds}: it must be a number of seconds")


def merge_overlapping_events(table: pd.DataFrame) -> pd.DataFrame:
    """Events of one file and class that overlap or touch, joined to one; sorted by file, class and onset.

    PSDS needs this of its reference: an overlapping pair can otherwise never be detected in full (DESED).
    """
    keys = ["filename", "event_label"]
    table = checked_events(table, "table").sort_values([*keys, "onset"], kind="stable")
    table["reached"] = table.groupby(keys)["offset"].cummax()
    before = table.groupby(keys)["reached"].shift()
    table["number"] = (before.isna() | (table["onset"] > before)).cumsum()
    merged = table.groupby("number").agg({**dict.fromkeys(keys, "first"), "onset": "min", "offset": "max"})
    return merged[COLUMNS].reset_index(drop=True)


# ---------------------------------------------------------------- event-based


def event_based_f1(
    reference: pd.DataFrame,
    estimated: pd.DataFrame,
    onset_collar: float = 0.2,
    offset_collar: float | None = None,
    percentage_of_length: float = 0.2,
    check_onset: bool = True,
    check_offset: bool = True,
    matching: str = "optimal",
    classes: Sequence[str] | None = None,
    empty_system_output_handling: str | None = None,
) -> dict:
    """Match found events with true ones and score them, as sed_eval does.

    {"overall", "class_wise", "class_wise_average"}: F-measure and error rates of events.

    An estimated event hits a reference event of its file and label when the onsets differ by at most
    `onset_collar` seconds and the offsets by at most the larger of `offset_collar` (default: the same) and
    `percentage_of_length` times the reference event. `matching` pairs as many as possible ("optimal") or each
    reference event with the first that fits ("greedy", kept for comparison with old results).
    Mesaros et al., "Metrics for polyphonic sound event detection", Applied Sciences 2016.
    """
    if not (check_onset or check_offset):
        raise ValueError("check_onset and check_offset are both off: then nothing about time is compared")
    if matching not in _MATCHINGS:
        raise ValueError(f"unknown matching {matching!r}; there are {sorted(_MATCHINGS)}")
    if onset_collar < 0 or percentage_of_length < 0:
        raise ValueError(f"collar {onset_collar}, percentage {percentage_of_length}: neither may be negative")
    reference, estimated, classes = _both(reference, estimated, classes)
    offset_collar = onset_collar if offset_collar is None else offset_collar
    collars = (onset_collar if check_onset else None, offset_collar if check_offset else None)
    hits, substitutions = np.zeros(len(classes), dtype=int), 0
    ref_files, est_files = _by_file(reference, classes), _by_file(estimated, classes)
    for filename, ref in ref_files.items():
        est = est_files.get(filename, _NO_EVENTS)
        i, j = _pairs(ref, est, *collars, percentage_of_length)
        same = ref[2][i] == est[2][j]
        matched_i, matched_j = _MATCHINGS[matching](i[same], j[same])
        hits += np.bincount(ref[2][matched_i].astype(int), minlength=len(classes))
        left = ~np.isin(i, matched_i) & ~np.isin(j, matched_j)
        substitutions += len(_first_fit(i[left], j[left])[0])
    n_ref, n_est = _counts(reference, classes), _counts(estimated, classes)
    errors = (*(int((n - hits).sum()) - substitutions for n in (n_ref, n_est)), substitutions)
    return _result(classes, hits, n_ref, n_est, errors, _zero_score(empty_system_output_handling))


def event_counts(
    reference: pd.DataFrame, estimated: pd.DataFrame, files: Sequence[str], classes: Sequence[str],
    collar: float = 0.2, percentage_of_length: float = 0.2,
) -> np.ndarray:  # fmt: skip
    """Count what each file adds to `event_based_f1`: (3, N, K) hits, true and found events; the rest as there."""
    reference, estimated, classes = _both(reference, estimated, classes)
    place = {str(name): n for n, name in enumerate(files)}
    check_known_files(pd.concat([reference, estimated]), place, "the files")
    counts = np.zeros((3, len(files), len(classes)), dtype=int)
    ref_files, est_files = _by_file(reference, classes), _by_file(estimated, classes)
    for row, tables in ((1, ref_files), (2, est_files)):
        for filename, events in tables.items():
            counts[row, place[filename]] = np.bincount(events[2].astype(int), minlength=len(classes))
    for filename, ref in ref_files.items():
        est = est_files.get(filename, _NO_EVENTS)
        i, j = _pairs(ref, est, collar, collar, percentage_of_length)
        same = ref[2][i] == est[2][j]
        matched, _ = _maximum(i[same], j[same])
        counts[0, place[filename]] = np.bincount(ref[2][matched].astype(int), minlength=len(classes))
    return counts


def _counts(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    return table["event_label"].value_counts().reindex(classes, fill_value=0).to_numpy()


def _by_file(table: pd.DataFrame, classes: list[str]) -> dict[str, np.ndarray]:
    """{filename: (3, events) of onset, offset, class index}, events in the table's order."""
    index = table["event_label"].map({label: k for k, label in enumerate(classes)}).astype(np.float64)
    values = np.stack([table["onset"], table["offset"], index])
    return {name: values[:, rows] for name, rows in table.groupby("filename", sort=False).indices.items()}


def _pairs(ref, est, onset_collar, offset_collar, percentage_of_length) -> tuple[np.ndarray, np.ndarray]:
    """Indices (reference i, estimated j) of the pairs of events whose times agree, sorted by i, then j.

    Only events near a collar are ever compared: a sort and two binary searches instead of all pairs.
    """
    checks = []  # (row of the arrays, greatest distance for each reference event)
    if onset_collar is not None:
        checks.append((0, np.full(ref.shape[1], onset_collar)))
    if offset_collar is not None:
        checks.append((1, np.maximum(offset_collar, percentage_of_length * (ref[1] - ref[0]))))
    row, reach = checks[0]
    order = np.argsort(est[row], kind="stable")
    # a little more than the reach, so that rounding in the sum loses no pair; the exact test follows
    first = np.searchsorted(est[row][order], ref[row] - reach - 1e-9, side="left")
    count = np.searchsorted(est[row][order], ref[row] + reach + 1e-9, side="right") - first
    i = np.repeat(np.arange(len(count)), count)
    j = order[np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())]
    for row, reach in checks:
        keep = np.abs(ref[row][i] - est[row][j]) <= reach[i]
        i, j = i[keep], j[keep]
    order = np.lexsort((j, i))
    return i[order], j[order]


def _first_fit(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, sorted -> those in which each reference event takes the first estimated event still free."""
    chosen, taken = {}, set()  # reference event -> estimated event
    for ref, est in zip(i.tolist(), j.tolist()):
        if ref not in chosen and est not in taken:
            chosen[ref] = est
            taken.add(est)
    return np.array(list(chosen), dtype=int), np.array(list(chosen.values()), dtype=int)


def _maximum(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, sorted -> a largest set of pairs that uses each event once (Hopcroft-Karp)."""
    if not len(i):
        return i, j
    # estimated events in order of first appearance: the order in which sed_eval's matching visits them
    events, first, inverse = np.unique(j, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    graph = csr_array((np.ones(len(i)), (rank[inverse], i)), shape=(len(events), i.max() + 1))
    partner = maximum_bipartite_matching(graph, perm_type="column")[rank]
    return partner[partner >= 0], events[partner >= 0]


_MATCHINGS = {"optimal": _maximum, "greedy": _first_fit}


# ---------------------------------------------------------------- segment-based


def segment_based_f1(
    reference: pd.DataFrame,
    estimated: pd.DataFrame,
    durations: Mapping[str, float] | None,
    segment_seconds: float = 1.0,
    classes: Sequence[str] | None = None,
    empty_system_output_handling: str | None = None,
) -> dict:
    """Score found events segment by segment, as sed_eval does.

    {"overall", "class_wise", "class_wise_average"}: F-measure, error rates and accuracies of segments.

    `durations` {filename: seconds} says which files are scored and how much of each; None takes the files of
    the tables up to their last offset. A segment is active when an event touches it.
    """
    if not segment_seconds > 0:
        raise ValueError(f"segment_seconds is {segment_seconds}: a segment needs a length")
    reference, estimated, classes = _both(reference, estimated, classes)
    if durations is None:
        durations = pd.concat([reference, estimated]).groupby("filename")["offset"].max().to_dict()
    check_durations(durations)
    check_known_files(pd.concat([reference, estimated]), durations, "durations")
    truth, active = (
        np.concatenate([
            _roll(files.get(name, _NO_EVENTS), seconds, segment_seconds, len(classes))
            for name, seconds in durations.items()
        ])
        for files in (_by_file(reference, classes), _by_file(estimated, classes))
    )  # fmt: skip
    n_ref, n_est, hits = truth.sum(axis=1), active.sum(axis=1), (truth & active).sum(axis=1)
    # in one segment a missed and a false class make one substitution, only the rest is deleted or inserted
    deletions, insertions = np.maximum(n_ref - n_est, 0).sum(), np.maximum(n_est - n_ref, 0).sum()
    errors = (deletions, insertions, (np.minimum(n_ref, n_est) - hits).sum())
    zero = _zero_score(empty_system_output_handling)
    result = _result(classes, (truth & active).sum(0), truth.sum(0), active.sum(0), errors, zero)
    result["overall"]["accuracy"] = _accuracy(truth, active)
    for k, label in enumerate(classes):
        result["class_wise"][label]["accuracy"] = _accuracy(truth[:, k], active[:, k])
    result["class_wise_average"] = _average(result["class_wise"])
    return result


def _roll(events: np.ndarray, seconds: float, segment_seconds: float, n_classes: int) -> np.ndarray:
    """(3, events) -> (segments, K) booleans: does an event of the class touch the segment?"""
    roll = np.zeros((int(np.ceil(seconds / segment_seconds)), n_classes), dtype=bool)
    first = np.floor(events[0] / segment_seconds).astype(int)
    end = np.ceil(events[1] / segment_seconds).astype(int)
    for start, stop, k in zip(first, end, events[2].astype(int)):
        roll[start:stop, k] = True
    return roll


# ---------------------------------------------------------------- sed_eval's ratios


def _result(classes, hits, n_ref, n_est, errors, zero_score: bool) -> dict:
    """(K,) counts, and overall (deletions, insertions, substitutions) -> the dicts of sed_eval."""
    class_wise = {
        label: {
            "f_measure": _f_measure(hits[k], n_ref[k], n_est[k], zero_score),
            "error_rate": _error_rate(n_ref[k], n_ref[k] - hits[k], n_est[k] - hits[k]),
            "count": {"Nref": float(n_ref[k]), "Nsys": float(n_est[k])},
        }
        for k, label in enumerate(classes)
    }
    overall = {
        "f_measure": _f_measure(hits.sum(), n_ref.sum(), n_est.sum(), zero_score),
        "error_rate": _error_rate(n_ref.sum(), *errors),
    }
    return {"overall": overall, "class_wise": class_wise, "class_wise_average": _average(class_wise)}


def _zero_score(handling: str | None) -> bool:
    if handling not in (None, "zero_score"):
        raise ValueError(f"empty_system_output_handling is {handling!r}; it may be None or 'zero_score'")
    return handling == "zero_score"


def _f_measure(hits, n_ref, n_est, zero_score: bool) -> dict[str, float]:
    precision = hits / n_est if n_est else (0.0 if zero_score else np.nan)
    recall = hits / n_ref if n_ref else np.nan
    f_measure = 0.0 if precision == recall == 0 else 2 * precision * recall / (precision + recall)
    return {"f_measure": float(f_measure), "precision": float(precision), "recall": float(recall)}


def _error_rate(n_ref, deletions, insertions, substitutions=None) -> dict[str, float]:
    """Rates per reference event; overall, a wrong label is one substitution, not two errors."""
    counts = {"deletion_rate": deletions, "insertion_rate": insertions}
    if substitutions is not None:
        counts["substitution_rate"] = substitutions
    rates = {name: float(count / (n_ref + _EPS)) for name, count in counts.items()}
    return {"error_rate": sum(rates.values()), **rates}


def _accuracy(truth: np.ndarray, active: np.ndarray) -> dict[str, float]:
    """Shares of segments that are right: of all, of the active, of the silent ones, and the mean of those."""
    sensitivity = float((truth & active).sum() / (truth.sum() + _EPS))
    specificity = float((~truth & ~active).sum() / ((~truth).sum() + _EPS))
    return {
        "accuracy": float((truth == active).sum() / (truth.size + _EPS)),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
    }


def _average(class_wise: dict) -> dict:
    """Mean of every ratio over the classes where it is a number."""
    groups = [group for group in next(iter(class_wise.values())) if group != "count"]
    average = {group: {} for group in groups}
    for group in groups:
        for name in next(iter(class_wise.values()))[group]:
            values = [scores[group][name] for scores in class_wise.values()]
            average[group][name] = float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
    return average

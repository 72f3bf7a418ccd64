"""Checks of our scores against values that other people's code gave (see the README of the reference folder).

Each function takes the folder that holds `metrics/`, checks every case that it finds there by name,
returns how many values it compared, and raises an AssertionError naming the entry that differs or that no
check knows.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.metrics import clips as clip_metrics
from earshot.metrics import events as event_metrics
from earshot.metrics import psds as psds_metrics
from earshot.metrics import urban as urban_metrics

TOLERANCE = 1e-9  # everything here is float64 on both sides; the README would allow 1e-6


def _close(name: str, ours, expected) -> int:
    """Compare one number or list; None in the JSON stands for NaN. Returns how many values were compared."""
    ours, expected = np.asarray(ours, dtype=float), np.asarray(expected, dtype=float)
    assert ours.shape == expected.shape, f"{name}: ours has shape {ours.shape}, expected {expected.shape}"
    assert np.allclose(ours, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True), (
        f"{name}: ours {ours.tolist()}, expected {expected.tolist()}"
    )
    return expected.size


def _left_out(field: str) -> bool:
    return field == "note" or field.endswith(("_note", "_sensitivity"))


# ---------------------------------------------------------------- lwlrap


def check_lwlrap(folder: Path) -> int:
    """Every case of metrics/lwlrap.json: values, weights and, where no scores tie, the per-class values."""
    reference = json.loads((folder / "metrics" / "lwlrap.json").read_text())
    inputs = np.load(folder / "metrics" / "lwlrap_inputs.npz")
    unknown = set(reference) - {"_meta", "cases"}
    assert not unknown, f"lwlrap.json: unknown entries {sorted(unknown)}"
    return sum(
        _check_lwlrap_field(f"lwlrap.json {case} {field}", field, value, fields, inputs, case)
        for case, fields in reference["cases"].items()
        for field, value in fields.items()
        if not _left_out(field)
    )


def _check_lwlrap_field(name, field, expected, fields, inputs, case) -> int:
    truth, scores = inputs[f"{case}_truth"], inputs[f"{case}_scores"]
    facts = {
        "shape": list(scores.shape),
        "dtype_scores": str(scores.dtype),
        "rows_without_positive": int((truth.sum(axis=1) == 0).sum()),
        "rows_all_positive": int((truth.sum(axis=1) == truth.shape[1]).sum()),
        "rows_with_score_ties": sum(len(np.unique(row)) < len(row) for row in scores),
    }
    if field in facts:
        assert facts[field] == expected, f"{name}: the inputs have {facts[field]}, expected {expected}"
        return 1
    if field in ("lwlrap_sklearn_class", "own_exact_value"):
        return _close(name, clip_metrics.lwlrap(truth, scores), expected)
    if field == "own_exact_fraction_ties_count_at_worst_rank":
        return _close(name, clip_metrics.lwlrap(truth, scores), float(Fraction(expected)))
    per_class, weight = clip_metrics.per_class_lwlrap(truth, scores)
    if field == "per_class_weight":
        return _close(name, weight, expected)
    if facts["rows_with_score_ties"] and "numpy" in field:
        return 0  # the NumPy class orders ties by chance: left out by name, see the README
    if field in ("lwlrap_numpy_class", "numpy_class_with_stable_argsort"):
        return _close(name, np.nansum(per_class * weight), expected)
    if field == "per_class_numpy":
        return _close(name, np.where(weight > 0, per_class, 0.0), np.where(weight > 0, expected, 0.0))
    raise AssertionError(f"{name}: no check knows this field")


# ---------------------------------------------------------------- anomalies


def check_asd(folder: Path) -> int:
    """Every section of metrics/asd.json, scored from asd_scores.csv."""
    reference = json.loads((folder / "metrics" / "asd.json").read_text())
    scores = pd.read_csv(folder / "metrics" / "asd_scores.csv", dtype={"section": str})
    unknown = set(reference) - {"_meta", "sections"}
    assert not unknown, f"asd.json: unknown entries {sorted(unknown)}"
    keys = ["machine", "section", "domain"]
    compared = 0
    for entry in reference["sections"]:
        name = "asd.json " + " ".join(entry[key] for key in keys)
        rows = scores[np.logical_and.reduce([scores[key] == entry[key] for key in keys])]
        assert len(rows), f"{name}: asd_scores.csv has no such rows"
        for field, expected in entry.items():
            if field not in keys and not _left_out(field):
                compared += _check_asd_field(f"{name} {field}", field, expected, rows, reference["_meta"])
    return compared


def _check_asd_field(name, field, expected, rows, meta) -> int:
    truth, scores = rows["y_true"].to_numpy(), rows["score"].to_numpy()
    if field == "auc":
        return _close(name, clip_metrics.auc(truth, scores), expected)
    if match := re.fullmatch(r"pauc_(\d+)p(\d+)", field):
        max_fpr = float(f"{match[1]}.{match[2]}")
        return _close(name, clip_metrics.pauc(truth, scores, max_fpr), expected)
    if field in ("precision", "recall", "f1"):
        decided = clip_metrics.precision_recall_f1(truth, scores > meta["threshold"])
        return _close(name, decided[("precision", "recall", "f1").index(field)], expected)
    if field == "raw_partial_area_over_max_fpr":  # undo McClish: 0.5 * (1 + (A - min) / (max - min))
        most, least = meta["max_fpr"], meta["max_fpr"] ** 2 / 2
        area = least + (2 * clip_metrics.pauc(truth, scores, most) - 1) * (most - least)
        return _close(name, area / most, expected)
    if field == "has_ties":
        assert (len(np.unique(scores)) < len(scores)) == expected, f"{name}: expected {expected}"
        return 1
    raise AssertionError(f"{name}: no check knows this field")


# ---------------------------------------------------------------- sound events


def check_sed(folder: Path) -> int:
    """Every sed_eval setting and PSDS scenario of metrics/sed.json, on the tables and scores beside it."""
    reference = json.loads((folder / "metrics" / "sed.json").read_text())
    names = ("reference", "estimated", "durations")
    tables = {name: pd.read_csv(folder / "metrics" / "sed" / f"{name}.tsv", sep="\t") for name in names}
    tables["durations"] = dict(zip(tables["durations"]["filename"], tables["durations"]["duration"]))
    compared = 0
    for section, entries in reference.items():
        if section == "_meta" or _left_out(section):
            continue
        assert section in ("sed_eval", "psds_sed_scores_eval"), f"sed.json {section}: no check knows it"
        for name, expected in entries.items():
            full = f"sed.json {section} {name}"
            if section == "sed_eval":
                compared += _compare(full, _sed_eval_result(full, name, expected, tables), expected)
            else:
                compared += _check_psds(full, expected, tables, folder)
    return compared


def _sed_eval_result(full: str, name: str, expected: dict, tables: dict) -> dict:
    """Our result in the setting that a name such as event_collar0.2_pct0.2_optimal_onset1_offset1 says."""
    reference, estimated, classes = tables["reference"], tables["estimated"], list(expected["class_wise"])
    number = r"(\d+(?:\.\d+)?)"
    if match := re.fullmatch(rf"segment_{number}s(?:_evaluated_length_{number}s)?", name):
        durations = dict.fromkeys(tables["durations"], float(match[2])) if match[2] else None
        return event_metrics.segment_based_f1(reference, estimated, durations, float(match[1]), classes)
    match = re.fullmatch(rf"event_collar{number}_pct{number}_(optimal|greedy)_onset([01])_offset([01])", name)
    assert match, f"{full}: no check can read the parameters in this name"
    return event_metrics.event_based_f1(
        reference,
        estimated,
        onset_collar=float(match[1]),
        percentage_of_length=float(match[2]),
        matching=match[3],
        check_onset=match[4] == "1",
        check_offset=match[5] == "1",
        classes=classes,
    )


def _compare(name: str, ours, expected) -> int:
    """Every leaf of a nested dict; sed_eval has empty groups ("accuracy" of events) where ours has none."""
    if not isinstance(expected, dict):
        return _close(name, ours, expected)
    compared = 0
    for key, value in expected.items():
        if value == {}:
            assert not ours.get(key), f"{name} {key}: expected nothing, ours has {ours[key]}"
            continue
        assert key in ours, f"{name} {key}: ours has only {sorted(ours)}"
        compared += _compare(f"{name} {key}", ours[key], value)
    return compared


def _check_psds(name: str, expected: dict, tables: dict, folder: Path) -> int:
    known = {"psds", "class_wise", "params", "max_efpr"}
    unknown = {field for field in expected if not _left_out(field)} - known
    assert not unknown, f"{name}: no check knows the fields {sorted(unknown)}"
    arrays = np.load(folder / "metrics" / "sed" / "scores.npz")
    scores = {file: (arrays["edges"], arrays[Path(file).stem]) for file in tables["durations"]}
    unscored = set(arrays.files) - {"edges", "classes"} - {Path(file).stem for file in scores}
    assert not unscored, f"{name}: scores.npz has files without a duration: {sorted(unscored)}"
    ours = psds_metrics.psds(
        scores,
        arrays["classes"].tolist(),
        tables["reference"],
        tables["durations"],
        max_efpr=expected["max_efpr"],
        **expected["params"],
    )
    return _compare(name, ours, {field: expected[field] for field in ("psds", "class_wise")})


# ---------------------------------------------------------------- urban sound tags

# what the published code's unstable sort by recall may move; the micro value also by the distance of its two orders
UNSTABLE_CLASS, UNSTABLE_MICRO = 7e-3, 1e-4


def check_sonyc(folder: Path) -> int:
    """Every prediction file of metrics/sonyc.json at both levels, its two orders of ties, and the table of counts."""
    reference = json.loads((folder / "metrics" / "sonyc.json").read_text())
    unknown = {f for f in reference if not _left_out(f)} - {"_meta", "results", "confusion_matrix_fine_truth_table"}
    assert not unknown, f"sonyc.json: unknown entries {sorted(unknown)}"
    annotations = pd.read_csv(folder / "metrics" / "sonyc" / "annotations.csv")
    verified = annotations[(annotations.annotator_id == 0) & (annotations.split == "validate")]
    presence = verified.set_index("audio_filename").filter(regex="_presence$").rename(columns=_without_presence)
    compared = _check_sonyc_counts(reference.get("confusion_matrix_fine_truth_table"))
    for name, entry in reference["results"].items():
        predictions = pd.read_csv(folder / "metrics" / "sonyc" / name).set_index("audio_filename")
        truth = presence.loc[predictions.index]
        for field, expected in entry.items():
            full = f"sonyc.json {name} {field}"
            if field in urban_metrics.LEVELS:
                ours = urban_metrics.evaluate(truth, predictions, field)
                orders = [values["micro"] for values in entry.get("stable_sort_variants", {}).get(field, {}).values()]
                tolerance = max(UNSTABLE_MICRO, np.ptp(orders) if orders else 0.0)
                compared += sum(_check_sonyc_field(f"{full} {k}", k, v, ours, tolerance) for k, v in expected.items())
            elif field == "stable_sort_variants":
                compared += sum(
                    _check_sonyc_order(f"{full} {level} {order}", truth, predictions, level, order, values)
                    for level, orders in expected.items()
                    for order, values in orders.items()
                )
            else:
                assert _left_out(field), f"{full}: no check knows this field"
    return compared


def _without_presence(column: str) -> str:
    return column.removesuffix("_presence")


def _near(name: str, ours: float, expected: float, tolerance: float) -> int:
    assert abs(ours - expected) <= tolerance, f"{name}: ours {ours}, expected {expected} within {tolerance}"
    return 1


def _check_sonyc_field(name: str, field: str, expected, ours: dict, micro_tolerance: float) -> int:
    if _left_out(field):
        return 0
    if field == "class_auprc":
        assert set(expected) == set(ours[field]), f"{name}: ours has the classes {sorted(ours[field])}"
        return sum(_near(f"{name} {c}", ours[field][c], v, UNSTABLE_CLASS) for c, v in expected.items())
    if field in ("macro_auprc", "micro_auprc"):
        return _near(name, ours[field], expected, UNSTABLE_CLASS if field == "macro_auprc" else micro_tolerance)
    exact = {
        "micro_f1_at_0p5": "micro_f1", "threshold_used": "threshold", "TP": "tp", "FP": "fp", "FN": "fn",
        "n_thresholds": "n_thresholds",
    }  # fmt: skip
    assert field in exact, f"{name}: no check knows this field"
    return _close(name, ours[exact[field]], expected)


def _check_sonyc_order(name, truth, predictions, level: str, order: str, expected: dict) -> int:
    """The areas with ties in recall in the order of falling ("desc", ours) or rising ("asc") thresholds."""
    assert order in ("desc", "asc"), f"{name}: no check knows this order"
    assert set(expected) <= {"micro", "macro"}, f"{name}: unknown fields in {sorted(expected)}"
    curves = urban_metrics.class_curves(truth, predictions, level)
    every = np.unique(np.concatenate([c.thresholds for c in curves.values()]))[::-1]
    step = 1 if order == "desc" else -1

    def area(counts):
        return urban_metrics.auprc(*(values[::step] for values in urban_metrics.precision_recall(counts)))

    ours = {
        "micro": area(sum(c.counts_from(every) for c in curves.values())),
        "macro": float(np.mean([area(c.counts(c.thresholds)) for c in curves.values()])),
    }
    if order == "desc":  # what `evaluate` gives
        result = urban_metrics.evaluate(truth, predictions, level)
        assert ours == {"micro": result["micro_auprc"], "macro": result["macro_auprc"]}
    return sum(_close(f"{name} {field}", ours[field], value) for field, value in expected.items())


def _check_sonyc_counts(table: dict | None) -> int:
    """TP, FP, FN of single clips: columns true<i>, trueX, pred<i>, predX in any number."""
    if table is None:
        return 0
    rows = pd.DataFrame(table["rows"], columns=table["columns"])
    truth, predicted = rows.filter(regex=r"^true\d+$"), rows.filter(regex=r"^pred\d+$")
    known = {*truth, *predicted, "trueX", "predX", "TP", "FP", "FN"}
    assert set(rows) == known, f"sonyc.json truth table: no check knows the columns {sorted(set(rows) - known)}"
    ours = urban_metrics.clip_counts(
        truth.to_numpy(bool), predicted.to_numpy(bool), rows.trueX.to_numpy(bool), rows.predX.to_numpy(bool)
    )
    return _close("sonyc.json truth table", ours, rows[["TP", "FP", "FN"]].to_numpy())

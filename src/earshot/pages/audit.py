"""What an audit found -> one page, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment

from earshot.audits import evidence, leaks, robustness, splits
from earshot.competitions.row_steps import site_of
from earshot.data.labels import read_clips
from earshot.messages import few
from earshot.pages import figures
from earshot.pages.report import Evidence, Picture, Table, interval, score_of, shown
from earshot.prediction.predictions import Predictions

LISTED = 200  # leaks in the page; the JSON has all
FELL = 0.03  # fall of a score with the level alone that is bad news


def page(title: str, made: str, verdicts: Sequence[tuple[str, bool]], tables: Sequence[Table], pictures=()) -> str:
    """The HTML; verdicts: (a line, whether it is bad news)."""
    text = resources.files("earshot.pages").joinpath("audit.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True).from_string(text)
    return template.render(title=title, made=made, verdicts=verdicts, tables=tables, pictures=pictures, number=shown)


def of_leaks(found: Sequence[leaks.Leak]) -> tuple[list[tuple[str, bool]], list[Table]]:
    """Leaks as verdicts and tables."""
    grave = [leak for leak in found if leak.grave]
    if not found:
        return [("No leak between folds, or between training and test, was found.", False)], []
    kinds = leaks.by_kind(found)
    doubtful = len(found) - len(grave)
    line = f"Leaks that raise scores: {len(grave)}; that perhaps do: {doubtful} ({few(kinds.kind, 8)})."
    rows = [(leak.kind, leak.what, leak.where, few(leak.clips, 6)) for leak in found[:LISTED]]
    note = "" if len(found) <= LISTED else f"The first {LISTED} of {len(found)}; audit.json has all."
    kinds = [(r.kind, r.leaks, r.clips, "yes" if r.grave else "perhaps") for r in kinds.itertuples()]
    return [(line, bool(grave))], [
        Table("Leaks by kind", ("kind", "leaks", "clips", "raises scores"), kinds),
        Table("Leaks", ("kind", "what", "where", "clips"), rows, note),
    ]


def of_splits(table: pd.DataFrame) -> tuple[list[tuple[str, bool]], Table]:
    """The comparison of splits as a verdict and a table."""
    told = splits.flattery(table)
    note = "Macro AUC of a linear classifier on log-mel statistics, not of your network: the differences matter."
    rows = [tuple(row) for row in table.itertuples(index=False)]
    return [(f"{told[0].upper()}{told[1:]}.", False)] if told else [], Table(
        "Splits beside each other", table.columns, rows, note
    )


def of_evidence(clips: pd.DataFrame, folds: pd.DataFrame, classes: Sequence[str], target: np.ndarray) -> Table:
    """How many clips a class has in each fold: what is behind its score."""
    numbers = sorted(int(f) for f in folds.fold.unique())
    groups = clips.group.astype(str) if "group" in clips else clips.clip_id.astype(str)
    rows = []
    for k, label in enumerate(classes):
        own = target[:, k] > 0.5
        rows.append(
            (str(label), *(int((own & (folds.fold == f).to_numpy()).sum()) for f in numbers), groups[own].nunique())
        )
    rows.sort(key=lambda row: min(row[1:-1]))
    columns = ("class", *(f"fold {f}" for f in numbers), "groups")
    return Table(
        "Clips behind each score", columns, rows, "Rarest first. A fold with fewer than five says little of a class."
    )


def of_runs(found: dict[str, Evidence]) -> list[Table]:
    """Scores with intervals, differences with a paired test, calibration."""
    names, rows = list(found), []
    for name, e in found.items():
        readable = np.flatnonzero(~e.oof.unreadable)
        value = score_of(e, readable)
        low, high = interval(e)
        scores, target = e.oof.clipwise_output[readable], e.truth.target[readable]
        in_range = bool(scores.min() >= 0 and scores.max() <= 1 + 1e-5)
        error = evidence.calibration_error(scores, target) if in_range else np.nan
        heat = evidence.temperature(scores, target) if in_range else np.nan
        rows.append((name, e.watch, value, low, high, error, heat))
    columns = ("run", "score", "value", "from", "to", "calibration error", "temperature")
    note = "95 % intervals by bootstrap over groups. A temperature above 1: outputs are too sure of themselves."
    tables = [Table("Scores and calibration", columns, rows, note)]
    pairs = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            left, right = found[a], found[b]
            if set(left.oof.clip_ids) != set(right.oof.clip_ids) or left.watch != right.watch:
                continue
            place = {c: n for n, c in enumerate(right.oof.clip_ids)}
            order = np.array([place[c] for c in left.oof.clip_ids])
            one, other = left.measure, right.measure
            if one is None or other is None:
                whole = np.arange(len(left.oof))
                pairs.append((f"{a} - {b}", score_of(left, whole) - score_of(right, whole), np.nan, np.nan, np.nan))
                continue
            d = evidence.paired(one, lambda n, score=other, o=order: score(o[n]), left.groups)
            pairs.append((f"{a} - {b}", d.value, d.low, d.high, d.p))
    if pairs:
        tables.append(Table("Differences of runs", ("runs", "difference", "from", "to", "p"), pairs,
                            "Paired bootstrap on the same clips; p: how often the sign turns."))  # fmt: skip
    return tables


def of_calibration(e: Evidence, name: str) -> list[Table]:
    """What calibrating would bring, and how many positives outputs add up to; nothing of outputs beyond 0 and 1."""
    known = ~e.oof.unreadable
    scores, target, groups = e.oof.clipwise_output[known], e.truth.target[known], e.groups[known]
    if not len(scores) or scores.min() < 0 or scores.max() > 1 + 1e-5:
        return []
    scores = np.minimum(scores, 1)
    fitted = evidence.calibrated(scores, target, groups)
    counts = evidence.expected_positives(scores, target, groups, e.oof.classes)
    rows = [
        (r[0], int(r[1]), float(r[2]), float(r[3]), float(r[4]), "yes" if r[5] else "")
        for r in counts.itertuples(index=False)
    ]  # fmt: skip
    return [
        Table(f"Calibration on clips that it was not fitted on: {name}", tuple(fitted.columns),
              [tuple(row) for row in fitted.itertuples(index=False)],
              "Fitted on other groups, all classes together. Keep what lowers the log loss."),
        Table(f"Expected positives: {name}", ("class", "true", "expected", "from", "to", "beyond chance"), rows,
              "What the OOF's outputs add up to, and the true count; from, to: 95 % of true less expected."),
    ]  # fmt: skip


def of_drift(e: Evidence, name: str) -> list[Table]:
    """The test's outputs beside the OOF's, by class and, where names or the clip table say them, by site.

    Nothing where the run has predicted no test.
    """
    path = e.run.folder / "test.npz"
    if not path.is_file():
        return []
    test = Predictions.load(path)
    table = evidence.drift(e.oof, test, e.truth.target)
    rows = [tuple(row) for row in table.itertuples(index=False)]
    found = [
        Table(f"Drift from OOF to test: {name}", tuple(table.columns), rows, "Largest change of mean output first.")
    ]
    sites = sites_of(test, Path(e.run.config.data.root) / "test_clips.csv")
    if len(test) and any(sites):
        by_site = evidence.drift_by_site(e.oof, test, sites)
        found.append(Table(
            f"Drift by site: {name}", tuple(by_site.columns), [tuple(row) for row in by_site.itertuples(index=False)],
            "positives: expected ones a recording; distance: mean |log ratio| of the classes' means to the OOF's.",
        ))  # fmt: skip
    return found


def of_robustness(table: pd.DataFrame, name: str, level: str = "recorded") -> tuple[list[tuple[str, bool]], Table]:
    """What recordings made otherwise would have cost a run, as verdicts (its watched score first) and a table.

    table: of audits.robustness; level: the run's data.level.
    """
    scores = [c.removesuffix(" falls") for c in table.columns if c.endswith(" falls")]
    lines = []
    for score in scores:  # the watched one, then the competition's own where it has one
        fall, worst = robustness.largest_fall(table, score)
        by_level, _ = robustness.largest_fall(table, score, robustness.LEVEL)
        if np.isfinite(fall):
            text = (
                f"{name}: {score} falls by at most {max(0.0, by_level):.3f} where recordings are 12 dB louder or softer"
            )
            text = f"{text}, and by {max(0.0, fall):.3f} under its worst change ({worst})."
            if by_level > FELL and level == "recorded":
                text += " It follows the level: train with data.level=normalised, and all are heard equally loud."
            lines.append((text, by_level > FELL))
    note = (
        f"{int(table.recordings.max())} held-out recordings, each written again under the change and heard by the "
        "network of its own fold; what goes beyond full scale is cut off. Thresholds are those that the other folds "
        "choose on the recordings as they are."
    )
    rows = [tuple(row) for row in table.drop(columns="recordings").itertuples(index=False)]
    columns = tuple(c for c in table.columns if c != "recordings")
    return lines, Table(f"Recorded otherwise: {name}", columns, rows, note)


def sites_of(found: Predictions, table: Path) -> list[str]:
    """The site of each recording: by the column `site` of the clip table, else by what its name says; '' unknown."""
    clips = read_clips(table) if table.is_file() else pd.DataFrame({"clip_id": []})
    said = dict(zip(clips.clip_id, clips.site.fillna("").astype(str), strict=True)) if "site" in clips else {}
    return [said.get(str(c)) or site_of(str(c)) for c in found.clip_ids]


def calibration_pictures(found: dict[str, Evidence]) -> list[Picture]:
    drawn = []
    for name, e in found.items():
        scores, target = e.oof.clipwise_output[~e.oof.unreadable], e.truth.target[~e.oof.unreadable]
        if scores.min() >= 0 and scores.max() <= 1 + 1e-5:
            url = figures.embedded(lambda p, s=scores, t=target: figures.reliability(s, t, p))
            drawn.append(Picture(f"Calibration of {name}", url))
    return drawn

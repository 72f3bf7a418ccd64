"""The scores of DCASE task 2. AUC and pAUC (up to a false positive rate of 0.1, McClish-standardised) of each machine
and section, by domain as the year did it:

- `plain` (2020): all clips of a section; the mean of machines of the mean of sections, of AUC and pAUC alike.
- `domain` (2021): AUC and pAUC of the clips of one domain; the harmonic mean of all of them.
- `shared` (2022 to 2025): AUC of one domain's normal clips against ALL anomalous clips of the section, pAUC over both
  domains together; the harmonic mean of all of them (nttcslab's evaluator does this).

The 2020 challenge ranked teams by average ranks, which needs the other teams: `official` is the mean of AUC and pAUC.
A section (and domain) without an anomalous clip, or without a normal one, has no AUC: it is left out, named in a
warning and counted in `skipped`. Precision, recall and F1 are of the decisions within a section and domain.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from earshot.competitions.checks import id_problems
from earshot.messages import few
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth, anomaly_scores_of
from earshot.tables import require_columns

MODES = ("plain", "domain", "shared")
MAX_FPR = 0.1
BOTH = "both"  # domain of a value over source and target together

logger = logging.getLogger("earshot")


def score(submission: pd.DataFrame, truth: pd.DataFrame, mode: str = "shared") -> dict[str, float]:
    """`official`, then means and each machine's (harmonic) AUC and pAUC; `truth` has `is_anomaly`, in any order.

    `auc_arithmetic, auc_harmonic, pauc_arithmetic, pauc_harmonic` over all sections (and domains), `auc_source` and
    `auc_target` (harmonic), `f1` (mean, with decisions), `skipped`: how many values could not be had.
    """
    table = section_scores(submission, truth, mode)
    values = {name: table[name].dropna() for name in ("auc", "pauc")}
    empty = [name for name, found in values.items() if not len(found)]
    if empty:
        raise ValueError("no section has both normal and anomalous clips: there is no AUC to score by")
    if mode == "plain":
        means = [table.groupby("machine")[name].mean().mean() for name in values]
        result = {"official": float(np.mean(means))}
    else:
        result = {"official": clip_metrics.harmonic_mean(np.concatenate(list(values.values())))}
    for name, found in values.items():
        result |= {f"{name}_arithmetic": float(found.mean()), f"{name}_harmonic": clip_metrics.harmonic_mean(found)}
    for column, prefix in (("domain", "auc"), ("machine", "auc"), ("machine", "pauc")):
        for key, found in table.dropna(subset=[prefix]).groupby(column)[prefix]:
            if key and key != BOTH:
                result[f"{prefix}_{key}"] = clip_metrics.harmonic_mean(found)
    if "f1" in table and table.f1.notna().any():
        result["f1"] = float(table.f1.mean())
    return result | {"skipped": int(table.skipped.sum())}


def oof_values(found: Predictions, truth: Truth, post=None, mode: str = "shared") -> dict[str, float]:
    """`official` and the means over machines, as `score` has them, of an OOF; {} where no section has both kinds."""
    if (answered := _answered(found, truth)) is None:
        return {}
    values = score(*answered, mode)
    names = ("official", "auc_arithmetic", "auc_harmonic", "pauc_arithmetic", "pauc_harmonic")
    return {name: values[name] for name in names}


def results(found: Predictions, truth: Truth, mode: str = "shared") -> dict:
    """Per cent of each machine of an OOF, {} where no section has both kinds: the mean AUC and pAUC of its sections
    (2020), else their harmonic means by domain, of a pAUC over both domains as one."""
    if (answered := _answered(found, truth)) is None:
        return {}
    table, result = section_scores(*answered, mode), {}
    for machine, parts in table.groupby("machine"):
        values = {}
        for (name, domain), some in (
            ((n, d), g[n].dropna()) for n in ("auc", "pauc") for d, g in parts.groupby("domain")
        ):
            key = f"averaged_{name}" if mode == "plain" else name if domain == BOTH else f"{name}_{domain}"
            if len(some):
                mean = some.mean() if mode == "plain" else clip_metrics.harmonic_mean(some)
                values[key] = round(100 * float(mean), 2)
        result[str(machine)] = values
    return result


def _answered(found: Predictions, truth: Truth) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """An OOF -> (submission, truth) as `score` takes them; None where no section has normal and anomalous clips."""
    facts = ["machine", "part", "filename", "section", "domain", "is_anomaly"]
    if not len(found) or truth.clips is None or any(c not in truth.clips for c in facts):
        return None
    clips = truth.clips[facts].reset_index(drop=True).fillna({"domain": ""})
    of_section = clips.groupby(["machine", "section"]).is_anomaly
    if not (of_section.transform("nunique") > 1).any():
        return None
    return clips[["machine", "part", "filename"]].assign(score=anomaly_scores_of(found, truth)), clips


def section_scores(submission: pd.DataFrame, truth: pd.DataFrame, mode: str = "shared") -> pd.DataFrame:
    """A row a machine, section and domain: auc, pauc (NaN: not defined, or not of this row), precision, recall, f1."""
    if mode not in MODES:
        raise ValueError(f"mode is '{mode}': choose one of {', '.join(MODES)}")
    clips = joined(submission, truth)
    found = []
    for (machine, section), clip in clips.groupby(["machine", "section"], sort=True):
        for domain, rated, with_auc, with_pauc in _parts(clip, mode):
            row = {"machine": machine, "section": section, "domain": domain} | _areas(rated, with_auc, with_pauc)
            own = clip if domain == BOTH else clip[clip.domain == domain]
            if "decision" in own and with_auc:
                decided = clip_metrics.precision_recall_f1(own.is_anomaly.to_numpy(), own.decision.to_numpy())
                row |= dict(zip(("precision", "recall", "f1"), decided, strict=True))
            found.append(row)
    table = pd.DataFrame(found)
    if table.skipped.any():
        lost = table[table.skipped > 0]
        names = lost.machine + " " + lost.section + " " + lost.domain
        logger.warning("%d parts lack normal or anomalous clips and have no AUC: %s", len(lost), few(names))
    return table


def _parts(clip: pd.DataFrame, mode: str) -> list[tuple[str, pd.DataFrame, bool, bool]]:
    """Clips of a section -> (domain, the clips that its areas are over, whether it has an AUC, whether a pAUC)."""
    domains = [d for d in ("source", "target") if (clip.domain == d).any()]
    if mode == "plain" or not domains:
        return [(BOTH, clip, True, True)]
    if mode == "domain":
        return [(d, clip[clip.domain == d], True, True) for d in domains]
    shared = [(d, clip[(clip.domain == d) | (clip.is_anomaly == 1)], True, False) for d in domains]
    return [*shared, (BOTH, clip, False, True)]


def _areas(clips: pd.DataFrame, with_auc: bool, with_pauc: bool) -> dict[str, float]:
    truth, scores = clips.is_anomaly.to_numpy(), clips.score.to_numpy(float)
    if truth.all() or not truth.any():
        return {"auc": np.nan, "pauc": np.nan, "skipped": with_auc + with_pauc}
    auc = clip_metrics.auc(truth, scores) if with_auc else np.nan
    return {"auc": auc, "pauc": clip_metrics.pauc(truth, scores, MAX_FPR) if with_pauc else np.nan, "skipped": 0}


def joined(submission: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Truth with the submission's `score` (and `decision`), clip by clip."""
    require_columns(truth, ("machine", "part", "filename", "section", "domain", "is_anomaly"), "the truth")
    require_columns(submission, ("machine", "part", "filename", "score"), "the submission")
    have, want = clip_keys(submission), clip_keys(truth)
    if problems := id_problems(have.sort_values(), want.sort_values(), "clips"):
        raise ValueError("the submission does not answer the clips of this truth: " + "; ".join(problems))
    said = submission.set_index(have).loc[want, [c for c in ("score", "decision") if c in submission]]
    columns = ["machine", "section", "domain", "is_anomaly"]
    facts = truth[columns].fillna({"domain": ""}).reset_index(drop=True)
    return pd.concat([facts, said.reset_index(drop=True)], axis=1)


def clip_keys(table: pd.DataFrame) -> pd.Series:
    """One name a clip: machine/part/filename."""
    return table.machine.astype(str) + "/" + table.part.astype(str) + "/" + table.filename.astype(str)

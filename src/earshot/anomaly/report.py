"""Every anomaly score of one system beside each other: AUC, pAUC and, at a threshold from training alone, decisions.

A system gives `Scores` a method: of the normal training clips and of the clips to judge. A training clip must not be
compared with itself (its nearest neighbour would be 0 away), so its scores come from the other training clips
(`cross_fitted`). The threshold of a group is the gamma quantile of its training scores. `combined` makes one score of
several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from earshot.anomaly import scores as anomaly_scores
from earshot.messages import plural
from earshot.metrics import anomalies as anomaly_metrics
from earshot.metrics import clips as clip_metrics

PARTS = 10  # parts of a group's training clips, each scored by the others
QUANTILE = 0.9  # of the gamma distribution, as DCASE 2021's baselines


@dataclass(frozen=True)
class Scores:
    """Anomaly scores of one method: (M,) of normal training clips, (N,) of the clips to judge."""

    training: np.ndarray
    judged: np.ndarray


def cross_fitted(
    method: Callable[[np.ndarray, np.ndarray], np.ndarray], normal: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Score normal training clips, (M, D) of (M,) groups, each by the clips of its group outside its own part: (M,).

    method(normal, embedding) -> scores. The only clip of a group is compared with itself: there is nothing else.
    """
    scores = np.empty(len(normal))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        part = np.arange(len(members)) % min(PARTS, len(members))
        for p in np.unique(part):
            others = members[part != p] if len(members) > 1 else members
            scores[members[part == p]] = method(normal[others], normal[members[part == p]])
    return scores


def embedding_methods(
    normal: np.ndarray, normal_groups: np.ndarray, embedding: np.ndarray, groups: np.ndarray
) -> dict[str, Scores]:
    """Embeddings (M, D) of normal training clips and (N, D) of others, their groups -> Scores of every method."""
    normal = np.asarray(normal, np.float64)
    return {
        name: Scores(
            cross_fitted(method, normal, normal_groups),
            anomaly_scores.embedding_scores(name, normal, normal_groups, embedding, groups),
        )
        for name, method in anomaly_scores.EMBEDDING_SCORES.items()
    }


def combined(views: Sequence[Scores], normal_groups: np.ndarray, groups: np.ndarray) -> Scores:
    """Several methods' scores as one by Fisher's rule: the sum of `scores.surprise`, each group by its own training
    scores; a group without training clips by those of all. All methods weigh alike, whatever their units."""
    training, judged = np.zeros(len(normal_groups)), np.zeros(len(groups))
    for view in views:
        for group in np.union1d(normal_groups, groups):
            own, here = normal_groups == group, groups == group
            known = view.training[own] if own.any() else view.training
            training[own] += anomaly_scores.surprise(known, view.training[own])
            judged[here] += anomaly_scores.surprise(known, view.judged[here])
    return Scores(training, judged)


def thresholds(normal_scores: np.ndarray, normal_groups: np.ndarray, groups) -> dict[str, float]:
    """Training scores and their groups -> the gamma threshold of each of `groups`; one without training clips takes
    that of all."""
    of = {str(g): normal_scores[normal_groups == g] for g in np.unique(groups)}
    return {g: anomaly_scores.gamma_threshold(s if len(s) else normal_scores, QUANTILE) for g, s in of.items()}


def decisions(scores: np.ndarray, groups: np.ndarray, normal_scores: np.ndarray, normal_groups: np.ndarray):
    """Say which clips score above the gamma threshold of their group, (N,) booleans; one without training clips takes
    that of all."""
    limits = thresholds(normal_scores, normal_groups, groups)
    return scores > np.array([limits[str(g)] for g in groups])


def table(methods: Mapping[str, Scores], normal_groups: np.ndarray, groups: np.ndarray, clips: pd.DataFrame):
    """Methods, (M,) groups of training clips, (N,) of the judged ones and their clip rows -> a row a method and
    machine, section, domain: n_normal, n_anomaly, auc, pauc, precision, recall, f1."""
    truth, rows = anomaly_metrics.is_anomalous(clips), []
    keys = clips[list(anomaly_metrics.GROUP)].astype(str).agg("/".join, axis=1).to_numpy()
    for name, found in methods.items():
        decided = decisions(found.judged, groups, found.training, normal_groups)
        for row in anomaly_metrics.auc_table(found.judged, clips).to_dict("records"):
            here = keys == "/".join(str(row[k]) for k in anomaly_metrics.GROUP)
            values = clip_metrics.precision_recall_f1(truth[here], decided[here], empty=np.nan)
            rows.append({"method": name} | row | dict(zip(("precision", "recall", "f1"), values, strict=True)))
    return pd.DataFrame(rows)


def machine_means(found: pd.DataFrame) -> pd.DataFrame:
    """What `table` gave, of one run or of several -> method, machine, auc, pauc, official_2021, as papers have them.

    A machine's are arithmetic means over its sections and domains; `mean` is their arithmetic mean over machines;
    `harmonic` the harmonic means over all sections and domains, with `official_2021` that of AUC and pAUC together
    (other years score otherwise: `dcase_task2_scores.score`). Rows without both kinds of clips are left out.
    """
    rows = []
    for method, own in found.dropna(subset=["auc"]).groupby("method", sort=False):
        machines = own.groupby("machine")[["auc", "pauc"]].mean()
        lines = {machine: dict(values) for machine, values in machines.iterrows()} | {"mean": dict(machines.mean())}
        lines["harmonic"] = {name: clip_metrics.harmonic_mean(own[name]) for name in ("auc", "pauc")}
        lines["harmonic"]["official_2021"] = clip_metrics.harmonic_mean(pd.concat([own.auc, own.pauc]))
        rows += [{"method": method, "machine": name} | values for name, values in lines.items()]
    return pd.DataFrame(rows, columns=["method", "machine", "auc", "pauc", "official_2021"])


def text(found: pd.DataFrame) -> str:
    """What `table` gave -> lines: every row, then each method's arithmetic means of what is defined."""
    shown = found.round(3).astype({"n_normal": int, "n_anomaly": int}).to_string(index=False, na_rep="-")
    values = ["auc", "pauc", "precision", "recall", "f1"]
    means = found.groupby("method", sort=False)[values].mean().round(3)
    undefined = int(found.auc.isna().sum())
    note = f"\n{plural(undefined, 'rows lack')} one kind of clips: no AUC, left out of the means" if undefined else ""
    return f"{shown}\n\nmeans\n{means.to_string(na_rep='-')}{note}"

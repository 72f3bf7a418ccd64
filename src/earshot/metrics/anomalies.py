"""How well anomaly scores tell broken machines from sound ones: AUCs by machine, section and domain.

A clip's columns: `machine`, `section`, `domain` (source, target, ...) and `is_anomaly` (0 or 1) or `condition` (normal
or anomaly). Scores rise with anomaly. From a classifier of sections: the mean over windows of log((1 - p) / p), p its
own section's probability (`predict.clip_from: log_odds`, mean over windows, gives -score without saturating at p = 1).

AUCs follow DCASE 2021 task 2: a domain's normal clips against the same domain's anomalies (`across_domains`: against
all of the section's, as from 2022 on); pAUC up to a false positive rate of 0.1. A group without both kinds of clips has
none: it is listed with its counts, left out of the means and counted under `undefined`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from earshot.messages import few, plural
from earshot.metrics import clips as clip_metrics

GROUP = ("machine", "section", "domain")
EPSILON = np.finfo(np.float64).eps  # where p is 0 or 1, as DCASE's baseline
CONDITIONS = ("normal", "anomaly")


def own_class_scores(clipwise: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Score clips by how unsure the network is of their own class.

    (N, K) log odds or softmax probabilities, (N,) own class -> (N,) anomaly scores log((1 - p) / p).

    Rows of numbers between 0 and 1 that sum to 1 are probabilities; everything else is taken for log odds. p and 1 - p
    count as 2.2e-16 at least.
    """
    clipwise = np.asarray(clipwise, np.float64)
    own_value = clipwise[np.arange(len(clipwise)), own]
    total = clipwise.sum(axis=1)
    if len(clipwise) and clipwise.min() >= 0 and clipwise.max() <= 1 and np.abs(total - 1).max() < 1e-3:
        return np.log(np.maximum(1 - own_value, EPSILON)) - np.log(np.maximum(own_value, EPSILON))
    return -own_value


def scores_by_section(clipwise: np.ndarray, classes, own, machines) -> tuple[np.ndarray, np.ndarray]:
    """Score clips by how unsure the network is of their section, also where that section is unknown.

    (N, K) outputs, K classes <machine>_<section>, (N,) own class and machine -> (N,) anomaly scores, (N,) unseen.

    A clip whose own class is not among the classes is `unseen`: the section that it resembles most scores it, one of
    its machine where there is such, else any.
    """
    classes, n = [str(c) for c in classes], len(clipwise)
    by_class = [own_class_scores(clipwise, np.full(n, k)) for k in range(len(classes))]
    by_class = np.stack(by_class, axis=1) if n else np.zeros((0, len(classes)))
    scores, unseen = np.full(n, np.nan), np.zeros(n, bool)
    for i, (name, machine) in enumerate(zip(own, machines, strict=True)):
        if name in classes:
            scores[i] = by_class[i, classes.index(name)]
        else:
            like = [k for k, c in enumerate(classes) if c.startswith(f"{machine}_")] or list(range(len(classes)))
            scores[i], unseen[i] = by_class[i, like].min(), True
    return scores, unseen


def unseen_sections(own: np.ndarray, unseen: np.ndarray) -> str:
    """A sentence on the clips whose own section training never saw, with the sections' names; '' without such clips."""
    if not unseen.any():
        return ""
    names = pd.Series(np.asarray(own)[unseen]).value_counts(sort=False)
    return (
        f"{unseen.sum()} clips are of sections that training never saw, scored by what they resemble most: "
        f"{few([f'{name} ({count})' for name, count in names.items()])}"
    )


def auc_table(scores: np.ndarray, clips: pd.DataFrame, max_fpr: float = 0.1, across_domains: bool = False):
    """Compute AUC and pAUC of every machine, section and domain: (N,) scores, N rows of the clip table -> machine,
    section, domain, n_normal, n_anomaly, auc, pauc.

    One row a group in order of appearance by name; auc and pauc are NaN where a group lacks one kind.
    """
    scores, anomalous = np.asarray(scores, np.float64), is_anomalous(clips)
    if len(scores) != len(clips):
        raise ValueError(f"{len(scores)} anomaly scores for {plural(len(clips), 'clips')}")
    keys = {name: clips[name].astype(str).to_numpy() for name in GROUP}
    rows = []
    for machine, section, domain in sorted(set(zip(*keys.values(), strict=True))):
        same = (keys["machine"] == machine) & (keys["section"] == section)
        here = same & (keys["domain"] == domain)
        chosen = here | (same & anomalous) if across_domains else here
        truth, some = anomalous[chosen], scores[chosen]
        defined = truth.any() and not truth.all()
        rows.append({
            "machine": machine, "section": section, "domain": domain,
            "n_normal": int((~truth).sum()), "n_anomaly": int(truth.sum()),
            "auc": clip_metrics.auc(truth, some) if defined else np.nan,
            "pauc": clip_metrics.pauc(truth, some, max_fpr) if defined else np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict[str, float]:
    """What `auc_table` gave -> means over its groups: arithmetic `auc`, `pauc`, their harmonic means, each machine's
    and each domain's arithmetic AUC, and `undefined`, the number of groups without both kinds of clips."""
    known = table[table.auc.notna()]
    result = {"undefined": float(len(table) - len(known))}
    if not len(known):
        return result
    for name in ("auc", "pauc"):
        result[name] = float(known[name].mean())
        result[f"{name}_harmonic"] = clip_metrics.harmonic_mean(known[name])
    result["score_harmonic"] = clip_metrics.harmonic_mean(pd.concat([known.auc, known.pauc]))  # DCASE's single figure
    for column in ("machine", "domain"):
        for value, rows in known.groupby(column):
            result[f"auc_{value}"] = float(rows.auc.mean())
            result[f"pauc_{value}"] = float(rows.pauc.mean())
    return result


def is_anomalous(clips: pd.DataFrame) -> np.ndarray:
    """Say which clips are anomalous, (N,) booleans; an error unless the table has the columns of the task."""
    missing = [c for c in GROUP if c not in clips]
    if "is_anomaly" not in clips and "condition" not in clips:
        missing.append("is_anomaly")
    if missing:
        raise ValueError(f"anomaly scores need the columns {', '.join(missing)} in clips.csv")
    if "is_anomaly" in clips:
        value = pd.to_numeric(clips.is_anomaly, errors="coerce").to_numpy(float, na_value=np.nan)
        if not np.isin(value, (0, 1)).all():
            raise ValueError(
                f"column 'is_anomaly' must be 0 or 1, got {clips.is_anomaly[~np.isin(value, (0, 1))].iloc[0]}"
            )
        return value == 1
    unknown = sorted(set(clips.condition.astype(str)) - set(CONDITIONS))
    if unknown:
        raise ValueError(f"column 'condition' must be normal or anomaly, got '{unknown[0]}'")
    return (clips.condition == "anomaly").to_numpy()

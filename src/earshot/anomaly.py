"""Is this machine broken? Anomaly scores of clips, their AUCs by machine, section and domain, and a threshold.

A clip's columns: `machine`, `section`, `domain` (source, target, ...) and `is_anomaly` (0 or 1) or `condition` (normal
or anomaly). Scores rise with anomaly. From a classifier of sections: the mean over windows of log((1 - p) / p), p its
own section's probability (`predict.clip_from: log_odds`, mean over windows, gives -score without saturating at p = 1).
From embeddings: distances and densities of what is normal, fitted to the normal training clips of the same section.

AUCs follow DCASE 2021 task 2: a domain's normal clips against the same domain's anomalies (`across_domains`: against
all of the section's, as from 2022 on); pAUC up to a false positive rate of 0.1. A group without both kinds of clips has
none: it is listed with its counts, left out of the means and counted under `undefined`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from earshot import metrics
from earshot.spelling import suggest

GROUP = ("machine", "section", "domain")
PROBABILITY_FLOOR = 1e-7
CONDITIONS = ("normal", "anomaly")


def own_class_scores(clipwise: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(N, K) log odds or softmax probabilities, (N,) own class -> (N,) anomaly scores log((1 - p) / p).

    Rows of numbers between 0 and 1 that sum to 1 are probabilities; everything else is taken for log odds.
    """
    clipwise = np.asarray(clipwise, np.float64)
    own_value = clipwise[np.arange(len(clipwise)), own]
    total = clipwise.sum(axis=1)
    if len(clipwise) and clipwise.min() >= 0 and clipwise.max() <= 1 and np.abs(total - 1).max() < 1e-3:
        p = np.clip(own_value, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
        return np.log1p(-p) - np.log(p)
    return -own_value


def auc_table(scores: np.ndarray, clips: pd.DataFrame, max_fpr: float = 0.1, across_domains: bool = False):
    """(N,) scores, N rows of the clip table -> machine, section, domain, n_normal, n_anomaly, auc, pauc.

    One row a group in order of appearance by name; auc and pauc are NaN where a group lacks one kind.
    """
    scores, anomalous = np.asarray(scores, np.float64), anomalies(clips)
    if len(scores) != len(clips):
        raise ValueError(f"{len(scores)} anomaly scores for {len(clips)} clips")
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
            "auc": metrics.auc(truth, some) if defined else np.nan,
            "pauc": metrics.pauc(truth, some, max_fpr) if defined else np.nan,
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
        result[f"{name}_harmonic"] = metrics.harmonic_mean(known[name])
    result["score_harmonic"] = metrics.harmonic_mean(pd.concat([known.auc, known.pauc]))  # DCASE's single figure
    for column in ("machine", "domain"):
        for value, rows in known.groupby(column):
            result[f"auc_{value}"] = float(rows.auc.mean())
            result[f"pauc_{value}"] = float(rows.pauc.mean())
    return result


def anomalies(clips: pd.DataFrame) -> np.ndarray:
    """(N,) booleans: which clips are anomalous; an error unless the table has the columns of the task."""
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


# ---------------------------------------------------------------- scores of embeddings


def knn_scores(normal: np.ndarray, embedding: np.ndarray, neighbours: int = 1) -> np.ndarray:
    """(M, D) normal and (N, D) embeddings -> (N,) mean cosine distance to the nearest `neighbours` normal ones."""
    normal, embedding = _unit(normal), _unit(embedding)
    distance = 1 - embedding @ normal.T
    k = min(neighbours, len(normal))
    return np.sort(distance, axis=1)[:, :k].mean(axis=1)


def mahalanobis_scores(normal: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """(N,) Mahalanobis distance to the normal embeddings' mean, the covariance shrunk by Ledoit and Wolf."""
    from sklearn.covariance import LedoitWolf

    if len(normal) < 2:  # no spread to measure by
        return np.linalg.norm(embedding - normal.mean(axis=0), axis=1)
    return np.sqrt(LedoitWolf().fit(normal).mahalanobis(embedding))


def gmm_scores(normal: np.ndarray, embedding: np.ndarray, components: int = 2, seed: int = 0) -> np.ndarray:
    """(N,) negative log-likelihood under a Gaussian mixture of diagonal covariances fitted to the normal ones."""
    from sklearn.mixture import GaussianMixture

    scale = normal.std(axis=0) + 1e-6
    components = max(1, min(components, len(normal) // 2))
    mixture = GaussianMixture(components, covariance_type="diag", reg_covar=1e-3, random_state=seed)
    return -mixture.fit(normal / scale).score_samples(embedding / scale)


EMBEDDING_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "knn": knn_scores,
    "mahalanobis": mahalanobis_scores,
    "gmm": gmm_scores,
}


def embedding_scores(
    method: str, normal: np.ndarray, normal_groups: np.ndarray, embedding: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Scores by a method of EMBEDDING_SCORES, each clip against the normal ones of its own group (a section).

    A clip of a group that training never saw is compared with all normal clips.
    """
    if method not in EMBEDDING_SCORES:
        raise ValueError(f"unknown anomaly score '{method}'{suggest(method, EMBEDDING_SCORES)}")
    if not len(normal):
        raise ValueError("no normal training clip to compare with")
    normal, embedding = np.asarray(normal, np.float64), np.asarray(embedding, np.float64)
    scores = np.empty(len(embedding))
    for group in np.unique(groups):
        here, known = groups == group, normal_groups == group
        scores[here] = EMBEDDING_SCORES[method](normal[known] if known.any() else normal, embedding[here])
    return scores


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


# ---------------------------------------------------------------- decision


def gamma_threshold(normal_scores: np.ndarray, quantile: float = 0.9) -> float:
    """Threshold that `quantile` of a gamma distribution fitted to normal training scores stays below (DCASE 2021).

    Scores that are not all positive are measured from a little below the least of them. Scores that are all equal give
    that score.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"the quantile of a threshold lies between 0 and 1, got {quantile}")
    scores = _finite_training(normal_scores)
    if np.ptp(scores) == 0:
        return float(scores[0])
    shape, start, scale = _gamma_fit(scores)
    return float(stats.gamma.ppf(quantile, shape, loc=start, scale=scale))


def surprise(normal_scores: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) scores -> (N,) -log of the share of normal clips that score higher, by the gamma distribution of
    `gamma_threshold`: about 0 for what is very normal, 1 on average for what is normal, without bound beyond.

    Training scores that are all equal have no spread: 0 up to them, beyond them how far beyond.
    """
    normal, scores = _finite_training(normal_scores), np.asarray(scores, np.float64)
    if np.ptp(normal) == 0:
        return np.maximum(scores - normal[0], 0.0)
    shape, start, scale = _gamma_fit(normal)
    x = np.maximum(scores, start + 1e-9)
    with np.errstate(divide="ignore"):
        log_share = stats.gamma.logsf(x, shape, loc=start, scale=scale)
    far = np.isneginf(log_share)  # too small a share for a float: there it is about density times scale
    log_share[far] = stats.gamma.logpdf(x[far], shape, loc=start, scale=scale) + np.log(scale)
    return -log_share


def _finite_training(normal_scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(normal_scores, np.float64)
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"a threshold needs finite training scores, got {len(scores)} of which "
                         f"{int(np.isfinite(scores).sum())} are finite")  # fmt: skip
    return scores


def _gamma_fit(scores: np.ndarray) -> tuple[float, float, float]:
    """Shape, start and scale; scores that are not all positive start a little below the least of them."""
    start = 0.0 if scores.min() > 0 else float(scores.min()) - 0.05 * float(np.ptp(scores))
    shape, _, scale = stats.gamma.fit(scores, floc=start)
    return float(shape), start, float(scale)

"""Is this machine broken? Anomaly scores from embeddings, and a threshold on scores.

Distances and densities of what is normal, fitted to the normal training clips of the same section. Scores rise with
anomaly. How well they tell one from the other is in `metrics/anomalies.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from earshot.messages import suggest

# ---------------------------------------------------------------- scores of embeddings


def knn_scores(normal: np.ndarray, embedding: np.ndarray, neighbours: int = 1) -> np.ndarray:
    """Score clips by their mean cosine distance to the nearest `neighbours` normal ones: (M, D) normal and (N, D)
    embeddings -> (N,)."""
    normal, embedding = _unit(normal), _unit(embedding)
    distance = 1 - embedding @ normal.T
    k = min(neighbours, len(normal))
    return np.sort(distance, axis=1)[:, :k].mean(axis=1)


def mahalanobis_scores(normal: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Score clips by their Mahalanobis distance to the mean of the normal ones, (N,), the covariance shrunk by Ledoit
    and Wolf."""
    from sklearn.covariance import LedoitWolf

    if len(normal) < 2:  # no spread to measure by
        return np.linalg.norm(embedding - normal.mean(axis=0), axis=1)
    return np.sqrt(LedoitWolf().fit(normal).mahalanobis(embedding))


def gmm_scores(normal: np.ndarray, embedding: np.ndarray, components: int = 2, seed: int = 0) -> np.ndarray:
    """Score clips by how unlikely they are, (N,), under a mixture of Gaussians of diagonal covariances fitted to the
    normal ones."""
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
    """Put scores of any method on one scale: how rare so high a score is among normal clips.

    (N,) scores -> (N,) -log of the share of normal clips that score higher, by the gamma distribution of
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

"""What different splits say of the same clips: a quick classifier judged by random folds, by groups, by places.

The classifier is a linear one on statistics of each clip's log-mel: seconds for thousands of clips. Its score is low;
what matters is how far it falls from random folds to grouped ones: so much do random folds flatter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earshot.audits.leaks import PEOPLE, PLACES, RECORDINGS
from earshot.data.folds import TRAIN_ONLY
from earshot.data.names import clean_names
from earshot.metrics import clips as clip_metrics
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel

RATE = 16000
PARAMS = LogmelParams(sample_rate=RATE, n_fft=1024, hop_length=512, n_mels=64, fmin=50, fmax=RATE // 2)
LONGEST = 60  # seconds of a clip that are looked at
DATES = ("date", "recorded_on", "day", "month", "year", "time")


def statistics(paths: Iterable[Path], workers: int = 2, progress: Callable = iter) -> np.ndarray:
    """Recordings -> (N, D) mean, deviation and change over time of each mel band; NaN where one cannot be read."""

    def of(path: Path) -> np.ndarray:
        try:
            waveform = audio.load(path, RATE)[: LONGEST * RATE]
        except (audio.UnreadableAudio, OSError):
            return np.full(3 * PARAMS.n_mels, np.nan)
        picture = log_mel(waveform, PARAMS)
        change = np.abs(np.diff(picture, axis=0)).mean(axis=0) if len(picture) > 1 else np.zeros(PARAMS.n_mels)
        return np.concatenate([picture.mean(axis=0), picture.std(axis=0), change])

    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(progress(pool.map(of, paths))))


def parts_of(clips: pd.DataFrame, folds: pd.DataFrame, k: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Ways to part the clips, (N,) numbers each: the fold table, random folds, whole values of every column of sources.

    Columns are those of leaks.py and dates."""
    n, parts = len(clips), {}
    fold = folds.fold.to_numpy()
    if len(np.unique(fold[fold != TRAIN_ONLY])) > 1:
        parts["your fold table"] = fold
    parts["random folds"] = _numbers(KFold(k, shuffle=True, random_state=seed).split(np.zeros(n)), n)
    for column in (*PEOPLE, *RECORDINGS, *PLACES, *DATES):
        if column not in clips:
            continue
        values = clean_names(clips[column]).str.casefold()
        values = values.where(values != "", clips.clip_id.astype(str))
        if k <= values.nunique() < n:
            name = f"folds that keep each {column} whole ({values.nunique()} of them)"
            parts[name] = _numbers(GroupKFold(k).split(np.zeros(n), groups=values), n)
    return parts


def _numbers(splits, n: int) -> np.ndarray:
    part = np.zeros(n, int)
    for number, (_, held_out) in enumerate(splits):
        part[held_out] = number
    return part


def score_part(features: np.ndarray, target: np.ndarray, part: np.ndarray) -> tuple[float, float]:
    """Macro AUC of clips held out a part at a time: mean and deviation over parts; NaN where it is not defined."""
    values = []
    for number in np.unique(part[part != TRAIN_ONLY]):
        held_out = part == number
        model = make_pipeline(StandardScaler(), Ridge(alpha=100.0))
        known = target[~held_out].any(axis=0) & ~target[~held_out].all(axis=0)
        scores = np.zeros(target[held_out].shape)
        if known.any():
            model.fit(features[~held_out], target[~held_out][:, known].astype(float))
            scores[:, known] = model.predict(features[held_out]).reshape(held_out.sum(), -1)
        y = target[held_out]
        if (y.any(axis=0) & ~y.all(axis=0)).any():
            values.append(float(clip_metrics.macro_roc_auc(y, scores)))
    return (float(np.mean(values)), float(np.std(values))) if values else (np.nan, np.nan)


def compare(
    features: np.ndarray, target: np.ndarray, parts: dict[str, np.ndarray],
    elsewhere: tuple[np.ndarray, np.ndarray] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Each split's score, and of another labelled set (features, target), which tells who is right.

    Rows: `split, macro_auc, deviation, parts`; clips that could not be read are left out.
    """
    known = np.isfinite(features).all(axis=1)
    rows = [
        (name, *score_part(features[known], target[known], part[known]), len(np.unique(part[part != TRAIN_ONLY])))
        for name, part in parts.items()
    ]
    if elsewhere is not None:
        both = np.concatenate([features[known], elsewhere[0]])
        targets = np.concatenate([target[known], elsewhere[1]])
        part = np.r_[np.full(known.sum(), TRAIN_ONLY), np.zeros(len(elsewhere[0]), int)]
        there = np.isfinite(both).all(axis=1)
        rows.append(("the other labelled set", *score_part(both[there], targets[there], part[there]), 1))
    return pd.DataFrame(rows, columns=["split", "macro_auc", "deviation", "parts"])


def flattery(table: pd.DataFrame) -> str:
    """In words, by how much random folds flatter, '' where nothing is known."""
    by_name: dict[str, float] = dict(zip(table.split, table.macro_auc, strict=True))
    grouped = [(v, n) for n, v in by_name.items() if n.startswith("folds that keep ") and np.isfinite(v)]
    if not grouped or "random folds" not in by_name:
        return ""
    value, name = min(grouped)
    gap = by_name["random folds"] - value
    return f"random folds say {by_name['random folds']:.3f}, {name} {value:.3f}: random ones flatter by {gap:+.3f}"

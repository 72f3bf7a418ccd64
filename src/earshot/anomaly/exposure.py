"""A small network that tells normal clips from anomalies made of them: its log odds are an anomaly score.

Outlier exposure (Hendrycks, Mazeika and Dietterich, 2019) with outliers of `anomaly_made`. One network learns from all
groups (a group: a section, a domain), whose bands are standardised by their own normal clips. Normal and made clips get
the same random gain, noise and tilt, so that these tell nothing. Five networks, each without a fifth of the clips:
those that it did not learn give the training scores, a clip to judge takes the mean of the five.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import signal
from torch import nn

from earshot.anomaly.made import made
from earshot.anomaly.report import Scores
from earshot.sound.logmel import LogmelParams, log_mel

PARTS = 5
COPIES = 6  # of each normal clip: so many augmented, and so many made anomalous
ROUNDS, BATCH, RATE, DECAY = 35, 64, 3e-3, 0.01
WINDOW_SECONDS = 2.016
CHANNELS, DROPOUT = (16, 32, 64, 64), 0.3


def exposure_scores(
    normal: list[np.ndarray], normal_groups: np.ndarray, clips: list[np.ndarray], groups: np.ndarray,
    params: LogmelParams, seed: int, rounds: int = ROUNDS, copies: int = COPIES,
) -> Scores:  # fmt: skip
    """Waveforms of M normal clips and of N to judge, their groups -> Scores: log odds, the mean over a clip's windows.

    A clip of a group without normal ones is standardised by all of them.
    """
    if len(normal) < PARTS:
        raise ValueError(
            f"made anomalies are learned in {PARTS} parts: at least {PARTS} normal clips, got {len(normal)}"
        )
    rng, window = np.random.default_rng(100 + seed), round(WINDOW_SECONDS * params.sample_rate / params.hop_length)
    plain = [_logmel(x, params) for x in normal]
    scales = {
        g: _scale([x for x, own in zip(plain, normal_groups, strict=True) if own == g]) for g in set(normal_groups)
    }
    everything = _scale(plain)

    def prepared(logmel, group):
        mean, spread = scales.get(group, everything)
        return _long_enough((logmel - mean) / spread, window)

    taught, is_made = [], []
    for x, group in zip(normal, normal_groups, strict=True):
        for _ in range(copies):
            taught.append(prepared(_logmel(augmented(x, rng), params), group))
            taught.append(prepared(_logmel(augmented(made(x, params.sample_rate, rng), rng), params), group))
            is_made += [0, 1]
    own = np.repeat(np.arange(len(normal)), 2 * copies)
    heard_normal = [prepared(x, g) for x, g in zip(plain, normal_groups, strict=True)]
    heard = [prepared(_logmel(x, params), g) for x, g in zip(clips, groups, strict=True)]
    part, training, judged = parts_of(normal_groups), np.empty(len(normal)), np.zeros(len(clips))
    for p in range(PARTS):
        use = np.flatnonzero(part[own] != p)
        model = fitted([taught[i] for i in use], np.array(is_made)[use], window, 10 * seed + p, rounds)
        for j in np.flatnonzero(part == p):
            training[j] = _log_odds(model, heard_normal[j], window)
        judged += np.array([_log_odds(model, x, window) for x in heard]) / PARTS
    return Scores(training, judged)


def parts_of(groups: np.ndarray) -> np.ndarray:
    """Deal the clips of each group out to five parts, in turn: (M,) groups -> (M,) part 0 to 4."""
    part = np.empty(len(groups), int)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        part[members] = np.arange(len(members)) % PARTS
    return part


def augmented(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Within 6 dB louder or softer; every second time with steady noise 5 to 30 dB below, every second with a tilt."""
    y = waveform * 10 ** (rng.uniform(-6, 6) / 20)
    if rng.random() < 0.5:
        noise = rng.standard_normal(len(y))
        noise = signal.lfilter([1], [1, -rng.uniform(0, 0.95)], noise)
        y = y + noise / noise.std() * y.std() * 10 ** (-rng.uniform(5, 30) / 20)
    if rng.random() < 0.5:
        y = signal.lfilter([1, rng.uniform(-0.5, 0.5)], [1], y)
    return y.astype(np.float32)


def network() -> nn.Sequential:
    """Build the small network that tells normal clips from made anomalies.

    (N, 1, T, F) -> (N, 1) log odds: four 3 x 3 convolutions of stride 2, the mean over time and bands.
    """
    layers, before = [], 1
    for after in CHANNELS:
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(before, 1))


def fitted(logmels: list[np.ndarray], is_made: np.ndarray, window: int, seed: int, rounds: int) -> nn.Module:
    """A network that learned a random window of every clip a round."""
    torch.manual_seed(seed)
    rng, model = np.random.default_rng(seed), network()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=DECAY)
    steps = rounds * -(-len(logmels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(rounds):
        order = rng.permutation(len(logmels))
        for some in np.split(order, range(BATCH, len(order), BATCH)):
            batch = torch.from_numpy(np.stack([_window(logmels[i], window, rng) for i in some]))[:, None]
            target = torch.tensor(is_made[some], dtype=torch.float32)
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch)[:, 0], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _window(x: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    start = rng.integers(len(x) - length + 1)
    return x[start : start + length]


def _log_odds(model: nn.Module, x: np.ndarray, length: int) -> float:
    """Mean over windows, a quarter of a window apart."""
    windows = np.stack([x[i : i + length] for i in range(0, len(x) - length + 1, length // 4)])
    with torch.inference_mode():
        return float(model(torch.from_numpy(windows)[:, None]).mean())


def _logmel(waveform: np.ndarray, params: LogmelParams) -> np.ndarray:
    return log_mel(np.asarray(waveform, np.float32), params).astype(np.float32)


def _scale(logmels: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    frames = np.concatenate(logmels)
    return frames.mean(axis=0), np.maximum(frames.std(axis=0), 1e-3)


def _long_enough(x: np.ndarray, frames: int) -> np.ndarray:
    """float32, the last frame repeated where there are too few."""
    missing = max(0, frames - len(x))
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]).astype(np.float32)

"""An autoencoder of log-mel frames: what it rebuilds badly is unlike the normal frames that it learned.

The network of DCASE's task 2 baselines: five frames in a row, four layers of 128, a bottleneck of 8, four layers of
128, batch normalisation and ReLU between; Adam on the mean squared error. A clip's score is the mean error of its
frames. Bands are standardised by the training frames, so that errors of loud and silent bands count alike.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

CONTEXT = 5  # frames in a row
WIDTH, DEPTH, BOTTLENECK = 128, 4, 8


def autoencoder(inputs: int) -> nn.Sequential:
    """Build the network that rebuilds what it is given from a few numbers.

    (N, inputs) -> (N, inputs).
    """
    widths = [inputs, *[WIDTH] * DEPTH, BOTTLENECK, *[WIDTH] * DEPTH]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, inputs))


def in_context(logmel: np.ndarray) -> np.ndarray:
    """Join each frame of a log-mel (T, F) with the four that follow it: (T - 4, 5 F) float32."""
    if len(logmel) < CONTEXT:
        raise ValueError(f"the autoencoder takes {CONTEXT} frames in a row, the clip has {len(logmel)}")
    windows = np.lib.stride_tricks.sliding_window_view(logmel, CONTEXT, axis=0)  # (T - 4, F, 5)
    return np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32).reshape(len(windows), -1)


def autoencoder_scores(
    normal: list[np.ndarray], clips: list[np.ndarray], seed: int, epochs: int = 30, batch_size: int = 512,
    lr: float = 1e-3, every: int = 1,
) -> np.ndarray:  # fmt: skip
    """Log-mels (T_i, F) of normal clips to learn and of clips to score -> (N,) mean squared errors.

    every: learn from every so many-th frame only (neighbours say nearly the same).
    """
    frames = np.concatenate(normal)
    mean, spread = frames.mean(axis=0), np.maximum(frames.std(axis=0), 1e-3)
    taught = torch.from_numpy(np.concatenate([in_context((x - mean) / spread)[::every] for x in normal]))
    torch.manual_seed(seed)
    network = autoencoder(taught.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr)
    for _ in range(epochs):
        order = torch.randperm(len(taught))
        for some in order.split(batch_size):
            if len(some) > 1:  # batch normalisation needs two
                loss = nn.functional.mse_loss(network(taught[some]), taught[some])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval()
    with torch.inference_mode():
        heard = (torch.from_numpy(in_context((x - mean) / spread)) for x in clips)
        return np.array([float(((network(x) - x) ** 2).mean()) for x in heard])

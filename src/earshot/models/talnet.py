"""TALNet (Wang, Li and Metze 2019): ten convolutions, a bidirectional GRU, one answer every 4 frames, five poolings.

State-dict names are those of the published code: `conv1.conv`, `conv1.bn`, ..., `gru`, `fc_prob` and, with attention,
`fc_att`; 9,980,527 parameters for 527 classes, 10,520,702 with attention. As there, convolutions have a bias beside
their batch norm, and the map before the GRU is flattened as (channel, band). The code has no front end: its weights
expect 64 mels and 40 frames a second (hop 1103 at 44.1 kHz), in a scale that it does not say.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models.layers import checked_input, linear_softmax, normalised_input, outside_autocast, segment_outputs

POOLINGS = ("lin", "exp", "max", "ave", "att")
WINDOW_POOLINGS = {
    "lin": "linear_softmax",
    "max": "max",
    "ave": "mean",
    "att": "attention",
}  # as prediction/pooling.py names them
POOLS = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2))  # behind every second convolution
POOL = 4  # frames a segment
FLOOR = 1e-7  # probabilities stay this far from 0 and 1, as published


class ConvBlock(nn.Module):
    """3x3 convolution, batch norm, ReLU, maximum: (B, C, T, F) -> (B, width, T // pool, F // pool)."""

    def __init__(self, in_channels: int, width: int, pool: tuple[int, int]):
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return x if self.pool == (1, 1) else F.max_pool2d(x, self.pool)


class TalnetEncoder(nn.Module):
    """Everything of TALNet below its published heads: (B, 1, T, n_mels) -> (B, T // 4, embedding).

    dropout: before each convolution but the first and before the GRU.
    """

    def __init__(self, n_mels: int = 64, embedding: int = 1024, dropout: float = 0.0):
        super().__init__()
        check_sizes(n_mels, embedding)
        self.dropout, self.width = dropout, embedding
        self.blocks, channels = [], 1
        for i in range(2 * len(POOLS)):
            width, name = embedding >> (5 - i // 2), f"conv{i + 1}"
            self.add_module(name, ConvBlock(channels, width, POOLS[i // 2] if i % 2 else (1, 1)))
            self.blocks.append(name)
            channels = width
        self.gru = nn.GRU(channels * (n_mels // 32), embedding // 2, bidirectional=True, batch_first=True)

    def encode(self, x: Tensor) -> Tensor:
        for i, name in enumerate(self.blocks):
            x = getattr(self, name)(x if i == 0 else F.dropout(x, self.dropout, self.training))
        x = F.dropout(x.transpose(1, 2).flatten(2), self.dropout, self.training)
        return self.gru(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x)


class Talnet(TalnetEncoder):
    """logmel (B, 1, T, n_mels) -> dict of clip, segments (4 frames each) and frames; `embedding` is the GRU's mean.

    pooling of segment probabilities p to the clip's: lin = sum(p p) / sum(p); exp = sum(p e^p) / sum(e^p); max; ave;
    att = mean weighted by a softmax over time of logits of its own, which PANNs' clamp (as in `predict.one_pass`) does
    not touch.
    input_norm: a batch norm over mels in front, for training on log-mels of any scale and wherever SpecAugment is
    used, whose stripes are zeros; the published network has none, so its file then needs `drop: [bn0]`.
    """

    inputs = ("logmel",)
    pool = min_frames = POOL
    in_chans = 1
    activation = "sigmoid"
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        pooling: str = "lin",
        embedding: int = 1024,
        dropout: float = 0.0,
        input_norm: bool = False,
        activation: str = "sigmoid",
    ):
        check_choice("pooling", pooling, POOLINGS)
        if activation != "sigmoid":
            raise ValueError(
                f"TALNet's poolings are of sigmoid probabilities: set activation: sigmoid, not {activation}"
            )
        super().__init__(n_mels, embedding, dropout)
        self.n_mels, self.kind, self.pooling = n_mels, pooling, WINDOW_POOLINGS.get(pooling, "")
        self.register_module("spec_augment", None)
        if input_norm:
            self.bn0 = nn.BatchNorm2d(n_mels)
        self.fc_prob = _linear(embedding, classes)
        if pooling == "att":
            self.fc_att = _linear(embedding, classes)

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = self.encode(self._input(logmel))
        with outside_autocast(x):
            x = x.float()
            logit = self.fc_prob(x)
            probability = torch.sigmoid(logit).clamp(FLOOR, 1 - FLOOR)
            clip = self._pooled(x, logit, probability)
        segments = segment_outputs(logit, probability, logmel.shape[2], POOL)
        return {**clip, **segments, "embedding": x.mean(dim=1)}

    def _input(self, logmel: Tensor) -> Tensor:
        if hasattr(self, "bn0"):
            return normalised_input(self, logmel)
        if self.spec_augment is not None:
            raise ValueError(
                "SpecAugment masks with zeros, which mean nothing in a log-mel as it comes: set "
                "model.params.input_norm=true, or leave augment.spec_augment out"
            )
        return checked_input(logmel, self.n_mels, self.in_chans, self.min_frames)

    def _pooled(self, x: Tensor, logit: Tensor, p: Tensor) -> dict[str, Tensor]:
        if self.kind == "max":
            return {"clipwise_output": p.amax(dim=1), "logit": logit.amax(dim=1)}
        if self.kind == "att":
            attention = self.fc_att(x)
            clip = (torch.softmax(attention, dim=1) * p).sum(dim=1)
            return {"clipwise_output": clip, "segmentwise_attention": attention}
        if self.kind == "lin":
            return {"clipwise_output": linear_softmax(p)}
        return {"clipwise_output": p.mean(dim=1) if self.kind == "ave" else (torch.softmax(p, dim=1) * p).sum(dim=1)}


def check_sizes(n_mels: int, embedding: int) -> None:
    """Error for sizes that TALNet's convolutions cannot have."""
    if n_mels < 32 or embedding < 32 or embedding % 32:
        raise ValueError(
            f"TALNet halves the mel bins five times and starts with a 32nd of its {embedding} features: it needs "
            f"n_mels of at least 32 (got {n_mels}) and an embedding that 32 divides"
        )


def _linear(width: int, classes: int) -> nn.Linear:
    layer = nn.Linear(width, classes)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

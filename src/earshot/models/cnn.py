"""Small CNNs trained from scratch: the demo's SED model, fast on two CPU cores and channels_last friendly.

Every stage may divide time and frequency by a stride of its own, so that the time resolution is a choice:
`time_strides` (2, 2, 2, 1) gives segments of 8 frames, (1, 1, 1, 1) one output a frame. Strided 3x3 convolutions
round up: T frames give ceil(T / pool) segments, and any number of frames, one included, passes.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models.layers import SEDHead, init_layer, normalised_input
from earshot.models.noise_floor import above_floor, check_floor

FREQUENCY = ("mean", "flatten")


class ResidualBlock(nn.Module):
    """Apply two convolutions and add what came in.

    (B, C, T, F) -> (B, out, ceil(T / stride), ceil(F / stride)): two 3x3 convolutions and a shortcut.

    The shortcut averages over the stride (no pixel is skipped) and widens by a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        shortcut = [nn.AvgPool2d(stride, ceil_mode=True)] if tuple(stride) != (1, 1) else []
        if in_channels != out_channels:
            shortcut += [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.shortcut = nn.Sequential(*shortcut)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ContextBlock(nn.Module):
    """Add to each segment what is heard `dilation` segments before and after it.

    (B, D, S) -> (B, D, S): x + relu(bn(conv(x))), a convolution over three segments that lie `dilation` apart.
    """

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm1d(width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.bn(self.conv(x)))


class CnnSED(nn.Module):
    """logmel (B, in_chans, T, n_mels) -> dict: `bn0`, residual stages, bands joined, fc1 + ReLU, context, SEDHead."""

    inputs = ("logmel",)
    min_frames = 1
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        time_strides: tuple[int, ...],
        freq_strides: tuple[int, ...],
        embedding: int,
        pooling: str,
        activation: str,
        frequency: str,
        dropout: float,
        in_chans: int,
        floor: float | None,
        dilations: tuple[int, ...] = (),
    ):
        super().__init__()
        _check_stages(widths, blocks, time_strides, freq_strides, frequency)
        self.in_chans, self.frequency, self.dropout = in_chans, frequency, dropout
        self.floor = None if floor is None else check_floor(floor)
        self.pool = math.prod(time_strides)
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        stages, bands = [], n_mels
        for width, count, *stride in zip(widths, blocks, time_strides, freq_strides):
            stages.append(ResidualBlock(in_chans, width, tuple(stride)))
            stages += [ResidualBlock(width, width) for _ in range(count - 1)]
            in_chans, bands = width, -(-bands // stride[1])
        self.stages = nn.Sequential(*stages)
        self.fc1 = init_layer(nn.Linear(widths[-1] * (bands if frequency == "flatten" else 1), embedding))
        self.context = nn.Sequential(*(ContextBlock(embedding, d) for d in dilations))
        self.head = SEDHead(embedding, classes, pooling, activation)
        self.pooling, self.reach = self.head.window_pooling, sum(dilations)

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        logmel = logmel if self.floor is None else above_floor(logmel, self.floor)
        x = self.stages(normalised_input(self, logmel))
        x = x.mean(dim=3) if self.frequency == "mean" else x.transpose(2, 3).flatten(1, 2)
        x = F.dropout(x.transpose(1, 2), self.dropout, self.training)
        x = F.relu(self.fc1(x))
        if len(self.context):
            x = self.context(x.transpose(1, 2)).transpose(1, 2)
        out = self.head(F.dropout(x, self.dropout, self.training), logmel.shape[2], self.pool)
        return {**out, "embedding": x.mean(dim=1)}


def cnn_small(
    classes: int,
    n_mels: int,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    blocks: tuple[int, ...] = (1, 1, 1, 1),
    time_strides: tuple[int, ...] = (2, 2, 2, 1),
    freq_strides: tuple[int, ...] = (2, 2, 2, 2),
    embedding: int = 128,
    pooling: str = "attention",
    activation: str = "sigmoid",
    frequency: str = "flatten",
    dropout: float = 0.2,
    in_chans: int = 1,
    floor: float | None = None,
    dilations: tuple[int, ...] = (),
) -> CnnSED:
    """The demo's network: 0.4 M parameters, segments of 8 frames. Lists need one entry a stage.

    `activation` softmax makes it single-label; `frequency` mean averages the remaining bands, flatten keeps them apart.
    `dilations`: residual convolutions over time behind fc1, one each, hear so many segments before and after a segment:
    1, 2, 4, 8, 16 add up to 31 on either side, so that the sounds around it help where one is drowned by noise.
    `floor` (0 ... 1): each band is heard in decibels above that quantile of itself in the window (noise_floor.py).
    """
    return CnnSED(
        classes,
        n_mels,
        widths=widths,
        blocks=blocks,
        time_strides=time_strides,
        freq_strides=freq_strides,
        embedding=embedding,
        pooling=pooling,
        activation=activation,
        frequency=frequency,
        dropout=dropout,
        in_chans=in_chans,
        floor=floor,
        dilations=dilations,
    )


def _check_stages(widths, blocks, time_strides, freq_strides, frequency: str) -> None:
    lengths = [len(v) for v in (widths, blocks, time_strides, freq_strides)]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise ValueError(
            "widths, blocks, time_strides and freq_strides need one entry a stage each, got "
            f"{', '.join(map(str, lengths))} entries"
        )
    if min(*blocks, *time_strides, *freq_strides, *widths) < 1:
        raise ValueError("widths, blocks, time_strides and freq_strides must be at least 1")
    check_choice("frequency", frequency, FREQUENCY)

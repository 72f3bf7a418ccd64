"""PANNs' residual networks (Kong et al. 2020): ResNet22, 38, 54 on log-mels, Res1dNet31, 51 on waveforms.

State-dict names are the published ones without the front end. What the paper leaves out and the weights need: a block
of stride > 1 pools before its first convolution (average on log-mels, maximum on waveforms) and average-pools its
shortcut; a waveform block's second convolution has dilation 2; no ReLU follows conv0 + bn0. The last batch norm of a
block starts at 0, so that training starts from the shortcuts alone.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from earshot.models.layers import ConvBlock, clip_head, init_layer, normalised_input, waveform_input

CONV = {1: nn.Conv1d, 2: nn.Conv2d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
MAIN_POOL = {1: F.max_pool1d, 2: F.avg_pool2d}
BLOCK_DROPOUT = 0.1


class BasicBlock(nn.Module):
    """Apply two convolutions of kernel 3 beside a shortcut: (B, C, ...) -> (B, channels, ...) of 1/stride the size.

    dims: 2 for log-mels, 1 for waveforms.
    """

    expansion = 1

    def __init__(self, dims: int, in_channels: int, channels: int, stride: int, dropout: float):
        super().__init__()
        self.stride, self.dropout, self.main_pool = stride, dropout, MAIN_POOL[dims]
        self.conv1 = _conv(dims, in_channels, channels, 3)
        self.bn1 = NORM[dims](channels)
        self.relu = nn.ReLU()
        self.conv2 = _conv(dims, channels, channels, 3, dilation=2 if dims == 1 else 1)
        self.bn2 = _starting_at_zero(NORM[dims](channels))
        self.downsample = _shortcut(dims, in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.stride == 1 else self.main_pool(x, self.stride)
        out = self.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(F.dropout(out, self.dropout, self.training)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Apply convolutions of kernel 1, 3, 1 beside a shortcut: (B, C, ...) -> (B, 4 * channels, ...) of 1/stride the
    size."""

    expansion = 4

    def __init__(self, dims: int, in_channels: int, channels: int, stride: int, dropout: float):
        super().__init__()
        self.stride, self.dropout, self.main_pool = stride, dropout, MAIN_POOL[dims]
        out_channels = self.expansion * channels
        self.conv1 = _conv(dims, in_channels, channels, 1)
        self.bn1 = NORM[dims](channels)
        self.conv2 = _conv(dims, channels, channels, 3)
        self.bn2 = NORM[dims](channels)
        self.conv3 = _conv(dims, channels, out_channels, 1)
        self.bn3 = _starting_at_zero(NORM[dims](out_channels))
        self.relu = nn.ReLU()
        self.downsample = _shortcut(dims, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.stride == 1 else self.main_pool(x, self.stride)
        out = self.relu(self.bn1(self.conv1(out)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(F.dropout(out, self.dropout, self.training)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class PannsResNet(nn.Module):
    """logmel (B, 1, T, n_mels) -> dict: ConvBlock, residual layers, pooling, ConvBlock, tagging head."""

    inputs = ("logmel",)
    dead_parameters = ()
    in_chans = 1

    def __init__(
        self,
        classes: int,
        n_mels: int,
        bottleneck: bool = False,
        counts: tuple[int, ...] = (2, 2, 2, 2),
        widths: tuple[int, ...] = (64, 128, 256, 512),
        last_width: int = 2048,
        embedding: int = 2048,
        dropout: float = 0.2,
        block_dropout: float = BLOCK_DROPOUT,
        head_dropout: float = 0.5,
    ):
        super().__init__()
        block = Bottleneck if bottleneck else BasicBlock
        self.dropout, self.head_dropout = dropout, head_dropout
        self.pool = self.min_frames = 2 ** (len(widths) + 1)
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.conv_block1 = ConvBlock(1, widths[0])
        self.resnet = _residual_layers(2, block, widths[0], counts, widths, stride=2, dropout=block_dropout)
        self.conv_block_after1 = ConvBlock(widths[-1] * block.expansion, last_width, pool=(1, 1))
        self.fc1 = init_layer(nn.Linear(last_width, embedding))
        self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = F.dropout(self.conv_block1(normalised_input(self, logmel)), self.dropout, self.training)
        x = F.dropout(F.avg_pool2d(self.resnet(x), 2), self.dropout, self.training)
        x = F.dropout(self.conv_block_after1(x), self.dropout, self.training)
        return clip_head(self, x.mean(dim=3))


class Res1dNet(nn.Module):
    """waveform (B, S) -> dict: a convolution of 11 samples, stride 5, residual layers of stride 4, tagging head."""

    inputs = ("waveform",)
    dead_parameters = ()
    pool = 1  # no output over time

    def __init__(
        self,
        classes: int,
        n_mels: int,
        counts: tuple[int, ...] = (2, 2, 2, 2, 2, 2, 2),
        widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 1024, 2048),
        embedding: int = 2048,
        block_dropout: float = BLOCK_DROPOUT,
        head_dropout: float = 0.5,
    ):
        super().__init__()
        self.head_dropout = head_dropout
        self.min_samples = 5 * (4 ** (len(widths) - 1) - 1) + 1
        self.conv0 = init_layer(nn.Conv1d(1, widths[0], 11, stride=5, padding=5, bias=False))
        self.bn0 = nn.BatchNorm1d(widths[0])
        self.resnet = _residual_layers(1, BasicBlock, widths[0], counts, widths, stride=4, dropout=block_dropout)
        self.fc1 = init_layer(nn.Linear(widths[-1], embedding))
        self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        x = self.bn0(self.conv0(waveform_input(self, waveform)))
        return clip_head(self, self.resnet(x))


def _residual_layers(dims, block, in_channels, counts, widths, stride, dropout) -> nn.Sequential:
    """layer1, layer2, ... of `counts` blocks and `widths` channels; the first keeps the size, the others divide it."""
    if len(counts) != len(widths):
        raise ValueError(f"counts and widths are of the same layers, got {list(counts)} and {list(widths)}")
    layers = OrderedDict()
    for number, (count, width) in enumerate(zip(counts, widths, strict=True), start=1):
        blocks = []
        for i in range(count):
            blocks.append(block(dims, in_channels, width, stride if i == 0 and number > 1 else 1, dropout))
            in_channels = width * block.expansion
        layers[f"layer{number}"] = nn.Sequential(*blocks)
    return nn.Sequential(layers)


def _shortcut(dims: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """What makes the input fit the block's output; None where it does."""
    if stride == 1 and in_channels == out_channels:
        return None
    pool = [AVERAGE[dims](stride)] if stride > 1 else []
    return nn.Sequential(*pool, _conv(dims, in_channels, out_channels, 1), NORM[dims](out_channels))


def _conv(dims: int, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Module:
    """A convolution that keeps the size, without bias."""
    padding = dilation * (kernel_size // 2)
    return init_layer(
        CONV[dims](in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    )


def _starting_at_zero(norm: nn.Module) -> nn.Module:
    nn.init.zeros_(norm.weight)
    return norm


resnet22 = PannsResNet
resnet38 = partial(PannsResNet, counts=(3, 4, 6, 3))
resnet54 = partial(PannsResNet, bottleneck=True, counts=(3, 4, 6, 3))
res1dnet31 = Res1dNet
res1dnet51 = partial(Res1dNet, counts=(2, 3, 4, 6, 4, 3, 2))

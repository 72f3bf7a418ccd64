"""PANNs' plain networks on waveforms (Kong et al. 2020): LeeNet11, LeeNet24, DaiNet19.

State-dict names are the published ones. LeeNet (Lee et al. 2017): stride 3 and no pooling in the first block, then
maximum pooling by 3 with a padding of 1. DaiNet (Dai et al. 2017): 80 samples with stride 4, no ReLU after bn0,
residual blocks of four convolutions with maximum pooling by 4 between them. Both read 32 kHz as published.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from earshot.models.layers import clip_head, init_layer, waveform_input

LEENET11_WIDTHS = (64, 64, 64, 128, 128, 128, 128, 128, 256)
LEENET24_WIDTHS = (64, 96, 128, 128, 256, 256, 512, 512, 1024)


class ConvBlock1d(nn.Module):
    """Apply convolutions along a waveform, then pool.

    (B, C, S) -> (B, out_channels, S'): `convs` x (convolution of 3, BN, ReLU), then maximum pooling by `pool`.
    """

    def __init__(self, in_channels: int, out_channels: int, convs: int, stride: int, pool: int):
        super().__init__()
        self.convs, self.pool = convs, pool
        for i in range(1, convs + 1):
            conv = nn.Conv1d(in_channels, out_channels, 3, stride=stride if i == 1 else 1, padding=1, bias=False)
            self.add_module(f"conv{i}", init_layer(conv))
            self.add_module(f"bn{i}", nn.BatchNorm1d(out_channels))
            in_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.convs + 1):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return x if self.pool == 1 else F.max_pool1d(x, self.pool, padding=self.pool // 2)


class LeeNet(nn.Module):
    """waveform (B, S) -> dict: a block for each of `widths`, each with `convs` convolutions, then the tagging head.

    last_pool: pooling of the last block (3, or 1: none); `dropout` between blocks.
    """

    inputs = ("waveform",)
    dead_parameters = ()
    pool = min_samples = 1

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, ...] = LEENET11_WIDTHS,
        convs: int = 1,
        last_pool: int = 3,
        embedding: int = 512,
        dropout: float = 0.0,
        head_dropout: float = 0.5,
    ):
        super().__init__()
        self.blocks, self.dropout, self.head_dropout = len(widths), dropout, head_dropout
        channels = 1
        for i, width in enumerate(widths, start=1):
            pool = 1 if i == 1 else last_pool if i == len(widths) else 3
            self.add_module(f"conv_block{i}", ConvBlock1d(channels, width, convs, 3 if i == 1 else 1, pool))
            channels = width
        self.fc1 = init_layer(nn.Linear(channels, embedding))
        self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        x = waveform_input(self, waveform)
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"conv_block{i}")(x)
            if i < self.blocks:
                x = F.dropout(x, self.dropout, self.training)
        return clip_head(self, x)


class DaiBlock(nn.Module):
    """Apply four convolutions of 3 beside a shortcut, which is used where C changes only: (B, C, S) -> (B,
    out_channels, S).

    Where it does not, `downsample` and `bn_downsample` are dead: the published weights have them all the same.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.adds = in_channels == out_channels
        for i in range(1, 5):
            conv = nn.Conv1d(in_channels if i == 1 else out_channels, out_channels, 3, padding=1, bias=False)
            self.add_module(f"conv{i}", init_layer(conv))
            self.add_module(f"bn{i}", nn.BatchNorm1d(out_channels))
        nn.init.zeros_(self.bn4.weight)  # training starts from the shortcut alone
        self.downsample = init_layer(nn.Conv1d(in_channels, out_channels, 1, bias=False))
        self.bn_downsample = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, 4):
            out = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out)))
        out = self.bn4(self.conv4(out))
        return F.relu(out + (x if self.adds else self.bn_downsample(self.downsample(x))))


class DaiNet19(nn.Module):
    """waveform (B, S) -> dict: conv0 (80 samples, stride 4), a DaiBlock for each of `widths`, tagging head."""

    inputs = ("waveform",)
    pool = 1

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        embedding: int = 512,
        head_dropout: float = 0.5,
    ):
        super().__init__()
        self.blocks, self.head_dropout = len(widths), head_dropout
        self.min_samples = 80 + 4 * (4 ** (len(widths) - 1) - 1)
        self.conv0 = init_layer(nn.Conv1d(1, widths[0], 80, stride=4, bias=False))
        self.bn0 = nn.BatchNorm1d(widths[0])
        channels = widths[0]
        for i, width in enumerate(widths, start=1):
            self.add_module(f"conv_block{i}", DaiBlock(channels, width))
            channels = width
        unused = [f"conv_block{i + 1}." for i in range(len(widths)) if i == 0 or widths[i] == widths[i - 1]]
        self.dead_parameters = tuple(block + name for block in unused for name in ("downsample.", "bn_downsample."))
        self.fc1 = init_layer(nn.Linear(channels, embedding))
        self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        x = self.bn0(self.conv0(waveform_input(self, waveform)))
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"conv_block{i}")(x if i == 1 else F.max_pool1d(x, 4))
        return clip_head(self, x)


leenet11 = LeeNet
leenet24 = partial(LeeNet, widths=LEENET24_WIDTHS, convs=2, last_pool=1, embedding=1024, dropout=0.1)
dainet19 = DaiNet19

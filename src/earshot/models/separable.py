"""A network for small devices: separable convolutions with coordinate attention (Xin et al. 2022, DCASE 2022 task 1).

Cnn6 with every 5x5 convolution replaced by a 1x1 convolution and, after it, the sum of a depthwise 3x1 and a depthwise
1x3 one, both dilated by 2 (Eq. 2). The report's figure draws a 1x1 for each branch, its formula shares one: `shared`.
Its text gives 128 features at the end and 75.562 KB; the other widths are ours, 64, 128, 128, 128, which with 64 mels
and 10 classes make 75,178 parameters: 75 kB in int8. Each branch has its own batch norm (two a block, as the report
counts them) before the sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models.layers import ACTIVATIONS, init_layer, normalised_input, single_answer

REDUCTION = 32
LEAST_MIDDLE = 8  # channels between the two convolutions of the attention


class CoordinateAttention(nn.Module):
    """Weigh a map by gates for its frames and for its frequency bins.

    (B, C, T, F) -> (B, C, T, F): times a gate for every (channel, frame) and one for every (channel, bin).

    Hou et al. 2021; names conv1, bn1, conv_h, conv_w as in their code, where the block may also change the number of
    channels by name only (`out_channels` must equal the input's).
    """

    def __init__(self, channels: int, out_channels: int | None = None, reduction: int = REDUCTION):
        super().__init__()
        middle, out_channels = max(LEAST_MIDDLE, channels // reduction), out_channels or channels
        self.conv1, self.bn1 = nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle)
        self.conv_h, self.conv_w = nn.Conv2d(middle, out_channels, 1), nn.Conv2d(middle, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[2]
        both = torch.cat([x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True).transpose(2, 3)], dim=2)
        both = F.hardswish(self.bn1(self.conv1(both)))
        by_frame = torch.sigmoid(self.conv_h(both[:, :, :frames]))
        by_bin = torch.sigmoid(self.conv_w(both[:, :, frames:].transpose(2, 3)))
        return x * by_frame * by_bin


class SeparableBlock(nn.Module):
    """Separable convolution, ReLU, attention, average pooling: (B, C, T, F) -> (B, out_channels, T // 2, F // 2)."""

    def __init__(self, in_channels: int, out_channels: int, shared: bool, dilation: int = 2):
        super().__init__()
        self.pointwise_t = init_layer(nn.Conv2d(in_channels, out_channels, 1, bias=False))
        self.pointwise_f = None if shared else init_layer(nn.Conv2d(in_channels, out_channels, 1, bias=False))
        depthwise = {"dilation": dilation, "groups": out_channels, "bias": False}
        self.conv_t = init_layer(nn.Conv2d(out_channels, out_channels, (3, 1), padding=(dilation, 0), **depthwise))
        self.conv_f = init_layer(nn.Conv2d(out_channels, out_channels, (1, 3), padding=(0, dilation), **depthwise))
        self.bn_t, self.bn_f = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)
        self.attention = CoordinateAttention(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        time = self.pointwise_t(x)
        frequency = time if self.pointwise_f is None else self.pointwise_f(x)
        x = F.relu(self.bn_t(self.conv_t(time)) + self.bn_f(self.conv_f(frequency)))
        return F.avg_pool2d(self.attention(x), 2)


class SeparableCnn(nn.Module):
    """logmel (B, in_chans, T, n_mels) -> dict with logit, clipwise_output and the (B, widths[-1]) embedding.

    The mean over frequency, then mean + maximum over time, then two linear layers with dropout before each.
    """

    inputs = ("logmel",)
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, ...] = (64, 128, 128, 128),
        shared: bool = True,
        hidden: int = 128,
        dropout: float = 0.1,
        activation: str = "sigmoid",
        in_chans: int = 1,
    ):
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        self.pool = self.min_frames = 2 ** len(widths)
        if n_mels < self.pool:
            raise ValueError(f"{len(widths)} blocks halve the mel bins to nothing: {n_mels} < {self.pool}")
        self.in_chans, self.activation, self.dropout = in_chans, activation, dropout
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        for i, width in enumerate(widths, start=1):
            self.add_module(f"block{i}", SeparableBlock(in_chans, width, shared))
            in_chans = width
        self.fc1 = init_layer(nn.Linear(in_chans, hidden))
        self.fc = init_layer(nn.Linear(hidden, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = normalised_input(self, logmel)
        for name, block in self.named_children():
            if name.startswith("block"):
                x = block(x)
        x = x.mean(dim=3)
        embedding = x.mean(dim=2) + x.amax(dim=2)
        x = F.relu(self.fc1(F.dropout(embedding, self.dropout, self.training)))
        x = F.dropout(x, self.dropout, self.training)
        return single_answer(self.fc, x, self.activation) | {"embedding": embedding.float()}

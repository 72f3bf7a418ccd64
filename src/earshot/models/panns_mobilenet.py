"""PANNs' MobileNetV1 and V2 (Kong et al. 2020) on log-mels; state-dict names are the published ones.

Where the original MobileNets stride, these convolve with stride 1 and average-pool after it. The classifier sees one
frame in 32. `width` multiplies all channels, the head's apart (1.0: the published networks).
"""

from __future__ import annotations

from torch import Tensor, nn

from earshot.models.layers import clip_head, init_layer, normalised_input

V1_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
V2_BLOCKS = (  # expansion, channels, repeats, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 2), (6, 160, 3, 1), (6, 320, 1, 1),
)  # fmt: skip


class PannsMobileNet(nn.Module):
    """logmel (B, 1, T, n_mels) -> dict: `features` (B, width, T / 32, n_mels / 32), mean over mels, tagging head."""

    inputs = ("logmel",)
    dead_parameters = ()
    in_chans = 1
    pool = min_frames = 32

    def __init__(self, classes: int, n_mels: int, features: nn.Sequential, channels: int, embedding: int,
                 head_dropout: float):  # fmt: skip
        super().__init__()
        self.head_dropout = head_dropout
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.features = features
        self.fc1 = init_layer(nn.Linear(channels, embedding))
        self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        return clip_head(self, self.features(normalised_input(self, logmel)).mean(dim=3))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1 up to `expansion` times the channels, 3x3 by channel, 1x1 down; `conv` as published.

    An input of the output's shape is added to it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        up = [] if expansion == 1 else [_conv(in_channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU6()]
        self.conv = nn.Sequential(
            *up, *_pooled_conv(hidden, hidden, stride, hidden), nn.ReLU6(),
            _conv(hidden, out_channels, 1), nn.BatchNorm2d(out_channels),
        )  # fmt: skip
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def mobilenet_v1(
    classes: int, n_mels: int, width: float = 1.0, embedding: int = 1024, head_dropout: float = 0.5
) -> PannsMobileNet:
    """MobileNetV1: a 3x3 convolution, then thirteen pairs of a 3x3 by channel and a 1x1 convolution."""
    channels = _scaled(32, width)
    blocks = [nn.Sequential(*_pooled_conv(1, channels, 2), nn.ReLU())]
    for out_channels, stride in zip(V1_WIDTHS, V1_STRIDES, strict=True):
        out_channels = _scaled(out_channels, width)
        by_channel = [*_pooled_conv(channels, channels, stride, channels), nn.ReLU()]
        pointwise = [_conv(channels, out_channels, 1), nn.BatchNorm2d(out_channels), nn.ReLU()]
        blocks.append(nn.Sequential(*by_channel, *pointwise))
        channels = out_channels
    return PannsMobileNet(classes, n_mels, nn.Sequential(*blocks), channels, embedding, head_dropout)


def mobilenet_v2(
    classes: int, n_mels: int, width: float = 1.0, embedding: int = 1024, head_dropout: float = 0.0
) -> PannsMobileNet:
    """MobileNetV2: a 3x3 convolution, seventeen inverted residual blocks, a 1x1 convolution. No dropout before fc1."""
    channels = _scaled(32, width)
    blocks = [nn.Sequential(*_pooled_conv(1, channels, 2), nn.ReLU6())]
    for expansion, out_channels, repeats, stride in V2_BLOCKS:
        for i in range(repeats):
            blocks.append(InvertedResidual(channels, _scaled(out_channels, width), stride if i == 0 else 1, expansion))
            channels = _scaled(out_channels, width)
    last = _scaled(1280, width)
    blocks.append(nn.Sequential(_conv(channels, last, 1), nn.BatchNorm2d(last), nn.ReLU6()))
    return PannsMobileNet(classes, n_mels, nn.Sequential(*blocks), last, embedding, head_dropout)


def _pooled_conv(in_channels: int, out_channels: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """A 3x3 convolution, average pooling of `stride` (1: it changes nothing, but has its place in the names), BN."""
    conv = _conv(in_channels, out_channels, 3, groups)
    return [conv, nn.AvgPool2d(stride), nn.BatchNorm2d(out_channels)]


def _conv(in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> nn.Module:
    return init_layer(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    )


def _scaled(channels: int, width: float) -> int:
    if width <= 0:
        raise ValueError(f"width multiplies all channels and must be above 0, got {width:g}")
    return max(1, round(channels * width))

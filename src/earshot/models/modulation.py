"""A small single-label tagger trained from scratch: a residual CNN beside an expert that hears rhythm.

A CNN on a log-mel confuses a clock's ticks with a crackling fire and a helicopter with rain: what tells them apart is
how each band's level repeats, over seconds. The second expert sees exactly that: modulation spectrum (how fast a band's
level moves) and autocorrelation (after what time it repeats). The logits add up; in training each expert also answers
for itself (`auxiliary_logit`, weighted by `loss.auxiliary_weight`), or the stronger would silence the other.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.models.cnn import ResidualBlock
from earshot.models.layers import normalised_input, outside_autocast, pad_frames

LAGS = 128  # rates and lags that the modulation expert looks at: 128 frames of 20 ms are 2.6 s
POOLED_BANDS = 4  # neighbouring mel bands whose modulation is averaged


class ModulationNet(nn.Module):
    """Classify clips by how fast the level of each band goes up and down.

    (B, 1, T, F) log-mel in decibels -> (B, K) logits from modulation spectrum and autocorrelation of each band.
    """

    def __init__(self, classes: int, widths: tuple[int, ...], dropout: float):
        super().__init__()
        channels, layers = 2, []
        for width in widths:
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.bn = nn.BatchNorm2d(2)
        self.layers, self.dropout = nn.Sequential(*layers), nn.Dropout(dropout)
        self.fc = nn.Linear(channels * (LAGS // 2 ** len(widths)), classes)

    def forward(self, logmel: Tensor) -> Tensor:
        with outside_autocast(logmel):
            images = self.bn(modulation_images(logmel.float()))
        x = self.layers(images).mean(dim=3).flatten(1)
        return self.fc(self.dropout(x))


def modulation_images(logmel: Tensor) -> Tensor:
    """Draw how each band's level varies, by rate and by lag.

    (B, 1, T, F) decibels -> (B, 2, LAGS, F // 4): modulation power (dB) by rate, autocorrelation by lag.

    Each band's mean over time is taken off. The spectrum is zero-padded to 2 T, so that its inverse is the linear
    autocorrelation; it is normalised by lag 0. Both transforms are products with cosines and sines, because an FFT
    cannot be exported: 1 % more of a training step at 5 s. Cost and memory grow with T squared: it is for clips of some
    seconds.
    """
    frames, bands = logmel.shape[2], logmel[:, 0]
    time, rate, lag = (torch.arange(n, device=logmel.device) for n in (frames, frames + 1, LAGS))
    window = 0.5 - 0.5 * torch.cos(time * (2 * math.pi / frames))
    level = (bands - bands.mean(dim=1, keepdim=True)) * window[:, None]
    angle = _angles(rate, time, frames)
    power = ((angle.cos() @ level).square() + (angle.sin() @ level).square()) / frames
    power = F.avg_pool2d(power[:, None], (1, POOLED_BANDS))[:, 0]
    share = torch.where((rate == 0) | (rate == frames), 0.5, 1.0) / frames  # others stand for their negative rate too
    repeats = (_angles(lag, rate, frames).cos() * share * (lag < 2 * frames)[:, None]) @ power
    repeats = repeats / (repeats[:, :1] + 1.0)
    rates = _first(F.avg_pool2d(power[:, None], (2, 1))[:, 0])
    return torch.stack([10 * torch.log10(rates + 0.1), 10 * repeats], dim=1)


def _angles(a: Tensor, b: Tensor, frames: int) -> Tensor:
    """(A,), (B,) whole numbers -> (A, B) radians pi a b / frames, whole turns taken off before they cost digits."""
    return (a[:, None] * b).remainder(2 * frames) * (math.pi / frames)


def _first(x: Tensor) -> Tensor:
    """The first LAGS rows of dim 1, zeros where a short clip has fewer."""
    return F.pad(x, (0, 0, 0, LAGS))[:, :LAGS]


class CnnModulation(nn.Module):
    """logmel (B, 1, T, n_mels) -> `logit`, `clipwise_output` (softmax), `auxiliary_logit` (B, 2, K), `embedding`.

    The CNN sees two channels: the normalised log-mel, and the same without each band's mean over time.
    """

    inputs = ("logmel",)
    activation = "softmax"
    in_chans = 1
    dead_parameters = ()

    def __init__(self, classes, n_mels, widths, dropout, modulation_widths, modulation_dropout):
        super().__init__()
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.stem = nn.Conv2d(2, widths[0], 5, stride=2, padding=2, bias=False)
        self.stem_bn = nn.BatchNorm2d(widths[0])
        blocks = [ResidualBlock(widths[0], widths[0])]
        blocks += [ResidualBlock(a, b, (2, 2)) for a, b in pairwise(widths)]
        self.blocks, self.dropout = nn.Sequential(*blocks), nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], classes)
        self.modulation = ModulationNet(classes, modulation_widths, modulation_dropout)
        self.pool = self.min_frames = 2 ** len(widths)

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        logmel = pad_frames(logmel, self.min_frames)
        x = normalised_input(self, logmel)
        x = torch.cat([x, x - x.mean(dim=2, keepdim=True)], dim=1)
        x = F.relu(self.stem_bn(self.stem(x)))
        x = self.blocks(x).mean(dim=3)
        embedding = x.mean(dim=2) + x.amax(dim=2)
        experts = torch.stack([self.fc(self.dropout(embedding)), self.modulation(logmel)], dim=1).float()
        logit = experts.sum(dim=1)
        return {
            "clipwise_output": logit.softmax(dim=1), "logit": logit, "auxiliary_logit": experts, "embedding": embedding,
        }  # fmt: skip


def cnn_modulation(
    classes: int,
    n_mels: int,
    widths: tuple[int, ...] = (16, 48, 96, 192),
    dropout: float = 0.3,
    modulation_widths: tuple[int, ...] = (16, 32, 64),
    modulation_dropout: float = 0.5,
) -> CnnModulation:
    """0.9 M parameters. The modulation expert wants whole clips of some seconds: windows should be long."""
    return CnnModulation(classes, n_mels, widths, dropout, modulation_widths, modulation_dropout)

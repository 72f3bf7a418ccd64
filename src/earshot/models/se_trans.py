"""SE-Trans (Bai et al. 2022): squeeze-and-excitation convolutions, a Transformer encoder, the maximum over time.

State-dict names are those of the authors' public code, without its `encoder_layer.*`, a template that no output depends
on: 340,794 parameters for 10 classes and 40 mels. As there: a batch norm over mel bins at the input, reduction 16, no
biases in the SE layers, 16 time steps, no positions, post-norm. `se=False` is the paper's CNN4-Trans.
The attention is written out and the 16 steps are a matrix product: traced graphs follow any batch and length.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models.layers import ACTIVATIONS, init_layer, normalised_input, single_answer

REDUCTION = 16


class SELayer(nn.Module):
    """Weigh each channel of (B, C, T, F) by a gate in (0, 1) made from the means of all (Eq. 1 to 3)."""

    def __init__(self, channels: int, reduction: int = REDUCTION):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class SEBlock(nn.Module):
    """Apply two gated convolutions, then pool.

    (B, C, T, F) -> (B, out_channels, T // 2, F // 2): twice (3x3 convolution, BN, SE, ReLU), then pooling.
    """

    def __init__(self, in_channels: int, out_channels: int, se: bool = True):
        super().__init__()
        self.conv1 = init_layer(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = init_layer(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        self.bn1, self.bn2 = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)
        self.se1, self.se2 = (SELayer(out_channels) if se else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.se1(self.bn1(self.conv1(x))))
        x = F.relu(self.se2(self.bn2(self.conv2(x))))
        return F.avg_pool2d(x, 2)


class StepPool(nn.Module):
    """Average a map over frequency and to a fixed number of steps in time.

    (B, C, T, F) -> (B, C, steps, 1): what adaptive average pooling to (steps, 1) gives, as a matrix product.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2]
        step, place = torch.arange(self.steps, device=x.device)[:, None], torch.arange(length, device=x.device)[None]
        first, stop = step * length // self.steps, ((step + 1) * length + self.steps - 1) // self.steps
        inside = ((place >= first) & (place < stop)).to(x.dtype)
        weights = inside / inside.sum(dim=1, keepdim=True)
        return torch.einsum("st,bct->bcs", weights, x.mean(dim=3))[..., None]


class SelfAttention(nn.Module):
    """Let each step of a sequence look at all others.

    (B, S, D) -> (B, S, D): multi-head scaled dot-product attention (Eq. 4 to 6), named as torch's.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = init_layer(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in projected.chunk(3, dim=2))
        weights = torch.softmax(query @ key.transpose(2, 3) / query.shape[3] ** 0.5, dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return self.out_proj((weights @ value).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Apply one layer of a Transformer encoder.

    (B, S, D) -> (B, S, D): attention and feed-forward network, each with residual and layer norm (Eq. 7, 8).
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.self_attn = SelfAttention(width, heads, dropout)
        self.linear1, self.linear2 = init_layer(nn.Linear(width, ffn)), init_layer(nn.Linear(ffn, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        drop = partial(F.dropout, p=self.dropout, training=self.training)
        x = self.norm1(x + drop(self.self_attn(x)))
        return self.norm2(x + drop(self.linear2(drop(F.relu(self.linear1(x))))))


class Encoder(nn.Module):
    """Apply the layers of a Transformer encoder one after the other: (B, S, D) -> (B, S, D)."""

    def __init__(self, layers: int, width: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, ffn, dropout) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class SETrans(nn.Module):
    """logmel (B, in_chans, T, n_mels) -> dict with logit, clipwise_output and the (B, widths[1]) embedding.

    The paper's ablations are `layers` 2, `heads` 4, `ffn` 16 and 64, `se` False. activation: softmax for one label a
    clip, sigmoid for any number.
    """

    inputs = ("logmel",)
    pool = min_frames = 4
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        widths: tuple[int, int] = (64, 128),
        layers: int = 1,
        heads: int = 8,
        ffn: int = 32,
        se: bool = True,
        steps: int = 16,
        dropout: float = 0.1,
        activation: str = "sigmoid",
        in_chans: int = 1,
    ):
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        if len(widths) != 2 or widths[1] % heads:
            raise ValueError(f"se_trans needs two widths, the second a multiple of heads ({heads}), got {widths}")
        if n_mels < 4:
            raise ValueError(f"se_trans halves the mel bins twice and needs at least 4, got {n_mels}")
        self.in_chans, self.activation = in_chans, activation
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.SE_block1 = SEBlock(in_chans, widths[0], se)
        self.SE_block2 = SEBlock(widths[0], widths[1], se)
        self.global_pool = StepPool(steps)
        self.encoder = Encoder(layers, widths[1], heads, ffn, dropout)
        self.fc = init_layer(nn.Linear(widths[1], classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = self.SE_block2(self.SE_block1(normalised_input(self, logmel)))
        x = self.encoder(self.global_pool(x)[..., 0].transpose(1, 2))
        return single_answer(self.fc, x.amax(dim=1), self.activation)


cnn4_trans = partial(SETrans, se=False)

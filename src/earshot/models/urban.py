"""Urban sounds with week, day, hour and place (Arnault and Riche 2020): three embeddings, one linear layer.

- `generic`: TALNet below its heads, started from AudioSet weights (model.weights is its file, drop: [fc_prob]).
- `specific`: its convolutions with group normalisation and weight standardisation, and a Transformer encoder in place
  of the GRU, from scratch.
- `metadata`: time2vec.MetadataEncoder of `columns`, which data.metadata must name in the same order.
System 1 is specific + metadata, systems 2 and 3 all three; `branches` chooses.

Paper and code differ much; what stands here (defaults are the paper's words, where it has any):
- the Transformer encoder is a whole one (attention, residual, layer norm, feed-forward); the code has one attention,
  without the rest. One layer of 8 heads (the code's system 1; 16 in 2 and 3) and a feed-forward of 128, so that it has
  fewer parameters than the GRU, as the paper says; no positions: neither has any;
- `join: clip`, the paper's: each audio embedding is pooled over time (maximum + mean, which neither says) and the
  embeddings are concatenated into one linear layer. `join: time`, the code's: the metadata's is repeated at every time
  step, the linear layer answers there, and attention over time gives the clip's answer;
- metadata have 128 numbers a value (the code's system 1; 64 in 2 and 3), the place 16, which is ours;
- groups: 32 (Wu and He 2018); a batch norm over mels in front of both audio nets, as the code has in systems 2 and 3;
- dropout 0.1 in the Transformers (the code: 0 in system 1, 0.2 in 2 and 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models.layers import ACTIVATIONS, SEDHead, init_layer, normalised_input, single_answer
from earshot.models.se_trans import Encoder
from earshot.models.talnet import POOL, POOLS, TalnetEncoder, check_sizes
from earshot.models.time2vec import MetadataEncoder

BRANCHES = ("generic", "specific", "metadata")
JOINS = ("clip", "time")
COLUMNS = ("latitude", "longitude", "week", "day", "hour")


class StandardisedConv(nn.Conv2d):
    """A convolution whose weights have mean 0 and deviation 1 for every output channel (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        flat = (flat - flat.mean(dim=1, keepdim=True)) / (flat.std(dim=1, keepdim=True) + 1e-5)
        return F.conv2d(x, flat.view_as(self.weight), self.bias, self.stride, self.padding)


class GroupBlock(nn.Module):
    """Standardised 3x3 convolution, group norm, ReLU, maximum: (B, C, T, F) -> (B, width, T // pool, F // pool)."""

    def __init__(self, in_channels: int, width: int, groups: int, pool: tuple[int, int]):
        super().__init__()
        self.pool = pool
        self.conv = StandardisedConv(in_channels, width, 3, padding=1)
        self.norm = nn.GroupNorm(math.gcd(groups, width), width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return x if self.pool == (1, 1) else F.max_pool2d(x, self.pool)


class SpecificEncoder(nn.Module):
    """Encode a log-mel by TALNet's ten convolutions, then a Transformer over time: (B, 1, T, n_mels) -> (B, T // 4,
    width)."""

    def __init__(
        self, n_mels: int, embedding: int, groups: int, layers: int, heads: int, ffn: int, dropout: float
    ):  # fmt: skip
        super().__init__()
        check_sizes(n_mels, embedding)
        channels = 1
        self.blocks = nn.ModuleList()
        for i in range(2 * len(POOLS)):
            width = embedding >> (5 - i // 2)
            self.blocks.append(GroupBlock(channels, width, groups, POOLS[i // 2] if i % 2 else (1, 1)))
            channels = width
        self.width = channels * (n_mels // 32)
        if self.width % heads:
            raise ValueError(f"the encoder's width {self.width} must be a multiple of heads {heads}")
        self.encoder = Encoder(layers, self.width, heads, ffn, dropout)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.encoder(x.transpose(1, 2).flatten(2))


class UrbanTagger(nn.Module):
    """logmel (B, 1, T, n_mels) and, with that branch, metadata (B, M) -> dict; segments only with `join: time`.

    metadata_drop: so often a value counts as missing in training, see time2vec.
    """

    opened = ("generic", "specific")
    pool = min_frames = POOL
    in_chans = 1
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        branches: tuple[str, ...] = ("specific", "metadata"),
        columns: tuple[str, ...] = COLUMNS,
        join: str = "clip",
        embedding: int = 1024,
        groups: int = 32,
        layers: int = 1,
        heads: int = 8,
        ffn: int = 128,
        metadata_size: int = 128,
        place_width: int = 16,
        dropout: float = 0.1,
        metadata_drop: float = 0.0,
        activation: str = "sigmoid",
    ):
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("join", join, JOINS)
        for branch in branches:
            check_choice("branch", branch, BRANCHES)
        self.sounds = [name for name in ("generic", "specific") if name in branches]
        if not self.sounds or len(set(branches)) < len(branches):
            raise ValueError(f"branches need generic or specific, and each once, got {list(branches)}")
        self.inputs = ("logmel",) + ("metadata",) * ("metadata" in branches)
        self.input_shapes = {"metadata": (len(columns),)}
        self.weights_prefix = "generic." if "generic" in branches else ""
        self.join, self.activation = join, activation
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        if "generic" in branches:
            self.generic = TalnetEncoder(n_mels, embedding)
        if "specific" in branches:
            self.specific = SpecificEncoder(
                n_mels, embedding, groups, layers=layers, heads=heads, ffn=ffn, dropout=dropout
            )
        width = sum(getattr(self, name).width for name in self.sounds)
        if "metadata" in branches:
            self.metadata = MetadataEncoder(
                columns,
                metadata_size,
                layers=layers,
                heads=heads,
                ffn=ffn,
                place_width=place_width,
                dropout=dropout,
                drop=metadata_drop,
            )
            width += self.metadata.width
        time = join == "time"
        self.fc = SEDHead(width, classes, "attention", activation) if time else init_layer(nn.Linear(width, classes))
        self.pooling = self.fc.window_pooling if time else ""

    def forward(self, logmel: Tensor, metadata: Tensor | None = None) -> dict[str, Tensor]:
        x = normalised_input(self, logmel)
        steps = torch.cat([getattr(self, name)(x) for name in self.sounds], dim=2).float()
        if self.join == "time":
            if metadata is not None:
                known = self.metadata(metadata).float()[:, None].expand(-1, steps.shape[1], -1)
                steps = torch.cat([steps, known], dim=2)
            return {**self.fc(steps, logmel.shape[2], POOL), "embedding": steps.mean(dim=1)}
        clip = steps.amax(dim=1) + steps.mean(dim=1)
        if metadata is not None:
            clip = torch.cat([clip, self.metadata(metadata).float()], dim=1)
        return single_answer(self.fc, clip, self.activation)

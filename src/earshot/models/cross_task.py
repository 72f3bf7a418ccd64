"""Scenes with the help of a pre-trained event model (Zhang, Zou and Li 2020): FA, VEM, JRM and CMAM.

All encode a log-mel by 3x3 convolutions with 2x2 maxima and pool its steps by multi-head attention into one linear
layer. FA hears the log-mel alone; VEM an event model's embeddings in its place; JRM encodes both and joins what was
pooled; CMAM lets one attend to the other. Printed sizes: 1.47 M is the third and fourth convolution (1,474,560), 33 M
are the last three of JRM's seven (33,030,144); CMAM's are two attentions of 8 x 2048 x 2048 numbers (33,554,432).

What the source leaves open, and what stands here:
- convolutions have no bias; batch norm and ReLU follow each, a batch norm over mels comes before the first (bn0);
- attention pooling is Zhu et al.'s (2018, its reference): weights = softmax over time of W2 relu(W1 step), W1 of 1024
  rows, W2 one row a head; the four weighted means of whole steps are joined: 8192 numbers, one linear layer behind;
- steps are (channel, band): 512 x 4 = 2048 of 64 mels; n_mels others than 64 change that number;
- the embeddings go through a batch norm, column by column; a width other than VGGish's 128 is first brought to 128 by a
  linear layer (VEM, JRM), or to 2048 (CMAM, any width: only so is its size the printed one);
- VEM: ten steps cannot be halved four times, so time is not pooled: the 128 columns alone are, to 8 bands, and a step
  has 4096 numbers;
- JRM: fewer than four embeddings are filled up with the last one, which two halvings of time need;
- CMAM: positions (sine, cosine) are added after that linear layer; matrices have no bias; W^O is applied to the joined
  heads; the d of equation 4 is a head's width (256; `scale: query` takes all 2048); dropout 0.1. The source's words
  make the embeddings the query of the second attention; `query: logmel` turns it round.
- VGGish's own embeddings, not the post-processed ones (`extractor_params: {postprocess: true}` takes those, and then
  cannot fine-tune).
Strategies: from scratch `extractor: vggish`; fine-tuned the same with model.weights (a file of the extractor alone);
feature-based with `freeze: true` too, or a sequence of embeddings as input (`extractor: ""`), of any model. `extractor:
logmel` is ours: a second encoder of the log-mel, from scratch, in the place of whatever gave embeddings as input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.inputs.vggish import FRAMES, N_MELS
from earshot.messages import check_choice
from earshot.models.layers import ACTIVATIONS, init_layer, normalised_input, single_answer
from earshot.models.vggish import VggishExtractor

WIDTHS = (64, 128, 256, 512)
DEEP_WIDTHS = (*WIDTHS, 1024, 1024, 2048)
DEEP_POOLS = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))
COLUMNS = 128  # of an embedding as VEM and JRM encode it
LEAST_STEPS = 4  # embeddings that JRM's two halvings of time need
EXTRACTORS = ("", "vggish", "logmel")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What all four take in their config; `attention` is W1's 1024, two input channels are the source's."""

    widths: tuple[int, ...] = WIDTHS
    attention: int = 1024
    heads: int = 4
    activation: str = "sigmoid"
    in_chans: int = 1

    def __post_init__(self):
        check_choice("activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class EventOptions(Sizes):
    """And what brings in the event model; see WithExtractor."""

    extractor: str = ""
    extractor_width: int = COLUMNS
    freeze: bool = False
    extractor_params: dict | None = None
    pretrained: str | bool = False

    def __post_init__(self):
        super().__post_init__()
        check_choice("extractor", self.extractor, EXTRACTORS)
        if self.extractor_params and not self.extractor:
            raise ValueError("extractor_params need extractor: vggish or logmel; given embeddings have none")
        if self.pretrained and self.extractor != "vggish":
            raise ValueError("pretrained (a post-processor's file) needs extractor: vggish")


class Encoder(nn.Sequential):
    """Turn a log-mel into a sequence of features by convolutions.

    (B, C, T, F) -> (B, T', widths[-1] * F'): convolutions conv1, conv2, ... and one step a row of the last map.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], pools: tuple[tuple[int, int], ...]):
        super().__init__()
        if len(widths) != len(pools):
            raise ValueError(f"the source's encoder here has {len(pools)} convolutions, got widths {widths}")
        for i, (width, pool) in enumerate(zip(widths, pools, strict=True), start=1):
            conv = init_layer(nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            self.add_module(f"relu{i}", nn.ReLU())
            self.add_module(f"pool{i}", nn.MaxPool2d(pool))
            in_channels = width

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).transpose(1, 2).flatten(2)


class AttentionPooling(nn.Module):
    """Average a sequence over time, with weights of its own for each head: (B, S, D) -> (B, heads * D)."""

    def __init__(self, width: int, hidden: int, heads: int):
        super().__init__()
        self.hidden = init_layer(nn.Linear(width, hidden, bias=False))
        self.heads = init_layer(nn.Linear(hidden, heads, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.heads(F.relu(self.hidden(x))), dim=1)
        return (weights.transpose(1, 2) @ x).flatten(1)


class Attention(nn.Module):
    """Equations 1 to 6: (B, S, width) asks, (B, L, key_width) answers -> (B, S, width) with residual and layer norm.

    scale: what the products are divided by, the square root of a "head"'s width or of the whole "query"'s.
    """

    def __init__(self, width: int, key_width: int, query_dim: int, heads: int, dropout: float, scale: str = "head"):
        super().__init__()
        check_choice("scale", scale, ("head", "query"))
        if query_dim % heads:
            raise ValueError(f"query_dim {query_dim} must be a multiple of heads {heads}")
        self.head_count, self.dropout = heads, dropout
        self.divisor = (query_dim // heads if scale == "head" else query_dim) ** 0.5
        self.query = init_layer(nn.Linear(width, query_dim, bias=False))
        self.key = init_layer(nn.Linear(key_width, query_dim, bias=False))
        self.value = init_layer(nn.Linear(key_width, query_dim, bias=False))
        self.out = init_layer(nn.Linear(query_dim, width, bias=False))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        query, key, value = (
            layer(given).unflatten(2, (self.head_count, -1)).transpose(1, 2)
            for layer, given in ((self.query, x), (self.key, other), (self.value, other))
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / self.divisor, dim=-1)
        heads = (weights @ value).transpose(1, 2).flatten(2)
        return self.norm(F.dropout(self.out(heads), self.dropout, self.training) + x)


class FundamentalArchitecture(nn.Module):
    """FA: logmel (B, in_chans, T, n_mels) -> dict."""

    options = Sizes
    inputs: tuple[str, ...] = ("logmel",)
    pool = min_frames = 16
    dead_parameters: tuple[str, ...] = ()

    def __init__(self, classes: int, n_mels: int, **shared):
        super().__init__()
        o = Sizes(**shared)
        self.activation = o.activation
        step = _add_logmel(self, n_mels, o.in_chans, o.widths)
        self.attention = AttentionPooling(step, o.attention, o.heads)
        self.fc = init_layer(nn.Linear(o.heads * step, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        steps = self.encoder(normalised_input(self, logmel))
        return single_answer(self.fc, self.attention(steps), self.activation)


class LogmelExtractor(nn.Module):
    """An event model that nobody trained before: logmel (B, C, T, n_mels) -> (B, T / 16, embedding), FA's encoder and
    one layer."""

    min_frames = 16
    pproc = None

    def __init__(self, n_mels: int, in_chans: int, widths: tuple[int, ...] = WIDTHS, embedding: int = COLUMNS):
        super().__init__()
        self.width = embedding
        step = _add_logmel(self, n_mels, in_chans, tuple(widths))
        self.embeddings = nn.Sequential(init_layer(nn.Linear(step, embedding)), nn.ReLU())

    def forward(self, logmel: Tensor) -> Tensor:
        return self.embeddings(self.encoder(normalised_input(self, logmel)))


class WithExtractor(nn.Module):
    """A network that is given an event model's embeddings: input "extractor" (B, N, extractor_width), or made inside.

    extractor "vggish" has the input "vggish", examples (B, N, 96, 64), "logmel" a second encoder of that input; either
    is the child `extractor`, which trains with the rest unless `freeze` (then it stays in eval mode and is run without
    a graph). extractor_params, and `pretrained` (VGGish's post-processor's file), go to its class.
    """

    options = EventOptions
    opened = ("extractor",)
    dead_parameters: tuple[str, ...] = ()
    hears_logmel = True

    def __init__(self, n_mels: int, o: EventOptions):
        super().__init__()
        self.activation, self.frozen, self.of_events = o.activation, o.freeze, o.extractor or "extractor"
        self.inputs = tuple(dict.fromkeys(("logmel",) * self.hears_logmel + (self.of_events,)))
        self.input_shapes = {"extractor": (LEAST_STEPS, o.extractor_width), "vggish": (LEAST_STEPS, FRAMES, N_MELS)}
        self.weights_prefix = "extractor." if o.extractor else ""
        width, params = o.extractor_width, o.extractor_params or {}
        if o.extractor:
            if o.extractor == "vggish":
                self.extractor = VggishExtractor(**params, pretrained=o.pretrained)
            else:
                self.extractor = LogmelExtractor(n_mels, o.in_chans, **params)
            width = self.extractor.width
            if o.freeze or self.extractor.pproc is not None:
                self.extractor.requires_grad_(False)
                self.frozen, self.dead_parameters = True, ("extractor.",)
        self.bn_extractor = nn.BatchNorm1d(width)

    def train(self, mode: bool = True) -> WithExtractor:
        super().train(mode)
        if self.frozen and hasattr(self, "extractor"):
            self.extractor.eval()
        return self

    def events(self, **inputs: Tensor | None) -> Tensor:
        """The input that the event model takes, or its embeddings -> (B, N, D), each column by its batch norm."""
        found = inputs[self.of_events]
        if hasattr(self, "extractor"):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                found = self.extractor(found)
        width = self.bn_extractor.num_features
        if not torch.jit.is_tracing() and (found.ndim != 3 or found.shape[2] != width):
            raise ValueError(
                f"extractor must be (batch, steps, {width}), got {tuple(found.shape)}; is extractor_width that of "
                "the embeddings?"
            )
        return self.bn_extractor(found.float().transpose(1, 2)).transpose(1, 2)


class EmbeddingModel(WithExtractor):
    """VEM: embeddings (B, N, D) alone -> dict; 1x2 maxima leave the N steps."""

    pool = min_frames = 1
    hears_logmel = False

    def __init__(self, classes: int, n_mels: int = 0, **shared):
        o = EventOptions(**shared)
        super().__init__(n_mels, o)
        self.columns = _to_width(self.bn_extractor.num_features, COLUMNS)
        self.encoder = Encoder(1, o.widths, ((1, 2),) * 4)
        step = o.widths[-1] * (COLUMNS // 16)
        self.attention = AttentionPooling(step, o.attention, o.heads)
        self.fc = init_layer(nn.Linear(o.heads * step, classes))

    def forward(
        self, extractor: Tensor | None = None, vggish: Tensor | None = None, logmel: Tensor | None = None
    ) -> dict[str, Tensor]:
        events = self.events(extractor=extractor, vggish=vggish, logmel=logmel)
        steps = self.encoder(self.columns(events)[:, None])
        return single_answer(self.fc, self.attention(steps), self.activation)


class JointModel(WithExtractor):
    """JRM: log-mel by FA's encoder, embeddings by seven convolutions, each pooled, the two joined -> dict."""

    pool = min_frames = 16

    def __init__(self, classes: int, n_mels: int, deep_widths: tuple[int, ...] = DEEP_WIDTHS, **shared):
        o = EventOptions(**shared)
        super().__init__(n_mels, o)
        step = _add_logmel(self, n_mels, o.in_chans, o.widths)
        self.columns = _to_width(self.bn_extractor.num_features, COLUMNS)
        self.deep_encoder = Encoder(1, deep_widths, DEEP_POOLS)
        self.attention = AttentionPooling(step, o.attention, o.heads)
        self.deep_attention = AttentionPooling(deep_widths[-1], o.attention, o.heads)
        self.fc = init_layer(nn.Linear(o.heads * (step + deep_widths[-1]), classes))

    def forward(
        self, logmel: Tensor, extractor: Tensor | None = None, vggish: Tensor | None = None
    ) -> dict[str, Tensor]:
        steps = self.encoder(normalised_input(self, logmel))
        events = self.events(extractor=extractor, vggish=vggish, logmel=logmel)
        deep = self.deep_encoder(_filled(self.columns(events))[:, None])
        joined = torch.cat([self.attention(steps), self.deep_attention(deep)], dim=1)
        return single_answer(self.fc, joined, self.activation)


class AttentionModel(WithExtractor):
    """CMAM: embeddings attend to themselves, then to FA's steps (or, query "logmel", these to them) -> dict."""

    pool = min_frames = 16

    def __init__(
        self,
        classes: int,
        n_mels: int,
        query: str = "extractor",
        query_dim: int = 2048,
        query_heads: int = 8,
        scale: str = "head",
        dropout: float = 0.1,
        **shared,
    ):
        o = EventOptions(**shared)
        super().__init__(n_mels, o)
        check_choice("query", query, ("extractor", "logmel"))
        self.asks = query
        step = _add_logmel(self, n_mels, o.in_chans, o.widths)
        self.project = init_layer(nn.Linear(self.bn_extractor.num_features, query_dim))
        self.self_attention = Attention(query_dim, query_dim, query_dim, query_heads, dropout, scale)
        asking, answering = (query_dim, step) if query == "extractor" else (step, query_dim)
        self.cross_attention = Attention(asking, answering, query_dim, query_heads, dropout, scale)
        self.attention = AttentionPooling(asking, o.attention, o.heads)
        self.fc = init_layer(nn.Linear(o.heads * asking, classes))

    def forward(
        self, logmel: Tensor, extractor: Tensor | None = None, vggish: Tensor | None = None
    ) -> dict[str, Tensor]:
        steps = self.encoder(normalised_input(self, logmel))
        events = self.project(self.events(extractor=extractor, vggish=vggish, logmel=logmel))
        events = events + positions(events)
        events = self.self_attention(events, events)
        asking, answering = (events, steps) if self.asks == "extractor" else (steps, events)
        return single_answer(self.fc, self.attention(self.cross_attention(asking, answering)), self.activation)


def positions(x: Tensor) -> Tensor:
    """Give the sines and cosines that tell a Transformer where in time it is.

    (B, S, D), D even -> (S, D): sines in the even columns, cosines in the odd ones (Vaswani et al. 2017).
    """
    place = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)[:, None]
    column = torch.arange(0, x.shape[2], 2, device=x.device, dtype=torch.float32)
    angle = place * torch.pow(10000.0, -column / x.shape[2])
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(x.dtype)


def _add_logmel(model: nn.Module, n_mels: int, in_chans: int, widths: tuple[int, ...]) -> int:
    """FA's batch norm and encoder, and all that the contract wants of a log-mel; returns the width of a step."""
    if n_mels < 16:
        raise ValueError(f"four 2x2 poolings need at least 16 mel bins, got {n_mels}: raise n_mels")
    model.in_chans = in_chans
    model.register_module("spec_augment", None)
    model.bn0 = nn.BatchNorm2d(n_mels)
    model.encoder = Encoder(in_chans, widths, ((2, 2),) * 4)
    return widths[-1] * (n_mels // 16)


def _to_width(width: int, wanted: int) -> nn.Module:
    return nn.Identity() if width == wanted else init_layer(nn.Linear(width, wanted))


def _filled(x: Tensor) -> Tensor:
    """(B, N, D) -> at least four steps, the last one repeated; a traced graph needs so many, see `pad_frames`."""
    if torch.jit.is_tracing() or x.shape[1] >= LEAST_STEPS:
        return x
    return torch.cat([x, x[:, -1:].expand(-1, LEAST_STEPS - x.shape[1], -1)], dim=1)

"""Blocks, poolings and heads that several networks share.

Conventions: log-mel (B, C, T, F); features over time (B, S, D) with S segments of `pool` input frames each; heads
return the model contract's dict. Probabilities and softmaxes are computed in float32 outside autocast. A network that
needs more frames than came repeats the last frame up to the number it needs (`pad_frames`); outputs are cut back to
the T frames that came. Published parameter names (PANNs) are kept where weights exist.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.prediction.pooling import POOLINGS as WINDOW_POOLINGS

POOLINGS = ("attention", "linear_softmax", "max", "mean", "gem", "auto_pool", "clip")
ACTIVATIONS = ("sigmoid", "softmax")


class ConvBlock(nn.Module):
    """Apply PANNs' block of convolutions, then pool.

    (B, C, T, F) -> (B, out_channels, T // pool, F // pool): 1 or 2 x (conv, BN, ReLU), then average pooling.

    Names as in PANNs: conv1, bn1, conv2, bn2; `convs=1, kernel_size=5` is its 5x5 block.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, convs: int = 2, pool: tuple[int, int] = (2, 2)
    ):
        super().__init__()
        self.convs, self.pool = convs, tuple(pool)
        for i in range(1, convs + 1):
            conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
            self.add_module(f"conv{i}", init_layer(conv))
            self.add_module(f"bn{i}", nn.BatchNorm2d(out_channels))
            in_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.convs + 1):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return x if self.pool == (1, 1) else F.avg_pool2d(x, self.pool)


class AttentionBlock(nn.Module):
    """Answer for clip and segments by PANNs' attention over time, of (B, D, S) features; parameter names att, cla,
    bn_att.

    `bn_att` is in the published weights but never used by the published network: it stays for strict loading.
    """

    dead_parameters = ("bn_att.",)

    def __init__(self, in_features: int, classes: int):
        super().__init__()
        self.att = init_layer(nn.Conv1d(in_features, classes, 1))
        self.cla = init_layer(nn.Conv1d(in_features, classes, 1))
        self.bn_att = nn.BatchNorm1d(classes)

    def forward(self, x: Tensor, n_frames: int, pool: int) -> dict[str, Tensor]:
        with outside_autocast(x):
            x = x.float()
            logit = self.cla(x).transpose(1, 2)
            probability = torch.sigmoid(logit)
            attention = self.att(x).transpose(1, 2)
            clip = {"clipwise_output": attention_pool(probability, attention), "segmentwise_attention": attention}
        return {**clip, **segment_outputs(logit, probability, n_frames, pool)}


class SEDHead(nn.Module):
    """Answer for each segment, and pool the segments to one answer a clip.

    (B, S, D) features -> the model contract's dict, by one linear layer a segment and a pooling over time.

    activation "sigmoid" (multi-label): poolings of `POOLINGS` over segment probabilities; only "max" and "clip"
    give a `logit`. "softmax" (single-label): attention, max, mean pool segment logits, so `logit` is always there.
    pooling "clip": no segments, (max + mean over time) of the features into the linear layer, as PANNs taggers do.
    gem's power starts at 3 (Radenovic et al. 2018), auto_pool's alpha, one a class, at 1 (McFee et al. 2018).
    """

    def __init__(self, in_features: int, classes: int, pooling: str = "attention", activation: str = "sigmoid"):
        super().__init__()
        check_choice("pooling", pooling, POOLINGS)
        check_choice("activation", activation, ACTIVATIONS)
        if activation == "softmax" and pooling in ("linear_softmax", "gem", "auto_pool"):
            raise ValueError(
                f"pooling '{pooling}' is defined on sigmoid probabilities; with activation 'softmax' choose "
                "attention, max, mean or clip"
            )
        self.pooling, self.activation = pooling, activation
        self.cla = init_layer(nn.Linear(in_features, classes))
        if pooling == "attention":
            self.att = init_layer(nn.Linear(in_features, classes))
        elif pooling == "gem":
            self.power = nn.Parameter(torch.tensor(3.0))
        elif pooling == "auto_pool":
            self.alpha = nn.Parameter(torch.ones(classes))

    def forward(self, x: Tensor, n_frames: int, pool: int) -> dict[str, Tensor]:
        with outside_autocast(x):
            x = x.float()
            if self.pooling == "clip":
                logit = self.cla(x.amax(dim=1) + x.mean(dim=1))
                return {"clipwise_output": self.probability(logit), "logit": logit}
            logit = self.cla(x)
            probability = self.probability(logit)
            clip = self._pool_logit(x, logit) if self.activation == "softmax" else self._pool(x, logit, probability)
        return {**clip, **segment_outputs(logit, probability, n_frames, pool)}

    @property
    def window_pooling(self) -> str:
        """The model contract's `pooling`: how segments become the clip output, '' where their outputs do not tell."""
        return self.pooling if self.activation == "sigmoid" and self.pooling in WINDOW_POOLINGS else ""

    def probability(self, logit: Tensor) -> Tensor:
        return torch.sigmoid(logit) if self.activation == "sigmoid" else torch.softmax(logit, dim=-1)

    def _pool(self, x: Tensor, logit: Tensor, probability: Tensor) -> dict[str, Tensor]:
        if self.pooling == "max":
            clip_logit = logit.amax(dim=1)
            return {"clipwise_output": torch.sigmoid(clip_logit), "logit": clip_logit}
        if self.pooling == "attention":
            attention = self.att(x)
            return {"clipwise_output": attention_pool(probability, attention), "segmentwise_attention": attention}
        if self.pooling == "linear_softmax":
            clipwise = linear_softmax(probability)
        elif self.pooling == "gem":
            clipwise = gem(probability, self.power)
        elif self.pooling == "auto_pool":
            clipwise = auto_pool(probability, self.alpha)
        else:
            clipwise = probability.mean(dim=1)
        return {"clipwise_output": clipwise}

    def _pool_logit(self, x: Tensor, logit: Tensor) -> dict[str, Tensor]:
        if self.pooling == "attention":
            clip_logit = attention_pool(logit, self.att(x))
        else:
            clip_logit = logit.amax(dim=1) if self.pooling == "max" else logit.mean(dim=1)
        return {"clipwise_output": torch.softmax(clip_logit, dim=-1), "logit": clip_logit}


def single_answer(fc: nn.Module, embedding: Tensor, activation: str) -> dict[str, Tensor]:
    """Answer for the clip as a whole from its embedding.

    (B, D) embedding, the last layer -> logit and clipwise_output (B, K) by sigmoid or softmax, and the embedding.
    """
    with outside_autocast(embedding):
        embedding = embedding.float()
        logit = fc(embedding)
        probability = torch.sigmoid(logit) if activation == "sigmoid" else torch.softmax(logit, dim=1)
    return {"clipwise_output": probability, "logit": logit, "embedding": embedding}


def attention_pool(segmentwise: Tensor, attention_logit: Tensor) -> Tensor:
    """Average (B, S, K) values over time, weighted by the softmax of their attention logits: (B, K)."""
    # clamp as in PANNs: exp(+-10) stays a number in every precision
    return (torch.softmax(attention_logit.clamp(-10, 10), dim=1) * segmentwise).sum(dim=1)


def linear_softmax(probability: Tensor) -> Tensor:
    """Average probabilities over time, each weighted by itself.

    (B, S, K) probabilities -> (B, K): sum(p * p) / sum(p) (Wang et al. 2019, as in TALNet).
    """
    return (probability * probability).sum(dim=1) / probability.sum(dim=1).clamp(min=1e-7)


def gem(probability: Tensor, power: Tensor | float) -> Tensor:
    """Average (B, S, K) probabilities over time by a generalised mean: 1 is the mean, towards infinity the maximum."""
    return (probability.clamp(min=1e-6) ** power).mean(dim=1) ** (1.0 / power)


def auto_pool(probability: Tensor, alpha: Tensor | float) -> Tensor:
    """Average over time by a softmax whose sharpness is learned.

    (B, S, K) probabilities, (K,) alpha -> (B, K): softmax(alpha * p) weighted mean; 0 = mean, infinity = max.
    """
    return (torch.softmax(alpha * probability, dim=1) * probability).sum(dim=1)


def segment_outputs(logit: Tensor, probability: Tensor, n_frames: int, pool: int) -> dict[str, Tensor]:
    """Give answers of segments as the model contract names them.

    (B, S, K) logits and probabilities -> the contract's segmentwise_ and framewise_ entries, frames (B, T, K).
    """
    return {
        "segmentwise_logit": logit,
        "segmentwise_output": probability,
        "framewise_logit": repeat_to_frames(logit, pool, n_frames),
        "framewise_output": repeat_to_frames(probability, pool, n_frames),
    }


def repeat_to_frames(segmentwise: Tensor, pool: int, n_frames: int) -> Tensor:
    """Repeat segments to as many frames as the input had.

    (B, S, K) -> (B, n_frames, K): each segment repeated `pool` times, cut, or padded with the last (no drift).
    """
    index = torch.arange(n_frames, device=segmentwise.device) // pool
    return segmentwise[:, index.clamp(max=segmentwise.shape[1] - 1)]


def smooth_over_time(x: Tensor) -> Tensor:
    """Smooth features, (B, D, S), over time as PANNs do: 3-tap maximum + 3-tap mean, which counts the zero padding."""
    return F.max_pool1d(x, 3, stride=1, padding=1) + F.avg_pool1d(x, 3, stride=1, padding=1)


def pad_frames(logmel: Tensor, minimum: int) -> Tensor:
    """Repeat the last frame of (B, C, T, F) until there are `minimum` frames.

    A traced graph leaves this out (the test would be frozen in it): an exported model needs `min_frames` frames.
    """
    if torch.jit.is_tracing() or logmel.shape[2] >= minimum:
        return logmel
    return F.pad(logmel, (0, 0, 0, minimum - logmel.shape[2]), mode="replicate")


def normalised_input(model: nn.Module, logmel: Tensor) -> Tensor:
    """Bring a log-mel into the shape and scale that the network learns from.

    (B, C, T, F) log-mel -> (B, in_chans, max(T, min_frames), F): padded, `bn0` over mels, SpecAugment in training.

    Reads bn0, in_chans, min_frames and spec_augment of the model; one channel is repeated to `in_chans`.
    """
    x = _normalised_bands(model.bn0, checked_input(logmel, model.bn0.num_features, model.in_chans, model.min_frames))
    if model.training and model.spec_augment is not None:
        x = model.spec_augment(x)
    return x if x.shape[1] == model.in_chans else x.expand(-1, model.in_chans, -1, -1)


def checked_input(logmel: Tensor, n_mels: int, in_chans: int, min_frames: int) -> Tensor:
    """Check the shape of a log-mel and make it long enough.

    (B, 1 or in_chans, T, n_mels) log-mel as it came, of at least `min_frames` frames; another shape is an error.
    """
    _check_logmel(logmel, n_mels, in_chans)
    return pad_frames(logmel, min_frames)


def _normalised_bands(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(B, C, T, F) through a batch norm over F; traced by its two numbers a band, without turning the map."""
    if not torch.jit.is_tracing():
        return bn(x.transpose(1, 3)).transpose(1, 3)
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    return x * scale + (bn.bias - bn.running_mean * scale)


def waveform_input(model: nn.Module, waveform: Tensor) -> Tensor:
    """Give a waveform a channel axis and make it long enough.

    (B, S) waveform -> (B, 1, max(S, min_samples)), zeros behind a short one; reads min_samples of the model.
    """
    if not torch.jit.is_tracing():  # as in `pad_frames`
        if waveform.ndim != 2:
            raise ValueError(f"waveform must be (batch, samples), got {tuple(waveform.shape)}")
        waveform = F.pad(waveform, (0, max(0, model.min_samples - waveform.shape[1])))
    return waveform[:, None]


def clip_head(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Answer for the clip by PANNs' tagging head: (B, D, S) features, maximum + mean over time, fc1, fc_audioset -> the
    contract's dict.

    Reads fc1, fc_audioset and head_dropout of the model. As published, the classifier reads fc1's output itself, and
    `embedding` is a dropped-out copy of it.
    """
    x = F.dropout(x.amax(dim=2) + x.mean(dim=2), model.head_dropout, model.training)
    x = F.relu(model.fc1(x))
    embedding = F.dropout(x, model.head_dropout, model.training)
    with outside_autocast(x):
        logit = model.fc_audioset(x.float())
        return {"clipwise_output": torch.sigmoid(logit), "logit": logit, "embedding": embedding}


def outside_autocast(x: Tensor):
    """Context in which layers on the device of `x` compute in their own precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def init_layer(layer: nn.Module) -> nn.Module:
    """The convolution or linear layer itself, Xavier-uniform weights and a bias of 0 (as PANNs)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check_logmel(logmel: Tensor, n_mels: int, in_chans: int) -> None:
    if torch.jit.is_tracing():  # an exported graph keeps no Python checks
        return
    if logmel.ndim != 4 or logmel.shape[3] != n_mels or logmel.shape[1] not in (1, in_chans):
        raise ValueError(
            f"logmel must be (batch, {'1' if in_chans == 1 else f'1 or {in_chans}'}, frames, {n_mels}), got "
            f"{tuple(logmel.shape)}; is the front end's n_mels that of the network?"
        )

"""Speech's networks on waveforms, Wav2Vec2, HuBERT, WavLM and their kin, as taggers and event detectors.

Convolutions bring a waveform to a step every 20 ms, a Transformer follows: all of it transformers' own network, from a
folder (`folder`) or from scratch (`architecture`, in transformers' keys with a `model_type`). Ours are the heads on its
steps. As the feature extractors of these networks do, a window is brought to mean 0 and variance 1 first, unless the
folder (or `architecture`) says `do_normalize: false`. `embedding` is the mean of the steps.

Left out of the library's training, so that a seed decides and every parameter learns: its masking of steps, which
draws from NumPy's global generator, and its skipping of layers. The input must have the network's `sampling_rate`.
Steps are answers on the run's grid, whose frames are the first picture front end's, or samples where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.inputs.network import Inputs
from earshot.models.layers import SEDHead, waveform_input
from earshot.models.transformers_folder import (
    WAVEFORM_TYPES,
    Source,
    architecture_of,
    build_backbone,
    kept_architecture,
)

SAMPLE_RATE = 16000  # Hz, of networks whose folder says none
FIXED = {"apply_spec_augment": False, "layerdrop": 0.0}
UNUSED = ("masked_spec_embed",)  # what masked steps become
VARIANCE_FLOOR = 1e-7


class WaveformTransformer(nn.Module):
    """waveform (B, S) at `sampling_rate` -> dict of clip, segments (a step of the network each) and frames.

    folder, architecture: see transformers_folder.Source. dropout: before the head.
    """

    inputs = ("waveform",)
    opened = ("backbone",)
    dead_parameters = tuple(f"backbone.{name}" for name in UNUSED)
    min_frames = 1

    def __init__(
        self,
        classes: int,
        n_mels: int,
        folder: str = "",
        architecture: Mapping[str, Any] | None = None,
        pooling: str = "attention",
        activation: str = "sigmoid",
        dropout: float = 0.0,
        heard: Inputs | None = None,
        weights_follow: bool = False,
        kept: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        source = Source(folder, architecture, weights_follow, kept)
        self.architecture = architecture_of(source, WAVEFORM_TYPES, {"model_type": "wav2vec2"})
        self.dropout, self.activation = dropout, activation
        self.backbone = build_backbone(source, self.architecture, UNUSED, **FIXED)
        self.backbone.opened = ("encoder",)
        self.architecture = kept_architecture(self.backbone, self.architecture)
        config = self.backbone.config
        if config.model_type == "wav2vec2-conformer":  # its positions are relative ones
            self.dead_parameters += ("backbone.encoder.pos_conv_embed.",)
        self.normalised = self.architecture.get("do_normalize", True)
        self.stride = math.prod(config.conv_stride)
        self.min_samples = receptive_field(config.conv_kernel, config.conv_stride)
        self.frame, self.pool = grid_of(heard, waveform_rate(self.architecture), self.stride)
        self.head = SEDHead(config.hidden_size, classes, pooling, activation)
        self.pooling = self.head.window_pooling

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        x = waveform_input(self, waveform)[:, 0]
        if self.normalised:
            x = x - x.mean(dim=1, keepdim=True)
            x = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + VARIANCE_FLOOR)
        steps = self.backbone(x).last_hidden_state
        embedding = steps.mean(dim=1).float()
        rate, samples = self.frame
        frames = waveform.shape[1] * rate // samples + 1
        count = (frames + self.pool - 1) // self.pool
        index = torch.arange(count, device=x.device).clamp(max=steps.shape[1] - 1)
        steps = F.dropout(steps[:, index], self.dropout, self.training)
        return {**self.head(steps, frames, self.pool), "embedding": embedding}


def waveform_rate(architecture: Mapping[str, Any]) -> int:
    """Hz that a network hears."""
    return architecture.get("sampling_rate", SAMPLE_RATE)


def receptive_field(kernels: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Samples that one step of these convolutions hears: the least that give a step."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def grid_of(heard: Inputs | None, own: int, stride: int) -> tuple[tuple[int, int], int]:
    """What the run hears -> ((a, b): S samples of the input are S * a // b frames of the run's grid, frames a step).

    Errors: an input at another rate than the network's, and a step that is no whole number of the run's frames.
    """
    if heard is None:
        return (1, stride), 1
    rate, hop = heard.sample_rate, heard.hop_length
    given = heard["waveform"].sample_rate or rate
    if given != own:
        raise ValueError(
            f"this network hears {own} Hz, the waveform has {given} Hz: set frontends.waveform="
            f"{{kind: waveform, sample_rate: {own}}} (data.sample_rate at least that)"
        )
    if stride * rate % (own * hop):
        raise ValueError(
            f"the network's step of {stride} samples at {own} Hz is no whole number of the run's frames, of {hop} "
            f"samples at {rate} Hz: give the picture front end that hop_length, or leave it out"
        )
    common = math.gcd(rate, own * hop)
    return (rate // common, own * hop // common), stride * rate // (own * hop)

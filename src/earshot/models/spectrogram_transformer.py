"""The Audio Spectrogram Transformer (Gong, Chung and Glass 2021) as a tagger and event detector, by transformers.

Patches of 16 x 16 of the spectrogram, every 10 frames and 10 bands, a token for the class and one for the distilled
answer, learned positions, a Transformer: all of it transformers' ASTModel, from a folder (`folder`) or from scratch
(`architecture`, in transformers' own keys; the defaults are AST base). Ours are positions for any window length and
any number of bands (interpolated, and those of the training length to the bit), and the heads: the patches of one
time step are averaged over frequency into a segment of `time_stride` frames, which layers.SEDHead answers from.
`embedding` is the mean of the two tokens, as published.

Segment s is the patch that starts where it starts. The last frames hold no whole patch: their segment is the last
patch's once more. Published networks hear `kind: kaldi` front ends with their own mean and deviation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.inputs.kaldi_input import Kaldi
from earshot.inputs.network import Inputs
from earshot.models.layers import SEDHead, checked_input, normalised_input
from earshot.models.transformers_folder import AST, Source, architecture_of, build_backbone, kept_architecture

INPUT = "logmel"
SPREAD = 0.02  # of the tokens and positions of a network from scratch, which transformers leaves at 0: all alike

logger = logging.getLogger("earshot")


class SpectrogramTransformer(nn.Module):
    """logmel (B, 1, T, n_mels) -> dict of clip, segments (`time_stride` frames each) and frames; see the module.

    folder, architecture: see transformers_folder.Source. dropout: before the head. input_norm: a batch norm over the
    bands in front, for pictures that are not standardised (log-mels in decibels), and SpecAugment on them.
    """

    inputs = (INPUT,)
    in_chans = 1
    opened = ("backbone",)  # its layers are blocks of their own
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        folder: str = "",
        architecture: Mapping[str, Any] | None = None,
        pooling: str = "attention",
        activation: str = "sigmoid",
        dropout: float = 0.0,
        input_norm: bool = False,
        heard: Inputs | None = None,
        weights_follow: bool = False,
        kept: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        source = Source(folder, architecture, weights_follow, kept)
        defaults = {"model_type": AST, "num_mel_bins": n_mels}
        self.architecture = architecture_of(source, (AST,), defaults)
        check_heard(self.architecture, heard)
        self.n_mels, self.dropout, self.activation = n_mels, dropout, activation
        self.register_module("spec_augment", None)
        if input_norm:
            self.bn0 = nn.BatchNorm2d(n_mels)
        self.backbone = build_backbone(source, self.architecture)
        self.architecture = kept_architecture(self.backbone, self.architecture)
        config = self.backbone.config
        self.pool, patch = config.time_stride, config.patch_size
        self.min_frames = max(patch, self.pool)
        if n_mels < patch:
            raise ValueError(f"AST's patches are {patch} bands high, and the front end has {n_mels}")
        self.bands = (n_mels - patch) // config.frequency_stride + 1  # patches above each other
        self.grid = self.backbone.embeddings.get_shape(config)  # of the positions: bands, steps
        self.standardised = heard is not None and getattr(heard.get(INPUT), "kind", "") == "kaldi"
        self.head = SEDHead(config.hidden_size, classes, pooling, activation)
        self.pooling = self.head.window_pooling
        if not folder and kept is None:
            for tensor in (self._parts.cls_token, self._parts.distillation_token, self._parts.position_embeddings):
                nn.init.trunc_normal_(tensor, std=SPREAD)

    @property
    def _parts(self) -> nn.Module:
        return self.backbone.embeddings

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = self._input(logmel)
        steps, embedding = self.encode(x)
        index = torch.arange(x.shape[2] // self.pool, device=x.device).clamp(max=steps.shape[1] - 1)
        steps = F.dropout(steps[:, index], self.dropout, self.training)
        return {**self.head(steps, logmel.shape[2], self.pool), "embedding": embedding.float()}

    def _input(self, logmel: Tensor) -> Tensor:
        if hasattr(self, "bn0"):
            return normalised_input(self, logmel)
        x = checked_input(logmel, self.n_mels, self.in_chans, self.min_frames)
        if self.spec_augment is None or not self.training:
            return x
        if not self.standardised:
            raise ValueError(
                "SpecAugment masks with zeros, which mean nothing in a picture that is not standardised: hear a front "
                "end of kind kaldi, set model.params.input_norm=true, or leave augment.spec_augment out"
            )
        return self.spec_augment(x)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the Transformer over the patches of a picture.

        (B, 1, T, n_mels) -> (B, steps, D) means over the patches of a step, (B, D) mean of the two tokens.
        """
        patches = self._parts.patch_embeddings.projection(x.transpose(2, 3))
        table = self._parts.position_embeddings
        positions = self._positions(table[:, 2:], patches.shape[3])
        tokens = torch.cat([self._parts.cls_token, self._parts.distillation_token], dim=1) + table[:, :2]
        hidden = patches.flatten(2).transpose(1, 2) + positions
        hidden = self._parts.dropout(torch.cat([tokens.expand(x.shape[0], -1, -1), hidden], dim=1))
        for layer in self.backbone.layers:
            hidden = layer(hidden, None)
        hidden = self.backbone.layernorm(hidden)
        steps = hidden[:, 2:].reshape(hidden.shape[0], self.bands, -1, hidden.shape[2]).mean(dim=1)
        return steps, hidden[:, :2].mean(dim=1)

    def _positions(self, table: Tensor, steps: int) -> Tensor:
        """(1, bands * steps of training, D) -> (1, bands * steps of this picture, D)."""
        grid = table.unflatten(1, self.grid)
        if self.bands != self.grid[0]:
            grid = resized(grid, 1, self.bands)
        return resized(grid, 2, steps).flatten(1, 2)


def resized(x: Tensor, dim: int, size: int) -> Tensor:
    """Bring an axis to another length, linearly between its values; itself to the bit where the length is its own.

    As torch's interpolation without aligned corners; written out, so that a traced graph keeps the length free.
    """
    length = x.shape[dim]
    place = ((torch.arange(size, device=x.device) + 0.5) * (length / size) - 0.5).clamp(0, length - 1)
    low = place.floor()
    share = (place - low).reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    high = (low + 1).clamp(max=length - 1)
    below, above = x.index_select(dim, low.long()), x.index_select(dim, high.long())
    return below + (above - below) * share.to(x.dtype)


def own_front_end(architecture: Mapping[str, Any]) -> Kaldi:
    """The filter bank that the AST of a folder hears, as its feature extractor says; AudioSet's where it has none."""
    if not architecture.get("do_normalize", True):
        return Kaldi(n_mels=architecture["num_mel_bins"], mean=0.0, deviation=0.5)  # (x - 0) / (2 * 0.5)
    said = {"mean": architecture.get("mean"), "deviation": architecture.get("std")}
    return Kaldi(
        n_mels=architecture["num_mel_bins"], **{key: value for key, value in said.items() if value is not None}
    )


def check_heard(architecture: Mapping[str, Any], heard: Inputs | None):
    """Error where a folder's feature extractor hears otherwise than the front end, with both values."""
    record = heard.get(INPUT) if heard is not None else None
    if record is None or not {"mean", "std", "do_normalize"} & set(architecture):
        return
    theirs = own_front_end(architecture)
    if record.kind != "kaldi":
        logger.warning(
            "the AST of this folder was trained on Kaldi's filter bank, and hears a %s: set frontends.%s.kind=kaldi",
            record.kind, INPUT,
        )  # fmt: skip
        return
    wrong = [key for key in ("mean", "deviation", "n_mels") if getattr(record, key) != getattr(theirs, key)]
    if wrong:
        told, ours = (", ".join(f"{key} {getattr(r, key):g}" for key in wrong) for r in (theirs, record))
        raise ValueError(
            f"the AST of this folder hears a filter bank with {told}, the front end has {ours}: set "
            + " ".join(f"frontends.{INPUT}.{key}={getattr(theirs, key)!r}" for key in wrong)
        )

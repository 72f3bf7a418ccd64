"""PANNs (Kong et al. 2020): Cnn6, Cnn10, Cnn14 and Cnn14 with decision-level heads, on log-mels.

State-dict names are the published ones without the front end (`spectrogram_extractor.*`, `logmel_extractor.*`), so
AudioSet checkpoints load strictly (weights.load_weights). The variants of the paper's tables are options: `embedding`
(32, 128, 512), `n_mels`, `dropout=0`, and, outside the network, the sample rate and SpecAugment.
Each pooling halves time and drops a last odd frame: 501 frames give 15 segments of 32, and the frames after the last
segment carry its value. Input of fewer than `min_frames` frames is padded with its last frame.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice
from earshot.models.layers import (
    AttentionBlock,
    ConvBlock,
    clip_head,
    init_layer,
    normalised_input,
    outside_autocast,
    segment_outputs,
    smooth_over_time,
)

CNN14_WIDTHS = (64, 128, 256, 512, 1024, 2048)
CNN10_WIDTHS = CNN14_WIDTHS[:4]
HEADS = ("clip", "max", "mean", "attention")


class PannsCnn(nn.Module):
    """logmel (B, 1, T, n_mels) -> dict; `head` "clip" (tagging) or "max", "mean", "attention" (decision level).

    Blocks of `kernel_size` with `convs` convolutions pool 2x2 but those after the `pooled`-th; dropout after each
    block, mean over frequency, `head_dropout` around fc1 (`embedding` units, ReLU).
    """

    inputs = ("logmel",)

    def __init__(
        self,
        classes: int,
        n_mels: int,
        head: str,
        widths: tuple[int, ...] = CNN14_WIDTHS,
        pooled: int = 5,
        embedding: int = 2048,
        kernel_size: int = 3,
        convs: int = 2,
        dropout: float = 0.2,
        head_dropout: float = 0.5,
        in_chans: int = 1,
    ):
        super().__init__()
        check_choice("head", head, HEADS)
        self.head, self.dropout, self.head_dropout, self.in_chans = head, dropout, head_dropout, in_chans
        self.pool = self.min_frames = 2**pooled
        self.pooling = "" if head == "clip" else head
        self.dead_parameters = ("att_block.bn_att.",) if head == "attention" else ()
        self.register_module("spec_augment", None)
        self.bn0 = nn.BatchNorm2d(n_mels)
        for i, width in enumerate(widths, start=1):
            pool = (2, 2) if i <= pooled else (1, 1)
            self.add_module(f"conv_block{i}", ConvBlock(in_chans, width, kernel_size, convs, pool))
            in_chans = width
        self.fc1 = init_layer(nn.Linear(widths[-1], embedding))
        if head == "attention":
            self.att_block = AttentionBlock(embedding, classes)
        else:
            self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = self.features(logmel)
        if self.head == "clip":
            return clip_head(self, x)
        x = F.dropout(smooth_over_time(x), self.head_dropout, self.training)
        x = F.relu(self.fc1(x.transpose(1, 2)))
        embedding = x.mean(dim=1)
        x = F.dropout(x, self.head_dropout, self.training)
        return {**self._segment_head(x, logmel.shape[2]), "embedding": embedding}

    def features(self, logmel: Tensor) -> Tensor:
        """Compute the features that the head reads.

        (B, 1, T, F) -> (B, widths[-1], S): the blocks, averaged over frequency.
        """
        x = normalised_input(self, logmel)
        for name, block in self.named_children():
            if name.startswith("conv_block"):
                x = F.dropout(block(x), self.dropout, self.training)
        return x.mean(dim=3)

    def _segment_head(self, x: Tensor, n_frames: int) -> dict[str, Tensor]:
        if self.head == "attention":
            return self.att_block(x.transpose(1, 2), n_frames, self.pool)
        with outside_autocast(x):
            logit = self.fc_audioset(x.float())
            probability = torch.sigmoid(logit)
            if self.head == "max":
                clip = {"clipwise_output": probability.amax(dim=1), "logit": logit.amax(dim=1)}
            else:
                clip = {"clipwise_output": probability.mean(dim=1)}
        return {**clip, **segment_outputs(logit, probability, n_frames, self.pool)}


# head, widths, ... stay open to `model.params`; what a line sets is only its default
cnn14_att = partial(PannsCnn, head="attention")  # Cnn14_DecisionLevelAtt, the birdcall system's network
cnn14_max = partial(PannsCnn, head="max")  # Cnn14_DecisionLevelMax
cnn14_avg = partial(PannsCnn, head="mean")  # Cnn14_DecisionLevelAvg
cnn14 = partial(PannsCnn, head="clip")
cnn10 = partial(PannsCnn, head="clip", widths=CNN10_WIDTHS, pooled=4, embedding=512)
cnn6 = partial(PannsCnn, head="clip", widths=CNN10_WIDTHS, pooled=4, embedding=512, kernel_size=5, convs=1)

"""PANNs' Wavegram networks (Kong et al. 2020): a learnt time-frequency image of the waveform in front of Cnn14.

One-dimensional convolutions bring 320 samples to one frame; the channels are read as 4 images of n_mels / 2 frequency
bins. Wavegram_Cnn14 goes on with Cnn14's second block (its `bn0` and `conv_block1` are in the published weights, but
dead); Wavegram_Logmel_Cnn14 joins the wavegram to the log-mel's first block, which must have a hop of 320 samples.
State-dict names are the published ones. SpecAugment acts on the log-mel alone, after bn0, so never in Wavegram_Cnn14.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.models.layers import ConvBlock, clip_head, init_layer, normalised_input, waveform_input
from earshot.models.panns import CNN14_WIDTHS

IMAGES = 4  # of the wavegram
FRAME_SAMPLES = 5 * 4**3  # stride of pre_conv0, then three poolings


class PreBlock(nn.Module):
    """Apply dilated convolutions along a waveform, then pool.

    (B, C, S) -> (B, out_channels, S // 4): convolutions of 3 with dilation 1 and 2 (BN, ReLU), maximum pooling.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = init_layer(nn.Conv1d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = init_layer(nn.Conv1d(out_channels, out_channels, 3, padding=2, dilation=2, bias=False))
        self.bn1 = nn.BatchNorm1d(out_channels)
        self.bn2 = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.max_pool1d(F.relu(self.bn2(self.conv2(x))), 4)


class WavegramCnn(nn.Module):
    """waveform (B, S), with_logmel also logmel (B, 1, T, n_mels) -> dict.

    widths: of Cnn14's blocks; pre_widths: of the first two one-dimensional blocks, the third has 2 * n_mels channels.
    """

    in_chans = 1
    mixed_layer = "pre_block4"  # the wavegram, mixed where log-mels are (augment.batch.mixup_on=logmel)

    def __init__(
        self,
        classes: int,
        n_mels: int,
        with_logmel: bool = False,
        widths: tuple[int, ...] = CNN14_WIDTHS,
        pre_widths: tuple[int, int] = (64, 128),
        embedding: int = 2048,
        dropout: float = 0.2,
        head_dropout: float = 0.5,
    ):
        super().__init__()
        self.with_logmel, self.dropout, self.head_dropout = with_logmel, dropout, head_dropout
        self.inputs = ("waveform", "logmel") if with_logmel else ("waveform",)
        self.dead_parameters = () if with_logmel else ("bn0.", "conv_block1.")
        self.blocks, self.bins = len(widths), n_mels // 2
        self.pool = self.min_frames = 2 ** (len(widths) - 1)
        self.min_samples = FRAME_SAMPLES * self.pool
        if with_logmel:
            self.register_module("spec_augment", None)
        first, second = pre_widths
        self.pre_conv0 = init_layer(nn.Conv1d(1, first, 11, stride=5, padding=5, bias=False))
        self.pre_bn0 = nn.BatchNorm1d(first)
        self.pre_block1 = PreBlock(first, first)
        self.pre_block2 = PreBlock(first, second)
        self.pre_block3 = PreBlock(second, IMAGES * self.bins)
        self.pre_block4 = ConvBlock(IMAGES, widths[0], pool=(2, 1))
        self.bn0 = nn.BatchNorm2d(n_mels)
        channels = 1
        for i, width in enumerate(widths, start=1):
            pool = (2, 2) if i < len(widths) else (1, 1)
            self.add_module(f"conv_block{i}", ConvBlock(channels, width, pool=pool))
            channels = 2 * width if with_logmel and i == 1 else width
        self.fc1 = init_layer(nn.Linear(channels, embedding))
        self.fc_audioset = init_layer(nn.Linear(embedding, classes))

    def forward(self, waveform: Tensor, logmel: Tensor | None = None) -> dict[str, Tensor]:
        x = self.wavegram(waveform)
        if self.with_logmel:
            x = _joined(self.conv_block1(normalised_input(self, logmel)), x)
        for i in range(2, self.blocks + 1):
            x = getattr(self, f"conv_block{i}")(F.dropout(x, self.dropout, self.training))
        return clip_head(self, F.dropout(x, self.dropout, self.training).mean(dim=3))

    def wavegram(self, waveform: Tensor) -> Tensor:
        """Turn a waveform into a learned picture of time and frequency.

        (B, S) -> (B, widths[0], S // 640, n_mels / 2).
        """
        x = F.relu(self.pre_bn0(self.pre_conv0(waveform_input(self, waveform))))
        x = self.pre_block3(self.pre_block2(self.pre_block1(x)))
        return self.pre_block4(x.unflatten(1, (IMAGES, self.bins)).transpose(2, 3))


def _joined(logmel: Tensor, wavegram: Tensor) -> Tensor:
    """(B, C, T, F) twice -> (B, 2 C, T, F), the log-mel first; one frame more on either side is cut."""
    frames = logmel.shape[2], wavegram.shape[2]
    if not torch.jit.is_tracing() and abs(frames[0] - frames[1]) > 1:
        raise ValueError(
            f"the log-mel gives {frames[0]} frames where the wavegram gives {frames[1]}: a Wavegram_Logmel network "
            f"needs both of the same clip, and hop_length {FRAME_SAMPLES}"
        )
    return torch.cat([logmel[:, :, : frames[1]], wavegram[:, :, : frames[0]]], dim=1)


wavegram_cnn14 = WavegramCnn
wavegram_logmel_cnn14 = partial(WavegramCnn, with_logmel=True)

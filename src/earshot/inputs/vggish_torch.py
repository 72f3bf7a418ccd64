"""The torch twin of `inputs.vggish`: VGGish's examples on any device, with a gradient to the waveform."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from earshot.inputs.vggish import (
    FRAMES,
    HOP,
    LEAST_SAMPLES,
    N_FFT,
    N_MELS,
    OFFSET,
    WINDOW,
    hann_window,
    mel_bank,
    n_examples,
)


class VggishExamples(nn.Module):
    """Cut a batch of waveforms into VGGish's examples, in torch.

    (..., S) waveform at 16 kHz -> (..., N, 96, 64) float32, outside autocast; window and bank are no weights.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.tensor(hann_window()), persistent=False)
        self.register_buffer("bank", torch.tensor(mel_bank()), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if waveform.ndim == 0 or waveform.shape[-1] == 0:
            raise ValueError(f"VGGish needs (..., samples) with samples in it, got {tuple(waveform.shape)}")
        with torch.autocast(waveform.device.type, enabled=False):
            clips = waveform.float()
            clips = F.pad(clips, (0, max(0, LEAST_SAMPLES - clips.shape[-1])))
            count = n_examples(clips.shape[-1])
            frames = clips.unfold(-1, WINDOW, HOP)[..., : count * FRAMES, :]
            magnitude = torch.fft.rfft(frames * self.window, N_FFT).abs()
            logmel = torch.log(magnitude @ self.bank + OFFSET)
        return logmel.reshape(*waveform.shape[:-1], count, FRAMES, N_MELS)

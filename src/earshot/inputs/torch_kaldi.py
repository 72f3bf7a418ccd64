"""The torch twin of `inputs.kaldi`: the same filter bank on any device, with a gradient to the waveform."""

from __future__ import annotations

import torch
from torch import nn

from earshot.inputs.kaldi import FLOOR, HOP, N_FFT, PREEMPHASIS, WINDOW, end_index, mel_bank, window


class TorchKaldi(nn.Module):
    """Compute the standardised Kaldi filter bank of a batch, in torch.

    (B, S) or (B, 1, S) waveforms at 16 kHz -> (B, 1, T, n_mels) float32, outside autocast; nothing in it is a weight.
    """

    def __init__(self, n_mels: int, mean: float, deviation: float):
        super().__init__()
        self.mean, self.deviation = mean, deviation
        self.register_buffer("window", torch.tensor(window()), persistent=False)
        self.register_buffer("bank", torch.tensor(mel_bank(n_mels)), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if waveform.ndim == 3 and waveform.shape[1] == 1:
            waveform = waveform[:, 0]
        if waveform.ndim != 2 or waveform.shape[1] == 0:
            raise ValueError(f"a Kaldi filter bank needs (batch, samples) with samples in it, got {waveform.shape}")
        with torch.autocast(waveform.device.type, enabled=False):
            index = torch.from_numpy(end_index(waveform.shape[1])).to(waveform.device)
            frames = waveform.float()[:, index].unfold(-1, WINDOW, HOP)
            frames = frames - frames.mean(dim=-1, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * self.window, N_FFT)
            power = spectrum.real.square() + spectrum.imag.square()
            logmel = torch.log((power @ self.bank).clamp_min(FLOOR))
            return ((logmel - self.mean) / (2 * self.deviation))[:, None]

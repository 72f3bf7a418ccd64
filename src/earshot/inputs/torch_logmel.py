"""Waveforms -> log-mels in torch: the twin of `logmel.log_mel` (same conventions), differentiable, on any device.

Always computed in float32 outside autocast: a power spectrum overflows float16 and bfloat16 blurs its decibels. On a
GPU one `torch.stft`; on a CPU a real FFT of 256 frames at a time, which stays in the processor's cache and is there as
fast as the NumPy path, torch.stft on a batch being the slower of the two. Window and mel matrix are no part of the
state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from earshot.sound.logmel import BLOCK_FRAMES, LogmelParams, fft_window, mel_filterbank, reference_db, reflected_index


class LogMel(nn.Module):
    """Compute log-mel spectrograms of a batch, in torch.

    (B, S) or (B, C, S) -> (B, C or 1, T, F) float32 decibels; `top_db` counts from each waveform's own maximum.
    """

    def __init__(self, params: LogmelParams):
        super().__init__()
        self.params = params
        self.register_buffer("window", torch.tensor(fft_window(params)), persistent=False)
        self.register_buffer("bank", torch.tensor(mel_filterbank(params)).T.contiguous(), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if waveform.ndim not in (2, 3) or waveform.shape[-1] == 0:
            raise ValueError(f"LogMel needs (B, S) or (B, C, S) with samples in it, got {tuple(waveform.shape)}")
        channels = waveform.shape[1] if waveform.ndim == 3 else 1
        with torch.autocast(waveform.device.type, enabled=False):
            mel = self.mel(waveform.float().reshape(-1, waveform.shape[-1]))
            return self.compress(mel).unflatten(0, (-1, channels))

    def compress(self, mel: torch.Tensor) -> torch.Tensor:
        """Turn energies, (N, T, F), into decibels."""
        return _to_decibels(mel, self.params)

    def mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """Sum the power of a waveform's spectrum in mel bands.

        (N, S) float32 -> (N, T, F) energies.
        """
        edged = padded(waveform, self.params)
        return self._by_blocks(edged) if edged.device.type == "cpu" else self._by_stft(edged)

    def _by_stft(self, padded: torch.Tensor) -> torch.Tensor:
        n_fft, hop_length = self.params.n_fft, self.params.hop_length
        spectrum = torch.stft(padded, n_fft, hop_length, window=self.window, center=False, return_complex=True)
        return spectrum.abs().square().transpose(1, 2) @ self.bank

    def _by_blocks(self, padded: torch.Tensor) -> torch.Tensor:
        mels = []
        for clip in padded.unfold(-1, self.params.n_fft, self.params.hop_length):
            for frames in clip.split(BLOCK_FRAMES):
                spectrum = torch.fft.rfft(frames * self.window)
                mels.append((spectrum.real.square() + spectrum.imag.square()) @ self.bank)
        return torch.cat(mels).unflatten(0, (len(padded), -1))


def padded(waveform: torch.Tensor, params: LogmelParams) -> torch.Tensor:
    """The waveforms (N, S) with the edges that their frames need, as `logmel.log_mel` pads."""
    n_samples, padding = waveform.shape[-1], params.padding
    if padding and params.pad_mode == "reflect":
        if n_samples > padding:
            return F.pad(waveform, (padding, padding), mode="reflect")
        return waveform[:, torch.from_numpy(reflected_index(n_samples, padding)).to(waveform.device)]
    return F.pad(waveform, (padding, max(padding, params.n_fft - n_samples - padding)))


def _to_decibels(mel: torch.Tensor, params: LogmelParams) -> torch.Tensor:
    """(N, T, F) energies -> decibels."""
    decibels = 10 * torch.log10(mel.clamp_min(params.amin)) - reference_db(params)
    if params.top_db is None:
        return decibels
    return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - params.top_db)

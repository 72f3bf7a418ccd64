"""How loud clips are to people, and the share by which two of them are mixed so that their labels' shares are heard.

Between-class learning (Tokozume, Ushiku and Harada 2018, "Learning from between-class examples for deep sound
recognition"): with a plain mean of waveforms the louder clip drowns the other one, whatever the label says.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

WINDOW_SECONDS = 0.1  # of whose levels the largest counts
FLOOR = 1e-12  # energies of digital silence
LARGEST_DIFFERENCE = 40.0  # decibels that are evened out: beside silence a sound would become silence too


def a_weighting(hertz: np.ndarray) -> np.ndarray:
    """How much louder or softer people hear these frequencies than 1 kHz, (F,) Hz -> (F,) decibels (IEC 61672-1)."""
    squared = np.maximum(np.asarray(hertz, float), 1e-3) ** 2
    ratio = (
        12194.0**2 * squared**2
        / ((squared + 20.6**2) * np.sqrt((squared + 107.7**2) * (squared + 737.9**2)) * (squared + 12194.0**2))
    )  # fmt: skip
    return 20 * np.log10(ratio) + 2.0


def logmel_levels(logmel: Tensor, hertz: np.ndarray) -> Tensor:
    """Level of the loudest frame of each log-mel, (B, C, T, F) decibels -> (B,) decibels, bands A-weighted."""
    weighted = logmel.float() + torch.as_tensor(a_weighting(hertz), dtype=torch.float32, device=logmel.device)
    energy = (10 ** (weighted / 10)).sum(dim=(1, 3)).amax(dim=1)
    return 10 * torch.log10(energy.clamp_min(FLOOR))


def sound_levels(waveform: Tensor, sample_rate: int) -> Tensor:
    """Level of the loudest tenth of a second of each waveform, (B, S) or (B, 2, S) -> (B,) decibels, A-weighted.

    Windows overlap by half; a shorter waveform is one window. Two channels count as their mean energy.
    """
    size = min(max(int(sample_rate * WINDOW_SECONDS), 2), waveform.shape[-1])
    frames = waveform.float().unfold(-1, size, max(size // 2, 1)) * torch.hann_window(size, device=waveform.device)
    energy = torch.fft.rfft(frames).abs().square()
    if energy.ndim == 4:
        energy = energy.mean(dim=1)
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    gain = torch.as_tensor(10 ** (a_weighting(hertz) / 10), dtype=torch.float32, device=energy.device)
    loudest = (energy * gain).sum(dim=-1).amax(dim=1) / size**2
    return 10 * torch.log10(loudest.clamp_min(FLOOR))


def amplitude_shares(lam: Tensor, level: Tensor, index: Tensor) -> Tensor:
    """The share of amplitude at which a clip is heard as `lam` of a mixture: equation 2 of the source.

    lam: one number or (B,) shares of the labels; level: (B,) decibels; index: (B,) partners -> (B,).
    """
    lam = torch.as_tensor(lam, dtype=torch.float32, device=level.device).expand(len(level))
    difference = (level - level[index.to(level.device)]).clamp(-LARGEST_DIFFERENCE, LARGEST_DIFFERENCE)
    louder = 10 ** (difference / 20)
    return lam / (lam + louder * (1 - lam)).clamp_min(1e-12)

"""Mixup (Zhang et al. 2018) of waveforms or log-mels, and what becomes of the batch's targets.

`lam` is one number a batch or (B,) numbers a clip, `index` (B,) each clip's partner: out = lam * own + (1 - lam) *
partner. Everything that is linear is mixed so: input, target, frame_target, weight. An entry is known afterwards only
if it is known in both clips (where a share is 0, in the other): a mixed label that is half unknown is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

MIXED = ("target", "frame_target", "weight")


def sample_lam(alpha: float, generator: torch.Generator, size: int | None = None) -> Tensor:
    """Beta(alpha, alpha) draws in [0, 1], float32: one number, or (size,); alpha 0 gives 1 (no mixing)."""
    if alpha < 0:
        raise ValueError(f"mixup alpha must not be negative, got {alpha}")
    # torch's Beta takes no generator: NumPy's draws from a seed that ours draws
    seed = int(torch.randint(2**62, (1,), generator=generator))
    lam = np.random.default_rng(seed).beta(alpha, alpha, size) if alpha else np.ones(size or ())
    return torch.as_tensor(lam, dtype=torch.float32)


def sample_partners(size: int, generator: torch.Generator) -> Tensor:
    """(size,) random permutation: each clip is mixed with its entry's clip, now and then itself."""
    return torch.randperm(size, generator=generator)


def mixup(x: Tensor, target: Tensor, lam: Tensor | float, index: Tensor) -> tuple[Tensor, Tensor]:
    """(B, ...) input and (B, ...) target -> both mixed: the sum of the targets' labels is kept."""
    return mix(x, lam, index), mix(target.float(), lam, index)


def mix(x: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """lam * x + (1 - lam) * x[index], `lam` one number or (B,)."""
    lam = torch.as_tensor(lam, dtype=x.dtype, device=x.device)
    lam = lam.reshape(-1, *[1] * (x.ndim - 1)) if lam.ndim else lam
    return lam * x + (1 - lam) * x[index.to(x.device)]


def mix_mask(mask: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """(B, K) known entries -> those known in every clip that has a share in the mixture."""
    lam = torch.as_tensor(lam, dtype=torch.float32, device=mask.device).reshape(-1, 1)
    own = torch.where(lam > 0, mask, torch.ones_like(mask))
    partner = torch.where(lam < 1, mask[index.to(mask.device)], torch.ones_like(mask))
    return torch.minimum(own, partner)


def mix_power(logmel: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """Log-mels in decibels mixed as sounds are: amplitudes lam and 1 - lam, so energies lam^2 and (1 - lam)^2.

    Normalised by their sum, so that a clip mixed with itself stays as it is.
    """
    lam = torch.as_tensor(lam, dtype=logmel.dtype, device=logmel.device)
    lam = lam.reshape(-1, *[1] * (logmel.ndim - 1)) if lam.ndim else lam
    own, other = lam.square(), (1 - lam).square()
    energy = own * 10 ** (logmel / 10) + other * 10 ** (logmel[index.to(logmel.device)] / 10)
    return torch.where(lam < 1, 10 * torch.log10((energy / (own + other)).clamp_min(1e-12)), logmel)


def mix_batch(
    batch: dict, names: tuple[str, ...], lam: Tensor | float, index: Tensor, mix_input: Callable = mix
) -> dict:
    """New batch: the inputs called `names` and the targets mixed, the mask intersected, the rest as it was.

    Metadata and clip_id stay the first clip's. Unknown targets (mask 0) count as 0 in the mixture, which the mask
    leaves out. frame_target is mixed whether its rows are frames or segments.
    """
    out = dict(batch)
    mask = batch.get("mask")
    if mask is not None:
        out["target"] = torch.where(mask > 0, batch["target"].float(), 0.0)
        out["mask"] = mix_mask(mask, lam, index)
    for name in names:
        out[name] = mix_input(out[name].float(), lam, index)
    for name in (n for n in MIXED if batch.get(n) is not None):
        out[name] = mix(out[name].float(), lam, index)
    return out

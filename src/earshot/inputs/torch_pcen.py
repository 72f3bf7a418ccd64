"""PCEN in torch: the twin of `pcen.Pcen.compute`, differentiable; the smoothing over time is one matrix product."""

from __future__ import annotations

import math

import torch

from earshot.inputs.torch_logmel import LogMel


class TorchPcen(LogMel):
    """Compute PCEN of a batch, in torch.

    (B, S) or (B, C, S) -> (B, C or 1, T, F) float32, outside autocast; its parameters are a `pcen.Pcen`.
    """

    def compress(self, mel: torch.Tensor) -> torch.Tensor:
        """Even the energies of each band, (N, T, F), out over time (PCEN)."""
        p, energy = self.params, self.params.scale * mel
        smooth = self._smoothed(energy)
        # (eps + M)^-gain as librosa takes it, through logarithms
        quotient = energy * torch.exp(-p.gain * (math.log(p.eps) + torch.log1p(smooth / p.eps)))
        return p.bias**p.power * torch.expm1(p.power * torch.log1p(quotient / p.bias))

    def _smoothed(self, energy: torch.Tensor) -> torch.Tensor:
        """M_t = b E_t + (1 - b) M_{t-1} from M_{-1} = 1 on."""
        b, steps = self.params.smoothing, torch.arange(energy.shape[1], device=energy.device)
        lag = (steps[:, None] - steps).clamp(min=0)
        weights = torch.where(steps[:, None] >= steps, b * (1 - b) ** lag.float(), 0.0)
        return weights @ energy + ((1 - b) ** (steps + 1).float())[:, None]

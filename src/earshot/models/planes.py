"""Planes beside a log-mel: how it changes over time (deltas), and which band each row is.

Backbones made for colour pictures take three planes. Deltas are those of speech recognition: the slope of the
regression over nine frames, the outermost frame repeated beyond the ends; delta2 is the delta of the delta. A plane of
band positions tells a network that forgets where it is along frequency which band it hears.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.messages import check_choice

PLANES = ("logmel", "delta", "delta2", "frequency")
REACH = 4  # frames on either side of a delta


class Planes(nn.Module):
    """Make several planes of a log-mel: (B, 1, T, F) -> (B, len(names), T, F), in the order of `names` of PLANES."""

    def __init__(self, names: Sequence[str], n_mels: int):
        super().__init__()
        self.names = tuple(names)
        for name in self.names:
            check_choice("planes", name, PLANES)
        if len(set(self.names)) < len(self.names) or "logmel" not in self.names:
            raise ValueError(f"planes are the logmel and others of {', '.join(PLANES)}, each once, got {list(names)}")
        steps = torch.arange(-REACH, REACH + 1.0)
        self.register_buffer("slope", (steps / steps.square().sum()).reshape(1, 1, -1, 1), persistent=False)
        self.register_buffer("position", torch.linspace(-1, 1, n_mels).reshape(1, 1, 1, -1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        made = {"logmel": x}
        if {"delta", "delta2"} & set(self.names):
            made["delta"] = self._delta(x)
        if "delta2" in self.names:
            made["delta2"] = self._delta(made["delta"])
        if "frequency" in self.names:
            made["frequency"] = self.position.to(x.dtype).expand_as(x)
        return torch.cat([made[name] for name in self.names], dim=1)

    def _delta(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 0, REACH, REACH), mode="replicate"), self.slope.to(x.dtype))

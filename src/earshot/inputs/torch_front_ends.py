"""A training batch -> a network's inputs in torch, on the batch's device: the twins of the NumPy records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from earshot.inputs.network import Inputs
from earshot.inputs.record import Input
from earshot.messages import suggest


class FrontEnds(nn.Module):
    """Each input computed from the waveform that it hears, or taken from the batch (cached, metadata).

    inputs: an `Inputs`, or front ends by name, of which the network takes `names` (None: all).
    """

    def __init__(self, inputs: Mapping[str, Input], names: Sequence[str] | None = None):
        super().__init__()
        self.inputs = Inputs.made(inputs, names)
        twins = {name: r.twin() for name, r in self.inputs.items() if r.sounds and r.has_twin}
        self.extractors = nn.ModuleDict(twins)

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        """Cached pictures (B, T, F) or (B, C, T, F), float16 too, come out as (B, C or 1, T, F) float32."""
        return {name: self._input(name, batch) for name in self.inputs}

    def _input(self, name: str, batch: dict) -> torch.Tensor:
        sound = self.inputs.sound_key(name)
        if name in self.extractors and sound in batch:
            return self.extractors[name](batch[sound])
        if name in batch:
            if not self.inputs[name].picture:
                return batch[name]
            cached = batch[name].float()
            return cached[:, None] if cached.ndim == 3 else cached
        missing = sound if name in self.extractors else name
        raise ValueError(f"input '{name}' needs '{missing}', which the batch lacks{suggest(missing, batch)}")

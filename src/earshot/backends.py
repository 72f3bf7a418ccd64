"""What runs a network during inference: each backend declares its inputs and turns arrays into arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from earshot.logmel import LogmelParams
from earshot.timebase import TimeBase


class TorchBackend:
    """An eager PyTorch model on its device.

    inputs: names the model takes; frontends: those of them that are log-mels, with their parameters; timebase: the grid
    of `segmentwise_output`; run: dict of (B, ...) arrays -> dict of (B, ...) float32 arrays.
    """

    def __init__(self, model, frontends: Mapping[str, LogmelParams], device="cpu", precision: str = "no"):
        first = next(iter(frontends.values())) if frontends else None
        self.model, self.device, self.precision = model, device, precision
        self.inputs = tuple(model.inputs)
        self.frontends = {name: frontends[name] for name in self.inputs if name in frontends}
        rate, hop = (first.sample_rate, first.hop_length) if first else (1, 1)
        self.timebase = TimeBase(rate, hop, model.pool)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        kind = torch.device(self.device).type
        training = self.model.training
        self.model.eval()
        with torch.inference_mode(), torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)).to(self.device) for k, v in inputs.items()}
            outputs = self.model(**tensors)
        self.model.train(training)
        return {k: v.float().cpu().numpy() for k, v in outputs.items()}

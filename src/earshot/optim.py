"""Optimisers by name, the learning rate of a step as a pure function, and an average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from earshot.spelling import suggest

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
SCHEDULES = ("cosine", "linear", "constant")
SGD_MOMENTUM = 0.9


def build_optimizer(
    name: str, parameters: nn.Module | Iterable[Tensor], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Optimiser over the trainable ones of a model's (or the given) parameters.

    adamw decays no parameter of one dimension (biases, batch norms, pooling exponents): decay would change what they
    mean, not how large the function is. adam's weight_decay is the L2 penalty of the original paper, sgd has Nesterov
    momentum 0.9; both decay everything they are given.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer '{name}'{suggest(name, OPTIMIZERS)}")
    parameters = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ValueError("no parameter requires a gradient: nothing to train")
    groups = [{"params": trained, "weight_decay": weight_decay}]
    if name == "adamw" and weight_decay:
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    options = {"momentum": SGD_MOMENTUM, "nesterov": True} if name == "sgd" else {}
    return OPTIMIZERS[name]([g for g in groups if g["params"]], lr=lr, **options)


def learning_rate(
    step: int,
    steps_per_epoch: int,
    epochs: float,
    warmup_epochs: float = 0.0,
    lr: float = 1e-3,
    min_lr: float = 0.0,
    schedule: str = "cosine",
) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up from 0 to lr, then cosine, linear or constant.

    cosine equals torch's CosineAnnealingLR, linear transformers' get_linear_schedule_with_warmup; both reach min_lr at
    step epochs * steps_per_epoch, one after the last, and stay there.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule '{schedule}'{suggest(schedule, SCHEDULES)}")
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return lr * step / warmup
    if schedule == "constant":
        return lr
    done = min(1.0, (step - warmup) / (total - warmup)) if total > warmup else 1.0
    left = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return min_lr + (lr - min_lr) * left


class EMA:
    """Exponential moving average of a model: `module` is a copy in eval mode whose weights follow the model's.

    Floating-point parameters and buffers (batch norm statistics) are averaged with `decay`, whole numbers copied. The
    average starts at the model's values when built: with 1 / (1 - decay) steps of memory the start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"EMA decay must be between 0 and 1, got {decay}")
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step towards `model`, which is left as it is."""
        new = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(new[name].to(average.dtype), 1 - self.decay)
            else:
                average.copy_(new[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The average's tensors (detached, not copied), as the model names them."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.module.load_state_dict(state)

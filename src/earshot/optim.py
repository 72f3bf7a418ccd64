"""Optimisers by name, the learning rate of a step as a pure function, and an average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from earshot.messages import suggest
from earshot.models.blocks import depth_blocks


class Ralamb(torch.optim.Optimizer):
    """RAdam's step times a trust ratio for each tensor (LAMB's idea), as in the code that the urban systems used.

    The ratio is the norm of the weights, at most 10, over the norm of what RAdam alone would make of them; 1 where
    either is 0. weight_decay takes lr * weight_decay of the weights away first, before any norm is taken.
    """

    def __init__(self, params, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """One step; tensors without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict):
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        rectified = _rectification(state["step"], beta2)
        size = group["lr"] * (rectified or 1.0) / (1 - beta1 ** state["step"])
        step = state["mean"] / (state["square"].sqrt() + group["eps"]) if rectified else state["mean"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        before, after = parameter.norm().clamp(max=TRUST_NORM), (parameter - size * step).norm()
        # no .item(): on a GPU that would wait for every tensor
        trust = torch.where((before > 0) & (after > 0), before / after, 1.0)
        parameter.sub_(size * trust * step)


def _rectification(step: int, beta2: float) -> float | None:
    """RAdam's factor on the adaptive step at step 1, 2, ...; None while the variance is not to be trusted yet."""
    longest, decayed = 2 / (1 - beta2) - 1, beta2**step
    length = longest - 2 * step * decayed / (1 - decayed)
    if length < 5:
        return None
    ratio = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
    return math.sqrt((1 - decayed) * ratio)


class Lookahead(torch.optim.Optimizer):
    """Any optimiser with slow weights behind it (Zhang et al. 2019): every k steps slow += alpha * (fast - slow), and
    the fast ones go back there. The slow weights are copied at the first such step, which therefore changes nothing.

    Parameter groups and state are those of the inner optimiser, the slow weights among them.
    """

    def __init__(self, inner: torch.optim.Optimizer, k: int = 5, alpha: float = 0.5):
        if k < 1 or not 0 < alpha <= 1:
            raise ValueError(f"lookahead needs k of at least 1 and alpha in (0, 1], got k {k}, alpha {alpha}")
        self.inner, self.k, self.alpha, self.defaults = inner, k, alpha, inner.defaults
        for group in inner.param_groups:
            group.setdefault("lookahead_step", 0)

    @property
    def param_groups(self) -> list[dict]:
        return self.inner.param_groups

    @property
    def state(self) -> dict:
        return self.inner.state

    @torch.no_grad()
    def step(self, closure=None):
        loss = self.inner.step(closure)
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % self.k == 0:
                for parameter in (p for p in group["params"] if p.grad is not None):
                    slow = self.state[parameter].setdefault("slow", parameter.detach().clone())
                    parameter.copy_(slow.lerp_(parameter, self.alpha))
        return loss

    def zero_grad(self, set_to_none: bool = True):
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict):
        self.inner.load_state_dict(state_dict)


OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "radam": torch.optim.RAdam,
    "ralamb": Ralamb,
}
FUSED = ("adamw", "adam", "sgd")  # of which torch has one kernel a tensor, four times as fast on a CPU
TRUST_NORM = 10.0
SCHEDULES = ("cosine", "linear", "constant")
SGD_MOMENTUM = 0.9
MANY_UPDATES = 10**9  # after which an average's decay grows no more


def check_optimizer(name: str):
    """Error for a name that is no optimiser."""
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer '{name}'{suggest(name, OPTIMIZERS)}")


def build_optimizer(
    name: str,
    parameters: nn.Module | Iterable[Tensor],
    lr: float,
    weight_decay: float,
    lookahead: int = 0,
    layer_decay: float = 1.0,
    lr_scale: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Optimiser over the trainable ones of a model's (or the given) parameters.

    adamw decays no parameter of one dimension (biases, batch norms, pooling exponents): decay would change what they
    mean, not how large the function is. adam's weight_decay is the L2 penalty of the original paper, sgd has Nesterov
    momentum 0.9; these, radam and ralamb decay everything they are given. lookahead > 0: slow weights every so many
    steps. layer_decay (of a model): the head learns at `lr`, each block of `depth_blocks` at the rate of the one above
    times this; a group's `lr_scale` is its factor, head first. lr_scale (of a model): {name of a part: factor} on top
    of that, such as {"extractor": 0.1}; the longest name that a parameter lies below counts.
    """
    check_optimizer(name)
    model, parameters = parameters, parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ValueError("no parameter requires a gradient: nothing to train")
    groups = [{"params": trained}]
    if layer_decay != 1:
        groups = [
            {"params": list(block.parameters), "lr_scale": layer_decay**depth, "lr": lr * layer_decay**depth}
            for depth, block in enumerate(reversed(depth_blocks(model)))
        ]
    if lr_scale:
        scales = _scales(model, lr_scale)
        groups = [part for group in groups for part in _by_scale(group, scales, lr)]
    if name == "adamw" and weight_decay:
        groups = [part for group in groups for part in _by_decay(group, weight_decay)]
    else:
        groups = [group | {"weight_decay": weight_decay} for group in groups]
    options = {"momentum": SGD_MOMENTUM, "nesterov": True} if name == "sgd" else {}
    options |= {"fused": True} if name in FUSED else {}
    optimizer = OPTIMIZERS[name](groups, lr=lr, **options)
    return Lookahead(optimizer, lookahead) if lookahead else optimizer


def _scales(model: nn.Module, lr_scale: Mapping[str, float]) -> dict[Tensor, float]:
    """Parameter -> its factor, by the longest of the given names that it lies below; 1 below none.

    Errors: a name that is no part of the network, and one of a part in which nothing learns.
    """
    named = dict(model.named_parameters())
    factors = dict.fromkeys(named.values(), 1.0)
    for prefix in sorted(lr_scale, key=len):
        below = [p for n, p in named.items() if n == prefix or n.startswith(f"{prefix}.")]
        if not below:
            parts = dict.fromkeys(n.split(".")[0] for n in named)
            near = suggest(prefix, parts, "its parts")
            raise ValueError(f"optim.lr_scale names '{prefix}', which is no part of the network{near}")
        if not any(p.requires_grad for p in below):
            raise ValueError(f"optim.lr_scale names '{prefix}', which is frozen: nothing in it learns at any rate")
        factors |= dict.fromkeys(below, lr_scale[prefix])
    return factors


def _by_scale(group: dict, factors: Mapping[Tensor, float], lr: float) -> list[dict]:
    """A parameter group -> one for each factor in it, the largest first."""
    parts = []
    for factor in sorted({factors[p] for p in group["params"]}, reverse=True):
        scale = group.get("lr_scale", 1.0) * factor
        of_factor = [p for p in group["params"] if factors[p] == factor]
        parts.append(group | {"params": of_factor, "lr_scale": scale, "lr": lr * scale})
    return parts


def _by_decay(group: dict, weight_decay: float) -> list[dict]:
    """A parameter group -> its matrices, decayed, and its vectors, not; an empty part is left out."""
    parts = []
    for decay, of_kind in ((weight_decay, lambda p: p.ndim > 1), (0.0, lambda p: p.ndim <= 1)):
        if some := [p for p in group["params"] if of_kind(p)]:
            parts.append(group | {"params": some, "weight_decay": decay})
    return parts


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

    The shapes are transformers' get_cosine_schedule_with_warmup (that of torch's CosineAnnealingLR),
    get_linear_schedule_with_warmup and get_constant_schedule_with_warmup, taken as functions of the step, so that a
    resumed run needs no scheduler's state. The first two reach min_lr at step epochs * steps_per_epoch, one after the
    last, and stay there.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule '{schedule}'{suggest(schedule, SCHEDULES)}")
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if schedule == "constant":
        return lr * _factor(schedule, warmup, total)(step)
    if step >= total:  # the cosine would rise again
        return min_lr
    factor = _factor(schedule, warmup, total)(step)
    return lr * factor if step < warmup else min_lr + (lr - min_lr) * factor


@lru_cache(maxsize=32)
def _factor(schedule: str, warmup: float, total: float) -> Callable[[int], float]:
    """transformers' schedule as a function of the step: what the rate is multiplied with, 0 to 1."""
    from transformers import (
        get_constant_schedule_with_warmup,
        get_cosine_schedule_with_warmup,
        get_linear_schedule_with_warmup,
    )

    unused = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # a scheduler wants one; only its function of the step is taken
    if schedule == "constant":
        return get_constant_schedule_with_warmup(unused, warmup).lr_lambdas[0]
    make = get_cosine_schedule_with_warmup if schedule == "cosine" else get_linear_schedule_with_warmup
    return make(unused, warmup, total).lr_lambdas[0]


class EMA:
    """Exponential moving average of a model: `module` is a copy in eval mode whose weights follow the model's.

    Floating-point parameters and buffers (batch norm statistics) are averaged with `decay`, whole numbers copied. After
    n updates the decay is at most (1 + n) / (10 + n), so that a short training does not end with the weights that it
    began with: the memory grows to 1 / (1 - decay) steps.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"EMA decay must be between 0 and 1, got {decay}")
        self.decay, self.updates = decay, 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step towards `model`, which is left as it is."""
        new, own = model.state_dict(), self.module.state_dict()
        floats = [name for name, average in own.items() if average.is_floating_point()]
        others = [name for name, average in own.items() if not average.is_floating_point()]
        # a few calls for all tensors: on a GPU hundreds of small ones cost more than their work
        latest = [new[name].to(own[name].dtype) for name in floats]
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_([own[name] for name in floats], latest, 1 - decay)
        for name in others:
            own[name].copy_(new[name])

    def state_dict(self) -> dict:
        """The average's tensors (`module`: detached, not copied), as the model names them, and its updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict):
        """Go on from a `state_dict`, or from the tensors alone that earlier versions wrote, whose decay never grew."""
        self.module.load_state_dict(state.get("module", state))
        self.updates = state.get("updates", MANY_UPDATES)


class WeightAverage:
    """The mean of a network's weights at the ends of epochs: `module`, a copy in eval mode, after `count` of them."""

    def __init__(self, network: nn.Module):
        self.module, self.count = copy.deepcopy(network).eval().requires_grad_(False), 0

    @torch.no_grad()
    def add(self, network: nn.Module):
        """One more set of weights, each counting alike."""
        self.count += 1
        new = network.state_dict()
        for name, mean in self.module.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(new[name].to(mean.dtype), 1 / self.count)
            else:
                mean.copy_(new[name])

    def state_dict(self) -> dict:
        return {"weights": self.module.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict):
        self.module.load_state_dict(state["weights"])
        self.count = state["count"]


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """State dicts of one network -> their mean, taken in float64; whole numbers are those of the first."""
    first = states[0]
    return {
        name: torch.stack([s[name].double() for s in states]).mean(0).to(value.dtype)
        if value.is_floating_point() else value.clone()
        for name, value in first.items()
    }  # fmt: skip

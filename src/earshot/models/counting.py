"""What a network costs: parameters, the PANNs paper's "multi-adds", true multiply-accumulates.

The paper's counter (Kong et al. 2020, table XII) counts modules, not functions: convolutions and linear layers with
multiplication and addition apart, the bias of each, a linear layer over (batch, time, features) once; batch norm and
ReLU modules 2 an element; average and maximum pooling modules their window an output; the STFT as the convolution it
was. Functional pooling and ReLU, ReLU6 and the mel product are not counted. It is about twice the true count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from earshot.inputs.network import Inputs
from earshot.inputs.waveforms import own_samples
from earshot.sound.logmel import LogmelParams, n_frames

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
KEEP = frozenset((F.batch_norm, F.relu, torch.relu, torch.sigmoid, torch.Tensor.sigmoid, torch.Tensor.relu))
POOLS = (nn.AvgPool1d, nn.MaxPool1d, nn.AvgPool2d, nn.MaxPool2d)


@dataclass(frozen=True)
class Costs:
    """Of one clip, in numbers of operations."""

    paper_multi_adds: int  # as the PANNs paper counts, its STFT included
    macs: int  # multiply-accumulates of convolutions and matrix products, front ends left out
    front_end_macs: int  # of our own front ends: window, FFT, power, mel product


def count(model: nn.Module, heard: Inputs, n_samples: int) -> Costs:
    """Costs of one clip of `n_samples` samples of what the model hears (config.inputs(model.inputs)).

    Shapes alone are followed, so that a large network takes no longer.
    """
    shapes = heard.shapes(n_samples)
    inputs = {name: torch.empty((1, *shapes[name]), device="meta") for name in model.inputs}
    paper = paper_multi_adds(model, inputs) + sum(
        stft_multi_adds(record, own_samples(n_samples, heard.sample_rate, record))
        for record in heard.values() if isinstance(record, LogmelParams)
    )  # fmt: skip
    return Costs(paper, multiply_accumulates(model, inputs), heard.macs(n_samples))


def forward_shapes(model: nn.Module, heard: Inputs, n_samples: int) -> dict[str, tuple[int, ...]]:
    """Follow the shapes of one clip through the model: its outputs' shapes, or its own error where they do not fit.

    Empty of a forward that returns no dict.
    """
    shapes = heard.shapes(n_samples)
    out = _forward(model, {name: torch.empty((1, *shapes[name]), device="meta") for name in model.inputs})
    named = out.items() if isinstance(out, Mapping) else ()
    return {name: tuple(value.shape) for name, value in named if torch.is_tensor(value)}


def paper_multi_adds(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> int:
    """Operations of one forward pass by the paper's counter (see the module's docstring), without the STFT."""
    total = 0

    def add(module, args, output):
        nonlocal total
        total += _module_operations(module, args[0], output)

    hooks = [m.register_forward_hook(add) for m in model.modules() if not list(m.children())]
    try:
        _forward(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _forward(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """One evaluating pass without values: the model's own tensors stay as they are."""
    shapes = {k: v.to("meta") for k, v in (*model.named_parameters(), *model.named_buffers())}
    training = model.training
    with torch.no_grad(), _ShapesKept():
        out = torch.func.functional_call(model.eval(), shapes, kwargs=dict(inputs))
    model.train(training)
    return out


class _ShapesKept(TorchFunctionMode):
    """Functions that keep a shape, without values: PyTorch follows a batch norm's through Python, for milliseconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in KEEP and args[0].device.type == "meta" and not kwargs.get("inplace"):
            fits = function is not F.batch_norm or args[1] is None or args[1].shape == args[0].shape[1:2]
            if fits:  # else it has its own error
                return torch.empty_like(args[0])
        return function(*args, **kwargs)


def _module_operations(module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> int:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        kernel = math.prod(module.kernel_size) * module.in_channels // module.groups
        return output[0].numel() * (2 * kernel + (module.bias is not None))
    if isinstance(module, nn.Linear):
        clips = len(x) if x.ndim == 2 else 1
        return clips * (2 * module.weight.numel() + (0 if module.bias is None else module.bias.numel()))
    if isinstance(module, (*NORMS, nn.ReLU)):
        return 2 * x.numel()
    if isinstance(module, POOLS):
        size, dims = module.kernel_size, x.ndim - 2
        return output[0].numel() * (math.prod(size) if isinstance(size, tuple) else size**dims)
    return 0


def stft_multi_adds(params: LogmelParams, n_samples: int) -> int:
    """The paper's count of a log-mel's STFT: two convolutions (real, imaginary) of n_fft samples a frame and bin."""
    return 2 * n_frames(n_samples, params) * params.n_bins * 2 * params.n_fft


def multiply_accumulates(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> int:
    """True multiply-accumulates of convolutions and matrix products (PyTorch's FLOP counter / 2)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _forward(model, inputs)
    return counter.get_total_flops() // 2


def folded_bytes(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the network in int8 as a converter for small devices stores it, the count of DCASE 2022 task 1's rules.

    Weights of convolutions and linear layers one byte each, their biases four; a batch norm right after one of them is
    folded into it and leaves a bias. `bn0` standardises the front end's bins and is left out. All else one byte each.
    """
    made_by, folded, total = {}, set(), 0

    def follow(module, args, output):
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            made_by[id(output)] = (output, module)  # held, so that no other tensor takes its id
        elif isinstance(module, NORMS) and id(args[0]) in made_by:
            folded.add(module)
            if made_by[id(args[0])][1].bias is None:
                given_bias.add(made_by[id(args[0])][1])

    given_bias = set()
    hooks = [m.register_forward_hook(follow) for m in model.modules() if not list(m.children())]
    try:
        _forward(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in model.named_modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            biases = 0 if module.bias is None else module.bias.numel()
            total += module.weight.numel() + 4 * (len(module.weight) if module in given_bias else biases)
        elif module not in folded and name != "bn0":
            total += own
    return total


def check_budget(name: str, model: nn.Module, costs: Costs, parameters_kb: float, mmacs: float) -> None:
    """Error, with both figures, if the model has more than `parameters_kb` kB of parameters (int8: one byte each,
    1,000 to the kB) or more than `mmacs` million multiply-accumulates; 0 sets no limit."""
    kilobytes, macs = sum(p.numel() for p in model.parameters()) / 1000, costs.macs / 1e6
    if (parameters_kb and kilobytes > parameters_kb) or (mmacs and macs > mmacs):
        raise ValueError(
            f"{name} is over its budget: {kilobytes:.3f} kB of parameters in int8 (limit {parameters_kb:g}), "
            f"{macs:.3f} million multiply-accumulates a window (limit {mmacs:g}); make it smaller or raise the budget"
        )

"""Depthwise convolutions that train fast on a CPU: the same answers, the gradients by other kernels.

oneDNN, which PyTorch asks, has fast kernels for the gradients of a depthwise convolution of 3 x 3 in channels_last. It
falls back to plain loops, ten to a hundred times as slow, for the weights of wider kernels, and in bfloat16 for the
input of any stride of 2 (measured with torch 2.15 on a Zen 4: benchmarks/RESULTS.md). Here the gradient of a wide
kernel's weights is put together from squares of 3 x 3, each the gradient of a 3 x 3 kernel on a shifted part of the
input, and strided inputs get theirs in float32. Sums are taken in another order and nothing else.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SQUARE = 3  # the side of the kernels whose gradients are fast


class Depthwise(nn.Conv2d):
    """What `speed_up` makes of a module; its weights and names are as they were."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pad = self.tf_padding(x) if self.same else [(size, size) for size in self.padding]
        if not torch.is_grad_enabled() or torch.jit.is_tracing() or x.device.type != "cpu":
            return F.conv2d(_padded(x, pad), self.weight, stride=self.stride, groups=self.groups)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        return _Convolve.apply(_padded(x, pad), weight, self.stride[0])

    def tf_padding(self, x: torch.Tensor) -> list[tuple[int, int]]:
        """TensorFlow's: as much as the last step needs, the odd one behind."""
        lacking = [
            max(0, (-(-size // step) - 1) * step + side - size)
            for size, step, side in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        return [(n // 2, n - n // 2) for n in lacking]


def speed_up(network: nn.Module) -> int:
    """Have the depthwise convolutions of a network compute their gradients fast, in place; returns how many do."""
    found = [module for module in network.modules() if _suits(module)]
    for module in found:
        module.same = type(module) is not nn.Conv2d
        module.__class__ = Depthwise
    return len(found)


def _suits(module: nn.Module) -> bool:
    """A square odd kernel a channel, without bias, dilation or steps that differ by axis; PyTorch's class or timm's."""
    if not (type(module) is nn.Conv2d or type(module).__name__ == "Conv2dSame"):
        return False
    side, step = module.kernel_size, module.stride
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None and module.dilation == (1, 1) and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and side[0] == side[1] >= SQUARE and side[0] % 2 == 1 and step[0] == step[1]
    )  # fmt: skip


def _padded(x: torch.Tensor, pad: list[tuple[int, int]]) -> torch.Tensor:
    """(B, C, T, F) with zeros around it: ((before, behind) in time, in frequency)."""
    (top, bottom), (left, right) = pad
    return F.pad(x, (left, right, top, bottom)) if any((top, bottom, left, right)) else x


class _Convolve(torch.autograd.Function):
    """(B, C, T, F) with its padding, (C, 1, k, k) of the same type -> (B, C, T', F')."""

    @staticmethod
    def forward(ctx, x, weight, step: int):
        ctx.save_for_backward(x, weight)
        ctx.step = step
        return F.conv2d(x, weight, stride=step, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_input = _of_input(gradient, x, weight, ctx.step) if ctx.needs_input_grad[0] else None
        return of_input, _of_weight(gradient, x, weight, ctx.step) if ctx.needs_input_grad[1] else None, None


def _of_input(gradient, x, weight, step: int) -> torch.Tensor:
    if step == 1:
        return _gradients(gradient, x, weight, step, 0)
    shape = torch.empty_like(x, dtype=torch.float32)  # only its size is looked at
    return _gradients(gradient.float(), shape, weight.float(), step, 0).to(x.dtype)


def _of_weight(gradient, x, weight, step: int) -> torch.Tensor:
    side, (height, width) = weight.shape[-1], gradient.shape[2:]
    if side == SQUARE:
        return _gradients(gradient, x, weight, step, 1)
    found, square = torch.empty_like(weight), weight[..., :SQUARE, :SQUARE].contiguous()
    reach = [step * (n - 1) + SQUARE for n in (height, width)]
    for i in range(0, side - 2, 2):
        for j in range(0, side - 2, 2):
            part = x[:, :, i : i + reach[0], j : j + reach[1]].contiguous(memory_format=torch.channels_last)
            found[..., i : i + SQUARE, j : j + SQUARE] = _gradients(gradient, part, square, step, 1)
    return found


def _gradients(gradient, x, weight, step: int, which: int) -> torch.Tensor:
    """The gradient of the input (0) or of the weights (1) by PyTorch's own kernel."""
    mask = [which == 0, which == 1, False]
    whole = torch.ops.aten.convolution_backward(
        gradient, x, weight, bias_sizes=None, stride=[step, step], padding=[0, 0], dilation=[1, 1], transposed=False,
        output_padding=[0, 0], groups=len(weight), output_mask=mask,
    )  # fmt: skip
    return whole[which]

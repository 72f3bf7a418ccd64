"""Depthwise convolutions with other gradients: they are the same gradients."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from earshot.models.depthwise import Depthwise, speed_up


def both(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A module in channels_last, and a copy of it that was sped up."""
    module = module.to(memory_format=torch.channels_last)
    ours = copy.deepcopy(module)
    assert speed_up(ours) == 1
    return module, ours


def gradients(module, x, autocast: bool = False) -> tuple[torch.Tensor, ...]:
    """The answer, and the gradients of a sum of it with weights of its own to input and weights."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = module(x)
    pull = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * pull).sum().backward()
    return y.detach(), x.grad, module.weight.grad


def heard(channels: int, frames: int = 13, bins: int = 9) -> torch.Tensor:
    x = torch.randn((2, channels, frames, bins), generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_answers_and_gradients_are_those_of_pytorch(side, step):
    torch.manual_seed(side)
    plain, ours = both(nn.Conv2d(8, 8, side, step, side // 2, groups=8, bias=False))
    for expected, found in zip(gradients(plain, heard(8)), gradients(ours, heard(8)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("size", [(13, 9), (12, 8), (2, 1)])
def test_timms_padding_is_tensorflows(side, step, size):
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(side)
    plain, ours = both(layers.Conv2dSame(8, 8, side, step, 0, groups=8, bias=False))
    x = heard(8, *size)
    for expected, found in zip(gradients(plain, x), gradients(ours, x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("side", "step"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_in_bfloat16_gradients_are_as_exact_as_its_numbers(side, step):
    torch.manual_seed(side)
    plain, ours = both(nn.Conv2d(8, 8, side, step, side // 2, groups=8, bias=False))
    exact, found = gradients(plain, heard(8)), gradients(ours, heard(8), autocast=True)
    assert found[0].dtype == torch.bfloat16
    assert found[1].dtype == found[2].dtype == torch.float32
    for expected, values in zip(exact, found, strict=True):
        assert (values.float() - expected).abs().max() < 0.02 * expected.abs().max()


def test_weights_names_and_answers_without_gradients_stay():
    plain, ours = both(nn.Sequential(nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), nn.BatchNorm2d(6)).eval())
    assert isinstance(ours[0], Depthwise)
    assert isinstance(ours[0], nn.Conv2d)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        np.testing.assert_array_equal(ours(heard(6)).numpy(), plain(heard(6)).numpy())
    again = copy.deepcopy(ours)
    assert again[0].weight is not ours[0].weight


@pytest.mark.parametrize("module", [
    nn.Conv2d(6, 6, 3, padding=1, groups=6),
    nn.Conv2d(6, 12, 3, groups=6, bias=False),
    nn.Conv2d(6, 6, 3, groups=2, bias=False),
    nn.Conv2d(6, 6, 3, dilation=2, groups=6, bias=False),
    nn.Conv2d(6, 6, (3, 5), groups=6, bias=False),
    nn.Conv2d(6, 6, 3, (1, 2), groups=6, bias=False),
    nn.Conv2d(6, 6, 4, groups=6, bias=False),
    nn.Conv2d(6, 6, 1, groups=6, bias=False),
    nn.Conv2d(6, 6, 3, padding="same", groups=6, bias=False),
    nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect", groups=6, bias=False),
    nn.Conv2d(1, 1, 3, bias=False),
], ids=repr)  # fmt: skip
def test_other_convolutions_stay_as_they_are(module):
    assert speed_up(module) == 0
    assert type(module) is nn.Conv2d


def test_training_one_step_moves_the_weights_as_before():
    torch.manual_seed(0)
    plain, ours = both(nn.Sequential(nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False), nn.SiLU()))
    for network in (plain, ours):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        network(heard(8)).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(ours[0].weight, plain[0].weight, atol=1e-6, rtol=1e-5)

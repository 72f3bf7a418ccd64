"""PANNs' residual blocks by hand: where they pool, and how. Not every network has published outputs at hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from earshot.models.panns_mobilenet import InvertedResidual
from earshot.models.panns_resnet import BasicBlock, Bottleneck


def transparent(block: nn.Module) -> nn.Module:
    """Every convolution passes each channel through its centre tap, every batch norm changes nothing."""
    for module in block.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.dirac_(module.weight, groups=module.groups)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.eps = 0.0
    return block.eval()


@pytest.mark.parametrize("stride", [1, 4])
def test_a_waveform_block_takes_the_maximum_and_its_shortcut_the_mean(stride):
    x = torch.rand(2, 3, 64)
    found = transparent(BasicBlock(1, 3, 3, stride, 0.1))(x)
    torch.testing.assert_close(found, F.max_pool1d(x, stride) + F.avg_pool1d(x, stride))


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_logmel_block_averages_on_both_paths(kind):
    x = torch.rand(2, 4, 16, 8)
    block = transparent(kind(2, 4, 4 // kind.expansion, 2, 0.1))
    pooled = F.avg_pool2d(x, 2)
    main = pooled * (torch.arange(4) < 4 // kind.expansion)[:, None, None]  # a bottleneck of one channel passes one
    torch.testing.assert_close(block(x), main + pooled)


def test_the_second_convolution_of_a_waveform_block_is_dilated():
    block = BasicBlock(1, 2, 2, 1, 0.1)
    assert (block.conv1.dilation, block.conv2.dilation) == ((1,), (2,))


def test_mobilenet_v2_pools_after_a_convolution_of_stride_1():
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(transparent(InvertedResidual(4, 4, 2, 1))(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(transparent(InvertedResidual(4, 4, 1, 1))(x), 2 * x)

"""Operations by hand, by a second way, and for every network without computing a value."""

import pytest
import torch
from torch import nn

from earshot.inputs.given import Given, Metadata
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.vggish_examples import VggishInput
from earshot.models import MODELS, build_model, counting
from test_models import SMALL, F, K, deep_ones_slow

FRONT_ENDS = {"logmel": Logmel(sample_rate=32000)}
OTHERS = {"vggish": VggishInput(), "extractor": Given(size=(4, 128))}


def heard(names, front_ends=FRONT_ENDS, rate=32000):
    return Inputs.made(front_ends, names, rate, metadata=Metadata(columns=("a", "b", "c")))


class Tiny(nn.Module):
    inputs = ("logmel",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(5, 7)

    def forward(self, logmel):
        x = self.pool(self.relu(self.bn(self.conv(logmel))))
        return {"clipwise_output": self.fc(x.mean((2, 3)))}


def test_both_counts_by_hand():
    model = Tiny().train()
    front_ends = {"logmel": Logmel(sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmax=4000)}
    costs = counting.count(model, heard(("logmel",), front_ends, 8000), 8000)  # 101 frames x 16 mels; pooled 50 x 8
    cells = 101 * 16
    assert costs.macs == cells * 5 * 9 + 5 * 7
    stft = 2 * 101 * 129 * 256 * 2
    modules = 2 * cells * 5 * 9 + 2 * cells * 5 + 2 * cells * 5 + 4 * 50 * 8 * 5 + 2 * 5 * 7 + 7
    assert costs.paper_multi_adds == stft + modules
    assert costs.front_end_macs == 101 * (256 + 256 * 8 + 2 * 129 + 129 * 16)
    assert model.training
    assert model.bn.running_mean.device.type == "cpu"
    assert not model._forward_hooks
    assert not model.conv._forward_hooks


def test_grouped_dilated_and_one_dimensional_layers():
    class Mixed(nn.Module):
        inputs = ("waveform",)

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 4, 3, dilation=2)
            self.grouped = nn.Conv1d(4, 4, 5, groups=4, bias=False)
            self.pool = nn.AvgPool1d(4)
            self.fc = nn.Linear(4, 6)  # over (batch, time, features): the paper counts it once

        def forward(self, waveform):
            return self.fc(self.pool(self.grouped(self.conv(waveform[:, None]))).transpose(1, 2))

    costs = counting.count(Mixed(), heard(("waveform",), {}), 100)  # lengths 96, 92, 23
    assert costs.paper_multi_adds == 96 * 4 * (2 * 3 + 1) + 92 * 4 * 2 * 5 + 23 * 4 * 4 + 2 * 24 + 6
    assert costs.macs == 96 * 4 * 3 + 92 * 4 * 5 + 23 * 24
    assert costs.front_end_macs == 0


@pytest.mark.parametrize("name", deep_ones_slow(MODELS))
@pytest.mark.slow
def test_every_network_is_counted_without_values(name):
    with torch.device("meta"):
        model = build_model(name, K, F, SMALL.get(name))
    inputs = heard(model.inputs, {"logmel": FRONT_ENDS["logmel"]} | OTHERS)
    short, long = (counting.count(model, inputs, 32000 * seconds) for seconds in (1, 2))
    assert 0 < short.macs <= long.macs
    if {"logmel", "waveform", "vggish"} & set(model.inputs):  # else of embeddings, as many whatever the clip's length
        assert short.macs < long.macs
        assert short.paper_multi_adds < long.paper_multi_adds
    assert (short.front_end_macs > 0) == bool({"logmel", "vggish"} & set(inputs))

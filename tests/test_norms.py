"""Batch norms measured before validation over clean training clips: which norms, over what, and where nothing is."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import train
from earshot.config import OptimConfig
from earshot.training import norms
from scripts import run


class Frozen(torch.nn.Module):
    """A norm of its own that rests whatever the mode, then one that learns, behind dropout."""

    def __init__(self):
        super().__init__()
        self.base, self.own = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)

    def train(self, mode: bool = True):
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, x):
        return self.own(torch.nn.functional.dropout(self.base(x), 0.5, self.training))


class Clips:
    def __init__(self, values: torch.Tensor):
        self.values = values

    def order(self, epoch: int):
        return torch.randperm(len(self.values), generator=torch.Generator().manual_seed(epoch)).numpy()

    def __getitem__(self, key: tuple[int, int]) -> dict:
        assert key[0] == 0, "the same crops at every validation"
        return {"x": self.values[key[1]].numpy(), "clip_id": str(key[1]), "unreadable": []}


def training(network: torch.nn.Module, values: torch.Tensor, size: int, processes: int = 1, process: int = 0):
    accelerator = SimpleNamespace(
        num_processes=processes, process_index=process, device=torch.device("cpu"), reduce=lambda value, how: value
    )
    config = SimpleNamespace(optim=OptimConfig(norm_batch=size))
    return SimpleNamespace(
        model=network, network=network, predicting_network=network, clips=Clips(values), config=config,
        accelerator=accelerator, inputs=("x",), front_ends=None,
    )  # fmt: skip


@pytest.mark.parametrize(("size", "batches"), [(64, 1), (8, 3), (5, 5)])
def test_norms_that_learn_are_those_of_the_clean_clips_and_frozen_ones_stay(monkeypatch, size, batches):
    monkeypatch.setattr(norms, "augment_batch", lambda batch, *_: batch)
    values, network, heard = torch.randn(25, 3) * 4 + 7, Frozen().eval(), []
    network.register_forward_pre_hook(lambda module, inputs, kwargs: heard.append(kwargs["x"]), with_kwargs=True)
    norms.measure_on_clean(training(network, values, size))
    assert len(heard) == batches
    assert sorted(torch.cat(heard)[:, 0].tolist()) == sorted(values[:, 0].tolist()), "every clip, once"
    base = network.base(values)
    assert network.base.running_mean.tolist() == [0, 0, 0]
    expected = torch.stack([network.base(part).mean(0) for part in heard]).mean(0)
    torch.testing.assert_close(network.own.running_mean, expected)
    if batches == 1:
        torch.testing.assert_close(network.own.running_var, base.var(0))  # no dropout, which would double it
    assert network.own.momentum == 0.1


def test_processes_share_the_clips(monkeypatch):
    monkeypatch.setattr(norms, "augment_batch", lambda batch, *_: batch)
    heard = []
    for process in range(2):
        network = Frozen()
        network.register_forward_pre_hook(lambda module, inputs, kwargs: heard.append(kwargs["x"]), with_kwargs=True)
        norms.measure_on_clean(training(network, torch.arange(30.0).reshape(10, 3), 4, 2, process))
    assert [len(part) for part in heard] == [5, 5]
    assert sorted(torch.cat(heard)[:, 0].tolist()) == [3.0 * i for i in range(10)]


def test_what_is_not_finite_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setattr(norms, "augment_batch", lambda batch, *_: batch)
    t = training(Frozen(), torch.full((8, 3), torch.inf), 4)
    with pytest.raises(RuntimeError, match=r"not finite \(own\): lower optim.lr, or set optim.norm_batch=0"):
        norms.measure_on_clean(t)


@pytest.mark.slow
def test_a_run_keeps_the_norms_of_clean_clips_and_goes_on_with_the_same_bits(tiny, monkeypatch):
    heard, real = [], norms.augment_batch

    def noted(batch, front_ends, augment, generator):
        heard.append(real(batch, front_ends, augment, generator))
        assert not any(augment.acting.values()), "nothing is augmented"
        return heard[-1]

    monkeypatch.setattr(norms, "augment_batch", noted)
    arguments = ("--config", tiny, "--fold", "0", "optim.norm_batch=64", "optim.select=last", "optim.ema_decay=0")
    run(train, *arguments, "--name", "whole", "optim.epochs=2")
    saved = load_file("runs/sed/whole/fold0/best.safetensors")
    torch.testing.assert_close(saved["bn0.running_mean"], heard[-1]["logmel"].mean(dim=(0, 1, 2)))
    finish = train.finish_epoch

    def dying(t, *more):
        finish(t, *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "finish_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        run(train, *arguments, "--name", "stopped", "optim.epochs=2")
    monkeypatch.setattr(train, "finish_epoch", finish)
    run(train, *arguments, "--name", "stopped", "optim.epochs=2", "--resume")
    for name, value in load_file("runs/sed/stopped/fold0/best.safetensors").items():
        assert torch.equal(value, saved[name]), name

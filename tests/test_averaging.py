"""Means of weights: the arithmetic, batch norms measured anew, in a run that stops and goes on, and soups of runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import soup
import train
from earshot import optim, runs
from earshot.config import load_config
from earshot.messages import command_line
from earshot.rounds.teachers import find_teachers
from earshot.training.norms import has_batch_norms, measure_batch_norms
from scripts import run

FEW = ("--fold", "0", "loss.name=bce", "predict.keep_frames=false", "optim.ema_decay=0", "watch=map")


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.0))


def test_the_mean_is_that_of_all_its_parts():
    states = [
        {"a": torch.tensor([1.0, 4.0]), "n": torch.tensor(7)},
        {"a": torch.tensor([3.0, 0.0]), "n": torch.tensor(9)},
    ]
    mean = optim.mean_of(states)
    assert mean["a"].tolist() == [2.0, 2.0]
    assert mean["n"].item() == 7
    network = small()
    average, sets = optim.WeightAverage(network), []
    for i in range(3):
        with torch.no_grad():
            network[0].weight += i
        average.add(network)
        sets.append({k: v.clone() for k, v in network.state_dict().items()})
    expected = optim.mean_of(sets)
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    again = optim.WeightAverage(small())
    again.load_state_dict(average.state_dict())
    assert again.count == 3


def test_batch_norms_are_those_of_the_data_that_passes():
    network = small()
    x = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(1))
    measure_batch_norms(network, [lambda b=b: network(b) for b in x])
    through = torch.stack([network[0](b) for b in x])
    torch.testing.assert_close(network[1].running_mean, through.mean(dim=(0, 1)))
    torch.testing.assert_close(network[1].running_var, through.var(dim=1).mean(dim=0))
    assert network[1].momentum == 0.1
    assert network.training
    assert not has_batch_norms(torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r"batch norms that are not finite \(1\)"):
        measure_batch_norms(network, [lambda: network(torch.full((8, 3), torch.inf))])


@pytest.mark.slow
def test_a_run_ends_with_the_mean_of_its_last_epochs(tiny, monkeypatch):
    """optim.swa_epochs: saved are the averaged weights, with batch norms of their own, the same after a stop."""
    kept, real = [], runs.save_checkpoint

    def noted(path, state):
        kept.append({k: v.clone() for k, v in state["model"].items()})
        real(path, state)

    monkeypatch.setattr(runs, "save_checkpoint", noted)
    arguments = ("--config", tiny, *FEW, "optim.epochs=3", "optim.swa_epochs=2", "optim.select=last")
    run(train, *arguments, "--name", "whole")
    saved = load_file("runs/sed/whole/fold0/best.safetensors")
    last_two = optim.mean_of(kept[1:3])
    norms = [name for name in saved if name.endswith(("running_mean", "running_var"))]
    assert norms
    for name, value in saved.items():
        if value.is_floating_point() and name not in norms:
            torch.testing.assert_close(value, last_two[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(saved[n], last_two[n], rtol=1e-2) for n in norms), "measured, not averaged"
    log = pd.read_csv("runs/sed/whole/fold0/log.csv")
    assert log.epoch.tolist() == [0, 1, 2, 3]
    assert log.averaged.tolist()[3] == 2
    about = json.loads(Path("runs/sed/whole/fold0/run.json").read_text())
    assert about["scores"]["map"] == pytest.approx(log["map"][3])
    # stopped before the mean is judged, and gone on with
    monkeypatch.setattr(runs, "save_checkpoint", real)
    judged = train.judge_average

    def dying(t):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "judge_average", dying)
    with pytest.raises(KeyboardInterrupt):
        run(train, *arguments, "--name", "stopped")
    monkeypatch.setattr(train, "judge_average", judged)
    run(train, *arguments, "--name", "stopped", "--resume")
    for name, value in load_file("runs/sed/stopped/fold0/best.safetensors").items():
        assert torch.equal(value, saved[name]), name
    before = Path("runs/sed/stopped/fold0/best.safetensors").read_bytes()
    Path("runs/sed/stopped/fold0/best.safetensors").unlink()
    run(train, *arguments, "--name", "stopped", "--resume")
    assert Path("runs/sed/stopped/fold0/best.safetensors").read_bytes() == before, "made again from last.ckpt"


def test_two_averages_are_one_too_many(tiny):
    for settings, said in (
        (["optim.swa_epochs=2", "optim.ema_decay=0.9"], "two averages of the weights"),
        (["optim.swa_epochs=9", "optim.ema_decay=0"], r"swa_epochs \(9\) are more than there are \(epochs 3\)"),
    ):
        with pytest.raises(ValueError, match=said):
            load_config(tiny, settings)


@pytest.mark.slow
def test_a_soup_of_runs_is_a_run(tiny, monkeypatch, capsys):
    """Two runs that went on from one: their mean, validated by train.py; other networks and copies are refused."""
    from earshot.processes import children

    monkeypatch.setattr(children, "run", lambda command, check: run(train, *command[2:]))
    plain = ("--config", tiny, *FEW, "optim.epochs=1")
    run(train, *plain, "--name", "start")
    start = "model.weights=runs/sed/start/fold{fold}/best.safetensors"
    for seed in (1, 2):
        run(train, *plain, "--name", f"on{seed}", start, f"seed={seed}")
    run(soup, "--runs", "runs/sed/on1", "runs/sed/on2", "--name", "soup")
    out = capsys.readouterr().out
    assert "runs/sed/soup: map " in out
    rest = "--config runs/sed/on2/fold0/config.yaml --fold 1 2 --name on2 --resume"
    assert f"train what runs/sed/on2 lacks: {command_line('train')} {rest}" in out
    assert f"then: {command_line('soup')} --runs runs/sed/on1 runs/sed/on2 --name soup --fold 1 2" in out
    assert "--name soup --resume" not in out, "train.py cannot make a soup's folds"
    members = [load_file(f"runs/sed/on{seed}/fold0/best.safetensors") for seed in (1, 2)]
    mean, found = optim.mean_of(members), load_file("runs/sed/soup/fold0/best.safetensors")
    for name, value in found.items():
        if value.is_floating_point() and "running" not in name:
            torch.testing.assert_close(value, mean[name])
    assert runs.load_run("runs/sed/soup").folds[0].finished
    assert np.isfinite(found["bn0.running_var"].numpy()).all()
    run(train, *plain, "--name", "other", "model.params.embedding=8")
    with pytest.raises(
        ValueError, match=r"on1 and runs/sed/other are of different networks, .*model.params.embedding: 16"
    ):
        run(soup, "--runs", "runs/sed/on1", "runs/sed/other", "--name", "x")
    assert runs.load_run("runs/sed/soup").folds[0].about["inherited"] == []
    about = Path("runs/sed/on2/fold0/run.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"soft_targets": {"by": "sed/b", "mode": "source"}}))
    run(soup, "--runs", "runs/sed/on1", "runs/sed/on2", "--name", "told")
    with pytest.raises(ValueError, match=r"told/fold0 was trained on targets made by sed/b .* through"):
        find_teachers([Path("runs/sed/told")], [0])
    with pytest.raises(ValueError, match="is named twice"):
        run(soup, "--runs", "runs/sed/on1", "runs/sed/on1", "--name", "x")
    with pytest.raises(ValueError, match="a soup is of two or more"):
        run(soup, "--runs", "runs/sed/on1", "--name", "x")
    with pytest.raises(ValueError, match=r"fold 2 is not finished in every run \(those that are: 0\)"):
        run(soup, "--runs", "runs/sed/on1", "runs/sed/on2", "--name", "x", "--fold", "2")
    with pytest.raises(ValueError, match="exists already and is never overwritten"):
        run(soup, "--runs", "runs/sed/on1", "runs/sed/on2", "--name", "soup")

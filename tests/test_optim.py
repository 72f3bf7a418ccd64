import copy
import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from earshot import optim


def rates(schedule, steps_per_epoch=7, epochs=10, warmup_epochs=0.0, lr=1e-3, min_lr=0.0, n=None):
    n = steps_per_epoch * epochs if n is None else n
    return [optim.learning_rate(s, steps_per_epoch, epochs, warmup_epochs, lr, min_lr, schedule) for s in range(n)]


def scheduler_rates(make, n, lr=1e-3):
    """What a torch scheduler gives before each of n optimiser steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    values = []
    for _ in range(n):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_cosine_equals_torch_a_step_and_the_birdcall_schedule_an_epoch():
    make = torch.optim.lr_scheduler.CosineAnnealingLR
    assert rates("cosine", min_lr=1e-5) == pytest.approx(
        scheduler_rates(lambda o: make(o, T_max=70, eta_min=1e-5), 70), rel=1e-9, abs=1e-12
    )
    # birdcall: Adam 1e-3, annealed over 10 epochs, stepped once an epoch: equal where epochs begin
    assert rates("cosine")[::7] == pytest.approx(scheduler_rates(lambda o: make(o, T_max=10), 10), rel=1e-9)


def test_linear_and_cosine_with_warmup_equal_transformers():
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    # rainforest: warm-up over 5 epochs, then linear decay per step over 45
    steps = 3
    ours = rates("linear", steps, 50, warmup_epochs=5)
    theirs = scheduler_rates(lambda o: get_linear_schedule_with_warmup(o, 5 * steps, 50 * steps), 50 * steps)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)
    assert ours[0] == 0
    assert ours[15] == 1e-3
    theirs = scheduler_rates(lambda o: get_cosine_schedule_with_warmup(o, 5 * steps, 50 * steps), 50 * steps)
    assert rates("cosine", steps, 50, warmup_epochs=5) == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def written_out(step, steps_per_epoch, epochs, warmup_epochs, lr, min_lr, schedule):
    """The formulas that stood here before the schedules were transformers': what older runs learned by."""
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return lr * step / warmup
    if schedule == "constant":
        return lr
    done = min(1.0, (step - warmup) / (total - warmup)) if total > warmup else 1.0
    left = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return min_lr + (lr - min_lr) * left


@given(st.sampled_from(optim.SCHEDULES), st.integers(1, 40), st.integers(1, 20), st.floats(0, 1), st.floats(0, 1e-4))
def test_older_configs_learn_at_the_rates_that_they_had(schedule, steps, epochs, warmup_share, min_lr):
    """Cosine and constant to the last bit behind the warm-up; else two roundings of float64 lie between."""
    warmup, now = warmup_share * epochs, rates(schedule, steps, epochs, warmup_share * epochs, 1e-3, min_lr)
    for step, value in enumerate(now):
        expected = written_out(step, steps, epochs, warmup, 1e-3, min_lr, schedule)
        if schedule == "linear" or step < warmup * steps:
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-17)
        elif (epochs - warmup) * steps >= 1:  # else no step is left to decay in
            assert value == expected


def test_every_config_keeps_the_rates_that_it_had():
    """Each of configs/, at the first, middle and last steps of its warm-up and its decay, for an epoch of 97 steps."""
    from earshot.config import load_config

    configs = [p for p in sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml")) if p.name[0] != "_"]
    seen = set()
    for path in (p for p in configs if p.parent.name not in ("compare", "post", "rounds", "search")):
        o = load_config(path).optim
        seen.add((o.epochs, o.warmup_epochs, o.lr, o.min_lr, o.schedule))
    assert len(seen) > 5
    for epochs, warmup, lr, min_lr, schedule in seen:
        total = 97 * epochs
        for step in {0, 1, int(97 * warmup) // 2, int(97 * warmup), total // 3, total // 2, max(0, total - 1)}:
            ours = optim.learning_rate(step, 97, epochs, warmup, lr, min_lr, schedule)
            expected = written_out(step, 97, epochs, warmup, lr, min_lr, schedule)
            assert ours == pytest.approx(expected, rel=1e-12, abs=1e-17)


@given(st.sampled_from(optim.SCHEDULES), st.integers(1, 40), st.integers(1, 20), st.floats(0, 1), st.floats(1e-6, 1e-4))
def test_schedules_rise_to_lr_and_fall_to_min_lr(schedule, steps, epochs, warmup_share, min_lr):
    warmup = warmup_share * epochs
    values = rates(schedule, steps, epochs, warmup, 1e-3, min_lr, n=steps * epochs + 5)
    first = math.ceil(warmup * steps)
    assert all(0 <= v <= 1e-3 + 1e-12 for v in values)
    assert all(a <= b + 1e-15 for a, b in itertools.pairwise(values[:first]))
    after = values[first:]
    assert all(a >= b - 1e-15 for a, b in itertools.pairwise(after))
    assert values[-1] == pytest.approx(1e-3 if schedule == "constant" else min_lr)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        optim.learning_rate(0, 1, 1, schedule="cosin")
    with pytest.raises(ValueError, match="unknown optimizer 'adamww'; did you mean 'adamw'"):
        optim.build_optimizer("adamww", [torch.zeros(1, requires_grad=True)], 1e-3, 0.0)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).mean(dim=(2, 3)))


def test_adamw_decays_no_vector_and_reaches_every_parameter_once():
    model = Small()
    optimizer = optim.build_optimizer("adamw", model, 1e-3, 0.01)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decays) == len(list(model.parameters())) == sum(len(g["params"]) for g in optimizer.param_groups)
    for p in model.parameters():
        assert decays[id(p)] == (0.01 if p.ndim > 1 else 0.0)


def test_one_adamw_step_by_hand():
    # first step: moments' ratio is the gradient's sign; decay is decoupled: w * (1 - lr * wd) - lr
    w = nn.Parameter(torch.full((1, 1), 2.0))
    optimizer = optim.build_optimizer("adamw", [w], lr=0.1, weight_decay=0.5)
    (w * 3).sum().backward()
    optimizer.step()
    assert float(w.detach()) == pytest.approx(2.0 * (1 - 0.05) - 0.1, rel=1e-6)


def test_adam_and_sgd_decay_everything_and_frozen_parameters_are_left_out():
    model = Small()
    model.conv.requires_grad_(False)
    for name, kind in (("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        optimizer = optim.build_optimizer(name, model, 0.1, 1e-4)
        assert type(optimizer) is kind
        (group,) = optimizer.param_groups
        assert group["weight_decay"] == 1e-4
        assert len(group["params"]) == 4
    assert group["momentum"] == 0.9
    assert group["nesterov"]
    with pytest.raises(ValueError, match="nothing to train"):
        optim.build_optimizer("adam", model.requires_grad_(False), 0.1, 0.0)


def test_parts_of_a_network_learn_at_rates_of_their_own():
    model = nn.ModuleDict({"extractor": Small(), "extra": Small(), "head": nn.Linear(3, 2)})
    scales = {"extractor": 0.1, "extractor.fc": 0.5, "head.bias": 2.0}

    def rates_of(name, **options):
        groups = optim.build_optimizer(name, model, 0.2, 0.01, lr_scale=scales, **options).param_groups
        rate = {id(p): g["lr"] for g in groups for p in g["params"]}
        assert all(g["lr"] == pytest.approx(0.2 * g["lr_scale"]) for g in groups)  # what the schedule multiplies
        assert sum(len(g["params"]) for g in groups) == len(rate) == 14
        return {n: pytest.approx(rate[id(p)]) for n, p in model.named_parameters()}

    expected = {"extractor.conv.weight": 0.02, "extractor.bn.bias": 0.02, "extractor.fc.weight": 0.1,
                "extra.fc.weight": 0.2, "head.weight": 0.2, "head.bias": 0.4}  # fmt: skip
    for name in ("adam", "adamw"):
        assert {n: r for n, r in rates_of(name).items() if n in expected} == expected
    # on top of layer-wise rates: blocks are the three children
    found = rates_of("adamw", layer_decay=0.5)
    assert found["head.weight"] == 0.2
    assert found["head.bias"] == 0.4
    assert found["extra.fc.weight"] == 0.1
    assert found["extractor.conv.weight"] == 0.005
    assert found["extractor.fc.weight"] == 0.025


def test_rates_of_parts_that_are_not_there_or_frozen_are_errors():
    model = Small()
    with pytest.raises(
        ValueError, match=r"'con', which is no part of the network; did you mean 'conv'\? \(its parts: "
    ):
        optim.build_optimizer("adam", model, 0.1, 0.0, lr_scale={"con": 0.1})
    model.conv.requires_grad_(False)
    with pytest.raises(ValueError, match="'conv', which is frozen"):
        optim.build_optimizer("adam", model, 0.1, 0.0, lr_scale={"conv": 0.1})


def test_ema_by_hand_with_buffers():
    model = Small()
    ema = optim.EMA(model, 0.9)
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in model.parameters():
            p += 1.0
    model.bn.running_mean += 2.0
    model.bn.num_batches_tracked += 5
    ema.update(model)
    ema.update(model)
    # decays of 1/10 and 2/11 leave 1/55 of the start
    average = ema.module.state_dict()
    torch.testing.assert_close(average["fc.weight"], start["fc.weight"] + 54 / 55)
    torch.testing.assert_close(average["bn.running_mean"], start["bn.running_mean"] + 2 * 54 / 55)
    assert int(average["bn.num_batches_tracked"]) == 5
    assert not ema.module.training
    assert all(not p.requires_grad for p in ema.module.parameters())
    torch.testing.assert_close(model.fc.weight.detach(), start["fc.weight"] + 1.0)  # the model is left as it is


def test_ema_forgets_the_start_however_few_steps_there_are_and_keeps_its_decay_later():
    model = Small()
    ema = optim.EMA(model, 0.9998)
    with torch.no_grad():
        start = model.fc.weight.clone()
        model.fc.weight += 1.0
    for _ in range(20):
        ema.update(model)
    torch.testing.assert_close(ema.module.fc.weight, start + 1.0, atol=1e-4, rtol=0)
    for state in (
        {"module": ema.module.state_dict(), "updates": 10**6},
        ema.module.state_dict(),
    ):  # of earlier versions
        later = optim.EMA(model, 0.9)
        later.load_state_dict(copy.deepcopy(state))
        before = later.module.fc.weight.clone()
        with torch.no_grad():
            model.fc.weight += 1.0
        later.update(model)
        torch.testing.assert_close(later.module.fc.weight, 0.9 * before + 0.1 * model.fc.weight)


def test_ema_resumes_exactly():
    model = Small()
    ema = optim.EMA(model, 0.99)
    with torch.no_grad():
        model.fc.weight += 1.0
    ema.update(model)
    resumed = optim.EMA(Small(), 0.99)
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    for _ in range(3):
        ema.update(model)
        resumed.update(model)
    assert ema.updates == resumed.updates == 4
    for name, value in ema.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name])
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        optim.EMA(model, 1.0)


# Ralamb and Lookahead


def quadratic(make, steps, state=None):
    """Weights after `steps` steps on a fixed quadratic, and the optimiser."""
    w = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    optimizer = make([w])
    for _ in range(steps):
        optimizer.zero_grad()
        (w - 1).square().sum().backward()
        optimizer.step()
    return w.detach(), optimizer


def test_ralamb_is_radam_scaled_by_the_norms():
    first, _ = quadratic(lambda p: optim.Ralamb(p, lr=0.1), 1)
    start = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    gradient = 2 * (start - 1)
    radam = start - 0.1 * gradient  # mean / (1 - beta1) at step 1; the variance is not trusted yet
    torch.testing.assert_close(first, start - 0.1 * gradient * start.norm() / radam.norm())
    decayed, _ = quadratic(lambda p: optim.Ralamb(p, lr=0.1, weight_decay=0.5), 1)
    shrunk = start * 0.95
    torch.testing.assert_close(decayed, shrunk - 0.1 * gradient * shrunk.norm() / (shrunk - 0.1 * gradient).norm())
    far, _ = quadratic(lambda p: optim.Ralamb(p, lr=0.02), 300)
    assert (far - 1).norm() < (start - 1).norm() / 2


def test_lookahead_by_hand():
    w = nn.Parameter(torch.tensor(8.0))
    optimizer = optim.Lookahead(torch.optim.SGD([w], lr=0.25), k=2, alpha=0.5)
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        w.square().backward()
        optimizer.step()  # halves the weight
        seen.append(w.item())
    # step 2 copies 2 as the slow weight; step 4: fast 0.5, slow 2 -> 1.25; step 6: 0.3125 -> (1.25 + 0.3125) / 2
    assert seen == [4, 2, 1, 1.25, 0.625, 0.78125]


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimiser_goes_on_from_its_state_with_lookahead_too(name):
    for lookahead in (0, 3):

        def make(parameters, lookahead=lookahead):
            return optim.build_optimizer(name, parameters, 0.05, 0.01, lookahead)

        expected, _ = quadratic(make, 10)
        half, first = quadratic(make, 4)
        w = nn.Parameter(half.clone())
        again = make([w])
        again.load_state_dict(copy.deepcopy(first.state_dict()))
        for _ in range(6):
            again.zero_grad()
            (w - 1).square().sum().backward()
            again.step()
        torch.testing.assert_close(w.detach(), expected, rtol=0, atol=0)


def test_lookahead_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="k of at least 1"):
        optim.Lookahead(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1), k=0)


@pytest.mark.parametrize("name", optim.FUSED)
def test_one_kernel_a_tensor_is_the_plain_step_whatever_the_memory_layout(name, tmp_path):
    """torch's fused kernels go through memory as it lies: gradients and state must lie as the weights do."""

    def trained(steps: int, fused: bool, after: int = 0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, groups=1), nn.Conv2d(5, 2, 1))
        model = model.to(memory_format=torch.channels_last)
        optimizer = optim.build_optimizer(name, model, 0.01, 0.1)
        for group in optimizer.param_groups:
            group["fused"] = fused
        x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
        for step in range(steps):
            if step and step == after:  # through a file, as last.ckpt
                torch.save({"m": model.state_dict(), "o": optimizer.state_dict()}, tmp_path / "x.ckpt")
                state = torch.load(tmp_path / "x.ckpt", weights_only=True)
                model.load_state_dict(state["m"])
                optimizer.load_state_dict(state["o"])
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    for found, plain in zip(trained(4, True), trained(4, False), strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    for found, resumed in zip(trained(4, True), trained(4, True, after=2), strict=True):
        assert torch.equal(found, resumed)

"""What the steps and epochs of training ask for: their chance, what learns and how fast, and when to stop."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np
import torch

from earshot import optim
from earshot.messages import plural
from earshot.models import blocks as network_blocks
from earshot.training.setup import Progress, Training


def seed_step(seed: int, epoch: int, step: int, process: int) -> torch.Generator:
    """Seed torch (dropout, SpecAugment) and return the generator for mixing: a step's stream needs no history."""
    state = np.random.SeedSequence([seed, epoch, step, process]).generate_state(2)
    torch.manual_seed(int(state[0]))
    return torch.Generator().manual_seed(int(state[1]))


def start_epoch(t: Training):
    """Training mode; with optim.unfreeze_epochs only the blocks whose time has come learn. The epoch alone decides."""
    t.step_began = time.monotonic()
    learning_mode(t)


def learning_mode(t: Training):
    """Every part in training mode but those that rest: frozen ones, and blocks whose time has not come."""
    t.model.train()
    if every := t.config.optim.unfreeze_epochs:
        network_blocks.unfreeze(t.blocks, 1 + t.progress.epoch // every)


def set_learning_rate(t: Training):
    """The schedule of optim.learning_rate at this step, times a parameter group's own `lr_scale`."""
    o, steps = t.config.optim, t.batches_an_epoch // t.config.optim.accumulate
    step = t.progress.epoch * steps + t.progress.step // o.accumulate
    if o.schedule_every == "epoch" and step >= o.warmup_epochs * steps:
        step = t.progress.epoch * steps
    lr = optim.learning_rate(
        step, steps, o.epochs, warmup_epochs=o.warmup_epochs, lr=o.lr, min_lr=o.min_lr, schedule=o.schedule
    )
    for group in t.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def guidance(t: Training, out: dict, batch: dict) -> torch.Tensor | float:
    """What a step adds to the loss of the labels: 0 without a teacher, and in the epochs that it is off."""
    strength = t.config.distill.strength(t.progress.epoch, t.config.optim.epochs) if t.guide else 0.0
    return strength * t.guide(out, batch) if strength else 0.0


def raise_not_finite(loss, batch: dict, p: Progress):
    raise RuntimeError(
        f"loss is {loss.item()} at epoch {p.epoch}, step {p.step}; clips {', '.join(map(str, batch['clip_id']))}. "
        "Lower optim.lr, set optim.clip_norm, or look at these clips"
    )


def time_is_up(t: Training) -> bool:
    """All processes agree: the slowest of them decides. A validation as long as the last one still has to fit."""
    if t.deadline == math.inf:
        return False
    now = time.monotonic()
    t.step_seconds.append(now - t.step_began)
    t.step_began = now
    needed = max((row.get("validation_seconds", 0) for row in t.progress.log), default=0) or first_validation(t)
    late = torch.tensor(float(now + 1.2 * needed > t.deadline), device=t.accelerator.device)
    t.progress.out_of_time = bool(t.accelerator.reduce(late, "sum").item() > 0)
    return t.progress.out_of_time


def first_validation(t: Training) -> float:
    """Seconds that the first validation may take: a held-out crop is heard in half the time of a training one.

    A process's first step may take many times as long as the others: after it alone nobody knows, 0.
    """
    d = t.config.data
    if len(t.step_seconds) < 2:
        return 0.0
    trained = statistics.median_low(t.step_seconds) / t.config.optim.batch_size
    crops = float(len(t.held_out.clips))
    if "duration" in t.held_out.clips:
        seconds = np.nan_to_num(t.held_out.clips.duration.to_numpy(float), nan=d.crop_seconds)
        crops = float(np.maximum(1, seconds / t.config.predict.stride_seconds).sum())
    return 0.5 * trained * crops / t.accelerator.num_processes


def stop_early(t: Training) -> bool:
    patience = t.config.optim.early_stop_epochs
    waited = t.progress.epoch - 1 - t.progress.best_epoch
    if patience and waited >= patience:
        t.accelerator.print(f"fold {t.fold}: no better score for {plural(waited, 'epochs')}; stopping")
        return True
    return False

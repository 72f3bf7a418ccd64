"""Means of weights: over the last epochs of a run (SWA), or of several runs (a soup), with batch norms measured anew.

The mean of weights is a network that no batch ever passed: the running means and variances of its batch norms are those
of none of its parts. So they are measured again, over training batches as the run augments them, before it is judged
(Izmailov et al. 2018). Networks without batch norms need no such pass.
"""

from __future__ import annotations

from torch import nn

from earshot.augment.hidden import mixed_maps
from earshot.augment.pipeline import augment_batch
from earshot.training.loading import epoch_loader, on_device
from earshot.training.norms import has_batch_norms, measure_batch_norms
from earshot.training.schedule import seed_step
from earshot.training.setup import Training, main_bar
from earshot.training.validation import validate_and_keep


def collect(t: Training):
    """At an epoch's end: its weights join the mean, where it is one of the last optim.swa_epochs."""
    if t.average and t.progress.epoch >= t.config.optim.epochs - t.config.optim.swa_epochs:
        t.average.add(t.network)


def judge_average(t: Training) -> dict | None:
    """After the last epoch: measure the mean's batch norms, validate it, keep it -> its row of log.csv; None without.

    By optim.select=best it stays only where it scores higher than the best epoch.
    """
    p, o = t.progress, t.config.optim
    if t.average is None or not t.average.count or p.averaged or p.epoch < o.epochs:
        return None
    if has_batch_norms(t.average.module) and not o.norm_batch:  # else every validation measures them
        measure_batch_norms(t.average.module, passes(t, t.average.module), lambda x: t.accelerator.reduce(x, "mean"))
    p.averaged = True
    return {"epoch": p.epoch, "averaged": t.average.count} | validate_and_keep(t)


def passes(t: Training, network: nn.Module):
    """Functions that send the last epoch's batches, augmented as it heard them, through a network."""
    config, accelerator, epoch = t.config, t.accelerator, t.config.optim.epochs - 1
    for step, batch in enumerate(main_bar(epoch_loader(t, epoch), f"fold {t.fold} batch norms", accelerator)):

        def one(batch=batch, step=step):
            generator = seed_step(config.seed, epoch, step, accelerator.process_index)
            batch.pop("unreadable")
            heard = augment_batch(on_device(batch, accelerator.device), t.front_ends, config.augment.batch, generator)
            with mixed_maps(network, heard.pop("mixing", None)):
                network(**{name: heard[name] for name in t.inputs})

        yield one

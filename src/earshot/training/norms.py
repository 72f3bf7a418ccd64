"""What batch norms believe of their inputs: their means and variances measured anew, apart from training's batches.

While a network trains, its norms keep running means over batches as training hears them: few clips, augmented, mixed.
A deep network of many thin layers (EfficientNet has 49 norms) makes much of a small difference to what it hears in
prediction. `optim.norm_batch` therefore measures them before each validation over the training clips as predictions
hear them, in batches that are large enough to hold rare, loud maps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import nn

from earshot.augment.batch import BatchAugment
from earshot.augment.pipeline import augment_batch
from earshot.messages import few
from earshot.training.examples import collate
from earshot.training.loading import on_device
from earshot.training.schedule import learning_mode
from earshot.training.setup import Training

MEASURED_CLIPS = 2048  # at most: more change no mean that matters

NORMS = nn.modules.batchnorm._BatchNorm


def has_batch_norms(network: nn.Module) -> bool:
    """Whether a network has batch norms with running statistics."""
    return any(isinstance(m, NORMS) and m.track_running_stats for m in network.modules())


@torch.no_grad()
def measure_batch_norms(network: nn.Module, hear: Iterable, reduce=None, only: Collection[str] | None = None):
    """Set all running means and variances to those over these passes, each batch counting alike.

    hear: functions without arguments, each of which sends one batch through the network. reduce: brings a buffer of
    several processes together. only: names of the norms that are measured, while all else (dropout, SpecAugment, other
    norms) acts as in prediction; None: all of them, the whole network as in training. Errors: statistics that are not
    finite.
    """
    named = {name: m for name, m in network.named_modules() if isinstance(m, NORMS) and m.track_running_stats}
    norms = [m for name, m in named.items() if only is None or name in only]
    momenta, modes = [m.momentum for m in norms], [(m, m.training) for m in network.modules()]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    network.train(only is None)
    for norm in norms:
        norm.train()
    for one in hear:
        one()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if reduce is not None:
            for buffer in (norm.running_mean, norm.running_var):
                buffer.copy_(reduce(buffer))
    for module, training in modes:
        module.training = training
    finite = {id(m): bool(m.running_mean.isfinite().all() and m.running_var.isfinite().all()) for m in norms}
    odd = [name for name, m in named.items() if not finite.get(id(m), True)]
    if odd and only is None:
        raise RuntimeError(
            f"the averaged weights give batch norms that are not finite ({few(odd)}): average fewer epochs"
        )
    if odd:
        raise RuntimeError(
            f"clean clips give batch norms that are not finite ({few(odd)}): lower optim.lr, or set optim.norm_batch=0"
        )


def measure_on_clean(t: Training):
    """Measure the norms of the network that predicts over training clips without batch augmentation.

    Only those that training measures: a frozen part keeps its own. Which clips, and in which batches, the seed says.
    """
    learning_mode(t)
    learned = {name for name, m in t.network.named_modules() if isinstance(m, NORMS) and m.training}
    if learned:
        network = t.predicting_network
        measure_batch_norms(network, _clean(t, network), lambda x: t.accelerator.reduce(x, "mean"), only=learned)


def _clean(t: Training, network: nn.Module):
    """Functions that send clean batches of optim.norm_batch training clips through a network, each process its own."""
    order, size, accelerator = t.clips.order(0)[:MEASURED_CLIPS], t.config.optim.norm_batch, t.accelerator
    count = max(len(order) // (size * accelerator.num_processes), 1)
    mine = np.resize(order, max(len(order), accelerator.num_processes))
    mine = mine[accelerator.process_index :: accelerator.num_processes]
    for part in np.array_split(mine, min(count, len(mine))):

        def one(part=part):
            batch = collate([t.clips[0, int(i)] for i in part])
            batch.pop("unreadable")
            heard = on_device(batch, accelerator.device)
            heard = augment_batch(heard, t.front_ends, BatchAugment(), torch.Generator())
            network(**{name: heard[name] for name in t.inputs})

        yield one

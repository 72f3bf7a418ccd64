"""Batches of an epoch for one process, from any of them on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from earshot.script import memory_ran_out

import torch

from earshot.config import Config
from earshot.data import sampling
from earshot.training.examples import collate
from earshot.training.setup import Training

LOADER_ENDED = ("DataLoader worker (pid", "shared memory object", "items of ancdata")  # what torch says of it


def epoch_loader(t: Training, epoch: int, first: int = 0) -> torch.utils.data.DataLoader:
    """The batches that this process hears in an epoch, from number `first` on, as `collate` makes them.

    What a batch holds depends on the seed, the epoch and its number alone, not on how many workers read it.
    """
    data, o, accelerator = t.config.data, t.config.optim, t.accelerator
    batches = sampling.epoch_batches(
        len(t.clips), o.batch_size, t.config.seed, epoch, drop_last=o.drop_last,
        process=accelerator.process_index, processes=accelerator.num_processes, accumulate=o.accumulate,
        order=t.clips.order(epoch),
    )  # fmt: skip
    t.loaders += 1
    return torch.utils.data.DataLoader(
        t.clips, batch_sampler=batches[first:], collate_fn=collate, num_workers=data.workers,
        pin_memory=accelerator.device.type == "cuda", worker_init_fn=_say_nothing_again if t.loaders > 1 else None,
    )  # fmt: skip


def _say_nothing_again(worker: int):
    """In a process that loads an epoch after the first: what is odd about recordings was said in that one."""
    logging.getLogger("earshot").setLevel(logging.ERROR)


@contextmanager
def shortage_explained(config: Config) -> Iterator[None]:
    """Have memory that ran out, and a loader process that was ended for it, be one error that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = " ".join(str(error).split())[:300]
        if any(sign in told for sign in LOADER_ENDED):
            raise RuntimeError(
                "a loader process was ended, as the system does where memory runs out, or a container's shared memory "
                f"(docker run --shm-size 1g): set data.workers lower than {config.data.workers} (0: none), and go on "
                f"with --resume ({told})"
            ) from error
        if memory_ran_out(error):
            raise RuntimeError(
                f"memory ran out: set optim.batch_size to less than {config.optim.batch_size} (optim.accumulate=2 "
                f"makes of two batches one step), and predict.batch_size where a validation was on ({told})"
            ) from error
        raise


def on_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on a device; pinned ones are copied while the GPU still works on the step before."""
    return {k: v.to(device, non_blocking=v.is_pinned()) if torch.is_tensor(v) else v for k, v in batch.items()}

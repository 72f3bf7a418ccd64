"""`train.py --dry-run`: one batch forwards and backwards and a few held-out clips, then what a whole run would take.

The run's own set-up and steps, on the clips of one batch, in a folder that is gone afterwards; caches of the whole data
set are not made.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from earshot.config import Config
from earshot.config.sections import OptimConfig
from earshot.data import sampling
from earshot.data.prepared import PreparedData
from earshot.inputs.teacher import LEFT_OUT
from earshot.messages import plural
from earshot.training.clock import duration, validations
from earshot.training.lessons import Lessons
from earshot.training.setup import Training, set_up
from earshot.training.unlabelled import read_labelled, read_unlabelled, with_unlabelled
from earshot.training.validation import validate

HEARD = 8  # held-out clips that are predicted


def rehearse(
    config: Config, folds: Sequence[int], data: PreparedData, accelerator, train_one_epoch: Callable[[Training], None],
    jobs: int = 1,
):  # fmt: skip
    """Train on the clips of one batch of the first fold, twice, and print what the run would take.

    train_one_epoch: as train.py has it; the first pass sets up (kernels, first reads), the second is timed.
    """
    fold, o = folds[0], config.optim
    everything, held_out = data.split(fold, config.data.folds)
    train = everything.thinned(config.data, config.seed)
    count = o.batch_size * accelerator.num_processes
    batch, heard = part(train, count), part(held_out, HEARD)
    if config.distill.unlabelled == LEFT_OUT:
        rest = part(everything.take(~everything.clips.clip_id.isin(train.clips.clip_id).to_numpy()), count)
        batch = replace(batch, whole=pd.concat([batch.whole, rest.whole], ignore_index=True))
    whole = pd.concat([batch.whole, heard.whole], ignore_index=True)  # a cache of extractors' rows serves both
    batch, heard = replace(batch, whole=whole), replace(heard, whole=whole)
    o_here = replace(o, accumulate=1, checkpoint_steps=0, validate_steps=0)
    here = replace(config, data=replace(config.data, workers=0), optim=o_here)
    with tempfile.TemporaryDirectory(prefix="earshot-dry-run-") as folder:
        if config.distill.unlabelled not in ("", LEFT_OUT):
            few = _unlabelled(config, fold, train, count, Path(folder) / "unlabelled.csv")
            here = replace(here, distill=replace(config.distill, unlabelled=str(few)))
        t = set_up(
            here, fold, Path(folder) / f"fold{fold}", train_data=batch, held_out=heard, classes=data.classes,
            accelerator=accelerator, deadline=float("inf"), cache=Path(folder) / "cache",
        )  # fmt: skip
        seconds = [timed(t, train_one_epoch) / t.batches_an_epoch for _ in range(2 if o.epochs else 0)]
        loss = t.progress.loss_sum / max(t.progress.step, 1)
        started = time.monotonic()
        validate(t)
        validation = (time.monotonic() - started) * len(held_out.clips) / max(1, len(heard.clips))
        batches = batches_of(train, t.clips.lessons, o, accelerator.num_processes)
    if not accelerator.is_main_process:
        return
    if seconds:
        first, then = (f"{s:.2f} s" for s in seconds)
        batch_of = f"a batch of {o.batch_size} clips forwards and backwards"
        print(f"fold {fold}: {batch_of}: loss {loss:.4f}, {then} (the first {first})")
    print(f"memory: {memory_text(accelerator.device)}")
    epoch = batches * seconds[1] if seconds else 0.0
    one = o.epochs * epoch + max(1, validations(0, o.epochs, o.validate_every)) * validation
    rounds = -(-len(folds) // jobs)
    print(
        f"an epoch: {plural(batches, 'batches')}, about {duration(epoch)}, and validation of "
        f"{plural(len(held_out.clips), 'clips')}, about {duration(validation)}"
    )
    total = f"; {plural(len(folds), 'folds')}: about {duration(rounds * one)}" if len(folds) > 1 else ""
    print(
        f"{plural(o.epochs, 'epochs')}: about {duration(one)}{total}. Nothing was written; leave --dry-run out to train"
    )


def batches_of(train: PreparedData, lessons: Lessons | None, o: OptimConfig, processes: int) -> int:
    """Batches of a whole epoch and process: every labelled clip, and the draws of unlabelled ones that go with them."""
    draws = replace(lessons, n_labelled=len(train.clips)).draws if lessons else 0
    return sampling.n_batches(len(train.clips) + draws, o.batch_size, o.drop_last, processes, o.accumulate)


def _unlabelled(config: Config, fold: int, train: PreparedData, count: int, path: Path) -> Path:
    """Check all recordings of distill.unlabelled, as the run will, and list `count` of them, which a teacher hears."""
    clips, validates = read_labelled(train, Path(config.data.root), config.data.folds)
    joined, _ = with_unlabelled(train, read_unlabelled(config.distill.unlabelled), clips, validates, fold=fold)
    behind = np.arange(len(train.clips), len(joined.clips))
    part(joined.take(behind), count).clips[["clip_id", "path"]].to_csv(path, index=False)
    return path


def timed(t: Training, train_one_epoch: Callable[[Training], None]) -> float:
    """Seconds of an epoch of what there is, which counts from its first step."""
    t.progress.step, t.progress.loss_sum, started = 0, 0.0, time.monotonic()
    train_one_epoch(t)
    if t.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - started


def part(data: PreparedData, count: int) -> PreparedData:
    """`count` of the clips, evenly from the whole table, as if there were no others."""
    some = data.take(
        np.unique(np.linspace(0, max(len(data.clips) - 1, 0), count).astype(int)) if len(data.clips) else []
    )
    return replace(some, whole=some.clips[["clip_id", "path"]])


def memory_text(device: torch.device) -> str:
    """Most memory that this process has used, and that of the GPU."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    text = f"{most / 2**30:.1f} GiB"
    if device.type == "cuda":
        text += f", GPU {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    return text

"""Set-up of a fold: from its config and data to the network, optimiser, clips and front ends that training moves."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from earshot import optim, runs, tasks
from earshot.augment.hidden import attach_spec_augment_pp
from earshot.augment.spectrogram import build_spec_augment
from earshot.augment.waveform import build_waveform_augment
from earshot.config import Config
from earshot.data import sampling
from earshot.data.prepared import PreparedData
from earshot.data.pseudo import lineage_of
from earshot.ensemble.lineage import once
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.messages import progress_bar
from earshot.models import blocks as network_blocks
from earshot.models import depthwise
from earshot.models.weights import LoadReport, load_weights
from earshot.prediction.origin import Origin
from earshot.records import to_dict
from earshot.training.background import make_background
from earshot.training.checks import check_all_loaded, check_network, check_several_classes, start_weights
from earshot.training.distillation import Guide, make_guide
from earshot.training.examples import TrainingClips
from earshot.training.frozen import extractor_cache
from earshot.training.lessons import Lessons, prepare_lessons
from earshot.training.origins import check_frontends, check_start, learned_by_start
from earshot.training.pseudo import PseudoWindows


@dataclass(kw_only=True)
class Progress:
    """Where training stands; with the tensors in last.ckpt it is all that --resume needs."""

    epoch: int = 0
    step: int = 0  # batches done in this epoch
    loss_sum: float = 0.0
    best_score: float = -math.inf
    watched: str = ""  # the score that this is; '': an older version does not say
    best_epoch: int = -1
    best_weights: str = ""  # digest of those that best.safetensors holds
    best_steps: int = -1  # of the run, when the best weights were validated
    log: list[dict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    out_of_time: bool = False
    averaged: bool = False  # optim.swa_epochs: the mean of the last weights was judged
    threads: int = 0  # that computed it: others may differ in the last bit


@dataclass(kw_only=True)
class Training:
    """The moving parts of one fold."""

    config: Config
    fold: int
    folder: Path
    model: torch.nn.Module  # prepared: the network in whatever wraps it
    optimizer: torch.optim.Optimizer
    ema: optim.EMA | None
    average: optim.WeightAverage | None  # over the last epochs
    inputs: tuple[str, ...]  # what the network takes in training: its own, or cached embeddings
    blocks: list[network_blocks.Block]
    front_ends: FrontEnds
    clips: TrainingClips
    held_out: PreparedData
    about: dict
    accelerator: Accelerator
    deadline: float
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    step_began: float = 0.0  # of time.monotonic
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=100))  # the last ones, with a deadline
    rounds_after: int = 0  # folds of this run that will follow in this process
    guide: Guide | None = None  # the loss that follows a teacher
    origin: Origin | None = None  # run, fold and tables
    loaders: int = 0  # that this process made for its epochs

    @property
    def network(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.model)

    @property
    def predicting_network(self) -> torch.nn.Module:
        """The weights that are validated and saved: the moving average where there is one, at last that of epochs."""
        if self.progress.averaged:
            return self.average.module
        return self.ema.module if self.ema else self.network

    @property
    def task(self) -> tasks.Task:
        return tasks.task_of(self.config)

    @property
    def steps(self) -> int:
        """Optimiser steps since the run began."""
        p = self.progress
        return (p.epoch * self.batches_an_epoch + p.step) // self.config.optim.accumulate

    @property
    def batches_an_epoch(self) -> int:
        o = self.config.optim
        return sampling.n_batches(
            len(self.clips), o.batch_size, o.drop_last, self.accelerator.num_processes, o.accumulate
        )


def set_up(
    config: Config, fold: int, folder: Path, train_data: PreparedData, held_out: PreparedData, classes: Sequence[str],
    accelerator: Accelerator, deadline: float, cache: Path | None = None, rounds_after: int = 0,
    origin: Origin | None = None,
) -> Training:  # fmt: skip
    """Build everything; the initial weights depend on (seed, fold) alone. Nothing is written but caches (`cache`)."""
    check_several_classes(fold, train_data.target, classes, config.loss.name)
    network, inherited = _network(config, fold, len(classes), origin, accelerator)
    blocks, o = network_blocks.depth_blocks(network), config.optim
    optimizer = optim.build_optimizer(
        o.name, network, o.lr, o.weight_decay, o.lookahead, layer_decay=o.layer_decay, lr_scale=o.lr_scale
    )
    prior = (train_data.target * train_data.mask).sum(0) / np.maximum(train_data.mask.sum(0), 1)
    heard = config.inputs(network.inputs)
    cache = cache or config.data.caches
    bar = partial(main_bar, what="embed", accelerator=accelerator)
    with accelerator.main_process_first():
        train_data, lessons = prepare_lessons(
            config, fold, train_data, classes, folder=cache, origin=origin, progress=bar
        )
    n_crop = round(config.data.crop_seconds * config.data.sample_rate)
    guide = make_guide(lessons, network, heard, n_crop, config.model.name)
    if guide and (learned := list(guide.parameters())):
        optimizer.add_param_group({"params": learned, "weight_decay": o.weight_decay, "lookahead_step": 0})
    about = runs.describe_run(config, fold, classes, prior, heard.timebase(network.pool))
    about |= _learned_from(config, fold, network, train_data, lessons)
    about["origin"] = to_dict(origin)
    about["inherited"] = once([*inherited, *(lessons.inherited if lessons else ())])
    model, optimizer = accelerator.prepare(network, optimizer)
    if guide:
        guide = accelerator.prepare(guide) if any(True for _ in guide.parameters()) else guide.to(accelerator.device)
    embeddings, inputs = None, network.inputs
    data = config.data if o.epochs else replace(config.data, cache="none")  # without a step, training hears no clip
    if data.cache == "embedding":
        inputs = ("embedding",)
        with accelerator.main_process_first():
            embeddings = extractor_cache(network, config, train_data, cache, accelerator.device, bar)
    with accelerator.main_process_first():  # the first one fills the caches
        trains = train_data.pseudo is not None and o.epochs
        clips = TrainingClips(
            train_data, data, heard, config.seed, waveform_augment=build_waveform_augment(config.augment.waveform),
            cache_folder=cache, embeddings=embeddings, background=make_background(config),
            pseudo=PseudoWindows(train_data, config, heard, cache) if trains else None, progress=bar, lessons=lessons,
        )  # fmt: skip
    bare = accelerator.unwrap_model(model)
    return Training(
        config=config, fold=fold, folder=folder, model=model, optimizer=optimizer,
        ema=optim.EMA(bare, o.ema_decay) if o.ema_decay else None,
        average=optim.WeightAverage(bare) if o.swa_epochs else None,
        inputs=inputs, blocks=blocks, front_ends=FrontEnds(config.inputs(inputs)).to(accelerator.device), clips=clips,
        held_out=held_out, about=about, accelerator=accelerator, deadline=deadline, progress=Progress(),
        rounds_after=rounds_after, origin=origin, guide=guide,
    )  # fmt: skip


def _network(
    config: Config, fold: int, n_classes: int, origin: Origin | None, accelerator: Accelerator
) -> tuple[torch.nn.Module, list[dict]]:
    """The network as training begins, and the runs that what it starts from was made by."""
    torch.manual_seed(np.random.SeedSequence([config.seed, fold]).generate_state(1)[0].item())
    network = runs.make_model(config, n_classes)
    check_network(network, config, n_classes)
    inherited = check_frontends(config, origin)
    if config.model.weights:
        report = load_start(network, config, fold, origin)
        inherited += learned_by_start(start_path(config, fold), origin)
        accelerator.print(report)
        check_all_loaded(report, config)
    network.spec_augment = build_spec_augment(config.augment.spec_augment)
    attach_spec_augment_pp(network, config.augment.spec_augment_pp)
    if config.optim.channels_last:
        network = network.to(memory_format=torch.channels_last)
        if accelerator.device.type == "cpu":
            depthwise.speed_up(network)
    for name, parameter in network.named_parameters():  # published but unused: several processes would wait for them
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(network.dead_parameters))
    return network, inherited


def _learned_from(config: Config, fold: int, network, train_data: PreparedData, lessons: Lessons | None) -> dict:
    """What run.json says of the network, and of what it learned from besides the labels."""
    about = {"parameters": sum(p.numel() for p in network.parameters())}
    if architecture := getattr(network, "architecture", None):
        about["architecture"] = architecture
    if train_data.soft is not None:
        about["soft_targets"] = {k: v for k, v in train_data.soft.lineage.items() if k != "answered_by_fold"}
    if train_data.pseudo is not None:
        about["pseudo"] = lineage_of(train_data.pseudo_manifest, config.data.pseudo, fold)
    return about | ({"distill": lessons.about} if lessons else {})


def load_start(network: torch.nn.Module, config: Config, fold: int, origin: Origin | None = None) -> LoadReport:
    """Load the weights that training starts from; missing ones are an error that says how to go without."""
    path = start_path(config, fold)
    check_start(path, origin, folds=config.data.folds)
    front_end = next((r for r in config.inputs(network.inputs).values() if r.kind == "logmel"), None)
    return load_weights(network, path, config.model.drop, front_end, getattr(network, "weights_prefix", ""))


def start_path(config: Config, fold: int) -> Path:
    """The file of weights that a fold starts from."""
    return start_weights(config.model.weights.replace("{fold}", str(fold)), config.model.download)


def main_bar(items, what: str, accelerator):
    """The progress bar of work that several processes share: the main one shows it."""
    return progress_bar(items, what, quiet=not accelerator.is_main_process)

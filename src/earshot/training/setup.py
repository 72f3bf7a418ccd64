"""Set-up of a fold: from its config and data to the network, optimiser, clips and front ends that training moves."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from earshot import optim, runs, tasks
from earshot.augment.hidden import attach_spec_augment_pp
from earshot.augment.spectrogram import build_spec_augment, check_logmel
from earshot.augment.waveform import build_waveform_augment
from earshot.config import Config
from earshot.data import sampling
from earshot.data.prepared import PreparedData
from earshot.inputs.network import Inputs
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.messages import few
from earshot.models import blocks as network_blocks
from earshot.models import counting
from earshot.models.weights import LoadReport, load_weights, resolve
from earshot.training.examples import TrainingClips
from earshot.training.frozen import check_frozen, extractor_cache


@dataclass(kw_only=True)
class Progress:
    """Where training stands; with the tensors in last.ckpt it is all that --resume needs."""

    epoch: int = 0
    step: int = 0  # batches done in this epoch
    loss_sum: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = -1
    log: list[dict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    out_of_time: bool = False


@dataclass(kw_only=True)
class Training:
    """The moving parts of one fold."""

    config: Config
    fold: int
    folder: Path
    model: torch.nn.Module  # prepared: the network in whatever wraps it
    optimizer: torch.optim.Optimizer
    ema: optim.EMA | None
    inputs: tuple[str, ...]  # what the network takes in training: its own, or cached embeddings
    blocks: list[network_blocks.Block]
    front_ends: FrontEnds
    clips: TrainingClips
    held_out: PreparedData
    about: dict
    accelerator: Accelerator
    deadline: float
    progress: Progress

    @property
    def network(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.model)

    @property
    def predicting_network(self) -> torch.nn.Module:
        """The weights that are validated and saved: the moving average where there is one."""
        return self.ema.module if self.ema else self.network

    @property
    def watch(self) -> str:
        """Name of the score that selects the checkpoint."""
        return self.config.watch or tasks.get_task(self.config.task, self.config.data.competition).watch

    @property
    def batches_an_epoch(self) -> int:
        o = self.config.optim
        return sampling.n_batches(
            len(self.clips), o.batch_size, o.drop_last, self.accelerator.num_processes, o.accumulate
        )


def set_up(config, fold, folder, train_data, held_out, classes, accelerator, deadline) -> Training:
    """Build everything; the initial weights depend on (seed, fold) alone."""
    torch.manual_seed(np.random.SeedSequence([config.seed, fold]).generate_state(1)[0].item())
    network = runs.make_model(config, len(classes))
    check_classes(fold, train_data.target, classes, config.loss.name)
    check_logmel(config.augment.batch.logmel)
    check_inputs(network, config)
    check_budget(network, config)
    if config.model.weights:
        report = load_start(network, config, fold)
        accelerator.print(report)
        check_complete(report, config)
    network.spec_augment = build_spec_augment(config.augment.spec_augment)
    attach_spec_augment_pp(network, config.augment.spec_augment_pp)
    check_frozen(network, config)
    if config.optim.channels_last:
        network = network.to(memory_format=torch.channels_last)
    for name, parameter in network.named_parameters():  # published but unused: several processes would wait for them
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(network.dead_parameters))
    blocks, o = network_blocks.depth_blocks(network), config.optim
    optimizer = optim.build_optimizer(o.name, network, o.lr, o.weight_decay, o.lookahead, o.layer_decay, o.lr_scale)
    prior = (train_data.target * train_data.mask).sum(0) / np.maximum(train_data.mask.sum(0), 1)
    heard = config.inputs(network.inputs)
    grid = heard.timebase(network.pool)
    about = runs.describe_run(config, fold, classes, prior, grid)
    about["parameters"] = sum(p.numel() for p in network.parameters())
    model, optimizer = accelerator.prepare(network, optimizer)
    cache, embeddings, inputs = Path(config.data.root) / "cache", None, network.inputs
    data = config.data if o.epochs else replace(config.data, cache="none")  # without a step, training hears no clip
    if data.cache == "embedding":
        inputs = ("embedding",)
        with accelerator.main_process_first():
            embeddings = extractor_cache(
                network, config, train_data, cache, accelerator.device,
                lambda files: progress_bar(files, "embed", accelerator),
            )  # fmt: skip
    with accelerator.main_process_first():  # the first one fills the caches
        clips = TrainingClips(
            train_data,
            data,
            heard,
            config.seed,
            waveform_augment=build_waveform_augment(config.augment.waveform),
            cache_folder=cache,
            embeddings=embeddings,
        )
    ema = optim.EMA(accelerator.unwrap_model(model), o.ema_decay) if o.ema_decay else None
    front_ends = FrontEnds(config.inputs(inputs)).to(accelerator.device)
    return Training(
        config=config,
        fold=fold,
        folder=folder,
        model=model,
        optimizer=optimizer,
        ema=ema,
        inputs=inputs,
        blocks=blocks,
        front_ends=front_ends,
        clips=clips,
        held_out=held_out,
        about=about,
        accelerator=accelerator,
        deadline=deadline,
        progress=Progress(),
    )


def check_classes(fold: int, target: np.ndarray, classes, loss: str):
    """Error where a loss that tells classes apart gets training clips, (N, K), of one class alone."""
    found = [str(c) for c, there in zip(classes, (target > 0.5).any(axis=0), strict=True) if there]
    if loss == "cross_entropy" and len(found) < 2:
        raise ValueError(
            f"fold {fold} trains on clips of {len(found)} classes ({few(found)}): loss cross_entropy tells classes "
            "apart and needs two; look at the fold table that src/make_folds.py printed"
        )


def check_inputs(network: torch.nn.Module, config: Config):
    """Error for augmentation, channels or a cache that this network's inputs do not allow, with what to set instead."""
    a, heard = config.augment, config.inputs(network.inputs)
    reads = f"{config.model.name} reads {' and '.join(network.inputs)}"
    check_channels(network, heard, config.model.name)
    if config.data.cache == "logmel" and not heard.cacheable:
        raise ValueError(f"data.cache=logmel leaves no waveform, and {reads}: set data.cache=waveform")
    for key, acts in (a.acting | {"spec_augment": build_spec_augment(a.spec_augment)}).items():
        on_logmel = key in ("batch.logmel", "batch.image", "spec_augment", "spec_augment_pp")
        if acts and on_logmel and not heard.of(picture=True):
            raise ValueError(f"augment.{key} acts on a log-mel: {reads}. Leave it out (SpecAugment: 0 stripes)")
    for key, value in (("mixup_on=logmel", a.batch.mixup_on == "logmel"), ("fmix_p", a.batch.fmix_p)):
        if value and heard.of(kind="waveform"):
            raise ValueError(
                f"augment.batch.{key} would mix the labels of what is not mixed: {reads}; set "
                "augment.batch.mixup_on=waveform"
            )


def check_channels(network: torch.nn.Module, heard: Inputs, name: str):
    """Error where an input has two channels and the network takes one."""
    taken = getattr(network, "in_chans", getattr(getattr(network, "base", None), "in_chans", 1))
    for key, record in heard.items():
        if record.sounds and record.n_channels > 1 and not (record.picture and taken == record.n_channels):
            raise ValueError(
                f"input '{key}' has two channels ({record.channels}), {name} takes {taken if record.picture else 1} of "
                f"it: set model.params.in_chans=2 if it has that, or frontends.{key}.channels=mono"
            )


def check_budget(network: torch.nn.Module, config: Config):
    """Refuse a network over the config's budget, with both figures and both limits."""
    b, samples = config.budget, round(config.predict.window_seconds * config.data.sample_rate)
    if b.parameters_kb or b.mmacs:
        costs = counting.count(network, config.inputs(network.inputs), samples)
        counting.check_budget(config.model.name, network, costs, b.parameters_kb, b.mmacs)


def check_complete(report: LoadReport, config: Config):
    """Error where optim.epochs=0 would evaluate a part of the network that no checkpoint filled."""
    if report.kept and not config.optim.epochs:
        raise ValueError(
            f"optim.epochs=0 trains nothing, but {few(report.kept)} would keep random values: {report.path} does not "
            "hold them. Give weights of the whole network (model.drop empty), or train for at least one epoch"
        )


def load_start(network: torch.nn.Module, config: Config, fold: int) -> LoadReport:
    """Load the weights that training starts from; missing ones are an error that says how to go without."""
    name = config.model.weights.replace("{fold}", str(fold))
    try:
        path = resolve(name, config.model.download)
    except ValueError as error:
        raise ValueError(f"{error}; to train from random weights: model.weights=") from error
    front_end = next((r for r in config.inputs(network.inputs).values() if r.kind == "logmel"), None)
    return load_weights(network, path, config.model.drop, front_end, getattr(network, "weights_prefix", ""))


def progress_bar(items, description: str, accelerator):
    quiet = not accelerator.is_main_process or not sys.stderr.isatty()
    return tqdm(items, desc=description, leave=False, disable=quiet)

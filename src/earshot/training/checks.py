"""Everything about a run that can be known before its first batch, asked before a folder is made for it.

Names first (task, watched score, augmentations), then sizes and recordings, then the network on the shapes and on a
second of noise, then each fold's clips. What is found is one error that says what to set.
"""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from earshot import losses, optim, runs, tasks
from earshot.augment.batch import BatchAugment
from earshot.augment.hidden import attach_spec_augment_pp
from earshot.augment.image import check_image
from earshot.augment.spectrogram import LOGMEL_AUGMENTS, build_spec_augment, check_logmel
from earshot.augment.waveform import build_waveform_augment, check_waveform_augment, moving_transforms
from earshot.competitions import get_competition
from earshot.config import Config, DataConfig, OptimConfig
from earshot.data.dataset import LOOKED_AT, say_changed
from earshot.data.labels import negative_events
from earshot.data.prepared import PreparedData
from earshot.inputs.network import Inputs
from earshot.messages import few, first_line, plural
from earshot.models import check_model, counting
from earshot.models.contract import check_answers
from earshot.models.transformers_folder import find_folder
from earshot.models.weights import LoadReport, resolve
from earshot.prediction.inference import check_one_pass
from earshot.prediction.tta import check_tta, tta_variants
from earshot.sound import audio
from earshot.sound.rows import file_of
from earshot.training.frozen import check_frozen
from earshot.training.learnable import check_learnable
from earshot.training.pseudo import check_pseudo
from earshot.training.tracking import split_target
from earshot.training.watch import check_watch

LOOKED_FOR = 20  # recordings of which at least one must be there

logger = logging.getLogger("earshot")


def check_names(config: Config):
    """Names that need no data: task, loss, network, optimiser, augmentations."""
    tasks.task_of(config)
    losses.build_loss(**vars(config.loss))
    check_model(config.model.name)
    if config.track:
        split_target(config.track)
    optim.check_optimizer(config.optim.name)
    check_logmel(config.augment.batch.logmel)
    check_image(config.augment.batch.image)
    build_spec_augment(config.augment.spec_augment)
    tta_variants(config.predict.tta)


def check_run(config: Config, data: PreparedData, folds: Sequence[int]):
    """Raise ValueError for whatever would stop these folds, or let them learn nothing, before anything is written."""
    check_names(config)
    check_schedule(config.optim)
    losses.build_loss(**vars(config.loss), classes=data.classes)
    say_idle(config.augment.batch)
    say_slow_precision(config.optim.precision)
    check_watch(config, data)
    augment = build_waveform_augment(config.augment.waveform)
    check_memory(config)
    check_recordings(data)
    check_background(config, data)
    say_resampling(config, data)
    check_weights(config, folds)
    network = runs.make_model(config, len(data.classes), weights_follow=True)
    check_network(network, config, len(data.classes))
    crop = round(config.data.crop_seconds * config.data.sample_rate)
    check_waveform_augment(augment, crop, config.data.sample_rate, config.inputs(network.inputs).n_channels)
    check_times(augment, config.data)
    if config.data.frame_targets and (note := coarse_step(network, config, data.events)):
        logger.warning(note)
    check_tta(config.predict.tta, config.predict, config.inputs(network.inputs).values())
    check_one_pass(config.predict, config.inputs(network.inputs).values(), getattr(network, "pooling", ""))
    attach_spec_augment_pp(network, config.augment.spec_augment_pp)
    for fold in folds:
        train, _ = data.split(fold, config.data.folds)
        check_pseudo(config, train, config.inputs(network.inputs))
        check_several_classes(fold, train.thinned(config.data, config.seed).target, data.classes, config.loss.name)
    check_learnable(network, config, data.target, data.mask)


def check_schedule(o: OptimConfig):
    """Raise where a schedule would do the opposite of what it is for, which losses do not show."""
    if o.min_lr > o.lr and o.schedule != "constant":
        raise ValueError(
            f"optim.min_lr ({o.min_lr:g}) is above optim.lr ({o.lr:g}), so that the rate would rise: set optim.min_lr "
            "lower, or optim.lr higher"
        )
    if o.unfreeze_epochs >= o.epochs > 0:
        raise ValueError(
            f"optim.unfreeze_epochs ({o.unfreeze_epochs}) leaves no epoch of optim.epochs ({o.epochs}) to anything but "
            "the head: set it lower (0: all blocks learn from the start), or train longer"
        )


def check_times(augment, data: DataConfig):
    """Error for waveform augmentation that moves sounds away from their targets in time."""
    if data.frame_targets and (moving := moving_transforms(augment)):
        raise ValueError(
            f"augment.waveform: {few(moving)} moves sounds in time, and the targets of their frames would stay where "
            "they are: use roll or time_stretch of augment.batch.logmel, which move both, or leave it out"
        )


def say_idle(batch: BatchAugment):
    """Warn of a way to mix clips where none are mixed; no error, as a comparison may turn mixup alone off."""
    if batch.mixup_on == "none" and batch.mixup_domain != "input":
        logger.warning(
            "augment.batch.mixup_domain=%s does nothing while augment.batch.mixup_on is none: set it to %s",
            batch.mixup_domain, "waveform or logmel" if batch.mixup_domain == "level" else "logmel",
        )  # fmt: skip


def say_slow_precision(precision: str):
    """Warn of half precision on a processor that does not multiply in it: torch then converts at every step."""
    if torch.cuda.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return
    fast = {
        "bf16": torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        "fp16": torch.cpu._is_amx_fp16_supported(),
    }
    if not fast.get(precision, True):
        logger.warning(
            "optim.precision=%s is slower than float32 on this processor, which does not multiply in it: set "
            "optim.precision=no", precision,
        )  # fmt: skip


def coarse_step(network: torch.nn.Module, config: Config, events: pd.DataFrame) -> str:
    """What to say where outputs are further apart than half the median event lasts, and '' elsewhere."""
    events = events[~negative_events(events)]
    usual = (events.offset - events.onset).median() if len(events) else math.inf
    step = config.inputs(network.inputs).timebase(network.pool).frame_seconds
    if step <= usual / 2 + 1e-6:
        return ""
    return (
        f"{config.model.name} answers every {1000 * step:.3g} ms, and half of the events last {1000 * usual:.3g} ms at "
        "most, too short for that: take a network with finer outputs, such as that of configs/sed/finch_vocal.yaml "
        "(10 ms), or a shorter hop_length of the front end"
    )


def check_network(network: torch.nn.Module, config: Config, classes: int):
    """Error where the network cannot hear the config's inputs, answers otherwise than networks do, or may not cost
    what it costs."""
    check_inputs(network, config)
    check_shapes(network, config, classes)
    check_budget(network, config)
    check_frozen(network, config)


def check_memory(config: Config):
    """Error where a batch of training crops, or of windows to predict, is larger than the memory that is free."""
    free, channels = psutil.virtual_memory().available, config.inputs().n_channels
    for what, seconds, clips, keys in (
        ("training crops", config.data.crop_seconds, config.optim.batch_size, "data.crop_seconds or optim.batch_size"),
        ("windows", config.predict.window_seconds, config.predict.batch_size, "predict.window_seconds or batch_size"),
    ):
        size = 4.0 * clips * channels * seconds * config.data.sample_rate
        if size > free:
            raise ValueError(
                f"a batch of {clips} {what} of {seconds:g} s is {size / 2**30:,.1f} GiB of sound, and "
                f"{free / 2**30:.1f} GiB of memory are free: lower {keys}"
            )


def check_recordings(data: PreparedData):
    """Error where none of the first recordings of the table is there: a wrong folder, not a few damaged files."""
    some = data.clips.path.head(LOOKED_FOR)
    paths = [Path(data.source) / file_of(path) for path in some]
    if len(paths) and not any(path.is_file() for path in paths):
        raise ValueError(
            f"none of the first {plural(len(paths), 'recordings')} of the clip table is there, such as {paths[0]}: "
            "is `source` in "
            "dataset.json the folder that paths in clips.csv are relative to? src/prepare.py writes both"
        )


def say_of_data(config: Config, data: PreparedData):
    """Warn of recordings that are others than the tables say, or gone, and of groups that the folds do not know."""
    say_changed(config.data.root, data.source, data.clips.path)
    say_lost(data)
    if data.stale_folds:
        logger.warning(data.stale_folds)


def say_lost(data: PreparedData):
    """Warn of recordings that are not there any more, and of classes that lose most of theirs.

    Of many recordings LOOKED_AT are asked, evenly spread.
    """
    some = data.take(np.arange(len(data.clips))[:: max(1, -(-len(data.clips) // LOOKED_AT))])
    there = [(Path(data.source) / file_of(path)).is_file() for path in some.clips.path]
    if lost := some.clips[~np.array(there, bool)].clip_id.tolist():
        classes = some.mostly_among(lost)
        logger.warning(
            "%d of %d recordings that were looked at are not in %s any more, such as %s, and train nothing%s",
            len(lost), len(there), data.source, few(lost, 3), f"; most or all of {few(classes)}" * bool(classes),
        )  # fmt: skip


def check_background(config: Config, data: PreparedData):
    """Error where background is to lie by the level of events, and no event of any clip is known."""
    record = config.augment.background
    if record.level == "events" and not record.source:
        logger.warning("augment.background.level=events does nothing without augment.background.source")
    if record.source and record.level == "events" and (data.events is None or negative_events(data.events).all()):
        raise ValueError(
            "augment.background.level=events goes by the events of the clips, and these data have none (events.csv): "
            "set augment.background.level=crop"
        )


def say_resampling(config: Config, data: PreparedData):
    """Say that a cache would resample once what is resampled at every read, by the first recording that is there."""
    paths = [Path(data.source) / str(path) for path in data.clips.path.head(LOOKED_FOR)]
    there = next((path for path in paths if path.is_file()), None)
    if config.data.cache != "none" or there is None:
        return
    try:
        rate = audio.info(there).sample_rate
    except audio.UnreadableAudio:  # training names it
        return
    if rate != config.data.sample_rate:
        logger.warning(
            "recordings of %d Hz are resampled to %d Hz at every read: data.cache=waveform does it once",
            rate, config.data.sample_rate,
        )  # fmt: skip


def check_weights(config: Config, folds: Sequence[int]):
    """Error where a fold's starting weights are nowhere; what is to be downloaded is not looked for."""
    params = config.model.params
    for folder in (params.get("folder"), (params.get("base_params") or {}).get("folder")):
        if folder:
            find_folder(folder)
    if config.model.weights and not config.model.download:
        for name in dict.fromkeys(config.model.weights.replace("{fold}", str(fold)) for fold in folds):
            start_weights(name)


def start_weights(name: str, download: bool = False) -> Path:
    """The file of weights to start from; a missing one is an error that says how to go without."""
    try:
        return resolve(name, download)
    except ValueError as error:
        raise ValueError(f"{error}; to train from random weights: model.weights=") from error


def check_shapes(network: torch.nn.Module, config: Config, classes: int):
    """Error where the network cannot hear a training crop, or a window to predict, of these front ends, or answers
    otherwise than networks do."""
    heard, fits = config.inputs(network.inputs), set()
    for what, seconds in (("crop", config.data.crop_seconds), ("window", config.predict.window_seconds)):
        samples = round(seconds * config.data.sample_rate)
        if samples in fits:
            continue
        try:
            answers = counting.forward_shapes(network, heard, samples)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(
                f"'{name}' of kind {heard[name].kind}, {tuple(shape)}" for name, shape in heard.shapes(samples).items()
            )  # fmt: skip
            raise ValueError(
                f"{config.model.name} cannot hear a {what} of {seconds:g} s as {shapes}: {first_line(error)}. "
                "Change the front end (frontends.<name>.kind, n_mels, ...), data.crop_seconds or predict.window_seconds"
            ) from error
        picture = heard.of(picture=True) if len(heard) == 1 else ()
        frames = heard.shapes(samples)[picture[0]][1] if picture else 0
        check_answers(config.model.name, network, answers, classes, frames)
        fits.add(samples)


def check_several_classes(fold: int, target: np.ndarray, classes, loss: str):
    """Error where a loss that tells classes apart gets training clips, (N, K), of one class alone."""
    found = [str(c) for c, there in zip(classes, (target > 0.5).any(axis=0), strict=True) if there]
    if loss == "cross_entropy" and len(found) < 2:
        raise ValueError(
            f"fold {fold} trains on clips of {len(found)} classes ({few(found)}): loss cross_entropy "
            "tells classes apart and needs two; look at the fold table that src/make_folds.py printed"
        )


def check_inputs(network: torch.nn.Module, config: Config):
    """Error for augmentation, channels or a cache that this network's inputs do not allow, with what to set instead."""
    a, heard = config.augment, config.inputs(network.inputs)
    reads = f"{config.model.name} reads {' and '.join(network.inputs)}"
    check_channels(network, heard, config.model.name)
    if config.data.cache == "logmel" and not heard.cacheable:
        raise ValueError(f"data.cache=logmel leaves no waveform, and {reads}: set data.cache=waveform")
    for key in (n for n, r in heard.items() if config.data.cache == "logmel" and r != r.exported()):
        raise ValueError(
            f"data.cache=logmel keeps what NumPy computes, so that frontends.{key}.engine={heard[key].engine} would "
            "compute nothing: set data.cache=waveform, or leave engine out"
        )
    for key, acts in (a.acting | {"spec_augment": build_spec_augment(a.spec_augment)}).items():
        on_logmel = key in ("batch.logmel", "batch.image", "spec_augment", "spec_augment_pp")
        if acts and on_logmel and not heard.of(picture=True):
            raise ValueError(f"augment.{key} acts on a log-mel: {reads}. Leave it out (SpecAugment: 0 stripes)")
        if acts and key == "spec_augment" and not hasattr(network, "spec_augment"):
            raise ValueError(
                f"augment.spec_augment does nothing to {config.model.name}, which has no `spec_augment`: call "
                "layers.normalised_input in its forward, which applies it, or set augment.spec_augment={}"
            )
    unmixed = a.batch.mixup_on == "logmel" and not getattr(network, "mixed_layer", "")
    summed = a.batch.summix_on == "logmel"
    others = heard.of(picture=True, decibels=False)
    added = [spec["name"] for spec in a.batch.logmel if LOGMEL_AUGMENTS[spec["name"]].decibels]
    if added and others:
        raise ValueError(
            f"augment.batch.logmel: {few(added)} adds decibels, and {', '.join(others)} is in another scale: use Gain "
            "or SevenBandParametricEQ of augment.waveform"
        )
    if summed and others:
        raise ValueError(
            f"augment.batch.summix_on=logmel adds energies of log-mels in dB, and {', '.join(others)} is none: set "
            "augment.batch.summix_on=waveform"
        )
    for key, value in (
        ("mixup_on=logmel", unmixed), ("fmix_p", a.batch.fmix_p), ("cutmix_p", a.batch.cutmix_p),
        ("summix_on=logmel", summed),
    ):  # fmt: skip
        if value and heard.of(kind="waveform"):
            raise ValueError(
                f"augment.batch.{key} would mix the labels of what is not mixed: {reads}; set "
                f"augment.batch.{'summix_on' if summed else 'mixup_on'}=waveform"
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
    """Refuse a network over the config's budget, with both figures and both limits; warn of one that the competition
    does not allow."""
    b, limits = config.budget, get_competition(config.data.competition).limits
    if not (b.parameters_kb or b.mmacs or limits.parameters_kb or limits.mmacs):
        return
    costs = counting.count(
        network, config.inputs(network.inputs), round(config.predict.window_seconds * config.data.sample_rate)
    )
    counting.check_budget(config.model.name, network, costs, b.parameters_kb, b.mmacs)
    for said in limits.broken(sum(p.numel() for p in network.parameters()) / 1000, costs.macs / 1e6):
        logger.warning("%s %s of %s", config.data.competition, said, config.model.name)


def check_all_loaded(report: LoadReport, config: Config):
    """Error where optim.epochs=0 would evaluate a part of the network that no checkpoint filled."""
    if report.kept and not config.optim.epochs:
        raise ValueError(
            f"optim.epochs=0 trains nothing, but {few(report.kept)} would keep random values: {report.path} does not "
            "hold them. Give weights of the whole network (model.drop empty), or train for at least one epoch"
        )

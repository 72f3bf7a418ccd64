"""A config that works, fitted to other data: its rate, lengths, targets and batch size follow the new recordings."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import logging
import resource
from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil
import torch

from earshot import losses, runs
from earshot.augment.spectrogram import SpecAugment
from earshot.config import Config, from_dict
from earshot.data.labels import annotated_clips, label_lists
from earshot.inputs.record import Input
from earshot.inputs.torch_front_ends import FrontEnds
from earshot.messages import few, logged_from, plural
from earshot.prediction.tta import in_place
from earshot.sound.logmel import LogmelParams, empty_mel_bands
from earshot.training.checks import coarse_step
from earshot.training.learnable import PROBE_SECONDS, probe

LONG = 1.5  # clips so many times as long as the crop: crops are drawn from anywhere in them
STEPS = 8  # an epoch has at least so many, where the clips suffice
FEWEST_STEPS, MOST_EPOCHS = 600, 200  # of a training: few recordings are heard more often, up to so many times
COUNT_EPOCHS = (
    ("optim", "warmup_epochs"), ("optim", "swa_epochs"), ("optim", "unfreeze_epochs"), ("optim", "early_stop_epochs"),
    ("distill", "off_epochs"),
)  # fmt: skip
LOW_BAND, HIGH_BAND = 150, 0.5  # Hz; of the highest frequency recorded: a band that leaves out more is said
MOST_HOLD = 0.5  # share of the recordings that hold a class, mean over classes: beyond it they are not told apart
MEMORY_SHARE = 0.5  # of what is free: the loader and the caches need some too


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a config is fitted to. clips: `labels, duration, sample_rate, ...`; held_out: share of a fold."""

    name: str
    competition: str
    task: str
    root: str
    folds: str
    clips: pd.DataFrame
    events: pd.DataFrame | None
    held_out: float = 0.2


def fitted(like: dict, data: Data) -> tuple[dict, list[str]]:
    """Values of a config, as its file gives them -> (the same for other data, what changed and why, a line each)."""
    values, notes = copy.deepcopy(like), []
    before = from_dict(copy.deepcopy(like))
    own = values.setdefault("data", {})
    own |= {"competition": data.competition, "root": data.root, "folds": data.folds}
    for key in ("classes", "where", "part", "pseudo"):  # of the other data
        if own.pop(key, None):
            notes.append(f"data.{key} is left out: it speaks of the columns, classes or clips of other data")
    for key in ("clips_per_class", "train_share"):
        if own.pop(key, None):
            notes.append(f"data.{key} is left out: all labels of these data train")
    notes += _without_other_runs(values, before)
    if before.data.metadata:
        raise ValueError("that config's network takes metadata of its own data: take another one for --like")
    notes += _fit_task(values, before, data)
    notes += _fit_rate(values, before, data.clips)
    notes += _band_notes(values, data.clips)
    notes += _fit_lengths(values, before, data.clips)
    notes += _fit_stripes(values, before)
    notes += _fit_targets(values, before, data)
    from_dict(copy.deepcopy(values))
    return values, notes


def _without_other_runs(values: dict, before: Config) -> list[str]:
    """Neither weights nor answers of runs on the other data; a teacher's file that anybody has may stay."""
    notes, teacher = [], before.distill.teacher
    if before.model.weights and "{fold}" in before.model.weights:
        del values["model"]["weights"]
        notes.append(f"model.weights is left out: {before.model.weights} learned the other data")
    if before.distill.acts and (before.distill.predictions or teacher.run or before.distill.unlabelled):
        del values["distill"]
        who = teacher.run or ", ".join(before.distill.predictions) or before.distill.unlabelled
        notes.append(f"distill is left out: {who} is of the other data")
    return notes


def _fit_task(values: dict, before: Config, data: Data) -> list[str]:
    """The task of the data; a loss for one label a clip is refused where clips have several, and one class always.

    Clips without a label do not train, unless the config, or the column `annotated`, says that they are silent.
    """
    lists = label_lists(data.clips)
    silent = annotated_clips(data.clips, data.events) | before.data.keep_unlabelled
    labels = {c: len(n) for c, n, quiet in zip(data.clips.clip_id, lists, silent, strict=True) if n or quiet}
    several = [clip_id for clip_id, n in labels.items() if n != 1]
    classes = {name for names in lists for name in names}
    if len(classes) == 1 and data.events is None and all(labels.values()):
        raise ValueError(
            f"there is one class alone, {classes.pop()}, and no clip without it: nothing to tell apart. Add recordings "
            "of something else, or say when the class is heard by annotations"
        )
    if before.loss.name == "cross_entropy" and several:
        raise ValueError(
            f"that config learns exactly one label a clip (loss.name=cross_entropy), and {len(several)} of "
            f"{plural(len(labels), 'clips have')} none or several: {few(several)}. Take one with loss bce for "
            "--like, such as sed/synth_cnn, or mend their labels"
        )
    if values.get("watch") and (several or values.get("task", before.task) != data.task):
        del values["watch"]
    if before.task == data.task:
        return []
    values["task"] = data.task
    return [f"task={data.task}"]


def _fit_rate(values: dict, before: Config, clips: pd.DataFrame) -> list[str]:
    """No rate above that of the recordings: the bands above it would be empty; but a front end's own rate stays.

    What front ends count in samples lasts as long as before.
    """
    rates = clips.sample_rate.dropna().astype(float)
    if not len(rates):
        raise ValueError("no recording could be read, so that no rate is known; see unreadable.csv beside clips.csv")
    own_rates = _own_rates(values, before)
    usual = max([int(np.quantile(rates, 0.1, method="lower")), *own_rates.values()])
    if usual >= before.data.sample_rate:
        return []
    values["data"]["sample_rate"] = usual
    share = "the recordings" if rates.max() <= usual else "a tenth of the recordings"
    notes = [f"data.sample_rate={usual}: {share} have no more"]
    for name, record in before.frontends.items():
        own = {}
        if (getattr(record, "fmax", None) or 0) > usual / 2:
            own["fmax"] = usual // 2
            notes.append(f"frontends.{name}.fmax={usual // 2}: half the rate")
        if hasattr(record, "hop_length") and not own_rates[name]:
            own |= (lengths := _lengths_at(record, before.data.sample_rate, usual, own.get("fmax")))
            notes.append(
                ", ".join(f"frontends.{name}.{key}={n}" for key, n in lengths.items())
                + f": frames of {1000 * lengths['hop_length'] / usual:.3g} ms, "
                f"{1000 * record.hop_length / before.data.sample_rate:.3g} at {before.data.sample_rate} Hz"
            )
        if own:
            values.setdefault("frontends", {}).setdefault(name, {}).update(own)
    return notes


def _band_notes(values: dict, clips: pd.DataFrame) -> list[str]:
    """Say where a front end hears a band alone that was chosen for the sounds of the other data."""
    config, notes = from_dict(copy.deepcopy(values)), []
    recorded = float(np.quantile(clips.sample_rate.dropna().astype(float), 0.1, method="lower")) / 2
    for name, record in config.frontends.items():
        if not hasattr(record, "fmin"):
            continue
        low, high = record.fmin, min(record.fmax or np.inf, (record.sample_rate or config.data.sample_rate) / 2)
        if low > LOW_BAND or high < HIGH_BAND * recorded:
            notes.append(
                f"frontends.{name} hears {low:g} to {high:g} Hz alone, as in that config, and the recordings go to "
                f"{recorded:g} Hz: where your sounds are lower or higher, set its fmin and fmax (and data.sample_rate)"
            )
    return notes


def _lengths_at(record: Input, before: int, rate: int, fmax: float | None) -> dict[str, int]:
    """Window and hop of a front end, in samples of a lower rate: as long in time as they were, as nearly as may be.

    A power of two stays one. The FFT is not shorter than hop or window, and where a mel band would hold no bin of it,
    longer, at most as before.
    """
    hop, fft = (max(1, round(n * rate / before)) for n in (record.hop_length, record.n_fft))
    window = round(getattr(record, "win_length", 0) * rate / before)
    if record.n_fft & (record.n_fft - 1) == 0:
        fft = 2 ** round(np.log2(record.n_fft * rate / before))
    changed = {"sample_rate": rate, "hop_length": hop} | ({"fmax": fmax} if fmax else {})
    changed |= {"win_length": window} if window else {}
    while fft < record.n_fft:
        there = dataclasses.replace(record, **changed, n_fft=max(fft, hop, window))
        with logged_from(logging.ERROR, "earshot.sound.logmel"):  # which warns of the bands that are looked for here
            empty = isinstance(there, LogmelParams) and empty_mel_bands(there)
        if fft >= max(hop, window) and not empty:
            break
        fft = min(2 * fft, record.n_fft)
    return {"n_fft": fft} | ({"win_length": window} if window else {}) | {"hop_length": hop}


def _own_rates(values: dict, before: Config) -> dict[str, int]:
    """Hz that a front end needs whatever is recorded, such as VGGish's 16000; 0 where it follows data.sample_rate."""
    rates = {}
    for name, record in before.frontends.items():
        fixed = [
            f.default for f in dataclasses.fields(record) if f.name == "sample_rate" and isinstance(f.default, int)
        ]
        rates[name] = (values.get("frontends") or {}).get(name, {}).get("sample_rate", 0) or max(fixed, default=0)
    return rates


def _fit_lengths(values: dict, before: Config, clips: pd.DataFrame) -> list[str]:
    """Crops no longer than the clips, drawn from anywhere where clips are long; windows as long as crops."""
    seconds = clips.duration.dropna().astype(float)
    long, usual = float(seconds.quantile(0.9)), float(seconds.median())
    crop, notes = before.data.crop_seconds, []
    if long < crop:
        crop = max(round(long, 1), 0.1)
        notes.append(f"data.crop_seconds={crop:g}: nine of ten clips are no longer")
    values["data"]["crop_seconds"] = crop
    if before.data.crop == "full" and usual > LONG * crop:
        values["data"]["crop"] = "random"
        notes.append(f"data.crop=random: clips last {usual:.3g} s as a rule, crops {crop:g} s")
    windows = values.setdefault("predict", {})
    for key in ("window_seconds", "stride_seconds"):
        windows.pop(key, None)
    windows["window_seconds"] = crop
    if usual > LONG * crop:
        windows["stride_seconds"] = round(crop / 2, 3)
    return notes


def _fit_stripes(values: dict, before: Config) -> list[str]:
    """SpecAugment's stripes, counted in frames, are as large a part of a shorter crop as they were of the other."""
    share, augment = values["data"]["crop_seconds"] / before.data.crop_seconds, values.get("augment") or {}
    listed = (augment.get("batch") or {}).get("logmel") or []
    stripes = [spec for spec in listed if spec.get("name") == "spec_augment"]
    stripes += [augment["spec_augment"]] if augment.get("spec_augment") else []
    if share >= 1 or not stripes:
        return []
    usual = inspect.signature(SpecAugment).parameters["time_width"].default
    for spec in stripes:
        spec["time_width"] = max(1, round(share * spec.get("time_width", usual)))
    widths = ", ".join(str(spec["time_width"]) for spec in stripes)
    return [f"time_width={widths} of spec_augment, in frames: as large a part of the crop as before"]


def _fit_targets(values: dict, before: Config, data: Data) -> list[str]:
    """Events train frames where there are any; where there are none, keys that need them go."""
    own = values["data"]
    needs_events = ("frame_targets", "false_positives", "min_overlap_seconds", "frame_margin_seconds", "box_jitter")
    if data.events is None:
        gone = [key for key in needs_events if own.pop(key, None)]
        gone += [key for key in ("crop", "targets") if own.get(key) in ("box", "events") and own.pop(key)]
        return [f"data.{key} is left out: there is no events.csv" for key in gone]
    if before.loss.name not in ("bce", "bce_clip_frame", "frame_bce", "focal"):
        return []
    own |= {"targets": "events", "frame_targets": True}
    values.setdefault("predict", {})["keep_frames"] = True
    hearings = values["predict"].get("tta") or ()
    if moving := [name for name in hearings if name not in in_place(hearings)]:
        values["predict"]["tta"] = list(in_place(hearings))
    notes = ["data.targets=events, data.frame_targets=true: events.csv says when each class is heard"]
    if moving:
        notes.append(f"predict.tta without {', '.join(moving)}: moved in time, no event would be where it is heard")
    if values.get("watch") or values.get("task", before.task) != "sed":
        return notes
    shares = _shares_of_clips(data)
    if not ((shares > 0) & (shares < 1)).any():
        values["watch"] = "event_f1"
        notes.append("watch=event_f1: every recording holds every class, so only when they are heard can be scored")
    elif (mean := shares.mean()) > MOST_HOLD:
        values["watch"] = "frame_map"
        notes.append(
            f"watch=frame_map: a class is in {100 * mean:.0f} % of the recordings, so that scores of whole recordings "
            "are high whatever a network answers"
        )
    return notes


def _shares_of_clips(data: Data) -> np.ndarray:
    """(K,) the share of the clips that train that each class is in."""
    lists, silent = label_lists(data.clips), annotated_clips(data.clips, data.events)
    known = [set(names) for names, quiet in zip(lists, silent, strict=True) if names or quiet]
    return np.array([np.mean([name in names for names in known]) for name in sorted(set().union(*known))])


def fit_batch(values: dict, n_classes: int, n_training: int) -> tuple[dict, list[str]]:
    """Values with a batch size that fits the memory at hand and gives an epoch enough steps, and what was measured."""
    config = from_dict(copy.deepcopy(values))
    wanted = config.optim.batch_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip_bytes, free = clip_memory(config, n_classes, device), free_memory(device)
    most = int(MEMORY_SHARE * free / clip_bytes)
    if most < 2:
        raise ValueError(
            f"one clip takes {clip_bytes / 1e9:.1f} GB in training and {free / 1e9:.1f} GB are free: a smaller "
            "network, or a shorter data.crop_seconds"
        )
    fits = 2 ** int(np.log2(most))
    batch = min(wanted, fits, max(2, 2 ** int(np.log2(max(n_training // STEPS, 2)))))
    values = copy.deepcopy(values)
    values.setdefault("optim", {})["batch_size"] = batch
    if "batch_size" in values.get("predict", {}):
        values["predict"]["batch_size"] = min(values["predict"]["batch_size"], batch)
    measured = f"a clip takes {clip_bytes / 1e6:.0f} MB in training, {free / 1e9:.1f} GB are free"
    if batch == wanted:
        notes = [f"optim.batch_size={batch} stays: {measured}"]
    elif batch < min(wanted, fits):
        notes = [f"optim.batch_size={batch}, not {wanted}: {plural(n_training, 'clips train')} a fold ({measured})"]
    else:
        notes = [f"optim.batch_size={batch}, not {wanted}: {measured}"]
    steps = max(1, n_training // (batch * config.optim.accumulate))
    epochs = min(-(-FEWEST_STEPS // steps), MOST_EPOCHS)
    if 0 < config.optim.epochs < epochs:
        notes.append(
            f"optim.epochs={epochs}: {plural(n_training, 'clips are')} {steps} steps an epoch, too few for a network "
            f"to learn in {config.optim.epochs}"
        )
        notes += _lengthened(values, config, epochs)
    return values, notes


def _lengthened(values: dict, config: Config, epochs: int) -> list[str]:
    """Train for so many epochs, and for the same share of them as before in whatever else counts epochs."""
    times, notes = epochs / config.optim.epochs, []
    values["optim"]["epochs"] = epochs
    for section, key in COUNT_EPOCHS:
        if before := getattr(getattr(config, section), key):
            now = values[section][key] = type(before)(round(before * times))
            notes.append(f"{section}.{key}={now:g}: {before:g} of {config.optim.epochs} epochs")
    return notes


def step_note(values: dict, n_classes: int, events: pd.DataFrame | None) -> list[str]:
    """What is to be said where the network's outputs come too seldom for the events."""
    config = from_dict(copy.deepcopy(values))
    if events is None or not config.data.frame_targets:
        return []
    network = runs.make_model(config, n_classes, weights_follow=True)
    return [note] if (note := coarse_step(network, config, events)) else []


def clip_memory(config: Config, n_classes: int, device: str) -> float:
    """Bytes that one more clip of a batch takes in a training step, measured with random sound."""
    torch.manual_seed(0)
    model = runs.make_model(config, n_classes, weights_follow=True).to(device).train()
    if config.predict.keep_frames:
        probe_frames(config, model)
    front_ends, loss = FrontEnds(config.inputs(model.inputs)).to(device), losses.build_loss("bce")
    noise = np.random.default_rng(0).normal(scale=0.1, size=round(config.data.crop_seconds * config.data.sample_rate))
    if config.data.channels != "mono":
        noise = np.stack([noise, noise])
    inputs, used = front_ends.inputs, []
    sounds = inputs.training_sounds(noise.astype(np.float32))
    silence = inputs.silence(noise.shape[-1])
    sounds |= {name: silence[name] for name in inputs if not inputs[name].sounds or inputs[name].of_clip}
    for n in (2, 6):
        batch = {key: torch.from_numpy(np.stack([sound] * n)).to(device) for key, sound in sounds.items()}
        batch["target"] = (torch.rand(n, n_classes, device=device) > 0.5).float()
        gc.collect()
        start = _peak(device)
        loss(model(**front_ends(batch)), batch).backward()
        used.append(max(_peak(device) - start, 0.0))
    return max((used[1] - used[0]) / 4, used[1] / 6, 4.0 * noise.size)


def probe_frames(config: Config, model: torch.nn.Module):
    """Raise where events are to train the frames of a network that answers for whole clips alone."""
    if "segmentwise_output" not in probe(
        model, config.inputs(model.inputs), min(PROBE_SECONDS, config.data.crop_seconds)
    ):
        raise ValueError(
            f"{config.model.name} answers for whole clips alone, and events.csv asks when: take a config of a network "
            "with framewise output for --like, such as sed/synth_cnn"
        )


def _peak(device: str) -> float:
    """Bytes at most so far."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def free_memory(device: str) -> float:
    """Bytes that a training may take."""
    return float(torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available)

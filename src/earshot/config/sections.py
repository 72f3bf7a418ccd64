"""The sections of a config: frozen dataclasses that say every knob, its type, default and unit.

Each record checks its own values; what several of them must agree on is checked by `config.Config`.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earshot.augment.background import BackgroundMixing
from earshot.augment.batch import BatchAugment
from earshot.augment.pseudo import PseudoMixing
from earshot.inputs.given import Metadata
from earshot.inputs.record import CHANNELS
from earshot.messages import check_choice, suggest
from earshot.sound.windows import LEVELS

MOST_WEIGHT = 1e6  # of a class in a loss
MOST_PROCESSES = 1024  # or threads, that a machine could have cores for


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from and how one training example is cut from them."""

    competition: str = "synth"  # key of competitions.COMPETITIONS
    root: str = "data/synth"  # what prepare.py wrote: clips.csv, classes.csv, optionally events.csv, test_clips.csv
    folds: str = "folds/synth.csv"  # clip_id, group, fold
    classes: str = ""  # class list CSV; default <root>/classes.csv
    sample_rate: int = 32000  # Hz; an input may have a lower one of its own
    channels: str = "mono"  # mono | stereo | mid_side: what is heard of a recording; an input may have its own
    level: str = "recorded"  # recorded | normalised: every recording is heard equally loud (sound/loudness.py)
    crop_seconds: float = 5.0  # length of a training example
    crop: str = "random"  # random: anywhere; box: around an annotated event; full: from the start of the clip
    loudest_of: int = 1  # crop=random: of so many crops the loudest, as a recording's calls are louder than its pauses
    targets: str = "labels"  # labels: those of the clip; events: those heard in the crop (always so with crop=box)
    box_place: str = "around"  # crop=box: around: by box_jitter; first_half: the centre in the crop's first half
    box_jitter: float = 1.0  # crop=box: 1 = anywhere that holds the box's centre, 0 = box centred
    secondary_weight: float = 1.0  # target of a secondary label; -1 masks it instead
    false_positives: bool = False  # is_negative events become targets of 0, every class without any box is masked
    frame_targets: bool = False  # add frame_target (B, T, K) from events.csv
    event_shares: bool = True  # train on the column `share` of events.csv, 0 to 1, where it is there; else on 0 and 1
    frame_margin_seconds: float = 0.0  # both ends of an event that frame_target leaves out: touching events stay two
    min_overlap_seconds: float = 0.0  # an event counts for a crop when they share more than this
    # none | waveform (resampled once) | packed (that, in one file) | logmel | embedding (of a frozen base)
    cache: str = "none"
    cache_folder: str = ""  # caches go there, each data set's in a folder of its own; default <root>/cache
    pack_seconds: float = 10.0  # cache=packed: what is kept of every clip, from its start
    sampler: str = "uniform"  # uniform: every clip once an epoch; balanced: classes take turns, a clip of each
    sample_weight: str = ""  # numeric column of clips.csv by which a clip counts in the loss, such as rating
    train_share: float = 1.0  # so much of each fold's training clips, the same ones for a seed
    workers: int = 0  # loader processes for training
    levels: tuple[str, ...] = ()  # only classes of these levels (column `level` of the class list), such as coarse
    voice: str = "keep"  # speech (voice.csv): keep | avoid: crops from elsewhere | silence: that, zeros in what is left
    voice_share: float = 0.0  # so much of a crop may be speech before it is drawn elsewhere
    # a specialist's classes, by columns of the list: {taxon: Insecta}
    part: dict[str, str] = field(default_factory=dict)
    part_others: float = 1.0  # of the training clips without a class of the part, this share trains, as holding none
    mask_unknown: bool = True  # classes in a clip's `unknown_labels` are masked; else they count as absent
    soft_targets: str = "auto"  # what trains in place of labels: auto (<root>/targets.npz where it is) | none | a file
    pseudo: str = ""  # folder of pseudo-labelled windows that train too (src/pseudo_label.py); augment.pseudo says how
    clips_per_class: int = 0  # training clips of each class, chosen by the seed, more adding to fewer; 0: all
    metadata: tuple[str, ...] = ()  # numeric columns of clips.csv given to the model
    metadata_missing: dict[str, str] = field(default_factory=dict)  # column: number of an empty cell; nan: left a gap
    where: dict[str, str] = field(default_factory=dict)  # only clips with these values of columns: {machine: fan}
    keep_unlabelled: bool = False  # a clip without labels holds none of the classes; else it says nothing, left out
    shuffle_labels: bool = False  # the control: labels permuted among the training clips

    def __post_init__(self):
        check_choice("channels", self.channels, tuple(CHANNELS))
        check_choice("level", self.level, LEVELS)
        check_choice("crop", self.crop, ("random", "box", "full"))
        check_choice("box_place", self.box_place, ("around", "first_half"))
        check_choice("targets", self.targets, ("labels", "events"))
        check_choice("cache", self.cache, ("none", "waveform", "packed", "logmel", "embedding"))
        check_choice("voice", self.voice, ("keep", "avoid", "silence"))
        check_choice("sampler", self.sampler, ("uniform", "balanced"))
        check_positive(self, "sample_rate", "crop_seconds", "pack_seconds", "train_share", "loudest_of")
        check_not_negative(self, "frame_margin_seconds", "min_overlap_seconds", "clips_per_class")
        check_between(self, 0, MOST_PROCESSES, "workers")
        if not self.root:
            raise ValueError("root is empty: name the folder that prepare.py wrote, such as data/synth")
        check_between(self, 0, 1, "box_jitter", "part_others", "voice_share")
        if self.secondary_weight != -1:
            check_between(self, 0, 1, "secondary_weight")
        if self.train_share > 1:
            raise ValueError(f"train_share is {self.train_share}: a share lies above 0 and is at most 1")
        if self.loudest_of > 1 and (self.crop != "random" or self.cache in ("logmel", "embedding")):
            raise ValueError(
                f"loudest_of={self.loudest_of} compares waveforms of crops drawn anywhere: set crop=random, and "
                f"cache to none, waveform or packed (crop is {self.crop}, cache {self.cache})"
            )
        if self.voice == "avoid" and self.crop != "random":
            cached = " and cache=waveform" * (self.cache == "logmel")
            raise ValueError(
                f"voice=avoid draws crops elsewhere, which crop={self.crop} does not leave open: set crop=random, or "
                f"voice=silence{cached}"
            )
        if self.voice != "keep" and self.cache == "embedding":
            raise ValueError(
                "voice: cache=embedding hears whole clips once, speech included: set cache=none or voice=keep"
            )
        if self.voice == "silence" and self.cache == "logmel":
            drawn = " and crop=random" * (self.crop != "random")
            raise ValueError(
                "voice=silence needs the waveform, which cache=logmel leaves out: set cache=waveform, or "
                f"voice=avoid{drawn}"
            )
        for column, value in self.metadata_missing.items():
            if column not in self.metadata:
                raise ValueError(
                    f"metadata_missing names '{column}', which metadata does not{suggest(column, self.metadata)}"
                )
            if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan", value.lower()):
                raise ValueError(f"metadata_missing: '{value}' of {column} is neither a number nor nan")

    @property
    def caches(self) -> Path:
        """The folder of the data set's caches; in `cache_folder` one that is named by the root and by where that is."""
        if not self.cache_folder:
            return Path(self.root) / "cache"
        root = os.path.realpath(self.root)
        own = f"{os.path.basename(root)}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
        return Path(os.path.expanduser(self.cache_folder)) / own

    @property
    def metadata_record(self) -> Metadata:
        """The columns that a network with the input `metadata` takes, and what stands for their empty cells."""
        missing = tuple(self.metadata_missing.get(c, "") for c in self.metadata) if self.metadata_missing else ()
        return Metadata(columns=self.metadata, missing=missing)


@dataclass(frozen=True)
class ModelConfig:
    """Which network; `params` go to its function and are checked against its signature."""

    name: str = "cnn_small"  # key of models.MODELS
    # checkpoint to start from: a path, a file of a /kaggle/input folder, a cached name, hf:, https:; {fold} in it
    # becomes the fold's number
    weights: str = ""
    download: bool = False  # fetch weights that are nowhere (hf: or https: names only)
    drop: tuple[str, ...] = ()  # prefixes of the checkpoint left out on purpose (a replaced head)
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentConfig:
    """Training-time augmentation; each entry of a list is {name, p, ...parameters}."""

    waveform: tuple[dict[str, Any], ...] = ()  # audiomentations transforms, in order
    batch: BatchAugment = field(default_factory=BatchAugment)  # all that is done to a batch
    background: BackgroundMixing = field(default_factory=BackgroundMixing)  # recordings laid under clips
    pseudo: PseudoMixing = field(default_factory=PseudoMixing)  # with data.pseudo: how often, and how
    spec_augment: dict[str, Any] = field(default_factory=dict)  # after bn0: time_width, time_stripes, freq_width, ...
    spec_augment_pp: dict[str, Any] = field(default_factory=dict)  # scheme, time_share, ..., layers (input, block1)

    def __post_init__(self):
        layers = self.spec_augment_pp.get("layers", ["input"])
        if not isinstance(layers, list | tuple):
            raise ValueError(f"spec_augment_pp.layers must be a list of the network's parts, got {layers!r}")
        plus_acts_on_input = self.spec_augment_pp and "input" in layers
        if self.spec_augment and plus_acts_on_input:
            raise ValueError(
                "spec_augment and augment.spec_augment_pp both act on the input: empty one of them, or leave 'input' "
                "out of spec_augment_pp.layers"
            )

    @property
    def acting(self) -> dict[str, bool]:
        """Whether each setting, by its key, changes what the network hears."""
        own = {name: bool(getattr(self, name)) for name in ("waveform", "spec_augment", "spec_augment_pp")}
        own["background"] = bool(self.background.source)
        return own | {f"batch.{name}": acts for name, acts in self.batch.acting.items()}


@dataclass(frozen=True)
class LossConfig:
    """What is minimised; see losses.LOSSES."""

    # bce | bce_clip_frame | coarse_fine | focal | asymmetric_focal | soft_auc | cross_entropy | cross_entropy_sigmoid
    name: str = "bce"
    params: dict[str, Any] = field(default_factory=dict)  # what the loss's function takes: label_smoothing, gamma, ...
    class_weights: dict[str, float] = field(default_factory=dict)  # class: how often its entries count; the others: 1

    def __post_init__(self):
        for label, weight in self.class_weights.items():
            if not 0 <= weight <= MOST_WEIGHT:
                raise ValueError(f"class_weights of '{label}' must be from 0 to {MOST_WEIGHT:g}, got {weight:g}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, schedule and length of training."""

    name: str = "adamw"  # adamw | adam | sgd | radam | ralamb
    lookahead: int = 0  # slow weights follow every so many steps (Lookahead, alpha 0.5); 0: none
    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"  # cosine | linear | constant
    schedule_every: str = "step"  # step | epoch: when the schedule moves on, but for the warm-up, which always steps
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    layer_decay: float = 1.0  # lr of each block of the network: the next one's towards the head times this
    lr_scale: dict[str, float] = field(default_factory=dict)  # lr of parts of the network, times this: {extractor: 0.1}
    unfreeze_epochs: int = 0  # the head learns first, then one block more, downwards, every so many epochs; 0: all do
    epochs: int = 10  # 0: nothing is trained, model.weights themselves are validated, kept and predict
    batch_size: int = 32  # clips a process and step
    accumulate: int = 1  # batches a step
    clip_norm: float = 0.0  # 0: no gradient clipping
    drop_last: bool = True
    ema_decay: float = 0.0  # 0: no exponential moving average of the weights
    swa_epochs: int = 0  # the weights of so many last epochs are averaged, batch norms measured anew; 0: they are not
    norm_batch: int = 0  # batch norms are measured before validation over clean training clips, so many a batch; 0: no
    precision: str = "no"  # no | fp16 | bf16
    channels_last: bool = False
    select: str = "best"  # weights that predict: best (by task.watch on the fold) | last
    early_stop_epochs: int = 0  # 0: never
    validate_every: int = 1  # epochs; the last epoch is always validated
    score_training: int = 0  # so many training clips are scored at every validation too: train_<watch> in log.csv
    score_crops: bool = False  # the task's scores on one random crop a held-out clip too: crop_<score> in log.csv
    validate_steps: int = 0  # validate every so many steps of the run too (0: at epoch ends)
    checkpoint_steps: int = 0  # write last.ckpt every so many steps of the run too (0: at epoch ends)

    def __post_init__(self):
        check_choice("schedule", self.schedule, ("cosine", "linear", "constant"))
        check_choice("schedule_every", self.schedule_every, ("step", "epoch"))
        check_choice("precision", self.precision, ("no", "fp16", "bf16"))
        check_choice("select", self.select, ("best", "last"))
        check_positive(self, "lr", "batch_size", "accumulate", "validate_every")
        check_not_negative(self, "epochs", "unfreeze_epochs", "lookahead", "warmup_epochs", "checkpoint_steps")
        check_not_negative(self, "weight_decay", "min_lr", "clip_norm", "early_stop_epochs", "score_training")
        check_not_negative(self, "validate_steps")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be from 0 to below 1, got {self.ema_decay}")
        check_not_negative(self, "swa_epochs", "norm_batch")
        if self.swa_epochs > self.epochs > 0:
            raise ValueError(f"swa_epochs ({self.swa_epochs}) are more than there are (epochs {self.epochs})")
        if self.swa_epochs and self.ema_decay:
            raise ValueError("ema_decay and swa_epochs are two averages of the weights: set one of them to 0")
        if self.warmup_epochs > self.epochs > 0:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) is longer than training (epochs {self.epochs}): "
                             f"set optim.warmup_epochs={self.epochs / 10:g}")  # fmt: skip
        if 0 < self.early_stop_epochs < self.validate_every:
            raise ValueError(
                f"early_stop_epochs ({self.early_stop_epochs}) is shorter than validate_every "
                f"({self.validate_every}): training would stop before a score could be better"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        for part, scale in self.lr_scale.items():
            if scale <= 0:
                raise ValueError(f"lr_scale of '{part}' must be above 0, got {scale}; to keep it as it is, freeze it")


@dataclass(frozen=True)
class BudgetConfig:
    """What a network may cost; training refuses one that costs more. 0: no limit."""

    parameters_kb: float = 0.0  # parameters at one byte each (int8), in 1,000 bytes
    mmacs: float = 0.0  # million true multiply-accumulates for one window, front ends left out

    def __post_init__(self):
        check_not_negative(self, "parameters_kb", "mmacs")


def check_positive(record, *names: str):
    for name in names:
        if not 0 < getattr(record, name) < math.inf:
            raise ValueError(f"{name} must be positive, got {getattr(record, name)}")


def check_not_negative(record, *names: str):
    for name in names:
        if not 0 <= getattr(record, name) < math.inf:
            raise ValueError(f"{name} must be 0 or more, got {getattr(record, name)}")


def check_between(record, low: float, high: float, *names: str):
    for name in names:
        if not low <= getattr(record, name) <= high:
            raise ValueError(f"{name} must be from {low} to {high}, got {getattr(record, name)}")

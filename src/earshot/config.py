"""One run = one YAML file. Frozen dataclasses say every knob, its type, default and unit; `load_config` reads them.

A file may name one `base:` (itself without a base). `a.b=value` overrides come last. Every key is checked: an unknown
one is an error with a suggestion, a value of the wrong type is an error that names the key. PyYAML reads `1e-3` as
text and `on` as a boolean, so values are converted by the declared type and class lists live in CSV files.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from earshot.inputs.given import Metadata
from earshot.inputs.kinds import make_input
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.record import CHANNELS, Input
from earshot.messages import suggest


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from and how one training example is cut from them."""

    competition: str = "synth"  # key of competitions.COMPETITIONS
    root: str = "data/synth"  # what prepare.py wrote: clips.csv, classes.csv, optionally events.csv, test_clips.csv
    folds: str = "folds/synth.csv"  # clip_id, group, fold
    classes: str = ""  # class list CSV; default <root>/classes.csv
    sample_rate: int = 32000  # Hz; an input may have a lower one of its own
    channels: str = "mono"  # mono | stereo | mid_side: what is heard of a recording; an input may have its own
    crop_seconds: float = 5.0  # length of a training example
    crop: str = "random"  # random: anywhere; box: around an annotated event; full: from the start of the clip
    targets: str = "labels"  # labels: those of the clip; events: those heard in the crop (always so with crop=box)
    box_jitter: float = 1.0  # crop=box: 1 = anywhere that holds the box's centre, 0 = box centred
    secondary_weight: float = 1.0  # target of a secondary label; -1 masks it instead
    false_positives: bool = False  # is_negative events become targets of 0, every class without any box is masked
    frame_targets: bool = False  # add frame_target (B, T, K) from events.csv
    frame_margin_seconds: float = 0.0  # both ends of an event that frame_target leaves out: touching events stay two
    min_overlap_seconds: float = 0.0  # an event counts for a crop when they share more than this
    cache: str = (
        "none"  # none | waveform (resampled once) | packed (that, in one file) | logmel | embedding (of a frozen base)
    )
    pack_seconds: float = 10.0  # cache=packed: what is kept of every clip, from its start
    sampler: str = "uniform"  # uniform: every clip once an epoch; balanced: classes take turns, a clip of each
    train_share: float = 1.0  # so much of each fold's training clips, the same ones for a seed
    workers: int = 0  # loader processes for training
    clips_per_class: int = 0  # training clips of each class, chosen by the seed, more adding to fewer; 0: all
    metadata: tuple[str, ...] = ()  # numeric columns of clips.csv given to the model
    metadata_missing: dict[str, str] = field(default_factory=dict)  # column: what an empty cell counts as (nan: a gap)
    where: dict[str, str] = field(default_factory=dict)  # only clips with these values of columns: {machine: fan}
    keep_unlabelled: bool = False  # a clip without labels holds none of the classes; else it says nothing, left out
    shuffle_labels: bool = False  # the control: labels permuted among the training clips

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
    image: tuple[dict[str, Any], ...] = ()  # albumentations transforms on the log-mel
    logmel: tuple[dict[str, Any], ...] = ()  # functions of augment.spectrogram, on the batch
    spec_augment: dict[str, Any] = field(default_factory=dict)  # after bn0: time_width, time_stripes, freq_width, ...
    spec_augment_pp: dict[str, Any] = field(default_factory=dict)  # scheme, time_share, ..., layers (input, block1)
    mixup_on: str = "none"  # none | waveform | logmel
    mixup_alpha: float = 0.4  # Beta(alpha, alpha)
    mixup_p: float = 1.0  # probability that a batch (with mixup_per_clip: a clip) is mixed
    mixup_per_clip: bool = False  # a share of its own for every clip
    fmix_p: float = 0.0  # probability that a batch of log-mels is mixed by FMix (after mixup, where there is both)
    fmix_alpha: float = 1.0  # Beta(alpha, alpha) of the share that a clip keeps
    fmix_decay: float = 3.0  # how fast the mask's high frequencies fall: larger is smoother
    mixup_domain: str = "input"  # input: as it is; power: log-mels mixed as energies; either: one of both a batch


@dataclass(frozen=True)
class LossConfig:
    """What is minimised; see losses.LOSSES."""

    name: str = "bce"  # bce | bce_clip_frame | focal | cross_entropy
    frame_weight: float = 0.5  # weight of the frame term where there is one
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.25  # cross_entropy: of each expert's own answer, where a model has several
    gamma: float = 2.0  # focal
    alpha: float = 0.25  # focal: weight of the positives


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, schedule and length of training."""

    name: str = "adamw"  # adamw | adam | sgd | radam | ralamb
    lookahead: int = 0  # slow weights follow every so many steps (Lookahead, alpha 0.5); 0: none
    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"  # cosine | linear | constant, per step
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    layer_decay: float = 1.0  # lr of each block of the network: the next one's towards the head times this
    unfreeze_epochs: int = 0  # the head learns first, then one block more, downwards, every so many epochs; 0: all do
    epochs: int = 10  # 0: nothing is trained, model.weights themselves are validated, kept and predict
    batch_size: int = 32  # clips a process and step
    accumulate: int = 1  # batches a step
    clip_norm: float = 0.0  # 0: no gradient clipping
    drop_last: bool = True
    ema_decay: float = 0.0  # 0: no exponential moving average of the weights
    precision: str = "no"  # no | fp16 | bf16
    channels_last: bool = False
    select: str = "best"  # weights that predict: best (by task.watch on the fold) | last
    early_stop_epochs: int = 0  # 0: never
    validate_every: int = 1  # epochs; the last epoch is always validated
    score_training: int = 0  # so many training clips are scored at every validation too: train_<watch> in log.csv
    checkpoint_steps: int = 0  # write last.ckpt every so many steps too (0: at epoch ends)


@dataclass(frozen=True)
class PredictConfig:
    """How a recording becomes one answer: windows, then the joining rule."""

    window_seconds: float = 0.0  # 0: the training crop
    stride_seconds: float = 0.0  # 0: the window
    # answer of a window: clipwise (the head's own) | frame_max (its best segment) | log_odds (of the logit's softmax)
    clip_from: str = "clipwise"
    aggregate: str = "mean"  # mean | max | sum | mean_logit, over the windows of a clip
    keep_frames: bool = False  # store framewise output in oof.npz and test.npz
    oof_frames: bool = True  # false: not in oof.npz, where hours of audio times hundreds of classes are gigabytes
    batch_size: int = 0  # windows; 0: optim.batch_size
    extra_window: bool = False  # the birdcall source's quirk: an exact multiple of the window gets one more, of padding
    one_pass: bool = False  # the network hears a minute at once and windows share its features: faster, not the same
    tta: tuple[str, ...] = ()  # names of inference.TTA
    workers: int = 1  # threads that decode and compute log-mels ahead


@dataclass(frozen=True)
class BudgetConfig:
    """What a network may cost; training refuses one that costs more. 0: no limit."""

    parameters_kb: float = 0.0  # parameters at one byte each (int8), in 1,000 bytes
    mmacs: float = 0.0  # million true multiply-accumulates for one window, front ends left out


@dataclass(frozen=True)
class Config:
    """One run."""

    task: str = "sed"  # key of tasks.TASKS
    watch: str = ""  # score that selects the checkpoint; default: the task's
    seed: int = 1213
    data: DataConfig = DataConfig()
    frontends: dict[str, Input] = field(default_factory=lambda: {"logmel": Logmel()})
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    predict: PredictConfig = PredictConfig()
    budget: BudgetConfig = BudgetConfig()
    wandb: str = ""  # project name; empty: off (WANDB_MODE=offline works without an account)

    def __post_init__(self):
        if self.data.channels not in CHANNELS:
            raise ValueError(f"data.channels is '{self.data.channels}'; choose one of {', '.join(CHANNELS)}")
        for column, value in self.data.metadata_missing.items():
            if column not in self.data.metadata:
                raise ValueError(f"data.metadata_missing names '{column}', which data.metadata does not"
                                 f"{suggest(column, self.data.metadata)}")  # fmt: skip
            _convert_scalar(float, value, f"data.metadata_missing.{column}")
        heard = (self.data.sample_rate, self.data.channels)
        resolved = {k: v.resolved(*heard, f"frontends.{k}") for k, v in self.frontends.items()}
        object.__setattr__(self, "frontends", resolved)
        self._check_sense()

    def _check_sense(self):
        """Values that parse but cannot work: each is an error that names the key."""
        one_of = {
            "data.crop": ("random", "box", "full"),
            "data.targets": ("labels", "events"),
            "data.cache": ("none", "waveform", "packed", "logmel", "embedding"),
            "data.sampler": ("uniform", "balanced"),
            "augment.mixup_on": ("none", "waveform", "logmel"),
            "augment.mixup_domain": ("input", "power", "either"),
            "optim.schedule": ("cosine", "linear", "constant"),
            "optim.precision": ("no", "fp16", "bf16"),
            "optim.select": ("best", "last"),
            "predict.clip_from": ("clipwise", "frame_max", "log_odds"),
            "predict.aggregate": ("mean", "max", "sum", "mean_logit"),
        }
        for key, allowed in one_of.items():
            value = _get(self, key)
            if value not in allowed:
                raise ValueError(f"{key} is '{value}'; choose one of {', '.join(allowed)}")
        if (
            self.augment.spec_augment
            and "input" in self.augment.spec_augment_pp.get("layers", ("input",))
            and (self.augment.spec_augment_pp)
        ):
            raise ValueError(
                "augment.spec_augment and augment.spec_augment_pp both act on the input: empty one of them, or leave "
                "'input' out of spec_augment_pp.layers"
            )
        for key in ("augment.mixup_p", "augment.fmix_p"):
            if not 0 <= _get(self, key) <= 1:
                raise ValueError(f"{key} is a probability, got {_get(self, key)}")
        positive = ("data.sample_rate", "data.crop_seconds", "data.pack_seconds", "data.train_share", "optim.lr",
                    "optim.batch_size", "optim.accumulate", "optim.validate_every",
                    "predict.workers")  # fmt: skip
        for key in positive:
            if _get(self, key) <= 0:
                raise ValueError(f"{key} must be positive, got {_get(self, key)}")
        if self.data.train_share > 1:
            raise ValueError(f"data.train_share is {self.data.train_share}: a share lies above 0 and is at most 1")
        if self.data.frame_margin_seconds < 0:
            raise ValueError(f"data.frame_margin_seconds must be 0 or more, got {self.data.frame_margin_seconds}")
        if not self.optim.epochs and not self.model.weights:
            raise ValueError(
                "optim.epochs=0 evaluates given weights without a training step, but model.weights names none: name a "
                "checkpoint there, or train for at least one epoch"
            )
        if self.optim.warmup_epochs > self.optim.epochs > 0:
            raise ValueError(
                f"optim.warmup_epochs ({self.optim.warmup_epochs}) is longer than training "
                f"(optim.epochs {self.optim.epochs})"
            )
        if 0 < self.optim.early_stop_epochs < self.optim.validate_every:
            raise ValueError(
                f"optim.early_stop_epochs ({self.optim.early_stop_epochs}) is shorter than optim.validate_every "
                f"({self.optim.validate_every}): training would stop before a score could be better"
            )
        if self.data.cache == "logmel" and (self.augment.waveform or self.augment.mixup_on == "waveform"):
            raise ValueError(
                "data.cache=logmel leaves no waveform to augment: empty augment.waveform and use "
                "augment.mixup_on=logmel, or set data.cache=waveform"
            )
        if self.data.cache == "embedding":
            self._check_cached_embeddings()
        for key in ("data.clips_per_class", "optim.epochs", "optim.unfreeze_epochs"):
            if _get(self, key) < 0:
                raise ValueError(f"{key} must be 0 or more, got {_get(self, key)}")
        if not 0 < self.optim.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay must be above 0 and at most 1, got {self.optim.layer_decay}")
        if self.predict.stride_seconds > (self.predict.window_seconds or self.data.crop_seconds):
            raise ValueError(
                f"predict.stride_seconds ({self.predict.stride_seconds}) is longer than the window "
                f"({self.predict.window_seconds or self.data.crop_seconds}): parts of the clip would never be heard"
            )

    def _check_cached_embeddings(self):
        """What a batch of embeddings cannot have: augmented inputs, and targets that follow the crop."""
        a = self.augment
        acts = {
            "augment.waveform": a.waveform, "augment.image": a.image, "augment.logmel": a.logmel,
            "augment.spec_augment": a.spec_augment, "augment.spec_augment_pp": a.spec_augment_pp,
            "augment.mixup_on": a.mixup_on != "none", "augment.fmix_p": a.fmix_p,
        }  # fmt: skip
        if acting := [key for key, value in acts.items() if value]:
            raise ValueError(
                f"data.cache=embedding leaves no input to augment, but {', '.join(acting)} would: empty it, or set "
                "data.cache=none"
            )
        if self.data.crop == "box" or self.data.targets == "events" or self.data.frame_targets:
            raise ValueError(
                "data.cache=embedding knows whole clips and their segments: data.crop must be full or random, "
                "data.targets labels, data.frame_targets false"
            )

    def inputs(self, names: tuple[str, ...] | None = None) -> Inputs:
        """What a network that declares these inputs hears (None: all front ends)."""
        metadata = self.data.metadata_record
        return Inputs.made(self.frontends, names, self.data.sample_rate, self.data.channels, metadata)

    @property
    def window_seconds(self) -> float:
        return self.predict.window_seconds or self.data.crop_seconds

    @property
    def stride_seconds(self) -> float:
        return self.predict.stride_seconds or self.window_seconds


def load_config(path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """YAML file (None: the defaults) + `a.b=value` overrides -> checked Config."""
    values = _read_yaml(Path(path)) if path is not None else {}
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"override '{text}' is not of the form key=value, such as optim.lr=3e-4")
        _set(values, key.split("."), yaml.safe_load(value) if value else "")
    return _build(Config, values, "")


def to_dict(config) -> dict:
    """Config -> plain nested dict of what YAML can hold (tuples become lists)."""
    if isinstance(config, Input):
        return to_dict(config.to_json())
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {k: to_dict(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(v) for v in config]
    return config


def from_dict(values: dict) -> Config:
    """What `to_dict` gave -> Config, checked like a file."""
    return _build(Config, values, "")


def _read_yaml(path: Path, is_base: bool = False) -> dict:
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.yaml")]
        raise ValueError(f"config {path} does not exist{suggest(path.name, near)}")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"config {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"config {path} must hold 'key: value' lines, got a {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if is_base:
        raise ValueError(f"{path} is a base and names a base itself ({base}): one level only")
    return _merge(_read_yaml(path.parent / base, is_base=True), values)


def _merge(base: dict, over: dict) -> dict:
    """Nested dicts joined, `over` winning; `model.params` and front ends are joined key by key as well."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _set(values: dict, keys: list[str], value):
    for key in keys[:-1]:
        if not isinstance(values.setdefault(key, {}), dict):
            raise ValueError(f"override {'.'.join(keys)}: '{key}' is a value, not a section")
        values = values[key]
    values[keys[-1]] = value


def _get(config, dotted: str):
    for key in dotted.split("."):
        config = getattr(config, key)
    return config


def _build(kind, values: dict, where: str):
    """Dict -> dataclass `kind`, every key known and every value of its declared type."""
    if not isinstance(values, dict):
        raise ValueError(f"config section '{where}' must be a mapping, got {values!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            place = f" in '{where}'" if where else ""
            raise ValueError(f"unknown config key '{key}'{place}{suggest(key, known)}")
    built = {k: _convert(hints[k], v, f"{where}.{k}" if where else k) for k, v in values.items()}
    return kind(**built)


def _convert(hint, value, where: str):
    """One YAML value -> its declared type, or an error that names the key."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if hint is Input:
        return make_input(value or {}, where, _build)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value or {}, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, got {value!r}")
        return {k: _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is Any:
        return value
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint, value, where: str):
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{where} must be true or false, got {value!r}")
        return value
    if hint is str:
        return "" if value is None else str(value)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if hint is int and number != int(number):
            raise ValueError
        return hint(number)
    except (TypeError, ValueError):
        raise ValueError(f"{where} must be {'a whole number' if hint is int else 'a number'}, got {value!r}") from None

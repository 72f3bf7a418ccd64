"""One run = one YAML file. Frozen dataclasses (sections.py) say every knob; `load_config` reads them.

A file may name one `base:` (itself without a base). `a.b=value` overrides come last. records.py checks every key and
type; each record checks its own values, `Config` what several of them must agree on. A record that belongs to a room
(`predict`: sound.windows.Windowing, `augment.batch`: augment.batch.BatchAugment) is defined there and used as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from earshot.augment.batch import BatchAugment
from earshot.config.sections import (
    MOST_PROCESSES,
    AugmentConfig,
    BudgetConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    check_between,
    check_not_negative,
)
from earshot.config.usual_names import usual_key
from earshot.inputs.kinds import AnyInput
from earshot.inputs.logmel import Logmel
from earshot.inputs.network import Inputs
from earshot.inputs.record import CHANNELS
from earshot.inputs.teacher import LEFT_OUT, Distill
from earshot.messages import from_here
from earshot.records import build, dotted_keys, parse_override
from earshot.sound.windows import Windowing
from earshot.stored import read_yaml

# keys of earlier versions: an error in a config, translated where a run folder has them
MOVED = {f"augment.{key}": f"augment.batch.{key}" for key in (f.name for f in dataclasses.fields(BatchAugment))} | {
    f"loss.{key}": f"loss.params.{key}"
    for key in ("frame_weight", "label_smoothing", "auxiliary_weight", "gamma", "alpha")
}
MOVED["wandb"] = "track"
LARGEST_SEED = 2**32 - 1  # that NumPy, scikit-learn and PyTorch all take
# which of them a loss took: earlier versions wrote all of them, whatever the loss
OLD_LOSSES = {
    "bce": ("label_smoothing",),
    "bce_clip_frame": ("frame_weight", "label_smoothing"),
    "focal": ("gamma", "alpha", "label_smoothing"),
    "cross_entropy": ("label_smoothing", "auxiliary_weight"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run."""

    task: str = "sed"  # key of tasks.TASKS
    watch: str = ""  # score that selects the checkpoint; default: that of the competition, else of the task
    seed: int = 1213
    threads: int = 0  # that compute on the CPU; 0: OMP_NUM_THREADS, else the cores that are free at the start
    data: DataConfig = field(default_factory=DataConfig)
    frontends: dict[str, AnyInput] = field(default_factory=lambda: {"logmel": Logmel()})
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: Distill = field(default_factory=Distill)
    optim: OptimConfig = field(default_factory=OptimConfig)
    predict: Windowing = field(default_factory=Windowing)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    track: str = ""  # figures beside log.csv: csv:FILE | trackio:PROJECT | wandb:PROJECT; empty: none

    def __post_init__(self):
        check_not_negative(self, "seed")
        check_between(self, 0, MOST_PROCESSES, "threads")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed must be at most {LARGEST_SEED}, got {self.seed}")
        rate, channels = self.data.sample_rate, self.data.channels
        if self.predict.sample_rate not in (0, rate):
            raise ValueError(
                f"predict.sample_rate is {self.predict.sample_rate} Hz but data.sample_rate is {rate} Hz; leave the "
                "former out to follow the latter"
            )
        object.__setattr__(self, "frontends", {k: self._resolved(k, v) for k, v in self.frontends.items()})
        try:
            predict = self.predict.followed(
                rate, self.data.crop_seconds, self.optim.batch_size, CHANNELS[channels], self.data.level
            )
        except ValueError as error:
            raise ValueError(f"predict.{error}") from error
        object.__setattr__(self, "predict", predict)
        self._check_sense()

    def _resolved(self, name: str, record: AnyInput) -> AnyInput:
        """A front end at its own or the data's rate; every error names it."""
        where = f"frontends.{name}"
        try:
            return record.resolved(self.data.sample_rate, self.data.channels, where)
        except ValueError as error:
            raise ValueError(f"{error}" if str(error).startswith(where) else f"{where}: {error}") from error

    def _check_sense(self):
        """Values of several records that cannot work together: each is an error that names the keys."""
        if not self.optim.epochs and not self.model.weights:
            raise ValueError(
                "optim.epochs=0 evaluates given weights without a training step, but model.weights names none: name a "
                "checkpoint there, or train for at least one epoch"
            )
        batch = self.augment.batch
        on_waveform = self.augment.waveform or self.augment.background.source
        if self.data.cache == "logmel" and (on_waveform or "waveform" in (batch.mixup_on, batch.summix_on)):
            raise ValueError(
                "data.cache=logmel leaves no waveform to augment: empty augment.waveform and augment.background.source "
                "and use augment.batch.mixup_on=logmel (summix_on=logmel), or set data.cache=waveform"
            )
        self._check_one_for_all_folds()
        of_clips = [name for name, record in self.frontends.items() if record.kind == "extractor"]
        if self.data.voice == "silence" and (self.distill.acts or of_clips):
            drawn = " and data.crop=random" * (self.data.crop != "random")
            raise ValueError(
                f"data.voice=silence changes what the network hears, but {', '.join(of_clips) or 'the teacher'} hears "
                f"whole recordings, speech included: set data.voice=avoid{drawn}"
            )
        if self.distill.acts and self.data.cache == "embedding":
            raise ValueError("distill needs a network that hears the sound: set data.cache to another than embedding")
        if self.distill.acts and self.data.pseudo:
            raise ValueError(
                "distill and data.pseudo both let others say what is in sound without labels: train with one of them, "
                "then with the other"
            )
        if self.distill.unlabelled == LEFT_OUT and not self.data.clips_per_class and self.data.train_share == 1:
            raise ValueError(
                f"distill.unlabelled={LEFT_OUT}: every clip trains with its labels; let data.clips_per_class or "
                "data.train_share leave some out, or name a folder or table of recordings"
            )
        if self.data.pseudo and self.augment.pseudo.off_epochs >= self.optim.epochs > 0:
            raise ValueError(
                f"augment.pseudo.off_epochs ({self.augment.pseudo.off_epochs}) leaves no epoch of optim.epochs "
                f"({self.optim.epochs}) to the pseudo-labels: set augment.pseudo.off_epochs=0, or train longer"
            )
        if self.distill.acts and self.distill.off_epochs >= self.optim.epochs > 0:
            raise ValueError(
                f"distill.off_epochs ({self.distill.off_epochs}) leaves no epoch of optim.epochs ({self.optim.epochs}) "
                "with a teacher"
            )
        of_clip = [name for name, record in self.frontends.items() if record.of_clip]
        if self.data.level != "recorded" and of_clip:
            raise ValueError(
                f"data.level=normalised changes what frontends.{of_clip[0]} computes of whole recordings, as loud as "
                "they are: leave data.level at recorded"
            )
        if self.data.level != "recorded" and self.data.cache == "packed":
            raise ValueError(
                "data.level=normalised is measured on whole recordings, of which data.cache=packed keeps the first "
                f"{self.data.pack_seconds:g} s: set data.cache=waveform, or leave data.level at recorded"
            )
        if self.data.cache == "embedding":
            self._check_cached_embeddings()

    def _check_one_for_all_folds(self):
        """Refuse an input that would be another one in each fold: model.weights and a teacher may be."""
        keys = ("run", "file", "config", "weights", "folder")
        for name, record in self.frontends.items():
            for key in (k for k in keys if "{fold}" in getattr(record, k, "")):
                raise ValueError(
                    f"frontends.{name}.{key} is {getattr(record, key)}, and {{fold}} is not filled in there: all folds "
                    "of a run hear one input, whose rows are kept for all of them and which a kernel computes once. "
                    "Name one network that heard no labels of these clips; or, of a run on the same folds, let it "
                    "teach (distill.teacher.run takes {fold}) or blend the two runs (src/ensemble.py)"
                )

    def _check_cached_embeddings(self):
        """What a batch of embeddings cannot have: augmented inputs, and targets that follow the crop."""
        if acting := [f"augment.{key}" for key, acts in self.augment.acting.items() if acts]:
            raise ValueError(
                f"data.cache=embedding leaves no input to augment, but {', '.join(acting)} would: empty it, or set "
                "data.cache=none"
            )
        if self.data.level != "recorded":
            raise ValueError(
                "data.cache=embedding holds recordings as loud as they are: data.level must be recorded, or data.cache "
                "none"
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


def load_config(path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """YAML file (None: the defaults) + `a.b=value` overrides -> checked Config."""
    values = read_values(Path(path)) if path is not None else {}
    alone = copy.deepcopy(values)
    seen: dict[str, str] = {}
    for text in overrides:
        key, value = parse_override(Config, text, MOVED, usual_key)
        if seen.setdefault(key, text) != text:
            raise ValueError(f"{key} is set twice, by '{seen[key]}' and by '{text}': keep one")
        if key == "loss.name":
            values = _merge(values, {"loss": {"name": value}})
        _set(values, key.split("."), value)
    try:
        return from_dict(values)
    except ValueError as error:
        if path is not None and _is_wrong(alone):
            raise ValueError(f"{path}: {error}") from error
        raise


def check_config(path: Path, overrides: list[str] | tuple[str, ...] = ()):
    """Raise as `load_config` would, before a script loads what takes seconds; a pipe is left to be read once, later."""
    if path.is_file() or not path.exists():
        load_config(path, overrides)


def _is_wrong(values: dict) -> bool:
    """Whether it is the file itself, and no override, that cannot be."""
    try:
        from_dict(values)
    except ValueError:
        return True
    return False


def from_dict(values: dict) -> Config:
    """Nested dict, as a file gives it -> checked Config; a key of an earlier version is an error with the new name."""
    for old, _, _ in _moved(values):
        raise ValueError(f"{old} is now {MOVED[old]}")
    _check_usual(values)
    config = build(Config, values)
    if (given := (values.get("predict") or {}).get("level", config.data.level)) != config.data.level:
        raise ValueError(
            f"predict.level is {given} but data.level is {config.data.level}: a network is heard as it was trained; "
            "leave the former out to follow the latter"
        )
    return config


def _check_usual(values: dict):
    """Raise, with the right key, where a file has a setting in the wrong place or by a name that others give it."""
    known = dotted_keys(Config)
    sections = [(f"{name}.", own) for name, own in values.items() if known.get(name) and isinstance(own, dict)]
    for section, own in [("", values), *sections]:
        for key in own:
            if f"{section}{key}" not in known and (meant := flag_meant(str(key))):
                raise ValueError(f"unknown key '{section}{key}'; did you mean {meant}?")


def flag_meant(name: str) -> str:
    """The key of a setting that was written as an option: the same key, or that of a usual name, else of a key's last
    part, the first of several, those of teachers and augmentations last; '' where nothing is so called."""
    known, last = dotted_keys(Config), name.replace("-", "_")
    if "." in name and (name in known or any(name.startswith(f"{key}.") for key in known if known[key] is None)):
        return name
    near = [key for key in known if "." in key and key.split(".")[-1] == last]
    return usual_key(name) or min(near, key=lambda key: key.startswith(("distill.", "augment.")), default="")


def from_run(values: dict) -> Config:
    """config.yaml of a run folder -> Config, also where an earlier version wrote it under other keys."""
    values = copy.deepcopy(values)
    loss = values.get("loss")
    takes = OLD_LOSSES.get(loss.get("name", "bce") if isinstance(loss, dict) else "bce")
    for old, section, key in list(_moved(values)):
        value = section.pop(key)
        value = f"wandb:{value}" if old == "wandb" and value else value
        if not old.startswith("loss.") or takes is None or key in takes:
            _set(values, MOVED[old].split("."), value)
    return from_dict(values)


def _moved(values: dict) -> Iterator[tuple[str, dict, str]]:
    """Keys of earlier versions that values hold: the dotted key, the section it stands in, its name there."""
    for old in MOVED:
        above, _, key = old.rpartition(".")
        section = values.get(above) if above else values
        if isinstance(section, dict) and key in section:
            yield old, section, key


def read_values(path: Path, is_base: bool = False) -> dict:
    """YAML file -> its values and those of its base, nested dicts as they were written."""
    own = Path(__file__).resolve().parents[3] / path
    if not path.exists() and own.is_file():
        raise ValueError(f"config {path} does not exist{from_here(path)}; the repository has {own}")
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"{path}: base must be the name of a file, got {base!r}")
    if is_base:
        raise ValueError(f"{path} is a base and names a base itself ({base}): one level only")
    return _merge(read_values(path.parent / base, is_base=True), values)


def _merge(base: dict, over: dict) -> dict:
    """Nested dicts joined, `over` winning; `model.params` and front ends are joined key by key as well.

    Another loss leaves the parameters and class weights of the base's loss behind: they might not fit it.
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if key == "loss" and both and value.get("name", merged[key].get("name")) != merged[key].get("name"):
            merged[key] = {k: v for k, v in merged[key].items() if k not in ("params", "class_weights")}
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _set(values: dict, keys: list[str], value):
    for key in keys[:-1]:
        if not isinstance(values.setdefault(key, {}), dict):
            raise ValueError(
                f"override {'.'.join(keys)}: '{key}' has the value {values[key]!r} already, and no keys: leave "
                f"that out, or say which key it is of: {key}.KEY={values[key]}"
            )
        values = values[key]
    values[keys[-1]] = value

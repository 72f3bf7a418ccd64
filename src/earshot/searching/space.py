"""What a search may change: the values of any config key, from YAML to distributions; wrong ones are errors at once.

optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}     a number; both ends may be drawn
optim.batch_size: {low: 16, high: 64, step: 16}      whole numbers where all of it is whole
model.params.embedding: [64, 128]                    one of a list; an entry may be a list or section itself
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from earshot.config import MOVED, Config
from earshot.config.usual_names import usual_key
from earshot.messages import suggest
from earshot.records import parse_override

# what a trial may not change: its score would be of another thing, or of the same thing by luck
FIXED = ("seed", "task", "watch", "threads", "track", "budget", "data.competition", "data.root", "data.folds",
         "data.classes", "data.levels", "data.where", "data.shuffle_labels", "data.keep_unlabelled", "data.workers",
         "data.cache_folder", "data.soft_targets", "optim.score_training", "optim.score_crops")  # fmt: skip
LARGEST_GRID = 10_000


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; log: evenly in their logarithm; step: only every so much, 0: any."""

    low: float
    high: float
    log: bool = False
    step: float = 0

    @property
    def whole(self) -> bool:
        return all(isinstance(value, int) for value in (self.low, self.high, self.step))

    def draw(self, rng: np.random.Generator) -> float:
        """A value by chance, for checks before the first trial."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return round(value) if self.whole else value
        if self.step or self.whole:
            step = self.step or 1
            return self.low + step * int(rng.integers(0, round((self.high - self.low) / step) + 1))
        return float(rng.uniform(self.low, self.high))

    def extremes(self) -> list[float]:
        return [self.low, self.high]

    def every(self) -> list[float]:
        """All values of a range with steps."""
        step = self.step or 1
        return [self.low + step * i for i in range(round((self.high - self.low) / step) + 1)]


@dataclass(frozen=True)
class Choice:
    """One of some values of any kind."""

    values: tuple

    def draw(self, rng: np.random.Generator) -> Any:
        """A value by chance, for checks before the first trial."""
        return self.values[int(rng.integers(len(self.values)))]

    def extremes(self) -> list:
        return list(self.values)

    def every(self) -> list:
        """All values."""
        return list(self.values)


Space = dict[str, Range | Choice]


def read_space(values: Mapping[str, Any]) -> Space:
    """A mapping of config keys to ranges and lists -> checked; every error names the key."""
    if not values:
        raise ValueError("space is empty: name the settings to search, such as optim.lr: {low: 1.0e-4, high: 1.0e-2}")
    space = {}
    for key, value in values.items():
        key = str(key)
        try:
            parse_override(Config, f"{key}=0", MOVED, usual_key)  # an unknown key is an error with a suggestion
        except ValueError as error:  # it was given no value
            text = str(error).replace(f" in override '{key}=0'", "")
            raise ValueError(f"space: {text}") from error
        for fixed in FIXED:
            if key == fixed or key.startswith(f"{fixed}."):
                raise ValueError(
                    f"space.{key} cannot be searched: it changes what the score is of; set it in overrides"
                )
        space[key] = _range(key, value) if isinstance(value, Mapping) else _choice(key, value)
    for a, b in itertools.permutations(space, 2):
        if b.startswith(f"{a}."):
            raise ValueError(f"space has {a} and {b}, a part of it: search one of them")
    return space


def _range(key: str, value: Mapping) -> Range:
    known = ("low", "high", "log", "step")
    for name in value:
        if name not in known:
            raise ValueError(f"space.{key} has '{name}'{suggest(str(name), known)}; a section to choose is in a list")
    if missing := [name for name in ("low", "high") if name not in value]:
        raise ValueError(f"space.{key} misses {' and '.join(missing)}: a range is {{low: ..., high: ...}}")
    low, high, step = (_number(key, name, value.get(name, 0)) for name in ("low", "high", "step"))
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"space.{key}.log must be true or false, got {log!r}")
    if not low < high:
        raise ValueError(f"space.{key} is empty: low {low:g} is not below high {high:g}")
    if log and (low <= 0 or step):
        raise ValueError(f"space.{key}: log needs low above 0 and no step, got low {low:g}, step {step:g}")
    if step < 0:
        raise ValueError(f"space.{key}.step must be above 0, got {step:g}")
    steps = (high - low) / step if step else 0
    if step and (steps < 1 or not math.isclose(steps, round(steps), rel_tol=1e-9)):
        raise ValueError(f"space.{key}: steps of {step:g} from {low:g} do not end at {high:g}")
    return Range(low, high, log, step)


def _number(key: str, name: str, value) -> float:
    """YAML takes 1e-3 for text: a number all the same."""
    try:
        number = value if isinstance(value, int) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"space.{key}.{name} must be a number, got {value!r}")
    return number


def _choice(key: str, value) -> Choice:
    if not isinstance(value, list):
        raise ValueError(f"space.{key} must be a range {{low, high}} or a list of values, got {value!r}")
    texts = [as_text(one) for one in value]
    if len(value) < 2 or len(set(texts)) < len(texts):
        raise ValueError(f"space.{key} needs two or more different values, got {value!r}")
    return Choice(tuple(value))


def as_text(value) -> str:
    """A value as an override writes it, which YAML reads as the same value again."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).strip().removesuffix("...").strip()


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as `key=value` texts."""
    return [f"{key}={as_text(value)}" for key, value in settings.items()]


def grid(space: Space) -> list[dict[str, Any]]:
    """Every combination of a space of lists and of ranges with steps."""
    for key, part in space.items():
        if isinstance(part, Range) and not part.step and not (part.whole and not part.log):
            raise ValueError(f"sampler: grid needs a step or a list for space.{key}, which is a range of any numbers")
    values = [part.every() for part in space.values()]
    if (size := math.prod(map(len, values))) > LARGEST_GRID:
        raise ValueError(f"sampler: grid would be {size:,} trials, at most {LARGEST_GRID:,}; take tpe or random")
    return [dict(zip(space, one, strict=True)) for one in itertools.product(*values)]

"""Waveform augmentation by audiomentations, with a random stream of its own.

audiomentations draws from the global `random` and `numpy.random`. Here both are seeded from the caller's generator
for the call and put back after it: the same generator gives the same samples whatever ran before, and nothing else
moves. So two threads must not augment at once (loader processes may).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence

import numpy as np

from earshot.messages import suggest

CONTAINERS = ("Compose", "OneOf", "SomeOf")  # hold `transforms`, a list of entries themselves
FILE_LISTS = ("sound_file_paths", "ir_files")  # in the order of the folder, which differs between machines


def build_waveform_augment(specs: Sequence[dict]):
    """List of {name, p, ...} -> callable for `apply`; None of an empty list.

    Names and parameters are audiomentations' own; Compose, OneOf and SomeOf take `transforms`, a list like this one.
    Errors: an unknown name or parameter, with the nearest known one.
    """
    if not specs:
        return None
    from audiomentations import Compose  # here: the import takes seconds

    return Compose([_build(spec) for spec in specs])


def apply(augment, waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(S,) or (C, S) float32 -> the same shape, augmented; the input is left as it is.

    Errors: a transform that changes the length (AdjustDuration, Trim, Padding), since a batch needs equal lengths.
    """
    states = random.getstate(), np.random.get_state()
    seed = int(rng.integers(2**32))
    try:
        random.seed(seed)
        np.random.seed(seed)
        out = augment(np.array(waveform, np.float32), sample_rate)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    if out.shape != waveform.shape:
        raise ValueError(f"waveform augmentation changed the shape from {waveform.shape} to {out.shape}: leave it out")
    return np.ascontiguousarray(out, np.float32)


def _build(spec: dict):
    """One {name, p, ...} -> transform, its files sorted."""
    import audiomentations

    spec = dict(spec)
    name = spec.pop("name", None)
    kinds = {n: k for n, k in vars(audiomentations).items() if inspect.isclass(k) and n != "Lambda"}
    if name not in kinds:
        raise ValueError(f"unknown waveform augmentation '{name}'{suggest(str(name), kinds)}")
    known = list(inspect.signature(kinds[name].__init__).parameters)[1:]
    for key in spec:
        if key not in known:
            raise ValueError(f"unknown parameter '{key}' of waveform augmentation {name}{suggest(key, known)}")
    if name in CONTAINERS:
        spec["transforms"] = [_build(inner) for inner in spec.get("transforms", ())]
    transform = kinds[name](**spec)
    for attribute in FILE_LISTS:
        if hasattr(transform, attribute):
            setattr(transform, attribute, sorted(getattr(transform, attribute)))
    return transform

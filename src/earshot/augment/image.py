"""Image-style augmentation of log-mels by albumentations: shifts, rotations, grid distortion, cutout, ...

Each clip becomes an image of T rows, F columns and C channels, its own minimum and maximum at 0 and 1 (what
albumentations expects of floats; `fill: 0` is the clip's quietest value), and is brought back after.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from earshot.messages import check_params, suggest

CONTAINERS = ("Compose", "OneOf", "SomeOf", "Sequential")  # hold `transforms`, a list of entries themselves


def apply_image(specs: Sequence[dict], logmel: Tensor, generator: Generator) -> Tensor:
    """Augment each log-mel of a batch as a picture, by albumentations.

    (B, C, T, F) -> the same shape, each clip augmented by itself with a seed drawn from the generator.

    specs: {name, p, ...} in order, names and parameters albumentations' own; Compose, OneOf, SomeOf and Sequential
    take `transforms`, a list of the same. Errors: an unknown name or parameter (albumentations only warns of those),
    with the nearest known one; a transform that changes the size (a plain crop or resize).
    """
    if not specs:
        return logmel
    augment = _compose(json.dumps(list(specs), sort_keys=True))
    images = logmel.detach().permute(0, 2, 3, 1).float().cpu().numpy()
    seeds = torch.randint(2**31, (len(images),), generator=generator).tolist()
    out = np.stack([_augment_image(augment, image, seed) for image, seed in zip(images, seeds)])
    return torch.from_numpy(out).permute(0, 3, 1, 2).to(logmel)


def check_image(specs: Sequence[dict]) -> None:
    """Error for a transform or parameter that albumentations does not have."""
    if specs:
        _compose(json.dumps(list(specs), sort_keys=True))


@lru_cache(maxsize=8)
def _compose(specs: str):
    """JSON of the list -> albumentations.Compose; seeded anew for each image, so that sharing it is safe."""
    return _library().Compose([_build(spec) for spec in json.loads(specs)])


def _augment_image(augment, image: np.ndarray, seed: int) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    span = high - low or 1.0
    augment.set_random_seed(seed)
    out = augment(image=np.ascontiguousarray((image - low) / span))["image"]
    if out.shape != image.shape:
        raise ValueError(f"image augmentation changed the log-mel from {image.shape} to {out.shape} (T, F, C)")
    return out * span + low


def _build(spec: dict):
    library = _library()
    spec = {k: tuple(v) if isinstance(v, list) and k != "transforms" else v for k, v in spec.items()}
    name = spec.pop("name", None)
    kinds = {n: k for n, k in vars(library).items() if _is_transform(k, library)}
    if name not in kinds:
        raise ValueError(f"unknown image augmentation '{name}'{suggest(str(name), kinds)}")
    known = list(inspect.signature(kinds[name].__init__).parameters)[1:]
    check_params(spec, known, f"image augmentation {name}")
    if name in CONTAINERS:
        spec["transforms"] = [_build(inner) for inner in spec.get("transforms", ())]
    return kinds[name](**spec)


def _is_transform(kind, library) -> bool:
    return inspect.isclass(kind) and (
        issubclass(kind, library.ImageOnlyTransform | library.DualTransform) or kind.__name__ in CONTAINERS
    )


def _library():
    # the import takes seconds; without this it also asks the internet for a newer version, and waits for it offline
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations

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

from earshot.augment.spectrogram import read_frames
from earshot.messages import check_params, check_transforms, suggest

CONTAINERS = ("Compose", "OneOf", "SomeOf", "Sequential")  # hold `transforms`, a list of entries themselves


def apply_image(
    specs: Sequence[dict], pictures: Sequence[Tensor], frame_target: Tensor | None, generator: Generator
) -> tuple[list[Tensor], Tensor | None]:
    """Augment each log-mel of a batch as a picture, by albumentations.

    (B, C, T, F) each -> the same shapes, each clip augmented by itself with a seed drawn from the generator, the same
    for all pictures of a clip. Frame targets (B, N, K) are moved with the sound of the first picture: a frame takes the
    target of the frame that its middle band was read from, 0 where nothing was; None stays None.

    specs: {name, p, ...} in order, names and parameters albumentations' own; Compose, OneOf, SomeOf and Sequential
    take `transforms`, a list of the same. Errors: an unknown name or parameter (albumentations only warns of those),
    with the nearest known one; a transform that changes the size (a plain crop or resize).
    """
    pictures = list(pictures)
    if not specs or not pictures:
        return pictures, frame_target
    augment = _compose(json.dumps(list(specs), sort_keys=True))
    seeds = torch.randint(2**31, (len(pictures[0]),), generator=generator).tolist()
    for i, logmel in enumerate(pictures):
        images = logmel.detach().permute(0, 2, 3, 1).float().cpu().numpy()
        followed = frame_target is not None and i == 0
        out, rows = zip(*(_augment_image(augment, *pair, followed) for pair in zip(images, seeds)), strict=True)
        pictures[i] = torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).to(logmel)
        if followed:
            frame_target = _moved(frame_target, torch.from_numpy(np.stack(rows)).to(frame_target.device))
    return pictures, frame_target


def _moved(frame_target: Tensor, rows: Tensor) -> Tensor:
    """(B, N, K) as the rows of a picture were moved: (B, T) where each was read from, -1 where nothing was."""
    n_rows, n_frames = rows.shape[1], frame_target.shape[1]
    if n_rows != n_frames:  # of another front end: the same times
        here = torch.linspace(0, n_rows - 1, n_frames, device=rows.device).round().long()
        rows = torch.where(rows < 0, rows, (rows * (n_frames - 1) / max(1, n_rows - 1)).round().long())[:, here]
    return torch.where(rows[:, :, None] >= 0, read_frames(frame_target, rows), 0.0)


def check_image(specs: Sequence[dict]) -> None:
    """Error for a transform or parameter that albumentations does not have."""
    if specs:
        _compose(json.dumps(list(specs), sort_keys=True))


@lru_cache(maxsize=8)
def _compose(specs: str):
    """JSON of the list -> albumentations.Compose; seeded anew for each image, so that sharing it is safe."""
    return _library().Compose([_build(spec) for spec in json.loads(specs)])


def _augment_image(augment, image: np.ndarray, seed: int, followed: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """(T, F, C) -> the same augmented, and where it is `followed` the row that each of its rows was read from."""
    low, high = float(image.min()), float(image.max())
    span = high - low or 1.0
    numbers = np.arange(1, 1 + len(image), dtype=np.float32)[:, None]  # 0: filled in
    mask = {"mask": np.repeat(numbers, image.shape[1], axis=1)} if followed else {}
    augment.set_random_seed(seed)
    out = augment(image=np.ascontiguousarray((image - low) / span), **mask)
    new = out["image"]
    if new.shape != image.shape:
        raise ValueError(f"image augmentation changed the log-mel from {image.shape} to {new.shape} (T, F, C)")
    return new * span + low, _middle_rows(out["mask"]) if followed else None


def _middle_rows(numbers: np.ndarray) -> np.ndarray:
    """(T, F) numbers of rows from 1 on, 0 where nothing is -> (T,) the middle one of each frame, from 0; -1: none."""
    ordered = np.sort(numbers, axis=1)
    empty = (ordered < 1).sum(axis=1)
    middle = np.minimum((empty + ordered.shape[1]) // 2, ordered.shape[1] - 1)
    return ordered[np.arange(len(ordered)), middle].round().astype(np.int64) - 1


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
        check_transforms(name, spec)
        spec["transforms"] = [_build(inner) for inner in spec.get("transforms", ())]
    try:
        return kinds[name](**spec)
    except (TypeError, ValueError) as error:
        told = [line.strip() for line in str(error).splitlines() if "For further information" not in line]
        said = " ".join(told[1:] or told)  # of pydantic's several lines the first only counts the errors
        raise ValueError(f"image augmentation {name} cannot be made of {spec}: {said}") from error


def _is_transform(kind, library) -> bool:
    return inspect.isclass(kind) and (
        issubclass(kind, library.ImageOnlyTransform | library.DualTransform) or kind.__name__ in CONTAINERS
    )


def _library():
    # the import takes seconds; without this it also asks the internet for a newer version, and waits for it offline
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations

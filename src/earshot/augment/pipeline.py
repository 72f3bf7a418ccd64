"""What happens to a training batch between the loader and the model; all its chance comes from one generator.

Order: mixup of waveforms, front ends, augmentation of log-mels, image-style augmentation, mixup of log-mels, FMix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from earshot.augment.batch import BatchAugment
from earshot.augment.image import apply_image
from earshot.augment.mixing import fmix_batch, mix, mix_batch, mix_power, sample_fmix_mask, sample_lam, sample_partners
from earshot.augment.spectrogram import apply_logmel_and_frames


def augment_batch(batch: dict, front_ends: Callable, augment: BatchAugment, generator: torch.Generator) -> dict:
    """Batch with a waveform or cached inputs -> the same with every model input computed and augmented."""
    if augment.mixup_on == "waveform" and "waveform" in batch:
        batch = _mixup(batch, ("waveform",), augment, generator)
    batch = batch | front_ends(batch)
    logmels = tuple(n for n, v in batch.items() if torch.is_tensor(v) and v.ndim == 4)
    for name in logmels:
        inputs, frames = apply_logmel_and_frames(augment.logmel, batch[name], batch.get("frame_target"), generator)
        batch = batch | {name: inputs} | ({} if frames is None else {"frame_target": frames})
        if augment.image:
            batch = batch | {name: apply_image(augment.image, batch[name], generator)}
    batch = _mixup(batch, logmels, augment, generator) if augment.mixup_on == "logmel" else batch
    return _fmix(batch, logmels, augment, generator) if augment.fmix_p and logmels else batch


def _fmix(batch: dict, names: tuple[str, ...], augment: BatchAugment, generator: torch.Generator) -> dict:
    """With probability `fmix_p`: one mask for the batch, as in the published code."""
    partners = sample_partners(len(batch["clip_id"]), generator)
    mixed = torch.rand((), generator=generator) < augment.fmix_p
    lam = float(sample_lam(augment.fmix_alpha, generator))
    mask = sample_fmix_mask(generator, tuple(batch[names[0]].shape[2:]), lam, augment.fmix_decay)
    return fmix_batch(batch, names, mask, partners) if mixed else batch


def _mixup(batch: dict, names: tuple[str, ...], augment: BatchAugment, generator: torch.Generator) -> dict:
    """With probability `mixup_p`: one lam for the batch, or for each clip one that leaves it the larger share."""
    size = len(batch["clip_id"])
    partners = sample_partners(size, generator)
    power = {"input": 0.0, "power": 1.0, "either": 0.5}[augment.mixup_domain] > torch.rand((), generator=generator)
    mixed = torch.rand(size if augment.mixup_per_clip else 1, generator=generator) < augment.mixup_p
    lam = sample_lam(augment.mixup_alpha, generator, len(mixed))
    lam = torch.maximum(lam, 1 - lam) if augment.mixup_per_clip else lam
    lam = torch.where(mixed, lam, 1.0).expand(size)
    return mix_batch(batch, names, lam, partners, mix_power if power else mix)

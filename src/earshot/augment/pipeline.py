"""What happens to a training batch between the loader and the model; all its chance comes from one generator.

Order: sums and mixup of waveforms, front ends, augmentation of log-mels, image-style augmentation, sums and mixup of
log-mels, CutMix, FMix.
With mixup of log-mels a network that hears waveforms mixes its own maps of them alike: `mixing` of the batch says how.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earshot.augment.batch import BatchAugment
from earshot.augment.image import apply_image
from earshot.augment.levels import amplitude_shares, logmel_levels, sound_levels
from earshot.augment.mixing import (
    KIND,
    Mixing,
    add_decibels,
    add_sounds,
    fmix_batch,
    mix,
    mix_batch,
    mix_power,
    mix_sounds,
    partners_apart,
    sample_cutmix_mask,
    sample_fmix_mask,
    sample_lam,
    sample_partners,
    sum_batch,
)
from earshot.augment.spectrogram import apply_logmel


def augment_batch(batch: dict, front_ends, augment: BatchAugment, generator: torch.Generator) -> dict:
    """Batch with waveforms or cached inputs -> the same with every model input computed and augmented.

    front_ends: torch_front_ends.FrontEnds, whose `inputs` say what each one is. What is no sound and no picture
    (metadata, embeddings) is mixed with the rest, by the same shares.
    """
    heard = front_ends.inputs
    sounds = tuple(dict.fromkeys(heard.sound_key(n) for n in heard.of(sounds=True) if heard.sound_key(n) in batch))
    if augment.summix_on == "waveform" and sounds:
        computed = heard.of(sounds=True, has_twin=True)
        batch = _sum(batch, sounds, tuple(n for n in heard if n in batch and n not in computed), add_sounds, augment,
                     generator)  # fmt: skip
    if augment.mixup_on == "waveform" and sounds:
        computed = heard.of(sounds=True, has_twin=True)
        others = tuple(n for n in heard if n in batch and n not in computed)
        rates = {heard.sound_key(n): heard[n].sample_rate or heard.sample_rate for n in computed}
        levels = {n: lambda x, n=n: sound_levels(x, rates[n]) for n in sounds}
        batch, _ = _mixup(batch, sounds, others, augment, generator, levels)
    batch = batch | front_ends(batch)
    logmels = heard.of(picture=True)
    others = tuple(n for n in heard if n not in logmels and heard[n].kind != "waveform")
    pictures, frames = [batch[name] for name in logmels], batch.get("frame_target")
    pictures, frames = apply_logmel(augment.logmel, pictures, frames, generator)
    pictures, frames = apply_image(augment.image, pictures, frames, generator)
    batch = batch | dict(zip(logmels, pictures, strict=True)) | ({} if frames is None else {"frame_target": frames})
    if augment.summix_on == "logmel":
        batch = _sum(batch, logmels, others, add_decibels, augment, generator)
    if augment.mixup_on == "logmel":
        decibels = heard.of(picture=True, decibels=True)
        others = others + tuple(n for n in logmels if n not in decibels) if augment.mixup_domain != "input" else others
        names = logmels if augment.mixup_domain == "input" else decibels
        waveforms = tuple(n for n in heard if heard[n].kind == "waveform")
        whole = {n: batch[n] for n in waveforms}  # the network mixes what it makes of them
        levels = {n: lambda x, n=n: logmel_levels(x, heard[n].hertz) for n in decibels}
        batch, mixing = _mixup(batch, names, others, augment, generator, levels)
        batch = batch | whole | ({"mixing": mixing} if waveforms else {})
    if augment.cutmix_p and logmels:
        batch = _cutmix(batch, logmels, tuple(n for n in others if n not in logmels), augment, generator)
    if augment.fmix_p and logmels:
        return _fmix(batch, logmels, tuple(n for n in others if n not in logmels), augment, generator)
    return batch


def _sum(batch: dict, names: tuple[str, ...], others: tuple[str, ...], add, augment: BatchAugment, generator) -> dict:
    """With probability `summix_p` a clip gets another one on top, at a level of `summix_db`."""
    size = len(batch["clip_id"])
    partners = partners_apart(sample_partners(size, generator), batch.get(KIND))
    summed = torch.rand(size, generator=generator) < augment.summix_p
    low, high = augment.summix_db
    decibels = low + (high - low) * torch.rand(size, generator=generator)
    gain = torch.where(summed & (partners != torch.arange(size)), 10 ** (decibels / 20), 0.0)
    return sum_batch(batch, names, gain, partners, add, others)


def _cutmix(batch: dict, names: tuple[str, ...], others: tuple[str, ...], augment: BatchAugment, generator) -> dict:
    """With probability `cutmix_p`: one span of time for the batch."""
    partners = partners_apart(sample_partners(len(batch["clip_id"]), generator), batch.get(KIND))
    mixed = torch.rand((), generator=generator) < augment.cutmix_p
    lam = float(sample_lam(augment.cutmix_alpha, generator))
    mask = sample_cutmix_mask(generator, tuple(batch[names[0]].shape[2:]), lam)
    return fmix_batch(batch, names, mask, partners, others) if mixed else batch


def _fmix(batch: dict, names: tuple[str, ...], others: tuple[str, ...], augment: BatchAugment, generator) -> dict:
    """With probability `fmix_p`: one mask for the batch, as in the published code."""
    partners = partners_apart(sample_partners(len(batch["clip_id"]), generator), batch.get(KIND))
    mixed = torch.rand((), generator=generator) < augment.fmix_p
    lam = float(sample_lam(augment.fmix_alpha, generator))
    mask = sample_fmix_mask(generator, tuple(batch[names[0]].shape[2:]), lam, augment.fmix_decay)
    return fmix_batch(batch, names, mask, partners, others) if mixed else batch


def _mixup(
    batch: dict, names: tuple[str, ...], others: tuple[str, ...], augment: BatchAugment, generator,
    levels: dict[str, Callable[[Tensor], Tensor]],
) -> tuple[dict, Mixing]:  # fmt: skip
    """With probability `mixup_p`: one lam for the batch, or for each clip one that leaves it the larger share.

    `mixup_pairs`: a lam a pair of neighbours, which become one clip. levels: how loud the clips of an input are,
    asked with `mixup_domain=level` alone.
    """
    size = len(batch["clip_id"])
    partners = sample_partners(size, generator)
    powers = {"input": 0.0, "power": 1.0, "either": 0.5, "level": 1.0}
    power = powers[augment.mixup_domain] > torch.rand((), generator=generator)
    each = augment.mixup_per_clip or augment.mixup_pairs
    mixed = torch.rand(size if each else 1, generator=generator) < augment.mixup_p
    lam = sample_lam(augment.mixup_alpha, generator, len(mixed))
    if augment.mixup_pairs:
        partners = torch.arange(size) ^ 1
        partners[partners == size] = size - 1  # an odd one out stays itself
    elif augment.mixup_per_clip:
        lam = torch.maximum(lam, 1 - lam)
    partners = partners_apart(partners, batch.get(KIND))
    mixing = Mixing(torch.where(mixed, lam, 1.0).expand(size), partners, 2 if augment.mixup_pairs else 1)
    how, shares = mix_power if power else mix, {}
    if augment.mixup_domain == "level":
        how = mix_sounds if augment.mixup_on == "waveform" else mix_power
        shares = {name: amplitude_shares(mixing.lam, levels[name](batch[name]), partners) for name in names}
    out = mix_batch(batch, names, mixing.lam, partners, how, others=others, shares=shares)
    return {key: mixing.left(value) for key, value in out.items()}, mixing

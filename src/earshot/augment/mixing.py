"""Mixup (Zhang et al. 2018) of waveforms or log-mels, FMix (Harris et al. 2020), and what becomes of the targets.

`lam` is one number a batch or (B,) numbers a clip, `index` (B,) each clip's partner: out = lam * own + (1 - lam) *
partner. Everything that is linear is mixed so: input, target, frame_target, weight. An entry is known afterwards only
if it is known in both clips (where a share is 0, in the other): a mixed label that is half unknown is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MIXED = ("target", "frame_target", "weight", "teacher_embedding", "teacher_answer")
KIND = "soundscape"  # of a batch: clips of kind 1 and 2 are never mixed with each other


@dataclass(frozen=True)
class Mixing:
    """How a batch was mixed: what a network that hears waveforms does to its own maps (`hidden.mixed_maps`)."""

    lam: Tensor  # (B,) share that each clip keeps
    index: Tensor  # (B,) partners
    step: int = 1  # 2: of each pair of neighbours the first is left

    def of(self, x: Tensor) -> Tensor:
        """Maps of the clips as they were, (B, ...), -> mixed ones, (B / step, ...)."""
        return self.left(mix(x, self.lam.to(x.device), self.index))

    def left(self, value):
        """The entries of a batch's tensor or list that are left."""
        return value[:: self.step] if isinstance(value, list) or (torch.is_tensor(value) and value.ndim) else value


def sample_lam(alpha: float, generator: torch.Generator, size: int | None = None) -> Tensor:
    """Beta(alpha, alpha) draws in [0, 1], float32: one number, or (size,); alpha 0 gives 1 (no mixing)."""
    if alpha < 0:
        raise ValueError(f"mixup alpha must not be negative, got {alpha}")
    # torch's Beta takes no generator: NumPy's draws from a seed that ours draws
    seed = int(torch.randint(2**62, (1,), generator=generator))
    lam = np.random.default_rng(seed).beta(alpha, alpha, size) if alpha else np.ones(size or ())
    return torch.as_tensor(lam, dtype=torch.float32)


def sample_partners(size: int, generator: torch.Generator) -> Tensor:
    """Draw which clip each clip of a batch is mixed with, now and then itself: a random permutation (size,)."""
    return torch.randperm(size, generator=generator)


def partners_apart(index: Tensor, kinds: Tensor | None) -> Tensor:
    """Partners of whom none is of the other of the kinds 1 and 2: such a clip becomes its own partner.

    kinds: (B,) numbers 0, 1, 2 of the clips (`soundscape` of a batch), None: any two may meet.
    """
    if kinds is None:
        return index
    own = kinds.to(index.device)
    return torch.where(own * own[index] == 2, torch.arange(len(index)), index)


def mix(x: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """lam * x + (1 - lam) * x[index], `lam` one number or (B,)."""
    lam = torch.as_tensor(lam, dtype=x.dtype, device=x.device)
    lam = lam.reshape(-1, *[1] * (x.ndim - 1)) if lam.ndim else lam
    return lam * x + (1 - lam) * x[index.to(x.device)]


def mix_given(x: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """`mix` of values of which some are NaN, which means missing: a mixture with a missing value misses it too."""
    lam = torch.as_tensor(lam, dtype=x.dtype, device=x.device)
    shares = lam.reshape(-1, *[1] * (x.ndim - 1)) if lam.ndim else lam
    return torch.where(shares == 1, x, torch.where(shares == 0, x[index.to(x.device)], mix(x, lam, index)))


def mix_mask(mask: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """Say which answers of a mixture are known, (B, K): those known in every clip that has a share in it."""
    lam = torch.as_tensor(lam, dtype=torch.float32, device=mask.device).reshape(-1, 1)
    own = torch.where(lam > 0, mask, torch.ones_like(mask))
    partner = torch.where(lam < 1, mask[index.to(mask.device)], torch.ones_like(mask))
    return torch.minimum(own, partner)


def mix_power(logmel: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """Log-mels in decibels mixed as sounds are: amplitudes lam and 1 - lam, so energies lam^2 and (1 - lam)^2.

    Normalised by their sum, so that a clip mixed with itself stays as it is.
    """
    lam = torch.as_tensor(lam, dtype=logmel.dtype, device=logmel.device)
    lam = lam.reshape(-1, *[1] * (logmel.ndim - 1)) if lam.ndim else lam
    own, other = lam.square(), (1 - lam).square()
    energy = own * 10 ** (logmel / 10) + other * 10 ** (logmel[index.to(logmel.device)] / 10)
    return torch.where(lam < 1, 10 * torch.log10((energy / (own + other)).clamp_min(1e-12)), logmel)


def mix_sounds(waveform: Tensor, lam: Tensor | float, index: Tensor) -> Tensor:
    """Waveforms mixed by shares of amplitude, as loud afterwards as they were: the energies of two sounds add up."""
    lam = torch.as_tensor(lam, dtype=waveform.dtype, device=waveform.device)
    shares = lam.reshape(-1, *[1] * (waveform.ndim - 1)) if lam.ndim else lam
    return mix(waveform, lam, index) / (shares.square() + (1 - shares).square()).sqrt()


def sample_fmix_mask(generator: torch.Generator, shape: tuple[int, int], lam: float, decay: float = 3.0) -> Tensor:
    """Draw the mask along which FMix cuts two clips together.

    (T, F) booleans, `lam` of them True to within half a pixel: the brightest part of a smooth random image.

    Complex Gaussian numbers at the frequencies of a real image's half spectrum, over frequency^decay (cycles a sample,
    at least that of the longer side), transformed back. The published code takes a wrong axis for real and imaginary
    part and so cuts along one side only; this is what the paper says.
    """
    height, width = shape
    hz = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    spectrum = torch.view_as_complex(torch.randn(*hz.shape, 2, generator=generator))
    scale = hz.clamp(min=1 / max(height, width)) ** -decay
    image = torch.fft.irfft2(spectrum * scale, s=(height, width)).flatten()
    mask = torch.zeros(height * width, dtype=torch.bool)
    mask[image.argsort(descending=True, stable=True)[: round(lam * len(mask))]] = True
    return mask.reshape(height, width)


def sample_cutmix_mask(generator: torch.Generator, shape: tuple[int, int], lam: float) -> Tensor:
    """Draw the mask of CutMix along time: a clip is itself but for one span of frames, of all bands.

    (T, F) booleans, `lam` of the frames True to within half a frame.
    """
    height, width = shape
    span = round((1 - lam) * height)
    start = int(torch.randint(height - span + 1, (1,), generator=generator))
    mask = torch.ones(height, dtype=torch.bool)
    mask[start : start + span] = False
    return mask[:, None].expand(height, width)


def add_sounds(x: Tensor, gain: Tensor, index: Tensor) -> Tensor:
    """Waveforms x + gain * x[index], `gain` (B,) amplitudes."""
    gain = gain.to(x).reshape(-1, *[1] * (x.ndim - 1))
    return x + gain * x[index.to(x.device)]


def add_decibels(logmel: Tensor, gain: Tensor, index: Tensor) -> Tensor:
    """Log-mels in decibels added as energies: those of the clip and gain^2 times those of its partner."""
    gain = gain.to(logmel).reshape(-1, *[1] * (logmel.ndim - 1))
    energy = 10 ** (logmel / 10) + gain.square() * 10 ** (logmel[index.to(logmel.device)] / 10)
    return torch.where(gain > 0, 10 * torch.log10(energy.clamp_min(1e-12)), logmel)


def sum_batch(
    batch: dict, names: tuple[str, ...], gain: Tensor, index: Tensor, add: Callable, others: tuple[str, ...] = ()
) -> dict:  # fmt: skip
    """New batch: the inputs called `names` added to their partners' where `gain` (B,) is above 0, labels joined.

    A class is there where either clip has it. It is known where it is known of both, or one surely has it. What else
    is mixed (weights, metadata in `others`) is the mean of both.
    """
    added = gain > 0
    share = torch.where(added, 0.5, 1.0)
    out = mix_batch(batch, (), share, index, others=others)
    for target, mask in (("target", "mask"), ("frame_target", "frame_mask")):
        if batch.get(target) is None:
            continue
        own = batch[target].float()
        if target == "target" and batch.get(mask) is not None:
            own = torch.where(batch[mask] > 0, own, 0.0)
        partner = own[index.to(own.device)]
        both = added.to(own.device).reshape(-1, *[1] * (own.ndim - 1))
        out[target] = torch.where(both, torch.maximum(own, partner), own)
        if target == "target" and batch.get(mask) is not None:
            out[mask] = torch.maximum(out[mask].float(), (out[target] >= 1).float())
    for name in names:
        out[name] = add(batch[name].float(), gain, index)
    return out


def fmix(x: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """Cut each clip, (B, C, T, F), together with its partner: itself where the (T, F) mask is True, the partner
    elsewhere."""
    return torch.where(mask.to(x.device), x, x[index.to(x.device)])


def fmix_batch(batch: dict, names: tuple[str, ...], mask: Tensor, index: Tensor, others: tuple[str, ...] = ()) -> dict:
    """New batch: the inputs called `names` cut together along the mask, targets mixed by its share.

    frame_target is mixed frame by frame (or segment by segment), by the share of bins that each keeps. An input of
    another size than the mask gets the mask's nearest pixels.
    """

    def cut(x: Tensor, share, index: Tensor) -> Tensor:
        return fmix(x, _resized(mask, x.shape[2:]), index)

    out = mix_batch(batch, names, float(mask.float().mean()), index, cut, others)
    frames = batch.get("frame_target")
    if frames is not None:
        kept = F.adaptive_avg_pool1d(mask.float().mean(dim=1)[None], frames.shape[1])[0].to(frames.device)
        own, other, kept = frames.float(), frames[index.to(frames.device)].float(), kept[:, None]
        both = torch.where(kept > 0, kept * own, 0.0) + torch.where(kept < 1, (1 - kept) * other, 0.0)
        out["frame_target"] = both  # NaN, of a frame of which nobody is sure, where such a frame has a share
    return out


def _resized(mask: Tensor, size) -> Tensor:
    if mask.shape == size:
        return mask
    return F.interpolate(mask[None, None].float(), size=tuple(size))[0, 0] > 0.5


def mix_batch(
    batch: dict, names: tuple[str, ...], lam: Tensor | float, index: Tensor, mix_input: Callable = mix,
    others: tuple[str, ...] = (), shares: dict[str, Tensor] | None = None,
) -> dict:  # fmt: skip
    """New batch: the inputs called `names` and the targets mixed, the mask intersected, the rest as it was.

    shares: of inputs that are mixed by other shares than `lam`, that of the labels. others: inputs mixed linearly
    whatever `mix_input` is (metadata, embeddings). clip_id stays the first clip's. Unknown targets (mask 0) count as 0
    in the mixture, which the mask leaves out. frame_target is mixed whether its rows are frames or segments, and has
    its own mask, frame_mask (B, K).
    """
    out = dict(batch)
    mask = batch.get("mask")
    if mask is not None:
        out["target"] = torch.where(mask > 0, batch["target"].float(), 0.0)
    for name in (n for n in ("mask", "frame_mask", "teacher_known") if batch.get(n) is not None):
        out[name] = mix_mask(batch[name], lam, index)
    for name in names:
        out[name] = mix_input(out[name].float(), (shares or {}).get(name, lam), index)
    for name in others:
        out[name] = mix_given(out[name].float(), lam, index)
    for name in (n for n in MIXED if batch.get(n) is not None):
        how = mix_given if name == "frame_target" else mix  # frames of which nobody is sure are NaN
        out[name] = how(out[name].float(), lam, index)
    if batch.get(KIND) is not None:  # what a mixture holds counts in the next one
        out[KIND] = torch.maximum(batch[KIND], batch[KIND][index.to(batch[KIND].device)])
    return out

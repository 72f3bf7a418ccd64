"""Augmentation of log-mel batches (B, C, T, F) in torch. `sample_*` draws numbers, the function applies them.

Draws come from a torch.Generator on the CPU (None: torch's global one), in the same number whatever they turn out to
be. What moves sound in time or frequency is a map of positions: out[i] = in[position[i]], linear between two. Time
that runs past the end wraps round; frequency keeps its edge. `apply_logmel` moves frame targets alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from earshot.messages import check_params, suggest
from earshot.records import typed_params


class LogmelAugment(NamedTuple):
    """sample(generator, shape, **params) -> numbers; apply(logmel, **numbers); time(n_frames, **numbers) -> (B, T)."""

    sample: Callable[..., dict[str, Tensor]]
    apply: Callable[..., Tensor]
    time: Callable[..., Tensor] | None = None  # None: frames stay where they are
    in_frames: tuple[str, ...] = ()  # those of its numbers that count frames
    decibels: bool = False  # its numbers are decibels: a picture of another scale would be changed by other amounts


def uniform(generator: Generator | None, size: int | tuple[int, ...], low: float, high: float) -> Tensor:
    """Uniform draws of that size."""
    return low + (high - low) * torch.rand(size, generator=generator)


def resample(x: Tensor, positions: Tensor, dim: int) -> Tensor:
    """Read a picture at other places along time or frequency.

    (B, C, T, F) read at (B, L) positions along dim 2 or 3 (L its length), linear between two, edges kept.
    """
    positions = positions.clamp(0, x.shape[dim] - 1)
    low = positions.floor()
    share = (positions - low).to(x.dtype)
    low = low.long()
    high = (low + 1).clamp(max=x.shape[dim] - 1)
    view = (len(x), 1, -1, 1) if dim == 2 else (len(x), 1, 1, -1)
    first, second = (x.gather(dim, i.view(view).expand_as(x)) for i in (low, high))
    return torch.lerp(first, second, share.view(view))


def warp_positions(length: int, center: Tensor, moved: Tensor) -> Tensor:
    """Say where each place of a warped axis is read from.

    (B, length) source of each place when `center` goes to `moved` and both ends stay.
    """
    place, center, moved, last = _index(length, center), center[:, None], moved[:, None], max(length - 1, 1)
    before = place * center / moved
    after = center + (place - moved) * (last - center) / (last - moved)
    return torch.where(place < moved, before, after)


def _sample_warp(generator, size: int, length: int, max_shift: float) -> dict[str, Tensor]:
    reach = min(max_shift, max(length - 1, 1) / 3)
    center = uniform(generator, size, reach, max(length - 1, 1) - reach)
    moved = center + uniform(generator, size, -reach, reach)
    return {"center": center, "moved": moved.clamp(1e-3, max(length - 1, 1) - 1e-3)}


def _index(length: int, like: Tensor) -> Tensor:
    """(1, length) float32 0, 1, ... on the device of `like`."""
    return torch.arange(length, dtype=torch.float32, device=like.device)[None]


# loudness


def sample_gain_db(generator, shape, min_db: float = -6.0, max_db: float = 6.0) -> dict[str, Tensor]:
    """Draw how much louder or softer each clip becomes.

    (B,) decibels.
    """
    return {"gain": uniform(generator, shape[0], min_db, max_db)}


def gain_db(logmel: Tensor, gain: Tensor) -> Tensor:
    """Log-mel + (B,) decibels: the clip louder or softer."""
    return logmel + gain[:, None, None, None]


# time


def sample_roll(
    generator, shape, max_frames: float | None = None, std_frames: float | None = None
) -> dict[str, Tensor]:
    """Draw by how many frames each clip is rolled.

    (B,) whole frames: normal(0, std_frames), or uniform within max_frames, or anywhere in the clip.
    """
    if std_frames is not None:
        shift = std_frames * torch.randn(shape[0], generator=generator)
    else:
        limit = shape[2] / 2 if max_frames is None else max_frames
        shift = uniform(generator, shape[0], -limit, limit)
    return {"shift_frames": shift.round()}


def roll(logmel: Tensor, shift_frames: Tensor) -> Tensor:
    """Circular shift in time, (B,) frames; positive = later."""
    return resample(logmel, roll_positions(logmel.shape[2], shift_frames), 2)


def roll_positions(length: int, shift_frames: Tensor) -> Tensor:
    return (_index(length, shift_frames) - shift_frames[:, None]) % length


def sample_time_stretch(generator, shape, min_rate: float = 0.8, max_rate: float = 1.25) -> dict[str, Tensor]:
    """Draw how much faster or slower each clip becomes.

    (B,) rates, 2 = twice as fast.
    """
    return {"rate": uniform(generator, shape[0], min_rate, max_rate)}


def time_stretch(logmel: Tensor, rate: Tensor) -> Tensor:
    """Faster or slower by (B,) rates, as many frames: a slow clip loses its end, a fast one begins again."""
    return resample(logmel, stretch_positions(logmel.shape[2], rate), 2)


def stretch_positions(length: int, rate: Tensor) -> Tensor:
    return (_index(length, rate) * rate[:, None]) % length


def sample_time_warp(generator, shape, max_frames: float = 40.0) -> dict[str, Tensor]:
    """Draw which frame of each clip is moved, (B,), and where it goes: at most max_frames and a third of the clip
    away."""
    return _sample_warp(generator, shape[0], shape[2], max_frames)


def time_warp(logmel: Tensor, center: Tensor, moved: Tensor) -> Tensor:
    """SpecAugment's warp (Park et al. 2019): frame `center` goes to `moved`, the ends stay, linear between."""
    return resample(logmel, warp_positions(logmel.shape[2], center, moved), 2)


# frequency


def sample_frequency_shift(generator, shape, max_bins: float = 4.0) -> dict[str, Tensor]:
    """Draw by how many mel bins each clip moves up, (B,)."""
    return {"shift_bins": uniform(generator, shape[0], -max_bins, max_bins)}


def frequency_shift(logmel: Tensor, shift_bins: Tensor) -> Tensor:
    """All bins up or down by (B,) mel bins, fractions included; the edge bin fills what is left free."""
    return resample(logmel, _index(logmel.shape[3], shift_bins) - shift_bins[:, None], 3)


def sample_frequency_stretch(generator, shape, max_stretch: float = 0.08) -> dict[str, Tensor]:
    """Draw how far the bands of each clip are spread.

    (B,) factors around 1: 1.05 reads 5 % more bands into the same number.
    """
    return {"factor": uniform(generator, shape[0], 1 - max_stretch, 1 + max_stretch)}


def frequency_stretch(logmel: Tensor, factor: Tensor) -> Tensor:
    """All bins spread or squeezed about the middle one by (B,) factors."""
    middle = (logmel.shape[3] - 1) / 2
    return resample(logmel, middle + (_index(logmel.shape[3], factor) - middle) * factor[:, None], dim=3)


def sample_equalise(generator, shape, max_db: float = 6.0, points: int = 5) -> dict[str, Tensor]:
    """Draw the frequency response of another microphone for each clip.

    (B, points) decibels at points spread evenly over the mel bins.
    """
    return {"gains": uniform(generator, (shape[0], points), -max_db, max_db)}


def equalise(logmel: Tensor, gains: Tensor) -> Tensor:
    """Another microphone: a gain a mel bin, linear between the (B, points) given ones."""
    curve = F.interpolate(gains[:, None], size=logmel.shape[3], mode="linear", align_corners=True)
    return logmel + curve[:, :, None]


def sample_frequency_warp(generator, shape, max_bins: float = 4.0) -> dict[str, Tensor]:
    """Draw which mel bin of each clip is moved, (B,), and where it goes: at most max_bins and a third of the bins
    away."""
    return _sample_warp(generator, shape[0], shape[3], max_bins)


def frequency_warp(logmel: Tensor, center: Tensor, moved: Tensor) -> Tensor:
    """Mel bin `center` goes to `moved`, the ends stay, linear between (vocal tract length perturbation's idea)."""
    return resample(logmel, warp_positions(logmel.shape[3], center, moved), 3)


# both


def sample_crop_resize(generator, shape, min_time: float = 0.8, min_frequency: float = 0.9) -> dict[str, Tensor]:
    """Draw which part of each clip is blown up to its full size.

    (B, 2) start and size, in time and frequency, as shares of the clip.
    """
    size = torch.stack([uniform(generator, shape[0], low, 1.0) for low in (min_time, min_frequency)], 1)
    return {"start": uniform(generator, (shape[0], 2), 0.0, 1.0) * (1 - size), "size": size}


def crop_resize(logmel: Tensor, start: Tensor, size: Tensor) -> Tensor:
    """A part of the clip and of its bins, stretched to the whole."""
    x = resample(logmel, crop_positions(logmel.shape[2], start[:, 0], size[:, 0]), 2)
    return resample(x, crop_positions(logmel.shape[3], start[:, 1], size[:, 1]), 3)


def crop_positions(length: int, start: Tensor, size: Tensor) -> Tensor:
    return start[:, None] * (length - 1) + _index(length, start) * size[:, None]


def crop_time(length: int, start: Tensor, size: Tensor) -> Tensor:
    return crop_positions(length, start[:, 0], size[:, 0])


def sample_spec_augment(
    generator, shape, time_width: int = 64, time_stripes: int = 2, freq_width: int = 8, freq_stripes: int = 2
) -> dict[str, Tensor]:
    """Draw the stripes of time and frequency that are masked.

    (B, T) and (B, F) booleans, True in the stripes: each of a width uniform in [0, width), at a uniform place.
    """
    return {
        "time_mask": sample_stripes(generator, shape[0], shape[2], time_width, time_stripes),
        "freq_mask": sample_stripes(generator, shape[0], shape[3], freq_width, freq_stripes),
    }


def sample_stripes(generator: Generator | None, size: int, length: int, width: int, stripes: int) -> Tensor:
    """Draw stripes along one axis, as torchlibrosa does.

    (size, length) booleans, as torchlibrosa draws them; a width above the length is cut to it.
    """
    draws = torch.rand(2, size, stripes, 1, generator=generator)
    widths = (draws[0] * min(width, length)).floor()
    begin = (draws[1] * (length - widths)).floor()
    place = torch.arange(length)
    return ((place >= begin) & (place < begin + widths)).any(dim=1)


def spec_augment(logmel: Tensor, time_mask: Tensor, freq_mask: Tensor, fill: float | None = None) -> Tensor:
    """Log-mel with the masked frames and bins at `fill` (None: each clip's mean, for log-mels in decibels)."""
    masked = (time_mask[:, None, :, None] | freq_mask[:, None, None, :]).to(logmel.device)
    value = logmel.mean(dim=(1, 2, 3), keepdim=True) if fill is None else logmel.new_tensor(fill)
    return torch.where(masked, value, logmel)


class SpecAugment(nn.Module):
    """Mask stripes of time and frequency, in training mode only.

    (B, C, T, F) after the network's bn0 -> with stripes of 0, that is of the mean.

    As torchlibrosa's SpecAugmentation. Draws from torch's global CPU generator, as dropout does, so that seeding a step
    seeds both and a GPU run draws what a CPU run does.
    """

    def __init__(self, time_width: int = 64, time_stripes: int = 2, freq_width: int = 8, freq_stripes: int = 2):
        super().__init__()
        self.params = {
            "time_width": time_width, "time_stripes": time_stripes,
            "freq_width": freq_width, "freq_stripes": freq_stripes,
        }  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return spec_augment(x, **sample_spec_augment(None, x.shape, **self.params), fill=0.0) if self.training else x

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self.params.items())


def build_spec_augment(params: dict) -> SpecAugment | None:
    """The config's augment.spec_augment -> module for a model's `spec_augment`; None of an empty dict or no stripes."""
    check_params(params, inspect.signature(SpecAugment).parameters, "augment.spec_augment")
    module = SpecAugment(**typed_params(SpecAugment, params, "augment.spec_augment")) if params else None
    stripes = module and module.params["time_stripes"] + module.params["freq_stripes"]
    return module if stripes else None


LOGMEL_AUGMENTS = {
    "gain_db": LogmelAugment(sample_gain_db, gain_db, decibels=True),
    "roll": LogmelAugment(sample_roll, roll, roll_positions, ("shift_frames",)),
    "time_stretch": LogmelAugment(sample_time_stretch, time_stretch, stretch_positions),
    "time_warp": LogmelAugment(sample_time_warp, time_warp, warp_positions, ("center", "moved")),
    "frequency_shift": LogmelAugment(sample_frequency_shift, frequency_shift),
    "frequency_stretch": LogmelAugment(sample_frequency_stretch, frequency_stretch),
    "equalise": LogmelAugment(sample_equalise, equalise, decibels=True),
    "frequency_warp": LogmelAugment(sample_frequency_warp, frequency_warp),
    "crop_resize": LogmelAugment(sample_crop_resize, crop_resize, crop_time),
    "spec_augment": LogmelAugment(sample_spec_augment, spec_augment),
}


def check_logmel(specs: Sequence[dict]) -> None:
    """Error for an unknown name or parameter of {name, p, ...}, with the nearest known one."""
    for spec in specs:
        name = spec.get("name")
        if name not in LOGMEL_AUGMENTS:
            raise ValueError(f"unknown log-mel augmentation '{name}'{suggest(str(name), LOGMEL_AUGMENTS)}")
        known = list(inspect.signature(LOGMEL_AUGMENTS[name].sample).parameters)[2:]
        check_params(spec, ["name", "p", *known], f"log-mel augmentation {name}")
        share = spec.get("p", 0.5)
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"log-mel augmentation {name}: p must be a number from 0 to 1, got {share!r}")
        LOGMEL_AUGMENTS[name].sample(torch.Generator(), (1, 1, 100, 64), **_params_of(spec))


def _params_of(spec: dict) -> dict:
    """What a log-mel augmentation of a config draws its numbers by."""
    params = {k: v for k, v in spec.items() if k not in ("name", "p")}
    return typed_params(LOGMEL_AUGMENTS[spec["name"]].sample, params, f"log-mel augmentation {spec['name']}")


def apply_logmel(
    specs: Sequence[dict], pictures: Sequence[Tensor], frame_target: Tensor | None, generator: Generator
) -> tuple[list[Tensor], Tensor | None]:
    """Augment (B, C, T, F) log-mels in the order of {name, p, ...}; each clip takes part with probability p (0.5).

    pictures: all that are heard of the same clips. Time moves alike in them and in frame targets (B, N, K), these to
    the nearest frame, whatever their frames last; the rest is drawn for each picture.
    """
    check_logmel(specs)
    pictures = list(pictures)
    for spec in specs if pictures else ():
        params, augment = _params_of(spec), LOGMEL_AUGMENTS[spec["name"]]
        for i, logmel in enumerate(pictures):
            if i == 0 or augment.time is None:
                chosen = (torch.rand(len(logmel), generator=generator) < spec.get("p", 0.5)).to(logmel.device)
                numbers = augment.sample(generator, logmel.shape, **params)
                numbers = {k: v.to(logmel.device) for k, v in numbers.items()}
            own = _of_frames(numbers, augment.in_frames, pictures[0].shape[2], logmel.shape[2])
            pictures[i] = torch.where(chosen[:, None, None, None], augment.apply(logmel, **own), logmel)
        if frame_target is not None and augment.time is not None:
            n_frames = frame_target.shape[1]
            own = _of_frames(numbers, augment.in_frames, pictures[0].shape[2], n_frames)
            moved = read_frames(frame_target, augment.time(n_frames, **own).round().long())
            frame_target = torch.where(chosen[:, None, None], moved, frame_target)
    return pictures, frame_target


def _of_frames(numbers: dict[str, Tensor], in_frames: Sequence[str], before: int, after: int) -> dict[str, Tensor]:
    """Numbers drawn for `before` frames -> the same for the same time in `after` frames."""
    scale = 1 if before == after else (after - 1) / max(1, before - 1)
    return {k: v * scale if k in in_frames else v for k, v in numbers.items()}


def read_frames(frames: Tensor, positions: Tensor) -> Tensor:
    """Read (B, T, K) frames at (B, L) places, whole numbers; what lies outside is the edge."""
    places = positions.clamp(0, frames.shape[1] - 1)[:, :, None]
    return frames.gather(1, places.expand(-1, -1, frames.shape[2]))

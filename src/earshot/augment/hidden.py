"""What is done to hidden maps: SpecAugment++, and mixup of a Wavegram.

SpecAugment++ (Wang et al. 2021): stripes of time and frequency masked on the input and on hidden maps.

A masked place becomes 0 (`zero`), the mean of itself and the same place of another clip of the batch (`mixture`), or
that clip's value (`cutting`); labels stay. Stripe widths are shares of a map's length, so that one setting fits a map
of any size. Every map draws its own stripes and partners, from torch's global CPU generator as dropout does: seeding a
step seeds them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from earshot.augment.mixing import Mixing
from earshot.augment.spectrogram import sample_stripes
from earshot.messages import check_params, suggest
from earshot.records import typed_params

SCHEMES = ("zero", "mixture", "cutting")
INPUT = "input"  # the layer name of the network's input, after its first batch norm


def sample_spec_augment_pp(
    generator: Generator | None, shape, time_share: float = 0.1, freq_share: float = 0.1, time_stripes: int = 2,
    freq_stripes: int = 2,
) -> dict[str, Tensor]:  # fmt: skip
    """Shape (B, C, T, F) -> mask (B, 1, T, F), True in stripes of 0 to share * length, and partner index (B,)."""
    size, _, frames, bins = shape
    time = sample_stripes(generator, size, frames, round(time_share * frames) + 1, time_stripes)
    frequency = sample_stripes(generator, size, bins, round(freq_share * bins) + 1, freq_stripes)
    return {
        "mask": (time[:, :, None] | frequency[:, None, :])[:, None],
        "index": torch.randperm(size, generator=generator),
    }


def spec_augment_pp(x: Tensor, mask: Tensor, index: Tensor, scheme: str = "mixture") -> Tensor:
    """Fill the masked stripes of a picture or a hidden map in the way that the scheme says.

    (B, C, T, F) -> the same outside the mask, and inside what the scheme says.
    """
    mask, partner = mask.to(x.device), x[index.to(x.device)]
    if scheme == "zero":
        return torch.where(mask, torch.zeros_like(x), x)
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme '{scheme}' of spec_augment_pp{suggest(scheme, SCHEMES)}")
    return torch.where(mask, (x + partner) / 2 if scheme == "mixture" else partner, x)


class SpecAugmentPP(nn.Module):
    """Apply SpecAugment++ to the (B, C, T, F) that pass through in training; in eval mode nothing changes."""

    def __init__(
        self, scheme: str = "mixture", time_share: float = 0.1, freq_share: float = 0.1, time_stripes: int = 2,
        freq_stripes: int = 2,
    ):  # fmt: skip
        super().__init__()
        if scheme not in SCHEMES:
            raise ValueError(f"unknown scheme '{scheme}' of augment.spec_augment_pp{suggest(scheme, SCHEMES)}")
        for key, value in (("time_share", time_share), ("freq_share", freq_share)):
            if not 0 <= value <= 1:
                raise ValueError(f"augment.spec_augment_pp.{key} is a share of the map's length, got {value}")
        self.scheme = scheme
        self.params = {
            "time_share": time_share, "freq_share": freq_share,
            "time_stripes": time_stripes, "freq_stripes": freq_stripes,
        }  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return spec_augment_pp(x, **sample_spec_augment_pp(None, x.shape, **self.params), scheme=self.scheme)


def attach_spec_augment_pp(network: nn.Module, params: dict) -> None:
    """Make a network augment itself in training: on its input, and after each module named in `layers`.

    params: the config's augment.spec_augment_pp; an empty dict does nothing. State dict and eval mode stay as they are.
    Errors: an unknown parameter or layer, with the nearest; a layer that does not give (B, C, T, F).
    """
    if not params:
        return
    options = {k: v for k, v in params.items() if k != "layers"}
    known = ("scheme", "time_share", "freq_share", "time_stripes", "freq_stripes", "layers")
    check_params(params, known, "augment.spec_augment_pp")
    augment = SpecAugmentPP(**typed_params(SpecAugmentPP, options, "augment.spec_augment_pp"))
    modules = dict(network.named_modules())
    for name in params.get("layers", (INPUT,)):
        if name == INPUT and not hasattr(network, "spec_augment"):
            raise ValueError(
                "augment.spec_augment_pp does nothing to the input of this network, which has no `spec_augment`: call "
                "layers.normalised_input in its forward, name other `layers`, or leave it out"
            )
        if name == INPUT:
            network.spec_augment = augment
        elif name in modules:
            modules[name].register_forward_hook(_Hook(augment, name))
        else:
            raise ValueError(f"the network has no layer '{name}'{suggest(name, (INPUT, *modules))}")


class _Hook:
    """A forward hook that augments a module's output while that module trains (a class: copies of the network share
    it, and it is not part of the network)."""

    def __init__(self, augment: SpecAugmentPP, name: str):
        self.augment, self.name = augment, name

    def __call__(self, module: nn.Module, args, output):
        if not module.training:
            return None
        if not torch.is_tensor(output) or output.ndim != 4:
            raise ValueError(f"layer '{self.name}' gives no (batch, channels, frames, bins) map to augment")
        params = self.augment.params
        return spec_augment_pp(
            output, **sample_spec_augment_pp(None, output.shape, **params), scheme=self.augment.scheme
        )


@contextmanager
def mixed_maps(network: nn.Module, mixing: Mixing | None) -> Iterator[None]:
    """While it lasts, `network.mixed_layer` gives its maps mixed, as the batch's log-mels and targets were.

    How PANNs mix their Wavegram networks: the convolutions of the waveform hear each clip alone. None: nothing is done.
    """
    if mixing is None:
        yield
        return
    name = getattr(network, "mixed_layer", "")
    if not name:
        raise ValueError(
            f"{type(network).__name__} hears waveforms, which augment.batch.mixup_on=logmel does not mix: set it to "
            "waveform"
        )
    hook = network.get_submodule(name).register_forward_hook(lambda module, args, output: mixing.of(output))
    try:
        yield
    finally:
        hook.remove()

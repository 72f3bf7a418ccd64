"""Test-time augmentation: the further hearings of a recording that a name asks for, and who can hear them. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from earshot.inputs.record import Input
from earshot.messages import suggest
from earshot.sound.windows import Windowing


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One hearing of a recording for test-time augmentation; the default is the plain one."""

    gain_db: float = 0.0
    noise_db: float | None = None  # white noise this far below the recording's RMS level
    roll: float = 0.0  # circular shift by this share of the recording (clips that are one window long)
    roll_seconds: float = 0.0  # circular shift by so much, positive = later
    delay: float = 0.0  # silence of this share of a stride before the recording: moves the window borders
    stride: float = 1.0  # stride times this
    tempo: float = 1.0  # each window's picture so many times as fast, as augment.batch's time_stretch trains
    bands: float = 0.0  # each window's picture so many bands higher, as augment.batch's frequency_shift trains

    @property
    def rolls(self) -> bool:
        """Whether the end of the recording comes before its start."""
        return bool(self.roll or self.roll_seconds)

    @property
    def redraws(self) -> bool:
        """Whether pictures of single windows are changed."""
        return self.tempo != 1 or self.bands != 0

    @property
    def moves(self) -> bool:
        """Whether events come to lie elsewhere than in the recording."""
        return self.rolls or self.tempo != 1


TTA: dict[str, tuple[Variant, ...]] = {
    "time_shift": (Variant(delay=0.5),),
    "roll": tuple(Variant(roll=i / 8) for i in range(1, 8)),
    "roll_half": (Variant(roll=0.5),),
    "gain": (Variant(gain_db=-6.0), Variant(gain_db=6.0)),
    "noise": (Variant(noise_db=-30.0),),
    "multi_window": (Variant(stride=0.5),),
    "tempo": (Variant(tempo=0.9), Variant(tempo=1.1)),
    "pitch": (Variant(bands=1.0), Variant(bands=-1.0)),
}


COPIES = "copies:"  # copies:30 = thirty random hearings instead of the plain one
COPIES_SEED, COPIES_ROLL_FRAMES, HOP_SECONDS = 30, 10.0, 0.01


def tta_variants(names: Iterable[str], plain: bool = True, hop_seconds: float = HOP_SECONDS) -> tuple[Variant, ...]:
    """The hearings that the named augmentations ask for: the plain one first, then theirs.

    `copies:N` is N random ones, always the same N, in place of the plain one. plain=False: without the plain one in any
    case. hop_seconds: of the network's frames, which copies are rolled by.
    """
    names = tuple(names)
    variants = [Variant()] if plain and not any(name.startswith(COPIES) for name in names) else []
    for name in names:
        if name.startswith(COPIES):
            variants.extend(random_variants(name.removeprefix(COPIES), hop_seconds))
        elif name in TTA:
            variants.extend(TTA[name])
        else:
            raise ValueError(f"unknown test-time augmentation '{name}'{suggest(name, (*TTA, COPIES + '30'))}")
    return tuple(variants)


def check_tta(names: Iterable[str], windowing: Windowing, records: Iterable[Input]):
    """Raise where recordings cannot be heard as the named augmentations ask.

    records: of what the network hears; what cannot be heard so are frames that are kept (by what moves events in time),
    one pass, and inputs that are no pictures (by what changes those).
    """
    for name in names:
        hearings = tta_variants([name], plain=False)
        if windowing.keep_frames and any(v.moves for v in hearings):
            raise ValueError(
                f"tta '{name}' moves events in time: it cannot be used with keep_frames. Leave it out (predict.tta, "
                "--tta), or keep no frames (predict.keep_frames=false)"
            )
        if not any(v.redraws for v in hearings):
            continue
        if windowing.one_pass:
            raise ValueError(
                f"tta '{name}' changes the spectrograms of single windows: predict without one_pass, or without it"
            )
        if other := sorted({r.kind for r in records if r.sounds and not r.picture}):
            raise ValueError(
                f"tta '{name}' changes spectrograms, and this network hears {', '.join(other)}: leave it out "
                "(predict.tta, --tta)"
            )


def in_place(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the named augmentations that leave events where they are."""
    return tuple(name for name in names if not any(v.moves for v in tta_variants([name])))


def random_variants(count: str, hop_seconds: float) -> list[Variant]:
    """N as text -> N hearings, each rolled by normal(0, 10) whole frames, as augment.batch's `roll` trains."""
    if not count.isdigit() or int(count) < 1:
        raise ValueError(f"test-time augmentation {COPIES}{count}: N copies are asked for by {COPIES}N, N from 1")
    frames = np.random.default_rng(COPIES_SEED).normal(0, COPIES_ROLL_FRAMES, int(count)).round()
    return [Variant(roll_seconds=float(n) * hop_seconds) for n in frames]

"""What a config says about the augmentation of a training batch. No torch; pipeline.py does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from earshot.messages import check_choice


@dataclass(frozen=True, kw_only=True)
class BatchAugment:
    """The batch-wise part of a run's augmentation, in the order of the pipeline. Without arguments it does nothing."""

    logmel: tuple[dict[str, Any], ...] = ()  # functions of augment.spectrogram, {name, p, ...parameters} each
    image: tuple[dict[str, Any], ...] = ()  # albumentations transforms on the log-mel, {name, p, ...parameters} each
    mixup_on: str = "none"  # none | waveform | logmel
    mixup_alpha: float = 0.4  # Beta(alpha, alpha) of the share that a clip keeps
    mixup_p: float = 1.0  # probability that a batch (with mixup_per_clip: a clip) is mixed
    mixup_per_clip: bool = False  # a share of its own for every clip
    mixup_pairs: bool = False  # neighbours become one, each pair by a share of its own: 64 clips are mixed into 32
    mixup_domain: str = "input"  # input: as it is; power: log-mels mixed as energies; either: one of both a batch
    fmix_p: float = 0.0  # probability that a batch of log-mels is mixed by FMix (after mixup, where there is both)
    fmix_alpha: float = 1.0  # Beta(alpha, alpha) of the share that a clip keeps
    fmix_decay: float = 3.0  # how fast the mask's high frequencies fall: larger is smoother

    def __post_init__(self):
        check_choice("mixup_on", self.mixup_on, ("none", "waveform", "logmel"))
        check_choice("mixup_domain", self.mixup_domain, ("input", "power", "either"))
        if self.mixup_pairs and self.mixup_p < 1:
            raise ValueError(f"mixup_pairs halves every batch: mixup_p must be 1, got {self.mixup_p}")
        for name in ("mixup_p", "fmix_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")

    @property
    def acting(self) -> dict[str, bool]:
        """Say of each setting whether it changes a batch.

        {key: whether it changes a batch}.
        """
        return {"logmel": bool(self.logmel), "image": bool(self.image), "mixup_on": self.mixup_on != "none",
                "fmix_p": self.fmix_p > 0}  # fmt: skip

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
    mixup_domain: str = "input"  # input: as it is; power: log-mels mixed as energies; either: one of both a batch;
    # level: so that a clip is heard by the share of its label (between-class learning)
    summix_on: str = "none"  # none | waveform | logmel: clips added as sounds are, the labels of both stay whole
    summix_p: float = 0.5  # probability that a clip gets another one on top
    summix_db: tuple[float, ...] = (-6.0, 6.0)  # level of the other clip, drawn between the two
    cutmix_p: float = 0.0  # probability that a batch of log-mels gets a span of time of other clips (before FMix)
    cutmix_alpha: float = 1.0  # Beta(alpha, alpha) of the share that a clip keeps
    fmix_p: float = 0.0  # probability that a batch of log-mels is mixed by FMix (after mixup, where there is both)
    fmix_alpha: float = 1.0  # Beta(alpha, alpha) of the share that a clip keeps
    fmix_decay: float = 3.0  # how fast the mask's high frequencies fall: larger is smoother

    def __post_init__(self):
        check_choice("mixup_on", self.mixup_on, ("none", "waveform", "logmel"))
        check_choice("summix_on", self.summix_on, ("none", "waveform", "logmel"))
        check_choice("mixup_domain", self.mixup_domain, ("input", "power", "either", "level"))
        if self.mixup_on == "waveform" and self.mixup_domain in ("power", "either"):
            raise ValueError(
                f"mixup_domain={self.mixup_domain} is of log-mels, and mixup_on is waveform: waveforms add up as they "
                "are (input), or by how loud they are (level)"
            )
        if self.mixup_pairs and self.mixup_p < 1:
            raise ValueError(f"mixup_pairs halves every batch: mixup_p must be 1, got {self.mixup_p}")
        if len(self.summix_db) != 2 or not -60 <= self.summix_db[0] <= self.summix_db[1] <= 60:
            raise ValueError(f"summix_db must be two levels in dB, the lower first, got {list(self.summix_db)}")
        for name in ("mixup_p", "summix_p", "cutmix_p", "fmix_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("mixup_alpha", "cutmix_alpha", "fmix_alpha", "fmix_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")

    @property
    def acting(self) -> dict[str, bool]:
        """Whether each setting, by its key, changes a batch."""
        return {"logmel": bool(self.logmel), "image": bool(self.image), "mixup_on": self.mixup_on != "none",
                "summix_on": self.summix_on != "none" and self.summix_p > 0, "cutmix_p": self.cutmix_p > 0,
                "fmix_p": self.fmix_p > 0}  # fmt: skip

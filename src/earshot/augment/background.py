"""What a config says of background: recordings laid under training clips (training/background.py does it)."""

from __future__ import annotations

from dataclasses import dataclass

from earshot.messages import check_choice


@dataclass(frozen=True, kw_only=True)
class BackgroundMixing:
    """What a config says of background: `augment.background`."""

    source: str = ""  # a table (clip_id, path) or a folder of recordings; empty: none
    p: float = 0.5  # probability that a clip gets some
    snr_db: tuple[float, ...] = (3.0, 30.0)  # the clip's level over the background's, drawn between the two
    level: str = "crop"  # the clip's level is that of the crop, or that of the clip's events wherever it is cut

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f"p is a probability, got {self.p}")
        check_choice("level", self.level, ("crop", "events"))
        if len(self.snr_db) != 2 or not -60 <= self.snr_db[0] <= self.snr_db[1] <= 120:
            raise ValueError(f"snr_db must be two levels in dB, the lower first, got {list(self.snr_db)}")

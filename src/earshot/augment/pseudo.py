"""What a config says of pseudo-labelled windows in training (`data.pseudo` names their folder). No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from earshot.messages import check_choice

LOUDEST_DB = 60.0


@dataclass(frozen=True, kw_only=True)
class PseudoMixing:
    """How often, and how, a training example is or holds a pseudo-labelled window."""

    how: str = "replace"  # replace: the window in place of the clip | mix: the window sounds over the clip's crop
    first: float = 0.2  # probability of an example in the first epoch
    last: float = 0.5  # probability at the ramp's end and after it
    ramp_epochs: float = 0.0  # epochs from first to last, on a straight line; 0: the whole training
    off_epochs: int = 0  # the last so many epochs hear labelled clips alone
    weight: float = 1.0  # of such an example in the loss
    gain_db: tuple[float, ...] = (-6.0, 6.0)  # how=mix: the window's level over the clip's, drawn between the two
    max_mass: float = 1.0  # an epoch's pseudo-labels weigh at most so many times its labels; 0: no cap
    # which clips are labelled soundscapes: {kind: soundscape}
    soundscapes: dict[str, str] = field(default_factory=dict)
    with_soundscapes: bool = False  # a labelled soundscape and a pseudo-labelled window may be one example

    def __post_init__(self):
        check_choice("how", self.how, ("replace", "mix"))
        for name in ("first", "last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("ramp_epochs", "off_epochs", "max_mass"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight must be above 0, got {self.weight}")
        low_to_high = len(self.gain_db) == 2 and -LOUDEST_DB <= self.gain_db[0] <= self.gain_db[1] <= LOUDEST_DB
        if not low_to_high:
            raise ValueError(f"gain_db must be two levels in dB, the lower first, got {list(self.gain_db)}")

    def probability(self, epoch: int, epochs: int) -> float:
        """Chance that an example of this epoch (from 0) of so many is, or holds, a pseudo-labelled window."""
        if epoch >= epochs - self.off_epochs:
            return 0.0
        ramp = self.ramp_epochs or max(1, epochs - self.off_epochs - 1)
        return self.first + (self.last - self.first) * min(1.0, epoch / ramp)

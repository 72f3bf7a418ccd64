"""Teachers: frozen networks that say of each training crop what they hear, and how a run follows them. No torch.

A teacher is an extractor (extractor.py) that gives its answers too: rows hold its embedding and then its logits. It
hears at its own rate, whatever the run's is, on its own grid. A crop is given the windows that lie within it (at least
the nearest one): the mean of their embeddings, and of every class the highest logit.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from earshot.inputs.extractor import NO_EMBEDDING, Extractor
from earshot.messages import check_choice

SCHEDULES = ("constant", "linear", "cosine")
LEFT_OUT = "left_out"  # of `unlabelled`: the training clips that data.clips_per_class or data.train_share leaves out


@dataclass(frozen=True, kw_only=True)
class Teacher(Extractor):
    """A frozen network that teaches: `file`, `run` or `config` as of an extractor, and where its answers are.

    Of a foreign file `output` names the embedding ('none': it is not taken) and `logits` the answers, whose classes
    `labels` lists. Own networks say all of this themselves.
    """

    logits: str = ""  # of a foreign file: name of the tensor with its answers before sigmoid or softmax; '': not taken
    labels: str = ""  # its class list in the order of the logits: text, a name a line, or CSV (data/vocabulary.py)
    table: str = ""  # CSV `label, teacher`: our class and the teacher's name of it, before all other matching

    kind: ClassVar[str] = "teacher"

    def __post_init__(self):
        super().__post_init__()
        if self.file and bool(self.logits) != bool(self.labels):
            raise ValueError(
                f"teacher {self.file}: logits names the tensor of its answers and labels the file of their classes; "
                f"got logits '{self.logits}' and labels '{self.labels}': set both or neither"
            )

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.file or self.run or self.config)

    @property
    def parts(self) -> tuple[str, ...]:
        """What an own network is asked for."""
        return ("logit",) if self.output == NO_EMBEDDING else ("embedding", "logit")

    @property
    def gives_answers(self) -> bool:
        """Whether rows hold logits behind the embedding."""
        return len(self.network.widths) == 2 or self.output == NO_EMBEDDING

    @property
    def embedding_width(self) -> int:
        return 0 if self.output == NO_EMBEDDING else self.network.widths[0]

    def count(self, n_samples: int) -> int:
        """Windows that lie within a crop of so many samples, at least one."""
        return max(1, 1 + (n_samples - self.window_samples) // self.stride_samples)

    def taken(self, rows: np.ndarray, first: int, n_samples: int) -> np.ndarray:
        """Rows of a recording -> (D,) of a crop whose first row is `first`: mean embedding, highest logits."""
        index = np.minimum(first + np.arange(self.count(n_samples)), len(rows) - 1)
        chosen, width = np.asarray(rows[index], np.float32), self.embedding_width
        return np.concatenate([chosen[:, :width].mean(axis=0), chosen[:, width:].max(axis=0)])

    def to_json(self) -> dict:
        """As a config has it: a teacher stands in no list of kinds."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def cache_about(self) -> dict:
        return super().cache_about() | {"logits": self.logits, "parts": list(self.parts)}


@dataclass(frozen=True, kw_only=True)
class Distill:
    """What a run learns from teachers besides its labels. Without a teacher and predictions: nothing."""

    teacher: Teacher = field(default_factory=Teacher)
    # npz of Predictions whose outputs are answers, {fold} in a name becomes the fold's number: an ensemble's OOF for
    # labelled clips, predictions of the same runs for unlabelled ones
    predictions: tuple[str, ...] = ()
    embedding_weight: float = 1.0  # of 1 - cosine of the projected embedding and the teacher's
    # 0: the embedding is followed as it is; N: centred on the clips that train, by its N widest directions (whitened)
    embedding_components: int = 0
    answer_weight: float = 1.0  # of the cross entropy against the teacher's softened answers, where classes are mapped
    answers: str = "sigmoid"  # sigmoid: each class by itself | softmax: one of the mapped ones
    temperature: float = 1.0  # logits of both are divided by it
    schedule: str = "constant"  # constant | linear | cosine: how both weights fall towards the last epochs
    off_epochs: int = 0  # the last so many epochs hear no teacher, and no unlabelled recording
    # a table (clip_id, path) or folder of recordings that only teachers speak of, or `left_out`, see LEFT_OUT
    unlabelled: str = ""
    unlabelled_share: float = 1.0  # crops of them an epoch, for each labelled clip

    def __post_init__(self):
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("answers", self.answers, ("sigmoid", "softmax"))
        for name in (
            "embedding_weight", "embedding_components", "answer_weight", "off_epochs", "unlabelled_share",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.teacher.given and self.predictions:
            raise ValueError("teacher and predictions both answer: give one of them, or blend their answers first")
        if self.unlabelled and not self.acts:
            raise ValueError("unlabelled recordings need a teacher or predictions: nobody else says what is in them")
        if self.acts and not (self.embedding_weight or self.answer_weight):
            raise ValueError("embedding_weight and answer_weight are both 0: leave the teacher out, or weigh it")

    @property
    def acts(self) -> bool:
        """Whether anybody teaches."""
        return bool(self.teacher.given or self.predictions)

    def strength(self, epoch: int, epochs: int) -> float:
        """Factor on both weights in an epoch counted from 0: 1 at first, 0 in the last `off_epochs`."""
        taught = epochs - self.off_epochs
        if epoch >= taught:
            return 0.0
        part = epoch / max(1, taught)
        return {"constant": 1.0, "linear": 1 - part, "cosine": 0.5 + 0.5 * math.cos(math.pi * part)}[self.schedule]

"""The loss that follows a teacher, beside the loss of the labels (training/lessons.py says what the teacher said)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from earshot import losses
from earshot.inputs.teacher import Distill
from earshot.models import counting
from earshot.training.lessons import Lessons


class Guide(nn.Module):
    """What a student loses against its teacher: (student's answer, batch) -> loss.

    Its projection, student's embedding to teacher's, ends with the training.
    """

    def __init__(self, how: Distill, student_width: int, teacher_width: int):
        super().__init__()
        self.how = how
        self.projection = nn.Linear(student_width, teacher_width) if teacher_width else None

    def forward(self, out: dict, batch: dict) -> Tensor:
        how, total = self.how, torch.zeros((), device=batch["target"].device)
        if self.projection is not None:
            embedding = self.projection(out["embedding"].float())
            total = total + how.embedding_weight * losses.cosine_distance(embedding, batch["teacher_embedding"])
        if "teacher_answer" in batch and how.answer_weight:
            answer, known = batch["teacher_answer"], batch["teacher_known"]
            total = total + how.answer_weight * losses.soft_answers(out, answer, known, how.temperature, how.answers)
        return total


def make_guide(lessons: Lessons | None, network: nn.Module, heard, n_samples: int, name: str) -> Guide | None:
    """The guide of a network that hears crops of so many samples as `heard`; None: nobody teaches.

    Error where it is to follow an embedding and the network has none.
    """
    if lessons is None:
        return None
    width = 0
    if lessons.embedding_width:
        shapes = counting.forward_shapes(network, heard, n_samples)
        if len(shapes.get("embedding", ())) != 2:
            raise ValueError(
                f"{name} gives no embedding to be taught: choose a network that does, or set distill.embedding_weight=0"
            )
        width = shapes["embedding"][1]
    return Guide(lessons.how, width, lessons.embedding_width)

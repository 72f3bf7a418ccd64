"""A person at work: which question comes next, and what happens when it is answered."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from earshot.messages import few
from earshot.review.decisions import (
    ACCEPT,
    CORRECT,
    KINDS,
    REJECT,
    SKIP,
    Decision,
    DecisionLog,
    now,
    standing,
)  # fmt: skip
from earshot.review.questions import Question, ordered, unanswered


class Session:
    """Questions in an order, and the log that answers go to. Knows nothing of the page, which may call from threads."""

    def __init__(
        self, questions: Sequence[Question], log: DecisionLog, who: str, classes: Sequence[str], run: str = "",
        order: str = "uncertainty",
    ):  # fmt: skip
        """Questions that the log answers already are not asked again. classes: names that an answer may have."""
        if not who.strip():
            raise ValueError("who is it that answers? Give --who NAME")
        self.turn = threading.RLock()
        self.all = {q.item: q for q in questions}
        self.log, self.who, self.classes, self.run = log, " ".join(who.split()), tuple(classes), run
        self.answered_before = len(self.all) - len(unanswered(self.all.values(), log.rows))
        self.sort(order)

    def sort(self, order: str):
        """Put the questions that are open in another order."""
        with self.turn:
            self.queue = ordered(unanswered(self.all.values(), self.log.rows), order)
            self.order = order

    def next(self, label: str = "") -> Question | None:
        """The first open question, of one class where `label` is given; None: none is left."""
        return next((q for q in self.queue if label in ("", q.event_label)), None)

    def decide(self, item: str, decision: str, labels: Sequence[str] = (), times: tuple | None = None) -> Question:
        """Write an answer to the log and close the question.

        labels, times (onset, offset): of a correction; either may be as it was.
        """
        with self.turn:
            question = self._open(item)
            if decision not in KINDS[:-1]:
                raise ValueError(f"a decision is one of {few(KINDS[:-1])}, got '{decision}'")
            if decision == CORRECT:
                labels = sorted({" ".join(str(name).split()) for name in labels} - {""})
                if odd := [name for name in labels if " " in name]:
                    raise ValueError(f"class names hold no spaces: '{odd[0]}'")
            onset, offset = (question.onset, question.offset) if times is None else checked_times(times, question)
            row = Decision(
                when=now(), who=self.who, decision=decision, item=item, path=question.path, start=question.start,
                end=question.end, onset=onset, offset=offset, event_label=question.event_label,
                labels={ACCEPT: question.event_label, CORRECT: " ".join(labels)}.get(decision, ""),
                output=question.output, confidence=question.confidence, run=self.run,
            )  # fmt: skip
            self.log.append(row)
            self.queue = [q for q in unanswered(self.queue, [row]) if q.item != item]
            return question

    def undo(self) -> Question | None:
        """Take the last answer of this person back; its question, now the first one, or None."""
        with self.turn:
            row = self.log.undo(self.who)
            if row is None:
                return None
            question = self.all.get(row.item) or Question(
                item=row.item, filename=row.path, path=row.path, start=row.start, end=row.end, onset=row.onset,
                offset=row.offset, event_label=row.event_label, output=row.output, confidence=row.confidence,
            )  # fmt: skip
            taken_back = unanswered(self.all.values(), self.log.rows)
            known = {question.item, *(q.item for q in self.queue)}
            self.queue = [question, *(q for q in taken_back if q.item not in known), *self.queue]
            return question

    def counts(self) -> dict[str, int]:
        """How many answers of each kind stand, of whomever, and how many questions are open."""
        rows = standing(self.log.rows)
        kinds = {kind: sum(row.decision == kind for row in rows) for kind in (ACCEPT, REJECT, CORRECT, SKIP)}
        return kinds | {"open": len(self.queue)}

    def last(self, count: int) -> list[Decision]:
        """The latest standing answers, newest first."""
        return standing(self.log.rows)[::-1][:count]

    def _open(self, item: str) -> Question:
        found = next((q for q in self.queue if q.item == item), None)
        if found is None:
            raise ValueError("this question was answered meanwhile (in another window?): the next one is shown")
        return found


def checked_times(times: tuple, question: Question) -> tuple[float, float]:
    """Onset and offset that a person gave, inside the stretch that was heard; else an error."""
    try:
        onset, offset = (float(t) for t in times)
    except (TypeError, ValueError):
        raise ValueError(f"onset and offset must be seconds, got {times}") from None
    if not question.start - 0.01 <= onset < offset <= question.end + 0.01:
        raise ValueError(
            f"onset and offset must lie in what was heard, {question.start:g} to {question.end:g} s, onset first; "
            f"got {onset:g} and {offset:g}"
        )
    return max(onset, question.start), min(offset, question.end)

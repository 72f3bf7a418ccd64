"""Detections as questions for people, and which of them to ask first.

Uncertainty sampling (Lewis and Gale 1994) asks where the confidence is nearest to one half. Diversity goes farthest
first (Gonzalez 1985) through what the stretches sound like, from the most uncertain one on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.events import PostProcess
from earshot.messages import check_choice
from earshot.review.decisions import Decision, answers, standing
from earshot.sound import audio
from earshot.sound.logmel import LogmelParams, log_mel

ORDERS = ("uncertainty", "score", "diversity", "random")
MARGIN = 0.5  # seconds of sound around an event that are heard with it
LONGEST = 20.0  # seconds of sound that one question is about
SPREAD = 400  # questions that are put in the order of diversity; the others follow by uncertainty
LOOKED_AT = 2000  # most uncertain ones among which they are chosen
RATE = 16000
SKETCH = LogmelParams(sample_rate=RATE, n_fft=1024, hop_length=512, n_mels=32, fmin=50, fmax=RATE // 2)

logger = logging.getLogger("earshot")


@dataclass(frozen=True, kw_only=True)
class Question:
    """Is `event_label` heard in the stretch start ... end (seconds) of a recording? onset, offset: the detection."""

    item: str
    filename: str
    path: str
    start: float
    end: float
    onset: float
    offset: float
    event_label: str
    output: float
    confidence: float
    begins: str = ""


def questions_of(events: pd.DataFrame, seconds: Mapping[str, float], shortest: float = 3.0) -> list[Question]:
    """Detections (listening.detections.COLUMNS) -> questions, in the order of the table.

    Paths become absolute: answers are about a recording, wherever the next page is started.

    seconds: length of each recording by path; shortest: of the stretch that is heard, such as the network's window.
    """
    found, late = [], 0
    for e in events.itertuples():
        if e.onset >= seconds.get(e.path, np.inf):
            late += 1
            continue
        start, end = stretch(e.onset, e.offset, seconds.get(e.path, np.inf), shortest)
        place = Path(str(e.path)).absolute()
        path = str(place.resolve() if ".." in place.parts else place)
        about = f"{path}\n{e.event_label}\n{e.onset:.3f}\n{e.offset:.3f}"
        item = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        begins = "" if pd.isna(e.begins) else str(e.begins)
        found.append(Question(
            item=item, filename=str(e.filename), path=path, start=start, end=end,
            onset=max(float(e.onset), start), offset=min(float(e.offset), end), event_label=str(e.event_label),
            output=float(e.max_output), confidence=float(e.confidence), begins=begins,
        ))  # fmt: skip
    if late:
        logger.warning("%d detections begin behind the end of their recording, and are left out", late)
    return found


def checked_detections(table: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """A table of detections as a file has it -> with numbers for its times and outputs; what is none is an error."""
    table = table.copy()
    for column in ("onset", "offset", "confidence", "max_output"):
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        if (wrong := ~(np.isfinite(numbers) & (numbers >= 0))).any():
            line = int(np.flatnonzero(wrong)[0]) + 2
            raise ValueError(f"{where} line {line}: {column} is '{table[column][wrong].iloc[0]}', expected 0 or more")
        table[column] = numbers
    if (wrong := table.offset <= table.onset).any():
        raise ValueError(f"{where} line {int(np.flatnonzero(wrong)[0]) + 2}: the event ends before it begins")
    if (wrong := table.event_label.fillna("").astype(str).str.strip() == "").any():
        raise ValueError(f"{where} line {int(np.flatnonzero(wrong)[0]) + 2}: the event has no label")
    return table


def stretch(onset: float, offset: float, length: float, shortest: float) -> tuple[float, float]:
    """The seconds that are heard of an event: it and what is around, `shortest` to LONGEST long, inside the recording.

    Of a longer event its beginning. Rounded to milliseconds.
    """
    span = min(max(offset - onset + 2 * MARGIN, shortest), LONGEST, length)
    start = (onset + offset - span) / 2 if offset - onset + 2 * MARGIN <= span else onset - MARGIN
    start = max(0.0, min(start, length - span))
    return round(start, 3), round(start + span, 3)


def lowered(post: PostProcess, share: float) -> PostProcess:
    """Post-processing with all thresholds at a share of what they were: also what the run would not call an event."""
    if not 0 < share <= 1:
        raise ValueError(f"the share of the threshold must lie in 0 ... 1, got {share}")
    low = post.threshold_low
    return replace(
        post, threshold=post.threshold * share, threshold_low=None if low is None else low * share,
        class_thresholds={name: value * share for name, value in post.class_thresholds.items()}, clip_threshold=None,
    )  # fmt: skip


def unanswered(questions: Iterable[Question], rows: Iterable[Decision]) -> list[Question]:
    """The questions that no standing decision answers, whichever run asked then."""
    by_path: dict[str, list[Decision]] = {}
    for row in standing(rows):
        by_path.setdefault(row.path, []).append(row)
    return [
        q for q in questions
        if not any(answers(row, q.path, q.event_label, q.onset, q.offset) for row in by_path.get(q.path, ()))
    ]  # fmt: skip


def ordered(
    questions: Sequence[Question], order: str, seed: int = 0, progress: Callable[[Iterable], Iterable] = iter
) -> list[Question]:
    """Questions in the order in which to ask them: one of ORDERS."""
    check_choice("the order", order, ORDERS)
    confidence = np.array([q.confidence for q in questions], float)
    if order == "random":
        return [questions[i] for i in np.random.default_rng(seed).permutation(len(questions))]
    if order == "score":
        return [questions[i] for i in np.argsort(-confidence, kind="stable")]
    uncertain = [questions[i] for i in np.argsort(np.abs(confidence - 0.5), kind="stable")]
    if order == "uncertainty":
        return uncertain
    some = uncertain[:LOOKED_AT]
    first = farthest_first(np.array([sketch(q) for q in progress(some)]), SPREAD) if some else []
    chosen = set(first)
    return [some[i] for i in first] + [q for i, q in enumerate(uncertain) if i not in chosen]


def farthest_first(points: np.ndarray, count: int) -> list[int]:
    """Numbers of points (N, D), the first one, then each time the one farthest from all before it."""
    points = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-6)
    taken, distance = [0], np.full(len(points), np.inf)
    while len(taken) < min(count, len(points)):
        distance = np.minimum(distance, np.square(points - points[taken[-1]]).sum(axis=1))
        distance[taken] = -1
        taken.append(int(distance.argmax()))
    return taken


def sketch(question: Question) -> np.ndarray:
    """What a stretch sounds like: mean and deviation of each log-mel band; zeros where it cannot be read."""
    try:
        sound = audio.load(Path(question.path), RATE, question.start, question.end - question.start)
    except audio.UnreadableAudio:
        return np.zeros(2 * SKETCH.n_mels)
    image = log_mel(sound, SKETCH)
    return np.concatenate([image.mean(axis=0), image.std(axis=0)])

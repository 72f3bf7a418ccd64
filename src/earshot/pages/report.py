"""Runs -> one page: scores with intervals, curves, tables by class and place, and the clips that went most wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment

from earshot import runs, tasks
from earshot.competitions import get_competition
from earshot.competitions.oof_scores import EVENTS
from earshot.data.prepared import PreparedData, load_data
from earshot.ensemble.blends import correlations
from earshot.ensemble.oof import fold_scores, oof_when_complete
from earshot.events import PostProcess
from earshot.metrics import clips as clip_metrics
from earshot.pages import figures, in_time
from earshot.pages.clip_cards import Card, make_card, surprising
from earshot.pages.intervals import bootstrap
from earshot.pictures import folds as fold_pictures
from earshot.prediction.detection import peak_output
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.tasks import Task, score_readable

PLACES = ("site", "device", "domain", "section", "machine", "scene_label", "source_label", "recordist", "author",
          "location", "city", "species", "individual", "sensor_id", "split")  # fmt: skip
MOST_VALUES = 40  # rows of a table by place
LENGTHS = (0, 1, 3, 5, 10, 30, 60, 600, np.inf)  # seconds
LENGTH_NAMES = [f"{a} to {b}" if np.isfinite(b) else f"{a} or more" for a, b in pairwise(LENGTHS)]
CLASS_RESAMPLES = 60
CLIPS_OF_INTERVALS = 20_000  # above, by-class intervals take too long


@dataclass(frozen=True)
class Picture:
    title: str
    url: str


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """What the page says of one run."""

    name: str
    score: float
    low: float
    high: float
    fold_mean: float
    fold_deviation: float
    folds: int
    clips: int
    parameters: int
    multiply_adds: int
    minutes: float
    scores: list[tuple[str, float]]
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """A run's OOF, its answers and where its recordings are."""

    run: runs.Run
    task: Task
    watch: str
    oof: Predictions
    truth: Truth
    data: PreparedData

    @property
    def groups(self) -> np.ndarray:
        clips = self.truth.clips
        return (clips.group if "group" in clips else clips.clip_id).astype(str).to_numpy()

    @cached_property
    def measure(self) -> Callable[[np.ndarray], float] | None:
        """The watched score of clips that were drawn, (M,) indices with repeats -> value, by a way that is quick.

        None where no way gives the whole OOF's own score, such as that of very many frames or rows.
        """
        if self.oof.framewise_output is None:
            return partial(watched, self) if in_clips(self) else None
        readable = np.flatnonzero(~self.oof.unreadable)
        whole = score_of(self, readable)
        return next((way for way in ways(self) if np.isclose(way(readable), whole, rtol=1e-9)), None)


def evidence_of(run: runs.Run, score: str = "") -> Evidence:
    """A run whose folds are all trained -> its joined OOF and answers; else an error that says which are missing."""
    config = run.config
    task = tasks.task_of(config)
    watch = score or task.watch
    data = load_data(config.data)
    report = oof_when_complete(run.folder, data, task, watch)
    if report.oof is None:
        raise ValueError(f"{report.text}; a report needs all folds: train them with src/train.py")
    return Evidence(run, task, watch, report.oof, report.truth, data)


def page(title: str, made: str, watch: str, pages: Sequence[RunPage], shared: Sequence[Picture]) -> str:
    """The HTML; every text of the data is escaped."""
    template = Environment(autoescape=True).from_string(
        resources.files("earshot.pages").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(title=title, made=made, watch=watch, runs=pages, shared=shared, number=shown)


def shown(value) -> str:
    """A cell: four digits of a fraction, whole numbers as they are, nothing for what is not defined."""
    if isinstance(value, str | int | np.integer):
        return str(value)
    return "" if value is None or not np.isfinite(value) else f"{value:.4f}"


def run_page(evidence: Evidence, name: str, costs: tuple[int, int], n_cards: int) -> RunPage:
    """Everything of one run. costs: (parameters, multiply-adds of a window)."""
    e = evidence
    scores = score_readable(e.task, e.oof, e.truth)
    if e.watch not in scores:
        raise ValueError(f"{e.run.folder} has no score '{e.watch}' (it has {', '.join(scores)})")
    by_fold = [v for v in fold_scores(e.task, e.oof, e.truth, e.watch).values() if np.isfinite(v)]
    low, high = interval(e)
    return RunPage(
        name=name, score=scores[e.watch], low=low, high=high, fold_mean=float(np.mean(by_fold or [np.nan])),
        fold_deviation=float(np.std(by_fold)) if by_fold else np.nan, folds=len(by_fold), clips=len(e.oof),
        parameters=costs[0], multiply_adds=costs[1], minutes=minutes_of(e.run), scores=sorted(scores.items()),
        pictures=pictures(e), tables=tables(e), cards=cards(e, n_cards),
    )  # fmt: skip


def interval(e: Evidence) -> tuple[float, float]:
    """The watched score's interval; NaN of one that cannot be computed so often (`Evidence.measure`)."""
    readable, score = np.flatnonzero(~e.oof.unreadable), e.measure
    return (np.nan, np.nan) if score is None else bootstrap(lambda i: score(readable[i]), e.groups[readable])


def ways(e: Evidence) -> Iterator[Callable[[np.ndarray], float]]:
    """Ways to score drawn clips of a run with frames: by clips, by their highest frames, by rows, events or frames."""
    if in_clips(e):
        yield partial(watched, e)
        peaks = replace(e.oof, clipwise_output=peak_output(e.oof))
        yield partial(watched, replace(e, oof=peaks))
    competition = get_competition(e.run.config.data.competition) if e.run else None
    own = [competition.post.start] if competition and competition.post else []
    by_rows = competition.oof_score.drawn if competition and competition.oof_score.name == e.watch else None
    if by_rows and (way := by_rows(e.oof, e.truth)):
        yield way
    if e.watch in ("event_f1", "event_f1_macro"):
        for post in [PostProcess(threshold=0.5), EVENTS.start, *own]:
            if way := in_time.event_f1(e.oof, e.truth, post, by_class=e.watch == "event_f1_macro"):
                yield way
    elif e.watch == "frame_map" and (way := in_time.frame_map(e.oof, e.truth)):
        yield way


def in_clips(e: Evidence) -> bool:
    """Whether the watched score is one of whole clips: without frames it is there too."""
    readable = ~e.oof.unreadable
    return e.watch in e.task.score(*without_frames(e.oof.take(readable), e.truth.take(readable)))


def score_of(e: Evidence, index: np.ndarray) -> float:
    """The watched score of some clips, each once, by the task's own way: scores in time are among them."""
    return float(e.task.score(e.oof.take(index), e.truth.take(index)).get(e.watch, np.nan))


def watched(e: Evidence, index: np.ndarray) -> float:
    """The watched score of clips, repeats among them; NaN of a score in time."""
    found, truth = without_frames(e.oof, e.truth)
    some = truth.take(index)
    names = np.array([str(i) for i in range(len(index))])
    again = Predictions(names, found.classes, found.clipwise_output[index], found.fold[index], found.unreadable[index],
                        score=None if found.score is None else found.score[index])  # fmt: skip
    return float(e.task.score(again, some).get(e.watch, np.nan))


def without_frames(found: Predictions, truth: Truth) -> tuple[Predictions, Truth]:
    return replace(found, framewise_output=None, timebase=None, embedding=None), replace(truth, events=None)


def pictures(e: Evidence) -> list[Picture]:
    """Calibration, and a confusion matrix where each clip has one label."""
    readable = ~e.oof.unreadable
    found, target = e.oof.take(readable), e.truth.target[readable]
    drawn = []
    scores = found.clipwise_output
    if len(found) and scores.min() >= 0 and scores.max() <= 1 + 1e-5:
        drawn.append(("Calibration of the clip outputs", lambda p: figures.reliability(scores, target, p)))
    if len(found) and ((target > 0.5).sum(axis=1) == 1).all():
        drawn.append(("Confusion", lambda p: fold_pictures.confusion(found, target, p)))
    return [Picture(title, url) for title, draw in drawn if (url := figures.embedded(draw))]


def tables(e: Evidence) -> list[Table]:
    """Scores by class with intervals, and the watched score by fold, length, site, device and the like."""
    readable = ~e.oof.unreadable
    found, truth, groups = e.oof.take(readable), e.truth.take(readable), e.groups[readable]
    result = [by_class(found, truth.target > 0.5, groups)]
    clips = truth.clips.reset_index(drop=True)
    columns = {"fold": pd.Series(found.fold)} if len(np.unique(found.fold)) > 1 else {}
    if "duration" in clips:
        columns["length in seconds"] = pd.cut(clips.duration.astype(float), LENGTHS, right=False, labels=LENGTH_NAMES)
    columns |= {c: clips[c].astype(str) for c in PLACES if c in clips}
    places, of_part = np.flatnonzero(readable), e.measure or partial(score_of, e)
    for name, values in columns.items():
        counts = values.value_counts()
        counts = counts[counts > 0]
        if not 1 < len(counts) <= MOST_VALUES or names_the_label(values, clips):
            continue
        rows = [
            (str(v) or "(none)", int(n), of_part(places[(values == v).to_numpy()]))
            for v, n in counts.sort_index().items()
        ]
        result.append(Table(f"{e.watch} by {name}", (name, "clips", e.watch), rows))
    return result


def names_the_label(values: pd.Series, clips: pd.DataFrame) -> bool:
    """Whether a column is the label in other words: clips of one value hold one class, and their mAP says nothing."""
    pairs = pd.DataFrame({"value": values.astype(str), "labels": clips.labels.astype(str)}).drop_duplicates()
    return pairs.value.is_unique and pairs.labels.is_unique


def by_class(found: Predictions, target: np.ndarray, groups: np.ndarray) -> Table:
    """Average precision and AUC of each class, the former with its interval, weakest first."""
    precision, auc = (f(target, found.clipwise_output) for f in (clip_metrics.average_precision, clip_metrics.roc_auc))
    rows, few = [], len(found) <= CLIPS_OF_INTERVALS
    for k, label in enumerate(found.classes):

        def of_class(index, k=k):
            y = target[index, k]
            return float(clip_metrics.average_precision(y[:, None], found.clipwise_output[index, k, None])[0])

        low, high = bootstrap(of_class, groups, CLASS_RESAMPLES) if few and target[:, k].any() else (np.nan, np.nan)
        rows.append((str(label), int(target[:, k].sum()), precision[k], low, high, auc[k]))
    rows.sort(key=lambda row: row[2] if np.isfinite(row[2]) else np.inf)
    columns = ("class", "clips", "average precision", "from", "to", "AUC")
    return Table("By class", columns, rows, "Weakest first; a click on a column sorts by it. From, to: 95 % interval.")


def cards(e: Evidence, count: int) -> list[Card]:
    """The clips that went most wrong, each with its sound."""
    competition = get_competition(e.run.config.data.competition)
    post = competition.post.start if competition.post else replace(EVENTS.start, threshold=0.5)
    post = PostProcess(threshold=post.threshold, iou_threshold=None) if post.strict else post
    paths = dict(zip(e.data.clips.clip_id, e.data.clips.path, strict=True))
    chosen = surprising(e.oof, e.truth.target, count) if count else []
    return [make_card(c, e.oof, e.truth, e.data.source / paths[str(e.oof.clip_ids[c.index])], post) for c in chosen]


def minutes_of(run: runs.Run) -> float:
    """Minutes in which all folds hear 600 minutes of sound on this machine, by one window's time; 0: unknown."""
    from earshot.listening.members import ears_of

    try:
        members = ears_of(run.folder).members
    except ValueError:  # a network with metadata
        return 0.0
    member = members[0]
    samples = member.windowing.window_samples
    if any(getattr(record, "of_clip", False) for record in member.backend.frontends.values()):
        return 0.0
    inputs = member.backend.frontends
    seconds = fastest(lambda: member.backend.run({k: v[None] for k, v in inputs.silence(samples).items()}))
    windows = 600 * 60 * member.windowing.sample_rate / member.windowing.stride_samples
    return seconds * windows * len(members) / 60


def fastest(call: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of some calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def shared_pictures(evidence: dict[str, Evidence], curves: Callable[[Path], None]) -> list[Picture]:
    """Learning curves of all runs, and how alike their answers are."""
    drawn = [Picture("Learning curves", figures.embedded(curves))]
    found = list(evidence.values())
    first = found[0].oof
    if len(found) > 1 and all(
        e.oof.classes == first.classes and set(e.oof.clip_ids) == set(first.clip_ids) for e in found
    ):
        matrix = correlations([e.oof.aligned(first.clip_ids) for e in found])
        title = "Correlation of the runs' answers: runs that differ are worth blending"
        drawn.append(Picture(title, figures.embedded(lambda p: figures.correlations(list(evidence), matrix, p))))
    return [p for p in drawn if p.url]

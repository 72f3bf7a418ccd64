"""What a competition is to the rest of Earshot: a record of plain functions and facts, a row of its family's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.tables import Tables
from earshot.events import PostProcess
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth


@dataclass(frozen=True)
class Limits:
    """What the rules allow; 0: unlimited, or not known.

    minutes: a scoring kernel's, on CPUs; parameters_kb: of a network, one byte a parameter (int8), 1,000 bytes to the
    kB; mmacs: million multiply-accumulates for one input.
    """

    minutes: float = 0.0
    parameters_kb: float = 0.0
    mmacs: float = 0.0

    def broken(self, parameters_kb: float, mmacs: float = 0.0) -> list[str]:
        """Say which limits networks of so many kB (int8) and million operations break: 'allows 128 kB of ...'."""
        asked = (
            (parameters_kb, self.parameters_kb, "kB of parameters in int8"),
            (mmacs, self.mmacs, "million multiply-accumulates for one input"),
        )
        return [f"allows {limit:g} {what}, got {value:.3f}" for value, limit, what in asked if 0 < limit < value]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Where Kaggle keeps a competition's hidden test, and how its table and its recordings belong together.

    slug: of the competition; folder, table: names in its download; seconds: what an unreadable recording counts as;
    read: (table) -> (N,) clip id of each row, ValueError where it is no such table; make: ([(clip_id, seconds)], class
    names, folder of the download) -> table; sample: the table is a sample submission, which may not know all
    recordings; clip_id: file name without ending -> clip id; key: the column that names the rows, which alone is
    scored; split: (row names) -> the table that they say, its key '' in rows whose name says nothing.
    """

    slug: str
    folder: str
    table: str
    seconds: float
    read: Callable[[pd.DataFrame], pd.Series]
    make: Callable[[Sequence[tuple[str, float]], Sequence[str], Path], pd.DataFrame]
    sample: bool = False
    clip_id: Callable[[str], str] = str
    key: str = "row_id"
    split: Callable[[pd.Series], pd.DataFrame] | None = None


@dataclass(frozen=True)
class Flag:
    """An option of prepare.py that one family alone takes, as argparse wants it: name "--snr-db", type, help.

    A value of type Path is a folder that must be there.
    """

    name: str
    type: Callable[[str], object]
    help: str
    default: object = None
    metavar: str | None = None

    @property
    def key(self) -> str:
        """The name as a keyword of a function: snr_db."""
        return self.name.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Remake:
    """Another download that prepare.py makes out of the one given, and reads in its place, where the first flag is set.

    folder: its name below prepare.py's --out; make: (source, out folder, **values of the flags, seed=int) writes it.
    """

    folder: str
    flags: tuple[Flag, ...]
    make: Callable[..., object]


@dataclass(frozen=True)
class OofScore:
    """What out-of-fold predictions are scored by: the competition's own score where these clips can have it.

    name: of the value that decides; of: (predictions, truth, post-processing or None) -> {name: value}, {} where these
    predictions cannot have it (no frames, no anomaly); thresholds: (predictions, truth) -> one event threshold and (K,)
    one a class, where the best ones are known without trying many; rows: (predictions, truth) -> sites (R,), hours (R,)
    and answers (R, K) of the rows that are scored, None where clips are scored and not rows; drawn: (predictions,
    truth) -> the value of clips that are drawn with repeats, as (M,) indices, None where `of` must score them itself.
    """

    name: str
    of: Callable[[Predictions, Truth, PostProcess | None], dict[str, float]]
    lower_is_better: bool = False
    thresholds: Callable[[Predictions, Truth], tuple[float, np.ndarray]] | None = None
    rows: Callable[[Predictions, Truth], tuple[list[str], list[str], np.ndarray] | None] | None = None
    drawn: Callable[[Predictions, Truth], Callable[[np.ndarray], float] | None] | None = None

    def value(self, found: Predictions, truth: Truth, post: PostProcess | None = None) -> float:
        """The value that decides, turned so that more is better; NaN where there is none."""
        value = self.of(found, truth, post).get(self.name, np.nan)
        return -value if self.lower_is_better else value


@dataclass(frozen=True, kw_only=True)
class PostRanges:
    """How a competition's predictions become rows: where a search starts, and what it tries of each step.

    Fields are those of events.PostProcess; an empty one is not searched. threshold: values, unless the score knows the
    best one (OofScore.thresholds); threshold_low: shares of the threshold.
    """

    start: PostProcess = field(default_factory=PostProcess)
    centred: tuple[float | None, ...] = ()
    threshold: tuple[float, ...] = ()
    class_thresholds: bool = False
    threshold_quantile: tuple[float | None, ...] = ()
    median_filter_seconds: tuple[float, ...] = ()
    threshold_low: tuple[float | None, ...] = ()
    min_seconds: tuple[float, ...] = ()
    max_gap_seconds: tuple[float, ...] = ()
    clip_threshold: tuple[float | None, ...] = ()
    iou_threshold: tuple[float | None, ...] = ()
    row_pool: tuple[str, ...] = ()
    row_smooth: tuple[float, ...] = ()
    row_peak: tuple[float, ...] = ()
    row_power: tuple[float, ...] = ()
    row_rank: tuple[bool, ...] = ()
    row_floor: tuple[float, ...] = ()
    row_site: tuple[float, ...] = ()
    row_hour: tuple[float, ...] = ()
    coarse_from: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """What a DCASE challenge wants handed in: files of its own, and a <label>.meta.yaml that describes the system.

    task: of the label, such as task1; own: pattern of the names of the output's files; joined: several of them are one
    answer; parts: names of the outputs that one system hands in, where it is trained several times (split_5, ...);
    files: (submission, label) -> {file name: text}, of a challenge with parts with `part` as keyword; read_files:
    (files of one system, test table) -> submission; score_files: (predictions, test table, label) -> {file name:
    text} of scores in time; description, complexity, more: fields of the meta file's `system` block, `more` beside
    these two; results: (OOF, truth) -> its results on the development set.
    """

    task: str
    own: str
    files: Callable[..., dict[str, str]]
    read_files: Callable[[Sequence[Path], pd.DataFrame], pd.DataFrame]
    score_files: Callable[[Predictions, pd.DataFrame, str], dict[str, str]] | None = None
    joined: bool = False
    parts: tuple[str, ...] = ()
    description: tuple[str, ...]
    complexity: tuple[str, ...]
    more: tuple[str, ...] = ("external_datasets", "source_code")
    results: Callable[[Predictions, Truth], dict]


@dataclass(frozen=True, kw_only=True)
class Competition:
    """A competition (or one edition, or one variant of it).

    name: key of COMPETITIONS; task: key of tasks.TASKS that its tables are of; prepare: (download folder, **options)
    -> Tables; rows: (predictions, test table, post-processing or None) -> submission; validate: (submission, test
    table, classes) raises ValueError naming every problem at once; score: (submission, truth) -> {name: value}, the
    first one on the leaderboard; challenge: where DCASE wants other files than one CSV; hidden: what a scoring kernel
    finds (None: no kernel answers); embedded: `prepare` makes the download itself; flags: options of prepare.py that
    `prepare` takes as keywords and no other competition knows; also: other editions that `prepare` may find the
    download to be (Tables.competition); fold_methods: {value of make_folds.py --method: (clips sorted by clip_id, k,
    seed) -> (N,) folds}; oof_score: what an OOF is scored by; post: the post-processing that is chosen on the OOF
    (None: rows are scores); frame_score: (predictions, test table, truth) -> scores that frames have and rows do not.
    """

    name: str
    task: str = "sed"
    prepare: Callable[..., Tables]
    rows: Callable[..., pd.DataFrame]
    validate: Callable[..., None]
    score: Callable[[pd.DataFrame, pd.DataFrame], dict[str, float]]
    challenge: Challenge | None = None
    limits: Limits = Limits()
    hidden: Rules | None = None
    embedded: bool = False
    flags: tuple[Flag, ...] = ()
    also: tuple[str, ...] = ()
    fold_methods: Mapping[str, Callable[[pd.DataFrame, int, int], np.ndarray]] = field(default_factory=dict)
    remake: Remake | None = None
    oof_score: OofScore
    post: PostRanges | None = None
    frame_score: Callable[[Predictions, pd.DataFrame, pd.DataFrame], dict[str, float]] | None = None


def by_name(*competitions: Competition) -> dict[str, Competition]:
    """The table of a family's editions."""
    return {competition.name: competition for competition in competitions}

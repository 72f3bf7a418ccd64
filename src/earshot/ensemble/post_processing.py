"""Which post-processing an OOF asks for: the one function that ensemble.py and submit.py choose by.

Steps are tried one after the other (STEPS), each on top of those kept before. What a step would choose is fitted on all
folds but one and scored on that one, for every fold; the step is kept only if its gain, mean over folds, is larger than
the gain's standard deviation over folds. So it is the choosing that is judged, not its fit, and noise is not chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from earshot.competitions.competition import OofScore, PostRanges
from earshot.competitions.row_steps import fit_odds
from earshot.events import PostProcess
from earshot.messages import plural, progress_bar, suggest
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth

STEPS = (
    "threshold", "class_thresholds", "threshold_quantile", "centred", "median_filter_seconds", "threshold_low",
    "min_seconds", "max_gap_seconds", "clip_threshold", "iou_threshold", "row_pool", "row_smooth", "row_peak",
    "row_power", "row_rank", "row_floor", "row_site", "row_hour", "coarse_from",
)  # fmt: skip
ODDS = {"row_site": "site_odds", "row_hour": "hour_odds"}  # steps that are fitted, and where what they learn stands
# steps between rows of a recording, which clips that count as one row each say nothing of
OF_ROWS = ("row_smooth", "row_peak", "row_power", "row_rank", "row_floor", *ODDS)
OF_FRAMES = (
    "centred", "median_filter_seconds", "threshold_low", "min_seconds", "max_gap_seconds", "row_pool", *OF_ROWS,
)  # fmt: skip
STRICT_STEPS = ("threshold", "iou_threshold")  # all that PostProcess.strict knows
NO_SHIFT = ("iou_threshold", "threshold_quantile")  # steps that thresholds beside say nothing of
FINER = (-0.375, -0.25, -0.125, 0.125, 0.25, 0.375)  # log odds around the best threshold of the grid
BESIDE = (0.0, -1.0, -0.5, 0.5, 1.0)  # log odds by which thresholds are moved while another step is tried
PARTS = 5  # of the clips, where they are of one fold


@dataclass(frozen=True)
class Step:
    """One step of the search: values tried, the one chosen on all clips, gains (folds,) on held-out folds."""

    name: str
    tried: list
    value: object
    gains: np.ndarray
    always: bool = False

    @property
    def kept(self) -> bool:
        """It gains by more than its gain deviates over folds (or was to be kept in any case)."""
        return self.always or keeps(self.gains)

    def __str__(self) -> str:
        if not len(self.gains):
            return f"{self.name}: nothing to compare, {'kept' if self.kept else 'not kept'}"
        gain = f"{self.gains.mean():+.4f} +- {self.gains.std():.4f} over {plural(len(self.gains), 'folds')}"
        return f"{self.name} {_shown(self.value)}: {gain}, {'kept' if self.kept else 'not kept'}"


@dataclass(frozen=True, kw_only=True)
class PostChoice:
    """What was chosen, and how well it does. Values are turned so that more is better, unless said otherwise.

    before, after: (folds,) score of the held-out folds at the start, and by what the other folds chose; fitted: score
    of all clips at `post`, which was chosen on them.
    """

    post: PostProcess
    start: PostProcess
    score_name: str
    steps: list[Step] = field(default_factory=list)
    before: np.ndarray
    after: np.ndarray
    fitted: float
    n_clips: int
    folds: list
    parts: str  # how the clips were parted for the nested search
    untried: dict[str, str] = field(default_factory=dict)  # steps that the ranges have: why they were left out

    def __str__(self) -> str:
        lines = [f"  {step}" for step in self.steps] or ["  no step to try"]
        for why in dict.fromkeys(self.untried.values()):
            lines.append(f"  not tried, {why}: {', '.join(n for n, w in self.untried.items() if w == why)}")
        mean = f"{np.mean(self.before):.4f} -> {np.mean(self.after):.4f}" if len(self.before) else "-"
        head = f"post-processing by {self.score_name}, {self.n_clips} OOF clips, {self.parts}: held-out folds {mean}"
        return "\n".join([head, *lines, f"  all clips at the choice: {self.fitted:.4f} (they chose it)"])


def keeps(gains: np.ndarray) -> bool:
    """Whether gains over folds speak for a change: their mean is above zero and above their standard deviation."""
    return bool(len(gains) > 1 and gains.mean() > 0 and gains.mean() > gains.std())


def choose_post(
    oof: Predictions, truth: Truth, score: OofScore, ranges: PostRanges, start: PostProcess | None = None,
    steps: Sequence[str] | None = None, always: bool = False,
) -> PostChoice:  # fmt: skip
    """Out-of-fold predictions, their truth, a competition's score and ranges -> the post-processing to use.

    start: where the search begins (default: that of the ranges); steps: those to try (default: all that the ranges
    have); always: keep what all clips choose, gain or not. An OOF without a readable clip, or that cannot have the
    score, is an error.
    """
    oof, truth = readable_clips(oof, truth)
    start = start or ranges.start
    check_score(oof, truth, score, start)
    part, how = parts_of(oof, truth)
    search = _Search(score, ranges)
    names, untried = search.steps(start, oof, truth, steps)
    folds = _Folds(oof, truth, score, part)
    post, of_fold = start, dict.fromkeys(folds.names, start)
    before, found = folds.scores(of_fold), []
    for name in progress_bar(names, "post-processing", unit="step"):
        there = folds.scores(of_fold)
        tried = {f: search.fit(name, of_fold[f], *folds.others(f)) for f in folds.names} if folds.nested else {}
        gains = folds.scores(tried) - there if tried else np.zeros(0)
        candidate = search.fit(name, post, oof, truth)
        step = Step(name, search.tried(name), search.value(name, candidate), gains[np.isfinite(gains)], always)
        found.append(step)
        if step.kept:
            post, of_fold = candidate, tried or dict.fromkeys(of_fold, candidate)
    after = folds.scores(of_fold)
    known = np.isfinite(before) & np.isfinite(after)
    return PostChoice(
        post=post, start=start, score_name=score.name, steps=found, before=before[known], after=after[known],
        fitted=score.value(oof, truth, post), n_clips=len(oof), folds=sorted(int(f) for f in np.unique(oof.fold)),
        parts=how, untried=untried,
    )  # fmt: skip


def fit_post(
    oof: Predictions, truth: Truth, score: OofScore, ranges: PostRanges, steps: Sequence[str] | None = None
) -> PostProcess:
    """The post-processing that all these clips choose, step after step, gain or not: `choose_post` with `always`.

    Nothing is nested, which takes a part of the time and says nothing of what the choosing is worth. Errors are those
    of `choose_post`.
    """
    oof, truth = readable_clips(oof, truth)
    post, search = ranges.start, _Search(score, ranges)
    check_score(oof, truth, score, post)
    for name in search.steps(post, oof, truth, steps)[0]:
        post = search.fit(name, post, oof, truth)
    return post


def readable_clips(oof: Predictions, truth: Truth) -> tuple[Predictions, Truth]:
    """The clips that could be read; none of them is an error."""
    readable = ~np.asarray(oof.unreadable, bool)
    if not readable.any():
        raise ValueError("no clip of the OOF could be read: there is nothing to choose post-processing on")
    return oof.take(readable), truth.take(readable)


def check_score(oof: Predictions, truth: Truth, score: OofScore, start: PostProcess):
    """Raise where these clips cannot have the score that decides."""
    if not np.isfinite(score.value(oof, truth, start)):
        raise ValueError(f"this OOF cannot have the competition's score, {score.name}: {_lacking(oof, truth)}")


def _lacking(oof: Predictions, truth: Truth) -> str:
    if oof.framewise_output is None:
        return "it has no framewise outputs (predict.oof_frames=true keeps them)"
    return "no true events came with it" if truth.events is None else "its clips do not define it"


def parts_of(oof: Predictions, truth: Truth) -> tuple[np.ndarray, str]:
    """Part the clips, (N,), for the nested search, and say how: by fold, or, where they are of one fold, within it.

    Clips of a `group` of the clip table stay together; groups are dealt out in an order that depends on their names.
    """
    if len(np.unique(oof.fold)) > 1:
        return np.asarray(oof.fold), f"{plural(len(np.unique(oof.fold)), 'folds')}"
    groups = oof.clip_ids.astype(str)
    if truth.clips is not None and "group" in truth.clips:
        groups = truth.clips.group.astype(str).to_numpy()
    names = np.unique(groups)
    if len(names) < PARTS:  # too few to part: then clip by clip
        groups = oof.clip_ids.astype(str)
        names = np.unique(groups)
    order = np.random.default_rng(0).permutation(len(names))
    place = dict(zip(names[order], np.arange(len(names)) % PARTS, strict=True))
    return np.array([place[g] for g in groups]), f"{min(PARTS, len(names))} parts of one fold"


class _Folds:
    """The clips of an OOF, fold by fold, and scores of them."""

    def __init__(self, oof: Predictions, truth: Truth, score: OofScore, part: np.ndarray):
        self.oof, self.truth, self.score, self.part = oof, truth, score, part
        self.names = list(np.unique(part))
        self.held = {f: (oof.take(part == f), truth.take(part == f)) for f in self.names}

    @property
    def nested(self) -> bool:
        return len(self.names) > 1

    def others(self, fold) -> tuple[Predictions, Truth]:
        return self.oof.take(self.part != fold), self.truth.take(self.part != fold)

    def scores(self, of_fold: dict) -> np.ndarray:
        """Score each held-out fold at its own post-processing, (folds,); NaN where it is not defined."""
        return np.array([self.score.value(*self.held[f], of_fold[f]) for f in self.names])


class _Search:
    """The candidates of each step, and the best of them on given clips."""

    def __init__(self, score: OofScore, ranges: PostRanges):
        self.score, self.ranges = score, ranges

    def steps(
        self, start: PostProcess, oof: Predictions, truth: Truth, wanted: Sequence[str] | None
    ) -> tuple[list[str], dict[str, str]]:
        """Names of the steps to try: in the ranges, asked for, and possible with these predictions; why not the others.

        Whoever leaves steps out by `wanted` is not told.
        """
        known = [name for name in STEPS if getattr(self.ranges, name)]
        for name in wanted or ():
            if name not in known:
                raise ValueError(
                    f"this competition has no post-processing step '{name}'{suggest(name, known, 'it has')}"
                )
        names = [name for name in known if wanted is None or name in wanted]
        why: dict[str, str] = {}
        if len(oof.classes) == 1:
            why |= dict.fromkeys(["class_thresholds"], "there is one class")
        if oof.framewise_output is None:
            why |= dict.fromkeys(OF_FRAMES, "the OOF has no frames (predict.oof_frames=true keeps them)")
        elif any(name in OF_ROWS for name in names):
            rows = self.score.rows(oof, truth) if self.score.rows else None
            if rows is None:
                why |= dict.fromkeys(OF_ROWS, "no annotated recording of the OOF has rows with answers")
            else:
                for name, keys, what in zip(ODDS, rows, ("site", "time"), strict=False):
                    if not any(keys):
                        why[name] = f"no annotated recording's name has a {what}"
        if start.strict:
            why |= {name: "the start is strict" for name in names if name not in STRICT_STEPS}
        return [name for name in names if name not in why], {n: why[n] for n in names if n in why}

    def fit(self, step: str, post: PostProcess, found: Predictions, truth: Truth) -> PostProcess:
        """The best of the step's candidates on these clips; `post` itself where none is better."""
        if step == "threshold":
            return self._threshold(post, found, truth)
        if step == "class_thresholds":
            return self._class_thresholds(post, found, truth)
        if step == "centred":  # thresholds of the others say nothing of centred outputs: they are searched anew
            anew = (self._threshold(replace(post, centred=c), found, truth) for c in self.ranges.centred)
            return self._best(anew, post, found, truth)
        if step in ODDS:
            return self._odds(step, post, found, truth)
        return self._best(self._around(step, post), post, found, truth)

    def tried(self, step: str) -> list:
        """What the choice says was tried."""
        if step in ("threshold", "class_thresholds") and self.score.thresholds:
            return ["every value"]
        return list(self.ranges.threshold if step == "class_thresholds" else getattr(self.ranges, step))

    def value(self, step: str, post: PostProcess):
        return dict(post.class_thresholds) if step == "class_thresholds" else getattr(post, step)

    def _best(self, candidates, post: PostProcess, found: Predictions, truth: Truth) -> PostProcess:
        best, highest = post, self.score.value(found, truth, post)
        for candidate in candidates:
            value = self.score.value(found, truth, candidate)
            if np.isfinite(value) and not value <= highest:  # anything is better than no value
                best, highest = candidate, value
        return best

    def _threshold(self, post: PostProcess, found: Predictions, truth: Truth) -> PostProcess:
        if self.score.thresholds:
            one, _ = self.score.thresholds(found, truth)
            return self._best([at_threshold(post, float(np.clip(one, 0, 1)))], post, found, truth)
        near = self._best((at_threshold(post, t) for t in self.ranges.threshold), post, found, truth)
        return self._best((shifted(near, d) for d in FINER), near, found, truth)

    def _class_thresholds(self, post: PostProcess, found: Predictions, truth: Truth) -> PostProcess:
        """A threshold for each class that these clips hold; the others keep the common one."""
        if self.score.thresholds:
            _, many = self.score.thresholds(found, truth)
            many = np.clip(many, 0, 1)
        else:
            many = [self._threshold(of_label(post, c), *of_class(found, truth, k)).threshold
                    for k, c in enumerate(found.classes)]  # fmt: skip
        there = (truth.target > 0.5).any(axis=0)
        chosen = {c: float(t) for c, t, here in zip(found.classes, many, there, strict=True) if here}
        low = post.threshold_low
        if low is not None:  # hysteresis has one lower threshold, which no upper one may be below
            low = min([low, *chosen.values()])
        return replace(post, class_thresholds=chosen, threshold_low=low)

    def _odds(self, step: str, post: PostProcess, found: Predictions, truth: Truth) -> PostProcess:
        """What sites or hours say, learned from these clips, at the weight that does best on them."""
        rows = self.score.rows(found, truth)
        if rows is None:
            return post
        odds = fit_odds(rows[list(ODDS).index(step)], rows[2], found.classes)
        weights = getattr(self.ranges, step)
        return self._best(
            (replace(post, **{step: w, ODDS[step]: odds if w else {}}) for w in weights), post, found, truth
        )

    def _around(self, step: str, post: PostProcess) -> Iterator[PostProcess]:
        """Every value of the step, each with the thresholds where they are and a little beside."""
        has_thresholds = self.ranges.threshold and not post.strict and step not in NO_SHIFT
        for value in getattr(self.ranges, step):
            for shift in BESIDE if has_thresholds else (0.0,):
                moved = shifted(post, shift)
                if step == "threshold_low" and value is not None:
                    value_now = value * min([moved.threshold, *moved.class_thresholds.values()])
                    yield replace(moved, threshold_low=value_now)
                else:
                    yield replace(moved, **{step: value})


def at_threshold(post: PostProcess, threshold: float) -> PostProcess:
    """The same with one threshold for all classes; the lower one of hysteresis keeps its share."""
    low = post.threshold_low
    if low is not None:
        high = min([post.threshold, *post.class_thresholds.values()])
        low = threshold * (low / high if high else 0.0)
    return replace(post, threshold=threshold, class_thresholds={}, threshold_low=low)


def shifted(post: PostProcess, log_odds: float) -> PostProcess:
    """The same with all upper thresholds moved by so much; the lower one keeps its share of the least of them."""
    if not log_odds:
        return post
    many = {c: moved(t, log_odds) for c, t in post.class_thresholds.items()}
    one, low = moved(post.threshold, log_odds), post.threshold_low
    if low is not None:
        before, after = min([post.threshold, *post.class_thresholds.values()]), min([one, *many.values()])
        low = after * (low / before if before else 0.0)
    return replace(post, threshold=one, class_thresholds=many, threshold_low=low)


def moved(p: float, log_odds: float) -> float:
    """A probability whose log odds are moved by so much; 0 and 1 as a millionth beside them."""
    p = min(max(p, 1e-6), 1 - 1e-6)
    return float(1 / (1 + np.exp(-(np.log(p / (1 - p)) + log_odds))))


def of_label(post: PostProcess, label: str) -> PostProcess:
    """The post-processing of one class alone."""
    return replace(post, threshold=post.class_thresholds.get(label, post.threshold), class_thresholds={})


def of_class(found: Predictions, truth: Truth, k: int) -> tuple[Predictions, Truth]:
    """The outputs and answers of class k alone."""
    label = found.classes[k]
    frames = found.framewise_output
    one = Predictions(
        found.clip_ids, (label,), found.clipwise_output[:, [k]], found.fold, found.unreadable,
        framewise_output=None if frames is None else tuple(f[:, [k]] for f in frames), timebase=found.timebase,
    )  # fmt: skip
    events: pd.DataFrame | None = truth.events
    own = None if events is None else events[events.event_label == label]
    return one, replace(truth, target=truth.target[:, [k]], events=own)


def _shown(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        listed = [f"{k} {v:.3g}" for k, v in list(value.items())[:4]]
        return f"{', '.join(listed)}{', ...' if len(value) > 4 else ''}"
    return str(value)

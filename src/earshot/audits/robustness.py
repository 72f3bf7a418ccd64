"""What a run would say of its held-out recordings, had they been recorded otherwise: level, noise, microphone, room.

Each held-out recording is written once more under each change, as a recorder would write it (what goes beyond full
scale is cut off), and predicted by the network of its own fold, by the one path that predicts. Thresholds of events are
those that the other folds choose on the recordings as they are: nothing is tuned on a change.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from earshot.competitions.competition import Competition
from earshot.ensemble.apart import choose_apart, scores_apart
from earshot.events import PostProcess
from earshot.inputs.waveforms import decode
from earshot.metrics.clips import LOWER_IS_BETTER
from earshot.prediction import predictions
from earshot.prediction.inference import Member, predict_members
from earshot.prediction.predictions import Clip, Predictions
from earshot.prediction.truth import Truth
from earshot.sound import audio, changes
from earshot.tasks import Task, score_readable

AS_IT_IS, LEVEL = "as it is", "level "
MOST_CHOOSING = 400  # recordings that choose thresholds
LONGEST_SECONDS = 600.0  # longer recordings are left out: each is written and heard a dozen times


@dataclass(frozen=True)
class Change:
    """A way to record otherwise: apply(waveform, rate in Hz, generator) -> waveform of the same length."""

    name: str
    apply: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def _level(gain_db: float) -> Change:
    return Change(f"{LEVEL}{gain_db:+g} dB", lambda w, rate, rng: changes.louder(w, gain_db))


def _noise(snr_db: float) -> Change:
    return Change(f"white noise at {snr_db:g} dB", lambda w, rate, rng: changes.over_noise(w, snr_db, rng))


def _low_pass(hertz: float) -> Change:
    return Change(f"low-pass {hertz / 1000:g} kHz", lambda w, rate, rng: changes.low_passed(w, rate, hertz))


def _room(rt60: float, direct_db: float) -> Change:
    def apply(waveform: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        return changes.reverberant(waveform, changes.impulse_response(rate, rt60, direct_db, rng))

    return Change(f"reverberation {rt60:g} s, direct sound {direct_db:+g} dB", apply)


CHANGES = (
    Change(AS_IT_IS, lambda w, rate, rng: w),
    *map(_level, (-12.0, -6.0, 6.0, 12.0)), *map(_noise, (20.0, 10.0, 0.0)), *map(_low_pass, (8000.0, 4000.0)),
    _room(0.3, 10.0), _room(0.8, 0.0),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What predictions of a run are scored by: its task and watched score, and its competition's score of events.

    posts: {fold: post-processing}, none where the competition's score takes none or these predictions cannot have it.
    """

    task: Task
    watch: str
    competition: Competition
    posts: Mapping[int, PostProcess | None]

    @classmethod
    def of(cls, task: Task, watch: str, competition: Competition, oof: Predictions, truth: Truth) -> Judge:
        """The judge of a run: where thresholds count, each fold has the one that the other folds choose."""
        score, ranges = competition.oof_score, competition.post
        folds = [int(f) for f in np.unique(oof.fold)]
        start = ranges.start if ranges else None
        posts: dict[int, PostProcess | None] = dict.fromkeys(folds, start)
        has_score = np.isfinite(score.value(oof, truth, start))
        if has_score and ranges and ranges.threshold and len(folds) > 1:
            some = spread_over(oof, None, MOST_CHOOSING)
            posts |= choose_apart(oof.take(some), truth.take(some), score, ranges, steps=("threshold",))
        return cls(task=task, watch=watch, competition=competition, posts=posts)

    def scores(self, found: Predictions, truth: Truth) -> dict[str, float]:
        """The watched score, and the competition's own, mean over the folds that define it."""
        watched = score_readable(self.task, found, truth).get(self.watch, np.nan)
        result, own = {self.watch: float(watched)}, self.competition.oof_score
        of_fold = scores_apart(found, truth, own, self.posts).values()
        known = [values[own.name] for values in of_fold if np.isfinite(values.get(own.name, np.nan))]
        if known:
            name = own.name if own.name != self.watch else f"{own.name} at the other folds' thresholds"
            result[name] = float(np.mean(known))
        return result


def spread_over(oof: Predictions, durations: Sequence[float] | None, most: int) -> np.ndarray:
    """Indices of at most `most` readable recordings, as many of each fold, spread over its clips in order."""
    good = ~np.asarray(oof.unreadable, bool)
    if durations is not None:
        seconds = pd.to_numeric(pd.Series(list(durations)), errors="coerce").to_numpy(float)
        good &= ~(seconds > LONGEST_SECONDS)
    folds = np.unique(oof.fold[good])
    chosen = []
    for number, fold in enumerate(folds):
        own = np.flatnonzero(good & (oof.fold == fold))
        count = min(len(own), most // len(folds) + (number < most % len(folds)))
        chosen += own[np.linspace(0, len(own) - 1, count).round().astype(int)].tolist() if count else []
    return np.array(sorted(set(chosen)), int)


def heard_otherwise(
    members: Mapping[int, Member], clips: Mapping[int, list[Clip]], change: Change, tta=()
) -> Predictions:
    """Predict recordings under a change, each fold's by its own member.

    members, clips: by fold. A recording that cannot be read is marked, as ever.
    """
    parts = []
    for fold, some in clips.items():
        member = replace(members[fold], fold=fold)
        with TemporaryDirectory() as folder:
            written = [written_again(clip, member, change, Path(folder), i) for i, clip in enumerate(some)]
            parts += predict_members([member], written, tta)[0]
    return predictions.join(parts)


def written_again(clip: Clip, member: Member, change: Change, folder: Path, number: int) -> Clip:
    """The recording under the change, in a file of its own; itself where it cannot be read."""
    rate, channels = member.windowing.sample_rate, member.windowing.n_channels
    rng = np.random.default_rng(zlib.crc32(f"{clip.clip_id} {change.name}".encode()))
    try:
        waveform = decode(clip.path, rate, channels)
    except audio.UnreadableAudio:
        return clip
    path = folder / f"{number}.wav"
    audio.write(path, np.clip(change.apply(waveform, rate, rng), -1, 1), rate)
    return replace(clip, path=path, given=None)


def robustness(
    judge: Judge, members: Mapping[int, Member], oof: Predictions, truth: Truth, recordings: Sequence[Clip],
    most: int = 40, tta=(), all_changes: Sequence[Change] = CHANGES, progress: Callable = iter,
) -> pd.DataFrame:  # fmt: skip
    """A row a change: `change, recordings`, each score, and `<score> falls`, how much worse than as it is.

    members: the network of each fold; recordings: those of the OOF, in its order; progress: wraps the changes.
    """
    durations = truth.clips.duration if truth.clips is not None and "duration" in truth.clips else None
    index = spread_over(oof, durations, most)
    clips = {int(f): [recordings[i] for i in index if oof.fold[i] == f] for f in np.unique(oof.fold[index])}
    judge = replace(judge, posts={f: judge.posts[f] for f in clips})
    own_truth, ids = truth.take(index), oof.clip_ids[index]
    rows = []
    for change in progress(all_changes):
        found = heard_otherwise(members, clips, change, tta).aligned(ids)
        rows.append({"change": change.name, "recordings": len(index)} | judge.scores(found, own_truth))
    table = pd.DataFrame(rows)
    own = judge.competition.oof_score
    lower = {*LOWER_IS_BETTER, *([own.name] if own.lower_is_better else [])}
    for name in [c for c in table.columns if c not in ("change", "recordings")]:
        first = table.loc[table.change == AS_IT_IS, name]
        worse = (first.iloc[0] if len(first) else np.nan) - table[name]
        table[f"{name} falls"] = -worse if name in lower else worse
    return table


def largest_fall(table: pd.DataFrame, score: str, changes_named: str = "") -> tuple[float, str]:
    """How much a score falls at most, and by which change of those whose names begin so; NaN where none is."""
    some = table[table.change.str.startswith(changes_named) & (table.change != AS_IT_IS)]
    falls = some.set_index("change")[f"{score} falls"].dropna()
    return (float(falls.max()), str(falls.idxmax())) if len(falls) else (np.nan, "")

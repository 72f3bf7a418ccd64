"""What is done to rows of probabilities once frames were pooled to them: the steps of BirdCLEF 2023 to 2026. No torch.

A row is a stretch of a recording (5 s), (R, K) the rows of a recording in order of time. `PostProcess` has the steps:

    row_rank      each value becomes its place among the class's rows of all recordings (0 to 1]
    row_power     values are raised to it
    row_floor     the rows of a class below this quantile of all its rows become 0, before neighbours are looked at
    row_smooth    a neighbour's weight, the row itself has the rest; the first and the last row have themselves beyond
    row_peak      values times the recording's highest row of the class, to this power
    row_site      weight of what the site says, in log odds: `site_odds`, fitted on annotated recordings
    row_hour      the same of the hour of the day at which the row begins: `hour_odds`

They are done in this order. Those in front of row_smooth change no ROC-AUC by themselves (rank and power keep the order
of a class's rows), but what smoothing and peaks make of rows. Site and hour are read from a recording's name
(`<site>_<date>_<time>`, as BirdCLEF names soundscapes); a name that does not say them, and a site that no annotated
recording is of, leave rows as they are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from earshot.events import PostProcess
from earshot.messages import few
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound.wall_clock import start_of

FLOOR = 1e-6  # a probability's distance from 0 and 1 where log odds are taken
PRIOR_ROWS = 60  # rows of a site or an hour that weigh as much as what all rows say: five minutes of sound
MOST_ODDS = 3.0  # what a site or an hour may add or take
SITE = re.compile(r"(?:^|_)([^_]+)_(?:19|20)\d{6}_\d{6}(?!\d)")
TOUCH = 1e-6  # seconds by which an event must reach into a row

logger = logging.getLogger("earshot")


def site_of(name: str) -> str:
    """The site in a recording's name, in front of date and time; '' where there is none."""
    found = SITE.search(name)
    return found[1] if found else ""


def hours_of(name: str, ends: np.ndarray, row_seconds: float) -> list[str]:
    """The hour of the day ('0' to '23') at which each row begins; '' where the recording's name has no time."""
    start = start_of(name)
    if start is None:
        return [""] * len(ends)
    second = start.hour * 3600 + start.minute * 60 + start.second + np.asarray(ends, float) - row_seconds
    return [str(int(h)) for h in second // 3600 % 24]


def process_rows(
    rows: Sequence[np.ndarray], ends: Sequence[np.ndarray], names: Sequence[str], classes: Sequence[str],
    post: PostProcess, row_seconds: float,
) -> list[np.ndarray]:  # fmt: skip
    """Apply the row steps of the post-processing to the rows of all recordings.

    [(R_i, K)] probabilities in order of time, [(R_i,)] seconds at which they end, names of the recordings -> the same.
    """
    rows = [np.asarray(r, np.float64) for r in rows]
    if not rows:
        return rows
    sizes = np.cumsum([len(r) for r in rows])[:-1]
    if post.row_rank:
        together = np.concatenate(rows)
        rows = np.split(rankdata(together, axis=0) / max(len(together), 1), sizes)
    if post.row_power != 1:
        rows = [r**post.row_power for r in rows]
    if post.row_floor:
        floor = np.quantile(np.concatenate(rows), post.row_floor, axis=0)
        rows = [np.where(r < floor, 0.0, r) for r in rows]
    if post.row_smooth:
        rows = [smooth_rows(r, post.row_smooth) for r in rows]
    if post.row_peak:
        rows = [r * r.max(axis=0, initial=0.0) ** post.row_peak for r in rows]
    if post.row_site and post.site_odds:
        keys = [[site_of(name)] * len(r) for name, r in zip(names, rows, strict=True)]
        rows = [_moved(r, k, post.row_site, post.site_odds, classes) for r, k in zip(rows, keys, strict=True)]
    if post.row_hour and post.hour_odds:
        keys = [hours_of(name, e, row_seconds) for name, e in zip(names, ends, strict=True)]
        rows = [_moved(r, k, post.row_hour, post.hour_odds, classes) for r, k in zip(rows, keys, strict=True)]
    return rows


def say_unknown(names: Sequence[str], post: PostProcess):
    """Warn where the post-processing asks for the site or hour of recordings whose names do not say it."""
    told = {
        "row_site": (post.site_odds, "site", lambda n: site_of(n) in post.site_odds),
        "row_hour": (post.hour_odds, "time", lambda n: start_of(n) is not None),
    }
    for step, (odds, what, known) in told.items():
        if getattr(post, step) and odds and (lost := [n for n in names if not known(n)]):
            logger.warning("%s leaves %d of %d recordings as they are, whose names have no %s that is known: %s",
                           step, len(lost), len(names), what, few(lost))  # fmt: skip


def smooth_rows(rows: np.ndarray, weight: float) -> np.ndarray:
    """Each row with its two neighbours, of which each has this weight: (R, K) -> (R, K)."""
    beyond = np.concatenate([rows[:1], rows, rows[-1:]])
    return (1 - 2 * weight) * rows + weight * (beyond[:-2] + beyond[2:])


def _moved(rows: np.ndarray, keys: list[str], weight: float, odds: Mapping, classes: Sequence[str]) -> np.ndarray:
    """Rows whose log odds were moved by what their site or hour says of each class."""
    table = np.array([[odds.get(key, {}).get(c, 0.0) for c in classes] for key in dict.fromkeys(keys)])
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    offset = weight * table[[place[key] for key in keys]].reshape(rows.shape)
    p = np.clip(rows, FLOOR, 1 - FLOOR)
    return np.where(offset == 0, rows, 1 / (1 + np.exp(-(np.log(p / (1 - p)) + offset))))


def fit_odds(keys: Sequence[str], target: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Learn how much more often each class is heard at a site (or an hour) than anywhere.

    (R,) sites or hours, (R, K) answers -> {key: {class: log odds}}: log of the share of the key's rows over that of all
    rows, both drawn together by PRIOR_ROWS rows; classes that no row has are left out, and keys ''.
    """
    keys, target = np.asarray(keys, dtype=str), np.asarray(target, float)
    known = keys != ""
    if not known.any():
        return {}
    share = target[known].mean(axis=0)
    found = {}
    for key in sorted(set(keys[known])):
        own = target[keys == key]
        drawn = (own.sum(axis=0) + PRIOR_ROWS * share) / (len(own) + PRIOR_ROWS)
        odds = np.log(np.maximum(drawn, 1e-12) / np.maximum(share, 1e-12)).clip(-MOST_ODDS, MOST_ODDS)
        found[key] = {
            str(c): round(float(o), 4) for c, o, s in zip(classes, odds, share, strict=True) if s > 0 and abs(o) > 1e-3
        }
    return found


# ---- rows that have answers


def ends_of(found: Predictions, i: int, row_seconds: float) -> np.ndarray:
    """Seconds at which the rows of the i-th recording end, by its frames; the last row may be a part of one."""
    seconds = found.timebase.seconds(len(found.framewise_output[i]))
    return row_seconds * np.arange(1, max(1, int(np.ceil(seconds / row_seconds - 1e-6))) + 1)


def annotated_rows(
    found: Predictions, truth: Truth, row_seconds: float
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]] | None:
    """The recordings whose every row has an answer, seconds at which their rows end, and (R_i, K) answers.

    None where no annotated recording has an event, or predictions have no frames.
    """
    in_time = truth.in_time(found)
    if in_time is None:
        return None
    known, events = in_time
    names = [str(c) for c in known.clip_ids]
    ends = [ends_of(known, i, row_seconds) for i in range(len(known))]
    heard = [np.zeros((len(e), len(known.classes)), bool) for e in ends]
    recording, column = {n: i for i, n in enumerate(names)}, {c: k for k, c in enumerate(known.classes)}
    first = np.floor((events.onset.to_numpy(float) + TOUCH) / row_seconds).clip(0).astype(int)
    stop = np.ceil((events.offset.to_numpy(float) - TOUCH) / row_seconds).clip(0).astype(int)
    for name, label, begin, end in zip(events.filename, events.event_label, first, stop, strict=True):
        if label in column:
            heard[recording[name]][begin:end, column[label]] = True
    return names, ends, heard

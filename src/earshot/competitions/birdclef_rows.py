"""The rows of BirdCLEF: which there are, predictions -> rows, and their checks.

Rows are named <recording>_<second at which the row ends>. A recording whose length is no multiple of 5 s has a last,
partial row (rests below 0.05 s do not count). Where the sample submission names every recording of the folder its rows
are the test's, in its order; else they follow from the recordings. An unreadable recording counts as long as the
edition's are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.birdcall import touched_rows
from earshot.competitions.checks import column_problems, id_problems, number_problems, refuse
from earshot.events import EVENT_COLUMNS, PostProcess, build_post, detect, median_filter
from earshot.messages import few
from earshot.prediction.predictions import Predictions
from earshot.sound import audio
from earshot.sound.timebase import TimeBase
from earshot.tables import require_columns

ROW_SECONDS = 5
AUDIO_SUFFIXES = (".ogg", ".flac", ".wav", ".mp3")

logger = logging.getLogger("earshot")


def find_test(source: Path, sample: pd.DataFrame, seconds: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(test: row_id, clip_id, seconds; test_clips: clip_id, path) of test_soundscapes and the sample submission."""
    folder = source / "test_soundscapes"
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES) if folder.is_dir() else []
    names = {p.stem: p.name for p in found if not p.name.startswith(".")}
    test = split_rows(sample)
    if not names.keys() <= set(test.clip_id):
        ends = [(name, end) for name in names for end in row_ends(folder / names[name], seconds)]
        test = pd.DataFrame(ends, columns=["clip_id", "seconds"])
        test.insert(0, "row_id", test.clip_id + "_" + test.seconds.astype(str))
    clips = test[["clip_id"]].drop_duplicates(ignore_index=True)
    return test, clips.assign(path=[f"test_soundscapes/{names.get(c, c + '.ogg')}" for c in clips.clip_id])


def row_ends(path: Path, seconds: float) -> list[int]:
    """Seconds at which the rows of a recording end; of an unreadable one as if it were `seconds` long."""
    try:
        seconds = audio.info(path).duration
    except audio.UnreadableAudio as error:
        logger.warning("%s cannot be read and gets the rows of %g s: %s", path.name, seconds, error)
    return [ROW_SECONDS * i for i in range(1, max(1, int(np.ceil((seconds - 0.05) / ROW_SECONDS))) + 1)]


def split_rows(test: pd.DataFrame) -> pd.DataFrame:
    """Any table with `row_id` -> row_id, clip_id, seconds: <clip>_<end>; another name is an error."""
    require_columns(test, ("row_id",), "the test table")
    parts = test.row_id.astype(str).str.extract(r"^(.+)_(\d+)$")
    if parts[0].isna().any():
        raise ValueError(
            f"row_id '{test.row_id[parts[0].isna()].iloc[0]}' is not <recording>_<second at which it ends>"
        )
    return pd.DataFrame({"row_id": test.row_id.astype(str), "clip_id": parts[0], "seconds": parts[1].astype(int)})


def arithmetic_problems(test: pd.DataFrame, complete: bool = True) -> list[str]:
    """Rows end every 5 s, from 5 s on, and without a gap up to the (partial) last one; `test` is from `split_rows`."""
    off = (test.seconds % ROW_SECONDS != 0) | (test.seconds == 0)
    if off.any():
        return [f"{off.sum()} row_id do not end on a multiple of 5 s: {few(test.row_id[off])}"]
    if not complete:
        return []
    rows = test.drop_duplicates(["clip_id", "seconds"]).groupby("clip_id").seconds.agg(["size", "max"])
    gaps = rows.index[rows["max"] // ROW_SECONDS != rows["size"]]
    return [f"{len(gaps)} recordings do not have a row every 5 s up to their last: {few(gaps)}"] if len(gaps) else []


def check_test(test: pd.DataFrame, complete: bool = True) -> pd.DataFrame:
    """A test table -> `split_rows` of it; a row twice, off the grid, or (`complete`) left out is an error."""
    rows = split_rows(test)
    problems = [] if len(rows) else ["it has no rows, so there is nothing to predict"]
    if (twice := rows.row_id[rows.row_id.duplicated()]).size:
        problems.append(f"{twice.nunique()} row_id twice: {few(twice.unique())}")
    refuse(problems + arithmetic_problems(rows, complete), "the test table")
    return rows


# ---- predictions -> rows


def options(post: PostProcess | Mapping | None) -> PostProcess:
    return post if isinstance(post, PostProcess) else build_post(post or {})


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None) -> pd.DataFrame:
    """Framewise predictions -> `row_id` and a probability a class, in the order of `test`.

    A row pools the frames that it touches (`post.row_pool`: max or mean, after `post.median_filter_seconds`). A
    recording without prediction, or unreadable, gets the mean row of the others, and a warning; without any other, 1/K.
    """
    table, post = check_test(test, complete=False), options(post)
    values = np.full((len(table), len(predictions.classes)), np.nan)
    for clip_id, index in usable(predictions, table).items():
        at = table.clip_id.to_numpy() == clip_id
        frames = predictions.framewise_output[index]
        frames = median_filter(frames, 2 * int(predictions.timebase.frame(post.median_filter_seconds / 2)) + 1)
        values[at] = pool_rows(frames, predictions.timebase, table.seconds.to_numpy()[at], post.row_pool)
    lost = np.isnan(values).any(axis=1)
    values[lost] = 1 / values.shape[1] if lost.all() else values[~lost].mean(axis=0)
    return pd.concat([table[["row_id"]], pd.DataFrame(values, columns=list(predictions.classes))], axis=1)


def usable(predictions: Predictions, table: pd.DataFrame) -> dict[str, int]:
    """Recordings of the test with frames -> their place in the predictions; the others are named in a warning."""
    if predictions.framewise_output is None and len(predictions):
        raise ValueError("rows of 5 s need framewise outputs: predict with predict.keep_frames=true")
    place = {str(c): i for i, c in enumerate(predictions.clip_ids) if not predictions.unreadable[i]}
    wanted = table.clip_id.unique()
    found = {c: place[c] for c in wanted if c in place and len(predictions.framewise_output[place[c]])}
    if lost := [c for c in wanted if c not in found]:
        logger.warning("%d of %d recordings have no prediction: %s", len(lost), len(wanted), few(lost))
    return found


def pool_rows(frames: np.ndarray, grid: TimeBase, ends: np.ndarray, pool: str = "max") -> np.ndarray:
    """(T, K) frames, (R,) seconds at which rows end -> (R, K); NaN where a row lies behind the last frame."""
    join = np.max if pool == "max" else np.mean
    first = grid.frame(ends - ROW_SECONDS)
    last = grid.frame(ends - 1e-6) + 1
    empty = np.full(frames.shape[1], np.nan)
    spans = zip(first, last, strict=True)
    return np.stack([join(frames[a:b], axis=0) if a < len(frames) else empty for a, b in spans])


def marked_rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess) -> pd.DataFrame:
    """Events of the recordings -> `clip_id, seconds, event_label` of the rows that they touch (2021, 2022)."""
    found = usable(predictions, test)
    events = [
        detect(
            predictions.framewise_output[i], predictions.timebase, predictions.classes, clip_id, post,
            predictions.clipwise_output[i],
        )
        for clip_id, i in found.items()
    ]  # fmt: skip
    table = pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=list(EVENT_COLUMNS))
    clips = test[["clip_id"]].drop_duplicates().rename(columns={"clip_id": "audio_id"}).assign(site="site_1")
    marked = touched_rows(table, clips)
    parts = split_rows(marked.assign(row_id=marked.row_id.str.removeprefix("site_1_")))
    return parts[["clip_id", "seconds"]].assign(event_label=marked.event_label)


# ---- checks and truth


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` has a row for each of `test`, in its order, and a probability for each of `classes`."""
    test, columns = check_test(test), ["row_id", *classes]
    problems = column_problems(submission, columns)
    if "row_id" in submission:
        problems += id_problems(submission.row_id, test.row_id, "row_id")
        problems += off_grid(submission.row_id, test.row_id)
    refuse(problems + number_problems(submission, classes, 0, 1))


def off_grid(have: pd.Series, want: pd.Series) -> list[str]:
    """Of the rows that nobody asked for, those whose very name is wrong: a hint at how rows are named."""
    odd = [i for i in have.astype(str) if i not in set(want) and not re.fullmatch(r".+_\d*[05]", i)]
    return [f"{len(odd)} row_id do not end on a multiple of 5 s: {few(odd)}"] if odd else []


def aligned(submission: pd.DataFrame, truth: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Truth (0 and 1) and submission, both `row_id` and the classes of the truth -> (N, K) truth, (N, K) scores."""
    classes = [c for c in truth.columns if c != "row_id"]
    require_columns(submission, ("row_id", *classes), "the submission")
    scores = submission.assign(row_id=submission.row_id.astype(str)).set_index("row_id")
    lost = sorted(set(truth.row_id.astype(str)) ^ set(scores.index))
    if lost or not scores.index.is_unique:
        raise ValueError(f"truth and submission do not have the same rows, each once: {few(lost) or 'rows twice'}")
    return truth[classes].to_numpy(), scores.loc[truth.row_id.astype(str), classes].to_numpy(float)

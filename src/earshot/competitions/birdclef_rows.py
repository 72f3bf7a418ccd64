"""The rows of BirdCLEF: which there are, predictions -> rows, their checks and scores, in the three forms of the years.

2021: the species of a row joined by spaces; 2022: yes or no for a bird and row; 2023 on: a probability a class and row.

Rows are named <recording>_<second at which the row ends>. A recording whose length is no multiple of 5 s has a last,
partial row (rests below 0.05 s do not count). Where the sample submission has every row of every recording of the
folder, but at most the partial ones, its rows are the test's, in its order; else they follow from the recordings. An
unreadable recording counts as long as the edition's are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from earshot.competitions import birdcall, oof_scores, row_steps
from earshot.competitions.checks import column_problems, id_problems, label_problems, number_problems, refuse
from earshot.competitions.competition import OofScore
from earshot.competitions.downloads import inner_folder, list_audio
from earshot.events import EVENT_COLUMNS, PostProcess, active, build_post, detect, median_filter
from earshot.messages import few
from earshot.metrics import clips as clip_metrics
from earshot.prediction.detection import at_quantile, classes_present, peak_output
from earshot.prediction.predictions import Predictions
from earshot.prediction.truth import Truth
from earshot.sound import audio
from earshot.sound.timebase import TimeBase
from earshot.tables import require_columns

ROW_SECONDS = 5
SITE_COLUMNS = ("row_id", "site", "audio_id", "seconds")  # of the test table of 2021
BIRD_COLUMNS = ("row_id", "file_id", "bird", "end_time")  # of the test table of 2022

logger = logging.getLogger("earshot")


def tables_of_test(source: Path, sample: pd.DataFrame, seconds: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the tables of the test from its recordings and the sample submission.

    (test: row_id, clip_id, seconds; test_clips: clip_id, path) of test_soundscapes and the sample submission.

    The sample's rows are the test's where they answer every recording of the folder to its end; else (the public sample
    names a few rows of one recording) the rows follow from the recordings, and a warning says so.
    """
    folder = inner_folder(source, "test_soundscapes")
    names, test = test_files(source / folder), split_rows(sample)
    lengths = {name: _length(source / folder / file, seconds) for name, file in names.items()}
    have = test.groupby("clip_id").seconds.agg(set)
    short = [
        name for name, length in lengths.items() if not _ends(length - length % ROW_SECONDS) <= have.get(name, set())
    ]
    if short:
        lacks = "sample_submission.csv does not have all rows of %d recordings of test_soundscapes: "
        logger.warning((lacks if len(sample) else "no sample_submission.csv names the %d recordings of "
                        "test_soundscapes: ") + "the test has the rows that follow from their lengths: %s",
                       len(short), few(short))  # fmt: skip
        ends = [(name, end) for name, length in lengths.items() for end in birdcall.ends_of_rows(length)]
        test = pd.DataFrame(ends, columns=["clip_id", "seconds"])
        test.insert(0, "row_id", test.clip_id + "_" + test.seconds.astype(str))
    clips = test[["clip_id"]].drop_duplicates(ignore_index=True)
    return test, clips.assign(path=[f"{folder}/{names.get(c, c + '.ogg')}" for c in clips.clip_id])


def test_files(folder: Path) -> dict[str, str]:
    """Recordings of the test folder: {clip_id: file name}."""
    return {p.stem: p.name for p in list_audio(folder)}


def say_unasked(found, asked, table: str):
    """Warn of recordings of the test folder that the competition's own test table has no row of."""
    if extra := sorted(set(found) - set(asked)):
        logger.warning("%d recordings of test_soundscapes are in no row of %s and get no answer: %s", len(extra), table,
                       few(extra))  # fmt: skip


def _ends(seconds: float) -> set[int]:
    return set(birdcall.ends_of_rows(seconds))


def _length(path: Path, seconds: float) -> float:
    try:
        return audio.info(path).duration
    except audio.UnreadableAudio as error:
        logger.warning("%s cannot be read and gets the rows of %g s: %s", path.name, seconds, error)
        return seconds


def split_rows(test: pd.DataFrame) -> pd.DataFrame:
    """Any table with `row_id` -> row_id, clip_id, seconds: <clip>_<end>; another name is an error."""
    require_columns(test, ("row_id",), "the test table")
    parts = test.row_id.astype(str).str.extract(r"^(.+)_(\d+)$")
    if parts[0].isna().any():
        raise ValueError(
            f"row_id '{test.row_id[parts[0].isna()].iloc[0]}' is not <recording>_<second at which it ends>"
        )
    return pd.DataFrame({"row_id": test.row_id.astype(str), "clip_id": parts[0], "seconds": parts[1].astype(int)})


def arithmetic_problems(test: pd.DataFrame) -> list[str]:
    """Rows end on multiples of 5 s, from 5 s on; `test` is from `split_rows`. Not all need to be asked for."""
    off = (test.seconds % ROW_SECONDS != 0) | (test.seconds == 0)
    if off.any():
        return [f"{off.sum()} row_id do not end on a multiple of 5 s: {few(test.row_id[off])}"]
    return []


def check_grid(test: pd.DataFrame) -> pd.DataFrame:
    """A test table -> `split_rows` of it; a row twice or off the grid is an error."""
    rows = split_rows(test)
    problems = [] if len(rows) else ["it has no rows, so there is nothing to predict"]
    if (twice := rows.row_id[rows.row_id.duplicated()]).size:
        problems.append(f"{twice.nunique()} row_id twice: {few(twice.unique())}")
    refuse(problems + arithmetic_problems(rows), "the test table")
    return rows


# ---- a probability a class and row: 2023 on


def options(post: PostProcess | Mapping | None) -> PostProcess:
    return post if isinstance(post, PostProcess) else build_post(post or {})


def rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None) -> pd.DataFrame:
    """Framewise predictions -> `row_id` and a probability a class, in the order of `test`.

    A row pools the frames that it touches (`post.row_pool`: max or mean, after `post.median_filter_seconds`); then come
    the steps of row_steps.py. A recording without prediction, or unreadable, gets the mean row of the others, and a
    warning; without any other, 1/K.
    """
    table, post = check_grid(test), options(post)
    values = np.full((len(table), len(predictions.classes)), np.nan)
    rows_of, seconds = table.groupby("clip_id", sort=False).indices, table.seconds.to_numpy()
    pooled, places = [], []
    found = usable(predictions, table)
    for clip_id, index in found.items():
        at = rows_of[clip_id][np.argsort(seconds[rows_of[clip_id]], kind="stable")]
        frames = predictions.framewise_output[index]
        frames = median_filter(frames, 2 * int(predictions.timebase.frame(post.median_filter_seconds / 2)) + 1)
        own = pool_rows(frames, predictions.timebase, seconds[at], post.row_pool)
        there = ~np.isnan(own).any(axis=1)  # not behind the last frame
        pooled.append(own[there])
        places.append(at[there])
    row_steps.say_unknown(list(found), post)
    ends = [seconds[at] for at in places]
    done = row_steps.process_rows(pooled, ends, list(found), predictions.classes, post, ROW_SECONDS)
    for at, own in zip(places, done, strict=True):
        values[at] = own
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
    """Pool framewise probabilities over the five seconds of each row.

    (T, K) frames, (R,) seconds at which rows end -> (R, K); NaN where a row lies behind the last frame.
    """
    join = np.max if pool == "max" else np.mean
    first = grid.frame(ends - ROW_SECONDS)
    last = grid.frame(ends - max(1e-6, 2e-6 * grid.frame_seconds)) + 1  # beyond the grid's own tolerance
    empty = np.full(frames.shape[1], np.nan)
    spans = zip(first, last, strict=True)
    return np.stack([join(frames[a:b], axis=0) if a < len(frames) else empty for a, b in spans])


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` has a row for each of `test`, in its order, and a probability for each of `classes`."""
    test, columns = check_grid(test), ["row_id", *classes]
    problems = column_problems(submission, columns)
    if "row_id" in submission:
        problems += id_problems(submission.row_id, test.row_id, "row_id")
        problems += off_grid(submission.row_id, test.row_id)
    refuse(problems + number_problems(submission, classes, 0, 1))


def off_grid(have: pd.Series, want: pd.Series) -> list[str]:
    """Of the rows that nobody asked for, those whose very name is wrong: a hint at how rows are named."""
    known = set(want)
    odd = [i for i in have.astype(str) if i not in known and not re.fullmatch(r".+_\d*[05]", i)]
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


def score_cmap(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Padded cmAP; `truth` has the columns of the submission with 0 and 1, rows in any order."""
    return {"padded_cmap": clip_metrics.padded_cmap(*aligned(submission, truth))}


def score_roc_auc(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Macro ROC-AUC over the classes with positives (and negatives: the official scorer has no value there)."""
    return {"macro_roc_auc": float(clip_metrics.macro_roc_auc(*aligned(submission, truth)))}


# ---- events mark rows: 2021 and 2022


def marked_rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess) -> pd.DataFrame:
    """Events of the recordings -> `clip_id, seconds, event_label` of the rows that they touch (2021, 2022)."""
    found = usable(predictions, test)
    if post.threshold_quantile is not None:
        seconds = test.drop_duplicates(["clip_id", "seconds"]).groupby("clip_id").seconds
        ends = {clip_id: np.sort(own.to_numpy()) for clip_id, own in seconds if clip_id in found}
        grid, frames = predictions.timebase, predictions.framewise_output
        rows_of = [pool_rows(frames[found[clip_id]], grid, own) for clip_id, own in ends.items()]
        peaks = np.concatenate(rows_of) if rows_of else np.zeros((0, len(predictions.classes)))
        post = at_quantile(post, peaks[~np.isnan(peaks).any(axis=1)], predictions.classes)
    events = [
        detect(
            predictions.framewise_output[i], predictions.timebase, predictions.classes, clip_id, post,
            predictions.clipwise_output[i],
        )
        for clip_id, i in found.items()
    ]  # fmt: skip
    table = pd.concat(events, ignore_index=True) if events else pd.DataFrame(columns=list(EVENT_COLUMNS))
    clips = test[["clip_id"]].drop_duplicates().rename(columns={"clip_id": "audio_id"}).assign(site="site_1")
    marked = birdcall.touched_rows(table, clips)
    parts = split_rows(marked.assign(row_id=marked.row_id.str.removeprefix("site_1_")))
    return parts[["clip_id", "seconds"]].assign(event_label=marked.event_label)


# ---- the species of a row as text: 2021


def check_site_columns(test: pd.DataFrame):
    """Raise unless row_id follows from audio_id, site and seconds in every row."""
    expected = test.audio_id.astype(str) + "_" + test.site.astype(str) + "_" + test.seconds.astype(str)
    wrong = expected != test.row_id.astype(str)
    text = f"{wrong.sum()} row_id do not follow from audio_id, site, seconds: {few(test.row_id[wrong])}"
    problems = [text] if wrong.any() else []
    if (twice := test.row_id[test.row_id.duplicated()]).size:
        problems.append(f"{twice.nunique()} row_id twice: {few(twice.unique())}")
    refuse(problems, "the test table")


def species_rows(
    predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None
) -> pd.DataFrame:
    """Framewise predictions -> `row_id, birds` in the order of `test`: who has an event that touches the row.

    A recording without prediction, or unreadable, is `nocall` throughout, with a warning.
    """
    table = check_grid(test)
    marked = marked_rows(predictions, table, options(post))
    marked["row_id"] = marked.clip_id + "_" + marked.seconds.astype(str)
    return birdcall.answers(marked.sort_values(["row_id", "event_label"]), table)


def validate_species(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` answers `test`, row by row, with sorted species of `classes`, or with nocall alone."""
    test = check_grid(test)
    refuse(birdcall.answer_problems(submission, test, classes))


# ---- a yes or no for a bird and row: 2022


def check_bird_rows(test: pd.DataFrame):
    """Raise unless each row_id follows from its columns, is there once, and ends on a multiple of 5 s."""
    require_columns(test, BIRD_COLUMNS, "the test table")
    problems = [] if len(test) else ["it has no rows, so there is nothing to predict"]
    expected = test.file_id.astype(str) + "_" + test.bird.astype(str) + "_" + test.end_time.astype(str)
    ends = pd.to_numeric(test.end_time, errors="coerce")
    off = ~((ends % ROW_SECONDS == 0) & (ends > 0))
    for wrong, text in (
        (expected != test.row_id.astype(str), "row_id do not follow from file_id, bird, end_time"),
        (test.row_id.duplicated(), "row_id twice"),
        (off, "row_id do not end on a multiple of 5 s"),
    ):
        if wrong.any():
            problems.append(f"{wrong.sum()} {text}: {few(test.row_id[wrong])}")
    refuse(problems, "the test table")


def bird_rows(predictions: Predictions, test: pd.DataFrame, post: PostProcess | Mapping | None = None) -> pd.DataFrame:
    """Framewise predictions -> `row_id, target` in the order of `test`: True where the bird has an event in the row.

    A recording without prediction, or unreadable, is False throughout, with a warning.
    """
    check_bird_rows(test)
    refuse(label_problems(test.bird, predictions.classes, "the test table"), "predictions: their class list")
    table = pd.DataFrame({"row_id": test.row_id, "clip_id": test.file_id.astype(str), "seconds": test.end_time})
    marked = marked_rows(predictions, table, options(post))
    names = marked.clip_id + "_" + marked.event_label + "_" + marked.seconds.astype(str)
    return pd.DataFrame({"row_id": test.row_id.to_numpy(), "target": test.row_id.isin(set(names)).to_numpy()})


def validate_birds(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless `submission` says True or False in each row of `test`, in its order; birds are of `classes`."""
    check_bird_rows(test)
    problems = column_problems(submission, ("row_id", "target")) + label_problems(test.bird, classes, "the test table")
    if "row_id" in submission:
        problems += id_problems(submission.row_id, test.row_id, "row_id")
    if "target" in submission:
        wrong = ~submission.target.astype(str).isin(("True", "False"))
        if wrong.any():
            problems.append(f"target is neither True nor False in {wrong.sum()} rows: {few(submission.target[wrong])}")
    refuse(problems)


def score_birds(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Mean over birds of (TPR + TNR) / 2, and how many could be scored; `truth` is `row_id, target`, in any order."""
    for name, table in (("submission", submission), ("truth", truth)):
        require_columns(table, ("row_id", "target"), f"the {name}")
    if problems := id_problems(submission.row_id.sort_values(), truth.row_id.sort_values(), "row_id"):
        raise ValueError("the submission does not answer the rows of this truth: " + "; ".join(problems))
    said = submission.set_index("row_id").target.astype(str).eq("True").reindex(truth.row_id).to_numpy()
    true = truth.target.astype(str).eq("True").to_numpy()
    birds = truth.row_id.astype(str).str.rsplit("_", n=2).str[1].to_numpy()
    values = [balanced_accuracy(true[birds == bird], said[birds == bird]) for bird in np.unique(birds)]
    scored = [v for v in values if v is not None]
    if not scored:
        raise ValueError(f"none of {len(values)} birds has rows with it and rows without it: there is no score")
    return {"balanced_accuracy": float(np.mean(scored)), "birds_scored": len(scored)}


def balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> float | None:
    """Average the shares of positives and of negatives that are right.

    (N,) booleans -> (TPR + TNR) / 2; None without positives or without negatives.
    """
    if truth.all() or not truth.any():
        return None
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)


# ---- what an OOF is scored by: each clip as one row


def bird_values(found: Predictions, truth: Truth, post: PostProcess | None = None) -> dict[str, float]:
    """As `score_birds`, of an OOF: each clip is one row a bird."""
    present, target = classes_present(found, post or PostProcess()), truth.target > 0.5
    values = [balanced_accuracy(true, said) for true, said in zip(target.T, present.T, strict=True)]
    scored = [v for v in values if v is not None]
    return {"balanced_accuracy": float(np.mean(scored)), "birds_scored": len(scored)} if scored else {}


def best_bird_thresholds(found: Predictions, truth: Truth) -> tuple[float, np.ndarray]:
    """The threshold of THRESHOLDS with the best mean over birds, and (K,) the best one of each bird, exact.

    A bird without positives, or without negatives, takes the common threshold.
    """
    peaks, target = peak_output(found), truth.target > 0.5
    scored = target.any(axis=0) & ~target.all(axis=0)

    def mean(threshold: float) -> float:
        said = active(peaks[:, scored], threshold)
        return float(np.mean([balanced_accuracy(t, s) for t, s in zip(target[:, scored].T, said.T, strict=True)]))

    one = max(oof_scores.THRESHOLDS, key=mean) if scored.any() else 0.5
    many = np.full(target.shape[1], one)
    for k in np.flatnonzero(scored):
        false, true, at = roc_curve(target[:, k], peaks[:, k], drop_intermediate=False)
        best = int(np.argmax(true - false))
        many[k] = 1.0 if best == 0 else at[best : best + 2].mean()  # between the last that is let in and the next
    return one, many


def _rated(target: np.ndarray, scores: np.ndarray) -> bool:
    return oof_scores.is_probability(target, scores) and bool(target.any())


BALANCED_ACCURACY = OofScore("balanced_accuracy", bird_values, thresholds=best_bird_thresholds)
PADDED_CMAP = oof_scores.of_pooled_rows("padded_cmap", oof_scores.padded_cmap, _rated, pool_rows, ROW_SECONDS)
MACRO_ROC_AUC = oof_scores.of_pooled_rows(
    "macro_roc_auc", clip_metrics.macro_roc_auc, oof_scores.has_both_kinds, pool_rows, ROW_SECONDS
)

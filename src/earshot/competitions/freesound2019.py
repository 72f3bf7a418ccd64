"""Freesound Audio Tagging 2019 (Kaggle; DCASE 2019 task 2): 80 everyday sounds, few curated and many noisy labels.

Download: train_curated.csv and train_noisy.csv (`fname, labels`, names joined by commas), train_curated/, train_noisy/,
test/ (the public part; kernels see all), sample_submission.csv (`fname` and 80 columns, the classes in their order). Or
the archive FSDKaggle2019: FSDKaggle2019.meta/ with train_curated_post_competition.csv, ... , vocabulary.csv and the
test's truth, FSDKaggle2019.audio_train_curated/, ...

The curated clips alone are the default. `noisy=true` adds the noisy ones, which always train (fold -1): a CV on noisy
labels would say little about the test, whose labels are curated. The curated ones then get five folds here
(folds.make_folds, as official_fold), because a table has folds of its own for all clips or for none. `subset` says
which part a clip is of.

A kernel had 4 hours of CPU (or one of GPU), without internet or packages of one's own; external data and pretrained
weights were not allowed. Score: LWLRAP; each class weighs as many labels as it has, one without labels nothing.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.competitions.clip_rows import class_scores, sample_ids, tested
from earshot.competitions.competition import Competition, Limits, Rules, by_name
from earshot.competitions.downloads import found_below, inner_folder, list_audio, located
from earshot.competitions.label_texts import check_labelled, respelled
from earshot.competitions.oof_scores import LWLRAP
from earshot.competitions.tables import Tables, absent, check_submission, class_name, classes_of_sample, present
from earshot.data.folds import TRAIN_ONLY, make_folds
from earshot.messages import few, suggest
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions
from earshot.tables import read_rows, read_table, require_columns, require_rows

TEST_COLUMNS = ("fname",)  # of the test table
ARCHIVE = "FSDKaggle2019."  # how its folders begin
# part -> its tables and its folders, Kaggle's and the archive's
TABLES = ("{}.csv", "{}_post_competition.csv", ARCHIVE + "meta/{}_post_competition.csv")
AUDIO = ("{}", ARCHIVE + "audio_{}")


@found_below("train_curated.csv", "train_curated_post_competition.csv", ARCHIVE + "meta")
def prepare(source: Path, noisy: bool = False) -> Tables:
    """Download folder -> clips (curated, with `noisy` the others too), 80 classes, the test."""
    source = Path(source)
    classes, sample = _classes(source)
    truth = _truth(source, classes)
    if sample is not None:
        names = tested(sample, (p.name for p in list_audio(source / _folder(source, "test"))), "sample_submission.csv")
    elif truth is not None:
        names = truth.fname
    else:
        raise ValueError(f"{source} says nothing of the test: it has neither sample_submission.csv nor its truth")
    clips = _clips(source, "curated", classes)
    if noisy:
        folds = make_folds(clips).set_index("clip_id").fold
        clips["official_fold"] = clips.clip_id.map(folds)
        clips = pd.concat([clips, _clips(source, "noisy", classes).assign(official_fold=TRAIN_ONLY)], ignore_index=True)
    test_clips = pd.DataFrame({"clip_id": [Path(f).stem for f in names], "path": _folder(source, "test") + "/" + names})
    clips, test_clips = located(clips, source), located(test_clips, source)
    missing = absent(clips, source) + absent(test_clips, source)
    clips = present(clips, source, "train_curated.csv")
    test = names.to_frame("fname").reset_index(drop=True)
    return Tables(
        clips=clips, classes=classes, test_clips=test_clips, test=test, missing=missing, task="tagging", truth=truth
    )


def _classes(source: Path) -> tuple[list[str], pd.Series | None]:
    """(class names, `fname` of the sample submission): its columns, else vocabulary.csv of the archive."""
    if (source / "sample_submission.csv").is_file():
        sample = read_table(source / "sample_submission.csv", ("fname",))
        return classes_of_sample(sample, "fname", source / "sample_submission.csv"), sample.fname
    places = [source / name for name in ("vocabulary.csv", ARCHIVE + "meta/vocabulary.csv")]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"{source / 'sample_submission.csv'} does not exist, nor the archive's vocabulary.csv, to name classes"
        )
    return vocabulary(path), None


def vocabulary(path: Path) -> list[str]:
    """The archive's vocabulary.csv, `index, name` with or without a header -> the names; a name may hold commas."""
    rows = [row for row in read_rows(path) if row[0] != "index"]
    return [class_name(",".join(row[1:] if row[0].isdigit() else row)) for row in rows]


def _table(source: Path, part: str) -> Path | None:
    return next((p for p in (source / name.format(part) for name in TABLES) if p.is_file()), None)


def _folder(source: Path, part: str) -> str:
    names = AUDIO[::-1] if (source / f"{ARCHIVE}meta").is_dir() else AUDIO
    return inner_folder(source, *(name.format(part) for name in names))


def _labels(path: Path, classes) -> tuple[pd.DataFrame, list[list[str]]]:
    """A table `fname, labels` -> it, and the class names of each row; what is no class is an error."""
    table = read_table(path, ("fname", "labels")).drop_duplicates(ignore_index=True)
    names = [[class_name(n) for n in text.split(",") if n.strip()] for text in table.labels]
    require_rows(table, path)
    check_labelled(table.fname, [" ".join(some) for some in names], path.name)
    named = sorted({n for some in names for n in some})
    spelling = dict(zip(named, respelled(named, classes, path.name), strict=True))
    if unknown := sorted(set(spelling.values()) - set(classes)):
        raise ValueError(
            f"{path.name} names {len(unknown)} labels that are no column of sample_submission.csv: "
            f"{few(unknown)}{suggest(unknown[0], classes)}"
        )
    return table, [list(dict.fromkeys(spelling[n] for n in some)) for some in names]


def _clips(source: Path, subset: str, classes) -> pd.DataFrame:
    path = _table(source, f"train_{subset}")
    if path is None:
        raise ValueError(f"{source} has no train_{subset}.csv")
    table, names = _labels(path, classes)
    return pd.DataFrame({
        "clip_id": [Path(f).stem for f in table.fname],
        "path": _folder(source, f"train_{subset}") + "/" + table.fname,
        "labels": [" ".join(some) for some in names], "subset": subset,
    })  # fmt: skip


def _truth(source: Path, classes) -> pd.DataFrame | None:
    """`fname` and 0 or 1 a class, where the archive's truth of the test is there."""
    path = _table(source, "test")
    if path is None or path.name == "test.csv":
        return None
    table, names = _labels(path, classes)
    heard = pd.DataFrame([[int(c in some) for c in classes] for some in names], columns=list(classes))
    return pd.concat([table[["fname"]], heard], axis=1)


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions -> `fname` and a score a class, in the order of `test`; `post` is not used."""
    require_columns(test, TEST_COLUMNS, "the test table")
    scores = class_scores(predictions, [Path(f).stem for f in test.fname], predictions.classes)
    table = pd.DataFrame(scores, columns=list(predictions.classes), index=test.index)
    return pd.concat([test[["fname"]], table], axis=1)


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless the columns, the files and their order are those of the competition and every score is finite."""
    require_columns(test, TEST_COLUMNS, "the test table")
    check_submission(submission, ("fname", *classes), test.fname, list(classes))


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """LWLRAP; `truth` has the columns of the submission with 0 and 1, files in any order."""
    classes = [c for c in truth.columns if c != "fname"]
    require_columns(submission, ("fname", *classes), "the submission")
    truth = truth.set_index("fname").reindex(submission.fname)
    if (lost := truth[classes].isna().any(axis=1)).any():
        raise ValueError(f"the truth lacks {few(truth.index[lost])}")
    return {"lwlrap": clip_metrics.lwlrap(truth[classes].to_numpy(), submission[classes].to_numpy(float))}


# ---- the hidden test of a kernel, and the edition


def _hidden_ids(table: pd.DataFrame) -> pd.Series:
    return sample_ids(table, "fname").map(lambda name: Path(name).stem)


def _hidden_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"fname": [f"{name}.wav" for name, _ in recordings]})


HIDDEN = Rules(
    slug="freesound-audio-tagging-2019", folder="test", table="sample_submission.csv", seconds=10.0, read=_hidden_ids,
    make=_hidden_rows, sample=True, key="fname",
)  # fmt: skip
EDITIONS = by_name(
    Competition(
        name="freesound2019", task="tagging", prepare=prepare, rows=rows, validate=validate, score=score,
        limits=Limits(minutes=240), hidden=HIDDEN, oof_score=LWLRAP,
    )
)  # fmt: skip

"""DCASE 2018 task 2, Freesound General-Purpose Audio Tagging (Kaggle): 41 labels, one a clip of 0.3 to 30 s; MAP@3.

Source: the Kaggle download (train.csv `fname, label, manually_verified`, sample_submission.csv, audio_train/,
audio_test/; with the later *_post_competition.csv the truth of the test is known), or the archive FSDKaggle2018
(FSDKaggle2018.meta/, FSDKaggle2018.audio_train/, ...). Of the Kaggle test only some clips count: those whose `usage` is
not Ignored. There are no official folds: src/make_folds.py stratifies by label (seed 42).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from earshot.competitions.clip_rows import tested
from earshot.competitions.competition import Competition, by_name
from earshot.competitions.downloads import found_below, inner_folder, list_audio, located
from earshot.competitions.label_texts import check_labelled, one_spelling, respelled
from earshot.competitions.oof_scores import mean_precision_at
from earshot.competitions.tables import Tables, absent, check_submission, class_name, present, require_columns
from earshot.messages import few, suggest
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

TRAIN = ("train.csv", "train_post_competition.csv", "FSDKaggle2018.meta/train_post_competition.csv")
TRUTH = ("test_post_competition.csv", "test_post_competition_scoring_clips.csv",
         "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv",
         "FSDKaggle2018.meta/test_post_competition.csv")  # fmt: skip
AUDIO = ("audio_{}", "FSDKaggle2018.audio_{}")
ANSWERS = 3
TEST_COLUMNS = ("clip_id", "fname")  # of the test table


@found_below(*TRAIN)
def prepare(source: Path) -> Tables:
    """Download folder -> one clip a row of the training table, with `manually_verified` (0 or 1); the test."""
    source = Path(source)
    train = read_table(_find(source, TRAIN), ("fname", "label", "manually_verified")).drop_duplicates(ignore_index=True)
    check_labelled(train.fname, train.label, "the training table")
    train["label"] = one_spelling(train.label.map(class_name), "the training table")
    clips = _clips(train.fname, source, "train").assign(
        labels=train.label.to_numpy(), manually_verified=train.manually_verified.to_numpy(), filename=train.fname
    )
    classes = sorted(train.label.unique())
    truth = _truth(source, classes)
    sample = source / "sample_submission.csv"
    if sample.is_file():
        found = (p.name for p in list_audio(source / _folder(source, "test")))
        names = tested(read_table(sample, ("fname", "label")).fname, found, sample.name)
    elif truth is not None:
        names = truth.fname
    else:
        raise ValueError(f"{source} says nothing of the test: it holds neither sample_submission.csv nor {TRUTH[0]}")
    clips, test_clips = located(clips, source), located(_clips(names, source, "test"), source)
    test = pd.DataFrame({"fname": names.to_numpy(), "clip_id": test_clips.clip_id})
    missing = absent(clips, source) + absent(test_clips, source)
    clips = present(clips, source, "the training table")
    return Tables(
        clips=clips,
        classes=classes,
        events=None,
        test_clips=test_clips,
        test=test,
        missing=missing,
        task="tagging",
        truth=truth,
    )


def rows(predictions: Predictions, test: pd.DataFrame, post=None) -> pd.DataFrame:
    """Predictions -> `fname, label`: the three best classes, best first, joined by spaces; `post` is not used."""
    require_columns(test, TEST_COLUMNS, "the test table")
    scores = predictions.aligned(test.clip_id).clipwise_output
    best = np.argsort(-scores, axis=1, kind="stable")[:, :ANSWERS]
    names = np.array(predictions.classes)[best]
    return pd.DataFrame({"fname": test.fname.to_numpy(), "label": [" ".join(some) for some in names]})


def validate(submission: pd.DataFrame, test: pd.DataFrame, classes):
    """Raise unless every clip of `test` has one row, in its order, with one to three different labels of `classes`.

    Kaggle's own sample writes Hi-Hat where the training table has Hi-hat: other cases are let through, with a warning.
    """
    require_columns(test, TEST_COLUMNS, "the test table")
    check_submission(submission, ("fname", "label"), test.fname)
    named = sorted({name for text in submission.label if isinstance(text, str) for name in text.split()})
    spelled = dict(zip(named, respelled(named, classes, "the submission"), strict=True))
    for fname, text in zip(submission.fname, submission.label, strict=True):
        given = [spelled[name] for name in text.split()] if isinstance(text, str) else []
        if not 1 <= len(given) <= ANSWERS or len(set(given)) < len(given):
            raise ValueError(f"submission: '{fname}' needs 1 to {ANSWERS} different labels, got '{text}'")
        for name in given:
            if name not in classes:
                raise ValueError(f"submission: '{fname}' has the unknown label '{name}'{suggest(name, classes)}")


def score(submission: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """MAP@3 over the clips of `truth` (`fname, label`): the mean of 1 / place of the true label, 0 past the third."""
    require_columns(truth, ("fname", "label"), "the truth")
    given = submission.set_index("fname").label
    if lost := sorted(set(truth.fname) - set(given.index)):
        raise ValueError(f"the submission lacks {len(lost)} of the {len(truth)} scored clips: {few(lost)}")
    places = [given[f].split()[:ANSWERS] for f in truth.fname]
    gains = [1 / (1 + some.index(t)) if t in some else 0.0 for some, t in zip(places, truth.label, strict=True)]
    return {"map@3": float(np.mean(gains))}


def _truth(source: Path, classes) -> pd.DataFrame | None:
    """`fname, label` of the test clips that count, where the download has them."""
    path = next((source / name for name in TRUTH if (source / name).is_file()), None)
    if path is None:
        return None
    truth = read_table(path, ("fname", "label"))
    if "usage" in truth:
        truth = truth[truth.usage != "Ignored"]
    truth = truth.assign(label=respelled([class_name(n) for n in truth.label], classes, path.name))
    unknown = sorted(set(truth.label) - set(classes))
    if unknown:
        raise ValueError(
            f"{path} has the label '{unknown[0]}', which no training clip has{suggest(unknown[0], classes)}"
        )
    return truth[["fname", "label"]].reset_index(drop=True)


def _clips(names: pd.Series, source: Path, part: str) -> pd.DataFrame:
    folder = _folder(source, part)
    return pd.DataFrame({"clip_id": [Path(n).stem for n in names], "path": [f"{folder}/{n}" for n in names]})


def _folder(source: Path, part: str) -> str:
    return inner_folder(source, *(name.format(part) for name in AUDIO))


def _find(source: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (source / name).is_file():
            return source / name
    raise ValueError(f"{source} holds none of {', '.join(names)}; is --source the unzipped download?")


EDITIONS = by_name(
    Competition(
        name="dcase2018_task2", task="tagging", prepare=prepare, rows=rows, validate=validate, score=score,
        oof_score=mean_precision_at(ANSWERS),
    )
)  # fmt: skip

"""BirdCLEF (Kaggle, every year since 2021): species of focal recordings are to be found in soundscapes, in rows of 5 s.

Download: what birdclef_recordings.py reads, and sample_submission.csv; test_soundscapes/*.ogg, empty or nearly so until
a kernel is scored. Classes are the submission's columns in its order, from 2023 on. Kernels run without internet.

- 2021: 397 species, about 80 hidden soundscapes of 10 minutes; 3 hours, CPU or GPU (sources differ: once 9). test.csv
  (`row_id, site, audio_id, seconds`), test_soundscapes/<audio_id>_<site>_<date>.ogg; rows are named
  <audio_id>_<site>_<end second>. A row's answer is its species, sorted, joined by spaces, or `nocall`. Score: row-wise
  micro F1, `nocall` being a label.
- 2022: 152 species, 21 of them scored, about 5,500 hidden soundscapes of 1 minute; 9 hours, CPU or GPU.
  scored_birds.json (a list), test.csv (`row_id, file_id, bird, end_time`), test_soundscapes/<file_id>.ogg. A row is one
  scored bird in 5 s: <file_id>_<bird>_<end second>, and its `target` True or False. All species are classes, only the
  scored ones have rows. Score: for each bird the mean of its true positive rate and its true negative rate, then the
  mean over birds: of the published descriptions ("most similar to macro F1") what a winner's code computes. A bird
  without positives, or without negatives, has no such value and is left out; how the official scorer counts it is not
  known.
- 2023: 264 species, about 200 hidden soundscapes of 10 minutes; 2 hours on 4 CPU cores. Score: padded cmAP, the macro
  average precision after five rows of ones under truth and submission alike, so that a class without positives counts.
- 2024: 182 species, about 1,100 of 4 minutes; 2 hours on 4 CPU cores (a GPU notebook gets one minute). Score: macro
  ROC-AUC, as in the later years. unlabeled_soundscapes/ holds more of the test's sites, without labels.
- 2025: 206 species, about 700 of 1 minute; 90 minutes. train_soundscapes/ has no labels.
- 2026: 234 species, about 600 of 1 minute; 90 minutes. Some of train_soundscapes/ have labels. Recordings are named
  BC2026_Test_0001_S05_20250227_010002: number, site, date, time.

Soundscapes without labels are listed in unlabelled.csv: they train nothing until somebody labels them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from earshot.competitions import birdcall, birdclef_recordings, birdclef_rows
from earshot.competitions.birdcall import ends_of_rows
from earshot.competitions.birdclef_rows import BIRD_COLUMNS, SITE_COLUMNS, check_bird_rows, check_site_columns
from earshot.competitions.checks import label_problems, refuse
from earshot.competitions.competition import Competition, Limits, OofScore, Rules, by_name
from earshot.competitions.downloads import found_below, inner_folder
from earshot.competitions.oof_scores import QUANTILE_ROWS, ROW_MICRO_F1, SCORE_ROWS
from earshot.competitions.tables import Tables, absent, classes_of_sample
from earshot.messages import few
from earshot.stored import read_json
from earshot.tables import read_table, require_columns, require_rows

logger = logging.getLogger("earshot")


@found_below(*birdclef_recordings.METADATA)
def prepare(source: Path, seconds: float = 60.0) -> Tables:
    """Download folder of 2023 or later -> tables; `seconds`: the length of test recordings, for an unreadable one.

    Without a sample submission the classes are the species of the training table, sorted, which a warning says.
    """
    source = Path(source)
    if (source / "sample_submission.csv").is_file():
        sample = read_table(source / "sample_submission.csv", ("row_id",))
        classes = classes_of_sample(sample, "row_id", source / "sample_submission.csv")
    else:
        sample, classes = pd.DataFrame({"row_id": []}, dtype=str), birdclef_recordings.classes_of(source)
        logger.warning("%s has no sample_submission.csv: the %d classes are those of the training table, sorted",
                       source, len(classes))  # fmt: skip
    test, test_clips = birdclef_rows.tables_of_test(source, sample, seconds)
    train = birdclef_recordings.train_tables(source, classes)
    train = replace(train, unlabelled=birdclef_recordings.unlabelled_soundscapes(source))
    if not len(test):
        return train
    return with_test(train, source, test, test_clips)


def with_test(train: Tables, source: Path, test: pd.DataFrame, test_clips: pd.DataFrame) -> Tables:
    """The tables of the training recordings with those of a test; `missing` counts the absent files of both."""
    return replace(train, test_clips=test_clips, test=test, missing=train.missing + absent(test_clips, source))


@found_below(*birdclef_recordings.METADATA)
def prepare_2021(source: Path) -> Tables:
    """Download folder -> clips (focal and labelled soundscapes), classes sorted, and the test of test.csv."""
    source = Path(source)
    classes = birdclef_recordings.classes_of(source)
    test = read_table(source / "test.csv", SITE_COLUMNS)
    require_rows(test, source / "test.csv")
    check_site_columns(test)
    folder = inner_folder(source, "test_soundscapes")
    found = birdclef_recordings.by_recording(source / folder)
    recordings = (test.audio_id.astype(str) + "_" + test.site.astype(str)).drop_duplicates()
    birdclef_rows.say_unasked(found, recordings, "test.csv")
    test_clips = pd.DataFrame({
        "clip_id": recordings.to_numpy(),
        "path": [f"{folder}/{found.get(c, c + '.ogg')}" for c in recordings],
    })  # fmt: skip
    return with_test(birdclef_recordings.train_tables(source, classes, "train_short_audio"), source, test, test_clips)


@found_below(*birdclef_recordings.METADATA)
def prepare_2022(source: Path) -> Tables:
    """Download folder -> clips, all species sorted as classes, the test of test.csv."""
    source = Path(source)
    classes = birdclef_recordings.classes_of(source)
    test = read_table(source / "test.csv", BIRD_COLUMNS)
    check_bird_rows(test)
    scored = source / "scored_birds.json"
    scored = _scored_birds(scored)
    problems = label_problems(scored, classes, "scored_birds.json") + label_problems(test.bird, scored, "test.csv")
    refuse(problems, "the download")
    test_clips = pd.DataFrame({"clip_id": test.file_id.astype(str).unique()})
    folder = inner_folder(source, "test_soundscapes")
    found = birdclef_rows.test_files(source / folder)
    birdclef_rows.say_unasked(found, test_clips.clip_id, "test.csv")
    test_clips["path"] = [f"{folder}/{found.get(c, c + '.ogg')}" for c in test_clips.clip_id]
    return with_test(birdclef_recordings.train_tables(source, classes), source, test, test_clips)


# ---- the hidden test of a kernel


def _sample_ids(table: pd.DataFrame) -> pd.Series:
    return birdclef_rows.check_grid(table).clip_id


def _sample_rows(recordings, classes, source) -> pd.DataFrame:
    return pd.DataFrame({"row_id": [f"{name}_{end}" for name, seconds in recordings for end in ends_of_rows(seconds)]})


def _site_ids(table: pd.DataFrame) -> pd.Series:
    require_columns(table, SITE_COLUMNS, "test.csv")
    check_site_columns(table)
    birdclef_rows.check_grid(table)
    return table.audio_id.astype(str) + "_" + table.site.astype(str)


def _site_rows(recordings, classes, source) -> pd.DataFrame:
    rows = [(f"{n}_{end}", *reversed(n.split("_")), end) for n, seconds in recordings for end in ends_of_rows(seconds)]
    return pd.DataFrame(rows, columns=list(SITE_COLUMNS))


def _split_sample(names: pd.Series) -> pd.DataFrame:
    """Row names of a sample submission as they are; one that no row can have is ''."""
    seconds = pd.to_numeric(names.str.extract(r"^.+_(\d+)$")[0])
    return pd.DataFrame({"row_id": names.where((seconds > 0) & (seconds % birdclef_rows.ROW_SECONDS == 0), "")})


def _split_site_names(names: pd.Series) -> pd.DataFrame:
    """<audio_id>_<site>_<seconds> -> its columns; the row_id of another name is ''."""
    parts = names.str.extract(r"^(?P<audio_id>.+)_(?P<site>[^_]+)_(?P<seconds>\d+)$")
    return _split_sample(names).assign(site=parts.site, audio_id=parts.audio_id, seconds=parts.seconds)


def _split_bird_names(names: pd.Series) -> pd.DataFrame:
    """<file_id>_<bird>_<end_time> -> its columns; the row_id of another name is ''."""
    parts = names.str.extract(r"^(?P<file_id>.+)_(?P<bird>[^_]+)_(?P<end_time>\d+)$")
    return _split_sample(names).assign(file_id=parts.file_id, bird=parts.bird, end_time=parts.end_time)


def _site_clip(stem: str) -> str:
    """<audio_id>_<site>_<date> -> <audio_id>_<site>; a name without a site gets one, as rows need it."""
    return "_".join([*stem.split("_"), "site"][:2])


def _bird_ids(table: pd.DataFrame) -> pd.Series:
    check_bird_rows(table)
    return table.file_id


def _scored_birds(path: Path) -> list[str]:
    """The list in scored_birds.json."""
    birds = read_json(path, "file", "is --source the unzipped download of 2022?", kind=list)
    if not all(isinstance(bird, str) for bird in birds):
        raise ValueError(f"{path} lists more than names of birds: {few(birds)}")
    return birds


def _bird_rows(recordings, classes, source) -> pd.DataFrame:
    """A row a scored bird and 5 s; without scored_birds.json all classes count as scored."""
    scored = source / "scored_birds.json"
    birds = _scored_birds(scored) if scored.is_file() else classes
    rows = [(f"{n}_{b}_{end}", n, b, end) for n, seconds in recordings for b in birds for end in ends_of_rows(seconds)]
    return pd.DataFrame(rows, columns=list(BIRD_COLUMNS))


# ---- the editions


def _hidden(year: int, seconds: float, table: str = "test.csv", **how) -> Rules:
    return Rules(slug=f"birdclef-{year}", folder="test_soundscapes", table=table, seconds=seconds, **how)


def _edition(year: int, minutes: float, seconds: float, score, oof_score: OofScore) -> Competition:
    """A year with a probability a class and row. minutes: a kernel's; seconds: the length of test recordings."""
    sample = {"read": _sample_ids, "make": _sample_rows, "sample": True, "split": _split_sample}
    return Competition(
        name=f"birdclef{year}", prepare=partial(prepare, seconds=seconds), rows=birdclef_rows.rows,
        validate=birdclef_rows.validate, score=score, limits=Limits(minutes=minutes),
        hidden=_hidden(year, seconds, "sample_submission.csv", **sample), oof_score=oof_score, post=SCORE_ROWS,
    )  # fmt: skip


_CMAP = {"score": birdclef_rows.score_cmap, "oof_score": birdclef_rows.PADDED_CMAP}
_ROC_AUC = {"score": birdclef_rows.score_roc_auc, "oof_score": birdclef_rows.MACRO_ROC_AUC}
EDITIONS = by_name(
    Competition(
        name="birdclef2021", prepare=prepare_2021, rows=birdclef_rows.species_rows,
        validate=birdclef_rows.validate_species, score=birdcall.score, limits=Limits(minutes=180),
        hidden=_hidden(2021, 600.0, read=_site_ids, make=_site_rows, clip_id=_site_clip, split=_split_site_names),
        oof_score=ROW_MICRO_F1, post=QUANTILE_ROWS,
    ),
    Competition(
        name="birdclef2022", prepare=prepare_2022, rows=birdclef_rows.bird_rows, validate=birdclef_rows.validate_birds,
        score=birdclef_rows.score_birds, limits=Limits(minutes=540),
        hidden=_hidden(2022, 60.0, read=_bird_ids, make=_bird_rows, split=_split_bird_names),
        oof_score=birdclef_rows.BALANCED_ACCURACY, post=QUANTILE_ROWS,
    ),
    _edition(2023, minutes=120, seconds=600.0, **_CMAP),
    _edition(2024, minutes=120, seconds=240.0, **_ROC_AUC),
    _edition(2025, minutes=90, seconds=60.0, **_ROC_AUC),
    _edition(2026, minutes=90, seconds=60.0, **_ROC_AUC),
)  # fmt: skip

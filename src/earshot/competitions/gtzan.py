"""GTZAN: ten music genres of 100 clips of 30 s at 22,050 Hz; accuracy over folds.

Source: the folder `genres` (or `genres_original`, or what holds one of them) with <genre>/<genre>.00000.wav or .au. No
official folds exist; the papers take ten: `src/make_folds.py --k 10` stratifies by genre (seed 42). Excerpts of one
recording under several numbers, which this data set is known for, can fall into different folds. jazz.00054 of a common
copy cannot be decoded: prepare.py lists it in unreadable.csv, training skips it, prediction gives it the prior.
There is no test set: the score is the accuracy of the out-of-fold predictions.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earshot.competitions.competition import Competition, by_name
from earshot.competitions.esc50 import rows, score, validate
from earshot.competitions.oof_scores import ACCURACY
from earshot.competitions.tables import Tables

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
FOLDERS = ("", "genres", "genres_original", "Data/genres_original")
SUFFIXES = (".wav", ".au")


def prepare(source: Path) -> Tables:
    """Download folder -> one clip a file; genres without a folder are an error that names them."""
    source = Path(source)
    folder = next((f for f in FOLDERS if (source / f / GENRES[0]).is_dir()), None)
    if folder is None:
        raise ValueError(f"{source} holds no folder of genres such as {GENRES[0]}/; is --source the unzipped GTZAN?")
    if lost := [g for g in GENRES if not (source / folder / g).is_dir()]:
        raise ValueError(f"{source / folder} lacks the genres {', '.join(lost)}")
    files = [p for genre in GENRES for p in sorted((source / folder / genre).iterdir())
             if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]  # fmt: skip
    clips = pd.DataFrame({
        "clip_id": [p.stem for p in files], "path": [p.relative_to(source).as_posix() for p in files],
        "labels": [p.parent.name for p in files], "filename": [p.name for p in files],
    })  # fmt: skip
    truth = pd.DataFrame({"filename": clips.filename, "category": clips.labels})
    return Tables(clips, GENRES, test=clips[["filename", "clip_id"]], truth=truth, task="tagging")


EDITIONS = by_name(
    Competition(name="gtzan", prepare=prepare, rows=rows, validate=validate, score=score, oof_score=ACCURACY)
)

"""GTZAN: ten music genres of 100 clips of 30 s at 22,050 Hz; accuracy over folds.

Source: a folder that holds, at any depth (genres/, Data/genres_original/), <genre>/<genre>.00000.wav or .au. No
official folds exist; the papers take ten: `src/make_folds.py --k 10` stratifies by genre (seed 42). Excerpts of one
recording under several numbers, which this data set is known for, can fall into different folds. jazz.00054 of a common
copy cannot be decoded: prepare.py lists it in unreadable.csv, training skips it, prediction gives it the prior.
There is no test set: the score is the accuracy of the out-of-fold predictions.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from earshot.competitions.competition import Competition, by_name
from earshot.competitions.esc50 import rows, score, validate
from earshot.competitions.oof_scores import ACCURACY
from earshot.competitions.tables import Tables
from earshot.sound.folder import list_recordings

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
NAME = re.compile(rf"({'|'.join(GENRES)})\.\d+")
SUFFIXES = (".wav", ".au")


def prepare(source: Path) -> Tables:
    """Download folder -> one clip a file; genres without a recording are an error that names them.

    The genre stands in the name; a name that lies there twice counts once, from the folder that is called so.
    """
    source = Path(source)
    found: dict[str, Path] = {}
    files = list_recordings(source).files
    for path in sorted(files, key=lambda p: (p.parent.name.lower() != p.name.split(".")[0].lower(), str(p))):
        name = path.stem.lower()
        if NAME.fullmatch(name) and path.suffix.lower() in SUFFIXES:
            found.setdefault(name, path)
    genres = {name: name.split(".")[0] for name in sorted(found)}
    lost = [g for g in GENRES if g not in genres.values()]
    if len(lost) == len(GENRES):
        raise ValueError(f"{source} holds no folder of genres such as {GENRES[0]}/; is --source the unzipped GTZAN?")
    if lost:
        raise ValueError(f"{source} lacks the genres {', '.join(lost)}")
    clips = pd.DataFrame({
        "clip_id": list(genres), "path": [found[name].relative_to(source).as_posix() for name in genres],
        "labels": list(genres.values()), "filename": [found[name].name for name in genres],
    })  # fmt: skip
    truth = pd.DataFrame({"filename": clips.filename, "category": clips.labels})
    return Tables(clips=clips, classes=GENRES, test=clips[["filename", "clip_id"]], truth=truth, task="tagging")


EDITIONS = by_name(
    Competition(
        name="gtzan", task="tagging", prepare=prepare, rows=rows, validate=validate, score=score, oof_score=ACCURACY
    )
)

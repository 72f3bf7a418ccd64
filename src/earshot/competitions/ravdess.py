"""RAVDESS, speech only: 24 actors, 8 emotions, 1,440 clips; accuracy over folds of actors nobody has heard.

Source: the folder that holds Actor_01/ ... Actor_24/ at any depth, files named modality-channel-emotion-intensity-
statement-repetition-actor.wav (03-01-06-01-02-01-12.wav: audio, speech, fearful, normal, statement 2, first, actor 12).
Video (01, 02) and song (02) are left out. No official folds; the PANNs paper takes four: `src/make_folds.py --k 4`
gives each fold whole actors (column `group`), deterministically. There is no test set: the score is the accuracy of the
out-of-fold predictions.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from earshot.competitions.competition import Competition, by_name
from earshot.competitions.esc50 import rows, score, validate
from earshot.competitions.oof_scores import ACCURACY
from earshot.competitions.tables import Tables
from earshot.messages import few, plural
from earshot.sound.folder import list_recordings

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08
NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
AUDIO, SPEECH = "03", "01"


def prepare(source: Path) -> Tables:
    """Download folder -> one clip a speech file, with `group` (the actor), `intensity` and `statement`.

    A file that lies there twice (a common copy has every actor again in a folder inside) counts once.
    """
    source = Path(source)
    found = sorted((p for p in list_recordings(source).files if p.suffix.lower() == ".wav"), reverse=True)
    files = {p.name: p for p in found if p.parent != source and p.parent.name.lower().startswith("actor_")}
    matches = {name: NAME.fullmatch(p.stem) for name, p in sorted(files.items())}
    if wrong := [name for name, match in matches.items() if not match]:
        raise ValueError(f"{plural(len(wrong), 'files are')} not named like 03-01-06-01-02-01-12.wav: {few(wrong)}")
    parts = {name: m.groups() for name, m in matches.items() if m.group(1) == AUDIO and m.group(2) == SPEECH}
    if not parts:
        raise ValueError(f"{source} holds no speech file such as Actor_01/03-01-06-01-02-01-12.wav")
    if wrong := [name for name, part in parts.items() if not 1 <= int(part[2]) <= len(EMOTIONS)]:
        raise ValueError(f"{few(wrong)}: the third number must be an emotion from 01 to {len(EMOTIONS):02d}")
    clips = pd.DataFrame({
        "clip_id": [Path(name).stem for name in parts],
        "path": [files[name].relative_to(source).as_posix() for name in parts],
        "labels": [EMOTIONS[int(part[2]) - 1] for part in parts.values()],
        "group": [f"actor{part[6]}" for part in parts.values()],
        "intensity": [int(part[3]) for part in parts.values()],
        "statement": [int(part[4]) for part in parts.values()],
        "filename": list(parts),
    })  # fmt: skip
    truth = pd.DataFrame({"filename": clips.filename, "category": clips.labels})
    return Tables(clips=clips, classes=EMOTIONS, test=clips[["filename", "clip_id"]], truth=truth, task="tagging")


EDITIONS = by_name(
    Competition(
        name="ravdess", task="tagging", prepare=prepare, rows=rows, validate=validate, score=score, oof_score=ACCURACY
    )
)

"""Digests of the tables that a fold is trained on: by them a run knows whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from earshot.data.soft_targets import SoftTargets
from earshot.prediction.origin import TableDigests, digest
from earshot.sound.rows import file_of

CLIP_COLUMNS = ("labels", "secondary_labels")
EVENT_COLUMNS = ("filename", "onset", "offset", "event_label", "is_negative", "share")


def table_digests(
    folds: pd.DataFrame,
    clips: pd.DataFrame,
    events: pd.DataFrame | None,
    classes: list[str],
    soft: SoftTargets | None = None,
) -> TableDigests:
    """Fold table, clip table, events, classes in model order and soft targets (None: there are none) -> their digests.

    Of clips count ids, labels and the recordings' names, without folder and ending: converting or moving the audio
    changes nothing, another recording under a clip's id does.
    """
    return TableDigests(
        folds=digest_of_folds(folds),
        classes=digest(map(str, classes)),
        clips=_digest_of_clips(clips, events),
        targets="" if soft is None else digest(_target_lines(soft)),
    )


def _digest_of_clips(clips: pd.DataFrame, events: pd.DataFrame | None) -> str:
    """Digest of the lines of clips, then of those of events. Of a million lines no other text is held meanwhile."""
    rows = _lines(clips, ("clip_id", "path", *CLIP_COLUMNS))
    return digest(rows if events is None else chain(rows, _lines(events, EVENT_COLUMNS)))


def digest_of_folds(folds: pd.DataFrame) -> str:
    """Fold table -> 32 hexadecimal digits of each clip's fold."""
    return digest(_lines(folds, ("clip_id", "fold")))


def _target_lines(soft: SoftTargets) -> list[str]:
    """The classes, then a line a clip: its id and a digest of its targets and what of them is known."""
    rows = zip(soft.clip_ids, soft.target.astype("float16"), soft.mask.astype("uint8"))
    lines = [f"{name}\t{hashlib.sha256(t.tobytes() + m.tobytes()).hexdigest()}" for name, t, m in rows]
    return ["\t".join(soft.classes), *sorted(lines)]


def recording_name(path: str) -> str:
    """Name of a recording without folder and ending; of a row of a store (x.h5#17) the row stays."""
    path = str(path)
    name = path[path.rfind("/") + 1 :]
    if name in ("", "."):  # a million paths are not made objects for the few that end so
        name = PurePosixPath(path).name
    file = file_of(name)
    dot = file.rfind(".")
    return (file[:dot] if 0 < dot < len(file) - 1 else "" if file == "." else file) + name[len(file) :]


def content_hash(waveform: np.ndarray) -> str:
    """Digest of decoded samples, (C, S) or (S,) in -1 to 1, as 16 bits: lossless formats of one recording share it."""
    return hashlib.sha256(np.round(waveform * 32767).astype(np.int16).tobytes()).hexdigest()[:16]


def _lines(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """The table's rows as text, sorted; columns that it lacks are left out, an empty cell is an empty text, and a path
    counts as its recording's name."""
    cells = [map(recording_name, table.path) if c == "path" else _texts(table[c]) for c in columns if c in table]
    return sorted(map("\t".join, zip(*cells)))


def _texts(column: pd.Series) -> Iterable[str]:
    return (column.where(column.notna(), "") if column.hasnans else column).astype(str).to_numpy()

"""Tables of DCASE's sound event localization and detection (SELD), such as STARSS: a row a frame of 0.1 s and sound.

frame, class, source, azimuth, elevation and maybe distance, whole numbers without a header. Directions are not kept.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

FRAME = 0.1  # seconds
ROW = re.compile(r"\s*\d+(\s*,\s*-?\d+){4,5}\s*")

logger = logging.getLogger("earshot")


def is_seld(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are rows of frames: in order, with angles in degrees."""
    lines = [line for line in lines if line.strip()]
    if not lines or not all(map(ROW.fullmatch, lines)):
        return False
    rows = _numbers(lines)
    in_range = (rows[:, 1:3] >= 0).all() and (np.abs(rows[:, 3]) <= 180).all() and (np.abs(rows[:, 4]) <= 90).all()
    return bool(in_range and (np.diff(rows[:, 0]) >= 0).all())


def read_seld(lines: Sequence[str], path: Path) -> pd.DataFrame:
    """The stretches of frames in which each class is heard, from whatever source: `onset, offset, event_label`."""
    lines = [line for line in lines if line.strip()]
    if not is_seld(lines):
        raise ValueError(f"{path} is no table of frames, classes, sources and directions, whole numbers in each row")
    frames = pd.DataFrame(_numbers(lines)[:, :2], columns=["frame", "label"]).drop_duplicates()
    frames = frames.sort_values(["label", "frame"])
    apart = (frames.frame.diff() != 1) | (frames.label.diff() != 0)
    events = frames.groupby(apart.cumsum()).agg(first=("frame", "min"), last=("frame", "max"), label=("label", "first"))
    logger.warning("%s: rows are frames of %g s with the number of a class, as DCASE's sound event localization has "
                   "them; classes keep their numbers", path, FRAME)  # fmt: skip
    onset, offset = events["first"] * FRAME, (events["last"] + 1) * FRAME
    table = pd.DataFrame({"onset": onset, "offset": offset, "event_label": events.label.astype(str)})
    return table.sort_values("onset", kind="stable", ignore_index=True).assign(filename="")


def _numbers(lines: Sequence[str]) -> np.ndarray:
    """(N, 5) frames, classes, sources, azimuths and elevations."""
    return np.array([[int(cell) for cell in line.split(",")[:5]] for line in lines])

"""Which recordings a folder given to a trained run holds, and how long they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from earshot.prediction.predictions import Clip
from earshot.sound import audio
from earshot.sound.folder import some_recordings


def find_clips(source: Path, without: Path | None = None) -> tuple[list[Clip], str]:
    """A folder or one file -> (recordings with ids, what was left out of a folder, for people).

    without: a folder of which nothing is taken, such as examples that an earlier call cut.
    """
    if source.is_file():
        if source.suffix.lower() not in audio.EXTENSIONS:
            raise ValueError(f"--clips {source} is no recording by its ending: give a folder, or one recording")
        return [Clip(source.stem, source)], ""
    found = some_recordings(source)
    if without is not None:
        ours = without.resolve()
        found = dataclasses.replace(found, files=[p for p in found.files if not p.resolve().is_relative_to(ours)])
        if not found.files:
            raise ValueError(f"{source} holds no recording but those in {without}, which an earlier call wrote")
    return [Clip(i, p) for i, p in zip(found.ids(), found.files, strict=True)], found.said()


def lengths_of(paths: Iterable[str]) -> dict[str, float]:
    """Seconds of recordings by path; infinite where a file cannot be read."""
    return {path: length_of(path) for path in paths}


def length_of(path: str) -> float:
    return audio.duration_or(path, np.inf)

"""What crowsetta, an optional package, reads: Praat TextGrids, .not.mat of evsonganaly, phones of TIMIT."""

from __future__ import annotations

import glob
import tempfile
from pathlib import Path

import pandas as pd

from earshot.messages import install_line
from earshot.sound import audio
from earshot.sound.audio import EXTENSIONS

NOTMAT, TIMIT = ".not.mat", ".phn"


def read_textgrid(path: Path, text: str) -> dict[str, list[tuple[float, float, str]]]:
    """The named intervals of each tier of intervals. text: what the file holds."""
    try:
        from crowsetta.formats.seq import TextGrid
        from crowsetta.formats.seq.textgrid.classes import IntervalTier
    except ImportError as error:
        raise _missing(path, "a TextGrid", error) from error
    try:
        with tempfile.TemporaryDirectory() as folder:  # it takes UTF-8 and this ending alone
            copy = Path(folder) / "grid.TextGrid"
            copy.write_text(text, encoding="utf-8")
            grid = TextGrid.from_file(copy)
    except Exception as error:  # its parser raises whatever a damaged file leads to
        raise ValueError(f"{path} is no TextGrid that crowsetta can read: {type(error).__name__} {error}") from error
    return {
        t.name: [(i.xmin, i.xmax, i.text.strip().replace('""', '"')) for i in t.intervals if i.text.strip()]
        for t in grid.tiers if isinstance(t, IntervalTier)
    }  # fmt: skip


def read_sequence(path: Path, kind: str) -> pd.DataFrame:
    """The syllables or phones of one recording, in seconds. kind: notmat | timit."""
    try:
        from crowsetta.formats.seq import NotMat, Timit
    except ImportError as error:
        raise _missing(path, "a file of song or speech", error) from error
    rate = {} if kind == "notmat" else {"samplerate": _rate_beside(path)}
    reader = NotMat if kind == "notmat" else Timit
    try:
        sequence = reader.from_file(path).to_seq(round_times=False, **rate)
    except Exception as error:  # as above
        raise ValueError(f"{path} is no file that crowsetta can read: {type(error).__name__} {error}") from error
    times = {"onset": sequence.onsets_s, "offset": sequence.offsets_s}
    return pd.DataFrame({**times, "event_label": sequence.labels}).astype({"event_label": str}).assign(filename="")


def _rate_beside(path: Path) -> int:
    """The rate of the recording beside a file that counts its samples."""
    for recording in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")):
        if recording.suffix.lower() in EXTENSIONS and audio.duration_or(recording, 0):
            return audio.info(recording).sample_rate
    raise ValueError(f"{path} counts samples, and no recording of its name lies beside it whose rate can be read")


def has_phones(path: Path) -> bool:
    """Whether phones of TIMIT lie beside a text."""
    return any(path.with_suffix(ending).is_file() for ending in (TIMIT, TIMIT.upper()))


def _missing(path: Path, what: str, error: ImportError) -> ValueError:
    return ValueError(f"{path} is {what}, which crowsetta reads: {install_line('annotations')} ({error})")

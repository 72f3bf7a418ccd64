"""Millions of clips in one memory-mapped int16 file: each cut to the same length, a row each, read as `FILE#ROW`.

A store is a cache like those of data/caches.py, `<folder>/<key>`, that holds `waveform.npy` (N, S) int16, (N, S, 2) in
stereo (value v for v / 32767, zeros behind a shorter clip), `lengths.npy` (N,) int32 samples (0: unreadable),
`index.csv`, `unreadable.csv` and `params.json`. It is filled under a temporary name that the next attempt finds again:
a killed packing goes on where it was, a second process waits for the first. What is kept of a clip is its beginning:
the mean of its channels or two of them, resampled. A recording of floats beyond full scale is scaled when it is read
(sound/levels.py); where decoders of lossy files overshoot -1 ... 1, samples are clipped and counted.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.data.caches import (
    FILE_COLUMNS,
    FORMAT,
    file_stamps,
    place_of,
    read_index,
    say_clipped,
    with_progress,
    write_index,
)
from earshot.data.event_checks import checked_events, without_labels_beyond
from earshot.files import as_json, write_text
from earshot.inputs.waveforms import decode
from earshot.processes.kill_points import reached
from earshot.processes.lock import hold, in_turn
from earshot.sound import audio
from earshot.sound.rows import SCALE
from earshot.stored import open_array

BLOCK = 1024  # rows between two notes of what is done; all of a block is done again after a kill
NOT_PACKED = -1
ROUNDING_SECONDS = 0.05  # by which a clip may be longer and is not cut

logger = logging.getLogger("earshot")


def packed_clips(
    folder: str | Path,
    clips: pd.DataFrame,
    source_root: str | Path,
    sample_rate: int,
    seconds: float,
    workers: int = 1,
    say: Callable[[str], None] = logger.info,
    n_channels: int = 1,
) -> pd.DataFrame:
    """`clips` with `path` pointing (absolute) at rows of a packed store, the one that stands or a new one.

    `say` gets the size before anything is written; ValueError where the disk is too small. Clips that all are rows of
    stores already come back as they are. An unreadable clip has a row that says so when it is read. A warning counts
    the clips of which only the beginning is kept.
    """
    if len(clips) and clips["path"].str.contains(r"\.npy#\d+$").all():
        return clips
    if (longer := longer_than(clips, seconds)).any():
        logger.warning(
            "%d of %d clips are longer than %g s: the packed store keeps their beginning alone, and of what is behind "
            "neither training nor the OOF hears anything", longer.sum(), len(clips), seconds,
        )  # fmt: skip
    settings = packed_settings(sample_rate, seconds, n_channels)
    description = {**settings, "files": file_stamps(clips, source_root)}
    target = place_of(folder, description).resolve()
    lock = target.with_name(f".{target.name}.lock")
    if not target.is_dir() or lock.exists():  # else all is done, and nobody was killed just before the lock went
        target.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(lock):  # a second process waits until this one is done
            if not target.is_dir():
                _pack(target, description, settings, Path(source_root), workers, say)
    hold(target / "params.json")
    _, index = read_index(target, ("row",))
    rows = dict(zip(index["clip_id"], index["row"]))
    return clips.assign(path=[f"{target}/waveform.npy#{rows[str(clip_id)]}" for clip_id in clips["clip_id"]])


def longer_than(clips: pd.DataFrame, seconds: float) -> np.ndarray:
    """Find the clips of a `duration`, where it is known, of more than `seconds` and rounding: (N,) booleans."""
    if "duration" not in clips:
        return np.zeros(len(clips), bool)
    return (pd.to_numeric(clips["duration"], errors="coerce") > seconds + ROUNDING_SECONDS).to_numpy(bool)


def packed_events(
    events: pd.DataFrame, clips: pd.DataFrame, cut: np.ndarray, classes
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Keep what is said of the beginnings of clips alone.

    (events within the packed `duration` of their clip, clips, what was done, a line each). cut: (N,) booleans, the
    annotated clips that go on behind it: their labels become those of the events that are left.
    """
    left, notes = checked_events(events, clips, "the event table, of packed clips,", classes)
    if not cut.any():
        return left, clips, notes
    clips, changed = without_labels_beyond(clips, events, left, cut)
    notes += [f"{changed} annotated clips have the labels of their packed beginning alone"] * (changed > 0)
    said = clips.annotated.astype(object) if "annotated" in clips else pd.Series("", index=clips.index, dtype=object)
    return left, clips.assign(annotated=said.mask(cut, 1)), notes


def packed_settings(sample_rate: int, seconds: float, n_channels: int = 1) -> dict:
    """What shapes a store besides its files, as params.json says it."""
    n_samples = round(seconds * sample_rate)
    if n_samples < 1:
        raise ValueError(f"packing {seconds} s at {sample_rate} Hz keeps less than one sample of a clip")
    settings = {"kind": "packed", "sample_rate": sample_rate, "n_samples": n_samples}
    return settings | ({"channels": n_channels} if n_channels > 1 else {})


def packed_bytes(n_clips: int, sample_rate: int, seconds: float, n_channels: int = 1) -> int:
    """Size of a store on disk: waveforms and lengths."""
    return n_clips * (2 * n_channels * round(seconds * sample_rate) + 8)


def _pack(target: Path, description: dict, settings: dict, source: Path, workers: int, say):
    """Fill `.<key>.part` from where it stands, then give it its name."""
    index = pd.DataFrame(description["files"], columns=FILE_COLUMNS)
    index["row"], names = pd.factorize(index["path"])  # clips of one file share a row
    rate, n_samples, channels = settings["sample_rate"], settings["n_samples"], settings.get("channels", 1)
    shape = (len(names), n_samples) if channels == 1 else (len(names), n_samples, channels)
    part = target.with_name(f".{target.name}.part")
    part.mkdir(exist_ok=True)
    if (part / "params.json").is_file():  # killed at the very end: all of it is there
        _name(part, target)
        return
    _check_space(part, len(names), rate, n_samples, channels, say)
    waveform = _array(part / "waveform.npy", np.int16, shape, 0)
    lengths = _array(part / "lengths.npy", np.int32, (len(names),), NOT_PACKED)
    clipped = _array(part / "clipped.npy", np.int32, (len(names),), 0)
    reasons: dict[str, str] = {}

    def fill(row: int) -> tuple[int, int, int]:
        try:
            heard = decode(source / names[row], rate, channels, 0.0, n_samples / rate).T
        except audio.UnreadableAudio as error:
            reasons[names[row]] = str(error)
            return row, 0, 0
        waveform[row, : len(heard)] = np.rint(np.clip(heard, -1, 1) * SCALE)
        waveform[row, len(heard) :] = 0
        return row, len(heard), int((np.abs(heard) > 1).sum())

    todo = np.flatnonzero(lengths[:] <= 0)  # unreadable ones are tried again: their reasons are not noted yet
    if len(todo) < len(names):
        say(f"packing goes on: {len(names) - len(todo)} of {len(names)} clips are there")
    with ThreadPoolExecutor(max(1, workers)) as pool:
        blocks = (todo[i : i + BLOCK] for i in range(0, len(todo), BLOCK))
        for row, length, beyond in with_progress(_in_blocks(pool, fill, blocks, waveform), len(todo), "clips packed"):
            lengths[row], clipped[row] = length, beyond
    for array in (waveform, lengths, clipped):
        array.flush()
    index["samples"], index["clipped"] = lengths[index["row"]], clipped[index["row"]]
    write_index(part, index, reasons, description)
    say_clipped(clipped)
    reached(f"packed {target.name}/")
    write_text(part / "params.json", as_json({**settings, "format": FORMAT}, indent=1))
    _name(part, target)


def _name(part: Path, target: Path):
    """Give a whole store its name."""
    (part / "clipped.npy").unlink(missing_ok=True)
    reached(f"finished {target.name}/")
    part.rename(target)
    reached(f"renamed {target.name}/")


def _in_blocks(pool: ThreadPoolExecutor, fill: Callable, blocks, waveform: np.memmap) -> Iterator:
    """What `fill` gives for each row; a block's results come when its samples are on the disk."""
    for block in blocks:
        results = list(pool.map(fill, block.tolist()))
        waveform.flush()
        reached("packed a block")
        yield from results


def _array(path: Path, dtype, shape: tuple[int, ...], value: int) -> np.memmap:
    """The memory-mapped array as an earlier attempt left it, else a new one filled with `value`."""
    if path.is_file():
        try:
            return open_array(path, "r+", (np.dtype(dtype).kind, shape))
        except ValueError as error:
            raise ValueError(f"{error}; remove {path.parent}, which an earlier attempt left, and pack again") from error
    partial = path.with_name(f"{path.name}.new.npy")
    array = np.lib.format.open_memmap(partial, "w+", dtype, shape)
    if value:
        array[:] = value
    array.flush()
    os.replace(partial, path)
    return array


def _check_space(part: Path, n_rows: int, sample_rate: int, n_samples: int, channels: int, say):
    """Say the size to come; ValueError where the disk has less than what is still to be written."""
    needed = packed_bytes(n_rows, sample_rate, n_samples / sample_rate, channels)
    written = sum(512 * p.stat().st_blocks for p in part.iterdir())  # files are sparse until they are filled
    free = shutil.disk_usage(part).free
    size = f"{n_rows} clips x {n_samples / sample_rate:g} s at {sample_rate} Hz in 16 bit = {needed / 1e9:.3f} GB"
    say(f"packed store: {size}, {free / 1e9:.3f} GB free in {part.parent}")
    if needed - written > free:
        raise ValueError(
            f"packed store: {size}, but {part.parent} has {free / 1e9:.3f} GB free; pack fewer seconds, "
            "at a lower rate, or on another disk (data.cache_folder)"
        )

"""Decoded once: log-mels (any input that is a picture) in one memory-mapped file, or waveforms resampled to one rate.

A cache is a folder `<folder>/<key>`, the key a hash of EVERYTHING that shapes its content: the parameters, the rate,
the number type, this module's format and each clip's id, path, size and time of change. Another parameter or an edited
file is another key, so nothing stale is ever read; older siblings are left alone (delete them at will). A cache is
written under a temporary name and renamed, so an interrupted build leaves nothing under the final one. Where a data
set's folder cannot be written, its caches go to `cache/<its name>` of the folder that one is in. Clips of one file
share its data; a table's `start` and `end` are not applied. Unreadable clips stand in `unreadable.csv`, with 0 frames.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.files import as_json, check_writable, short_name, whole_folder
from earshot.inputs.record import Input
from earshot.inputs.waveforms import as_heard, decode, own_samples
from earshot.messages import few, plural, progress_bar, suggest
from earshot.processes.lock import hold
from earshot.sound import audio
from earshot.sound.loudness import MOST_GAIN_DB
from earshot.sound.rows import file_of
from earshot.stored import open_array, read_json, want
from earshot.tables import read_table

LOGGER = logging.getLogger("earshot")
FORMAT = 2  # raise it when the same parameters come to give other content
FILE_COLUMNS = ["clip_id", "path", "size", "modified_ns"]


class LogmelCache:
    """`cache[clip_id]` -> (T, F) read-only view of the log-mel of the whole clip from disk; (C, T, F) of two channels.

    `unreadable` lists the clips without one. Picklable: a loader's workers open the file themselves.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.description, index = read_index(self.path, ("offset", "frames", "n_samples"))
        self.unreadable: list[str] = index.loc[index["frames"] == 0, "clip_id"].tolist()
        numbers = index[["offset", "frames", "n_samples"]].to_numpy(np.int64)
        self._index = dict(zip(index["clip_id"], map(tuple, numbers.tolist())))
        self._memmap = None
        needed, found = int(numbers[:, :2].sum(axis=1).max(initial=0)), len(self._logmel)
        if found < needed:
            raise ValueError(f"log-mel cache {self.path} holds {found} frames of {needed}: delete it, build it again")

    @classmethod
    def build(
        cls,
        folder: str | Path,
        clips: pd.DataFrame,
        source_root: str | Path,
        record: Input,
        sample_rate: int,
        workers: int = 1,
        n_channels: int = 1,
        level: str = "recorded",
    ) -> LogmelCache:
        """The cache of `clips` (clip_id, path below `source_root`): the one that stands, or a new one.

        sample_rate, n_channels, level: at which recordings are decoded; `record` may hear them at its own rate.
        `workers` threads decode and transform, each holding one whole recording.
        """
        record = _of_data(record, sample_rate)
        settings = picture_settings(record, sample_rate, n_channels=n_channels, level=level)
        description = settings | {"files": file_stamps(clips, source_root)}

        def make(target: Path) -> None:
            _write_pictures(target, description, source_root, record, workers)

        return cls(finished(folder, description, make))

    def __getitem__(self, clip_id: str) -> np.ndarray:
        offset, frames, _ = self._entry(clip_id)
        piece = self._logmel[offset : offset + frames]
        return piece if piece.ndim == 2 else piece.swapaxes(0, 1)

    def n_samples(self, clip_id: str) -> int:
        """Samples of the clip at the rate at which it was decoded; 0 where it could not be read."""
        return self._entry(clip_id)[2]

    def __contains__(self, clip_id: str) -> bool:
        return str(clip_id) in self._index

    def __len__(self) -> int:
        return len(self._index)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_memmap": None}

    def _entry(self, clip_id: str) -> tuple[int, int, int]:
        if clip_id not in self:
            raise ValueError(f"clip '{clip_id}' is not in log-mel cache {self.path}{suggest(clip_id, self._index)}")
        return self._index[str(clip_id)]

    @property
    def _logmel(self) -> np.ndarray:
        if self._memmap is None:
            self._memmap = open_array(self.path / "logmel.npy")
        return self._memmap


def waveform_cache(
    folder: str | Path,
    clips: pd.DataFrame,
    source_root: str | Path,
    sample_rate: int,
    workers: int = 1,
    n_channels: int = 1,
) -> pd.DataFrame:
    """`clips` with `path` pointing (absolute) at files of `sample_rate`, mono or stereo, decoded and resampled once.

    Kept as FLAC of 16 bit. A clip that cannot be read keeps its own path, at which it fails again.
    """
    description = waveform_settings(sample_rate, n_channels) | {"files": file_stamps(clips, source_root)}

    def make(target: Path) -> None:
        _write_waveforms(target, description, source_root, workers)

    path = finished(folder, description, make).resolve()
    _, index = read_index(path, columns=("file",))
    own = {row.clip_id: Path(source_root, row.path).resolve() for row in index.itertuples()}
    paths = {row.clip_id: str(path / row.file if row.file else own[row.clip_id]) for row in index.itertuples()}
    return clips.assign(path=[paths[str(clip_id)] for clip_id in clips["clip_id"]])


def waveform_settings(sample_rate: int, n_channels: int = 1) -> dict:
    """What shapes a cache of waveforms besides its files, as params.json says it."""
    settings = {"kind": "waveform", "sample_rate": sample_rate, "extension": ".flac"}
    return settings | ({"channels": n_channels} if n_channels > 1 else {})


def _of_data(record: Input, sample_rate: int) -> Input:
    """The record with its rate said; ValueError where it is higher than that of the data, or cannot be cut in time."""
    if not (record.picture and record.hop and record.cuttable):
        raise ValueError(
            f"an input of kind {record.kind} cannot be cut from that of the whole clip: set data.cache=waveform"
        )
    if record.sample_rate > sample_rate:
        raise ValueError(f"the front end is of {record.sample_rate} Hz, the cache of {sample_rate} Hz")
    return record if record.sample_rate else replace(record, sample_rate=sample_rate)


def picture_settings(record: Input, sample_rate: int, n_channels: int = 1, level: str = "recorded") -> dict:
    """What shapes a cache of log-mels besides its files, as params.json says it; ValueError where there can be none."""
    record = _of_data(record, sample_rate)
    description = {"kind": record.kind, "params": record.cache_params(), "sample_rate": sample_rate, "dtype": "float32"}
    description |= {"channels": n_channels} if n_channels > 1 else {}
    return description | ({"level": level, "most_gain_db": MOST_GAIN_DB} if level != "recorded" else {})


def file_stamps(clips: pd.DataFrame, source_root: str | Path) -> list[list]:
    """Note size and time of each clip's file, by which a cache knows that it is still right.

    [clip_id, path, size, modified_ns] of each clip, sorted by id; -1 where there is no file.
    """
    ids = clips["clip_id"].astype(str)
    if ids.duplicated().any():
        raise ValueError(f"clip_id '{ids[ids.duplicated()].iloc[0]}' stands twice in the clip table")
    rows, known = [], {}
    for clip_id, path in sorted(zip(ids, clips["path"].astype(str))):
        file = str(Path(source_root, file_of(path)))
        if file not in known:  # a file may hold many clips
            status = os.stat(file) if os.path.exists(file) else None
            known[file] = (status.st_size, status.st_mtime_ns) if status else (-1, -1)
        rows.append([clip_id, path, *known[file]])
    return rows


def cache_key(description: dict) -> str:
    text = json.dumps({**description, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place_of(folder: str | Path, description: dict) -> Path:
    """`<folder>/<key>` of a cache that stands, or can be made there; of a data set that is read-only (as all below
    /kaggle/input), `cache/<its name>/<key>` where one is, which is said."""
    target = Path(folder) / cache_key(description)
    if target.is_dir():
        return target
    try:
        check_writable(target / "params.json")
    except ValueError:
        if target.parent.name != "cache":
            raise
        here = Path("cache", target.absolute().parents[1].name, target.name)
        check_writable(here / "params.json", "work in a folder that can be written, or set data.cache=none")
        LOGGER.warning("%s cannot be written: its caches are kept in %s", target.parent, here.parent.absolute())
        return here
    return target


def finished(folder: str | Path, description: dict, make: Callable[[Path], None]) -> Path:
    """The folder that `place_of` names, as it stands or as `make` fills it under a temporary name; it is held."""
    target = place_of(folder, description)
    if not target.is_dir():
        settings = {name: value for name, value in description.items() if name != "files"}
        try:
            with whole_folder(target) as partial:
                make(partial)
                (partial / "params.json").write_text(as_json({**settings, "format": FORMAT}, indent=1))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another was first, with the same content
                raise
    hold(target / "params.json")
    return target


def read_index(path: Path, numbers: tuple[str, ...] = (), columns: tuple[str, ...] = ()) -> tuple[dict, pd.DataFrame]:
    """Description and index of a finished cache, checked against the key that it is named by.

    numbers: further columns of the index, of whole numbers from 0; columns: those of text.
    """
    if not (path / "params.json").is_file():
        raise ValueError(f"{path} is no finished cache: it holds no params.json")
    remedy = f"remove {path}, and it is made again"
    description = read_json(path / "params.json", "description", remedy)
    want(description, {"format": int, "kind": str}, str(path / "params.json"), remedy)
    try:
        index = read_table(path / "index.csv", (*FILE_COLUMNS, *numbers, *columns))
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    for column in numbers:
        if len(index) and (index[column].dtype.kind not in "iu" or index[column].min() < 0):
            raise ValueError(f"{path / 'index.csv'}: column '{column}' is not all whole numbers; {remedy}")
    description["files"] = [list(row) for row in index[FILE_COLUMNS].itertuples(index=False)]
    if description.pop("format") != FORMAT or cache_key(description) != path.name:
        raise ValueError(f"cache {path} does not match its name: moved, edited or of another version; build it again")
    return description, index


def _write_pictures(target: Path, description: dict, source_root, record: Input, workers: int) -> None:
    """logmel.npy, index.csv and unreadable.csv. Room is made by the headers; a truncated clip leaves some unused."""
    index = pd.DataFrame(description["files"], columns=FILE_COLUMNS)
    paths, rate = index["path"].unique().tolist(), description["sample_rate"]
    n_decoded, axis = description.get("channels", 1), record.time_axis
    reasons: dict[str, str] = {}

    def room(path: str) -> int:
        header = audio.info(Path(source_root) / path)
        n_samples = -(-header.n_samples * rate // header.sample_rate)
        return record.shape(own_samples(n_samples, rate, record))[axis]

    rooms = _each(room, paths, workers, reasons, 0, "headers read")
    offsets = dict(zip(paths, np.cumsum([0, *rooms])[:-1].tolist()))
    channels, _, bands = record.shape(1)
    shape = (max(1, sum(rooms)), bands) if channels == 1 else (max(1, sum(rooms)), channels, bands)
    _check_space(target, shape, description["dtype"], len(index))
    logmel = np.lib.format.open_memmap(target / "logmel.npy", "w+", description["dtype"], shape)

    def fill(path: str) -> tuple[int, int]:
        level = description.get("level", "recorded")
        waveform = decode(Path(source_root) / path, rate, n_decoded, level=level)
        values = record.compute(as_heard(waveform, rate, record)).swapaxes(0, axis)  # (T, C, F)
        logmel[offsets[path] : offsets[path] + len(values)] = values.reshape(len(values), *shape[1:])
        return len(values), waveform.shape[-1]

    lengths = dict(zip(paths, _each(fill, paths, workers, reasons, (0, 0), "log-mels computed")))
    logmel.flush()
    index["offset"] = index["path"].map(offsets)
    index["frames"] = [lengths[path][0] for path in index["path"]]
    index["n_samples"] = [lengths[path][1] for path in index["path"]]
    write_index(target, index, reasons, description)


def _write_waveforms(target: Path, description: dict, source_root, workers: int) -> None:
    """One file a recording, index.csv and unreadable.csv."""
    index = pd.DataFrame(description["files"], columns=FILE_COLUMNS)
    reasons: dict[str, str] = {}

    clipped: dict[str, int] = {}

    def convert(path: str) -> str:
        key = hashlib.sha256(path.encode()).hexdigest()[:8]
        name = f"{short_name(Path(path).stem)}-{key}{description['extension']}"
        waveform = decode(Path(source_root) / path, description["sample_rate"], description.get("channels", 1))
        clipped[path] = audio.write(target / name, waveform, description["sample_rate"])
        return name

    paths = index["path"].unique().tolist()
    names = dict(zip(paths, _each(convert, paths, workers, reasons, "", "waveforms written")))
    index["file"] = index["path"].map(names)
    say_clipped(clipped.values())
    write_index(target, index, reasons, description)


def say_clipped(counts: Iterable[int]) -> None:
    """Log how many samples of how many clips a store of 16 bit could not hold (decoders of lossy files overshoot)."""
    counts = [int(n) for n in counts if n]
    if counts:
        LOGGER.warning(f"{sum(counts)} samples of {len(counts)} clips lay beyond -1 ... 1 and are clipped")


def _each(function: Callable, paths: list[str], workers: int, reasons: dict[str, str], failed, what: str) -> list:
    """`function` of each path, in order, by threads; `failed` and a reason where the audio cannot be read."""

    def guarded(path: str):
        if path in reasons:
            return failed
        try:
            return function(path)
        except audio.UnreadableAudio as error:
            reasons[path] = str(error)
            return failed

    pool = ThreadPoolExecutor(max(1, workers))
    try:
        return list(with_progress(pool.map(guarded, paths), len(paths), what))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for the files in hand, not for all


def with_progress(results: Iterable, total: int, what: str) -> Iterable:
    """Pass results on as they are, behind a progress bar, and log every tenth of the way."""
    for done, result in enumerate(progress_bar(results, what, total, "file"), 1):
        if done * 10 // total > (done - 1) * 10 // total:
            LOGGER.info(f"{what}: {done} of {total}")
        yield result


def _check_space(target: Path, shape: tuple[int, ...], dtype: str, n_clips: int) -> None:
    """Logs the size to come; ValueError where the disk is too small for it."""
    n_bytes, free = math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(target).free
    size = f"{plural(n_clips, 'clips')}, {shape[0]} frames x {shape[-1]} mels of {dtype} = {n_bytes / 1e9:.3f} GB"
    LOGGER.info(f"log-mel cache: {size}")
    if n_bytes > free:
        raise ValueError(
            f"log-mel cache: {size}, but {target.parent} has {free / 1e9:.3f} GB free; data.cache_folder names another "
            "disk"
        )


def write_index(target: Path, index: pd.DataFrame, reasons: dict[str, str], description: dict) -> None:
    """index.csv and unreadable.csv; `target` is given the name that the description has once all is written."""
    index.to_csv(target / "index.csv", index=False)
    bad = index.loc[index["path"].isin(list(reasons)), ["clip_id", "path"]]
    bad.assign(reason=bad["path"].map(reasons)).to_csv(target / "unreadable.csv", index=False)
    if len(bad):
        some = few([reasons[path] for path in bad["path"]], 3)
        LOGGER.warning(
            f"{len(bad)} of {len(index)} clips cannot be read (unreadable.csv of the cache lists them): {some}"
        )

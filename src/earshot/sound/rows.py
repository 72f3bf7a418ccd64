"""Recordings that share one file: `FILE#ROW` is row ROW of an HDF5 file as PANNs pack it, or of our packed store.

`x.h5#17` (or .hdf5): dataset `waveform` (N, S), int16 or float, mono; attribute `sample_rate` in Hz, without which S
counts as the 10 s of an AudioSet clip. `waveform.npy#17`: what data/packed.py writes, (N, S) or (N, S, 2), with
`lengths.npy` (N,) and `params.json` beside it. int16 v stands for v / 32767, as PANNs write it. A row is read by
slicing: a crop touches its own bytes only. Files stay open, one handle a process, because neither kind survives a fork.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from earshot.messages import plural
from earshot.stored import open_array, read_json, want

SCALE = 32767
CLIP_SECONDS = 10.0  # of AudioSet, where a file does not say its rate
ROW = re.compile(r"^(.+\.(?:h5|hdf5|npy))#(\d+)$")


def is_row(path: str | Path) -> bool:
    """Whether the path names a row of a file that holds many recordings."""
    return ROW.match(str(path)) is not None


def file_of(path: str | Path) -> str:
    """The file on disk that a path stands for: 'x.h5#17' -> 'x.h5', any other path as it is."""
    match = ROW.match(str(path)) if "#" in str(path) else None
    return match[1] if match else str(path)


class Row:
    """One recording of a shared file, read as soundfile.SoundFile is: samplerate, channels, frames, seek, read.

    ValueError or OSError, with the reason, where there is no such row.
    """

    extra_info = ""

    def __init__(self, path: str | Path):
        file, row = ROW.match(str(path)).groups()
        opened = _open_store if file.endswith(".npy") else _open_hdf5
        self._waveform, self.samplerate, lengths = opened(file, os.getpid())
        self._row, self._at = int(row), 0
        self.channels = self._waveform.shape[2] if len(self._waveform.shape) == 3 else 1
        if self._row >= len(self._waveform):
            raise ValueError(f"{file} has {plural(len(self._waveform), 'rows')}")
        self.is_float = self._waveform.dtype.kind == "f"
        self.frames = int(lengths[self._row]) if lengths is not None else self._waveform.shape[1]
        if self.frames > self._waveform.shape[1]:
            raise ValueError(f"{file} promises {self.frames} samples in a row of {self._waveform.shape[1]}")
        if self.frames < 1:
            raise ValueError(f"it could not be read when it was packed, see {Path(file).parent / 'unreadable.csv'}")

    def __enter__(self) -> Row:
        return self

    def __exit__(self, *_):
        return None

    def seek(self, sample: int):
        self._at = min(max(sample, 0), self.frames)

    def read(self, count: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """Read from where the row stands: (n, channels) float32, fewer than `count` at its end."""
        stop = min(self._at + count, self.frames)
        data = np.asarray(self._waveform[self._row, self._at : stop])
        self._at = stop
        scaled = data.astype(np.float32) / SCALE if data.dtype == np.int16 else data.astype(np.float32)
        return scaled.reshape(len(scaled), self.channels)


@lru_cache(maxsize=64)
def _open_store(file: str, process: int):
    """(waveform (N, S) or (N, S, 2) int16, Hz, lengths (N,)) of a packed store, memory-mapped."""
    remedy = "remove the store, and it is packed again"
    about = read_json(Path(file).with_name("params.json"), "description", remedy)
    want(about, {"sample_rate": int}, f"{Path(file).with_name('params.json')}", remedy)
    try:
        waveform = open_array(file, like=("i", 3 if about.get("channels", 1) == 2 else 2))
        lengths = open_array(Path(file).with_name("lengths.npy"), like=("i", (len(waveform),)))
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    return waveform, about["sample_rate"], lengths


@lru_cache(maxsize=64)
def _open_hdf5(file: str, process: int):
    """(dataset `waveform` (N, S), Hz, None) of an HDF5 file."""
    import h5py

    opened = h5py.File(file, "r")
    if not isinstance(opened.get("waveform"), h5py.Dataset) or opened["waveform"].ndim != 2:
        raise ValueError(f"{file} holds no dataset 'waveform' (N, samples); it holds {', '.join(opened) or 'nothing'}")
    waveform = opened["waveform"]
    if waveform.dtype.kind not in "if":
        raise ValueError(f"{file}: its dataset 'waveform' holds {waveform.dtype}, no samples")
    rate = opened.attrs.get("sample_rate", round(waveform.shape[1] / CLIP_SECONDS))
    if not np.isscalar(rate) or not str(rate).isdigit():
        raise ValueError(f"{file}: its attribute sample_rate is {rate!r}, not a number of Hz")
    return waveform, int(rate), None

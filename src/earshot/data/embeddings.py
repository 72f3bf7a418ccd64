"""Embeddings of a frozen extractor, computed once: a cache folder as in `data/caches.py`, one row a segment of a clip.

The key holds a hash of the extractor's tensors, its parameters, the front ends, the segment and every file, so that
another checkpoint or an edited file is another cache. A clip is cut into segments of the training crop, one after the
other, the last one zero-padded; it counts when at least half of it is sound, or when it is the clip's only one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.data.caches import FILE_COLUMNS, file_stamps, finished, read_index, write_index
from earshot.inputs.waveforms import decode
from earshot.messages import suggest
from earshot.sound import audio
from earshot.sound.windows import window_starts


class EmbeddingCache:
    """`cache[clip_id]` -> (W, D) float32 read-only view: the embeddings of the clip's segments; 0 where unreadable.

    Picklable: a loader's workers open the file themselves.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.description, index = read_index(self.path, ("offset", "segments"))
        self._index = dict(zip(index.clip_id, zip(index.offset.tolist(), index.segments.tolist())))
        self._rows = None

    @classmethod
    def build(
        cls,
        folder: str | Path,
        clips: pd.DataFrame,
        source_root: str | Path,
        embed: Callable[[np.ndarray], np.ndarray],
        width: int,
        about: dict,
        sample_rate: int,
        segment_samples: int,
        every_segment: bool,
        batch_size: int = 32,
        progress: Callable = iter,
        n_channels: int = 1,
        heard: Callable | None = None,
        starts_of: Callable | None = None,
    ) -> EmbeddingCache:
        """The cache of `clips` (clip_id, path below `source_root`): the one that stands, or a new one.

        embed: (B, segment_samples) or (B, 2, segment_samples) float32 waveforms -> (B, width) embeddings; about:
        everything that shapes them, as JSON; every_segment: False keeps a clip's first one only; progress: wraps the
        list of files (tqdm). heard: what becomes of a decoded waveform before it is cut into segments; starts_of: its
        samples -> the first one of each segment (default: one after the other); both must be told by `about`.
        """
        description = {
            "kind": "embedding", **about, "width": width, "sample_rate": sample_rate,
            "segment_samples": segment_samples, "every_segment": every_segment,
            "files": file_stamps(clips, source_root),
        }  # fmt: skip
        description |= {"channels": n_channels} if n_channels > 1 else {}

        def make(target: Path) -> None:
            _write(target, description, source_root, embed, batch_size, progress, heard=heard, starts_of=starts_of)

        return cls(finished(folder, description, make))

    def __getitem__(self, clip_id: str) -> np.ndarray:
        if str(clip_id) not in self._index:
            raise ValueError(f"clip '{clip_id}' is not in embedding cache {self.path}{suggest(clip_id, self._index)}")
        offset, segments = self._index[str(clip_id)]
        if self._rows is None:
            file, width = self.path / "embedding.f32", self.description["width"]
            size = file.stat().st_size  # a file without a byte cannot be mapped
            needed = 4 * width * max((sum(entry) for entry in self._index.values()), default=0)
            if size != needed:
                raise ValueError(f"{file} has {size} bytes of {needed}: remove {self.path}, and it is made again")
            rows = np.memmap(file, np.float32, "r") if size else np.zeros(0, np.float32)
            self._rows = rows.reshape(-1, width)
        return self._rows[offset : offset + segments]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_rows": None}


def state_hash(module) -> str:
    """Hash of a torch module's tensors: names, shapes and values."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def segment_starts(n_samples: int, segment_samples: int, every_segment: bool) -> np.ndarray:
    """Say on which sample each segment of a clip starts, (W,); half a segment at its end counts as one."""
    starts = window_starts(n_samples, segment_samples)
    enough = np.minimum(n_samples - starts, segment_samples) >= segment_samples / 2
    return starts[enough | (starts == 0)][: None if every_segment else 1]


def _write(
    target: Path, description: dict, source_root, embed: Callable, batch_size: int, progress: Callable,
    heard: Callable | None, starts_of: Callable | None,
) -> None:  # fmt: skip
    """embedding.f32 (segment after segment), index.csv and unreadable.csv."""
    index = pd.DataFrame(description["files"], columns=FILE_COLUMNS)
    rate, length, every = (description[k] for k in ("sample_rate", "segment_samples", "every_segment"))
    counts: dict[str, int] = {}
    reasons: dict[str, str] = {}

    def segments(path: str) -> list[np.ndarray]:
        try:
            waveform = decode(
                Path(source_root) / path, rate, description.get("channels", 1), 0.0, None if every else length / rate
            )
        except audio.UnreadableAudio as error:
            reasons[path] = str(error)
            return []
        waveform = waveform if heard is None else heard(waveform)
        starts = starts_of(waveform.shape[-1]) if starts_of else segment_starts(waveform.shape[-1], length, every)
        return [audio.crop_or_pad(waveform[..., s : s + length], length) for s in starts]

    with open(target / "embedding.f32", "wb") as file:
        waiting: list[np.ndarray] = []
        for path in progress(index["path"].unique().tolist()):
            some = segments(path)
            counts[path] = len(some)
            waiting += some
            while len(waiting) >= batch_size:
                file.write(embed(np.stack(waiting[:batch_size])).astype(np.float32).tobytes())
                waiting = waiting[batch_size:]
        if waiting:
            file.write(embed(np.stack(waiting)).astype(np.float32).tobytes())
    offsets = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist()))
    index["offset"], index["segments"] = index["path"].map(offsets), index["path"].map(counts)
    write_index(target, index, reasons, description)

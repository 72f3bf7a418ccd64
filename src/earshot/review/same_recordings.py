"""Of which clip of a table a recording is: by its file, a copy of it, its samples, or its name and id."""

from __future__ import annotations

import os
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import pandas as pd

from earshot.data.digests import content_hash
from earshot.data.pseudo import CLIP, files_of, recording_keys
from earshot.files import file_digest
from earshot.sound import audio


class Recordings:
    """The recordings of a clip table, to be asked about others.

    A copy in another format is known by its samples where the table has a `content_hash` (prepare.py --check-audio).
    """

    def __init__(self, clips: pd.DataFrame, source: str | Path):
        """clips: `clip_id, path, ...`; source: the folder that its paths are relative to."""
        self.paths = files_of(clips.path, source)
        self.of_file, self.of_size, self.of_key, self.of_content = (defaultdict(list) for _ in range(4))
        for row, (path, keys) in enumerate(zip(self.paths, recording_keys(clips), strict=True)):
            if not self.of_file[path] and os.path.isfile(path):
                self.of_size[os.path.getsize(path)].append(path)
            self.of_file[path].append(row)
            for key in keys:
                if key.startswith(CLIP):
                    self.of_key[key].append(row)
        for row, content in enumerate(clips.get("content_hash", ())):
            if isinstance(content, str) and content:
                self.of_content[content].append(row)

    def rows(self, recording: str) -> list[int]:
        """Numbers of the clips that a recording is, or is a copy, of."""
        path, name = os.path.realpath(recording), Path(recording).stem
        found = set(self.of_file.get(path, ()))
        found.update(self.of_key.get(f"{CLIP}{name} {name}".casefold(), ()))
        if os.path.isfile(path):
            for other in self.of_size.get(os.path.getsize(path), ()):
                if _digest(other) == _digest(path):
                    found.update(self.of_file[other])
            if self.of_content:
                found.update(self.of_content.get(_samples(path), ()))
        return sorted(found)


_digest = lru_cache(maxsize=100_000)(file_digest)


@lru_cache(maxsize=100_000)
def _samples(path: str) -> str:
    try:
        return content_hash(audio.load(Path(path), audio.info(path).sample_rate, mono=False))
    except audio.UnreadableAudio:
        return ""

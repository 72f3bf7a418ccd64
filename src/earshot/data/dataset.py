"""What a prepared folder says of itself: `dataset.json`, beside clips.csv."""

from __future__ import annotations

import json
from pathlib import Path


def read_dataset(folder: str | Path) -> dict:
    """Read dataset.json of a prepared folder: {"competition", "source", "task"}.

    It has "copied_channels" too, mono or stereo, where the clips' paths are copies that prepare.py --resample made.
    """
    path = Path(folder) / "dataset.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; make it with src/prepare.py <competition> --out {folder}")
    return json.loads(path.read_text())

"""What a prepared folder says of itself: `dataset.json`, beside clips.csv."""

from __future__ import annotations

from pathlib import Path

from earshot.stored import read_json, want


def read_dataset(folder: str | Path) -> dict:
    """Read dataset.json of a prepared folder: {"competition", "source", "task"}.

    It has "copied_channels" too, mono or stereo, where the clips' paths are copies that prepare.py --resample made.
    """
    path = Path(folder) / "dataset.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; make it with src/prepare.py <competition> --out {folder}")
    remedy = f"make it again with src/prepare.py <competition> --out {folder}"
    about = read_json(path, "file", remedy)
    want(about, {"competition": str, "source": str}, str(path), remedy)
    return about

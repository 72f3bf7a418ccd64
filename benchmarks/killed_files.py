"""What is compared after a kill: are the files under a folder whole, and are they those of another one?"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from safetensors import safe_open

TIMES = {
    *("seconds", "clips_per_second", "validation_seconds", "time", "at", "sha256", "took", "speeds"),
    *("passes", "writes", "calls", "minutes", "stages", "networks", "wall", "epoch_began"),
}  # columns and keys that hold a clock's doing
LOGS, NOTES = {"log.csv"}, "recordings.json"


def not_whole(folder: Path) -> str:
    """The first file under a final name that cannot be read ('': none); temporary ones may be anything."""
    for path in final_files(folder):
        try:
            read(path)
        except Exception as error:  # whatever a reader says of a half file
            return f"{path.relative_to(folder)} is half-written: {type(error).__name__}: {error}"
    return ""


def differences(folder: Path, whole: Path) -> str:
    """How the files under `folder` differ from those under `whole`: names, then contents ('': not at all)."""
    here, there = names(folder), names(whole)
    if here != there:
        return f"left over: {sorted(here - there)}; missing: {sorted(there - here)}"
    differing = [name for name in sorted(here) if not same(read(folder / name), read(whole / name))]
    return f"not the same: {', '.join(differing)}" if differing else ""


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def final_files(folder: Path) -> list[Path]:
    """Files that are not temporary, nor below anything that is."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def read(path: Path):
    """A file as what can be compared; a reader's own error where it is half-written."""
    if path.name == NOTES:  # size and time of change of each recording, some of which a script has just written
        return {recording: size for recording, (size, _) in json.loads(path.read_text()).items()}
    kind = READERS.get(path.suffix)
    return kind(path) if kind else path.read_bytes()


def _table(path: Path):
    if not path.stat().st_size:
        raise ValueError("it is empty")
    text = path.read_text()
    if not text.endswith("\n"):
        raise ValueError("its last line has no end")
    return pd.read_csv(path, dtype=str).drop(columns=list(TIMES), errors="ignore") if path.name in LOGS else text


def _npz(path: Path) -> dict:
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def _safetensors(path: Path) -> bytes:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118, it is no dict
            file.get_tensor(name)
    return path.read_bytes()


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _archive(path: Path) -> bytes:
    with zipfile.ZipFile(path) as file:
        if file.testzip():
            raise ValueError("damaged")
    return path.read_bytes()


def _onnx(path: Path) -> bytes:
    import onnx

    onnx.checker.check_model(onnx.load(path))
    return path.read_bytes()


READERS = {
    ".csv": _table, ".npz": _npz, ".safetensors": _safetensors, ".png": _picture, ".pyz": _archive, ".onnx": _onnx,
    ".json": lambda path: json.loads(path.read_text()), ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".ckpt": lambda path: torch.load(path, weights_only=True), ".npy": np.load,
}  # fmt: skip


def same(a, b) -> bool:
    """Whether two read files hold the same, clocks apart; numbers and tensors bit by bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = set(a) - TIMES
        return keys == set(b) - TIMES and all(same(a[k], b[k]) for k in keys)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if torch.is_tensor(a):
        return torch.is_tensor(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, pd.DataFrame):
        return isinstance(b, pd.DataFrame) and a.equals(b)
    return type(a) is type(b) and a == b

"""What the benchmarks of ESC-50 and ESC-10 share: minutes of training, answers heard several times, scores by fold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from earshot import runs
from earshot.data.prepared import load_data
from earshot.listening.members import fold_members
from earshot.metrics.clips import accuracy
from earshot.prediction.inference import predict_members
from earshot.prediction.predictions import Predictions


def wall_minutes(folders: Sequence[Path]) -> float:
    """Minutes in which any fold of these runs was trained: from its config written to its run.json."""
    folds = [fold for folder in folders for fold in folder.glob("fold*")]
    spans = sorted(((f / "config.yaml").stat().st_mtime, (f / "run.json").stat().st_mtime) for f in folds)
    total, until = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 60


def heard(folder: Path, tta: Sequence[str], backend: str, int8: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fold's graph: which classes its held-out clips hold, and their probabilities, heard as `tta` asks for."""
    config, folds = runs.load_run(folder).config, []
    data = load_data(config.data)
    for member, fold in fold_members(folder, backend, int8=int8):
        _, held_out = data.split(runs.FoldRun(fold).fold, config.data.folds)
        (found,), unreadable = predict_members([member], held_out.recordings(), tta)
        if unreadable:
            raise ValueError(f"{len(unreadable)} clips could not be read, such as {unreadable[0]}")
        folds.append((held_out.target > 0.5, found.clipwise_output))
    return folds


def fold_accuracies(found: Predictions, truth: np.ndarray) -> list[float]:
    """Accuracy of each official fold."""
    folds = np.unique(found.fold)
    return [accuracy(truth[found.fold == f], found.clipwise_output[found.fold == f]) for f in folds]


def print_folds(folds: Sequence[float], name: str = ""):
    print(f"| {name} | {' | '.join(f'{v:.4f}' for v in folds)} | {np.mean(folds):.4f} | {np.std(folds):.4f} |")

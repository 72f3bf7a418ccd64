"""Pictures inside a page: drawn as everywhere (pictures/), kept as text."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from earshot.pictures.folds import _figure
from earshot.pictures.sounds import log_mel_axis

BINS = 10  # of a reliability picture
SHOWN_CLASSES = 6  # lines of a clip's picture


def embedded(draw: Callable[[Path], None]) -> str:
    """A function that writes a PNG -> the picture as a data URL; '' where it wrote none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return data_url(path.read_bytes(), "image/png") if path.is_file() else ""


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def reliability(scores: np.ndarray, target: np.ndarray, path: Path):
    """How often outputs of a height are right, and how many there are; outputs and answers are (N, K)."""
    values, right = scores.ravel(), target.ravel() > 0.5
    place = np.clip((values * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    known = counts > 0
    said = np.bincount(place, values, BINS)[known] / counts[known]
    true = np.bincount(place, right, BINS)[known] / counts[known]
    figure, axes = _figure(8, 3.4, 1, 2)
    axes[0, 0].plot([0, 1], [0, 1], color="grey", linewidth=0.7, linestyle="--")
    axes[0, 0].plot(said, true, marker="o", color="tab:blue")
    error = float(np.sum(counts[known] * np.abs(said - true)) / counts.sum())
    axes[0, 0].set(xlim=(0, 1), ylim=(0, 1), xlabel="output", ylabel="share that is right",
                   title=f"calibration error {error:.3f}")  # fmt: skip
    axes[0, 1].bar((np.arange(BINS) + 0.5) / BINS, counts, width=0.9 / BINS, color="tab:grey")
    axes[0, 1].set(yscale="log", xlabel="output", ylabel="outputs (clips x classes)", title="how many there are")
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def correlations(names: Sequence[str], matrix: np.ndarray, path: Path):
    """Spearman correlation of members' out-of-fold outputs, as a table of colours."""
    figure, axes = _figure(2.5 + 0.8 * len(names), 1.5 + 0.8 * len(names))
    axes[0, 0].imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    axes[0, 0].set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), value in np.ndenumerate(matrix):
        axes[0, 0].text(column, row, f"{value:.2f}", ha="center", va="center",
                        color="white" if value > 0.6 else "black", fontsize=9)  # fmt: skip
    figure.savefig(path, dpi=80)


def clip_picture(
    logmel: np.ndarray, hertz: np.ndarray, seconds: float, frames: np.ndarray | None, step: float, events, classes,
    shown: Sequence[int], path: Path,
):  # fmt: skip
    """One recording: its log-mel with Hz on the axis, and below what was predicted over time and what is true.

    logmel: (T, F) dB; hertz: (F,) centre of each band; frames: (S, K) outputs every `step` seconds, or None; events:
    true ones (onset, offset, event_label), or None; shown: numbers of the classes that are drawn.
    """
    figure, axes = _figure(10, 2.4 if frames is None else 4.2, 1 if frames is None else 2, 1)
    log_mel_axis(axes[0, 0], logmel, hertz, seconds)
    if frames is not None:
        lines = axes[1, 0]
        edges = np.arange(len(frames) + 1) * step
        for row, k in enumerate(shown):
            colour = f"C{row}"
            lines.stairs(frames[:, k], edges, color=colour, label=str(classes[k]), linewidth=1.3)
            for event in () if events is None else events.itertuples():
                if event.event_label == classes[k]:
                    lines.axvspan(event.onset, event.offset, ymin=0.97 - 0.05 * row, ymax=1 - 0.05 * row, color=colour)
        lines.set(xlim=(0, seconds), ylim=(0, 1.02))
        lines.set_xlabel("seconds (bars on top: true events)" if events is not None else "seconds", fontsize=8)
        lines.set_ylabel("output", fontsize=8)
        lines.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        lines.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.tick_params(labelsize=7)
        axis.set_xlim(0, seconds)
    figure.savefig(path, dpi=80)

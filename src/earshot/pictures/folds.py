"""PNG pictures of what training reached: learning curves, class-wise scores, confusion, ROC curves."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from earshot.files import whole_file
from earshot.messages import plural
from earshot.metrics import clips as clip_metrics
from earshot.prediction.predictions import Predictions

MAX_CLASSES = 60


def _figure(width: float, height: float, rows: int = 1, columns: int = 1):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure, path: Path):
    """Write the picture, its texts as they are."""
    with whole_file(path) as partial, no_formulas(figure), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box: no fault of the run
        figure.savefig(partial, dpi=110)


@contextmanager
def no_formulas(figure) -> Iterator[None]:
    """While it is drawn or laid out, names of classes, clips and runs are texts: `$x^$` is no formula."""
    from matplotlib import rc_context
    from matplotlib.text import Text
    from matplotlib.ticker import EngFormatter, LogFormatter

    for axis in [side for axes in figure.axes for side in (axes.xaxis, axes.yaxis) if side.get_scale() == "log"]:
        if isinstance(axis.get_major_formatter(), LogFormatter):  # whose 10^6 would be a formula
            axis.set_major_formatter(EngFormatter(sep=""))
            axis.set_minor_formatter(LogFormatter())
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with rc_context({"text.parse_math": False}):  # of texts made while it is drawn
        yield


def shown(name: str, longest: int = 40) -> str:
    """A name as pictures have room for it; one that begins with an underscore a legend would leave out."""
    name = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return f" {name}" if name.startswith("_") else name


def learning_curves(log: list[dict], watch: str, path: Path):
    """Rows of log.csv -> the losses of training and held-out clips, and the watched score, by epoch, counted from 1.

    By steps where epochs were validated on the way (optim.validate_steps).
    """
    by = "epoch" if len({row["epoch"] for row in log}) == len(log) else "steps"
    at = [row[by] + (by == "epoch") for row in log]  # log.csv counts epochs from 0, the terminal from 1
    figure, axes = _figure(9, 3.6, 1, 2)
    for name, label, colour in (("loss", "training", "tab:blue"), ("val_loss", "held-out", "tab:orange")):
        if known := [(x, row[name]) for x, row in zip(at, log, strict=True) if name in row]:
            axes[0, 0].plot(*zip(*known, strict=True), marker=".", color=colour, label=label)
            axes[0, 0].legend(fontsize=8)
    axes[0, 0].set(xlabel=by, ylabel="loss", title="loss")
    scored = [(x, row[watch]) for x, row in zip(at, log, strict=True) if watch in row]
    if scored:
        axes[0, 1].plot(*zip(*scored, strict=True), marker=".", color="tab:green")
        best = (min if watch in clip_metrics.LOWER_IS_BETTER else max)(scored, key=lambda pair: pair[1])
        axes[0, 1].axhline(best[1], linewidth=0.7, color="grey", linestyle="--")
        axes[0, 1].set(xlabel=by, ylabel=watch, title=f"{watch} on the held-out fold, best {best[1]:.3f}")
    else:
        axes[0, 1].set_title("no epoch was scored yet")
        axes[0, 1].axis("off")
    for axis in axes[0]:
        axis.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 2.5
        axis.grid(alpha=0.3)
    _save(figure, path)


def class_scores(found: Predictions, target: np.ndarray, path: Path, counted: str = "clips"):
    """Average precision of each class beside its number of clips, weakest first (at most 60 classes).

    counted: what the numbers are of, such as clips with their secondary labels.
    """
    readable = ~found.unreadable
    truth = target[readable]
    if not (truth.any(axis=0) & ~truth.all(axis=0)).any():
        return  # no class has an average precision
    precision = clip_metrics.average_precision(truth, found.clipwise_output[readable])
    counts = truth.sum(axis=0)
    order = [i for i in np.argsort(precision) if np.isfinite(precision[i])][:MAX_CLASSES]  # NaN sort last
    figure, axes = _figure(9, 1.2 + 0.24 * len(order), 1, 2)
    names = [shown(found.classes[i]) for i in order]
    places = range(len(order))  # not by name: shortened ones may be alike
    axes[0, 0].barh(places, [precision[i] for i in order], color="tab:green")
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].set(xlim=(0, 1), xlabel="average precision", title=f"{len(order)} of {len(counts)} classes")
    axes[0, 1].barh(places, [counts[i] for i in order], color="tab:grey")
    axes[0, 1].set(xlabel=counted, yticks=places, yticklabels=[])
    for axis in axes[0]:
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
        axis.tick_params(labelsize=8)
    _save(figure, path)


def confusion(found: Predictions, target: np.ndarray, path: Path):
    """Share of each true class (row) that was taken for each class (column), for one label a clip.

    Of more than 60 classes those that were confused most. Without a clip, or with a class alone, nothing is drawn.
    """
    true, best = target.argmax(axis=1), found.clipwise_output.argmax(axis=1)
    if not len(true) or len(found.classes) < 2:
        return
    counts = np.zeros((len(found.classes),) * 2)
    np.add.at(counts, (true, best), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    title = f"{plural(len(true), 'clips')}, class mean {_diagonal(counts):.3f}"
    chosen = np.arange(len(counts))
    if len(counts) > MAX_CLASSES:
        wrong = share - np.diag(np.diag(share))
        chosen = np.sort(np.argsort(-np.maximum(wrong.sum(axis=1), wrong.sum(axis=0)), kind="stable")[:MAX_CLASSES])
        title += f"; the {MAX_CLASSES} most confused of {len(counts)} classes"
        share = share[np.ix_(chosen, chosen)]
    size = 2.5 + (0.35 if len(chosen) <= 20 else 0.2) * len(chosen)
    figure, axes = _figure(size + 0.8, size)
    drawn = axes[0, 0].imshow(share, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    places, names = range(len(chosen)), [shown(found.classes[i]) for i in chosen]
    axes[0, 0].set_xticks(places, names, rotation=90, fontsize=8)
    axes[0, 0].set_yticks(places, names, fontsize=8)
    axes[0, 0].set(xlabel="predicted", ylabel="true")
    axes[0, 0].set_title(title, fontsize=10, wrap=True)
    if len(chosen) <= 20:
        for row, column in np.argwhere(share > 0):
            colour = "white" if share[row, column] > 0.6 else "black"
            axes[0, 0].text(
                column, row, f"{share[row, column]:.2f}", ha="center", va="center", fontsize=6, color=colour
            )
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    _save(figure, path)


def _diagonal(counts: np.ndarray) -> float:
    rows = counts.sum(axis=1)
    return float(np.mean(np.diag(counts)[rows > 0] / rows[rows > 0])) if rows.any() else float("nan")


def roc_curves(scores: np.ndarray, anomalous: np.ndarray, clips, path: Path):
    """ROC of (N,) anomaly scores against (N,) booleans: one panel a machine, one curve a domain (sections together)."""
    from sklearn.metrics import roc_curve

    machines = sorted(set(clips.machine.astype(str)))
    columns = min(4, len(machines))
    figure, axes = _figure(3.4 * columns, 3.4 * -(-len(machines) // columns), -(-len(machines) // columns), columns)
    for axis, machine in zip(axes.flat, machines):
        for domain in sorted(set(clips.domain.astype(str))):
            here = ((clips.machine.astype(str) == machine) & (clips.domain.astype(str) == domain)).to_numpy()
            truth = anomalous[here]
            if truth.any() and not truth.all():
                false, true, _ = roc_curve(truth, scores[here])
                axis.plot(false, true, label=f"{domain} {clip_metrics.auc(truth, scores[here]):.3f}")
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.7, linestyle="--")
        axis.axvline(0.1, color="grey", linewidth=0.5)
        axis.set(title=machine, xlabel="false positive rate", ylabel="true positive rate")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, loc="lower right")
    for axis in axes.flat[len(machines) :]:
        axis.axis("off")
    _save(figure, path)


def score_by_count(rows: list[dict], watch: str, path: Path):
    """Rows (config, count, score), one a run -> a line a config: mean over runs, one standard deviation either side."""
    figure, axes = _figure(7, 4.6)
    axis, counts = axes[0, 0], sorted({row["count"] for row in rows})
    for name in dict.fromkeys(row["config"] for row in rows):
        known = [c for c in counts if any(row["config"] == name and row["count"] == c for row in rows)]
        scores = [[row["score"] for row in rows if row["config"] == name and row["count"] == c] for c in known]
        mean, spread = np.array([np.mean(s) for s in scores]), np.array([np.std(s) for s in scores])
        (line,) = axis.plot(known, mean, marker="o", markersize=4, label=shown(name))
        axis.fill_between(known, mean - spread, mean + spread, color=line.get_color(), alpha=0.18, linewidth=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(c) for c in counts])
    axis.minorticks_off()
    axis.set(xlabel="training clips of a class", ylabel=watch, title="mean and standard deviation over seeds and folds")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="best")
    _save(figure, path)

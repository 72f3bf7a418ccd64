"""PNG pictures that compare runs, as the PANNs paper draws them: score by class size, curves, score by cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.pictures.folds import _figure, _save, no_formulas, shown

BARS = 10  # classes in each column of `class_ranks`


def class_precision(tables: Mapping[str, pd.DataFrame], path: Path):
    """Draw the average precision of classes by how many clips trained them.

    tables: {run: `label, train_clips, average_precision`}. A dot a class, and a line through the medians of equally
    many classes (seven groups, fewer below 21 classes).
    """
    figure, axes = _figure(8, 4.8)
    axis = axes[0, 0]
    for i, (name, table) in enumerate(tables.items()):
        table = table.dropna(subset="average_precision").sort_values("train_clips", kind="stable")
        clips, precision = table.train_clips.clip(lower=1).to_numpy(float), table.average_precision.to_numpy(float)
        axis.scatter(clips, precision, s=14, alpha=0.5, color=f"C{i}", linewidth=0)
        groups = np.array_split(np.arange(len(table)), max(1, min(7, len(table) // 3)))
        middle = [(np.median(clips[g]), np.median(precision[g])) for g in groups if len(g)]
        x, y = np.reshape(middle, (-1, 2)).T  # none where no class has one: every held-out clip is of it
        axis.plot(x, y, color=f"C{i}", marker="s", markersize=4, linewidth=1.2, label=shown(name))
    counts = pd.concat([table.train_clips for table in tables.values()]).clip(lower=1)
    axis.set(xscale="log" if counts.max() > 10 * counts.min() else "linear")
    axis.set(ylim=(-0.02, 1.02), xlabel="training clips of the class", ylabel="average precision")
    axis.set_title("average precision of each class (lines: medians of classes of about one size)", fontsize=10)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    _save(figure, path)


def class_ranks(table: pd.DataFrame, title: str, path: Path):
    """`label, train_clips, average_precision` -> bars of the most common, the middle and the rarest classes."""
    ranked = table.sort_values("train_clips", ascending=False, kind="stable").reset_index(drop=True)
    n, size = len(ranked), min(BARS, max(1, len(ranked) // 3))
    starts = {"most clips": 0, "middle": (n - size) // 2, "fewest clips": n - size} if n >= 3 else {"all": 0}
    size = size if n >= 3 else n
    figure, axes = _figure(4.2 * len(starts), 1.3 + 0.27 * size, 1, len(starts))
    for axis, (what, start) in zip(axes[0], starts.items(), strict=True):
        some = ranked.iloc[start : start + size]
        names = [f"{_short(r.label)} ({r.train_clips:,.0f})" for r in some.itertuples()]
        places = np.arange(len(some))
        axis.barh(places, some.average_precision.fillna(0), color="C0")
        axis.set_yticks(places, names, fontsize=8)
        axis.set(xlim=(0, 1), xlabel="average precision")
        axis.set_title(f"{what}: ranks {start + 1}-{start + len(some)}", fontsize=9)
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
    figure.suptitle(f"{title}: classes by their training clips", fontsize=10)
    _save(figure, path)


def _short(label: str, length: int = 26) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"


def run_curves(logs: Mapping[str, pd.DataFrame], watch: str, path: Path):
    """Draw loss and score by steps of {run: `steps, loss`, and of validated epochs `watch`, perhaps train_<watch>}.

    The score of held-out clips is a solid line, that of training clips a transparent one.
    """
    figure, axes = _figure(11, 4.2, 1, 2)
    loss, score = axes[0]
    seen_training = False
    for i, (name, log) in enumerate(logs.items()):
        if "loss" in log:  # a run of given weights has none
            marker = "." if len(log) < 50 else None  # a single epoch has no line
            loss.plot(log.steps, log.loss, color=f"C{i}", marker=marker, linewidth=1.2, label=shown(name))
        for column, look in ((f"train_{watch}", {"alpha": 0.35}), (watch, {"label": shown(name)})):
            if column in log and len(rows := log.dropna(subset=column)):
                marker = "." if len(rows) < 50 else None
                score.plot(rows.steps, rows[column], color=f"C{i}", marker=marker, linewidth=1.4, **look)
                seen_training |= column != watch
    loss.set(xlabel="steps", ylabel="training loss", title="training loss")
    note = " (transparent: training clips)" if seen_training else ""
    score.set(xlabel="steps", ylabel=f"mean {watch} of folds")
    score.set_title(f"mean {watch} of the folds' held-out clips{note}", fontsize=11)
    for axis in axes[0]:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    _save(figure, path)


def score_by_cost(
    points: Sequence[tuple[str, float, float]], watch: str, seconds: str, path: Path,
    families: Sequence[str] | None = None,
):  # fmt: skip
    """Draw the score of systems by what they cost to compute.

    (run, multi-adds of a window of `seconds`, score) -> a labelled dot a run; multi-adds on a logarithmic axis.
    families: what kind of network each run is; runs of one kind have one colour, named in the legend.
    """
    figure, axes = _figure(8.5, 5)
    axes[0, 0].set(xlabel=f"multi-adds of a window of {seconds} s, as the PANNs paper counts them", ylabel=watch)
    axes[0, 0].set_title(f"{watch} by cost", fontsize=11)
    _labelled_dots(axes[0, 0], points, families)
    _save(figure, path)


def class_quality(tables: Mapping[str, pd.DataFrame], quality: Mapping[str, float], path: Path):
    """Draw all classes from the most to the fewest clips, with the average precision that each run reached.

    tables: {run: `label, train_clips, average_precision`}; quality: {label: 0 to 1}. Bars are training clips
    (logarithmic), lines the runs' average precision, dots the quality of the labels, as its raters found it, crosses at
    0 classes that nobody rated. The PANNs paper's Fig. 12.
    """
    first = next(iter(tables.values())).sort_values("train_clips", ascending=False, kind="stable")
    labels, place = first.label.tolist(), np.arange(len(first))
    figure, axes = _figure(min(60.0, max(8.0, 2 + 0.11 * len(labels))), 6)
    precision, counts = axes[0, 0], axes[0, 0].twinx()
    counts.bar(place, first.train_clips.clip(lower=0.5), width=0.9, color="tab:blue", alpha=0.25, linewidth=0)
    counts.set(yscale="log", ylabel="training clips (bars)")
    for i, (name, table) in enumerate(tables.items()):
        values = table.set_index("label").average_precision.reindex(labels)
        precision.plot(place, values, color=f"C{i + 1}", marker=".", markersize=3, linewidth=0.9, label=name)
    known = np.array([quality.get(label, np.nan) for label in labels], float)
    precision.scatter(place, known, s=9, color="tab:green", zorder=3, label="label quality")
    unknown = place[np.isnan(known)]
    if len(unknown):
        precision.scatter(unknown, np.zeros(len(unknown)), s=14, marker="x", color="tab:red", label="never rated")
    precision.set(ylim=(-0.03, 1.03), xlim=(-1, len(labels)), ylabel="average precision, label quality")
    step = max(1, len(labels) // 130)
    precision.set_xticks(place[::step], [_short(label, 20) for label in labels[::step]], rotation=90, fontsize=6)
    precision.set_title("average precision, training clips and label quality of each class", fontsize=11)
    precision.set_zorder(counts.get_zorder() + 1)
    precision.patch.set_visible(False)
    precision.legend(fontsize=8, loc="upper right")
    precision.grid(alpha=0.3, axis="y")
    _save(figure, path)


def score_by_parameters(panels: Mapping[str, Sequence[tuple[str, float, float, float]]], path: Path):
    """Draw the score of systems by their size.

    {score: (system, parameters, mean, standard deviation or nan)} -> a panel a score, a labelled dot a system.
    """
    figure, axes = _figure(6.6 * len(panels), 5.2, 1, len(panels))
    for axis, (watch, points) in zip(axes[0], panels.items(), strict=True):
        axis.set(xlabel="parameters", ylabel=watch)
        axis.set_title(f"{watch} by size", fontsize=11)
        for i, (_, x, mean, deviation) in enumerate(points):
            if np.isfinite(deviation):
                axis.errorbar([x], [mean], [deviation], color=f"C{i % 10}", capsize=3, linewidth=1, alpha=0.6)
        _labelled_dots(axis, [(name, x, mean) for name, x, mean, _ in points])
    _save(figure, path)


def class_scores_by_system(clips: pd.Series, scores: Mapping[str, pd.DataFrame], watch: str, path: Path):
    """Clips of each class (label -> training clips) above bars of its score, a colour a system.

    scores: {system: a row a seed, a column a label}; bars are means over seeds, their lines one standard deviation. A
    class without a score (none was held out) is left out.
    """
    scored = set.intersection(*(set(table.columns[table.notna().any()]) for table in scores.values()))
    clips = clips[[label in scored for label in clips.index]]
    figure, axes = _figure(max(6.0, 1.5 + 0.22 * len(clips) * (len(scores) + 2)), 6.2, 2, 1)
    counts, bars = axes[:, 0]
    place, width = np.arange(len(clips)), 0.82 / len(scores)
    counts.bar(place, clips.to_numpy(), width=0.82, color="tab:grey")
    counts.set(ylabel="training clips", title="clips of each class")
    counts.set_xticks(place, [""] * len(clips))
    for i, (name, table) in enumerate(scores.items()):
        table = table[clips.index]
        middle = place + (i - (len(scores) - 1) / 2) * width
        error = table.std(ddof=1).to_numpy() if len(table) > 1 else None
        label = f"{name} ({len(table)} seed{'s' * (len(table) > 1)})"
        drawn = bars.bar(middle, table.mean(), width=width, yerr=error, label=shown(label), error_kw={"linewidth": 0.8})
        bars.bar_label(drawn, fmt="%.3f", rotation=90, fontsize=7, padding=2)
    bars.set(ylabel=watch, ylim=(0, 1.25), yticks=np.linspace(0, 1, 6), title=f"{watch} of each class")
    bars.set_xticks(place, [shown(c) for c in clips.index], rotation=30, ha="right", fontsize=9)
    figure.legend(*bars.get_legend_handles_labels(), fontsize=9, ncols=3, loc="outside lower center")
    for axis in (counts, bars):
        axis.grid(alpha=0.3, axis="y")
        axis.set_axisbelow(True)
    _save(figure, path)


def _labelled_dots(axis, points: Sequence[tuple[str, float, float]], families: Sequence[str] | None = None):
    """(name, cost, score) -> a labelled dot each, one colour a family; the cost on a logarithmic axis."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    cost = [x for _, x, _ in points]
    room = max(cost) / min(cost) if max(cost) > min(cost) else 4.0
    axis.set(xscale="log", xlim=(min(cost) * room**-0.08, max(cost) * room**0.35))  # labels stand right of their dots
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if room < 1000 else (1,)))
    axis.xaxis.set_major_formatter(EngFormatter())  # 20 k, 1 M
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")
    axis.margins(y=0.15)
    kinds = list(dict.fromkeys(families or range(len(points))))
    for kind in kinds:
        of_kind = [p for p, family in zip(points, families or kinds, strict=True) if family == kind]
        xs, ys = [x for _, x, _ in of_kind], [y for _, _, y in of_kind]
        label = str(kind) if families else None
        axis.scatter(xs, ys, color=f"C{kinds.index(kind) % 10}", s=36, zorder=3, label=label)
    if families:
        axis.legend(fontsize=8, loc="lower right")
    for (name, x, y), height in zip(points, _label_heights(axis, points), strict=True):
        axis.annotate(shown(name), (x, y), (9, height), textcoords="offset points", fontsize=8, va="center",
                      arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.6})  # fmt: skip


def _label_heights(axis, points, apart: float = 10.0, letter: float = 4.8) -> list[float]:
    """Offsets of the labels in points: from the lowest dot upwards, each as low as no label or dot is in its way."""
    with no_formulas(axis.figure):
        axis.figure.draw_without_rendering()  # lays the axes out
    at = axis.transData.transform([(x, y) for _, x, y in points]) * 72 / axis.figure.dpi
    width = 9 + letter * np.array([len(shown(name)) for name, _, _ in points])
    heights, taken = np.zeros(len(at)), [(x, x + 4, y) for x, y in at]  # left, right, height
    for i in np.argsort(at[:, 1], kind="stable"):
        left, right = at[i, 0] + 5, at[i, 0] + width[i]
        while any(a < right and left < b and abs(at[i, 1] + heights[i] - y) < apart for a, b, y in taken):
            heights[i] += 1
        taken.append((left, right, at[i, 1] + heights[i]))
    return heights.tolist()

"""Pictures that compare runs: what is drawn where, and report.py on two runs."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

import report
import train
from earshot.pictures import runs as run_pictures
from earshot.runs import FoldRun, Run
from scripts import run
from test_pictures import BLUE, looked_at, share_of

ORANGE = (1.0, 0.5, 0.05)


def table(n: int, precision: float, most: int = 10**5) -> pd.DataFrame:
    clips = np.geomspace(50, most, n).round()
    return pd.DataFrame({"label": [f"class_{i}" for i in range(n)], "train_clips": clips,
                         "average_precision": np.full(n, precision)})  # fmt: skip


def rows_of(image, colour) -> np.ndarray:
    return np.argwhere(np.abs(image - np.array(colour)).max(axis=-1) < 0.1)[:, 0]


@pytest.mark.parametrize("most", [10**5, 60])
def test_a_better_run_lies_higher(tmp_path, most):
    tables = {"good": table(60, 0.9, most), "bad": table(60, 0.2, most)}
    run_pictures.class_precision(tables, tmp_path / "p.png")
    image = looked_at(tmp_path / "p.png")
    assert np.median(rows_of(image, BLUE)) < np.median(rows_of(image, ORANGE)) - 100


def test_a_run_of_no_average_precision_is_drawn_without_a_warning(tmp_path, recwarn):
    """One class that every held-out clip holds: it has no average precision."""
    run_pictures.class_precision({"run": table(1, np.nan)}, tmp_path / "p.png")
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("n", [1, 2, 5, 527])
def test_ranks_of_any_number_of_classes(tmp_path, n):
    some = table(n, 0.5)
    some.loc[0, "average_precision"] = np.nan  # no clip of it was held out
    run_pictures.class_ranks(some, "run", tmp_path / "r.png")
    assert n == 1 or share_of(looked_at(tmp_path / "r.png"), BLUE) > 0.02


def test_curves_of_runs_of_other_lengths_and_training_scores(tmp_path):
    steps = np.arange(1, 21) * 100
    log = pd.DataFrame({"steps": steps, "loss": 1 / steps, "map": np.where(steps % 500, np.nan, 0.5)})
    logs = {"a": log, "b": log.iloc[:5].assign(train_map=0.9), "unscored": log.drop(columns="map")}
    run_pictures.run_curves(logs, "map", tmp_path / "c.png")
    assert share_of(looked_at(tmp_path / "c.png"), ORANGE) > 0.0001


def test_folds_of_other_lengths_have_one_curve(tmp_path):
    folds = []
    for fold, steps in ((0, (31, 62)), (1, (33, 66)), (2, (32,))):  # the last one stopped early
        folder = tmp_path / f"fold{fold}"
        folder.mkdir()
        rows = [f"{epoch},{step},{fold + epoch}" for epoch, step in enumerate(steps)]
        (folder / "log.csv").write_text("\n".join(["epoch,steps,loss", *rows]) + "\n")
        folds.append(FoldRun(folder))
    curve = report.curve(Run(tmp_path, tuple(folds)))
    assert curve.steps.tolist() == [32, 64]
    assert curve.loss.tolist() == [1.0, 1.5]


def test_labels_of_neighbours_do_not_lie_on_each_other(tmp_path):
    from earshot.pictures.folds import _figure

    points = [("Cnn14", 33e9, 0.431), ("ResNet22", 30.1e9, 0.430), ("ResNet54", 54.6e9, 0.429), ("Cnn6", 22e9, 0.343)]
    _, axes = _figure(8, 5)
    axes[0, 0].set(xscale="log", xlim=(2e10, 1e11), ylim=(0.3, 0.45))
    heights = run_pictures._label_heights(axes[0, 0], points)
    assert heights[3] == 0, "alone: beside its dot"
    assert heights[1] >= 5, "the dot of Cnn14 is in its way"
    run_pictures.score_by_cost(points, "mean map of folds", "5", tmp_path / "s.png")
    looked_at(tmp_path / "s.png")
    run_pictures.score_by_cost(points[:1], "mean map of folds", "5", tmp_path / "s.png")
    looked_at(tmp_path / "s.png")


@pytest.fixture
def kept(monkeypatch) -> list:
    """The figures that are drawn, written all the same."""
    figures, save = [], run_pictures._save

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(run_pictures, "_save", keep)
    return figures


def test_the_loss_of_a_single_epoch_is_seen(tmp_path, kept):
    run_pictures.run_curves({"a": pd.DataFrame({"steps": [31], "loss": [0.7]})}, "map", tmp_path / "c.png")
    (line,) = kept[0].axes[0].lines
    assert line.get_marker() == ".", "a line of one point is invisible"


def test_a_panel_a_score_and_a_labelled_dot_a_system(tmp_path, kept):
    points = [("baseline", 45_996, 0.60, 0.02), ("se_trans", 340_536, 0.70, np.nan), ("fmix", 340_536, 0.72, 0.01)]
    run_pictures.score_by_parameters({"scenes: accuracy": points, "ust: auprc": points[:1]}, tmp_path / "p.png")
    looked_at(tmp_path / "p.png")
    left, right = kept[0].axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("parameters", "scenes: accuracy")
    assert right.get_ylabel() == "ust: auprc"
    assert [t.get_text() for t in left.texts] == ["baseline", "se_trans", "fmix"]
    dots = [c.get_offsets()[0].tolist() for c in left.collections if isinstance(c, PathCollection)]
    assert dots == [[45_996, 0.6], [340_536, 0.7], [340_536, 0.72]]
    assert len(left.containers) == 2, "a deviation where there is one"
    low, high = left.get_xlim()
    ticks = [t.get_text() for t in left.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert ticks == ["50 k", "100 k", "200 k", "500 k"]


def test_bars_of_classes_by_system(tmp_path, kept):
    labels = ["engine", "dog", "never"]
    scores = {"plain": pd.DataFrame([[0.5, 0.8, np.nan], [0.7, 0.8, np.nan]], columns=labels),
              "fmix": pd.DataFrame([[0.9, 0.4, np.nan]], columns=labels)}  # fmt: skip
    run_pictures.class_scores_by_system(pd.Series([141, 61, 5], labels), scores, "AUPRC", tmp_path / "c.png")
    looked_at(tmp_path / "c.png")
    counts, bars = kept[0].axes
    assert [b.get_height() for b in counts.patches] == [141, 61], "a class without a score is left out"
    assert [b.get_height() for b in bars.patches] == pytest.approx([0.6, 0.8, 0.9, 0.4])
    assert (counts.get_ylabel(), bars.get_ylabel()) == ("training clips", "AUPRC")
    assert [t.get_text() for t in bars.get_xticklabels()] == ["engine", "dog"]
    assert [t.get_text() for t in kept[0].legends[0].get_texts()] == ["plain (2 seeds)", "fmix (1 seed)"]
    middles = [b.get_x() + b.get_width() / 2 for b in bars.patches]
    assert middles[0] < middles[2] < 0.5 < middles[1] < middles[3], "the bars of a class stand together"


@pytest.mark.slow
def test_report_of_two_runs(tiny, capsys):
    for name, sampler in (("a", "uniform"), ("b", "balanced")):
        run(train, "--config", tiny, "--fold", "0", "--name", name, f"data.sampler={sampler}", "optim.epochs=2",
            "optim.score_training=6")  # fmt: skip
    rows = pd.read_csv("runs/sed/b/fold0/classes.csv")
    clips, folds = pd.read_csv("data/clips.csv"), pd.read_csv("folds.csv")
    held_out = clips[clips.clip_id.isin(folds.clip_id[folds.fold == 0])]
    assert rows.label.tolist() == ["low", "mid", "high"]
    assert rows.clips.tolist() == [int((held_out.labels == c).sum()) for c in rows.label]
    assert (rows.train_clips + rows.clips).tolist() == [int((clips.labels == c).sum()) for c in rows.label]
    log = pd.read_csv("runs/sed/b/fold0/log.csv")
    assert log.steps.tolist() == [3, 6]
    assert log.train_map.dropna().between(0, 1).all()
    assert log.train_map.notna().any()
    run(report, "--runs", "runs/sed/a", "runs/sed/b", "--out", "pictures")
    said = r"multi-adds of a window \(PANNs' count\)  mean map of folds 0\.\d{4} \(\d folds?\)"
    assert re.search(said, capsys.readouterr().out)
    made = {"class_precision.png", "class_ranks_a.png", "class_ranks_b.png", "cost.png", "curves.png"}
    assert {p.name for p in (tiny.parent / "pictures").iterdir()} == made
    with pytest.raises(ValueError, match="has no score 'mapp'; did you mean 'map'"):
        run(report, "--runs", "runs/sed/a", "--out", "pictures", "--score", "mapp")
    with pytest.raises(ValueError, match="names a run twice: sed/a"):
        run(report, "--runs", "runs/sed/a", "runs/sed/a", "--out", "pictures")


def test_a_score_that_some_folds_do_not_define_is_the_mean_of_the_others():
    def a_run(*scores):
        return SimpleNamespace(folder="runs/x", folds=[SimpleNamespace(about={"scores": each}) for each in scores])

    assert report.score_of(a_run({"map": 0.5}, {"lwlrap": 1.0}, {"map": 0.7}), "map") == (pytest.approx(0.6), 2)
    with pytest.raises(ValueError, match="runs/x has no score 'map'"):
        report.score_of(a_run({"lwlrap": 1.0}), "map")

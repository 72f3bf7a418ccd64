"""Few-shot: so many clips of a class, and the curve of scores against them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fewshot
from earshot.config import load_config
from earshot.data.prepared import PreparedData, load_data
from earshot.pictures import folds as fold_pictures
from scripts import run


def prepared(target):
    clips = pd.DataFrame({"clip_id": [f"c{i}" for i in range(len(target))], "path": "x.wav", "labels": "a"})
    classes = [f"k{i}" for i in range(target.shape[1])]
    return PreparedData(
        clips=clips,
        classes=classes,
        source=Path(),
        target=target,
        mask=np.ones_like(target),
        events=None,
        whole=clips[["clip_id", "path"]],
    )


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=40), st.integers(1, 6),
    st.integers(0, 5),
)  # fmt: skip
def test_more_clips_add_to_fewer_and_every_class_has_its_share(rows, n, seed):
    target = np.array(rows, np.float32)
    data = prepared(target)
    few, more = (data.limit(k, seed) for k in (n, n + 1))
    assert set(few.clips.clip_id) <= set(more.clips.clip_id)
    has, had = few.target.sum(axis=0), target.sum(axis=0)
    assert (has >= np.minimum(n, had)).all()
    if (target.sum(axis=1) <= 1).all():
        np.testing.assert_array_equal(has, np.minimum(n, had))
    assert len(few.whole) == len(target), "caches are of the data set"
    assert data.limit(0, seed) is data


def test_the_seed_chooses(tiny):
    data = load_data(load_config(tiny).data)
    chosen = [tuple(data.limit(2, seed).clips.clip_id) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert data.limit(2, 0).target.sum(axis=0).tolist() == [2, 2, 2]


def rows(config, values):
    return [{"config": config, "count": c, "score": s} for c, some in values.items() for s in some]


def test_the_picture_shows_means_and_deviations(tmp_path, monkeypatch):
    axes = []
    monkeypatch.setattr(fold_pictures, "_save", lambda figure, path: axes.append(figure.axes[0]))
    fold_pictures.score_by_count(
        rows("a", {1: [0.2, 0.4], 4: [0.8]}) + rows("b", {1: [0.1]}), "accuracy", tmp_path / "x.png"
    )
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes[0].lines}
    assert lines == {"a": [[1, pytest.approx(0.3)], [4, 0.8]], "b": [[1, 0.1]]}
    band = axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.2)
    assert axes[0].get_ylabel() == "accuracy"


@pytest.mark.slow
def test_a_curve_is_resumed_and_keeps_what_it_has(tiny):
    arguments = ["--config", tiny, "--counts", "1", "2", "--fold", "0", "1", "--out", "few.csv", "optim.epochs=1"]
    run(fewshot, *arguments, "--seeds", "1")
    first = pd.read_csv("few.csv")
    made = Path("runs/sed/tiny_2clips_seed0/fold1/best.safetensors").stat().st_mtime_ns
    run(fewshot, *arguments, "--seeds", "2", draw=True)
    table = pd.read_csv("few.csv")
    assert list(table.columns) == ["config", "count", "seed", "fold", "score"]
    assert len(table) == 8
    merged = first.merge(table, on=["config", "count", "seed", "fold", "score"])
    assert len(merged) == len(first) == 4
    assert Path("runs/sed/tiny_2clips_seed0/fold1/best.safetensors").stat().st_mtime_ns == made
    assert Path("few.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--counts", "0"], r"--counts \[0\] and --seeds 3 must all be 1 or more"),
        (["seed=4"], "seed=4 is this script's own: use --seeds and --counts"),
        (["--config", "other/tiny.yaml", "tiny.yaml"], "two configs are called tiny and would share their runs"),
    ],
)
def test_bad_input_is_named(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(fewshot, "--config", tiny, *arguments)


def test_configs_that_watch_different_scores_share_no_picture(tiny):
    Path("other.yaml").write_text(tiny.read_text() + "\nwatch: lwlrap\n")
    with pytest.raises(ValueError, match=r"watch different scores \(tiny: map, other: lwlrap\)"):
        run(fewshot, "--config", tiny, "other.yaml")

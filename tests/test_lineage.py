"""What a fold learned from besides labels, also through the weights that it started from: small tables by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from earshot.ensemble import lineage


def weights(path: Path, about) -> Path:
    save_file({"w": np.zeros(1, np.float32)}, path, metadata={"earshot": json.dumps(about)})
    return path


def test_what_a_fold_learned_from_is_listed_once_and_in_order():
    made = {"mode": "honest", "by": "sed/a", "folder": "x", "commit": "c0", "clips": 7, "hard": None}
    inherited = [{"trained_on": "pseudo", "mode": "source"}, {"trained_on": "weights", "mode": "w"}]
    about = {
        "distill": {"by": "sed/d"}, "pseudo": {"mode": "source"}, "soft_targets": made, "watch": "map",
        "inherited": inherited,
    }  # fmt: skip
    assert lineage.entries(about) == [
        {"trained_on": "soft_targets", "mode": "honest", "by": "sed/a", "folder": "x", "commit": "c0"},
        {"trained_on": "pseudo", "mode": "source"},
        {"trained_on": "distill", "mode": "isolated", "by": "sed/d"},
        {"trained_on": "weights", "mode": "w"},
    ]
    assert lineage.entries({"soft_targets": {}, "pseudo": None, "distill": None}) == [
        {"trained_on": "soft_targets", "mode": "unknown"}
    ]
    assert lineage.entries({}) == []


@pytest.mark.parametrize(("made", "mode"), [
    ({}, "isolated"),
    ({"predictions": ""}, "isolated"),
    ({"unlabelled": "folder"}, "isolated"),
    ({"predictions": "oof.npz"}, "honest"),
    ({"predictions": "oof.npz", "unlabelled": ""}, "honest"),
    ({"predictions": "test.npz", "unlabelled": "folder"}, "heard"),
])  # fmt: skip
def test_how_far_a_teacher_kept_folds_apart(made, mode):
    assert lineage.distill_mode(made) == mode
    assert [e["mode"] for e in lineage.entries({"distill": made})] == [mode]
    assert [e["mode"] for e in lineage.entries({"distill": made | {"mode": "said"}})] == ["said"]


class Fold(SimpleNamespace):
    """What lineage asks of a fold: about, fold, finished, and the weights that its config names."""

    def __init__(self, about, start="", fold=0, finished=True):
        config = SimpleNamespace(model=SimpleNamespace(weights=str(start)))
        super().__init__(about=about, config=config, fold=fold, finished=finished)


def test_weights_say_what_they_learned_from(tmp_path, monkeypatch):
    pseudo, soft = ({"trained_on": t, "mode": "m"} for t in ("pseudo", "soft_targets"))
    folds = {"a": Fold({"pseudo": {"mode": "m"}}), "b": Fold({"soft_targets": {"mode": "m"}}, finished=False),
             "c": Fold({"pseudo": {"mode": "m"}})}  # fmt: skip
    monkeypatch.setattr(lineage, "FoldRun", lambda path: folds[str(path)])
    assert lineage.of_weights(weights(tmp_path / "plain", {})) == []
    assert lineage.of_weights(tmp_path / "absent") == []
    own = weights(tmp_path / "own", {"soft_targets": {"mode": "m"}})
    assert lineage.of_weights(own) == [soft]
    soup = weights(tmp_path / "soup", {"soup_of": ["a", "b", "c"]})
    assert lineage.of_weights(soup) == [pseudo], "b is not finished, c says what a says"
    told = weights(tmp_path / "told", {"soup_of": ["a"], "inherited": []})
    assert lineage.of_weights(told) == [], "it says itself what its members learned from"


def test_the_start_of_a_fold_is_asked_where_its_run_does_not_say(tmp_path):
    soft = {"trained_on": "soft_targets", "mode": "m"}
    start = weights(tmp_path / "w2.safetensors", {"soft_targets": {"mode": "m"}})
    named = tmp_path / "w{fold}.safetensors"
    assert lineage.of_fold(Fold({}, named, fold=2)) == [soft]
    assert lineage.of_fold(Fold({}, named, fold=1)) == []
    assert lineage.of_fold(Fold({"inherited": []}, start)) == []
    assert lineage.of_fold(Fold({})) == []
    pseudo = {"trained_on": "pseudo", "mode": "unknown"}
    assert lineage.of_fold(Fold({"pseudo": {}}, start)) == [pseudo, soft]
    assert lineage.of_fold(Fold({"soft_targets": {"mode": "m"}}, start)) == [soft]

"""Who may answer for whom, and which clips keep their labels: tables of a few clips, folds that are stand-ins."""

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from earshot.ensemble import relabelling
from earshot.prediction.predictions import Predictions

CLIPS = pd.DataFrame({"clip_id": list("wxyz"), "site": ["1", "01", "2", ""], "group": ["g", "g", " h", "h "]})


def said(ids="wxyz", fold=(0, 0, 1, 1), values=((0.2, 0.8), (0.5, 0.4), (1.0, 0.0), (0.6, 0.6))) -> Predictions:
    n = len(ids)
    return Predictions(np.array(list(ids)), ("a", "b"), np.array(values, np.float32)[:n], np.array(fold)[:n],
                       np.zeros(n, bool))  # fmt: skip


class Fold(SimpleNamespace):
    """A trained fold as relabelling asks it."""

    def __init__(self, fold, oof=None, finished=True, folder=None, **about):
        config = SimpleNamespace(model=SimpleNamespace(weights=""))
        folder = folder or Path(f"runs/sed/m/fold{fold}")
        weights = folder / "best.safetensors"
        super().__init__(
            fold=fold, finished=finished, folder=folder, weights=weights, about=about, config=config, oof=lambda: oof
        )


def run_of(path, *folds) -> SimpleNamespace:
    config = SimpleNamespace(
        data=SimpleNamespace(folds=str(path)), watch="map", optim=SimpleNamespace(select="best"),
        model=SimpleNamespace(weights="w.safetensors"),
    )  # fmt: skip
    return SimpleNamespace(folder=Path("runs/sed/m"), name="sed/m", folds=folds, config=config)


# ---- clips that keep their labels


def test_clips_keep_their_labels_by_text_or_by_number():
    clips = CLIPS.assign(year=[2019.0, 2020.0, np.nan, 2020.0], note=["a=b", "c", None, "nan"])
    kept = relabelling.kept_clips(clips, ["site=1", "site=01", "year=2020", "note=a=b", "clip_id=y", "note=d"])
    assert {text: rows.tolist() for text, rows in kept.items()} == {
        "site=1": [True, True, False, False],  # a number is a number
        "site=01": [True, True, False, False],
        "year=2020": [False, True, False, True],
        "note=a=b": [True, False, False, False],  # up to the first sign
        "clip_id=y": [False, False, True, False],
        "note=d": [False] * 4,
    }
    assert all(rows.dtype == bool for rows in kept.values())
    assert relabelling.kept_clips(clips, []) == {}
    for text in ("site", "sites=1"):
        with pytest.raises(ValueError, match=f"^--keep {text} is no column=value of the clip table"):
            relabelling.kept_clips(clips, [text])
    with pytest.raises(ValueError, match="did you mean 'site'"):
        relabelling.kept_clips(clips, ["sites=1"])


# ---- who may answer


def folds_csv(folder, fold=(0, 0, 1, 1), group="gghh", ids="wxyz") -> Path:
    path = folder / "folds.csv"
    pd.DataFrame({"clip_id": list(ids), "group": list(group), "fold": fold}).to_csv(path, index=False)
    return path


def test_honest_answers_are_those_of_the_fold_that_held_a_clip_out(tmp_path):
    path = folds_csv(tmp_path)
    whole = said()
    run = run_of(path, Fold(0, whole.take([0, 1])), Fold(1, whole.take([2, 3])))
    found, digest = relabelling.honest_answers(run, CLIPS)
    assert found.clip_ids.tolist() == list("wxyz")
    np.testing.assert_array_equal(found.clipwise_output, whole.clipwise_output)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    always = folds_csv(tmp_path, (0, 0, -1, -1))  # clips that always train have no answer, and need none
    found, _ = relabelling.honest_answers(run_of(always, Fold(0, whole.take([0, 1]))), CLIPS)
    assert found.clip_ids.tolist() == ["w", "x"]


def test_what_would_betray_a_clip_is_refused(tmp_path):
    path, whole = folds_csv(tmp_path, (0, 0, 3, 3)), said(fold=(0, 0, 3, 3))
    first, last = Fold(0, whole.take([0, 1])), Fold(3, whole.take([2, 3]))
    relabelling.honest_answers(run_of(path, first, last), CLIPS)
    with pytest.raises(ValueError, match=r"runs/sed/m: folds \[0, 3\] are not finished"):
        relabelling.honest_answers(run_of(path, Fold(0, finished=False)), CLIPS)
    with pytest.raises(ValueError, match=r"runs/sed/m: folds \[3\] are not finished"):
        relabelling.honest_answers(run_of(path, first), CLIPS)
    moved = run_of(path, Fold(0, whole.take([0])), Fold(3, replace(whole, fold=np.full(4, 3)).take([1, 2, 3])))
    with pytest.raises(ValueError, match=f"runs/sed/m was trained on another fold table than {path}: 1 .*: x$"):
        relabelling.honest_answers(moved, CLIPS)
    strange = Fold(3, Predictions(np.array(["v", "y", "z"]), ("a", "b"), np.zeros((3, 2), np.float32), np.full(3, 3),
                                  np.zeros(3, bool)))  # fmt: skip
    with pytest.raises(ValueError, match="another fold table than .*: 1 clips .*: v$"):
        relabelling.honest_answers(run_of(path, first, strange), CLIPS)
    told = Fold(3, whole.take([2, 3]), pseudo={"mode": "source", "by": "sed/x"})
    with pytest.raises(
        ValueError, match="runs/sed/m/fold3 was trained on pseudo-labels made by sed/x in mode 'source'"
    ):
        relabelling.honest_answers(run_of(path, first, told), CLIPS)
    parted = folds_csv(tmp_path, (0, 3, 3, 3), "abcd")
    with pytest.raises(ValueError, match=rf"{parted} has clips of 1 groups in several folds \(g\)"):
        relabelling.honest_answers(run_of(parted, first, last), CLIPS)


@pytest.mark.parametrize(("own", "clips"), [
    (["g", "g", "h", "h"], None), (["g", "h ", None, None], ["", "", "a", "a"]), ([" ", "", "", ""], None),
])  # fmt: skip
def test_groups_of_one_fold_are_whole(own, clips):
    """Clips without a group are no group together."""
    folds = pd.DataFrame({"group": own, "fold": [0, 0, 1, 1]})
    table = pd.DataFrame({"clip_id": list("wxyz")} | ({} if clips is None else {"group": clips}))
    relabelling.check_groups(folds, table, Path("f.csv"))


@pytest.mark.parametrize(("own", "clips"), [
    (["a", "b", "b ", "d"], ["", "", "", ""]), (["a", "b", "c", "d"], ["", " s", "s", ""]), (None, ["s", "", "", "s"]),
])  # fmt: skip
def test_a_group_in_two_folds_is_refused_whichever_table_says_it(own, clips):
    folds = pd.DataFrame({"fold": [0, 0, 1, 1]} | ({} if own is None else {"group": own}), index=[3, 2, 1, 0])
    with pytest.raises(ValueError, match=r"^f.csv has clips of 1 groups in several folds \((b|s)\)"):
        relabelling.check_groups(folds, pd.DataFrame({"group": clips}), Path("f.csv"))


def test_a_fold_may_have_learned_from_what_kept_folds_apart():
    for mode in ("isolated", "honest"):
        relabelling.check_not_told(Fold(0, soft_targets={"mode": mode}, distill={"mode": mode}))
    relabelling.check_not_told(Fold(0))
    with pytest.raises(ValueError, match="trained on pseudo-labels made by"):  # the second of two
        relabelling.check_not_told(Fold(0, soft_targets={"mode": "honest"}, pseudo={"mode": "source"}))
    own = r"fold0 was trained on targets made by an unknown maker in mode 'source', .* held out: its answers are not"
    with pytest.raises(ValueError, match=own):
        relabelling.check_not_told(Fold(0, distill={"mode": "honest"}, soft_targets={"mode": "source"}))
    through = r"trained on answers made by sed/t in mode 'heard', .* held out, through the weights"
    inherited = [{"trained_on": "distill", "mode": "heard", "by": "sed/t"}]
    with pytest.raises(ValueError, match=through):
        relabelling.check_not_told(Fold(0, inherited=inherited))


# ---- targets


def test_targets_are_the_answers_or_cut_at_a_probability():
    found = replace(said(), unreadable=np.array([False, False, False, True])).take([3, 1, 0, 2])
    kept = {"a": np.array([True, False, False, False]), "b": np.array([True, True, False, False])}
    targets, counts = relabelling.targets_of(found, CLIPS, {}, None)
    assert targets.clip_ids.tolist() == list("wxy"), "in the order of the table"
    np.testing.assert_array_equal(targets.target, said().clipwise_output[:3])
    assert (targets.classes, targets.mask.tolist(), targets.mask.dtype) == (("a", "b"), [[1, 1]] * 3, np.uint8)
    assert targets.lineage == {"answered_by_fold": [0, 0, 1]}
    assert counts == {"no answer": 1}
    hard, counts = relabelling.targets_of(found, CLIPS, kept, 0.5)
    assert (hard.clip_ids.tolist(), hard.target.tolist(), hard.target.dtype) == (["y"], [[1, 0]], np.float32)
    assert counts == {"a": 1, "b": 1, "no answer": 1}
    at, _ = relabelling.targets_of(said(), CLIPS, {}, 0.5)
    assert at.target.tolist() == [[0, 1], [1, 0], [1, 0], [1, 1]], "from the probability itself on"
    with pytest.raises(ValueError, match=r"no clip is left to relabel: \{'all': 4, 'no answer': 0\}"):
        relabelling.targets_of(said(), CLIPS, {"all": np.ones(4, bool)}, None)
    without = {"z": np.array([False, False, False, True])}
    assert relabelling.targets_of(found, CLIPS, without, None)[1] == {"z": 1, "no answer": 0}, "it keeps its labels"


def test_answers_that_are_no_probabilities_are_no_targets():
    rounding = replace(said(), clipwise_output=np.full((4, 2), 1 + 5e-6, np.float32))
    targets, _ = relabelling.targets_of(rounding, CLIPS, {}, None)
    assert targets.target.max() == 1
    edges = replace(said(), clipwise_output=np.array([[0, 1]] * 4, np.float32))
    assert relabelling.targets_of(edges, CLIPS, {}, None)[0].target.tolist() == [[0, 1]] * 4
    for value in (-1e-3, 1.0001, 1.5):
        odd = replace(said(), clipwise_output=np.array([[0.5, 0.5]] * 3 + [[0.5, value]], np.float32))
        with pytest.raises(ValueError, match="no probabilities of 0 to 1"):
            relabelling.targets_of(odd, CLIPS, {}, None)


def test_targets_say_who_answered(tmp_path):
    folds = []
    for k, about in enumerate(({"best_epoch": 3, "commit": "c1", "soft_targets": {"mode": "m"}}, {})):
        folder = tmp_path / f"fold{k}"
        folder.mkdir()
        (folder / "best.safetensors").write_bytes(b"%d" % k)
        folds.append(Fold(k, folder=folder, **about))
    about = relabelling.lineage_of(run_of("f.csv"), folds, "honest", {"no answer": 1}, 0.5)
    assert about.pop("commit") == relabelling.runs.git_commit()
    sha = [hashlib.sha256(b"%d" % k).hexdigest() for k in (0, 1)]
    assert about == {
        "by": "sed/m (folds 0, 1, honest)", "run": "runs/sed/m", "mode": "honest", "hard": 0.5,
        "kept_labels": {"no answer": 1}, "watch": "map", "select": "best", "started_from": "w.safetensors",
        "trained_on": {"mode": "m"},
        "folds": {"0": {"weights_sha256": sha[0], "best_epoch": 3, "commit": "c1"},
                  "1": {"weights_sha256": sha[1], "best_epoch": None, "commit": ""}},
    }  # fmt: skip
    one = relabelling.lineage_of(run_of("f.csv"), folds[1:], "source", {}, None)
    assert (one["by"], one["trained_on"], one["hard"]) == ("sed/m (fold 1, source)", None, None)

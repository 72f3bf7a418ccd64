"""relabel.py: predictions become targets with lineage; honest ones come from networks that never heard the clip."""

import json

import numpy as np
import pandas as pd
import pytest

import relabel
import train
from earshot.config import load_config
from earshot.data.prepared import load_data
from earshot.data.soft_targets import SoftTargets, told
from earshot.ensemble import relabelling
from earshot.prediction.predictions import Predictions
from earshot.runs import load_run
from scripts import run

CLASSES = ("low", "mid", "high")
TRAIN = ("optim.select=last", "optim.epochs=1", "loss.name=bce", "predict.keep_frames=false", "augment.spec_augment={}",
         "watch=map")  # fmt: skip


def soft(clip_ids=("c1",), target=((0.2, 0.7, 0.1),), **changed) -> SoftTargets:
    values = {
        "clip_ids": np.array(clip_ids),
        "classes": CLASSES,
        "target": np.array(target, np.float32),
        "mask": np.ones((len(clip_ids), 3), np.uint8),
        "lineage": {"by": "sed/a (fold 0, source)", "mode": "source"},
    }
    return SoftTargets(**{**values, **changed})  # fmt: skip


# ---- targets.npz


def test_the_file_comes_back_and_overrides_what_it_has(tmp_path):
    soft(("c1", "c9")[:1], lineage={"by": "x", "mode": "honest"}).save(tmp_path / "t.npz")
    found = SoftTargets.load(tmp_path / "t.npz")
    assert (found.classes, found.lineage["mode"]) == (CLASSES, "honest")
    target, mask = found.over(["c0", "c1"], ["high", "other", "low"], np.eye(2, 3), np.array([[1, 1, 1], [0, 1, 0]]))
    np.testing.assert_allclose(target, [[1, 0, 0], [0.1, 1, 0.2]], atol=1e-3)
    assert mask.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist; src/relabel.py writes it"):
        SoftTargets.load(tmp_path / "t.npz")
    (tmp_path / "t.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="t.npz holds no targets"):
        SoftTargets.load(tmp_path / "t.npz")
    with pytest.raises(ValueError, match="1 clip has targets twice: a"):
        soft(("a", "a"), ((0, 0, 0), (0, 0, 0)))
    with pytest.raises(ValueError, match="must lie in 0 to 1, got -1"):
        soft(target=((-1, 0, 0),))
    soft(target=((-1, 0, 0),), mask=np.array([[0, 1, 1]], np.uint8))  # nobody reads what is unknown


def test_training_takes_them_and_what_is_held_out_keeps_its_labels(tiny):
    before = load_data(load_config(tiny).data)
    soft(("c0", "c1"), ((0.5, 0.25, 0), (0, 0.75, 0.5))).save("data/targets.npz")
    data = load_data(load_config(tiny).data)
    said = told(data.soft, data.clips.clip_id, [*data.classes, "other"])
    assert said.startswith(
        "2 of 24 clips train on targets made by sed/a (fold 0, source) in place of their labels; other"
    )
    np.testing.assert_array_equal(data.target, before.target)
    fold = int(data.clips.fold[data.clips.clip_id == "c1"].iloc[0])
    training, held_out = data.split(fold, "folds.csv")
    assert held_out.target.tolist() == before.split(fold, "folds.csv")[1].target.tolist()
    other = (fold + 1) % 3
    training, _ = data.split(other, "folds.csv")
    np.testing.assert_allclose(training.target[(training.clips.clip_id == "c1").to_numpy()], [[0, 0.75, 0.5]])
    assert load_data(load_config(tiny, ["data.soft_targets=none"]).data).soft is None
    soft(("x",)).save("other.npz")
    with pytest.raises(ValueError, match="other.npz has targets of none of these clips"):
        load_data(load_config(tiny, ["data.soft_targets=other.npz"]).data)


# ---- who may answer


@pytest.fixture
def answered(tiny):
    """A run whose folds answer their own clips with 0.1 * fold, made by hand; config and tables are the tiny ones."""
    from earshot.runs import create_fold

    config = load_config(tiny)
    data = load_data(config.data)
    for fold in range(3):
        folder = tiny.parent / "runs/sed/made" / f"fold{fold}"
        create_fold(folder, config, resume=False)
        about = {
            "finished": True,
            "classes": list(CLASSES),
            "prior": [0.5] * len(CLASSES),
            "fold": fold,
            "best_epoch": 2,
        }
        (folder / "run.json").write_text(json.dumps(about))
        (folder / "best.safetensors").write_bytes(b"weights %d" % fold)
        ids = data.clips.clip_id[data.clips.fold == fold].to_numpy(str)
        n = len(ids)
        Predictions(ids, CLASSES, np.full((n, 3), 0.3 + 0.1 * fold, np.float32), np.full(n, fold),
                    np.zeros(n, bool)).save(folder / "oof.npz")  # fmt: skip
    return tiny.parent


def test_each_clip_is_answered_by_the_fold_that_held_it_out(answered, capsys):
    table = pd.read_csv("data/clips.csv").assign(is_verified=lambda t: (t.clip_id == "c5").astype(int))
    table.to_csv("data/clips.csv", index=False)
    run(relabel, "--run", "runs/sed/made")
    found = SoftTargets.load("data/targets.npz")
    folds = pd.read_csv("folds.csv").set_index("clip_id").fold
    expected = 0.3 + 0.1 * folds[found.clip_ids].to_numpy()
    np.testing.assert_allclose(found.target, np.repeat(expected[:, None], 3, axis=1), atol=1e-3)
    assert found.lineage["answered_by_fold"] == folds[found.clip_ids].tolist()
    assert "c5" not in found.clip_ids
    assert len(found.clip_ids) == 23
    assert found.lineage["kept_labels"] == {"is_verified=1": 1, "no answer": 0}
    assert set(found.lineage["folds"]) == {"0", "1", "2"}
    out = capsys.readouterr().out
    assert "23 of 24 clips have soft targets by sed/made" in out
    assert "1 keep their labels: is_verified=1" in out
    with pytest.raises(ValueError, match="targets.npz exists: give another --out, or replace it with --force"):
        run(relabel, "--run", "runs/sed/made")
    run(relabel, "--run", "runs/sed/made", "--hard", "0.4", "--keep", "labels=low", "--out", "hard.npz")
    hard = SoftTargets.load("hard.npz")
    assert set(np.unique(hard.target)) == {0, 1}
    assert len(hard.clip_ids) == 16


def change(path, function):
    table = pd.read_csv(path)
    function(table).to_csv(path, index=False)


def test_answers_that_are_not_honest_are_refused(answered):
    start = (answered / "folds.csv").read_text()
    change("folds.csv", lambda t: t.assign(group="one sensor"))
    with pytest.raises(ValueError, match="has clips of 1 groups in several folds .one sensor.: a network that holds"):
        run(relabel, "--run", "runs/sed/made")
    (answered / "folds.csv").write_text(start)
    change("folds.csv", lambda t: t.assign(group=np.where(t.clip_id == "c0", "alone", "")))
    run(relabel, "--run", "runs/sed/made", "--out", "apart.npz")  # clips without a group are no group
    (answered / "folds.csv").write_text(start)
    change("folds.csv", lambda t: t.assign(fold=(t.fold + (t.clip_id == "c0")) % 3))
    with pytest.raises(ValueError, match="was trained on another fold table than folds.csv|1 clips were held out in"):
        run(relabel, "--run", "runs/sed/made")
    (answered / "folds.csv").write_text(start)
    about = answered / "runs/sed/made/fold1/run.json"
    told = json.loads(about.read_text())
    about.write_text(json.dumps(told | {"soft_targets": {"by": "sed/b", "mode": "source"}}))
    with pytest.raises(ValueError, match="fold1 was trained on targets made by sed/b in mode 'source', whose networks"):
        run(relabel, "--run", "runs/sed/made")
    for more in ({"distill": {"predictions": {"a.npz": "1"}, "unlabelled": 2}},
                 {"inherited": [{"trained_on": "pseudo", "mode": "all", "by": "sed/c"}]}):  # fmt: skip
        about.write_text(json.dumps(told | more))
        with pytest.raises(ValueError, match="fold1 was trained on (answers|pseudo-labels) made by .* in mode"):
            run(relabel, "--run", "runs/sed/made")
    about.write_text(json.dumps(told | {"soft_targets": {"by": "sed/b", "mode": "honest"}}))
    run(relabel, "--run", "runs/sed/made", "--out", "honest.npz")
    about.write_text(json.dumps(told | {"finished": False}))
    with pytest.raises(ValueError, match=r"folds \[1\] are not finished"):
        run(relabel, "--run", "runs/sed/made")
    with pytest.raises(ValueError, match="--keep verified=1 is no column=value of the clip table"):
        run(relabel, "--run", "runs/sed/made", "--keep", "verified=1")
    with pytest.raises(ValueError, match=r"has the folds \[0, 1, 2\]: say whose checkpoint relabels"):
        run(relabel, "--run", "runs/sed/made", "--mode", "source")


def test_clips_that_always_train_keep_their_labels(answered):
    change("folds.csv", lambda t: t.assign(fold=t.fold.where(t.clip_id != "c0", -1)))
    clips = pd.read_csv("data/clips.csv")
    found = load_run("runs/sed/made")
    with pytest.raises(ValueError, match="1 clips were held out in another fold"):  # it has an answer of fold 0
        relabelling.honest_answers(found, clips)
    path = answered / "runs/sed/made/fold0/oof.npz"
    oof = Predictions.load(path)
    oof.take(oof.clip_ids != "c0").save(path)
    targets, counts = relabelling.targets_of(relabelling.honest_answers(found, clips)[0], clips, {}, None)
    assert "c0" not in targets.clip_ids
    assert counts == {"no answer": 1}


# ---- the proof


def relabelled(tiny, name: str, mode: str, out: str) -> np.ndarray:
    """Targets of clip c0 by a run of this name, trained where it is missing."""
    folds = ["all"] if mode == "honest" else [1]
    if not (tiny.parent / "runs/sed" / name).is_dir():
        run(train, "--config", tiny, "--name", name, "--fold", *folds, *TRAIN)
    run(relabel, "--run", f"runs/sed/{name}", "--mode", mode, "--out", out)
    found = SoftTargets.load(out)
    return found.target[found.clip_ids.tolist().index("c0")]


@pytest.mark.slow
def test_an_honest_target_does_not_depend_on_the_clips_own_label_or_sound(tiny):
    """The same training with c0 labelled otherwise: the honest target of c0 is the same to the bit, since no network
    that answers for it learned from it; the source's way, by a network that did (c0 is of fold 0), moves."""
    honest = relabelled(tiny, "first", "honest", "one.npz")
    source = relabelled(tiny, "first_source", "source", "two.npz")
    clips = pd.read_csv("data/clips.csv").set_index("clip_id").labels
    assert clips["c0"] == "low"
    change("data/clips.csv", lambda t: t.assign(labels=t.labels.where(t.clip_id != "c0", "high")))
    change("data/events.csv", lambda t: t.assign(event_label=t.event_label.where(t.filename != "c0", "high")))
    np.testing.assert_array_equal(relabelled(tiny, "again", "honest", "three.npz"), honest)
    assert (relabelled(tiny, "again_source", "source", "four.npz") != source).any()


@pytest.mark.slow
def test_a_run_trains_on_the_targets_and_says_so(tiny, capsys):
    run(train, "--config", tiny, "--name", "teacher", "--fold", "all", *TRAIN)
    run(relabel, "--run", "runs/sed/teacher")
    run(train, "--config", tiny, "--name", "student", "--fold", 0, *TRAIN)
    said = " ".join(capsys.readouterr().out.split())  # long lines are wrapped
    assert "15 of 15 clips train on targets made by sed/teacher (folds 0, 1, 2, honest)" in said
    with pytest.raises(ValueError, match="data.soft_targets: 'auto' != "):
        run(train, "--config", tiny, "--name", "teacher", "--fold", 0, "--resume", *TRAIN)
    teacher, student = load_run("runs/sed/teacher"), load_run("runs/sed/student")
    about = student.folds[0].about["soft_targets"]
    assert about["by"] == "sed/teacher (folds 0, 1, 2, honest)"
    assert "answered_by_fold" not in about
    assert "soft_targets" not in teacher.folds[0].about
    weights = [(r.folds[0].folder / "best.safetensors").read_bytes() for r in (teacher, student)]
    assert weights[0] != weights[1]
    run(train, "--config", tiny, "--name", "plain", "--fold", 0, "data.soft_targets=none", *TRAIN)
    oofs = [load_run(f"runs/sed/{name}").folds[0].oof().clipwise_output for name in ("teacher", "plain")]
    np.testing.assert_array_equal(*oofs)

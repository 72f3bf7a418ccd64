"""Where weights and predictions come from: digests of tables, and what is refused for not belonging together."""

import json
import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import submit
from earshot import runs
from earshot.competitions.truths import checked_truth
from earshot.config import load_config
from earshot.data.digests import recording_name, table_digests
from earshot.data.soft_targets import SoftTargets
from earshot.ensemble import origins
from earshot.prediction import origin as of
from earshot.prediction.origin import Origin, TableDigests, weights_digest, weights_origin
from earshot.prediction.predictions import Predictions, join, read_origins, weighted_mean
from earshot.records import to_dict
from earshot.sound.timebase import TimeBase
from earshot.training.origins import begin, check_checkpoint, check_resumed, check_start, origin_of
from scripts import run

CLASSES = ["a", "b"]
TABLES = TableDigests(folds="f" * 32, classes="c" * 32, clips="d" * 32)
SMALL = "model.params={widths: [8, 8], blocks: [1, 1], time_strides: [2, 2], freq_strides: [2, 2]}"


def clips_table():
    return pd.DataFrame({"clip_id": ["x", "y"], "path": ["a/x.ogg", "a/y.ogg"], "labels": ["a", "b"]})


def folds_table():
    return pd.DataFrame({"clip_id": ["x", "y"], "group": ["x", "y"], "fold": [0, 1]})


def events_table():
    return pd.DataFrame({"filename": ["x"], "onset": [0.0], "offset": [1.0], "event_label": ["a"]})


def soft(target=((0.25, 1), (0, 0.5)), ids=("x", "y"), mask=((1, 1), (1, 1)), names=("a", "b")):
    return SoftTargets(clip_ids=np.array(ids), classes=names, target=np.array(target), mask=np.array(mask))


def digests(folds=None, clips=None, events=None, classes=("a", "b"), targets=None):
    tables = [given if given is not None else made() for given, made in ((folds, folds_table), (clips, clips_table))]
    return table_digests(
        *tables, events_table() if events is None else events, list(classes), soft() if targets is None else targets
    )


@pytest.mark.parametrize(("change", "changed"), [
    ({"folds": folds_table().assign(fold=[1, 0])}, {"folds"}),
    ({"folds": folds_table().assign(fold=[0, -1])}, {"folds"}),
    ({"classes": ("b", "a")}, {"classes"}),
    ({"clips": clips_table().assign(labels=["b", "a"])}, {"clips"}),
    ({"clips": clips_table().assign(path=["a/y.ogg", "a/x.ogg"])}, {"clips"}),
    ({"clips": clips_table().assign(secondary_labels=["", "a"])}, {"clips"}),
    ({"events": events_table().assign(offset=0.9)}, {"clips"}),
    ({"events": events_table().iloc[:0]}, {"clips"}),
    ({"folds": folds_table().iloc[::-1]}, set()),  # rows in another order say the same
    ({"clips": clips_table().iloc[::-1]}, set()),
    ({"clips": clips_table().assign(path=["b/x.wav", "b/y.wav"], duration=[1, 2])}, set()),  # moved and converted
    ({"folds": folds_table().assign(group="g")}, set()),
    ({"targets": soft(target=((0.25, 1), (0, 0.75)))}, {"targets"}),
    ({"targets": soft(mask=((1, 1), (1, 0)))}, {"targets"}),
    ({"targets": soft(names=("b", "a"))}, {"targets"}),
    ({"targets": soft(ids=("y", "x"))}, {"targets"}),
    ({"targets": soft(target=((0, 0.5), (0.25, 1)), ids=("y", "x"))}, set()),
])  # fmt: skip
def test_a_digest_changes_with_what_is_learned_and_with_nothing_else(change, changed):
    before, after = digests(), digests(**change)
    assert {name for name in of.WITHIN_A_RUN if getattr(before, name) != getattr(after, name)} == changed


def test_soft_targets_are_compared_within_a_run_and_where_both_know_theirs():
    kept, other = digests(), digests(targets=soft(mask=((1, 1), (1, 0))))
    none = table_digests(folds_table(), clips_table(), events_table(), ["a", "b"])
    assert none.targets == ""
    assert "soft targets" in of.tables_differ(kept, other, of.WITHIN_A_RUN)
    assert of.tables_differ(kept, none, of.WITHIN_A_RUN).endswith("against none")
    assert of.tables_differ(kept, other) == "", "runs of one ensemble may have learned from other teachers"
    assert of.tables_differ(kept, replace(other, targets=None), of.WITHIN_A_RUN) == "", "an older run does not say"


def test_a_recording_keeps_its_name_when_it_moves():
    assert [recording_name(p) for p in ("a/b.c.ogg", "b.c.wav", "x/w.npy#17", "w.h5#17", "w.h5#18")] == [
        "b.c", "b.c", "w#17", "w#17", "w#18",
    ]  # fmt: skip
    assert {recording_name(f"rec #10 b.{ending}") for ending in ("wav", "flac")} == {"rec #10 b"}, "no row of a file"


def origin(name="sed/x", fold=0, weights="", **tables) -> Origin:
    return Origin(run=name, fold=fold, tables=replace(TABLES, **tables), weights=weights)


def found(*origins, ids=("t",)) -> Predictions:
    n = len(ids)
    return Predictions(
        np.array(ids), ("a", "b"), np.full((n, 2), 0.5, np.float32), np.full(n, -1), np.zeros(n, bool),
        origins=origins or None,
    )  # fmt: skip


def test_predictions_keep_where_they_come_from(tmp_path):
    one, two = origin(weights="1"), origin(fold=1, weights="2")
    found(one).save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").origins == read_origins(tmp_path / "p.npz") == (one,)
    assert weighted_mean([found(one), found(two)]).origins == (one, two)
    assert join([found(one), found(two, ids=("u",))]).take([1]).origins == (one, two)
    assert weighted_mean([found(one), found()]).origins is None
    found().save(tmp_path / "old.npz")
    assert Predictions.load(tmp_path / "old.npz").origins is None is read_origins(tmp_path / "old.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    assert read_origins(tmp_path / "broken.npz") is None


def write_fold(folder: Path, name: str, fold: int, seed=0, record=True, classes=CLASSES, tables=TABLES) -> runs.FoldRun:
    """A fold with an untrained network and an OOF of one clip, of the run `name`; record: as of this version."""
    made = runs.create_fold(folder / f"fold{fold}", load_config(None, [SMALL]), resume=False)
    torch.manual_seed(seed + fold)
    model = runs.make_model(made.config, len(classes))
    mine = Origin(run=name, fold=fold, tables=tables, weights=weights_digest(model.state_dict())) if record else None
    about = runs.describe_run(made.config, fold, classes, np.full(2, 0.5), TimeBase(32000, 320, model.pool))
    about |= {"origin": to_dict(mine), "finished": True}
    runs.save_weights(made.weights, model, about)
    (made.folder / "run.json").write_text(json.dumps(about))
    if record:
        of.write_origin(made.folder, mine)
    replace(found(ids=(f"c{fold}",)), origins=mine and (mine,)).save(made.folder / "oof.npz")
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs a and b of two folds each, and `old`, of a version that kept no origin."""
    root = tmp_path_factory.mktemp("origins") / "runs" / "sed"
    for seed, name in enumerate(("a", "b", "old")):
        for fold in (0, 1):
            write_fold(root / name, f"sed/{name}", fold, 10 * seed, record=name != "old")
    return root


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "runs" / "sed"))


def copy(source, target):
    return lambda root: shutil.copyfile(root / source, root / target)


def exchange(root):
    (root / "a/fold0").rename(root / "held")
    (root / "a/fold1").rename(root / "a/fold0")
    (root / "held").rename(root / "a/fold1")


def from_b(root):
    shutil.rmtree(root / "a/fold1")
    shutil.copytree(root / "b/fold1", root / "a/fold1")


@pytest.mark.parametrize(("swap", "said"), [
    (copy("b/fold0/best.safetensors", "a/fold0/best.safetensors"), r"run sed/b fold 0 against run sed/a fold 0; put"),
    (copy("a/fold1/best.safetensors", "a/fold0/best.safetensors"), r"run sed/a fold 1 against run sed/a fold 0"),
    (copy("b/fold1/oof.npz", "a/fold1/oof.npz"), r"oof.npz does not .*run sed/b fold 1 against run sed/a fold 1"),
    (copy("a/fold0/oof.npz", "a/fold1/oof.npz"), r"run sed/a fold 0 against run sed/a fold 1.*--fold 1 .*--resume"),
    (exchange, r"a/fold0 does not belong to its name, fold0: run sed/a fold 1 against run sed/a fold 0"),
    (from_b, r"a/fold1 does not belong to .*a/fold0: run sed/b fold 1 against run sed/a fold 1"),
])  # fmt: skip
def test_a_run_with_a_swapped_file_does_not_load(root, swap, said):
    swap(root)
    with pytest.raises(ValueError, match=said):
        runs.load_run(root / "a")
    runs.load_run(root / "b")


def test_weights_of_another_training_of_the_same_name_are_found_by_the_oof(root):
    write_fold(root.parent / "again", "sed/a", 0, seed=99)
    shutil.copyfile(root.parent / "again/fold0/best.safetensors", root / "a/fold0/best.safetensors")
    with pytest.raises(
        ValueError, match=r"oof\.npz does not belong to .*best\.safetensors: weights \w{10} against \w{10}"
    ):
        runs.load_run(root / "a")


def test_tensors_that_were_changed_are_not_loaded(root):
    fold = runs.load_run(root / "a").folds[0]
    state = load_file(fold.weights)
    with safe_open(fold.weights, framework="pt") as file:
        told = file.metadata()
    name = next(name for name, tensor in state.items() if tensor.dtype == torch.float32)
    save_file(state | {name: state[name] + 1e-3}, fold.weights, metadata=told)
    with pytest.raises(ValueError, match="holds other tensors than it says: it was changed after training"):
        runs.load_model(fold)


def test_folds_of_one_run_share_their_tables(root):
    shutil.rmtree(root / "a/fold1")
    write_fold(root / "a", "sed/a", 1, tables=replace(TABLES, folds="9" * 32))
    with pytest.raises(ValueError, match=r"fold1 does not belong to .*fold0: fold table 9999999999 against ffffffffff"):
        runs.load_run(root / "a")


def test_an_old_run_loads_and_it_is_said_once(root, caplog):
    of.say_unchecked.cache_clear()
    for _ in range(3):
        with caplog.at_level(logging.WARNING):
            runs.load_model(runs.load_run(root / "old").folds[0])
    assert sum("old/fold0 says not which run" in r.getMessage() for r in caplog.records) == 1


def test_a_run_may_be_renamed_but_its_copy_is_no_member(root):
    (root / "b").rename(root / "c")
    renamed = runs.load_run(root / "c")
    origins.check_predictions(found(*renamed.origins), root / "c/test.npz", renamed)
    shutil.copytree(root / "a", root / "z")
    with pytest.raises(ValueError, match=r"a and .*z hold the same weights"):
        origins.check_distinct([runs.load_run(root / n) for n in ("a", "c", "z")])
    with pytest.raises(ValueError, match="named twice"):
        origins.check_distinct([runs.load_run(root / n) for n in ("a", "c", "a")])


@pytest.mark.parametrize(("of_test", "said"), [
    (lambda a, b: b, r"run sed/b fold 0 against run sed/a fold 0; .*predict again: python .*src/predict.py'?"),
    (lambda a, b: a[:1], "lacks run sed/a fold 1"),
    (lambda a, b: [a[0], replace(a[1], weights="0" * 32)], "weights 0000000000 against"),
])  # fmt: skip
def test_test_predictions_are_of_the_run_as_it_is(root, of_test, said):
    a, b = (runs.load_run(root / name) for name in "ab")
    origins.check_predictions(found(*a.origins), root / "a/test.npz", a)
    origins.check_predictions(found(), root / "a/test.npz", a)  # of an older version
    with pytest.raises(ValueError, match=said):
        origins.check_predictions(found(*of_test(a.origins, b.origins)), root / "a/test.npz", a)


def test_post_processing_is_chosen_on_the_oof_of_what_predicted_the_test():
    one, two = origin(weights="1"), origin(fold=1, weights="2")
    for oof in (found(one, two), found(one), found()):
        origins.check_tuned_on(oof, Path("oof.npz"), found(one, two), Path("t.npz"))
    for other in (replace(one, weights="9"), origin("sed/y", weights="1")):
        with pytest.raises(ValueError, match="t.npz does not belong to oof.npz"):
            origins.check_tuned_on(found(other), Path("oof.npz"), found(one, two), Path("t.npz"))


@pytest.mark.parametrize(("name", "what"), of.TABLES.items())
def test_tables_are_compared_one_by_one(root, name, what):
    run_a, now = runs.load_run(root / "a"), replace(TABLES, **{name: "0" * 32})
    with pytest.raises(
        ValueError, match=rf"a/fold0 \(run sed/a fold 0\).*{what} {getattr(TABLES, name)[:10]} against 0000"
    ):
        origins.check_tables(run_a.folds, now)
    origins.check_tables(run_a.folds, now, [key for key in of.TABLES if key != name])
    origins.check_tables(run_a.folds, None)
    shutil.rmtree(root / "b")
    for fold in (0, 1):
        write_fold(root / "b", "sed/b", fold, 10, tables=now)
    with pytest.raises(ValueError, match=rf"a and .*b were trained on different tables: {what}"):
        origins.check_same_tables([run_a, runs.load_run(root / "b")], "no")


def test_what_a_fold_begins_with_and_goes_on_with(tmp_path):
    config, folder = load_config(None, [SMALL]), tmp_path / "runs/sed/x"
    mine = origin_of(folder / "fold0", TABLES, config)
    assert mine == origin("sed/x")
    begin(runs.create_fold(folder / "fold0", config, resume=False), mine)
    other = replace(TABLES, folds="0" * 32)
    with pytest.raises(ValueError, match=r"fold0 .*fold table ffffffffff against 0000000000"):
        origin_of(folder / "fold1", other, config)
    (folder / "fold0/last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"fold table ffffffffff against 0000000000; put the tables"):
        check_resumed(runs.FoldRun(folder / "fold0"), origin_of(folder / "fold0", other, config))
    check_resumed(runs.FoldRun(folder / "fold0"), mine)
    check_resumed(runs.FoldRun(folder / "fold1"), replace(mine, fold=1))
    folder.rename(folder.with_name("y"))
    assert origin_of(folder.with_name("y") / "fold1", TABLES, config) == origin("sed/x", 1)


def test_a_checkpoint_is_of_its_fold(tmp_path):
    check_checkpoint(tmp_path / "last.ckpt", {"origin": to_dict(origin())}, origin())
    check_checkpoint(tmp_path / "last.ckpt", {}, origin())  # of an older version
    with pytest.raises(ValueError, match="last.ckpt does not belong to .*run sed/x fold 1 against run sed/x fold 0"):
        check_checkpoint(tmp_path / "last.ckpt", {"origin": to_dict(origin(fold=1))}, origin())


def test_no_fold_starts_from_weights_that_learned_its_held_out_clips(root):
    path = root / "a/fold0/best.safetensors"
    check_start(path, origin("sed/n"))
    check_start(path, origin("sed/n", 1, clips="0" * 32))  # of other data
    check_start(root / "old/fold0/best.safetensors", origin("sed/n", 1))
    with pytest.raises(ValueError, match=r"is of run sed/a fold 0, and this is run sed/n fold 1.*fold\{fold\}"):
        check_start(path, origin("sed/n", 1))
    with pytest.raises(ValueError, match="fold table ffffffffff against 0000000000"):
        check_start(path, origin("sed/n", folds="0" * 32))


def test_clips_that_trained_weights_are_found_though_the_clip_table_changed(root, tmp_path, caplog):
    path, mine = root / "a/fold0/best.safetensors", origin("sed/n", 1, clips="0" * 32)
    (tmp_path / "now.csv").write_text("clip_id,fold\nc0,0\nc1,1\nnew,1\n")
    check_start(path, mine, folds=tmp_path / "now.csv")
    assert "cannot be checked" in caplog.text
    then = tmp_path / "then.csv"
    config = load_config(root / "a/fold0/config.yaml", [f"data.folds={then}"])
    (root / "a/fold0/config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    then.write_text("clip_id,fold\nc0,0\nc1,1\n")
    with pytest.raises(ValueError, match=r"run sed/a fold 0, and this is run sed/n fold 1, which holds 1 of the clips"):
        check_start(path, mine, folds=tmp_path / "now.csv")
    check_start(path, replace(mine, fold=0), folds=tmp_path / "now.csv")  # held out there as here
    then.write_text("clip_id,fold\nx0,0\nx1,1\n")
    check_start(path, mine, folds=tmp_path / "now.csv")  # of other data


@pytest.mark.parametrize("text", ["", "[]", '{"run": "x"}', '{"fold": "a"}', "[" * 100_000])
def test_a_damaged_origin_is_named(root, text):
    (root / "a/fold0/origin.json").write_text(text)
    with pytest.raises(ValueError, match=r"a/fold0/origin\.json"):
        runs.load_run(root / "a")


def test_what_is_not_trained_is_named_with_its_command(root, tmp_path):
    (root / "a/fold0/best.safetensors").unlink()
    (root / "a/fold1/best.safetensors").unlink()
    command = (
        rf"train it first: python .*src/train.py'? --config {root}/a/fold0/config.yaml --fold all --name a --resume"
    )
    command += rf" --root {re.escape(os.path.relpath(root.parent))}$"
    with pytest.raises(ValueError, match=command):
        runs.load_run(root / "a")
    (root / "b/fold1/run.json").unlink()
    with pytest.raises(
        ValueError, match=r"--resume it: python .*src/train.py'? --config .*/b/fold0/config.yaml --fold 1 --name b"
    ):
        runs.load_run(root / "b")
    (root / "old/fold0/oof.npz").unlink()
    with pytest.raises(
        ValueError, match=r"oof.npz does not exist: repair it with python .* --fold 0 --name old --resume"
    ):
        runs.FoldRun(root / "old/fold0").oof()


@pytest.mark.parametrize(("truth", "said"), [
    ({"row_id": ["a", "b"] * 2, "birds": ["low", "nocall"] * 2}, "2 of 4 rows answer what another .*: row_id a, b"),
    ({"row_id": ["a", "a"], "birds": ["low", "mid"]}, "1 of 2 rows answer"),
    ({"clip_id": ["a"], "labels": ["low raven"]}, "column labels names 1 that are no classes: raven"),
    ({"filename": ["a"], "onset": [0.0], "offset": [1.0], "event_label": ["raven"]}, "column event_label names 1"),
    ({"machine": ["m", "m"], "part": ["t", "t"], "filename": ["1", "1"]}, "filename 1"),
])  # fmt: skip
def test_a_truth_that_cannot_be_one_is_refused(truth, said):
    with pytest.raises(ValueError, match=said):
        checked_truth(pd.DataFrame(truth), ["low", "mid"], "truth.csv")


def test_a_truth_that_can_be_one_is_taken(caplog):
    same = {"machine": ["m", "n"], "part": ["t", "t"], "filename": ["1", "1"], "is_anomaly": [0, 1]}
    assert len(checked_truth(pd.DataFrame(same), [], "truth.csv")) == 2
    events = pd.DataFrame({"filename": ["a", "a"], "onset": 0.0, "offset": 1.0, "event_label": "low"})
    assert len(checked_truth(events, ["low"], "truth.csv")) == 1
    assert "lists 1 of 2 events twice" in caplog.text


def test_submit_takes_predictions_of_this_test_and_these_classes_alone(tiny):
    """All recordings of the table of the named competition, in its classes."""
    with pytest.raises(
        ValueError, match="prepared for the competition birdcall, not for synth: say --competition birdcall"
    ):
        run(submit, "--competition", "synth", "--predictions", "p.npz", "--test", "data/test.csv", "--out", "s.csv")
    found(ids=("t0", "t1")).save("p.npz")
    with pytest.raises(ValueError, match=r"p.npz lacks 1 of the 3 recordings of data/test_clips.csv: t2"):
        run(submit, "--competition", "birdcall", "--predictions", "p.npz", "--test", "data/test.csv", "--out", "s.csv")
    found(ids=("t0", "t1", "t2")).save("p.npz")
    with pytest.raises(
        ValueError, match=r"p.npz is of 2 classes that are not birdcall's \(a, b; it has low, mid, high\)"
    ):
        run(submit, "--competition", "birdcall", "--predictions", "p.npz", "--test", "data/test.csv", "--out", "s.csv")


def test_the_weights_of_a_run_say_where_they_come_from(root):
    assert weights_origin(root / "a/fold0/best.safetensors").run == "sed/a"
    assert weights_origin(root / "old/fold0/best.safetensors") is None
    (root / "a/fold0/best.safetensors").write_bytes(b"<html>")
    assert weights_origin(root / "a/fold0/best.safetensors") is None

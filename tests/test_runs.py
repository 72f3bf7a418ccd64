import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from earshot import files, runs
from earshot.config import Config, load_config
from earshot.messages import command_line
from earshot.prediction.graphs import graph_files
from earshot.prediction.predictions import Predictions
from earshot.records import to_dict
from earshot.sound.timebase import TimeBase

CLASSES = ["a", "b"]


def tiny_config(*overrides):
    params = "{widths: [8, 8], blocks: [1, 1], time_strides: [2, 2], freq_strides: [2, 2]}"
    return load_config(None, [f"model.params={params}", *overrides])


def write_fold(folder, config, fold=0, classes=CLASSES, seed=0):
    run = runs.create_fold(folder / f"fold{fold}", config, resume=False)
    torch.manual_seed(seed)
    model = runs.make_model(config, len(classes))
    about = runs.describe_run(config, fold, classes, np.full(len(classes), 0.5), TimeBase(32000, 320, model.pool))
    runs.save_weights(run.folder / "best.safetensors", model, about)
    files.write_text(run.folder / "run.json", json.dumps(about | {"finished": True}))
    n = len(classes)
    ids, outputs = np.array([f"clip{fold}"]), np.full((1, n), 0.5)
    Predictions(ids, tuple(classes), outputs, np.array([fold]), np.zeros(1, bool)).save(run.folder / "oof.npz")
    return model


def test_a_run_comes_back_as_it_was(tmp_path):
    config = tiny_config()
    model = write_fold(tmp_path / "sed" / "x", config)
    write_fold(tmp_path / "sed" / "x", config, fold=1, seed=1)
    run = runs.load_run(tmp_path / "sed" / "x")
    assert (run.name, [f.fold for f in run.folds], run.config) == ("sed/x", [0, 1], config)
    loaded = runs.load_model(run.folds[0])
    assert not loaded.training
    for (name, a), (other, b) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    about = run.folds[0].about
    assert about["classes"] == CLASSES
    assert about["frontends"]["logmel"]["hop_length"] == 320
    assert about["libraries"]["torch"] == torch.__version__.split("+")[0] or about["libraries"]["torch"]


def test_whoever_may_read_one_file_of_a_run_may_read_all(tmp_path):
    write_fold(tmp_path / "x", tiny_config())
    (tmp_path / "mine").touch()
    found = {p.name: p.stat().st_mode for p in (tmp_path / "x" / "fold0").iterdir()}
    assert set(found.values()) == {(tmp_path / "mine").stat().st_mode}, found


def test_nothing_is_overwritten(tmp_path):
    write_fold(tmp_path / "x", tiny_config())
    with pytest.raises(ValueError, match="never overwritten: continue it with --resume"):
        runs.create_fold(tmp_path / "x" / "fold0", tiny_config(), resume=False)
    with pytest.raises(ValueError, match=r"config differs from yours \(run != now\): optim.lr: 0.001 != 0.5"):
        runs.create_fold(tmp_path / "x" / "fold0", tiny_config("optim.lr=0.5"), resume=True)
    runs.create_fold(tmp_path / "x" / "fold0", tiny_config(), resume=True)


def test_what_a_machine_computes_with_may_differ_between_stop_and_resume_and_between_folds(tmp_path):
    write_fold(tmp_path / "x", tiny_config())
    others = ("data.workers=3", "predict.workers=2", "predict.batch_size=5", "threads=2", "track=csv:t.csv",
              "data.cache_folder=/scratch", "optim.checkpoint_steps=50")  # fmt: skip
    elsewhere = tiny_config(*others)
    runs.create_fold(tmp_path / "x" / "fold0", elsewhere, resume=True)
    assert runs.FoldRun(tmp_path / "x" / "fold0").config.data.workers == 3
    write_fold(tmp_path / "x", tiny_config(), fold=1)
    assert len(runs.load_run(tmp_path / "x").folds) == 2


def test_folds_of_one_run_must_be_alike(tmp_path):
    write_fold(tmp_path / "x", tiny_config())
    write_fold(tmp_path / "x", tiny_config("seed=5"), fold=1)
    with pytest.raises(ValueError, match="seed: 1213 != 5"):
        runs.load_run(tmp_path / "x")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    write_fold(tmp_path / "x", tiny_config())
    fold = runs.load_run(tmp_path / "x").folds[0]
    about = fold.about
    files.write_text(fold.folder / "run.json", json.dumps(about | {"sample_rate": 44100}))
    with pytest.raises(ValueError, match="saved with sample_rate = 32000 but run.json says 44100"):
        runs.load_model(fold)
    files.write_text(fold.folder / "run.json", json.dumps(about))
    (fold.folder / "best.safetensors").write_bytes(b"<html>not weights</html>")
    with pytest.raises(ValueError, match="is not a readable weights file"):
        runs.load_model(fold)


def test_missing_runs_are_named(tmp_path):
    (tmp_path / "sed" / "mine").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no trained fold"):
        runs.load_run(tmp_path / "sed" / "mine")
    with pytest.raises(ValueError, match="did you mean"):
        runs.load_run(tmp_path / "sed" / "mien")


def test_a_path_into_a_run_or_above_several_leads_to_the_run(tmp_path, monkeypatch):
    for name in ("mine", "other"):
        write_fold(tmp_path / "sed" / name, tiny_config())
    fold = tmp_path / "sed/mine/fold0"
    for path, said in {
        fold: f"{fold} is a fold of a run: give the run's folder, {fold.parent}$",
        fold / "best.safetensors": "is a file of a fold of a run: give the run's folder, .*sed/mine$",
        tmp_path: f"holds runs and is none: give the folder of one, such as {fold.parent}, ",
        tmp_path
        / "sed": f"holds runs and is none: give the folder of one, such as {fold.parent}, {fold.parents[1]}/other",
    }.items():
        with pytest.raises(ValueError, match=said):
            runs.load_run(path)
    with pytest.raises(ValueError, match="is a fold of a run"):
        graph_files(fold, "onnx")
    monkeypatch.chdir(fold)
    with pytest.raises(ValueError, match=r"^\. is a fold of a run"):
        runs.load_run(".")
    (tmp_path / "sed/new").mkdir()
    monkeypatch.chdir(tmp_path / "sed/new")
    with pytest.raises(ValueError, match=r"^\. holds no trained fold .* --fold all --name new --root \.\./\.\.$"):
        runs.load_run(".")


def test_the_command_that_trains_a_run_goes_to_its_place(tmp_path, monkeypatch):
    """Without --root it would begin, or go on with, a run of that name in runs/."""
    monkeypatch.chdir(tmp_path)
    command = command_line("train", "--config", "CONFIG.yaml", "--fold", 1, "--name", "mine")
    assert runs.train_command(Path("runs/sed/mine"), 1) == command
    assert runs.train_command(Path("big disk/sed/mine"), 1) == f"{command} --root 'big disk'"
    assert runs.train_command(tmp_path / "runs/sed/mine", 1) == command
    (tmp_path / "runs/sed").mkdir(parents=True)
    monkeypatch.chdir("runs/sed")
    assert runs.train_command(Path("mine"), 1) == f"{command} --root .."


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden"])
def test_a_name_cannot_leave_its_folder(name):
    with pytest.raises(ValueError, match="choose a plain name"):
        runs.run_folder(tiny_config(), None, name)


def test_checkpoints_hold_no_pickled_classes(tmp_path):
    runs.save_checkpoint(tmp_path / "last.ckpt", {"a": torch.ones(2), "progress": {"log": [{"loss": 0.5}]}})
    assert runs.load_checkpoint(tmp_path / "last.ckpt")["progress"]["log"] == [{"loss": 0.5}]

    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"a": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="cannot be resumed from"):
        runs.load_checkpoint(tmp_path / "evil.ckpt")


def test_rows_with_different_columns_make_one_table(tmp_path):
    files.write_rows(tmp_path / "log.csv", [{"a": 1}, {"a": 2, "b": 3}])
    assert (tmp_path / "log.csv").read_text() == "a,b\n1,\n2,3\n"
    assert to_dict(tiny_config())["model"]["params"]["widths"] == [8, 8]


def test_copies_of_a_fold_are_no_folds(tmp_path):
    write_fold(tmp_path / "x", tiny_config())
    for name in ("fold0 copy", "fold_old", "fold00", "fold10.bak", "folds"):
        shutil.copytree(tmp_path / "x" / "fold0", tmp_path / "x" / name)
    write_fold(tmp_path / "x", tiny_config(), fold=10)
    write_fold(tmp_path / "x", tiny_config(), fold=9)
    (tmp_path / "x" / "fold3").write_text("a file")
    assert [f.fold for f in runs.load_run(tmp_path / "x").folds] == [0, 9, 10]


@pytest.mark.parametrize(("name", "text", "message"), [
    ("config.yaml", None, "config.yaml does not exist"),
    ("config.yaml", "a: [", "config.yaml is not valid YAML"),
    ("config.yaml", "- 1", "config.yaml must hold 'key: value' lines"),
    ("config.yaml", "loss: bce", "config.yaml: section 'loss' must be a mapping"),
    ("config.yaml", "new_key: 1", "config.yaml: unknown key 'new_key'"),
    ("run.json", None, "run.json does not exist: the fold's training was not finished"),
    ("run.json", "{", "run.json is not valid JSON"),
    ("run.json", "[]", "run.json must hold names and values .*it does not describe a run"),
    ("run.json", "{}", "run.json says no 'classes'; it does not describe a run"),
])  # fmt: skip
def test_a_damaged_description_is_named(tmp_path, name, text, message):
    write_fold(tmp_path / "x", tiny_config())
    (tmp_path / "x" / "fold0" / name).unlink()
    if text is not None:
        (tmp_path / "x" / "fold0" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        runs.load_run(tmp_path / "x")


@pytest.mark.parametrize("section", ["loss", "augment"])
def test_an_empty_section_of_a_run_has_its_defaults(tmp_path, section):
    write_fold(tmp_path / "x", tiny_config())
    path = tmp_path / "x" / "fold0" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {section: None}))
    assert getattr(runs.load_run(tmp_path / "x").config, section) == getattr(Config(), section)

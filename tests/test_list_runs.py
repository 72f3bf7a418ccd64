"""The list of runs: scores with intervals, changes, states, filters; and cleaning that spares what is worth keeping."""

import json
import os
import re
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import save_file

import runs as script
import train
from conftest import write_tiny
from earshot.data.caches import waveform_settings
from earshot.inventory import caches, trained
from earshot.inventory.cleaning import clean, plan_cleaning
from earshot.pages import intervals
from earshot.processes.lock import in_turn, locked
from earshot.processes.running import machine
from scripts import run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with the tiny competition and its run, all three folds trained for an epoch."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = write_tiny(folder)
        run(train, "--config", config, "--fold", "all", "optim.epochs=1", "optim.ema_decay=0", "optim.lr=3e-2")
    return folder


def test_no_runs_at_all_says_how_to_train_one(tmp_path, capsys):
    run(script, "--root", tmp_path)
    said = capsys.readouterr().out
    assert f"no runs in {tmp_path}: train one (python src/train.py --config configs/sed/synth_cnn.yaml" in said
    assert "score" not in said


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """A copy of that folder's runs to change; the data stays where it is. Intervals are of few resamples."""
    monkeypatch.setattr(intervals.bootstrap, "__defaults__", (20, 0))
    shutil.copytree(made / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def copied(place: Path, name: str, score: float | None = None, **settings) -> Path:
    """Another run, made of the tiny one: with other settings, kept as one that scored so."""
    target = place / "sed" / name
    shutil.copytree(place / "sed" / "tiny", target, ignore=shutil.ignore_patterns(trained.KEPT))
    for fold in target.glob("fold*"):
        values = yaml.safe_load((fold / "config.yaml").read_text())
        for key, value in settings.items():
            section, _, name = key.partition("__")
            values[section][name] = value
        (fold / "config.yaml").write_text(yaml.safe_dump(values))
        for path in fold.iterdir():
            os.utime(path, (time.time() + 60, time.time() + 60))
    if score is not None:
        found = replace(trained.look_at(place / "sed" / "tiny").score, value=score)
        with mock.patch.object(trained, "whole_score", return_value=found):
            assert trained.look_at(target).state == "finished"
        assert (target / trained.KEPT).is_file()
    return target


def listed(place: Path, **filters) -> dict[str, trained.Found]:
    return {r.folder.name: r for r in trained.chosen(trained.find_runs(place), **filters)}


def test_a_run_is_listed_with_its_cv_and_interval(place, capsys):
    found = listed(place)["tiny"]
    assert (found.state, found.folds, found.all_folds, found.exported) == ("finished", (0, 1, 2), 3, ())
    assert found.size == sum(p.stat().st_size for p in (place / "sed" / "tiny").rglob("*") if p.is_file()
                             and p.name != trained.KEPT)  # fmt: skip
    assert 0 < found.score.low <= found.score.value <= found.score.high <= 1
    run(script, "--out", "all.csv")
    out = capsys.readouterr().out
    assert f"{found.score.value:.4f}  {found.score.low:.4f} to {found.score.high:.4f}" in out
    assert "1 of 1 runs" in out
    row = pd.read_csv("all.csv").iloc[0]
    assert (row.run, row.competition, row.model) == ("sed/tiny", "birdcall", "cnn_small")
    assert row.cv == pytest.approx(found.score.value)


def test_the_score_is_kept_until_an_oof_changes(place, monkeypatch):
    first = listed(place)["tiny"].score
    monkeypatch.setattr(trained, "whole_score", lambda *_: pytest.fail("it is kept"))
    assert listed(place)["tiny"].score == first
    os.utime(place / "sed" / "tiny" / "fold1" / "oof.npz", (1, 1))
    with pytest.raises(pytest.fail.Exception):
        trained.find_runs(place)


def test_what_a_run_changes_is_said_of_the_nearest_earlier_one(place):
    copied(place, "lr", optim__lr=0.5)
    later = copied(place, "lr_mixup", optim__lr=0.5, optim__seed_unknown=None)
    assert "seed_unknown" in trained.look_at(later).note, "a damaged config is a row, no end"
    found = listed(place)
    assert found["lr_mixup"].state == "damaged"
    assert found["tiny"].changes == ""
    assert found["lr"].neighbour == "sed/tiny"
    assert found["lr"].changes == "optim.lr 0.03 -> 0.5"


def test_states_and_missing_data_are_said(place, made):
    part = copied(place, "part")
    shutil.rmtree(part / "fold2")
    stopped = copied(place, "stopped")
    (stopped / "fold1" / "run.json").unlink()
    elsewhere = copied(place, "elsewhere", data__folds="gone.csv")
    begun = place / "sed" / "begun" / "fold0"
    begun.mkdir(parents=True)
    with locked(elsewhere / "fold0"):
        found = listed(place)
        assert found["elsewhere"].state == "running"
    assert found["part"].state == "part"
    assert found["part"].score.note == "fold 2 to go"
    assert found["stopped"].state == "stopped"
    assert found["stopped"].note == "fold 1 stopped"
    assert found["begun"].note == "nothing trained"
    away = listed(place)["elsewhere"]
    assert away.score.note == "gone.csv is not at hand"
    scores = [json.loads((elsewhere / f"fold{k}" / "run.json").read_text())["scores"]["map"] for k in range(3)]
    assert away.score.value == pytest.approx(sum(scores) / 3)


def test_a_lock_of_a_process_that_has_ended_is_none(place):
    lock = place / "sed" / "tiny" / "fold0" / "lock.json"
    lock.write_text(json.dumps({"pid": 2**22 + 1, "machine": machine()}))
    assert listed(place)["tiny"].state == "finished"
    lock.write_text(json.dumps({"pid": 1, "machine": "elsewhere"}))
    assert listed(place)["tiny"].state == "running", "nobody can tell from here"
    os.utime(lock, (1, 1))
    assert listed(place)["tiny"].state == "finished", "an hour without a sign of life"


def test_filters_and_order(place):
    copied(place, "best", score=0.99, optim__lr=0.5)
    copied(place, "worst", score=0.01)
    everything = trained.find_runs(place)
    by_name = {r.name: r for r in everything}
    assert set(listed(place, where=["optim.lr=5e-1"])) == {"best"}
    assert set(listed(place, where=["optim.channels_last=FALSE"], names=["w*", "sed/ti*"])) == {"worst", "tiny"}
    assert not listed(place, competition="synth")
    assert not listed(place, task="tagging")
    assert not listed(place, state="running")
    assert [r.folder.name for r in trained.ordered(everything, "cv")] == ["best", "tiny", "worst"]
    assert [r.name for r in trained.ordered(everything, "name")] == sorted(by_name)
    assert trained.ordered(everything, "date")[-1].folder.name == "tiny"
    with pytest.raises(ValueError, match=r"no setting; did you mean 'optim\.lr'"):
        listed(place, where=["optim.lrr=1"])
    with pytest.raises(ValueError, match=r"takes settings such as"):
        listed(place, where=["optim.lr"])


def plan(place: Path, *asked: str):
    found = trained.find_runs(place)
    return plan_cleaning(found, found, asked)


def test_cleaning_takes_what_is_asked_and_spares_what_is_worth_keeping(place):
    best = copied(place, "best", score=0.99)
    beaten, exported, needed = (copied(place, name, score=0.02) for name in ("beaten", "exported", "needed"))
    (exported / "fold0" / "model.onnx").touch()
    copied(place, "heir", score=0.03, model__weights=f"{needed}/fold0/best.safetensors")
    busy = copied(place, "busy", score=0.01)
    with locked(busy / "fold0"):
        found = plan(place, "beaten")
        assert {r.path.name for r in found.removals} == {"beaten", "tiny", "heir"}
        kept = " ".join(found.kept)
        assert "exported stays: it is exported (onnx)" in kept
        assert "needed stays: sed/heir needs it" in kept
        assert "best" not in {r.path.name for r in plan(place, "beaten", "stopped").removals}
        (named,) = plan(place, "sed/busy").kept
        assert "running" in named
    assert [r.path for r in plan(place, str(best.relative_to(place.parent))).removals] == [best]
    size = sum(p.stat().st_size for p in beaten.rglob("*") if p.is_file())
    named = plan(place, "sed/beaten")
    assert named.size == size
    assert clean(named) == size
    assert not beaten.exists()
    assert best.is_dir()
    assert not [p for p in place.rglob("*") if p.name.startswith(".")]


def test_what_people_made_keeps_a_run(place):
    copied(place, "best", score=0.99)
    answered, noted, plain = (copied(place, name, score=0.02) for name in ("answered", "noted", "plain"))
    (answered / "decisions.csv").write_text("when,who\n")
    (noted / "fold0" / "old").mkdir()
    for name in ("test.npz", "predicted.json", "together_int8.xml.json", "mine_unreadable.csv", "roc.png"):
        (plain / name).touch()
    found = plan(place, "beaten")
    assert {r.path.name for r in found.removals} == {"plain", "tiny"}
    kept = " ".join(found.kept)
    assert "answered stays: it holds decisions.csv, which no training writes again" in kept
    assert "noted stays: it holds fold0/old/" in kept
    (named,) = plan(place, "sed/answered").removals
    assert named.why == "named; it holds decisions.csv"


@pytest.mark.parametrize(
    ("key", "value"),
    [("part", {"taxon": "Insecta"}), ("levels", ["coarse"]), ("where", {"site": "north"}), ("classes", "some.csv"),
     ("root", "data/other")],
)  # fmt: skip
def test_runs_of_other_classes_or_clips_do_not_beat_each_other(place, key, value):
    kept = json.loads((place / "sed/tiny" / trained.KEPT).read_text()) if listed(place) else {}
    special = copied(place, "special", **{f"data__{key}": value})
    (special / trained.KEPT).unlink(missing_ok=True)
    found = [trained.look_at(place / "sed/tiny"), trained.look_at(special)]
    score = trained.Score(watch="map", value=0.999)
    found = [found[0], trained.replace(found[1], score=score)]
    assert (found[0].score.value, found[1].state) == (kept["value"], "finished")
    assert plan_cleaning(found, found, ["beaten"]).removals == ()


def test_teachers_and_what_a_soup_is_of_are_needed(place, tmp_path):
    copied(place, "best", score=0.99)
    names = ("teacher", "labeller", "manifest", "mixed", "mixed2")
    for name in names:
        copied(place, name, score=0.02)
    student = copied(place, "student", score=0.03, data__pseudo=str(tmp_path / "pseudo"))
    (tmp_path / "pseudo").mkdir()
    (tmp_path / "pseudo/manifest.json").write_text(json.dumps({"teachers": {"0": [{"run": "sed/manifest"}]}}))
    path = student / "fold0" / "run.json"
    about = json.loads(path.read_text())
    told = {"pseudo": {"by": "sed/gone, sed/teacher"}, "soft_targets": {"by": "sed/labeller (fold 0, honest)"}}
    path.write_text(json.dumps(about | told))
    (student / "soup").mkdir()
    weights = {"w": np.zeros(1, np.float32)}
    save_file(
        weights, student / "soup/fold0.safetensors", {"earshot": json.dumps({"soup_of": ["runs/sed/mixed/fold0"]})}
    )
    found = plan(place, "beaten")
    assert {r.path.name for r in found.removals} == {"student", "tiny", "mixed2"}
    assert sum("sed/student needs it" in line for line in found.kept) == 4


def test_a_link_to_a_run_stays(place, tmp_path):
    shutil.move(place / "sed" / "tiny", tmp_path / "real")
    (place / "sed" / "tiny").symlink_to(tmp_path / "real")
    found = plan(place, "sed/tiny", "checkpoints")
    assert found.removals == ()
    assert "is a link to" in found.kept[0]


def test_checkpoints_of_finished_folds_go_and_the_rest_stays(place):
    stopped = copied(place, "stopped")
    (stopped / "fold1" / "run.json").unlink()
    lost = place / "sed" / "tiny" / "fold2" / "best.safetensors"
    lost.unlink()
    found = plan(place, "checkpoints")
    assert {str(r.path.relative_to(place)) for r in found.removals} == {
        "sed/stopped/fold0/last.ckpt", "sed/stopped/fold2/last.ckpt", "sed/tiny/fold0/last.ckpt",
        "sed/tiny/fold1/last.ckpt",
    }  # fmt: skip
    clean(found)
    assert (stopped / "fold1" / "last.ckpt").is_file()
    assert (lost.parent / "last.ckpt").is_file()


def test_a_run_that_is_taken_meanwhile_is_left_whole(place):
    found = plan(place, "sed/tiny")
    before = sorted(place.rglob("*"))
    with locked(place / "sed" / "tiny" / "fold1"), pytest.raises(ValueError, match="in use"):
        clean(found)
    assert sorted(place.rglob("*")) == before


def test_nothing_goes_unless_it_is_agreed(place, capsys):
    run(script, "--clean", "checkpoints")
    out = capsys.readouterr().out
    bytes_of = sum(p.stat().st_size for p in place.rglob("last.ckpt"))
    assert f"({bytes_of:,} bytes)" in out
    assert re.search(r"nothing was removed; .*--yes", out)
    assert len(list(place.rglob("last.ckpt"))) == 3
    run(script, "--clean", "checkpoints", "--yes")
    assert not list(place.rglob("last.ckpt"))
    with pytest.raises(
        ValueError,
        match="neither checkpoints, stopped, beaten, caches, unused-caches nor a run; did you mean 'sed/tiny'",
    ):
        run(script, "--clean", "sed/tinny")


def cache(folder: Path, key: str, kind: str = "logmel") -> Path:
    """A cache of 1,000 bytes and what it says of itself."""
    (folder / key).mkdir(parents=True)
    (folder / key / "params.json").write_text(json.dumps({"kind": kind, "sample_rate": 8000, "format": 2}))
    (folder / key / "logmel.npy").write_bytes(bytes(1000))
    return folder / key


def test_caches_go_when_they_are_asked_for_and_nothing_else_of_the_data(place, tmp_path, capsys):
    own = copied(place, "own", data__root="data/own")
    of_run, of_none = (
        cache(tmp_path / "data/own/cache", "0" * 16),
        cache(tmp_path / "data/new/cache", "a" * 16, "packed"),
    )
    elsewhere = cache(tmp_path / "cache/own", "b" * 16)
    linked = [cache(tmp_path / "others/x/cache", "d" * 16), cache(tmp_path / "others/caches", "e" * 16)]
    (tmp_path / "data/x").symlink_to(tmp_path / "others/x")
    (tmp_path / "data/new2").mkdir()
    (tmp_path / "data/new2/cache").symlink_to(tmp_path / "others/caches")
    theirs = cache(tmp_path / "data/own/cache", "notes")
    another = cache(tmp_path / "cache/own", "c" * 16)
    (another / "params.json").write_text('{"learning_rate": 0.1}')  # of another program
    assert plan(place, "checkpoints", "stopped", "beaten").size < 10**9
    assert {r.path.resolve() for r in plan(place, "caches").removals} == {of_run, of_none, elsewhere}
    os.utime(own / "fold0/config.yaml", (0, 0))
    with locked(own / "fold0"):
        assert not plan(place, "caches").removals, "it says where it reads once it is set up"
        assert any("stays: sed/own is beginning, and may read it" in text for text in plan(place, "caches").kept)
        os.utime(own / "fold0/config.yaml")
        found = plan(place, "caches")
        assert [r.path.resolve() for r in found.removals] == [of_none]
        assert any(
            k.startswith("data/own/cache/0000000000000000 stays: sed/own is running (logmel") for k in found.kept
        )
    run(script, "--names", "own", "--clean", "caches", "--yes")
    assert re.search(r"\(logmel cache at 8000 Hz, \d{4}-\d\d-\d\d; no run here asks for", capsys.readouterr().out)
    assert [of_run.exists(), elsewhere.exists(), of_none.exists(), theirs.exists()] == [False, False, True, True]
    assert all(path.exists() for path in (another, *linked))


def test_caches_that_runs_use_can_stay(place, tmp_path, capsys):
    """Those of a folder that `data.cache_folder` names too, where data sets of one name have folders of their own."""
    settings = {"data__cache": "waveform", "data__sample_rate": 8000, "data__cache_folder": str(tmp_path / "scratch")}
    copied(place, "own", data__root="data/own", **settings)
    copied(place, "other", data__root="other/own", **settings)
    runs_of = {run.name: run.config.data for run in listed(place).values()}
    assert runs_of["sed/own"].caches != runs_of["sed/other"].caches
    assert runs_of["sed/own"].caches.parent == tmp_path / "scratch"
    used, unused = (cache(runs_of["sed/own"].caches, key * 16, "waveform") for key in "01")
    (used / "params.json").write_text(json.dumps(waveform_settings(8000) | {"format": 2}))
    theirs = cache(tmp_path / "data/new/cache", "2" * 16)
    begun = tmp_path / "data/new/cache" / f".{'3' * 16}.part"
    begun.mkdir()
    not_named = cache(tmp_path / "scratch/somebody", "4" * 16)
    run(script, "--clean", "unused-caches", "--yes")
    said = capsys.readouterr().out
    assert f"{used} stays: these settings are what sed/own asks for (waveform cache at 8000 Hz" in said
    assert "(a packing that was stopped, which would go on; no run here asks for one like it)" in said
    assert [p.exists() for p in (used, unused, theirs, begun, not_named)] == [True, False, False, False, True]
    assert "extension .flac; these settings are what sed/own asks for" in plan(place, "caches").removals[0].why
    assert caches.Cache(used, 1, "embedding cache", ("a", "b")).say().endswith("some network are what a, b ask for")


def test_a_fold_that_goes_on_elsewhere_keeps_its_caches(place, tmp_path):
    """--resume with another data.cache_folder: the folds of one run then name several."""
    own = copied(place, "own", data__root="data/own", data__cache="waveform", data__sample_rate=8000)
    path = own / "fold1/config.yaml"
    values = yaml.safe_load(path.read_text())
    values["data"]["cache_folder"] = str(tmp_path / "scratch")
    path.write_text(yaml.safe_dump(values))
    there = caches.configs_of(listed(place)["own"])[1].data.caches
    used, unused = (cache(there, key * 16, "waveform") for key in "01")
    (used / "params.json").write_text(json.dumps(waveform_settings(8000) | {"format": 2}))
    assert [r.path for r in plan(place, "unused-caches").removals] == [unused]
    with locked(own / "fold1"):
        os.utime(path)
        assert plan(place, "caches").removals == ()


def test_what_is_taken_while_one_is_asked_stays(place, tmp_path, capsys, monkeypatch):
    own = copied(place, "own", data__root="data/own")
    taken, free = cache(tmp_path / "data/own/cache", "0" * 16), cache(tmp_path / "data/new/cache", "1" * 16)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with ExitStack() as stack:

        def answer(question: str) -> str:
            stack.enter_context(locked(own / "fold0"))
            os.utime(own / "fold0/config.yaml")
            return "yes"

        monkeypatch.setattr("builtins.input", answer)
        run(script, "--clean", "caches")
    assert [taken.exists(), free.exists()] == [True, False]
    assert "data/own/cache/0000000000000000 stays: it is used, or gone, by now" in capsys.readouterr().out


def test_a_packing_that_goes_on_stays(place, tmp_path):
    part = tmp_path / "data/new/cache" / f".{'3' * 16}.part"
    part.mkdir(parents=True)
    with in_turn(part.with_name(f".{'3' * 16}.lock")):
        assert any("it is being packed" in text for text in plan(place, "caches").kept)
    assert [removal.path.name for removal in plan(place, "caches").removals] == [part.name]

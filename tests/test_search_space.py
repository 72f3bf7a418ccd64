"""Spaces and plans of a search: what they may hold, refused before the first trial, and the folds no trial hears."""

import dataclasses
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import search as script
from earshot import runs
from earshot.config import load_config
from earshot.data.digests import digest_of_folds
from earshot.data.stale_folds import stale_folds
from earshot.prediction.origin import Origin, TableDigests
from earshot.records import to_dict
from earshot.searching import plan as plans
from earshot.searching.plan import SearchPlan
from earshot.searching.space import Choice, Range, as_text, grid, overrides_of, read_space
from scripts import run

SPACE = {"optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "space is empty"),
        ({"optim.lrr": [1, 2]}, "unknown key 'optim.lrr'.*optim.lr"),
        ({"optim.lrr": [1, 2]}, "^space: unknown key 'optim.lrr'; did"),  # it was given no value
        ({"seed": [1, 2]}, "space.seed cannot be searched"),
        ({"data.where.machine": ["fan", "pump"]}, "cannot be searched"),
        ({"data.shuffle_labels": [True, False]}, "cannot be searched"),
        ({"optim.lr": 0.1}, "must be a range"),
        ({"optim.lr": {"low": 1}}, "misses high"),
        ({"optim.lr": {"low": 1, "hihg": 2}}, "did you mean 'high'"),
        ({"optim.lr": {"low": 2, "high": 1}}, "low 2 is not below high 1"),
        ({"optim.lr": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
        ({"optim.lr": {"low": 1, "high": 10, "log": True, "step": 3}}, "log needs low above 0 and no step"),
        ({"optim.lr": {"low": 1, "high": 2, "log": "yes"}}, "true or false"),
        ({"optim.lr": {"low": "a", "high": 2}}, "low must be a number, got 'a'"),
        ({"optim.lr": {"low": True, "high": 2}}, "low must be a number"),
        ({"optim.lr": {"low": 0, "high": float("inf")}}, "high must be a number"),
        ({"optim.epochs": {"low": 1, "high": 10, "step": 4}}, "do not end at 10"),
        ({"optim.epochs": {"low": 1, "high": 10, "step": -1}}, "above 0"),
        ({"optim.name": ["adamw"]}, "two or more different values"),
        ({"optim.name": ["adamw", "adamw"]}, "two or more different values"),
        ({"loss": [{"name": "bce"}, {"name": "focal"}], "loss.name": ["bce", "focal"]}, "a part of it"),
    ],
)
def test_bad_spaces_are_refused(space, said):
    with pytest.raises(ValueError, match=said):
        read_space(space)


def test_ranges_are_whole_where_all_of_them_is():
    space = read_space({"optim.batch_size": {"low": 8, "high": 32, "step": 8}, "optim.lr": {"low": "1e-3", "high": 1}})
    assert space["optim.batch_size"] == Range(8, 32, False, 8)
    assert space["optim.batch_size"].whole
    assert space["optim.lr"] == Range(0.001, 1)
    assert not space["optim.lr"].whole
    assert space["optim.batch_size"].every() == [8, 16, 24, 32]


@given(st.integers(0, 2**31), st.floats(1e-6, 1.0), st.floats(1.5, 1e4), st.booleans(), st.booleans())
def test_what_is_drawn_lies_in_the_space(seed, low, factor, log, whole):
    low = int(low * 1000) + 1 if whole else low
    part = Range(low, int(low * factor) + 1 if whole else low * factor, log)
    drawn = [part.draw(np.random.default_rng([seed, n])) for n in range(5)]
    assert all(part.low <= value <= part.high for value in drawn)
    assert not whole or all(value == int(value) for value in drawn)


VALUES = [1e-5, 3, 0.25, True, "adamw", "no", [8, 16], {"name": "focal", "params": {"gamma": 2.0}}]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_read_again_as_it_was(value):
    assert yaml.safe_load(as_text(value)) == value
    assert "\n" not in as_text(value)


def test_the_settings_of_a_trial_are_overrides_of_a_config(tiny):
    settings = {"optim.lr": 1e-5, "model.params.widths": [4, 8], "loss": {"name": "focal", "params": {"gamma": 1.5}}}
    config = load_config(tiny, overrides_of(settings))
    assert (config.optim.lr, config.model.params["widths"]) == (1e-5, [4, 8])
    assert (config.loss.name, config.loss.params) == ("focal", {"gamma": 1.5})


def test_a_grid_has_every_combination():
    space = read_space({"optim.lr": [0.1, 0.2], "optim.epochs": {"low": 2, "high": 6, "step": 2}})
    assert len(grid(space)) == 6
    assert {"optim.lr": 0.2, "optim.epochs": 4} in grid(space)
    with pytest.raises(ValueError, match=r"needs a step or a list for space\.optim\.lr"):
        grid(read_space(SPACE))
    with pytest.raises(ValueError, match="at most 10,000"):
        grid({f"k{n}": Choice(tuple(range(11))) for n in range(4)})


def written(folder: Path, **values) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"config": "tiny.yaml", "space": SPACE} | values))
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trails": 3}, "did you mean 'trials'"),
        ({"sampler": "tbe"}, "choose one of tpe, random, grid"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"seeds": [1], "report_seeds": [1, 2]}, r"report_seeds has \[1\], which the search chose with"),
        ({"outer": 3}, "outer must be a list"),
        ({"report_seeds": []}, "report_seeds is empty"),
        ({"config": "gone.yaml"}, "gone.yaml does not exist"),
        ({"overrides": ["optim.lrr=1"]}, "plan.yaml: unknown key 'optim.lrr'"),
        ({"space": {"optim.lr": {"low": 2, "high": 1}}}, "plan.yaml: space.optim.lr is empty"),
        ({"sampler": "grid"}, "needs a step"),
    ],
)
def test_bad_plans_are_refused(tiny, values, said):
    with pytest.raises(ValueError, match=said):
        plans.read_plan(written(tiny.parent, **values))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"optim.name": ["adamw", "adamx"]}, "space.optim.name: 'adamx' cannot train: .*did you mean 'adam'"),
        ({"optim.lr": {"low": -1.0, "high": 1.0}}, "space.optim.lr: -1.0 cannot train: .*positive"),
        ({"model.params.widht": [[8], [9]]}, "cannot train"),
        ({"model.params.widths": [[8, 8], [8]]}, "cannot train"),
        ({"optim.batch_size": [4, 2.5]}, "whole number"),
        (
            {"optim.epochs": [2, 20], "optim.warmup_epochs": [0.0, 3.0]},
            "together, .*warmup_epochs=3.0 make no config: .*longer than training",
        ),
    ],
)
def test_settings_that_cannot_train_are_refused_before_the_first_trial(tiny, space, said):
    overrides = ["optim.epochs=4"] if "optim.warmup_epochs" in space else []
    with pytest.raises(ValueError, match=said):
        run(script, written(tiny.parent, space=space, overrides=overrides))
    assert not Path("runs").exists()


# ---- folds


def test_trials_never_hear_the_outer_fold(tiny):
    plan = SearchPlan(config="tiny.yaml", space=SPACE, outer=(1,))
    config = plans.base_config(plan)
    assert plans.outer_folds(plan, config) == [1]
    split = plans.make_split(plan, config, 1, Path("out"))
    folds = pd.read_csv("folds.csv")
    apart = set(folds.clip_id[folds.fold == 1])
    assert apart
    for name, key in (("clips", "clip_id"), ("folds", "clip_id"), ("events", "filename")):
        assert not apart & set(pd.read_csv(f"out/data/{name}.csv")[key])
    assert set(pd.read_csv("out/data/clips.csv").clip_id) == set(folds.clip_id) - apart
    assert split.inner == (2,), "the next one after it scores"
    trial = load_config("tiny.yaml", split.overrides)
    assert trial.data.root == "out/data"
    before = Path("out/data/clips.csv").stat().st_mtime_ns
    plans.make_split(plan, config, 1, Path("out"))
    assert Path("out/data/clips.csv").stat().st_mtime_ns == before, "caches beside the tables stay"


def test_every_fold_reports_in_its_turn(tiny):
    plan = SearchPlan(config="tiny.yaml", space=SPACE, outer="all", inner=2)
    config = plans.base_config(plan)
    splits = [plans.make_split(plan, config, k, Path(f"out{k}")) for k in plans.outer_folds(plan, config)]
    assert [split.inner for split in splits] == [(1, 2), (2, 0), (0, 1)]
    with pytest.raises(ValueError, match="outer names fold 7; the folds of .* are 0, 1, 2"):
        plans.outer_folds(dataclasses.replace(plan, outer=(7,)), config)
    (nothing_apart,) = plans.outer_folds(dataclasses.replace(plan, outer=()), config)
    everything = plans.make_split(plan, config, nothing_apart, Path("out"))
    assert len(pd.read_csv(everything.folds)) == len(pd.read_csv("folds.csv"))


@pytest.mark.parametrize("said", [{"official_fold": 1}, {"grouped_by": "none"}])
@pytest.mark.parametrize("make", [0, 4])
def test_folds_of_trials_say_what_the_table_was_asked_to_keep(tiny, said, make):
    """Else each trial warns of groups that were parted on purpose, and says how to replace the table of the search."""
    clips, folds = pd.read_csv("data/clips.csv"), pd.read_csv("folds.csv")
    clips.assign(group="one").to_csv("data/clips.csv", index=False)
    folds.assign(group=folds.clip_id, **said).to_csv("folds.csv", index=False)
    plan = SearchPlan(config="tiny.yaml", space=SPACE, make=make)
    split = plans.make_split(plan, plans.base_config(plan), 1, Path("out"))
    known = pd.read_csv(split.folds)
    if "grouped_by" in said or not make:
        assert stale_folds(pd.read_csv("out/data/clips.csv"), known).torn == ()
    assert ("grouped_by" in known) == ("grouped_by" in said)


def test_an_official_split_leaves_folds_to_be_made(tiny):
    folds = pd.read_csv("folds.csv")
    folds.assign(fold=np.where(folds.fold == 0, 0, -1)).to_csv("folds.csv", index=False)
    plan = SearchPlan(config="tiny.yaml", space=SPACE)
    config = plans.base_config(plan)
    with pytest.raises(ValueError, match="make: 4"):
        plans.make_split(plan, config, 0, Path("out"))
    split = plans.make_split(dataclasses.replace(plan, make=4), config, 0, Path("out"))
    made = pd.read_csv(split.folds)
    assert sorted(made.fold.unique()) == [0, 1, 2, 3]
    assert not set(made.clip_id) & set(folds.clip_id[folds.fold == 0])
    assert made.set_index("clip_id").group.to_dict() == folds.set_index("clip_id").group[made.clip_id].to_dict()


def test_soft_targets_of_a_teacher_are_refused(tiny):
    shutil.copy("data/clips.csv", "data/targets.npz")
    plan = SearchPlan(config="tiny.yaml", space=SPACE)
    with pytest.raises(ValueError, match=r"may have heard the outer fold: set data\.soft_targets=none"):
        plans.make_split(plan, plans.base_config(plan), 0, Path("out"))


@pytest.mark.parametrize("taught", [
    "data.pseudo=data/round1", "distill={predictions: [oof.npz]}", "distill={teacher: {run: runs/sed/a/fold0}}",
])  # fmt: skip
def test_what_own_runs_taught_is_refused(tiny, taught):
    plan, said = SearchPlan(config="tiny.yaml", space=SPACE, overrides=(taught,)), "may have heard the outer fold 0"
    with pytest.raises(ValueError, match=said):
        plans.make_split(plan, plans.base_config(plan), 0, Path("out"))
    key, _, value = taught.partition("=")
    plan = SearchPlan(config="tiny.yaml", space={key: [yaml.safe_load(value), "" if key == "data.pseudo" else {}]})
    with pytest.raises(ValueError, match=said):
        plans.make_split(plan, plans.base_config(plan), 0, Path("out"))
    plans.make_split(plan, plans.base_config(plan), None, Path("out"))


def test_weights_of_an_own_run_are_refused_unless_of_other_data(tiny):
    made = runs.create_fold(Path("runs/sed/a/fold1"), load_config("tiny.yaml"), resume=False)
    tables = TableDigests(folds=digest_of_folds(pd.read_csv("folds.csv")), classes="c", clips="d")
    about = {"earshot": json.dumps({"origin": to_dict(Origin(run="sed/a", fold=1, tables=tables))})}
    save_file({"w": np.zeros(1, np.float32)}, made.weights, about)
    plan = SearchPlan(
        config="tiny.yaml", space=SPACE, overrides=("model.weights=runs/sed/a/fold{fold}/best.safetensors",)
    )
    config = plans.base_config(plan)
    with pytest.raises(ValueError, match=r"is of the own run sed/a fold 1, .* \(trained on 9 of its clips\)"):
        plans.make_split(plan, config, 0, Path("out"))
    plans.make_split(plan, config, 1, Path("out"))  # fold 1 held these out
    story = [{"trained_on": "pseudo", "mode": "isolated", "by": "sed/b"}]
    for mode, said in (
        ("isolated", ""),
        ("heard", "learned from pseudo-labels by sed/b, who may have heard its clips"),
    ):
        told = json.loads(about["earshot"]) | {"inherited": [story[0] | {"mode": mode}]}
        save_file({"w": np.zeros(1, np.float32)}, made.weights, {"earshot": json.dumps(told)})
        with pytest.raises(ValueError, match=said) if said else nullcontext():
            plans.make_split(plan, config, 1, Path("out"))
    layer = "frontends.birds={kind: extractor, run: runs/sed/a/fold1, sample_rate: 8000, window_seconds: 0.5}"
    heard = SearchPlan(config="tiny.yaml", space=SPACE, overrides=(layer,))
    with pytest.raises(ValueError, match=r"frontends.birds.run .* is of the own run sed/a fold 1"):
        plans.make_split(heard, plans.base_config(heard), 0, Path("out"))
    (made.folder / "config.yaml").unlink()
    with pytest.raises(ValueError, match="nobody knows: no config.yaml"):
        plans.make_split(plan, config, 1, Path("out"))

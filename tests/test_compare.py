"""compare.py: the plan is checked, the table is of what is finished."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import compare
from scripts import run

PLAN = """
tasks: {scenes: [class_mean_accuracy], asd: [auc, pauc]}
systems: [se_trans, cnn9]
seeds: [1, 2]
overrides: {all: [optim.epochs=1], asd: ['data.where={machine: fan}']}
"""


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(PLAN)
    return tmp_path / "mine.yaml"


def finish(task, name, **scores):
    """A finished run; classes are those of its auprc_<class> scores."""
    from pathlib import Path

    folder = Path("runs") / task / name / "fold0"
    folder.mkdir(parents=True)
    classes = [s.removeprefix("auprc_") for s in scores if s.startswith("auprc_")]
    about = {"finished": True, "parameters": 1234, "scores": scores, "classes": classes}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "classes.csv").write_text("label,train_clips\n" + "".join(f"{c},{9 * len(c)}\n" for c in classes))


def test_every_run_is_trained_once_resumably_and_failures_are_named(plan, monkeypatch, capsys):
    commands = []

    def train(command, **options):
        commands.append(command)
        task, name = command[3].split("/")[-2], command[5]
        if "cnn9" in name:
            return SimpleNamespace(returncode=1, stderr="trace\nerror: no memory")
        finish(task, name, class_mean_accuracy=0.5 + 0.1 * int(name[-1]), auc=0.75, pauc=0.5)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(compare.children, "run", train)
    run(compare, plan)
    assert len(commands) == 8
    assert all("--resume" in c for c in commands)
    asd = next(c for c in commands if "asd" in c[3])
    assert asd[-3:] == ["seed=1", "optim.epochs=1", "data.where={machine: fan}"]
    captured = capsys.readouterr()
    assert "error: no memory" in captured.out
    assert "4 runs failed" in captured.err
    assert "| se_trans | 1,234 | 0.650 +- 0.071 | 0.750 +- 0.000 | 0.500 +- 0.000 |" in captured.out
    assert "| cnn9 | - | - | - | - |" in captured.out


def test_checked_only_every_run_is_listed_and_nothing_trained(plan, monkeypatch, capsys):
    checked = []
    monkeypatch.setattr(compare, "check_training", lambda config, folds: checked.append((config, folds)))
    run(compare, plan, "--check", "--tasks", "scenes")
    assert [config.seed for config, _ in checked] == [1, 1, 2, 2]
    assert {config.optim.epochs for config, _ in checked} == {1}
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1/4 runs/scenes/mine-se_trans-seed1: ")
    assert len(said) == 4
    assert not (plan.parent / "runs" / "scenes").exists()


def test_the_table_of_what_is_finished_so_far(plan, capsys):
    finish("scenes", "mine-se_trans-seed1", class_mean_accuracy=0.6)
    run(compare, plan, "--only-table", "--tasks", "scenes")
    assert "| se_trans | 1,234 | 0.600 |" in capsys.readouterr().out
    table = (plan.parent / "runs" / "compare" / "mine.csv").read_text().splitlines()
    assert table[0] == "task,system,score,seeds,mean,deviation,parameters"
    assert table[1] == "scenes,se_trans,class_mean_accuracy,1,0.6,,1234"
    assert np.isnan(float(table[2].split(",")[4] or "nan"))


def test_pictures_of_what_is_finished(plan, capsys):
    """Systems by size for every task that has a run; class-wise bars where the task scores classes."""
    text = PLAN.replace("asd: [auc, pauc]", "ust: [macro_auprc]").replace("overrides", "augmentations: [se_trans]\n#")
    plan.write_text(text)
    run(compare, plan, "--only-table")
    out = plan.parent / "runs" / "compare"
    assert {p.name for p in out.iterdir()} == {"mine.csv", "mine.md"}, "nothing to draw"
    finish("scenes", "mine-se_trans-seed1", class_mean_accuracy=0.6)
    for seed in (1, 2):
        finish("ust", f"mine-se_trans-seed{seed}", macro_auprc=0.6, auprc_dog=0.1 * seed, auprc_engine=0.9)
    finish("ust", "mine-cnn9-seed1", macro_auprc=0.5, auprc_dog=0.3, auprc_engine=0.9)
    run(compare, plan, "--only-table")
    assert {p.name for p in out.glob("*.png")} == {"mine_parameters.png", "mine_classes_ust.png"}
    assert "mine_parameters.png, " in capsys.readouterr().out
    folds = compare.finished("ust", "se_trans", {"seeds": [1, 2, 3], "fold": "0"}, "mine")
    folds = [of_seed[0] for of_seed in folds]
    assert compare.class_scores(folds).to_dict("list") == {"dog": [0.1, 0.2], "engine": [0.9, 0.9]}
    assert compare.training_clips(folds[0]).to_dict() == {"dog": 27, "engine": 54}


def test_one_model_of_each_value_and_the_mean_of_their_scores(plan, monkeypatch, capsys):
    plan.write_text(PLAN.replace("overrides:", "each: {asd: {data.where.machine: [fan, pump]}}\noverrides:"))
    commands = []
    monkeypatch.setattr(compare.children, "run", lambda c, **o: commands.append(c) or SimpleNamespace(returncode=0))
    run(compare, plan, "--tasks", "asd", "--systems", "cnn9", "--seeds", 1)
    assert [c[5] for c in commands] == ["mine-cnn9-seed1-fan", "mine-cnn9-seed1-pump"]
    assert [c[-1] for c in commands] == ["data.where.machine=fan", "data.where.machine=pump"]
    finish("asd", "mine-cnn9-seed1-fan", auc=0.6, pauc=0.5)
    run(compare, plan, "--tasks", "asd", "--seeds", 1, "--only-table")
    assert "| cnn9 | - | - | - |" in capsys.readouterr().out.splitlines(), "a machine is still missing"
    finish("asd", "mine-cnn9-seed1-pump", auc=0.8, pauc=0.6)
    run(compare, plan, "--tasks", "asd", "--seeds", 1, "--only-table")
    assert "| cnn9 | 1,234 | 0.700 | 0.550 |" in capsys.readouterr().out
    run(compare, plan, "--tasks", "asd", "--systems", "cnn9", "--seeds", 1, "--jointly")
    assert commands[-1][5] == "mine-cnn9-seed1"


TWO_SETS = """
tasks: {scenes@here: [class_mean_accuracy, accuracy], scenes@there: [class_mean_accuracy]}
systems: [se_trans, cnn9]
seeds: [1]
fold: all
overrides: {scenes@there: [data.root=data/there]}
published:
  official baseline: {scenes@here: {accuracy: 0.5}, scenes@there: 0.625}
  se_trans: {scenes@here: 0.75}
  another: {}
"""


def test_what_was_published_on_two_data_sets_stands_beside_ours(plan, monkeypatch, capsys):
    plan.write_text(TWO_SETS)
    commands = []

    def train(command, **options):
        commands.append(command)
        folder, first = f"runs/scenes/{command[5]}", command[5] == "mine-here-se_trans-seed1"
        if first:
            finish("scenes", command[5], class_mean_accuracy=0.7, accuracy=0.8)
            (plan.parent / folder / "fold0").rename(plan.parent / folder / "fold1")
            finish("scenes", command[5], class_mean_accuracy=0.8, accuracy=0.9)
            (plan.parent / folder / "oof.npz").touch()
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(compare.children, "run", train)
    monkeypatch.setattr(compare.runs, "load_run", lambda folder: SimpleNamespace(folds=tuple(
        compare.runs.FoldRun(folder / f"fold{k}") for k in (0, 1))))  # fmt: skip
    run(compare, plan)
    assert [c[5] for c in commands] == [
        f"mine-{data}-{system}-seed1" for data in ("here", "there") for system in ("se_trans", "cnn9")
    ]
    assert all(c[6:8] == ["--fold", "all"] and "/configs/scenes/" in c[3] for c in commands)
    assert [c[-1] for c in commands] == ["seed=1"] * 2 + ["data.root=data/there"] * 2
    printed = capsys.readouterr().out
    assert "| se_trans | 1,234 | 0.750 (0.750) | 0.850 | - |" in printed
    assert "| official baseline | - | - | (0.500) | (0.625) |" in printed
    assert "| another | - | - | - | - |" in printed
    assert "(0, 1 finished of 1). In brackets: as published." in printed


def test_the_plan_of_cross_task_pre_training_is_its_table():
    from pathlib import Path

    options = SimpleNamespace(plan=Path(compare.CONFIGS / "compare/cross_task.yaml"), tasks=None, systems=None,
                              seeds=None, jointly=False)  # fmt: skip
    plan = compare.read_plan(options)
    assert sum(len(values) for values in plan["published"].values()) == 18
    assert plan["published"]["official baseline"]["scenes@tut2017", "class_mean_accuracy"] == 0.784
    for system in plan["systems"]:
        config = compare.load_config(compare.config_of("scenes@tut2017", system), plan["overrides"]["scenes@tut2017"])
        assert config.inputs(("logmel",))["logmel"].n_channels == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds:", "each: {ast: {a: [b]}}\nseeds:"), "each of 'ast', which is no task here; did you mean 'asd'"),
        (("seeds:", "each: {asd: [fan]}\nseeds:"), "each.asd must be one key with its values"),
        (("seeds:", "seed:"), "unknown key 'seed' .*; did you mean 'seeds'"),
        (("systems: [se_trans, cnn9]", "systems: []"), "names no systems"),
        (("cnn9", "cnn99"), "cnn99.yaml does not exist"),
        (("asd: ['data", "ast: ['data"), "overrides of 'ast'"),
        (("seeds:", "augmentations: [se_tran]\nseeds:"), "augmentations names se_tran, .*; did you mean 'se_trans'"),
        (("seeds: [1, 2]", "seeds: [1, 2"), "is not valid YAML"),
        (("seeds:", "published: {a: {scene: 1}}\nseeds:"), "published.a names 'scene', .*; did you mean 'scenes'"),
        (("seeds:", "published: {a: {asd: {aucs: 1}}}\nseeds:"), "published.a.asd must be .* one a score: auc, pauc"),
    ],
)
def test_a_wrong_plan_is_an_error_before_any_training(plan, change, message):
    plan.write_text(PLAN.replace(*change))
    with pytest.raises(ValueError, match=message):
        run(compare, plan, "--only-table")


def test_a_wrong_choice_is_named(plan):
    with pytest.raises(ValueError, match="--tasks scene is not in .*; did you mean 'scenes'"):
        run(compare, plan, "--tasks", "scene")

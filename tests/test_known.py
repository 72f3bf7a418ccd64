"""What is told of competitions is what their records say, of every one of them."""

import inspect
import re
from pathlib import Path

import pytest

import competitions as script
from earshot.competitions import COMPETITIONS, get_competition
from earshot.config import load_config
from earshot.inventory import known
from earshot.tasks import TASKS
from scripts import run

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


@pytest.mark.parametrize("name", COMPETITIONS)
def test_every_competition_tells_what_it_is(name, tmp_path):
    record = get_competition(name)
    lines = known.told(name, tmp_path, CONFIGS)
    text = "\n".join(lines)
    assert lines[0].startswith(f"{name}: ")
    assert record.task in TASKS
    assert known.LIKE[record.task]
    assert f"{record.oof_score.name}, {'less' if record.oof_score.lower_is_better else 'more'} is better" in text
    assert "not here yet" in text
    assert "Raise unless" not in text.split("What the download holds")[0]
    assert "  checked that " in text
    for flag in record.flags:
        assert flag.name in text
    taken = [p for p in inspect.signature(record.prepare).parameters if p not in ("source", "seed")]
    for option in set(taken) - {flag.key for flag in record.flags}:
        assert f"--set {option}=" in text
    assert record.embedded or re.search(r"^  (Download|Source)\b|^      DIR/", text, re.M), "which files it needs"
    assert ("src/bundle.py" in text) == (record.hidden is not None)
    for config in re.findall(r"--config (configs/\S+)", text):
        assert (ROOT / config).is_file() or "src/new.py" in text


def test_the_task_is_one_of_the_configs_that_train_it():
    """And that of the tables: test_layouts.py."""
    for name in COMPETITIONS:
        found = [load_config(CONFIGS / f"{config}.yaml") for config in known.configs_of(name, CONFIGS)]
        assert {config.data.competition for config in found} <= {name}
        tagged = name == "dcase2019_task1"  # published transfer: its scenes are tags there
        assert not found or found[0].task == get_competition(name).task or tagged


def test_limits_and_hidden_tests_are_in_words():
    assert known.limits_of(get_competition("birdclef2026")) == "kernel of 90 minutes"
    said = known.limits_of(get_competition("dcase2022_task1"))
    assert said == "128 kB of parameters at a byte each, 30 million multiply-accumulates"
    assert known.limits_of(get_competition("esc50")) == "none known"
    assert known.hidden_of(get_competition("birdcall")).startswith("/kaggle/input/birdsong-recognition: test_audio/")


def test_the_list_names_all_and_filters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(script)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(COMPETITIONS)
    assert lines[-1].startswith(f"{len(COMPETITIONS)} competitions")
    run(script, "--task", "scenes")
    shown = capsys.readouterr().out.splitlines()[1:-1]
    assert len(shown) > 5
    assert all(line.split()[1] == "scenes" for line in shown)
    with pytest.raises(ValueError, match="did you mean 'scenes'"):
        run(script, "--task", "scene")
    with pytest.raises(ValueError, match="did you mean 'birdcall'"):
        run(script, "birdcal")


def test_prepared_tables_are_counted(tiny, capsys):
    (Path("data")).rename("made")
    Path("data").mkdir()
    Path("made").rename("data/birdcall")
    run(script, "birdcall")
    assert re.search(r"prepared +24 clips, 3 classes in data/birdcall, of .*source", capsys.readouterr().out)


def test_the_road_where_the_held_out_clips_are_the_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    machines = get_competition("synth_asd")
    before = "\n".join(known.road(machines, "synth_asd", []))
    assert before.index("score_anomalies.py") < before.index("predict.py") < before.index("/test.npz")
    Path("data/synth_asd").mkdir(parents=True)
    Path("data/synth_asd/clips.csv").touch()
    after = "\n".join(known.road(machines, "synth_asd", []))
    assert "predict.py" not in after
    assert "--predictions runs/asd/synth_asd/oof.npz --test data/synth_asd/test.csv" in after


def test_the_road_of_machines_trains_all_types():
    """The published recipe trains a run a machine type; its config alone would answer one."""
    assert "'data.where={}'" in "\n".join(
        known.road(get_competition("dcase2021_task2"), "dcase2021_task2", ["asd/dcase_baseline"])
    )

"""The table of competitions: every name leads to its record, a family is loaded alone, names mean one thing."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import ensemble
import make_folds
from earshot.competitions import COMPETITIONS, family_module, get_competition
from earshot.competitions.tables import Tables, write_tables
from earshot.config import load_config
from earshot.ensemble.post_processing import STEPS
from earshot.ensemble.system import network_macs
from earshot.kaggle.sources import write_sources
from earshot.kernel.hidden_test import all_rules, get_rules
from earshot.metrics.clips import LOWER_IS_BETTER
from earshot.runs import make_model
from earshot.training.checks import check_budget
from scripts import run

SRC = Path(__file__).parents[1] / "src"
FAMILIES = sorted({family_module(name) for name in COMPETITIONS})
ALIASES = {"tut2017": "dcase2017_task1", **{f"tau{year}": f"dcase{year}_task1" for year in (2019, 2020, 2022)}}
INTERFACE = {"prepare", "rows", "validate", "score", "files", "read_files", "results"}


@pytest.mark.parametrize("name", COMPETITIONS)
def test_every_name_leads_to_a_whole_record(name):
    competition = get_competition(name)
    assert competition.name == ALIASES.get(name, name)
    assert all(callable(f) for f in (competition.prepare, competition.rows, competition.validate, competition.score))


@pytest.mark.parametrize("name", COMPETITIONS)
def test_what_an_oof_is_scored_by_is_declared(name):
    """Scores of clips can be had of any OOF; what decides has a direction that `upward` knows by its name."""
    competition = get_competition(name)
    score = competition.oof_score
    assert score.lower_is_better == (score.name in LOWER_IS_BETTER)
    if competition.post is not None:
        assert any(getattr(competition.post, step) for step in STEPS), "something to search"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edition_has_a_name_to_ask_for(family):
    editions = importlib.import_module(family).EDITIONS
    assert {name: f"earshot.competitions.{COMPETITIONS[name]}" for name in editions} == dict.fromkeys(editions, family)


@pytest.mark.slow
def test_asking_for_one_loads_its_family_alone():
    code = "import sys\nfrom earshot.competitions import get_competition\nget_competition('birdclef2026')\n"
    code += "print(*sorted(m.rsplit('.', 1)[1] for m in sys.modules if m.startswith('earshot.competitions.')))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True, check=True).stdout
    shared = {"checks", "competition", "downloads", "label_texts", "number_text", "oof_scores", "row_steps", "tables"}
    assert set(loaded.split()) - shared == {"birdcall", "birdclef", "birdclef_recordings", "birdclef_rows"}


def test_a_function_name_means_one_thing_in_all_families():
    names = Counter()
    for path in (SRC / "earshot" / "competitions").glob("*.py"):
        names.update(n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef))
    assert [n for n, times in names.items() if times > 1 and n not in INTERFACE and not n.startswith("_")] == []


def test_kernels_answer_those_with_a_hidden_test():
    assert set(all_rules()) == {
        "synth", "synth_shift", "birdcall", "rfcx", "freesound2019", *(f"birdclef{year}" for year in range(2021, 2027))
    }  # fmt: skip
    assert len({rules.slug for rules in all_rules().values()}) == len(all_rules())
    with pytest.raises(ValueError, match="no kernel answers 'esc50'.*known: synth, synth_shift, birdcall"):
        get_rules("esc50")


@pytest.mark.parametrize(("parameters_kb", "mmacs", "said"), [
    (128.0, 30.0, ""),
    (128.5, 30.0, "allows 128 kB of parameters in int8, got 128.500"),
    (1.0, 31.0, "allows 30 million multiply-accumulates for one input, got 31.000"),
])  # fmt: skip
def test_limits_say_what_a_network_breaks(parameters_kb, mmacs, said):
    assert get_competition("dcase2022_task1").limits.broken(parameters_kb, mmacs) == [said] * bool(said)
    assert get_competition("esc50").limits.broken(1e9, 1e9) == []  # sets none


def test_networks_of_a_blend_are_measured_together(capsys):
    config = load_config(SRC.parent / "configs" / "scenes" / "dcase2022_separable.yaml")
    fold = SimpleNamespace(about={"parameters": 55_000, "classes": list("abcdefghij")})
    run = SimpleNamespace(config=config, folds=[fold])
    ensemble.warn_over_limits(get_competition("dcase2022_task1"), [run])
    assert not capsys.readouterr().out
    own = network_macs(run) / 1e6
    for members in ([SimpleNamespace(config=config, folds=[fold] * 3)], [run] * 3):  # three folds, or three runs
        ensemble.warn_over_limits(get_competition("dcase2022_task1"), members)
        said = capsys.readouterr().out
        assert "dcase2022_task1 allows 128 kB of parameters in int8, got 165.000 in 3 networks" in said
        assert f"allows 30 million multiply-accumulates for one input, got {3 * own:.3f} in 3 networks" in said
    ensemble.warn_over_limits(get_competition("esc50"), [run] * 3)
    assert not capsys.readouterr().out


def test_training_warns_of_a_network_over_the_competitions_limits(caplog):
    path, free = SRC.parent / "configs" / "scenes" / "dcase2022_separable.yaml", "budget={parameters_kb: 0, mmacs: 0}"
    config = load_config(path, [free])
    check_budget(make_model(config, 10), config)
    assert not caplog.text
    config = load_config(path, [free, "model.params.hidden=512"])
    check_budget(make_model(config, 10), config)
    assert "dcase2022_task1 allows 128 kB of parameters in int8, got " in caplog.text


def test_fold_methods_are_those_of_the_prepared_competition(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = pd.DataFrame({"clip_id": [f"c{i}" for i in range(8)], "path": "x", "labels": "s0", "first_label": "s0"})
    write_tables(Tables(clips=clips, classes=["s0"]), "own", "rfcx", tmp_path)
    write_tables(Tables(clips=clips, classes=["s0"]), "other", "birdcall", tmp_path)
    run(make_folds, "--clips", "own/clips.csv", "--out", "folds.csv", "--k", 2, "--method", "rfcx")
    assert pd.read_csv("folds.csv").fold.value_counts().to_dict() == {0: 4, 1: 4}
    with pytest.raises(ValueError, match="birdcall has no fold method 'rfcx'; known: auto"):
        run(make_folds, "--clips", "other/clips.csv", "--out", "no.csv", "--method", "rfcx")
    with pytest.raises(ValueError, match="rfcx has no fold method 'rfcxx'; did you mean 'rfcx'"):
        run(make_folds, "--clips", "own/clips.csv", "--out", "no.csv", "--method", "rfcxx")
    assert not Path("no.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("competition", list(all_rules()))
def test_the_sources_of_a_kernel_hold_its_whole_family(competition, tmp_path):
    write_sources(tmp_path / "a.pyz", competition)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'a.pyz')!r})\n"
    code += "from earshot.competitions import get_competition, __file__\n"
    code += "from earshot.kernel.hidden_test import stand_in\n"
    code += f"test = stand_in({competition!r}, ('s0', 's1'), 'nowhere')\n"
    code += f"assert 'a.pyz' in __file__ and len(test.table) and get_competition({competition!r}).rows"
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)

"""A published system counts as open where its page says so or its configs are missing."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("bench_systems", BENCHMARKS / "bench_systems.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SYSTEMS", {"Bats": ("sed/bats", "sed/*deep*"), "Owls": ("sed/owls",)})
    return module


def test_open_systems(bench, tmp_path):
    (tmp_path / "sed").mkdir()
    for name in ("bats", "bats_deeper", "owls"):
        (tmp_path / "sed" / f"{name}.yaml").touch()
    page = "| system | config | status |\n|---|---|---|\n| Bats at night | `sed/bats` | built |\n"
    page += "| Owls | `sed/owls` | built, fits |\n"
    assert bench.open_systems(page, tmp_path) == {}
    assert bench.open_systems(page.replace("built, fits", "one half is open"), tmp_path) == {
        "Owls": "its row says so: one half is open"
    }
    assert bench.open_systems(page.replace("`sed/bats`", "`sed/bat*`, `sed/mice`"), tmp_path) == {
        "Bats": "no config sed/mice"
    }
    (tmp_path / "sed" / "bats_deeper.yaml").unlink()
    assert bench.open_systems(page, tmp_path) == {"Bats": "no config sed/*deep*"}
    assert "Owls" in bench.open_systems(page.replace("| Owls", "| Mice"), tmp_path)


def test_a_share_counts_what_passes(bench, capsys):
    def fails():
        raise AssertionError("off by one")

    assert bench.share({"a": lambda: None, "b": fails}) == 0.5
    assert "b: off by one" in capsys.readouterr().out

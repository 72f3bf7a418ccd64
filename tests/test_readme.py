"""Every command of the README and of the config headers is one that the scripts understand."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def commands(text: str) -> list[str]:
    """`python src/...` lines, continued ones joined, comments cut."""
    joined = re.sub(r"\\\n\s*(# *)?", " ", text)
    lines = [line.strip(" #").split("   #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line.startswith("python src/")]


def sources() -> list[tuple[str, str]]:
    files = [ROOT / "README.md", *sorted((ROOT / "configs").rglob("*.yaml"))]
    return [(str(f.relative_to(ROOT)), c) for f in files for c in commands(f.read_text())]


def test_there_are_commands():
    assert sum(name == "README.md" for name, _ in sources()) >= 15


@pytest.mark.parametrize(("name", "command"), sources(), ids=lambda value: value[:60])
def test_the_scripts_understand_it(name, command, monkeypatch):
    arguments = shlex.split(command.removeprefix("python src/").split("  #")[0])
    script = importlib.import_module(arguments[0].removesuffix(".py"))
    monkeypatch.setattr(sys, "argv", arguments)
    script.parse_args()
    for argument in arguments[1:]:
        if argument.startswith("configs/"):
            assert (ROOT / argument).is_file(), f"{name}: {argument} does not exist"


def test_the_tables_name_configs_that_exist():
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"`((?:sed|tagging|scenes|ust|asd)/[\w*/]+)`", text)
    assert named
    for name in named:
        assert list((ROOT / "configs").glob(f"{name}.yaml")), name


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([\w-]+)", (ROOT / "README.md").read_text())) <= targets | {"it"}

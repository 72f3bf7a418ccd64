"""kernels/earshot-demo: what its README's own command makes, byte for byte."""

import json
import shlex
import sys
from pathlib import Path

import pytest

import bundle
import demo
from earshot.kaggle.bundling import kernel_files
from pages import ROOT, blocks, our_commands, shell_lines

FOLDER = ROOT / "kernels" / "earshot-demo"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The kernel's files as the command of the README makes them, anew."""
    lines = [line for block in blocks((FOLDER / "README.md").read_text()) for line in shell_lines(block)]
    (command,) = [c for c in our_commands(lines) if c.startswith("src/bundle.py")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", shlex.split(command))
        options = bundle.parse_args()
    assert options.runs == [Path("runs/sed") / "demo"], "where the demo's first run lies"
    assert options.competition == demo.DATA.name
    assert options.slug.split("/")[1] == FOLDER.name
    return kernel_files(bundle.settings_of(options))


def test_the_files_are_what_the_command_makes(made):
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, f"{name} is of an older version: write it again"
    assert {path.name for path in FOLDER.iterdir() if path.name != "build"} == {*made, "README.md"}


def test_the_notebook_is_a_valid_one_that_holds_the_script(made):
    nbformat = pytest.importorskip("nbformat")
    found = nbformat.reads((FOLDER / "kernel.ipynb").read_text(), as_version=4)
    nbformat.validate(found)
    assert found.cells[1].source == (FOLDER / "kernel.py").read_text()
    compile(found.cells[1].source, "kernel.py", "exec")


def test_the_metadata_asks_for_what_a_scoring_kernel_may_have():
    about = json.loads((FOLDER / "kernel-metadata.json").read_text())
    assert (about["enable_internet"], about["enable_gpu"], about["competition_sources"]) == (False, False, ["synth"])
    assert about["dataset_sources"] == [f"{about['id']}-files"]

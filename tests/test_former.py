"""former.py: what outside scripts import by an old name is what stands in the packages."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from earshot import former

SRC = Path(former.__file__).parents[1]


@pytest.mark.parametrize("name", former.FORMER)
def test_no_former_name_hides_a_module_that_is_there(name):
    assert not (SRC / "earshot" / f"{name}.py").exists()
    assert not (SRC / "earshot" / name).exists()
    for home in former.FORMER[name]:
        importlib.import_module(f"earshot.{home}")


@pytest.mark.slow  # a process that imports torch
def test_old_imports_give_the_same_objects():
    code = (
        "from earshot import audio\nfrom earshot.labels import read_clips, read_table\n"
        "from earshot.dataset import TrainingClips, load_data\nfrom earshot.sound import audio as now\n"
        "from earshot import tables\nassert audio.load is now.load and read_table is tables.read_table\n"
        "print(load_data.__module__, TrainingClips.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["earshot.data.prepared", "earshot.training.examples"]
    assert "earshot.data.prepared.load_data" in done.stderr, "the warning says where the name lives now"


def test_a_name_that_is_gone_says_where_its_module_went():
    with pytest.raises(ImportError):
        exec("from earshot.labels import no_such_thing", {})
    with pytest.raises(AttributeError, match=r"is now earshot\.data\.labels"):
        getattr(importlib.import_module("earshot.labels"), "no_such_thing")  # noqa: B009

"""A wrong command line is refused before PyTorch is imported, which takes seconds."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from earshot.script import check_first

import pytest

import describe
import train
from earshot.config import load_config

SRC = Path(__file__).resolve().parents[1] / "src"
HEAVY = ("train", "describe", "export", "report", "search", "soup")
WRONG = {
    "train": ["--config", "nowhere.yaml"], "describe": ["--config", "nowhere.yaml"], "search": ["nowhere.yaml"],
    "export": ["--run", "nowhere.yaml"], "report": ["--runs", "nowhere.yaml", "--out", "x"],
    "soup": ["--runs", "nowhere.yaml", "nowhere.yaml", "--name", "x"],
}  # fmt: skip


ALL = """
import contextlib, io, json, runpy, sys, traceback

class No:
    def find_spec(self, name, *_):
        assert name != "torch", "PyTorch is imported"

sys.meta_path.insert(0, No())
sys.path.insert(0, SRC)
found = {}
for name, arguments in WRONG.items():
    sys.argv, said, code = [name, *arguments], io.StringIO(), None
    with contextlib.redirect_stderr(said):
        try:
            runpy.run_path(f"{SRC}/{name}.py", run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
    found[name] = code, said.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ends() -> dict[str, tuple[int, str]]:
    """How each script ends and what it says, one after the other in a process that cannot import torch: what one has
    imported is without it for the next as well."""
    assert set(WRONG) == set(HEAVY)
    code = f"SRC, WRONG = {str(SRC)!r}, {WRONG}\n{ALL}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", HEAVY)
def test_errors_come_before_pytorch(name, ends):
    """The script's own first lines."""
    code, said = ends[name]
    assert code == 2, said
    assert "Traceback" not in said
    assert "nowhere.yaml" in said


def test_no_other_script_imports_pytorch_at_its_top():
    """The rest parse their options first, or import what needs it where it is used."""
    named = {path.stem for path in SRC.glob("*.py") if "check_first(" in path.read_text()}
    assert named == set(HEAVY)
    for path in SRC.glob("*.py"):
        top = [ast.unparse(node) for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)]
        assert path.stem in HEAVY or "import torch" not in top, path


def test_an_error_ends_as_it_does_later(capsys):
    def wrong():
        raise ValueError("that cannot be")

    with pytest.raises(SystemExit) as ended:
        check_first(wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: that cannot be\n"
    check_first(lambda: None)


@pytest.mark.parametrize("script", [train, describe])
def test_a_config_out_of_a_pipe_is_read_once(script, monkeypatch):
    """The first checks may not drain it: what is read second would be empty, which is the default config."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write("seed: 77\n")
    monkeypatch.setattr(sys, "argv", ["x.py", "--config", f"/dev/fd/{reading}"])
    script.check_command()
    assert load_config(f"/dev/fd/{reading}").seed == 77
    os.close(reading)

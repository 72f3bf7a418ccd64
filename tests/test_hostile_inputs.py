"""Damaged and hostile inputs: a row a kind, through the real scripts' main functions, by the benchmark's own check."""

import zipfile
from pathlib import Path

import hostile_changes
import hostile_inputs
import hostile_kinds
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot import files, stored
from earshot.messages import Parser

ROOT = Path(__file__).resolve().parents[1]
# kinds whose every variant ends before a network is made
QUICK = [
    name for name, kind in hostile_kinds.KINDS.items()
    if (kind.script in ("submit", "bundle", "make_folds", "ensemble", "compare", "prepare")
    and not name.startswith("predictions: a bomb"))
    or name.startswith(("override", "task=", "--name", "a setting twice"))
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return hostile_changes.make(tmp_path_factory.mktemp("hostile") / "made")


def test_there_are_enough_kinds():
    assert len(hostile_kinds.KINDS) >= 100
    assert len(QUICK) >= 60


@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_input_is_clear(name, made, tmp_path):
    kind = hostile_kinds.KINDS[name]
    few = hostile_changes.Kind(kind.script, kind.arguments, kind.changes[:3], kind.names, kind.may_work, kind.after)
    assert hostile_inputs.check(few, made, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in hostile_kinds.KINDS if name not in QUICK])
def test_a_hostile_input_of_a_network_is_clear(name, made, tmp_path):
    assert hostile_inputs.check(hostile_kinds.KINDS[name], made, tmp_path)


def refusal(read, otherwise: str) -> str:
    """What a reader refuses by ValueError, or `otherwise` where it reads; any other exception is the test's end."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return otherwise


@given(st.binary(max_size=200))
def test_no_bytes_end_a_reader_in_another_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(content)
    for read in (stored.read_json, stored.read_yaml, stored.open_array,
                 lambda p: stored.read_arrays(p, "a file", "make it again")):  # fmt: skip
        assert str(path) in refusal(lambda read=read: read(path), str(path))


@given(st.text(max_size=60))
@pytest.mark.slow
def test_no_text_ends_the_yaml_reader_in_another_error(text):
    assert refusal(lambda: stored.parse_yaml(text, "here"), "here ").startswith("here ")


def test_aliases_and_sizes_are_bounded(tmp_path):
    with pytest.raises(ValueError, match=r"holds [0-9,]+ values with its aliases"):
        stored.parse_yaml(hostile_changes.LAUGHS, "x.yaml")
    assert stored.parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "x") == {
        "a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2},
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + bytes(10**6))
    with pytest.raises(ValueError, match=r"x\.npz is not a file"):
        stored.read_arrays(tmp_path / "x.npz", "a file", "make it again")
    np.savez(tmp_path / "y.npz", a=np.arange(3), b=np.array(["ü"]))
    assert set(stored.read_arrays(tmp_path / "y.npz", "a file", "")) == {"a", "b"}


@pytest.mark.parametrize("name", ["a", "b0_10s", "ümlaut", "a.b", "x y"])
def test_plain_names_may_be_used(name):
    files.check_name(name, "--name")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "/a", ".a", "-a", " a", "a ", "a.", "NUL", "aux.txt",
                                  "com1", "a\0", "a\n", "a:b", "a?", "x" * 201, "\ud800"])  # fmt: skip
def test_names_that_leave_their_folder_or_no_system_takes(name):
    with pytest.raises(ValueError, match=r"choose a plain name"):
        files.check_name(name, "--name")


def test_repeated_options_are_joined_or_refused(capsys):
    parser = Parser(description="x")
    parser.add_argument("--fold", nargs="+", default=["0"])
    parser.add_argument("--out")
    parser.add_argument("rest", nargs="*")
    told = parser.parse_intermixed_args(["--fold", "1", "a=1", "--fold", "2", "3", "--out", "x", "--out", "x"])
    assert (told.fold, told.out) == (["1", "a=1", "2", "3"], "x")
    assert parser.parse_intermixed_args([]).fold == ["0"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", "x", "--out", "y"])
    assert "--out is given twice, as x and as y: keep one" in capsys.readouterr().err


def test_help_names_files_that_are_there():
    import importlib
    import re

    for script in sorted((ROOT / "src").glob("*.py")):
        said = importlib.import_module(script.stem).__doc__ + script.read_text()
        for path in re.findall(r"\b(?:configs|docs|src)/[\w/]+\.(?:yaml|md|py)", said):
            assert (ROOT / path).exists() or "<" in path or "mine" in path, f"{script.name} names {path}"


def test_an_empty_table_has_a_header(tmp_path):
    files.write_rows(tmp_path / "x.csv", [], ("clip_id", "reason"))
    assert (tmp_path / "x.csv").read_text() == "clip_id,reason\n"
    with pytest.raises(ValueError, match="no rows and no columns"):
        files.write_rows(tmp_path / "y.csv", [])

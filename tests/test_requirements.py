"""The files of requirements: one set of versions, what training needs apart, every extra missed by one error."""

import ast
import functools
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from earshot.messages import need

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
EXTRAS = [path.stem for path in FILES if path.stem not in ("train", "tests")]
PIN = re.compile(r"([A-Za-z0-9._-]+)(\[[a-z,]+\])?==([0-9][^\s#]*)(\s+# .*)?")
# packages whose modules have other names, and modules that come with a package of the list
MODULES = {
    "scikit-learn": ["sklearn"], "pyyaml": ["yaml"], "iterative-stratification": ["iterstrat"], "pillow": ["PIL"],
    "huggingface-hub": ["huggingface_hub", "httpx2"], "gradio": ["gradio", "fastapi", "starlette", "uvicorn"],
    "kaggle": ["kaggle", "requests"], "ai-edge-litert": ["ai_edge_litert"],
}  # fmt: skip


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def pins(path: Path) -> dict[str, str]:
    """{package: version} of a file, without what it includes."""
    found = {}
    for line in lines(path):
        if not line.startswith("-r "):
            match = PIN.fullmatch(line)
            assert match, f"{path.name}: {line} is no pin"
            found[match[1].lower().replace("_", "-")] = match[3]
    return found


def included(path: Path) -> set[str]:
    return {line.removeprefix("-r ").split()[0] for line in lines(path) if line.startswith("-r ")}


def modules_of(path: Path) -> set[str]:
    return {module for package in pins(path) for module in MODULES.get(package, [package.replace("-", "_")])}


def test_there_is_one_set_of_versions():
    versions = {}
    for path in FILES:
        for package, version in pins(path).items():
            assert versions.setdefault(package, version) == version, f"{path.name}: {package}"
    assert len(versions) > 35


def test_everything_is_what_the_tests_need_and_holds_each_part():
    assert lines(ROOT / "requirements.txt") == ["-r requirements/tests.txt"]
    assert included(ROOT / "requirements/tests.txt") == {p.name for p in FILES} - {"tests.txt"}
    for extra in EXTRAS:
        assert included(ROOT / f"requirements/{extra}.txt") == {"train.txt"}
    assert not included(ROOT / "requirements/train.txt")


def test_what_is_installed_here_is_the_set():
    """Where `make setup` made the environment; a package that somebody left out skips its own tests."""
    here = {package: version for path in FILES for package, version in pins(path).items()}
    wrong = {}
    for package, version in here.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        if found.split("+")[0] != version:  # a build for CPUs is 2.15.0+cpu
            wrong[package] = (found, version)
    assert not wrong


def guarded(tree: ast.Module) -> set[int]:
    """Imports inside a `try` that catches ImportError, a `with _installed(...)`, or TYPE_CHECKING."""
    found = set()
    for node in ast.walk(tree):
        handles = isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type or node) for h in node.handlers)
        held = isinstance(node, ast.With) and "_installed(" in ast.unparse(node.items[0])
        if handles or held:
            found |= {id(inner) for part in node.body for inner in ast.walk(part)}
    return found


@functools.cache
def third_party() -> list[tuple[Path, str, bool, bool]]:
    """(file, module, at the top of the file, guarded) of every import of another's library in src."""
    found = []
    scripts = {path.stem for path in (ROOT / "src").glob("*.py")}
    for path in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(path.read_text())
        top, safe = {id(node) for node in tree.body}, guarded(tree)
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - {"", "earshot"} - scripts - sys.stdlib_module_names:
                found.append((path.relative_to(ROOT), name, id(node) in top, id(node) in safe))
    return found


def test_what_files_import_at_their_top_is_there_for_training():
    training = modules_of(ROOT / "requirements/train.txt")
    wrong = [(str(path), name) for path, name, top, _ in third_party() if top and name not in training]
    assert not wrong


def test_every_library_is_pinned_somewhere():
    known = {module for path in FILES for module in modules_of(path)}
    assert {name for _, name, _, _ in third_party()} <= known


# where a door before them (a guarded import, `need`) has said that the library is not there
BEHIND_A_DOOR = {
    "src/earshot/export/graph.py": {"openvino"},  # export_run
    "src/earshot/export/tracing.py": {"onnx"},  # export_run
    "src/earshot/export/rewriting.py": {"onnx"},  # export_run
    "src/earshot/export/int8.py": {"onnx", "openvino", "nncf"},  # export_run, quantise
    "src/earshot/prediction/precision.py": {"openvino"},  # export_run; backends._library
    "src/earshot/pages/review.py": {"fastapi", "starlette", "uvicorn"},  # gradio()
    "src/earshot/listening/shards.py": {"pyarrow"},  # bulk.main
    "src/earshot/listening/archive.py": {"pyarrow"},  # bulk.main
    "src/earshot/searching/study.py": {"sqlalchemy"},  # optuna()
    "src/earshot/kaggle/push.py": {"requests"},  # client()
}


def test_every_extra_is_imported_behind_a_door():
    extras = {m for extra in EXTRAS for m in modules_of(ROOT / f"requirements/{extra}.txt")}
    extras -= modules_of(ROOT / "requirements/train.txt")
    bare = {(str(path), name) for path, name, top, safe in third_party() if name in extras and not safe}
    assert bare <= {(path, name) for path, names in BEHIND_A_DOOR.items() for name in names}


def test_every_install_line_names_a_file_that_is_there():
    named = {name for path in (ROOT / "src").rglob("*.py") for name in re.findall(r"requirements/(\w+)\.txt",
             path.read_text())}  # fmt: skip
    needed = {extra for path in (ROOT / "src").rglob("*.py")
              for extra in re.findall(r'\bneed\([^,]+, "(\w+)"', path.read_text())}  # fmt: skip
    assert needed >= {"ray", "export"}
    assert named | needed <= set(EXTRAS)
    table = (ROOT / "docs" / "installing.md").read_text()
    assert all(f"| `requirements/{path.name}` |" in table for path in FILES)


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "openvino"])
def test_an_export_without_its_libraries_says_so_before_it_begins(library, monkeypatch):
    from earshot.export.graph import ExportSettings, export_run

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"graph needs {library} \(.*\): pip install -r requirements/export.txt"):
        export_run(None, ExportSettings(graph_format="openvino"))


def test_an_inner_module_is_said_by_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ValueError, match=r"an archive needs ray \("):
        need("ray.data", "ray", "an archive")
    assert need("json", "ray", "nothing").__name__ == "json"

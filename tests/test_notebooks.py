"""The notebooks: what their texts make, valid, and (slow) run from the first cell to the last."""

import importlib.util
import json
import os

import pytest

from pages import ROOT

FOLDER = ROOT / "notebooks"
TEXTS = sorted(path for path in FOLDER.glob("*.py") if path.name != "make.py")


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_text_becomes_cells(make):
    made = make.notebook_of("# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1\n\n\ny = 2  # %%\n\n# %%\nx\n")
    assert [cell["cell_type"] for cell in made["cells"]] == ["markdown", "code", "code"]
    assert ["".join(cell["source"]) for cell in made["cells"]] == ["# Title\n\ntext", "x = 1\n\n\ny = 2  # %%", "x"]
    with pytest.raises(ValueError, match="must begin with a line"):
        make.notebook_of("x = 1\n# %%\ny = 2\n")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_notebooks_are_what_their_texts_make(path, make):
    nbformat = pytest.importorskip("nbformat")
    target = path.with_suffix(".ipynb")
    assert target.read_text() == make.written(path), "python notebooks/make.py writes it again"
    nbformat.validate(nbformat.reads(target.read_text(), as_version=4))
    assert not [cell for cell in json.loads(target.read_text())["cells"] if cell.get("outputs")]


@pytest.mark.slow
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_notebooks_run(path, monkeypatch):
    nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "10 classes" in said
    assert "sed/synth_cnn" in said
    shown = [o["data"] for c in notebook.cells for o in c.get("outputs", ()) if "data" in o]
    assert any("image/png" in data for data in shown), "the log-mel"
    assert "event_label" in [data["text/html"] for data in shown if "text/html" in data][-1], "the events"

"""What of a bundle needs no run: imports, the kernel's text, minutes and slugs."""

import json
import re
from dataclasses import replace

import pytest

from earshot.kaggle import bundling, sources
from earshot.kaggle.bundling import BundleSettings
from earshot.kaggle.checks import check_slug
from earshot.kaggle.sources import needed_modules, write_sources
from test_bundle import RULES, SLUG


def test_heavy_imports_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "heavy.py"
    path.write_text("import torch\n")
    monkeypatch.setattr(sources, "SRC", tmp_path)
    monkeypatch.setattr(sources, "needed_modules", lambda competition: {path})
    (tmp_path / "run_kernel.py").write_text("")
    with pytest.raises(ValueError, match="must not import torch"):
        write_sources(tmp_path / "a.pyz", "synth")


def test_modules_follow_imports():
    names = {p.name for p in needed_modules("birdclef2021")}
    assert {"birdclef.py", "birdclef_rows.py", "hidden_test.py", "inference.py", "timebase.py", "__init__.py"} <= names
    assert not {"runs.py", "config.py", "examples.py", "prepared.py", "rfcx.py", "freesound2019.py", "finch.py"} & names
    assert "birdclef.py" not in {p.name for p in needed_modules("rfcx")}


@pytest.mark.parametrize("competition", list(RULES))
def test_the_kernel_is_short_and_its_notebook_the_same(competition):
    script = bundling.kernel_script(
        BundleSettings(runs=(), competition=competition, slug=SLUG, minutes=9), "some-one/my-kernel-files"
    )
    assert len(script.splitlines()) <= 40
    compile(script, "kernel.py", "exec")
    assert not re.search(r"__[A-Z]+__", script)
    assert f'"{RULES[competition].slug}"' in script
    made = bundling.notebook(script)
    code = [c for c in made["cells"] if c["cell_type"] == "code"]
    assert ["".join(c["source"]) for c in code] == [script]
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(made)


def test_a_competition_that_is_laid_out_as_another_has_its_own_name_on_kaggle():
    settings = BundleSettings(runs=(), competition="birdclef2026", slug=SLUG, data_slug="our-birds")
    files = bundling.kernel_files(settings)
    assert json.loads(files["kernel-metadata.json"])["competition_sources"] == ["our-birds"]
    assert 'find("our-birds/test_soundscapes")' in files["kernel.py"]
    with pytest.raises(ValueError, match="--data-slug 'Our birds' must be the end of the competition's address"):
        bundling.kernel_files(replace(settings, data_slug="Our birds"))


def test_minutes_come_from_the_competition_or_must_be_said():
    assert '"81"' in bundling.kernel_script(BundleSettings(runs=(), competition="birdclef2026", slug=SLUG), "a/b")
    with pytest.raises(ValueError, match="rfcx states no time limit: say --minutes"):
        bundling.kernel_script(BundleSettings(runs=(), competition="rfcx", slug=SLUG), "a/b")


@pytest.mark.parametrize(("minutes", "warns"), [(90, False), (91, True)])
def test_more_minutes_than_the_competition_allows_are_a_warning(minutes, warns, caplog):
    with caplog.at_level("WARNING", "earshot"):
        bundling.kernel_script(BundleSettings(runs=(), competition="birdclef2026", slug=SLUG, minutes=minutes), "a/b")
    assert ("birdclef2026 stops kernels after 90 minutes, and this one plans with 91" in caplog.text) == warns


@pytest.mark.parametrize(
    "slug", ["name", "/name", "user/", "user/../x-y-z", "../up/abcde", "user/Name1", "user/a--bcd", "user/-abcde",
             "user/abcd", "user/" + "a" * 45, "user/ab cde", "user/abcde/x", "us er/abcde", "user/abcde\n"],
)  # fmt: skip
def test_slugs_that_are_none(slug):
    with pytest.raises(ValueError, match="--slug"):
        check_slug(slug)

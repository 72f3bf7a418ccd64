"""What run_kernel.py imports -> one archive that Python runs, and the packages that it needs. No torch gets in."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from earshot.competitions import family_module

SRC = Path(__file__).parents[2]
ENTRY = "run_kernel.py"
HEAVY = ("torch", "timm", "torchlibrosa", "transformers", "accelerate", "wandb", "matplotlib")  # not in a kernel
# modules that inputs/extractor.py names by text: what opens an extractor's file in a kernel
NAMED = ("earshot.inputs.extractor_files", "earshot.prediction.extractors")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same sources give the same bytes


def write_sources(path: Path, competition: str) -> dict[str, str]:
    """What src/run_kernel.py imports for `competition` -> an archive that Python runs; packages it needs, by version.

    Sources only, the same bytes each time. A module that imports torch where it is imported itself is an error.
    """
    modules = needed_modules(competition)
    packages: set[str] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in [("__main__.py", SRC / ENTRY), *sorted((str(m.relative_to(SRC)), m) for m in modules)]:
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), source.read_bytes())
            packages |= _outside(source)
    if heavy := packages & set(HEAVY):
        raise ValueError(f"the sources of a kernel must not import {', '.join(sorted(heavy))}")
    return versions(sorted(packages))


def needed_modules(competition: str) -> set[Path]:
    """Files of the package that run_kernel.py and the competition's family import, directly or through others."""
    waiting = [SRC / ENTRY, *_files_of(family_module(competition)), *(f for name in NAMED for f in _files_of(name))]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and "torch" not in path.stem:  # the twins of inputs, imported where training asks for them
            found.add(path)
            waiting += [file for name in _imports(path) for file in _files_of(name)]
    return found - {SRC / ENTRY}


@lru_cache(maxsize=256)
def _imports(path: Path, top_only: bool = False) -> frozenset[str]:
    """Dotted names that a file imports; `from a import b` gives a and a.b."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _files_of(name: str) -> list[Path]:
    """Dotted name -> its file in the package and the __init__ files above; [] for what is not ours or no module."""
    if name.split(".")[0] != "earshot":
        return []
    path = SRC.joinpath(*name.split("."))
    inits = [p / "__init__.py" for p in (path, *path.parents) if (p / "__init__.py").is_file() and SRC in p.parents]
    module = path.with_suffix(".py")
    return inits + ([module] if module.is_file() else [])


def _outside(path: Path) -> set[str]:
    """Top names of third-party packages that a file imports when it is imported."""
    tops = {name.split(".")[0] for name in _imports(path, top_only=True)}
    return {t for t in tops if t not in sys.stdlib_module_names and t not in ("earshot", "__future__")}


def versions(modules: Sequence[str]) -> dict[str, str]:
    """Import names -> {distribution: version} of those that are installed here."""
    known = _distributions()
    names = [sorted(known[m])[0] for m in modules if m in known]
    return {name: metadata.version(name) for name in names}


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    """Import name -> distributions that have it; looks at every installed one."""
    return dict(metadata.packages_distributions())

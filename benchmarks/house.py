"""How the house stands: modules outside packages, the largest file, packages without torch, words of the README.

python benchmarks/house.py            # prints
python benchmarks/house.py --record   # and appends to benchmarks/results.json

A package counts as free of torch when all of its modules, imported in a process of their own, leave torch, timm,
matplotlib, wandb and transformers unloaded. The share of mutants that tests kill takes longer: benchmarks/mutants.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from results import record

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "earshot"
HEAVY = ("torch", "timm", "matplotlib", "wandb", "transformers")
COMMAND = "python benchmarks/house.py --record"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/results.json")
    options = parser.parse_args()
    flat = sorted(PACKAGE.glob("*.py"))
    largest, lines = max(((p, p.read_text().count("\n")) for p in (ROOT / "src").rglob("*.py")), key=lambda x: x[1])
    free = [room for room in rooms() if loads_nothing_heavy(room)]
    words = len((ROOT / "README.md").read_text().split())
    print(f"modules outside packages: {len(flat)} ({', '.join(p.stem for p in flat)})")
    print(f"largest file: {largest.relative_to(ROOT)}, {lines} lines")
    print(f"packages without torch: {len(free)} ({', '.join(free)})")
    print(f"README: {words} words")
    if options.record:
        record("house_modules_flat", len(flat), "files", COMMAND)
        record("house_largest_file_lines", lines, "lines", COMMAND)
        record("house_torch_free_packages", len(free), "packages", COMMAND)
        record("readme_words", words, "words", COMMAND)


def rooms() -> list[str]:
    """Names of the packages of src/earshot."""
    return sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


def loads_nothing_heavy(room: str) -> bool:
    """Import every module of a package in a fresh process, and look what came with them."""
    names = [
        "earshot." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for p in sorted((PACKAGE / room).rglob("*.py"))
    ]
    code = f"import importlib, sys\nfor m in {names}: importlib.import_module(m)\n"
    code += f"sys.exit(any(m in sys.modules for m in {HEAVY}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src").returncode == 0


if __name__ == "__main__":
    main()

"""The notebooks here are made from the texts beside them: tour.py -> tour.ipynb.

python notebooks/make.py            # writes them again
python notebooks/make.py --check    # ends with an error where one is not what its text makes

A line `# %%` begins a cell of code, `# %% [markdown]` one of text, whose lines begin with `#`. Outputs are not kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MARK = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)


def notebook_of(text: str) -> dict:
    """The notebook of a text in cells (nbformat 4.5), without outputs."""
    before, *parts = MARK.split(text)
    if before.strip() or not parts:
        raise ValueError("the text must begin with a line '# %%' or '# %% [markdown]'")
    cells = []
    for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        lines = body.strip("\n").splitlines()
        about = {"id": f"cell-{number}", "metadata": {}}
        if kind:
            lines = [re.sub(r"^# ?", "", line) for line in lines]
            cells.append({"cell_type": "markdown", **about, "source": "\n".join(lines).splitlines(keepends=True)})
        else:
            source = "\n".join(lines).splitlines(keepends=True)
            cells.append({"cell_type": "code", **about, "execution_count": None, "outputs": [], "source": source})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def written(path: Path) -> str:
    """What the file of a text's notebook holds."""
    return json.dumps(notebook_of(path.read_text(encoding="utf-8")), indent=1) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where one differs")
    check, stale = parser.parse_args().check, []
    for path in sorted(path for path in HERE.glob("*.py") if path.name != Path(__file__).name):
        target, text = path.with_suffix(".ipynb"), written(path)
        if check:
            stale += [target.name] * (not target.is_file() or target.read_text(encoding="utf-8") != text)
        else:
            target.write_text(text, encoding="utf-8")
            print(f"-> {target}")
    if stale:
        sys.exit(f"error: {', '.join(stale)} is not what its text makes: python notebooks/make.py")


if __name__ == "__main__":
    main()

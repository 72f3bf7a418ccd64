"""What is known of each competition: task, score, limits, hidden test, needed files, options, configs, commands.

python src/competitions.py                  # all of them, a line each
python src/competitions.py --task scenes
python src/competitions.py birdcall         # all about one
"""

from __future__ import annotations

import argparse
from pathlib import Path

from earshot.script import run_script

from earshot.competitions import get_competition
from earshot.inventory.known import summary_rows, told
from earshot.messages import Parser, command_line, plural, suggest

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def main():
    options = parse_args()
    if options.name:
        get_competition(options.name)  # an unknown name is an error with a suggestion
        print("\n".join(told(options.name, options.data, CONFIGS)))
        return
    rows = summary_rows(options.data)
    known = sorted({row["task"] for row in rows})
    if options.task and options.task not in known:
        raise ValueError(f"no competition has the task '{options.task}'{suggest(options.task, known)}")
    rows = [row for row in rows if options.task in ("", row["task"])]
    widths = {key: max(len(row[key]) for row in [*rows, {k: k for k in rows[0]}]) for key in rows[0]}
    for row in [{key: key for key in widths}, *rows]:
        print("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())
    print(f"{plural(len(rows), 'competitions')}; {command_line('competitions', 'NAME')} says all about one")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="a competition (default: a line of each)")
    parser.add_argument("--task", default="", help="only those of this task")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of prepared tables (default data)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)

"""Trained runs -> the folder that organisers ask winners for: code, weights, commands, digests, what came from outside.

python src/solution.py --blend runs/ensembles/two.json --submission submissions/two.csv --out solutions/two \\
    --license CC-BY-4.0
python src/solution.py --run runs/sed/synth_cnn --out solutions/synth
python src/solution.py --check solutions/two

Commands in its entry_points.md are run in that folder. Recordings and tables of the competition are not in it. What
only you know (your machine, the licence, where foreign weights are from) is marked FILL IN.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from earshot.script import run_script

from earshot.files import check_writable
from earshot.kaggle.solution import find_solution, with_submission
from earshot.kaggle.solution_folder import build_solution, changed_files
from earshot.messages import Parser, few


def main():
    options = parse_args()
    if options.check:
        problems = changed_files(options.check)
        if problems:
            raise ValueError(
                f"{options.check}: {len(problems)} of its files are not as they were written: {few(problems, 10)}"
            )
        print(f"{options.check}: every file is as it was written")
        return
    check_writable(options.out / "README.md")
    solution = find_solution([options.run] if options.run else [], options.blend)
    if options.submission:
        solution = with_submission(solution, options.submission, options.log)
    left = build_solution(solution, options.out, options.license)
    print(f"-> {options.out}/: {', '.join(run.name for run in solution.members)}, code and commands")
    for line in left:
        print(f"  {line.strip()}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, help="folder of a run that answers alone")
    parser.add_argument("--blend", type=Path, help="JSON of src/ensemble.py: its runs, blend and post-processing")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="what was handed in, as --log knows it")
    parser.add_argument("--log", type=Path, default=Path("submissions/log.csv"), help="the log of submissions")
    parser.add_argument("--out", type=Path, help="folder to write")
    parser.add_argument("--license", default="", metavar="NAME", help="of code and weights, such as CC-BY-4.0")
    parser.add_argument(
        "--check", type=Path, metavar="DIR", help="only look whether its files are as they were written"
    )
    options = parser.parse_args()
    if not options.check and (not options.out or bool(options.run) == bool(options.blend)):
        parser.error("a solution needs --out, and --run or --blend")
    return options


if __name__ == "__main__":
    run_script(main)

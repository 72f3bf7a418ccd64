"""The pages, and the way in: checks in a headless Chromium, the size of the demo's report, commands from folder to OOF.

python benchmarks/bench_pages.py chromium --record
python benchmarks/bench_pages.py report --record                 # of the page that `make demo` made
python benchmarks/bench_pages.py own --source FOLDER --record    # FOLDER/<class>/*.wav; default: real spoken digits
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from results import record

import pages
from earshot.prediction.predictions import Predictions
from earshot.tables import read_table

BROWSER_TESTS = ("tests/test_page_browser.py", "tests/test_review_browser.py")
REPORT = ROOT / "runs/demo/report/report.html"
MOST_MB = 15
DIGITS, CLIPS_A_DIGIT = 4, 5


def main():
    options = parse_args()
    name, value, unit = {"chromium": chromium, "report": report, "own": own_data}[options.what](options)
    print(f"{name}: {value:g} {unit}")
    if options.record:
        record(name, value, unit, shlex.join(["python", "benchmarks/bench_pages.py", *sys.argv[1:]]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("chromium", "report", "own"))
    parser.add_argument("--source", type=Path, help="own: a folder of recordings, a folder a class")
    parser.add_argument("--epochs", type=int, default=0, help="own: cut the training to so many, to save time")
    parser.add_argument("--record", action="store_true", help="append the figure to benchmarks/results.json")
    return parser.parse_args()


def chromium(options: argparse.Namespace) -> tuple[str, int, str]:
    """Run the browser's tests; one that fails, or is skipped, is an error."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", *BROWSER_TESTS, f"--junitxml={told}"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        suite = ElementTree.parse(told).getroot().find("testsuite")
    counts = {k: int(suite.get(k)) for k in ("tests", "failures", "errors", "skipped")}
    if counts["failures"] or counts["errors"] or counts["skipped"]:
        raise SystemExit(f"not all checks passed: {counts}")
    return "chromium_checks_passed", counts["tests"], "checks of both pages in a headless Chromium, of as many"


def report(options: argparse.Namespace) -> tuple[str, float, str]:
    if not REPORT.is_file():
        raise SystemExit(f"{REPORT} is not there: run `make demo` first")
    megabytes = REPORT.stat().st_size / 1e6
    if megabytes > MOST_MB:
        raise SystemExit(f"the demo's report has {megabytes:.1f} MB, more than {MOST_MB}")
    return "report_page_mb", round(megabytes, 3), "MB, the demo's report with its clips to hear"


def own_data(options: argparse.Namespace) -> tuple[str, int, str]:
    """Run the commands of README's first screen in a copy of the checkout until the OOF is there, and count them."""
    first_screen = (ROOT / "README.md").read_text().split("\n## Tutorial")[0]
    lines = next(lines for block in pages.blocks(first_screen) if "prepare.py mine" in (lines := block)).strip()
    with tempfile.TemporaryDirectory() as folder:
        copy, source = Path(folder) / "earshot", options.source or digits(Path(folder) / "recordings")
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
        copy.mkdir()
        subprocess.run(["tar", "x"], cwd=copy, input=archive, check=True)
        oof, count = copy / "runs/tagging/mine/oof.npz", 0
        for line in pages.shell_lines(lines):
            words = shlex.split(line.replace("~/recordings", str(source.resolve())))
            if words[0] != "python":
                raise SystemExit(f"README's first screen has a line that is no command of ours: {line}")
            shorter = [f"optim.epochs={options.epochs}"] * (options.epochs > 0 and words[1] == "src/train.py")
            subprocess.run([sys.executable, *words[1:], *shorter], cwd=copy, check=True)
            count += 1
            if oof.is_file():
                break
        found, clips = Predictions.load(oof), read_table(copy / "data/mine/clips.csv")
        if sorted(map(str, found.clip_ids)) != sorted(clips.clip_id.astype(str)):
            raise SystemExit("the OOF does not have every clip once")
    short = f", training cut to {options.epochs} epochs" * (options.epochs > 0)
    return "own_data_commands", count, f"commands from a folder of {len(found)} real recordings to their OOF{short}"


def digits(folder: Path) -> Path:
    """Real spoken digits, a folder a digit."""
    real = Path(os.environ.get("EARSHOT_SHARED", ROOT.parent / "shared" / "data")) / "fsdd_small"
    if not real.is_dir():
        raise SystemExit(f"no real audio at {real}: give --source FOLDER")
    meta = read_table(real / "meta.csv", ("filename", "label"))
    for digit, rows in list(meta.groupby("label"))[:DIGITS]:
        (folder / f"digit{digit}").mkdir(parents=True)
        for name in rows.filename.iloc[:: len(rows) // CLIPS_A_DIGIT][:CLIPS_A_DIGIT]:
            shutil.copy(real / name, folder / f"digit{digit}")
    return folder


if __name__ == "__main__":
    main()

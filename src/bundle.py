"""Exported runs -> a Kaggle kernel and the data set that it reads, tried out as Kaggle would run them, uploaded.

python src/export.py --run runs/sed/my_birds --format onnx
python src/bundle.py --runs runs/sed/my_birds --competition birdclef2026 --slug user/my-birds \\
    --wheels wheels/onnx
python src/bundle.py --blend runs/ensembles/two.json --competition birdclef2026 --slug user/two-runs \\
    --wheels wheels/onnx
python src/bundle.py --fetch-wheels wheels/onnx     # what Kaggle's image lacks, once; then --wheels wheels/onnx
python src/bundle.py --slug user/my-birds --dry-run --test-folder ~/birdclef-2026/train_soundscapes
python src/bundle.py --slug user/my-birds --push --message "five folds"

--dry-run and --push may stand beside --runs or --blend; the dry run comes first, and nothing is uploaded that fails it.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from earshot.script import run_script

from earshot.competitions import get_competition
from earshot.ensemble.choice import say_used
from earshot.files import as_json, check_writable, write_text
from earshot.kaggle.bundling import BundleSettings, build, sizes
from earshot.kaggle.checks import check_slug
from earshot.kaggle.dry_run import dry_run
from earshot.kaggle.image import read_image
from earshot.kaggle.push import push
from earshot.kaggle.wheels import RUNTIMES, fetch_wheels
from earshot.kernel.bundle import ABOUT, CHOSEN_POST, POST
from earshot.kernel.hidden_test import get_rules
from earshot.messages import Parser, check_numbers, plural
from earshot.prediction.backends import ENDINGS
from earshot.prediction.graphs import graph_files
from earshot.stored import read_json


def main():
    options = parse_args()
    check_options(options)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    image = read_image(options.image_packages)
    if options.slug:
        folder = options.root / check_slug(options.slug)[1] / "build"
        check_writable(folder / "kernel.json")
    for run in options.runs:  # before anything is fetched
        graph_files(run, options.format, options.int8, options.together)
    if options.fetch_wheels:
        wheels = fetch_wheels(options.fetch_wheels, image, [RUNTIMES[options.format], *options.also])
        print(f"-> {options.fetch_wheels}: {', '.join(w.path.name for w in wheels)}")
        options.wheels = options.fetch_wheels
        if not options.slug:
            return
    if options.runs or options.blend:
        settings = settings_of(options)
        folder = build(settings, options.root)
        print_build(folder)
        print_post(settings, folder / "dataset")
    if not (folder / "dataset").is_dir():
        raise ValueError(f"{folder} does not exist yet: say --runs (or --blend) and --competition")
    if options.dry_run:
        results = dry_run(
            folder, options.dry_minutes, options.test_folder, image=image,
            accept_open_network=options.accept_open_network,
        )  # fmt: skip
        write_report(folder, results)
        if any(result.problems for result in results):
            raise ValueError("the kernel would fail on Kaggle: see above")
    if options.push:
        push(folder, options.message, wait=not options.no_wait)


def check_options(options: argparse.Namespace):
    """What can be refused before anything is read or fetched: a name that Kaggle does not take, a competition that no
    kernel answers, no time."""
    check_numbers(options, "minutes", "dry_minutes")
    if options.slug:
        check_slug(options.slug)
    if options.competition:
        get_rules(options.competition)


def settings_of(options: argparse.Namespace) -> BundleSettings:
    """What the command line asks to bundle."""
    return BundleSettings(
        runs=tuple(options.runs),
        competition=options.competition,
        slug=options.slug,
        graph_format=options.format,
        int8=options.int8,
        together=options.together,
        weights=tuple(options.weights),
        blend=options.blend,
        tta=None if options.tta is None else tuple(options.tta),
        post=options.post,
        minutes=options.minutes,
        wheels=options.wheels,
        image_packages=options.image_packages,
        kind=options.kind,
        data_slug=options.data_slug,
    )


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--slug", metavar="USER/NAME", help="the kernel's; its data set is USER/NAME-files")
    add("--runs", type=Path, nargs="+", default=[], help="run folders with exported graphs")
    add("--competition", help="a name of competitions.COMPETITIONS that kernels answer")
    add("--format", default="onnx", choices=sorted(ENDINGS))
    add("--int8", action="store_true", help="the graphs that export.py made with --int8")
    add("--together", action="store_true", help="the graphs that export.py made with --together")
    add("--weights", type=float, nargs="+", default=[], help="one a run (default: all alike)")
    add(
        "--blend", type=Path, help="JSON of src/ensemble.py: its runs, mean, weights and thresholds, in place of --runs"
    )
    add("--tta", nargs="*", help="further hearings, where there is time (default: those of each run)")
    add("--post", type=Path, help="post-processing YAML")
    add("--minutes", type=float, default=0.0, help="the kernel plans with (default: 90 %% of the competition's limit)")
    add("--wheels", type=Path, help="folder of .whl files that Kaggle's image lacks")
    add("--fetch-wheels", type=Path, metavar="DIR", help="download what the image lacks for --format there, and use it")
    add(
        "--also", nargs="+", default=[], metavar="PACKAGE",
        help="with --fetch-wheels: what extractors' files need besides (ai-edge-litert runs .tflite)",
    )  # fmt: skip
    add("--image-packages", type=Path, metavar="FILE", help="a newer list of Kaggle's image (see docs/kernels.md)")
    add("--kind", default="notebook", choices=("notebook", "script"), help="what Kaggle runs")
    add(
        "--data-slug", default="", metavar="NAME",
        help="of the competition on Kaggle whose test is answered, where it is laid out as --competition is",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="run the kernel as Kaggle would")
    add("--test-folder", type=Path, help="recordings for the dry run's hidden test (default: made ones)")
    add("--accept-open-network", action="store_true", help="dry run even where the network cannot be taken away")
    add("--dry-minutes", type=float, default=5.0, help="the dry run's clock (default 5)")
    add("--push", action="store_true", help="upload by the kaggle client, run there, fetch the output")
    add("--message", default="made by src/bundle.py", help="notes of the data set's version")
    add("--no-wait", action="store_true", help="with --push: do not wait for the kernel's run")
    add("--root", type=Path, default=Path("kernels"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if (options.runs or options.blend) and not options.competition:
        parser.error("--runs and --blend need --competition")
    if not (options.runs or options.blend or options.dry_run or options.push or options.fetch_wheels):
        parser.error("nothing to do: say --runs, --blend, --fetch-wheels, --dry-run or --push")
    if (options.runs or options.blend or options.dry_run or options.push) and not options.slug:
        parser.error("--runs, --blend, --dry-run and --push need --slug USER/NAME")
    if options.also and not options.fetch_wheels:
        parser.error("--also says what --fetch-wheels gets besides: add --fetch-wheels DIR")
    if options.wheels and options.fetch_wheels:
        parser.error("--fetch-wheels says which folder of wheels is used: leave --wheels out")
    return options


def print_build(folder: Path):
    """What lies in the data set, largest first, and how many folds of each run answer."""
    found = sizes(folder / "dataset")
    for name, size in list(found.items())[:12]:
        print(f"  {size / 1e6:8.2f} MB  {name}")
    folds = {entry["run"]: entry["folds"] for entry in read_json(folder / "dataset" / ABOUT)["networks"]}
    print("networks: " + ", ".join(f"{run} (folds: {n})" for run, n in folds.items()))
    print(f"-> {folder}: {plural(len(found), 'files')}, {sum(found.values()) / 1e6:.1f} MB")


def print_post(settings: BundleSettings, dataset: Path):
    """Which post-processing the kernel will use."""
    own = any((dataset / name).is_file() for name in (CHOSEN_POST, POST))
    used = (settings.post or settings.blend) if own else None
    print(say_used(settings.competition, get_competition(settings.competition).post is not None, used))


def write_report(folder: Path, results):
    """dry_run.json beside the folders."""
    scenes = [
        {"scene": r.name, "seconds": round(r.seconds, 1), "rows": r.rows, "problems": r.problems} for r in results
    ]
    write_text(folder / "dry_run.json", as_json(scenes, indent=1) + "\n")


if __name__ == "__main__":
    run_script(main)

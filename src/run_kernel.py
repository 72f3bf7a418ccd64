"""What a scoring kernel runs: graphs and recordings -> a submission, within the minutes there are.

python src/run_kernel.py --bundle kernels/mine/build/dataset --competition birdclef2026 \\
    --test-folder ~/birdclef-2026/test_soundscapes --minutes 80 --out submission.csv
python src/run_kernel.py --bundle kernels/mine/build/dataset --simulate 600x60s --cores 4     # how long would it take?

A valid submission is there within seconds, a whole one after the first network; every further network and hearing makes
it better until the time is up. <out>_report.json says what ran, what it took, and which recordings could not be read.
What fails after the first valid file ends with 0, and the file stays; --strict makes it an error.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from pathlib import Path

from earshot.script import run_script

from earshot.kernel.memory_limit import check_memory_limit

check_memory_limit()

from earshot.files import check_writable
from earshot.kernel.answers import frame_bytes, hearing_bytes
from earshot.kernel.bundle import Bundle, open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.manifest import identity_of
from earshot.kernel.memory_limit import peak_memory
from earshot.kernel.runner import BATCH_SECONDS, KernelRun, run_kernel
from earshot.kernel.speed import passes, simulate
from earshot.messages import Parser, few, logged_from, plural
from earshot.prediction.clip_answers import output_timebase
from earshot.prediction.free_cores import allowed_cores

MEMORY_GB = 30  # of Kaggle's CPU kernels


def main():
    started = time.monotonic()
    options = parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    with logged_from(logging.INFO, "earshot"):
        answer(options, started)


def answer(options: argparse.Namespace, started: float):
    """Write the submission and its report, or with --simulate predict the time. started: of this script, monotonic."""
    if options.simulate:
        bundle = open_bundle(options.bundle, options.competition).need_networks()
        print_simulation(bundle, options.simulate, options.cores)
        return
    check_writable(options.out)
    bundle = open_bundle(options.bundle, options.competition)
    said = bundle.about.get("image", {}).get("python", "")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"Python {here}" + (f", the bundle and its wheels were made for {said}" if said not in ("", here) else ""))
    test = find_test(options.competition, options.test_folder, bundle.classes, options.test)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run = KernelRun(
        competition=options.competition,
        test=test,
        networks=bundle.networks,
        post=bundle.post,
        out=options.out,
        cores=options.cores,
        blend=bundle.blend,
        runs=bundle.runs,
        started=started,
        known=(bundle.classes, bundle.prior),
        bundle=identity_of(bundle.folder),
    )
    run.failures += [{"what": name, "how": "cannot be opened", "error": reason} for name, reason in bundle.broken]
    try:
        report = run_kernel(run, options.minutes)
        print_report(report, options.out)
    except Exception as error:
        if not run.writes or options.strict:
            raise
        # what is there is valid: a kernel that ends with an error would lose it
        print(
            f"  FAILED: the run ended early: {type(error).__name__}: {error}; {options.out} is valid", file=sys.stderr
        )
        return
    if options.strict and report["failures"]:
        raise ValueError(f"{len(report['failures'])} failures, first: {report['failures'][0]}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="the data set that src/bundle.py made")
    add("--competition", help="a name of competitions.COMPETITIONS")
    add("--test-folder", type=Path, help="folder of recordings; may be empty or missing, as at commit time")
    add("--test", type=Path, help="test table or sample submission (default: the one beside the folder, if there is)")
    add("--minutes", type=float, default=60.0, help="from the start of this script, all told (default 60)")
    add("--out", type=Path, default=Path("submission.csv"))
    add("--cores", type=int, default=allowed_cores(), help="to use (default: all that there are)")
    add("--strict", action="store_true", help="end with an error where a network or recording failed to be heard")
    add("--simulate", type=recordings, metavar="600x60s", help="predict the time of so many recordings; runs nothing")
    options = parser.parse_args()
    if options.minutes <= 0 or options.cores < 1:
        parser.error("--minutes must be positive and --cores at least 1")
    if not options.simulate and not (options.competition and options.test_folder):
        parser.error("a run needs --competition and --test-folder")
    return options


def recordings(text: str) -> tuple[int, float]:
    """Read how many recordings of which length are asked for.

    '600x60s' -> (600, 60.0).
    """
    found = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)s?", text)
    if not found or not int(found[1]) or not float(found[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not NUMBERxSECONDS, such as 600x60s")
    return int(found[1]), float(found[2])


def print_simulation(bundle: Bundle, wanted: tuple[int, float], n_cores: int):
    n_files, seconds = wanted
    found = simulate(bundle.networks, n_files, seconds, n_cores)
    print(
        f"{plural(len(bundle.networks), 'networks')}, {plural(n_files, 'recordings')} of {seconds:g} s, speeds "
        "measured on this machine:"
    )
    if any(network.precision == "bf16" for network in bundle.networks):
        print("  (graphs for bf16 in float32, since the kernel's processor may not multiply in bf16)")
    for stage, value in found["stages"].items():
        print(f"  {stage:8s} {value:10.1f} CPU s")
    first = bundle.networks[0].members[0]
    if first.windowing.keep_frames:
        grid = output_timebase(first.backend.timebase, first.windowing.stride_samples)
        size = frame_bytes([seconds] * n_files, grid, len(bundle.classes), len(bundle.runs))
        print(f"  {'frames':8s} {size / 1e9:10.2f} GB of memory, every {grid.frame_seconds:.3g} s")
        members = max(sum(len(n.members) for n in some) for some, _ in passes(bundle.networks))
        together = max(1.0, min(n_files, BATCH_SECONDS * n_files / (60 * found["minutes"])))
        heard = hearing_bytes(together * seconds, seconds, grid, len(bundle.classes), members)
        peak = peak_memory() + size + heard
        more = f": MORE THAN THE {MEMORY_GB} GB of a kernel. Bundle fewer runs, or such of a longer hop or pool"
        print(f"  {'memory':8s} {peak / 1e9:10.2f} GB at most in all" + more * (peak > 1e9 * MEMORY_GB))
    print(f"  {found['minutes']:.1f} minutes with {n_cores} cores ({found['cpu_seconds'] / 60:.1f} CPU minutes)")


def print_report(report: dict, out: Path):
    print(f"{report['seconds']:.0f} s of {60 * report['minutes']:.0f}: {report['heard']} of {report['recordings']} "
          f"recordings heard, {plural(report['rows'], 'rows')} -> {out}")  # fmt: skip
    for done in report["passes"]:
        whole = "" if done["complete"] else f", cut after {done['batches']} of {done['planned']} batches"
        names = ", ".join(done["steps"])
        print(f"  {names}: {done['seconds']:.1f} s, {done['predicted_seconds']:.1f} predicted{whole}")
    print_calls(report["calls"])
    if took := report["rehearsal"]:
        print(f"  nothing to hear. A made recording of {took['recording_seconds']:g} s takes all networks "
              f"{took['seconds']:.2f} s here: {int(60 * report['minutes'] / took['seconds']):,} such recordings would "
              f"fit into {report['minutes']:g} minutes")  # fmt: skip
    print_blend(report["blend"])
    if report["left_out"]:
        print(f"  no time for: {', '.join(report['left_out'])}")
    if report["partly"]:
        print(f"  heard in part: {few(report['partly'])}")
    if report["no_time"]:
        print(f"  no time for {plural(len(report['no_time']), 'recordings')}: {few(report['no_time'])}")
    for clip, reason in list(report["unreadable"].items())[:20]:
        print(f"  unreadable: {clip}: {reason}")
    for failure in report["failures"]:
        print(f"  FAILED: {failure['what']} {failure['how']}: {failure['error']}")


def print_calls(calls: dict):
    """How the networks were called, and what that choice took."""
    said = f"  {calls['streams']} calls at a time, threads of each: {calls['threads']} ({calls['why']}"
    if measured := ", ".join(f"{way} {speed:.1f}/s" for way, speed in calls["windows_a_second"].items()):
        said += f"; threads x calls, windows: {measured}; measured in {calls['seconds']:.1f} s"
    print(said + ")")


def print_blend(blend: dict):
    """How much each run says; only where there are several."""
    if len(blend["runs"]) > 1:
        said = ", ".join(f"{run} {100 * v['share']:.0f} %" for run, v in blend["runs"].items())
        print(f"  {'arithmetic' if blend['mean'] == 'mean' else blend['mean']} mean of {said}")
        if any(abs(v["share"] - v["weight"]) > 0.005 for v in blend["runs"].values()):
            chosen = ", ".join(f"{100 * v['weight']:.0f}" for v in blend["runs"].values())
            print(f"  (chosen were {chosen} %: the weights are renormalised over what ran)")


if __name__ == "__main__":
    run_script(main, RuntimeError, MemoryError)

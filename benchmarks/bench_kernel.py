"""Kernels: how well their time is predicted, and what odd test folders do to them.

OMP_NUM_THREADS=1 python benchmarks/bench_kernel.py --files 60 --record     # about three minutes of CPU
OMP_NUM_THREADS=1 python benchmarks/bench_kernel.py --fuzz 1000 --record    # about five
OMP_NUM_THREADS=1 python benchmarks/bench_kernel.py --workers 20 --record   # four, on two idle cores

Time: a bundle of five folds of EfficientNet-B0 with attention (5-s windows at 32 kHz, 264 classes; random weights, the
same in each fold: a network's time does not depend on them). Speeds are measured on a made recording, as with
run_kernel.py --simulate; then the runner hears one-minute Ogg files cut from the embedded competition. Both are CPU
seconds of one core, which other work on the machine changes least.

Workers: the same bundle hears made one-minute recordings with one core and with two, in turn. What two cores take by
the clock is predicted from the run with one beside it by the runner's own model (speed.wall_of and the correction that
schedule.spend learns), then compared; start-up and writing are not counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np
import pandas as pd
from results import record

import fuzz_folders
import tiny_graphs
import tiny_wheels
from earshot.competitions import get_competition
from earshot.kaggle.bundling import BundleSettings, build
from earshot.kernel.bundle import open_bundle
from earshot.kernel.hidden_test import find_test
from earshot.kernel.runner import KernelRun, run_kernel
from earshot.kernel.speed import measure, simulate, synthetic_recording, wall_of
from earshot.sound import audio

FOLDS, N_CLASSES = 5, 264
FUZZ_MINUTES = 0.2  # for each folder
MEASURE_EVERY = 10  # folders: else the speed measured before holds


def fuzz(n: int) -> tuple[int, float]:
    """(folders of n that end in a valid submission without any failure on the way, share of healthy recordings heard).

    A seventh of the folders gets no time at all and does not count for the share.
    """
    valid, totals = 0, Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bundles = {
            c: open_bundle(tiny_graphs.write_bundle(root / f"bundle_{c}", c, fuzz_folders.classes_of(c)), c)
            for c in fuzz_folders.RULES
        }
        speed = measure(bundles["synth"].networks, synthetic_recording(root, 5.0))
        for seed in range(n):
            competition = list(fuzz_folders.RULES)[seed % len(fuzz_folders.RULES)]
            problem = one_folder(root / str(seed), bundles[competition], competition, seed, speed, totals)
            valid += not problem
            if problem:
                print(f"folder {seed} ({competition}): {problem}")
    print(", ".join(f"{count} {what}" for what, count in totals.items()))
    return valid, totals["healthy heard"] / max(totals["healthy"], 1)


def one_folder(folder: Path, bundle, competition: str, seed: int, speed, totals: Counter) -> str:
    """What went wrong with one folder; '' where nothing did. Counts what was in it."""
    try:
        out = folder / "submission.csv"
        healthy: set[Path] = set()
        made = fuzz_folders.make(folder / "input", competition, bundle.classes, seed, healthy)
        test = find_test(competition, made, bundle.classes)
        known = None if seed % MEASURE_EVERY == 0 else speed
        run = KernelRun(
            competition=competition,
            test=test,
            networks=bundle.networks,
            post=bundle.post,
            out=out,
            cores=2,
            speed=known,
        )
        hurried = seed % 7 == 3
        report = run_kernel(run, 1e-6 if hurried else FUZZ_MINUTES)
        fuzz_folders.check(get_competition(competition), test, bundle.classes, out)
        totals.update({"recordings": report["recordings"], "heard": report["heard"], "rows": report["rows"]})
        if not hurried:
            heard = run.answers.answered
            good = [clip.path in healthy for clip in test.clips]
            totals.update({"healthy": sum(good), "healthy heard": sum(g and h for g, h in zip(good, heard))})
        totals.update({"empty tests": test.empty, "odd things noted": len(test.notes)})
        failures = [one for one in report["failures"] if one["what"] != "the test" or not test.unheard]
        return f"failures: {failures[0]}" if failures else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


# ---- time


def make_run(root: Path, folds: int) -> Path:
    """A run folder with the exported graphs of an untrained EfficientNet-B0."""
    import onnx
    import torch

    from earshot import files, runs
    from earshot.config import from_dict
    from earshot.export.graph import ExportSettings, export_run
    from earshot.sound.timebase import TimeBase

    torch.set_num_threads(1)
    torch.manual_seed(0)
    front_end = {"n_fft": 1024, "hop_length": 500, "n_mels": 128, "fmin": 50, "fmax": 14000}
    config = from_dict({
        "data": {"sample_rate": 32000, "crop_seconds": 5}, "frontends": {"logmel": front_end},
        "model": {"name": "timm_sed", "params": {"backbone": "tf_efficientnet_b0", "pretrained": False}},
        "predict": {"window_seconds": 5, "stride_seconds": 5, "aggregate": "max", "keep_frames": True},
    })  # fmt: skip
    model = runs.make_model(config, N_CLASSES).eval()
    fold = runs.create_fold(root / "sed" / "b0" / "fold0", config, resume=False)
    classes, grid = [f"bird{i:03d}" for i in range(N_CLASSES)], TimeBase(32000, 500, model.pool)
    about = runs.describe_run(config, 0, classes, np.full(N_CLASSES, 0.01), grid) | {"finished": True}
    runs.save_weights(fold.folder / "best.safetensors", model, about)
    files.write_text(fold.folder / "run.json", json.dumps(about))
    (path,) = export_run(
        runs.load_run(fold.folder.parent), ExportSettings(check_oof=False, max_difference=0.02)
    )  # random weights amplify rounding
    graph = onnx.load(path)
    said = json.loads(next(p.value for p in graph.metadata_props if p.key == "earshot"))
    for k in range(1, folds):
        onnx.helper.set_model_props(graph, {"earshot": json.dumps(said | {"folds": [k]})})
        copy = fold.folder.with_name(f"fold{k}") / path.name
        copy.parent.mkdir()
        onnx.save(graph, copy)
    return fold.folder.parent


def make_recordings(folder: Path, n: int):
    """One-minute Ogg files at 32 kHz out of the embedded competition's training clips."""
    source = ROOT / "data" / "synth"
    clips = pd.read_csv(source / "clips.csv")
    download = Path(json.loads((source / "dataset.json").read_text())["source"])
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        sound = np.zeros(0, np.float32)
        while len(sound) < 60 * 32000:
            sound = np.append(sound, audio.load(download / rng.choice(clips.path), 32000))
        audio.write(folder / f"minute_{i}.ogg", sound[: 60 * 32000], 32000)


def predicted_and_measured(n: int) -> dict[str, float]:
    """Minutes predicted for 600 files on four cores, and how far the prediction is off the CPU time of `n` files."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        image = tiny_wheels.write_image(root / "image.txt", tiny_wheels.RUNTIMES)
        run = make_run(root / "runs", FOLDS)
        settings = BundleSettings(
            runs=(run,), competition="birdclef2026", slug="some-one/bench-kernel", image_packages=image
        )
        bundle = open_bundle(build(settings, root / "kernels") / "dataset")
        make_recordings(root / "input" / "test_soundscapes", n)
        large = simulate(bundle.networks, 600, 60.0, cores=4)
        small = simulate(bundle.networks, n, 60.0, cores=1)
        test = find_test("birdclef2026", root / "input" / "test_soundscapes", bundle.classes)
        run = KernelRun(
            competition="birdclef2026",
            test=test,
            networks=bundle.networks,
            post=bundle.post,
            out=root / "s.csv",
            cores=1,
            speed=small["speed"],
        )
        began = time.process_time()
        report = run_kernel(run, minutes=600)
        measured = time.process_time() - began
    assert report["heard"] == n, report
    for stage, seconds in large["stages"].items():
        print(f"  {stage:8s} {seconds:8.1f} CPU s for 600 files")
    print(f"{n} files: {small['cpu_seconds']:.1f} CPU s predicted, {measured:.1f} measured")
    return {"minutes": large["minutes"], "error": abs(small["cpu_seconds"] / measured - 1)}


def workers_predicted_and_measured(n: int, rounds: int) -> list[dict[str, float]]:
    """Of each round: seconds by the clock with one core, with two, and with two as one core's run predicts them."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        image = tiny_wheels.write_image(root / "image.txt", tiny_wheels.RUNTIMES)
        settings = BundleSettings(
            runs=(make_run(root / "runs", FOLDS),),
            competition="birdclef2026",
            slug="some-one/bench-kernel",
            image_packages=image,
        )
        bundle = open_bundle(build(settings, root / "kernels") / "dataset")
        folder = root / "input" / "test_soundscapes"
        folder.mkdir(parents=True)
        made = synthetic_recording(root, 60.0)
        for i in range(n):
            os.link(made, folder / f"minute_{i}.ogg")
        test = find_test("birdclef2026", folder, bundle.classes)
        hear(bundle, test, 1, root)  # what libraries set up at their first call
        found = []
        for number in range(rounds):
            simulated = simulate(bundle.networks, n, 60.0, cores=1)
            seconds = {}
            for cores in (1, 2) if number % 2 == 0 else (2, 1):
                seconds[cores] = hear(bundle, test, cores, root, simulated["speed"])
            correction = seconds[1] / wall_of(simulated["stages"], 1)
            predicted = correction * wall_of(simulated["stages"], 2)
            found.append({"one": seconds[1], "two": seconds[2], "predicted": predicted, "correction": correction})
            print(
                f"round {number}: one core {seconds[1]:.2f} s ({correction:.3f} of the simulation), two cores "
                f"{predicted:.2f} s predicted, {seconds[2]:.2f} s measured ({predicted / seconds[2] - 1:+.1%})",
                flush=True,
            )
    return found


def hear(bundle, test, cores: int, root: Path, speed=None) -> float:
    """Seconds by the clock that the passes of a kernel's run took."""
    run = KernelRun(
        competition="birdclef2026", test=test, networks=bundle.networks, post=bundle.post, out=root / "s.csv",
        cores=cores, speed=speed,
    )  # fmt: skip
    report = run_kernel(run, minutes=600)
    assert not report["failures"], report
    assert report["heard"] == len(test.clips), report
    return sum(one["seconds"] for one in report["passes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", type=int, metavar="N", help="make N odd test folders and answer them")
    parser.add_argument("--files", type=int, metavar="N", help="predict and measure N one-minute recordings")
    parser.add_argument("--workers", type=int, metavar="N", help="N recordings with one core and with two")
    parser.add_argument("--rounds", type=int, default=5, help="of --workers")
    parser.add_argument("--record", action="store_true", help="append the figures to results.json")
    options = parser.parse_args()
    logging.getLogger("earshot").setLevel(logging.ERROR)
    command = "OMP_NUM_THREADS=1 python benchmarks/bench_kernel.py"
    if options.files:
        found = predicted_and_measured(options.files)
        print(
            f"600 files on four cores: {found['minutes']:.1f} minutes; off by {100 * found['error']:.0f} % on real ones"
        )
        if options.record:
            command = f"{command} --files {options.files} --record"
            record("simulated_600_files_minutes", round(found["minutes"], 2), "min, 4 cores", command)
            unit = f"of the measured CPU time of {options.files} files"
            record("simulation_error", round(found["error"], 3), unit, command)
    if options.workers:
        found = workers_predicted_and_measured(options.workers, options.rounds)
        errors = [abs(one["predicted"] / one["two"] - 1) for one in found]
        speedup = float(np.median([one["one"] / one["two"] for one in found]))
        print(f"two cores: {speedup:.2f} times as fast as one")
        print(f"predictions are off by {np.median(errors):.1%} in the median, {max(errors):.1%} at most")
        if options.record:
            command = f"{command} --workers {options.workers} --record"
            unit = f"of the measured time of two cores, median of {len(found)} rounds"
            record("kernel_simulation_error", round(float(np.median(errors)), 4), unit, command)
            record("kernel_two_core_speedup", round(speedup, 3), "times one core", command)
    if options.fuzz:
        began = time.process_time()
        valid, heard = fuzz(options.fuzz)
        print(f"{valid} of {options.fuzz} folders valid, {100 * heard:.1f} % of healthy recordings heard, "
              f"{time.process_time() - began:.0f} CPU s")  # fmt: skip
        if options.record:
            command = f"{command} --fuzz {options.fuzz} --record"
            record("fuzzed_folders_valid", valid, f"of {options.fuzz} folders", command)
            unit = f"of healthy recordings, {60 * FUZZ_MINUTES:.0f} s a folder"
            record("fuzzed_healthy_heard", round(heard, 4), unit, command)


if __name__ == "__main__":
    main()

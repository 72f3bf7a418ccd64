"""Training on one GPU within eight minutes: clips a second against the published loop, waiting for data, ESC-50.

python benchmarks/bench_gpu.py --record               # one GPU, at most --minutes 8, from nothing but ESC-50's folder
python benchmarks/bench_gpu.py --device cpu --quick   # the same steps in small on a CPU: does it run? no figures
python benchmarks/bench_gpu.py --parts cnn14 equality # some of: cnn14 b0 equality esc50, in that order

cnn14 (10-s clips at 32 kHz) and b0 (5-s crops): `plain` is the loop of audioset_tagging_cnn as its paper describes it,
written anew: waveforms of 16 bits in one HDF5 file, a loader of workers, torchlibrosa on the GPU, SpecAugment and
mixup, float32 in contiguous memory, Adam. Ours is the product's loop, train_one_epoch, with bf16, channels_last and the
log-mel by torch.stft on the GPU, out of a packed store or a cache of log-mels, compiled or not. All hear the same made
clips with as many workers and the same batch. A measurement starts after some batches; the clock stops when the GPU is
done. What `next(loader)` takes is the share of time that the loop waits for data: each step ends with the loss on the
CPU, so that the GPU has nothing to do in the meantime.
equality: three steps of two processes (NCCL on two GPUs, else gloo on the CPU) against one of twice the batch.
esc50: Cnn14 from scratch on fold 0, as many epochs as fit into what is left of the time.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
import numpy as np
import torch
from gpu_ways import Watched, plain_loader, plain_steps
from results import machine, record

PARTS = ("cnn14", "b0", "equality", "esc50")
WAYS = {  # of ours: data.cache, compiled
    "packed": ("packed", False),
    "packed_compiled": ("packed", True),
    "logmel": ("logmel", False),
    "logmel_compiled": ("logmel", True),
}
PANNS = {"n_fft": 1024, "hop_length": 320, "n_mels": 64, "fmin": 50, "fmax": 14000}
BIRDS = {"n_fft": 1024, "hop_length": 500, "n_mels": 128, "fmin": 50, "fmax": 14000}
B0 = {"name": "timm_sed", "params": {"backbone": "tf_efficientnet_b0", "pretrained": False}}
NETWORKS = {"cnn14": ({"name": "cnn14"}, PANNS, 10, 64), "b0": (B0, BIRDS, 5, 64)}  # front end, seconds, batch
SMALL = {"name": "cnn14", "params": {"widths": [4, 4, 8, 8, 8, 8], "embedding": 16}}
RATE, CLASSES, FILES, ROWS = 32000, 50, 256, 16384
GOAL, WAIT_GOAL = 3, 0.02
LEAST_SECONDS = 40  # that training on ESC-50 needs to say anything


def main():
    options = parse_args()
    if options.one:
        equal_steps(Path(options.one), options.device)
        return
    began, figures = time.monotonic(), {}
    print(f"{device_name(options.device)}, {machine()}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as work:
        for part in options.parts:
            left = 60 * options.minutes - (time.monotonic() - began)
            if left < LEAST_SECONDS:
                print(f"{part}: left out, {left:.0f} s are left")
            elif part in NETWORKS:
                figures |= measure_network(part, Path(work), options, began)
            elif part == "equality":
                figures |= measure_equality(Path(work), options)
            else:
                figures |= train_esc50(Path(work), options, left)
    for name, (value, unit) in figures.items():
        print(f"{name} = {value:.4g} {unit}")
        if options.record:
            command = f"python benchmarks/bench_gpu.py --parts {' '.join(options.parts)} --record"
            record(name, float(f"{value:.5g}"), f"{unit}, {device_name(options.device)}", command)
    print(f"{time.monotonic() - began:.0f} s of {60 * options.minutes:g}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny networks, clips and times: to see that all runs")
    parser.add_argument("--minutes", type=float, default=8, help="for everything together (default 8)")
    parser.add_argument("--seconds", type=float, default=8, help="of training that are timed, a way (default 8)")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="of every loader")
    parser.add_argument("--esc50", type=Path, default=ROOT.parent / "shared" / "data" / "esc50", help="its download")
    parser.add_argument("--record", action="store_true", help="append the figures to results.json (a GPU's alone)")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a process of the equality: the folder of its answer
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: --device cpu --quick tries all steps in small")
    if options.record and (options.device == "cpu" or options.quick):
        parser.error("--record keeps figures of a GPU at full size: leave out --quick and --device cpu")
    if options.quick:
        options.seconds, options.workers = 0.2, min(options.workers, 1)
    return options


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


# clips a second


def measure_network(part: str, work: Path, options, began: float) -> dict:
    """Every way of training one network, one after the other, and one more plain at the end -> its figures."""
    data = make_data(work / part, part, options)
    ways = {"plain": None, **WAYS, "plain again": None}
    found, figures = {}, {}
    print(f"| {part} | clips/s | waits for data | peak memory, GB |\n|---|---|---|---|", flush=True)
    for name, how in ways.items():
        if 60 * options.minutes - (time.monotonic() - began) < 2 * options.seconds + 20:
            print(f"| {name} | left out for lack of time | | |")
            continue
        clear(options.device)
        watched = run_plain(part, data, options) if how is None else run_ours(part, data, options, *how)
        found[name] = watched
        memory = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else float("nan")
        row = f"| {name} | {watched.clips_per_second:.1f} | {watched.wait_share:.3f} | {memory:.2f} |"
        print(row, flush=True)
        if how is not None:
            figures[f"gpu_clips_per_second_{part}_{name}"] = (watched.clips_per_second, "clips/s")
            figures[f"gpu_wait_share_{part}_{name}"] = (watched.wait_share, f"of the time, goal {WAIT_GOAL}")
    plain = [found[name].clips_per_second for name, how in ways.items() if how is None and name in found]
    ours = [found[name].clips_per_second for name in WAYS if name in found]
    if plain and ours:
        figures[f"gpu_clips_per_second_{part}_plain"] = (float(np.mean(plain)), "clips/s, mean of first and last")
        unit = f"times the plain loop, the fastest way, goal {GOAL}"
        figures[f"gpu_speedup_{part}"] = (max(ours) / float(np.mean(plain)), unit)
    return figures


def clear(device: str):
    """Give back what the last way held, so that the next one's peak is its own."""
    gc.collect()
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def sizes(part: str, options) -> tuple[dict, dict, float, int]:
    """Network, front end, seconds a clip and batch of a part."""
    network, front_end, seconds, batch = NETWORKS[part]
    if options.quick:
        return SMALL if part == "cnn14" else network, front_end | {"n_mels": 64}, 1.0, 2
    return network, front_end, seconds, batch


def make_data(folder: Path, part: str, options) -> Path:
    """Clips of noise and tones as .wav, the same in one HDF5 file, and the tables: rows that share the recordings."""
    import h5py

    from earshot.sound import audio

    _, _, seconds, _ = sizes(part, options)
    files, rows = (8, 32) if options.quick else (FILES, ROWS)
    rng, n = np.random.default_rng(0), round(seconds * RATE)
    (folder / "audio").mkdir(parents=True)
    t = np.arange(n) / RATE
    with h5py.File(folder / "waveforms.h5", "w") as store:
        waveforms = store.create_dataset("waveform", (files, n), np.int16)
        for i in range(files):
            sound = 0.05 * rng.standard_normal(n) + 0.1 * np.sin(2 * np.pi * 200 * (i % CLASSES + 1) * t)
            audio.write(folder / "audio" / f"{i}.wav", sound.astype(np.float32), RATE)
            waveforms[i] = np.rint(np.clip(sound, -1, 1) * 32767)
    names = [f"bird{k}" for k in range(CLASSES)]
    clips = ["clip_id,path,labels,sample_rate,duration"]
    clips += [f"c{i},audio/{i % files}.wav,{names[i % files % CLASSES]},{RATE},{seconds}" for i in range(rows)]
    (folder / "clips.csv").write_text("\n".join(clips) + "\n")
    (folder / "classes.csv").write_text("\n".join(["label", *names]) + "\n")
    folds = ["clip_id,group,fold", *(f"c{i},c{i},{0 if i < 2 else -1}" for i in range(rows))]
    (folder / "folds.csv").write_text("\n".join(folds) + "\n")
    (folder / "dataset.json").write_text(json.dumps({"competition": "mine", "source": str(folder), "task": "tagging"}))
    return folder


def configured(part: str, data: Path, options, cache: str):
    """The config of ours: bf16, channels_last, mixup of log-mels and SpecAugment, as the plain loop has them."""
    from earshot.config import from_dict

    network, front_end, seconds, batch = sizes(part, options)
    return from_dict({
        "task": "tagging", "model": network, "frontends": {"logmel": front_end},
        "data": {"competition": "mine", "root": str(data), "folds": str(data / "folds.csv"), "sample_rate": RATE,
                 "crop_seconds": seconds, "pack_seconds": seconds, "cache": cache, "workers": options.workers},
        "augment": {"batch": {"mixup_on": "logmel", "mixup_alpha": 1.0, "mixup_per_clip": True},
                    "spec_augment": {"time_width": 64 if not options.quick else 8, "time_stripes": 2, "freq_width": 8,
                                     "freq_stripes": 2}},
        "optim": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "schedule": "constant", "epochs": 1000,
                  "batch_size": batch, "precision": "bf16", "channels_last": True},
        "predict": {"window_seconds": seconds, "stride_seconds": seconds},
    })  # fmt: skip


def run_ours(part: str, data: Path, options, cache: str, compiled: bool) -> Watched:
    """Train by the product's loop until the watch says that it is enough."""
    from accelerate import Accelerator

    import train
    from earshot.data.prepared import load_data
    from earshot.training import loading
    from earshot.training.setup import set_up

    config = configured(part, data, options, cache)
    prepared = load_data(config.data)
    rows, held_out = prepared.split(0, config.data.folds)
    accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision=config.optim.precision)
    t = set_up(config, 0, data / "run", rows, held_out, prepared.classes, accelerator, math.inf)
    if compiled:  # on a CPU in small without a compiler behind it
        backend = "inductor" if options.device == "cuda" else "eager"
        t.network.forward = torch.compile(t.network.forward, backend=backend)
    watched = Watched(options.device, options.seconds, config.optim.batch_size, warm=2 if options.quick else 20)
    loop_loader = train.epoch_loader
    train.epoch_loader = lambda *args: watched.watch(loading.epoch_loader(*args))
    try:
        while not watched.done:
            train.train_one_epoch(t)
            t.progress.epoch, t.progress.step = t.progress.epoch + 1, 0
    finally:
        train.epoch_loader = loop_loader
    accelerator.free_memory()
    return watched


def run_plain(part: str, data: Path, options) -> Watched:
    """Train by the published loop until the watch says that it is enough."""
    from earshot.config import from_dict
    from earshot.runs import make_model

    network, front_end, seconds, batch = sizes(part, options)
    config = from_dict({"task": "tagging", "model": network, "frontends": {"logmel": front_end},
                        "data": {"sample_rate": RATE, "crop_seconds": seconds}})  # fmt: skip
    model = make_model(config, CLASSES).to(options.device).train()
    watched = Watched(options.device, options.seconds, batch, warm=2 if options.quick else 20)
    rows = 32 if options.quick else ROWS
    loader = plain_loader(data / "waveforms.h5", CLASSES, rows, batch, options.workers, options.device)
    plain_steps(model, loader, watched, config.frontends["logmel"], options.device)
    return watched


# two processes


def measure_equality(work: Path, options) -> dict:
    """The largest difference of loss and weights after three steps: two processes against one of twice the batch."""
    from gpu_ways import largest_difference

    where = "cuda" if options.device == "cuda" and torch.cuda.device_count() > 1 else "cpu"
    answers = {}
    for processes in (1, 2):
        folder = work / f"equal{processes}"
        folder.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
                   __file__, "--one", str(folder), "--device", where]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError(f"{processes} processes failed: {done.stderr[-1500:]}")
        answers[processes] = np.load(folder / "answer.npz")
    loss, weights = largest_difference(answers[1], answers[2])
    kind = "NCCL on two GPUs" if where == "cuda" else "gloo on the CPU"
    print(f"two processes, {kind}: losses differ by {loss:.1e}, weights by {weights:.1e} from one process")
    return {"gpu_two_process_difference": (max(loss, weights), f"largest difference of loss and weights, {kind}")}


def equal_steps(folder: Path, device: str):
    """One process of the equality: its share of the batches, three steps."""
    from gpu_ways import steps_of_share

    steps_of_share(folder, device)


# ESC-50


def train_esc50(work: Path, options, left: float) -> dict:
    """Fold 0 of ESC-50 by the scripts that a user gives: as many epochs as the time allows -> its accuracy."""
    if not options.esc50.is_dir():
        print(f"esc50: left out, {options.esc50} is not there (--esc50 FOLDER)")
        return {}
    ends = time.monotonic() + left - 15
    python, data = sys.executable, work / "esc50"
    call([python, ROOT / "src/prepare.py", "esc50", "--source", options.esc50, "--out", data])
    call([python, ROOT / "src/make_folds.py", "--clips", data / "clips.csv", "--out", work / "esc50.csv"])
    network = SMALL if options.quick else {"name": "cnn14"}
    values = {
        "task": "tagging", "watch": "accuracy", "model": network, "frontends": {"logmel": PANNS | {"top_db": 80}},
        "data": {"competition": "esc50", "root": str(data), "folds": str(work / "esc50.csv"), "sample_rate": RATE,
                 "crop_seconds": 5.0, "crop": "full", "cache": "none" if options.quick else "logmel",
                 "workers": options.workers, "clips_per_class": 1 if options.quick else 0},
        "augment": {"batch": {"mixup_on": "logmel", "mixup_per_clip": True, "mixup_alpha": 0.5,
                              "logmel": [{"name": "roll", "p": 1.0}]},
                    "spec_augment": {"time_width": 50, "time_stripes": 2, "freq_width": 8, "freq_stripes": 1}},
        "loss": {"name": "bce"},
        "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "batch_size": 32, "precision": "bf16",
                  "channels_last": True, "warmup_epochs": 0.0, "select": "last", "epochs": 1, "validate_every": 1000},
    }  # fmt: skip
    config = work / "esc50.yaml"
    train = [python, ROOT / "src/train.py", "--config", config, "--fold", "0", "--root", work / "runs"]
    config.write_text(json.dumps(values))
    began = time.monotonic()
    call([*train, "--name", "probe", f"optim.epochs={1 if options.quick else 3}"])  # it also fills the cache
    rows = np.genfromtxt(work / "runs/tagging/probe/fold0/log.csv", delimiter=",", names=True)
    epoch_seconds = np.atleast_1d(rows["seconds"])
    once, each = time.monotonic() - began - epoch_seconds.sum(), max(epoch_seconds[-1], 0.05)
    epochs = 1 if options.quick else int(np.clip(0.9 * (ends - time.monotonic() - once) / each, 1, 300))
    call([*train, "--name", "whole", f"optim.epochs={epochs}", f"optim.warmup_epochs={epochs // 20}",
          "--max-minutes", f"{max(0.5, (ends - time.monotonic()) / 60):.2f}"])  # fmt: skip
    about = json.loads((work / "runs/tagging/whole/fold0/run.json").read_text())
    print(f"esc50: {epochs} epochs of about {each:.2f} s, accuracy {about['scores']['accuracy']:.4f}")
    unit = f"accuracy of fold 0, {epochs} epochs from scratch"
    return {"gpu_esc50_cnn14_accuracy": (about["scores"]["accuracy"], unit)}


def call(command: list):
    """Run a script of the product; what it says is shown where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr[-1500:]}")


if __name__ == "__main__":
    main()

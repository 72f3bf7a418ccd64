"""A training step on the CPU against the plain way, and the loader alone: clips a second from what the disk holds.

python benchmarks/bench_training.py --record            # all parts; OMP_NUM_THREADS says how many threads compute (1)
python benchmarks/bench_training.py b0 cnn_small        # the steps alone; --rounds N, --batch N
python benchmarks/bench_training.py loader              # the loader alone, with no worker and with two

The plain way, as notebooks and the published PANNs code have it: no workers, librosa.load of the whole file, a random
crop, torchlibrosa inside the step, float32 in contiguous memory, AdamW as torch makes it. Ours is the product's loop as
the config says (configs/sed/synth_b0.yaml, synth_cnn.yaml): log-mels cached once, channels_last, its loader, loss,
optimiser and seeding: whole epochs of train_one_epoch. Both train the same network from the same weights on the same
clips, an epoch each in turn in this one process; the figure is the ratio of the medians of process CPU seconds. The
clips are invented: sweeps over noise, ten seconds each, ogg at 32 kHz, heard at the config's 16 kHz.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
import numpy as np
from results import machine, record

CONFIGS = {"b0": "synth_b0", "cnn_small": "synth_cnn"}
PARTS = (*CONFIGS, "loader")
CLASSES = [f"bird{i}" for i in range(10)]
RATE, SECONDS = 32000, 10
WARM = 4  # batches of the loader before its time counts
REPEATS = 100  # of each clip in the loader's table
STORES = {  # what a training example is read from: ending of the files, data.cache
    "ogg": (".ogg", "none"),
    "flac": (".flac", "none"),
    "packed": (".ogg", "packed"),
    "logmel": (".ogg", "logmel"),
}
GOAL = 2


def main():
    options = parse_args()
    said = "" if options.precision == "no" else f" --precision {options.precision}"
    said += f" --workers {' '.join(map(str, options.workers))}" if "loader" in options.parts else ""
    command = f"python benchmarks/bench_training.py {' '.join(options.parts)}{said} --record"
    print(f"{machine()}, {os.environ['OMP_NUM_THREADS']} threads", flush=True)
    figures = {}
    with tempfile.TemporaryDirectory() as work:
        make_data(Path(work), options.clips)
        for part in options.parts:
            if part == "loader":
                figures |= measure_loader(Path(work), options)
            else:
                figures |= measure_step(part, Path(work), options)
    for name, (value, unit) in figures.items():
        unit = f"{unit}, {machine().split(',')[0]}"
        print(f"{name} = {value:.3f} {unit}")
        if options.record:
            record(name, round(value, 4), unit, command)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each way, in turns (default 5)")
    parser.add_argument("--batch", type=int, default=8, help="clips a step (default 8, as the configs have)")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no", help="of ours: float32, or bf16 autocast")
    parser.add_argument("--clips", type=int, default=64, help="clips that are made (default 64)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of reading by each loader (default 6)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the loaders (default 0 2)")
    parser.add_argument("--record", action="store_true", help="append the figures to results.json")
    options = parser.parse_args()
    if wrong := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {', '.join(wrong)}: choose from {', '.join(PARTS)}")
    if options.clips < 4 * options.batch:
        parser.error(f"--clips must be at least {4 * options.batch}: half of them train, in at least two batches")
    return options


def make_data(folder: Path, n: int):
    """`n` clips as ogg and as flac, and the tables of both."""
    from earshot.sound import audio

    rng, t = np.random.default_rng(0), np.arange(RATE) / RATE
    for ending in (".ogg", ".flac"):
        (folder / ending[1:] / "audio").mkdir(parents=True)
    rows = []
    for i in range(n):
        sound = 0.01 * rng.standard_normal(SECONDS * RATE)
        for second in range(0, SECONDS, 2):
            pitch, sweep = 1000 + 400 * (i % len(CLASSES)), rng.uniform(-300, 300)
            sound[second * RATE : (second + 1) * RATE] += 0.2 * np.sin(2 * np.pi * (pitch + sweep * t) * t)
        for ending in (".ogg", ".flac"):
            audio.write(folder / ending[1:] / "audio" / f"c{i:03d}{ending}", sound.astype(np.float32), RATE)
        rows.append((f"c{i:03d}", CLASSES[i % len(CLASSES)], i % 2))
    # the loader's table: each clip often, under names of its own, so that reading lasts as long as it is measured
    often = [(f"{c}_{i}", c, label, fold) for i in range(REPEATS) for c, label, fold in rows]
    tables = {"steps": [(c, c, label, fold) for c, label, fold in rows], "loader": often}
    for root in (folder / ending / table for ending in ("ogg", "flac") for table in tables):
        some, ending = tables[root.name], root.parent.name
        root.mkdir()
        clips = [f"{c},audio/{file}.{ending},{label},{RATE},{SECONDS}" for c, file, label, _ in some]
        write_lines(root / "clips.csv", "clip_id,path,labels,sample_rate,duration", clips)
        write_lines(root / "classes.csv", "label", CLASSES)
        folds = [f"{c},{c},{0 if fold else -1}" for c, _, _, fold in some]
        write_lines(root / "folds.csv", "clip_id,group,fold", folds)
        about = {"competition": "mine", "source": str(root.parent), "task": "sed"}
        (root / "dataset.json").write_text(json.dumps(about))


def write_lines(path: Path, header: str, lines: list[str]):
    path.write_text("\n".join([header, *lines]) + "\n")


def training_of(part: str, folder: Path, store: str, table: str, precision: str = "no", **data):
    """A `Training` of a config on a table of the made clips, read as `store` says; every second clip trains."""
    from accelerate import Accelerator

    from earshot.config import load_config
    from earshot.data.prepared import load_data
    from earshot.training.setup import set_up

    ending, cache = STORES[store]
    root = folder / ending[1:] / table
    config = load_config(ROOT / "configs" / "sed" / f"{CONFIGS[part]}.yaml")
    own = replace(config.data, competition="mine", root=str(root), folds=str(root / "folds.csv"), cache=cache, **data)
    config = replace(config, data=own)
    prepared, accelerator = load_data(config.data), Accelerator(cpu=True, mixed_precision=precision)
    train, held_out = prepared.split(0, config.data.folds)
    return set_up(config, 0, folder / "run", train, held_out, prepared.classes, accelerator, math.inf)


# a step


class Plain:
    """librosa.load, a random crop, torchlibrosa, float32, contiguous, AdamW: no workers, no cache."""

    def __init__(self, ours, prepared, batch: int):
        import torch
        from torchlibrosa.stft import LogmelFilterBank, Spectrogram

        p, self.config, self.prepared, self.size = ours.config.frontends["logmel"], ours.config, prepared, batch
        self.spectrogram = Spectrogram(p.n_fft, p.hop_length, p.n_fft)
        self.mel = LogmelFilterBank(p.sample_rate, p.n_fft, p.n_mels, p.fmin, p.fmax, top_db=None)
        self.model = plain_model(ours, len(prepared.classes))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=1e-2)
        self.rng = np.random.default_rng(0)

    def epoch(self) -> dict[str, float]:
        """CPU seconds of an epoch by what they went into."""
        order = self.rng.permutation(len(self.prepared.clips))
        parts = [self.step(order[i : i + self.size]) for i in range(0, len(order) - self.size + 1, self.size)]
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    def step(self, chosen: np.ndarray) -> dict[str, float]:
        import librosa
        import torch

        from earshot import losses

        began = time.process_time()
        n_crop, rate = round(self.config.data.crop_seconds * self.config.data.sample_rate), self.config.data.sample_rate
        crops = []
        for i in chosen:
            waveform, _ = librosa.load(str(self.prepared.source / self.prepared.clips.path[i]), sr=rate)
            start = int(self.rng.integers(len(waveform) - n_crop + 1))
            crops.append(waveform[start : start + n_crop])
        target = torch.from_numpy(self.prepared.target[chosen].astype(np.float32))
        read = time.process_time()
        logmel = self.mel(self.spectrogram(torch.from_numpy(np.stack(crops))))
        heard = time.process_time()
        loss_of = losses.build_loss(**vars(self.config.loss))
        loss = loss_of(self.model(logmel=logmel), {"target": target, "mask": torch.ones_like(target)})
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()
        return {"reading": read - began, "log-mel": heard - read, "network": time.process_time() - heard}


def plain_model(ours, n_classes: int):
    """The same weights in contiguous memory, in training mode, in a network made anew.

    A copy of ours would have its autocast and its way to compute gradients.
    """
    import torch

    from earshot import runs

    network = runs.make_model(ours.config, n_classes)
    network.load_state_dict(ours.network.state_dict())
    network.spec_augment = ours.network.spec_augment
    return network.to(memory_format=torch.contiguous_format).train()


class Ours:
    """Epochs of the loop of train.py."""

    def __init__(self, training):
        self.t = training

    def epoch(self) -> dict[str, float]:
        """CPU seconds of an epoch, of which the reading is measured by reading the same batches once more."""
        import train
        from earshot.training.loading import epoch_loader

        began = time.process_time()
        train.train_one_epoch(self.t)
        whole = time.process_time() - began
        began = time.process_time()
        for _ in epoch_loader(self.t, self.t.progress.epoch):
            pass
        reading = time.process_time() - began
        self.t.progress.epoch, self.t.progress.step = self.t.progress.epoch + 1, 0
        return {"reading": reading, "log-mel": 0.0, "network": whole - reading}


def measure_step(part: str, work: Path, options) -> dict:
    """Both ways in turns -> the ratio of their medians."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    began = time.process_time()
    training = training_of(part, work, "logmel", "steps", options.precision)
    training.config = replace(training.config, optim=replace(training.config.optim, batch_size=options.batch))
    building = time.process_time() - began
    ways = {"plain": Plain(training, training.clips.prepared, options.batch), "ours": Ours(training)}
    parts: dict[str, list[dict]] = {name: [] for name in ways}
    for number in range(1 + options.rounds):
        for name, way in ways.items():
            found = way.epoch()
            if number:  # the first one loads what is loaded once
                parts[name].append(found)
    steps = len(training.clips) // options.batch
    print(
        f"{part}: {options.rounds} epochs of {steps} steps of {options.batch} clips; set-up and cache {building:.1f} s"
    )
    print("| way | CPU s a step | reading | log-mel | network, loss, optimiser |\n|---|---|---|---|---|")
    medians = {}
    for name, some in parts.items():
        medians[name] = float(np.median([sum(p.values()) for p in some])) / steps
        cells = [f"{np.median([p[key] for p in some]) / steps:.4f}" for key in ("reading", "log-mel", "network")]
        print(f"| {name} | {medians[name]:.4f} | {' | '.join(cells)} |", flush=True)
    computed = "bf16 autocast" if options.precision == "bf16" else "float32"
    unit = f"times the plain way (float32), ours in {computed}, batch {options.batch}, goal {GOAL}"
    name = f"train_step_speedup_{part}" + "_bf16" * (options.precision == "bf16")
    return {name: (medians["plain"] / medians["ours"], unit)}


# the loader


def measure_loader(work: Path, options) -> dict:
    """Clips a second of the small network's loader, by what it reads; caches are built before."""
    figures = {}
    for workers in options.workers:
        suffix = f"_{workers}" if workers else ""
        for store in STORES:
            loaded, seconds = read_for(training_of("cnn_small", work, store, "loader", workers=workers), options)
            what = "this process" if workers == 0 else f"{workers} workers"
            figures[f"loader_clips_per_second_{store}{suffix}"] = (loaded / seconds, f"clips/s, 5-s crops, {what}")
    return figures


def read_for(training, options) -> tuple[int, float]:
    """(clips, seconds) of reading batches for about the time asked for, after the first ones, which start workers.

    Without workers the seconds are of CPU, which other work on the machine does not touch; with them of the clock.
    """
    from earshot.training.loading import epoch_loader

    now, loaded = time.monotonic if training.config.data.workers else time.process_time, 0
    batches = iter(epoch_loader(training, 0))
    for _ in range(WARM):
        next(batches)
    began = now()
    for batch in batches:
        loaded += len(batch["clip_id"])
        if now() - began > options.seconds:
            break
    return loaded, now() - began


if __name__ == "__main__":
    main()

"""The folders that commands start from before they are killed: a tiny competition, and what each script made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from conftest import write_tiny
from tiny_wheels import RUNTIMES, write_image

PLAN = """
tasks: {sed: [map]}
systems: [synth_cnn]
seeds: [1, 2]
augmentations: [synth_cnn]
overrides:
  all:
    - data.root=data
    - data.folds=folds.csv
    - data.competition=birdcall
    - data.sample_rate=8000
    - data.crop_seconds=1.0
    - "frontends.logmel={n_fft: 256, hop_length: 80, n_mels: 16, fmin: 50, fmax: 4000}"
    - "model.params={widths: [8, 8], blocks: [1, 1], time_strides: [2, 2], freq_strides: [2, 2], embedding: 16}"
    - "predict={window_seconds: 1.0, stride_seconds: 1.0, aggregate: max, keep_frames: true}"
    - "optim={epochs: 2, batch_size: 4, warmup_epochs: 0, validate_every: 1, checkpoint_steps: 1}"
    - watch=map
"""


def make_world(world: Path, run: Callable[[str, Path], int]) -> Path:
    """Folders in `world`, each the one before and one step more; `run(command, folder)` runs a script there."""
    world.mkdir(parents=True)

    def step(name: str, before: str, *commands: str) -> Path:
        folder = world / name
        shutil.copytree(world / before, folder)
        for command in commands:
            if code := run(command, folder):
                log = world / f"{name}.log"
                raise SystemExit(f"{command} ended with {code}: {log.read_text()[-2000:]}")
        return folder

    _data(world / "data")
    _download(world / "download")
    step("trained", "data", "train --config tiny.yaml --fold all --name all optim.epochs=1")
    step("predicted", "trained", "predict --run runs/sed/all --clips data/test_clips.csv")
    step("blended", "predicted", "ensemble --runs runs/sed/all --out runs/e.npz")
    exported = step("exported", "trained", "export --run runs/sed/all --format onnx")
    write_image(exported / "image.txt", RUNTIMES)
    bundled = step(
        "bundled", "exported",
        "bundle --runs runs/sed/all --competition birdclef2026 --slug me/my-kernel --image-packages image.txt "
        "--root kernels",
    )  # fmt: skip
    _hidden(bundled / "hidden")
    (step("plan", "data") / "tiny_plan.yaml").write_text(PLAN)
    compared = step("compared", "plan")
    for seed in (1, 2):
        fold = compared / "runs" / "sed" / f"tiny_plan-synth_cnn-seed{seed}" / "fold0"
        shutil.copytree(world / "trained" / "runs" / "sed" / "all" / "fold0", fold)
        about = json.loads((fold / "run.json").read_text())
        (fold / "run.json").write_text(json.dumps(about))
    return world


def _data(folder: Path):
    """Twelve clips of three tones in three folds, one of them damaged; the sources stay where they are."""
    config = write_tiny(folder, n_clips=12, folds=3)
    config.write_text(config.read_text().replace(str(folder), ".").replace("epochs: 3", "epochs: 2"))
    damaged = folder / "source" / "c3.wav"
    damaged.write_bytes(b"RIFF nonsense")
    source = folder.with_name("source")
    (folder / "source").rename(source)
    about = json.loads((folder / "data" / "dataset.json").read_text())
    (folder / "data" / "dataset.json").write_text(json.dumps(about | {"source": str(source)}))


def _download(folder: Path):
    """Ten clips as ESC-50 has them."""
    rng, rows = np.random.default_rng(0), []
    (folder / "download" / "audio").mkdir(parents=True)
    (folder / "download" / "meta").mkdir()
    for i in range(10):
        name = f"{1 + i % 5}-{i}-A-{i % 2}.wav"
        soundfile.write(folder / "download" / "audio" / name, 0.1 * rng.standard_normal(8000), 8000)
        rows.append((name, 1 + i % 5, i % 2, ("dog", "rain")[i % 2], False, i, "A"))
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "download" / "meta" / "esc50.csv", index=False)


def _hidden(folder: Path):
    """Three recordings of a hidden test."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for i in range(3):
        soundfile.write(folder / f"rec{i}.wav", 0.1 * rng.standard_normal(8000 * 10), 8000)

"""Peak memory and clips/s of training and prediction on three data sets, and of a 10-minute soundscape with B0.

python benchmarks/bench_memory.py      # each measurement in a process of its own, one thread

Data sets that are not prepared (see README) are named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
NAME = "bench-memory"  # of the run that is made and removed again
CONFIGS = ("configs/sed/synth_cnn.yaml", "configs/tagging/esc10_cnn.yaml", "configs/sed/finch_vocal.yaml")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=("train", "predict", "soundscape"), help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.chdir(ROOT)
    if options.one:
        print(json.dumps(MEASURES[options.one](options)))
        return
    print("| what | clips/s | peak memory, MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for config in CONFIGS:
            for what in ("train", "predict"):
                report(f"{Path(config).stem}: {what}", ["--one", what, "--config", config, "--work", work])
        report("10-min soundscape, B0, eager", ["--one", "soundscape", "--work", work])


def report(title: str, arguments: list[str]):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"| {title} | not measured: {done.stderr.strip().splitlines()[-1]} | |", flush=True)
        return
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"| {title} | {result['clips_per_second']:.1f} | {result['peak_mb']:.0f} |", flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_train(options) -> dict:
    """Two epochs of fold 0: speed from the trainer's own log of the second one (caches are filled)."""
    import pandas as pd

    import train
    from earshot.config import load_config

    folder = Path("runs") / load_config(options.config).task / NAME
    shutil.rmtree(folder, ignore_errors=True)
    sys.argv = ["train.py", "--config", options.config, "--fold", "0", "--name", NAME, "optim.epochs=2",
                "optim.warmup_epochs=0", "optim.validate_every=1"]  # fmt: skip
    with contextlib.redirect_stdout(sys.stderr):
        train.main()
    log = pd.read_csv(folder / "fold0" / "log.csv")
    return {"clips_per_second": float(log.clips_per_second.iloc[-1]), "peak_mb": peak_mb()}


def measure_predict(options) -> dict:
    """The fold just trained, on its training clips."""
    from earshot import runs
    from earshot.config import load_config
    from earshot.data.prepared import load_data
    from earshot.prediction.backends import TorchBackend
    from earshot.prediction.inference import predict_clips

    config = load_config(options.config)
    folder = Path("runs") / config.task / NAME
    fold = runs.load_run(folder).folds[0]
    clips = load_data(config.data).recordings()[:200]
    model = runs.load_model(fold)
    backend = TorchBackend(model, config.inputs(model.inputs))
    started = time.monotonic()
    predict_clips([backend], clips, config.predict, fold.about["classes"], fold.about["prior"])
    seconds = time.monotonic() - started
    shutil.rmtree(folder)
    return {"clips_per_second": len(clips) / seconds, "peak_mb": peak_mb()}


def measure_soundscape(options) -> dict:
    """EfficientNet-B0 SED, eager, 5-s windows over ten minutes at 32 kHz; one clip."""
    import numpy as np

    from earshot.models import build_model
    from earshot.prediction.backends import TorchBackend
    from earshot.prediction.inference import predict_clips
    from earshot.prediction.predictions import Clip
    from earshot.sound import audio
    from earshot.sound.logmel import LogmelParams
    from earshot.sound.windows import Windowing

    path = Path(options.work) / "soundscape.ogg"
    noise = np.random.default_rng(0).standard_normal(600 * 32000).astype(np.float32)
    audio.write(path, 0.05 * noise, 32000)
    del noise
    params = {"backbone": "tf_efficientnet_b0", "pretrained": False, "in_chans": 1}
    model = build_model("timm_sed", 264, 128, params).eval()
    front_ends = {"logmel": LogmelParams(sample_rate=32000, n_fft=1024, hop_length=320, n_mels=128)}
    windowing = Windowing(sample_rate=32000, window_seconds=5.0, stride_seconds=5.0, batch_size=8, keep_frames=True)
    started = time.monotonic()
    predict_clips(
        [TorchBackend(model, front_ends)], [Clip("x", path)], windowing, [str(i) for i in range(264)], np.zeros(264)
    )
    return {"clips_per_second": 1 / (time.monotonic() - started), "peak_mb": peak_mb()}


MEASURES = {"train": measure_train, "predict": measure_predict, "soundscape": measure_soundscape}


if __name__ == "__main__":
    main()

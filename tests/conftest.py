"""Shared fixtures: the hypothesis profile, a tiny competition on disk, the folder of real audio (skipped if absent)."""

import gc
import json
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads would be chosen by what else runs here, and bits with them

# examples of each property; make test-slow tries more of them
EXAMPLES = int(os.environ.get("EARSHOT_EXAMPLES", "25"))
settings.register_profile("earshot", deadline=None, derandomize=True, max_examples=EXAMPLES)
settings.load_profile("earshot")

ROOT = Path(__file__).resolve().parents[1]

# No test waits until its files are on the disk: what a power cut leaves is of no test.
os.fsync = lambda file: None
soundfile.SoundFile.flush = lambda file: None  # closing it writes what is left

gc.set_threshold(20_000, 20, 50)  # hundreds of thousands of objects of imported libraries are walked less often


def pytest_collection_finish():
    """What was imported and collected stays to the end: no collection of garbage looks at it again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def log_left_as_it_was():
    """No test leaves the log of this process quieter: what later tests look for in it would not be there."""
    loggers = [logging.getLogger(name) for name in ("", "earshot")]
    before = [logger.level for logger in loggers]
    yield
    after = [logger.level for logger in loggers]
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
    assert after == before, f"levels of the root and of earshot's log were {before} and are now {after}"
    assert not logging.root.manager.disable
    silenced = [logger.name for logger in loggers if logger.disabled]
    assert not silenced, f"loggers were disabled: {silenced}"


@pytest.fixture(autouse=True)
def fresh_warnings():
    """What is said once a process is said in each test, whatever earlier ones heard."""
    from earshot.sound import decoding

    decoding.warn_once.cache_clear()


@pytest.fixture(scope="module")
def image_with_runtimes(tmp_path_factory):
    """An image that has the runtimes of graphs, so that bundles need no wheels."""
    import tiny_wheels
    from earshot.kaggle import image

    kept = tiny_wheels.write_image(tmp_path_factory.mktemp("image") / "image.txt", tiny_wheels.RUNTIMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "KEPT", kept)
        yield kept


# a network of a few weights on the heart sounds' layout
HEART_CONFIG = """
task: asd
seed: 3
data: {competition: heart_asd, root: data, folds: folds.csv, sample_rate: 2000, crop_seconds: 0.5}
frontends:
  logmel: {n_fft: 128, hop_length: 64, n_mels: 16, fmin: 20, fmax: 1000}
model:
  name: cnn_small
  params: {widths: [8], blocks: [1], time_strides: [2], freq_strides: [2], embedding: 8, activation: softmax}
loss: {name: cross_entropy}
optim: {epochs: 2, batch_size: 4, lr: 1.0e-2, select: last}
predict: {clip_from: log_odds}
"""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings: EARSHOT_SHARED, or shared/data beside the checkout; the test skips without it."""
    folder = Path(os.environ.get("EARSHOT_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real audio at {folder} (set EARSHOT_SHARED)")
    return folder


TINY_CLASSES = ("low", "mid", "high")
TINY_CONFIG = """
task: sed
seed: 3
data: {competition: birdcall, root: ROOT/data, folds: ROOT/folds.csv, sample_rate: 8000, crop_seconds: 1.0}
frontends:
  logmel: {n_fft: 256, hop_length: 80, n_mels: 16, fmin: 50, fmax: 4000}
model:
  name: cnn_small
  params: {widths: [8, 8], blocks: [1, 1], time_strides: [2, 2], freq_strides: [2, 2], embedding: 16}
augment:
  spec_augment: {time_width: 8, time_stripes: 1, freq_width: 2, freq_stripes: 1}
  batch:
    mixup_on: logmel
    mixup_p: 0.5
loss: {name: bce_clip_frame}
optim: {epochs: 3, batch_size: 4, lr: 1.0e-2, ema_decay: 0.9}
predict: {window_seconds: 1.0, stride_seconds: 1.0, aggregate: max, keep_frames: true}
"""


def write_tiny(root: Path, n_clips: int = 24, folds: int = 3) -> Path:
    """A tone a class in noise, 1-2 s at 8 kHz: clips, events, folds, three test recordings; returns the config."""
    rng = np.random.default_rng(0)
    source, data = root / "source", root / "data"
    for folder in (source, data):
        folder.mkdir(parents=True)
    pitch = dict(zip(TINY_CLASSES, (300, 1000, 3000), strict=True))

    def sound(label, seconds):
        t = np.arange(int(8000 * seconds)) / 8000
        return (0.3 * np.sin(2 * np.pi * pitch[label] * t) + 0.02 * rng.standard_normal(len(t))).astype(np.float32)

    clips, events = [], []
    for i in range(n_clips):
        label, seconds = TINY_CLASSES[i % 3], 1 + (i % 5) / 4
        soundfile.write(source / f"c{i}.wav", sound(label, seconds), 8000)
        clips.append((f"c{i}", f"c{i}.wav", label))
        events.append((f"c{i}", 0.0, seconds, label))
    tests = []
    for i, label in enumerate(TINY_CLASSES):
        soundfile.write(source / f"t{i}.wav", np.concatenate([sound(label, 5), np.zeros(8000 * 5, np.float32)]), 8000)
        tests.append((f"t{i}", f"t{i}.wav"))
    table = pd.DataFrame(clips, columns=["clip_id", "path", "labels"])
    table.to_csv(data / "clips.csv", index=False)
    table.assign(group=table.clip_id, fold=np.arange(n_clips) // 3 % folds)[["clip_id", "group", "fold"]].to_csv(
        root / "folds.csv", index=False
    )
    pd.DataFrame(events, columns=["filename", "onset", "offset", "event_label"]).to_csv(
        data / "events.csv", index=False
    )
    pd.DataFrame({"label": TINY_CLASSES}).to_csv(data / "classes.csv", index=False)
    pd.DataFrame(tests, columns=["clip_id", "path"]).to_csv(data / "test_clips.csv", index=False)
    rows = [("site_1", f"site_1_t{i}_{s}", s, f"t{i}") for i in range(3) for s in (5, 10)]
    pd.DataFrame(rows, columns=["site", "row_id", "seconds", "audio_id"]).to_csv(data / "test.csv", index=False)
    (data / "dataset.json").write_text(json.dumps({"competition": "birdcall", "source": str(source), "task": "sed"}))
    (root / "tiny.yaml").write_text(TINY_CONFIG.replace("ROOT", str(root)))
    return root / "tiny.yaml"


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """Config of the tiny competition; the working directory is its folder."""
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folder of the tiny competition with one trained fold."""
    import train
    from scripts import run

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(train, "--config", write_tiny(folder), "--fold", "0", "optim.epochs=1")
    return folder


@pytest.fixture
def said(caplog):
    """What Earshot says meanwhile, from warnings on."""
    caplog.set_level(logging.WARNING, "earshot")
    return caplog

"""Real tables of competitions, in the folder `layouts` of the shared data, and what each must become.

`make_download` copies a folder's tables and makes the recordings that they name; the chain is what a user types.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("EARSHOT_SHARED", ROOT.parent / "shared" / "data")) / "layouts"

CONFIG = """
seed: 3
data: {{competition: {competition}, root: {data}, folds: {folds}, sample_rate: 8000, crop_seconds: 1.0, workers: 0}}
frontends:
  logmel: {{n_fft: 256, hop_length: 400, n_mels: 16, fmin: 50, fmax: 4000}}
model:
  name: cnn_small
  params: {{widths: [4], blocks: [1], time_strides: [2], freq_strides: [2], embedding: 8, activation: {activation}}}
optim: {{epochs: 1, batch_size: 8, lr: 1.0e-2, select: last}}
"""
PREDICT = {  # task: its loss, network's output and windows
    "sed": ("bce", "sigmoid", "{window_seconds: 5.0, stride_seconds: 5.0, aggregate: max, keep_frames: true}"),
    "tagging": ("bce", "sigmoid", "{window_seconds: 5.0, stride_seconds: 5.0, aggregate: mean}"),
    # not cross-entropy: two of the cut splits train on one scene alone
    "scenes": ("bce", "sigmoid", "{window_seconds: 5.0, stride_seconds: 5.0, aggregate: mean}"),
    "asd": ("cross_entropy", "softmax", "{clip_from: log_odds}"),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What becomes of one folder. clips, classes: so many; folds: {fold: clips}; test: rows of the test table, of the
    hidden recordings where `hidden` says how many are made; missing: recordings that nobody has.

    inside: the folder to prepare; options: of prepare.py; k: of make_folds.py; perfect: score of the truth.
    """

    competition: str
    clips: int
    classes: int
    folds: dict[int, int]
    test: int
    test_clips: int | None = None  # None: the OOF answers
    missing: int = 0
    events: int | None = None
    hidden: int = 0
    inside: str = ""
    options: tuple[str, ...] = ()
    k: int = 5
    task: str = "sed"
    perfect: dict[str, float] | None = None


def _even(*counts: int) -> dict[int, int]:
    return dict(enumerate(counts))


DEVELOPMENT = "TAU-urban-acoustic-scenes-{}-development"
LAYOUTS = {
    "audioset": Layout(
        competition="audioset", clips=64, classes=527, folds={-1: 36, 0: 28}, test=28, missing=6, task="tagging"
    ),
    "audioset_redistributed": Layout(
        competition="audioset_balanced", clips=59, classes=527, folds={-1: 30, 0: 29}, test=29, missing=5,
        task="tagging",
    ),
    "birdcall": Layout(
        competition="birdcall", clips=21, classes=5, folds=_even(5, 4, 4, 4, 4), test=3, test_clips=1, hidden=1
    ),
    "birdclef2021": Layout(
        competition="birdclef2021", clips=33, classes=11, folds=_even(7, 7, 6, 7, 6), events=23, test=3, test_clips=1,
        hidden=2,
    ),
    "birdclef2022": Layout(
        competition="birdclef2022", clips=63, classes=33, folds=_even(13, 13, 12, 13, 12), test=3, test_clips=1,
        hidden=2,
    ),
    "birdclef2023": Layout(
        competition="birdclef2023", clips=40, classes=264, folds=_even(8, 8, 8, 8, 8), test=120, test_clips=1, hidden=1
    ),
    "birdclef2024": Layout(
        competition="birdclef2024", clips=4, classes=1, folds=_even(2, 2), k=2, test=48, test_clips=1, hidden=1
    ),
    "birdclef2025": Layout(
        competition="birdclef2025", clips=53, classes=206, folds=_even(11, 11, 11, 10, 10), test=24, test_clips=2,
        hidden=2,
    ),
    "birdclef2026": Layout(
        competition="birdclef2026", clips=24, classes=234, folds=_even(5, 5, 5, 5, 4), events=23, test=12,
        test_clips=1, hidden=1,
    ),
    "dcase2018_task2": Layout(
        competition="dcase2018_task2", clips=82, classes=41, folds=_even(17, 17, 16, 16, 16), test=27, test_clips=27,
        task="tagging",
    ),
    "dcase2018_task2_archive": Layout(
        competition="dcase2018_task2", clips=82, classes=41, folds=_even(17, 17, 16, 16, 16), test=14, test_clips=14,
        task="tagging", perfect={"map@3": 1.0},
    ),
    "dcase2020_task2": Layout(
        competition="dcase2020_task2", clips=13, classes=2, folds={-1: 7, 0: 6}, test=2, test_clips=2, task="asd"
    ),
    "dcase2021_task2": Layout(
        competition="dcase2021_task2", clips=20, classes=2, folds={-1: 8, 0: 12}, test=4, test_clips=4, task="asd"
    ),
    "dcase2023_task2": Layout(
        competition="dcase2023_task2", clips=57, classes=4, folds={-1: 32, 0: 25}, test=14, test_clips=14, task="asd"
    ),
    "dcase2024_task2": Layout(
        competition="dcase2024_task2", clips=19, classes=3, folds={-1: 13, 0: 6}, test=8, test_clips=8, task="asd"
    ),
    "dcase_task4": Layout(
        competition="dcase_task4", clips=45, classes=10, folds={-1: 30, 0: 15}, events=33, test=14, test_clips=14,
        perfect={"event_f1_macro": 1.0, "event_f1": 1.0},
    ),
    "freesound2019": Layout(
        competition="freesound2019", clips=80, classes=80, folds=_even(16, 16, 16, 16, 16), test=10, test_clips=10,
        task="tagging",
    ),
    "freesound2019_archive": Layout(
        competition="freesound2019", clips=95, classes=80, folds={-1: 15} | _even(16, 16, 16, 16, 16), test=16,
        test_clips=16, task="tagging", options=("--set", "noisy=true"), perfect={"lwlrap": 1.0},
    ),
    "rfcx": Layout(
        competition="rfcx", clips=46, classes=24, folds=_even(10, 9, 9, 9, 9), events=76, test=12, test_clips=12,
    ),
    "tau2019": Layout(
        competition="tau2019", inside=DEVELOPMENT.format("2019"), clips=6, classes=4, folds={-1: 3, 0: 3}, test=5,
        test_clips=5, task="scenes", options=("--set", "evaluation={}/TAU-urban-acoustic-scenes-2019-evaluation"),
    ),
    "tau2020": Layout(
        competition="tau2020", inside=DEVELOPMENT.format("2020-mobile"), clips=37, classes=2, folds={-1: 23, 0: 14},
        test=14, task="scenes",
    ),
    "tau2022": Layout(
        competition="tau2022", inside=DEVELOPMENT.format("2022-mobile"), clips=6, classes=1, folds={-1: 3, 0: 3},
        test=3, task="scenes",
    ),
}  # fmt: skip


def folders() -> list[str]:
    """The competitions whose tables are there."""
    names = sorted(p.name for p in FOLDER.iterdir() if p.is_dir()) if FOLDER.is_dir() else []
    return [name for name in names if name != "__pycache__"]  # of an import of its make_audio.py


def make_download(name: str, out: Path, hidden: int = 0, quick: bool = False) -> Path:
    """Tables and recordings of a folder under `out`. quick: one recording a format and length, copied to all names."""
    spec = importlib.util.spec_from_file_location("make_audio", FOLDER / "make_audio.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    if quick:
        maker.noise = _copies(maker.noise)
    maker.make(name, out, hidden)
    for path in out.rglob("*"):  # the shared tables are read-only
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def _copies(noise):
    made: dict[tuple, bytes] = {}

    def quick(path: Path, rate: int, seconds: float = 6.0, channels: int = 1):
        key = (path.suffix, seconds, channels)
        if key not in made:
            with tempfile.TemporaryDirectory() as folder:
                noise(Path(folder) / path.name, min(rate, 8000), seconds, channels)
                made[key] = (Path(folder) / path.name).read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[key])

    return quick


def prepare_arguments(name: str, download: Path, out: Path) -> list[str]:
    layout = LAYOUTS[name]
    options = [o.format(download) for o in layout.options]
    return [layout.competition, "--source", str(download / layout.inside), "--out", str(out), *options]


def fold_arguments(name: str, data: Path, out: Path) -> list[str]:
    layout = LAYOUTS[name]
    return ["--clips", str(data / "clips.csv"), "--out", str(out), "--k", str(layout.k)]


def write_config(name: str, data: Path, folds: Path, path: Path) -> Path:
    """The config of a tiny network for one folder."""
    layout = LAYOUTS[name]
    loss, activation, windows = PREDICT[layout.task]
    text = CONFIG.format(competition=layout.competition, data=data, folds=folds, activation=activation)
    path.write_text(f"task: {layout.task}\n{text}loss: {{name: {loss}}}\npredict: {windows}\n")
    return path


def check_tables(name: str, data: Path, folds: Path):
    """Clips, classes, folds, events, missing recordings and the test are those of the folder's description."""
    from earshot.data.labels import read_classes
    from earshot.tables import read_table

    layout = LAYOUTS[name]

    def rows(table: str) -> int | None:
        return len(read_table(data / table)) if (data / table).is_file() else None

    assert rows("clips.csv") == layout.clips
    assert len(read_classes(data / "classes.csv")) == layout.classes
    assert read_table(folds).fold.value_counts().sort_index().to_dict() == layout.folds
    assert rows("events.csv") == layout.events
    assert (rows("missing.csv") or 0) == layout.missing
    assert (rows("test.csv"), rows("test_clips.csv")) == (layout.test, layout.test_clips)


def check_submission(name: str, download: Path, submission: pd.DataFrame):
    """A submission has the rows and columns of the real sample; where recordings are longer, also the rows behind."""
    path = download / "sample_submission.csv"
    assert len(submission) >= LAYOUTS[name].test
    if not path.is_file():
        return
    sample = pd.read_csv(path, dtype=str)
    assert submission.columns.tolist() == [c.replace(" ", "_") for c in sample.columns]
    ids = submission.iloc[:, 0].astype(str)
    assert set(sample.iloc[:, 0]) <= set(ids)
    if len(ids) == len(sample):
        assert ids.tolist() == sample.iloc[:, 0].tolist()


def made_predictions(clips: pd.DataFrame, classes, task: str):
    """Random predictions of clips as long as they are (10 s where nobody knows), frames of 0.1 s."""
    from earshot.prediction.predictions import Predictions
    from earshot.sound.timebase import TimeBase

    rng, grid = np.random.default_rng(0), TimeBase(16000, 1600)
    seconds = pd.to_numeric(clips.duration).fillna(10.0)
    frames = tuple(rng.random((max(1, round(10 * s)), len(classes)), np.float32) for s in seconds)
    clipwise = np.stack([f.mean(axis=0) for f in frames])
    score = {"score": rng.random(len(clips))} if task == "asd" else {}
    n = len(clips)
    return Predictions(
        clips.clip_id.to_numpy(),
        tuple(classes),
        clipwise,
        np.full(n, -1),
        np.zeros(n, bool),
        framewise_output=frames,
        timebase=grid,
        **score,
    )


ONE_CLASS = ("tau2022", "birdclef2024")  # all training rows of the pack's extract are of one scene, one species


def run_chain(name: str, folder: Path) -> str:
    """Prepare, folds, one epoch of a tiny network, predict, submit and check, as typed; the check's last line."""
    import make_folds
    import predict
    import prepare
    import submit
    import train
    from earshot.competitions import get_competition
    from earshot.tables import read_table
    from scripts import run

    layout = LAYOUTS[name]
    source = make_download(name, folder / "download", layout.hidden)
    data, folds = folder / "data", folder / "folds.csv"
    run(prepare, *prepare_arguments(name, source, data))
    run(make_folds, *fold_arguments(name, data, folds))
    check_tables(name, data, folds)
    config = write_config(name, data, folds, folder / "tiny.yaml")
    fold = "0" if layout.test_clips is not None else "all"  # the OOF answers where there is no test
    training = (train, "--config", config, "--fold", fold, "--name", "tiny")
    if name in ONE_CLASS:
        with pytest.raises(ValueError, match="nothing to tell apart|not among the scores"):
            run(*training)
        return "refused: the rows at hand train one class"
    run(*training)
    npz = Path("runs") / layout.task / "tiny" / "oof.npz"
    if layout.test_clips is not None:
        run(predict, "--run", npz.parent, "--clips", data / "test_clips.csv")
        npz = npz.with_name("test.npz")
    out = folder / ("submission.tsv" if layout.competition == "dcase_task4" else "submission.csv")
    arguments = ("--competition", layout.competition, "--test", data / "test.csv")
    run(submit, *arguments, "--predictions", npz, "--out", out)
    run(submit, *arguments, "--check", out)
    submission = read_table(out)
    check_submission(name, source, submission)
    if (data / "truth.csv").is_file():
        truth = read_table(data / "truth.csv")
        assert all(v >= 0 or np.isnan(v) for v in get_competition(layout.competition).score(submission, truth).values())
    shutil.rmtree(source)
    return f"{len(submission)} rows"

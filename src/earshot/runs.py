"""The run folder: `runs/<task>/<config stem>/fold<k>/`, what is in it, and how it is read back
(contract 8 of ARCHITECTURE.md).

    config.yaml        the resolved config
    origin.json        run, fold and digests of its tables, from before the first step (prediction/origin.py)
    run.json           what the run is: classes, prior, front ends, time grid, fold, scores, commit, library versions
    log.csv            one line an epoch
    best.safetensors   the weights that predict (run.json and origin are repeated in the file's metadata)
    last.ckpt          everything --resume needs; removed by nobody
    oof.npz test.npz   predictions
    classes.csv        a row a class: clips trained on, average precision, AUC, d-prime on the held-out clips
    unreadable.csv     clips that could not be read, with the reason
A fold folder that exists is only entered by --resume; loading is strict and a mismatch is shown as a difference.
Weights, last.ckpt and predictions carry their origin too, so that one of another run, fold or training is refused.
torch is imported by the functions that need it only: finding a run and its exported graphs must not.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open

from earshot.config import Config, from_run
from earshot.config.difference import config_difference
from earshot.data.labels import check_classes
from earshot.files import check_name, fold_folders, run_meant, whole_file, write_text
from earshot.messages import FILES_SHOWN, command_line, few, from_here, suggest
from earshot.prediction.origin import Origin, check_same, read_origin, say_unchecked, weights_digest, weights_origin
from earshot.prediction.predictions import Predictions, read_origins
from earshot.records import to_dict
from earshot.sound.timebase import TimeBase
from earshot.stored import parse_json, read_json, read_yaml, want

if TYPE_CHECKING:
    import torch

LIBRARIES = (
    *("torch", "timm", "torchlibrosa", "transformers", "accelerate"),
    *("numpy", "scipy", "scikit-learn", "soundfile", "soxr"),
)


@dataclass(frozen=True)
class FoldRun:
    """One trained fold on disk."""

    folder: Path

    @property
    def fold(self) -> int:
        return int(self.folder.name.removeprefix("fold"))

    @property
    def config(self) -> Config:
        path = self.folder / "config.yaml"
        values = read_yaml(path)
        try:
            return from_run(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def about(self) -> dict:
        """run.json: classes, prior, time grid, scores, versions."""
        path = self.folder / "run.json"
        if not path.exists():
            command = train_command(self.folder, self.fold)
            raise ValueError(f"{path} does not exist: the fold's training was not finished; --resume it: {command}")
        return read_json(path, "description", "it does not describe a run: --resume the fold's training")

    @property
    def finished(self) -> bool:
        return (self.folder / "run.json").is_file() and bool(self.about.get("finished"))

    def oof(self) -> Predictions:
        path = self.folder / "oof.npz"
        if not path.is_file():
            raise ValueError(f"{path} does not exist: repair it with {train_command(self.folder, self.fold)}")
        return Predictions.load(path)

    @property
    def weights(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def origin(self) -> Origin | None:
        """What the folder says it is, else what its weights say; None for a run of an older version."""
        return read_origin(self.folder) or weights_origin(self.weights)

    def check(self, settled: bool = True):
        """Raise where the folder is another fold's, or its weights or OOF are not of this fold and of each other.

        settled: no training is under way, which writes an OOF before its weights.
        """
        origin, weights = self.origin, weights_origin(self.weights)
        if origin is None:
            say_unchecked(str(self.folder))
            return
        here = replace(origin, fold=self.fold)
        check_same(self.folder, origin, f"its name, fold{self.fold}", here, "put each fold's folder back in its place")
        remedy = "put its own weights back, or remove the folder and train the fold again"
        check_same(self.weights, weights, self.folder, origin, remedy)
        oof = self.folder / "oof.npz"
        found = read_origins(oof) if oof.is_file() else None
        remedy = f"put its own OOF back, or remove {oof} and repair it: {train_command(self.folder, self.fold)}"
        for one in found or ():
            check_same(oof, one, self.folder, origin, remedy)
            check_same(oof, one, self.weights, weights if settled else None, remedy)
        for path, known in ((self.weights, weights), (oof, found)):
            if path.is_file() and not known:
                say_unchecked(str(path))


@dataclass(frozen=True)
class Run:
    """A run: its folder and its fold folders, in order."""

    folder: Path
    folds: tuple[FoldRun, ...]

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def config(self) -> Config:
        return self.folds[0].config

    @property
    def classes(self) -> tuple[str, ...]:
        """What it answers, in its order."""
        return tuple(self.folds[0].about["classes"])

    @property
    def origins(self) -> list[Origin] | None:
        """Its folds, each with the weights that predict; None where one of them does not know (an older version)."""
        found = [weights_origin(fold.weights) for fold in self.folds]
        return None if None in found else found


def run_folder(config: Config, config_path: Path | None, name: str = "", root: Path = Path("runs")) -> Path:
    """Where a run lives: runs/<task>/<name, else the config's stem, else 'default'."""
    stem = name or (config_path.stem if config_path else "default")
    check_name(config.task, "task")
    check_name(stem, "--name" if name or config_path is None else f"the name of {config_path}, which its run has,")
    return root / config.task / stem


def load_run(folder: str | Path) -> Run:
    """Folder of a run -> Run; a missing folder or one without trained folds is an error that names what is there."""
    folder = Path(folder)
    check_is_there(folder)
    folds = [fold for fold in map(FoldRun, fold_folders(folder)) if fold.weights.is_file()]
    if not folds:
        raise ValueError(
            f"{folder} holds no trained fold (fold<k>/best.safetensors); train it first: {train_command(folder)}"
        )
    run = Run(folder, tuple(folds))
    _check_alike(run)
    for fold in folds:
        fold.check()
    return run


def check_is_there(folder: Path):
    """Raise where a run's folder is none, with the run that is probably meant, or what is near."""
    if meant := run_meant(folder) if not fold_folders(folder) else "":
        raise ValueError(f"{folder}{meant}")
    if not folder.is_dir():
        near = sorted(str(p) for p in folder.parent.glob("*") if p.is_dir()) if folder.parent.is_dir() else []
        known = suggest(str(folder), near, most=FILES_SHOWN) if near else from_here(folder)
        raise ValueError(f"run {folder} does not exist{known}")


def short_names(folders: list[Path]) -> list[str]:
    """The folders' own names, with their task where two are called the same; the same run twice is an error."""
    names = [f.resolve().name for f in folders]
    if len(set(names)) < len(names):
        names = [f"{f.resolve().parent.name}/{f.resolve().name}" for f in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"--runs names a run twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    return names


def _check_alike(run: Run):
    """All folds of a run must share one config and one class list; the first difference is shown."""
    for fold in run.folds:
        check_about(fold.about, fold.folder / "run.json")
    first, classes = to_dict(run.config), run.folds[0].about["classes"]
    for fold in run.folds[1:]:
        check_sibling(fold.folder, fold.origin, run.folds[0])
        if difference := config_difference(first, to_dict(fold.config)):
            raise ValueError(f"{fold.folder} was trained with another config than {run.folds[0].folder}: {difference}")
        if fold.about["classes"] != classes:
            raise ValueError(f"{fold.folder} was trained on another class list than {run.folds[0].folder}")


def check_about(about: dict, path: Path):
    """Raise unless run.json names classes with a prior each, which everything that reads a run needs."""
    remedy = "it does not describe a run: --resume the fold's training"
    want(about, {"classes": list, "prior": list}, str(path), remedy)
    check_classes(about["classes"], f"{path}: classes,")
    prior = about["prior"]
    if len(prior) != len(about["classes"]) or not all(type(p) in (int, float) and 0 <= p <= 1 for p in prior):
        raise ValueError(f"{path} has no prior from 0 to 1 for each of its {len(about['classes'])} classes; {remedy}")


def check_sibling(folder: Path, origin: Origin | None, other: FoldRun):
    """Raise where a fold is of another run than one beside it, or was trained on other tables."""
    theirs = other.origin
    if origin is not None and theirs is not None:
        remedy = "folds of one run share its tables: put them back, or train all folds anew under another --name"
        check_same(folder, origin, other.folder, replace(theirs, fold=origin.fold, weights=origin.weights), remedy)


def train_command(folder: Path, *folds: int) -> str:
    """The command that trains, or goes on with, folds of a run (or of the run of this fold's folder); none: all."""
    folder = folder.parent if fold_folders(folder.parent) and folder in fold_folders(folder.parent) else folder
    folder = folder if folder.name else folder.absolute()
    begun = sorted(folder.glob("fold*/config.yaml"))
    own = Path("configs") / folder.parent.name / f"{folder.name}.yaml"
    config = begun[0] if begun else own if own.is_file() else "CONFIG.yaml"
    words = ["--config", config, "--fold", *(folds or ["all"])] + ["--name", folder.name] * (config != own)
    root = os.path.relpath(folder / "../..")  # of <root>/<task>/<name>
    words += ["--resume"] * bool(begun) + ["--root", root] * (root != "runs")
    return command_line("train", *words)


def check_fold(folder: Path, config: Config, resume: bool):
    """Error for a fold folder with results and no --resume, or with another config; nothing is written."""
    run = FoldRun(folder)
    if any((folder / name).exists() for name in ("last.ckpt", "best.safetensors", "run.json")):
        if not resume:
            raise ValueError(
                f"{folder} exists already and is never overwritten: continue it with --resume, "
                "train beside it with --name NEW, or remove the folder yourself"
            )
        difference = config_difference(to_dict(run.config), to_dict(config))
        if difference:
            raise ValueError(
                f"cannot resume {folder}: its config differs from yours (run != now): {difference}; give the run's own "
                "settings again, or train beside it with --name NEW"
            )


def create_fold(folder: Path, config: Config, resume: bool) -> FoldRun:
    """Make or re-enter a fold folder that passes `check_fold`."""
    check_fold(folder, config, resume)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
    return FoldRun(folder)


def describe_run(config: Config, fold: int, classes: list[str], prior: np.ndarray, timebase: TimeBase) -> dict:
    """The self-description that run.json and the weights carry."""
    return {
        "fold": fold,
        "task": config.task,
        "competition": config.data.competition,
        "classes": list(classes),
        "prior": [float(p) for p in prior],
        "sample_rate": config.data.sample_rate,
        "channels": config.data.channels,
        "frontends": {k: to_dict(v) for k, v in config.frontends.items()},
        "window_seconds": config.predict.window_seconds,
        "stride_seconds": config.predict.stride_seconds,
        "timebase": [timebase.sample_rate, timebase.hop_length, timebase.pool],
        "commit": git_commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def save_weights(path: Path, model: torch.nn.Module, about: dict):
    """State dict -> safetensors with the run's description as metadata, atomically."""
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    with whole_file(path, on_disk=True) as partial:
        partial.touch()
        rights = partial.stat().st_mode
        save_file(state, partial, metadata={"earshot": json.dumps(about)})
        partial.chmod(rights)  # those of every other file: safetensors would let nobody else read it


def load_model(fold: FoldRun) -> torch.nn.Module:
    """The trained network of a fold, in eval mode; any difference to its description is an error that shows it."""
    from safetensors.torch import load_file

    path, config, about = fold.weights, fold.config, fold.about
    try:
        with safe_open(path, framework="pt") as file:
            description = (file.metadata() or {}).get("earshot", "{}")
        state = load_file(path)
    except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable weights file: {error}; train the fold again") from error
    stored = parse_json(description, f"the description in {path}", "train the fold again")
    for key in ("classes", "sample_rate", "frontends", "task"):
        if stored.get(key) != about.get(key):
            raise ValueError(f"{path} was saved with {key} = {stored.get(key)!r} but run.json says {about.get(key)!r}")
    try:
        model = make_model(config, len(about["classes"]), weights_follow=True, kept=about.get("architecture"))
    except ValueError as error:
        raise ValueError(f"{fold.folder / 'config.yaml'}: {error}") from error
    fold.check()
    told = weights_origin(path)
    if told is not None and told.weights != weights_digest(state):
        raise ValueError(f"{path} holds other tensors than it says: it was changed after training ({told})")
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of other shapes
        found = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(f"{path} does not fit model '{config.model.name}' of its config: {few(found, 2)}") from error
    if missing or unexpected:
        raise ValueError(
            f"{path} does not fit model '{config.model.name}': missing {few(missing)}, unexpected {few(unexpected)}"
        )
    if odd := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"{path} holds weights that are NaN or infinite ({few(odd)}); train the fold again")
    return model.eval()


def make_model(
    config: Config, n_classes: int, weights_follow: bool = False, kept: dict | None = None
) -> torch.nn.Module:
    """The network that a config names, untrained. kept: `architecture` of the run.json of a run that is opened."""
    from earshot.models import build_model

    n_mels = next((record.bands for record in config.frontends.values() if record.bands), 0)
    heard = config.inputs(tuple(dict.fromkeys((*config.frontends, "waveform", "metadata"))))
    params = config.model.params
    return build_model(
        config.model.name, n_classes, n_mels, params, weights_follow=weights_follow, heard=heard, kept=kept
    )


def save_checkpoint(path: Path, state: dict):
    """Everything --resume needs, atomically. Holds tensors and plain values only."""
    import torch

    with whole_file(path, on_disk=True) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict:
    """What `save_checkpoint` wrote (never pickled classes)."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be resumed from: {error}; remove the fold's folder to start again") from error


def git_commit() -> str:
    """The checkout's commit, '+' behind it when files were changed (recorded figures apart); '' outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        figures = ":(top,exclude)benchmarks/results.json"  # written by what is measured here
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", figures)
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""

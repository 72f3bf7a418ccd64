"""Pseudo-labels: windows of recordings without labels, with what trained networks say of them, for each fold its own.

A folder that src/pseudo_label.py writes: `fold<k>.npz`, the windows that may train fold k's network, and
`manifest.json`, who answered for which fold. Fold-isolated means: the networks that answered for fold k held that
fold's clips out themselves, on the same fold table, and no window is of a recording that fold k holds out. Readers
check both, every time.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from earshot.data.digests import recording_name
from earshot.data.names import NOBODY, clean_names
from earshot.messages import command_line, few, plural
from earshot.prediction.origin import Origin, TableDigests, short
from earshot.records import build_from
from earshot.stored import read_arrays, read_json, want

FILE = "manifest.json"
ISOLATED = "isolated"
# what two tables call a recording or its source alike: windows and held-out clips may not share a value
SHARED = ("group", "content_hash", "recording", "recording_id", "src_file", "source_label", "freesound_id", "xc_id",
          "url")  # fmt: skip
KINDS = {"clip_ids": "U", "paths": "U", "starts": "f", "target": "f", "confidence": "f", "keys": "U"}
CLIP = "clip "  # how the key of a clip itself begins
LONGEST = 1e7  # seconds: no recording is as long
TYPES = {
    "mode": str, "classes": list, "window_seconds": (int, float), "source": str, "folds_table": str, "tables": dict,
    "teachers": dict, "masses": dict, "settings": dict, "lineage": list, "commit": str,
    "frame_seconds": (int, float),
}  # fmt: skip
REMEDY = "make it again with src/pseudo_label.py"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Who answered for each fold, on which tables, and what the windows are."""

    mode: str
    classes: tuple[str, ...]
    window_seconds: float
    source: str  # paths of windows are relative to it
    folds_table: str  # for people: the file that the teachers' folds came from
    tables: TableDigests  # that the teachers were trained on
    teachers: dict[str, list[Origin]]  # fold: the trained folds that answered for it
    masses: dict[str, list[float]]  # fold: mass of its pseudo-labels, and of the labels that train beside them
    settings: dict = field(default_factory=dict)
    lineage: list = field(default_factory=list)  # what the teachers themselves were trained on besides labels
    commit: str = ""
    frame_seconds: float = 0.0  # between frames of the windows that say when what is heard; 0: they have none

    @property
    def folds(self) -> list[int]:
        return sorted(int(fold) for fold in self.teachers)

    @property
    def runs(self) -> list[str]:
        """Names of the runs that answered."""
        return list(dict.fromkeys(origin.run for origins in self.teachers.values() for origin in origins))


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """N windows that may train one fold: where each lies and (N, K) what its teachers say of it."""

    clip_ids: np.ndarray  # (N,) of the recordings
    paths: np.ndarray  # (N,) below the manifest's source
    starts: np.ndarray  # (N,) seconds
    target: np.ndarray  # (N, K) float16, 0 to 1
    confidence: np.ndarray  # (N,) the highest probability before any transform
    keys: np.ndarray  # (N,) what tells the recording, see `recording_keys`, joined by line ends
    frames: np.ndarray | None = None  # (N, T, K) float16, 0 to 1, NaN: unsure; a frame every `frame_seconds`

    def __post_init__(self):
        n = len(self.clip_ids)
        if self.frames is not None:
            self._check_frames(n)
        for name, kind in KINDS.items():
            array, dimensions = getattr(self, name), 2 if name == "target" else 1
            if array.ndim != dimensions or len(array) != n or (array.size and array.dtype.kind != kind):
                raise ValueError(f"{name} is of {array.dtype} and shape {array.shape}, for {plural(n, 'windows')}")
        if self.target.size and not (self.target.min() >= 0 and self.target.max() <= 1):
            raise ValueError(f"targets must lie in 0 to 1, got {self.target.min()} to {self.target.max()}")
        if n and not (self.starts.min() >= 0 and self.starts.max() < LONGEST):
            raise ValueError(f"starts must be seconds from 0 on, below {LONGEST:g}")

    def _check_frames(self, n: int):
        shape, classes = self.frames.shape, self.target.shape[-1]
        fits = len(shape) == 3 and shape[0] == n and shape[2] == classes and (shape[1] or not n)
        if not fits or self.frames.dtype.kind != "f":
            raise ValueError(
                f"frames are of {self.frames.dtype} and shape {shape}, for {plural(n, 'windows')}, "
                f"{plural(classes, 'classes')}"
            )
        low, high = np.fmin.reduce(self.frames, None, initial=1), np.fmax.reduce(self.frames, None, initial=0)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"frames must lie in 0 to 1 or be NaN, got {low} to {high}")

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of them holds, by name."""
        found = {name: getattr(self, name) for name in KINDS}
        return found if self.frames is None else found | {"frames": self.frames}

    @property
    def mass(self) -> float:
        """Sum of all targets: how many labels they weigh."""
        return float(self.target.sum(dtype=np.float64))

    def aligned_frames(self, own: Sequence[str], classes: Sequence[str]) -> np.ndarray | None:
        """Frames (N, T, K) for a class list, 0 where the teachers (`own`) do not have a class; None without frames."""
        if self.frames is None:
            return None
        column = {name: i for i, name in enumerate(own)}
        found = np.zeros((*self.frames.shape[:2], len(classes)), np.float16)
        known = np.array([name in column for name in classes])
        found[..., known] = self.frames[..., [column[name] for name in classes if name in column]]
        return found

    def aligned(self, own: Sequence[str], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Targets and masks, (N, K) each, for a class list; a class that the teachers (`own`) do not have is masked."""
        column = {name: i for i, name in enumerate(own)}
        target = np.zeros((len(self), len(classes)), np.float16)
        known = np.array([name in column for name in classes])
        target[:, known] = self.target[:, [column[name] for name in classes if name in column]]
        return target, np.repeat(known[None].astype(np.uint8), len(self), axis=0)


def fold_file(folder: str | Path, fold: int) -> Path:
    return Path(folder) / f"fold{fold}.npz"


def read_manifest(folder: str | Path) -> Manifest:
    """manifest.json of a folder of pseudo-labels; a folder without one is an error that says how it is made."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no pseudo-labels (no {FILE}): {command_line('pseudo_label', '--out', folder)} "
            "writes them, and a call that was stopped goes on where it was"
        )
    about = read_json(path, "manifest", REMEDY)
    about = {"settings": {}, "lineage": [], "commit": "", "frame_seconds": 0.0} | about
    want(about, TYPES, str(path), REMEDY)
    if wrong := problem_of(about):
        raise ValueError(f"{path} {wrong}; {REMEDY}")
    about["teachers"] = {
        fold: [build_from(Origin, one, path) for one in origins] for fold, origins in about["teachers"].items()
    }
    about["tables"] = build_from(TableDigests, about["tables"], path)
    try:
        return Manifest(**about | {"classes": tuple(about["classes"])})
    except TypeError as error:
        raise ValueError(f"{path} is no manifest of pseudo-labels ({error}); {REMEDY}") from error


def problem_of(about: dict) -> str:
    """What is wrong with the values of a manifest whose keys have their types; '' where nothing is."""
    classes, seconds, source = about["classes"], about["window_seconds"], about["source"]
    if not classes or not all(isinstance(name, str) and name for name in classes):
        return f"has {str(classes)[:60]} as 'classes', which are no names"
    if len(set(classes)) < len(classes):
        return f"names classes twice ({few(sorted({name for name in classes if classes.count(name) > 1}))})"
    if not 0 < seconds < LONGEST:
        return f"has {str(seconds)[:60]} as 'window_seconds', which must be above 0 and below {LONGEST:g}"
    if not 0 <= about["frame_seconds"] <= seconds:
        return (
            f"has {str(about['frame_seconds'])[:60]} as 'frame_seconds', which must lie from 0 to the window's length"
        )
    if "\0" in source:
        return f"has {source[:60]!r} as 'source', which is no folder"
    if not all(isinstance(made, dict) for made in about["lineage"]):
        return f"has {str(about['lineage'])[:60]} as 'lineage', which must list names and values ({{...}})"
    for fold, origins in about["teachers"].items():
        if not (re.fullmatch("0|[1-9][0-9]{0,8}", fold) and isinstance(origins, list) and origins):
            return f"names no teachers for '{fold[:60]}'"
        masses = about["masses"].get(fold)
        if not (isinstance(masses, list) and len(masses) == 2 and all(map(_is_mass, masses))):
            return f"has {str(masses)[:60]} as 'masses' of fold {fold}, which must be two finite numbers from 0 on"
    return ""


def _is_mass(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def read_windows(folder: str | Path, fold: int) -> PseudoLabels:
    """The windows of a fold, with no look at who made them."""
    path = fold_file(folder, fold)
    arrays = read_arrays(path, "a file of pseudo-labels", REMEDY)
    if missing := sorted(set(KINDS) - set(arrays)):
        raise ValueError(f"{path} is no file of pseudo-labels: no {', '.join(missing)}; {REMEDY}")
    try:
        return PseudoLabels(**{name: arrays[name] for name in KINDS}, frames=arrays.get("frames"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {REMEDY}") from error


def read_pseudo(
    folder: str | Path, fold: int, tables: TableDigests | None, folds_table: str, *, held_out: pd.DataFrame,
    labelled: pd.DataFrame, source: str | Path, classes: Sequence[str] = (),
) -> tuple[Manifest, PseudoLabels]:  # fmt: skip
    """The pseudo-labels that may train a fold, after everything that would betray the clips that it holds out.

    tables: digests of the tables that the fold is trained on; held_out: its clips; labelled: all clips with labels;
    source: the folder that their paths are relative to; classes: those that are trained, where any are asked for.
    Errors: no class of the teachers', other folds than theirs, a fold that nobody answered for, a teacher that heard
    the held-out clips, windows of held-out recordings, or of clips that have labels.
    """
    manifest = read_manifest(folder)
    if len(classes) and set(classes).isdisjoint(manifest.classes):
        raise ValueError(
            f"{Path(folder) / FILE} names the classes {few(manifest.classes)}, of which this run has none "
            f"({few(classes)}): its windows would teach nothing. Label with teachers of these classes"
        )
    check_fold_table(manifest, Path(folder), tables, folds_table)
    if fold not in manifest.folds:
        raise ValueError(
            f"{folder} has pseudo-labels for the folds {manifest.folds}, and fold {fold} is to train: another fold's "
            f"teachers heard what it holds out. Label for it too: {command_line('pseudo_label', '--folds', fold)}"
        )
    if reasons := why_not_isolated(manifest, fold):
        raise ValueError(f"{folder}: fold {fold} is not isolated: {'; '.join(reasons)}; {REMEDY}")
    windows = read_windows(folder, fold)
    if windows.target.shape[1] != len(manifest.classes):
        raise ValueError(
            f"{fold_file(folder, fold)} has {plural(windows.target.shape[1], 'classes')}, {FILE} names "
            f"{len(manifest.classes)}; {REMEDY}"
        )
    if (windows.frames is not None) != bool(manifest.frame_seconds):
        raise ValueError(
            f"{fold_file(folder, fold)} has {'no ' * (windows.frames is None)}frames, and {FILE} says every "
            f"{manifest.frame_seconds:g} s; {REMEDY}"
        )
    if shared := of_recordings(windows, manifest.source, held_out, source):
        raise ValueError(
            f"{fold_file(folder, fold)} has windows of {len(shared)} recordings that fold {fold} holds out "
            f"({few(shared)}): its score would be of what it learned; {REMEDY}"
        )
    if shared := of_recordings(windows, manifest.source, labelled, source, same_clip=True):
        raise ValueError(
            f"{fold_file(folder, fold)} has pseudo-labels for {len(shared)} clips that have labels "
            f"({few(shared)}); {REMEDY}"
        )
    return manifest, windows


def check_fold_table(manifest: Manifest, folder: Path, tables: TableDigests | None, folds_table: str):
    """Raise where the teachers' folds are not the student's; both fold tables are named."""
    if tables is not None and manifest.tables.folds != tables.folds:
        raise ValueError(
            f"{folder} was made by {', '.join(manifest.runs)}, whose folds are those of {manifest.folds_table} "
            f"({short(manifest.tables.folds)}), and this run's folds are those of {folds_table} "
            f"({short(tables.folds)}): clips held out here trained those teachers. Train teachers on {folds_table}, or "
            f"set data.folds={manifest.folds_table}"
        )


def why_not_isolated(manifest: Manifest, fold: int) -> list[str]:
    """Why a fold's pseudo-labels may tell of the clips that it holds out; [] where its teachers cannot know them."""
    reasons = [] if manifest.mode == ISOLATED else [f"its mode is '{manifest.mode}'"]
    heard, elsewhere = [], []
    for origin in manifest.teachers.get(str(fold), []):
        if origin.fold != fold:
            heard.append(origin)
        elif origin.tables.folds != manifest.tables.folds:
            elsewhere.append(origin)
    if heard:
        reasons.append(f"{few(heard, 2)} answered for it, trained on the clips that it holds out")
    if elsewhere:
        reasons.append(f"{few(elsewhere, 2)} answered for it, trained on another fold table")
    modes = [made.get("mode", "unknown") for made in manifest.lineage]
    odd = [f"'{mode}'" for mode in dict.fromkeys(modes) if mode not in (ISOLATED, "honest")]
    if odd:
        reasons.append(f"its teachers were trained on targets of mode {few(odd, 2)}")
    return reasons


def recording_keys(clips: pd.DataFrame) -> list[set[str]]:
    """What tells each clip's recording but its file: its id with the file's name, and the columns of `SHARED`."""
    ids = zip(clips.clip_id.astype(str), clips.path, strict=True)
    keys = [{f"{CLIP}{clip_id} {recording_name(path)}".casefold()} for clip_id, path in ids]
    for column in SHARED:
        if column in clips:
            values = clean_names(clips[column]).str.casefold()
            for own, value in zip(keys, values, strict=True):
                if value and value not in NOBODY:
                    own.add(f"{column} {value}")
    return keys


def files_of(paths: Iterable[str], source: str | Path) -> list[str]:
    """Paths below `source` -> the files that they lead to, links followed."""
    known: dict[str, str] = {}
    for path in paths:
        known.setdefault(str(path), os.path.realpath(Path(source) / str(path)))
    return [known[str(path)] for path in paths]


def of_recordings(
    windows: PseudoLabels, windows_source: str | Path, clips: pd.DataFrame, source: str | Path, same_clip: bool = False
) -> list[str]:  # fmt: skip
    """Ids of the windows' recordings that these clips are of: the same file, clip, recording or group.

    same_clip: by file and clip alone.
    """
    if not len(clips) or not len(windows):
        return []
    keys = {key for own in recording_keys(clips) for key in own if key.startswith(CLIP) or not same_clip}
    files = set(files_of(clips.path, source))
    own_files = files_of(windows.paths, windows_source)
    found = [
        str(clip_id)
        for clip_id, text, file in zip(windows.clip_ids, windows.keys, own_files, strict=True)
        if file in files or not keys.isdisjoint(text.split("\n"))
    ]
    return sorted(set(found))


def joined(keys: Iterable[set[str]]) -> np.ndarray:
    """Keys of recordings as a file holds them."""
    return np.array(["\n".join(sorted(own)) for own in keys], dtype=str)


def lineage_of(manifest: Manifest, folder: str | Path, fold: int) -> dict:
    """What a run says of the pseudo-labels that trained it."""
    return {
        "folder": str(folder), "mode": manifest.mode, "by": ", ".join(manifest.runs), "fold": fold,
        "folds_digest": manifest.tables.folds, "commit": manifest.commit,
    }  # fmt: skip


def told(manifest: Manifest, windows: PseudoLabels, folder: str | Path, fold: int) -> str:
    """The pseudo-labels of a fold as a line for people."""
    recordings = len(np.unique(windows.clip_ids))
    return (
        f"pseudo-labels {folder}: {plural(len(windows), 'windows')} of {recordings} recordings for fold "
        f"{fold}, by {', '.join(manifest.runs)}, {windows.mass:.1f} labels' mass"
    )

"""What a model said about clips: the file format of OOF and test predictions (contract 5 of ARCHITECTURE.md).

An npz without pickles. `clipwise_output` has one row a clip; framewise outputs have a clip's own number of frames and
are stored one after the other. A clip that could not be read is present with the training prior and marked
`unreadable`: it gets a row in every submission and is left out of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np

from earshot.files import whole_file, write_or_rescue
from earshot.messages import few, from_here, plural
from earshot.prediction.origin import Origin, as_text, parse_origin
from earshot.prediction.places import all_different, as_names, places
from earshot.sound.timebase import TimeBase
from earshot.stored import read_arrays

TEST_FOLD = -1


@dataclass(frozen=True)
class Clip:
    """A recording to predict; `metadata` (M,) where the model takes it; `given`: rows of extractors, by record."""

    clip_id: str
    path: Path
    metadata: np.ndarray | None = None
    given: Mapping | None = None


@dataclass(frozen=True)
class Predictions:
    """N clips, K classes. Arrays: clip_ids (N,) str; clipwise_output (N, K) float32; fold (N,) int, -1 = test."""

    clip_ids: np.ndarray
    classes: tuple[str, ...]
    clipwise_output: np.ndarray
    fold: np.ndarray
    unreadable: np.ndarray  # (N,) bool
    framewise_output: tuple[np.ndarray, ...] | None = None  # a clip: (T_i, K) float32 on the grid of `timebase`
    timebase: TimeBase | None = None
    _: KW_ONLY  # not above: scripts that people keep give the seven fields before it by place
    embedding: np.ndarray | None = None  # (N, D)
    score: np.ndarray | None = None  # (N,) anomaly score
    threshold: np.ndarray | None = None  # (N,) score above which a clip of its section is taken for anomalous
    origins: tuple[Origin, ...] | None = None  # the trained folds that say this; None: not known

    def __post_init__(self):
        n, k = len(self.clip_ids), len(self.classes)
        if self.clipwise_output.shape != (n, k):
            raise ValueError(
                f"clipwise_output has shape {self.clipwise_output.shape}, expected ({n}, {k}): {plural(n, 'clips')} "
                f"by {plural(k, 'classes')}"
            )
        for name in ("fold", "unreadable", "framewise_output", "embedding", "score", "threshold"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"{name} has {len(value)} entries for {plural(n, 'clips')}")
        if self.framewise_output is not None and self.timebase is None:
            raise ValueError("framewise_output needs a timebase to say where its frames lie")
        names = np.asarray(self.clip_ids, dtype=str)
        if not all_different(names):
            ids, counts = np.unique(names, return_counts=True)
            raise ValueError(
                f"{plural((counts > 1).sum(), 'clips are')} predicted more than once: {few(ids[counts > 1])}"
            )

    def __len__(self) -> int:
        return len(self.clip_ids)

    def take(self, index) -> Predictions:
        """The clips at `index` (integers or a boolean mask), in that order."""
        index = np.arange(len(self))[index]
        if len(index) == len(self) and (np.diff(index, prepend=-1) == 1).all():
            return self  # all of them, as they are: nothing is copied
        picked = {
            name: None if getattr(self, name) is None else getattr(self, name)[index]
            for name in ("clip_ids", "clipwise_output", "fold", "unreadable", "embedding", "score", "threshold")
        }
        frames = self.framewise_output
        return replace(self, **picked, framewise_output=None if frames is None else tuple(frames[i] for i in index))

    def aligned(self, clip_ids) -> Predictions:
        """The same predictions in the order of `clip_ids`; a missing clip is an error that names it."""
        wanted = as_names(clip_ids)
        index = places(wanted, np.asarray(self.clip_ids, dtype=str))
        if len(missing := wanted[index < 0]):
            raise ValueError(f"{plural(len(missing), 'clips have')} no prediction: {few(missing)}; predict them first")
        return self.take(index)

    def save(self, path: str | Path):
        """Write the npz under a temporary name, then rename: a killed run leaves no half file.

        Where the disk refuses it the error names the temporary file that holds it.
        """
        arrays = {
            "clip_ids": np.asarray(self.clip_ids, dtype=str),
            "classes": np.asarray(self.classes, dtype=str),
            "clipwise_output": self.clipwise_output.astype(np.float32),
            "fold": np.asarray(self.fold, dtype=np.int64),
            "unreadable": np.asarray(self.unreadable, dtype=bool),
        }
        if self.framewise_output is not None:
            arrays["frame_counts"] = np.array([len(f) for f in self.framewise_output], dtype=np.int64)
            empty = np.zeros((0, len(self.classes)), np.float32)
            arrays["framewise_output"] = np.concatenate([empty, *self.framewise_output]).astype(np.float32)
        if self.timebase is not None:
            arrays["timebase"] = np.array([self.timebase.sample_rate, self.timebase.hop_length, self.timebase.pool])
        for name in ("embedding", "score", "threshold"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        if self.origins is not None:
            arrays["origins"] = np.asarray(as_text(self.origins), dtype=str)
        write_or_rescue(path, lambda target: _write_arrays(target, arrays))

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what `save` wrote; anything else is an error that says what is missing."""
        path = Path(path)
        if not path.exists():
            raise ValueError(f"predictions {path} do not exist; make them with {_maker(path)}{from_here(path)}")
        remedy = f"make it again with {_maker(path)}"
        if path.suffix.lower() in (".csv", ".tsv"):
            remedy = "make it again with src/predict.py, with --out FILE.npz"
        data = read_arrays(path, "a predictions file", remedy)
        needed = ("clip_ids", "classes", "clipwise_output", "fold", "unreadable")
        missing = [k for k in needed if k not in data]
        if missing:
            raise ValueError(f"{path} is not a predictions file: no {', '.join(missing)} (it has {sorted(data)})")
        origins = tuple(parse_origin(str(o), path) for o in data["origins"]) if "origins" in data else None
        try:
            check_arrays(data)
            frames = None
            if "framewise_output" in data:
                ends = np.cumsum(data["frame_counts"])
                frames = tuple(np.split(data["framewise_output"], ends)[:-1])  # behind the last end there is nothing
            timebase = TimeBase(*(int(v) for v in data["timebase"])) if "timebase" in data else None
            return cls(
                data["clip_ids"],
                tuple(str(c) for c in data["classes"]),
                data["clipwise_output"],
                data["fold"],
                data["unreadable"],
                framewise_output=frames,
                timebase=timebase,
                embedding=data.get("embedding"),
                score=data.get("score"),
                threshold=data.get("threshold"),
                origins=origins,
            )
        except ValueError as error:
            raise ValueError(f"{path} is not a predictions file: {error}; make it again") from error


# name: (kinds of numbers, dimensions)
ARRAYS = {
    "clip_ids": ("U", 1), "classes": ("U", 1), "clipwise_output": ("f", 2), "fold": ("iu", 1), "unreadable": ("b", 1),
    "framewise_output": ("f", 2), "frame_counts": ("iu", 1), "timebase": ("iu", 1), "embedding": ("f", 2),
    "score": ("f", 1), "threshold": ("f", 1),
}  # fmt: skip


def check_arrays(data: Mapping[str, np.ndarray]):
    """Raise unless the arrays of a file are what `save` writes: of their kind, finite, and of sizes that agree."""
    for name, (kinds, dimensions) in ARRAYS.items():
        array = data.get(name)
        if array is not None and (array.ndim != dimensions or (array.size and array.dtype.kind not in kinds)):
            raise ValueError(f"{name} is of {array.dtype} and shape {array.shape}")
    for name in ("clipwise_output", "framewise_output", "embedding"):
        if name in data and (odd := ~np.isfinite(data[name]).all(axis=1)).any():
            raise ValueError(f"{name} has {plural(odd.sum(), 'rows')} with values that are NaN or infinite")
    if "framewise_output" in data:
        rows, counts = len(data["framewise_output"]), data.get("frame_counts", np.zeros(0, int))
        if (counts < 0).any() or counts.sum() != rows or len(counts) != len(data["clip_ids"]):
            raise ValueError(f"frame_counts do not part the {plural(rows, 'rows')} of framewise_output")
        if data["framewise_output"].shape[1] != len(data["classes"]):
            raise ValueError(f"framewise_output has shape {data['framewise_output'].shape}, not a column a class")
    if "timebase" in data and len(data["timebase"]) != 3:
        raise ValueError(f"timebase is {data['timebase']}, not rate, hop and pool")


def read_origins(path: str | Path) -> tuple[Origin, ...] | None:
    """The origins of predictions without reading the rest; None where the file has none or is no predictions file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            texts = file["origins"] if "origins" in file.files else None
    except Exception:  # whatever NumPy and its archives raise at other bytes
        return None  # whoever needs the predictions reads them whole, and says what is wrong
    return None if texts is None else tuple(parse_origin(str(o), path) for o in texts)


def _write_arrays(path: Path, arrays: dict):
    with whole_file(path, on_disk=True) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def _maker(path: Path) -> str:
    """The script that writes predictions of this name."""
    names = {"oof": "src/train.py", "test": "src/predict.py"}
    return names.get(path.stem, "src/ensemble.py (of several runs or folds) or src/predict.py (of one run)")


def join(parts: list[Predictions]) -> Predictions:
    """Predictions of different clips (folds, processes) one after the other; a clip twice is an error."""
    first = parts[0]
    for part in parts[1:]:
        if part.classes != first.classes:
            raise ValueError(f"cannot join predictions of different class lists: {class_difference(first, part)}")
        if part.timebase != first.timebase:
            raise ValueError(f"cannot join predictions on different time grids: {first.timebase} and {part.timebase}")

    def stack(name):
        values = [getattr(p, name) for p in parts]
        return None if any(v is None for v in values) else np.concatenate(values)

    names = ("clip_ids", "clipwise_output", "fold", "unreadable", "embedding", "score", "threshold")
    frames = None
    if all(p.framewise_output is not None for p in parts):
        frames = tuple(f for p in parts for f in p.framewise_output)
    return replace(first, **{n: stack(n) for n in names}, framewise_output=frames, origins=all_origins(parts))


def all_origins(parts: list[Predictions]) -> tuple[Origin, ...] | None:
    """The origins of several predictions, each once; None where one of them does not know its own."""
    if any(part.origins is None for part in parts):
        return None
    return tuple(dict.fromkeys(origin for part in parts for origin in part.origins))


def weighted_mean(members: list[Predictions], weights=None, join: Callable | None = None) -> Predictions:
    """Members' predictions of the SAME clips (folds on the test, models of an ensemble) -> their weighted mean.

    weights: (M,), or (M, K) with weights of its own for every class; anomaly scores and thresholds take their mean over
    classes. join: what is made of arrays and their weights in place of the mean (ensemble/blends.py).
    Clips are aligned by id to the first member. Frames are kept when every member has them on one grid. Members that
    could not read a clip have no say in it; it counts as unreadable when none could.
    """
    first = members[0]
    weights = np.ones(len(members)) if weights is None else np.asarray(weights, float)
    weights = weights / weights.sum(axis=0)
    for other in members[1:]:
        if other.classes != first.classes:
            raise ValueError(f"cannot average predictions of different class lists: {class_difference(first, other)}")
        if len(other) != len(first):
            raise ValueError(f"cannot average: one member has {plural(len(first), 'clips')}, another {len(other)}")
    members = [first] + [m.aligned(first.clip_ids) for m in members[1:]]
    join = join or mean_of

    heard = np.stack([~np.asarray(m.unreadable, bool) for m in members])
    unreadable = ~heard.any(axis=0)
    heard[:, unreadable] = True  # what all say in its place
    some = {i: np.flatnonzero(heard[:, i]) for i in np.flatnonzero(~heard.all(axis=0))}

    def joined(name: str, weights=weights) -> np.ndarray:
        values = [getattr(m, name) for m in members]
        found = join(values, weights)
        for i, those in some.items():
            found[i] = join([values[m][i] for m in those], _shares(weights, those))
        return found

    frames = None
    same_grid = all(m.framewise_output is not None and m.timebase == first.timebase for m in members)
    if same_grid:
        _check_lengths(members, heard & ~unreadable)
        each = [[m.framewise_output[i] for m in members] for i in range(len(first))]
        frames = tuple(
            join([clip[m] for m in some[i]], _shares(weights, some[i])) if i in some else join(clip, weights)
            for i, clip in enumerate(each)
        )
    of_member = weights.reshape(len(members), -1).mean(axis=1)
    scores = {
        name: joined(name, of_member)
        for name in ("score", "threshold")
        if all(getattr(m, name) is not None for m in members)
    }
    return replace(
        first, clipwise_output=joined("clipwise_output"), framewise_output=frames,
        timebase=first.timebase if same_grid else None, embedding=None, score=scores.get("score"),
        threshold=scores.get("threshold"), unreadable=unreadable, origins=all_origins(members),
    )  # fmt: skip


def mean_of(arrays, weights) -> np.ndarray:
    """Weighted mean of arrays of one shape, float32; the weights sum to 1."""
    return sum(np.float64(w) * a for w, a in zip(weights, arrays, strict=True)).astype(np.float32)


def _shares(weights: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Weights of some members, (M,) or (M, K), that sum to one again; equal ones where theirs are 0."""
    own, total = weights[some], weights[some].sum(axis=0)
    return np.where(total > 0, own / np.where(total > 0, total, 1), 1 / len(some))


def _check_lengths(members: list[Predictions], heard: np.ndarray):
    for i, clip_id in enumerate(members[0].clip_ids):
        lengths = sorted({len(m.framewise_output[i]) for m, reads in zip(members, heard[:, i], strict=True) if reads})
        if len(lengths) > 1:
            raise ValueError(
                f"cannot average: clip {clip_id} has {lengths[0]} frames in one member, {lengths[-1]} in another"
            )


def check_complete(predictions: Predictions, clip_ids, what: str = "OOF"):
    """Raise unless `predictions` hold exactly `clip_ids`: missing and unknown clips are named."""
    have, want = as_names(predictions.clip_ids), as_names(clip_ids)
    found = places(want, have)
    if len(missing := want[found < 0]):
        raise ValueError(
            f"{what} misses {len(missing)} of {len(want)} clips: {few(sorted(missing))}; are all folds trained?"
        )
    if len(have) > len(want):
        unknown = np.delete(have, found)
        raise ValueError(f"{what} holds {len(unknown)} clips that are not in the table: {few(sorted(unknown))}")


def class_difference(a: Predictions, b: Predictions) -> str:
    """What two class lists do not share, for an error."""
    only_a, only_b = [c for c in a.classes if c not in b.classes], [c for c in b.classes if c not in a.classes]
    if not only_a and not only_b:
        return "same classes in another order"
    return f"only in the first: {few(only_a) or 'none'}; only in the second: {few(only_b) or 'none'}"

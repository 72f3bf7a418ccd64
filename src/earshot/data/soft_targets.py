"""targets.npz: soft or hard targets that train in place of labels, such as a network's own answers, with their lineage.

An npz without pickles beside clips.csv: clip_ids (N,), classes (K,), target (N, K) float16, mask (N, K) uint8 (0 =
nobody knows) and lineage, a JSON text: who answered what. A clip or a class that it does not have keeps its labels.
Only training reads it: what is held out is always scored by the labels of the clip table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from earshot.files import whole_file
from earshot.messages import few, plural

FILE = "targets.npz"  # beside clips.csv
ARRAYS = ("clip_ids", "classes", "target", "mask", "lineage")


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """Targets of N clips and K classes: `target` (N, K) in 0 to 1, `mask` (N, K), 0 = unknown."""

    clip_ids: np.ndarray
    classes: tuple[str, ...]
    target: np.ndarray
    mask: np.ndarray
    lineage: dict = field(default_factory=dict)

    def __post_init__(self):
        shape = len(self.clip_ids), len(self.classes)
        for name in ("target", "mask"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}: clips by classes")
        ids, counts = np.unique(np.asarray(self.clip_ids, str), return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"{plural((counts > 1).sum(), 'clips have')} targets twice: {few(ids[counts > 1])}")
        known = self.target[self.mask > 0]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            raise ValueError(f"targets must lie in 0 to 1, got {known.min()} to {known.max()}")

    def save(self, path: str | Path):
        """Write the file, whole or not at all."""
        with whole_file(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file, clip_ids=np.asarray(self.clip_ids, str), classes=np.asarray(self.classes, str),
                target=self.target.astype(np.float16), mask=self.mask.astype(np.uint8),
                lineage=np.array(json.dumps(self.lineage)),
            )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> SoftTargets:
        """Read what `save` wrote; a file that is none is an error."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in ARRAYS}
            lineage = json.loads(str(arrays["lineage"]))
        except FileNotFoundError as error:
            raise ValueError(f"{path} does not exist; src/relabel.py writes it") from error
        except (KeyError, ValueError, OSError, BadZipFile) as error:
            raise ValueError(f"{path} holds no targets ({', '.join(ARRAYS)}): {error}") from error
        try:
            return cls(
                clip_ids=arrays["clip_ids"], classes=tuple(arrays["classes"].tolist()), target=arrays["target"],
                mask=arrays["mask"], lineage=lineage,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def over(self, clip_ids, classes, target: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put these targets in the place of those made from labels.

        (N, K) targets and masks by labels -> the same, float32, with these in their place where there are any.
        """
        own = {c: i for i, c in enumerate(self.clip_ids.tolist())}
        column = {c: i for i, c in enumerate(self.classes)}
        rows = [(i, own[c]) for i, c in enumerate(clip_ids) if c in own]
        columns = [(k, column[c]) for k, c in enumerate(classes) if c in column]
        target, mask = target.astype(np.float32), mask.astype(np.float32)
        if rows and columns:
            (there, here), (to, of) = np.array(rows).T, np.array(columns).T
            target[np.ix_(there, to)] = self.target[np.ix_(here, of)]
            mask[np.ix_(there, to)] = self.mask[np.ix_(here, of)]
        return target, mask


def find_targets(choice: str, root: Path) -> Path | None:
    """data.soft_targets -> the file to train on, or None; `auto` is the one beside the clip table, where it is."""
    if choice == "none":
        return None
    if choice != "auto":
        return Path(choice)
    return root / FILE if (root / FILE).is_file() else None


def read_targets(path: Path, clip_ids, classes) -> SoftTargets:
    """The file; that it has none of these clips, or none of these classes, is an error."""
    found = SoftTargets.load(path)
    clips, names = set(found.clip_ids.tolist()) & set(clip_ids), [c for c in classes if c in found.classes]
    for what, shared, mine in (("clips", clips, clip_ids), ("classes", names, classes)):
        if not shared:
            raise ValueError(
                f"{path} has targets of none of these {what} ({few(mine)}): make it again with src/relabel.py, or set "
                "data.soft_targets=none"
            )
    return found


def told(soft: SoftTargets, clip_ids, classes) -> str:
    """What trains in place of these clips' labels, as a line for people."""
    made, rest = soft.lineage.get("by", "an unknown maker"), [c for c in classes if c not in soft.classes]
    kept = f"; {few(rest)} keep their labels" if rest else ""
    there = len(set(soft.clip_ids.tolist()) & set(clip_ids))
    return (
        f"{there} of {len(clip_ids)} clips train on targets made by {made} in place of their labels{kept} "
        "(data.soft_targets=none trains on labels)"
    )

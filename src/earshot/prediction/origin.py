"""Where weights and predictions come from: which run and fold, trained on which tables, with which weights.

Each fold keeps its origin in `origin.json` from before its first step. Its weights, its last.ckpt, its exported graphs
and its predictions carry the same, and whoever reads them holds them against each other: what was swapped, replaced or
made of other tables is refused with both sides named. What an older version wrote carries none: that is said, once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from earshot import files
from earshot.records import build_from, to_dict
from earshot.stored import parse_json, read_text

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("earshot")

FILE = "origin.json"
TABLES = {"folds": "fold table", "classes": "class list", "clips": "clip table"}
WITHIN_A_RUN = TABLES | {"targets": "soft targets"}  # what one run keeps, and two runs of an ensemble need not share


@dataclass(frozen=True, kw_only=True)
class TableDigests:
    """Digests of what a fold is trained on: each clip's fold; the classes in their order; the clips' labels, recordings
    and events; soft targets ('': none, None: an older version did not say). The order of rows does not matter, that of
    classes does."""

    folds: str
    classes: str
    clips: str
    targets: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The trained fold that something comes from; weights: digest of its tensors, '' where it is of no certain ones."""

    run: str  # <task>/<name>
    fold: int
    tables: TableDigests
    weights: str = ""

    def __str__(self) -> str:
        return f"run {self.run} fold {self.fold}"


def digest(lines: Iterable[str]) -> str:
    """Lines of text -> 32 hexadecimal digits."""
    found, lines, between = hashlib.sha256(), iter(lines), ""
    while some := list(islice(lines, 10_000)):  # not one text of a million lines
        found.update((between + "\n".join(some)).encode())
        between = "\n"
    return found.hexdigest()[:32]


def short(text: str) -> str:
    """A digest as messages show it."""
    return text[:10]


def tables_differ(a: TableDigests, b: TableDigests, of: Iterable[str] = TABLES) -> str:
    """What tables are not the same, as 'fold table 1a2b... against 3c4d...; ...'; '' where all are.

    of: keys of WITHIN_A_RUN; what either does not know is not compared.
    """
    pairs = {WITHIN_A_RUN[key]: (getattr(a, key), getattr(b, key)) for key in of}
    return "; ".join(
        f"{what} {short(x) or 'none'} against {short(y) or 'none'}"
        for what, (x, y) in pairs.items()
        if None not in (x, y) and x != y
    )


def differ(a: Origin, b: Origin) -> str:
    """What two origins that should be one do not share, the first's value before the second's; '' where they agree.

    Weights are compared where both have them.
    """
    parts = [f"{a} against {b}"] if (a.run, a.fold) != (b.run, b.fold) else []
    parts += [tables_differ(a.tables, b.tables, WITHIN_A_RUN)]
    if a.weights and b.weights and a.weights != b.weights:
        parts.append(f"weights {short(a.weights)} against {short(b.weights)}")
    return "; ".join(filter(None, parts))


def check_same(path: str | Path, found: Origin | None, against: str | Path, expected: Origin | None, remedy: str):
    """Raise where `path`, of origin `found`, does not belong to `against`, of origin `expected`; both are named.

    Where either has no origin nothing can be said: see `say_unchecked`.
    """
    if found is not None and expected is not None and (what := differ(found, expected)):
        raise ValueError(f"{path} does not belong to {against}: {what}; {remedy}")


def check_among(path: str | Path, found: Sequence[Origin], against: str | Path, known: Sequence[Origin], remedy: str):
    """Raise unless each origin of `path` is one of the folds `known` of `against`, and each fold is in it."""
    for origin in found:
        same = [k for k in known if (k.run, k.fold) == (origin.run, origin.fold)]
        check_same(path, origin, against, same[0] if same else known[0], remedy)
    have = {(o.run, o.fold) for o in found}
    if lost := [str(k) for k in known if (k.run, k.fold) not in have]:
        raise ValueError(
            f"{path} is of {', '.join(map(str, found))} and lacks {', '.join(lost)} of {against}; {remedy}"
        )


@lru_cache(maxsize=1024)
def say_unchecked(what: str):
    """Say once that something carries no origin, so that nothing can be compared."""
    logger.warning(
        "%s says not which run, fold and tables it is of (an older version wrote it): that cannot be checked", what
    )


def read_origin(folder: str | Path) -> Origin | None:
    """origin.json of a fold's folder; None: the folder has none."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    return parse_origin(read_text(path), path)


def write_origin(folder: str | Path, origin: Origin):
    """Write origin.json of a fold's folder: of no certain weights, training goes on."""
    files.write_text(Path(folder) / FILE, files.as_json(to_dict(replace(origin, weights="")), indent=1) + "\n")


def parse_origin(text: str, where: str | Path) -> Origin:
    """JSON text -> Origin; an error names `where`."""
    try:
        return build_from(Origin, parse_json(text, str(where)), where)
    except ValueError as error:
        raise ValueError(f"{where} says of no run and fold where it comes from: {error}") from error


def as_text(origins: Sequence[Origin]) -> list[str]:
    """Origins as predictions hold them: one JSON text each."""
    return [json.dumps(to_dict(origin)) for origin in origins]


def weights_origin(path: Path) -> Origin | None:
    """What a weights file says of itself; None: nothing, or it is none that can be read (loading it says why).

    A checkpoint (last.ckpt, or another kind than safetensors) says nothing: the fold's folder that it lies in does.
    """
    stored = weights_about(path)
    if stored.get("origin"):
        return parse_origin(json.dumps(stored["origin"]), path)
    return read_origin(path.parent) if path.is_file() and path.suffix != ".safetensors" else None


def weights_about(path: Path) -> dict:
    """The run.json that a weights file repeats; {}: none, or it is no file that can be read (loading it says why)."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="np") as file:
            stored = json.loads((file.metadata() or {}).get("earshot", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """Tensors by name -> 32 hexadecimal digits of their names, types, shapes and bytes."""
    import torch

    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()[:32]

"""Checkpoints: found (`resolve`), read (`read_state`) and loaded strictly (`load_weights`).

Nothing is initialised at random in silence, nothing is downloaded unless `download=True` and the name is a hub's or an
address, and a file's pickled objects are never run. Published PANNs files hold their tensors under the key `model`
together with those of the front end, which are compared with the run's `LogmelParams` instead of being loaded; a run's
own weights carry their front ends as metadata, which is compared too.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from earshot.files import file_digest, walk
from earshot.messages import few, plural, suggest
from earshot.models.front_end import check_description, check_front_end
from earshot.sound.logmel import LogmelParams

KAGGLE_INPUT = Path("/kaggle/input")
NESTED = ("model", "state_dict", "model_state_dict")  # where checkpoints keep their tensors, PANNs first
FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did; `str(report)` is the line to print."""

    path: str
    loaded: int  # tensors
    dropped: tuple[str, ...]  # keys of the checkpoint left out by `drop`
    kept: tuple[str, ...]  # keys of the model that keep their initial values for it
    front_end: str  # "" where the checkpoint holds none

    def __str__(self) -> str:
        parts = [f"loaded {self.loaded} tensors from {self.path}"]
        if self.dropped:
            parts.append(f"dropped {_shorten(self.dropped)}")
        if self.kept:
            parts.append(f"initial values kept in {_shorten(self.kept)}")
        return "; ".join(parts + [self.front_end] if self.front_end else parts)


def resolve(name_or_path: str | Path, download: bool = False, kaggle_input: Path = KAGGLE_INPUT) -> Path:
    """Path, file name, `hf:owner/repository[/file]` or https address (each with optional `#sha256=...`) -> file.

    Looked for in this order: the path itself; below `kaggle_input` (name or trailing part of a path); torch hub's
    and Hugging Face's caches; of an address, its file name there. `download` fetches an `hf:` name or an address that
    is nowhere. Errors: nothing found (with the places looked at), several different files of that name, another hash.
    """
    name, _, expected = str(name_or_path).partition("#sha256=")
    address = name if name.startswith(("https://", "http://")) else ""
    if address:
        name = unquote(Path(urlsplit(address).path).name)
    if Path(name).is_file():
        found = [Path(name)]
    elif name.startswith("hf:"):
        found = _from_hub(name.removeprefix("hf:"), download)
    else:
        found = _below(kaggle_input, name) or _below(Path(torch.hub.get_dir()) / "checkpoints", name)
        found = found or _below(_hub_cache(), name)
    if not found and address:
        found = _from_address(address, name, download)
    if not found:
        raise ValueError(
            f"weights '{name}' not found: no such path, nor below {kaggle_input}, {torch.hub.get_dir()} and "
            f"{_hub_cache()}. Attach or copy the file, or give its path"
        )
    if expected:
        found = [_with_hash(found, expected.lower(), name)]
    if len({p.resolve() for p in found}) > 1:
        places = ", ".join(str(p) for p in found[:5])
        raise ValueError(f"weights '{name}' is ambiguous ({places}): give more of its path or #sha256=...")
    return found[0]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Checkpoint file -> {name: tensor} on the CPU, prefixes of DataParallel (`module.`) and compile taken off.

    safetensors, or torch.load with weights_only. Errors name what came: an HTML page, a Git LFS pointer, an empty or
    truncated file, pickled objects, a dict without tensors.
    """
    path = Path(path)
    _check_magic(path)
    state = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    for key in NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            if others := [name for name, held in state.items() if name != key and _are_tensors(held)]:
                logger.warning("%s holds several sets of weights: '%s' is taken, not %s (a file of that alone is taken "
                               "too)", path, key, few(map(repr, others)))  # fmt: skip
            state = state[key]
            break
    if not _are_tensors(state):
        held = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{path} holds no state dict: expected tensors by name, at the top or under {NESTED}, got {held}"
        )
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _are_tensors(held) -> bool:
    return isinstance(held, dict) and bool(held) and all(isinstance(value, Tensor) for value in held.values())


def load_weights(
    model: nn.Module,
    path: str | Path,
    drop: Iterable[str] = (),
    front_end: LogmelParams | None = None,
    prefix: str = "",
) -> LoadReport:
    """Checkpoint file -> into `model`, strictly; what was dropped, kept and checked comes back as a report.

    drop: prefixes left out on purpose (a replaced head): such keys of the file are ignored, such keys of the model keep
    their initial values. Any other missing, extra or mis-shaped key is an error that lists them. Front-end tensors are
    compared with `front_end`; a difference is an error with both values. prefix: the part of the model that the file
    is of ("base."), whose other parts keep their initial values; a file with that prefix itself is of the whole model.
    """
    state, drop, own = read_state(path), (drop,) if isinstance(drop, str) else tuple(drop), model.state_dict()
    state = _unwrapped(state, {*own, *(k.removeprefix(prefix) for k in own)}, drop)
    whole = not prefix or any(k.startswith(prefix) for k in state)
    inside = tuple(prefix + f for f in FRONT_END) if whole else FRONT_END
    front = {k.removeprefix(prefix): state.pop(k) for k in list(state) if k.startswith(inside)}
    if not whole:
        state, drop = {prefix + k: v for k, v in state.items()}, tuple(prefix + d for d in drop)
    for name in drop:
        if not any(k.startswith(name) for k in (*state, *own)):
            heads = sorted({k.removeprefix(prefix).split(".")[0] for k in state})
            name = name.removeprefix(prefix)
            raise ValueError(f"drop '{name}' names nothing in {path} or the model{suggest(name, heads)}")
    dropped = tuple(k for k in state if k.startswith(drop))
    kept = tuple(k for k in own if k.startswith(drop) or not (whole or k.startswith(prefix)))
    wanted = {k: v for k, v in state.items() if k not in dropped}
    checked = check_front_end(front, front_end, str(path)) if front else _check_description(path, front_end)
    _check_keys(wanted, {k: v for k, v in own.items() if k not in kept}, path)
    if broken := [k for k, v in wanted.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise ValueError(f"{path} holds NaN or infinite weights, as of a training that diverged: {_shorten(broken)}")
    model.load_state_dict(wanted, strict=False)  # the keys were compared above
    return LoadReport(str(path), len(wanted), dropped, kept, checked)


def _unwrapped(state: dict[str, Tensor], names: set[str], drop: tuple[str, ...]) -> dict[str, Tensor]:
    """A checkpoint without the attribute that a wrapper keeps its network in, such as Lightning's modules: net.conv1 is
    conv1 where all names but those in `drop` begin so and none of `names` is there."""
    inner = {k: v for k, v in state.items() if not k.startswith(drop)}
    while inner and names.isdisjoint(inner) and len({k.partition(".")[0] for k in inner}) == 1:
        inner = {k.partition(".")[2]: v for k, v in inner.items()}
    return state if names.isdisjoint(inner) else {k: v for k, v in state.items() if k.startswith(drop)} | inner


def _check_keys(theirs: dict[str, Tensor], ours: dict[str, Tensor], path: str | Path) -> None:
    """Error listing missing, extra and mis-shaped keys, unless the two agree."""
    # checkpoints of torch < 0.4.1 lack this counter, which only a momentum of None would read
    optional = [k for k in ours if k.endswith("num_batches_tracked") and k not in theirs]
    missing = [k for k in ours if k not in theirs and k not in optional]
    extra = [k for k in theirs if k not in ours]
    shapes = [
        f"{k}: {tuple(theirs[k].shape)} in the file, {tuple(ours[k].shape)} in the model"
        for k in ours
        if k in theirs and theirs[k].shape != ours[k].shape
    ]
    named = (("missing from the file", missing), ("not in the model", extra), ("other shape", shapes))
    parts = [f"{what}: {_shorten(keys, 8, whole=True)}" for what, keys in named if keys]
    if parts:
        hint = _hint([k for k in ours if k in theirs and theirs[k].shape != ours[k].shape], theirs, ours)
        raise ValueError(f"{path} does not fit the model; {'; '.join(parts)}. {hint}")


def _hint(misshaped: list[str], theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> str:
    """What other shapes mean: another number of classes or mel bins, or another network; what other names mean."""
    if set(theirs).isdisjoint(ours) and len(tops := sorted({k.partition(".")[0] for k in theirs})) < 5:
        return f"Its names begin with {', '.join(tops)}: where one is the network, leave out the others by `drop`"
    sizes = {k: (tuple(theirs[k].shape), tuple(ours[k].shape)) for k in misshaped}
    if "bn0.weight" in sizes:
        return "The file has {} mel bins or channels at its input, the model {}".format(
            *(shape[0] for shape in sizes["bn0.weight"])
        )
    first = {(a[0], b[0]) for a, b in sizes.values() if a[1:] == b[1:] and a}
    heads = list(dict.fromkeys(k.split(".")[0] for k in misshaped))
    if len(first) == 1 and len(heads) == 1:
        (theirs_count, ours_count), name = first.pop(), heads[0]
        return (
            f"Is {name} the head? The file's has {plural(theirs_count, 'classes')}, the model's {ours_count}: to "
            f"replace it on purpose, model.drop=[{name}]"
        )
    return "Replaced on purpose? Name it in `drop`"


def _shorten(keys, limit: int = 4, whole: bool = False) -> str:
    """Keys, or their first `limit` and the count; modules in place of keys unless `whole`."""
    names = list(keys) if whole else list(dict.fromkeys(k.rpartition(".")[0] or k for k in keys))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _below(folder: Path, name: str) -> list[Path]:
    """Files below `folder` whose path ends in `name`, sorted; links to one file count once."""
    tail = Path(name).parts
    if not folder.is_dir() or not tail:
        return []
    found = {}
    for parent, names in walk(folder):
        if tail[-1] in names:
            path = parent / tail[-1]
            if path.parts[-len(tail) :] == tail:
                found.setdefault(path.resolve(), path)
    return sorted(found.values())


def _hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def _from_hub(name: str, download: bool) -> list[Path]:
    """'owner/repository[/file]' -> the cached file of its newest snapshot, or the downloaded one."""
    owner, _, rest = name.partition("/")
    repository, *rest = rest.split("/")
    if not owner or not repository:
        raise ValueError(f"weights 'hf:{name}' must be hf:<owner>/<repository> or hf:<owner>/<repository>/<file>")
    files = ("/".join(rest),) if rest else HUB_FILES
    snapshots = _hub_cache() / f"models--{owner}--{repository}" / "snapshots"
    for folder in sorted(snapshots.glob("*"), key=lambda p: p.stat().st_mtime, reverse=True):
        for file in files:
            if (folder / file).is_file():
                return [folder / file]
    if download:
        from huggingface_hub import hf_hub_download

        return [Path(hf_hub_download(f"{owner}/{repository}", files[0]))]
    raise ValueError(
        f"weights 'hf:{name}' are not in the cache {_hub_cache()}: set download: true where there is internet, give a "
        "path (or the name of a file in /kaggle/input), or set pretrained: false for random weights"
    )


def _from_address(address: str, name: str, download: bool) -> list[Path]:
    """The file of an https address, fetched into torch hub's cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not download:
        raise ValueError(
            f"weights '{name}' are neither below {KAGGLE_INPUT} nor in the caches {folder} and {_hub_cache()}: set "
            f"model.download=true to fetch {address}, or give a path"
        )
    folder.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(address, str(folder / name), progress=False)
    return [folder / name]


def _with_hash(paths: list[Path], expected: str, name: str) -> Path:
    hashes = {}
    for path in paths:
        hashes[path] = file_digest(path)
        if hashes[path] == expected:
            return path
    got = ", ".join(f"{p}: {h}" for p, h in hashes.items())
    raise ValueError(f"weights '{name}' should have sha256 {expected}, got {got}: another file or a broken download")


def _check_magic(path: Path) -> None:
    """Error for what is no checkpoint at all but often lies where one should."""
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist")
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    if not head:
        raise ValueError(f"{path} is empty: the download failed")
    if head[:1] == b"<":
        raise ValueError(f"{path} is an HTML page, not weights: the download got a web page (login or error)")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not weights: run git lfs pull")


def _is_safetensors(path: Path) -> bool:
    """By content: an 8-byte length, then a JSON header."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{")


def _check_description(path: str | Path, params: LogmelParams | None) -> str:
    """Our own weights' metadata against `params`; '' where there is none."""
    if params is None or not _is_safetensors(Path(path)):
        return ""
    with safe_open(path, framework="pt") as file:
        return check_description((file.metadata() or {}).get("earshot", "{}"), params, str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} is no readable safetensors file (truncated?): {error}; get it again") from error


def _read_torch(path: Path):
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error) and "Unsupported" not in str(error):
            raise ValueError(f"{path} is no checkpoint of torch: {error}") from error
        kind = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        raise ValueError(
            f"{path} holds pickled objects{f' ({kind[1]})' if kind else ''}, not only tensors, and is not run: save "
            "its state_dict() alone by torch.save, where you trust it"
        ) from error
    except Exception as error:  # whatever its readers of zip archives and pickles raise at other bytes
        reason = " ".join(str(error).split())[:300] or "it ends early"
        raise ValueError(f"{path} is truncated or no checkpoint of torch: {reason}; get it again") from error


# PANNs' training script stores its sampler's NumPy state beside the weights: arrays are harmless, and allowed
_NUMPY_GLOBALS = [
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdU"},
]

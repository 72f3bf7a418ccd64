"""Checkpoints: found (`resolve`), read (`read_state`) and loaded strictly (`load_weights`).

Nothing is initialised at random in silence, nothing is downloaded unless `download=True` and the name is one of a
known hub, and a file's pickled objects are never run. Published PANNs files hold their tensors under the key `model`
together with those of the front end, which are compared with the run's `LogmelParams` instead of being loaded.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from earshot.logmel import WINDOWS, LogmelParams, fft_window, mel_filterbank
from earshot.spelling import suggest

KAGGLE_INPUT = Path("/kaggle/input")
NESTED = ("model", "state_dict", "model_state_dict")  # where checkpoints keep their tensors, PANNs first
FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


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
    """Path, file name or `hf:owner/repository[/file]` (each with optional `#sha256=...`) -> existing file.

    Looked for in this order: the path itself; below `kaggle_input` (name or trailing part of a path); torch hub's
    and Hugging Face's caches. `download` fetches an `hf:` name that is nowhere. Errors: nothing found (with the places
    looked at), several different files of that name, another hash.
    """
    name, _, expected = str(name_or_path).partition("#sha256=")
    if Path(name).is_file():
        found = [Path(name)]
    elif name.startswith("hf:"):
        found = _from_hub(name.removeprefix("hf:"), download)
    else:
        found = _below(kaggle_input, name) or _below(Path(torch.hub.get_dir()) / "checkpoints", name)
        found = found or _below(_hub_cache(), name)
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
            state = state[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        held = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{path} holds no state dict: expected tensors by name, at the top or under {NESTED}, got {held}"
        )
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


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
    state, drop = read_state(path), (drop,) if isinstance(drop, str) else tuple(drop)
    whole = not prefix or any(k.startswith(prefix) for k in state)
    inside = tuple(prefix + f for f in FRONT_END) if whole else FRONT_END
    front = {k.removeprefix(prefix): state.pop(k) for k in list(state) if k.startswith(inside)}
    if not whole:
        state, drop = {prefix + k: v for k, v in state.items()}, tuple(prefix + d for d in drop)
    own = model.state_dict()
    for name in drop:
        if not any(k.startswith(name) for k in (*state, *own)):
            heads = sorted({k.removeprefix(prefix).split(".")[0] for k in state})
            name = name.removeprefix(prefix)
            raise ValueError(f"drop '{name}' names nothing in {path} or the model{suggest(name, heads)}")
    dropped = tuple(k for k in state if k.startswith(drop))
    kept = tuple(k for k in own if k.startswith(drop) or not (whole or k.startswith(prefix)))
    wanted = {k: v for k, v in state.items() if k not in dropped}
    _check_keys(wanted, {k: v for k, v in own.items() if k not in kept}, path)
    checked = check_front_end(front, front_end, str(path)) if front else ""
    model.load_state_dict(wanted, strict=False)  # the keys were compared above
    return LoadReport(str(path), len(wanted), dropped, kept, checked)


def check_front_end(tensors: dict[str, Tensor], params: LogmelParams | None, where: str) -> str:
    """Front-end tensors of a PANNs checkpoint against `params` -> a line saying what agrees, or an error with both.

    Compared: n_fft and n_mels (shapes), the window (the transform's row of frequency 0 is the window itself), and the
    mel filter bank, which holds sample rate, fmin and fmax. The hop is not in the weights.
    """
    if params is None:
        return f"front end of the checkpoint not checked ({len(tensors)} tensors left out)"
    real = tensors.get("spectrogram_extractor.stft.conv_real.weight")
    if real is not None:
        _expect("n_fft", real.shape[-1], params.n_fft, where)
        window = real[0, 0].numpy()
        if not np.allclose(window, fft_window(params), atol=1e-4):
            raise ValueError(
                f"{where} was trained with {_window_name(window)}, the front end has window '{params.window}' "
                f"(win_length {params.win_length or params.n_fft})"
            )
    mel = tensors.get("logmel_extractor.melW")
    if mel is not None:
        _expect("n_fft", 2 * (mel.shape[0] - 1), params.n_fft, where)
        _expect("n_mels", mel.shape[1], params.n_mels, where)
        if params.sample_rate:
            _check_mel(mel.numpy(), params, where)
    return f"front end agrees (n_fft {params.n_fft}, {params.n_mels} mels, {params.window})"


def _check_mel(mel: np.ndarray, params: LogmelParams, where: str) -> None:
    """Error unless the (n_bins, n_mels) filters are those of `params`; says which band the checkpoint's cover."""
    ours = mel_filterbank(params).T
    if np.abs(mel - ours).max() <= 1e-3 * np.abs(ours).max():
        return
    hz = params.sample_rate / params.n_fft

    def band(filters):
        used = np.flatnonzero(filters.sum(axis=1))
        return f"{used.min() * hz:.0f} to {used.max() * hz:.0f} Hz at this rate" if len(used) else "empty"

    raise ValueError(
        f"{where} was trained with another mel filter bank: its bins cover {band(mel)}, those of the front end "
        f"{band(ours)} (sample_rate {params.sample_rate}, fmin {params.fmin:g}, fmax {params.fmax:g})"
    )


def _expect(name: str, theirs: int, ours: int, where: str) -> None:
    if theirs != ours:
        raise ValueError(f"{where} was trained with {name} {theirs}, the front end has {name} {ours}")


def _window_name(window: np.ndarray) -> str:
    """'window <name>' of those we know, else its first values."""
    for name in WINDOWS:
        if np.allclose(window, fft_window(LogmelParams(n_fft=len(window), window=name)), atol=1e-4):
            return f"window '{name}'"
    return f"an unknown window or win_length (starts {', '.join(f'{v:.4f}' for v in window[:4])})"


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
        raise ValueError(f"{path} does not fit the model; {'; '.join(parts)}. Replaced on purpose? Name it in `drop`")


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
    for parent, _, files in os.walk(folder, followlinks=True):
        if tail[-1] in files:
            path = Path(parent) / tail[-1]
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


def _with_hash(paths: list[Path], expected: str, name: str) -> Path:
    hashes = {}
    for path in paths:
        with path.open("rb") as file:
            hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file (truncated?): {error}") from error


def _read_torch(path: Path):
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error) and "Unsupported" not in str(error):
            raise ValueError(f"{path} is no checkpoint of torch: {error}") from error
        raise ValueError(
            f"{path} holds pickled objects, not only tensors, and is not run: save its state_dict() again where you "
            f"trust it ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is truncated or no checkpoint of torch: {error}") from error


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

"""Networks of the library transformers from a folder that its save_pretrained wrote: found, described, loaded strictly.

A folder is a path, one below /kaggle/input, or hf:<owner>/<repository> in Hugging Face's cache; nothing is downloaded,
no code of a folder is run, and weights are read from safetensors alone. Only the network below the head is taken: the
head's tensors are left out and named, any other that is missing, extra or of another shape is an error with its name.

What a folder says of its network (config.json, and of preprocessor_config.json how it hears) is the network's
`architecture`, which a run keeps in run.json: a trained run is opened without the folder.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earshot.messages import few, suggest
from earshot.models.weights import resolve
from earshot.stored import read_json

AST = "audio-spectrogram-transformer"
WAVEFORM_TYPES = (
    "data2vec-audio", "hubert", "sew", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm",
)  # fmt: skip
# of config.json: what says nothing of the network below the head
NOT_ARCHITECTURE = (
    "id2label", "label2id", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path",
    "problem_type", "auto_map", "return_dict", "output_attentions", "output_hidden_states",
    # of these the library would fetch code, other weights, or packages: a network has its own attention, in float32
    "attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation",
    "quantization_config", "compression_config", "transformers_weights",
)  # fmt: skip
MOST_LAYERS, LARGEST_SIZE, MOST_PARAMETERS = 512, 2**20, 4 * 10**9  # of a network: the largest published has 2e9
HEARING = ("sampling_rate", "do_normalize", "num_mel_bins", "mean", "std")  # of preprocessor_config.json

logger = logging.getLogger("earshot")


@dataclass(frozen=True)
class Source:
    """Where a network's architecture and weights come from, as its parameters say."""

    folder: str = ""
    architecture: Mapping[str, Any] | None = None  # keys of transformers' config; beside a folder they must agree
    weights_follow: bool = False  # trained weights are loaded right after: the folder's are not read
    kept: Mapping[str, Any] | None = None  # the architecture that a run kept


def find_folder(name: str) -> Path:
    """The folder of a network, with its config.json; ValueError where it is nowhere, with what to do."""
    path = Path(name)
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise ValueError(f"{path} holds no config.json: give the folder that save_pretrained wrote")
    try:
        return resolve(f"{name}/config.json").parent
    except ValueError as error:
        raise ValueError(
            f"no folder of transformers '{name}': neither here, nor below /kaggle/input, nor (as "
            "hf:<owner>/<repository>) in Hugging Face's cache. Nothing is downloaded: copy or attach the folder that "
            f"save_pretrained wrote ({error})"
        ) from error


def read_folder(name: str) -> tuple[Path, dict[str, Any]]:
    """A folder's name -> (the folder, the architecture of its network)."""
    folder = find_folder(name)
    values = read_json(folder / "config.json", "configuration of a network", "save the network again")
    if "model_type" not in values:
        raise ValueError(f"{folder}/config.json names no model_type: it is no network of transformers")
    architecture = {k: v for k, v in values.items() if k not in NOT_ARCHITECTURE}
    check_values(architecture, f"{folder}/config.json")
    if (hearing := folder / "preprocessor_config.json").is_file():
        heard = read_json(hearing, "feature extractor", "save the network's feature extractor again")
        heard = {key: heard[key] for key in HEARING if key in heard}
        check_values(heard, str(hearing))
        architecture |= heard
    return folder, architecture


def check_values(architecture: Mapping[str, Any], where: str):
    """Error where a value of an architecture cannot be meant, with its key; where: the file that says it."""
    for key, value in architecture.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        wanted = ""
        if key in ("sampling_rate", "num_mel_bins") and not (isinstance(value, int) and number and value > 0):
            wanted = "a whole number above 0"
        elif (key == "mean" and not number) or (key == "std" and not (number and value > 0)):
            wanted = "a number" + " above 0" * (key == "std")
        elif key == "do_normalize" and not isinstance(value, bool):
            wanted = "true or false"
        elif ("drop" in key or key.endswith("_prob")) and value is not None and not (number and 0 <= value <= 1):
            wanted = "a number in 0 ... 1"
        elif key.endswith("_layers") and number and value > MOST_LAYERS:
            wanted = f"at most {MOST_LAYERS}"
        elif any(isinstance(v, int) and v > LARGEST_SIZE for v in (value if isinstance(value, list) else [value])):
            wanted = f"at most {LARGEST_SIZE}"
        if wanted:
            raise ValueError(f"{where}: {key} must be {wanted}, got {str(value)[:60]!r}")


def architecture_of(source: Source, types: tuple[str, ...], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a network is built by: what its run kept, or its folder says, or its parameters over `defaults`.

    types: the model types that this network can be. Errors: another type, with the known ones; parameters that
    contradict the folder, with both values.
    """
    given = dict(source.architecture or {})
    if source.kept is not None:
        found = dict(source.kept)
    elif source.folder:
        try:
            _, found = read_folder(source.folder)
        except ValueError:
            if not (source.weights_follow and given):
                raise
            found = dict(defaults) | given
    else:
        found = dict(defaults) | given
    check_values(found, source.folder or "params.architecture")
    kind = found.get("model_type", "")
    if kind not in types:
        raise ValueError(f"a network of type '{kind}' cannot be this one{suggest(str(kind), types, 'known')}")
    for key, value in given.items():
        if source.folder and key in found and found[key] != value:
            raise ValueError(
                f"params.architecture says {key}={value!r}, the folder {source.folder} {found[key]!r}: leave it out"
            )
    return found


def kept_architecture(backbone: nn.Module, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """All that builds a backbone anew, whatever defaults a later version of transformers has; values of JSON alone."""
    values = json.loads(backbone.config.to_json_string(use_diff=False))
    values = {k: v for k, v in values.items() if k not in NOT_ARCHITECTURE and v is not None}
    return values | {key: architecture[key] for key in HEARING if key in architecture}


def build_backbone(source: Source, architecture: Mapping[str, Any], unused: tuple[str, ...] = (), **fixed) -> nn.Module:
    """The network below the head, with the folder's weights where `source` names one and no others follow.

    architecture: of `architecture_of`; fixed: keys of the configuration that we decide; unused: prefixes of tensors
    that the network does not need, so that a file may lack them. Errors: keys that the configuration does not know.
    """
    from transformers import AutoConfig, AutoModel

    values = {k: v for k, v in architecture.items() if k != "model_type" and k not in HEARING}
    if "num_mel_bins" in architecture and architecture["model_type"] == AST:
        values["num_mel_bins"] = architecture["num_mel_bins"]
    plain = AutoConfig.for_model(architecture["model_type"]).to_dict()
    for key in (k for k in values if k not in plain and k in (source.architecture or {})):
        raise ValueError(f"params.architecture: a {architecture['model_type']} has no '{key}'{suggest(key, plain)}")
    values = {k: v for k, v in values.items() if k in plain and k not in NOT_ARCHITECTURE}
    try:
        config = AutoConfig.for_model(architecture["model_type"], **values | fixed)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            size = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            raise ValueError(f"this architecture has {size:,} parameters: at most {MOST_PARAMETERS:,} are built")
        if not source.folder or source.weights_follow:
            return AutoModel.from_config(config)
    except ValueError:
        raise
    except Exception as error:  # the library checks types and sizes by classes of its own
        raise ValueError(f"transformers makes no network of this architecture: {error}") from error
    return _loaded(find_folder(source.folder), config, unused, size)


def _check_files(folder: Path, size: int):
    """Error where a folder's weights lie elsewhere, or are far fewer than the network's, which has `size`."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds an adapter of another network: merge it there and save_pretrained the whole")
    for index in folder.glob("*.index.json"):
        named = read_json(index, "index of weights", "save the network again").get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise ValueError(f"{index} has no weight_map of tensors and files: save the network again")
        if odd := sorted({name for name in named.values() if Path(name).name != name or "\\" in name}):
            raise ValueError(f"{index} names files outside its folder ({few(odd)}): weights must lie beside it")
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))  # a parameter takes a byte at least
    if size > 2 * held + 10**6:
        raise ValueError(
            f"{folder}/config.json says a network of {size:,} parameters, and its weights have {held:,} bytes"
        )


def _loaded(folder: Path, config, unused: tuple[str, ...], size: int) -> nn.Module:
    from transformers import AutoModel

    if not list(folder.glob("*.safetensors")):
        held = few(sorted(p.name for p in folder.iterdir()))
        raise ValueError(
            f"{folder} holds no weights in safetensors ({held}): pickled ones are not read; load them where you trust "
            "them and save_pretrained again"
        )
    _check_files(folder, size)
    with _quiet():
        try:
            network, told = AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32,
            )  # fmt: skip
        except Exception as error:  # of the library's readers, of many classes
            raise ValueError(
                f"the network in {folder} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
    prefix, own = f"{network.base_model_prefix}.", {name for name, _ in network.named_children()}
    missing = sorted(k for k in told["missing_keys"] if not k.startswith(unused))
    extra = sorted(k for k in told["unexpected_keys"] if k.startswith(prefix) or k.split(".")[0] in own)
    shapes = sorted(str(key) for key in told["mismatched_keys"])
    named = (("missing from the file", missing), ("not in the network", extra), ("of another shape", shapes))
    if parts := [f"{what}: {few(keys, 8)}" for what, keys in named if keys]:
        raise ValueError(f"the weights in {folder} do not fit its own config.json; {'; '.join(parts)}")
    if odd := sorted(name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()):
        raise ValueError(f"the weights in {folder} are not finite (NaN or infinity): {few(odd)}")
    heads = sorted({k.split(".")[0] for k in told["unexpected_keys"]})
    left = f"; its head is left out ({', '.join(heads)})" if heads else ""
    logger.warning("loaded %d tensors from %s%s", len(network.state_dict()), folder, left)
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's own reports and bars silenced: what they say is said here, and once."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()

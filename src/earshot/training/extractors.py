"""Extractors in training: own networks opened by PyTorch, and every clip's rows computed once and kept in a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from earshot import runs
from earshot.config import Config, load_config
from earshot.data.embeddings import EmbeddingCache, state_hash
from earshot.data.prepared import PreparedData
from earshot.inputs.extractor import BATCH, Extractor, check_rate, found_file
from earshot.inputs.given import Waveform
from earshot.inputs.network import Inputs
from earshot.inputs.waveforms import as_heard
from earshot.models import build_model
from earshot.models.spectrogram_transformer import own_front_end
from earshot.models.transformers_folder import AST, read_folder
from earshot.models.waveform_transformer import waveform_rate
from earshot.models.weights import load_weights, read_state, resolve
from earshot.prediction.backends import ENDINGS, TorchBackend
from earshot.prediction.extractors import OwnNetwork, own_network
from earshot.prediction.graphs import own_graph
from earshot.prediction.predictions import Clip
from earshot.sound.windows import Windowing


def open_run(record: Extractor) -> OwnNetwork:
    """The fold folder of an own run, on the GPU where there is one."""
    import torch

    folder = Path(record.run)
    if not (folder / "best.safetensors").is_file():
        raise ValueError(
            f"{record.kind} run {folder} is no trained fold (it has no best.safetensors): give runs/.../fold0"
        )
    fold = runs.FoldRun(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, config = runs.load_model(fold).to(device), fold.config
    backend = TorchBackend(model, config.inputs(model.inputs), device)
    return own_network(record, backend, config.predict, state_hash(model), str(folder), fold.about["classes"])


def own_rate(record: Extractor) -> int:
    """Hz at which a network of ours that a record names hears; 0 of a foreign one, which does not say it."""
    if record.run and (Path(record.run) / "config.yaml").is_file():
        return runs.FoldRun(Path(record.run)).config.predict.sample_rate
    if record.file.endswith(ENDINGS["onnx"]) and (graph := own_graph(found_file(record.file))) is not None:
        return graph.about["windowing"]["sample_rate"]
    if record.config:
        return load_config(record.config).predict.sample_rate
    return 0


def open_config(record: Extractor) -> OwnNetwork:
    """A network of models.MODELS as a config describes it, with its checkpoint; loaded as strictly as for training."""
    import torch

    config, path = load_config(record.config), resolve(record.weights)
    state = read_state(path)
    model = runs.make_model(config, _classes(config, state), weights_follow=True)
    heard = config.inputs(model.inputs)
    front_end = next((r for r in heard.values() if r.kind == "logmel"), None)
    load_weights(model, path, record.drop, front_end)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = {name: r.to_json() for name, r in heard.items()}
    digest = hashlib.sha256(f"{state_hash(model)} {json.dumps(about, sort_keys=True)}".encode()).hexdigest()[:16]
    backend = TorchBackend(model.eval().to(device), heard, device)
    return own_network(record, backend, config.predict, digest, f"{record.config} with {record.weights}")


def open_folder(record: Extractor) -> OwnNetwork:
    """A network in a folder of transformers, as it was trained to hear; AST on its own filter bank.

    Its windows are those that it was trained on where it has positions (AST); else the record must say them.
    """
    import torch

    folder, architecture = read_folder(record.folder)
    spectrogram = architecture["model_type"] == AST
    own = own_front_end(architecture) if spectrogram else Waveform(sample_rate=waveform_rate(architecture))
    window = record.window_seconds
    if not window and spectrogram:
        window = (architecture["max_length"] - 1) * own.hop / own.sample_rate
    if not window:
        raise ValueError(f"{record.kind} {folder} hears windows of any length: set its window_seconds")
    check_rate(record, own.sample_rate, str(folder))
    key, name = ("logmel", "ast") if spectrogram else ("waveform", "waveform_transformer")
    inputs = Inputs.made({key: own}, (key,), own.sample_rate)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(name, 1, own.bands, {"folder": str(folder)}, heard=inputs).eval().to(device)
    said = f"{state_hash(model.backbone)} {json.dumps([inputs.to_json(), model.architecture], sort_keys=True)}"
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    windowing = Windowing(sample_rate=own.sample_rate, window_seconds=window)
    return own_network(record, TorchBackend(model, inputs, device), windowing, digest, str(folder))


def _classes(config: Config, state: Mapping) -> int:
    """How many classes the network of a checkpoint tells apart: the size of what changes with their number; else 1."""
    import torch

    with torch.device("meta"):
        two, three = (runs.make_model(config, n, weights_follow=True).state_dict() for n in (2, 3))
    for name in (n for n in two if two[n].shape != three[n].shape and n in state):
        axis = next(i for i, (a, b) in enumerate(zip(two[name].shape, three[name].shape)) if a != b)
        return state[name].shape[axis]
    return 1


def extractor_caches(
    inputs: Inputs, data: PreparedData, folder: Path, progress: Callable = iter
) -> dict[str, EmbeddingCache]:
    """The rows of every clip of the data set, for each extractor among the inputs, so that all folds share them."""
    return {name: _cache(inputs[name], inputs, data, folder, progress) for name in inputs.of(of_clip=True)}


def _cache(record: Extractor, inputs: Inputs, data: PreparedData, folder: Path, progress: Callable) -> EmbeddingCache:
    def heard(waveform: np.ndarray) -> np.ndarray:
        return as_heard(waveform, inputs.sample_rate, record)

    return EmbeddingCache.build(
        folder,
        data.whole,
        data.source,
        record.network.embed,
        width=record.network.width,
        about=record.cache_about(),
        sample_rate=inputs.sample_rate,
        segment_samples=record.window_samples,
        every_segment=True,
        batch_size=BATCH,
        progress=progress,
        n_channels=inputs.n_channels,
        heard=heard,
        starts_of=lambda n_samples: np.arange(record.total(n_samples)) * record.stride_samples,
    )


def with_rows(clips: Sequence[Clip], inputs: Inputs, caches: Mapping[str, EmbeddingCache]) -> list[Clip]:
    """The recordings with the cached rows of each extractor, so that inference does not compute them again."""
    if not caches:
        return list(clips)
    return [replace(c, given={inputs[name]: cache[c.clip_id] for name, cache in caches.items()}) for c in clips]

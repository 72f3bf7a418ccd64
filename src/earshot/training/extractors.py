"""Extractors in training: an own run opened by PyTorch, and every clip's rows computed once and kept in a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from earshot import runs
from earshot.data.embeddings import EmbeddingCache, state_hash
from earshot.data.prepared import PreparedData
from earshot.inputs.extractor import BATCH, Extractor
from earshot.inputs.network import Inputs
from earshot.inputs.waveforms import as_heard
from earshot.prediction.backends import TorchBackend
from earshot.prediction.extractors import OwnNetwork, own_network
from earshot.prediction.predictions import Clip


def open_run(record: Extractor) -> OwnNetwork:
    """The fold folder of an own run, on the GPU where there is one."""
    import torch

    folder = Path(record.run)
    if not (folder / "best.safetensors").is_file():
        raise ValueError(f"extractor run {folder} is no trained fold (it has no best.safetensors): give runs/.../fold0")
    fold = runs.FoldRun(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, config = runs.load_model(fold).to(device), fold.config
    backend = TorchBackend(model, config.inputs(model.inputs), device)
    return own_network(record, backend, config.predict, state_hash(model), str(folder))


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

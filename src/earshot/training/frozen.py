"""A frozen extractor in training: what does not go together, and its embeddings computed once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from earshot.config import Config
from earshot.data.embeddings import EmbeddingCache, state_hash
from earshot.data.prepared import PreparedData
from earshot.inputs.torch_front_ends import FrontEnds

logger = logging.getLogger("earshot")


def check_frozen(network: torch.nn.Module, config: Config):
    """Say what a frozen extractor (models.transfer) makes useless: random weights, SpecAugment; what a cache needs."""
    frozen = getattr(network, "frozen", False)
    base_frozen = frozen and hasattr(network, "base")  # a part of cross_task's networks rests, the log-mel's does not
    if config.data.cache == "embedding" and not base_frozen:
        raise ValueError("data.cache=embedding needs a frozen extractor: model.name=transfer with params.freeze true")
    if base_frozen and (config.augment.spec_augment or config.augment.spec_augment_pp):
        raise ValueError(
            "augment.spec_augment (and _pp) acts in training only, and a frozen base stays in eval mode: empty it, "
            "or set model.params.freeze=false"
        )
    base = config.model.params.get("base_params") or {}
    if frozen and not (config.model.weights or base.get("pretrained") or base.get("folder")):
        logger.warning("the frozen base keeps its RANDOM weights: model.weights names no checkpoint")


def extractor_cache(network, config: Config, data: PreparedData, folder: Path, device, progress) -> EmbeddingCache:
    """The base's embeddings of every clip of the data set, so that all folds and heads share them."""
    params, d = config.model.params, config.data
    heard = config.inputs(network.inputs)
    about = {
        "model": {k: v for k, v in params.items() if k.startswith("base")}, "weights": state_hash(network.base),
        "frontends": {name: heard[name].cache_params() for name in heard.of(picture=True)},
    }  # fmt: skip
    extract = FrontEnds(heard).to(device)

    @torch.no_grad()
    def embed(waveform: np.ndarray) -> np.ndarray:
        sounds = [heard.training_sounds(one) for one in waveform]
        inputs = extract({key: torch.from_numpy(np.stack([s[key] for s in sounds])).to(device) for key in sounds[0]})
        return network.embed(**inputs).float().cpu().numpy()

    return EmbeddingCache.build(
        folder,
        data.whole,
        data.source,
        embed,
        width=network.embedding_width,
        about=about,
        sample_rate=d.sample_rate,
        segment_samples=round(d.crop_seconds * d.sample_rate),
        every_segment=d.crop == "random",
        batch_size=config.optim.batch_size,
        progress=progress,
        n_channels=heard.n_channels,
    )

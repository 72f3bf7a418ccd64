"""Own networks as extractors (inputs/extractor.py): a backend that answers with `embedding`, heard as its run hears."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from earshot.inputs.extractor import Extractor, check_rate
from earshot.prediction.backends import open_graph
from earshot.sound.windows import Windowing


@dataclass
class OwnNetwork:
    """A backend of an own run that maps windows of sound to its embedding."""

    backend: object
    window_samples: int
    digest: str
    width: int = 0

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """Compute the embeddings of a batch of windows.

        (B, S) at the run's rate -> (B, D).
        """
        heard = [self.backend.frontends.hear(window) for window in windows]
        inputs = {name: np.stack([one[name] for one in heard]) for name in self.backend.inputs}
        return self.backend.run(inputs)["embedding"]


def own_network(record: Extractor, backend, windowing: Windowing, digest: str, what: str) -> OwnNetwork:
    """The backend as an extractor; an error where it cannot be one or hears otherwise than the record says."""
    check_rate(record, windowing.sample_rate, what)
    if given := [n for n in backend.inputs if not backend.frontends[n].sounds]:
        raise ValueError(f"extractor {what} takes {', '.join(given)} besides the sound: it cannot be an extractor")
    if windowing.n_channels > 1:
        raise ValueError(f"extractor {what} hears two channels: an extractor hears mono")
    size = round(record.window_seconds * record.sample_rate) or windowing.window_samples
    network = OwnNetwork(backend, size, digest)
    silent = backend.frontends.silence(size)
    found = backend.run({name: values[None] for name, values in silent.items()})
    if "embedding" not in found:
        raise ValueError(f"extractor {what} answers with {', '.join(found)}, but with no embedding")
    network.width = found["embedding"].shape[1]
    return network


def open_graph_file(record: Extractor) -> OwnNetwork:
    """An ONNX graph that src/export.py wrote."""
    graph = open_graph(record.file)
    if graph.about["stacked"]:
        raise ValueError(f"{record.file} holds several folds: an extractor is one (export without --together)")
    with open(record.file, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return own_network(record, graph, Windowing(**graph.about["windowing"]), digest, record.file)

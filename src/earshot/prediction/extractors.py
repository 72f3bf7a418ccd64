"""Own networks as extractors (inputs/extractor.py): a backend that answers with `embedding`, heard as its run hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earshot.files import file_digest
from earshot.inputs.extractor import Extractor, check_rate
from earshot.prediction.backends import open_graph
from earshot.sound.windows import Windowing


@dataclass
class OwnNetwork:
    """A backend of an own run that maps windows of sound to its embedding, for a teacher with its logits behind it."""

    backend: object
    window_samples: int
    digest: str
    parts: tuple[str, ...] = ("embedding",)  # embedding, logit
    widths: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return sum(self.widths)

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """Compute the embeddings of a batch of windows.

        (B, S) at the run's rate -> (B, D).
        """
        heard = [self.backend.frontends.hear(window) for window in windows]
        inputs = {name: np.stack([one[name] for one in heard]) for name in self.backend.inputs}
        return np.concatenate(self.taken(self.backend.run(inputs)), axis=1)

    def taken(self, out: dict) -> list[np.ndarray]:
        """The parts of a network's answer, each (B, D); log odds where it gives probabilities alone."""
        logit = out.get("logit")
        if logit is None:
            p = np.clip(out["clipwise_output"], 1e-6, 1 - 1e-6)
            logit = np.log(p / (1 - p))
        return [logit if part == "logit" else out[part] for part in self.parts]


def own_network(
    record: Extractor, backend, windowing: Windowing, digest: str, what: str, classes: Sequence[str] = ()
) -> OwnNetwork:
    """The backend as an extractor; an error where it cannot be one or hears otherwise than the record says."""
    check_rate(record, windowing.sample_rate, what)
    if windowing.level != "recorded":
        others = ", or let its stored answers teach (distill.predictions)" if record.kind == "teacher" else ""
        raise ValueError(
            f"{record.kind} {what} was trained with data.level={windowing.level}, but here it would hear recordings as "
            f"loud as they are: give a run that was trained with data.level=recorded{others}"
        )
    if given := [n for n in backend.inputs if not backend.frontends[n].sounds]:
        raise ValueError(f"{record.kind} {what} takes {', '.join(given)} besides the sound: it cannot be an extractor")
    if windowing.n_channels > 1:
        raise ValueError(f"{record.kind} {what} hears two channels: an extractor hears mono")
    size = round(record.window_seconds * record.sample_rate) or windowing.window_samples
    network = OwnNetwork(backend, size, digest, record.parts, classes=tuple(classes))
    silent = backend.frontends.silence(size)
    found = backend.run({name: values[None] for name, values in silent.items()})
    if "embedding" in record.parts and "embedding" not in found:
        raise ValueError(f"{record.kind} {what} answers with {', '.join(found)}, but with no embedding")
    network.widths = tuple(part.shape[1] for part in network.taken(found))
    return network


def open_graph_file(record: Extractor) -> OwnNetwork:
    """An ONNX graph that src/export.py wrote."""
    graph = open_graph(record.file)
    if graph.about["stacked"]:
        raise ValueError(f"{record.file} holds several folds: an extractor is one (export without --together)")
    windowing = Windowing(**graph.about["windowing"])
    return own_network(record, graph, windowing, file_digest(record.file)[:16], record.file, graph.about["classes"])

"""Transfer to a new task: a network's embedding into new fully connected layers (PANNs, Kong et al. 2020, section V).

`freeze` and no hidden layer is the paper's Freeze_L1, with two hidden layers Freeze_L3; without `freeze` all is
fine-tuned, from scratch where no weights are loaded. The paper names no widths for the hidden layers. Names are those
of the published Transfer_Cnn14: `base.*` and `fc_transfer.*` (hidden layers: `fc_hidden.*`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earshot.inputs.network import Inputs
from earshot.messages import check_choice
from earshot.models.layers import ACTIVATIONS, init_layer, outside_autocast

PROBE_FRAMES, PROBE_SAMPLES = 64, 64 * 320  # an input that every network takes, both inputs of one length
PROBE_SECONDS = 1.0


class Transfer(nn.Module):
    """Inputs of `base`, or its `embedding` (B, D) -> `clipwise_output` (B, K), `logit`, `embedding`.

    A frozen base stays in eval mode (its batch norm statistics and dropout rest), takes no gradient and is run without
    a graph. The base's own head is kept, so that its checkpoint loads strictly, but never trained.
    """

    opened = ("base",)  # its parts are blocks of their own (optim.depth_blocks)
    weights_prefix = "base."  # a checkpoint that training starts from is one of the base

    def __init__(
        self,
        base: nn.Module,
        classes: int,
        n_mels: int,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        activation: str = "softmax",
        freeze: bool = True,
        heard: Inputs | None = None,
    ):
        """heard: what the run hears, which the base is probed with (None: a mono log-mel of `n_mels`, a waveform)."""
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        width, unused = probe_embedding(base, n_mels, heard)
        self.base, self.dropout, self.activation, self.frozen = base, dropout, activation, freeze
        self.inputs, self.pool, self.min_frames = tuple(base.inputs), base.pool, getattr(base, "min_frames", 1)
        self.embedding_width, self.architecture = width, getattr(base, "architecture", None)
        self.dead_parameters = tuple(f"base.{name}" for name in unused)
        self.fc_hidden = nn.ModuleList()
        for units in hidden:
            self.fc_hidden.append(init_layer(nn.Linear(width, units)))
            width = units
        self.fc_transfer = init_layer(nn.Linear(width, classes))
        if freeze:
            base.requires_grad_(False)
        self.train()

    def __setattr__(self, name: str, value):
        """`spec_augment` belongs to the base, which applies it behind its bn0."""
        if name == "spec_augment":
            self.base.spec_augment = value
        else:
            super().__setattr__(name, value)

    @property
    def spec_augment(self) -> nn.Module | None:
        return self.base.spec_augment

    def train(self, mode: bool = True) -> Transfer:
        super().train(mode)
        if self.frozen:
            self.base.eval()
        return self

    def forward(self, embedding: Tensor | None = None, **inputs: Tensor) -> dict[str, Tensor]:
        if embedding is None:
            embedding = self.embed(**inputs)
        x = embedding
        for layer in self.fc_hidden:
            x = F.dropout(F.relu(layer(x)), self.dropout, self.training)
        with outside_autocast(x):
            logit = self.fc_transfer(x.float())
            probability = torch.sigmoid(logit) if self.activation == "sigmoid" else torch.softmax(logit, dim=1)
        return {"clipwise_output": probability, "logit": logit, "embedding": embedding.float()}

    def embed(self, **inputs: Tensor) -> Tensor:
        """Inputs of the base -> its embedding (B, D)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.base(**inputs)["embedding"]


def probe_embedding(base: nn.Module, n_mels: int, heard: Inputs | None = None) -> tuple[int, list[str]]:
    """Find the size of a network's embedding, and the names of the parameters that it does not depend on, by one pass
    in eval mode.

    Errors: a base without `embedding`, or one that reads metadata.
    """
    if "metadata" in base.inputs:
        raise ValueError(f"{type(base).__name__} reads metadata: only a network of sound alone can be transferred")
    names, parameters = zip(*base.named_parameters(), strict=True)
    shapes = dict.fromkeys(base.inputs, (1, PROBE_FRAMES, n_mels)) | {"waveform": (PROBE_SAMPLES,)}
    shapes |= getattr(base, "input_shapes", {})
    shapes |= heard.shapes(round(PROBE_SECONDS * heard.sample_rate)) if heard else {}
    inputs = {n: torch.zeros((1, *shapes[n]), device=parameters[0].device) for n in base.inputs}
    with torch.enable_grad():
        out = base.eval()(**inputs)
    if "embedding" not in out:
        raise ValueError(
            f"{type(base).__name__} returns no 'embedding' (only {', '.join(out)}), so nothing to transfer"
        )
    reached, seen, waiting = set(), set(), [out["embedding"].grad_fn]
    while waiting:  # the graph of the pass, down to its leaves
        step = waiting.pop()
        if step is not None and step not in seen:
            seen.add(step)
            reached.add(id(getattr(step, "variable", None)))
            waiting += [before for before, _ in step.next_functions]
    return out["embedding"].shape[1], [n for n, p in zip(names, parameters, strict=True) if id(p) not in reached]

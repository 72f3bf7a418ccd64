"""A small head on an extractor's rows: embeddings, or the scores of a foreign network mapped to the classes at hand.

`hidden` layers, if any, and one linear layer answer for each row; the answers of a window's rows are pooled to its own.
Without hidden layers and trained by nothing (optim.epochs=0) on weights that src/map_extractor.py wrote, it gives the
foreign network's own scores of the classes that both know.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from earshot.models.layers import SEDHead, init_layer


class ExtractorHead(nn.Module):
    """Input `extractor` (B, N, D) or (B, D) -> the model contract's dict, a segment a row.

    normalise: batch norm of the D values in front of it all (embeddings, not scores); pooling and activation: as
    layers.SEDHead takes them.
    """

    inputs = ("extractor",)
    pool = min_frames = 1
    in_chans = 1
    dead_parameters = ()

    def __init__(
        self,
        classes: int,
        n_mels: int,
        extractor_width: int = 128,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        pooling: str = "max",
        activation: str = "sigmoid",
        normalise: bool = False,
    ):
        super().__init__()
        self.dropout, width = dropout, extractor_width
        self.input_shapes = {"extractor": (2, width)}
        self.bn0 = nn.BatchNorm1d(width) if normalise else None
        self.fc_hidden = nn.ModuleList()
        for units in hidden:
            self.fc_hidden.append(init_layer(nn.Linear(width, units)))
            width = units
        self.head = SEDHead(width, classes, pooling, activation)

    @property
    def pooling(self) -> str:
        return self.head.window_pooling

    def forward(self, extractor: Tensor) -> dict[str, Tensor]:
        rows = extractor if extractor.ndim == 3 else extractor[:, None]
        x = rows if self.bn0 is None else self.bn0(rows.transpose(1, 2)).transpose(1, 2)
        for layer in self.fc_hidden:
            x = F.dropout(F.relu(layer(x)), self.dropout, self.training)
        return {**self.head(x, rows.shape[1], self.pool), "embedding": rows.float().mean(dim=1)}

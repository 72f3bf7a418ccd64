"""When and where a clip was recorded, as numbers a network can use: Time2Vec, a Transformer encoder, a linear path.

Time2Vec (Kazemi et al. 2019) turns a value t into `size` numbers: w0 t + p0, then sin(w t + p), all w and p learned.
Here t counts a column's turns in radians (hour 23 is next to hour 0 for every whole w): 2 pi hour / 24, day / 7, week /
52. At the start w runs through 1 to 4, whole turns, and p is drawn from one turn; w0 t is the share of the turn.
Each value has numbers of its own and becomes one token of the encoder.

Latitude and longitude do not turn and take a path of their own: less PLACE, over SPREAD degrees (5 km, so that a city's
sensors lie within a few units), through one linear layer. They are left out by leaving them out of the columns.

A missing value is NaN. A cyclic one becomes a learned token in place of Time2Vec's, a place of which one coordinate is
missing a learned vector in place of the linear layer's; both are zero until training has met a missing value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from earshot.messages import suggest
from earshot.models.layers import init_layer
from earshot.models.se_trans import Encoder

PERIODS = {"week": 52.0, "day": 7.0, "hour": 24.0}
PLACE = {"latitude": 40.73, "longitude": -73.98}  # degrees: New York, where SONYC's sensors are
SPREAD = 0.05  # degrees
HARMONICS = 4


class Time2Vec(nn.Module):
    """Turn times of day, week or year into learned waves.

    (B, M) values of columns that repeat after `periods` (M,) -> (B, M, size); NaN gives the learned `missing`.
    """

    def __init__(self, periods: tuple[float, ...], size: int):
        super().__init__()
        self.register_buffer("turn", 2 * math.pi / torch.tensor(periods), persistent=False)
        frequency = (1.0 + torch.arange(size - 1) % HARMONICS).repeat(len(periods), 1)
        linear = torch.full((len(periods), 1), 1 / (2 * math.pi))
        self.frequency = nn.Parameter(torch.cat([linear, frequency], dim=1))
        phase = torch.rand(len(periods), size) * 2 * math.pi
        phase[:, 0] = 0
        self.phase = nn.Parameter(phase)
        self.missing = nn.Parameter(torch.zeros(len(periods), size))

    def forward(self, values: Tensor) -> Tensor:
        known = torch.nan_to_num(values.float()) * self.turn
        angle = known[:, :, None] * self.frequency + self.phase
        vector = torch.cat([angle[:, :, :1], angle[:, :, 1:].sin()], dim=2)
        return torch.where(values.isnan()[:, :, None], self.missing, vector)


class PlacePath(nn.Module):
    """Turn a place on Earth into features.

    (B, P) degrees of `columns` -> (B, width), linear; a NaN in a row gives the learned `missing`.
    """

    def __init__(self, columns: tuple[str, ...], width: int):
        super().__init__()
        self.register_buffer("centre", torch.tensor([PLACE[c] for c in columns]), persistent=False)
        self.linear = init_layer(nn.Linear(len(columns), width))
        self.missing = nn.Parameter(torch.zeros(width))

    def forward(self, degrees: Tensor) -> Tensor:
        scaled = torch.nan_to_num((degrees.float() - self.centre) / SPREAD)
        return torch.where(degrees.isnan().any(dim=1, keepdim=True), self.missing, self.linear(scaled))


class MetadataEncoder(nn.Module):
    """Turn the columns of a clip into features.

    (B, M) values of `columns`, in their order -> (B, width): tokens of the cyclic ones, joined, then the place.

    drop: in training, so often a value of a clip counts as missing, so that the network learns to do without.
    """

    def __init__(
        self, columns: tuple[str, ...], size: int, layers: int, heads: int, ffn: int, place_width: int, dropout: float,
        drop: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        unknown = [c for c in columns if c not in PERIODS and c not in PLACE]
        if unknown or not columns or len(set(columns)) < len(columns):
            hint = suggest(unknown[0], [*PERIODS, *PLACE]) if unknown else ""
            raise ValueError(
                f"columns must be some of {', '.join([*PERIODS, *PLACE])}, each once, got {list(columns)}{hint}"
            )
        if size % heads:
            raise ValueError(f"metadata_size {size} must be a multiple of heads {heads}")
        self.columns, self.drop, self.width = tuple(columns), drop, 0
        cyclic, place = ([i for i, c in enumerate(columns) if c in known] for known in (PERIODS, PLACE))
        self.register_buffer("cyclic_index", torch.tensor(cyclic, dtype=torch.long), persistent=False)
        self.register_buffer("place_index", torch.tensor(place, dtype=torch.long), persistent=False)
        if cyclic:
            self.time2vec = Time2Vec(tuple(PERIODS[columns[i]] for i in cyclic), size)
            self.encoder = Encoder(layers, size, heads, ffn, dropout)
            self.width += len(cyclic) * size
        if place:
            self.place = PlacePath(tuple(columns[i] for i in place), place_width)
            self.width += place_width

    def forward(self, metadata: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and (metadata.ndim != 2 or metadata.shape[1] != len(self.columns)):
            raise ValueError(
                f"metadata must be (batch, {len(self.columns)}), got {tuple(metadata.shape)}: data.metadata must name "
                f"the network's columns, in their order: {', '.join(self.columns)}"
            )
        if self.training and self.drop:
            dropped = torch.rand(metadata.shape, device=metadata.device) < self.drop
            metadata = metadata.masked_fill(dropped, math.nan)
        parts = []
        if hasattr(self, "time2vec"):
            tokens = self.time2vec(metadata.index_select(1, self.cyclic_index))
            parts.append(self.encoder(tokens).flatten(1))
        if hasattr(self, "place"):
            parts.append(self.place(metadata.index_select(1, self.place_index)))
        return torch.cat(parts, dim=1)

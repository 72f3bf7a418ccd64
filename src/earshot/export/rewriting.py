"""A float32 ONNX graph -> one that answers the same by half of the multiplications, where it has wide convolutions.

ONNX Runtime computes a convolution of 3 x 3 at the processor's arithmetic limit; Winograd's minimal filtering needs
less arithmetic. It is written here along time alone, F(4, 3), out of convolutions that stay in the runtime's own
layout: four frames of output take six products of three taps (over frequency) in place of twelve. Sums are rearranged
and nothing else, so answers agree as float32 does: the gate of parity is held against the graph that is written.
Lengths stay free.

Sources: Winograd, Arithmetic Complexity of Computations (1980); Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks (2016), from which the points 0, 1, -1, 2, -2 and infinity are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TILE = 4  # outputs of a tile along time; it takes TILE + 2 products in place of 3 * TILE
INPUT = np.array([  # rows of a tile of the input -> its six components
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
], np.float64)  # fmt: skip
KERNEL = np.array([  # three taps -> their six components
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
], np.float64)  # fmt: skip
LEAST_CHANNELS = 64  # in and out: of fewer the sums cost what the products save
# of a convolution, which has twice as many then: opening a graph takes three times its weights
MOST_WEIGHTS = 6_000_000


class _Draft:
    """An onnx.ModelProto that is being rewritten: who makes and takes each tensor, and constants by name."""

    def __init__(self, model):
        import onnx

        self.onnx, self.graph = onnx, model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        self.outputs = {t.name for t in self.graph.output}
        self.nodes: list = []

    def takers(self) -> dict[str, list]:
        """Nodes that take each tensor."""
        found = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                found[name].append(node)
        return found

    def constant(self, name: str, values: np.ndarray) -> str:
        """The name of a constant, which is added where it is new."""
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(values, name)
            self.graph.initializer.append(self.constants[name])
        return name

    def values(self, name: str) -> np.ndarray:
        return self.onnx.numpy_helper.to_array(self.constants[name])

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes) -> str:
        """A new node, named by what it gives."""
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], f"{output}/{kind}", **attributes))
        return output

    def close(self, dropped: set[int]):
        """Put new nodes in place of those (by id) that are dropped, and forget constants that nobody takes."""
        del self.graph.node[:]
        self.graph.node.extend(node for node in self.nodes if id(node) not in dropped)
        taken = {name for node in self.graph.node for name in node.input}
        kept = [t for t in self.graph.initializer if t.name in taken]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def filtered(path: Path) -> tuple[Path, int]:
    """Write the graph with minimal filtering beside it.

    Its path, or the path given where nothing suits, and how many convolutions were rewritten.
    """
    import onnx

    model = onnx.load(path)
    changed = filter_minimally(model)
    if not changed:
        return path, 0
    out = path.with_name(f"{path.stem}_filtered.onnx")
    onnx.save(model, out)
    return out, changed


def filter_minimally(model) -> int:
    """Have the wide 3 x 3 convolutions of an onnx.ModelProto computed by minimal filtering, in place; how many."""
    g = _Draft(model)
    takers, done, dropped = g.takers(), 0, set()
    for node in list(model.graph.node):
        if id(node) in dropped:
            continue
        if not _suits(g, node):
            g.nodes.append(node)
            continue
        given = node.output[0]
        after = takers[given]
        relu = after[0] if len(after) == 1 and after[0].op_type == "Relu" and given not in g.outputs else None
        if relu is not None:
            dropped.add(id(relu))
        _convolve(g, node, given if relu is None else relu.output[0], relu is not None)
        done += 1
    g.close(dropped)
    return done


def _suits(g: _Draft, node) -> bool:
    """Whether it is a dense 3 x 3 convolution of constant weights that keeps the size, and is wide enough to gain."""
    if node.op_type != "Conv" or any(name not in g.constants for name in node.input[1:]):
        return False
    options = {a.name: list(a.ints) or a.i for a in node.attribute}
    shape = list(g.constants[node.input[1]].dims)
    plain = options.get("strides", [1, 1]) == [1, 1] == options.get("dilations", [1, 1])
    if len(shape) != 4 or shape[2:] != [3, 3] or not plain or options.get("group", 1) != 1:
        return False
    return (
        options.get("pads") == [1, 1, 1, 1]
        and min(shape[:2]) >= LEAST_CHANNELS
        and 9 * shape[0] * shape[1] <= MOST_WEIGHTS
    )


def _convolve(g: _Draft, node, output: str, relu: bool):
    """The convolution `node`, and the rectifier behind it, as minimal filtering along time that ends in `output`."""
    heard, name = node.input[0], node.name or node.output[0]
    kernel = g.values(node.input[1]).astype(np.float64)  # (M, C, 3, 3), time before frequency
    wide, channels = kernel.shape[:2]
    bias = g.values(node.input[2]) if len(node.input) > 2 else np.zeros(wide, np.float32)
    parts = []
    for k, (rows, taps) in enumerate(zip(INPUT, KERNEL, strict=True)):
        # a tile starts a frame before its first output; what lacks at the end is silence, cut off again
        weights = np.broadcast_to(rows[:, None], (channels, 1, TILE + 2, 1)).astype(np.float32)
        component = g.add(
            "Conv", [heard, g.constant(f"winograd.{channels}.{k}", weights)], f"{name}/heard{k}", group=channels,
            kernel_shape=[TILE + 2, 1], strides=[TILE, 1], pads=[1, 0, TILE, 0],
        )  # fmt: skip
        own = np.einsum("i,mcif->mcf", taps, kernel)[:, :, None].astype(np.float32)
        given = [component, g.constant(f"{node.input[1]}.{k}", own)]
        if k == 1:  # the one component that every output has once
            given.append(g.constant(f"{node.input[1]}.bias", bias))
        parts.append(g.add("Conv", given, f"{name}/part{k}", kernel_shape=[1, 3], pads=[0, 1, 0, 1]))
    rows = _combined(g, name, parts, wide)
    if relu:
        rows = [g.add("Relu", [row], f"{row}/relu") for row in rows]
    _join(g, name, rows, heard, wide, output)


def _combined(g: _Draft, name: str, parts: list[str], wide: int) -> list[str]:
    """Six products of a tile -> its four outputs; sums with a factor are convolutions, which stay in one layout."""

    def plus(label: str, part: str, other: str, factor: float = 1.0) -> str:
        if factor != 1:
            weights = np.full((wide, 1, 1, 1), factor, np.float32)
            of = g.constant(f"winograd.times.{wide}.{factor:g}", weights)
            part = g.add("Conv", [part, of], f"{name}/{label}.times", group=wide, kernel_shape=[1, 1])
        return g.add("Add", [part, other], f"{name}/{label}")

    ones, twos = plus("ones", parts[1], parts[2]), plus("twos", parts[3], parts[4])
    one, two = plus("one", parts[2], parts[1], -1), plus("two", parts[4], parts[3], -1)
    return [
        plus("row0", parts[0], plus("both", ones, twos)),
        plus("row1", two, one, 2),
        plus("row2", twos, ones, 4),
        plus("row3", parts[5], plus("odd", two, one, 8)),
    ]


def _join(g: _Draft, name: str, rows: list[str], heard: str, wide: int, output: str):
    """Outputs by their place in a tile, (B, M, T / 4, F) each -> (B, M, T, F), with the length of what was heard."""
    beside = g.add("Concat", rows, f"{name}/beside", axis=3)
    shape = g.add("Shape", [heard], f"{name}/shape", start=2, end=4)
    pick = [g.constant(f"winograd.{k}", np.array([k], np.int64)) for k in range(3)]
    length = g.add("Slice", [shape, pick[0], pick[1]], f"{name}/length")
    bands = g.add("Slice", [shape, pick[1], pick[2]], f"{name}/bands")
    lead = g.constant(f"winograd.lead.{wide}", np.array([0, wide, -1], np.int64))
    whole = g.add("Concat", [lead, bands], f"{name}/whole", axis=0)
    long = g.add("Reshape", [beside, whole], f"{name}/long")
    axis = g.constant("winograd.axis", np.array([2], np.int64))
    g.add("Slice", [long, pick[0], length, axis], output)

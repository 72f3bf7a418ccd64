"""What is asked of every network (see models/__init__.py): what it declares, and the shapes that it answers with.

A network of one's own meets this first: what has an obvious value is filled in, all else is one error that says what
to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

WHERE = "docs/extending.md has a network that does"


def declared(name: str, network: nn.Module) -> nn.Module:
    """The network itself, with what it left out: `pool` 1, `min_frames` a segment, no `dead_parameters`.

    Errors: no `inputs`, or `inputs` that are no names.
    """
    inputs = getattr(network, "inputs", None)
    if isinstance(inputs, str) or not isinstance(inputs, Sequence) or not inputs:
        raise ValueError(
            f"model {name} does not say what it reads: its class needs `inputs`, the names of its forward's arguments, "
            f'such as inputs = ("logmel",), not {inputs!r}; {WHERE}'
        )
    for key, value in (("pool", 1), ("min_frames", getattr(network, "pool", 1)), ("dead_parameters", ())):
        if not hasattr(network, key):
            setattr(network, key, value)
    return network


def check_answers(name: str, network: nn.Module, shapes: Mapping[str, Sequence[int]], classes: int, frames: int = 0):
    """Error where the shapes of the answers to one clip, {output: (1, ...)}, are not the contract's.

    frames: of the picture that was heard; 0 where there is none, or several.
    """
    wrong = _wrong_answers(network, {key: tuple(shape) for key, shape in shapes.items()}, classes, frames)
    if wrong:
        raise ValueError(f"model {name}: {wrong}; {WHERE}")


def _wrong_answers(network: nn.Module, shapes: Mapping[str, tuple], classes: int, frames: int) -> str:
    """What is wrong with them, '' where nothing is."""
    if "clipwise_output" not in shapes:
        found = ", ".join(shapes) or "no named tensors"
        return f"its forward gives {found}, not a dict with `clipwise_output`, probabilities (clips, classes)"
    for key in ("clipwise_output", "logit"):
        if shapes.get(key, (1, classes)) != (1, classes):
            return f"`{key}` of one clip is {shapes[key]}, not {(1, classes)}: (clips, classes)"
    if len(shapes.get("embedding", (1, 1))) != 2:
        return f"`embedding` of one clip is {shapes['embedding']}, not (clips, width)"
    if "segmentwise_output" not in shapes:
        alone = "it gives `framewise_output` and no `segmentwise_output`: layers.segment_outputs gives both"
        return alone if "framewise_output" in shapes else ""
    if not frames:
        return ""
    heard = shapes.get("framewise_output", (1, frames))[1]
    if heard != frames:
        return f"`framewise_output` has {heard} frames of the {frames} that it heard"
    segments, pool = shapes["segmentwise_output"][1], network.pool
    if not max(1, frames // pool) <= segments <= -(-max(frames, network.min_frames) // pool):
        return f"{segments} segments of {frames} frames are not those of the `pool` of {pool} frames that it declares"
    return ""

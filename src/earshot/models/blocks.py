"""A network as blocks from the input to the head: for layer-wise learning rates and gradual unfreezing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Block:
    """A step of depth: modules, and those of their parameters that train."""

    name: str  # of the modules, joined by spaces
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]


def depth_blocks(model: nn.Module) -> list[Block]:
    """Blocks with something to train, from the input to the head: the model's children in the order they were made.

    A container (Sequential, ModuleList) gives its children, and so does a child that the model names in `opened`. One
    without a matrix (a batch norm) belongs to the block before it, the first to the one after; parameters of no child
    belong to the first block.
    """
    parts: list[list[tuple[str, nn.Module]]] = []
    for name, module in _parts(model):
        if not _trained(module):
            continue
        if not parts or (_has_matrix(module) and any(_has_matrix(m) for _, m in parts[-1])):
            parts.append([])
        parts[-1].append((name, module))
    held = {id(p) for part in parts for _, module in part for p in _trained(module)}
    rest = tuple(p for p in _trained(model) if id(p) not in held)
    blocks = []
    for part in parts or [[]]:
        names, modules = zip(*part, strict=True) if part else ((), ())
        blocks.append(Block(" ".join(names), modules, rest + tuple(p for m in modules for p in _trained(m))))
        rest = ()
    return blocks


def _parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    opened = getattr(module, "opened", ())
    for name, child in module.named_children():
        if name in opened:
            yield from _parts(child, f"{prefix}{name}.")
        elif isinstance(child, nn.Sequential | nn.ModuleList):
            yield from ((f"{prefix}{name}.{inner}", part) for inner, part in child.named_children())
        else:
            yield prefix + name, child


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _has_matrix(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in _trained(module))


def unfreeze(blocks: Sequence[Block], trained: int) -> None:
    """Let the last `trained` blocks learn; the others take no gradient, and their batch norms rest in eval mode."""
    for above, block in enumerate(reversed(blocks)):
        learns = above < trained
        for parameter in block.parameters:
            parameter.requires_grad_(learns)
        if not learns:
            for module in block.modules:
                module.eval()

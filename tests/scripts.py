"""How tests start our scripts: as their user does, in this process."""

import contextlib
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from accelerate.state import AcceleratorState, GradientState
from matplotlib.figure import Figure

# a PNG of one pixel
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def run(script, *arguments, draw=False):
    """Call the main() of an imported script with a command line, as a process of its own would: state of an earlier
    run in this process (Accelerate keeps precision and device globally) is forgotten first.

    Figures are filled, but their axes made, laid out and drawn with `draw` only, which takes longer than training a
    tiny network: else they are filled on axes of earlier figures, and their files are a pixel.
    """
    forget_runs()
    old, sys.argv = sys.argv, [script.__name__, *map(str, arguments)]
    try:
        if draw:
            script.main()
        else:
            with (
                mock.patch("matplotlib.figure.Figure.savefig", write_pixel),
                mock.patch("matplotlib.figure.Figure.subplots", used_axes),
                mock.patch("earshot.pictures.folds.no_formulas", contextlib.nullcontext),
            ):
                script.main()
    finally:
        sys.argv = old


KEPT_AXES: dict[tuple[int, int], np.ndarray] = {}
MAKE_AXES = Figure.subplots


def used_axes(figure: Figure, rows: int, columns: int, squeeze: bool) -> np.ndarray:
    """Axes of an earlier figure of as many, emptied: making them takes most of a picture that nobody looks at.

    One alone is made anew: a colour bar takes a part of it, for good.
    """
    assert not squeeze
    if rows * columns == 1:
        return MAKE_AXES(figure, rows, columns, squeeze=False)
    if (rows, columns) not in KEPT_AXES:
        KEPT_AXES[rows, columns] = MAKE_AXES(Figure(), rows, columns, squeeze=False)
    for axis in KEPT_AXES[rows, columns].flat:
        for artist in list(axis._children):
            artist.remove()
        axis.set(xscale="linear", yscale="linear")
    return KEPT_AXES[rows, columns]


def forget_runs():
    """Put away what an earlier run in this process left: Accelerate keeps precision and device globally."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def write_pixel(figure, path, **_):
    Path(path).write_bytes(PIXEL)
